"""Where predictions stand against what the project aims at: residuals of runs and kernels, and the table of goals.

Works on `validation.residuals`; writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from validation import conformal, first_look, folds, remainder, residuals
from validation.groups import errors, pct

SIX = "trtllm_docs, A100, TensorRT-LLM"
"""Group of `validation.first_look` that other tools state their error on."""

ENERGY = "energy_j_per_output_token"
GOALS = ("goal", "aim", "now", "as shipped", "met")
"""Columns of `goals`."""


@dataclass(frozen=True, slots=True)
class Runs:
    """The residuals of runs, by group."""

    static: pd.DataFrame
    steady: pd.DataFrame
    heldout: pd.DataFrame
    """Predicted with parameters that never saw the device, joined with what the shipped ones say (`shipped`)."""
    loaded: pd.DataFrame
    """Steady serving at a load that is assumed from a scenario."""
    coverage_by: dict[str, pd.DataFrame]
    quantiles: dict[conformal.Key, conformal.Quantiles]


def runs_of(rows: pd.DataFrame) -> Runs:
    """The parts of the residuals that the page shows."""
    groups = conformal.grouped(rows)
    real = groups[groups["constants"] != "ideal"]
    by = {name: conformal.held_out(real, name) for name in ("model", "device")}
    # A measured device is asked about other models, a device that was not measured about itself.
    known = real["tag"].isin(("in-grid", "extrapolated"))
    real = real.assign(inside=by["model"]["inside"].where(known, by["device"]["inside"]))
    shipped = real[real["parameters"] == residuals.SHIPPED]
    static = shipped[shipped["regime"] == "static"]
    every = residuals.as_times(rows)
    loaded = every[(every["parameters"] == residuals.SHIPPED) & ~every.index.isin(residuals.stated(every).index)]
    other = residuals.as_times(residuals.stated(rows))
    other = other[(other["parameters"] != residuals.SHIPPED) & ~other["steady"]]
    twin = static.set_index(["row", "metric"])["residual"]
    joined = other.join(twin.rename("shipped"), on=["row", "metric"])
    return Runs(static, shipped[shipped["regime"] == "steady"], joined, loaded, by, conformal.quantiles(groups))


def measured_runs(runs: Runs) -> pd.DataFrame:
    """Runs on devices whose kernels were measured, static and steady."""
    both = pd.concat([runs.static, runs.steady])
    return both[both["device"].isin(runs.heldout["device"].unique())]


def kernel_residuals(kernels: pd.DataFrame) -> pd.DataFrame:
    """ln(measured / predicted) and the same at the speed of light, of kernels."""
    logs = {"residual": np.log(kernels["measured"] / kernels["predicted"])}
    ideal = kernels["ideal"].where(kernels["ideal"] > 0.0)
    logs["ideal_residual"] = np.log(kernels["measured"] / ideal)
    text = {name: kernels[name].astype(str) for name in ("hardware", "framework", "op", "dtype", "size_class")}
    return kernels.assign(**logs, **text)


def unfitted(kernels: pd.DataFrame, title: str) -> float:
    """MAPE of one of `remainder.KINDS` on the shapes that no fit has seen."""
    kind = next(kind for kind in remainder.KINDS if kind.title == title)
    rows = remainder.shaped(kernels, kind)
    return errors(rows[rows["held_out"]]["residual"])["mape"]


def six_figures() -> float:
    """Mean error of the well-known figures of one engine on two devices, which no parameter has seen."""
    rows = [(predicted, measured) for group, _, predicted, measured in first_look.compare() if group in SIX]
    return float(np.mean([abs(predicted / measured - 1.0) for predicted, measured in rows]))


def unseen(rows: pd.DataFrame, held: pd.DataFrame) -> pd.Series:
    """The residuals of rows; of those in `held` (a part of `folds.runs()`) under constants that have not seen them."""
    known = held.assign(residual=folds.residuals(held)).set_index(["row", "metric"])["residual"]
    found = known.reindex(pd.MultiIndex.from_frame(rows[["row", "metric"]])).to_numpy()
    return rows["residual"].where(np.isnan(found), found)


def energies(regime: pd.DataFrame, held: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Residuals of energy per output token of runs that state it, or power and time: with constants that have not seen them,
    and as shipped."""
    stated = regime[regime["metric"] == ENERGY]
    mine = held[(held["metric"] == ENERGY) & (held["steady"] == (regime["regime"] == "steady").any())]
    more = mine[~mine["row"].isin(stated["row"])]
    return (
        pd.concat([unseen(stated, mine), folds.residuals(more)]),
        pd.concat([stated["residual"], folds.residuals(more, "shipped")]),
    )


def goals(runs: Runs, kernels: pd.DataFrame, other: pd.DataFrame, held: pd.DataFrame) -> list[list[str]]:
    """What the project aims at, and where it stands: `now` is the error on rows that nothing was fitted to, `as shipped`
    that of the same rows with the constants as they are, where these have seen them. `held` are `folds.runs()`."""
    dense = runs.static[~runs.static["kinds"].str.contains("routed")]
    own = dense[dense["device"].isin(runs.heldout["device"].unique()) & (dense["constants"] == "measured")]
    times = {name: own[own["metric"] == name] for name in ("e2el_s", "tpot_s")}
    strangers = held[held["unseen"]]
    apart = held[(held["by"] == "device") & ~held["steady"]]
    apart = {name: apart[apart["metric"] == name] for name in times}
    heldout = runs.heldout[runs.heldout["metric"] == "e2el_s"]
    moved = other[(other["op"] == "gemm") & (other["dtype"] == "bfloat16")]
    rows = [
        ("bf16 GEMM, weight shapes that no fit has seen, MAPE", 0.08, unfitted(kernels, "bf16 GEMM")),
        ("fp8 GEMM, weight shapes that no fit has seen, MAPE", 0.08, unfitted(kernels, "fp8 GEMM")),
        ("bf16 attention, prefill, heads and batches that no fit has seen, MAPE", 0.12,
         unfitted(kernels, "bf16 attention, prefill")),
        ("bf16 attention, decode, the same", 0.12, unfitted(kernels, "bf16 attention, decode")),
        ("bf16 GEMM, parameters of other devices, MAPE", 0.18, errors(moved["residual"])["mape"]),
        ("six figures of TensorRT-LLM's documentation, mean", 0.055, six_figures()),
        ("whole runs of dense models on A100, H100, H200, engines with measured constants, models or degrees left out, "
         "median", 0.08,
         errors(unseen(times["e2el_s"], strangers))["median"], errors(times["e2el_s"]["residual"])["median"]),
        ("time per output token of the same, median", 0.08,
         errors(unseen(times["tpot_s"], strangers))["median"], errors(times["tpot_s"]["residual"])["median"]),
        *((f"{what} of runs that constants were fitted to, device left out, median", 0.15,
           errors(folds.residuals(apart[name]))["median"], errors(folds.residuals(apart[name], "shipped"))["median"])
          for name, what in (("e2el_s", "latency"), ("tpot_s", "time per output token"))),
        ("whole runs with kernels and constants of the other architecture, median", 0.15,
         errors(heldout["residual"])["median"], errors(heldout["shipped"].dropna())["median"]),
        *((f"energy per token, {name}, models or degrees left out, median", 0.15,
           *(errors(part)["median"] for part in energies(regime, strangers)))
          for name, regime in (("static batches", runs.static), ("steady serving", runs.steady))),
    ]  # fmt: skip
    return [
        [name, pct(goal), pct(found), pct(shipped[0]) if shipped else "", "yes" if found <= goal else "no"]
        for name, goal, found, *shipped in rows
    ]
