"""What-if: one scenario's numbers with intervals, against a pinned baseline, and where its time, memory and energy go."""

from __future__ import annotations

from typing import Any

from dashboards.answer import Answer, Block, Page, Screen
from dashboards.numbers import values
from dashboards.pictures import bars
from dashboards.scenarios import baseline_of, predicted, words
from dashboards.state import State
from simulator.explain import what_helps
from simulator.result import Prediction
from simulator.units import in_engineering
from simulator.views.document import Paragraph, Section, Table
from simulator.views.records import op_record, prediction_record
from simulator.views.text import confidence, duration, ops_table, prediction_heading
from simulator.views.waterfall import TITLES, waterfall, waterfall_figure, waterfall_records


def answer(state: State, screen: Screen) -> Answer:
    """The page for a state."""
    prediction, baseline = predicted(state.work), baseline_of(state)
    heading, line = prediction_heading(prediction)
    blocks = [_numbers(state, prediction, baseline), _time(state, prediction, baseline, screen)]
    blocks += [_memory(state, prediction, baseline), _energy(state, prediction, baseline)]
    blocks += [_sure(state, prediction), _ops(state, prediction)]
    return Answer(heading, line, tuple(blocks))


def _asks(state: State, *more: str) -> tuple[str, ...]:
    return ("ridgeline", "predict", *words(state.work), *more, "--json")


def _numbers(state: State, prediction: Prediction, baseline: Prediction | None) -> Block:
    records = [{"scenario": "shown", **prediction_record(prediction)}]
    note = "Grey bars: 90% intervals."
    if baseline is not None:
        records.append({"scenario": "baseline", **prediction_record(baseline)})
        first, second = prediction_heading(baseline)
        note = f"Baseline: {first}, {second}. Grey bars: 90% intervals; black tick: the baseline."
    report: tuple[Paragraph, ...] = ()
    if prediction.advice:
        report = (Paragraph(f"It does not fit: {prediction.advice}. The times are as if there were room."),)
    elif prediction.turns > 1:
        report = (Paragraph(f"The caches of the whole batch do not fit at once; it runs in {prediction.turns} turns."),)
    return Block(
        "numbers", "Latency, memory, energy, cost", _asks(state), prediction.to_dict(), records, note,
        values=values(prediction, baseline), report=report,
    )  # fmt: skip


def _time(state: State, prediction: Prediction, baseline: Prediction | None, screen: Screen) -> Block:
    parts = waterfall(prediction)
    before = waterfall(baseline) if baseline is not None else []
    records = waterfall_records(parts)
    longest = {
        metric: max((part for part in parts if part.metric == metric), key=lambda part: part.seconds)
        for metric in dict.fromkeys(part.metric for part in parts)
    }
    said = "; ".join(
        f"{TITLES[metric]}: {part.share:.0%} is {part.name}, {duration(part.seconds)}"
        for metric, part in longest.items()
    )
    return Block(
        "waterfall", "Where the time goes", _asks(state, "--explain"), {"waterfall": records}, records,
        note=what_helps(prediction),
        figure=waterfall_figure(parts, before, narrow=screen.narrow), describes=said,
    )  # fmt: skip


def _memory(state: State, prediction: Prediction, baseline: Prediction | None) -> Block:
    roles = prediction.memory_by_role_bytes
    data = {key: getattr(prediction, key) for key in ("weight_bytes", "kv_bytes", "activation_bytes", "capacity_bytes")}
    rows = [("shown", roles)] + ([("baseline", baseline.memory_by_role_bytes)] if baseline is not None else [])
    limit = prediction.capacity_bytes
    figure = bars(rows, "B", limit, f"usable {in_engineering(limit, 'B')}")
    return Block(
        "memory", "Memory", _asks(state), data,
        [{"scenario": name, "role": role, "bytes": size} for name, held in rows for role, size in held.items()],
        figure=figure, describes=_list(roles, "B"),
    )  # fmt: skip


def _energy(state: State, prediction: Prediction, baseline: Prediction | None) -> Block:
    parts = {name: joules for name, joules in prediction.energy_by_component_j.items() if joules > 0.0}
    rows = [("shown", parts)]
    if baseline is not None:
        rows.append(("baseline", {name: j for name, j in baseline.energy_by_component_j.items() if j > 0.0}))
    return Block(
        "energy", "Energy of the whole run", _asks(state, "--explain"), {"energy_by_component_j": parts},
        [{"scenario": name, "component": part, "joules": j} for name, held in rows for part, j in held.items()],
        figure=bars(rows, "J"), describes=_list(parts, "J"),
    )  # fmt: skip


def _sure(state: State, prediction: Prediction) -> Block:
    provenance: dict[str, Any] = dict(prediction.provenance)
    records = [{"key": key, "value": value if isinstance(value, str | int | None) else str(value)}
               for key, value in provenance.items()]  # fmt: skip
    section = confidence(prediction)
    return Block("sure", "How sure", _asks(state), provenance, records, report=(Section("", section.rows),))


def _ops(state: State, prediction: Prediction) -> Block:
    ops = prediction.ops()
    records = [op_record(op) for op in ops]
    tables: list[Table] = []
    for phase, title in (("prefill", "Prefill step"), ("decode", "Decode step, in the middle of the generation")):
        chosen = [op for op in ops if op.phase == phase]
        if chosen:
            tables.append(ops_table(chosen, title, prediction.tpot_s))
    return Block(
        "ops", "Every op with the terms of its time", _asks(state, "--explain"), {"ops": records}, records,
        report=tuple(tables), folded=True,
    )  # fmt: skip


def _list(parts: dict[str, float], unit: str) -> str:
    return ", ".join(f"{name} {in_engineering(value, unit)}" for name, value in parts.items())


PAGE = Page(
    path="/",
    name="What-if",
    title="What if?",
    lead="What one model costs on one machine, and what a technique, a batch or another device would change.",
    controls=(
        ("Scenario", ("model", "hw", "engine", "tp")),
        ("Work", ("batch", "in", "out")),
        ("Changes", ("tech", "wdtype", "kvdtype", "adtype", "cap")),
    ),
    answer=answer,
    pins=True,
    uploads=("model", "hardware"),
)
