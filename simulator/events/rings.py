"""A training step whose sequence is divided among ranks: states of linear attention passed on in a ring, or gathered.

Every rank is simulated: a layer's pieces of the sequence compute side by side, and each needs the states of those before it
(LASP, arXiv 2404.02882; LASP-2, arXiv 2502.07563).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from simulator.cost.layout import R_TIME
from simulator.errors import ScenarioError
from simulator.events.engine import simulate
from simulator.events.tasks import Net, Resource
from simulator.events.timeline import Timeline
from simulator.trainer import Trainer, TrainingScenario

Exchange = Literal["ring", "gather"]
BACKWARD = (".backward", ".backward_sums", ".dgrad", ".wgrad", ".recompute")


@dataclass(frozen=True, slots=True)
class Ring:
    """What a layer of one rank does, and the links. Seconds."""

    forward_s: float
    backward_s: float
    before: float
    """Share of a pass that comes before a rank's own state is known."""
    beside: float
    """Share that needs no states of others: attention inside the piece."""
    hop_s: float
    """A state to the next rank."""
    gather_s: float
    """The states of all ranks to all."""


@dataclass(frozen=True, slots=True)
class RingTimeline:
    """A simulated step of all ranks."""

    timeline: Timeline
    model_flop_per_s: float
    mfu: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.timeline.seconds


def ring_net(layers: int, ranks: int, ring: Ring, exchange: Exchange) -> Net:
    """The tasks of a forward pass from the first rank on and a backward pass from the last one on. Raises ScenarioError."""
    if exchange not in get_args(Exchange):
        raise ScenarioError(f"states are exchanged by {' or '.join(get_args(Exchange))}, not '{exchange}'")
    net = Net()
    units = [net.resource(Resource(f"rank {rank}", "unit")) for rank in range(ranks)]
    links = [net.resource(Resource(f"link of rank {rank}", "link")) for rank in range(ranks)]
    network = net.resource(Resource("gathering", "link"))
    before: list[list[int]] = [[] for _ in range(ranks)]
    for pass_s, order in ((ring.forward_s, range(ranks)), (ring.backward_s, range(ranks - 1, -1, -1))):
        for _ in range(layers):
            own = [
                net.task("own piece", units[rank], pass_s * ring.before, after=before[rank]) for rank in range(ranks)
            ]
            inner = [net.task("inside the piece", units[rank], pass_s * ring.beside, after=[own[rank]])
                     for rank in range(ranks)]  # fmt: skip
            arrived: list[list[int]] = [[] for _ in range(ranks)]
            if exchange == "gather":
                gathered = net.task("gather states", network, ring.gather_s, kind="exchange", after=own)
                arrived = [[gathered] for _ in range(ranks)]
            else:
                state: list[int] = []
                for rank in order:
                    arrived[rank] = list(state)
                    state = [
                        net.task("send state", links[rank], ring.hop_s, kind="exchange", after=[own[rank], *state])
                    ]
            for rank in range(ranks):
                waits = dict.fromkeys([inner[rank], *arrived[rank]])
                rest_s = pass_s * (1.0 - ring.before - ring.beside)
                before[rank] = [net.task("with states", units[rank], rest_s, after=waits)]
    return net


def simulate_ring(
    scenario: TrainingScenario, ranks: int, exchange: Exchange, bytes_per_s: float, latency_s: float
) -> RingTimeline:
    """A step of `ranks` that each hold `sequence_tokens` of one sequence.

    Layers whose attention is not linear count as if it were. Raises ScenarioError for a model without states.
    """
    trainer = Trainer(scenario)
    runner = trainer.runners[0]
    pairs = list(zip(runner.table.ops, runner.scratch.records, strict=True))
    scans = [
        (op, float(record[R_TIME])) for op, record in pairs if op.kind == "scan" and not op.name.endswith(BACKWARD)
    ]
    if not scans:
        raise ScenarioError(f"{runner.table.ops[0].name}: there is no linear attention whose states could be passed on")
    layers = max(1, round(sum(float(op.repeat) for op, _ in scans)))
    size = max(
        t.write.sequences * t.bytes_per_element * scenario.micro_batch
        for op, _ in scans
        for t in op.tensors
        if t.role == "state"
    )
    spent, _ = trainer.passes("")
    half = 0.5 * sum(seconds for _, seconds in scans) / spent["forward"]
    first = sum(float(record[R_TIME]) for op, record in pairs if op.name == "qkv_proj") / spent["forward"]
    ring = Ring(
        spent["forward"] / layers, spent["backward"] / layers, first + half, half,
        latency_s + size / bytes_per_s, latency_s + (ranks - 1) * size / bytes_per_s,
    )  # fmt: skip
    schedule = simulate(ring_net(layers, ranks, ring, exchange))
    timeline = Timeline("train", schedule, {}, 0.0, 0.0, spent["forward"] + spent["backward"], float(trainer.tokens))
    rate = sum(part.useful_flops for part in trainer.parts) / timeline.seconds
    return RingTimeline(timeline, rate, rate / trainer.peak_flop_per_s)
