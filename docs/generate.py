"""Writes what can be written from the program itself: reference pages, JSON Schemas, and output pasted into pages.

`make docs` runs it. A test holds that the pages and schemas are current; pasted output and the table of papers are held
to the same shape only, as their numbers move with the calibrations.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PASTED = re.compile(r"(<!-- run: (?P<command>.+?) -->\n```\w*\n)(?P<output>.*?)(```\n<!-- end -->)", re.DOTALL)
WITH_OUTPUT = ("README.md", "docs/tutorial.md")
_NOTE = "<!-- Written by docs/generate.py (`make docs`); edit the docstrings instead. -->\n"


def pages() -> dict[Path, str]:
    """Every generated file and its content."""
    from simulator.cli.schema import KINDS, schema_text

    found = {
        ROOT / "docs" / "reference" / "hardware-file.md": hardware_page(),
        ROOT / "docs" / "reference" / "plan-file.md": plan_page(),
        ROOT / "docs" / "reference" / "cli.md": cli_page(),
        ROOT / "docs" / "reference" / "primitives.md": primitives_page(),
    }
    for kind, (_, _, folder) in KINDS.items():
        found[ROOT / folder / "_schema" / f"{kind}.schema.json"] = schema_text(kind)
    return found


def hardware_page() -> str:
    """The keys of device and system files, from the docstrings of the classes that check them."""
    from simulator.cli.schema import schema

    device, system = schema("hardware"), schema("system")
    parts = [
        "# Hardware files\n",
        _NOTE,
        "A device is compute units, memories and links; a system is devices joined by links. Files stand in "
        "`hardware/<group>/NAME.yaml`, or anywhere if given by path. A quantity is written with its unit and the key "
        "of its source: `2039 GB/s @ds`; without `@key` it has the file's `default_source`. GB is 1e9 bytes, GiB is "
        "2**30; a multiply-accumulate is 2 FLOPs; peaks are dense; unknown keys are errors. `ridgeline schema "
        "hardware` and `ridgeline schema system` print the same as JSON Schema, for editors.\n",
        _section("Device file", device),
        _section("System file", system),
    ]
    shared = {**device["$defs"], **system["$defs"]}
    order = [
        "Source", "ComputeUnit", "Memory", "Geometry", "Timing", "Link", "PowerSpec", "Overhead", "Price", "Part",
    ]  # fmt: skip
    parts += [_section(name, shared[name]) for name in order]
    return "\n".join(parts)


def plan_page() -> str:
    """The keys of plan files and of histograms."""
    from simulator.cli.schema import schema

    plan, traffic = schema("plan"), schema("traffic")
    parts = [
        "# Plan files\n",
        _NOTE,
        "What `ridgeline plan` reads; [guides/plan.md](../guides/plan.md) says how it is used. Quantities are written with "
        "their unit and without a source: what is wanted is no fact. Shipped plans stand in `workloads/deployments`, "
        "histograms of request sizes in `workloads/traffic`.\n",
        _section("Plan file", plan),
        *(_section(name, body) for name, body in plan["$defs"].items()),
        _section("Traffic file", traffic),
    ]
    return "\n".join(parts)


def _section(title: str, body: dict[str, Any]) -> str:
    required = set(body.get("required", ()))
    lines = [f"## {title}\n", body.get("description", "") + "\n", "| key | value | meaning |", "|---|---|---|"]
    for key, value in body["properties"].items():
        mark = " (required)" if key in required else ""
        meaning = str(value.get("description", "")).replace("\n", " ").replace("|", "\\|")
        if meaning == _type(value):
            meaning = ""
        lines.append(f"| `{key}`{mark} | {_type(value)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _type(value: dict[str, Any]) -> str:
    if "anyOf" in value:
        return " or ".join(_type(option) for option in value["anyOf"] if option.get("type") != "null")
    if "allOf" in value:
        return _type(value["allOf"][0])
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "examples" in value:
        return f"`{value['examples'][0]}`"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{option}`" for option in value["enum"])
    if value.get("type") == "array":
        return f"list of {_type(value['items'])}" if "items" in value else "list"
    if value.get("type") == "object":
        inner = value.get("additionalProperties")
        return f"mapping to {_type(inner)}" if isinstance(inner, dict) else "mapping"
    return {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}.get(
        str(value.get("type")), str(value.get("type", "anything"))
    )


def cli_page() -> str:
    """Every command and its options."""
    import click

    from simulator.cli.main import COMMANDS, main

    context = click.Context(main, info_name="ridgeline")
    parts = [
        "# The command line\n",
        _NOTE,
        "Errors of the input print `error: ...` on stderr and exit with 2. Tables are for people; `--json` is for "
        "programs, in SI units, and its keys are stable.\n",
    ]
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        arguments = " ".join(
            (p.metavar or (p.name or "").upper()) for p in command.params if isinstance(p, click.Argument)
        )
        parts.append(f"## ridgeline {name} {arguments}".rstrip() + "\n")
        text = (command.help or "").split("\b\n")
        parts.append(text[0].strip() + "\n")
        if len(text) > 1:
            example = "\n".join(line.strip() for line in text[1].strip().splitlines())
            parts.append(f"```\n{example}\n```\n")
        parts.append("| option | default | meaning |\n|---|---|---|")
        parts += [_option(option) for option in command.params if isinstance(option, click.Option)]
        parts.append("")
    return "\n".join(parts)


def primitives_page() -> str:
    """Every primitive, from its docstring and the class that checks its arguments."""
    from simulator.techniques.registry import primitives

    parts = [
        "# Primitives of techniques\n",
        _NOTE,
        "A technique file is a list of these, in order; [background/techniques.md](../background/techniques.md) says how "
        "they compose. `keeps` and `lowers` are checked on the graph after every use.\n",
    ]
    family = ""
    for name, primitive in primitives().items():
        if name.partition(".")[0] != family:
            family = name.partition(".")[0]
            parts.append(f"## {family.replace('_', ' ')}\n")
        parts.append(f"### `{name}`\n")
        text = (primitive.function.__doc__ or "").split(">>>")[0]
        parts.append("\n".join(line.strip() for line in text.strip().splitlines()) + "\n")
        facts = [f"changes the {primitive.effect}"]
        for label, values in (("keeps", primitive.keeps), ("lowers", primitive.lowers)):
            if values:
                facts.append(f"{label} {', '.join(values)}")
        if primitive.once:
            facts.append(f"decides {primitive.once}")
        parts.append("; ".join(facts).capitalize() + ".\n")
        fields = primitive.parameters().model_json_schema().get("properties", {})
        required = primitive.parameters().model_json_schema().get("required", ())
        if fields:
            parts.append("| parameter | value | default |\n|---|---|---|")
            for key, value in fields.items():
                default = "required" if key in required else f"`{json.dumps(value.get('default'))}`"
                parts.append(f"| `{key}` | {_type(value)}{_limits(value)} | {default} |")
            parts.append("")
    return "\n".join(parts)


def _limits(value: dict[str, Any]) -> str:
    found = [option.get("description") for option in (value, *value.get("anyOf", ())) if option.get("description")]
    return f", {found[0]}" if found else ""


def papers_page() -> str:
    """All papers with their state and verdicts."""
    from validation.papers import page

    return page()


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    default = option.default
    silent = option.is_flag or option.multiple or not isinstance(default, int | float | str | Path)
    shown = "" if silent else str(default)
    mark = " (required)" if option.required else ""
    return f"| {names}{mark} | {shown} | {option.help or ''} |"


def pasted(text: str) -> str:
    """`text` with the output of every `<!-- run: COMMAND -->` replaced by that of a run now."""
    return PASTED.sub(lambda match: match[1] + run(match["command"]) + match[4], text)


def run(command: str) -> str:
    """What a command prints."""
    from click.testing import CliRunner

    from simulator.cli.main import main

    program, *arguments = shlex.split(command)
    if program != "ridgeline":
        raise SystemExit(f"cannot run '{command}'")
    result = CliRunner().invoke(main, arguments)
    if result.exit_code:
        raise SystemExit(f"{command}: {result.output}")
    return result.stdout


def write() -> None:
    """Write every page that has changed."""
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json" and path.exists() and json.loads(path.read_text()) == json.loads(text):
            continue
        _replace(path, text)
    _replace(ROOT / "docs" / "papers.md", papers_page())
    for name in WITH_OUTPUT:
        _replace(ROOT / name, pasted((ROOT / name).read_text(encoding="utf-8")))


def _replace(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    write()
