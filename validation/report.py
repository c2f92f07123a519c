"""Comparisons as text: a table of the groups, worst first, and what could not be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

METRICS = {
    "metrics": "by metric",
    "metrics_static": "static batches only",
    "metrics_steady": "steady serving only (TTFT with queueing, against a static batch)",
}


def show(answer: Mapping[str, Any], keys: Sequence[str], title: str, console: Console, groups: int = 40) -> None:
    """Print a comparison's JSON form: metrics, the worst `groups`, and the reasons of rows left out."""
    console.print(f"[bold]{title}[/bold]: {answer['resolved']} of {answer['rows']} rows resolved")
    for key, label in METRICS.items():
        if answer.get(key):
            metrics = Table(title=label, title_justify="left")
            metrics.add_column("metric")
            _numbers(metrics)
            for name, statistics in answer[key].items():
                metrics.add_row(name, *_cells(statistics))
            console.print(metrics)
    _groups(answer["by"], keys, "by group, worst first", console, groups)
    if "baseline" in answer:
        _groups(answer["baseline"]["by"], keys, f"baseline: engine {answer['baseline']['engine']}", console, groups)
    for key, count in (("unresolved", "rows"), ("left_out", "values")):
        if answer.get(key):
            table = Table(title=key.replace("_", " "), title_justify="left")
            table.add_column(count, justify="right")
            table.add_column("reason")
            for record in answer[key][:groups]:
                table.add_row(str(record[count]), record["reason"])
            console.print(table)
            _more(len(answer[key]) - groups, "reasons", console)


def _groups(records: Sequence[Mapping[str, Any]], keys: Sequence[str], title: str, console: Console, most: int) -> None:
    table = Table(title=title, title_justify="left")
    for key in keys:
        table.add_column(key, overflow="fold")
    _numbers(table)
    impossible = any(record.get("below_speed_of_light") for record in records)
    if impossible:
        table.add_column("impossible", justify="right")
    for record in records[:most]:
        last = [str(record.get("below_speed_of_light") or "")] if impossible else []
        table.add_row(*(_short(str(record[key])) for key in keys), *_cells(record), *last)
    console.print(table)
    _more(len(records) - most, "groups", console)


def _short(name: str) -> str:
    """The first and the last part of a long name."""
    return name if len(name) <= 34 else f"{name[:18]}...{name[-13:]}"


def _more(rest: int, what: str, console: Console) -> None:
    if rest > 0:
        console.print(f"... and {rest} more {what}; --json or --out has them all")


def _numbers(table: Table) -> None:
    for name in ("n", "MAPE", "median", "bias", "in 90%"):
        table.add_column(name, justify="right")


def _cells(statistics: Mapping[str, Any]) -> list[str]:
    coverage = statistics.get("coverage_90")
    return [
        str(statistics["n"]),
        f"{statistics['mape']:.1%}",
        f"{statistics['median_ape']:.1%}",
        f"{statistics['bias']:+.1%}",
        "" if coverage is None else f"{coverage:.0%}",
    ]
