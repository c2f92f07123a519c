"""A report as data: sections of labelled values and tables, rendered as text for a terminal or as HTML.

The only place that knows about column widths and tags. What is said is decided by `simulator.views.text`.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and rows of (label, value, note)."""

    title: str
    rows: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text cells; columns named in `left` are aligned left, the others right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: frozenset[str] = field(default=frozenset())
    title: str = ""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A sentence."""

    text: str


Block = Section | Table | Paragraph


def as_text(heading: Sequence[str], blocks: Sequence[Block]) -> str:
    """The report for a terminal, without a newline at its end.

    >>> print(as_text(["Example"], [Section("Time", (("first token", "12 ms", "10 to 15 ms"),))]))
    Example
    <BLANKLINE>
    Time
      first token  12 ms  10 to 15 ms
    """
    widths = _section_widths(blocks)
    parts = ["\n".join(heading)] if heading else []
    for block in blocks:
        if isinstance(block, Section):
            lines = [block.title]
            lines += [f"  {a:<{widths[0]}}  {b:>{widths[1]}}  {c}".rstrip() for a, b, c in block.rows]
            parts.append("\n".join(lines))
        elif isinstance(block, Table):
            parts.append(table_text(block))
        else:
            parts.append(block.text)
    return "\n\n".join(parts)


def table_text(table: Table) -> str:
    """A table for a terminal.

    >>> print(table_text(Table(("op", "time"), (("qkv", "4 us"), ("o", "12 us")), frozenset({"op"}))))
    op    time
    qkv   4 us
    o    12 us
    """
    grid = [table.columns, *table.rows]
    widths = [max(len(row[i]) for row in grid) for i in range(len(table.columns))]
    lines = [table.title] if table.title else []
    for row in grid:
        cells = [
            f"{cell:<{width}}" if name in table.left else f"{cell:>{width}}"
            for cell, width, name in zip(row, widths, table.columns, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def as_html(heading: Sequence[str], blocks: Sequence[Block]) -> str:
    """The same report for a notebook."""
    parts = [f"<strong>{html.escape(heading[0])}</strong>"] if heading else []
    parts += [f"<div>{html.escape(line)}</div>" for line in heading[1:]]
    for block in blocks:
        if isinstance(block, Section):
            parts.append(f"<div style='margin-top:.6em'><em>{html.escape(block.title)}</em></div>")
            rows = "".join(
                f"<tr><td style='text-align:left'>{html.escape(a)}</td>"
                f"<td style='text-align:right'>{html.escape(b)}</td>"
                f"<td style='text-align:left'>{html.escape(c)}</td></tr>"
                for a, b, c in block.rows
            )
            parts.append(f"<table>{rows}</table>")
        elif isinstance(block, Table):
            parts.append(table_html(block))
        else:
            parts.append(f"<p>{html.escape(block.text)}</p>")
    return "<div>" + "".join(parts) + "</div>"


def table_html(table: Table) -> str:
    """The same table for a notebook."""
    align = ["left" if name in table.left else "right" for name in table.columns]
    head = "".join(
        f"<th style='text-align:{side}'>{html.escape(name)}</th>"
        for name, side in zip(table.columns, align, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td style='text-align:{side}'>{html.escape(cell)}</td>" for cell, side in zip(row, align, strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    caption = f"<caption style='text-align:left'>{html.escape(table.title)}</caption>" if table.title else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _section_widths(blocks: Sequence[Block]) -> tuple[int, int]:
    rows = [row for block in blocks if isinstance(block, Section) for row in block.rows]
    return max((len(row[0]) for row in rows), default=0), max((len(row[1]) for row in rows), default=0)
