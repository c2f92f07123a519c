"""Fits what single kernels cannot show to whole runs: `python -m validation.fit_runs --device D --engine E KNOB ...`.

Host time, waiting and how far a stack's kernels reach, from static batches or steady serving in the end-to-end table; whole
models are held out. A knob is a key of a calibration (`gemm.compute`, of all engines) or `engine.FIELD`: KEY=LOW:HIGH.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from simulator.predict import Predictor, host_row
from simulator.scenario import Resolved as ResolvedScenario
from simulator.scenario import Scenario, resolve
from simulator.schedules import scheduled
from simulator.steady import steady
from validation.endtoend import ASSUMED_TOKENS
from validation.fit import minimise
from validation.knobs import Knob, Values, changed, general, starting_values
from validation.quantities import measured, predicted
from validation.rows import Unresolved, resolve_row
from validation.tables import end_to_end_files, read_table

METRICS = ("e2el_s", "tpot_s", "ttft_s")
HOST = frozenset(
    {
        "host_step_s", "host_prefill_s", "host_per_sequence_s", "stream_per_sequence_s", "stream_step_s",
        "host_request_s", "host_routed_s", "kernel_host_factor", "kernel_gap_s",
    }
)  # fmt: skip
"""Fields of an engine that a predictor's rows of ops do not depend on."""
POINTS = 8
"""Rows of one family (model, degrees, formats) that a fit looks at, spread over its batches and lengths."""


@dataclass(slots=True)
class Family:
    """Runs that differ in batch and lengths only."""

    resolved: ResolvedScenario
    model: str
    shapes: list[tuple[int, int, int]]
    measured_s: list[float]
    made: Predictor | None = None
    waves: int | None = None
    """Of steady serving, as that of a resolved row; None for static batches."""
    spread: float = 0.0
    """As that of a resolved row."""


def families(
    rows: pd.DataFrame, device: str, engines: Sequence[str], metric: str, serving: bool = False
) -> list[Family]:
    """The static batches of a device under some engines (files of releases), or their steady serving, by family."""
    found: dict[tuple[Scenario, int, float], Family] = {}
    for row in rows.to_dict("records"):
        cells = {str(key): value for key, value in row.items()}
        try:
            known = resolve_row(cells, ASSUMED_TOKENS if serving or metric == "tpot_s" else 0)
        except Unresolved:
            continue
        if known.hardware != device or known.scenario.engine not in engines or known.steady is not serving:
            continue
        values, _ = measured(cells, known.assumed_lengths)
        if serving and {"ttft_s", "tpot_s"} <= set(values):
            values["e2el_s"] = values["ttft_s"] + values["tpot_s"] * (known.scenario.output_tokens - 1)
        elif serving and "output_tokens_per_s" in values:  # Little's law
            answers = known.scenario.batch * known.scenario.output_tokens
            values["e2el_s"] = answers / values["output_tokens_per_s"]
        if metric not in values:
            continue
        asked = known.scenario
        key = asked.with_(batch=1, input_tokens=1, output_tokens=1), known.waves, known.spread
        if key not in found:
            found[key] = Family(
                resolve(asked),
                asked.model,
                [],
                [],
                waves=known.waves if serving else None,
                spread=known.spread,
            )
        found[key].shapes.append((asked.batch, asked.input_tokens, asked.output_tokens))
        found[key].measured_s.append(values[metric])
    return [_thinned(family) for family in found.values()]


def _thinned(family: Family) -> Family:
    order = sorted(range(len(family.shapes)), key=lambda i: family.shapes[i])
    chosen = sorted({order[round(i)] for i in np.linspace(0, len(order) - 1, POINTS)})
    family.shapes = [family.shapes[i] for i in chosen]
    family.measured_s = [family.measured_s[i] for i in chosen]
    return family


def seconds(found: Sequence[Family], values: Values, metric: str) -> np.ndarray:
    """The metric of every run, with some parameters of the engine and of the calibration replaced."""
    answers: list[float] = []
    for family in found:
        predictor = _predictor(family, values)
        for shape in family.shapes:
            if family.waves is None:
                answers.append(predicted(predictor.predict(*shape))[metric].predicted)
            else:
                flight, prompt, output = shape
                state = steady(
                    predictor,
                    concurrency=flight,
                    input_tokens=prompt,
                    output_tokens=output,
                    waves=family.waves,
                    spread=family.spread,
                )
                answers.append(getattr(state, metric))
    return np.array(answers)


def _predictor(family: Family, values: Values) -> Predictor:
    """The predictor of a family with those values; where they are times of the host alone, the one made before."""
    resolved = family.resolved
    engine = replace(resolved.engine, **_part(values, "engine."))
    if family.made is not None and all(key.removeprefix("engine.") in HOST for key in values):
        family.made.host = scheduled(
            host_row(resolved.machine, engine, resolved.parallelism.tp, family.made.graph), family.made.recipe
        )
        family.made.runner.rehost(family.made.host)
        return family.made
    own = {key: value for key, value in values.items() if not key.startswith("engine.")}
    calibration = changed(general(resolved.calibration), own) if own else resolved.calibration
    made = Predictor(replace(resolved, engine=engine, calibration=calibration))
    made.runner.compile()
    if not own:
        family.made = made
    return made


def _part(values: Values, prefix: str) -> Values:
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def report(name: str, found: Sequence[Family], values: Values, metric: str) -> None:
    """Print the median and the signed median error, in all and by model."""
    times = np.concatenate([family.measured_s for family in found])
    error = seconds(found, values, metric) / times - 1.0
    models = np.concatenate([[family.model] * len(family.shapes) for family in found])
    table = pd.DataFrame({"model": models, "error": error})
    by = table.groupby("model")["error"].agg(median=lambda e: e.abs().median(), bias="median", rows="size")
    by.loc["all"] = [table["error"].abs().median(), table["error"].median(), len(table)]
    print(f"\n{name}\n{by.round(3).to_string()}")


def run(options: argparse.Namespace) -> None:
    """Fits on all models, reports; then on all but some, in `--folds` parts, and reports those left out."""
    rows = pd.concat([read_table(path) for path in end_to_end_files(options.tables)], ignore_index=True)
    found = [
        family
        for device in options.device
        for family in families(rows, device, options.engine, options.metric, options.steady)
        if not options.model or family.model in options.model
    ]
    knobs = [_knob(text) for text in options.knobs]
    calibration = general(found[0].resolved.calibration)
    start = starting_values(calibration, [knob for knob in knobs if not knob.key.startswith("engine.")])
    start |= {k.key: getattr(found[0].resolved.engine, k.key[7:]) for k in knobs if k.key.startswith("engine.")}
    report("as it is", found, {}, options.metric)

    def fitted(part: Sequence[Family]) -> Values:
        times = np.concatenate([family.measured_s for family in part])
        return minimise(
            lambda v: seconds(part, v, options.metric), times, knobs, start, options.iterations, options.seed
        )

    models = sorted({family.model for family in found})
    for fold in range(options.folds):
        left = [family for family in found if models.index(family.model) % options.folds == fold]
        values = fitted([family for family in found if family not in left])
        report(f"held out, part {fold + 1}: " + _text(values, knobs), left, values, options.metric)
    values = fitted(found)
    report("fitted on all: " + _text(values, knobs), found, values, options.metric)


def _knob(text: str) -> Knob:
    key, _, bounds = text.partition("=")
    low, _, high = bounds.partition(":")
    return Knob(key, float(low), float(high))


def _text(values: Values, knobs: Sequence[Knob]) -> str:
    return ", ".join(f"{knob.key} {values[knob.key]:.4g}" for knob in knobs)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(prog="python -m validation.fit_runs", description=__doc__)
    command.add_argument("knobs", nargs="+", metavar="KEY=LOW:HIGH")
    command.add_argument("--device", required=True, nargs="+")
    command.add_argument("--engine", required=True, nargs="+")
    command.add_argument("--model", nargs="*", default=[], help="these models alone")
    command.add_argument("--steady", action="store_true", help="runs of steady serving instead of static batches")
    command.add_argument("--metric", default="e2el_s", choices=METRICS)
    command.add_argument(
        "--tables", nargs="*", type=Path, default=[], help="end-to-end tables; the shipped one if none"
    )
    command.add_argument("--iterations", type=int, default=8)
    command.add_argument("--folds", type=int, default=0, help="parts of the models to hold out in turn; 0 for none")
    command.add_argument("--seed", type=int, default=0)
    return command


if __name__ == "__main__":
    run(parser().parse_args())
