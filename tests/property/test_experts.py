"""How many experts a step reaches: against every possible choice, against thrown dice, over parallel ranks."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.graph.architecture import Architecture, Attention, Block, MixtureOfExperts
from simulator.graph.build import model_from_architecture
from simulator.graph.op import Routing
from simulator.techniques.parallel import Parallelism, shard


@pytest.mark.parametrize(("experts", "top_k", "tokens"), [(3, 1, 4), (4, 2, 3), (5, 2, 2), (4, 3, 3), (4, 4, 2)])
def test_touched_equals_the_mean_over_every_choice(experts: int, top_k: int, tokens: int) -> None:
    choices = list(combinations(range(experts), top_k))
    sizes = [len(set().union(*(set(choice) for choice in taken))) for taken in product(choices, repeat=tokens)]
    assert Routing(experts, top_k).touched(tokens) == pytest.approx(sum(sizes) / len(sizes), rel=1e-12)


@pytest.mark.parametrize(("experts", "top_k", "tokens"), [(64, 8, 5), (128, 8, 32), (256, 8, 64), (16, 1, 20)])
def test_touched_equals_thrown_dice(experts: int, top_k: int, tokens: int) -> None:
    generator = np.random.default_rng(20)
    runs = 300
    found = np.array(
        [
            np.unique(np.argpartition(generator.random((tokens, experts)), top_k - 1, axis=1)[:, :top_k]).size
            for _ in range(runs)
        ]
    )
    error = 4.0 * found.std() / np.sqrt(runs) + 1e-9
    assert Routing(experts, top_k).touched(tokens) == pytest.approx(found.mean(), abs=error)


@given(st.integers(1, 256), st.integers(1, 16), st.floats(0, 1e4), st.floats(0, 100))
def test_touched_is_bounded_and_grows(experts: int, top_k: int, tokens: float, more: float) -> None:
    routing = Routing(experts, min(top_k, experts))
    assert 0 <= routing.touched(tokens) <= min(experts, routing.top_k * max(tokens, 1)) * (1 + 1e-12)
    assert routing.touched(tokens + more) >= routing.touched(tokens) * (1 - 1e-12)


@settings(max_examples=60)
@given(
    st.sampled_from([8, 16, 64]),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([(1, 2), (1, 4), (1, 8), (2, 2), (2, 4), (4, 2), (4, 1), (8, 1)]),
    st.sampled_from([1, 3, 32, 500]),
)
def test_ranks_together_touch_what_all_their_tokens_reach(
    experts: int, top_k: int, ranks: tuple[int, int], tokens: int
) -> None:
    """`tokens` of each of dp replicas meet at experts that all tp x dp ranks divide; the cost model reads the share
    1 - (1 - k/E)^(rows / k) of a rank's experts."""
    tp, dp = ranks
    routed = MixtureOfExperts(experts, top_k, 512)
    network = Architecture("drawn", "drawn", 1000, 512, (Block(Attention(8, 8, 64), routed, 2),), None)
    division = Parallelism(tp=tp, dp=dp, ep=tp * dp)
    graph = shard(model_from_architecture(network).graph, division)
    for op in graph.ops:
        if op.routing is None or op.kind != "gemm":
            continue
        rows = op.rows.tokens * tokens
        chance = min(1.0, op.routing.top_k / op.routing.experts)
        local = op.groups * (1.0 - (1.0 - chance) ** (rows / op.routing.top_k))
        assert local * tp * dp == pytest.approx(Routing(experts, top_k).touched(tokens * dp), rel=1e-9), op.name
