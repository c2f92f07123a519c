"""`ridgeline regress`: this tree's predictions and accuracy against the baselines; did this commit move or worsen any?

Runs the parts in `validation.gate` and reports. Same answers on every machine, to the digits that baselines hold.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from validation.gate.outcome import Current

PARTS = ("scenarios", "runs", "kernels", "claims")
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("regress")
@click.option("--update", is_flag=True, help="Write the baselines anew; laws are checked all the same.")
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="This part only. Repeatable.")
@click.option("--baselines", type=click.Path(file_okay=False, path_type=Path), help="Default: validation/baselines.")
@click.option(
    "--set", "scenarios", type=FILE, help="Another set of scenarios. Default: validation/gate/scenarios.yaml."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object with everything.")
@click.option("--markdown", type=FILE, help="A summary, such as $GITHUB_STEP_SUMMARY; added to a file that exists.")
@click.option("--junit", type=FILE, help="JUnit XML for a CI server.")
def command(
    update: bool,
    only: tuple[str, ...],
    baselines: Path | None,
    scenarios: Path | None,
    as_json: bool,
    markdown: Path | None,
    junit: Path | None,
) -> None:
    """Predictions, accuracy and laws against the baselines; exit code 1 when something fails.

    \b
    ridgeline regress
    ridgeline regress --update
    ridgeline regress --markdown summary.md --junit results.xml
    """
    from simulator.errors import SimulatorError
    from simulator.views.records import to_json
    from validation.gate import outcome, report, store

    folder = baselines or store.FOLDER
    if not update:
        outcome.require(folder)
    current = compute(only or PARTS, scenarios)
    if update:
        try:
            before = outcome.compare(current, folder)
        except SimulatorError:
            before = None  # None yet, or broken by a merge: they are written anew.
        outcome.update(current, folder, whole=not only)
    found = outcome.compare(current, folder)
    if update:
        found.updated = True
        if before is not None:
            found.moved, found.shifts = before.moved, before.shifts
    for path, content in ((markdown, report.markdown), (junit, report.junit)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a" if content is report.markdown else "w", encoding="utf-8") as stream:
                stream.write(content(found))
    click.echo(to_json(report.record(found)) if as_json else report.text(found))
    if not found.passed:
        sys.exit(1)


def compute(parts: Sequence[str] = PARTS, scenarios: Path | None = None) -> Current:
    """Everything that baselines hold, as this tree has it. Raises SpecError for a set that is not one."""
    from simulator import catalog
    from validation.gate import accuracy, answers
    from validation.gate.outcome import RUNS, Current, rounded
    from validation.gate.scenarios import SET, items

    found = Current(missing=tuple(what for part, what in accuracy.missing() if part in parts))
    absent = {part for part, _ in accuracy.missing()}
    with catalog.unchanged():
        if "scenarios" in parts:
            listed = items(scenarios or SET)
            with _timed(f"{len(listed)} scenarios"):
                answered = answers.answer(listed)
            found.broken = answered.broken
            found.predictions |= {group: rounded(rows) for group, rows in answered.rows.items()}
        if "runs" in parts and "runs" not in absent:
            with _timed("measured runs"):
                runs = accuracy.run_rows()
            found.predictions[RUNS] = rounded(accuracy.sample(runs))
            found.accuracy["runs"] = rounded(accuracy.of_runs(runs))
        if "kernels" in parts and "kernels" not in absent:
            with _timed("measured kernels"):
                found.accuracy["kernels"] = rounded(accuracy.of_kernels(accuracy.kernel_rows()))
        if "claims" in parts:
            with _timed("claims"):
                found.accuracy["claims"] = rounded(accuracy.of_claims(accuracy.claims()))
    return found


@contextmanager
def _timed(what: str, clock: Callable[[], float] = time.perf_counter) -> Iterator[None]:
    """Says on stderr what is computed, and how long it took: not part of any result."""
    click.echo(f"{what} ...", err=True, nl=False)
    start = clock()
    yield
    click.echo(f" {clock() - start:.1f} s", err=True)
