"""Several tokens per step: drafts by a small model, by heads or by look-up, checked together; parallel decoding.

Acceptance is a parameter: it depends on the texts. The step that checks reads weights and cache once for all its tokens.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.errors import ScenarioError
from simulator.graph.counts import SAMPLED, linear
from simulator.techniques.recipe import Helper, Recipe, Schedule
from simulator.techniques.registry import Count, Count0, Factor, Fraction, primitive

_ONCE = "how many tokens a decode step yields"


@primitive("speculative.draft", once=_ONCE)
def draft(
    schedule: Schedule,
    *,
    model: str,
    tokens: Count,
    acceptance: Fraction | None = None,
    accepted: Factor | None = None,
    tree: Count | None = None,
    hardware: str | None = None,
    overlap: Fraction = 0.0,
    servers: Count0 = 0,
    techniques: tuple[str, ...] = (),
) -> Schedule:
    """A draft model proposes `tokens` one after the other; the model checks them, or a `tree` of them, in one step.

    A step yields `accepted` tokens, or (1 - a^(k+1)) / (1 - a) with an acceptance of a per token (Leviathan et al., arXiv
    2211.17192, eq. 1). `overlap`: share of the drafting that proceeds beside the checking; the timeline works it out for
    `servers` instances that check while drafting goes on (arXiv 2405.14105).

    >>> round(draft(Schedule(), model="llama-3.2-1b", tokens=4, acceptance=0.8).gained_tokens, 2)
    3.36
    """
    checked = tree or tokens
    return replace(
        schedule,
        step_tokens=checked + 1.0,
        sampled_tokens=checked + 1.0,
        gained_tokens=_gain(tokens, acceptance, accepted),
        draft=Helper(model, hardware, techniques),
        draft_tokens=float(tokens),
        draft_overlap=overlap,
        draft_acceptance=acceptance,
        draft_servers=servers,
    )


@primitive("speculative.lookup", once=_ONCE)
def lookup(
    schedule: Schedule,
    *,
    tokens: Count,
    acceptance: Fraction | None = None,
    accepted: Factor | None = None,
    tree: Count | None = None,
) -> Schedule:
    """Drafts that cost nothing: from the prompt, an n-gram table, the input of an editing task."""
    checked = (tree or tokens) + 1.0
    gained = _gain(tokens, acceptance, accepted)
    return replace(schedule, step_tokens=checked, sampled_tokens=checked, gained_tokens=gained)


@primitive("speculative.heads", keeps=("cache_bytes",), once=_ONCE)
def heads(
    recipe: Recipe, *, heads: Count, accepted: Factor, tree: Count = 64, layers: Count0 = 1, vocabulary: bool = True
) -> Recipe:
    """Extra heads on the last hidden state each propose a later token; a tree of candidates is checked in one step.

    Each head is `layers` square layers and, with `vocabulary`, an output matrix (Medusa, arXiv 2401.10774).
    """
    graph = recipe.model.graph
    last = next((op for op in reversed(graph.ops) if op.block == "head" and op.kind == "gemm"), None)
    if last is None:
        raise ScenarioError(f"{graph.name} has no output head to draft from")
    extra = []
    if layers:
        extra.append(linear("draft_heads.layers", SAMPLED, graph.hidden, graph.hidden, dtype=graph.dtype,
                            repeat=heads * layers, block="head"))  # fmt: skip
    if vocabulary:
        extra.append(linear("draft_heads.out", SAMPLED, last.n, graph.hidden, dtype=graph.dtype, repeat=heads,
                            block="head", split="column"))  # fmt: skip
    schedule = replace(
        recipe.schedule, step_tokens=tree + 1.0, sampled_tokens=tree + 1.0, gained_tokens=float(accepted)
    )
    return replace(recipe.with_graph(graph.with_ops([*graph.ops, *extra])), schedule=schedule)


@primitive("speculative.parallel", once=_ONCE)
def parallel(schedule: Schedule, *, tokens: Factor, width: Factor | None = None) -> Schedule:
    """Every step yields `tokens` tokens without checking, from `width` positions (non-autoregressive, token smashing)."""
    positions = float(width or tokens)
    return replace(schedule, step_tokens=positions, sampled_tokens=positions, gained_tokens=float(tokens))


@primitive("speculative.recompute", once=_ONCE)
def recompute(schedule: Schedule, *, window: Count) -> Schedule:
    """No cache: every step computes the last `window` tokens again for one new one."""
    return replace(schedule, step_tokens=float(window), sampled_tokens=1.0, gained_tokens=1.0, past_limit=0.0)


def _gain(tokens: int, acceptance: float | None, accepted: float | None) -> float:
    if (acceptance is None) == (accepted is None):
        raise ScenarioError("give either acceptance (per token) or accepted (tokens per step)")
    if accepted is not None:
        return float(accepted)
    assert acceptance is not None
    return float(tokens + 1) if acceptance == 1.0 else (1.0 - acceptance ** (tokens + 1)) / (1.0 - acceptance)
