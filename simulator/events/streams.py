"""Requests of different lengths that keep coming through a pipeline of stages: iterations of uneven length, and bubbles.

Each micro-batch has so many slots; a request that is done leaves its slot to the next. Step times are the closed form's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.cost.runner import Shares
from simulator.events.engine import simulate
from simulator.events.layout import PICOSECONDS
from simulator.events.pipeline import Passage, stream_net
from simulator.graph.step import Slice, Step
from simulator.predict import Predictor

ZIPF = 0.4
"""Exponent of the lengths, between half and twice the scenario's own (SARATHI, arXiv 2308.16369, section 5.3)."""


@dataclass(slots=True)
class _Request:
    """What one request still has to do."""

    prompt: int
    output: int
    done: int = 0
    """Of its prompt."""
    made: int = 0


@dataclass(frozen=True, slots=True)
class StreamRun:
    """What a stream of requests did once its pipeline was full."""

    seconds: float
    tokens: int
    """Of prompts and answers."""
    bubble_s: float
    """Mean time that a stage stood still."""

    @property
    def tokens_per_s(self) -> float:
        """Throughput."""
        return self.tokens / self.seconds

    @property
    def bubble_s_per_token(self) -> float:
        """Idle time per token of work."""
        return self.bubble_s / self.tokens


def stream(
    built: Predictor,
    shares: Shares,
    slots: int,
    prompt: int,
    output: int,
    chunk: int = 0,
    turns: int = 300,
    seed: int = 0,
) -> StreamRun:
    """As many micro-batches as stages, each of `slots` requests whose prompts and answers keep their proportion.

    Without `chunk` a request that enters computes its whole prompt in one iteration, beside the others' decode steps
    (Orca); with it an iteration takes so many tokens: the decode steps and a piece of one prompt.
    """  # fmt: skip
    stages = built.resolved.parallelism.pp
    rng = np.random.default_rng(seed)
    rows: list[list[Passage]] = []
    worked: list[list[int]] = []
    for _ in range(stages):
        requests = [_begun(rng, prompt, output) for _ in range(slots)]
        row, tokens = [], []
        for _ in range(turns):
            step = _iteration(requests, chunk)
            built.runner.step(step, shares)
            seconds = built.runner.step_cost(step, shares)[0] - _send_s(built)
            row.append(Passage((seconds / stages,) * stages, _send_s(built) / max(1, stages - 1)))
            tokens.append(int(sum(part.sequences * part.query_tokens for part in step)))
            requests = [
                request if request.made < request.output else _drawn(rng, prompt, output) for request in requests
            ]
        rows.append(row)
        worked.append(tokens)
    return _measured(rows, worked, stages)


def _measured(rows: list[list[Passage]], worked: list[list[int]], stages: int) -> StreamRun:
    """The middle of the run, without its beginning and its end, on the last stage."""
    schedule = simulate(stream_net(rows))
    names = np.array([schedule.name(task) for task in range(len(schedule))])
    last = np.flatnonzero(np.asarray(schedule.column("resource")) == stages - 1)
    order = last[np.argsort(schedule.end[last], kind="stable")]
    order = order[len(order) // 5 : -len(order) // 5]
    begin, end = int(schedule.end[order[0]]), int(schedule.end[order[-1]])
    tokens = 0
    for name in names[order[1:]]:
        _, turn, _, row = str(name).split()
        tokens += worked[int(row)][int(turn)]
    busy = int((schedule.end - schedule.start)[order[1:]].sum())
    return StreamRun((end - begin) / PICOSECONDS, tokens, (end - begin - busy) / PICOSECONDS)


def _drawn(rng: np.random.Generator, prompt: int, output: int) -> _Request:
    """A request between half and twice the mean lengths, shorter ones being likelier: rank^-0.4."""
    scale = np.linspace(0.5, 2.0, 64)
    weight = np.arange(1, 65) ** -ZIPF
    factor = float(rng.choice(scale, p=weight / weight.sum()))
    return _Request(max(1, round(prompt * factor)), max(1, round(output * factor)))


def _begun(rng: np.random.Generator, prompt: int, output: int) -> _Request:
    """A request somewhere in its answer."""
    request = _drawn(rng, prompt, output)
    request.done, request.made = request.prompt, int(rng.integers(0, request.output))
    return request


def _iteration(requests: list[_Request], chunk: int) -> Step:
    """One step of a micro-batch, with what it does to its requests."""
    decoding = [request for request in requests if request.done >= request.prompt]
    parts: list[Slice] = []
    if decoding:
        past = sum(request.prompt + request.made for request in decoding) / len(decoding)
        parts.append(Slice(float(len(decoding)), 1.0, past))
    room = chunk - len(decoding)
    for request in requests:
        left = request.prompt - request.done
        if left <= 0 or (chunk and room <= 0):
            continue
        piece = min(left, room) if chunk else left
        parts.append(Slice(1.0, float(max(2, piece)), float(request.done), 0, 1.0 if piece == left else 0.0))
        request.done += piece
        if chunk:
            break
    for request in decoding:
        request.made += 1
    return tuple(parts)


def _send_s(built: Predictor) -> float:
    """Of the step timed last: seconds of sends between stages."""
    table, records = built.runner.table, built.runner.scratch.records
    return sum(float(record[0]) for op, record in zip(table.ops, records, strict=True) if op.axis == "pp")
