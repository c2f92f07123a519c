"""What changed between two sets of tables, and what of it fails the gate.

A prediction has moved when it differs by more than `MOVED`: baselines hold six digits, so rounding is up to 5e-6 of a
value, and the order of sums, fused multiply-adds and the mathematics library of another machine make some 1e-13.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from validation.gate.accuracy import GATED, STATISTICS
from validation.gate.store import Value, shown

MOVED = 1e-5
"""Relative difference from which on a number has moved."""
WORSE = 0.05
"""Relative growth of an error that fails."""
FLOOR = 0.002
"""Growth of an error that never fails: two rows in a thousand, or rounding of a small one."""
Rows = Mapping[str, Mapping[str, Value]]


@dataclass(frozen=True, slots=True)
class Move:
    """A predicted value that is not that of the baselines; None: it was, or is, not there."""

    group: str
    scenario: str
    quantity: str
    before: Value | None
    after: Value | None
    measured: float | None = None

    @property
    def change(self) -> float | None:
        """after / before - 1 of numbers."""
        if isinstance(self.before, float) and isinstance(self.after, float) and self.before:
            return self.after / self.before - 1.0
        return None

    @property
    def size(self) -> float:
        """For ordering: the log ratio; infinite where a value appeared, vanished or is no number."""
        change = self.change
        return abs(math.log1p(change)) if change is not None and change > -1.0 else math.inf


@dataclass(frozen=True, slots=True)
class Shift:
    """A group's accuracy, before and after; empty where the group was, or is, not there."""

    table: str
    group: str
    before: Mapping[str, Value]
    after: Mapping[str, Value]

    @property
    def moved(self) -> bool:
        """Whether any statistic is another than in the baselines."""
        return any(differs(self.before.get(name), self.after.get(name)) for name in STATISTICS)

    @property
    def worse(self) -> tuple[str, ...]:
        """The statistics that fail."""
        return tuple(name for name in GATED if worsened(self.before.get(name), self.after.get(name)))


def differs(before: Value | None, after: Value | None) -> bool:
    """Whether a value has moved.

    >>> differs(1.0, 1.000001), differs(1.0, 1.0001), differs("true", "false"), differs(None, 1.0)
    (False, True, True, True)
    """
    if isinstance(before, float | int) and isinstance(after, float | int):
        return abs(before - after) > MOVED * max(abs(before), abs(after))
    return before != after


def worsened(before: Value | None, after: Value | None) -> bool:
    """Whether an error grew by more than 5% of itself and `FLOOR`.

    >>> worsened(0.100, 0.104), worsened(0.100, 0.108), worsened(0.001, 0.0029), worsened(None, 0.5)
    (False, True, False, False)
    """
    if not isinstance(before, float | int) or not isinstance(after, float | int):
        return False
    return after > before * (1.0 + WORSE) + FLOOR


def moves(group: str, before: Rows, after: Rows) -> Iterator[Move]:
    """The values of a group of predictions that moved. Of tables with measurements, the column `predicted`."""
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            yield Move(group, name, "scenario", None if old is None else "there", None if new is None else "there")
            continue
        measured = new.get("measured")
        for column in dict.fromkeys((*new, *old)):
            if column != "measured" and differs(old.get(column), new.get(column)):
                known = measured if isinstance(measured, float) else None
                yield Move(group, name, column, old.get(column), new.get(column), known)


def shifts(table: str, before: Rows, after: Rows) -> list[Shift]:
    """Every group's accuracy, before and after."""
    return [
        Shift(table, name, before.get(name, {}), after.get(name, {})) for name in sorted(before.keys() | after.keys())
    ]


def percent(value: Value | None) -> str:
    """A fraction in percent, as tables show it.

    >>> percent(0.0834), percent(None)
    ('8.3%', '')
    """
    return f"{value * 100:.1f}%" if isinstance(value, float | int) else shown(value)
