"""What a timeline is asked to model event by event, and what it takes as the closed form has it.

A switch per kind of resource, how far loads run ahead, and whether collectives overlap with what produces their data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from simulator.errors import ScenarioError, UnknownNameError

Resources = Literal["unit", "memory", "flash", "link", "host"]
Fidelity = Literal["analytic", "event"]
KINDS: tuple[Resources, ...] = get_args(Resources)
Collectives = Literal["after", "tiles", "blocks", "halves"]
"""after: nothing. tiles: it starts with the first tiles of what it exchanges, rather than with the last. blocks: the block
that follows does not wait for it, the one after that does. halves: the other half of the tokens computes meanwhile."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Each kind of resource: `analytic` as the closed form counts it, `event` by its own mechanism."""

    unit: Fidelity = "event"
    """event: units with a scratchpad stream the weights of further ops while one computes, in one fused program."""
    memory: Fidelity = "event"
    """event: DRAM by the timings of its banks, where its file has them, in place of a calibrated share."""
    flash: Fidelity = "event"
    """event: by dies, channels and pages."""
    link: Fidelity = "event"
    """event: what lies beyond a link is fetched ahead of its use."""
    host: Fidelity = "event"
    """event: kernels are issued one by one, and wait for their launch."""
    prefetch_layers: float = 1.0
    """Layers whose operands are fetched over a link before they are used; 0 fetches on demand."""
    prefetch_experts: bool = False
    """Routed experts are known before their layer (pre-gating); otherwise they are fetched on demand."""
    stream: bool = False
    """Only units of the main part compute: operands in further memories are brought to them, as offloading engines do."""
    units: str | None = None
    """Only units with this in their name compute, such as `cpu`; None: all."""
    collectives: Collectives | None = None
    """What runs beside an exchange among ranks; None: what the scenario's techniques say, or nothing."""
    through_host: bool = False
    """What a drive holds comes to the main part by way of the host's memory, in place of a direct transfer."""
    recompute_cache: float = 0.0
    """Share of the cache to be fetched that is computed again from hidden states, which are fetched in its place."""
    chunks: int = 16
    """Most pieces that the work of one op is cut into."""

    def __post_init__(self) -> None:
        if self.chunks < 1 or self.prefetch_layers < 0:
            raise ScenarioError(
                f"chunks must be at least 1 and prefetch_layers at least 0, not {self.chunks} and {self.prefetch_layers:g}"
            )
        if not 0.0 <= self.recompute_cache <= 1.0:
            raise ScenarioError(f"a timeline takes recompute_cache from 0 to 1, not {self.recompute_cache}")

    def only(self, *kinds: Resources) -> Policy:
        """This policy with these kinds as they are and the others analytic."""
        rest: dict[str, Fidelity] = {kind: "analytic" for kind in KINDS if kind not in kinds}
        return replace(self, **rest)  # type: ignore[arg-type]


ANALYTIC = Policy(unit="analytic", memory="analytic", flash="analytic", link="analytic", host="analytic")
"""The closed form, spread over time."""


def policy_from(switches: tuple[str, ...], **others: object) -> Policy:
    """The policy that `KIND=analytic|event` switches describe; `all` stands for every kind.

    >>> policy_from(("all=analytic", "host=event")).host
    'event'
    """
    chosen: dict[str, object] = {}
    for switch in switches:
        kind, _, fidelity = switch.partition("=")
        if kind not in (*KINDS, "all"):
            raise UnknownNameError("resource kind", kind, {*KINDS, "all"})
        if fidelity not in get_args(Fidelity):
            raise ScenarioError(f"--fidelity takes KIND=analytic or KIND=event, not '{switch}'")
        chosen.update(dict.fromkeys(KINDS if kind == "all" else (kind,), fidelity))
    return Policy(**{**chosen, **others})  # type: ignore[arg-type]
