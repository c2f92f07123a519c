"""Every notebook of examples/ runs from top to bottom in a kernel of its own, draws, and ends with a conclusion in words."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
PLOT = "application/vnd.plotly.v1+json"

# Of the libraries that run notebooks, not of what the notebooks do.
pytestmark = pytest.mark.filterwarnings("ignore")


def stem(path: Path) -> str:
    return path.stem


def outputs(notebook: Any, kind: str) -> list[Any]:
    return [
        output["data"][kind]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if kind in output.get("data", {})
    ]


def test_all_questions_have_a_notebook() -> None:
    assert {stem(path) for path in NOTEBOOKS} == {
        "choosing-a-gpu", "a-gpu-mix-for-a-diurnal-load", "what-techniques-buy", "would-pim-help",
        "a-csd-for-long-contexts", "a-7b-on-a-raspberry-pi", "import-your-own-model", "calibrate-your-laptop",
    }  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=stem)
def test_it_is_stored_without_outputs_and_for_readers(path: Path) -> None:
    """Outputs would be stale with the next prediction that moves; code goes through the public names."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert notebook.cells[0].source.startswith("# ")
    assert any(cell.source.startswith("## The answer") for cell in notebook.cells if cell.cell_type == "markdown")
    text = "\n".join(cell.source for cell in code)
    assert "import simulator as sim" in text
    assert not re.search(r"from simulator|import simulator\.|from validation", text)
    assert max(len(line) for line in text.splitlines()) <= 140


@pytest.mark.parametrize("path", NOTEBOOKS, ids=stem)
def test_it_runs_and_concludes(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    figures = outputs(notebook, PLOT)
    assert len(figures) >= 2
    assert all(figure["data"] for figure in figures)
    assert any("error_x" in trace for figure in figures for trace in figure["data"]), "a value without its interval"
    assert outputs(notebook, "text/html")
    (answer,) = outputs(notebook, "text/markdown")
    assert len(answer) > 120
    assert re.search(r"\d", answer)
    assert "nan" not in answer.lower().split()
    assert not [o for cell in notebook.cells for o in cell.get("outputs", ()) if o.get("name") == "stderr"]
