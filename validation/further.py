"""Further claims, from a file of JSON lines, on the scenarios of papers that are modelled already.

Such a claim names no scenario and often no unit: which scenario it is held against, and how its value is read, follow
stated rules that look at the claim's words and at the paper's own claims, never at the value: of scenarios that words do
not tell apart, one that gains what is claimed as a gain comes before one that was written for a cost.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from simulator.errors import Problem, SimulatorError, SpecError, UnknownNameError, shorten
from validation.claimspec import ClaimsFile, ClaimSpec, ScenarioSpec
from validation.claimwords import likeness, quantity_in, words
from validation.comparison import Comparison
from validation.metricnames import known_metrics, meaning
from validation.outcomes import ABSOLUTE, LOWER
from validation.verdicts import Row, claimed_value, judge, load_claims, points, row_of, verdict

WORDS = ("model", "hardware", "conditions")
"""What an abstract may state of a claim's conditions."""
BOUNDS = {
    "exact": "exact", "up_to": "up_to", "up to": "up_to", "max": "up_to", "at most": "up_to", "at_least": "at_least",
    "at least": "at_least", "min": "at_least", "average": "average", "mean": "average", "about": "about", "approx": "about",
    "~": "about",
}  # fmt: skip
"""Names of bounds, and other words for them."""
SAME_CONTEXT = 0.1
"""Lengths of context that differ by less are one: 128K is 131,072 or 128,000 tokens, with or without the answer."""


def evaluate_further(path: Path) -> list[Row]:
    """A row per claim of a JSONL file: id, metric, value, bound; perhaps unit, range, model, hardware, conditions, quantity.

    Claims of papers without scenarios, and metrics that no scenario has, are silent. So are metrics that are silent among
    the paper's own claims, unless a scenario's name is among the claim's words. Raises SpecError at the line that is not a
    claim.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            identity = str(record.get("id") or record.get("claim") or "")
            meant = meaning(str(record["metric"]))
            metric = meant.metric if meant else str(record["metric"])
            absolute = meant is not None and meant.absolute
            unit = str(record.get("unit") or ("" if absolute else usual_unit(metric, record.get("value"))))
            claim = ClaimSpec(
                claim=identity if "#" in identity else f"{identity}#0",
                metric=metric,
                value=record.get("value"),
                between=record.get("range") or record.get("between"),
                unit=unit,
                bound=BOUNDS.get(str(record.get("bound") or "exact").lower(), record.get("bound")),
                form="absolute" if absolute else None,
                stated=[key for key in WORDS if record.get(key)],
                quantity=record.get("quantity") or (meant.quantity if meant else None),
                note=None if meant else f"no metric '{record['metric']}'; {known_metrics()}",
            )
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            problem = Problem(shorten(path), number, 1, "", f"is not a claim (id, metric, value, bound): {error}")
            raise SpecError([problem]) from None
        paper = str(record.get("paper_id") or identity.partition("#")[0])
        stated = " ".join(str(record.get(key) or "") for key in WORDS)
        found.append(_judged(paper, claim, stated, str(record.get("baseline") or "")))
    return found


def _judged(paper: str, claim: ClaimSpec, stated: str, against: str) -> Row:
    try:
        file = load_claims(paper)
    except UnknownNameError:
        return judge(paper, claim.model_copy(update={"note": f"no scenario is written for '{paper}'"}), None)
    if claim.note is not None:
        return judge(paper, claim, None)
    alike = [own for own in file.claims if own.metric == claim.metric]
    groups = _ordered(file, claim, stated, against)
    if alike and not any(own.scenario for own in alike):
        groups = [[scenario for scenario in group if words(stated) & words(scenario.name)] for group in groups]
        if not any(groups):
            return judge(paper, claim.model_copy(update={"note": alike[0].note}), None)
    claimed, form = claimed_value(claim)
    if claim.metric == "other" and claim.quantity is None:
        named = quantity_in("other", claim.unit, stated)
        claim = claim.model_copy(update={"quantity": named, "form": "absolute" if named == "mfu" else claim.form})
        claimed, form = claimed_value(claim)
    if claimed is None or (claim.metric == "other" and claim.quantity is None):
        return judge(paper, claim, None)
    numbers: list[float] = []
    first: tuple[ScenarioSpec, ClaimSpec] | None = None
    own = {other.scenario for other in alike}
    for group in groups:
        tried = []
        for scenario in group:
            asked = _as_measured(claim, alike, scenario, stated)
            even = _at_one_batch(claim.metric, scenario)
            found = _outcomes(even, asked, form == "absolute") or _outcomes(even, claim, form == "absolute")
            if found:
                tried.append((scenario, asked, found))
        if form != "absolute" and claimed > 1.0:
            tried.sort(key=lambda item: item[0].name not in own and item[2][0] < 1.0)
        for scenario, asked, found in tried:
            numbers += found
            first = first or (scenario, asked)
            if stated.strip() or claim.bound != "up_to":
                break
        if first is not None and (stated.strip() or claim.bound != "up_to"):
            break
    if first is None:
        note = f"no scenario of {paper} has {claim.quantity or claim.metric}; {known_metrics()}"
        return judge(paper, claim.model_copy(update={"note": note}), None)
    chosen = first[1].model_copy(update={"scenario": first[0].name})
    return row_of(paper, chosen, verdict(chosen, claimed, numbers), numbers)


def _outcomes(scenario: ScenarioSpec, claim: ClaimSpec, absolute: bool) -> list[float]:
    """The finite numbers of a claim's metric over a scenario, the main one first; none where it has no such metric."""
    try:
        found = [point.metric(claim.metric, claim.quantity, absolute) for point in points(scenario)]
    except SimulatorError:
        return []
    if claim.metric == "max_context" and absolute and claim.value:
        asked = claimed_value(claim)[0] or math.inf
        found = [_served(point, longest, asked) for point, longest in zip(points(scenario), found, strict=True)]
    return [number for number in found if math.isfinite(number)]


def _served(point: Comparison, longest: float, asked: float) -> float:
    """The longest context, or the scenario's own where the claim is of that one: that it fits, not that no more does."""
    values = point.technique.values
    tokens = float(values.get("input_tokens", 0) + values.get("output_tokens", 0))
    return tokens if abs(tokens / asked - 1.0) <= SAME_CONTEXT and tokens <= longest else longest


def _ordered(file: ClaimsFile, claim: ClaimSpec, stated: str, against: str) -> list[list[ScenarioSpec]]:
    """Scenarios in groups: those that most of the claim's words name first, of these those of the paper's own claims.

    Times and bytes are compared at one batch, wherever the paper has such a scenario.
    """
    used = [own.scenario for own in file.claims if own.metric == claim.metric and own.scenario]

    def named(scenario: ScenarioSpec) -> tuple[bool, int]:
        return _unlike(claim.metric, scenario), -likeness(scenario, stated, against, claim.metric)

    def known(scenario: ScenarioSpec) -> int:
        return used.index(scenario.name) if scenario.name in used else len(used)

    groups: dict[tuple[bool, int], list[ScenarioSpec]] = {}
    for scenario in sorted(file.scenarios, key=known):
        groups.setdefault(named(scenario), []).append(scenario)
    return [groups[rank] for rank in sorted(groups)]


def _unlike(metric: str, scenario: ScenarioSpec) -> bool:
    """Whether a ratio of times or bytes would mix batches: those of the two sides differ, or are the largest that fit."""
    if metric not in LOWER or metric.startswith(("energy", "power", "cost")):
        return False
    batch = scenario.baseline.get("batch")
    return batch == "max" or scenario.technique.get("batch", batch) != batch


def _at_one_batch(metric: str, scenario: ScenarioSpec) -> ScenarioSpec:
    """A scenario that gives the technique a batch of its own, with that of the baseline, for ratios of times or bytes."""
    if not _unlike(metric, scenario) or scenario.baseline.get("train") or "fleet" in scenario.baseline:
        return scenario
    batch = scenario.baseline.get("batch", 1)
    if batch == "max":
        try:
            batch = max(1, round(points(scenario)[0].baseline.value("max_batch")))
        except SimulatorError:
            return scenario
    technique = {key: value for key, value in scenario.technique.items() if key != "batch"}
    vary = {key: values for key, values in scenario.vary.items() if key != "batch"}
    changed = {"baseline": {**scenario.baseline, "batch": batch}, "technique": technique, "vary": vary}
    return scenario.model_copy(update=changed)


def _as_measured(claim: ClaimSpec, alike: list[ClaimSpec], scenario: ScenarioSpec, stated: str) -> ClaimSpec:
    """The claim with the quantity that the paper's own claims on the metric compare, or else that its words ask for."""
    own = [other for other in alike if other.quantity not in (None, "fits") and other.scenario]
    if claim.metric in ABSOLUTE:
        own = [other for other in own if _dimension(other.unit) == _dimension(claim.unit)]
    near = next((other for other in own if other.scenario == scenario.name), own[0] if own else None)
    if claim.quantity:
        return claim
    if near is None:
        meant = quantity_in(claim.metric, claim.unit, stated) or scenario.measures.get(claim.metric)
        if meant == "flop_per_s_per_device" and not scenario.baseline.get("train"):
            meant = "prefill_flop_per_s"
        if meant is not None and meant.startswith("kind:"):
            meant = f"{'decode' if scenario.baseline.get('output_tokens', 1) > 1 else 'prefill'}.{meant}"
        return claim.model_copy(update={"quantity": meant}) if meant else claim
    return claim.model_copy(update={"quantity": near.quantity})


def _dimension(unit: str) -> tuple[bool, bool]:
    """What sets rates of operations and shares apart from tokens per second."""
    return "flop" in unit.lower(), unit.startswith("%")


def usual_unit(metric: str, value: Any) -> str:
    """The unit of a claim that names none.

    A context of a thousand or more is in tokens, memory below a million in GB; savings from 20 to 100 (of memory from 10),
    and gains of throughput and decoding from 20 to 100, are percent, as nearly all that papers write there are; all else
    is a factor, or in SI units.

    >>> usual_unit("max_context", 128000), usual_unit("kv_memory_reduction", 70), usual_unit("decode_speedup", 2)
    ('tokens', '%', 'x')
    """
    number = value if isinstance(value, int | float) else 0.0
    if metric == "max_context" and number >= 1000:
        return "tokens"
    if metric == "peak_memory_bytes" and number < 1e6:
        return "GB"
    if metric in ABSOLUTE:
        return ""
    if metric.endswith("_reduction"):
        return "%" if (10 if metric == "peak_memory_reduction" else 20) <= number < 100 else "x"
    return "%" if metric in ("decode_speedup", "throughput_gain") and 20 <= number < 100 else "x"
