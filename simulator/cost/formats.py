"""In which number format a unit does an op's work. Knows no rates, and nothing of how operands are stored."""

from __future__ import annotations

from simulator.graph.op import BITS, Op
from simulator.mapping.machine import Unit

_WIDER: dict[str, tuple[str, ...]] = {
    "int1": ("int2", "int4", "int8", "fp16", "bf16", "tf32", "fp32"),
    "int2": ("int4", "int8", "fp16", "bf16", "tf32", "fp32"),
    "int3": ("int4", "int8", "fp16", "bf16", "tf32", "fp32"),
    "int4": ("int8", "fp16", "bf16", "tf32", "fp32"),
    "int8": ("int16", "fp16", "bf16", "tf32", "fp32", "int32"),
    "int16": ("fp32", "int32"),
    "fp4": ("fp6", "fp8", "fp16", "bf16", "tf32", "fp32"),
    "fp6": ("fp8", "fp16", "bf16", "tf32", "fp32"),
    "fp8": ("fp16", "bf16", "tf32", "fp32"),
    "fp16": ("bf16", "tf32", "fp32"),
    "bf16": ("fp16", "tf32", "fp32"),
    "tf32": ("fp32",),
    "fp32": ("fp64",),
    "int32": ("fp32", "fp64"),
    "fp64": (),
}
"""Formats that do the work of one that a unit lacks, nearest first. TF32 has to be asked for."""


def works_in_fp8(op: Op) -> bool:
    """Whether an op is attention over a cache in FP8, whose kernels round the queries to FP8 as well."""
    return op.kind == "attention" and any(t.role == "kv" and t.dtype == "fp8" for t in op.tensors)


def multiplied(op: Op) -> str:
    """The format an op multiplies in."""
    return "fp8" if works_in_fp8(op) else op.dtype


def usable_dtype(dtype: str, unit: Unit) -> str | None:
    """The format in which a unit does work of `dtype`: the fastest of its own and the wider ones; None if there is none."""
    known = [candidate for candidate in (dtype, *_WIDER.get(dtype, ())) if candidate in unit.peak_flop_per_s]
    if not known:
        return None
    wider = [candidate for candidate in known if BITS[candidate] > BITS[known[0]]]
    return max([known[0], *wider], key=lambda candidate: unit.peak_flop_per_s[candidate])
