"""The options that describe a scenario, shared by every command that takes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from simulator.scenario import Scenario

F = TypeVar("F", bound=Callable[..., Any])


class Watts(click.ParamType[float]):
    """Watts, with their unit or without: 400W, 0.4 kW, 400."""

    name = "power"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The value in watts."""
        from simulator.errors import SimulatorError
        from simulator.units import POWER, to_si

        try:
            return float(value)
        except ValueError:
            pass
        try:
            return to_si(str(value), POWER)
        except SimulatorError as error:
            self.fail(str(error), param, ctx)


WORK: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("--model",),
        {"required": True, "help": "Name, alias, or path of a model file, config.json, its folder or ONNX file."},
    ),
    (("--batch",), {"type": int, "default": 1, "show_default": True, "help": "Sequences that run together."}),
    (("--input", "input_tokens"), {"type": int, "default": 512, "show_default": True, "help": "Prompt tokens."}),
    (("--output", "output_tokens"), {"type": int, "default": 128, "show_default": True, "help": "Generated tokens."}),
    (("--max-context",), {"type": int, "help": "Replaces the model's own limit on input and output in sum."}),
    (("--images",), {"type": int, "default": 0, "help": "Images per sequence, for vision-language models."}),
)
DIVISION: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--devices",), {"type": int, "help": "Devices in all. Default: tp x pp x dp, or all of a system."}),
    (("--tp",), {"type": int, "help": "Tensor-parallel ranks. Default: what pp and dp leave over."}),
    (("--pp",), {"type": int, "default": 1, "help": "Pipeline stages."}),
    (("--ep",), {"type": int, "default": 1, "help": "Expert-parallel ranks."}),
    (("--dp",), {"type": int, "default": 1, "help": "Replicas."}),
)
FORMATS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--weight-dtype",), {"help": "Storage format of the weights of linear layers (int4, fp8, ...)."}),
    (("--kv-dtype",), {"help": "Storage format of the KV cache."}),
    (("--activation-dtype",), {"help": "Format of the arithmetic of linear layers."}),
    (("--place",), {"multiple": True, "metavar": "ROLE=MEMORY", "help": "Pin weight or kv to a memory. Repeatable."}),
)
ONE_OF_EACH: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--hardware",), {"required": True, "help": "Name, alias, or path of a device or system file."}),
    (("--engine",), {"help": "vllm, llama.cpp, ..., or ideal (speed of light). Default: the hardware's own."}),
    (
        ("--technique", "techniques"),
        {
            "multiple": True,
            "help": "A technique, applied in the order given; NAME:KEY=VALUE sets a parameter. Repeatable.",
        },
    ),
    (("--power-cap", "power_cap_w"), {"type": Watts(), "help": "Power limit set per device, such as 400W."}),
)


def options(*groups: tuple[tuple[tuple[str, ...], dict[str, Any]], ...]) -> Callable[[F], F]:
    """Decorate a command with groups of options, in order."""

    def decorate(function: F) -> F:
        for names, settings in reversed([option for group in groups for option in group]):
            function = click.option(*names, **settings)(function)
        return function

    return decorate


scenario_options = options(WORK[:1], ONE_OF_EACH, WORK[1:], DIVISION, FORMATS)


def scenario_from(named: dict[str, Any]) -> Scenario:
    """The scenario that parsed options describe; options that are not of a scenario are left out."""
    from dataclasses import fields

    from simulator.errors import ScenarioError
    from simulator.scenario import Scenario

    known = {field.name for field in fields(Scenario)}
    values = {key: value for key, value in named.items() if key in known}
    pins = []
    for pin in values.get("place", ()):
        role, equals, memory = pin.partition("=")
        if not (role and equals and memory):
            raise ScenarioError(f"--place takes ROLE=MEMORY, such as kv=flash, not '{pin}'")
        pins.append((role, memory))
    return Scenario(**{**values, "place": tuple(pins), "techniques": tuple(values.get("techniques", ()))})


def arguments_of(scenario: Scenario) -> list[str]:
    """The options that describe a scenario, defaults left out: the inverse of `scenario_from`.

    >>> from simulator.scenario import Scenario
    >>> arguments_of(Scenario("gpt2", "T4", batch=4, place=(("kv", "gddr"),)))
    ['--model', 'gpt2', '--hardware', 'T4', '--batch', '4', '--place', 'kv=gddr']
    """
    found: list[str] = []
    for names, settings in (*WORK[:1], *ONE_OF_EACH, *WORK[1:], *DIVISION, *FORMATS):
        attribute = names[-1].removeprefix("--").replace("-", "_")
        value = getattr(scenario, attribute)
        if value is None or (value == settings.get("default") and not settings.get("required")):
            continue
        for one in value if settings.get("multiple") else (value,):
            text = "=".join(one) if attribute == "place" else f"{one:.12g}" if isinstance(one, float) else str(one)
            if text:
                found += [names[0], text]
    return found
