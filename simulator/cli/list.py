"""`ridgeline list`: what is known by name, with the numbers that tell one entry from another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from simulator.mapping.machine import Machine

KINDS = ("hardware", "models", "techniques", "papers", "engines")


@click.command("list")
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--match", default="", metavar="TEXT", help="Only entries whose name, title or class holds TEXT.")
@click.option("--json", "as_json", is_flag=True, help="A list of records in SI units.")
def command(kind: str, match: str, as_json: bool) -> None:
    """Known hardware, models, techniques, papers and engines."""
    found = {"hardware": hardware, "models": models, "techniques": techniques, "papers": papers, "engines": engines}
    records = [record for record in found[kind]() if _matches(record, match.lower())]
    if as_json:
        from simulator.views.records import to_json

        click.echo(to_json(records))
        return
    _print(records, kind)


def hardware() -> list[dict[str, Any]]:
    """Every device and system: per main device, dense peak in 16 bits (or the widest it has) and main memory."""
    from simulator import catalog
    from simulator.cost.price import hourly_price
    from simulator.mapping.machine import load_machine

    found = []
    for name in catalog.names("hardware"):
        machine = load_machine(name)
        price = hourly_price(machine)
        dtype, peak = _peak(machine)
        memory = next((m for m in machine.memories if m.kind == "main"), machine.memories[-1])
        found.append(
            {
                "name": machine.name,
                "title": machine.title,
                "class": "system" if machine.is_system else machine.device_class,
                "devices": machine.devices,
                "peak_dtype": dtype,
                "peak_flop_per_s": peak,
                "memory": memory.technology,
                "capacity_bytes": memory.capacity_bytes,
                "bandwidth_bytes_per_s": memory.bytes_per_s,
                "tdp_w": machine.tdp_w or None,
                "usd_per_hour": price.usd_per_hour if price else None,
            }
        )
    return found


def models() -> list[dict[str, Any]]:
    """Every model file."""
    from simulator import catalog
    from simulator.spec.loader import load
    from simulator.spec.model import ModelSpec

    found = []
    for name in catalog.names("model"):
        spec = load(catalog.find("model", name), ModelSpec)
        kind = str((spec.config or {}).get("model_type", "")) or (spec.network.builder if spec.network else "")
        found.append(
            {
                "name": spec.name,
                "title": spec.title,
                "kind": kind,
                "parameters": spec.parameters,
                "license": spec.license,
                "aliases": spec.aliases,
            }
        )
    return found


def techniques() -> list[dict[str, Any]]:
    """Every technique file."""
    from simulator import catalog
    from simulator.spec.loader import load
    from simulator.spec.technique import TechniqueSpec

    found = []
    for name in catalog.names("technique"):
        spec = load(catalog.find("technique", name), TechniqueSpec)
        found.append(
            {
                "name": spec.name,
                "title": spec.title or spec.name,
                "paper": spec.paper,
                "primitives": [primitive for entry in spec.apply for primitive in entry],
                "parameters": spec.parameters,
            }
        )
    return found


def papers() -> list[dict[str, Any]]:
    """Every paper, with the technique files that run it."""
    by_paper: dict[str, list[str]] = {}
    for technique in techniques():
        if technique["paper"]:
            by_paper.setdefault(technique["paper"], []).append(technique["name"])
    return [
        {
            "name": record["id"],
            "title": record["title"],
            "family": record["family"],
            "scope": record["scope"],
            "claims": int(record["claims"]),
            "techniques": by_paper.get(record["id"], []),
        }
        for record in paper_list()
    ]


def paper_list() -> list[dict[str, str]]:
    """The rows of `workloads/papers.csv`: id, title, family, scope, claims."""
    import csv

    from simulator import catalog

    path = next(root for root in reversed(catalog.roots())) / "workloads" / "papers.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def engines() -> list[dict[str, Any]]:
    """Every engine file."""
    from simulator import catalog
    from simulator.spec.engine import EngineSpec
    from simulator.spec.loader import load

    found = []
    for name in catalog.names("engine"):
        spec = load(catalog.find("engine", name), EngineSpec)
        found.append(
            {
                "name": spec.name,
                "title": spec.title,
                "host_step_s": float(spec.host_step),
                "graph_decode": spec.graph_decode,
                "spills": spec.spills,
                "memory_fraction": float(spec.memory_fraction),
                "max_batched_tokens": float(spec.max_batched_tokens),
                "aliases": spec.aliases,
            }
        )
    return found


def _peak(machine: Machine) -> tuple[str | None, float | None]:
    peaks: dict[str, float] = {}
    for unit in machine.units:
        for dtype, peak in unit.peak_flop_per_s.items():
            peaks[dtype] = max(peak, peaks.get(dtype, 0.0))
    for dtype in ("bf16", "fp16", "fp32", "int8"):
        if dtype in peaks:
            return dtype, peaks[dtype]
    return next(iter(peaks.items()), (None, None))


def _matches(record: dict[str, Any], text: str) -> bool:
    return not text or any(text in str(record.get(key, "")).lower() for key in ("name", "title", "class", "aliases"))


_UNITS = {
    "peak_flop_per_s": ("peak", "FLOP/s"),
    "capacity_bytes": ("capacity", "B"),
    "bandwidth_bytes_per_s": ("bandwidth", "B/s"),
    "tdp_w": ("TDP", "W"),
    "parameters": ("parameters", ""),
    "host_step_s": ("host per step", "s"),
    "usd_per_hour": ("USD/h", ""),
    "peak_dtype": ("in", ""),
    "max_batched_tokens": ("tokens per step", ""),
    "memory_fraction": ("memory share", ""),
    "graph_decode": ("decode graphs", ""),
}


def _print(records: list[dict[str, Any]], kind: str) -> None:
    import sys

    from rich import box
    from rich.console import Console
    from rich.table import Table

    if not records:
        click.echo(f"no {kind}")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    keys = [key for key in records[0] if key != "aliases"]
    for key in keys:
        number = any(isinstance(r[key], int | float) and not isinstance(r[key], bool) for r in records)
        table.add_column(_UNITS.get(key, (key, ""))[0], justify="right" if number else "left", no_wrap=key == "name")
    for record in records:
        table.add_row(*(_shown(key, record[key]) for key in keys))
    console = Console() if sys.stdout.isatty() else Console(width=220)
    console.print(table, highlight=False, markup=False)


def _shown(key: str, value: Any) -> str:
    from simulator.units import in_engineering

    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}={part}" for name, part in value.items())
    unit = _UNITS.get(key, ("", ""))[1]
    if key == "parameters":
        return in_engineering(float(value), "")
    if unit and isinstance(value, int | float):
        return in_engineering(float(value), unit)
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if isinstance(value, float) and value < 100 else f"{value:g}"
