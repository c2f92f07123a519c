"""A training step against closed forms: FLOPs, ZeRO memory, kept activations, exchanged messages."""

from __future__ import annotations

import pytest

from simulator.errors import GraphError, ScenarioError, SimulatorError, UnknownNameError
from simulator.graph.architecture import (
    Architecture,
    Attention,
    Block,
    FeedForward,
    LatentAttention,
    LinearAttention,
    MixtureOfExperts,
    SelectiveScan,
)
from simulator.graph.convolution import FeatureMap, Recorder
from simulator.graph.op import Graph
from simulator.graph.step import Slice
from simulator.graph.training import TrainingPlan, training_graph
from simulator.graph.transformer import transformer_graph

STATE_ROLES = ("weight", "gradient", "optimizer")


def llama_like(layers: int = 32, causal: bool = True) -> Graph:
    """32 layers of width 4096, 32 heads, gated FFN of 11008, vocabulary of 32000."""
    block = Block(Attention(32, 32, 128, causal=causal), FeedForward(11008), repeat=layers)
    return transformer_graph(Architecture("dense", "llama", 32000, 4096, (block,), 4096))


def gpt_like(layers: int = 96, hidden: int = 12288, heads: int = 96) -> Graph:
    """The block of arXiv 2205.05198: plain FFN of 4 h with biases, LayerNorm, learned positions, tied head."""
    mixer = Attention(heads, heads, hidden // heads, rotary=False, qkv_bias=True, output_bias=True)
    ffn = FeedForward(4 * hidden, gated=False, bias=True)
    block = Block(mixer, ffn, repeat=layers, norm_bias=True)
    return transformer_graph(
        Architecture(
            "plain", "gpt2", 50257, hidden, (block,), 2048, tied=True, position_embeddings=2048, final_norm_bias=True
        )
    )


def gemm_weights(graph: Graph) -> float:
    return sum(op.repeat * op.n * op.k * op.groups for op in graph.ops if op.kind == "gemm")


def state_bytes(graph: Graph) -> float:
    kept = graph.resident_bytes(1, 1)
    return sum(kept.get(role, 0.0) for role in STATE_ROLES)


@pytest.mark.parametrize(
    ("graph", "layers", "hidden", "tokens"), [(llama_like(), 32, 4096, 4096), (gpt_like(), 96, 12288, 2048)]
)
def test_dense_decoder_takes_6_n_per_token_and_attention(graph: Graph, layers: int, hidden: int, tokens: int) -> None:
    """Causal attention attends to half of all pairs: 2 h s FLOPs forward per layer and token, twice that backward with
    kept scores (6 L h s in all) and 2.5 times with flash (7 L h s). Norms, activations, loss and update: below 2%."""
    base = 6 * gemm_weights(graph) * tokens
    step = (Slice.prefill(1, tokens),)
    kept = training_graph(graph, TrainingPlan(flash_attention=False), tokens).flops_at(step)
    flash = training_graph(graph, TrainingPlan()).flops_at(step)
    assert kept == pytest.approx(base + 6 * layers * hidden * tokens**2, rel=0.02)
    assert flash == pytest.approx(base + 7 * layers * hidden * tokens**2, rel=0.02)


def test_attention_to_all_pairs_takes_12_l_h_s_per_token() -> None:
    """The form of arXiv 2205.05198, appendix A, counts all s^2 pairs: 12 L h s T."""
    graph, tokens = llama_like(causal=False), 4096
    step = (Slice.prefill(1, tokens),)
    flops = training_graph(graph, TrainingPlan(flash_attention=False), tokens).flops_at(step)
    assert flops == pytest.approx(6 * gemm_weights(graph) * tokens + 12 * 32 * 4096 * tokens**2, rel=0.02)


def test_gemms_take_exactly_6_n_per_token() -> None:
    graph = llama_like()
    step = (Slice.prefill(3, 700),)
    gemms = [op for op in training_graph(graph, TrainingPlan()) if op.kind == "gemm"]
    assert sum(op.flops_at(step) for op in gemms) == pytest.approx(6 * gemm_weights(graph) * 2100, rel=1e-12)


def test_full_recomputation_takes_8_n_in_blocks() -> None:
    graph = llama_like()
    step = (Slice.prefill(1, 2048),)
    gemms = [op for op in training_graph(graph, TrainingPlan(recompute="full")) if op.kind == "gemm"]
    head = 32000 * 4096
    flops = sum(op.flops_at(step) for op in gemms)
    assert flops == pytest.approx((8 * (gemm_weights(graph) - head) + 6 * head) * 2048, rel=1e-12)
    assert flops == pytest.approx(8 * gemm_weights(graph) * 2048, rel=0.02)


def test_selective_recomputation_repeats_attention_only() -> None:
    graph, step = llama_like(), (Slice.prefill(1, 2048),)
    extra = training_graph(graph, TrainingPlan(recompute="selective")).flops_at(step) - training_graph(
        graph, TrainingPlan()
    ).flops_at(step)
    attention = sum(op.flops_at(step) for op in graph if op.kind == "attention")
    assert extra == pytest.approx(attention, rel=1e-9)


def test_adapters_take_4_n_and_their_own_6() -> None:
    graph, rank, tokens = llama_like(), 16, 2048
    step = (Slice.prefill(1, tokens),)
    gemms = [op for op in training_graph(graph, TrainingPlan(lora_rank=rank)) if op.kind == "gemm"]
    targets = [op for op in graph if op.kind == "gemm" and op.name.endswith("_proj")]
    adapters = sum(op.repeat * rank * (op.n + op.k) for op in targets)
    flops = sum(op.flops_at(step) for op in gemms)
    assert flops == pytest.approx((4 * gemm_weights(graph) + 6 * adapters) * tokens, rel=1e-12)
    assert flops == pytest.approx(4 * gemm_weights(graph) * tokens, rel=0.02)


@pytest.mark.parametrize("ranks", [1, 2, 8, 64])
@pytest.mark.parametrize("graph", [llama_like(), gpt_like(12, 768, 12)])
def test_zero_stages_keep_what_the_paper_says(graph: Graph, ranks: int) -> None:
    """Rajbhandari et al., arXiv 1910.02054, figure 1, K = 12: bytes per parameter."""
    parameters = graph.parameters()
    closed = {0: 16.0, 1: 4 + 12 / ranks, 2: 2 + 14 / ranks, 3: 16 / ranks}
    for stage, per_parameter in closed.items():
        trained = training_graph(graph, TrainingPlan(zero_stage=stage, data_parallel=ranks))
        assert state_bytes(trained) == per_parameter * parameters
        assert trained.parameters() == parameters / (ranks if stage == 3 else 1)


def test_zero_with_ranks_that_are_no_power_of_two() -> None:
    graph = llama_like()
    trained = training_graph(graph, TrainingPlan(zero_stage=2, data_parallel=12, gradient_accumulation=5))
    assert state_bytes(trained) == pytest.approx((2 + 14 / 12) * graph.parameters(), rel=1e-12)


@pytest.mark.parametrize(
    ("optimizer", "per_parameter"),
    [("sgd", 8.0), ("momentum", 12.0), ("lion", 12.0), ("adamw", 16.0), ("adamw8bit", 10.0 + 2 * 4 / 2048)],
)
def test_state_of_each_optimizer(optimizer: str, per_parameter: float) -> None:
    graph = llama_like(2)
    assert state_bytes(training_graph(graph, TrainingPlan(optimizer=optimizer))) == pytest.approx(
        per_parameter * graph.parameters(), rel=1e-12
    )


def test_adafactor_keeps_rows_and_columns() -> None:
    graph = llama_like(1)
    kept = training_graph(graph, TrainingPlan(optimizer="adafactor")).resident_bytes(1, 1)["optimizer"]
    matrices = sum(op.repeat * (op.n + op.k) for op in graph if op.kind == "gemm")
    vectors = 3 * 4096
    assert kept == pytest.approx(4 * graph.parameters() + 4 * (matrices + vectors + 32000 + 4096), rel=1e-12)


def test_pure_bf16_keeps_no_master_copy_and_reads_the_weight() -> None:
    graph = llama_like(1)
    trained = training_graph(graph, TrainingPlan(master_dtype=None, optimizer_dtype="bf16"))
    assert state_bytes(trained) == 8 * graph.parameters()
    updates = [op for op in trained if op.name.endswith(".update")]
    assert sum(op.bytes_at((Slice.prefill(1, 1),)) for op in updates) == 14 * graph.parameters()


def test_update_moves_28_bytes_per_parameter_and_a_share_under_zero() -> None:
    graph = llama_like(2)
    for stage, share in ((0, 1.0), (1, 0.125), (3, 0.125)):
        trained = training_graph(graph, TrainingPlan(zero_stage=stage, data_parallel=8))
        moved = sum(op.bytes_at((Slice.prefill(1, 1),)) for op in trained if op.block == "optimizer")
        assert moved == 28 * graph.parameters() * share


def per_layer_activations(plan: TrainingPlan, hidden: int = 12288, heads: int = 96, tokens: int = 2048) -> float:
    """In units of s b h, for b = 2: the difference that one more layer makes."""
    few, more = (
        training_graph(gpt_like(layers, hidden, heads), plan, tokens).resident_bytes(2, tokens)["activation"]
        for layers in (2, 3)
    )
    return (more - few) / (2 * tokens * hidden)


@pytest.mark.parametrize(("hidden", "heads", "tokens"), [(12288, 96, 2048), (6144, 64, 2048), (768, 12, 1024)])
def test_kept_activations_follow_the_published_formula(hidden: int, heads: int, tokens: int) -> None:
    """Korthikanti et al., arXiv 2205.05198, equation 1: s b h (34 + 5 a s / h) bytes per layer, 16-bit activations,
    dropout after both branches and on the scores, kept scores. Selective: 34; full: 2."""
    plan = TrainingPlan(dropout=True, flash_attention=False)
    shape = {"hidden": hidden, "heads": heads, "tokens": tokens}
    assert per_layer_activations(plan, **shape) == pytest.approx(34 + 5 * heads * tokens / hidden, rel=1e-9)
    selective = TrainingPlan(dropout=True, flash_attention=False, recompute="selective")
    assert per_layer_activations(selective, **shape) == pytest.approx(34, rel=1e-9)
    full = TrainingPlan(dropout=True, flash_attention=False, recompute="full")
    assert per_layer_activations(full, **shape) == pytest.approx(2, rel=1e-9)


def test_flash_attention_keeps_one_statistic_per_head_and_no_square() -> None:
    """34 less the two masks without dropout, and 4 bytes per head."""
    for tokens in (1024, 8192):
        assert per_layer_activations(TrainingPlan(), tokens=tokens) == pytest.approx(32 + 4 * 96 / 12288, rel=1e-9)


def test_what_tensor_parallelism_divides_of_kept_activations() -> None:
    """The same paper, equation 2: s b h (10 + 24 / t) without the scores; 10 of it are whole on every rank."""
    trained = training_graph(
        gpt_like(3), TrainingPlan(dropout=True, flash_attention=False, recompute="selective"), 2048
    )
    fewer = training_graph(gpt_like(2), TrainingPlan(dropout=True, flash_attention=False, recompute="selective"), 2048)

    def kept(graph: Graph, split: bool) -> float:
        return sum(
            op.repeat * t.resident.context * t.bytes_per_element
            for op in graph
            for t in op.tensors
            if t.role == "activation" and (t.split and op.split != "none") == split
        )

    assert (kept(trained, False) - kept(fewer, False)) / 12288 == pytest.approx(10)
    assert (kept(trained, True) - kept(fewer, True)) / 12288 == pytest.approx(24)


def test_full_recomputation_holds_one_block_while_it_runs_backward() -> None:
    """Checkpoints of L layers (2 each), one whole block (32 and statistics), and the head's share."""
    graph, tokens = llama_like(), 4096
    none = training_graph(graph, TrainingPlan()).resident_bytes(1, tokens)["activation"]
    full = training_graph(graph, TrainingPlan(recompute="full")).resident_bytes(1, tokens)["activation"]
    one = (none - training_graph(llama_like(31), TrainingPlan()).resident_bytes(1, tokens)["activation"]) / 1
    head = none - 32 * one
    assert full == pytest.approx(32 * 2 * 4096 * tokens + one + head, rel=1e-9)


def messages(graph: Graph) -> dict[str, float]:
    """Elements exchanged over dp per optimizer step, by collective."""
    found: dict[str, float] = {}
    for op in graph:
        if op.kind == "collective" and op.axis == "dp":
            elements = op.repeat * sum(t.read.const for t in op.tensors)
            found[str(op.collective)] = found.get(str(op.collective), 0.0) + elements
    return found


@pytest.mark.parametrize("steps", [1, 4])
def test_exchange_of_each_stage(steps: int) -> None:
    """Gradients: once below stage 2, then once per micro-batch. Weights: once, in stage 3 twice per micro-batch."""
    graph = llama_like(4)
    n = graph.parameters()
    expected = {
        0: {"all_reduce": n},
        1: {"reduce_scatter": n, "all_gather": n},
        2: {"reduce_scatter": steps * n, "all_gather": n},
        3: {"reduce_scatter": steps * n, "all_gather": 2 * steps * n},
    }
    for stage, elements in expected.items():
        plan = TrainingPlan(zero_stage=stage, data_parallel=8, gradient_accumulation=steps)
        assert messages(training_graph(graph, plan)) == elements


def test_gradient_message_has_the_gradients_format() -> None:
    trained = training_graph(llama_like(1), TrainingPlan(gradient_dtype="fp32"))
    assert {op.tensors[0].dtype for op in trained if op.axis == "dp"} == {"fp32"}


def test_adapters_exchange_only_themselves_but_zero3_gathers_all() -> None:
    graph = llama_like(2)
    adapters = sum(op.repeat * 8 * (op.n + op.k) for op in graph if op.name.endswith("_proj"))
    plan = TrainingPlan(lora_rank=8, data_parallel=4)
    assert messages(training_graph(graph, plan)) == {"all_reduce": adapters}
    whole = messages(training_graph(graph, TrainingPlan(lora_rank=8, data_parallel=4, zero_stage=3)))
    assert whole["reduce_scatter"] == adapters
    assert whole["all_gather"] >= graph.parameters() + adapters


def test_tensor_parallel_sums_return_in_the_backward_pass() -> None:
    graph = llama_like(4)
    trained = training_graph(graph, TrainingPlan(recompute="full"))

    def sums(suffix: str) -> float:
        chosen = [op for op in trained if op.axis == "tp" and op.name.startswith("all_reduce.")]
        return sum(op.repeat for op in chosen if op.name.endswith(suffix))

    assert sums(".backward") == sums(".recompute") == 8
    assert not [op for op in trained if op.collective == "all_gather" and op.axis == "tp"]


def test_accumulation_repeats_passes_and_keeps_memory() -> None:
    graph, step = llama_like(2), (Slice.prefill(2, 512),)
    one = training_graph(graph, TrainingPlan())
    four = training_graph(graph, TrainingPlan(gradient_accumulation=4))
    update = sum(op.flops_at(step) for op in one if op.block == "optimizer")
    assert four.flops_at(step) == pytest.approx(4 * (one.flops_at(step) - update) + update, rel=1e-12)
    assert four.resident_bytes(2, 512) == one.resident_bytes(2, 512)


def test_head_runs_at_every_token_or_only_where_asked() -> None:
    graph = llama_like(1)
    step = (Slice.prefill(2, 512),)
    for positions, rows in (("all", 1024), ("sampled", 2)):
        trained = training_graph(graph, TrainingPlan(loss_positions=positions))  # type: ignore[arg-type]
        head = next(op for op in trained if op.name == "lm_head")
        assert head.flops_at(step) == 2 * rows * 4096 * 32000


def test_gradients_have_the_shapes_of_their_gemms() -> None:
    ops = {op.name: op for op in training_graph(llama_like(1), TrainingPlan())}
    forward, data, weights = (ops[f"down_proj{suffix}"] for suffix in ("", ".dgrad", ".wgrad"))
    assert (data.n, data.k, data.split) == (forward.k, forward.n, "column")
    assert (weights.n, weights.k, weights.split) == (forward.n, forward.k, "row")
    assert forward.flops == data.flops == weights.flops
    written = [t for t in weights.tensors if t.role == "gradient"]
    assert sum(t.write.const for t in written) == forward.n * forward.k


def test_flash_backward_is_two_and_a_half_forward() -> None:
    ops = {op.name: op for op in training_graph(llama_like(1), TrainingPlan())}
    assert ops["attention.backward"].flops == ops["attention"].flops * 2.5


def test_sliding_window_keeps_keys_of_the_whole_sequence() -> None:
    """A window limits pairs, not what the backward pass reads: q, k and v of all tokens."""

    def kept(window: int | None) -> float:
        block = Block(Attention(8, 8, 64, window=window), FeedForward(2048), repeat=2)
        graph = transformer_graph(Architecture("window", "x", 1000, 512, (block,), 4096))
        return training_graph(graph, TrainingPlan()).resident_bytes(1, 4096)["activation"]

    assert kept(256) == kept(None)


def small(block: Block) -> Graph:
    return transformer_graph(Architecture("small", "x", 1000, 512, (block,), 4096))


BLOCKS = {
    "latent": Block(LatentAttention(8, 256, 128, 64, 32, 64), MixtureOfExperts(16, 2, 256, shared_intermediate=256), 2),
    "mamba1": Block(SelectiveScan(1, 1024, 16, 4, dt_rank=32), None, 2, norms=1),
    "mamba2": Block(SelectiveScan(2, 1024, 64, 4, heads=16), FeedForward(2048), 2),
    "delta": Block(LinearAttention("gated_delta", 4, 8, 64, 64, conv=4), FeedForward(2048), 2),
    "cross": Block(Attention(8, 8, 64), FeedForward(2048), 2, cross=Attention(8, 8, 64, cross=True)),
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_every_kind_of_mixer_trains(name: str, recompute: str) -> None:
    graph = small(BLOCKS[name])
    trained = training_graph(graph, TrainingPlan(recompute=recompute))  # type: ignore[arg-type]
    assert not [op for op in trained if op.phase != "any"]
    kept = trained.resident_bytes(2, 256, source_tokens=64)
    assert set(kept) == {"weight", "gradient", "optimizer", "activation"}
    assert sum(kept[role] for role in STATE_ROLES) == 16 * graph.parameters()
    step = (Slice.prefill(2, 256, source_tokens=64),)
    forward = sum(op.flops_at(step) for op in graph if op.phase != "decode")
    assert trained.flops_at(step) > 2.5 * forward


def test_latent_attention_trains_in_its_expanded_form() -> None:
    names = {op.name for op in training_graph(small(BLOCKS["latent"]), TrainingPlan())}
    assert {"kv_b_proj.wgrad", "attention_prefill.backward"} <= names
    assert not [name for name in names if name.startswith(("absorb", "attention_decode"))]


def test_router_and_experts_keep_one_input() -> None:
    ops = {op.name: op for op in training_graph(small(BLOCKS["latent"]), TrainingPlan())}
    assert ops["router.wgrad"].tensors[0].resident.context == 512
    assert ops["shared_gate_up_proj.wgrad"].tensors[0].resident.context == 0


def test_cross_attention_keeps_source_positions() -> None:
    trained = training_graph(small(BLOCKS["cross"]), TrainingPlan())
    per_source = (
        trained.resident_bytes(1, 64, source_tokens=33)["activation"]
        - trained.resident_bytes(1, 64, source_tokens=32)["activation"]
    )
    assert per_source == pytest.approx(2 * 2 * 8 * 128)


def convolutional() -> Graph:
    tape = Recorder("bf16")
    with tape.stage("stem"):
        source = tape.conv("conv", FeatureMap(3, 32, 32), 16, 3, bias=False)
        tape.pointwise("norm", "batch_norm", source.elements, weights=32)
        tape.pointwise("act", "relu", source.elements)
    with tape.stage("body", 3):
        tape.conv("conv", source, 16, 3, bias=False)
        tape.pointwise("act", "relu", source.elements)
        tape.add("sum", source.elements)
        tape.attention("attention", 64, 64, 4, 4)
    with tape.stage("head"):
        tape.linear("fc", 1, 16, 10)
    return tape.graph("conv", "test")


def test_convolutions_keep_their_inputs_per_sample() -> None:
    graph = convolutional()
    trained = training_graph(graph, TrainingPlan())
    ops = {op.name: op for op in trained}
    assert "stem.conv.dgrad" not in ops  # nothing learns from the gradient of an image
    assert ops["stem.conv.wgrad"].tensors[0].resident.sequences == 3 * 32 * 32
    assert ops["body.conv.wgrad"].tensors[0].resident.sequences == 16 * 32 * 32
    assert not [t for t in ops["body.act.backward"].tensors if any(t.resident)]  # the sign shows in the output
    one, three = trained.resident_bytes(1, 1), trained.resident_bytes(3, 1)
    assert three["activation"] == 3 * one["activation"]
    assert one["weight"] == 2 * graph.parameters()


def test_kept_scores_of_a_graph_per_sample() -> None:
    flash, kept = (
        training_graph(convolutional(), TrainingPlan(flash_attention=flag)).resident_bytes(1, 1)["activation"]
        for flag in (True, False)
    )
    assert kept - flash == 3 * 4 * (64 * 64 * 2 - 64 * 4)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"optimizer": "adamv"}, UnknownNameError, "adamw"),
        ({"zero_stage": 4}, ScenarioError, "zero_stage"),
        ({"data_parallel": 0}, ScenarioError, "at least 1"),
        ({"gradient_dtype": "bf61"}, UnknownNameError, "bf16"),
        ({"recompute": "half"}, ScenarioError, "selective"),
        ({"lora_rank": 0}, ScenarioError, "lora_rank"),
    ],
)
def test_a_wrong_plan_says_what_is_wrong(fields: dict[str, object], error: type[SimulatorError], words: str) -> None:
    with pytest.raises(error, match=words):
        TrainingPlan(**fields)  # type: ignore[arg-type]


def test_what_cannot_be_trained_says_why() -> None:
    with pytest.raises(ScenarioError, match="lora_targets"):
        training_graph(llama_like(1), TrainingPlan(lora_rank=4, lora_targets=("nothing",)))
    with pytest.raises(GraphError, match="tokens_per_sequence"):
        training_graph(llama_like(1), TrainingPlan(flash_attention=False))
    with pytest.raises(ScenarioError, match="no weights"):
        training_graph(Graph("empty", ()), TrainingPlan())
