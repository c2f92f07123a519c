"""`ridgeline calibrate`, whole, at tiny sizes: the files it writes, the form of its answer, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from simulator.cli.main import main
from validation.microbench import run

torch = pytest.importorskip("torch")


def calibrate(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["calibrate", *arguments])


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A catalog folder after two runs, and what they said."""
    folder = tmp_path_factory.mktemp("catalog")
    found = []
    for _ in range(2):
        result = calibrate(
            "--small", "--threads", "1", "--name", "test-box", "--out", str(folder), "--keep-noisy", "--json"
        )
        assert result.exit_code == 0, result.output
        found.append(json.loads(result.stdout))
    return folder, found


def test_it_writes_a_device_a_calibration_and_tables(answers: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, (first, _) = answers
    assert (folder / "hardware/cpu/test-box.yaml").is_file()
    assert (folder / "hardware/calibration/test-box.yaml").is_file()
    assert {path.stem for path in (folder / "measured/test-box").iterdir()} >= {"gemm", "elementwise", "copy"}
    assert set(first["files"]) == {str(path) for path in folder.rglob("*.*") if path.suffix in (".yaml", ".parquet")}
    assert first["threads"] == 1


def test_it_predicts_the_layer_and_says_how_wrong_it_was(answers: tuple[Path, list[dict[str, Any]]]) -> None:
    _, (first, _) = answers
    for row in first["layer"]:
        assert row["error"] == pytest.approx(row["predicted_s"] / row["measured_s"] - 1.0)
        assert sum(row["ops_s"].values()) <= row["predicted_s"] * 1.01
    assert first["layer_median_error"] >= 0.0


def test_it_says_what_changed(answers: tuple[Path, list[dict[str, Any]]]) -> None:
    _, (first, second) = answers
    assert all(change["before"] is None for change in first["changes"])
    assert second["changes"]
    assert all(
        change["before"] is not None
        for change in second["changes"]
        if change["key"] in {c["key"] for c in first["changes"]}
    )
    assert all(change["before"] != change["after"] for change in second["changes"])


def test_other_commands_use_what_it_wrote(
    answers: tuple[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, (_, second) = answers
    monkeypatch.setenv("RIDGELINE_PATH", str(folder))
    predicted = CliRunner().invoke(main, ["predict", "--hardware", "test-box", "--model", "llama-3.2-1b", "--json"])
    assert predicted.exit_code == 0, predicted.output
    assert json.loads(predicted.stdout)["provenance"]["tag"] == "in-grid"
    checked = CliRunner().invoke(main, ["validate", "kernels", str(folder / "measured/test-box"), "--json"])
    assert checked.exit_code == 0, checked.output
    found = json.loads(checked.stdout)
    assert found["rows"] == second["rows"]
    assert [entry["reason"] for entry in found["unresolved"]] == ["op 'copy'"]
    assert {row["hardware"] for row in found["by"]} == {"test-box"}


def test_people_get_tables(tmp_path: Path) -> None:
    result = calibrate("--small", "--threads", "1", "--out", str(tmp_path), "--keep-noisy")
    assert result.exit_code == 0, result.output
    titles = ("Processor", "Fit: predicted against measured", "First calibration", "A transformer layer")
    for words in (*titles, "median error", "wrote"):
        assert words in result.stdout


def test_a_dry_run_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "calibrate", lambda *_: pytest.fail("measured"))
    result = calibrate("--dry-run", "--out", str(tmp_path))
    assert result.exit_code == 0
    assert "writes" in result.stdout
    assert list(tmp_path.iterdir()) == []
    assert json.loads(calibrate("--dry-run", "--json").stdout)["cpu"]["cores"] >= 1


def test_parts_can_be_measured_alone(tmp_path: Path) -> None:
    result = calibrate("--small", "--only", "gemm", "--out", str(tmp_path), "--keep-noisy", "--json", "--threads", "1")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [Path(path).name for path in found["files"]] == ["gemm.parquet"]
    assert any("no device file" in line for line in found["left_out"])


def test_without_torch_the_device_file_is_still_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "load_torch", lambda: None)
    result = calibrate("--small", "--out", str(tmp_path), "--name", "bare-box", "--json", "--threads", "1")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [Path(path).name for path in found["files"]] == ["bare-box.yaml"]
    assert any("torch is not installed" in line for line in found["left_out"])
    assert found["layer"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "tpu"], "--device tpu is not supported; use 'cpu', 'cuda'"),
        (["--device", "cuda:7"], "torch sees"),
        (["--name", "My Box"], "--name 'My Box'"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], message: str) -> None:
    result = calibrate(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_noise_is_refused_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "MOST_NOISY", -1.0)
    result = calibrate("--small", "--out", str(tmp_path), "--only", "gemm", "--threads", "1")
    assert result.exit_code == 2
    assert "scatter by more than 25%" in result.stderr
    assert "--keep-noisy" in result.stderr
    assert list(tmp_path.iterdir()) == []
