"""Claims: files load, every scenario runs, verdicts follow the rules, and further claims find their scenarios."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from simulator.cli.list import paper_list
from simulator.cli.main import main
from simulator.errors import SpecError, UnknownNameError
from validation.claimspec import ClaimSpec
from validation.further import evaluate_further
from validation.papers import find, papers
from validation.verdicts import VERDICTS, Row, claim_files, claimed_value, evaluate, load_claims, verdict


def claim(**values: object) -> ClaimSpec:
    base = {"claim": "x#0", "metric": "decode_speedup", "value": 2.0, "unit": "x", "stated": ["hardware"]}
    return ClaimSpec.model_validate({**base, **values})


@pytest.mark.parametrize(
    ("values", "numbers", "expected"),
    [
        ({}, [1.6], "predicted"),
        ({}, [1.4], "missed"),
        ({}, [1.4, 2.5], "missed"),
        ({"stated": []}, [1.4, 2.5], "bounded"),
        ({"bound": "up_to"}, [1.2, 2.1], "predicted"),
        ({"bound": "up_to"}, [1.2, 4.0], "bounded"),
        ({"bound": "up_to"}, [1.2, 1.4], "missed"),
        ({"bound": "at_least"}, [3.5], "predicted"),
        ({"bound": "at_least"}, [9.0], "bounded"),
        ({"bound": "at_least"}, [1.2], "missed"),
        ({"value": 1.2}, [1.0], "missed"),
        ({"between": [2.0, 8.0]}, [5.0], "predicted"),
    ],
)
def test_verdicts(values: dict[str, object], numbers: list[float], expected: str) -> None:
    asked = claim(**values)
    claimed, _ = claimed_value(asked)
    assert claimed is not None
    assert verdict(asked, claimed, numbers) == expected


@pytest.mark.parametrize(
    ("values", "factor"),
    [
        ({"metric": "peak_memory_reduction", "value": 75, "unit": "%"}, 4.0),
        ({"metric": "latency_speedup", "value": 30, "unit": "%"}, 1.3),
        ({"metric": "latency_speedup", "value": 50, "unit": "% latency reduction"}, 2.0),
        ({"metric": "kv_memory_reduction", "value": 25, "unit": "% of full cache kept"}, 4.0),
        ({"metric": "peak_memory_bytes", "value": 3, "unit": "GB"}, 3e9),
    ],
)
def test_claimed_values(values: dict[str, object], factor: float) -> None:
    assert claimed_value(claim(**values))[0] == pytest.approx(factor)


def test_all_claims_have_a_verdict_and_a_reason() -> None:
    rows = evaluate()
    assert len(rows) >= 250
    assert {row.verdict for row in rows} <= set(VERDICTS)
    assert all(row.note for row in rows if row.scenario is None)
    missed = [row for row in rows if row.verdict == "missed"]
    assert sum(not row.note for row in missed) < 0.1 * len(missed), "a miss needs a sentence on why"
    assert sum(row.verdict == "fitted" for row in rows) < 0.05 * len(rows)
    for path in claim_files():
        for scenario in load_claims(path.stem).scenarios:
            assert scenario.reason


def test_papers_are_listed_with_their_state() -> None:
    listed = {paper.id: paper for paper in papers(evaluate())}
    assert len(listed) == len(paper_list()) == 462
    assert listed["duo-attention"].state == "checked"
    assert {path.stem for path in claim_files()} <= set(listed)
    assert sum(bool(paper.techniques) for paper in listed.values()) >= 150
    with pytest.raises(UnknownNameError, match="did you mean 'duo-attention'"):
        find("duo-atention")


def test_further_claims(tmp_path: Path) -> None:
    lines = [
        {"id": "duo-attention#5", "metric": "prefill_speedup", "value": 1.63, "bound": "up_to", "model": "GQA models"},
        {"id": "nothing#1", "metric": "latency_speedup", "value": 2, "bound": "exact"},
    ]
    file = tmp_path / "more.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    found = evaluate_further(file)
    assert [row.verdict for row in found][1] == "silent"
    assert found[0].scenario == "gqa"
    assert found[0].verdict in ("predicted", "bounded")
    result = CliRunner().invoke(main, ["validate", "claims", "--claims", str(file), "--json"])
    answer = json.loads(result.output)
    assert set(answer) == {"verdicts", "rows"}
    assert {"claim", "predicted", "claimed", "verdict"} <= set(answer["rows"][0])
    file.write_text('{"id": "a#1"}\n')
    with pytest.raises(SpecError, match=r"more.jsonl:1"):
        evaluate_further(file)


def test_further_claims_prefer_the_baseline_they_name(tmp_path: Path) -> None:
    rows = [
        {"id": "h2o#2", "metric": "throughput_gain", "value": 3, "bound": "up_to", "baseline": baseline, "model": "OPT"}
        for baseline in ("FlexGen", "Hugging Face Accelerate", "DeepSpeed ZeRO-Inference")
    ]
    file = tmp_path / "more.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    found = [row.scenario for row in evaluate_further(file)]
    assert found == ["against-flexgen", "against-accelerate", "offload"]


def further(tmp_path: Path, *claims: dict[str, object]) -> list[Row]:
    file = tmp_path / "more.jsonl"
    file.write_text("\n".join(json.dumps({"value": 2.0, "bound": "exact", **claim}) for claim in claims))
    return evaluate_further(file)


def test_further_claims_find_scenarios_by_name(tmp_path: Path) -> None:
    rows = further(
        tmp_path,
        {
            "id": "kvquant#9",
            "metric": "max_context",
            "value": 10_000_000,
            "model": "LLaMA-7B",
            "hardware": "8-GPU system",
        },
        {"id": "llm-in-a-flash#9", "metric": "latency_speedup", "hardware": "GPU"},
        {"id": "alisa#9", "metric": "throughput_gain", "baseline": "vLLM", "conditions": "single GPU-CPU system"},
        {"id": "dfloat11#9", "metric": "max_context", "unit": "x longer", "conditions": "fixed memory budget"},
        {"id": "cpu-llm-parallel-batching#9", "metric": "throughput_gain", "conditions": "4 workers on NUMA nodes"},
        {"id": "cpu-llm-parallel-batching#9", "metric": "throughput_gain", "conditions": "unaccelerated"},
    )
    assert [row.scenario for row in rows] == ["eight-gpus", "gpu", "against-vllm", "context", "workers", None]


def test_further_claims_are_of_the_phase_and_unit_that_they_name(tmp_path: Path) -> None:
    whole, decode, rate, tokens = further(
        tmp_path,
        {"id": "cskv#9", "metric": "throughput_gain", "conditions": "4-bit"},
        {"id": "cskv#9", "metric": "throughput_gain", "conditions": "4-bit, decoding"},
        {"id": "deepspeed-inference#9", "metric": "throughput_abs", "value": 84, "unit": "TFLOPS", "hardware": "A6000"},
        {
            "id": "deepspeed-inference#9",
            "metric": "throughput_abs",
            "value": 84,
            "unit": "tokens/s",
            "hardware": "A6000",
        },
    )
    assert whole.predicted != decode.predicted
    assert rate.claimed == 84e12
    assert rate.predicted is not None
    assert tokens.predicted is not None
    assert rate.predicted > 1e9 * tokens.predicted


def test_a_context_that_fits_is_no_longest_context(tmp_path: Path) -> None:
    claimed = {"id": "tailorkv#9", "metric": "max_context", "unit": "k tokens", "hardware": "RTX 3090"}
    same, longer = further(tmp_path, {**claimed, "value": 128}, {**claimed, "value": 640})
    assert same.verdict == "predicted"
    assert longer.predicted is not None
    assert same.predicted is not None
    assert longer.predicted > same.predicted


def test_further_claims_compare_at_one_batch_and_survive_a_single_token(tmp_path: Path) -> None:
    batch, single = further(
        tmp_path,
        {"id": "a2ats#9", "metric": "kv cache size"},
        {"id": "diffrate#9", "metric": "decode throughput"},
    )
    assert batch.predicted is not None
    assert batch.predicted > 0.5, "the technique's own batch is eleven times the baseline's"
    assert single.verdict == "silent"


def test_paper_command(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["paper", "scissorhands"])
    assert result.exit_code == 0
    assert "kv_cache.budget" in result.output
    assert "scissorhands#1" in result.output
    chart = tmp_path / "gain.html"
    assert CliRunner().invoke(main, ["paper", "scissorhands", "--html", str(chart)]).exit_code == 0
    assert "prompt tokens" in chart.read_text(encoding="utf-8")
    assert CliRunner().invoke(main, ["paper", "unknown"]).exit_code == 2
    answer = json.loads(CliRunner().invoke(main, ["paper", "h2o", "--json"]).output)
    assert answer["scenarios"][0]["metrics"]["kv_bytes"]["ratio"] > 0
