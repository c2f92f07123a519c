"""Every shipped engine, calibration, technique and device loads, and every device that computes can be asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator import catalog
from simulator.cost.efficiency import find_calibration, load_engine
from simulator.errors import ScenarioError, UnsupportedError
from simulator.graph.architecture import Architecture, Attention, Block, FeedForward
from simulator.graph.build import model_from_architecture
from simulator.mapping.machine import Machine, load_machine
from simulator.predict import Predictor, predict
from simulator.result import Prediction
from simulator.scenario import Resolved, Scenario, load_model
from simulator.spec.calibration import Calibration
from simulator.spec.engine import EngineSpec
from simulator.spec.hardware import DeviceClass
from simulator.spec.loader import load
from simulator.spec.technique import TechniqueSpec
from simulator.techniques.apply import with_file
from simulator.techniques.parallel import Parallelism
from simulator.techniques.recipe import Recipe

CLASSES: tuple[str, ...] = DeviceClass.__args__  # type: ignore[attr-defined]
HARDWARE = catalog.names("hardware")
COMPUTING = [name for name in HARDWARE if load_machine(name).units]
SMALL_BYTES = 17e9


def stem(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", list(catalog.files("engine")), ids=stem)
def test_engines_load(path: Path) -> None:
    spec = load(path, EngineSpec)
    assert spec.name == path.stem
    assert load_engine(spec.name).name == spec.name
    for name in (spec.name, *spec.aliases):
        assert load_engine(name.upper()).name == spec.name
        assert load_engine(f"{name.upper()} 999.9").family == (spec.release.of if spec.release else spec.name)
    assert 0 < spec.memory_fraction.value <= 1
    assert 0 < spec.compute_factor.value <= 1
    assert 0 < spec.bandwidth_factor.value <= 1
    assert spec.max_batched_tokens.value >= 1


@pytest.mark.parametrize("path", list(catalog.files("calibration")), ids=stem)
def test_calibrations_are_physical(path: Path) -> None:
    spec = load(path, Calibration)
    assert spec.name == path.stem
    assert load_engine(spec.default_engine)
    assert spec.devices or spec.architectures or spec.classes
    for device in spec.devices:
        assert catalog.find("hardware", device).stem == device
    own = spec.engines.values()
    attentions = [spec.attention, *(engine.attention for engine in own if engine.attention)]
    experts = [spec.experts, *(engine.experts for engine in own if engine.experts)]
    shares = [
        spec.gemm.compute, spec.gemm.bandwidth, spec.gemm.vector_bandwidth, spec.elementwise_bandwidth,
        spec.scan_compute, spec.cache_bandwidth, spec.link_bandwidth, spec.saturating_share,
        *(share for a in attentions for share in (a.prefill.compute, a.prefill.bandwidth, a.decode.bandwidth)),
        *(share for part in experts for share in (part.compute, part.bandwidth)),
        *(engine.narrow_compute for engine in own if engine.narrow_compute),
        *(
            share
            for engine in own
            if engine.tabled
            for share in (engine.tabled.compute, engine.tabled.bandwidth, engine.tabled.cache_bandwidth)
        ),
    ]  # fmt: skip
    assert all(0 < share.value <= 1 for share in shares)
    assert all(load_engine(name).name == name for name in spec.engines)
    assert spec.sharpness.value >= 1


@pytest.mark.parametrize("device_class", CLASSES)
def test_every_class_finds_a_calibration(device_class: str) -> None:
    covered = {name for path in catalog.files("calibration") for name in load(path, Calibration).classes}
    assert device_class in covered


@pytest.mark.parametrize("path", list(catalog.files("technique")), ids=stem)
def test_techniques_apply(path: Path) -> None:
    spec = load(path, TechniqueSpec)
    assert spec.name == path.stem
    recipe = with_file(Recipe(load_model(spec.model or "llama-3.1-8b")), path, {})
    assert recipe.model.graph.parameters() > 0
    if spec.paper:
        assert spec.title


def tiny(hardware: str, engine: str) -> Prediction:
    """A network of 24,000 parameters in 8 bits, which fits a microcontroller."""
    block = Block(Attention(2, 2, 16), FeedForward(64), 2)
    model = model_from_architecture(Architecture("tiny", "tiny", 64, 32, (block,), None, dtype="int8"))
    machine = load_machine(hardware)
    scenario = Scenario("llama-3.1-8b", hardware, tp=1)
    parts = Resolved(scenario, model, machine, load_engine(engine), find_calibration(machine), Parallelism())
    return Predictor(parts).predict(1, 8, 4)


def homeless(machine: Machine) -> list[str]:
    """Roles that no memory holds which some unit reaches."""
    return [
        role
        for role in ("weight", "kv", "activation")
        if not any(
            role in memory.holds and any(unit.read_bytes_per_s[position] > 0 for unit in machine.units)
            for position, memory in enumerate(machine.memories)
        )
    ]


def ask(hardware: str, engine: str) -> Prediction | None:
    """A prediction; None where the device is said to be unable to run a network by itself."""
    machine = load_machine(hardware)
    room = sum(memory.capacity_bytes for memory in machine.memories if "weight" in memory.holds)
    try:
        if room < SMALL_BYTES:
            return tiny(hardware, engine)
        return predict(model="llama-3.1-8b", hardware=hardware, engine=engine, tp=1, input_tokens=64, output_tokens=8)
    except (UnsupportedError, ScenarioError):
        return None


@pytest.mark.parametrize("hardware", COMPUTING)
def test_every_computing_device_predicts(hardware: str) -> None:
    machine = load_machine(hardware)
    for engine in ("ideal", machine.engine or find_calibration(machine).default_engine):
        answer = ask(hardware, engine)
        if answer is None:
            # A memory that computes a few kinds of op is a part of systems, not a machine for whole networks.
            assert machine.device_class in ("pim", "csd") or homeless(machine)
            continue
        assert not homeless(machine), f"no memory may hold {homeless(machine)}, and still it is predicted"
        assert 0 < answer.ttft_s <= answer.e2el_s < 1e6
        assert answer.energy_j_per_output_token >= 0
        assert answer.capacity_bytes > 0


@pytest.mark.parametrize("hardware", [name for name in HARDWARE if name not in COMPUTING])
def test_devices_that_do_not_compute_only_store(hardware: str) -> None:
    assert load_machine(hardware).device_class in ("storage", "csd")
