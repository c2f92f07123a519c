"""The errors a user can meet.

Every one says where, what, and how to mend it. The command line prints the message and exits 2.
Nothing here knows about hardware or models.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


class SimulatorError(Exception):
    """Root of the tree: anything wrong with what the user gave, never a defect of the program."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in one place of a file.

    `line` and `column` count from 1; 0 means that the place is the file as a whole.
    """

    file: str
    line: int
    column: int
    where: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.where}: {self.message}" if self.where else f"{place}: {self.message}"


class SpecError(SimulatorError):
    """A file is not a valid spec. Carries all its problems at once, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


FEW = 20
"""Names that an error lists where no command does."""
OFFERED = 3
"""Names near to a misspelt one that an error offers."""


class UnknownNameError(SimulatorError):
    """No device, model, engine or dtype of that name; offers the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name = kind, name
        known = sorted(known)
        self.close_matches = close_matches(name, known)
        hint = f"; did you mean {_either(self.close_matches)}?" if self.close_matches else ""
        listing = {"hardware": "hardware", "model": "models", "engine": "engines", "technique": "techniques"}
        see = f"{'' if hint else ';'} `ridgeline list {listing[kind]}` shows all" if kind in listing else ""
        if not hint and not see and len(known) <= FEW:
            see = f"; known are {', '.join(known)}"
        super().__init__(f"unknown {kind} '{name}'{hint}{see}")


class UnitError(SimulatorError):
    """A number without its unit, or with the unit of another quantity."""


class GraphError(SimulatorError):
    """A graph that breaks its own invariants, with the op and the pass that broke it."""

    def __init__(self, op: str, stage: str, message: str) -> None:
        self.op, self.stage = op, stage
        super().__init__(f"op '{op}' after {stage}: {message}")


class ScenarioError(SimulatorError):
    """A scenario that cannot be: batch 0, a context beyond the model's limit, TP that does not divide."""


class CapacityError(SimulatorError):
    """The tensors do not fit, and the caller asked for that to be an error."""

    def __init__(self, need_bytes: float, have_bytes: float, largest: Sequence[tuple[str, float]]) -> None:
        self.need_bytes, self.have_bytes, self.largest = need_bytes, have_bytes, tuple(largest)
        biggest = ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in self.largest)
        super().__init__(
            f"needs {need_bytes / 1e9:.1f} GB where {have_bytes / 1e9:.1f} GB are usable; largest: {biggest}"
        )


class UnsupportedError(SimulatorError):
    """A known thing that is not modelled, with what can be used in its place."""

    def __init__(self, feature: str, alternatives: Sequence[str] = ()) -> None:
        self.feature, self.alternatives = feature, tuple(alternatives)
        instead = f"; use {_either(self.alternatives)}" if self.alternatives else ""
        super().__init__(f"{feature} is not supported{instead}")


class TimelineError(SimulatorError):
    """A task of a timeline that cannot run: no such resource, no bandwidth, a buffer too small, a wait without end."""

    def __init__(self, task: str, message: str) -> None:
        self.task = task
        super().__init__(f"task '{task}': {message}")


class InfeasiblePlanError(SimulatorError):
    """No fleet serves the load within the limits; names the constraints that would have to give way."""

    def __init__(self, constraints: Sequence[str]) -> None:
        self.constraints = tuple(constraints)
        super().__init__("no fleet can serve this load: " + "; ".join(self.constraints))


class ImportFormatError(SimulatorError):
    """A foreign file (config.json, ONNX, ...) that cannot be read as what it claims to be."""


def close_matches(name: str, known: Iterable[str]) -> list[str]:
    """The `OFFERED` names of `known` nearest to `name`, without regard to case.

    >>> close_matches("A1O0", ["a100", "h100", "t4"])
    ['a100', 'h100']
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    wanted = name.lower()
    near = difflib.get_close_matches(wanted, by_lower, n=OFFERED, cutoff=0.5)
    inside = [candidate for candidate in sorted(by_lower) if wanted in candidate and candidate not in near]
    return [by_lower[candidate] for candidate in (near + inside)[:OFFERED]]


def shorten(path: str | Path) -> str:
    """`path` relative to the working directory where that is shorter."""
    try:
        relative = str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
    return relative


def _either(names: Sequence[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1]
