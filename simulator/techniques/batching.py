"""How requests become steps: shared prefixes, samples per prompt, padding, blocks of the cache, mixed steps.

Queues and arrivals are not here; a static batch stands for a step of a loaded server.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.techniques.recipe import Schedule
from simulator.techniques.registry import Budget, Count, Count0, Factor, primitive


@primitive("batching.shared_prefix", once="what the sequences share")
def shared_prefix(schedule: Schedule, *, tokens: Budget, read_once: bool = True, known: bool = True) -> Schedule:
    """All sequences begin with the same tokens: stored once, computed once (or, `known`, before they arrive).

    `read_once`: queries of all sequences meet the prefix in one product, so that it is read once per step (Hydragen,
    arXiv 2402.05099); otherwise every sequence reads it.
    """
    return replace(
        schedule, shared_tokens=tokens, read_once=read_once, known_tokens=tokens if known else schedule.known_tokens
    )


@primitive("batching.samples", once="what the sequences share")
def samples(schedule: Schedule, *, count: Count, read_once: bool = False) -> Schedule:
    """`count` answers to each prompt, which is computed and stored once."""
    return replace(schedule, samples=count, read_once=read_once)


@primitive("batching.padding", once="how batches are padded")
def padding(schedule: Schedule, *, factor: Factor) -> Schedule:
    """Tokens computed over tokens asked for: a batch runs until its longest member is done."""
    return replace(schedule, padding=factor)


@primitive("batching.blocks", once="how the cache is allocated")
def blocks(schedule: Schedule, *, tokens: Count = 16, reserved: Count0 = 0) -> Schedule:
    """The cache is allocated in blocks; or for `reserved` tokens of every sequence, used or not."""
    return replace(schedule, block_tokens=tokens, reserved_tokens=reserved)


@primitive("batching.mixed", once="what a step holds")
def mixed(schedule: Schedule, *, chunk: Count = 512) -> Schedule:
    """Prompts in chunks that ride with the decode steps of other sequences (Sarathi, arXiv 2308.16369)."""
    return replace(schedule, chunk_tokens=chunk)


@primitive("batching.passes", once="how many passes a sample takes")
def passes(schedule: Schedule, *, count: Factor) -> Schedule:
    """Forward passes of one sample: denoising steps, times the evaluations of each (guidance takes two)."""
    return replace(schedule, passes=float(count))
