"""Depthwise convolutions have one column per group: lanes compute them, and no tile is padded for them."""

from __future__ import annotations

import pytest

from simulator.predict import predictor
from simulator.scenario import Scenario


@pytest.mark.parametrize("hardware", ["a100-sxm4-80gb", "xeon-8380", "raspberry-pi-5", "snapdragon-888"])
@pytest.mark.parametrize("batch", [1, 64])
def test_lanes_take_a_filter_per_channel(hardware: str, batch: int) -> None:
    asked = predictor(Scenario(model="mobilenet-v2", hardware=hardware, engine="native", batch=batch))
    found = asked.predict(batch, 1, 1)
    table = asked.runner.table
    rows = {op.name: index for index, op in enumerate(table.ops)}
    depthwise = [op for op in found.ops() if op.op.endswith(".depthwise")]
    assert len(depthwise) > 5
    for op in depthwise:
        unit = table.unit_names.index(op.unit)
        lanes = min(table.rates[rows[op.op]][unit], table.units[unit].vector_flop_per_s)
        assert op.flops / table.rates[rows[op.op]][unit] <= op.time_s
        assert op.compute_s <= 2.001 * op.flops / (lanes * table.efficiency.gemm_compute)
