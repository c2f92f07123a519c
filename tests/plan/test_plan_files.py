"""Plan files from their text to the answer, and every way they can be wrong."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

import simulator as sim
from simulator import catalog
from simulator.errors import (
    ImportFormatError,
    InfeasiblePlanError,
    ScenarioError,
    SimulatorError,
    SpecError,
    UnknownNameError,
)
from simulator.plan.load import bucketed, read_csv, traffic_rows
from simulator.plan.option import expanded
from simulator.spec.loader import load
from simulator.spec.plan import PlanSpec, TrafficSpec

TABLES: dict[str, Any] = {
    "loads": [{"traffic": [[500, 100, 3.0], [2000, 100, 1.0]], "rate": 40.0}],
    "options": [
        {"hardware": "small", "price": "1 USD/h"},
        {"hardware": "large", "price": "3 USD/h"},
    ],
    "throughput": [
        {"option": "small", "rows": [[500, 100, 5], [2000, 100, 1]]},
        {"option": "large", "rows": [[500, 100, 15], [2000, 100, 12]]},
    ],
}
MELANGE = {
    "gpu_info": {
        "A10G": {"cost": 1.01, "tputs": [[2, 1], [5, 2]]},
        "A100-80GB": {"cost": 3.67, "tputs": [[20, 20], [40, 20]]},
    },
    "workload_distribution": [[0.2, 0.1], [0.5, 0.2]],
    "total_request_rate": 30.0,
    "slice_factor": 1,
}


def changed(**parts: Any) -> dict[str, Any]:
    return {**deepcopy(TABLES), **parts}


def written(tmp_path: Path, data: dict[str, Any]) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def test_melange_example_costs_less_than_published(tmp_path: Path) -> None:
    path = tmp_path / "melange.json"
    path.write_text(json.dumps(MELANGE), encoding="utf-8")
    answer = sim.plan(path)
    assert answer.status == "optimal"
    # One A100: 6/20 + 3/20 + 10/40 + 6/20 = 1, and one A10G: 5/5 = 1.
    assert answer.usd_per_hour == pytest.approx(4.68)
    assert {part.option.name: part.instances for part in answer.parts} == {"a10g": 1, "a100-sxm4-80gb": 1}
    assert [single.objective for single in answer.singles] == [pytest.approx(12.12), pytest.approx(7.34)]
    assert answer.saving == pytest.approx(1 - 4.68 / 7.34)


def test_the_answer_adds_up() -> None:
    answer = sim.plan(TABLES)
    assert answer.usd_per_hour == pytest.approx(sum(part.usd_per_hour for part in answer.parts))
    assert sum(part.load_share for part in answer.parts) == pytest.approx(1.0)
    assert all(0 < part.utilization <= 1 + 1e-9 for part in answer.parts)
    frame = answer.to_frame()
    assert frame["requests_per_s"].sum() == pytest.approx(40.0)
    busy = (frame["requests_per_s"] / frame["instance_requests_per_s"]).groupby(frame["option"]).sum()
    for part in answer.parts:
        assert busy[part.option.name] == pytest.approx(part.utilization * part.instances)
    assert json.loads(json.dumps(answer.to_dict(), allow_nan=True))["gap"] <= 0.005


def test_doubling_the_rate_never_lowers_the_cost() -> None:
    costs = [
        sim.plan(changed(loads=[{**TABLES["loads"][0], "rate": rate}], solver={"gap": 0})).usd_per_hour
        for rate in (5, 10, 20, 40, 80)
    ]
    assert costs == sorted(costs)


def test_stock_binds_and_says_what_it_costs() -> None:
    free = sim.plan(changed(solver={"gap": 0}))
    used = {part.option.name: part.devices for part in free.parts}
    tight = sim.plan(changed(solver={"gap": 0}, stock=[{"hardware": "large", "devices": used["large"] - 1}]))
    assert tight.usd_per_hour >= free.usd_per_hour
    if tight.usd_per_hour > free.usd_per_hour:
        assert tight.binding[0].constraint == "stock of large"
        assert tight.binding[0].objective == pytest.approx(free.objective)


def test_infeasible_names_the_constraint() -> None:
    with pytest.raises(InfeasiblePlanError, match=r"stock of small: 1, and \d+ are needed|stock of large: 1, and"):
        sim.plan(changed(stock=[{"hardware": "small", "devices": 1}, {"hardware": "large", "devices": 1}]))
    with pytest.raises(InfeasiblePlanError, match="budget of money: 2, and"):
        sim.plan(changed(budgets={"money": "2 USD/h"}))
    with pytest.raises(InfeasiblePlanError, match=r"max_replicas of large: 1, and .* are needed"):
        sim.plan(changed(options=[{"hardware": "large", "price": "3 USD/h", "max_replicas": 1}]))
    short = {"option": "small", "rows": [[500, 100, 5]]}
    with pytest.raises(InfeasiblePlanError, match=r"\[2000 in, 100 out\] \(small: beyond its table\)"):
        sim.plan(changed(options=[TABLES["options"][0]], throughput=[short]))


def test_time_out_is_not_optimal() -> None:
    answer = sim.plan(changed(solver={"gap": 0, "time_limit": "1 us"}))
    assert answer.status == "feasible"
    assert "not proven" in str(answer)
    assert "proven best" not in str(answer).replace("not proven best", "")


def test_spot_reserved_and_interruptions() -> None:
    option = {"hardware": "large", "purchase": ["on_demand", "spot"], "price": "3 USD/h", "interruptions_per_hour": 2}
    answer = sim.plan(changed(options=[option], spot={"recovery": "180 s", "max_share": 0.5}))
    spot = [part for part in answer.parts if part.option.purchase == "spot"]
    assert sum(part.load_share for part in spot) <= 0.5 + 1e-9
    prices = changed(options=[{"hardware": ["a10g"], "purchase": ["on_demand", "reserved", "spot"], "provider": "aws"}])
    prices["throughput"] = [{"option": "a10g", "rows": [[2000, 100, 4]]}]
    options, _ = expanded(PlanSpec.model_validate(prices), Path("plan"), tables=True)
    assert [option.usd_per_hour for option in options] == [pytest.approx(v) for v in (1.006, 0.63, 0.45)]
    away = {**option, "purchase": "spot"}
    options, _ = expanded(PlanSpec.model_validate(changed(options=[away])), Path("plan"), tables=True)
    assert options[0].available == pytest.approx(1 / (1 + 2 * 300 / 3600))


def test_power_and_carbon_as_objective_and_as_budget() -> None:
    options = [
        {"hardware": "small", "price": "1 USD/h", "power": "300 W", "idle_power": "50 W", "region": "coal"},
        {"hardware": "large", "price": "3 USD/h", "power": "400 W", "idle_power": "80 W", "region": "hydro"},
    ]
    regions = {"coal": {"carbon_g_per_kwh": 800}, "hydro": {"carbon_g_per_kwh": 20, "pue": 1.1}}
    by = {
        name: sim.plan(changed(options=options, regions=regions, objective=name, solver={"gap": 0}))
        for name in ("money", "power", "carbon")
    }
    assert by["money"].usd_per_hour <= min(by["power"].usd_per_hour, by["carbon"].usd_per_hour)
    assert by["power"].power_w <= min(by["money"].power_w or 0, by["carbon"].power_w or 0) + 1e-6
    assert by["carbon"].carbon_g_per_hour <= (by["money"].carbon_g_per_hour or 0) + 1e-6
    watts = by["power"].power_w
    capped = sim.plan(changed(options=options, regions=regions, budgets={"power": f"{watts * 1.01} W"}))
    assert capped.power_w <= watts * 1.011
    assert capped.usd_per_hour >= by["money"].usd_per_hour - 1e-6
    with pytest.raises(SpecError, match="carbon_g_per_kwh is not known"):
        sim.plan(changed(objective="carbon"))
    with pytest.raises(ScenarioError, match="power of 'small' is not known"):
        sim.plan(changed(objective="power"))


def test_several_loads_share_stock() -> None:
    loads = [{**TABLES["loads"][0], "name": name, "rate": 20} for name in ("one", "two")]
    both = sim.plan(changed(loads=loads, stock=[{"hardware": "large", "devices": 2}], solver={"gap": 0}))
    assert sum(part.devices for part in both.parts if part.option.hardware == "large") <= 2
    assert {part.option.load for part in both.parts} == {"one", "two"}
    alone = sim.plan(changed(loads=loads[:1], solver={"gap": 0}))
    assert both.usd_per_hour >= 2 * alone.usd_per_hour - 1e-6


def test_todays_fleet_is_left_only_for_a_saving() -> None:
    options = [{"hardware": "small", "price": "1 USD/h", "current": 30}, {"hardware": "large", "price": "3 USD/h"}]
    moved = sim.plan(changed(options=options, switching={"start": "1000 USD", "stop": "1000 USD", "horizon": "10 h"}))
    assert {part.option.hardware: part.instances for part in moved.parts} == {"small": 30}
    assert moved.switching_usd_per_hour == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loads": [{"traffic": [[500, 100, 1]], "rate": 0}]}, "loads.0.rate: Input should be greater than 0"),
        ({"loads": [{"traffic": [[500, 100, 0]], "rate": 1}]}, "the histogram is empty"),
        ({"loads": [{"traffic": [], "rate": 1}]}, "the histogram is empty"),
        ({"loads": [{"traffic": [[0, 100, 1]], "rate": 1}]}, "at least 1 token"),
        ({"loads": [{"traffic": "no-such-trace", "rate": 1}]}, "unknown traffic 'no-such-trace'"),
        ({"loads": [{"traffic": [[5, 5, 1]], "rate": 1, "slo": {"tpot": "0 ms"}}]}, "'0 ms' must be greater than 0"),
        ({"loads": [{"traffic": [[5, 5, 1]], "rate": 1, "slo": {"tpot": 0.05}}]}, "a time is needed"),
        ({"loads": [{"traffic": [[5, 5, 1]], "rate": 1, "slo": {"percentile": 99}}]}, "at least one of ttft"),
        ({"loads": [*TABLES["loads"], *TABLES["loads"]]}, "'load' stands there twice"),
        ({"stock": [{"hardware": "huge", "devices": 1}]}, "stock.0.hardware: unknown stock 'huge'"),
        ({"options": [{"hardware": "small"}]}, "lists no on demand price of small; add `price"),
        ({"options": [{"hardware": "small", "price": "0 USD/h"}]}, "must be greater than 0"),
        ({"options": [{"hardware": "small", "price": "1 USD/h", "tp": 0}]}, "tp must be at least 1"),
        ({"options": [{"hardware": "medium", "price": "1 USD/h"}]}, "'medium' has no rows"),
        ({"options": [{"hardware": "small", "price": "1 USD/h", "loads": ["x"]}]}, "no load 'x'"),
        ({"options": [{"hardware": "small", "price": "1 USD/h", "role": "decode"}]}, "need `link`"),
        ({"options": [TABLES["options"][0]] * 2}, "stands there twice"),
        ({"throughput": [{"option": "small", "rows": [[500, 100, float("nan")]]}]}, "nan] is not two lengths"),
        ({"throughput": [{"option": "small", "rows": [[500, 100, -1]]}]}, "a rate of at least 0"),
        ({"throughput": [{"rows": [[500, 100, 1]]}]}, "whose rows they are"),
        ({"prices": "no-such-table"}, "unknown price 'no-such-table'"),
        ({"objektive": "money"}, "unknown key 'objektive'; did you mean 'objective'"),
    ],
)
def test_bad_files_are_refused_at_their_line(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = written(tmp_path, changed(**change))
    with pytest.raises(SimulatorError) as caught:
        sim.plan(path)
    assert words in str(caught.value)
    if isinstance(caught.value, SpecError) and "twice" not in words and "no rows" not in words:
        assert all(problem.line > 0 for problem in caught.value.problems), str(caught.value)


def test_an_unknown_device_without_tables_is_named(tmp_path: Path) -> None:
    data = changed(options=[{"hardware": "h1000"}])
    del data["throughput"]
    with pytest.raises(SpecError, match=r"plan.yaml:\d+:\d+: options.0.hardware: unknown hardware 'h1000'"):
        sim.plan(written(tmp_path, data))
    with pytest.raises(UnknownNameError):
        sim.plan("no-such-deployment")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"engine": "vlmm"}, "options.0.engine: unknown engine 'vlmm'; did you mean 'vllm'"),
        ({"techniques": ["none", "fp88"]}, "options.0.techniques: unknown technique 'fp88'; did you mean 'fp8'"),
        ({"role": "prefill"}, "need `link`"),
    ],
)
def test_names_of_the_model_are_checked_before_anything_is_left_out(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    load = {"traffic": [[500, 100, 1]], "rate": 1, "model": "llama-3.1-8b", "slo": {"tpot": "50 ms"}}
    data: dict[str, Any] = {"loads": [load], "options": [{"hardware": "l4", **change}]}
    with pytest.raises(SpecError) as caught:
        sim.plan(written(tmp_path, data))
    assert words in str(caught.value)
    data["loads"] = [{**load, "model": "lama"}]
    data["options"] = [{"hardware": "l4"}]
    with pytest.raises(SpecError, match=r"plan.yaml:\d+:\d+: loads.0.model: unknown model 'lama'"):
        sim.plan(written(tmp_path, data))


def test_what_cannot_run_is_left_out_by_name() -> None:
    load = {"traffic": [[500, 100, 1]], "rate": 1, "model": "llama-3.1-8b", "slo": {"tpot": "50 ms"}}
    answer = sim.plan(
        {"loads": [load], "options": [{"hardware": "h100", "tp": [1, 3], "techniques": ["none", "distserve"]}]}
    )
    assert [note.split(":")[0] for note in answer.notes] == [
        f"h100-sxm5-80gb{words} is left out" for words in (", distserve", " x3", " x3, distserve")
    ]
    with pytest.raises(ScenarioError, match="needs a model"):
        sim.plan(
            {"loads": [{"traffic": [[5, 5, 1]], "rate": 1, "slo": {"tpot": "1 s"}}], "options": [{"hardware": "l4"}]}
        )
    with pytest.raises(ScenarioError, match="needs an slo"):
        sim.plan({"loads": [{"traffic": [[5, 5, 1]], "rate": 1, "model": "gpt2"}], "options": [{"hardware": "l4"}]})


def test_a_missing_price_falls_back_by_name(tmp_path: Path) -> None:
    spec = PlanSpec.model_validate(changed(prices="melange", options=[{"hardware": "l40s"}]))
    options, notes = expanded(spec, Path("plan"), tables=False)
    assert options[0].usd_per_hour > 0
    assert "lists no price for it" in notes[0]


def test_csv_tables(tmp_path: Path) -> None:
    table = tmp_path / "measured.csv"
    table.write_text(
        "option,input_tokens,output_tokens,requests_per_s\nsmall,500,100,5\nsmall,2000,100,0\nlarge,2000,100,12\n"
    )
    answer = sim.plan(written(tmp_path, changed(throughput=[{"file": "measured.csv"}])))
    assert any("throughput 0" in note for note in answer.notes)
    assert answer.to_frame().query("input_tokens == 2000")["option"].tolist() == ["large"]
    table.write_text("option,input_tokens,output_tokens,requests_per_s\nsmall,500,100,nan\nlarge,2000,100,\n")
    with pytest.raises(SpecError) as caught:
        sim.plan(written(tmp_path, changed(throughput=[{"file": "measured.csv"}])))
    assert [problem.line for problem in caught.value.problems] == [2, 3]
    table.write_text("option,input_tokens\n")
    with pytest.raises(SpecError, match="needs the columns output_tokens, requests_per_s"):
        sim.plan(written(tmp_path, changed(throughput=[{"file": "measured.csv"}])))


def test_aibrix_profiles(tmp_path: Path) -> None:
    profile = {"gpu": "small", "cost": 1.0, "tputs": [[5.0, 1.0], [2.0, 0.0]], "indexes": [[100, 200], [500, 2000]]}
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    tables = [{"file": "profile.json"}, TABLES["throughput"][1]]
    answer = sim.plan(written(tmp_path, changed(throughput=tables)))
    assert answer.usd_per_hour == pytest.approx(sim.plan(TABLES).usd_per_hour)
    for broken in ({**profile, "tputs": [[5.0, -1.0], [2.0, 0.0]]}, {**profile, "tputs": [[1.0]]}, {"gpu": "small"}):
        (tmp_path / "profile.json").write_text(json.dumps(broken))
        with pytest.raises(ImportFormatError, match=r"profile.json"):
            sim.plan(written(tmp_path, changed(throughput=tables)))


@pytest.mark.parametrize("key", ["workload_distribution", "total_request_rate"])
def test_broken_melange_files(tmp_path: Path, key: str) -> None:
    path = tmp_path / "melange.json"
    path.write_text(json.dumps({**MELANGE, key: "many"}))
    with pytest.raises(ImportFormatError, match="not a configuration of Melange"):
        sim.plan(path)


def test_traces_become_histograms(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    lines = [f"2023-11-16,{100 + i},{10 + i % 50}" for i in range(1000)]
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]))
    rows = read_csv(trace)
    assert len(rows) < 40
    assert sum(row[2] for row in rows) == 1000
    assert sum(row[0] * row[2] for row in rows) == pytest.approx(sum(100 + i for i in range(1000)))
    mixed = traffic_rows({"azure-code-2023": 3.0, "arxiv-summarization": 1.0}, Path("plan"))
    assert sum(share for _, _, share in mixed) == pytest.approx(1.0)
    trace.write_text("input_tokens,output_tokens\n100,5\n0,5\nx,5\n")
    with pytest.raises(SpecError) as caught:
        read_csv(trace)
    assert [problem.line for problem in caught.value.problems] == [3, 4]
    assert bucketed.__doc__


@pytest.mark.parametrize("path", list(catalog.files("traffic")), ids=lambda path: path.stem)
def test_shipped_histograms(path: Path) -> None:
    spec = load(path, TrafficSpec)
    assert spec.name == path.stem
    assert sum(row[2] for row in spec.buckets) == spec.requests
    assert spec.licence
    assert len(spec.buckets) <= 120


@pytest.mark.parametrize("path", list(catalog.files("deployment")), ids=lambda path: path.stem)
def test_shipped_deployments_can_be_planned(path: Path) -> None:
    answer = sim.plan(path.stem)
    assert answer.status == "optimal"
    assert answer.gap <= 0.005
    alone = [single.objective for single in answer.singles if single.objective is not None]
    assert all(answer.objective <= value * (1 + 1e-9) for value in alone)
