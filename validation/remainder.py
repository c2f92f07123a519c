"""What is left of the error of kernels once a property of theirs is known: which shapes, and how much is scatter that no
smooth law could follow.

Works on residuals ln(measured / predicted) of the shipped tables; fits nothing, knows no names of engines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from validation import fit
from validation.groups import errors
from validation.tables import KERNELS, read_table
from validation.transfer import TABLES

Steps = tuple[tuple[str, tuple[str, ...]], ...]
MODEL: Steps = (("device and engine", ("hardware", "framework")),)
SOURCE = ("kernel_source",)


@dataclass(frozen=True, slots=True)
class Kind:
    """One family of kernels: which rows, what makes up their shape, and along which column neighbours lie."""

    title: str
    op: str
    dtype: str
    fit: str
    """Kind of `validation.fit` that says which shapes are held out."""
    shape: tuple[str, ...]
    step: tuple[str, ...]
    """Columns of a step but for the last, along which neighbours lie."""
    along: str
    tile: int = 0
    """Size of a usual tile along that column: how full the last one is becomes a property. 0 for no such property."""


FEW = (2, 16)
"""Rows of a product that one tile serves: their times differ by what else than the product is in them, and by noise."""
ATTENTION = ("num_heads", "num_key_value_heads", "head_dim", "window_size")
EXPERTS = ("hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size", "distribution")
KINDS = (
    Kind("bf16 GEMM", "gemm", "bfloat16", "gemm", ("n", "k"), (), "m", 128),
    Kind("fp8 GEMM", "gemm", "fp8", "gemm", ("n", "k"), (), "m", 128),
    Kind("bf16 attention, prefill", "attention_prefill", "bfloat16", "prefill", ATTENTION, ("batch_size", "step"), "isl"),
    Kind("bf16 attention, decode", "attention_decode", "bfloat16", "decode", ATTENTION, ("batch_size",), "context"),
    Kind("bf16 experts", "moe", "bfloat16", "experts", EXPERTS, (), "num_tokens"),
)  # fmt: skip


def shaped(kernels: pd.DataFrame, kind: Kind) -> pd.DataFrame:
    """The rows of a kind on the measured devices, with the columns of their shapes and `held_out`.

    A column that a table lacks is -1, as is one that a row leaves open.
    """
    chosen = kernels[(kernels["op"] == kind.op) & (kernels["dtype"] == kind.dtype) & kernels["hardware"].isin(TABLES)]
    columns = [*kind.shape, *kind.step, kind.along, *SOURCE]
    parts = []
    for (hardware, name), part in chosen.groupby(["hardware", chosen["table"].astype(str)], observed=True):
        table = read_table(KERNELS / TABLES[str(hardware)] / str(name)).iloc[part["row"].to_numpy(int)]
        if kind.along == "context":
            table = table.assign(context=table["isl"] + table["step"])
        known = table.reindex(columns=columns).reset_index(drop=True)
        held = fit.held_out(table, fit.KINDS[kind.fit]).to_numpy()
        parts.append(pd.concat([part.reset_index(drop=True), known.fillna(-1)], axis=1).assign(held_out=held))
    if not parts:
        return chosen.assign(**dict.fromkeys(columns, -1), held_out=False, last="")
    found = pd.concat(parts, ignore_index=True)
    return found.assign(last=last_tile(found[kind.along], kind.tile))


def last_tile(size: pd.Series, tile: int) -> pd.Series:
    """How full the last tile is: `first` where there is no other, `one` with a single row, `full`, or `part`.

    >>> list(last_tile(pd.Series([100, 256, 257, 300]), 128))
    ['first', 'full', 'one', 'part']
    """
    if tile <= 0:
        return pd.Series("", index=size.index)
    over = size % tile
    names = np.select([size <= tile, over == 0, over == 1], ["first", "full", "one"], "part")
    return pd.Series(names, index=size.index)


def steps(kind: Kind) -> Steps:
    """Properties of a kernel, each within those before it."""
    first = MODEL[-1][1]
    source = (*first, *SOURCE)
    return (*MODEL, ("kernel as the table names it", source), ("shape", (*source, *kind.shape)))


def beside(kind: Kind) -> Steps:
    """Further properties, each within the kernel as the table names it and apart from the shape."""
    source = (*MODEL[-1][1], *SOURCE)
    sizes: Steps = ((kind.along, (*source, kind.along)),)
    return ((f"how full the last tile of {kind.tile} is", (*source, "last")), *sizes) if kind.tile else sizes


def peeled(rows: pd.DataFrame, properties: Steps) -> list[tuple[str, int, dict[str, float]]]:
    """(property, number of its groups, errors once the median of each group is known), property after property.

    >>> rows = pd.DataFrame({"residual": np.log([1.0, 1.0, 2.0, 2.0]), "engine": ["a", "a", "b", "b"]})
    >>> [(name, round(left["mape"], 3)) for name, _, left in peeled(rows, (("engine", ("engine",)),))]
    [('engine', 0.0)]
    """
    found = []
    for label, keys in properties:
        groups = rows["residual"].groupby([rows[name].astype(str) for name in keys])
        left = rows["residual"] - groups.transform("median")
        found.append((label, groups.ngroups, errors(left)))
    return found


def scatter(rows: pd.DataFrame, keys: Sequence[str], along: str) -> tuple[int, float]:
    """(rows with a neighbour on either side, mean absolute error that remains of a residual that is smooth along a column).

    A row is compared with the mean of its neighbours, in the logarithm; of three equal and independent scatters that
    difference has 1.5 times the variance of one, which is taken out. A lower bound for any prediction that varies
    smoothly; choices between kernels that change from size to size count as scatter.

    >>> zigzag = pd.DataFrame({"m": [1, 2, 3, 4, 5], "residual": [0.1, -0.1, 0.1, -0.1, 0.1]})
    >>> count, left = scatter(zigzag.assign(n=0), ["n"], "m")
    >>> count, round(left, 3)
    (3, 0.163)
    """
    every = [*keys, along]
    means = rows.groupby([rows[name].astype(str) for name in keys] + [rows[along]])["residual"].mean()
    frame = means.rename_axis(every).reset_index()
    residual = frame["residual"]
    series = frame.groupby(list(keys))["residual"]
    off = (residual - (series.shift(1) + series.shift(-1)) / 2.0).dropna() / np.sqrt(1.5)
    return len(off), float(off.abs().mean()) if len(off) else float("nan")


def spread(rows: pd.DataFrame, keys: Sequence[str]) -> float:
    """Mean distance of the logarithm of measured times from the median of their group.

    >>> round(spread(pd.DataFrame({"measured": [1.0, 1.0, np.e], "n": 0}), ["n"]), 3)
    0.333
    """
    times = np.log(rows["measured"].astype(float))
    groups = times.groupby([rows[name].astype(str) for name in keys])
    return float((times - groups.transform("median")).abs().mean())


def summary(kernels: pd.DataFrame) -> Mapping[str, list[tuple[str, str, float, float]]]:
    """Title of a kind -> (what is known, of how many, MAPE, median) on rows that no fit has seen."""
    found = {}
    for kind in KINDS:
        rows = shaped(kernels, kind)
        rows = rows[rows["held_out"]]
        own = errors(rows["residual"])
        lines = [("nothing", "", own["mape"], own["median"])]
        for label, groups, left in peeled(rows, (*steps(kind), *beside(kind))):
            lines.append((f"bias by {label}", f"{groups:,}", left["mape"], left["median"]))
        keys = [*steps(kind)[-1][1], *kind.step]
        engines = rows.groupby("framework", observed=True)
        for label, part in (("", rows), *((f", {name}", part) for name, part in engines)):
            count, left_over = scatter(part, keys, kind.along)
            what = f"scatter between neighbours along {kind.along}{label}"
            lines.append((what, f"{count:,} rows", left_over, float("nan")))
            few = part[(part[kind.along] >= FEW[0]) & (part[kind.along] <= FEW[1])]
            if kind.tile and label and len(few):
                what = f"spread of times of {FEW[0]} to {FEW[1]} {kind.along}, one shape{label}"
                lines.append((what, f"{len(few):,} rows", spread(few, keys), float("nan")))
        found[kind.title] = lines
    return found
