"""What a person is told of a prediction: one list of sections that is printed in a terminal or shown as HTML.

Knows which numbers matter and in which units; layout is `simulator.views.document`'s, the numbers are the prediction's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simulator.result import OpCost, Prediction
from simulator.scenario import capped, load_model, power_cap_w, prepared
from simulator.units import in_engineering
from simulator.views.document import Block, Paragraph, Section, Table, as_html, as_text, table_text

_FOUNDED = {
    "in-grid": "this device and engine were measured, at sizes on both sides of these",
    "extrapolated": "this device was measured, but not so",
    "transferred": "efficiencies of other devices; nothing measured on this one is in them",
    "datasheet": "datasheet rates and assumed efficiencies of its class",
}
_COMPARED = (
    ("TTFT", "ttft_s", "s"),
    ("TPOT", "tpot_s", "s"),
    ("E2EL", "e2el_s", "s"),
    ("tokens/s", "output_tokens_per_s", ""),
    ("memory", "memory_bytes", "B"),
    ("fits", "fits", "?"),
    ("J/token", "energy_j_per_output_token", "J"),
    ("power", "power_w", "W"),
    ("USD/M tokens", "usd_per_million_output_tokens", "$"),
)


def prediction_text(prediction: Prediction) -> str:
    """The prediction for a terminal."""
    return as_text(prediction_heading(prediction), prediction_blocks(prediction))


def prediction_html(prediction: Prediction) -> str:
    """The prediction for a notebook."""
    return as_html(prediction_heading(prediction), prediction_blocks(prediction))


def prediction_blocks(prediction: Prediction) -> list[Block]:
    """Time, memory, energy, cost, and how sure it is."""
    blocks: list[Block] = [_time(prediction), _memory(prediction), _energy(prediction)]
    if prediction.advice:
        blocks.insert(2, Paragraph(f"It does not fit: {prediction.advice}."))
    blocks += [_cost(prediction), confidence(prediction)]
    return blocks


def explain_text(prediction: Prediction) -> str:
    """Every op with the terms of its time, and what would help most."""
    from simulator.explain import what_helps

    ops = prediction.ops()
    blocks: list[Block] = []
    for phase, title in (("prefill", "Prefill step"), ("decode", "Decode step, in the middle of the generation")):
        chosen = [op for op in ops if op.phase == phase]
        if chosen:
            blocks.append(ops_table(chosen, title, prediction.tpot_s))
    blocks.append(Paragraph(what_helps(prediction)))
    return as_text([], blocks)


def op_terms(op: OpCost) -> str:
    """The terms of an op's time: the largest of those that overlap, what is lost against full rates, the launch.

    The memory terms are at the full bandwidth, so that `losses` is what efficiency, imperfect overlap and the power
    limit cost.
    """
    overlapping = {"compute": op.compute_s, **op.memory_s, "cache": op.cache_s, "link": op.link_s}
    shown = {name: seconds for name, seconds in overlapping.items() if seconds >= 0.005 * op.time_s}
    largest = max(overlapping.values())
    losses = op.time_s - largest - op.launch_s
    inside = ", ".join(f"{name} {duration(seconds)}" for name, seconds in shown.items())
    text = f"max({inside})" if len(shown) > 1 else (inside or "nothing to move")
    if losses > 0.005 * op.time_s:
        text += f" + losses {duration(losses)}"
    if op.launch_s > 0:
        text += f" + launch {duration(op.launch_s)}"
    kind, _, where = op.bound.partition(" ")
    return f"{text} = {duration(op.time_s)} ({kind}: {where})" if where else f"{text} = {duration(op.time_s)} ({kind})"


def compare_table(records: Sequence[Mapping[str, Any]]) -> str:
    """A row per prediction record (`simulator.views.records.prediction_record`), for a terminal."""
    return table_text(comparison(records))


def comparison(records: Sequence[Mapping[str, Any]]) -> Table:
    """The table behind `compare_table`; names that all rows share are left out; an error stands in its row."""
    names = [
        name
        for name in ("model", "hardware", "engine", "techniques", "devices", "batch")
        if name == "hardware" or len({record.get(name) for record in records}) > 1
    ]
    if "engine" not in names:
        names.insert(names.index("hardware") + 1, "engine")
    rows = []
    for record in records:
        head = [str(record.get(name, "") or "") for name in names]
        if record.get("problem"):
            rows.append((*head, *("" for _ in _COMPARED), str(record["problem"]).splitlines()[0]))
        else:
            rows.append((*head, *(_cell(record[key], unit) for _, key, unit in _COMPARED), str(record["bound"])))
    columns = (*names, *(label for label, _, _ in _COMPARED), "bound by")
    return Table(columns, tuple(rows), frozenset({*names, "fits", "bound by"}))


def duration(seconds: float) -> str:
    """Seconds for people; above ten minutes in hours or minutes.

    >>> duration(0.0127), duration(7200.0)
    ('12.7 ms', '2.0 h')
    """
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 600 else in_engineering(seconds, "s")


def axis_unit(seconds: float) -> tuple[float, str]:
    """For an axis of so many seconds: what they are multiplied by, and the unit that they then have.

    >>> axis_unit(0.25), axis_unit(4e-5)
    ((1000.0, 'ms'), (1000000.0, 'us'))
    """
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1.0:
            return factor, unit
    return 1e9, "ns"


def plain(value: float) -> str:
    """A number of things, to three digits.

    >>> plain(0.5676), plain(148.66), plain(31234.5)
    ('0.568', '149', '31,234')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def money(value: float | None) -> str:
    """Dollars, or that the price is not known.

    >>> money(0.2388), money(12.5), money(None)
    ('0.239', '12.50', 'unknown')
    """
    if value is None:
        return "unknown"
    return f"{value:,.2f}" if value >= 1 else f"{value:.3g}"


def counts_tokens(prediction: Prediction) -> bool:
    """Whether the size of the work is a number of tokens; otherwise it is a number of samples."""
    model = load_model(prediction.scenario.model)
    return model.decode or (model.architecture is not None and model.architecture.fixed_tokens is None)


def scenario_line(prediction: Prediction) -> str:
    """The shape of the work and the division among devices, in words."""
    scenario, provenance = prediction.scenario, prediction.provenance
    words = [f"batch {scenario.batch}"]
    if load_model(scenario.model).decode:
        words.append(f"{scenario.input_tokens} tokens in, {scenario.output_tokens} out")
    elif counts_tokens(prediction):
        words.append(f"{scenario.input_tokens} tokens")
    if scenario.images:
        words.append(f"{scenario.images} images each")
    if prediction.devices > 1:
        degrees = [f"{axis} {provenance[axis]}" for axis in ("tp", "pp", "ep", "dp") if provenance[axis] > 1]
        words.append(f"{prediction.devices} devices ({', '.join(degrees)})")
    for label, dtype in (
        ("weights", scenario.weight_dtype),
        ("cache", scenario.kv_dtype),
        ("arithmetic", scenario.activation_dtype),
    ):
        if dtype:
            words.append(f"{dtype} {label}")
    words += [f"technique {name}" for name in scenario.techniques]
    words += [f"{role} in {memory}" for role, memory in scenario.place]
    return ", ".join(words)


def prediction_heading(prediction: Prediction) -> tuple[str, str]:
    """What is predicted on what, and the shape of the work."""
    from simulator.mapping.machine import load_machine

    title = load_machine(prediction.scenario.hardware).title
    names = prediction.provenance
    return f"{names['model']} on {title} ({names['hardware']}), engine {names['engine']}", scenario_line(prediction)


def _time(prediction: Prediction) -> Section:
    between = prediction.interval
    rows = [
        ("first token (TTFT)", duration(prediction.ttft_s), bounds_text(between.get("ttft_s"), "s")),
        ("each further token (TPOT)", duration(prediction.tpot_s), bounds_text(between.get("tpot_s"), "s")),
        ("whole batch (E2EL)", duration(prediction.e2el_s), bounds_text(between.get("e2el_s"), "s")),
        ("output tokens/s", plain(prediction.output_tokens_per_s), bounds_text(between.get("output_tokens_per_s"), "")),
        (
            "with input tokens/s",
            plain(prediction.total_tokens_per_s),
            bounds_text(between.get("total_tokens_per_s"), ""),
        ),
        ("bound by", prediction.bound, ""),
    ]
    if not load_model(prediction.scenario.model).decode:
        passes = plain(prediction.output_tokens_per_s), bounds_text(between.get("output_tokens_per_s"), "")
        rows = [("one pass", *rows[0][1:]), ("samples/s", *passes), rows[-1]]
    elif prediction.tpot_s == 0:
        del rows[1]
    if prediction.turns > 1:
        rows.append(("turns", str(prediction.turns), "the caches of the whole batch do not fit at once"))
    return Section("Time (with 90% intervals)", tuple(rows))


def _memory(prediction: Prediction) -> Section:
    rows = [(role, in_engineering(size, "B"), "") for role, size in prediction.memory_by_role_bytes.items()]
    share = prediction.memory_bytes / prediction.capacity_bytes if prediction.capacity_bytes else float("inf")
    verdict = "fits" if prediction.fits else "DOES NOT FIT"
    usable = f"{share:.0%} of {in_engineering(prediction.capacity_bytes, 'B')} usable: {verdict}"
    rows.append(("all", in_engineering(prediction.memory_bytes, "B"), usable))
    return Section("Memory", tuple(rows))


def _energy(prediction: Prediction) -> Section:
    from simulator.mapping.machine import load_machine

    between = prediction.interval.get("energy_j_per_output_token")
    cap_w = power_cap_w(prediction.scenario, prepared(prediction.scenario))
    machine = capped(load_machine(prediction.scenario.hardware), cap_w)
    tdp_w = machine.tdp_w * prediction.devices
    limit = f"{prediction.power_w / tdp_w:.0%} of the {in_engineering(tdp_w, 'W')} limit" if tdp_w else ""
    drawn = bounds_text(prediction.interval.get("power_w"), "W")
    sample = "output token" if load_model(prediction.scenario.model).decode else "sample"
    rows = [
        (f"per {sample}", in_engineering(prediction.energy_j_per_output_token, "J"), bounds_text(between, "J")),
        ("prefill of the batch", in_engineering(prediction.prefill_energy_j, "J"), ""),
        ("average power", in_engineering(prediction.power_w, "W"), "; ".join(part for part in (drawn, limit) if part)),
    ]
    if sample == "sample":
        del rows[1]
    parts = {name: joules for name, joules in prediction.energy_by_component_j.items() if joules > 0}
    total = sum(parts.values()) or 1.0
    rows += [
        (f"  {name}", in_engineering(joules, "J"), f"{joules / total:.0%} of the run")
        for name, joules in sorted(parts.items(), key=lambda item: -item[1])
    ]
    return Section("Energy", tuple(rows))


def _cost(prediction: Prediction) -> Section:
    price = prediction.provenance.get("price") or "no price of this hardware is known"
    value = money(prediction.usd_per_million_output_tokens)
    things = "output tokens" if load_model(prediction.scenario.model).decode else "samples"
    return Section("Cost", ((f"USD per million {things}", value, price),))


def confidence(prediction: Prediction) -> Section:
    """What the prediction rests on."""
    provenance = prediction.provenance
    rows = [(f"calibration {provenance['calibration']}", provenance["tag"], _FOUNDED.get(provenance["tag"], ""))]
    rows += [("outside the measured range", "", reason) for reason in provenance.get("outside", ())]
    assumed: Sequence[str] = provenance.get("assumed", ())
    if assumed:
        rows.append(("assumed numbers", str(len(assumed)), assumed_kinds(assumed)))
    return Section("How sure", tuple(rows))


def assumed_kinds(places: Sequence[str]) -> str:
    """The groups that the assumed numbers belong to, the numbers themselves being in the JSON form."""
    groups: dict[str, int] = {}
    for place in places:
        steps = place.partition(": ")[2].split(".")
        kept = steps[-2:] if len(steps) > 2 and steps[0] == "compute" and "energy" in steps else [steps[0], steps[-1]]
        name = "energy" if "energy" in kept else " ".join(dict.fromkeys(kept))
        groups[name] = groups.get(name, 0) + 1
    ordered = sorted(groups, key=lambda name: -groups[name])
    more = f" and {len(ordered) - 5} more kinds" if len(ordered) > 5 else ""
    return ", ".join(ordered[:5]) + more


def ops_table(ops: Sequence[OpCost], title: str, step_s: float = 0.0) -> Table:
    """Ops with all their terms, longest first; `step_s` is a decode step's whole time, with what the device waits for."""
    total = sum(op.time_s for op in ops)
    rows = []
    for op in sorted(ops, key=lambda op: -op.time_s):
        intensity = f"{op.flops / op.bytes:.3g}" if op.bytes else "-"
        rows.append(
            (
                op.op,
                f"{op.share:.1%}",
                op.unit,
                op_terms(op),
                in_engineering(op.flops, "FLOP"),
                in_engineering(op.bytes, "B"),
                intensity,
            )
        )
    note = f"{title}: {duration(total)} on the device"
    if ops[0].phase == "decode" and step_s > 1.005 * total:
        note += f", {duration(step_s - total)} more of waiting for the host and other stages"
    columns = ("op", "share", "unit", "time, all repeats", "work", "memory", "FLOP/B")
    return Table(columns, tuple(rows), frozenset({"op", "unit", "time, all repeats"}), title=note)


def bounds_text(bounds: tuple[float, float] | None, unit: str) -> str:
    """Both ends of an interval; empty without one."""
    if bounds is None:
        return ""
    low, high = ((duration(b) if unit == "s" else in_engineering(b, unit) if unit else plain(b)) for b in bounds)
    return f"{low} to {high}"


def _cell(value: Any, unit: str) -> str:
    if unit == "?":
        return "yes" if value else "NO"
    if unit == "$":
        return money(value)
    if unit == "s":
        return duration(value)
    return in_engineering(value, unit) if unit else plain(value)
