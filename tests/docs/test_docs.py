"""The documentation runs: snippets, examples, generated pages, pasted output, links, docstrings."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import json
import pkgutil
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import dashboards
import simulator
import simulator as sim
from simulator.spec.loader import parse_mapping

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if path.name != "DESIGN.md")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


def generator() -> ModuleType:
    """`docs/generate.py` as a module."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_snippets_run(page: Path) -> None:
    failed, _ = doctest.testfile(str(page), module_relative=False, optionflags=FLAGS, encoding="utf-8")
    assert failed == 0


def modules() -> list[str]:
    packages = ((simulator, "simulator."), (dashboards, "dashboards."))
    found = (pkgutil.walk_packages(package.__path__, prefix) for package, prefix in packages)
    return [module.name for part in found for module in part if not module.ispkg]


@pytest.mark.parametrize("name", modules())
def test_docstrings_run(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0


@pytest.mark.parametrize("name", modules())
def test_every_module_says_what_it_is(name: str) -> None:
    assert (importlib.import_module(name).__doc__ or "").strip()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("path", list(generator().pages()), ids=page_id)
def test_generated_files_are_current(path: Path) -> None:
    wanted, found = generator().pages()[path], path.read_text(encoding="utf-8")
    same = json.loads(wanted) == json.loads(found) if path.suffix == ".json" else wanted == found
    assert same, f"{page_id(path)} is stale; run `make docs`"


def pasted() -> Iterator[Any]:
    for name in generator().WITH_OUTPUT:
        for match in generator().PASTED.finditer((ROOT / name).read_text(encoding="utf-8")):
            yield pytest.param(match["command"], match["output"], id=f"{name}:{match['command'].split()[1]}")


@pytest.mark.parametrize(("command", "output"), list(pasted()))
def test_pasted_output_has_the_shape_of_a_run(command: str, output: str) -> None:
    """Numbers move with the calibrations, and with them the order of rows; words and the number of lines do not."""
    assert output.strip(), "run `make docs`"
    now = generator().run(command)
    assert Counter(_label(line) for line in output.splitlines()) == Counter(_label(line) for line in now.splitlines())


def _label(line: str) -> str:
    return re.split(r" {2,}", line.strip())[0]


EXAMPLES = {
    match[1]: match[2]
    for match in re.finditer(r"```yaml\n# (\w+)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
}


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The examples of CONTRIBUTING.md in a folder of the user's."""
    folders = {"hardware": "hardware/accelerator", "model": "workloads/models", "technique": "workloads/techniques"}
    for kind, text in EXAMPLES.items():
        path = tmp_path / folders[kind] / f"{parse_mapping(text, Path('example.yaml'))['name']}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    monkeypatch.setenv("RIDGELINE_PATH", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("own_files")
def test_example_device_and_technique() -> None:
    plain = sim.predict(model="llama-3.1-8b", hardware="example-npu")
    narrow = sim.predict(model="llama-3.1-8b", hardware="example-npu", techniques=("example-w4kv8",))
    assert plain.fits
    assert plain.provenance["tag"] == "datasheet"
    assert narrow.weight_bytes < 0.5 * plain.weight_bytes
    assert narrow.kv_bytes == pytest.approx(0.5 * plain.kv_bytes)
    assert sim.predict(model="llama-3.1-8b", hardware="example-npu", tp=2).devices == 2


@pytest.mark.usefixtures("own_files")
def test_example_model_has_the_parameters_it_states() -> None:
    model = sim.load_model("example-cnn")
    assert model.parameters() == parse_mapping(EXAMPLES["model"], Path("example.yaml"))["parameters"]


def test_the_demo_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("demo", ROOT / "examples" / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    monkeypatch.setattr(sys, "argv", ["demo.py", "--out", str(tmp_path)])
    demo.main()
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.split()[:1] and "  " in line]
    assert len(lines) == 1 + len(demo.HARDWARE) + 1
    page = (tmp_path / "roofline.html").read_text(encoding="utf-8")
    assert page.count("Plotly.newPlot(") >= len(demo.HARDWARE) + 1
