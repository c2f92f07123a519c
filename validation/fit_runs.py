"""Fits what single kernels cannot show to whole runs: `python -m validation.fit_runs --device D --engine E KNOB ...`.

Host time, waiting and how far a stack's kernels reach, from static batches or steady serving in the end-to-end table; whole
models, degrees or devices are held out. A knob is a key of a calibration (`gemm.compute`) or `engine.FIELD`: KEY=LOW:HIGH.
The constants that engines ship with, and their folds, are `validation.folds`'.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simulator.predict import Predictor, host_row
from simulator.scenario import Resolved as ResolvedScenario
from simulator.scenario import Scenario, load_model, resolve
from simulator.schedules import scheduled
from simulator.steady import steady
from validation.endtoend import ASSUMED_TOKENS
from validation.fit import minimise
from validation.knobs import Knob, Values, changed, general, starting_values
from validation.quantities import measured
from validation.rows import Unresolved, resolve_row
from validation.tables import end_to_end_files, read_table

METRICS = ("e2el_s", "tpot_s", "ttft_s")
BY = ("model", "tp", "device")
"""What may be held out."""
STATED = ("ttft_s", "tpot_s", "output_tokens_per_s", "total_tokens_per_s", "power_w", "energy_j_per_output_token")
"""Of a prediction and of a steady state."""
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
    device: str
    tp: int
    rows: list[int] = field(default_factory=list)
    """Where they lie in the table."""
    shapes: list[tuple[int, int, int]] = field(default_factory=list)
    """Batch, input and output tokens."""
    measured: list[dict[str, float]] = field(default_factory=list)
    """Metric -> value in SI units."""
    made: Predictor | None = None
    waves: int | None = None
    """Of steady serving, as that of a resolved row; None for static batches."""
    spread: float = 0.0
    """As that of a resolved row."""

    def with_metric(self, metric: str, most_tokens: float = math.inf, points: int = POINTS) -> Family | None:
        """Some that state a metric and prefill at most so many tokens, spread over the shapes; None if there are none.

        What is made for one is not shared with the other."""
        kept = [
            i
            for i, (batch, prompt, _) in enumerate(self.shapes)
            if metric in self.measured[i] and batch * prompt <= most_tokens
        ]
        if not kept:
            return None
        order = sorted(kept, key=lambda i: self.shapes[i])
        chosen = sorted({order[round(i)] for i in np.linspace(0, len(order) - 1, points)})
        rows, shapes, values = ([held[i] for i in chosen] for held in (self.rows, self.shapes, self.measured))
        return replace(self, rows=rows, shapes=shapes, measured=values, made=None)


def families(
    rows: pd.DataFrame, devices: Collection[str], engines: Collection[str], serving: bool = False
) -> list[Family]:
    """The static batches of devices under some engines (files of releases), or their steady serving, by family.

    No `devices`: of all. `rows` keep their index."""
    found: dict[tuple[Scenario, int, float], Family] = {}
    for index, row in zip(rows.index, rows.to_dict("records"), strict=True):
        cells = {str(key): value for key, value in row.items()}
        try:
            known = resolve_row(cells, ASSUMED_TOKENS)
        except Unresolved:
            continue
        if devices and known.hardware not in devices:
            continue
        if known.scenario.engine not in engines or known.steady is not serving:
            continue
        values, _ = measured(cells, known.assumed_lengths)
        if serving and {"ttft_s", "tpot_s"} <= set(values):
            values["e2el_s"] = values["ttft_s"] + values["tpot_s"] * (known.scenario.output_tokens - 1)
        elif serving and "output_tokens_per_s" in values:  # Little's law
            tokens = known.scenario.batch * known.scenario.output_tokens
            values["e2el_s"] = tokens / values["output_tokens_per_s"]
        asked = known.scenario
        key = asked.with_(batch=1, input_tokens=1, output_tokens=1), known.waves, known.spread
        if key not in found:
            found[key] = Family(
                resolve(asked),
                load_model(asked.model).name,
                known.hardware,
                asked.tp or 1,
                waves=known.waves if serving else None,
                spread=known.spread,
            )
        found[key].rows.append(int(index))
        found[key].shapes.append((asked.batch, asked.input_tokens, asked.output_tokens))
        found[key].measured.append(values)
    return list(found.values())


def answers(family: Family, values: Values) -> list[dict[str, float]]:
    """What is predicted of every run, under the names of `quantities.METRICS`, with some parameters replaced."""
    predictor = _predictor(family, values)
    found = []
    for batch, prompt, output in family.shapes:
        if family.waves is None:
            made: Any = predictor.predict(batch, prompt, output)
            whole = batch * output / made.output_tokens_per_s if made.turns > 1 else made.e2el_s
        else:
            made = steady(
                predictor,
                concurrency=batch,
                input_tokens=prompt,
                output_tokens=output,
                waves=family.waves,
                spread=family.spread,
            )
            whole = made.e2el_s
        found.append({name: float(getattr(made, name)) for name in STATED} | {"e2el_s": whole})
    return found


def seconds(found: Sequence[Family], values: Values, metric: str) -> np.ndarray:
    """The metric of every run, with some parameters of the engine and of the calibration replaced."""
    return np.array([answer[metric] for family in found for answer in answers(family, values)])


def measured_values(found: Sequence[Family], metric: str) -> np.ndarray:
    """The same as measured."""
    return np.array([values[metric] for family in found for values in family.measured])


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
    times = measured_values(found, metric)
    error = seconds(found, values, metric) / times - 1.0
    models = np.concatenate([[family.model] * len(family.shapes) for family in found])
    table = pd.DataFrame({"model": models, "error": error})
    by = table.groupby("model")["error"].agg(median=lambda e: e.abs().median(), bias="median", rows="size")
    by.loc["all"] = [table["error"].abs().median(), table["error"].median(), len(table)]
    print(f"\n{name}\n{by.round(3).to_string()}")


def run(options: argparse.Namespace) -> None:
    """Fits on all models, reports; then on all but some, in `--folds` parts, and reports those left out."""
    rows = pd.concat([read_table(path) for path in end_to_end_files(options.tables)], ignore_index=True)
    named = {load_model(name).name for name in options.model}
    every = families(rows, options.device, options.engine, options.steady)
    stating = [family.with_metric(options.metric) for family in every if not named or family.model in named]
    found = [family for family in stating if family is not None]
    knobs = [_knob(text) for text in options.knobs]
    calibration = general(found[0].resolved.calibration)
    start = starting_values(calibration, [knob for knob in knobs if not knob.key.startswith("engine.")])
    start |= {k.key: getattr(found[0].resolved.engine, k.key[7:]) for k in knobs if k.key.startswith("engine.")}
    report("as it is", found, {}, options.metric)

    def fitted(part: Sequence[Family]) -> Values:
        times = measured_values(part, options.metric)
        return minimise(
            lambda v: seconds(part, v, options.metric), times, knobs, start, options.iterations, options.seed
        )

    for name, left in parts(found, options.by, options.folds):
        values = fitted([family for family in found if family not in left])
        report(f"held out, {name}: " + _text(values, knobs), left, values, options.metric)
    values = fitted(found)
    report("fitted on all: " + _text(values, knobs), found, values, options.metric)


def parts(found: Sequence[Family], by: str, folds: int) -> list[tuple[str, list[Family]]]:
    """What is held out in turn: each value of `model`, `tp` or `device`, or these in so many parts; nothing where all
    runs share one value, or where `folds` is 0."""
    known = sorted({getattr(family, by) for family in found})
    groups = [known[i::folds] for i in range(min(folds, len(known)))]
    if len(groups) < 2:
        return []
    names = [f"{by} {group[0]}" if len(group) == 1 else f"{by}s, part {i + 1}" for i, group in enumerate(groups)]
    return [
        (name, [family for family in found if getattr(family, by) in group])
        for name, group in zip(names, groups, strict=True)
    ]


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
    command.add_argument("--folds", type=int, default=0, help="parts to hold out in turn; 0 for none")
    command.add_argument("--by", default="model", choices=BY, help="what parts are made of")
    command.add_argument("--seed", type=int, default=0)
    return command


if __name__ == "__main__":
    run(parser().parse_args())
