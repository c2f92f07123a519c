"""90% intervals from held-out residuals, and how much of what was held out lies in them.

Split conformal prediction on ln(measured / predicted), by group (Mondrian), with whole cells of related rows as the unit
that counts. Writes nothing; knows nothing of how a prediction is made.

Lee, Barber and Willett, "Distribution-free inference with hierarchical data", 2023: each of K cells has the weight
1/(K+1), spread over its rows, and the rest lies at infinity; so one source with thousands of near duplicates counts once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from simulator import catalog
from simulator.mapping.machine import load_machine
from simulator.spec.interval import TAGS, Tag
from validation import residuals, transfer

COVERAGE = 0.9
FEWEST = 20
"""Cells below which a group is pooled with others: of fewer, the shortest interval is nearly the range of all."""
LEAST = 10
"""Cells that are enough where no pool has so many: the range of K cells holds a new one with probability (K-1)/(K+1)."""
FEWEST_VALUES = 20
"""Values below which a device does not count as measured."""
TIMES = ("ttft_s", "tpot_s", "e2el_s")
METRICS = (*TIMES, "energy_j_per_output_token", "power_w")
ENGINES = ("measured", "assumed", "ideal")
REGIMES = ("static", "steady")
CELLS = {"fine": ["device", "model", "framework"], "coarse": ["device"]}
"""What the rows of one cell share: for measured devices a new model is the question, for others a new device."""
SPANS = ("batch", "context", "weight_bytes", "devices")
Columns = dict[str, np.ndarray]
Key = tuple[str, str, str, str]
"""metric, tag, engine constants, regime."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Ratios of measured to predicted values between which 90% lie, and what they rest on."""

    low: float
    high: float
    cells: int
    values: int
    pooled: str = ""


def shortest(residual: np.ndarray, cell: np.ndarray) -> tuple[float, float, int]:
    """Ends of the shortest interval of residuals with 90% of the weight, and the number of cells K.

    Every cell weighs the same and its rows share its weight. 0.9 (K+1) of K cells must lie inside, as 1/(K+1) of the weight
    is taken to lie beyond all that was seen, and half a cell more because both ends are chosen (of normal samples of 20 to
    100 cells, 88% to 91% of new ones are then inside); with too few cells for that, all.

    >>> values = np.arange(100.0)
    >>> shortest(values, values)
    (0.0, 91.0, 100)
    """
    _, numbers, counts = np.unique(cell, return_inverse=True, return_counts=True)
    total = len(counts)
    order = np.argsort(residual, kind="stable")
    values, weights = residual[order], (1.0 / (total * counts))[numbers][order]
    needed = min(1.0, (COVERAGE * (total + 1) + 0.5) / total) - 1e-9
    above = np.cumsum(weights)
    below = above - weights
    last = np.searchsorted(above, below + needed, side="left")
    usable = last < len(values)
    if not usable.any():
        return float(values[0]), float(values[-1]), total
    starts = np.flatnonzero(usable)
    best = starts[np.argmin(values[last[starts]] - values[starts])]
    return float(values[best]), float(values[last[best]]), total


def grouped(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that say something about each tag, with columns `tag`, `constants`, `regime` and `residual`.

    Measured devices: shipped parameters, the sizes at the ends of their range as `extrapolated`; with the parameters of the
    other architecture, as `transferred`. All other devices as the product predicts them.
    """
    rows = residuals.as_times(residuals.stated(rows)).assign(
        regime=lambda frame: np.where(frame["steady"], "steady", "static"),
        context=lambda frame: frame["input_len"].astype(float) + frame["output_len"].astype(float),
        devices=lambda frame: frame["tp"] * frame["pp"] * frame["dp"],
    )
    shipped = rows[rows["parameters"] == residuals.SHIPPED]
    listed = shipped["device"].isin(measured_devices(shipped))
    own = shipped[listed]
    edge = at_the_ends(own)
    other = shipped[~listed & (shipped["calibration_tag"] != "datasheet")]
    heldout = rows[(rows["parameters"] != residuals.SHIPPED) & rows["device"].isin(own["device"].unique())]
    parts = [
        own[~edge].assign(tag="in-grid"),
        own[edge].assign(tag="extrapolated"),
        other.assign(tag="transferred"),
        heldout.assign(tag="transferred"),
        shipped[shipped["calibration_tag"] == "datasheet"].assign(tag="datasheet"),
    ]
    found = pd.concat(parts, ignore_index=True)
    measured = set(measured_engines())
    found["constants"] = np.where(found["framework"].isin(measured), "measured", "assumed")
    ideal = found[found["parameters"] == residuals.SHIPPED].assign(constants="ideal")
    ideal["residual"] = ideal["ideal_residual"]
    found = pd.concat([found, ideal], ignore_index=True)
    for name, columns in CELLS.items():
        found[name] = found.groupby(columns).ngroup()
    return found


def measured_devices(shipped: pd.DataFrame) -> set[str]:
    """Devices whose architecture has a fitted calibration and of which enough runs were measured."""
    fitted = shipped[shipped["calibration_tag"] == "in-grid"]
    counts = fitted.groupby("device").size()
    return set(counts.index[counts >= FEWEST_VALUES])


def measured_engines() -> list[str]:
    """Engines of which at least one time was measured."""
    return sorted(path.stem for path in catalog.files("engine") if transfer.measured_constants(path.stem))


def chip(device: str) -> str:
    """Devices with the same name of it have the same compute units, and differ in memory."""
    machine = load_machine(device)
    peaks = sorted((dtype, rate) for unit in machine.units for dtype, rate in unit.peak_flop_per_s.items())
    return f"{machine.architecture} {peaks}"


def at_the_ends(rows: pd.DataFrame) -> pd.Series:
    """Rows at the largest batch, context, weights or number of devices of their chip and engine, at the least weights, or in
    a format or of a kind that one model alone has: without them they would lie outside the range."""
    keys = [rows["device"].map({name: chip(name) for name in rows["device"].unique()}), rows["framework"]]
    edge = pd.Series(False, index=rows.index)
    for column in SPANS:
        values = rows[column].where(~rows["assumed_lengths"]) if column == "context" else rows[column]
        grouped_values = values.groupby(keys)
        several = grouped_values.transform("nunique") > 1
        edge |= several & (values == grouped_values.transform("max"))
        if column == "weight_bytes":
            edge |= several & (values == grouped_values.transform("min"))
    for column in ("formats", "kinds"):
        edge |= rows["model"].groupby([*keys, rows[column]]).transform("nunique") < 2
    return edge


def quantiles(rows: pd.DataFrame) -> dict[Key, Quantiles]:
    """The quantiles of every group of `grouped` rows that are `possible`; wider, never narrower, the less a prediction rests
    on."""
    found: dict[Key, Quantiles] = {}
    rows = possible(rows)
    ideal = (rows["constants"] == "ideal").to_numpy()
    for tag in TAGS:
        tagged = (rows["tag"] == tag).to_numpy()
        for of_ideal in (False, True):
            alike = rows[tagged & (ideal == of_ideal)]
            columns = {
                name: alike[name].to_numpy()
                for name in ("metric", "constants", "regime", "residual", "assumed_lengths", *CELLS)
            }
            for regime in sorted(set(columns["regime"])):
                for metric in METRICS:
                    for engine in ENGINES[2:] if of_ideal else ENGINES[:2]:
                        made = _of_group(columns, metric, tag, engine, regime)
                        if made is not None:
                            found[metric, tag, engine, regime] = made
    return nested(found)


def nested(found: dict[Key, Quantiles]) -> dict[Key, Quantiles]:
    """Each group at least as wide as the better founded ones, around 1; groups without residuals as the next better."""
    result: dict[Key, Quantiles] = {}
    keys = {(metric, engine, regime) for metric, _, engine, regime in found}
    for metric, engine, regime in sorted(keys):
        before: Quantiles | None = None
        for tag in TAGS:
            own = found.get((metric, tag, engine, regime), before)
            if own is None:
                continue
            inside = [q for q in (before, result.get((metric, tag, "measured", regime))) if q is not None]
            if engine == "ideal":
                inside = [q for q in (before,) if q is not None]
            low = min(1.0, own.low, *(q.low for q in inside))
            high = max(1.0, own.high, *(q.high for q in inside))
            if engine == "ideal" and metric != "power_w":
                low = 1.0
            borrowed = (metric, tag, engine, regime) not in found
            pooled = "as the next better founded; nothing measured" if borrowed else own.pooled
            before = Quantiles(low, high, 0 if borrowed else own.cells, 0 if borrowed else own.values, pooled)
            result[metric, tag, engine, regime] = before
        # `measured` sorts after `assumed`: the wider rule between them is applied below.
    for (metric, tag, engine, regime), own in list(result.items()):
        other = result.get((metric, tag, "measured", regime))
        if engine == "assumed" and other is not None:
            low, high = min(own.low, other.low), max(own.high, other.high)
            result[metric, tag, engine, regime] = Quantiles(low, high, own.cells, own.values, own.pooled)
    return result


def _of_group(rows: Columns, metric: str, tag: Tag, engine: str, regime: str) -> Quantiles | None:
    """The quantiles of the smallest pool around a group that has enough cells; with too few devices, of the widest pool, by
    device, model and engine."""
    pools = _pools(rows, metric, engine, regime)
    tries = [(pool, words, tag in ("transferred", "datasheet")) for pool, words in pools]
    tries.append((pools[-1][0], f"{pools[-1][1]}; cells of a device, model and engine", False))
    for least in (FEWEST, LEAST):
        for pool, words, coarse in tries:
            residual, cell = rows["residual"][pool], rows["coarse" if coarse else "fine"][pool]
            if len(cell) and len(np.unique(cell)) >= least:
                low, high, count = shortest(residual, cell)
                return Quantiles(float(np.exp(low)), float(np.exp(high)), count, len(cell), words)
    return None


def _pools(rows: Columns, metric: str, engine: str, regime: str) -> list[tuple[np.ndarray, str]]:
    """Which rows may stand for a group, from the fewest to the most."""
    of_metric, of_regime = rows["metric"] == metric, rows["regime"] == regime
    pools = [(of_metric & of_regime & (rows["constants"] == engine), ""), (of_metric & of_regime, "all engines")]
    if metric not in TIMES:
        stated = of_regime | ~rows["assumed_lengths"] | (metric == "power_w")
        pools.append((of_metric & stated, "all engines, static and steady"))
    elif regime == "static":
        pools.append((np.isin(rows["metric"], TIMES) & of_regime, "all engines and times"))
    return pools


def possible(rows: pd.DataFrame) -> pd.DataFrame:
    """Without measurements that datasheet rates do not allow: they say nothing of predictions."""
    return rows[~rows["below_speed_of_light"].astype(bool)]


def inside(rows: pd.DataFrame, table: dict[Key, Quantiles]) -> pd.Series:
    """Whether each row's measurement lies in the interval of its group."""
    keys = zip(rows["metric"], rows["tag"], rows["constants"], rows["regime"], strict=True)
    ends = {key: (np.log(found.low), np.log(found.high)) for key, found in table.items()}
    low, high = np.array([ends.get(key, (-np.inf, np.inf)) for key in keys]).T
    return pd.Series((low <= rows["residual"]) & (rows["residual"] <= high), index=rows.index)


def held_out(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """The rows with a column `inside`: each in an interval from rows that share neither its device nor its
    chip (`by` device), or not its model (`by` model)."""
    group = (
        rows["device"].map({name: chip(name) for name in rows["device"].unique()}) if by == "device" else rows["model"]
    )
    parts = [part.assign(inside=inside(part, quantiles(rows[group != name]))) for name, part in rows.groupby(group)]
    return pd.concat(parts)


def coverage(rows: pd.DataFrame, by: Iterable[str] = ("tag", "metric")) -> pd.DataFrame:
    """Share of `possible` measurements inside, every cell with the same weight; rows need `inside`."""
    records = []
    for names, part in possible(rows).groupby(list(by), sort=True):
        tag = part["tag"].iloc[0]
        cells = part.groupby("coarse" if tag in ("transferred", "datasheet") else "fine")["inside"].mean()
        records.append((*names, len(part), len(cells), float(cells.mean()), float(part["inside"].mean())))
    return pd.DataFrame(records, columns=[*by, "n", "cells", "coverage", "of_rows"])
