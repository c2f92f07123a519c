"""Many predictions at once: every point of a grid, vectorised over batch and lengths.

All points of one model, machine, engine and division are evaluated in one compiled call. A sweep to a file is written
family by family and goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.cost.layout import S_FAILED, S_PREFILL_J, S_STEP_J, S_TPOT, S_TTFT
from simulator.errors import ScenarioError, SimulatorError
from simulator.predict import Predictor, predictor
from simulator.scenario import Scenario
from simulator.spec.loader import check, read_mapping
from simulator.spec.sweep import Range, SweepSpec

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

COLUMNS = (
    "ttft_s", "tpot_s", "e2el_s", "output_tokens_per_s", "total_tokens_per_s", "weight_bytes", "kv_bytes",
    "activation_bytes", "memory_bytes", "capacity_bytes", "fits", "prefill_energy_j", "energy_j_per_output_token", "power_w",
    "usd_per_million_output_tokens",
)  # fmt: skip
"""Columns of numbers; the keys of a prediction."""

CHUNK = 65536
"""Points of one compiled call: enough to hide the call, few enough that its temporaries stay small."""

Progress = Callable[[int, int], None]


def run(
    grid: Path | str | Mapping[str, Any],
    out: Path | str | None = None,
    progress: Progress | None = None,
    resume: bool = False,
) -> pd.DataFrame:
    """Every point of a grid file, or of a mapping of the same form, as a frame; also written to `out` (.parquet, .csv).

    With `resume`, families that `out` holds already are kept. Raises SpecError for a bad grid, ScenarioError for a bad
    `out`. `progress` is called with the families done and all families.

    >>> run({"model": ["llama-3.1-8b"], "hardware": ["A100"], "batch": [1, 2]})[["batch", "fits"]].values.tolist()
    [[1, True], [2, True]]
    """
    import pandas as pd

    spec = _spec(grid)
    target = Path(out) if out is not None else None
    if target is not None and target.suffix not in (".parquet", ".csv"):
        raise ScenarioError(f"a sweep is written to .parquet or .csv, not '{target.name}'")
    points = grid_points(_numbers(spec.batch), _numbers(spec.input_tokens), _numbers(spec.output_tokens))
    families = list(_families(spec))
    parts_folder = target.with_name(target.name + ".parts") if target is not None else None
    frames = []
    for position, family in enumerate(families):
        stored = parts_folder / f"{_label(family)}.parquet" if parts_folder is not None else None
        if resume and stored is not None and stored.exists():
            frames.append(pd.read_parquet(stored))
        else:
            frame = _family_frame(family, points, spec.on_error)
            frames.append(frame)
            if stored is not None:
                _write(frame, stored)
        if progress is not None:
            progress(position + 1, len(families))
    whole = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
    if target is not None and parts_folder is not None:
        _write(whole, target)
        for part in parts_folder.glob("*.parquet"):
            part.unlink()
        with contextlib.suppress(OSError):
            parts_folder.rmdir()
    return whole


def grid_points(batch: list[int], prompt: list[int], output: list[int]) -> NDArray[np.float64]:
    """(P, 3) of batch, prompt and output: every combination, batch slowest, as the compiled arithmetic likes it."""
    axes = np.meshgrid(np.sort(batch), np.sort(prompt), np.sort(output), indexing="ij")
    return np.stack([axis.ravel() for axis in axes], axis=1).astype(np.float64)


def predict_many(predictor: Predictor, points: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Columns of `COLUMNS` for (P, 3) points of batch, prompt and output; the same numbers as `Predictor.predict`.

    Points whose tensors all lie in the first memory, without turns, are compiled calls of `CHUNK` points; the others are
    predicted one by one.
    """
    answers = {column: np.full(len(points), np.nan) for column in COLUMNS}
    for start in range(0, len(points), CHUNK):
        chunk = slice(start, start + CHUNK)
        _predict_chunk(predictor, points[chunk], {column: values[chunk] for column, values in answers.items()})
    return answers


def _predict_chunk(predictor: Predictor, points: NDArray[np.float64], answers: dict[str, NDArray[Any]]) -> None:
    """Writes the predictions of some points into `answers`."""
    resolved = predictor.resolved
    replica = np.ceil(points[:, 0] / resolved.parallelism.dp)
    simple = resolved.model.encoder is None and resolved.scenario.images == 0 and predictor.plain
    resident = _resident(predictor, points, replica) if simple else np.zeros(len(points), dtype=bool)
    if resident.any():
        _vectorised(predictor, points, replica, resident, answers)
    for position in np.flatnonzero(~resident):
        batch, prompt, output = (int(value) for value in points[position])
        prediction = predictor.predict(batch, prompt, output)
        for column in COLUMNS:
            value = getattr(prediction, column)
            answers[column][position] = np.nan if value is None else value


def _resident(predictor: Predictor, points: NDArray[np.float64], replica: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Points whose weights, cache and activations all fit into the memory that activations lie in."""
    if not stays_home(predictor):
        return np.zeros(len(points), dtype=bool)
    return np.asarray(
        sum(needs(predictor, points, replica)) <= predictor.placer.room(predictor.placer.home), dtype=bool
    )


def stays_home(predictor: Predictor) -> bool:
    """Whether everything lies in the memory of the activations where it fits there."""
    placer = predictor.placer
    if (placer.home, placer.home) not in predictor.options:
        return False
    return len(predictor.options) == 1 or all(
        unit.near in (None, placer.home) for unit in predictor.resolved.machine.units
    )


def needs(
    predictor: Predictor, points: NDArray[np.float64], replica: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Weight, cache and activation bytes of one rank at each point, as `Predictor.need`."""
    prompt = points[:, 1]
    generated = points[:, 2] if predictor.resolved.model.decode else np.ones(len(points))
    cache = np.full(len(points), predictor.cache.state_bytes)
    for reach, size in predictor.cache.by_reach:
        cache += np.minimum(prompt + generated, reach) * size
    tokens = np.maximum(np.minimum(replica * prompt, predictor.host.max_tokens), replica)
    sequences = np.maximum(1.0, np.minimum(replica, tokens / prompt))
    activation = np.zeros(len(points))
    for row in predictor.workspace:
        np.maximum(
            activation, row.const + row.tokens * tokens + (row.sequences + row.sampled) * sequences, out=activation
        )
    return np.full(len(points), predictor.weights), replica * cache, activation


def _vectorised(
    predictor: Predictor,
    points: NDArray[np.float64],
    replica: NDArray[np.float64],
    chosen: NDArray[np.bool_],
    answers: dict[str, NDArray[Any]],
) -> None:
    resolved = predictor.resolved
    parallelism, model = resolved.parallelism, resolved.model
    points, replica = points[chosen], replica[chosen]
    batch, prompt = points[:, 0], points[:, 1]
    generated = points[:, 2] if model.decode else np.ones(len(points))
    weight, cache, activation = needs(predictor, points, replica)
    rows = np.stack([replica, prompt, generated, np.zeros(len(points))], axis=1)
    timed = predictor.runner.static_grid(rows, predictor.placer.all_at_home().shares)
    if (timed[:, S_FAILED] >= 0).any():
        raise ScenarioError(f"{model.name} cannot run on {resolved.machine.name} with its tensors in one memory")
    devices, groups = parallelism.devices, parallelism.tp * parallelism.dp
    e2el = timed[:, S_TTFT] + timed[:, S_TPOT] * (generated - 1.0)
    rate = batch * generated / e2el
    prefill_j = timed[:, S_PREFILL_J] * groups
    energy_j = prefill_j + timed[:, S_STEP_J] * (generated - 1.0) * groups
    power = energy_j / e2el
    columns = {
        "ttft_s": timed[:, S_TTFT],
        "tpot_s": timed[:, S_TPOT],
        "e2el_s": e2el,
        "output_tokens_per_s": rate,
        "total_tokens_per_s": batch * (generated + (prompt if model.decode else 0.0)) / e2el,
        "weight_bytes": weight * devices,
        "kv_bytes": cache * devices,
        "activation_bytes": activation * devices,
        "memory_bytes": (weight + cache + activation) * devices,
        "capacity_bytes": predictor.placer.capacity_bytes * devices,
        "fits": 1.0,
        "prefill_energy_j": prefill_j,
        "energy_j_per_output_token": energy_j / (batch * generated),
        "power_w": power,
        "usd_per_million_output_tokens": predictor.usd_per_million_tokens(rate, power),
    }
    for name, values in columns.items():
        answers[name][chosen] = np.nan if values is None else values


def _family_frame(family: Scenario, points: NDArray[np.float64], on_error: str) -> pd.DataFrame:
    import pandas as pd

    names: dict[str, Any] = {"model": family.model, "hardware": family.hardware, "engine": family.engine or ""}
    names |= {axis: getattr(family, axis) for axis in ("tp", "pp", "ep", "dp")}
    shape = {
        "batch": points[:, 0].astype(int),
        "input_tokens": points[:, 1].astype(int),
        "output_tokens": points[:, 2].astype(int),
    }
    answers: dict[str, Any] = {column: np.full(len(points), np.nan) for column in COLUMNS}
    try:
        built = predictor(family)
        names |= {"model": built.resolved.model.name, "hardware": built.resolved.machine.name}
        names |= {"engine": built.resolved.engine.name, "tp": built.resolved.parallelism.tp}
        limit = family.max_context or built.resolved.model.max_context
        within = np.ones(len(points), dtype=bool)
        if limit is not None and built.resolved.model.decode and built.resolved.model.encoder is None:
            within = points[:, 1] + points[:, 2] <= limit
        found = predict_many(built, points[within])
        for column in COLUMNS:
            answers[column][within] = found[column]
        reasons = np.where(within, "", f"context beyond the {limit} tokens of the model")
    except SimulatorError as problem:
        if on_error == "stop":
            raise
        reasons = np.full(len(points), str(problem))
    names["techniques"] = _techniques(family)
    answers["fits"] = answers["fits"] == 1.0
    constant = {
        name: pd.Categorical([str(value)]).take(np.zeros(len(points), dtype=int)) for name, value in names.items()
    }
    return pd.DataFrame({**constant, **shape, **answers, "problem": pd.Categorical(reasons)}, copy=False)


def _techniques(family: Scenario) -> str:
    formats = [
        f"{name}={value}"
        for name in ("weight_dtype", "kv_dtype", "activation_dtype")
        if (value := getattr(family, name))
    ]
    return " ".join([*family.techniques, *formats])


def _families(spec: SweepSpec) -> list[Scenario]:
    axes = list(spec.axes)
    found = []
    for model, hardware, *values in itertools.product(spec.model, spec.hardware, *(spec.axes[axis] for axis in axes)):
        named = dict(zip(axes, values, strict=True))
        if "techniques" in named:
            listed = named["techniques"]
            named["techniques"] = tuple([listed] if isinstance(listed, str) else listed or [])
        found.append(Scenario(model, hardware, batch=1, input_tokens=1, output_tokens=1, **named))
    return found


def _label(family: Scenario) -> str:
    """A file name that is the same for the same family in any run."""
    parts = [
        f"{name}={getattr(family, name)}"
        for name in Scenario.__slots__
        if name not in ("batch", "input_tokens", "output_tokens")
    ]
    label = re.sub(r"[^\w=.,-]+", "_", ",".join(parts))
    return label if len(label) <= 200 else f"{label[:190]}-{zlib.crc32(label.encode()):08x}"


def _numbers(axis: list[int] | Range) -> list[int]:
    values = axis.values() if isinstance(axis, Range) else list(axis)
    if not values or min(values) < 1:
        raise ScenarioError(f"batch and lengths of a sweep must be at least 1, got {values[:5]}")
    return values


def _spec(grid: Path | str | Mapping[str, Any]) -> SweepSpec:
    if isinstance(grid, Mapping):
        return check(dict(grid), SweepSpec, Path("grid"))
    return check(read_mapping(Path(grid)), SweepSpec, Path(grid))


def _write(frame: pd.DataFrame, path: Path) -> None:
    """All or nothing: written beside its place, then moved there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    if path.suffix == ".csv":
        frame.to_csv(partial, index=False)
    else:
        frame.to_parquet(partial, index=False)
    os.replace(partial, path)
