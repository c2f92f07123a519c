"""Steady serving with continuous batching: rates, latencies, power and room at a constant number of requests in flight.

From the steps that one request takes (`cost.serving`) to the state of a whole deployment, at one point or at many. Knows no
traffic: requests are alike, arrive evenly spread, and are as many at a time as stated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from simulator.cost.layout import (
    V_CYCLE,
    V_DECODE,
    V_FAILED,
    V_JOULES,
    V_PROMPT,
    V_SHARE,
    V_STEP,
    V_TPOT,
    V_TTFT,
    Waves,
)
from simulator.cost.runner import EVEN
from simulator.errors import ScenarioError, UnsupportedError
from simulator.mapping.place import Need
from simulator.predict import Predictor
from simulator.result import Prediction
from simulator.run import BatchRun
from simulator.scenario import check_lengths
from simulator.sweep import needs, stays_home

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simulator.cost.runner import Shares
    from simulator.spec.interval import Regime

COLUMNS = (
    "concurrency", "running", "requests_per_s", "ttft_s", "tpot_s", "e2el_s", "step_s", "decode_step_s", "prompt_step_s",
    "output_tokens_per_s", "total_tokens_per_s", "prefill_share", "power_w", "energy_j_per_output_token", "fits",
)  # fmt: skip
"""Columns of `steady_grid`; the fields of a `SteadyState`."""
MOST = 1 << 16
"""Requests in flight beyond which nothing is looked for."""
DEVIATIONS = 2.0
"""Standard deviations of the cached tokens of all requests that are kept free: 98% of the time they suffice."""


@dataclass(frozen=True, slots=True)
class SteadyState:
    """A deployment that serves equal requests, so many at a time. Of all its devices together."""

    concurrency: float
    """Requests in the system."""
    running: float
    """Of those, what its memory and its engine let run at a time; the others queue."""
    requests_per_s: float
    ttft_s: float
    """Arrival to first token: waiting for room, then the steps of its own prompt and of those that start with it."""
    tpot_s: float
    """(E2EL - TTFT) / (output_tokens - 1), the steps with other requests' prompts included."""
    e2el_s: float
    step_s: float
    """The mean step."""
    decode_step_s: float
    """A step in which all running requests decode."""
    prompt_step_s: float
    """A step with prompts."""
    output_tokens_per_s: float
    total_tokens_per_s: float
    prefill_share: float
    """Share of the time that there would not be without prompts."""
    power_w: float
    energy_j_per_output_token: float
    fits: bool
    """All requests run at a time."""


def steady(
    predictor: Predictor, *, concurrency: int, input_tokens: int, output_tokens: int, waves: int = 0,
    spread: float = 0.0,
) -> SteadyState:  # fmt: skip
    """The steady state with `concurrency` requests in flight, each followed by the next when it ends (closed loop).

    Between two completions, all prompts' steps and all decode steps of one request take place. With m steps of T_m
    seconds that bring a prompt (D others decode in them) and n of T_d in which all C decode: O - 1 = m D + n C, and the
    time between completions is m T_m + n T_d; E2EL = C times that (Little's law), TTFT that of the C - D requests
    without a token.

    `waves` 0: requests are evenly spread. Otherwise they begin as benchmarks do, all at once and each with equal ones after
    it, `waves` in all: those whose prompts fill a step together also end together, so that TTFT is longer, TPOT shorter, and
    the sum hardly another. With `spread`, lengths are drawn evenly from the last so much of the longest: waves part, and
    only the first one's prompts wait for one another. Raises ScenarioError for lengths that the model cannot have,
    UnsupportedError where prompts and answers are computed on different machines.

    >>> from simulator.predict import predictor
    >>> from simulator.scenario import Scenario
    >>> state = steady(predictor(Scenario("llama-3.1-8b", "H100", engine="vllm")), concurrency=32, input_tokens=1024,
    ...                output_tokens=256)
    >>> round(state.requests_per_s * state.e2el_s, 6), state.fits
    (32.0, True)
    """
    _check(predictor, concurrency, input_tokens, output_tokens)
    most = max_concurrency(predictor, input_tokens, output_tokens)
    running = min(concurrency, most) if most else concurrency
    return _state(predictor, concurrency, running, most, input_tokens, output_tokens, Waves(waves, spread))


def predict_steady(
    predictor: Predictor, *, concurrency: int, input_tokens: int, output_tokens: int, waves: int = 0,
    spread: float = 0.0,
) -> Prediction:  # fmt: skip
    """`steady` under the keys of a prediction, whose batch are the requests in flight.

    Its cache is what they hold in steady state, its energy that of as many requests, its intervals those of steady serving.
    """
    state = steady(
        predictor, concurrency=concurrency, input_tokens=input_tokens, output_tokens=output_tokens, waves=waves,
        spread=spread,
    )  # fmt: skip
    batch = predictor.predict(concurrency, input_tokens, output_tokens)
    need = _need(predictor, math.ceil(state.running / predictor.resolved.parallelism.dp), input_tokens, output_tokens)
    generated = state.output_tokens_per_s / state.requests_per_s
    assert isinstance(batch.run, BatchRun)
    return replace(
        batch,
        ttft_s=state.ttft_s,
        tpot_s=state.tpot_s,
        e2el_s=state.e2el_s,
        output_tokens_per_s=state.output_tokens_per_s,
        total_tokens_per_s=state.total_tokens_per_s,
        kv_bytes=need.cache * batch.devices,
        activation_bytes=need.activation * batch.devices,
        fits=state.fits,
        energy_j=state.energy_j_per_output_token * generated * concurrency,
        energy_j_per_output_token=state.energy_j_per_output_token,
        power_w=state.power_w,
        usd_per_million_output_tokens=predictor.usd_per_million_tokens(state.output_tokens_per_s, state.power_w),
        turns=1,
        run=SteadyRun(*(getattr(batch.run, name) for name in BatchRun.__slots__)),
    )


class SteadyRun(BatchRun):
    """The batch behind a prediction of steady serving."""

    __slots__ = ()

    def interval(self, prediction: Prediction, regime: Regime = "steady") -> dict[str, tuple[float, float]]:
        """Each quantity between the ratios of steady serving."""
        return BatchRun.interval(self, prediction, regime)


def steady_at_rate(
    predictor: Predictor, *, requests_per_s: float, input_tokens: int, output_tokens: int
) -> SteadyState | None:
    """The steady state in which as many requests end as arrive (open loop); None where so many cannot be served.

    The number in flight is the one whose completions equal the arrivals, between whole numbers interpolated. A request that
    arrives at any time waits for half a step before its own begins.
    """
    _check(predictor, 1, input_tokens, output_tokens)
    if not requests_per_s > 0.0 or not math.isfinite(requests_per_s):
        raise ScenarioError(f"requests_per_s must be above 0 and finite, not {requests_per_s}")
    most = max(1, max_concurrency(predictor, input_tokens, output_tokens))

    def at(running: int) -> SteadyState:
        return _state(predictor, running, running, most, input_tokens, output_tokens)

    low, high = at(1), at(most)  # the most that run, which is also the most that is served
    if high.requests_per_s < requests_per_s:
        return None
    if low.requests_per_s >= requests_per_s:
        share = requests_per_s / low.requests_per_s
        idle_w = _waiting_w(predictor)
        state = replace(
            low, running=share, power_w=idle_w + share * (low.power_w - idle_w), prefill_share=share * low.prefill_share,
            output_tokens_per_s=share * low.output_tokens_per_s, total_tokens_per_s=share * low.total_tokens_per_s,
        )  # fmt: skip
        return _open(state, requests_per_s, low.e2el_s, 0.5 * share * low.step_s)
    while high.running - low.running > 1.0:
        middle = at(round(low.running + high.running) // 2)
        low, high = (middle, high) if middle.requests_per_s < requests_per_s else (low, middle)
    share = (requests_per_s - low.requests_per_s) / (high.requests_per_s - low.requests_per_s)
    mixed = {name: (1.0 - share) * getattr(low, name) + share * getattr(high, name) for name in COLUMNS}
    state = SteadyState(**mixed | {"fits": True})
    return _open(state, requests_per_s, state.running / requests_per_s, 0.5 * state.step_s)


def steady_grid(
    predictor: Predictor, *, concurrency: NDArray[Any], input_tokens: NDArray[Any], output_tokens: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """`steady` at (P,) points each: the columns `COLUMNS`, (P,) each; arguments are broadcast against one another.

    Points whose tensors lie in one memory are one compiled call, best in order of concurrency; others take turns. Lengths
    are not checked against the model's limits.
    """
    import numpy as np

    flights, prompts, outputs = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(values, dtype=np.float64)) for values in (concurrency, input_tokens, output_tokens))
    )
    if not (min(flights.min(), prompts.min(), outputs.min()) >= 1.0 and np.isfinite(flights + prompts + outputs).all()):
        raise ScenarioError("concurrency, input_tokens and output_tokens must be finite and at least 1")
    resolved = predictor.resolved
    simple = resolved.model.encoder is None and not resolved.scenario.images and predictor.plain
    if not (simple and resolved.model.decode and stays_home(predictor)):
        states = [
            steady(predictor, concurrency=round(c), input_tokens=round(i), output_tokens=round(o))
            for c, i, o in zip(flights, prompts, outputs, strict=True)
        ]
        return {name: np.array([getattr(state, name) for state in states]) for name in COLUMNS}
    most = _most(predictor, prompts, outputs)
    running = np.where(most > 0.0, np.minimum(flights, most), flights)
    flight = np.ceil(running / resolved.parallelism.dp)
    points = np.stack([flight, prompts, outputs, np.zeros(len(flight))], axis=1)
    served = predictor.runner.serve_grid(points, *_policy(predictor), predictor.placer.all_at_home().shares).T
    if (served[V_FAILED] >= 0.0).any():
        raise predictor.cannot_run(int(served[V_FAILED].max()))
    found = _columns(predictor, flights, running, prompts, outputs, served, flight)
    return found | {"fits": flights <= most}


def _most(predictor: Predictor, prompts: NDArray[Any], outputs: NDArray[Any]) -> NDArray[Any]:
    """`max_concurrency` at many lengths, where everything lies in one memory."""
    import numpy as np

    lengths, places = np.unique(np.stack([prompts, outputs], axis=1), axis=0, return_inverse=True)
    room = predictor.placer.room(predictor.placer.home)

    def fits(counts: NDArray[Any]) -> NDArray[Any]:
        kept = 0.5 + np.minimum(0.5, DEVIATIONS / np.sqrt(12.0 * np.maximum(counts, 1.0)))
        points = np.column_stack([counts, lengths[:, 0], lengths[:, 1] * kept])
        return np.asarray(sum(needs(predictor, points, counts)) <= room)

    low, high = np.zeros(len(lengths)), np.full(len(lengths), MOST + 1.0)
    while (high - low > 1.0).any():
        middle = np.floor(0.5 * (low + high))
        roomy = fits(middle)
        low, high = np.where(roomy, middle, low), np.where(roomy, high, middle)
    return np.asarray(low[places.reshape(-1)] * predictor.resolved.parallelism.dp)


def percentile_concurrency(running: float, deviations: float) -> float:
    """Requests in flight of an open loop that are exceeded only so many standard deviations above the mean.

    Many requests share the machine and each takes many steps, so that the number in flight is nearly Poisson (as in M/G/inf,
    and in processor sharing far from saturation): mean C, deviation sqrt(C). 2.33 deviations for 99%, 1.28 for 90%.

    >>> percentile_concurrency(100.0, 2.33)
    123.3
    """
    return running + deviations * math.sqrt(running)


def max_concurrency(predictor: Predictor, input_tokens: int, output_tokens: int) -> int:
    """The most requests whose caches fit at a time, in steady state; 0 if not even one does.

    Requests in flight are anywhere between their first and their last token, so that one keeps its prompt and half its
    answer on average; `DEVIATIONS` of the sum of C such lengths (O sqrt(C / 12) each) are kept free.
    """
    return _max_concurrency(predictor, input_tokens, output_tokens)


@lru_cache(maxsize=65536)
def _max_concurrency(predictor: Predictor, input_tokens: int, output_tokens: int) -> int:
    replicas = predictor.resolved.parallelism.dp

    def fits(count: int) -> bool:
        return predictor.has_room(_need(predictor, count, input_tokens, output_tokens))

    if not fits(1):
        return 0
    low, high = 1, 2
    while high < MOST and fits(high):
        low, high = high, 2 * high
    high = min(high, MOST)
    if high <= low or fits(high):
        return max(low, high) * replicas
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * replicas


def held_tokens(flight: float, input_tokens: float, output_tokens: float) -> float:
    """Cached tokens per request that room is needed for.

    >>> held_tokens(1, 1000, 200), round(held_tokens(300, 1000, 200))
    (1200.0, 1107)
    """
    spread = min(0.5, DEVIATIONS / math.sqrt(12.0 * flight))
    return input_tokens + output_tokens * (0.5 + spread)


def _need(predictor: Predictor, flight: int, input_tokens: int, output_tokens: int) -> Need:
    start, generated, source = predictor.lengths(input_tokens, output_tokens)
    return predictor.need(flight, start, held_tokens(flight, start, generated), source)


def _check(predictor: Predictor, concurrency: int, input_tokens: int, output_tokens: int) -> None:
    resolved = predictor.resolved
    if concurrency < 1:
        raise ScenarioError(f"concurrency must be at least 1, not {concurrency}")
    scenario = resolved.scenario
    check_lengths(resolved.model, concurrency, input_tokens, output_tokens, scenario.images, scenario.max_context)
    if predictor.helpers.decoder is not None:
        raise UnsupportedError(
            "steady serving with prompts and answers on different machines", ["one deployment for each of them"]
        )


def _state(
    predictor: Predictor, concurrency: int, running: int, most: int, input_tokens: int, output_tokens: int,
    waves: Waves = EVEN,
) -> SteadyState:  # fmt: skip
    flight = math.ceil(running / predictor.resolved.parallelism.dp)
    start, generated, source = predictor.lengths(input_tokens, output_tokens)
    need = _need(predictor, flight, input_tokens, output_tokens)
    if len(predictor.options) > 1:
        placement, _ = predictor.fastest(need, flight, start, generated, source)
    else:
        placement = predictor.placer.place(need, predictor.options[0])
    beside = _beside(predictor, flight, start, generated, source, placement.shares)
    served = predictor.runner.serve(
        (flight, start, generated, source), *_policy(predictor), placement.shares, beside, waves
    )
    if served[V_FAILED] >= 0:
        raise predictor.cannot_run(int(served[V_FAILED]))
    found = _columns(predictor, concurrency, running, input_tokens, generated, served, flight)
    return SteadyState(**found, fits=placement.fits and concurrency <= most)


def _policy(predictor: Predictor) -> tuple[float, bool]:
    """Tokens of one step, and whether prompts ride with decodes."""
    chunk = predictor.schedule.chunk_tokens
    if chunk:
        return float(chunk), True
    return predictor.host.max_tokens, predictor.resolved.engine.mixes_prefill


def _beside(
    predictor: Predictor, flight: int, start: float, generated: int, source: float, shares: Shares
) -> tuple[float, ...]:
    """The `beside` of `cost.serving`: encoders and compressors once per request, drafts once per step."""
    images, schedule = predictor.resolved.scenario.images, predictor.schedule
    first_s, first_j = predictor.sides(1, source, images, shares)
    if predictor.plain or predictor.helpers.idle:
        return first_s, first_j, 0.0, 0.0, 0.0, schedule.passes
    one = predictor.helpers.beside(1, start, generated, predictor.cache)
    all_of_them = predictor.helpers.beside(flight, start, generated, predictor.cache)
    return (
        first_s + one.first_s, first_j + one.first_j, all_of_them.step_s, all_of_them.step_j, schedule.draft_overlap,
        schedule.passes,
    )  # fmt: skip


def _columns(
    predictor: Predictor, concurrency: Any, running: Any, input_tokens: Any, generated: Any, served: Any, flight: Any
) -> dict[str, Any]:
    """The columns but `fits`, from those of `cost.serving`: numbers, or arrays of them."""
    answers = generated * predictor.schedule.samples
    own_s = served[V_CYCLE] * flight
    rate = running / own_s
    queued_s = (concurrency - running) / rate
    joules = served[V_JOULES] * predictor.resolved.parallelism.tp
    return {
        "concurrency": concurrency,
        "running": running,
        "requests_per_s": rate,
        "ttft_s": served[V_TTFT] + queued_s,
        "tpot_s": served[V_TPOT],
        "e2el_s": own_s + queued_s,
        "step_s": served[V_STEP],
        "decode_step_s": served[V_DECODE],
        "prompt_step_s": served[V_PROMPT],
        "output_tokens_per_s": rate * answers,
        "total_tokens_per_s": rate * (answers + input_tokens),
        "prefill_share": served[V_SHARE],
        "power_w": joules * rate,
        "energy_j_per_output_token": joules / answers,
    }


def _open(state: SteadyState, rate: float, busy_s: float, wait_s: float) -> SteadyState:
    """A state with its arrivals at any time: each waits `wait_s` before its own `busy_s`."""
    e2el_s = busy_s + wait_s
    return replace(
        state, concurrency=rate * e2el_s, requests_per_s=rate, ttft_s=state.ttft_s + wait_s, e2el_s=e2el_s,
        energy_j_per_output_token=state.power_w / state.output_tokens_per_s,
    )  # fmt: skip


def _waiting_w(predictor: Predictor) -> float:
    """Watts of all devices while no request is there."""
    return predictor.runner.table.power.waiting_w * predictor.resolved.parallelism.devices
