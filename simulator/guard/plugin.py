"""The pytest plugin: every `ridgeline.yaml` and `*.ridgeline.yaml` is a file of tests, an item per limit and scenario.

Loaded by every pytest of an environment that has Ridgeline, so that nothing of the model is imported before such a file
is met. `-p no:ridgeline` turns it off.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from simulator.guard.check import Guard, Stored
    from simulator.result import Prediction

PATTERNS = ["ridgeline.yaml", "*.ridgeline.yaml", "ridgeline.yml", "*.ridgeline.yml"]
_UPDATES = pytest.StashKey[dict[Path, "Stored"]]()
_WRITTEN = pytest.StashKey[list[Path]]()


class GuardFailure(Exception):
    """A limit that is not kept, or a prediction that moved: shown without a traceback."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that stores predictions, and the names of guard files."""
    group = parser.getgroup("ridgeline", "predictions of scenarios in *.ridgeline.yaml")
    group.addoption("--ridgeline-update", action="store_true", help="Store the present predictions as the baselines.")
    parser.addini("ridgeline_files", "Names of guard files, as patterns.", type="args", default=PATTERNS)


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker; refuses to update from several processes, which would overwrite one another's files."""
    config.addinivalue_line("markers", "ridgeline: a check of a predicted scenario")
    config.stash[_UPDATES] = {}
    config.stash[_WRITTEN] = []
    if config.getoption("--ridgeline-update") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--ridgeline-update writes files: run it in one process (-n 0)")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> GuardFile | None:
    """A guard file, by its name."""
    if any(fnmatch(file_path.name, pattern) for pattern in parent.config.getini("ridgeline_files")):
        return GuardFile.from_parent(parent, path=file_path)
    return None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Writes what was predicted, once all is known."""
    from_files = session.config.stash.get(_UPDATES, {})
    if not from_files:
        return
    from simulator.errors import SimulatorError
    from simulator.guard.check import guards, read_stored, stored_beside, write_stored

    for path, found in from_files.items():
        target = stored_beside(path)
        try:
            known = read_stored(target)
        except SimulatorError:
            known = {}
        write_stored(target, {**known, **found}, [guard.name for guard in guards(path) if guard.tolerance is not None])
        session.config.stash[_WRITTEN].append(target)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Says which files were written."""
    for path in config.stash.get(_WRITTEN, []):
        terminalreporter.write_line(f"ridgeline: baselines written to {path}")


class GuardFile(pytest.File):
    """One guard file."""

    def collect(self) -> Iterator[pytest.Item]:
        """An item per limit; one more per scenario whose predictions are stored."""
        from simulator.errors import SimulatorError
        from simulator.guard.check import guards
        from simulator.spec.guard import WORDS

        try:
            found = guards(self.path)
        except SimulatorError as error:
            raise self.CollectError(str(error)) from None
        for guard in found:
            for key, wanted in guard.spec.expect.items():
                text = f"is {str(wanted).lower()}" if key in WORDS else wanted
                yield LimitItem.from_parent(self, name=f"{guard.name}: {key} {text}", guard=guard, key=key)
            if guard.tolerance is not None:
                yield StoredItem.from_parent(self, name=f"{guard.name}: unchanged", guard=guard)
            if guard.tolerance is None and not guard.spec.expect:
                yield StoredItem.from_parent(self, name=f"{guard.name}: can be predicted", guard=guard)


class GuardItem(pytest.Item):
    """Anything that is checked of a scenario."""

    def __init__(self, *, guard: Guard, **named: Any) -> None:
        super().__init__(**named)
        self.guard = guard
        self.add_marker("ridgeline")

    def answer(self) -> Prediction:
        """The prediction, with what the user can mend as the failure."""
        from simulator.errors import SimulatorError

        try:
            return self.guard.predict()
        except SimulatorError as error:
            raise GuardFailure(str(error)) from None

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The message and the place in the guard file; a traceback only for a defect of the program."""
        if isinstance(excinfo.value, GuardFailure):
            return f"{self.path.name}:{self.guard.line}: {self.guard.name}\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the scenario stands."""
        return self.path, self.guard.line - 1, self.name


class LimitItem(GuardItem):
    """One limit on one quantity."""

    def __init__(self, *, key: str, **named: Any) -> None:
        super().__init__(**named)
        self.key = key

    def runtest(self) -> None:
        """Raises GuardFailure where the limit is not kept."""
        from simulator.guard.check import broken

        found = broken(self.guard, self.key, self.answer())
        if found is not None:
            raise GuardFailure(found)


class StoredItem(GuardItem):
    """The predictions of a scenario against what is stored of them."""

    def runtest(self) -> None:
        """Raises GuardFailure where one moved, or nothing is stored; with --ridgeline-update, keeps it for storing."""
        from simulator.errors import SimulatorError
        from simulator.guard.check import moved, read_stored, stored_beside, watched

        found = self.answer()
        if self.guard.tolerance is None:
            return
        after = watched(self.guard, found)
        if self.config.getoption("--ridgeline-update"):
            self.config.stash[_UPDATES].setdefault(self.path, {})[self.guard.name] = after
            return
        target = stored_beside(self.path)
        try:
            before = read_stored(target).get(self.guard.name)
        except SimulatorError as error:
            raise GuardFailure(str(error)) from None
        if before is None:
            raise GuardFailure(f"nothing is stored in {target.name}; run pytest --ridgeline-update and commit the file")
        lines = moved(before, after, self.guard.tolerance)
        if lines:
            mend = "if that is meant, run pytest --ridgeline-update and commit the file"
            raise GuardFailure("\n".join([f"moved by more than {self.guard.tolerance:.3g}:", *lines, mend]))
