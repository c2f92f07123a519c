"""`ridgeline schema`: JSON Schema of every kind of file, from the classes that check them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from simulator.spec.loader import Spec

KINDS: dict[str, tuple[str, str, str]] = {
    "hardware": ("simulator.spec.hardware", "DeviceSpec", "hardware"),
    "system": ("simulator.spec.hardware", "SystemSpec", "hardware"),
    "model": ("simulator.spec.model", "ModelSpec", "workloads"),
    "technique": ("simulator.spec.technique", "TechniqueSpec", "workloads"),
    "engine": ("simulator.spec.engine", "EngineSpec", "workloads"),
    "calibration": ("simulator.spec.calibration", "Calibration", "hardware"),
    "interval": ("simulator.spec.interval", "Intervals", "hardware"),
    "price": ("simulator.spec.price", "PriceTable", "hardware"),
    "sweep": ("simulator.spec.sweep", "SweepSpec", "workloads"),
    "guard": ("simulator.spec.guard", "GuardSpec", "workloads"),
    "plan": ("simulator.spec.plan", "PlanSpec", "workloads"),
    "traffic": ("simulator.spec.plan", "TrafficSpec", "workloads"),
}
"""Kind -> the module and class that check it, and the folder whose `_schema` holds its schema."""


def spec_class(kind: str) -> type[Spec]:
    """The class that checks files of a kind."""
    from importlib import import_module

    module, name, _ = KINDS[kind]
    found: type[Spec] = getattr(import_module(module), name)
    return found


def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of a kind of file."""
    body = spec_class(kind).model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_untitled(body)}


def _untitled(value: Any) -> Any:
    """Without the titles that pydantic makes from names: they say nothing, and differ between its versions."""
    if isinstance(value, dict):
        return {key: _untitled(inner) for key, inner in value.items() if key != "title" or not isinstance(inner, str)}
    return [_untitled(inner) for inner in value] if isinstance(value, list) else value


def schema_text(kind: str) -> str:
    """The schema as the file that ships."""
    return json.dumps(schema(kind), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


@click.command("schema")
@click.argument("kind", required=False, type=click.Choice(list(KINDS)))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Write DIR/KIND.schema.json.")
def command(kind: str | None, out: Path | None) -> None:
    """JSON Schema of the files a user may write, for editors and checkers."""
    if kind is None and out is None:
        raise click.UsageError(f"name a kind ({', '.join(KINDS)}) or give --out DIR")
    if out is None:
        assert kind is not None
        click.echo(schema_text(kind), nl=False)
        return
    out.mkdir(parents=True, exist_ok=True)
    for name in [kind] if kind else KINDS:
        path = out / f"{name}.schema.json"
        path.write_text(schema_text(name), encoding="utf-8")
        click.echo(str(path))
