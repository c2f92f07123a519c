"""Division among ranks conserves work: the ranks together do at least the whole, and exactly what is split."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.errors import ScenarioError
from simulator.graph.build import Model
from simulator.graph.op import Graph, Op
from simulator.graph.step import Slice, Step
from simulator.mapping.footprint import cache_size, weight_bytes
from simulator.scenario import load_model
from simulator.techniques.parallel import Parallelism, check, shard, stage_share

from .networks import models

STEPS: st.SearchStrategy[Step] = st.lists(
    st.builds(
        Slice, st.integers(1, 64), st.sampled_from([1, 7, 300]), st.integers(0, 5000), st.just(0.0), st.just(1.0)
    ),
    min_size=1,
    max_size=3,
).map(tuple)
DEGREES = st.sampled_from([1, 2, 4, 8])
SHIPPED = [
    "llama-3.1-8b",
    "mixtral-8x7b",
    "deepseek-v2-lite",
    "jamba-v0.1",
    "gemma-2-9b",
    "qwen3-30b-a3b",
    "mamba2-1.3b",
]
SLACK = 1 - 1e-9


def working(graph: Graph) -> list[Op]:
    return [op for op in graph.ops if op.kind != "collective"]


def allowed(model: Model, division: Parallelism) -> None:
    try:
        check(model, division)
    except ScenarioError:
        assume(False)


def conserves(model: Model, tp: int, step: Step) -> None:
    allowed(model, Parallelism(tp=tp))
    whole, part = working(model.graph), working(shard(model.graph, Parallelism(tp=tp)))
    assert [op.name for op in whole] == [op.name for op in part]
    for before, after in zip(whole, part, strict=True):
        assert after.flops_at(step) * tp >= before.flops_at(step) * SLACK, before.name
        assert after.bytes_at(step) * tp >= before.bytes_at(step) * SLACK, before.name
        if before.split != "none" and before.kind != "gather":
            assert after.flops_at(step) * tp == pytest.approx(before.flops_at(step)), before.name
        for tensor, piece in zip(before.tensors, after.tensors, strict=True):
            kept, held = tensor.resident.at(before.seen(step)), piece.resident.at(before.seen(step))
            assert held * tp >= kept * SLACK, (before.name, tensor.name)
            moved = (tensor.read + tensor.write).at(before.seen(step))
            moves = (piece.read + piece.write).at(before.seen(step))
            replicated = before.kind == "attention" and before.kv_heads < tp
            divided = tensor.split and before.split != "none" and before.kind != "gather" and not replicated
            if divided:
                assert held * tp == pytest.approx(kept), (before.name, tensor.name)
                assert moves * tp == pytest.approx(moved), (before.name, tensor.name)
            else:
                assert moves <= moved / SLACK, (before.name, tensor.name)


@settings(max_examples=100)
@given(models(), DEGREES, STEPS)
def test_tensor_parallel_ranks_do_the_whole(model: Model, tp: int, step: Step) -> None:
    conserves(model, tp, step)


@settings(max_examples=30)
@given(st.sampled_from(SHIPPED), DEGREES, STEPS)
def test_tensor_parallel_ranks_of_shipped_models_do_the_whole(name: str, tp: int, step: Step) -> None:
    conserves(load_model(name), tp, step)


@settings(max_examples=100)
@given(models(("experts",), wide=True), DEGREES, DEGREES, DEGREES, STEPS)
def test_expert_parallel_ranks_do_the_whole(model: Model, tp: int, dp: int, ep: int, step: Step) -> None:
    division = Parallelism(tp=tp, dp=dp, ep=ep)
    allowed(model, division)
    part = {op.name: op for op in working(shard(model.graph, division))}
    ranks = tp * dp
    for before in working(model.graph):
        if before.routing is None:
            continue
        after = part[before.name]
        # Every one of the dp replicas brings a step of its own.
        assert after.flops_at(step) * ranks == pytest.approx(before.flops_at(step) * dp), before.name
        rows, local = before.rows.at(before.seen(step)), after.rows.at(after.seen(step))
        divided = after.groups * after.n * after.k * ranks
        assert divided >= before.groups * before.n * before.k * SLACK, before.name
        assert local * max(1, ranks // max(1, tp // ep)) >= rows * dp * SLACK, before.name
        for tensor, piece in zip(before.tensors, after.tensors, strict=True):
            if tensor.role == "weight":
                copies = ranks / max(ep, tp) if tp >= ep else ranks / ep
                assert piece.resident.const * ranks >= tensor.resident.const * SLACK, tensor.name
                if tensor.split:
                    assert piece.resident.const * ranks == pytest.approx(tensor.resident.const * copies), tensor.name


@settings(max_examples=100)
@given(models(), DEGREES, DEGREES, st.integers(1, 3000))
def test_ranks_together_hold_all_weights_and_caches(model: Model, tp: int, pp: int, tokens: int) -> None:
    division = Parallelism(tp=tp, pp=pp)
    allowed(model, division)
    graph, share = shard(model.graph, division), stage_share(model.graph, pp)
    held = weight_bytes(graph, share) * tp * pp
    assert held >= weight_bytes(model.graph) * SLACK
    cached = cache_size(graph, share).bytes_of(tokens) * tp * pp
    assert cached >= cache_size(model.graph).bytes_of(tokens) * SLACK


@settings(max_examples=30)
@given(st.sampled_from(SHIPPED), DEGREES, DEGREES)
def test_ranks_together_hold_all_weights_of_shipped_models(name: str, tp: int, pp: int) -> None:
    model = load_model(name)
    allowed(model, Parallelism(tp=tp, pp=pp))
    held = weight_bytes(shard(model.graph, Parallelism(tp=tp, pp=pp)), stage_share(model.graph, pp)) * tp * pp
    assert held >= weight_bytes(model.graph) * SLACK


@given(models(), st.integers(1, 24))
def test_stages_cover_all_layers(model: Model, pp: int) -> None:
    assume(pp <= model.graph.layers)
    share = stage_share(model.graph, pp)
    assert share * pp >= SLACK
    assert share * model.graph.layers == pytest.approx(round(share * model.graph.layers))


@given(models(), STEPS)
def test_one_rank_computes_the_whole(model: Model, step: Step) -> None:
    graph = shard(model.graph, Parallelism())
    assert graph.flops_at(step) == pytest.approx(sum(op.flops_at(step) for op in working(model.graph)))
    assert graph.resident_bytes(3, 100) == pytest.approx(model.graph.resident_bytes(3, 100))


@given(models(), DEGREES, st.sampled_from([1, 2]), STEPS)
def test_footprint_agrees_with_the_graph(model: Model, tp: int, sequences: int, step: Step) -> None:
    allowed(model, Parallelism(tp=tp))
    graph, tokens = shard(model.graph, Parallelism(tp=tp)), 777.0
    resident = graph.resident_bytes(sequences, tokens)
    assert weight_bytes(graph) == pytest.approx(resident["weight"])
    kept = resident.get("kv", 0.0) + resident.get("state", 0.0)
    assert sequences * cache_size(graph).bytes_of(tokens) == pytest.approx(kept)


@pytest.mark.parametrize(
    ("tp", "dp", "ep", "exchanged"), [(8, 1, 8, False), (8, 1, 2, False), (2, 4, 8, True), (1, 8, 8, True)]
)
def test_tokens_are_exchanged_among_experts_of_other_replicas_alone(tp: int, dp: int, ep: int, exchanged: bool) -> None:
    """Attention's all-reduce leaves all tokens on every tensor-parallel rank, and the one behind the experts sums."""
    part = shard(load_model("qwen3-235b-a22b").graph, Parallelism(tp=tp, dp=dp, ep=ep))
    assert any(op.axis == "ep" for op in part.ops) is exchanged
    assert any(op.collective == "all_reduce" for op in part.ops) is (tp > 1)
