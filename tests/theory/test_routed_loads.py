"""Loads of routed experts and the grouped products over them: closed forms against drawn loads and hand-counted tiles."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from simulator.cost.collective import collective_time, library_time
from simulator.cost.experts import moment, rank_load, row_tiles, touched_share
from simulator.cost.layout import ALL_GATHER, ALL_REDUCE, COLLECTIVE, LinkRow, OpRow

BASE = OpRow(*[0.0] * len(OpRow._fields))


def routed(experts: int, top_k: float, exponent: float, ranks: int = 1) -> OpRow:
    return BASE._replace(
        experts=float(experts), groups=float(experts), top_k=top_k, exponent=exponent, ranks=float(ranks)
    )


def drawn(experts: int, top_k: int, tokens: int, exponent: float, seed: int) -> np.ndarray:
    """Rows of each expert under a power law on 1 to 0.8 of the tokens, in whole tokens."""
    h = 1.0 - exponent
    shares = ((0.8 * tokens) ** h * (u := np.random.default_rng(seed).random(experts)) + 1.0 - u) ** (1.0 / h)
    return np.round(shares / shares.sum() * tokens * top_k)


@pytest.mark.parametrize("exponent", [1.01, 1.2])
@pytest.mark.parametrize("tokens", [512, 4096, 16384])
@pytest.mark.parametrize("tile", [16.0, 64.0, 128.0])
def test_power_law_tiles_are_those_of_drawn_loads(exponent: float, tokens: int, tile: float) -> None:
    op = routed(256, 8.0, exponent)
    rows = 8.0 * tokens
    counted = np.mean([np.ceil(drawn(256, 8, tokens, exponent, seed) / tile).sum() for seed in range(20)])
    active = 256 * touched_share(op, rows)
    assert row_tiles(op, rows, active, 1.0, tile) == pytest.approx(counted, rel=0.12)


@pytest.mark.parametrize("exponent", [1.01, 1.2])
def test_the_fullest_rank_is_that_of_drawn_loads(exponent: float) -> None:
    tokens, ranks = 8192, 8
    loads = [drawn(256, 8, tokens, exponent, seed).reshape(ranks, -1).sum(axis=1) for seed in range(200)]
    found = np.mean([load.max() / load.mean() for load in loads])
    op = routed(256 // ranks, 8.0 / ranks, exponent, ranks)
    assert rank_load(op, 8.0 * tokens / ranks) == pytest.approx(found, rel=0.2)


def test_even_and_independent_loads() -> None:
    even, alone = routed(64, 4.0, -1.0), routed(64, 4.0, 0.0)
    assert touched_share(even, 32.0) == 0.5
    assert row_tiles(even, 640.0, 64.0, 1.0, 16.0) == 64.0
    assert row_tiles(even, 64.0 * 17.0, 64.0, 1.0, 16.0) == 128.0
    assert touched_share(alone, 4.0) == pytest.approx(4.0 / 64.0)
    assert rank_load(alone, 1e6) == 1.0
    split = routed(8, 0.5, 0.0, 8)
    assert rank_load(split, 1e3) > rank_load(split, 1e6) > 1.0
    assert moment(1.01, 0.0, 50.0) == pytest.approx(1.0)


def test_more_tokens_never_fill_fewer_tiles() -> None:
    for exponent in (-1.0, 0.0):
        op = routed(32, 1.0, exponent, 8)
        counts = []
        for tokens in range(1, 3000, 7):
            rows = float(tokens)
            load = rank_load(op, rows)
            counts.append(row_tiles(op, rows, 32.0 * touched_share(op, rows), load, 64.0))
        assert all(b >= a * (1 - 1e-12) for a, b in pairwise(counts)), exponent


def test_a_library_takes_the_cheaper_protocol_and_one_step_per_rank() -> None:
    link = LinkRow(100e9, 2e-6, 0.0, 0.0, 0.0, 0.0)._replace(
        library_bytes_per_s=100e9, library_latency_s=5e-6, hop_s=1e-6, quick_bytes_per_s=25e9, slow_s=4e-6
    )
    gather = BASE._replace(kind=float(COLLECTIVE), collective=float(ALL_GATHER), groups=8.0)
    assert collective_time(gather, link, 1.0, 0.0) == pytest.approx(5e-6 + 7e-6, rel=1e-4)
    assert collective_time(gather, link, 8e9, 0.0) == pytest.approx(5e-6 + 7 * 5e-6 + 7e9 / 100e9)
    assert library_time(link, 1.0, 0.0) == pytest.approx(6e-6)
    reduce = gather._replace(collective=float(ALL_REDUCE))
    small = collective_time(reduce, link._replace(one_shot=1.0, direct_bytes_per_s=50e9, second_s=3e-6), 1.0, 0.0)
    assert small == pytest.approx(2e-6, rel=1e-3)
