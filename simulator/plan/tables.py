"""Throughput that users measured themselves: CSV, AIBrix profiles and Melange's configuration, as rows per option.

Reads and checks; which bucket takes which row is decided here too. A rate of 0 means that the size is not served.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.errors import ImportFormatError, Problem, SpecError, close_matches, shorten
from simulator.plan.capacity import Capacity
from simulator.plan.load import Load, csv_lines
from simulator.spec.loader import place
from simulator.spec.plan import TableSpec, resolve_path

if TYPE_CHECKING:
    from simulator.plan.option import Option

_COLUMNS = ("option", "input_tokens", "output_tokens", "requests_per_s")


@dataclass(slots=True)
class Throughput:
    """Rows of (input, output, requests/s, watts or nan) by the name of the option."""

    rows: dict[str, list[tuple[float, float, float, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, option: str, prompt: float, output: float, rate: float, power_w: float = math.nan) -> None:
        """One more row."""
        self.rows.setdefault(option, []).append((prompt, output, rate, power_w))
        if rate == 0.0:
            note = f"{option}: throughput 0 in its table is taken as sizes that it does not serve"
            if note not in self.notes:
                self.notes.append(note)


def read_tables(tables: Sequence[TableSpec], beside: Path) -> Throughput:
    """All tables of a plan file. Raises SpecError or ImportFormatError naming file and line."""
    found = Throughput()
    for position, table in enumerate(tables):
        if table.rows is not None:
            for number, (prompt, output, rate) in enumerate(table.rows):
                if not (min(prompt, output) >= 1 and math.isfinite(rate) and rate >= 0):
                    line, column = place(beside, "throughput", position, "rows", number)
                    message = (
                        f"[{prompt:g}, {output:g}, {rate:g}] is not two lengths of at least 1 and a rate of at least 0"
                    )
                    raise SpecError([Problem(shorten(beside), line, column, f"throughput.{position}.rows", message)])
                found.add(str(table.option), prompt, output, rate)
            continue
        path = resolve_path(str(table.file), beside)
        if path.suffix == ".json":
            _read_profile(path, table.option, found)
        else:
            _read_csv(path, table.option, found)
    return found


def _read_csv(path: Path, option: str | None, found: Throughput) -> None:
    header, lines = csv_lines(path)
    lower = [name.strip().lower() for name in header]
    needed = _COLUMNS[1:] if option else _COLUMNS
    missing = [name for name in needed if name not in lower]
    if missing:
        raise SpecError([Problem(shorten(path), 1, 1, "", f"needs the columns {', '.join(missing)}")])
    at = {name: lower.index(name) for name in (*needed, *(["power_w"] if "power_w" in lower else []))}
    problems = []
    for number, fields in lines:
        try:
            values = [float(fields[at[name]]) for name in _COLUMNS[1:]]
            power = float(fields[at["power_w"]]) if "power_w" in at else math.nan
        except (ValueError, IndexError):
            problems.append(Problem(shorten(path), number, 1, "", f"'{','.join(fields)}' lacks a number"))
            continue
        prompt, output, rate = values
        if not (min(prompt, output) >= 1 and math.isfinite(rate) and rate >= 0):
            message = f"requests_per_s must be at least 0 and lengths at least 1, got '{','.join(fields)}'"
            problems.append(Problem(shorten(path), number, 1, "requests_per_s", message))
            continue
        found.add(option or fields[at["option"]].strip(), prompt, output, rate, power)
    if problems:
        raise SpecError(problems[:20])


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError([Problem(shorten(path), 0, 0, "", f"cannot be read: {error.strerror}")]) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", 0)
        raise SpecError([Problem(shorten(path), line, 0, "", f"broken JSON: {error}")]) from None


def _read_profile(path: Path, option: str | None, found: Throughput) -> None:
    """An AIBrix profile: `tputs` (output x input) at the sizes of `indexes` [outputs, inputs]."""
    data = _read_json(path)
    try:
        outputs, inputs = data["indexes"]
        rates = np.array(data["tputs"], dtype=float)
        if rates.shape != (len(outputs), len(inputs)):
            raise ValueError(f"tputs is {rates.shape}, and indexes ask for {(len(outputs), len(inputs))}")
        name = option or str(data["gpu"])
    except (KeyError, TypeError, ValueError) as error:
        raise ImportFormatError(f"{shorten(path)}: not an AIBrix profile ({error!r})") from None
    _check_rates(rates, path, name)
    for row, output in enumerate(outputs):
        for column, prompt in enumerate(inputs):
            found.add(name, float(prompt), float(output), float(rates[row, column]))


def _check_rates(rates: np.ndarray[Any, Any], path: Path, name: str) -> None:
    bad = np.argwhere(~(np.isfinite(rates) & (rates >= 0)))
    if len(bad):
        row, column = bad[0]
        raise ImportFormatError(
            f"{shorten(path)}: tputs of {name} at row {row}, column {column} is {rates[row, column]:g}; "
            f"a rate of at least 0 is needed, 0 for sizes that it does not serve"
        )


def is_melange(data: Mapping[str, Any]) -> bool:
    """Whether a JSON file has the shape of Melange's configuration."""
    return "gpu_info" in data and "workload_distribution" in data


def melange(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Melange's configuration as a plan file. Its buckets have no sizes: rows and columns count as tokens, from 1."""
    try:
        shares = np.array(data["workload_distribution"], dtype=float)
        rate = float(data["total_request_rate"])
        options, tables = [], []
        for name, info in data["gpu_info"].items():
            rates = np.array(info["tputs"], dtype=float)
            if rates.shape != shares.shape:
                raise ValueError(f"tputs of {name} is {rates.shape}, and workload_distribution {shares.shape}")
            _check_rates(rates, path, name)
            options.append({"hardware": name, "price": f"{float(info['cost'])!r} USD/h"})
            rows = [[i + 1, j + 1, float(rates[i, j])] for i, j in np.ndindex(rates.shape)]
            tables.append({"option": name, "rows": rows})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ImportFormatError(f"{shorten(path)}: not a configuration of Melange ({error!r})") from None
    traffic = [[i + 1, j + 1, float(shares[i, j])] for i, j in np.ndindex(shares.shape)]
    return {
        "name": path.stem,
        "title": "Imported from Melange's configuration; its buckets carry numbers in place of sizes",
        "loads": [{"name": "load", "traffic": traffic, "rate": rate}],
        "options": options,
        "throughput": tables,
    }


def tabled(options: Sequence[Option], loads: Sequence[Load], tables: Throughput, path: Path) -> Capacity:
    """Capacities from tables. A size between those of a table counts as the next larger on both axes; beyond, as not served.

    Raises SpecError for an option without rows.
    """
    width = sum(len(load) for load in loads)
    rate, power = np.zeros((len(options), width)), np.zeros((len(options), width))
    limit = np.full((len(options), width), "another load", dtype=object)
    start = 0
    for load in loads:
        for o, option in enumerate(options):
            if option.load != load.name:
                continue
            if option.table not in tables.rows:
                near = close_matches(option.table, tables.rows)
                hint = f"; did you mean '{near[0]}'?" if near else f"; they have {', '.join(sorted(tables.rows))}"
                message = f"'{option.table}' has no rows in the tables of throughput{hint}"
                raise SpecError([Problem(shorten(path), 0, 0, "options", message)])
            rows = np.array(tables.rows[option.table])
            for b in range(len(load)):
                at = (o, start + b)
                beyond = (rows[:, 0] >= load.input_tokens[b] - 1e-9) & (rows[:, 1] >= load.output_tokens[b] - 1e-9)
                if not beyond.any():
                    limit[at] = "beyond its table"
                    continue
                covering = rows[beyond]
                row = covering[np.lexsort((covering[:, 0] * covering[:, 1], covering[:, 0] + covering[:, 1]))[0]]
                rate[at], limit[at] = row[2], "table" if row[2] > 0 else "0 in its table"
                power[at] = option.power_w or (0.0 if math.isnan(row[3]) else row[3])
        start += len(load)
    idle = np.array([option.idle_w or 0.0 for option in options])
    return Capacity(rate, np.maximum(power, idle[:, None] * (rate > 0)), idle, limit, np.full(rate.shape, np.nan))
