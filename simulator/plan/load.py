"""Requests as buckets of similar size with a rate each: histograms, mixes of them, and traces counted into them.

Knows lengths in tokens and rates; nothing of hardware.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simulator import catalog
from simulator.errors import Problem, ScenarioError, SpecError, shorten
from simulator.spec.loader import load as load_file
from simulator.spec.plan import TrafficSpec, resolve_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.plan.queueing import Slo

MOST_SIZES = 400
"""A table with more distinct sizes than this is counted into buckets."""
_INPUT = ("input_tokens", "contexttokens", "num_prefill_tokens", "input_length", "prompt_tokens")
_OUTPUT = ("output_tokens", "generatedtokens", "num_decode_tokens", "output_length", "completion_tokens")
_WEIGHT = ("weight", "count", "requests", "share")


@dataclass(frozen=True, slots=True)
class Load:
    """Requests to one model: B buckets."""

    name: str
    input_tokens: NDArray[np.float64]
    """(B,) of a request of the bucket."""
    output_tokens: NDArray[np.float64]
    rate_per_s: NDArray[np.float64]
    """(B,) requests per second."""
    model: str | None = None
    slo: Slo | None = None
    max_context: int | None = None
    arrival_cv: float = 1.0

    def __len__(self) -> int:
        return len(self.rate_per_s)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the buckets, for people."""
        return tuple(f"{i:.0f} in, {o:.0f} out" for i, o in zip(self.input_tokens, self.output_tokens, strict=True))

    @property
    def service_cv2(self) -> float:
        """Squared coefficient of variation of output lengths, which service times are nearly proportional to."""
        share = self.rate_per_s / self.rate_per_s.sum()
        mean = float(share @ self.output_tokens)
        return float(share @ (self.output_tokens - mean) ** 2) / mean**2

    def longest(self, share: float) -> NDArray[np.bool_]:
        """(B,) the buckets of longest requests, input and output in sum, that are at most `share` of the requests."""
        order = np.argsort(-(self.input_tokens + self.output_tokens), kind="stable")
        within = np.cumsum(self.rate_per_s[order]) <= share * self.rate_per_s.sum() * (1.0 + 1e-9)
        found = np.zeros(len(self), bool)
        found[order[within]] = True
        return found


Rows = list[tuple[float, float, float]]


def traffic_rows(traffic: str | Mapping[str, float] | Rows, beside: Path) -> Rows:
    """(input, output, share) of every bucket with requests; shares sum to 1. Raises ScenarioError or SpecError.

    >>> traffic_rows([(100, 10, 3.0), (1000, 10, 1.0), (50, 5, 0.0)], Path("plan.yaml"))
    [(100.0, 10.0, 0.75), (1000.0, 10.0, 0.25)]
    """
    if isinstance(traffic, str):
        rows = _named_rows(traffic, beside)
    elif isinstance(traffic, Mapping):
        rows = []
        for name, share in traffic.items():
            if not (math.isfinite(share) and share >= 0):
                raise ScenarioError(f"traffic: the share of '{name}' must be at least 0, not {share:g}")
            rows += [(i, o, share * weight) for i, o, weight in traffic_rows(name, beside)]
    else:
        rows = list(traffic)
    for prompt, output, weight in rows:
        if not (prompt >= 1 and output >= 1 and math.isfinite(prompt) and math.isfinite(output)):
            raise ScenarioError(f"traffic: lengths must be at least 1 token, got [{prompt:g}, {output:g}, {weight:g}]")
        if not (math.isfinite(weight) and weight >= 0):
            raise ScenarioError(f"traffic: weights must be at least 0, got [{prompt:g}, {output:g}, {weight:g}]")
    total = math.fsum(weight for _, _, weight in rows)
    if not total > 0:
        raise ScenarioError("traffic: the histogram is empty: no bucket has a request")
    return [(float(i), float(o), weight / total) for i, o, weight in rows if weight > 0]


def bucketed(
    inputs: NDArray[np.float64], outputs: NDArray[np.float64], weights: NDArray[np.float64], factor: float = 2.0
) -> Rows:
    """Requests counted into buckets whose edges are powers of `factor`; each has the mean lengths of its requests.

    >>> bucketed(np.array([100.0, 120.0, 900.0]), np.array([10.0, 12.0, 10.0]), np.ones(3))
    [(110.0, 11.0, 2.0), (900.0, 10.0, 1.0)]
    """
    cells = np.stack([np.floor(np.log(values) / math.log(factor) + 1e-9) for values in (inputs, outputs)], axis=1)
    _, cell = np.unique(cells, axis=0, return_inverse=True)
    cell = cell.ravel()
    weight = np.bincount(cell, weights)
    kept = weight > 0
    means = [np.bincount(cell, weights * values)[kept] / weight[kept] for values in (inputs, outputs)]
    return list(zip(means[0].tolist(), means[1].tolist(), weight[kept].tolist(), strict=True))


def _named_rows(name: str, beside: Path) -> Rows:
    if name.endswith(".csv"):
        return read_csv(resolve_path(name, beside))
    path = resolve_path(name, beside) if name.endswith((".yaml", ".yml")) else catalog.find("traffic", name)
    return list(load_file(path, TrafficSpec).buckets)


def read_csv(path: Path) -> Rows:
    """(input, output, weight) of a CSV histogram or of a trace with a line per request.

    Raises SpecError naming every bad line.
    """
    header, lines = csv_lines(path)
    lower = [name.strip().lower() for name in header]
    columns = [next((lower.index(name) for name in names if name in lower), None) for names in (_INPUT, _OUTPUT)]
    weight_column = next((lower.index(name) for name in _WEIGHT if name in lower), None)
    if None in columns:
        raise SpecError([Problem(shorten(path), 1, 1, "", "needs the columns input_tokens and output_tokens")])
    rows, problems = [], []
    for number, fields in lines:
        try:
            values = [float(fields[column]) for column in columns if column is not None]
            weight = 1.0 if weight_column is None else float(fields[weight_column])
            if not (min(values) >= 1 and weight >= 0 and all(map(math.isfinite, (*values, weight)))):
                raise ValueError
        except (ValueError, IndexError):
            message = f"'{','.join(fields)}' is not two lengths of at least 1 token and a weight of at least 0"
            problems.append(Problem(shorten(path), number, 1, "", message))
            continue
        rows.append((values[0], values[1], weight))
    if problems:
        raise SpecError(problems[:20])
    if len({row[:2] for row in rows}) > MOST_SIZES:
        columns_of = np.array(rows)
        return bucketed(columns_of[:, 0], columns_of[:, 1], columns_of[:, 2])
    return rows


def csv_lines(path: Path) -> tuple[list[str], Iterable[tuple[int, list[str]]]]:
    """The header and the numbered further lines of a CSV file. Raises SpecError if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([Problem(shorten(path), 0, 0, "", f"cannot be read: {error}")]) from None
    reader = csv.reader(text.splitlines())
    header = next(reader, [])
    if not header:
        raise SpecError([Problem(shorten(path), 0, 0, "", "is empty")])
    return header, [(reader.line_num, fields) for fields in reader if fields and any(map(str.strip, fields))]
