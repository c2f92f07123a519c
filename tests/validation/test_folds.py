"""Constants fitted to whole runs: found again where they are known, and held out where goals are judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simulator.mapping.machine import load_machine
from validation import accuracy, fit_runs, folds, standing
from validation.fit_runs import Family, answers, parts

SPLITWISE = folds.STACKS[0]
TRUE = {"engine.host_step_s": 6e-3, "engine.host_per_sequence_s": 200e-6, "engine.kernel_host_factor": 20.0,
        "engine.host_prefill_s": 25e-3}  # fmt: skip


@pytest.fixture(scope="module")
def few() -> list[Family]:
    """Runs of every degree on both devices, measured as constants that do not ship predict them."""
    found = [family.with_metric("tpot_s") for family in folds.runs_of(SPLITWISE)]
    runs = [family for family in found if family is not None]
    for family in runs:
        family.measured = answers(family, TRUE)
    return runs


def test_a_fit_finds_the_constants_that_made_the_runs(
    few: list[Family], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    values = folds.fitted(SPLITWISE, few)
    assert {key: values[key] for key in TRUE} == pytest.approx(TRUE, rel=0.25)
    for family in few:
        again = [answer["tpot_s"] for answer in answers(family, values)]
        assert again == pytest.approx([stated["tpot_s"] for stated in family.measured], rel=0.03)
    assert folds.fitted(SPLITWISE, few) == values
    assert len(list((tmp_path / "ridgeline").glob("fold-*.json"))) == 1


def _slower(stated: dict[str, float]) -> dict[str, float]:
    return {name: 9.0 * value for name, value in stated.items()}


def test_what_is_left_out_informs_no_constant(
    few: list[Family], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    odd = [
        replace(family, made=None, measured=[_slower(stated) for stated in family.measured])
        if family.tp == 2
        else family
        for family in few
    ]
    monkeypatch.setattr(folds, "runs_of", lambda stack: odd)
    monkeypatch.setattr(folds, "ROUNDS", 1)
    rows = folds.held_out(SPLITWISE)
    assert set(rows["by"]) == {"tp", "device"}, "all runs are of one model"
    assert set(rows[rows["unseen"]]["by"]) == {"tp"}
    of = rows[(rows["by"] == "tp") & (rows["tp"] == 2) & (rows["metric"] == "tpot_s")]
    assert of["predicted"].to_numpy() == pytest.approx(of["measured"].to_numpy() / 9.0, rel=0.1)
    assert not np.allclose(of["predicted"], of["shipped"], rtol=0.02)


def test_parts_are_values_or_some_of_them(few: list[Family]) -> None:
    assert [name for name, _ in parts(few, "tp", 8)] == ["tp 2", "tp 4", "tp 8"]
    assert [name for name, _ in parts(few, "tp", 2)] == ["tps, part 1", "tp 4"]
    assert parts(few, "model", 5) == []
    assert parts(few, "device", 0) == []
    for by, most in folds.PARTS.items():
        left = [family for _, some in parts(few, by, most) for family in some]
        assert len(left) in (0, len(few))


def test_goals_are_judged_on_unseen_rows() -> None:
    rows = pd.DataFrame({
        "row": [1, 2], "metric": "energy_j_per_output_token", "regime": "static", "residual": [0.5, 0.1],
    })  # fmt: skip
    held = pd.DataFrame({
        "row": [2, 3], "metric": "energy_j_per_output_token", "steady": False, "measured": 1.0, "predicted": [2.0, 4.0],
        "shipped": [1.0, 1.0],
    })  # fmt: skip
    assert standing.unseen(rows, held).to_list() == pytest.approx([0.5, -np.log(2.0)])
    now, shipped = standing.energies(rows, held)
    assert now.to_list() == pytest.approx([0.5, -np.log(2.0), -np.log(4.0)])
    assert shipped.to_list() == pytest.approx([0.5, 0.1, 0.0])


def test_the_section_shows_what_was_left_out() -> None:
    held = pd.DataFrame({
        "stack": "a stack", "by": "model", "part": [f"model {i % 2}" for i in range(16)], "constants": "host_step 1 ms",
        "metric": "tpot_s", "measured": 1.0, "predicted": 1.1, "shipped": 1.0,
    })  # fmt: skip
    text = "".join(accuracy.fold_sections(held))
    assert "| a stack | models | tpot_s | 16 | 10% | 10% | +10% | 0.0% | +0.0% |" in text
    assert "| a stack | model 1 | host_step 1 ms |" in text


def test_constants_and_folds_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["engine.host_step_s=0:0.02", "--device", "h100-sxm5-80gb", "--engine", "vllm-2023", "--metric", "tpot_s",
               "--iterations", "0", "--folds", "3", "--by", "tp"]  # fmt: skip
    fit_runs.run(fit_runs.parser().parse_args(options))
    printed = capsys.readouterr().out
    assert all(f"held out, tp {degree}: engine.host_step_s" in printed for degree in (2, 4, 8))
    assert "fitted on all: engine.host_step_s" in printed


@pytest.mark.parametrize("name", ["a100-sxm4-40gb", "a100-sxm4-80gb", "h100-sxm5-80gb", "h200-sxm-141gb"])
def test_modules_of_servers_wait_at_static_power(name: str) -> None:
    machine = load_machine(name)
    assert machine.idle_w < machine.waiting_w == machine.static_w < machine.tdp_w
