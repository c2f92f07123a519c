"""Composition: factors multiply, orders agree, what conflicts names both, and any list of files runs or says why not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import catalog
from simulator.errors import ScenarioError, SimulatorError
from simulator.graph.op import Graph
from simulator.scenario import load_model
from simulator.techniques.apply import with_file, with_technique
from simulator.techniques.recipe import Recipe


def technique(folder: Path, *apply: str, name: str = "mine") -> str:
    file = folder / f"{name}.yaml"
    file.write_text(f"name: {name}\napply:\n" + "".join(f"  - {line}\n" for line in apply))
    return str(file)


def graph(*techniques: str, model: str = "llama-2-7b") -> Graph:
    recipe = Recipe(load_model(model))
    for name in techniques:
        recipe = with_technique(recipe, name)
    return recipe.model.graph


def test_eviction_and_a_narrow_cache_multiply(tmp_path: Path) -> None:
    fifth = technique(tmp_path, "kv_cache.budget: {share: 0.2}", name="fifth")
    four = technique(tmp_path, "quantization.cache: {dtype: int4}", name="four")
    whole = graph().resident_bytes(1, 10_000)["kv"]
    assert whole / graph(fifth, four).resident_bytes(1, 10_000)["kv"] == pytest.approx(20)
    assert whole / graph(four, fifth).resident_bytes(1, 10_000)["kv"] == pytest.approx(20)


def test_narrow_and_pruned_weights_multiply(tmp_path: Path) -> None:
    four = technique(tmp_path, "quantization.weights: {dtype: int4}", name="four")
    half = technique(tmp_path, "sparsity.weights: {sparsity: 0.5, format: none}", name="half")

    def linear(*techniques: str) -> float:
        chosen = (op for op in graph(*techniques) if op.block in ("attention", "ffn") and op.kind == "gemm")
        return sum(op.resident_bytes(1, 1)["weight"] for op in chosen)

    assert linear() / linear(four, half) == pytest.approx(8)
    assert linear() / linear(half, four) == pytest.approx(8)


def test_quantized_experts_offloaded_and_divided() -> None:
    def ask(tp: int, *techniques: str) -> sim.Prediction:
        return sim.predict(
            model="mixtral-8x7b", hardware="dgx-a100", engine="native", batch=4, input_tokens=128, output_tokens=16,
            tp=tp, techniques=techniques,
        )  # fmt: skip

    whole = ask(2)
    parts = ask(2, "weight-int4", "experts-on-host")
    assert parts.weight_bytes < 0.35 * whole.weight_bytes
    assert parts.fits
    assert parts.tpot_s > whole.tpot_s
    one = ask(1, "weight-int4", "experts-on-host")
    assert parts.tpot_s < one.tpot_s


@pytest.mark.parametrize(
    ("first", "second", "slot"),
    [
        ("kv-int4", "kv-fp8", "the format of the cache"),
        ("weight-int4", "fp8", "the format of the weights"),
        ("medusa", "online-speculative-decoding", "how many tokens a decode step yields"),
        ("prompt-cache", "ape", "which part of the prompt is known"),
    ],
)
def test_conflicts_name_both(first: str, second: str, slot: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        graph(first, second)
    message = str(caught.value)
    assert f"{first}.yaml" in message
    assert f"{second}.yaml" in message
    assert slot in message


def test_two_placements_of_one_op_name_both() -> None:
    with pytest.raises(SimulatorError, match=r"placed in 'host' already, by placement\.weights"):
        graph("superpipeline", "offload-disk")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(list(catalog.names("technique"))), min_size=2, max_size=4, unique=True))
def test_any_list_composes_or_says_why(names: list[str]) -> None:
    recipe = Recipe(load_model("llama-2-7b"))
    refusal = ""
    try:
        for name in names:
            recipe = with_file(recipe, catalog.find("technique", name), {})
    except SimulatorError as error:
        refusal = str(error)
    if refusal:
        assert any(name in refusal for name in names)
    else:
        assert recipe.model.graph.parameters() > 0


@pytest.mark.parametrize(
    "pair",
    [
        ("duo-attention", "kv-int4"),
        ("weight-int4", "snapkv"),
        ("h2o", "swiftkv"),
        ("think-key-channel-pruning", "scissorhands"),
        ("slicegpt", "weight-int4"),
    ],
)
def test_orders_agree(pair: tuple[str, str]) -> None:
    first, second = pair
    try:
        one, other = graph(first, second, model="llama-3.1-8b"), graph(second, first, model="llama-3.1-8b")
    except ScenarioError:
        pytest.skip("the two conflict")
    for tokens in (512, 20_000):
        a, b = one.resident_bytes(1, tokens), other.resident_bytes(1, tokens)
        assert a.keys() == b.keys()
        for role in a:
            assert a[role] == pytest.approx(b[role], rel=1e-3)
