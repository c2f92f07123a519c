"""What a prediction is asked for: a model, a machine, an engine, a shape of work and a division among devices.

Resolves names to objects and refuses what cannot be, before anything is computed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.errors import ScenarioError

if TYPE_CHECKING:
    from simulator.cost.efficiency import Engine
    from simulator.graph.build import Model
    from simulator.mapping.machine import Machine
    from simulator.spec.calibration import Calibration
    from simulator.techniques.parallel import Parallelism
    from simulator.techniques.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Scenario:
    """One question, by names."""

    model: str
    hardware: str
    batch: int = 1
    input_tokens: int = 512
    output_tokens: int = 128
    engine: str | None = None
    """None: the engine that the system or the device's calibration names."""
    devices: int | None = None
    """None: tp x pp x dp; on a system, all that can be used."""
    tp: int | None = None
    """None: all devices that pp and dp leave over; on a system, as many of them as divide the model."""
    pp: int = 1
    ep: int = 1
    dp: int = 1
    weight_dtype: str | None = None
    """Storage format of the weights of linear layers. None: the model's own."""
    kv_dtype: str | None = None
    activation_dtype: str | None = None
    """Format of the arithmetic of linear layers (8-bit weights and activations)."""
    techniques: tuple[str, ...] = ()
    images: int = 0
    """Images per sequence, for vision-language models; their tokens come on top of `input_tokens`."""
    max_context: int | None = None
    """Replaces the model's own limit (runs on dummy tokens, rescaled rotary embeddings)."""
    place: tuple[tuple[str, str], ...] = ()
    """Roles pinned to memories, as ("kv", "flash")."""
    power_cap_w: float | None = None
    """Power limit set per device, where it is below the device's own."""

    def with_(self, **changes: Any) -> Scenario:
        """This scenario with other values."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Resolved:
    """The objects that a scenario's names stand for."""

    scenario: Scenario
    model: Model
    machine: Machine
    engine: Engine
    calibration: Calibration
    parallelism: Parallelism
    recipe: Recipe | None = None
    """What techniques decided beside the graphs; None: nothing."""


def resolve(scenario: Scenario) -> Resolved:
    """Raises UnknownNameError, SpecError or ScenarioError."""
    from simulator.cost.efficiency import find_calibration, load_engine
    from simulator.mapping.machine import load_machine
    from simulator.mapping.parts import operating
    from simulator.techniques.parallel import check

    recipe = prepared(scenario)
    model = recipe.model
    plain = load_machine(scenario.hardware)
    if plain.shares_links:
        plain = load_machine(scenario.hardware, _parallelism(scenario, plain, model).devices)
    machine = capped(operating(plain, recipe.operating), power_cap_w(scenario, recipe))
    for dtype, origin in recipe.formats:
        if not any(dtype in unit.peak_flop_per_s for unit in machine.units):
            known = sorted({name for unit in machine.units for name in unit.peak_flop_per_s})
            raise ScenarioError(f"{origin}: {machine.name} does not multiply in {dtype}; it has {', '.join(known)}")
    if not machine.units:
        raise ScenarioError(
            f"{machine.name} computes nothing by itself; use it as a part of a system in hardware/system/"
        )
    calibration = find_calibration(machine)
    engine = load_engine(scenario.engine or machine.engine or calibration.default_engine)
    parallelism = _parallelism(scenario, machine, model)
    check(model, parallelism)
    if scenario.images < 0 or (scenario.devices is not None and scenario.devices < 1):
        raise ScenarioError(
            f"images must be at least 0 and devices at least 1, got {scenario.images} and {scenario.devices}"
        )
    if scenario.images and model.vision is None:
        raise ScenarioError(f"{model.name} takes no images; leave --images at 0")
    return Resolved(scenario, model, machine, engine, calibration, parallelism, recipe)


def power_cap_w(scenario: Scenario, recipe: Recipe) -> float | None:
    """The lower of the scenario's own power limit and that of its techniques, per device; None without either."""
    limits = [limit for limit in (scenario.power_cap_w, recipe.operating.power_w) if limit is not None]
    return min(limits, default=None)


def capped(machine: Machine, cap_w: float | None) -> Machine:
    """The machine with the power of each main device limited to `cap_w`.

    Raises ScenarioError for a cap that no clock keeps.
    """
    if cap_w is None:
        return machine
    from simulator.mapping.machine import load_machine

    device = load_machine(machine.device) if machine.is_system else machine
    if not cap_w > device.waiting_w:
        raise ScenarioError(
            f"a power cap of {cap_w:g} W is not above the {device.waiting_w:g} W that {device.name} draws between kernels"
        )
    if not machine.tdp_w:
        return replace(machine, tdp_w=cap_w)
    limit_w = machine.tdp_w - max(0.0, device.tdp_w - cap_w)
    static_w = min(machine.static_w, 0.98 * limit_w)
    return replace(
        machine,
        tdp_w=limit_w,
        static_w=static_w,
        waiting_w=min(machine.waiting_w, static_w),
        idle_w=min(machine.idle_w, static_w),
    )


def named_files(scenario: Scenario) -> list[str]:
    """The files that a scenario's own names stand for."""
    from simulator import catalog

    found = [
        catalog.find("hardware", scenario.hardware),
        *(catalog.find("technique", name.partition(":")[0]) for name in scenario.techniques),
    ]
    return [str(path) for path in (*found, model_path(scenario.model))]


def prepared(scenario: Scenario) -> Recipe:
    """The model with the scenario's number formats and techniques applied, and what they decided beside it."""
    from simulator.techniques.apply import recipe_for
    from simulator.techniques.recipe import Recipe

    model = load_model(scenario.model)
    plain = not (scenario.techniques or scenario.weight_dtype or scenario.activation_dtype or scenario.kv_dtype)
    return Recipe(model) if plain else recipe_for(model, scenario)


def training_options(model: str, techniques: tuple[str, ...]) -> dict[str, Any]:
    """What techniques decide about a training step, by the names of `TrainingScenario`."""
    return dict(prepared(Scenario(model, "", techniques=techniques)).training)


def load_model(name: str) -> Model:
    """The model that a name, an alias, or the path of a model file, `config.json`, its folder or ONNX file stands for."""
    path = model_path(name)
    return _load_model(path, path.stat().st_mtime_ns if path.exists() else 0)


def model_path(name: str) -> Path:
    """The file that `load_model` reads. Raises UnknownNameError."""
    from simulator import catalog

    inside = Path(name) / "config.json"
    if ("/" in name or os.sep in name) and inside.is_file():
        return inside
    return Path(name) if name.endswith(".onnx") else catalog.find("model", name)


@lru_cache(maxsize=128)
def _load_model(path: Path, stamp: int) -> Model:
    from simulator.graph.build import Model, model_from_architecture

    if path.suffix == ".onnx":
        from simulator.importers.onnx import graph_from_onnx

        return Model(path.stem, graph_from_onnx(path), decode=False, title=path.stem)
    from simulator.importers.hf_config import architecture_from_config
    from simulator.spec.loader import check, read_mapping
    from simulator.spec.model import ModelSpec

    data = read_mapping(path)
    if "config" not in data and "network" not in data and ("model_type" in data or path.suffix == ".json"):
        return model_from_architecture(architecture_from_config(data, path.parent.name or path.stem))
    spec = check(data, ModelSpec, path)
    if spec.config is not None:
        return replace(model_from_architecture(architecture_from_config(spec.config, spec.name)), title=spec.title)
    from simulator.graph.networks import network_graph

    assert spec.network is not None
    graph = network_graph(spec.network.builder, spec.network.arguments, spec.name)
    return Model(spec.name, graph, decode=False, title=spec.title)


def check_lengths(
    model: Model, batch: float, input_tokens: float, output_tokens: float, images: int = 0, limit: int | None = None
) -> None:
    """Raises ScenarioError for a batch or a length below 1, and for a context beyond the model's limit."""
    if batch < 1 or input_tokens < 1 or output_tokens < 1:
        for label, value in (("batch", batch), ("input", input_tokens), ("output", output_tokens)):
            if not value >= 1:
                raise ScenarioError(f"{label} must be at least 1, got {value}")
    longest = limit or model.max_context
    if longest is None or not model.decode or model.encoder is not None:
        return
    total = input_tokens + output_tokens + images * model.image_tokens
    if total > longest:
        raise ScenarioError(
            f"{total} tokens of context are beyond the {longest} that {model.name} was made for; "
            f"lower --input or --output to {longest} in sum, or set --max-context"
        )


def _parallelism(scenario: Scenario, machine: Machine, model: Model) -> Parallelism:
    """The degrees asked for. What is left open on a system: tp is the largest degree that divides both it and the model."""
    from simulator.techniques.parallel import Parallelism, check

    Parallelism(tp=1 if scenario.tp is None else scenario.tp, pp=scenario.pp, ep=scenario.ep, dp=scenario.dp)
    rest = scenario.pp * scenario.dp
    devices = scenario.devices
    if scenario.tp is not None:
        tp = scenario.tp
    elif devices is not None:
        tp = max(1, devices // rest)
    else:
        tp = 1
        for degree in range(machine.devices // rest if machine.is_system else 1, 1, -1):
            try:
                check(model, Parallelism(tp=degree, pp=scenario.pp, dp=scenario.dp))
            except ScenarioError:
                continue
            tp = degree
            break
    if devices is not None and tp * rest != devices:
        raise ScenarioError(
            f"tp x pp x dp = {tp} x {scenario.pp} x {scenario.dp} = {tp * rest} is not the {devices} devices"
        )
    if machine.is_system and tp * rest > machine.devices:
        raise ScenarioError(f"{tp * rest} devices are asked for, and {machine.name} has {machine.devices}")
    return Parallelism(tp=tp, pp=scenario.pp, ep=scenario.ep, dp=scenario.dp)
