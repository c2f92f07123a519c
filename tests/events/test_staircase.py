"""Waves of tiles over cores against measured products on an A100: the staircase of its rate over the number of tiles."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import pandas as pd
import pytest

from simulator.events.engine import simulate
from simulator.events.service import waves
from simulator.events.tasks import Net, Resource

TABLE = Path(__file__).parents[2] / "validation/measured/kernels/a100_sxm/gemm__vllm__0.14.0__gemm_perf.parquet"
CORES, ROWS, COLUMNS = 108, 256, 128
"""Multiprocessors of an A100, and the library's largest tile, of which one runs on each."""


def tiles_of(m: int, n: int) -> int:
    return math.ceil(m / ROWS) * math.ceil(n / COLUMNS)


def seconds(tiles: int) -> float:
    """Waves of so many tiles of a second each, as a lowered op has them."""
    net = Net()
    unit = net.resource(Resource("cores", "unit", slots=CORES))
    before: list[int] = []
    whole = math.ceil(tiles / CORES)
    for width, share in waves(tiles, CORES, whole, 16):
        before = [net.task("wave", unit, share * whole, after=before, width=width)]
    return simulate(net).seconds


@lru_cache(maxsize=1)
def measured() -> pd.DataFrame:
    table = pd.read_parquet(TABLE)
    table = table[(table.gemm_dtype == "bfloat16") & (table.m >= 1024) & table.k.between(3000, 5200)].copy()
    table["tiles"] = [tiles_of(m, n) for m, n in zip(table.m, table.n, strict=True)]
    table["flop_per_s"] = 2.0 * table.m * table.n * table.k / table.latency * 1e3
    return table[table.tiles.between(97, 400)]


def test_many_products_are_there() -> None:
    assert len(measured()) >= 20
    assert measured().tiles.nunique() >= 7


@pytest.mark.parametrize("tiles", sorted(set(measured().tiles)))
def test_rate_follows_the_waves(tiles: int) -> None:
    """Rate over that of 320 tiles, which fill three waves to 99%: within 8% of the simulated waves."""
    table = measured()
    full = table[table.tiles == 320].flop_per_s.median()
    found = table[table.tiles == tiles].flop_per_s.median() / full
    expected = (tiles / seconds(tiles)) / (320 / seconds(320))
    assert found == pytest.approx(expected, rel=0.08)


def test_one_tile_more_than_a_wave_takes_two() -> None:
    assert seconds(109) == pytest.approx(2 * seconds(108))
    table = measured()
    just_over = table[table.tiles == 112].flop_per_s.median()
    nearly_full = table[table.tiles == 192].flop_per_s.median()
    assert nearly_full > 1.5 * just_over
