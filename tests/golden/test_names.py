"""Every name that a measured table uses for a device or a network means one, whatever its spelling."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator import catalog
from simulator.mapping.machine import load_machine
from simulator.scenario import load_model

HERE = Path(__file__).parent


def listed(name: str) -> list[str]:
    return [line for line in (HERE / name).read_text(encoding="utf-8").splitlines() if line]


HARDWARE = listed("hardware_names.txt")
MODELS = listed("model_names.txt")


@pytest.mark.parametrize("name", HARDWARE)
def test_device_names_resolve(name: str) -> None:
    machine = load_machine(name)
    assert machine.units
    assert machine.name == catalog.find("hardware", name).stem


@pytest.mark.parametrize("name", MODELS)
def test_model_names_resolve(name: str) -> None:
    model = load_model(name)
    assert model.parameters() > 0
    assert catalog.find("model", name).stem in catalog.names("model")


@pytest.mark.parametrize("name", ["A100", "H100", "RTX 4090", "Mixtral-8x7B", "Llama-3.1-8B"])
def test_spelling_does_not_matter(name: str) -> None:
    kind: catalog.Kind = "model" if "x7b" in name.lower() or "llama" in name.lower() else "hardware"
    wanted = catalog.find(kind, name)
    for spelling in (name.lower(), name.upper(), name.replace("-", "_"), name.replace("-", " "), f" {name} "):
        assert catalog.find(kind, spelling) == wanted


def test_lists_are_sorted_and_without_repeats() -> None:
    for names in (HARDWARE, MODELS):
        assert names == sorted(set(names))


@pytest.mark.parametrize("kind", ["hardware", "model", "engine", "technique"])
def test_every_file_is_found_by_its_own_name(kind: catalog.Kind) -> None:
    for name in catalog.names(kind):
        assert catalog.find(kind, name).stem == name
