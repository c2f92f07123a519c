"""A small valid device, model, engine, technique and system file, to be spoilt one line at a time."""

from __future__ import annotations

from pathlib import Path

DEVICE = """\
name: box
title: Box
class: gpu
aliases: [Boxy]
default_source: ds
sources:
  ds: {kind: datasheet, ref: made for a test}
compute:
  - name: tensor
    kind: matrix
    count: 16
    peak: {bf16: 100 TFLOP/s}
  - name: lanes
    kind: vector
    count: 16
    peak: {bf16: 10 TFLOP/s, fp32: 10 TFLOP/s}
memory:
  - name: hbm
    kind: main
    capacity: 80 GB
    bandwidth: 2 TB/s
links:
  - {name: wire, to: peer, bandwidth: 100 GB/s}
power: {tdp: 400 W, idle: 50 W}
"""

DRIVE = """\
name: drive
title: Drive
class: storage
default_source: ds
sources:
  ds: {kind: datasheet, ref: made for a test}
memory:
  - name: flash
    kind: storage
    capacity: 2 TB
    bandwidth: 7 GB/s
    holds: [weight, kv]
"""

SYSTEM = """\
name: pair
title: Pair of boxes
class: system
default_source: ds
sources:
  ds: {kind: datasheet, ref: made for a test}
main: gpu
parts:
  - {name: gpu, device: box, count: 2}
  - {name: disk, device: drive, count: 1, computes: false}
links:
  - {name: pcie, between: [gpu, disk], bandwidth: 5 GB/s}
"""

MODEL = """\
name: toy
title: Toy
aliases: [org/toy]
parameters: 1000
sources:
  hf: {kind: datasheet, ref: made for a test}
config:
  model_type: llama
  hidden_size: 512
  intermediate_size: 1024
  num_hidden_layers: 4
  num_attention_heads: 8
  num_key_value_heads: 4
  vocab_size: 1000
  max_position_embeddings: 2048
  torch_dtype: bfloat16
"""

TECHNIQUE = """\
name: narrow
title: Narrow
parameters: {bits: int4}
apply:
  - quantization.weights: {dtype: $bits, group: 128}
"""


class Library:
    """A folder of the user's own files, searched before the shipped ones."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, place: str, text: str) -> Path:
        """The file at `place`, below the folder."""
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def device(self, *changes: tuple[str, str], name: str = "box") -> Path:
        """The device file with each (old, new) replaced."""
        return self.write(f"hardware/gpu/{name}.yaml", spoilt(DEVICE, *changes))


def spoilt(text: str, *changes: tuple[str, str]) -> str:
    """`text` with each (old, new) replaced once."""
    for old, new in changes:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    return text
