"""Predictions of whole training steps: closed forms, laws, published bands, the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from simulator.cli.main import main
from simulator.errors import ScenarioError, UnknownNameError, UnsupportedError
from simulator.train import KEYS, predict_training

LLAMA: dict[str, Any] = {"model": "llama-2-7b", "sequence_tokens": 4096}
BOX: dict[str, Any] = {**LLAMA, "hardware": "dgx-a100", "zero_stage": 3}
GPT: dict[str, Any] = {
    "model": "gpt3-175b", "hardware": "H100", "tp": 8, "pp": 16, "dp": 8, "sequence_tokens": 2048,
    "gradient_accumulation": 64,
}  # fmt: skip
SCENARIOS: list[dict[str, Any]] = [
    {**BOX, "recompute": "full", "micro_batch": 2},
    {**LLAMA, "hardware": "A100", "dp": 32, "zero_stage": 2, "gradient_accumulation": 4},
    {**GPT, "recompute": "selective"},
    {**BOX, "lora_rank": 16, "zero_stage": 0},
    {"model": "resnet-50", "hardware": "dgx-a100", "micro_batch": 64, "weight_dtype": "bf16"},
    {"model": "stable-diffusion-1.5-unet", "hardware": "dgx-h100", "micro_batch": 8},
    {"model": "dit-xl-2", "hardware": "dgx-h100", "micro_batch": 16, "pp": 2, "gradient_accumulation": 8},
    {"model": "t5-base", "hardware": "dgx-h100", "micro_batch": 8, "sequence_tokens": 512},
    {"model": "mixtral-8x7b", "hardware": "dgx-h100", "tp": 2, "ep": 2, "zero_stage": 3, "recompute": "full"},
]


def name(scenario: dict[str, Any]) -> str:
    return f"{scenario['model']}-{scenario['hardware']}"


def test_a_7b_model_in_a_box_trains_at_the_utilisation_that_such_boxes_reach() -> None:
    answer = predict_training(**BOX, recompute="full", micro_batch=4)
    assert answer.devices == 8
    assert answer.fits
    assert answer.advice is None
    assert 0.3 < answer.mfu < 0.75
    assert answer.tokens_per_s == pytest.approx(4 * 8 * 4096 / answer.step_s)
    assert answer.samples_per_s == pytest.approx(4 * 8 / answer.step_s)


def test_what_does_not_fit_is_told_what_would() -> None:
    answer = predict_training(**BOX, micro_batch=16)
    assert not answer.fits
    assert answer.advice is not None
    assert "full recomputation" in answer.advice
    assert "ZeRO stage" not in answer.advice
    assert predict_training(**BOX, micro_batch=16, recompute="full").fits


def test_every_offer_of_the_advice_fits() -> None:
    asked: dict[str, Any] = {**BOX, "zero_stage": 0, "recompute": "full"}
    answer = predict_training(**asked)
    assert answer.advice is not None
    assert "ZeRO stage 1" in answer.advice
    assert "tp=2" in answer.advice
    assert predict_training(**{**asked, "zero_stage": 1}).fits
    assert predict_training(**asked, tp=2, dp=4).fits


def test_advice_where_nothing_helps() -> None:
    answer = predict_training(model="gpt3-175b", hardware="dgx-a100", sequence_tokens=2048)
    assert answer.advice is not None
    assert "use more devices" in answer.advice


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_memory_of_a_pipeline_stage_is_the_closed_form(recompute: str) -> None:
    """Korthikanti et al., arXiv 2205.05198, without dropout masks and with flash attention: s b h (8 + 24 / t) bytes per
    layer, 2 s b h where it is recomputed; p micro-batches in flight on the first of p stages; 16 bytes per parameter."""
    hidden, tokens, layers_of_stage, ranks, stages = 12288, 2048, 6, 8, 16
    answer = predict_training(**GPT, recompute=recompute)
    block = tokens * hidden * (8 + 24 / ranks)
    kept = {"none": block, "full": 2 * tokens * hidden}[recompute] * layers_of_stage * stages
    activations = kept + (block if recompute == "full" else 0.0)
    weights = 12 * hidden**2 * layers_of_stage / ranks + 50257 * hidden / ranks + 2048 * hidden / ranks
    assert answer.memory_by_role_bytes["activation"] == pytest.approx(activations, rel=0.05)
    assert answer.memory_bytes == pytest.approx(16 * weights + activations, rel=0.05)


def test_a_pipeline_keeps_no_more_micro_batches_than_there_are() -> None:
    few = predict_training(**{**GPT, "gradient_accumulation": 4}).memory_by_role_bytes["activation"]
    many = predict_training(**{**GPT, "gradient_accumulation": 16}).memory_by_role_bytes["activation"]
    more = predict_training(**{**GPT, "gradient_accumulation": 64}).memory_by_role_bytes["activation"]
    assert few == pytest.approx(many / 4, rel=0.05)
    assert many == more


def test_the_bubble_is_that_of_1f1b() -> None:
    answer = predict_training(**GPT)
    assert answer.bubble_share == 15 / (64 + 15)
    assert predict_training(**BOX).bubble_share == 0.0
    one, two = (predict_training(**{**GPT, "dp": 1, "gradient_accumulation": m}).tokens_per_s for m in (16, 256))
    assert one is not None
    assert two is not None
    assert two / one == pytest.approx((31 / 16) / (271 / 256), rel=0.05)


def test_model_flops_are_6_n_and_attention_whatever_is_recomputed() -> None:
    """6 N over the weights in GEMMs, and 6 L h s per token of causal attention."""
    tokens, in_gemms = 8 * 4096, 6738415616 - 32000 * 4096
    plain, again = (predict_training(**BOX, recompute=way) for way in ("none", "full"))
    assert plain.model_flops == again.model_flops
    assert plain.model_flops == pytest.approx((6 * in_gemms + 6 * 32 * 4096 * 4096) * tokens, rel=0.02)
    assert again.step_s > 1.2 * plain.step_s
    assert again.mfu < plain.mfu


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("hardware", ["A100", "H100"])
def test_more_replicas_never_slow_a_token(hardware: str, stage: int) -> None:
    """Also where a ring leaves the reach of the fast links, at 8 and 16 devices."""
    seconds = []
    for dp in (1, 2, 4, 8, 16, 32, 128):
        answer = predict_training(**LLAMA, hardware=hardware, dp=dp, zero_stage=stage, gradient_accumulation=2)
        assert answer.tokens_per_s is not None
        seconds.append(1 / answer.tokens_per_s)
    assert seconds == sorted(seconds, reverse=True)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=name)
def test_nothing_is_faster_than_light(scenario: dict[str, Any]) -> None:
    ideal = predict_training(**scenario, engine="ideal")
    assert 0 < ideal.mfu <= 1
    for engine in ("native", "deepspeed", "hf"):
        answer = predict_training(**scenario, engine=engine)
        assert ideal.step_s <= answer.step_s
        assert 0 <= answer.communication_share <= 1


@pytest.mark.parametrize("scenario", SCENARIOS, ids=name)
def test_energy_parts_sum(scenario: dict[str, Any]) -> None:
    answer = predict_training(**scenario)
    assert sum(answer.energy_by_component_j.values()) == pytest.approx(answer.energy_j)
    assert answer.power_w == pytest.approx(answer.energy_j / answer.step_s)
    machine = answer.trainer.resolved.machine
    assert machine.static_w * answer.devices <= answer.power_w <= machine.tdp_w * answer.devices * (1 + 1e-9)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=name)
def test_json_keys_are_stable(scenario: dict[str, Any]) -> None:
    found = predict_training(**scenario).to_dict()
    assert list(found) == [*KEYS, "interval", "advice", "provenance"]
    assert list(found["memory_by_role_bytes"]) == ["weight", "gradient", "optimizer", "activation"]
    assert sum(found["memory_by_role_bytes"].values()) == found["memory_bytes"]
    for key, (low, high) in found["interval"].items():
        assert low <= found[key] <= high
    json.dumps(found, allow_nan=False)


def test_the_plan_divides_by_the_ranks_there_are() -> None:
    whole, eighth = (predict_training(**{**BOX, "zero_stage": stage}) for stage in (0, 3))
    assert eighth.provenance["dp"] == 8
    for role in ("gradient", "optimizer"):
        assert whole.memory_by_role_bytes[role] == pytest.approx(8 * eighth.memory_by_role_bytes[role])  # type: ignore[index]


def test_samples_of_a_fixed_size_have_no_tokens() -> None:
    short, long = (
        predict_training(model="resnet-50", hardware="A100", micro_batch=32, sequence_tokens=tokens)
        for tokens in (1, 4096)
    )
    assert short.step_s == long.step_s
    assert short.tokens_per_s is None
    assert short.usd_per_billion_tokens is None
    assert short.usd_per_step is not None
    # 3 times the forward pass of 4.1 GMAC, but for the gradient of the image.
    assert short.model_flops == pytest.approx(3 * 2 * 4.1e9 * 32, rel=0.05)


def test_adapters_leave_the_frozen_weights_narrow() -> None:
    asked: dict[str, Any] = {"model": "llama-2-7b", "hardware": "A100", "sequence_tokens": 1024}
    full = predict_training(**asked)
    lora = predict_training(**asked, lora_rank=16)
    narrow = predict_training(**asked, lora_rank=16, weight_dtype="int4")
    assert lora.memory_by_role_bytes["optimizer"] < 0.02 * full.memory_by_role_bytes["optimizer"]
    assert lora.model_flops == pytest.approx(full.model_flops * 4 / 6, rel=0.05)
    assert narrow.memory_by_role_bytes["weight"] < 0.35 * lora.memory_by_role_bytes["weight"]


def test_exchanges_hide_behind_the_passes() -> None:
    """A batch large enough hides all but a piece of each exchange; one that is too small shows them."""
    large = predict_training(**BOX, micro_batch=8)
    small = predict_training(**{**BOX, "sequence_tokens": 64})
    assert large.communication_share < 0.01
    assert small.communication_share > 0.1
    assert small.bound == "link"


def test_money_follows_time_and_devices() -> None:
    answer = predict_training(**GPT)
    assert answer.usd_per_step is not None
    assert answer.usd_per_billion_tokens is not None
    per_step = 64 * 8 * 2048
    assert answer.usd_per_billion_tokens == pytest.approx(answer.usd_per_step / per_step * 1e9)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"micro_batch": 0}, ScenarioError, "micro_batch must be at least 1"),
        ({"sequence_tokens": 8192}, ScenarioError, "lower --sequence"),
        ({"tp": 3}, ScenarioError, "tp=3 does not divide"),
        ({"dp": 16}, ScenarioError, "has 8"),
        ({"recompute": "some"}, ScenarioError, "none, selective, full"),
        ({"zero_stage": 4}, ScenarioError, "zero_stage must be"),
        ({"weight_dtype": "int4"}, ScenarioError, "lora-rank"),
        ({"optimizer": "adam"}, UnknownNameError, "adamw"),
        ({"model": "t5-base", "pp": 2, "sequence_tokens": 512}, UnsupportedError, "encoder"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        predict_training(**{**BOX, **changes})


ARGUMENTS = ["train", "--model", "llama-2-7b", "--hardware", "dgx-a100", "--sequence", "4096", "--zero", "3"]


def test_the_command_prints_the_sections_of_predict() -> None:
    done = CliRunner().invoke(main, [*ARGUMENTS, "--micro-batch", "16", "--explain"])
    assert done.exit_code == 0, done.output
    for words in ("optimizer step", "MFU", "DOES NOT FIT", "full recomputation", "USD per billion", "down_proj.wgrad"):
        assert words in done.output


def test_the_command_prints_json() -> None:
    done = CliRunner().invoke(main, [*ARGUMENTS, "--recompute", "full", "--accumulate", "2", "--json", "--explain"])
    found = json.loads(done.output)
    assert found["fits"] is True
    assert found["provenance"]["dp"] == 8
    assert {op["phase"] for op in found["ops"]} == {"train"}


@pytest.mark.parametrize("wrong", [["--recompute", "x"], ["--tp", "3"], ["--engine", "nativ"], ["--micro-batch", "0"]])
def test_errors_of_the_command_exit_2(wrong: list[str]) -> None:
    done = CliRunner().invoke(main, [*ARGUMENTS, *wrong])
    assert done.exit_code == 2
    assert "error: " in done.output
    assert "Traceback" not in done.output
