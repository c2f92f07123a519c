"""Claims through the timeline: quantities of simulated sides, options that do not exist, and what `paper` shows."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from simulator.cli.main import main
from simulator.errors import ScenarioError
from validation.claimspec import ScenarioSpec
from validation.comparison import Comparison, comparisons
from validation.simulated import Simulated, SimulatedTraining
from validation.verdicts import claim_files, load_claims


def spec(**values: object) -> ScenarioSpec:
    base = {"model": "llama-2-7b", "hardware": "server-a100", "engine": "native", "batch": 4, "output_tokens": 8}
    return ScenarioSpec.model_validate(
        {"name": "x", "reason": "a test", "baseline": {**base, "timeline": True}, **values}
    )


def first(scenario: ScenarioSpec) -> Comparison:
    return next(iter(comparisons(scenario)))


def test_times_come_from_the_timeline() -> None:
    """On demand and ahead differ only in the timeline's policy, and so do their times; bytes are the same."""
    streamed = {"techniques": ["superpipeline"]}
    found = first(spec(technique={**streamed, "timeline": {"prefetch_layers": 0.0}}))
    ahead = first(spec(technique=streamed))
    assert found.technique.value("tpot_s") > ahead.technique.value("tpot_s")
    assert found.technique.value("weight_bytes") == ahead.technique.value("weight_bytes")
    assert isinstance(ahead.technique._run(), Simulated)
    assert 0.0 <= ahead.technique.value("hidden_share") <= 1.0
    busy = ahead.technique.value("busy.ddr4 to gpu")
    assert 0.9 < busy <= 1.0
    assert ahead.technique.value("critical.ddr4 to gpu") <= busy
    assert ahead.technique.value("energy_j") == pytest.approx(
        ahead.technique.value("power_w") * (ahead.technique.value("ttft_s") + 7 * ahead.technique.value("tpot_s")),
        rel=1e-6,
    )


def test_the_baseline_alone_varies() -> None:
    varied = spec(technique={"techniques": []}, vary_baseline={"techniques": [["superpipeline"]]})
    points = list(comparisons(varied))
    assert len(points) == 2
    assert points[1].baseline.values["techniques"] == ["superpipeline"]
    assert points[1].technique.values["techniques"] == []
    assert points[1].metric("decode_speedup") > points[0].metric("decode_speedup")


@pytest.mark.parametrize(
    ("quantity", "message"),
    [("busy.flash", "no resource 'flash' had a task; .* had"), ("nonsense", "no quantity 'nonsense'")],
)
def test_unknown_quantities(quantity: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        first(spec()).baseline.value(quantity)


def test_unknown_options() -> None:
    bad = spec(technique={"timeline": {"prefetch": 2}})
    with pytest.raises(ScenarioError, match=r"a timeline has no prefetch; it has .*prefetch_layers"):
        first(bad).technique.value("tpot_s")
    training = {"train": True, "model": "llama-3.2-1b", "hardware": "A100"}
    wrong = ScenarioSpec.model_validate(
        {"name": "x", "reason": "a test", "baseline": {**training, "timeline": {"room": 1}}}
    )
    with pytest.raises(ScenarioError, match="timeline of a training step"):
        first(wrong).baseline.value("mfu")
    assert isinstance(first(wrong).baseline._run(), SimulatedTraining)


def test_papers_that_need_a_timeline_run_through_it() -> None:
    """At least twenty papers compare simulated sides."""
    found = {
        path.stem
        for path in claim_files()
        if any("timeline" in {**s.baseline, **s.technique} for s in load_claims(path.stem).scenarios)
    }
    assert len(found) >= 20
    assert {"flexgen", "powerinfer", "tokenweave", "t3-track-trigger", "fusemax", "sarathi", "instinfer"} <= found


def test_paper_shows_simulated_metrics() -> None:
    answer = json.loads(CliRunner().invoke(main, ["paper", "fiddler", "--json"]).output)
    metrics = answer["scenarios"][0]["metrics"]
    assert metrics["tpot_s"]["ratio"] > 1.0
    assert metrics["hidden_share"]["technique"] is not None
