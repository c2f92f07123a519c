"""Writes docs/accuracy.md: how far predictions are from the shipped measurements: `python -m validation.accuracy --write`.

Every number is computed here from the tables; `make accuracy` runs it after the intervals. The words around the numbers are
`validation.wording`'s.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from simulator import catalog
from simulator.spec.calibration import Calibration
from simulator.spec.engine import EngineSpec
from simulator.spec.interval import TAGS
from simulator.spec.loader import load
from validation import (
    bands,
    conformal,
    energy_runs,
    first_look,
    folds,
    interval_file,
    origins,
    remainder,
    residuals,
    summary,
    wording,
)  # fmt: skip
from validation.groups import FEW, NUMBERS, ROOF, by_group, cells_of, errors, pct, table, worst
from validation.quantities import ended_early
from validation.standing import GOALS, SIX, Runs, goals, kernel_residuals, measured_runs, runs_of
from validation.tables import END_TO_END, read_table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "accuracy.md"
PICTURES = ROOT / "docs" / "images"
ENERGY = tuple(
    f"{name} {kind}" for name in ("time", "power", "energy", "at measured time") for kind in ("median", "bias")
)
LEFT_OUT = {"model": "models", "tp": "degrees", "device": "devices"}
PRODUCTS = ("gemm", "attention_prefill", "attention_decode")


def heldout_runs(runs: Runs) -> list[list[str]]:
    """Each device from the other architecture's parameters, beside the shipped ones and the roofline; then devices that
    nothing was fitted on."""
    found = []
    listed = runs.heldout[runs.heldout["metric"] == "e2el_s"]
    for (device, engine, name), part in listed.groupby(["device", "framework", "parameters"], sort=True):
        if len(part) >= FEW:
            cells = cells_of(part["residual"], part["ideal_residual"])
            found.append(
                [
                    device,
                    engine,
                    name.split(" from ")[1],
                    *cells[:4],
                    pct(errors(part["shipped"])["median"]),
                    *cells[4:],
                ]
            )
    strangers = runs.static[~runs.static["device"].isin(set(runs.heldout["device"]))]
    for (device, engine), part in strangers.groupby(["device", "framework"], sort=True):
        times = part[part["metric"].isin(("e2el_s", "tpot_s"))]
        if len(times) >= FEW:
            cells = cells_of(times["residual"], times["ideal_residual"])
            found.append([device, engine, "class", *cells[:4], cells[2], *cells[4:]])
    return found


def heldout_kernels(kernels: pd.DataFrame, other: pd.DataFrame) -> list[list[str]]:
    """Kernels from other devices' parameters, beside the shipped parameters."""
    found = []
    own = kernels.groupby(["hardware", "op", "dtype"])["residual"]
    for (device, name, op, dtype), part in other.groupby(["hardware", "parameters", "op", "dtype"], sort=True):
        if (op in PRODUCTS and dtype in ("bfloat16", "fp8")) or op == "all_reduce":
            shipped = errors(own.get_group((device, op, dtype)))
            cells = cells_of(part["residual"])
            found.append(
                [device, op, dtype, name.split(" from ")[1], *cells, pct(shipped["mape"]), pct(shipped["median"])]
            )
    return sorted(found)


def sources() -> list[list[str]]:
    """Every parameter that rests on a measurement, by file."""
    found = []
    for kind, spec in (("calibration", Calibration), ("engine", EngineSpec)):
        for path in sorted(catalog.files(kind)):  # type: ignore[arg-type]
            for fields, text in origins.fitted_fields(load(path, spec)).values():  # type: ignore[type-var]
                shown = ", ".join(f"`{name}`" for name in fields)
                found.append([f"{kind} {path.stem}", shown, text.replace("|", "/")])
    return found


def oddities(rows: pd.DataFrame) -> list[list[str]]:
    """What is known to be odd in the measured tables, counted."""
    runs = read_table(END_TO_END)
    early = sum(ended_early({str(key): value for key, value in cells.items()}) for cells in runs.to_dict("records"))
    shipped = rows[rows["parameters"] == residuals.SHIPPED]
    impossible = shipped[shipped["below_speed_of_light"]]
    chunk = runs["notes"].fillna("").str.contains("prompt chunk")
    unstated = int(shipped[shipped["assumed_lengths"]]["row"].nunique())
    crowded = int(shipped[~shipped["fits"].astype(bool)]["row"].nunique())
    one = chunk & runs["notes"].fillna("").str.contains("reported batch 1 is")
    return [
        [f"{impossible['row'].nunique():,} runs", "more than 2% faster, or with less energy, than datasheet rates allow: "
         + ", ".join(f"{name} {count}" for name, count in impossible.drop_duplicates("row")["source"].str.split("/").str[0]
                     .value_counts().items())],
        [f"{early:,} runs", "a latency below 80% of what TTFT and TPOT of the same row add up to: sequences ended early; "
         "latency, throughput and power are left out"],
        [f"{unstated:,} runs", "no stated lengths; 300 tokens in and out are "
         "assumed, and only decode, power and energy are compared"],
        [f"{int(chunk.sum()):,} runs", "llama.cpp: the table's batch was the prompt chunk of one sequence; "
         f"{int(one.sum())} with a chunk of 1 token process the prompt token by token, which is not predicted"],
        [f"{crowded:,} runs", "the caches of the whole batch do not fit at once "
         "by our count; predicted in turns"],
    ]  # fmt: skip


def page(rows: pd.DataFrame, kernels: residuals.Kernels, held: pd.DataFrame) -> str:
    """The whole page; `held` are `folds.runs()`."""
    runs = runs_of(rows)
    own, other = kernel_residuals(kernels.shipped), kernel_residuals(kernels.heldout.assign(ideal=np.nan))
    parts = [wording.HEAD, wording.WORST]
    parts.append(table(GOALS, goals(runs, own, other, held)))
    parts += run_sections(runs, rows)
    parts += fold_sections(held)
    parts += kernel_sections(own, other)
    parts += [wording.FITTED, table(("file", "parameters", "from"), sources())]
    parts += [wording.ODD, table(("how many", "what"), oddities(rows))]
    parts += residual_sections(runs)
    parts += remainder_sections(own)
    return "\n".join(part.rstrip() + "\n" for part in parts)


def run_sections(runs: Runs, rows: pd.DataFrame) -> list[str]:
    """The sections of end-to-end runs."""
    head = ("hardware", "engine", "metric", *NUMBERS, "in 90%", *ROOF)
    three = ["hardware", "framework", "metric"]
    bad = worst(runs.static, three)
    main = runs.static[runs.static["device"].isin(runs.heldout["device"].unique())]
    sizes = main[main["metric"].isin(conformal.TIMES)]
    return [
        wording.BAD_RUNS, table(("hardware", "engine", "metric", *NUMBERS, *ROOF), bad),
        wording.STATIC, table(head, by_group(runs.static, three)),
        wording.STEADY, table(head, by_group(runs.steady, three)),
        wording.LOADED,
        table(("hardware", "engine", "scenario", "metric", *NUMBERS, *ROOF),
              by_group(runs.loaded, ["hardware", "framework", "load", "metric"], inside=False)),
        wording.ENERGY, table(("of", "which", "n", *ENERGY), energy_rows(rows)),
        wording.SIZES, table(("engine", "metric", "batch", "context", *NUMBERS, "in 90%", *ROOF),
                             by_group(sizes, ["framework", "metric", "batch_class", "context_class"])),
        wording.HELD_OUT,
        table(("hardware", "engine", "parameters from", *NUMBERS, "shipped median", *ROOF), heldout_runs(runs)),
        wording.INTERVALS, table(("metric", "tag", "low", "high", "cells", "values", "pooled"), interval_rows(runs)),
        wording.COVERAGE,
        table(("batches", "tag", "unseen models", "unseen devices", "cells", "values"), coverage_rows(runs)),
        wording.COVERAGE_METRIC,
        table(("batches", "tag", "metric", "held out", "in 90%", "of rows", "cells", "values"), coverage_metrics(runs)),
    ]  # fmt: skip


def fold_sections(held: pd.DataFrame) -> list[str]:
    """Runs under constants that have not seen them, and the constants of each part."""
    found, constants = [], []
    for (stack, by, metric), part in held.groupby(["stack", "by", "metric"], sort=False):
        if len(part) >= FEW:
            shipped = errors(folds.residuals(part, "shipped"))
            numbers = cells_of(folds.residuals(part))
            found.append(
                [stack, LEFT_OUT[by], metric, *numbers, pct(shipped["median"]), pct(shipped["bias"], signed=True)]
            )
    for (stack, _, part, values), _ in held.groupby(["stack", "by", "part", "constants"], sort=False):
        constants.append([stack, part, values])
    return [
        wording.FOLDS, table(("runs", "left out", "metric", *NUMBERS, "shipped median", "bias"), found),
        wording.CONSTANTS, table(("runs", "left out", "constants"), constants),
    ]  # fmt: skip


def energy_rows(rows: pd.DataFrame) -> list[list[str]]:
    """Errors of time, power and energy of the runs that report power, by what they have in common."""
    shipped = residuals.stated(rows[rows["parameters"] == residuals.SHIPPED])
    found = energy_runs.by_property(energy_runs.split(shipped.assign(table="shipped")).dropna(subset=["time"]))
    return [
        [row["property"], row["value"], f"{row['n']:,}"]
        + [
            pct(row[f"{name}_{kind}"], signed=kind == "bias")
            for name in energy_runs.PARTS
            for kind in ("median", "bias")
        ]
        for row in found
    ]


def interval_rows(runs: Runs) -> list[list[str]]:
    """The ratios of engines with measured constants, static batches."""
    found = []
    for metric in conformal.METRICS:
        for tag in TAGS:
            known = runs.quantiles.get((metric, tag, "measured", "static"))
            if known is not None:
                found.append(
                    [metric, tag, f"{known.low:.2f}", f"{known.high:.2f}", known.cells, known.values, known.pooled]
                )
    return found


def coverage_rows(runs: Runs) -> list[list[str]]:
    """Coverage by tag over all metrics, every cell with the same weight."""
    by = {name: conformal.coverage(part, ("regime", "tag")) for name, part in runs.coverage_by.items()}
    merged = by["model"].merge(by["device"], on=["regime", "tag"], suffixes=("", "_device"))
    merged["order"] = merged["tag"].map({tag: i for i, tag in enumerate(TAGS)})
    return [
        [row.regime, row.tag, pct(row.coverage), pct(row.coverage_device), row.cells, f"{row.n:,}"]
        for row in merged.sort_values(["regime", "order"]).itertuples()
    ]


def coverage_metrics(runs: Runs) -> list[list[str]]:
    """Coverage by metric: of unseen models where the device was measured, of unseen devices where not."""
    found = []
    for by, tags in (("model", TAGS[:2]), ("device", TAGS[2:])):
        part = runs.coverage_by[by]
        known = conformal.coverage(part[part["tag"].isin(tags)], ("regime", "tag", "metric"))
        found += [
            [row.regime, row.tag, row.metric, f"{by}s", pct(row.coverage), pct(row.of_rows), row.cells, f"{row.n:,}"]
            for row in known.itertuples()
        ]
    return found


def _size_order(name: str) -> tuple[bool, int]:
    """`<= 16 rows` before `<= 128 rows`, and `> 128 rows` last."""
    return name[0] == ">", int(name.split()[1])


def kernel_sections(own: pd.DataFrame, other: pd.DataFrame) -> list[str]:
    """The sections of kernels."""
    head = ("hardware", "engine", "op", "dtype", *NUMBERS, *ROOF)
    keys = ["hardware", "framework", "op", "dtype"]
    sized = own[own["op"].isin(PRODUCTS) & (own["dtype"] == "bfloat16")]
    by_size = by_group(sized, ["op", "hardware", "size_class"], inside=False)
    moved = ("hardware", "op", "dtype", "parameters from", *NUMBERS, "shipped MAPE", "median")
    return [
        wording.BAD_KERNELS, table(("op", "dtype", *NUMBERS, *ROOF), worst(own, ["op", "dtype"])),
        wording.KERNELS, table(head, by_group(own, keys, inside=False)),
        wording.KERNEL_SIZES,
        table(("op", "hardware", "size", *NUMBERS, *ROOF),
              sorted(by_size, key=lambda row: (row[0], row[1], _size_order(row[2])))),
        wording.KERNELS_HELD_OUT,
        table(moved, heldout_kernels(own, other)),
    ]  # fmt: skip


def residual_sections(runs: Runs) -> list[str]:
    """What the residual is made of."""
    whole = runs.static[runs.static["metric"] == "e2el_s"]
    mine = whole[whole["device"].isin(runs.heldout["device"].unique()) & (whole["constants"] == "measured")]
    measured = read_table(END_TO_END)
    parts = origins.explained(mine)
    version = mine.assign(version=measured["framework"].reindex(mine["row"]).to_numpy())
    versions = [
        [device, name, *cells_of(part["residual"])]
        for (device, name), part in version.groupby(["device", "version"], sort=True)
        if len(part) >= FEW
    ]
    repeats = [
        [row.source, row.framework, row.groups, row.n, pct(row.median), pct(row.q90)]
        for row in origins.repeated_runs(measured).itertuples()
        if row.n >= FEW
    ]
    products = [
        [row.device, row.where, row.groups, row.n, pct(row.median), pct(row.q90)]
        for row in origins.repeated_products().itertuples()
        if row.n
    ]
    explained = [[r.property, pct(r.explains), pct(r.left), f"{r.rms_left:.3f}"] for r in parts.itertuples()]
    return [
        wording.RESIDUAL,
        table(("property", "takes away", "left", "root mean square of what is left"), explained),
        wording.VERSIONS, table(("hardware", "engine as stated", *NUMBERS), versions),
        wording.REPEATS, table(("source", "engine", "groups", "values", "median", "90%"), repeats),
        wording.PRODUCTS, table(("tables", "where", "groups", "values", "median", "90%"), products),
    ]  # fmt: skip


def remainder_sections(kernels: pd.DataFrame) -> list[str]:
    """What the residual of kernels is made of, and that of the six figures one by one."""
    parts = [wording.REMAINDER]
    for title, lines in remainder.summary(kernels).items():
        cells = [[known, of, pct(mape), pct(median)] for known, of, mape, median in lines]
        parts.append(f"{title}:\n\n" + table(("known", "of how many", "MAPE left", "median left"), cells))
    rows = [
        [row["model"], row["hardware"], row["batch"], row["input_len"], row["output_len"], row["metric"],
         f"{predicted:.4g}", f"{measured:.4g}", pct(predicted / measured - 1.0, signed=True)]
        for group, row, predicted, measured in first_look.compare() if group == SIX
    ]  # fmt: skip
    names = ("model", "hardware", "batch", "input", "output", "metric", "predicted", "measured", "error")
    return [*parts, wording.SIX, table(names, rows)]


def write_pictures(rows: pd.DataFrame, kernels: residuals.Kernels) -> None:
    """The figures of the page."""
    from validation.plots import write_plot

    PICTURES.mkdir(exist_ok=True)
    write_plot(
        "runs", rows[rows["parameters"] == residuals.SHIPPED], PICTURES / "accuracy-runs.png", "Times of static batches"
    )
    products = kernels.shipped[kernels.shipped["op"].isin(PRODUCTS) & (kernels.shipped["dtype"] == "bfloat16")]
    write_plot("kernels", products, PICTURES / "accuracy-kernels.png", "bf16 products and attention")
    bands.write(kernel_residuals(kernels.shipped), measured_runs(runs_of(rows)), PICTURES / "accuracy-size.png")


def main() -> None:
    """Compute everything again; with `--write`, write intervals, residuals, page and pictures."""
    command = argparse.ArgumentParser(prog="python -m validation.accuracy", description=__doc__)
    command.add_argument("--write", action="store_true", help="write the page and what it rests on; otherwise print it")
    command.add_argument("--no-pictures", action="store_true", help="leave the pictures as they are (no browser)")
    options = command.parse_args()
    rows, kernels = residuals.runs(), residuals.kernel_rows()
    held = folds.runs()
    text = page(rows, kernels, held)
    if not options.write:
        print(text)
        return
    interval_file.write(rows, kernels)
    summary.write(rows, kernels, held)
    held.to_parquet(folds.STORED, index=False, compression="zstd")
    PAGE.write_text(text, encoding="utf-8")
    if not options.no_pictures:
        write_pictures(rows, kernels)


if __name__ == "__main__":
    main()
