"""The papers and their state: which run as technique files, which claims of theirs are checked, and what came of it.

The list itself is `workloads/papers.csv`: id, title, family, scope and the number of claims with a value in the abstract.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from simulator import catalog
from simulator.cli.list import paper_list, techniques
from simulator.errors import UnknownNameError
from validation.verdicts import VERDICTS, Row, evaluate


@dataclass(frozen=True, slots=True)
class Paper:
    """One paper of the list."""

    id: str
    title: str
    family: str
    scope: str
    """core, adjacent (a workload without a mechanism of execution), or out."""
    claims: int
    techniques: tuple[str, ...]
    about: str
    """What its technique does, in a line; empty without one."""
    verdicts: Mapping[str, int] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """checked, runs, silent, not modelled, or out of scope.

        checked: a claim has a verdict; runs: there is a technique file, and no claim with a number that it could check.
        """
        checked = sum(count for verdict, count in self.verdicts.items() if verdict != "silent")
        if checked:
            return "checked"
        if self.techniques:
            return "runs"
        if self.verdicts:
            return "silent"
        return "out of scope" if self.scope == "out" else "not modelled"


def papers(rows: Iterable[Row] | None = None) -> list[Paper]:
    """All papers; with the verdicts of `rows`, where given."""
    by_paper: dict[str, list[dict[str, object]]] = {}
    for technique in techniques():
        if technique["paper"]:
            by_paper.setdefault(technique["paper"], []).append(technique)
    counts: dict[str, Counter[str]] = {}
    for row in rows or ():
        counts.setdefault(row.paper, Counter())[row.verdict] += 1
    found = []
    for record in paper_list():
        own = sorted(by_paper.get(record["id"], []), key=lambda item: item["name"] != record["id"])
        found.append(
            Paper(
                record["id"], record["title"], record["family"], record["scope"], int(record["claims"]),
                tuple(str(item["name"]) for item in own), str(own[0]["title"]) if own else "",
                counts.get(record["id"], Counter()),
            )
        )  # fmt: skip
    return found


def find(paper: str) -> Paper:
    """A paper by id. Raises UnknownNameError."""
    for known in papers():
        if catalog.normal(known.id) == catalog.normal(paper):
            return known
    raise UnknownNameError("paper", paper, [known.id for known in papers()])


def page() -> str:
    """`docs/papers.md`: counts, and the table by family."""
    rows = evaluate()
    listed = papers(rows)
    verdicts = Counter(row.verdict for row in rows)
    stated = [row for row in rows if row.stated and row.verdict != "silent"]
    hit = sum(row.verdict == "predicted" for row in stated)
    states = Counter(paper.state for paper in listed)
    parts = [
        "# Papers\n",
        "<!-- Written by docs/generate.py (`make docs`) from workloads/papers.csv, workloads/techniques and "
        "validation/claims. -->\n",
        f"{len(listed)} papers are listed; {sum(bool(paper.techniques) for paper in listed)} run as technique files. "
        f"Of {len(rows)} claims with a number in the abstract, "
        + ", ".join(f"{verdicts[name]} are {name}" for name in VERDICTS)
        + f". Of the {len(stated)} checked ones whose abstract names hardware or conditions, {hit} are predicted "
        f"({hit / max(1, len(stated)):.0%}).\n",
        "`ridgeline paper ID` shows the scenarios behind a line, with the reason for every assumed value; "
        "[background/techniques.md](background/techniques.md) says what the verdicts mean.\n",
        "| state | papers |\n|---|---|",
        *(f"| {state} | {count} |" for state, count in states.most_common()),
        "",
    ]
    for family in sorted({paper.family for paper in listed if paper.scope != "out"}):
        parts.append(f"## {family.replace('-', ' ')}\n")
        parts.append("| paper | what runs | state | verdicts |\n|---|---|---|---|")
        for paper in listed:
            if paper.family == family and paper.scope != "out":
                counted = ", ".join(f"{paper.verdicts[name]} {name}" for name in VERDICTS if paper.verdicts.get(name))
                title = paper.title.replace("|", "\\|")
                parts.append(f"| `{paper.id}`: {title} | {paper.about} | {paper.state} | {counted} |")
        parts.append("")
    parts.append("## What is missed\n")
    parts.append("| claim | claimed | predicted | why |\n|---|---|---|---|")
    parts.extend(
        f"| `{row.claim}` {row.metric} | {row.claimed:.4g} | {row.predicted:.4g} | {row.note or ''} |"
        for row in rows
        if row.verdict == "missed"
    )
    return "\n".join(parts) + "\n"
