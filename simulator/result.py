"""What a prediction answers: numbers under stable keys, how sure they are, where they come from, and each op's terms.

The same frame of ops serves tables, charts and tests. Drawing is left to `simulator.views`, loaded when asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from simulator.errors import CapacityError
from simulator.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

    from simulator.spec.interval import Regime

KEYS = (
    "ttft_s", "tpot_s", "e2el_s", "output_tokens_per_s", "total_tokens_per_s", "weight_bytes", "kv_bytes",
    "activation_bytes", "memory_bytes", "capacity_bytes", "fits", "prefill_energy_j", "energy_j_per_output_token",
    "power_w", "usd_per_million_output_tokens", "bound",
)  # fmt: skip
"""Keys of the JSON form, in order, before `interval` and `provenance`."""


@dataclass(frozen=True, slots=True)
class OpCost:
    """One op of one step, all its repeats, with every term of its time."""

    phase: str
    """prefill or decode."""
    op: str
    block: str
    kind: str
    unit: str
    """The compute unit it runs on, or the link."""
    time_s: float
    compute_s: float
    memory_s: Mapping[str, float]
    """Per memory, at its full bandwidth."""
    cache_s: float
    link_s: float
    launch_s: float
    bound: str
    """The largest term: compute, memory NAME, cache, link or launch."""
    share: float
    """Of its phase."""
    flops: float
    memory_bytes: Mapping[str, float]
    energy_j: float
    """Dynamic only."""

    @property
    def bytes(self) -> float:
        """Moved from all memories."""
        return sum(self.memory_bytes.values())


class Run(Protocol):
    """What a prediction was computed from: answers questions about it that cost time, when they are asked."""

    def interval(self, prediction: Prediction, regime: Regime = "static") -> dict[str, tuple[float, float]]:
        """90% interval per key, of a batch that starts together or of steady serving at its size."""

    def provenance(self) -> dict[str, Any]:
        """The names behind the prediction and how well founded it is."""

    def bound(self) -> str:
        """What most of the time goes to."""

    def energy_by_component_j(self, prediction: Prediction) -> dict[str, float]:
        """compute, cache, each memory, links, static; sums to the run's energy."""

    def advice(self) -> str | None:
        """What would make it fit, where it does not."""

    def ops(self) -> tuple[OpCost, ...]:
        """Every op of the prefill step and of the middle decode step."""


@dataclass(slots=True)
class Prediction:
    """The answer to one scenario. Bytes, joules and watts are of all devices together."""

    scenario: Scenario
    ttft_s: float
    """Arrival to first token; with prompts of a batch prefilled together, and with the wait for a turn if not all fit."""
    tpot_s: float
    """(E2EL - TTFT) / (output_tokens - 1)."""
    e2el_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    weight_bytes: float
    kv_bytes: float
    """KV cache and recurrent state of the whole batch at its full length."""
    activation_bytes: float
    capacity_bytes: float
    """Usable for tensors under the engine's policy."""
    fits: bool
    """The whole batch is resident at once."""
    prefill_energy_j: float
    energy_j: float
    """Of the whole run."""
    energy_j_per_output_token: float
    """All energy of the run over its output tokens."""
    power_w: float
    """Average."""
    usd_per_million_output_tokens: float | None
    devices: int
    turns: int
    """How many turns the batch takes because its cache does not fit at once."""
    run: Run = field(repr=False, compare=False)

    @property
    def memory_bytes(self) -> float:
        """Weights, cache and activations."""
        return self.weight_bytes + self.kv_bytes + self.activation_bytes

    @property
    def memory_by_role_bytes(self) -> dict[str, float]:
        """The parts of `memory_bytes`."""
        return {"weights": self.weight_bytes, "kv cache and state": self.kv_bytes, "activations": self.activation_bytes}

    @property
    def bound(self) -> str:
        """What most of the time goes to: compute, memory NAME, cache, link, launch or host."""
        return self.run.bound()

    @property
    def interval(self) -> Mapping[str, tuple[float, float]]:
        """90% interval per key."""
        return self.run.interval(self)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Names, degrees of parallelism, calibration and its tag, price, and every assumed number."""
        return self.run.provenance()

    @property
    def energy_by_component_j(self) -> Mapping[str, float]:
        """compute, cache, each memory, links, static; sums to the run's energy."""
        return self.run.energy_by_component_j(self)

    @property
    def advice(self) -> str | None:
        """What would make it fit, where it does not."""
        return self.run.advice()

    def ops(self) -> tuple[OpCost, ...]:
        """Every op of the prefill step and of the middle decode step, with all terms."""
        return self.run.ops()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        found: dict[str, Any] = {key: getattr(self, key) for key in KEYS}
        found["interval"] = {key: list(bounds) for key, bounds in self.interval.items()}
        found["provenance"] = dict(self.provenance)
        return found

    def require_fit(self) -> Prediction:
        """This prediction, if everything fits. Raises CapacityError with the largest tensors otherwise."""
        if self.fits:
            return self
        largest = sorted(self.memory_by_role_bytes.items(), key=lambda pair: -pair[1])
        raise CapacityError(self.memory_bytes, self.capacity_bytes, largest)

    def to_frame(self) -> pd.DataFrame:
        """The ops as a frame, a row per op and phase."""
        from simulator.views.frames import ops_frame

        return ops_frame(self.ops())

    def roofline(self) -> Any:
        """The hierarchical roofline of the ops as a Plotly figure."""
        from simulator.views.roofline import roofline_figure

        return roofline_figure(self)

    def explain(self) -> str:
        """Every op with its terms, and what would help most, as text."""
        from simulator.views.text import explain_text

        return explain_text(self)

    def _repr_html_(self) -> str:
        from simulator.views.text import prediction_html

        return prediction_html(self)
