"""Speculative decoding as tasks: a drafter and instances that check, in turns or side by side, with accepted tokens drawn.

Durations of a draft and of a check come from elsewhere; here is only who waits for whom when a draft is rejected.
"""

from __future__ import annotations

import math

import numpy as np

from simulator.errors import ScenarioError
from simulator.events.engine import Schedule, simulate
from simulator.events.tasks import Net, Resource

ANSWER_TOKENS = 20000
"""Tokens that are generated to tell the mean."""


def speculation_net(
    draft_s: float,
    check_s: float,
    tokens: int,
    acceptance: float,
    servers: int = 0,
    answer: int = ANSWER_TOKENS,
    seed: int = 0,
) -> tuple[Net, int]:
    """The tasks of an answer, and how many tokens it has. Drafts come in blocks of `tokens`.

    Without `servers` a block is checked before the next is drafted, and a block that is kept whole yields one token more
    (arXiv 2211.17192). With them, a check begins at once and after every block, as short as leaves a server free, while
    drafting goes on; the check that finds a draft wrong gives the token in its place, and both begin again there (arXiv
    2405.14105). Raises ScenarioError.
    """  # fmt: skip
    if not 0.0 <= acceptance <= 1.0 or tokens < 1:
        raise ScenarioError(f"drafting needs tokens and an acceptance from 0 to 1, got {tokens} and {acceptance}")
    rng = np.random.default_rng(seed)
    net = Net()
    drafter = net.resource(Resource("draft", "unit"))
    checker = net.resource(Resource("check", "unit", slots=max(1, servers)))
    made = 0
    ready: list[int] = []
    block = tokens if servers < 1 else min(tokens, max(1, math.ceil(check_s / (draft_s * servers))))
    while made < answer:
        kept = _kept(rng, acceptance, answer - made)
        if servers < 1:
            kept = min(kept, tokens)
        drafted = list(ready)
        checked = -1
        if servers >= 1:
            checked = net.task(f"check from {made}", checker, check_s, after=ready)
        for _ in range(1 if servers < 1 else -(-kept // block)):
            drafted = [net.task(f"draft from {made}", drafter, block * draft_s, after=drafted)]
            checked = net.task(f"check from {made}", checker, check_s, after=drafted)
        made += kept + 1
        ready = [checked]
    return net, made


def seconds_per_token(
    draft_s: float, check_s: float, tokens: int, acceptance: float, servers: int = 0, seed: int = 0
) -> tuple[float, Schedule]:
    """Mean time of a token, and the schedule it was read from.

    >>> round(seconds_per_token(0.001, 0.01, 4, 1.0)[0] * 1e3, 2)
    2.8
    """
    net, made = speculation_net(draft_s, check_s, tokens, acceptance, servers, seed=seed)
    schedule = simulate(net)
    return schedule.seconds / made, schedule


def _kept(rng: np.random.Generator, acceptance: float, most: int) -> int:
    """Drafts that are kept before the first that is not."""
    if acceptance >= 1.0:
        return most
    return min(most, int(rng.geometric(1.0 - acceptance)) - 1)
