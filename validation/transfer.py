"""Parameters as they would be had a device never been measured: fitted on the other devices alone.

Kernel parameters are fitted device by device on the shipped tables with `validation.fit`; measured constants of engines
are found again on the runs of other devices. Each result is stored as soon as it is known, so a stopped run resumes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simulator import catalog
from simulator.cost import compiled
from simulator.cost.efficiency import Engine, find_calibration, load_engine
from simulator.errors import SimulatorError
from simulator.mapping.machine import Machine, load_machine
from simulator.predict import Predictor
from simulator.scenario import Scenario, resolve
from simulator.spec.calibration import Calibration, EngineEfficiency
from simulator.spec.engine import EngineSpec
from simulator.spec.loader import load
from simulator.spec.quantity import Sourced
from validation import fit
from validation.knobs import Values, changed, general
from validation.quantities import measured
from validation.rows import Unresolved, resolve_row
from validation.tables import KERNELS

KINDS: dict[str, tuple[str, ...]] = {"gemm": ("vllm", "trtllm", "sglang")}
"""What is fitted for all engines, and the frameworks whose tables it is fitted on."""
OWN = ("prefill", "decode", "single", "collective", "narrow", "narrow-prefill", "narrow-decode")
"""What is fitted for each engine."""
FORMATS = {"narrow": ("fp8", "bfloat16"), "narrow-prefill": ("fp8", "fp8"), "narrow-decode": ("bfloat16", "fp8")}
"""Kind -> number format and that of the cache, where they are not bfloat16, as the tables name them."""
FRAMEWORKS = {"vllm": "vllm", "tensorrt-llm": "trtllm", "sglang": "sglang"}
"""Engine -> framework of its tables."""
TABLES = {"a100-sxm4-80gb": "a100_sxm", "h100-sxm5-80gb": "h100_sxm", "h200-sxm-141gb": "h200_sxm"}
"""Device -> folder of its kernel tables."""
STEPS = tuple(float(2.0**power) for power in np.arange(-3.0, 3.5, 0.75))
"""Factors that are tried on a measured constant of an engine."""
ROUNDS = 2
ROWS = 80
"""Most runs per engine and device that constants are found on."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Parameters that have not seen a device."""

    name: str
    """What was left out and what stands in, in words."""
    calibration: Calibration | None
    """Stands in for the calibrations of the devices below; None leaves all as they are."""
    devices: frozenset[str]
    engines: Mapping[str, Mapping[str, float]]
    """Engine -> attribute of `Engine` -> value."""

    def calibrate(self, machine: Machine) -> Calibration:
        """The calibration that a machine's predictions use."""
        if self.calibration is not None and machine.device in self.devices:
            return self.calibration
        return find_calibration(machine)

    def build(self) -> Callable[[Scenario], Predictor]:
        """Makes predictors as the product does, with these parameters."""
        known: dict[Scenario, Predictor] = {}

        def predictor(scenario: Scenario) -> Predictor:
            family = replace(scenario, batch=1, input_tokens=1, output_tokens=1)
            if family not in known:
                found = resolve(family)
                changes = self.engines.get(found.engine.name, {})
                engine = replace(found.engine, **changes)
                known[family] = Predictor(replace(found, engine=engine, calibration=self.calibrate(found.machine)))
            return known[family]

        return predictor


def fitted(devices: Sequence[str], kind: str, frameworks: Sequence[str], iterations: int = 20) -> Values:
    """Parameters of one kind of kernel fitted on the devices' shipped tables together, dotted key -> SI value; none where
    no table of theirs has such kernels."""
    dtype, cache = FORMATS.get(kind, ("bfloat16", "bfloat16"))
    devices = [device for device in devices if all(_measured(device, name, kind, dtype, cache) for name in frameworks)]
    if not devices:
        return {}
    folders = [KERNELS / TABLES[device] for device in devices]
    command = [kind, "--device", *devices, "--framework", *frameworks, "--iterations", str(iterations), "--rows", "800"]
    command += ["--dtype", dtype, "--cache", cache, "--tables", *map(str, folders)]

    def run() -> dict[str, float]:
        with contextlib.redirect_stdout(io.StringIO()):
            values = fit.run(fit.parser().parse_args(command))
        return {key: float(value) for key, value in values.items()}

    sizes = [f"{path.name}:{path.stat().st_size}" for folder in folders for path in sorted(folder.glob("*.parquet"))]
    return stored_values("fit", [*command[: command.index("--tables")], *sizes, own_sources(), _specs()], run)


def _measured(device: str, framework: str, kind: str, dtype: str, cache: str) -> bool:
    """Whether the device's tables hold rows that a fit may use: of shapes that are not held out."""
    try:
        rows = fit.read_rows(KERNELS / TABLES[device], framework, kind, dtype, cache, fit.apart(device, framework))
    except SystemExit:
        return False
    return not bool(rows["held_out"].all())


def calibration_from(donors: Sequence[str], name: str) -> Calibration:
    """The calibration of the first donor with parameters fitted on the donors alone, all together."""
    base = find_calibration(load_machine(donors[0]))
    values: Values = {}
    for kind, frameworks in KINDS.items():
        values |= fitted(donors, kind, frameworks)
    shared = changed(general(base), values)
    engines = dict(base.engines)
    for engine, framework in FRAMEWORKS.items():
        of_engine: Values = {}
        for kind in OWN:
            of_engine |= fitted(donors, kind, (framework,))
        own = engines.get(engine, EngineEfficiency())
        found = changed(general(base, engine), of_engine)
        kept: dict[str, Any] = {
            "attention": found.attention,
            "all_reduce": changed(shared, _under("all_reduce", of_engine)).all_reduce,
        }
        if "rounding.floor" in of_engine:
            kept |= {"rounding": found.rounding, "tabled": found.tabled}
            if "gemm.narrow_compute" in of_engine:
                kept["narrow_compute"] = found.gemm.narrow_compute
        else:  # what the donor's file holds for such kernels was found on other devices
            kept |= {"narrow_compute": None, "scaled_compute": None, "rounding": None, "tabled": None}
        engines[engine] = own.model_copy(update=kept)
    attention = engines["vllm"].attention or shared.attention
    return shared.model_copy(update={"name": name, "tag": "transferred", "engines": engines, "attention": attention})


def _under(part: str, values: Mapping[str, float]) -> Values:
    """The values whose keys lie under a part of a calibration."""
    return {key: value for key, value in values.items() if key.startswith(f"{part}.")}


def all_kinds() -> list[tuple[str, tuple[str, ...]]]:
    """Every kind that is fitted, with the frameworks whose tables it is fitted on."""
    return [*KINDS.items(), *((kind, (framework,)) for framework in FRAMEWORKS.values() for kind in OWN)]


def all_donors() -> set[tuple[str, ...]]:
    """Every set of devices that stands in for another: of its own architecture, and of others."""
    of = {device: load_machine(device).architecture for device in TABLES}
    kin = {tuple(d for d in TABLES if d != device and of[d] == of[device]) for device in TABLES}
    return (kin | {tuple(d for d in TABLES if of[d] != of[device]) for device in TABLES}) - {()}


def kernel_heldouts() -> list[HeldOut]:
    """Each measured device with the parameters of the others: of its own architecture where there are any, and of others."""
    found = []
    architecture = {device: load_machine(device).architecture for device in TABLES}
    for device in TABLES:
        kin = [other for other in TABLES if other != device and architecture[other] == architecture[device]]
        strangers = [other for other in TABLES if architecture[other] != architecture[device]]
        for donors in (kin, strangers):
            if donors:
                label = " and ".join(donors)
                found.append(
                    HeldOut(f"{device} from {label}", calibration_from(donors, label), frozenset({device}), {})
                )
    return found


def architectures() -> list[str]:
    """Architectures whose kernels were measured."""
    return sorted({load_machine(device).architecture for device in TABLES})


def run_heldout(architecture: str, rows: pd.DataFrame) -> HeldOut:
    """An architecture whose devices are predicted from the kernels and the runs (`fit_rows`) of the other ones."""
    donors = [device for device in TABLES if load_machine(device).architecture != architecture]
    kindred = frozenset(_devices_of(architecture))
    others = rows[~rows["device"].isin(kindred) & rows["architecture"].isin(set(architectures()) - {architecture})]
    label = " and ".join(donors)
    constants = engine_constants(others)
    return HeldOut(f"{architecture} from {label}", calibration_from(donors, label), kindred, constants)


def _devices_of(architecture: str) -> Iterable[str]:
    for path in catalog.files("hardware"):
        with contextlib.suppress(SimulatorError):
            machine = load_machine(path.stem)
            if machine.architecture == architecture:
                yield machine.device


def measured_constants(engine: str) -> dict[str, float]:
    """Attribute of `Engine` -> value, of an engine file's numbers whose source is a measurement."""
    spec, loaded = load(catalog.find("engine", engine), EngineSpec), load_engine(engine)
    found = {}
    for name in EngineSpec.model_fields:
        held = getattr(spec, name)
        attribute = name if hasattr(Engine, name) else f"{name}_s"
        if isinstance(held, Sourced) and spec.sources[held.source].kind == "measured" and hasattr(Engine, attribute):
            found[attribute] = getattr(loaded, attribute)
    return found


def engine_constants(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Measured constants of the engines, found again on these runs alone: the best of `STEPS` on each, in turn."""
    found = {}
    for engine, part in rows.groupby("engine", sort=True):
        constants = measured_constants(str(engine))
        if constants:
            sample = part.sample(min(ROWS, len(part)), random_state=0)
            key = ["engine", str(engine), json.dumps(constants), repr(STEPS), str(ROUNDS), own_sources(), _specs(),
                   hashlib.sha256(sample["row"].to_json().encode()).hexdigest()]  # fmt: skip
            found[str(engine)] = stored_values("engine", key, lambda s=sample, c=constants: _search(s, c))  # type: ignore[misc]
    return found


def _search(sample: pd.DataFrame, constants: dict[str, float]) -> dict[str, float]:
    cases = [(found, value) for found, value in map(_case, sample["cells"]) if found is not None]
    values = dict(constants)

    def loss(trial: Mapping[str, float]) -> float:
        remade: dict[Scenario, Predictor] = {}
        errors = []
        for resolved, value in cases:
            scenario = resolved.scenario
            family = replace(scenario, batch=1, input_tokens=1, output_tokens=1)
            if family not in remade:
                given = _resolved(family)
                remade[family] = Predictor(replace(given, engine=replace(given.engine, **trial)))
            predicted = remade[family].predict(scenario.batch, scenario.input_tokens, scenario.output_tokens)
            seconds = scenario.batch * scenario.output_tokens / predicted.output_tokens_per_s
            errors.append(abs(np.log(seconds / value)))
        return float(np.mean(errors))

    for _ in range(ROUNDS):
        for name in values:
            centre = constants[name]
            tried = {factor: loss({**values, name: centre * factor}) for factor in STEPS}
            values[name] = centre * min(tried, key=lambda factor: (tried[factor], abs(np.log(factor))))
    return values


def _case(cells: Mapping[str, Any]) -> tuple[Any, float]:
    return resolve_row(cells), measured(cells)[0]["e2el_s"]


@lru_cache(maxsize=512)
def _resolved(family: Scenario) -> Any:
    return resolve(family)


def fit_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The static runs of a table that state a whole latency, with `device`, `architecture`, `engine`, `row` and `cells`."""
    found = []
    for position, cells in enumerate(table.to_dict("records")):
        row = {str(key): value for key, value in cells.items()}
        try:
            resolved = resolve_row(row)
        except Unresolved:
            continue
        if resolved.steady or "e2el_s" not in measured(row)[0]:
            continue
        machine = load_machine(resolved.hardware)
        engine = load_engine(resolved.scenario.engine or resolved.framework).name
        found.append((machine.device, machine.architecture, engine, position, row))
    return pd.DataFrame(found, columns=["device", "architecture", "engine", "row", "cells"])


@lru_cache(maxsize=1)
def own_sources() -> str:
    """The text of everything that a fit depends on besides its tables."""
    modules = sorted(Path(compiled.__file__).parent.glob("*.py"))
    text = "".join(path.read_text(encoding="utf-8") for path in [*modules, Path(fit.__file__), Path(__file__)])
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=1)
def _specs() -> str:
    """The text of calibrations and engines, which the search for an engine's constants starts from."""
    paths = sorted([*catalog.files("calibration"), *catalog.files("engine")])
    return hashlib.sha256("".join(path.read_text(encoding="utf-8") for path in paths).encode()).hexdigest()


def stored_values(kind: str, key: Sequence[str], compute: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What `compute` gives, kept in the cache folder under a hash of `key`."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path = Path(base) / "ridgeline" / f"{kind}-{hashlib.sha256('|'.join(key).encode()).hexdigest()[:24]}.json"
    with contextlib.suppress(OSError, ValueError):
        return {str(name): float(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    found = {name: float(value) for name, value in compute().items()}
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found), encoding="utf-8")
    return found
