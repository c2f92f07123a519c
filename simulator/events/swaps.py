"""A training step whose activations leave the device: swapped to the host beside the passes, or computed again.

Layer by layer: what the host has room for is stored after a layer's forward pass and fetched before its backward pass; the
rest is recomputed from the layer's input, but for attention, whose output always travels (MEMO, arXiv 2407.12117).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simulator.cost.layout import R_ENERGY
from simulator.errors import ScenarioError
from simulator.events.engine import simulate
from simulator.events.tasks import Net, Resource
from simulator.events.timeline import Timeline
from simulator.trainer import Trainer, TrainingScenario

CHOICES = 16
"""Shares of swapping that are tried, up to what the host has room for."""
BUFFERS = 2
"""Layers whose activations lie on the device at a time."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of one device. Seconds and bytes."""

    forward_s: float
    backward_s: float
    recompute_s: float
    """To compute again what is not swapped, of all that can be."""
    kept_bytes: float
    """Its input and the output of its attention, which always travel."""
    other_bytes: float
    """What is swapped or recomputed."""


@dataclass(frozen=True, slots=True)
class SwapTimeline:
    """A simulated training step with swaps."""

    timeline: Timeline
    swapped: float
    """Share of what could be recomputed that is swapped instead."""
    model_flop_per_s: float
    mfu: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.timeline.seconds


def swap_net(
    layers: int,
    layer: Layer,
    bytes_per_s: float,
    back_bytes_per_s: float,
    swapped: float,
    update_s: float = 0.0,
    joules: float = 0.0,
) -> Net:
    """The tasks of one micro-batch: passes on the device, one way of the link beside each of them."""  # fmt: skip
    net = Net()
    unit = net.resource(Resource("device", "unit"))
    out = net.resource(Resource("device to host", "link", bytes_per_s=back_bytes_per_s))
    back = net.resource(Resource("host to device", "link", bytes_per_s=bytes_per_s))
    size = layer.kept_bytes + swapped * layer.other_bytes
    room = net.buffer("activations on the device", BUFFERS * size + BUFFERS)
    backward_s = layer.backward_s + (1.0 - swapped) * layer.recompute_s
    per_s = joules / (layers * (layer.forward_s + backward_s) + update_s)
    before: list[int] = []
    stored: list[int] = []
    for number in range(layers):
        before = [
            net.task(f"forward {number}", unit, layer.forward_s, after=before, takes=(room, size),
                     joules=per_s * layer.forward_s)
        ]  # fmt: skip
        stored.append(net.task(f"store {number}", out, bytes=size, kind="store", after=before, gives=(room, size)))
    # Layers come back in the order of the backward pass, once the forward pass needs no more room.
    turned, fetched = before[-1], before[-1]
    for number in reversed(range(layers)):
        fetched = net.task(
            f"fetch {number}", back, bytes=size, kind="load", after=dict.fromkeys([stored[number], turned, fetched]),
            takes=(room, size),
        )  # fmt: skip
        before = [
            net.task(f"backward {number}", unit, backward_s, after=[*before, fetched], gives=(room, size),
                     joules=per_s * backward_s)
        ]  # fmt: skip
    net.task("update", unit, update_s, after=before, joules=per_s * update_s)
    return net


def simulate_swaps(
    scenario: TrainingScenario,
    host_bytes: float,
    bytes_per_s: float,
    back_bytes_per_s: float | None = None,
    divided: int = 1,
) -> SwapTimeline:
    """A step of one device that may store `host_bytes` in the host, with the share of swaps that makes it shortest.

    `divided`: ranks that the tokens of activations are divided among. Raises ScenarioError for a host without room for the
    inputs of the layers.
    """  # fmt: skip
    trainer = Trainer(scenario)
    layers = _layers(trainer)
    layer = _layer(trainer, layers, divided)
    room = host_bytes - layers * layer.kept_bytes
    if room < 0.0:
        raise ScenarioError(
            f"the inputs of {layers} layers take {layers * layer.kept_bytes / 1e9:.1f} GB, "
            f"and the host has room for {host_bytes / 1e9:.1f} GB"
        )
    most = min(1.0, room / (layers * layer.other_bytes)) if layer.other_bytes > 0.0 else 1.0
    spent, _ = trainer.passes("")
    power = trainer.runners[0].table.power
    joules = sum(float(runner.scratch.totals[R_ENERGY]) for runner in trainer.runners)
    back = back_bytes_per_s or bytes_per_s
    update_s = spent["update"] + spent["assemble"]
    tried = []
    for part in range(CHOICES + 1):
        swapped = most * part / CHOICES
        schedule = simulate(swap_net(layers, layer, bytes_per_s, back, swapped, update_s, joules))
        tried.append((schedule.seconds, -swapped, schedule))
    _, swapped, schedule = min(tried, key=lambda one: one[:2])
    swapped = -swapped
    closed = layers * (layer.forward_s + layer.backward_s + (1.0 - swapped) * layer.recompute_s) + update_s
    timeline = Timeline("train", schedule, {}, power.static_w, power.static_w, closed, float(trainer.tokens))
    flops = sum(part.useful_flops for part in trainer.parts) / trainer.parallelism.tp
    rate = flops / timeline.seconds
    return SwapTimeline(timeline, swapped, rate, rate / trainer.peak_flop_per_s)


def _layers(trainer: Trainer) -> int:
    return max(1, round(max(float(op.repeat) for part in trainer.parts for op in part.graph.ops)))


def _layer(trainer: Trainer, layers: int, divided: int) -> Layer:
    """A layer's mean; embedding and head are spread over the layers."""
    if trainer.scenario.recompute != "none":
        raise ScenarioError("swapping decides itself what is recomputed; leave recompute at none")
    spent, _ = trainer.passes("")
    again = 0.0
    for runner in trainer.runners:
        for op, record in zip(runner.table.ops, runner.scratch.records, strict=True):
            named: Any = op.name
            inside = op.block not in ("embedding", "head", "optimizer", "communication")
            if (
                inside
                and op.kind != "attention"
                and not named.endswith((".dgrad", ".wgrad", ".backward", ".backward_sums"))
            ):
                again += float(record[0])
    part = trainer.parts[0]
    seen = part.slice
    hidden = seen.sequences * seen.query_tokens * part.graph.hidden * 2.0 / divided
    kept = min(2.0 * hidden, trainer.memory_by_role_bytes["activation"] / divided / layers)
    whole = trainer.memory_by_role_bytes["activation"] / divided / layers
    return Layer(spent["forward"] / layers, spent["backward"] / layers, again / layers, kept, max(0.0, whole - kept))
