"""The importer and the graph builders together against the published parameter counts of the shipped models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from simulator import catalog
from simulator.graph.build import model_from_architecture
from simulator.importers.hf_config import architecture_from_config
from simulator.spec.loader import load, read_mapping
from simulator.spec.model import ModelSpec

PATHS = [path for path in catalog.files("model") if "config" in read_mapping(path)]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_count_is_the_published_one(path: Path) -> None:
    spec = load(path, ModelSpec)
    assert spec.config is not None
    model = model_from_architecture(architecture_from_config(spec.config, spec.name))
    assert model.parameters() == pytest.approx(spec.parameters, rel=0.005)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_file_is_complete(path: Path) -> None:
    spec = load(path, ModelSpec)
    assert spec.name == path.stem
    assert spec.sources
    assert spec.license or "paper" in spec.sources
    for source in spec.sources.values():
        assert source.kind != "assumed" or spec.notes


def test_names_and_aliases_do_not_clash() -> None:
    entries = catalog.index("model")
    for path in PATHS:
        for name in [path.stem, *read_mapping(path).get("aliases", [])]:
            assert Path(entries[catalog.normal(name)]).stem == path.stem


def test_there_are_enough_models() -> None:
    assert len(PATHS) >= 250


def test_reading_needs_no_network() -> None:
    """In a process of its own: other tests may have imported torch."""
    code = """
import socket, sys
from simulator import catalog
from simulator.importers.hf_config import architecture_from_config
from simulator.spec.loader import load
from simulator.spec.model import ModelSpec

def refuse(*args, **named):
    raise AssertionError("opened a socket")

socket.socket = refuse
for path in catalog.files("model"):
    spec = load(path, ModelSpec)
    if spec.config is not None:
        architecture_from_config(spec.config, spec.name)
assert not {"transformers", "torch"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
