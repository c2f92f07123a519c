"""Ways of training: state in 16 bits, warm-ups before compression, divided sequences, unfused scores."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.errors import UnsupportedError
from simulator.train import TrainingPrediction, predict_training


def step(**more: Any) -> TrainingPrediction:
    return predict_training(**{"model": "llama-3.2-1b", "hardware": "dgx-a100", "sequence_tokens": 4096, **more})


def test_state_in_sixteen_bits_takes_a_third_of_the_room() -> None:
    whole, half = step(), step(state_dtype="bf16", master_copy=False)
    assert half.memory_by_role_bytes["optimizer"] * 3 == pytest.approx(whole.memory_by_role_bytes["optimizer"])
    assert half.memory_by_role_bytes["weight"] == whole.memory_by_role_bytes["weight"]


def test_a_warmup_mixes_both_kinds_of_step() -> None:
    asked: dict[str, Any] = {
        "model": "bert-large", "hardware": "v100-ethernet-64", "sequence_tokens": 128, "gradient_dtype": "fp16",
        "micro_batch": 8,
    }  # fmt: skip
    before = step(**asked)
    bare = step(**{**asked, "techniques": ("one-bit-adam:warmup=0",)})
    mixed = step(**{**asked, "techniques": ("one-bit-adam:warmup=0.25",)})
    assert mixed.step_s == pytest.approx(0.25 * before.step_s + 0.75 * bare.step_s)
    assert mixed.energy_j == pytest.approx(0.25 * before.energy_j + 0.75 * bare.energy_j)


def test_a_divided_sequence_keeps_the_work_and_divides_the_activations() -> None:
    whole = step(dp=1)
    parts = step(dp=1, cp=8)
    assert parts.devices == 8
    assert parts.model_flops == pytest.approx(whole.model_flops, rel=0.02)
    assert parts.samples_per_s * parts.step_s == pytest.approx(1.0)
    kept = [answer.memory_by_role_bytes["activation"] for answer in (whole, parts)]
    assert kept[1] == pytest.approx(kept[0] / 8, rel=0.05)
    assert whole.step_s / 8 < parts.step_s < whole.step_s
    with pytest.raises(UnsupportedError, match="cp=2"):
        step(model="vit-base-patch16-224", cp=2)


def test_scores_that_cross_memory_more_often_take_longer() -> None:
    times = [step(flash_attention=True, dp=1).step_s]
    times += [step(flash_attention=False, score_passes=passes, dp=1).step_s for passes in (2.0, 8.0, 18.5)]
    assert times == sorted(times)
    assert times[-1] > 1.3 * times[0]
