"""Where predictions stand against what the project aims at: residuals of runs and kernels, and the table of goals.

Works on `validation.residuals`; writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from validation import conformal, first_look, remainder, residuals
from validation.groups import errors, pct

SIX = "trtllm_docs, A100, TensorRT-LLM"
"""Group of `validation.first_look` that other tools state their error on."""


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


def goals(runs: Runs, kernels: pd.DataFrame, other: pd.DataFrame) -> list[list[str]]:
    """What the project aims at, and where it stands."""
    dense = runs.static[~runs.static["kinds"].str.contains("routed")]
    own = dense[dense["device"].isin(runs.heldout["device"].unique()) & (dense["constants"] == "measured")]
    times = {name: own[own["metric"] == name]["residual"] for name in ("e2el_s", "tpot_s")}
    heldout = runs.heldout[runs.heldout["metric"] == "e2el_s"]
    moved = other[(other["op"] == "gemm") & (other["dtype"] == "bfloat16")]
    energy = pd.concat([runs.static, runs.steady])
    energy = energy[energy["metric"] == "energy_j_per_output_token"]
    static = energy["regime"] == "static"
    rows = [
        ("bf16 GEMM, weight shapes that no fit has seen, MAPE", 0.08, unfitted(kernels, "bf16 GEMM")),
        ("fp8 GEMM, weight shapes that no fit has seen, MAPE", 0.08, unfitted(kernels, "fp8 GEMM")),
        ("bf16 attention, prefill, heads and batches that no fit has seen, MAPE", 0.12,
         unfitted(kernels, "bf16 attention, prefill")),
        ("bf16 attention, decode, the same", 0.12, unfitted(kernels, "bf16 attention, decode")),
        ("bf16 GEMM, parameters of other devices, MAPE", 0.18, errors(moved["residual"])["mape"]),
        ("six figures of TensorRT-LLM's documentation, mean", 0.055, six_figures()),
        ("whole runs of dense models on A100, H100, H200, engines with measured constants, median", 0.08,
         errors(times["e2el_s"])["median"]),
        ("time per output token of the same, median", 0.08, errors(times["tpot_s"])["median"]),
        ("whole runs with parameters of the other architecture, median", 0.15, errors(heldout["residual"])["median"]),
        ("energy per token, static batches, median", 0.15, errors(energy[static]["residual"])["median"]),
        ("energy per token, steady serving, median", 0.15, errors(energy[~static]["residual"])["median"]),
    ]  # fmt: skip
    return [[text, pct(goal), pct(found), "yes" if found <= goal else "no"] for text, goal, found in rows]
