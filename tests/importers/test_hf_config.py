"""Shapes read from HF configs, family by family, and what the importer says of configs that it cannot read."""

from __future__ import annotations

from typing import Any

import pytest

from simulator import catalog
from simulator.errors import ImportFormatError
from simulator.graph.architecture import (
    Architecture,
    Attention,
    FeedForward,
    LatentAttention,
    LinearAttention,
    MixtureOfExperts,
    SelectiveScan,
)
from simulator.importers.hf_config import architecture_from_config, known_families
from simulator.spec.loader import load
from simulator.spec.model import ModelSpec

BASE: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 32768,
}


def read(family: str, **changes: Any) -> Architecture:
    config = {**BASE, "model_type": family, **changes}
    return architecture_from_config({k: v for k, v in config.items() if v != "absent"}, "example")


def shipped(name: str) -> Architecture:
    spec = load(catalog.find("model", name), ModelSpec)
    assert spec.config is not None
    return architecture_from_config(spec.config, spec.name)


def windows(made: Architecture) -> dict[int | None, int]:
    found: dict[int | None, int] = {}
    for block in made.blocks:
        assert isinstance(block.mixer, Attention)
        found[block.mixer.window] = found.get(block.mixer.window, 0) + block.repeat
    return found


def test_llama_keeps_one_block() -> None:
    made = read("llama")
    assert made.name == "example"
    assert made.family == "llama"
    assert len(made.blocks) == 1
    assert made.layers == 12
    assert made.blocks[0].mixer == Attention(8, 2, 64)
    assert made.blocks[0].channel == FeedForward(1024)
    assert made.tied is False


def test_kv_heads_default_to_heads() -> None:
    mixer = read("llama", num_key_value_heads="absent").blocks[0].mixer
    assert isinstance(mixer, Attention)
    assert mixer.kv_heads == 8


@pytest.mark.parametrize(
    ("given", "dtype"), [("bfloat16", "bf16"), ("torch.float16", "fp16"), ("float32", "fp32"), (None, "fp32")]
)
def test_dtype_is_the_published_one(given: str | None, dtype: str) -> None:
    assert read("llama", torch_dtype=given).dtype == dtype
    assert read("llama", dtype=given).dtype == dtype


@pytest.mark.parametrize(
    ("family", "changes", "expected"),
    [
        ("mistral", {"sliding_window": 4096}, {4096: 12}),
        ("mistral", {"sliding_window": None}, {None: 12}),
        ("mistral", {}, {4096: 12}),
        ("phi3", {"sliding_window": 262144}, {None: 12}),
        ("qwen2", {"sliding_window": 4096}, {None: 12}),
        ("qwen2", {"sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 8}, {None: 8, 4096: 4}),
        ("gemma2", {"sliding_window": 4096}, {4096: 6, None: 6}),
        ("gemma3_text", {"sliding_window": 512}, {512: 10, None: 2}),
        ("cohere2", {"sliding_window": 4096}, {4096: 9, None: 3}),
        ("olmo3", {"sliding_window": 1024, "layer_types": ["full_attention"] * 12}, {None: 12}),
        ("exaone4", {"sliding_window": 4096}, {4096: 9, None: 3}),
    ],
)
def test_windows(family: str, changes: dict[str, Any], expected: dict[int | None, int]) -> None:
    assert windows(read(family, **changes)) == expected


def test_sinks_and_alternating_windows() -> None:
    made = shipped("gpt-oss-20b")
    assert windows(made) == {128: 12, None: 12}
    assert all(isinstance(block.mixer, Attention) and block.mixer.sinks for block in made.blocks)
    channel = made.blocks[0].channel
    assert isinstance(channel, MixtureOfExperts)
    assert (channel.experts, channel.top_k, channel.bias, channel.router_bias) == (32, 4, True, True)


def test_chunked_attention_without_rotary_in_every_fourth_layer() -> None:
    made = shipped("llama-4-maverick")
    chunked = [b for b in made.blocks if isinstance(b.mixer, Attention) and b.mixer.chunk == 8192]
    assert sum(block.repeat for block in chunked) == 36
    routed = [b for b in made.blocks if isinstance(b.channel, MixtureOfExperts)]
    assert sum(block.repeat for block in routed) == 24
    assert made.vision is not None
    assert made.vision.tokens == 144


@pytest.mark.parametrize(("family", "norms"), [("gptj", 1), ("phi", 1), ("cohere", 1), ("gpt_neox", 2)])
def test_parallel_residual(family: str, norms: int) -> None:
    block = read(family).blocks[0]
    assert block.parallel
    assert block.norms == norms


def test_falcon_generations() -> None:
    seventh, fortieth = shipped("falcon-7b"), shipped("falcon-40b")
    assert isinstance(seventh.blocks[0].mixer, Attention)
    assert isinstance(fortieth.blocks[0].mixer, Attention)
    assert (seventh.blocks[0].mixer.kv_heads, seventh.blocks[0].norms) == (1, 1)
    assert (fortieth.blocks[0].mixer.kv_heads, fortieth.blocks[0].norms) == (8, 2)


def test_kv_heads_per_layer() -> None:
    made = shipped("decilm-7b")
    heads = {b.mixer.kv_heads: b.repeat for b in made.blocks if isinstance(b.mixer, Attention)}
    assert sum(count * repeat for count, repeat in heads.items()) == 67


def test_described_layers_without_attention() -> None:
    entries = [
        {"attention": {"n_heads_in_group": 4, "no_op": False}, "ffn": {"ffn_mult": 3.0}},
        {"attention": {"n_heads_in_group": None, "no_op": True}, "ffn": {"ffn_mult": 1.5}},
    ]
    made = read("nemotron-nas", num_hidden_layers=2, block_configs=entries, num_key_value_heads="absent")
    first, second = made.blocks
    assert isinstance(first.mixer, Attention)
    assert first.mixer.kv_heads == 2
    assert first.channel == FeedForward(1024)
    assert second.mixer is None
    assert second.norms == 1


def test_latent_attention_and_first_dense_layers() -> None:
    made = shipped("deepseek-v3")
    assert [block.repeat for block in made.blocks] == [3, 58]
    mixer, channel = made.blocks[1].mixer, made.blocks[1].channel
    assert mixer == LatentAttention(128, 1536, 512, 128, 64, 128)
    assert isinstance(made.blocks[0].channel, FeedForward)
    assert isinstance(channel, MixtureOfExperts)
    assert (channel.experts, channel.top_k, channel.shared_intermediate) == (256, 8, 2048)


def test_sparse_indexer() -> None:
    mixer = shipped("deepseek-v3.2").blocks[0].mixer
    assert isinstance(mixer, LatentAttention)
    assert (mixer.index_heads, mixer.index_dim, mixer.index_top_k) == (64, 128, 2048)


def test_shared_expert_with_gate() -> None:
    channel = shipped("qwen2-moe-57b-a14b").blocks[0].channel
    assert isinstance(channel, MixtureOfExperts)
    assert channel.shared_gate
    assert channel.shared_intermediate == 20480


def test_dense_mlp_beside_the_experts() -> None:
    channel = shipped("arctic").blocks[0].channel
    assert isinstance(channel, MixtureOfExperts)
    assert channel.dense_intermediate == 7168


def test_sparse_step_and_dense_layers() -> None:
    common = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256}
    made = read("qwen3_moe", decoder_sparse_step=2, mlp_only_layers=[1], **common)
    routed = sum(b.repeat for b in made.blocks if isinstance(b.channel, MixtureOfExperts))
    assert routed == 5


def test_jamba_interleaves_three_ways() -> None:
    made = shipped("jamba-v0.1")
    scans = sum(b.repeat for b in made.blocks if isinstance(b.mixer, SelectiveScan))
    routed = sum(b.repeat for b in made.blocks if isinstance(b.channel, MixtureOfExperts))
    assert (made.layers, scans, routed) == (32, 28, 16)


def test_gated_delta_hybrid() -> None:
    made = shipped("qwen3-next-80b-a3b")
    delta, full = made.blocks
    assert delta.repeat == 36
    assert delta.mixer == LinearAttention("gated_delta", 16, 32, 128, 128, conv=4)
    assert full.repeat == 12
    assert isinstance(full.mixer, Attention)
    assert full.mixer.output_gate


def test_kimi_linear_mixes_two_recurrences_and_two_channels() -> None:
    made = shipped("kimi-linear-48b-a3b")
    full = sum(b.repeat for b in made.blocks if isinstance(b.mixer, LatentAttention))
    dense = sum(b.repeat for b in made.blocks if isinstance(b.channel, FeedForward))
    assert (made.layers, full, dense) == (27, 7, 1)


def test_nemotron_h_letters() -> None:
    made = shipped("nemotron-h-8b")
    assert made.layers == 52
    assert sum(b.repeat for b in made.blocks if isinstance(b.mixer, Attention)) == 4
    with pytest.raises(ImportFormatError, match="unknown letter 'X'"):
        read("nemotron_h", hybrid_override_pattern="X")


def test_falcon_h1_runs_both_mixers_at_once() -> None:
    block = shipped("falcon-h1-1.5b").blocks[0]
    assert isinstance(block.mixer, Attention)
    assert isinstance(block.parallel_mixer, SelectiveScan)


@pytest.mark.parametrize(("name", "flavour"), [("rwkv5-1.5b", "rwkv5"), ("rwkv6-7b", "rwkv6"), ("rwkv7-1.5b", "rwkv7")])
def test_rwkv(name: str, flavour: str) -> None:
    made = shipped(name)
    mixer, channel = made.blocks[0].mixer, made.blocks[0].channel
    assert isinstance(mixer, LinearAttention)
    assert mixer.flavour == flavour
    assert isinstance(channel, FeedForward)
    assert channel.receptance is (flavour != "rwkv7")
    assert made.max_context is None


def test_encoder_decoder() -> None:
    made = shipped("flan-t5-xl")
    assert made.encoder is not None
    assert made.encoder.vocab == 0
    cross = made.blocks[0].cross
    assert cross is not None
    assert cross.cross
    assert made.blocks[0].norms == 3
    assert isinstance(made.blocks[0].channel, FeedForward)
    assert made.blocks[0].channel.gated
    assert made.decode


def test_whisper_encoder_has_a_fixed_length() -> None:
    made = shipped("whisper-large-v3")
    assert made.encoder is not None
    assert made.encoder.fixed_tokens == 1500


def test_switch_routes_every_second_layer() -> None:
    made = shipped("switch-base-8")
    routed = sum(b.repeat for b in made.blocks if isinstance(b.channel, MixtureOfExperts))
    assert routed == 6


def test_encoders_do_not_decode() -> None:
    for name in ("bert-base", "modernbert-base", "vit-base-patch16-224", "clip-vit-large-patch14"):
        assert shipped(name).decode is False
    assert shipped("albert-base-v2").blocks[0].shared_weights


def test_kv_sharing_layers() -> None:
    made = shipped("gemma-3n-e2b")
    shared = sum(b.repeat for b in made.blocks if isinstance(b.mixer, Attention) and b.mixer.shares_kv)
    assert shared == 10


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("llava-1.5-7b", 576),
        ("llama3-llava-next-8b", 2880),
        ("gemma-3-4b", 256),
        ("vila-1.5-3b", 196),
        ("nvila-2b", 121),
        ("deepseek-ocr", 273),
    ],
)
def test_image_tokens(name: str, tokens: int) -> None:
    vision = shipped(name).vision
    assert vision is not None
    assert vision.tokens == tokens


def test_nested_configs_use_what_their_class_assumes() -> None:
    config = {
        "model_type": "llava",
        "text_config": {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096},
        "torch_dtype": "float16",
    }
    made, whole = architecture_from_config(config, "short"), shipped("llava-1.5-7b")
    assert made.blocks == whole.blocks
    assert made.vision == whole.vision


@pytest.mark.parametrize("family", ["gemma3n", "gemma4"])
def test_nested_text_config_may_leave_out_its_family(family: str) -> None:
    name = {"gemma3n": "gemma-3n-e2b", "gemma4": "gemma-4-e2b"}[family]
    spec = load(catalog.find("model", name), ModelSpec)
    assert spec.config is not None
    text = {key: value for key, value in spec.config.items() if key != "model_type"}
    made = architecture_from_config({"model_type": family, "text_config": text}, "example")
    assert made.blocks == shipped(name).blocks


def test_windowed_vision_tower() -> None:
    vision = shipped("qwen2.5-vl-7b").vision
    assert vision is not None
    found = {b.mixer.window: b.repeat for b in vision.blocks if isinstance(b.mixer, Attention)}
    assert found == {64: 28, None: 4}


def test_sizes_may_be_given_per_side() -> None:
    vision = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**BASE, "model_type": "qwen2"}
    made = [
        architecture_from_config(
            {
                "model_type": "internvl",
                "text_config": text,
                "vision_config": {**vision, "image_size": size, "patch_size": patch},
            },
            "example",
        )
        for size, patch in ((448, 14), ([448, 448], [14, 14]))
    ]
    assert made[0] == made[1]
    assert made[0].vision is not None
    assert made[0].vision.tokens == 256


def test_families_are_many_and_sorted() -> None:
    families = known_families()
    assert families == sorted(families)
    assert len(families) >= 185


def test_case_of_the_family_does_not_matter() -> None:
    assert read("Yi").blocks == read("llama").blocks


class TestErrors:
    def test_unknown_family_names_near_ones_and_the_way_out(self) -> None:
        with pytest.raises(ImportFormatError) as caught:
            read("qwen3_mo")
        message = str(caught.value)
        assert "unknown model_type 'qwen3_mo'" in message
        assert "qwen3_moe" in message
        assert "graph builder" in message
        assert "'example'" in message

    def test_no_family(self) -> None:
        with pytest.raises(ImportFormatError, match="no 'model_type'; add"):
            architecture_from_config({"hidden_size": 8}, "example")

    def test_family_of_the_wrong_type(self) -> None:
        with pytest.raises(ImportFormatError, match="'model_type' must be text, not 3"):
            architecture_from_config({"model_type": 3}, "example")

    def test_not_a_mapping(self) -> None:
        with pytest.raises(ImportFormatError, match="must be a mapping, not list"):
            architecture_from_config([], "example")  # type: ignore[arg-type]

    def test_all_missing_keys_at_once(self) -> None:
        with pytest.raises(ImportFormatError) as caught:
            architecture_from_config({"model_type": "llama", "num_attention_heads": 8}, "example")
        for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"):
            assert f"needs '{key}'" in str(caught.value)

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("hidden_size", "512", "'hidden_size' must be a positive whole number, not '512' (str)"),
            ("num_hidden_layers", 0, "'num_hidden_layers' must be a positive whole number, not 0 (int)"),
            ("vocab_size", True, "'vocab_size' must be a positive whole number, not True (bool)"),
            ("intermediate_size", 10.5, "'intermediate_size' must be a positive whole number, not 10.5 (float)"),
            ("tie_word_embeddings", "no", "'tie_word_embeddings' must be true or false, not 'no' (str)"),
            ("torch_dtype", "bfloat61", "'torch_dtype' is the unknown 'bfloat61'; did you mean 'bfloat16'?"),
            ("layer_types", ["full_attention"], "'layer_types' has 1 items for 12 layers"),
            ("layer_types", ["odd"] * 12, "unknown kind 'odd'"),
            ("num_key_value_heads", 3, "not a multiple of num_key_value_heads 3"),
            ("num_attention_heads", 7, "hidden_size 512 is not a multiple of num_attention_heads 7"),
        ],
    )
    def test_wrong_values_are_named(self, key: str, value: object, said: str) -> None:
        with pytest.raises(ImportFormatError) as caught:
            read("llama", **{key: value})
        assert said in str(caught.value)

    def test_nested_keys_are_named_with_their_path(self) -> None:
        vision = {"model_type": "siglip_vision_model", "hidden_size": "wide"}
        with pytest.raises(ImportFormatError) as caught:
            architecture_from_config({"model_type": "gemma3", "text_config": {}, "vision_config": vision}, "example")
        assert "'vision_config.hidden_size' must be" in str(caught.value)

    def test_nested_unknown_family(self) -> None:
        with pytest.raises(ImportFormatError, match="'text_config' has the unknown model_type 'lama'; near: llama"):
            architecture_from_config({"model_type": "llava", "text_config": {"model_type": "lama"}}, "example")

    def test_too_many_experts_per_token(self) -> None:
        with pytest.raises(ImportFormatError, match="more than the 4 experts"):
            read("mixtral", num_local_experts=4, num_experts_per_tok=8)

    @pytest.mark.parametrize("family", known_families())
    def test_an_empty_config_never_ends_in_a_traceback_of_ours(self, family: str) -> None:
        with pytest.raises(ImportFormatError, match=family):
            architecture_from_config({"model_type": family, "num_hidden_layers": "x"}, "example")

    @pytest.mark.parametrize("value", ["x", -1, [], {}, True])
    @pytest.mark.parametrize("name", ["deepseek-v3", "gemma-3-4b", "jamba-v0.1", "whisper-tiny", "qwen2.5-vl-3b"])
    def test_any_wrong_value_is_an_import_error_or_ignored(self, name: str, value: object) -> None:
        spec = load(catalog.find("model", name), ModelSpec)
        assert spec.config is not None
        for key in spec.config:
            if key in ("model_type", "architectures"):
                continue
            try:
                made = architecture_from_config({**spec.config, key: value}, name)
            except ImportFormatError:
                continue
            assert made.layers
