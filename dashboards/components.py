"""Answers as HTML: cards, figures, tables, notices, and the exports of each block."""

from __future__ import annotations

import shlex
from typing import Any

from dash import dcc, html

from dashboards.answer import Answer, Block, Change, Page, Value
from simulator.views.document import Paragraph, Section, Table


def attributes(**named: str | int) -> dict[str, Any]:
    """HTML attributes whose names have hyphens.

    >>> attributes(aria_label="Pages")
    {'aria-label': 'Pages'}
    """
    return {name.replace("_", "-"): value for name, value in named.items()}


_WORDS = {"better": "better", "worse": "worse", "same": "", "other": ""}
LONG = 44
"""Characters from which a cell may run over several lines."""


def results(answer: Answer, page: Page, address: str) -> list[Any]:
    """Everything under the controls; `address` is the query of the state shown."""
    parts: list[Any] = [notice(text) for text in answer.notices]
    if answer.problem:
        lines = answer.problem.splitlines()
        parts.append(
            html.Div(
                [html.H2("This cannot be shown", className="problem-title"), *(html.P(line) for line in lines),
                 html.P("Change a control, and the page follows.", className="quiet")],
                className="problem", role="alert",
            )
        )  # fmt: skip
        return parts
    if answer.heading:
        parts.append(html.Div([html.H2(answer.heading), html.P(answer.line)], className="subject"))
    parts += [block_section(block, page, address) for block in answer.blocks]
    return parts


def notice(text: str) -> Any:
    """A sentence that stands above everything else."""
    return html.Div(text, className="notice", role="status")


def block_section(block: Block, page: Page, address: str) -> Any:
    """One block with its exports."""
    body: list[Any] = []
    if block.note:
        body.append(html.P(block.note, className="note"))
    if block.empty:
        body.append(html.P(block.empty, className="empty"))
    if block.values:
        body.append(html.Div([card(value) for value in block.values], className="cards"))
    if block.figure is not None:
        body.append(figure(block))
    body += [part(item) for item in block.report]
    head = html.Div(
        [html.H3(block.title, id=f"title-{block.id}"), exports(block, page, address)], className="block-head"
    )
    if block.folded:
        inner: list[Any] = [html.Details([html.Summary("Show the table"), *body])]
    else:
        inner = body
    labelled = attributes(aria_labelledby=f"title-{block.id}")
    return html.Section([head, *inner], className="block", id=f"block-{block.id}", **labelled)


def exports(block: Block, page: Page, address: str) -> Any:
    """Links to the block's CSV and JSON, and the command that gives its numbers."""
    base = f"/data/{page.id}/{block.id}"
    items: list[Any] = []
    for form, known in (("csv", bool(block.records)), ("json", block.data is not None)):
        if known:
            label = attributes(aria_label=f"{block.title} as {form.upper()}")
            items.append(html.A(form.upper(), href=f"{base}.{form}?{address}", download=f"{block.id}.{form}", **label))
    if block.command:
        text = shlex.join(block.command)
        items.append(
            html.Details(
                [html.Summary("Command", **attributes(aria_label=f"Command for {block.title}")),
                 html.Div([html.Code(text, id=f"command-{block.id}"),
                           dcc.Clipboard(content=text, title="Copy", className="copy")], className="command")]
            )
        )  # fmt: skip
    return html.Div(items, className="exports")


def card(value: Value) -> Any:
    """A number with its interval and its change."""
    parts: list[Any] = [html.Div(value.label, className="card-label"), html.Div(value.text, className="card-value")]
    if value.change is not None:
        parts.append(changed(value.change))
    if value.between:
        parts += [_range(value), html.Div(value.between, className="card-between")]
    if value.note:
        parts.append(html.Div(value.note, className="card-note"))
    return html.Div(parts, className="card", **attributes(data_key=value.key))


def changed(change: Change) -> Any:
    """The change against the baseline, in words as well as in colour."""
    word = _WORDS[change.direction]
    return html.Div(
        [html.Span(change.text + (f", {word}" if word else ""), className="change-text"),
         html.Span(f"baseline {change.before}", className="change-before")],
        className=f"change change-{change.direction}",
    )  # fmt: skip


def _range(value: Value) -> Any:
    """The interval as a bar, the number as a dot, the baseline as a tick."""
    assert value.low is not None
    assert value.high is not None
    assert value.value is not None
    known = [value.low, value.high, value.value] + ([value.baseline] if value.baseline is not None else [])
    low, high = min(known), max(known)
    span = (high - low) or 1.0

    def at(number: float) -> str:
        return f"{4 + 92 * (number - low) / span:.1f}%"

    width = f"{92 * (value.high - value.low) / span:.1f}%"
    marks: list[Any] = [html.Span(className="range-bar", style={"left": at(value.low), "width": width})]
    if value.baseline is not None:
        marks.append(html.Span(className="range-tick", style={"left": at(value.baseline)}))
    marks.append(html.Span(className="range-dot", style={"left": at(value.value)}))
    return html.Div(marks, className="range", **attributes(aria_hidden="true"))


def figure(block: Block) -> Any:
    """A chart that fills its column, or scrolls sideways where it would be too narrow to read."""
    height = block.figure.layout.height or 420
    style: dict[str, Any] = {"height": f"{height}px"}
    if block.least_width:
        style["minWidth"] = f"{block.least_width}px"
    chart = dcc.Graph(
        id=f"figure-{block.id}", figure=block.figure, responsive=True, style=style,
        config={"displaylogo": False, "displayModeBar": False, "responsive": True, "scrollZoom": False},
    )  # fmt: skip
    label = attributes(aria_label=f"{block.title}. {block.describes}".strip())
    scrolls: dict[str, Any] = {"tabIndex": 0} if block.least_width else {}
    return html.Div(chart, className="figure", role="img" if not scrolls else "group", **label, **scrolls)


def part(item: Any) -> Any:
    """A section, table or paragraph of a report."""
    if isinstance(item, Paragraph):
        return html.P(item.text, className="said")
    if isinstance(item, Section):
        rows = [html.Tr([html.Th(a, scope="row"), html.Td(b, className="right"), html.Td(c)]) for a, b, c in item.rows]
        caption = [html.Caption(item.title)] if item.title else []
        return _scrolling(html.Table([*caption, html.Tbody(rows)], className="facts"), item.title)
    return table(item)


def table(item: Table) -> Any:
    """A table, text to the left and numbers to the right."""
    side = ["left" if name in item.left else "right" for name in item.columns]
    head = html.Tr([html.Th(name, scope="col", className=at) for name, at in zip(item.columns, side, strict=True)])
    body = []
    for row in item.rows:
        cells: list[Any] = []
        for position, (text, at) in enumerate(zip(row, side, strict=True)):
            kind = html.Th if position == 0 else html.Td
            extra: dict[str, Any] = {"scope": "row"} if position == 0 else {}
            cells.append(kind(_cell(text), className=at if len(text) < LONG else f"{at} wide", **extra))
        body.append(html.Tr(cells))
    caption = [html.Caption(item.title)] if item.title else []
    return _scrolling(html.Table([*caption, html.Thead(head), html.Tbody(body)], className="grid"), item.title)


def _cell(text: str) -> Any:
    if text in VERDICTS:
        return html.Span(f"{VERDICTS[text]} {text}", className=f"badge badge-{text}")
    return text


VERDICTS = {"predicted": "✓", "bounded": "≈", "fitted": "○", "missed": "✗", "silent": "–"}
"""A sign for each verdict, beside its word and colour."""


def _scrolling(inner: Any, title: str) -> Any:
    label = attributes(aria_label=title or "table")
    return html.Div(inner, className="scroll", tabIndex=0, role="region", **label)
