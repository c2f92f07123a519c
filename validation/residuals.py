"""Every measured run beside what is predicted of it: with the shipped parameters, and with parameters that never saw it.

One frame for intervals, coverage and the accuracy page, stored as `validation/baselines/residuals.parquet`. Knows no
statistics.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from simulator.cost.efficiency import find_calibration
from simulator.mapping.machine import load_machine
from simulator.scenario import load_model
from validation import endtoend, kernels, transfer
from validation.quantities import RATES
from validation.rows import COLUMNS
from validation.tables import END_TO_END, kernel_files, read_table

STORED = Path(__file__).parent / "baselines" / "residuals.parquet"
SHIPPED = "shipped"
KEPT = (
    "row", "source", "model", "hardware", "device", "framework", "tp", "pp", "ep", "dp", "batch", "input_len", "output_len",
    "assumed_lengths", "steady", "load", "turns", "fits", "batch_class", "context_class", "weight_bytes", "formats", "kinds",
    "metric", "measured", "predicted", "ideal", "parameters", "calibration_tag", "below_speed_of_light",
)  # fmt: skip
"""Columns of the frame. `parameters` is `shipped` or the name of what was held out; `device` is the main device of the
hardware."""
DUPLICATES = {"total_tokens_per_s": "e2el_s", "output_tokens_per_s": "e2el_s", "decode_tokens_per_s": "tpot_s"}
"""Rates that say the same as a time, where a row states both."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """Measured kernels with the shipped parameters and with those of other devices."""

    shipped: pd.DataFrame
    heldout: pd.DataFrame
    """With a column `parameters`."""


def workers() -> int:
    """Processes to use."""
    return min(4, os.cpu_count() or 1)


def runs() -> pd.DataFrame:
    """All runs of the shipped table, predicted with the shipped parameters and with held-out ones."""
    with ProcessPoolExecutor(workers(), mp_context=get_context("spawn")) as pool:
        _warm(pool)
        jobs = [pool.submit(_heldout, architecture) for architecture in transfer.architectures()]
        jobs += [pool.submit(_shipped, part) for part in range(workers())]
        frames = [job.result() for job in jobs]
    found = pd.concat(frames, ignore_index=True)
    return found.sort_values(["parameters", "row", "metric"], kind="stable", ignore_index=True)[list(KEPT)]


def kernel_rows() -> Kernels:
    """All shipped kernels, predicted with the shipped parameters and with those of other devices."""
    with ProcessPoolExecutor(workers(), mp_context=get_context("spawn")) as pool:
        _warm(pool)
        folders = sorted({path.parent for path in kernel_files([])})
        shipped = [pool.submit(_kernels, folder, None) for folder in folders]
        heldout = [
            pool.submit(_kernels, folder, held)
            for held in transfer.kernel_heldouts()
            for folder in folders
            if folder.name == transfer.TABLES[next(iter(held.devices))]
        ]
        return Kernels(*(pd.concat([job.result() for job in jobs], ignore_index=True) for jobs in (shipped, heldout)))


def _warm(pool: ProcessPoolExecutor) -> None:
    """Fit what is not stored yet, a set of donors and a kind per job."""
    jobs = [
        (donors, kind, frameworks)
        for donors in sorted(transfer.all_donors())
        for kind, frameworks in transfer.all_kinds()
    ]
    list(pool.map(_fit, *zip(*jobs, strict=True)))


def _fit(donors: tuple[str, ...], kind: str, frameworks: tuple[str, ...]) -> None:
    transfer.fitted(donors, kind, frameworks)


def _shipped(part: int) -> pd.DataFrame:
    table = read_table(END_TO_END, COLUMNS)
    every = np.arange(len(table)) % workers() == part
    return _labelled(endtoend.compare([("shipped", table[every])]), table.index[every], SHIPPED)


def _heldout(architecture: str) -> pd.DataFrame:
    table = read_table(END_TO_END, COLUMNS)
    held = transfer.run_heldout(architecture, transfer.fit_rows(table))
    names = {name for name in table["hardware"].dropna().unique() if _device(name) in held.devices}
    mine = table["hardware"].isin(names)
    return _labelled(endtoend.compare([("shipped", table[mine])], build=held.build()), table.index[mine], held.name)


def _labelled(comparison: endtoend.Comparison, rows: pd.Index, parameters: str) -> pd.DataFrame:
    """The scored rows, with their place in the whole table."""
    scored = comparison.scored
    models = {name: load_model(name).name for name in scored["model"].unique()}
    machines = {name: load_machine(name) for name in scored["hardware"].unique()}
    return scored.assign(
        row=np.asarray(rows)[scored["row"].to_numpy(int)],
        model=scored["model"].map(models),
        device=scored["hardware"].map({name: machine.device for name, machine in machines.items()}),
        calibration_tag=scored["hardware"].map({n: find_calibration(machine).tag for n, machine in machines.items()}),
        parameters=parameters,
    )


def _device(name: str) -> str:
    from simulator.errors import SimulatorError

    try:
        return load_machine(name).device
    except SimulatorError:
        return ""


def _kernels(folder: Path, held: transfer.HeldOut | None) -> pd.DataFrame:
    files = [path for path in kernel_files([]) if path.parent == folder]
    tables = ((path.name, read_table(path)) for path in files)
    if held is None:
        return kernels.compare(tables, baseline=True).rows.assign(parameters=SHIPPED)
    return kernels.compare(tables, calibrate=held.calibrate).rows.assign(parameters=held.name)


def log_ratio(rows: pd.DataFrame, column: str = "predicted") -> pd.Series:
    """ln(measured / predicted), of rates turned over so that it is that of a time."""
    ratio = np.log(rows["measured"].to_numpy(float) / rows[column].to_numpy(float))
    return pd.Series(np.where(rows["metric"].isin(RATES), -ratio, ratio), index=rows.index)


def as_times(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without rates that repeat a time of the same row; other rates under the time that they turn over."""
    stated = rows["metric"].map(DUPLICATES)
    times = pd.MultiIndex.from_frame(rows[["parameters", "row", "metric"]])
    twin = pd.MultiIndex.from_arrays([rows["parameters"], rows["row"], stated.fillna("")])
    repeated = stated.notna() & twin.isin(times)
    kept = rows[~repeated].assign(
        residual=log_ratio(rows[~repeated]), ideal_residual=log_ratio(rows[~repeated], "ideal")
    )
    kept["metric"] = stated[~repeated].fillna(rows["metric"][~repeated])
    return kept[~kept.duplicated(["parameters", "row", "metric"])]


def stated(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose table states how many requests are in flight, rather than a scenario of which that is assumed."""
    return rows[rows["load"].fillna("") == ""] if "load" in rows else rows


def stored() -> pd.DataFrame:
    """The runs as they were last written."""
    return read_table(STORED)
