"""Technique files: every shipped one applies, they compose in order, and what cannot be names file, line and mend."""

from __future__ import annotations

from pathlib import Path

import pytest

import simulator as sim
from simulator import catalog
from simulator.errors import ScenarioError, SpecError, UnknownNameError
from simulator.graph.op import Graph
from simulator.scenario import load_model
from simulator.techniques.apply import apply_file


def graph() -> Graph:
    return load_model("llama-3.1-8b").graph


def memory(*techniques: str, **named: str) -> sim.Prediction:
    return sim.predict(
        model="llama-3.1-8b",
        hardware="H100",
        batch=8,
        input_tokens=1000,
        output_tokens=24,
        techniques=techniques,
        **named,
    )


@pytest.mark.parametrize("name", ["fp8", "kv-fp8", "kv-int4", "w8a8-int8", "weight-int4", "weight-int8"])
def test_formats_keep_parameters(name: str) -> None:
    before = graph()
    after = apply_file(before, catalog.find("technique", name))
    assert after.parameters() == before.parameters()
    assert sum(after.resident_bytes(1, 100).values()) < sum(before.resident_bytes(1, 100).values())


def test_bytes_follow_the_formats() -> None:
    plain = memory()
    linear = plain.weight_bytes - 2 * 128256 * 4096 * 2 - 65 * 4096 * 2
    int8 = memory("weight-int8")
    assert plain.weight_bytes - int8.weight_bytes == pytest.approx(linear * (1 - (8 + 16 / 4096) / 16))
    int4 = memory("weight-int4")
    assert plain.weight_bytes - int4.weight_bytes == pytest.approx(linear * (1 - (4 + 20 / 128) / 16))
    assert memory("kv-fp8").kv_bytes == pytest.approx(plain.kv_bytes / 2)
    assert memory("kv-int4").kv_bytes == pytest.approx(plain.kv_bytes * 5 / 16)


def test_techniques_compose() -> None:
    both = memory("weight-int4", "kv-fp8")
    assert both.weight_bytes == memory("weight-int4").weight_bytes
    assert both.kv_bytes == memory("kv-fp8").kv_bytes
    with pytest.raises(ScenarioError, match=r"kv-int4.*and.*kv-fp8.*conflict: both decide the format of the cache"):
        memory("kv-int4", "kv-fp8")
    assert memory(weight_dtype="int8").weight_bytes < memory().weight_bytes


def test_fewer_bytes_speed_up_decode_but_less_than_bytes_say() -> None:
    plain, int4 = memory(), memory("weight-int4")
    gain = plain.tpot_s / int4.tpot_s
    assert 1.2 < gain < plain.weight_bytes / int4.weight_bytes


def test_native_fp8_speeds_up_prefill_only_where_the_unit_has_it() -> None:
    def gain(hardware: str, engine: str) -> float:
        plain = sim.Scenario("llama-3.1-8b", hardware, engine=engine, batch=4, input_tokens=2048, output_tokens=1)
        return sim.predict(plain).ttft_s / sim.predict(plain.with_(techniques=("fp8",))).ttft_s

    assert gain("H100", "tensorrt-llm") > 1.3, "twice the peak, but at the power limit"
    assert 1.1 < gain("H100", "vllm") < gain("H100", "tensorrt-llm"), "a pass of its own rounds every input"
    assert gain("A100", "vllm") < 1.15


def technique(tmp_path: Path, apply: str) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: mine\nparameters: {{bits: int4}}\napply:\n  - {apply}\n")
    return file


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (
            "quantization.wieghts: {dtype: int4}",
            "unknown primitive 'quantization.wieghts'; did you mean 'quantization.weights'?",
        ),
        ("quantization.weights: {dtyp: int4}", "has no argument 'dtyp'; did you mean 'dtype'?"),
        ("quantization.weights: {dtype: $bit}", "'$bit' is not in `parameters`; did you mean '$bits'?"),
        ("quantization.weights: {dtype: int5}", "unknown dtype 'int5'; did you mean"),
        ("quantization.weights: {}", "give either dtype or bits"),
    ],
)
def test_what_cannot_be_names_the_place(tmp_path: Path, apply: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        apply_file(graph(), technique(tmp_path, apply))
    assert "mine.yaml:4:" in str(caught.value)
    assert message in str(caught.value)


def test_unknown_technique_offers_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'weight-int4'"):
        memory("weight-in4")
