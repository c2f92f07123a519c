"""The gate: what moves, gets worse or breaks a law fails; what does not passes; bad files are refused by name and line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from simulator import catalog
from simulator.cli.main import main
from simulator.errors import ImportFormatError, ScenarioError, SpecError
from simulator.predict import predict
from simulator.result import Prediction
from simulator.train import predict_training
from simulator.trainer import TrainingScenario
from validation import regress
from validation.gate import accuracy, laws, outcome, report, store
from validation.gate.changes import FLOOR, WORSE, moves
from validation.gate.outcome import Current
from validation.gate.scenarios import SET, items

SMALL = """
groups:
  - group: gpu
    model: [qwen2.5-0.5b]
    hardware: [A100, t4]
    work: [1 x 128 + 16]
  - group: training
    train: true
    model: [gpt2]
    hardware: [A100]
    work: [1 x 256]
"""


@pytest.fixture
def answer() -> Prediction:
    return predict(model="qwen2.5-0.5b", hardware="a100-sxm4-80gb", input_tokens=64, output_tokens=8)


def broken(answer: Prediction) -> set[str]:
    return {found.law for found in laws.check("one", answer)}


def test_a_sound_prediction_keeps_all_laws(answer: Prediction) -> None:
    assert broken(answer) == set()


@pytest.mark.parametrize(
    ("key", "factor", "law"),
    [
        ("power_w", 1.01, laws.ENERGY),
        ("energy_j", 0.99, laws.ENERGY),
        ("energy_j", 0.01, laws.PARTS),
        ("e2el_s", 0.01, laws.LIGHT),
        ("e2el_s", 0.5, laws.BANDWIDTH),
        ("e2el_s", 0.5, laws.COMPUTE),
    ],
)
def test_a_broken_law_is_seen(answer: Prediction, key: str, factor: float, law: str) -> None:
    """A wrong number beside a run that is right: of monotony, a time that the faster machine does not reach."""
    assert law in broken(replace(answer, **{key: getattr(answer, key) * factor}))


def test_an_interval_beside_its_value_is_seen(answer: Prediction) -> None:
    class Beside:
        def interval(self, prediction: Prediction, regime: str = "static") -> dict[str, tuple[float, float]]:
            return {"ttft_s": (prediction.ttft_s * 1.1, prediction.ttft_s * 2.0)}

        def __getattr__(self, name: str) -> Any:
            return getattr(answer.run, name)

    assert broken(replace(answer, run=Beside())) == {laws.ENCLOSED}


def test_training_keeps_the_laws_and_is_caught() -> None:
    step = predict_training(TrainingScenario("gpt2", "a100-sxm4-80gb", sequence_tokens=256))
    assert list(laws.check_training("one", step)) == []
    assert {b.law for b in laws.check_training("one", replace(step, step_s=step.step_s * 0.01))} == {laws.LIGHT}
    assert {b.law for b in laws.check_training("one", replace(step, energy_j=1.0))} == {laws.PARTS}


@pytest.mark.parametrize("technique", ["speculative-plain", "medusa", "sarathi"])
def test_energy_of_speculative_runs_is_the_sum_of_its_parts(technique: str) -> None:
    found = predict(model="llama-3.1-8b", hardware="h100-sxm5-80gb", engine="vllm", batch=4, input_tokens=2048,
                    output_tokens=64, techniques=(technique,))  # fmt: skip
    assert sum(found.energy_by_component_j.values()) == pytest.approx(found.energy_j, rel=1e-9)
    assert ("drafts" in found.energy_by_component_j) == (technique == "speculative-plain")


def test_energy_of_copied_experts_is_the_sum_of_its_parts() -> None:
    found = predict(model="mixtral-8x7b", hardware="server-a100", output_tokens=16, techniques=("experts-on-host",))
    assert sum(found.energy_by_component_j.values()) == pytest.approx(found.energy_j, rel=1e-9)


def test_the_shipped_set_covers_what_there_is() -> None:
    listed = items()
    scenarios = [item.scenario for item in listed]
    assert 300 <= len(listed) <= 700
    used = {catalog.find("hardware", scenario.hardware).parent.name for scenario in scenarios}
    assert used >= {"gpu", "accelerator", "pim", "sbc", "mobile", "mcu", "cpu", "fpga", "system"}
    assert len({scenario.model for scenario in scenarios}) > 60
    assert len({name for scenario in scenarios for name in scenario.techniques}) > 25
    assert {scenario.engine for scenario in scenarios} >= {"ideal", "vllm", "sglang", "llama.cpp", "tensorrt-llm", "hf"}
    assert any(isinstance(scenario, TrainingScenario) for scenario in scenarios)


def test_the_shipped_baselines_hold_the_shipped_set() -> None:
    """Names only: what the values are is what the gate itself says."""
    listed: dict[str, set[str]] = {}
    for item in items():
        listed.setdefault(item.group, set()).add(item.name)
    for group, names in listed.items():
        assert set(store.read(store.FOLDER / "predictions" / f"{group}.csv", "scenario")) == names
    stored = {path.stem for path in (store.FOLDER / "predictions").glob("*.csv")}
    assert stored == {*listed, outcome.RUNS}
    for name in ("runs", "kernels", "claims"):
        assert store.read(store.FOLDER / "accuracy" / f"{name}.csv", "group")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("groups: []", "groups"),
        ("groups: [{group: a, model: [gpt2], hardware: [A100], work: [8 tokens]}]", "batch x input"),
        (
            "groups: [{group: a, model: [gpt2], hardware: [A100], work: [1 x 8 + 8], more: [{tpp: 2}]}]",
            "tpp do not belong",
        ),
        ("groups: [{group: a, model: [gpt2], hardware: [A100], work: [1 x 8], train: false}]", "do not belong"),
        ("groups: [{group: a, model: [gpt2, gpt2], hardware: [A100], work: [1 x 8 + 8]}]", "there twice"),
    ],
)
def test_bad_sets_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "set.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        items(path)


def test_tables_come_back_as_they_were(tmp_path: Path) -> None:
    table: store.Table = {"b": {"x": 0.1, "fits": "true"}, "a, quoted": {"x": 2.0}}
    path = tmp_path / "t.csv"
    store.write({path: store.text(table, "scenario", ("x", "fits"))})
    assert store.read(path, "scenario") == table
    assert path.read_text().splitlines()[1].startswith('"a, quoted"')
    assert store.read(tmp_path / "none.csv", "scenario") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n1,2\n", "t.csv:1: no column 'scenario'"),
        ("scenario,y\na,1,2\n", "t.csv:2: as many values"),
        ("scenario,y\na\n", "t.csv:2: as many values"),
        ("scenario,y\na,1\na,2\n", "t.csv:3: 'a' is there twice"),
        ("", "t.csv:1: no column"),
    ],
)
def test_broken_baselines_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ImportFormatError, match=message):
        store.read(path, "scenario")


def test_an_update_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b" / "b.csv"
    store.write({first: "before\n"})
    second.parent.mkdir()

    def full(*arguments: Any, **named: Any) -> Any:
        if Path(named["dir"]) == second.parent:
            raise OSError(28, "No space left on device")
        return whole(*arguments, **named)

    whole = store.tempfile.NamedTemporaryFile
    monkeypatch.setattr(store.tempfile, "NamedTemporaryFile", full)
    with pytest.raises(OSError, match="No space"):
        store.write({first: "after\n", second: "after\n"})
    assert first.read_text() == "before\n"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.csv", "b"]


def test_moves_are_told_from_rounding() -> None:
    before: store.Table = {"a": {"x": 1.0, "fits": "true"}, "gone": {"x": 1.0}}
    after: store.Table = {"a": {"x": 1.000009, "fits": "false"}, "new": {"x": 1.0}}
    found = [(move.scenario, move.quantity, move.before, move.after) for move in moves("g", before, after)]
    assert found == [
        ("a", "fits", "true", "false"),
        ("gone", "scenario", "there", None),
        ("new", "scenario", None, "there"),
    ]


def stored(folder: Path, median: float) -> Current:
    """Baselines with one group of accuracy; what is computed has a median error of 20%."""
    table: store.Table = {"a100 / vllm": {"n": 10.0, "median_ape": median, "mape": 0.3, "bias": 0.0}}
    store.write({folder / "accuracy" / "runs.csv": store.text(table, "group", accuracy.STATISTICS)})
    now: store.Table = {"a100 / vllm": {"n": 10.0, "median_ape": 0.2, "mape": 0.3, "bias": 0.0}}
    return Current(accuracy={"runs": now})


@pytest.mark.parametrize(
    ("median", "worse", "stale"), [(0.2, False, False), (0.199, False, True), (0.18, True, True), (0.25, False, True)]
)
def test_accuracy_may_not_get_worse(tmp_path: Path, median: float, worse: bool, stale: bool) -> None:
    found = outcome.compare(stored(tmp_path, median), tmp_path)
    assert bool(found.worse) == worse == (median * (1 + WORSE) + FLOOR < 0.2)
    assert found.stale == stale
    assert found.passed == (not worse and not stale)
    if worse:
        assert "Less accurate" in report.markdown(found)
        assert "| runs | a100 / vllm | 10 | 18.0% | 20.0% | 30.0% | 30.0% |" in report.markdown(found)
        assert "1 groups are less accurate" in report.headline(found)


@pytest.fixture
def gate(tmp_path: Path) -> Any:
    (tmp_path / "set.yaml").write_text(SMALL)
    folder = tmp_path / "baselines"

    def run(*more: str) -> Any:
        place = ["--set", str(tmp_path / "set.yaml"), "--baselines", str(folder), "--only", "scenarios"]
        return CliRunner().invoke(main, ["regress", *place, *more])

    return run


def test_the_command_end_to_end(gate: Any, tmp_path: Path) -> None:
    missing = gate()
    assert missing.exit_code == 2
    assert "`ridgeline regress --update` writes them" in missing.stderr
    assert gate("--update").exit_code == 0
    path = tmp_path / "baselines" / "predictions" / "gpu.csv"
    before = path.read_text()
    again = gate()
    assert again.exit_code == 0
    assert "Nothing moved: 3 scenarios, all laws hold." in again.stdout

    head, *rows = before.splitlines()
    cells = rows[0].split(",")
    moved = head.split(",").index("tpot_s")
    cells[moved] = str(float(cells[moved]) * 1.1)
    path.write_text("\n".join([head, ",".join(cells), *rows[1:]]) + "\n")
    summary, results = tmp_path / "summary.md", tmp_path / "out" / "results.xml"
    summary.write_text("before\n")
    failed = gate("--markdown", str(summary), "--junit", str(results), "--json")
    assert failed.exit_code == 1
    record = json.loads(failed.stdout)
    (move,) = record["moved"]
    assert (move["group"], move["quantity"]) == ("gpu", "tpot_s")
    assert move["change"] == pytest.approx(1 / 1.1 - 1, rel=1e-4)
    assert record["passed"] is False
    text = summary.read_text()
    assert text.startswith("before\n## Ridgeline regress: failed")
    assert f"| gpu | {cells[0]} | tpot_s |" in text
    assert "-9.09%" in text
    suites = {node.get("name"): node for node in ElementTree.parse(results).getroot()}
    assert {name: node.get("failures") for name, node in suites.items()} == {
        "laws": "0", "accuracy": "0", "predictions": "1",
    }  # fmt: skip
    assert suites["predictions"].get("tests") == "3"

    assert gate("--update").exit_code == 0
    assert path.read_text() == before
    assert gate().exit_code == 0


def test_an_update_writes_nothing_that_has_not_changed(gate: Any, tmp_path: Path) -> None:
    gate("--update")
    path = tmp_path / "baselines" / "predictions" / "gpu.csv"
    stamp = path.stat().st_mtime_ns
    assert gate("--update").exit_code == 0
    assert path.stat().st_mtime_ns == stamp


def test_bad_baselines_end_with_2_and_no_traceback(gate: Any, tmp_path: Path) -> None:
    gate("--update")
    (tmp_path / "baselines" / "predictions" / "gpu.csv").write_text("nothing\n")
    found = gate()
    assert found.exit_code == 2
    assert "gpu.csv:1: no column 'scenario'" in found.stderr
    assert "Traceback" not in found.stderr


def test_an_update_mends_what_a_merge_broke(gate: Any, tmp_path: Path) -> None:
    gate("--update")
    path = tmp_path / "baselines" / "predictions" / "gpu.csv"
    whole = path.read_text()
    path.write_text("<<<<<<< ours\n" + whole + "=======\n" + whole + ">>>>>>> theirs\n")
    assert gate().exit_code == 2
    assert gate("--update").exit_code == 0
    assert path.read_text() == whole


def test_a_broken_law_fails_an_update_too(gate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laws, "FACTOR", 0.5)
    found = gate("--update")
    assert found.exit_code == 1
    assert "a law is broken" in found.stdout


def test_without_measured_tables_it_says_so_and_refuses_an_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("END_TO_END", "KERNELS"):
        monkeypatch.setattr(accuracy, name, tmp_path / "none")
    current = regress.compute(("runs", "kernels"))
    assert current.missing == ("measured runs", "measured kernels")
    stored(tmp_path, 0.2)
    found = outcome.compare(current, tmp_path)
    assert found.passed
    assert "Not checked: measured runs: the tables are not part of this installation." in report.text(found)
    with pytest.raises(ScenarioError, match="lacks measured runs and measured kernels"):
        outcome.update(current, tmp_path, whole=True)


def test_chosen_kernel_rows_keep_every_format_and_whole_shapes() -> None:
    path = next(iter(sorted(accuracy.KERNELS.rglob("gemm*.parquet"))))
    table = accuracy.read_table(path)
    kept = accuracy.chosen(table, 5)
    assert set(kept["gemm_dtype"]) == set(table["gemm_dtype"])
    shapes = kept.groupby("gemm_dtype")[["n", "k"]].apply(lambda part: len(part.drop_duplicates()))
    assert set(shapes) == {5}
    keys = ["gemm_dtype", "n", "k"]
    assert len(kept) == len(table.merge(kept[keys].drop_duplicates(), on=keys))
    assert list(kept.index) == sorted(kept.index)
    assert (table.loc[kept.index, "latency"] == kept["latency"]).all()


def test_one_index_serves_a_whole_comparison() -> None:
    with catalog.unchanged():
        first = catalog.index("hardware")
        assert catalog.index("hardware") is first
        with catalog.unchanged():
            assert catalog.index("hardware") is first
        assert catalog.index("hardware") is first
    assert catalog.index("hardware") == first


def test_the_shipped_set_is_where_the_command_looks() -> None:
    assert SET.exists()
