"""What a person reads: terms of an op, tables, HTML, frames."""

from __future__ import annotations

import json
import re
from types import ModuleType

import pandas as pd
import pytest

import simulator as sim
from simulator.result import KEYS, OpCost, Prediction
from simulator.views.compare import compare, records, variants
from simulator.views.document import Paragraph, Section, Table, as_html
from simulator.views.frames import ops_frame, predictions_frame
from simulator.views.records import op_record, prediction_record, to_json
from simulator.views.text import compare_table, explain_text, op_terms, prediction_html, prediction_text


def op(**changes: object) -> OpCost:
    """An op bound by its memory."""
    values: dict[str, object] = {
        "phase": "decode", "op": "qkv_proj", "block": "attention", "kind": "gemm", "unit": "tensor", "time_s": 121e-6,
        "compute_s": 41e-6, "memory_s": {"hbm": 118e-6}, "cache_s": 0.0, "link_s": 0.0, "launch_s": 3e-6,
        "bound": "memory hbm", "share": 1.0, "flops": 4e8, "memory_bytes": {"hbm": 2e8}, "energy_j": 0.01,
    }  # fmt: skip
    return OpCost(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def prediction() -> Prediction:
    return sim.predict(model="llama-3.1-8b", hardware="A100", batch=2)


def test_terms_are_written_out() -> None:
    assert op_terms(op()) == "max(compute 41.0 us, hbm 118 us) + launch 3.00 us = 121 us (memory: hbm)"


def test_terms_say_what_is_lost() -> None:
    text = op_terms(op(time_s=141e-6))
    assert text == "max(compute 41.0 us, hbm 118 us) + losses 20.0 us + launch 3.00 us = 141 us (memory: hbm)"


def test_terms_of_a_collective() -> None:
    cost = op(kind="collective", compute_s=0.0, memory_s={}, link_s=10e-6, launch_s=0.0, time_s=10e-6, bound="link")
    assert op_terms(cost) == "link 10.0 us = 10.0 us (link)"


def test_terms_of_every_op_add_up(prediction: Prediction) -> None:
    """The largest term, the losses and the launch make the whole time: losses are never negative."""
    for cost in prediction.ops():
        terms = (cost.compute_s, *cost.memory_s.values(), cost.cache_s, cost.link_s)
        assert cost.time_s >= (max(terms) + cost.launch_s) * (1 - 1e-9)


def test_text_and_html_say_the_same(prediction: Prediction) -> None:
    words = re.sub(r"<[^>]+>", " ", prediction_html(prediction)).replace("&#x27;", "'")
    for line in prediction_text(prediction).splitlines():
        for part in filter(None, re.split(r" {2,}", line.strip())):
            assert part in words
    assert prediction._repr_html_() == prediction_html(prediction)


def test_html_is_escaped() -> None:
    section = Section("<b>", (("<script>", "&", "<i>"),))
    table = Table(("<th>",), (("<td>",),))
    text = as_html(["<h1>", "<h2>"], [section, table, Paragraph("<p>")])
    for tag in ("<script>", "<h1>", "<i>", "<b>"):
        assert tag not in text
    assert "&lt;script&gt;" in text


def test_explanation_covers_every_op(prediction: Prediction) -> None:
    text = explain_text(prediction)
    assert all(cost.op in text for cost in prediction.ops())
    assert text == prediction.explain()


def test_system_text_counts_all_devices() -> None:
    text = prediction_text(sim.predict(model="llama-3.1-8b", hardware="dgx-h100", tp=4, dp=2, batch=8))
    assert "8 devices (tp 4, dp 2)" in text
    tdp_w = sim.load_machine("dgx-h100").tdp_w * 8
    assert f"of the {tdp_w / 1e3:.1f} kW limit" in text or f"of the {tdp_w / 1e3:.2f} kW limit" in text


def test_failures_take_a_row_of_their_own() -> None:
    base = sim.Scenario(model="llama-3.1-8b", hardware="")
    found = records(variants(base, ["nvme-pcie4", "A100"]), "e2el_s")
    assert [record["problem"] is None for record in found] == [True, False]
    lines = compare_table(found).splitlines()
    assert "computes nothing" in lines[2]
    assert "NO" not in lines[1]


def test_prices_that_are_unknown_come_last() -> None:
    base = sim.Scenario(model="llama-3.1-8b", hardware="")
    found = records(variants(base, ["SN40L", "A100"]), "usd_per_million_output_tokens")
    prices = [record["usd_per_million_output_tokens"] for record in found]
    assert prices.index(None) == len(prices) - 1 if None in prices else prices == sorted(prices)


def test_misspelt_names_are_raised_not_listed() -> None:
    with pytest.raises(sim.UnknownNameError):
        compare(["A1O0"], model="llama-3.1-8b")


def test_frames(prediction: Prediction) -> None:
    frame = prediction.to_frame()
    pd.testing.assert_frame_equal(frame, ops_frame(prediction.ops()))
    assert len(frame) == len(prediction.ops())
    assert frame["hbm_s"].notna().all()
    sums = frame.groupby("phase")["share"].sum()
    assert sums.to_numpy() == pytest.approx([1.0, 1.0])
    rows = predictions_frame([prediction, prediction])
    assert set(KEYS) <= set(rows.columns)
    assert rows["ttft_s_low"].le(rows["ttft_s"]).all()


def test_comparison_frame_is_sorted() -> None:
    frame = sim.compare(["A100", "H100"], model="llama-3.1-8b", engines=["ideal"], techniques=["none", "weight-int4"])
    assert list(frame["e2el_s"]) == sorted(frame["e2el_s"])
    assert set(frame["techniques"]) == {"", "weight-int4"}


def test_records_are_json(prediction: Prediction) -> None:
    record = prediction_record(prediction)
    assert json.loads(to_json(record))["model"] == "llama-3.1-8b"
    assert json.loads(to_json([op_record(cost) for cost in prediction.ops()]))
    assert json.loads(to_json({"a": float("nan"), "b": [float("inf")]})) == {"a": None, "b": [None]}


def test_package_calls_its_modules() -> None:
    """`sim.predict` is called and is also the module, whichever is imported first."""
    import simulator.predict as module

    assert isinstance(module, ModuleType)
    assert sim.predict is module
    scenario = sim.Scenario(model="llama-3.1-8b", hardware="A100")
    assert sim.predict(scenario).tpot_s == module.predict(scenario).tpot_s
    with pytest.raises(AttributeError, match="predikt"):
        sim.predikt  # noqa: B018
    assert set(sim.__all__) == set(dir(sim))
