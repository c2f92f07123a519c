"""The accuracy page, the held-out parameters behind it, and the pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from simulator.cli.main import main
from simulator.cost.efficiency import find_calibration
from simulator.errors import ScenarioError
from simulator.mapping.machine import load_machine
from simulator.predict import predict
from simulator.scenario import Scenario
from validation import accuracy, kernels, residuals, standing, transfer, wording
from validation.endtoend import compare
from validation.origins import explained, spread
from validation.plots import accuracy_figure, kernel_points, run_points, write_plot
from validation.quantities import ended_early, measured
from validation.rows import COLUMNS
from validation.tables import END_TO_END, KERNELS, read_table
from validation.transfer import HeldOut


@pytest.fixture(scope="module")
def stored() -> pd.DataFrame:
    return residuals.stored()


def test_the_page_is_that_of_the_stored_residuals(stored: pd.DataFrame) -> None:
    page = accuracy.PAGE.read_text(encoding="utf-8")
    runs = standing.runs_of(stored)
    for section in accuracy.run_sections(runs, stored):
        assert section.rstrip() in page, section.splitlines()[0]
    for text in (wording.FITTED, wording.ODD, wording.RESIDUAL, wording.REMAINDER, wording.SIX):
        assert text.strip() in page
    for picture in ("runs", "kernels", "size"):
        path = accuracy.PICTURES / f"accuracy-{picture}.png"
        assert path.stat().st_size < 300_000
        assert f"images/{path.name}" in page


def test_stored_residuals_are_of_the_shipped_table(stored: pd.DataFrame) -> None:
    table = read_table(END_TO_END, COLUMNS)
    shipped = stored[stored["parameters"] == residuals.SHIPPED]
    sample = shipped[shipped["metric"] == "e2el_s"].sample(20, random_state=0)
    assert sample["measured"].to_numpy() == pytest.approx(table["latency_s"].reindex(sample["row"]).to_numpy())
    heldout = stored[stored["parameters"] != residuals.SHIPPED]
    assert {name.split(" from ")[0] for name in heldout["parameters"]} == {"ampere", "hopper"}
    for device in heldout["device"].unique():
        used = heldout[heldout["device"] == device]["parameters"].str.split(" from ").str[1]
        assert not used.str.contains(device).any()


def test_held_out_parameters_take_the_place_of_the_shipped(stored: pd.DataFrame) -> None:
    machine = load_machine("h100-sxm5-80gb")
    other = find_calibration(load_machine("a100-sxm4-80gb"))
    held = HeldOut("test", other, frozenset({machine.device}), {"vllm": {"host_step_s": 1.0}})
    assert held.calibrate(machine) is other
    assert held.calibrate(load_machine("mi300x")).name != other.name
    asked = Scenario("llama-2-7b", "h100-sxm5-80gb", engine="vllm")
    assert (
        held.build()(asked).predict(asked.batch, asked.input_tokens, asked.output_tokens).tpot_s
        > 1.0
        > predict(asked).tpot_s
    )
    same = replace(held, calibration=None, engines={})
    assert same.build()(asked).predict(asked.batch, asked.input_tokens, asked.output_tokens).tpot_s == pytest.approx(
        predict(asked).tpot_s
    )


def test_held_out_kernels_use_other_parameters() -> None:
    path = next(KERNELS.glob("h100_sxm/gemm__vllm*"))
    table = read_table(path).sample(60, random_state=0)
    own = kernels.compare([("t", table)], baseline=True)
    other = find_calibration(load_machine("a100-sxm4-80gb"))
    held = kernels.compare([("t", table)], calibrate=lambda machine: other)
    assert len(held.rows) == len(own.rows) == len(table)
    assert not np.allclose(held.rows["predicted"], own.rows["predicted"])
    assert (own.rows["ideal"] <= own.rows["predicted"] * 1.0001).all()
    answer = own.to_dict(baseline=True)
    assert answer["baseline"]["metrics"]["gemm"]["mape"] > answer["metrics"]["gemm"]["mape"]


def test_fits_are_kept_and_resumed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def run(options: object) -> dict[str, float]:
        calls.append(options)
        return {"gemm.compute": 0.5}

    monkeypatch.setattr(transfer.fit, "run", run)
    for _ in range(2):
        assert transfer.fitted(("a100-sxm4-80gb",), "gemm", ("vllm",)) == {"gemm.compute": 0.5}
    assert len(calls) == 1


def test_measured_constants_are_those_with_a_measured_source() -> None:
    assert "host_step_s" in transfer.measured_constants("vllm")
    assert transfer.measured_constants("hf") == {}


def test_sequences_that_end_early_are_left_out() -> None:
    row = {"ttft_ms": 80.0, "tpot_ms": 37.0, "output_len": 1000, "latency_s": 6.3, "throughput_tokens_per_s": 9.0,
           "throughput_kind": "output", "power_w": 100.0}  # fmt: skip
    found, left = measured(row)
    assert set(found) == {"ttft_s", "tpot_s"}
    assert len(left) == 3
    assert not ended_early(row | {"latency_s": 37.0})


def test_fp32_operators_of_older_devices_are_predicted() -> None:
    table = read_table(next(KERNELS.glob("pytorch_fp32/*.parquet")))
    found = kernels.compare([("ops", table)])
    assert len(found.rows) == len(table)
    assert {"p100-pcie-16gb", "t4", "v100-pcie-32gb", "mi100"} <= set(found.rows["hardware"])
    assert set(found.rows["op"]) == {"bmm", "linear", "elementwise", "softmax", "layernorm"}
    error = found.rows[found.rows["op"] == "elementwise"]
    assert (error["predicted"] / error["measured"] - 1).abs().median() < 0.2


def test_collectives_alone_do_not_wait_for_one_another() -> None:
    table = read_table(next(KERNELS.glob("h100_sxm/comm__vllm*custom_allreduce*")))
    small = kernels.compare([("t", table[table["message_size"] <= 1024])]).rows
    assert small["predicted"].min() < 15e-6


def test_sizes_and_baseline_of_runs() -> None:
    table = read_table(END_TO_END, COLUMNS)
    table = table[table["framework"].eq("TensorRT-LLM") & table["latency_s"].notna()].head(20)
    answer = compare([("t", table)]).to_dict(baseline=True)
    assert {"hardware", "framework", "metric", "batch_class", "context_class"} <= set(answer["by_size"][0])
    assert sum(record["n"] for record in answer["by_size"]) == sum(record["n"] for record in answer["by"])
    assert {"n", "mape", "median_ape", "bias"} <= set(answer["baseline"]["by"][0])


def test_spread_and_explained() -> None:
    groups, count, median, most = spread(pd.Series([10.0, 10.0, 7.0]), [pd.Series([1, 1, 2])])
    assert (groups, count, median, most) == (1, 2, 0.0, 0.0)
    rows = pd.DataFrame({
        "device": ["a", "a", "b", "b"], "framework": "e", "tp": 1, "pp": 1, "dp": 1, "model": "m", "batch": 1,
        "input_len": [1, 2, 1, 2], "output_len": 1, "residual": [1.0, 1.0, -1.0, -1.0],
    })  # fmt: skip
    found = explained(rows)
    assert found["explains"].iloc[0] == pytest.approx(1.0)
    assert found["left"].iloc[-1] == pytest.approx(0.0)


def test_the_picture_draws_every_device_and_engine(stored: pd.DataFrame, tmp_path: Path) -> None:
    rows = stored[(stored["parameters"] == residuals.SHIPPED)]
    points = run_points(rows)
    figure = accuracy_figure(points, "title", "size")
    names = {trace.name for trace in figure.data if trace.name}
    assert any(name.startswith("h100-sxm5-80gb, vllm") for name in names)
    assert len({trace.marker.symbol for trace in figure.data if trace.name}) >= 4
    assert "within 25%" in figure.layout.title.text
    write_plot("runs", rows, tmp_path / "runs.json")
    drawn = json.loads((tmp_path / "runs.json").read_text())
    assert drawn["layout"]["xaxis"]["type"] == "log"
    assert sum(len(trace.x) for trace in figure.data if trace.name) < 8000
    with pytest.raises(ScenarioError, match="--plot"):
        write_plot("runs", rows, tmp_path / "runs.gif")


def test_the_summary_of_a_device_goes_by_any_of_its_names() -> None:
    found = CliRunner().invoke(main, ["validate", "summary", "--hardware", "H100", "--json"])
    assert found.exit_code == 0, found.output
    answer = json.loads(found.stdout)
    assert {row["hardware"] for row in answer["runs"] + answer["kernels"]} == {"h100-sxm5-80gb"}
    refused = CliRunner().invoke(main, ["validate", "summary", "--hardware", "H1O0"])
    assert refused.exit_code == 2
    assert "unknown hardware 'H1O0'" in refused.stderr


def test_an_empty_comparison_can_be_drawn() -> None:
    columns = ["hardware", "framework", "op", "measured", "predicted"]
    assert accuracy_figure(kernel_points(pd.DataFrame(columns=columns)), "t", "s").data
