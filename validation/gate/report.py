"""A gate's outcome as Markdown for a job summary, text, JUnit XML and JSON: four renderings of one list of tables."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

from validation.gate.changes import FLOOR, MOVED, WORSE, Move, Shift, percent
from validation.gate.laws import LAWS
from validation.gate.outcome import Outcome
from validation.gate.store import shown

MOST = 40
"""Lines of a table for people; the JSON has all."""
Table = tuple[str, Sequence[str], list[Sequence[str]]]
"""Title, head, rows."""


def headline(found: Outcome) -> str:
    """The verdict in a sentence, every reason of a failure counted."""
    reasons = []
    if found.broken:
        reasons.append(f"{len(found.broken)} times a law is broken")
    if found.worse:
        reasons.append(f"{len(found.worse)} groups are less accurate by more than {WORSE:.0%}")
    if found.stale:
        reasons.append(f"{len(found.moved)} predicted values moved and the baselines were not updated")
    if not reasons:
        return (
            f"{'Baselines written' if found.updated else 'Nothing moved'}: {found.scenarios} scenarios, all laws hold."
        )
    return "; ".join(reasons)[0].upper() + "; ".join(reasons)[1:] + "."


def notes(found: Outcome) -> list[str]:
    """What was not checked, and what to do next."""
    lines = [f"Not checked: {what}: the tables are not part of this installation." for what in found.missing]
    if found.missing:
        lines.append("A clone of the repository has the measured tables in validation/measured/.")
    if found.stale:
        lines.append(
            "If the change is meant: `ridgeline regress --update`, and say in the commit why predictions move."
        )
    return lines


def tables(found: Outcome) -> Iterator[Table]:
    """Everything that changed, the worst first."""
    if found.broken:
        yield "Broken laws", ("law", "scenario", "found"), [(b.law, b.scenario, b.text) for b in found.broken]
    head = ("table", "group", "n", "median before", "after", "mean before", "after")
    worse = sorted(found.worse, key=_growth, reverse=True)
    if worse:
        yield "Less accurate", head, [_shift(shift) for shift in worse]
    if found.moved:
        yield "Moved predictions by group", ("group", "values", "of", "median change", "largest"), _by_group(found)
        listed = sorted(found.moved, key=lambda move: (-move.size, move.group, move.scenario, move.quantity))
        columns = ("group", "scenario", "quantity", "before", "after", "change", "measured")
        yield "Moved predictions", columns, [_move(move) for move in listed]
    other = [shift for shift in found.shifts if shift.moved and not shift.worse]
    if other:
        yield "Accuracy that changed otherwise", head, [_shift(shift) for shift in sorted(other, key=_growth)]


def markdown(found: Outcome) -> str:
    """For a job summary."""
    lines = [f"## Ridgeline regress: {'passed' if found.passed else 'failed'}", "", headline(found), ""]
    lines += [f"{note}\n" for note in notes(found)]
    for title, head, rows in tables(found):
        lines += [f"### {title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows[:MOST]]
        if len(rows) > MOST:
            lines.append(f"\n... and {len(rows) - MOST} more")
        lines.append("")
    lines.append(_rules())
    return "\n".join(lines) + "\n"


def text(found: Outcome) -> str:
    """For a terminal."""
    blocks = [headline(found), *notes(found)]
    for title, head, rows in tables(found):
        shown_rows = [tuple(head), *(tuple(row) for row in rows[:MOST])]
        widths = [min(64, max(len(row[i]) for row in shown_rows)) for i in range(len(head))]
        body = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown_rows
        ]
        more = [f"... and {len(rows) - MOST} more; --json has them all"] if len(rows) > MOST else []
        blocks.append("\n".join([f"\n{title}", *body, *more]))
    return "\n".join(blocks)


def record(found: Outcome) -> dict[str, Any]:
    """The JSON form."""
    return {
        "passed": found.passed,
        "updated": found.updated,
        "scenarios": found.scenarios,
        "missing": list(found.missing),
        "laws": [{"law": law, "broken": sum(b.law == law for b in found.broken)} for law in LAWS],
        "broken": [{"law": b.law, "scenario": b.scenario, "text": b.text} for b in found.broken],
        "moved": [
            {
                "group": move.group, "scenario": move.scenario, "quantity": move.quantity, "before": move.before,
                "after": move.after, "change": move.change, "measured": move.measured,
            }
            for move in found.moved
        ],
        "accuracy": [
            {
                "table": shift.table, "group": shift.group, "before": dict(shift.before), "after": dict(shift.after),
                "moved": shift.moved, "worse": list(shift.worse),
            }
            for shift in found.shifts
        ],
        "rules": {"moved": MOVED, "worse": WORSE, "floor": FLOOR},
    }  # fmt: skip


def junit(found: Outcome) -> str:
    """A suite per kind of check: a case per law, per group of accuracy and per scenario."""
    root = ElementTree.Element("testsuites", name="ridgeline regress")
    cases: dict[str, list[tuple[str, str]]] = {"laws": [], "accuracy": [], "predictions": []}
    for law in LAWS:
        cases["laws"].append((law, "\n".join(f"{b.scenario}: {b.text}" for b in found.broken if b.law == law)))
    for shift in found.shifts:
        text = ", ".join(
            f"{name} {percent(shift.before[name])} -> {percent(shift.after[name])}" for name in shift.worse
        )
        cases["accuracy"].append((f"{shift.table}: {shift.group}", text))
    by_scenario: dict[tuple[str, str], list[Move]] = defaultdict(list)
    for move in found.moved:
        by_scenario[move.group, move.scenario].append(move)
    for group, names in found.asked.items():
        for name in names:
            lines = [f"{m.quantity}: {shown(m.before)} -> {shown(m.after)}" for m in by_scenario.pop((group, name), ())]
            cases["predictions"].append((f"{group}: {name}", "\n".join(lines) if found.stale else ""))
    for (group, name), gone in by_scenario.items():
        cases["predictions"].append((f"{group}: {name}", "gone" if gone and found.stale else ""))
    for suite, listed in cases.items():
        failures = sum(bool(text) for _, text in listed)
        node = ElementTree.SubElement(root, "testsuite", name=suite, tests=str(len(listed)), failures=str(failures))
        for name, text in listed:
            case = ElementTree.SubElement(node, "testcase", classname=f"ridgeline.{suite}", name=name)
            if text:
                ElementTree.SubElement(case, "failure", message=text.splitlines()[0]).text = text
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _move(move: Move) -> tuple[str, ...]:
    change = move.change
    return (
        move.group, move.scenario, move.quantity, shown(move.before), shown(move.after),
        f"{change:+.2%}" if change is not None else "", shown(move.measured),
    )  # fmt: skip


def _shift(shift: Shift) -> tuple[str, ...]:
    count = shift.after.get("n", shift.before.get("n"))
    numbers = (percent(side.get(name)) for name in ("median_ape", "mape") for side in (shift.before, shift.after))
    return (shift.table, shift.group, shown(count), *numbers)


def _growth(shift: Shift) -> float:
    """By how much the errors grew."""
    pairs = ((shift.before.get(name), shift.after.get(name)) for name in ("median_ape", "mape"))
    return max((b - a for a, b in pairs if isinstance(a, float) and isinstance(b, float)), default=0.0)


def _by_group(found: Outcome) -> list[Sequence[str]]:
    by: dict[str, list[Move]] = defaultdict(list)
    for move in found.moved:
        by[move.group].append(move)
    rows: list[Sequence[str]] = []
    for group in sorted(by):
        changes = [move.change for move in by[group] if move.change is not None]
        middle = f"{statistics.median(changes):+.2%}" if changes else ""
        largest = f"{max(changes, key=abs):+.2%}" if changes else ""
        rows.append((group, str(len(by[group])), str(found.values.get(group, 0)), middle, largest))
    return rows


def _rules() -> str:
    return (
        f"A prediction has moved when it differs by more than {MOVED:g} of itself; a group is less accurate when its median "
        f"or mean absolute error grows by more than {WORSE:.0%} of itself and {FLOOR * 100:g} percentage points."
    )
