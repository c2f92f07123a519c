"""Shapes of the families whose layers need more than a style: shared blocks, convolutions, images read from aside, sound."""

from __future__ import annotations

from typing import Any

import pytest

from simulator import catalog
from simulator.errors import ImportFormatError
from simulator.graph.architecture import (
    Architecture,
    Attention,
    FeedForward,
    GatedRecurrence,
    LatentAttention,
    LinearAttention,
    MixtureOfExperts,
    SelectiveScan,
    ShortConvolution,
)
from simulator.graph.build import Model, model_from_architecture
from simulator.graph.op import Op
from simulator.graph.step import Slice, features
from simulator.graph.transformer import transformer_graph
from simulator.importers.hf_config import architecture_from_config
from simulator.spec.loader import load
from simulator.spec.model import ModelSpec


def config(name: str) -> dict[str, Any]:
    spec = load(catalog.find("model", name), ModelSpec)
    assert spec.config is not None
    return spec.config


def shipped(name: str, **changes: Any) -> Architecture:
    return architecture_from_config({**config(name), **changes}, name)


def built(name: str) -> Model:
    return model_from_architecture(shipped(name))


def found(model: Model, ending: str) -> list[Op]:
    return [op for graph in model.graphs() for op in graph.ops if op.name.endswith(ending)]


class TestCrossAttention:
    """Llama 3.2 Vision reads the image through layers of its own."""

    def test_every_fifth_layer_reads_the_image(self) -> None:
        for name, layers, crossed in (("llama-3.2-11b-vision", 40, 8), ("llama-3.2-90b-vision", 100, 20)):
            made = shipped(name)
            assert made.layers == layers
            cross = [b for b in made.blocks if isinstance(b.mixer, Attention) and b.mixer.cross]
            assert [b.repeat for b in cross] == [crossed]
            assert not cross[0].mixer.rotary  # type: ignore[union-attr]

    def test_the_image_takes_no_context(self) -> None:
        model = built("llama-3.2-11b-vision")
        assert model.image_tokens == 0
        assert model.image_source_tokens == 4 * 1601

    def test_its_keys_and_values_are_projected_once_per_image(self) -> None:
        model = built("llama-3.2-11b-vision")
        assert model.vision is not None
        (op,) = [op for op in model.vision.ops if op.name.startswith("cross_kv")]
        assert (op.n, op.k, op.repeat) == (2 * 8 * 128, 4096, 8)
        assert op.rows.sequences == pytest.approx(6404)
        assert not [op for op in model.graph.ops if op.name.startswith("cross_kv")]

    def test_attends_to_the_source_only(self) -> None:
        model = built("llama-3.2-11b-vision")
        (op,) = [op for op in model.graph.ops if op.name.endswith("cross_attention")]
        step = (Slice.decode(1, 100, source_tokens=6404),)
        assert features(step, op.span).pairs == 6404
        assert features((Slice.decode(1, 5000, source_tokens=6404),), op.span).context == 6404


class TestSharedBlocks:
    """Zamba2's attention is stored once per copy and run many times."""

    def test_copies_take_turns(self) -> None:
        made = shipped("zamba2-2.7b")
        scans, *copies = made.blocks
        assert isinstance(scans.mixer, SelectiveScan)
        assert (scans.repeat, scans.mixer.heads) == (54, 80)
        assert [(b.repeat, b.shared_weights) for b in copies] == [(5, True), (4, True)]
        part = copies[0].mixer
        assert isinstance(part, Attention)
        assert (part.input_dim, part.head_dim) == (5120, 160)

    def test_adapters_are_not_shared(self) -> None:
        model = built("zamba2-2.7b")
        (projection, _) = found(model, "adapter.2")
        assert projection.repeat == 5
        assert projection.tensors[1].resident.const == 2560**2
        shared = next(op for op in found(model, "b1.down_proj"))
        assert shared.tensors[1].resident.const * shared.repeat == pytest.approx(10240 * 2560)
        assert shared.tensors[1].read.const == 10240 * 2560

    def test_adapters_of_the_attention(self) -> None:
        assert len(shipped("zamba2-1.2b").blocks[1].adapters) == 9
        assert len(shipped("zamba2-7b").blocks[1].adapters) == 3

    def test_listed_layers_mean_the_same(self) -> None:
        kinds = ["hybrid" if i in (6, 12, 18, 24, 30, 36, 42, 47, 51) else "mamba" for i in range(54)]
        listed = shipped("zamba2-2.7b", hybrid_layer_ids=None, layers_block_type=kinds)
        assert listed.blocks == shipped("zamba2-2.7b").blocks
        with pytest.raises(ImportFormatError, match="needs 'layers_block_type' or 'hybrid_layer_ids'"):
            shipped("zamba2-2.7b", hybrid_layer_ids=None)


class TestShortConvolutions:
    def test_lfm2_alternates(self) -> None:
        made = shipped("lfm2-1.2b")
        kinds = {type(b.mixer): b.repeat for b in made.blocks}
        assert kinds == {ShortConvolution: 10, Attention: 6}
        assert {b.channel for b in made.blocks} == {FeedForward(8192)}

    def test_width_may_be_given_as_it_is(self) -> None:
        assert shipped("lfm2-1.2b", block_auto_adjust_ff_dim=False).blocks[0].channel == FeedForward(12288)

    def test_state_does_not_grow(self) -> None:
        model = built("lfm2-1.2b")
        short, long = (model.graph.resident_bytes(1, tokens)["state"] for tokens in (10, 10_000))
        assert short == long == 10 * 2 * 2048 * 2

    def test_routed_after_two_dense_layers(self) -> None:
        made = shipped("lfm2-8b-a1b")
        routed = sum(b.repeat for b in made.blocks if isinstance(b.channel, MixtureOfExperts))
        assert (made.layers, routed) == (24, 22)


class TestRecurrences:
    def test_griffin_has_two_recurrences_per_attention(self) -> None:
        made = shipped("recurrentgemma-2b")
        kinds = {type(b.mixer): b.repeat for b in made.blocks}
        assert kinds == {GatedRecurrence: 18, Attention: 8}
        part = next(b.mixer for b in made.blocks if isinstance(b.mixer, Attention))
        assert (part.window, part.kv_heads) == (2048, 1)
        assert made.max_context is None

    def test_griffin_gates_are_block_diagonal(self) -> None:
        (gate,) = found(built("recurrentgemma-2b"), "gate_proj")
        assert (gate.n, gate.k, gate.groups) == (256, 256, 20)
        assert gate.flops.tokens == 2 * 2 * 10 * 256**2

    def test_xlstm_has_matrix_memories(self) -> None:
        (block,) = shipped("xlstm-7b").blocks
        assert block.mixer == LinearAttention("mlstm", 8, 8, 256, 512)
        assert block.channel == FeedForward(10944)


class TestExperts:
    def test_longcat_layers_are_pairs(self) -> None:
        first, second = shipped("longcat-flash-560b").blocks
        assert isinstance(first.mixer, LatentAttention)
        assert first.mixer == second.mixer
        assert isinstance(first.channel, MixtureOfExperts)
        assert (first.channel.zero_experts, first.channel.dense_intermediate) == (256, 12288)
        assert second.channel == FeedForward(12288)
        assert first.repeat == second.repeat == 28

    def test_choices_without_an_expert_cost_nothing(self) -> None:
        model = built("longcat-flash-560b")
        (router,), (experts,) = found(model, ".router"), found(model, "experts_gate_up")
        assert router.n == 768
        assert experts.rows.tokens == pytest.approx(8)
        assert experts.routing is not None
        assert (experts.routing.experts, experts.routing.top_k) == (512, pytest.approx(8))

    def test_step3_factorises_its_queries(self) -> None:
        made = shipped("step3-316b")
        assert [b.repeat for b in made.blocks] == [5, 56]
        part = made.blocks[0].mixer
        assert isinstance(part, Attention)
        assert (part.query_rank, part.kv_heads, part.head_dim) == (2048, 1, 256)
        first = next(op for op in built("step3-316b").graph.ops if op.name.endswith("qkv_proj"))
        assert (first.n, first.k) == (2048 + 2 * 256, 7168)
        listed = ",".join(str(i) for i in range(4, 60))
        assert shipped("step3-316b", moe_layers_enum=listed).blocks == made.blocks

    def test_ling_generations(self) -> None:
        first, second = shipped("ling-lite"), shipped("ling-mini-2.0")
        assert isinstance(first.blocks[0].mixer, Attention)
        assert isinstance(second.blocks[0].mixer, Attention)
        assert (first.blocks[0].mixer.qk_norm, second.blocks[0].mixer.qk_norm) == ("none", "head")
        assert [b.repeat for b in second.blocks] == [1, 19]
        same = shipped("ling-mini-2.0", model_type="bailing_moe")
        assert same.blocks == second.blocks

    def test_prediction_layers_are_stored_and_not_run(self) -> None:
        model = built("mimo-7b")
        assert model.architecture is not None
        assert model.architecture.layers == 36
        assert model.architecture.extra_parameters > 2 * 4096**2


@pytest.mark.parametrize(
    ("name", "patches", "tokens"),
    [
        ("pixtral-12b", 4096, 64 * 65),
        ("mistral-small-3.1-24b", 72 * 72, 36 * 37),
        ("idefics3-8b", 17 * 676, 17 * 169),
        ("smolvlm2-2.2b", 17 * 729, 17 * 81),
        ("smolvlm-256m", 17 * 1024, 17 * 64),
        ("paligemma-3b", 256, 256),
        ("paligemma2-3b", 256, 256),
        ("aya-vision-8b", 676, 169),
        ("kimi-vl-a3b", 72 * 72, 36 * 36),
        ("glm-4.1v-9b", 72 * 72, 36 * 36),
        ("glm-4.5v", 72 * 72, 36 * 36),
        ("deepseek-vl-1.3b", 576, 576),
        ("blip2-opt-2.7b", 257, 32),
        ("fuyu-8b", 34 * 34, 34 * 35),
        ("ovis2-1b", 1024, 256),
    ],
)
def test_patches_and_tokens_of_an_image(name: str, patches: int, tokens: int) -> None:
    vision = shipped(name).vision
    assert vision is not None
    assert (vision.patches, vision.tokens) == (patches, tokens)


def test_towers_under_other_names() -> None:
    text = {**config("aya-vision-8b")["text_config"]}
    vision = {**config("aya-vision-8b")["vision_config"]}
    made = architecture_from_config(
        {"model_type": "cohere2_vision", "text_config": text, "vision_config": vision, "torch_dtype": "bfloat16"}, "x"
    )
    assert made.vision is not None
    assert made.vision.projector == ((4 * 1152, 36864), (18432, 4096))


def test_minimax_reads_five_crops() -> None:
    text = {**config("minimax-text-01")}
    tower = {
        "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
    }  # fmt: skip
    made = architecture_from_config({"model_type": "minimax_vl_01", "text_config": text, "vision_config": tower}, "x")
    assert made.vision is not None
    assert made.vision.tokens == 5 * 576
    assert made.blocks == shipped("minimax-text-01").blocks


class TestEncoders:
    def test_relative_positions_are_scored(self) -> None:
        model = built("deberta-v3-base")
        (scores,) = found(model, "position_scores")
        assert scores.flops.tokens == 4 * 512 * 768
        assert model.architecture is not None
        assert model.architecture.position_embeddings == 0
        assert not model.decode

    def test_deberta_without_shared_keys_has_more_weights(self) -> None:
        shared, own = (
            model_from_architecture(shipped("deberta-v3-base", share_att_key=flag)) for flag in (True, False)
        )
        assert own.parameters() - shared.parameters() == 12 * (2 * 768**2 + 768)

    def test_local_windows(self) -> None:
        (block,) = shipped("longformer-base-4096").blocks
        assert isinstance(block.mixer, Attention)
        assert (block.mixer.window, block.mixer.causal) == (512, False)

    def test_narrow_embedding(self) -> None:
        assert shipped("electra-small").embedding_dim == 128
        assert shipped("electra-base").embedding_dim is None

    @pytest.mark.parametrize(
        ("name", "tokens"),
        [
            ("dinov2-base", 1370),
            ("dinov2-giant", 1370),
            ("deit-base-distilled-patch16-224", 198),
            ("beit-base-patch16-224", 197),
        ],
    )
    def test_image_encoders_count_their_patches(self, name: str, tokens: int) -> None:
        made = shipped(name)
        assert made.fixed_tokens == tokens
        patch = config(name)["patch_size"]
        assert made.stem == ((1.0, 3 * patch * patch, made.hidden),)

    def test_gated_only_in_the_giant_size(self) -> None:
        assert shipped("dinov2-giant").blocks[0].channel == FeedForward(4096, bias=True)
        channel = shipped("dinov2-base").blocks[0].channel
        assert isinstance(channel, FeedForward)
        assert not channel.gated


class TestSound:
    def test_convolutions_run_at_their_own_rates(self) -> None:
        made = shipped("wav2vec2-base-960h")
        assert [rows for rows, _, _ in made.stem] == [64, 32, 16, 8, 4, 2, 1, 1, 1]
        assert made.stem[0] == (64.0, 10, 512)
        assert made.stem[-1] == (1.0, 768 // 16 * 128, 768)
        model = model_from_architecture(made)
        stem = sum(op.flops.tokens for op in model.graph.ops if op.name.startswith("stem."))
        assert stem == sum(2 * rows * a * b for rows, a, b in made.stem)
        # About a third of the work of a frame.
        whole = sum(op.flops.tokens * op.repeat for op in model.graph.ops)
        assert 0.3 < stem / whole < 0.45

    def test_head_only_where_there_is_one(self) -> None:
        assert shipped("wav2vec2-base-960h").head == "class"
        assert shipped("wav2vec2-base-960h", architectures=["Wav2Vec2Model"]).head == "none"

    def test_norms_and_biases_of_the_large_sizes(self) -> None:
        with_bias, without = (
            model_from_architecture(shipped("hubert-large-ls960-ft", conv_bias=flag)) for flag in (True, False)
        )
        assert with_bias.parameters() - without.parameters() == 7 * 512

    def test_moonshine_has_two_kinds_of_mlp(self) -> None:
        made = shipped("moonshine-tiny")
        assert made.encoder is not None
        up, down = made.encoder.blocks[0].channel, made.blocks[0].channel
        assert isinstance(up, FeedForward)
        assert isinstance(down, FeedForward)
        assert (up.gated, down.gated) == (False, True)
        assert made.encoder.fixed_tokens is None
        assert made.encoder.stem[0] == (6.0, 127, 288)


class TestTranslation:
    @pytest.mark.parametrize(
        ("name", "stored", "final", "embedded"),
        [
            ("m2m100-418m", 0, True, False),
            ("nllb-200-600m", 0, True, False),
            ("opus-mt-en-de", 512, False, False),
            ("pegasus-large", 1024, True, False),
            ("mbart-large-50", 1026, True, True),
        ],
    )
    def test_positions_and_norms(self, name: str, stored: int, final: bool, embedded: bool) -> None:
        made = shipped(name)
        assert made.encoder is not None
        assert (made.position_embeddings, made.encoder.position_embeddings) == (stored, stored)
        assert (made.final_norm, made.encoder.final_norm, made.embedding_norm) == (final, final, embedded)

    def test_relative_positions_in_every_layer(self) -> None:
        multi, plain = shipped("umt5-small"), shipped("umt5-small", model_type="mt5")
        assert multi.extra_parameters == 8 * plain.extra_parameters


@pytest.mark.parametrize("value", ["x", -1, [], {}, True])
@pytest.mark.parametrize(
    "name",
    [
        "llama-3.2-11b-vision", "zamba2-2.7b", "lfm2-1.2b", "lfm2-8b-a1b", "longcat-flash-560b", "ling-mini-2.0",
        "mistral-small-3.1-24b", "idefics3-8b", "aya-vision-8b", "glm-4.5v", "ovis2-1b", "blip2-opt-2.7b", "fuyu-8b",
        "recurrentgemma-2b", "xlstm-7b", "opus-mt-en-de", "umt5-small", "deberta-v3-base", "longformer-base-4096",
        "dinov2-giant", "beit-base-patch16-224", "wav2vec2-base-960h", "moonshine-tiny", "persimmon-8b", "mimo-7b",
        "step3-316b",
    ],
)  # fmt: skip
def test_any_wrong_value_is_an_import_error_or_ignored(name: str, value: object) -> None:
    whole = config(name)
    for key in whole:
        if key in ("model_type", "architectures"):
            continue
        try:
            made = architecture_from_config({**whole, key: value}, name)
        except ImportFormatError:
            continue
        assert made.layers


MATRIX_FLOPS = {
    "lfm2-350m": 45_470_310_400,
    "recurrentgemma-2b": 343_622_082_560,
    "zamba2-1.2b": 225_183_793_152,
    "zamba2-2.7b": 493_197_721_600,
    "persimmon-8b": 1_067_567_808_512,
    "wav2vec2-base-960h": 28_227_033_088,
    "dinov2-base": 303_147_436_032,
    "beit-base-patch16-224": 35_127_656_448,
    "deberta-v3-base": 12 * (8_455_716_864 + 1_610_612_736),
}
"""FLOPs of one forward pass as torch's FlopCounterMode counts them in the reference implementation, with full squares of
scores: 64 tokens, two seconds of sound (100 frames), one image, or 512 tokens (DeBERTa). Of Zamba2 without batched
products, which hold the padded chunks of its scan."""


@pytest.mark.parametrize("name", MATRIX_FLOPS)
def test_matrix_flops_are_those_of_the_reference(name: str) -> None:
    made = shipped(name)
    tokens = made.fixed_tokens or {"wav2vec2-base-960h": 100, "deberta-v3-base": 512}.get(name, 64)
    step = (Slice(1, tokens, 0, sampled=1 if made.fixed_tokens else tokens),)
    total = 0.0
    for op in transformer_graph(made).ops:
        if op.kind == "gemm":
            total += op.flops.at(features(step, op.span)) * op.repeat
        elif op.kind == "attention" and not name.startswith("zamba"):
            total += 4.0 * tokens**2 * op.heads * op.head_dim * op.repeat
    assert total == pytest.approx(MATRIX_FLOPS[name], rel=0.002)
