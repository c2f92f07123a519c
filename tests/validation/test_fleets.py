"""Fleets as sides of a comparison."""

from __future__ import annotations

import pytest

from simulator.errors import ScenarioError
from validation.claimspec import ScenarioSpec
from validation.comparison import comparisons
from validation.fleets import Fleet


def test_a_mix_costs_no_more_than_one_type() -> None:
    spec = ScenarioSpec(
        name="example", reason="the planner's own example", baseline={"fleet": "melange-example", "hardware": "a10g"},
        technique={"hardware": None},
    )  # fmt: skip
    (found,) = comparisons(spec)
    assert found.metric("cost_reduction") >= 1.0
    assert found.technique.value("usd_per_hour") > 0.0


def test_what_a_fleet_does_not_have() -> None:
    with pytest.raises(ScenarioError, match="no batch; it has fleet"):
        Fleet({"fleet": "melange-example", "batch": 2})
    with pytest.raises(ScenarioError, match="no quantity 'tpot_s'"):
        Fleet({"fleet": "melange-example"}).value("tpot_s")
    with pytest.raises(ScenarioError, match="rents no 't4'"):
        Fleet({"fleet": "melange-example", "hardware": "t4"}).value("usd_per_hour")
