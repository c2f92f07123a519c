"""A sweep gives the numbers of single predictions, says why a point has none, and goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import simulator as sim
from simulator import sweep as sweep_module
from simulator.errors import ScenarioError, SpecError
from simulator.sweep import COLUMNS, grid_points, run

GRID: dict[str, Any] = {
    "model": ["llama-3.1-8b", "mixtral-8x7b"],
    "hardware": ["a100-sxm4-80gb", "gh200-96gb", "aim-system"],
    "batch": [1, 7, 300],
    "input_tokens": [1, 512, 9000],
    "output_tokens": [1, 64],
    "axes": {"engine": ["vllm", "native", "ideal"]},
}


def test_every_point_equals_the_single_prediction() -> None:
    frame = run(GRID)
    assert len(frame) == 2 * 3 * 3 * 3 * 3 * 2
    assert not frame["problem"].astype(str).any()
    for row in frame.sample(60, random_state=0).itertuples():
        single = sim.predict(
            model=row.model,
            hardware=row.hardware,
            engine=row.engine,
            batch=row.batch,
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
        )
        for column in COLUMNS:
            value = getattr(single, column)
            expected = np.nan if value is None else value
            assert getattr(row, column) == pytest.approx(expected, rel=1e-9, nan_ok=True), (column, row)


def test_points_that_cannot_be_are_rows_with_a_reason() -> None:
    frame = run({"model": ["llama-7b"], "hardware": ["A100", "nvme-pcie4"], "input_tokens": [100, 4000]})
    problems = frame["problem"].astype(str).tolist()
    assert problems[0] == ""
    assert "2048" in problems[1]
    assert all("computes nothing by itself" in problem for problem in problems[2:])
    assert frame["ttft_s"].isna().tolist() == [False, True, True, True]


def test_stops_at_the_first_problem_if_asked_to() -> None:
    with pytest.raises(ScenarioError, match="computes nothing"):
        run({"model": ["llama-7b"], "hardware": ["nvme-pcie4"], "on_error": "stop"})


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_written_and_read_back(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    frame = run({"model": ["llama-3.1-8b"], "hardware": ["A100", "H100"]}, out=target)
    stored = pd.read_parquet(target) if suffix == ".parquet" else pd.read_csv(target)
    assert stored["tpot_s"].tolist() == pytest.approx(frame["tpot_s"].tolist())
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_resumes_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = {"model": ["llama-3.1-8b"], "hardware": ["A100", "H100", "H200"]}
    target = tmp_path / "out.parquet"
    computed: list[str] = []
    original = sweep_module._family_frame

    def counted(family: Any, *rest: Any) -> Any:
        computed.append(family.hardware)
        if family.hardware == "H200" and len(computed) == 3:
            raise KeyboardInterrupt
        return original(family, *rest)

    monkeypatch.setattr(sweep_module, "_family_frame", counted)
    with pytest.raises(KeyboardInterrupt):
        run(grid, out=target)
    assert not target.exists()
    seen: list[tuple[int, int]] = []
    frame = run(grid, out=target, resume=True, progress=lambda done, total: seen.append((done, total)))
    assert computed == ["A100", "H100", "H200", "H200"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert frame["hardware"].astype(str).tolist() == ["a100-sxm4-80gb", "h100-sxm5-80gb", "h200-sxm-141gb"]


def test_ranges() -> None:
    frame = run({"model": ["llama-3.1-8b"], "hardware": ["A100"], "batch": {"start": 1, "stop": 64, "factor": 4}})
    assert frame["batch"].tolist() == [1, 4, 16, 64]
    points = grid_points([2, 1], [8], [3, 5])
    assert points.tolist() == [[1, 8, 3], [1, 8, 5], [2, 8, 3], [2, 8, 5]]


def test_bad_grids_name_the_place(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text("model: [llama-3.1-8b]\nhardwares: [A100]\nbatch: {start: 1, stop: 4}\n")
    with pytest.raises(SpecError) as caught:
        run(file)
    text = str(caught.value)
    assert "grid.yaml:2:1" in text
    assert "did you mean 'hardware'?" in text
    assert "exactly one of `step` and `factor`" in text
    for batch, said in (
        ("{start: 1, stop: 4, factor: 1}", ["grid.yaml:2:28: batch.factor: Input should be greater than 1"]),
        ("many", ["grid.yaml:2:1: batch: a list or a mapping of keys is needed, not 'many'"]),
        ("[1, many]", ["grid.yaml:2:12: batch.1: a whole number is needed, not 'many'"]),
    ):
        file.write_text(f"model: [llama-3.1-8b]\nbatch: {batch}\nhardware: [A100]\n")
        with pytest.raises(SpecError) as caught:
            run(file)
        assert str(caught.value).replace(f"{tmp_path}/", "").splitlines() == said
    with pytest.raises(ScenarioError, match="at least 1"):
        run({"model": ["llama-3.1-8b"], "hardware": ["A100"], "batch": [0]})
    with pytest.raises(ScenarioError, match=r"\.parquet or \.csv"):
        run({"model": ["llama-3.1-8b"], "hardware": ["A100"]}, out=tmp_path / "out.xlsx")
