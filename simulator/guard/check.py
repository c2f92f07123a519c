"""A guard file's scenarios against their limits and against what is stored of them. Knows nothing of pytest."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from simulator.errors import ImportFormatError, shorten
from simulator.predict import predict
from simulator.result import Prediction
from simulator.scenario import Scenario
from simulator.spec.guard import DIMENSIONS, Fields, Guarded, GuardSpec, limit
from simulator.spec.loader import load, place
from simulator.units import CAPACITY, NUMBER, POWER, TIME, in_engineering

DIGITS = 6
"""Significant digits of what is stored: machines differ in the order of sums by some 1e-13 of a value."""
LEAST = 1e-5
"""The smallest tolerance that means anything with so many digits."""
_UNITS = {TIME: "s", CAPACITY: "B", POWER: "W"}
Stored = dict[str, dict[str, float | bool]]
"""Scenario -> quantity -> value."""


@dataclass(frozen=True, slots=True)
class Guard:
    """One scenario of a guard file, and where it stands."""

    name: str
    line: int
    """From 1."""
    spec: Guarded
    scenario: Scenario
    tolerance: float | None
    """None: nothing is stored."""
    watch: tuple[str, ...]

    def predict(self) -> Prediction:
        """The prediction. Raises SimulatorError."""
        return predict(self.scenario)


def guards(path: Path) -> list[Guard]:
    """The scenarios of a guard file, in order. Raises SpecError with every problem at its line."""
    spec = load(path, GuardSpec)
    found = []
    for position, one in enumerate(spec.scenarios):
        tolerance = one.tolerance if one.tolerance is not None else spec.tolerance
        found.append(
            Guard(
                one.name, place(path, "scenarios", position, "name")[0], one, _scenario(one, spec.defaults, path.parent),
                max(tolerance, LEAST) if one.stored and tolerance is not None else None, tuple(spec.watch),
            )
        )  # fmt: skip
    return found


def _scenario(one: Guarded, defaults: Fields, folder: Path) -> Scenario:
    values: dict[str, Any] = {}
    for field in fields(Scenario):
        for side in (one, defaults):
            value = getattr(side, field.name)
            if value is not None:
                values[field.name] = value
                break
    for field_name in ("model", "hardware"):
        own = folder / values[field_name]
        if own.suffix in (".yaml", ".yml", ".json", ".onnx") and own.is_file():
            values[field_name] = str(own.resolve())
    if "techniques" in values:
        values["techniques"] = tuple(values["techniques"])
    if "place" in values:
        values["place"] = tuple(values["place"].items())
    return Scenario(**values)


def broken(guard: Guard, key: str, answer: Prediction) -> str | None:
    """Why the prediction does not keep a limit, in words; None if it does.

    With `sure`, the far end of the 90% interval has to keep it.
    """
    wanted, value = guard.spec.expect[key], getattr(answer, key)
    if key not in DIMENSIONS:
        if value == wanted:
            return None
        advice = answer.run.advice() if key == "fits" else None
        shown = {True: "true", False: "false"}.get(value, value)
        return f"{key} is {shown}, expected {str(wanted).lower()}" + (f": {advice}" if advice else "")
    assert isinstance(wanted, str | float | int)
    side, bound = limit(key, wanted)
    if value is None:
        return f"{key} is not known: {answer.provenance['hardware']} has no price"
    low, high = answer.interval.get(key, (value, value))
    compared = (high if side == "<=" else low) if guard.spec.sure else value
    if compared <= bound if side == "<=" else compared >= bound:
        return None
    far = f", and {shown_value(key, compared)} at the far end of its 90% interval" if guard.spec.sure else ""
    between = f"90% interval {shown_value(key, low)} to {shown_value(key, high)} ({answer.provenance['tag']})"
    return f"{key} is {shown_value(key, value)}{far}, expected {wanted}\n{between}; most of the time goes to {answer.bound}"


def watched(guard: Guard, answer: Prediction) -> dict[str, float | bool]:
    """What is stored of a prediction; quantities that are not known are left out."""
    found: dict[str, float | bool] = {}
    for key in guard.watch:
        value = getattr(answer, key)
        if value is not None:
            found[key] = value if isinstance(value, bool) else float(f"{value:.{DIGITS}g}")
    return found


def moved(before: Mapping[str, float | bool], after: Mapping[str, float | bool], tolerance: float) -> list[str]:
    """A line per quantity that moved by more than `tolerance` of itself.

    >>> moved({"tpot_s": 0.010, "fits": True}, {"tpot_s": 0.0104, "fits": True}, 0.02)
    ['tpot_s: 10.0 ms -> 10.4 ms (+4.00%)']
    """
    lines = []
    for key in dict.fromkeys((*before, *after)):
        old, new = before.get(key), after.get(key)
        if old is None or new is None or isinstance(old, bool) or isinstance(new, bool):
            if old != new:
                lines.append(f"{key}: {_word(key, old)} -> {_word(key, new)}")
        elif abs(new - old) > tolerance * abs(old):
            change = f" ({new / old - 1.0:+.2%})" if old else ""
            lines.append(f"{key}: {shown_value(key, old)} -> {shown_value(key, new)}{change}")
    return lines


def shown_value(key: str, value: float) -> str:
    """A quantity for people.

    >>> shown_value("tpot_s", 0.0123), shown_value("output_tokens_per_s", 1234.5)
    ('12.3 ms', '1234')
    """
    dimension = DIMENSIONS.get(key, NUMBER)
    if dimension in _UNITS:
        return in_engineering(value, _UNITS[dimension])
    ending = " USD" if key.startswith("usd") else " J" if "_j" in key else ""
    return f"{value:.4g}{ending}"


def _word(key: str, value: float | bool | None) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else shown_value(key, value)


def stored_beside(path: Path) -> Path:
    """The file that holds what is stored of a guard file.

    >>> stored_beside(Path("guards/chat.ridgeline.yaml")).as_posix()
    'guards/chat.ridgeline.baseline.json'
    """
    return path.with_suffix(".baseline.json")


def read_stored(path: Path) -> Stored:
    """What is stored in a file; nothing if there is none. Raises ImportFormatError for a file of another form."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ImportFormatError(f"{shorten(path)}: broken JSON: {error}; --ridgeline-update writes it anew") from None
    scenarios = data.get("scenarios") if isinstance(data, dict) else None
    if not isinstance(scenarios, dict) or not all(
        isinstance(values, dict) and all(isinstance(value, int | float) for value in values.values())
        for values in scenarios.values()
    ):
        raise ImportFormatError(f"{shorten(path)}: no baselines of scenarios; --ridgeline-update writes them anew")
    return scenarios


def write_stored(path: Path, found: Stored, order: Sequence[str]) -> None:
    """Replace a file, all or nothing; scenarios in the order of their guard file, and only those that it still has."""
    body = {"scenarios": {name: found[name] for name in order if name in found}}
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as stream:
        json.dump(body, stream, indent=1, ensure_ascii=False)
        stream.write("\n")
    os.chmod(stream.name, 0o644)
    os.replace(stream.name, path)
