"""Applying technique files and a scenario's number formats to a model, in a defined order, verified after each step.

The registry names every primitive; a file that needs no new primitive needs no Python.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator import catalog
from simulator.errors import Problem, SimulatorError, SpecError, close_matches, shorten
from simulator.graph.op import Graph, verify
from simulator.spec.loader import load, place
from simulator.spec.technique import TechniqueSpec
from simulator.techniques import quantization

if TYPE_CHECKING:
    from simulator.graph.build import Model
    from simulator.scenario import Scenario

PRIMITIVES: dict[str, Callable[..., Graph]] = {
    "quantization.weights": quantization.weights,
    "quantization.cache": quantization.cache,
    "quantization.arithmetic": quantization.arithmetic,
}


def apply_all(model: Model, scenario: Scenario) -> Model:
    """The model after its techniques, in the order they are named, and then the scenario's own number formats."""
    graph = model.graph
    for name in scenario.techniques:
        graph = apply_file(graph, catalog.find("technique", name))
    if scenario.weight_dtype:
        graph = verify(quantization.weights(graph, dtype=scenario.weight_dtype), "quantization.weights")
    if scenario.activation_dtype:
        graph = verify(quantization.arithmetic(graph, dtype=scenario.activation_dtype), "quantization.arithmetic")
    if scenario.kv_dtype:
        graph = verify(quantization.cache(graph, dtype=scenario.kv_dtype), "quantization.cache")
    return model if graph is model.graph else replace(model, graph=graph)


def apply_file(graph: Graph, path: Path) -> Graph:
    """`graph` after every primitive of a technique file. Raises SpecError at the line of the first that cannot be."""
    spec = load(path, TechniqueSpec)
    for position, entry in enumerate(spec.apply):
        for name, arguments in entry.items():
            primitive = _primitive(name, path, position)
            values = {key: _value(value, spec, path, (position, name, key)) for key, value in arguments.items()}
            _check_arguments(primitive, values, path, position, name)
            try:
                graph = verify(primitive(graph, **values), name)
            except (SimulatorError, TypeError, ValueError) as error:
                raise _problem(path, ("apply", position, name), str(error)) from None
    return graph


def _primitive(name: str, path: Path, position: int) -> Callable[..., Graph]:
    if name not in PRIMITIVES:
        near = close_matches(name, PRIMITIVES)
        hint = f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(sorted(PRIMITIVES))}"
        raise _problem(path, ("apply", position, name), f"unknown primitive '{name}'{hint}")
    return PRIMITIVES[name]


def _check_arguments(
    primitive: Callable[..., Graph], values: dict[str, Any], path: Path, position: int, name: str
) -> None:
    known = [key for key in inspect.signature(primitive).parameters if key != "graph"]
    for key in values:
        if key not in known:
            near = close_matches(key, known)
            hint = f"; did you mean '{near[0]}'?" if near else f"; it takes {', '.join(known)}"
            raise _problem(path, ("apply", position, name, key), f"{name} has no argument '{key}'{hint}")


def _value(value: Any, spec: TechniqueSpec, path: Path, where: tuple[int, str, str]) -> Any:
    if isinstance(value, str) and value.startswith("$"):
        if value[1:] not in spec.parameters:
            near = close_matches(value[1:], spec.parameters)
            hint = f"; did you mean '${near[0]}'?" if near else "; add it to `parameters`"
            raise _problem(path, ("apply", *where), f"'{value}' is not in `parameters`{hint}")
        return spec.parameters[value[1:]]
    return value


def _problem(path: Path, keys: tuple[str | int, ...], message: str) -> SpecError:
    line, column = place(path, *keys)
    return SpecError([Problem(shorten(path), line, column, ".".join(map(str, keys)), message)])
