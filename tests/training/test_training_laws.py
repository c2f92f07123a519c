"""Laws of training steps, over shapes and plans drawn at random."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.graph.architecture import Architecture, Attention, Block, FeedForward, MixtureOfExperts, SelectiveScan
from simulator.graph.op import Graph
from simulator.graph.step import Slice
from simulator.graph.training import TrainingPlan, training_graph
from simulator.graph.transformer import transformer_graph

STATE_ROLES = ("weight", "gradient", "optimizer")


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    hidden = 64 * draw(st.integers(2, 8))
    attention = Attention(hidden // 32, draw(st.sampled_from([1, 2])), 32, window=draw(st.sampled_from([None, 64])))
    mixer = draw(st.sampled_from([attention, SelectiveScan(2, 2 * hidden, 16, 4, heads=8)]))
    dense = FeedForward(2 * hidden, gated=draw(st.booleans()), bias=draw(st.booleans()))
    channel = draw(st.sampled_from([dense, MixtureOfExperts(8, 2, hidden)]))
    block = Block(mixer, channel, repeat=draw(st.integers(1, 6)), norms=draw(st.integers(1, 4)))
    return transformer_graph(Architecture("drawn", "x", 1000, hidden, (block,), None, tied=draw(st.booleans())))


plans = st.builds(
    TrainingPlan,
    recompute=st.sampled_from(["none", "selective", "full"]),
    optimizer=st.sampled_from(["adamw", "sgd", "momentum", "lion", "adafactor", "adamw8bit"]),
    zero_stage=st.integers(0, 3),
    data_parallel=st.integers(1, 16),
    gradient_dtype=st.sampled_from(["bf16", "fp32"]),
    master_dtype=st.sampled_from(["fp32", None]),
    lora_rank=st.sampled_from([None, 4]),
    gradient_accumulation=st.integers(1, 4),
    flash_attention=st.booleans(),
    dropout=st.booleans(),
)
laws = settings(max_examples=60, deadline=None)


@laws
@given(graphs(), plans, st.integers(2, 500), st.integers(1, 100))
def test_flops_and_memory_grow_with_tokens(graph: Graph, plan: TrainingPlan, tokens: int, more: int) -> None:
    trained = training_graph(graph, plan, 600)
    few, many = (Slice.prefill(2, tokens),), (Slice.prefill(2, tokens + more),)
    assert trained.flops_at(few) <= trained.flops_at(many)
    assert trained.bytes_at(few) <= trained.bytes_at(many) * (1 + 1e-12)
    assert trained.resident_bytes(2, tokens)["activation"] <= trained.resident_bytes(2, tokens + more)["activation"]


@laws
@given(graphs(), plans, st.integers(2, 500))
def test_backward_takes_at_least_the_forward(graph: Graph, plan: TrainingPlan, tokens: int) -> None:
    """With adapters the gradient ends at the first one, so that a single layer may take less."""
    assume(plan.lora_rank is None or graph.layers > 1)
    trained = training_graph(graph, plan, tokens)
    step = (Slice.prefill(1, tokens),)
    endings = (".backward", ".backward_sums", ".dgrad", ".wgrad")
    backward = sum(op.flops_at(step) for op in trained if op.name.endswith(endings))
    other = sum(op.flops_at(step) for op in trained if op.name.endswith((".recompute", ".update")))
    assert backward >= (trained.flops_at(step) - backward - other) * (1 - 1e-12)


@laws
@given(graphs(), plans)
def test_shards_of_all_ranks_make_at_least_the_whole(graph: Graph, plan: TrainingPlan) -> None:
    whole = training_graph(graph, replace(plan, data_parallel=1), 64).resident_bytes(1, 64)
    shard = training_graph(graph, plan, 64).resident_bytes(1, 64)
    for role in STATE_ROLES:
        assert shard.get(role, 0.0) * plan.data_parallel >= whole.get(role, 0.0) * (1 - 1e-12)
        assert shard.get(role, 0.0) <= whole.get(role, 0.0) * (1 + 1e-12)


@laws
@given(graphs(), plans, st.integers(16, 500))
def test_adapters_keep_less_state_than_full_training(graph: Graph, plan: TrainingPlan, tokens: int) -> None:
    full = training_graph(graph, replace(plan, lora_rank=None), tokens).resident_bytes(1, tokens)
    lora = training_graph(graph, replace(plan, lora_rank=4), tokens).resident_bytes(1, tokens)
    assert sum(lora.get(role, 0.0) for role in STATE_ROLES) < sum(full.get(role, 0.0) for role in STATE_ROLES)


@laws
@given(graphs(), plans, st.integers(16, 500))
def test_recomputation_never_keeps_more(graph: Graph, plan: TrainingPlan, tokens: int) -> None:
    kept = [
        training_graph(graph, replace(plan, recompute=way), tokens).resident_bytes(2, tokens)["activation"]
        for way in ("none", "selective", "full")
    ]
    assert kept[1] <= kept[0] * (1 + 1e-12)
    assert kept[2] <= kept[0] + 2 * tokens * graph.hidden * 2 * graph.layers


@laws
@given(graphs(), plans)
def test_names_of_ops_are_unique_and_counts_are_pure(graph: Graph, plan: TrainingPlan) -> None:
    trained = training_graph(graph, plan, 64)
    names = [op.name for op in trained]
    assert len(names) == len(set(names))
    assert trained == training_graph(graph, plan, 64)
