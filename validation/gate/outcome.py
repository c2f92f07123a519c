"""One run of the gate: what was predicted now against what the baselines hold, and the files that an update writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simulator.errors import ScenarioError, shorten
from validation.gate import store
from validation.gate.accuracy import STATISTICS
from validation.gate.answers import INFERENCE, TRAINING
from validation.gate.changes import Move, Shift, moves, shifts
from validation.gate.laws import Broken
from validation.gate.store import Table, Value

PREDICTIONS = "predictions"
ACCURACY = "accuracy"
RUNS = "runs"
"""The group of measured runs, stored with the measurement beside the prediction."""
KEYS = {PREDICTIONS: "scenario", ACCURACY: "group"}
Tables = dict[str, Table]
"""Name of the file -> table."""


@dataclass(slots=True)
class Outcome:
    """What the gate found."""

    scenarios: int
    asked: Mapping[str, Sequence[str]]
    """Group -> names of its scenarios."""
    values: Mapping[str, int]
    """Group -> values that could have moved."""
    moved: list[Move]
    shifts: list[Shift]
    broken: list[Broken]
    missing: tuple[str, ...] = ()
    updated: bool = False

    @property
    def worse(self) -> list[Shift]:
        """Groups that fail; none after an update, which makes the new accuracy the baseline."""
        return [] if self.updated else [shift for shift in self.shifts if shift.worse]

    @property
    def stale(self) -> bool:
        """Whether the baselines are not those of this tree."""
        return not self.updated and bool(self.moved or any(shift.moved for shift in self.shifts))

    @property
    def passed(self) -> bool:
        """Nothing fails."""
        return not (self.broken or self.worse or self.stale)


@dataclass(slots=True)
class Current:
    """Everything computed now. A part that was not asked for, or cannot be computed here, is absent."""

    predictions: Tables = field(default_factory=dict)
    accuracy: Tables = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    missing: tuple[str, ...] = ()

    def tables(self) -> list[tuple[str, str, Table]]:
        """(folder, name, table) of all."""
        parts = ((PREDICTIONS, self.predictions), (ACCURACY, self.accuracy))
        return [(folder, name, table) for folder, found in parts for name, table in found.items()]


def columns_of(folder: str, name: str) -> tuple[str, ...]:
    """The columns of a file, after its key."""
    if folder == ACCURACY:
        return STATISTICS
    if name == RUNS:
        return ("measured", "predicted")
    return TRAINING if name == "training" else INFERENCE


def require(folder: Path) -> None:
    """Raises ScenarioError where a folder holds no baselines."""
    if not any(folder.glob("*/*.csv")):
        raise ScenarioError(f"no baselines in {shorten(folder)}; `ridgeline regress --update` writes them")


def compare(current: Current, folder: Path) -> Outcome:
    """What is computed now against the baselines in a folder. Raises ImportFormatError, and ScenarioError without any."""
    require(folder)
    moved: list[Move] = []
    found: list[Shift] = []
    asked: dict[str, Sequence[str]] = {}
    values: dict[str, int] = {}
    for kind, name, table in current.tables():
        before = store.read(folder / kind / f"{name}.csv", KEYS[kind])
        if kind == ACCURACY:
            found += shifts(name, before, table)
            continue
        moved += moves(name, before, table)
        asked[name] = sorted(table)
        values[name] = sum(len(row) - ("measured" in row) for row in table.values())
    count = sum(len(names) for names in asked.values())
    return Outcome(count, asked, values, moved, found, current.broken, current.missing)


def update(current: Current, folder: Path, whole: bool) -> None:
    """Write the baselines of what was computed; with `whole`, also remove files of groups that are no more.

    Raises ScenarioError where measurements are missing: half of the baselines would be lost.
    """
    if current.missing:
        raise ScenarioError(
            f"cannot update: this installation lacks {' and '.join(current.missing)}; run it in a clone of the repository"
        )
    files = {
        folder / kind / f"{name}.csv": store.text(table, KEYS[kind], columns_of(kind, name))
        for kind, name, table in current.tables()
    }
    obsolete = (
        [path for path in folder.glob("*/*.csv") if path.parent.name in KEYS and path not in files] if whole else []
    )
    store.write(files, obsolete)


def rounded(rows: Mapping[str, Mapping[str, Value]]) -> Table:
    """Values as the baselines hold them, so that tables before and after show the same digits."""
    return {name: {key: store.parsed(store.shown(value)) for key, value in row.items()} for name, row in rows.items()}
