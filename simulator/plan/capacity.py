"""Requests per second that an instance serves within an SLO, per option and bucket: from the performance model.

Between the steady state of a deployment and the matrices of the fleet's program. Users' tables are read by `tables`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.errors import ScenarioError, SimulatorError
from simulator.plan.queueing import Slo, deviations, wait_at
from simulator.predict import Predictor, predictor
from simulator.scenario import Scenario
from simulator.steady import MOST, max_concurrency, steady_grid
from simulator.sweep import predict_many

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.plan.load import Load
    from simulator.plan.option import Option

KNOTS = 20
"""Concurrencies at which the steady state is computed; between them times are interpolated."""
FLIGHTS = 160
"""Mean numbers in flight that are tried."""
CAPS = 40
"""Limits on the number in flight that are tried."""
_FEWEST = 0.02


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one instance of each option does for each bucket: O options, B buckets of all loads together."""

    requests_per_s: NDArray[np.float64]
    """(O, B); 0 where the option cannot serve the bucket within the SLO."""
    power_w: NDArray[np.float64]
    """(O, B) that an instance draws at that rate."""
    idle_w: NDArray[np.float64]
    """(O,) that it draws while it waits."""
    limit: NDArray[np.object_]
    """(O, B) what keeps the rate from being higher, or why it is 0."""
    concurrency: NDArray[np.float64]
    """(O, B) most requests in flight at which that holds (an engine's max_num_seqs); nan from tables."""


@dataclass(frozen=True, slots=True)
class Curves:
    """Steady states of one option and bucket over the number in flight, at increasing whole numbers (K,)."""

    flight: NDArray[np.float64]
    e2el_s: NDArray[np.float64]
    ttft_s: NDArray[np.float64]
    tpot_s: NDArray[np.float64]
    prefill_share: NDArray[np.float64]
    power_w: NDArray[np.float64]
    bound: str
    """What ends the curve: KV capacity, or compute where more at a time would bring nothing."""

    def at(self, column: NDArray[np.float64], flight: NDArray[np.float64]) -> NDArray[np.float64]:
        """A column at any number in flight, interpolated over its logarithm."""
        inside = np.clip(flight, self.flight[0], self.flight[-1])
        return np.asarray(np.interp(np.log(inside), np.log(self.flight), column))


@dataclass(frozen=True, slots=True)
class Within:
    """The most that one instance serves of a bucket within an SLO."""

    requests_per_s: float
    concurrency: float
    """Most in flight."""
    flight: float
    """In flight on average."""
    power_w: float
    """While at least one is."""
    limit: str


NOTHING = Within(0.0, 0.0, 0.0, 0.0, "")


def within_slo(
    curves: Curves, slo: Slo, *, service_cv2: float, arrival_cv: float, max_utilization: float, prompt_cv2: float = 0.0
) -> Within:
    """The largest rate at which an instance meets an SLO, over the mean number in flight L and the limit c on it.

    rate = L / E2EL(L) (Little's law). TPOT and TTFT are those of L + z sqrt(L / (1 - e)) in flight, at most c, with z of the
    percentile (0 for the mean) and e the elasticity of E2EL in L. Requests share the machine, so that the number in flight
    has the chances p(n) ~ prod over k <= n of rate E2EL(k) / k, whatever the lengths are (processor sharing, Cohen 1979);
    near its top that is a normal curve of variance L / (1 - e). On top of TTFT and E2EL come two waits by Sakasegawa's
    formula: for a place among c, with service E2EL(c); and for the prompts before one's own, which hold the instance for
    prefill_share / rate each, one server. All count at the same percentile, which is safe.
    """
    caps = np.unique(np.round(np.geomspace(1.0, curves.flight[-1], CAPS))).astype(np.float64)
    flight = np.geomspace(_FEWEST, curves.flight[-1], FLIGHTS)
    own_s = curves.at(curves.e2el_s, flight)
    rate = flight / own_s
    slowing = np.clip(np.gradient(np.log(own_s), np.log(flight)), 0.0, 0.99)
    full_s = curves.at(curves.e2el_s, caps)
    crowd = flight + deviations(slo.percentile) * np.sqrt(flight / (1.0 - slowing))
    shown = np.minimum(crowd[:, None], caps)
    busy = rate[:, None] * full_s / caps
    possible = (busy <= max_utilization) & (flight[:, None] <= caps)
    cv2 = 0.5 * (arrival_cv**2 + service_cv2)
    usable = np.minimum(busy, 1.0 - 1e-9)
    wait_s = full_s * wait_at(caps, usable, cv2, slo.percentile)
    share = np.minimum(curves.at(curves.prefill_share, flight) * np.minimum(1.0, flight), 1.0 - 1e-9)
    prompts = wait_at(1.0, share, 0.5 * (arrival_cv**2 + prompt_cv2), slo.percentile)
    wait_s = wait_s + (share / rate * prompts)[:, None]
    checks = {
        "TTFT": _met(curves.at(curves.ttft_s, shown) + wait_s, slo.ttft_s),
        "TPOT": _met(curves.at(curves.tpot_s, shown), slo.tpot_s),
        "E2EL": _met(curves.at(curves.e2el_s, shown) + wait_s, slo.e2el_s),
    }
    best, place = _best(rate, possible & np.logical_and.reduce(list(checks.values())))
    gains = {}
    for name in checks:
        others = [met for other, met in checks.items() if other != name]
        gains[name] = _best(rate, possible & np.logical_and.reduce(others))[0]
    strictest = max(gains, key=lambda name: gains[name])
    limit = strictest if gains[strictest] > best * 1.0001 else curves.bound
    if best == 0.0:
        least = {"TTFT": curves.ttft_s.min(), "TPOT": curves.tpot_s.min(), "E2EL": curves.e2el_s.min()}
        wanted = {"TTFT": slo.ttft_s, "TPOT": slo.tpot_s, "E2EL": slo.e2el_s}
        broken = [name for name, most in wanted.items() if most is not None and least[name] > most]
        name = broken[0] if broken else strictest
        return replace(
            NOTHING, limit=f"{name} (at best {1e3 * least[name]:.3g} ms, {1e3 * (wanted[name] or 0):.3g} ms asked)"
        )
    row, column = place
    power_w = float(curves.at(curves.power_w, flight[row : row + 1])[0])
    return Within(best, float(caps[column]), float(flight[row]), power_w, limit)


def _met(seconds: NDArray[np.float64], most: float | None) -> NDArray[np.bool_]:
    return np.ones(seconds.shape, bool) if most is None else seconds <= most * (1.0 + 1e-12)


def _best(rate: NDArray[np.float64], allowed: NDArray[np.bool_]) -> tuple[float, tuple[int, int]]:
    """The largest rate allowed with any cap, and where; of equal ones that with the smallest cap."""
    rows = np.flatnonzero(allowed.any(axis=1))
    if not len(rows):
        return 0.0, (0, 0)
    row = int(rows[np.argmax(rate[rows])])
    return float(rate[row]), (row, int(np.argmax(allowed[row])))


def modelled(
    options: Sequence[Option],
    loads: Sequence[Load],
    *,
    max_utilization: float,
    link: tuple[float, float] | None = None,
    slos: Mapping[str, Slo] | None = None,
) -> Capacity:
    """The capacities of options from the performance model; `slos` replaces those of loads by name.

    `link` is bytes per second and seconds between prefill and decode pools. Raises ScenarioError for a load without an
    SLO or a model; an option that cannot run the model has rate 0 and the reason as its limit.
    """
    width = sum(len(load) for load in loads)
    shape = (len(options), width)
    rate, power, flight = np.zeros(shape), np.zeros(shape), np.full(shape, np.nan)
    limit = np.full(shape, "another load", dtype=object)
    idle = np.array([option.idle_w or 0.0 for option in options])
    start = 0
    for load in loads:
        slo = (slos or {}).get(load.name, load.slo)
        if slo is None or load.model is None:
            raise ScenarioError(
                f"load '{load.name}' needs {'an slo' if slo is None else 'a model'}, or tables of throughput"
            )
        known: dict[tuple[Scenario, str], list[Within]] = {}
        for o, option in enumerate(options):
            if option.load != load.name:
                continue
            if option.role != "whole" and slo.e2el_s is not None and slo.ttft_s is None:
                raise ScenarioError("an E2EL SLO on prefill and decode pools needs a TTFT beside it, which divides it")
            try:
                scenario = scenario_of(option, load)
                own, key = predictor(scenario), (scenario, option.role)
                if key not in known:  # purchases and regions of one deployment share it
                    known[key] = _of_buckets(own, option, load, slo, max_utilization, link)
                served = known[key]
            except SimulatorError as error:
                limit[o, start : start + len(load)] = str(error)
                continue
            if option.idle_w is None:
                idle[o] = own.resolved.machine.waiting_w * own.resolved.parallelism.devices
            for b, found in enumerate(served):
                at = (o, start + b)
                rate[at], limit[at], flight[at] = found.requests_per_s, found.limit, found.concurrency
                power[at] = option.power_w or idle[o] + min(1.0, found.flight) * (found.power_w - idle[o])
        start += len(load)
    return Capacity(rate, np.maximum(power, idle[:, None] * (rate > 0)), idle, limit, flight)


def scenario_of(option: Option, load: Load) -> Scenario:
    """The family of scenarios that an option serves a load with."""
    return Scenario(
        load.model or "",
        option.hardware,
        engine=option.engine,
        tp=option.tp,
        techniques=option.techniques,
        max_context=load.max_context,
    )


def _of_buckets(
    own: Predictor, option: Option, load: Load, slo: Slo, max_utilization: float, link: tuple[float, float] | None
) -> list[Within]:
    share = load.rate_per_s / load.rate_per_s.sum()
    mean = float(share @ load.input_tokens)
    prompt_cv2 = float(share @ (load.input_tokens - mean) ** 2) / mean**2
    found = []
    sizes = zip(load.input_tokens, load.output_tokens, load.longest(slo.exempt), strict=True)
    for curves, (prompt, output, exempt) in zip(_curves(own, option.role, load), sizes, strict=True):
        if isinstance(curves, str):
            found.append(replace(NOTHING, limit=curves))
            continue
        wanted, most = slo, float("inf")
        if option.role != "whole":
            assert link is not None
            moved_s = link[1] + kv_bytes(own, prompt) / link[0]
            most = link[0] / kv_bytes(own, prompt)
            wanted = _part(slo, option.role, moved_s)
        wanted = Slo(percentile=slo.percentile) if exempt else wanted
        if option.role == "decode" and output < 2:
            found.append(Within(float("inf"), 1.0, 0.0, 0.0, "nothing to decode"))
            continue
        one = within_slo(
            curves, wanted, service_cv2=load.service_cv2, arrival_cv=load.arrival_cv,
            max_utilization=max_utilization, prompt_cv2=prompt_cv2,
        )  # fmt: skip
        if option.role == "prefill" and one.requests_per_s > most:
            one = replace(one, requests_per_s=most, limit="link")
        found.append(one)
    return found


def kv_bytes(own: Predictor, prompt: float) -> float:
    """What a prompt leaves in the cache, on all devices."""
    return own.cache.bytes_of(prompt) * own.resolved.parallelism.devices


def _part(slo: Slo, role: str, moved_s: float) -> Slo:
    """What an SLO leaves to one of two pools: the first token, with its cache's way, to prefill, the others to decode."""
    if role == "prefill":
        return Slo(None if slo.ttft_s is None else slo.ttft_s - moved_s, None, None, slo.percentile)
    rest = None if slo.e2el_s is None else slo.e2el_s - (slo.ttft_s or 0.0)
    return Slo(None, slo.tpot_s, rest, slo.percentile)


def _curves(own: Predictor, role: str, load: Load) -> list[Curves | str]:
    """The curves of every bucket, or why there is none."""
    sizes = tuple(zip(np.round(load.input_tokens).tolist(), np.round(load.output_tokens).tolist(), strict=True))
    return list(_cached_curves(own, role, sizes))


@lru_cache(maxsize=512)
def _cached_curves(own: Predictor, role: str, sizes: tuple[tuple[float, float], ...]) -> tuple[Curves | str, ...]:
    resolved = own.resolved
    longest = resolved.scenario.max_context or resolved.model.max_context
    found: list[Curves | str | None] = []
    knots: list[NDArray[np.float64]] = []
    for prompt, output in sizes:
        generated = 1.0 if role == "prefill" else output
        if longest is not None and prompt + output > longest:
            found.append(f"context beyond the {longest} tokens of the model")
        else:
            most = max_concurrency(own, round(prompt), round(generated))
            found.append(None if most else "KV capacity (not even one request fits)")
            most = min(most, 1) if role == "prefill" else most
            knots.append(np.unique(np.round(np.geomspace(1.0, max(1, most), KNOTS))))
            continue
        knots.append(np.ones(1))
    asked = [position for position, reason in enumerate(found) if reason is None]
    if not asked:
        return tuple(reason or "" for reason in found)
    points = np.concatenate(
        [
            np.column_stack([knots[i], np.full(len(knots[i]), sizes[i][0]), np.full(len(knots[i]), sizes[i][1])])
            for i in asked
        ]
    )
    columns = _columns(own, role, points)
    start = 0
    for i in asked:
        part = slice(start, start + len(knots[i]))
        start = part.stop
        ended = "compute" if role == "prefill" or knots[i][-1] >= MOST else "KV capacity"
        found[i] = Curves(knots[i], **{name: columns[name][part] for name in _NAMES}, bound=ended)
    return tuple(found)  # type: ignore[arg-type]


_NAMES = ("e2el_s", "ttft_s", "tpot_s", "prefill_share", "power_w")


def _columns(own: Predictor, role: str, points: NDArray[np.float64]) -> dict[str, Any]:
    """Steady states at (P, 3) points of number in flight, input and output, of a pool or of whole instances."""
    if role == "whole":
        return steady_grid(own, concurrency=points[:, 0], input_tokens=points[:, 1], output_tokens=points[:, 2])
    nothing = np.zeros(len(points))
    if role == "prefill":
        alone = np.column_stack([points[:, :2], np.ones(len(points))])
        found = predict_many(own, alone)
        return {**found, "prefill_share": nothing, "tpot_s": nothing}
    found = predict_many(own, np.column_stack([points[:, :2], np.maximum(points[:, 2], 2.0)]))
    decode_s = found["tpot_s"] * np.maximum(points[:, 2] - 1.0, 1.0)
    return {**found, "prefill_share": nothing, "ttft_s": nothing, "e2el_s": decode_s}
