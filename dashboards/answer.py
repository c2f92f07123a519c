"""What a page answers: blocks of numbers, tables and pictures, each with its records and the command that gives them.

Plain data; `dashboards.components` turns it into HTML, `dashboards.export` into CSV and JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dashboards.state import State
from simulator.views.document import Block as Report

Direction = Literal["better", "worse", "same", "other"]


@dataclass(frozen=True, slots=True)
class Change:
    """A number against the pinned baseline's."""

    text: str
    """Such as `-38%`."""
    direction: Direction
    before: str
    """The baseline's number, with its unit."""


@dataclass(frozen=True, slots=True)
class Value:
    """One number on the screen."""

    key: str
    """Its key in the JSON form."""
    label: str
    text: str
    """With its unit."""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    between: str = ""
    """The 90% interval, with units; empty without one."""
    note: str = ""
    change: Change | None = None
    baseline: float | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a page that can be exported on its own."""

    id: str
    title: str
    command: tuple[str, ...] = ()
    """Words of the command that gives the same numbers."""
    data: Any = None
    """The JSON form, as the command prints it."""
    records: Sequence[Mapping[str, Any]] = ()
    """The rows of the CSV form."""
    note: str = ""
    values: tuple[Value, ...] = ()
    figure: Any = None
    describes: str = ""
    """What the figure shows, for those who cannot see it."""
    least_width: int = 0
    """Pixels below which the figure scrolls sideways rather than shrinks."""
    report: tuple[Report, ...] = ()
    folded: bool = False
    """Shown when asked for."""
    empty: str = ""
    """Why there is nothing to show."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page shows for a state."""

    heading: str = ""
    line: str = ""
    blocks: tuple[Block, ...] = ()
    notices: tuple[str, ...] = ()
    """What of a link could not be shown, and what is shown instead."""
    problem: str = ""
    """Why there is no answer, and what would mend it."""

    def block(self, name: str) -> Block | None:
        """The block of that id."""
        return next((block for block in self.blocks if block.id == name), None)


@dataclass(frozen=True, slots=True)
class Screen:
    """What of the reader's device matters."""

    narrow: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A page: where it is, which controls it has, and the function that answers a state."""

    path: str
    name: str
    title: str
    lead: str
    controls: tuple[tuple[str, tuple[str, ...]], ...]
    """(heading of a group, keys of its controls)."""
    answer: Callable[[State, Screen], Answer]
    pins: bool = False
    """Whether a baseline can be pinned here."""
    uploads: tuple[str, ...] = field(default=())
    """Kinds of file that can be uploaded here."""

    @property
    def keys(self) -> tuple[str, ...]:
        """All its controls."""
        return tuple(key for _, keys in self.controls for key in keys)

    @property
    def id(self) -> str:
        """Its name in addresses of exports."""
        return self.path.strip("/") or "what-if"
