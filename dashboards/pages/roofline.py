"""Roofline: the hierarchical roofline of a scenario's ops, and the same points as a table."""

from __future__ import annotations

from dataclasses import asdict

from dashboards.answer import Answer, Block, Page, Screen
from dashboards.scenarios import predicted, words
from dashboards.state import State
from simulator.result import Prediction
from simulator.units import in_engineering
from simulator.views.chart import undrawn_text
from simulator.views.document import Table
from simulator.views.labels import COLUMN, PHONE
from simulator.views.roofline import Point, points, ridge_points, roofline_figure, roofline_json, roofs
from simulator.views.text import duration, plain, prediction_heading


def answer(state: State, screen: Screen) -> Answer:
    """The page for a state."""
    prediction = predicted(state.work)
    heading, line = prediction_heading(prediction)
    command = ("ridgeline", "roofline", *words(state.work), "--out", "roofline.json")
    drawn = points(prediction)
    return Answer(heading, line, (_chart(prediction, drawn, command, screen), _points(drawn, command),
                                  _roofs(prediction, command)))  # fmt: skip


def _chart(prediction: Prediction, drawn: list[Point], command: tuple[str, ...], screen: Screen) -> Block:
    size = PHONE if screen.narrow else COLUMN
    missing = undrawn_text(prediction)
    note = "Each point is an op at the intensity of the level that binds it; its area is its share of the step, its "
    note += "distance from that roof is what efficiency costs. Point at one, or tap it, for its terms."
    if missing:
        note += f" {missing[0].upper()}{missing[1:]}."
    longest = max(drawn, key=lambda point: point.share, default=None)
    describes = "" if longest is None else (
        f"The op with the largest share is {longest.op} of the {longest.phase} step: {longest.share:.0%}, "
        f"bound by {longest.bound}"
    )  # fmt: skip
    return Block(
        "roofline", "Hierarchical roofline", command, roofline_json(prediction), [asdict(point) for point in drawn],
        note, figure=roofline_figure(prediction, size), describes=describes, least_width=size.width,
        empty="" if drawn else "Nothing here both computes and touches a memory.",
    )  # fmt: skip


def _points(drawn: list[Point], command: tuple[str, ...]) -> Block:
    rows = tuple(
        (
            point.op, point.phase, f"{point.share:.1%}", duration(point.time_s), point.bound, point.level,
            plain(point.flop_per_byte), in_engineering(point.flop_per_s, "FLOP/s"),
        )
        for point in sorted(drawn, key=lambda point: (point.phase != "decode", -point.share))
    )  # fmt: skip
    columns = ("op", "step", "share", "time", "bound by", "level", "FLOP/B", "rate")
    table = Table(columns, rows, frozenset({"op", "step", "bound by", "level"}))
    records = [asdict(point) for point in drawn]
    return Block("points", "The ops", command, {"points": records}, records, report=(table,))


def _roofs(prediction: Prediction, command: tuple[str, ...]) -> Block:
    found = roofs(prediction)
    ridges = {roof.name: ridge for roof, _, ridge in ridge_points(found)}
    rows = tuple(
        (
            roof.name, roof.kind, in_engineering(roof.per_s, "FLOP/s" if roof.kind == "compute" else "B/s"),
            plain(ridges[roof.name]) if roof.kind != "compute" and roof.name in ridges else "",
        )
        for roof in found
    )  # fmt: skip
    table = Table(("roof", "kind", "datasheet rate", "ridge point, FLOP/B"), rows, frozenset({"roof", "kind"}))
    records = [{**asdict(roof), "units": ", ".join(roof.units)} for roof in found]
    return Block(
        "roofs", "The roofs, per device", command, {"roofs": [asdict(r) for r in found]}, records, report=(table,)
    )


PAGE = Page(
    path="/roofline",
    name="Roofline",
    title="Roofline",
    lead="Which limit each op meets: a memory, a cache, a link or the arithmetic; and how far it stays below it.",
    controls=(
        ("Scenario", ("model", "hw", "engine", "tp")),
        ("Work", ("batch", "in", "out")),
        ("Changes", ("tech", "wdtype", "kvdtype", "adtype")),
    ),
    answer=answer,
    uploads=("model", "hardware"),
)
