"""`ridgeline import`: what a foreign file describes, as a summary or as a model file of ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from simulator.graph.build import Model

_NOT_SHAPE = ("_name_or_path", "transformers_version", "torch_dtype_map", "auto_map", "use_cache")
"""Keys of a config that say nothing of the network's shape."""


@click.command("import")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--name", help="Name of the model. Default: that of the file's folder.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write a model file: FILE.yaml.")
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON.")
def command(path: Path, name: str | None, out: Path | None, as_json: bool) -> None:
    """Read a config.json or ONNX file (or a folder that holds a config.json); write a model file.

    \b
    ridgeline import ./Llama-3.1-8B/config.json --out workloads/models/llama-3.1-8b.yaml
    """
    from simulator.errors import ImportFormatError, UnsupportedError
    from simulator.scenario import load_model

    path = path / "config.json" if path.is_dir() else path
    if path.suffix not in (".json", ".onnx"):
        raise ImportFormatError(f"{path}: only config.json and .onnx files can be imported")
    model = load_model(str(path) if path.suffix == ".onnx" else str(path.resolve()))
    label = _normal(name or (path.stem if path.suffix == ".onnx" else path.resolve().parent.name))
    found = summary(model, label)
    if out is not None:
        if path.suffix == ".onnx":
            raise UnsupportedError("a model file for an ONNX graph", [f"--model {path}"])
        if out.suffix not in (".yaml", ".yml"):
            raise ImportFormatError(f"--out must end in .yaml, not '{out.suffix or out.name}'")
        label = _normal(name or out.stem)
        found["name"] = label
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(model_file(path, label, int(found["parameters"])), encoding="utf-8")
        found["written"] = str(out)
    if as_json:
        from simulator.views.records import to_json

        click.echo(to_json(found))
    else:
        click.echo(_text(found))


def summary(model: Model, name: str) -> dict[str, Any]:
    """Parameters, work and cache per token: of one decode step at a context of 1024, or of one sample."""
    from simulator.graph.step import Slice
    from simulator.mapping.footprint import cache_size

    context = 1024.0
    step = (Slice(1.0, 1.0, context),) if model.decode else (Slice(1.0, float(model.source_tokens or 1), 0.0),)
    cache = cache_size(model.graph)
    return {
        "name": name,
        "parameters": model.parameters(),
        "active_parameters": sum(graph.active_parameters() for graph in model.graphs()),
        "flops_per_token" if model.decode else "flops_per_sample": model.graph.flops_at(step),
        "kv_bytes_per_token": cache.bytes_of(context + 1.0) - cache.bytes_of(context),
        "state_bytes_per_sequence": cache.state_bytes,
        "max_context_tokens": model.max_context,
        "layers": model.graph.layers,
        "ops": len(model.graph.ops),
    }


def model_file(path: Path, name: str, parameters: int) -> str:
    """The YAML of a model file with the config's keys that may bear on its shape."""
    import yaml

    from simulator.spec.loader import read_mapping

    config = {key: value for key, value in read_mapping(path).items() if key not in _NOT_SHAPE}
    body = {
        "name": name,
        "title": name,
        "parameters": parameters,
        "sources": {"config": {"kind": "datasheet", "ref": f"{path.name} of {name}; parameters counted from it"}},
        "config": config,
    }
    text: str = yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=120)
    return text


def _normal(name: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "model"


def _text(found: dict[str, Any]) -> str:
    from simulator.units import in_engineering
    from simulator.views.document import Section, as_text

    per = "token" if "flops_per_token" in found else "sample"
    rows = [
        ("parameters", in_engineering(found["parameters"], ""), f"{found['parameters']:,.0f}"),
        ("used by a token" if per == "token" else "used", in_engineering(found["active_parameters"], ""), ""),
        (
            f"work per {per}",
            in_engineering(found[f"flops_per_{per}"], "FLOP"),
            "at a context of 1024" if per == "token" else "",
        ),
        ("KV cache per token", in_engineering(found["kv_bytes_per_token"], "B"), ""),
        ("state per sequence", in_engineering(found["state_bytes_per_sequence"], "B"), ""),
        ("layers", str(found["layers"]), f"{found['ops']} distinct ops"),
    ]
    if found["max_context_tokens"]:
        rows.append(("longest context", str(found["max_context_tokens"]), "tokens"))
    if "written" in found:
        rows.append(("written to", str(found["written"]), ""))
    return as_text([], [Section(str(found["name"]), tuple(rows))])
