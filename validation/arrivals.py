"""Requests that arrive at random at one deployment: the tail of waiting, the time per token, and the rate within targets.

Closed forms over the step times of a `Predictor`: a queue of prompts (M/D/1), answers as many as Little's law keeps
running. Requests are alike; no preemption, no routing, no bursts beyond those of a Poisson process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

from simulator.cost.runner import Shares
from simulator.errors import ScenarioError
from simulator.predict import Predictor
from simulator.scenario import Scenario

ATTAINED = 0.9
"""Share of the requests that have to meet a target: serving papers count goodput at nine tenths."""
_NORMAL = NormalDist().inv_cdf(ATTAINED)


@dataclass(frozen=True, slots=True)
class Targets:
    """What a request may take, and how many arrive."""

    ttft_s: float = math.inf
    tpot_s: float = math.inf
    requests_per_s: float | None = None
    """At one deployment of the scenario's devices."""


@dataclass(frozen=True)
class Arrivals:
    """One deployment under a stream of equal requests."""

    predictor: Predictor
    scenario: Scenario
    """Of one request: its lengths."""
    shares: Shares
    """Where the operands lie."""
    most: float
    """Requests whose caches fit at a time."""
    targets: Targets

    def latencies(self, rate: float) -> tuple[float, float]:
        """TTFT and TPOT that nine of ten requests stay below at `rate` requests per second; infinite beyond capacity.

        Prompts are computed one after the other; tokens of running answers wait for them, unless prompts ride in chunks
        (a step then takes as long as with a chunk, a share `rho` of the steps) or are computed on devices of their own.
        Waiting in M/D/1: rho T / (2 (1 - rho)) on average, exponential beyond that with P(W > 0) = rho.
        """
        scenario, schedule = self.scenario, self.predictor.schedule
        answer = max(1.0, scenario.output_tokens - 1.0) / schedule.gained_tokens
        if schedule.decode_hardware is not None:
            return self._prompt_tail(rate, self._alone_s), self._steady(lambda n: rate * answer * self._decode_s(n))
        if schedule.chunk_tokens:

            def pieces(n: float) -> float:
                return scenario.input_tokens / max(1.0, min(schedule.chunk_tokens - n, scenario.input_tokens))

            def mixed(n: float) -> float:
                rho = rate * pieces(n) * self._riding_s(n)
                if rho >= 1.0:
                    return math.inf
                return rho * self._riding_s(n) + (1.0 - rho) * self._decode_s(n)

            running = self._running(lambda n: rate * answer * mixed(n))
            if math.isinf(running):
                return math.inf, math.inf
            full, bare = self._riding_s(running), self._decode_s(running)
            rho = rate * pieces(running) * full
            if rho >= 1.0:
                return math.inf, math.inf
            spread = _NORMAL * math.sqrt(rho * (1.0 - rho) / answer) * max(0.0, full - bare)
            return self._prompt_tail(rate, pieces(running) * full), mixed(running) + spread
        rho = rate * self._alone_s
        if rho >= 1.0:
            return math.inf, math.inf
        running = self._running(lambda n: rate * answer * self._decode_s(n) / (1.0 - rho))
        if math.isinf(running):
            return math.inf, math.inf
        step = self._decode_s(running)
        met = rate * answer * step / (1.0 - rho)
        tpot = step + (met + _NORMAL * math.sqrt(met)) * self._alone_s / answer
        return self._prompt_tail(rate, self._alone_s) + step, tpot

    def excess(self, rate: float) -> float:
        """The larger of both latencies over its target; at most 1 where the targets are met."""
        ttft, tpot = self.latencies(rate)
        return max(ttft / self.targets.ttft_s, tpot / self.targets.tpot_s)

    def goodput(self) -> float:
        """Most requests per second and device within the targets, with answers' devices in the best proportion.

        Raises ScenarioError without targets.
        """
        if math.isinf(self.targets.ttft_s) and math.isinf(self.targets.tpot_s):
            raise ScenarioError("goodput needs targets: slo_ttft_s, slo_tpot_s")
        devices = self.predictor.resolved.parallelism.devices
        schedule = self.predictor.schedule
        if schedule.decode_hardware is None:
            return _greatest(lambda rate: self.excess(rate) <= 1.0) / devices
        prompts = _greatest(lambda rate: self.latencies(rate)[0] <= self.targets.ttft_s)
        answers = _greatest(lambda rate: self.latencies(rate)[1] <= self.targets.tpot_s)
        if not prompts or not answers:
            return 0.0
        return 1.0 / (devices / prompts + (schedule.decode_devices or devices) / answers)

    def scale(self) -> float:
        """How many times the targets would have to be as long for nine of ten requests to meet them at the rate.

        Raises ScenarioError without a rate. Devices of prompts and of answers are divided in the best proportion.
        """
        asked = self.targets.requests_per_s
        if asked is None:
            raise ScenarioError("the scale of targets needs a rate: requests_per_s")
        schedule, devices = self.predictor.schedule, self.predictor.resolved.parallelism.devices
        if schedule.decode_hardware is None:
            return self.excess(asked)
        second, best = schedule.decode_devices or devices, math.inf
        for sixteenths in range(1, 16):
            share = sixteenths / 16.0
            ttft = self.latencies(asked / share)[0] / self.targets.ttft_s
            tpot = self.latencies(asked * second / devices / (1.0 - share))[1] / self.targets.tpot_s
            best = min(best, max(ttft, tpot))
        return best

    @cached_property
    def _alone_s(self) -> float:
        """Seconds of one prompt by itself."""
        return self.predictor.predict(1, self.scenario.input_tokens, self.scenario.output_tokens).ttft_s

    def _decode_s(self, running: float) -> float:
        """Seconds of a decode step of so many answers, in the middle of them."""
        lengths = self.scenario.input_tokens, self.scenario.output_tokens
        if self.predictor.schedule.decode_hardware is not None:
            low = max(1, math.floor(running))
            below, above = (self.predictor.predict(n, *lengths).tpot_s for n in (low, low + 1))
            return below + (above - below) * max(0.0, running - low)
        return self._step_s(0.0, running)

    def _riding_s(self, running: float) -> float:
        """Seconds of a step that a chunk of a prompt fills, answers included."""
        chunk = float(self.predictor.schedule.chunk_tokens)
        return self._step_s(max(1.0, min(chunk - running, self.scenario.input_tokens)), running)

    def _step_s(self, prompt: float, running: float) -> float:
        schedule, scenario = self.predictor.schedule, self.scenario
        kept = scenario.input_tokens + scenario.output_tokens / 2.0
        answers = (max(1.0, running), schedule.step_tokens, kept, 0.0, schedule.sampled_tokens)
        slices = ((1.0, prompt, scenario.input_tokens / 2.0, 0.0, 0.0), answers) if prompt else (answers,)
        return self.predictor.runner.step_cost(slices, self.shares)[0]

    def _running(self, wanted: Callable[[float], float]) -> float:
        """The number of running answers n with n = wanted(n), by repetition from one; infinite where they do not fit."""
        n = 1.0
        for _ in range(60):
            following = max(1.0, wanted(n))
            if following > self.most:
                return math.inf
            if following - n < 1e-3 * n:
                return following
            n = following
        return n

    def _steady(self, wanted: Callable[[float], float]) -> float:
        """Seconds of a step where answers have devices of their own."""
        running = self._running(wanted)
        return math.inf if math.isinf(running) else self._decode_s(running)

    def _prompt_tail(self, rate: float, prompt_s: float) -> float:
        rho = rate * prompt_s
        if rho >= 1.0:
            return math.inf
        waiting = prompt_s / (2.0 * (1.0 - rho))
        return prompt_s + waiting * max(0.0, math.log(rho / (1.0 - ATTAINED))) if rho else prompt_s


def _greatest(meets: Callable[[float], bool]) -> float:
    """The greatest rate that meets a condition which greater rates meet less."""
    low, high = 0.0, 1e-3
    while meets(high) and high < 1e6:
        low, high = high, high * 2.0
    for _ in range(24 if low else 0):
        middle = (low + high) / 2.0
        low, high = (middle, high) if meets(middle) else (low, middle)
    return low
