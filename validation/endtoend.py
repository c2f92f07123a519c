"""Predictions against measured end-to-end runs, row by row.

A run is compared in every quantity that it states. Static batches are predicted as such, rows of steady serving as that at
their concurrency; both are also scored apart. What cannot be resolved is counted by reason.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from simulator.cost.interval import formats_of, kinds_of
from simulator.errors import SimulatorError, SpecError
from simulator.predict import Predictor, predictor
from simulator.result import Prediction
from simulator.scenario import Scenario, prepared
from simulator.spec.interval import Regime
from simulator.steady import max_concurrency, percentile_concurrency, predict_steady, steady
from validation.mlperf import completed
from validation.quantities import METRICS, RATES, Value, measured, predicted
from validation.rows import Resolved, Unresolved, resolve_row
from validation.score import score, score_by

ASSUMED_TOKENS = 300
"""Input and output tokens of a row that does not state them: chat, of about 200 to 500 tokens."""
SLACK = 0.02
"""How far below the speed of light a measurement must be to be counted as impossible: rounding, and clocks above base.
Rows of steady serving are not counted: fewer requests than its concurrency may run at a time."""
MOST_IN_FLIGHT = 2048
"""Sequences that a replica runs at a time where a row states none: the most that engines are built for."""
NINETY_NINTH = 2.33
"""Standard deviations above the mean that 99 of 100 of a normal distribution stay below."""
KEYS = ("source", "hardware", "framework", "metric")
SIZE_KEYS = ("hardware", "framework", "metric", "batch_class", "context_class")
ROW = ("table", "row", "source", "model", "hardware", "framework", "weight_dtype", "tp", "pp", "ep", "dp", "batch",
       "input_len", "output_len", "assumed_lengths", "steady", "load", "fits", "turns", "batch_class", "context_class",
       "tag", "weight_bytes", "formats", "kinds", "metric", "measured", "predicted", "low", "high", "error", "ideal",
       "below_speed_of_light", "reason")  # fmt: skip
"""Columns of the rows of a comparison; `reason` is empty where there is a prediction, `weight_bytes` is of one device."""
BATCHES = (1.0, 8.0, 64.0)
CONTEXTS = (512.0, 2048.0, 8192.0)
"""Upper ends of the classes of batch, and of input and output tokens together."""
Build = Callable[[Scenario], Predictor]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows of some tables with what is predicted of them."""

    rows: pd.DataFrame
    """A row per measured run and metric, and per run that cannot be predicted, in the columns `ROW`."""
    total: int
    resolved: int
    unresolved: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    """Why quantities of resolved rows are not compared."""

    @property
    def scored(self) -> pd.DataFrame:
        """The rows that have a prediction."""
        return self.rows[self.rows["reason"] == ""]

    def baseline(self) -> pd.DataFrame:
        """The same rows with the speed of light in place of the prediction."""
        return self.scored.assign(predicted=self.scored["ideal"], low=float("nan"), high=float("nan"))

    def to_dict(self, baseline: bool = False) -> dict[str, Any]:
        """The JSON form."""
        found = {"rows": self.total, "resolved": self.resolved} | _summary(self.scored)
        found |= {
            "unresolved": [{"reason": reason, "rows": count} for reason, count in self.unresolved.most_common()],
            "left_out": [{"reason": reason, "values": count} for reason, count in self.left_out.most_common()],
            "assumed_lengths": int(self.scored.drop_duplicates(["table", "row"])["assumed_lengths"].sum()),
            "below_speed_of_light": int(self.scored["below_speed_of_light"].sum()),
            "by_size": self.by_size(),
            "does_not_fit": int(self.scored.drop_duplicates(["table", "row"])["fits"].eq(False).sum()),
            "metrics_static": _by_metric(self.scored[~self.scored["steady"]]),
            "metrics_steady": _by_metric(self.scored[self.scored["steady"] & (self.scored["load"] == "")]),
            "metrics_assumed_load": _by_metric(self.scored[self.scored["load"] != ""]),
        }
        if baseline:
            found["baseline"] = {"engine": "ideal"} | _summary(self.baseline())
        return found

    def by_size(self) -> list[dict[str, Any]]:
        """Statistics by hardware, framework, metric and the classes of batch and context."""
        return score_by(self.scored, SIZE_KEYS)


def _summary(rows: pd.DataFrame) -> dict[str, Any]:
    return {"metrics": _by_metric(rows), "by": score_by(rows, KEYS, ("below_speed_of_light",))}


def _by_metric(rows: pd.DataFrame) -> dict[str, Any]:
    return {name: score(rows[rows["metric"] == name]) for name in METRICS if (rows["metric"] == name).any()}


def compare(
    tables: Sequence[tuple[str, pd.DataFrame]],
    assumed_tokens: int = ASSUMED_TOKENS,
    progress: Callable[[int, int], None] | None = None,
    build: Build = predictor,
) -> Comparison:
    """Predict every row of the (name, table) pairs. `progress` is called with the rows done and all rows.

    `build` makes the predictor of a scenario's family; another than the product's own, say with parameters of other devices,
    changes the predictions and not the speed of light.
    """
    total = sum(len(table) for _, table in tables)
    records: list[dict[str, Any]] = []
    unresolved: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    done = resolved = 0
    for name, table in tables:
        for position, cells in enumerate(table.to_dict("records")):
            row = dict(completed({str(key): value for key, value in cells.items()}))
            done += 1
            if progress is not None and done % 64 == 0:
                progress(done, total)
            base = {"table": name, "row": position, "source": row.get("source", name)}
            base |= {
                key: row.get(key) for key in ("model", "hardware", "framework", "weight_dtype", "batch", "input_len")
            }
            base["output_len"] = row.get("output_len")
            try:
                found = resolve_row(row, assumed_tokens)
                values, ideal, shape = _predictions(found, build)
                stated, left = measured(row, found.assumed_lengths)
                left_out.update(left)
                stated = {metric: value for metric, value in stated.items() if metric in values}
                if not stated:
                    raise Unresolved("; ".join(left) or "no measured quantity")
            except Unresolved as error:
                unresolved[str(error)] += 1
                records.append(base | {"metric": "", "reason": str(error)})
                continue
            resolved += 1
            base |= {"hardware": found.hardware, "framework": found.framework, "reason": ""} | shape
            for metric, value in stated.items():
                compared = _compared(metric, value, values[metric], ideal[metric].predicted)
                compared["below_speed_of_light"] &= not found.steady
                records.append(base | compared)
    frame = pd.DataFrame(records, columns=list(ROW))
    for column in ("assumed_lengths", "steady", "below_speed_of_light"):
        frame[column] = frame[column].eq(True)
    return Comparison(frame, total, resolved, unresolved, left_out)


def _compared(metric: str, value: float, prediction: Value, ideal: float) -> dict[str, Any]:
    """A metric's columns. Faster, or with less energy, than the speed of light by more than `SLACK` is impossible; the power
    of the ideal is that of a faster run, and bounds nothing."""
    ratio = ideal / value if metric in RATES else value / ideal
    return {
        "metric": metric,
        "measured": value,
        "predicted": prediction.predicted,
        "low": prediction.low,
        "high": prediction.high,
        "error": prediction.predicted / value - 1.0,
        "ideal": ideal,
        "below_speed_of_light": metric != "power_w" and ratio < 1.0 - SLACK,
    }


def answer(found: Resolved, build: Build = predictor) -> Prediction:
    """The prediction of a row: of its batch, or of steady serving with as many requests in flight."""
    scenario = found.scenario
    built = build(scenario)
    if not found.steady or not built.resolved.model.decode:
        return built.predict(scenario.batch, scenario.input_tokens, scenario.output_tokens)
    return predict_steady(
        built,
        concurrency=in_flight(built, found) if found.load else scenario.batch,
        input_tokens=scenario.input_tokens,
        output_tokens=scenario.output_tokens,
        waves=found.waves,
        spread=found.spread,
    )


def in_flight(built: Predictor, found: Resolved) -> int:
    """Requests at a time of a row that states a load: as many as fit, or as meet the limits with 99 of 100 requests.

    Arrivals are Poisson, so that so many in flight on average are at times more (`percentile_concurrency`): this many have
    to fit and to meet the limits of TPOT and of the whole answer; the limit of TTFT, a steady state meets.
    """
    asked = found.scenario
    limits = found.limits if found.load == "server" else None
    flight = _in_flight(built, asked.dp, asked.input_tokens, asked.output_tokens, limits)
    if flight < 1:
        raise Unresolved("not one request fits beside the weights")
    return flight


@lru_cache(maxsize=1024)
def _in_flight(
    built: Predictor, replicas: int, prompt: int, output: int, limits: tuple[float, float, float] | None
) -> int:
    lengths = {"input_tokens": prompt, "output_tokens": output}
    most = min(MOST_IN_FLIGHT * replicas, max_concurrency(built, **lengths))
    if most < 1 or limits is None:
        return most
    _, tpot_s, e2el_s = limits

    def meets(flight: int) -> bool:
        peak = math.ceil(percentile_concurrency(flight, NINETY_NINTH))
        if peak > most:
            return False
        state = steady(built, concurrency=peak, **lengths)
        return state.tpot_s <= tpot_s and state.e2el_s <= e2el_s

    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if meets(middle) else (low, middle)
    return low


def _predictions(found: Resolved, build: Build) -> tuple[dict[str, Value], dict[str, Value], dict[str, Any]]:
    """What is predicted, the same at the speed of light, and how the run is laid out. Raises Unresolved."""
    scenario = found.scenario
    try:
        prediction = answer(found, build)
        ideal = answer(replace(found, scenario=scenario.with_(engine="ideal")))
    except SpecError:
        raise
    except SimulatorError as error:
        raise Unresolved(str(error).splitlines()[0]) from None
    shape = {name: getattr(scenario, name) for name in ("tp", "pp", "ep", "dp")}
    shape |= {"fits": prediction.fits, "turns": prediction.turns}
    shape |= {"assumed_lengths": found.assumed_lengths, "steady": found.steady, "load": found.load}
    shape |= {
        "batch": prediction.scenario.batch if found.load else scenario.batch,
        "batch_class": size_class(prediction.scenario.batch if found.load else scenario.batch, BATCHES),
        "context_class": size_class(scenario.input_tokens + scenario.output_tokens, CONTEXTS),
        "tag": prediction.provenance["tag"],
        "weight_bytes": prediction.weight_bytes / prediction.devices,
    }
    shape |= dict(zip(("formats", "kinds"), _formats_and_kinds(_family(scenario)), strict=True))
    regime: Regime = "steady" if found.steady else "static"
    return predicted(prediction, regime), predicted(ideal, regime), shape


def size_class(value: float, ends: Sequence[float]) -> str:
    """The class of a size.

    >>> size_class(8, BATCHES), size_class(9, BATCHES), size_class(65, BATCHES)
    ('2-8', '9-64', '> 64')
    """
    place = int(np.searchsorted(ends, value, side="left"))
    if place == len(ends):
        return f"> {ends[-1]:g}"
    low = 1.0 if place == 0 else ends[place - 1] + 1.0
    return f"{low:g}" if low == ends[place] else f"{low:g}-{ends[place]:g}"


def _family(scenario: Scenario) -> Scenario:
    return replace(scenario, batch=1, input_tokens=1, output_tokens=1)


@lru_cache(maxsize=1024)
def _formats_and_kinds(scenario: Scenario) -> tuple[str, str]:
    """Formats and kinds of op of a scenario's model, each joined by `;`."""
    model = prepared(scenario).model
    kinds = kinds_of(model) | ({"vision"} if scenario.images else set())
    return ";".join(sorted(formats_of(model))), ";".join(sorted(kinds))
