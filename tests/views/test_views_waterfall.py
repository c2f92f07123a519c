"""The waterfall's parts add up to the times, and nothing in them is negative."""

from __future__ import annotations

import pytest

from simulator.predict import predict
from simulator.views.waterfall import COLOURS, waterfall, waterfall_figure, waterfall_records

CASES = {
    "one device": {"model": "llama-3.1-8b", "hardware": "h100-sxm5-80gb", "batch": 8, "input_tokens": 1024},
    "links": {"model": "llama-2-70b", "hardware": "dgx-a100", "batch": 64},
    "pipeline": {"model": "llama-2-70b", "hardware": "a100-sxm4-80gb", "pp": 4, "batch": 64},
    "offloaded": {"model": "llama-2-70b", "hardware": "flexgen-t4", "batch": 8},
    "copies": {"model": "llama-2-70b", "hardware": "server-a100", "techniques": ("layers-on-host",)},
    "turns": {"model": "llama-2-13b", "hardware": "t4", "weight_dtype": "int4", "batch": 256, "input_tokens": 2048},
    "encoder": {"model": "whisper-base", "hardware": "t4"},
    "one pass": {"model": "resnet-50", "hardware": "t4"},
    "drafts": {"model": "llama-3.1-8b", "hardware": "h100-sxm5-80gb", "techniques": ("medusa",)},
    "chunked prefill": {"model": "llama-3.1-8b", "hardware": "a100-sxm4-80gb", "techniques": ("sarathi",), "batch": 16},
    "ideal": {"model": "llama-3.1-8b", "hardware": "h100-sxm5-80gb", "engine": "ideal"},
    "small device": {"model": "ds-cnn", "hardware": "stm32h743"},
}


@pytest.mark.parametrize("name", CASES)
def test_parts_add_up(name: str) -> None:
    prediction = predict(**CASES[name])
    parts = waterfall(prediction)
    for metric in ("ttft_s", "tpot_s"):
        mine = [part for part in parts if part.metric == metric]
        total = getattr(prediction, metric)
        assert sum(part.seconds for part in mine) == pytest.approx(total, rel=1e-9, abs=1e-15)
        assert all(part.seconds >= -1e-9 * total for part in mine), mine
        assert all(part.kind in COLOURS for part in mine)
        if total:
            assert sum(part.share for part in mine) == pytest.approx(1.0)


def test_the_figure_stands_on_the_records() -> None:
    parts = waterfall(predict(**CASES["one device"]))
    before = waterfall(predict(**{**CASES["one device"], "hardware": "a100-sxm4-80gb"}))
    figure = waterfall_figure(parts, before)
    records = waterfall_records(parts)
    widths = [width for bar in figure.data for width in bar.x]
    shown = [record for record in records if record["share"] >= 5e-4]
    assert len(widths) == len(shown)
    first = [record["seconds"] for record in shown if record["metric"] == "ttft_s"]
    assert widths[: len(first)] == pytest.approx([seconds * 1e3 for seconds in first])
    for bar in figure.data:
        ends = [base + width for base, width in zip(bar.base, bar.x, strict=True)]
        assert bar.base[0] == 0.0
        assert list(bar.base[1:]) == pytest.approx(ends[:-1], rel=0.01)
    texts = [annotation.text for annotation in figure.layout.annotations]
    assert any("baseline" in text for text in texts)


def test_more_bandwidth_moves_the_memory_part_only() -> None:
    slow, fast = (
        {
            part.name: part.seconds
            for part in waterfall(predict(**{**CASES["one device"], "hardware": name}))
            if part.metric == "tpot_s"
        }
        for name in ("h100-sxm5-80gb", "h200-sxm-141gb")
    )
    assert fast["memory hbm"] < slow["memory hbm"]
    assert fast["host"] == pytest.approx(slow["host"])
