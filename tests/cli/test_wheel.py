"""The wheel as a user installs it: data files inside, commands work far from this tree."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_installed_wheel_works_elsewhere(tmp_path: Path) -> None:
    wheels, target, elsewhere = tmp_path / "wheels", tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    build = [*pip, "wheel", str(ROOT), "--no-deps", "--wheel-dir", str(wheels), *isolation]
    subprocess.run(build, check=True, cwd=elsewhere, timeout=120)
    (wheel,) = wheels.glob("ridgeline-*.whl")
    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, cwd=elsewhere, timeout=120)

    environment = {key: value for key, value in os.environ.items() if key != "RIDGELINE_PATH"}
    environment |= {"PYTHONPATH": str(target), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, check=True, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=60
        ).stdout

    assert run("-c", "import simulator; print(simulator.__path__[0])").strip() == str(target / "simulator")
    names = {record["name"] for record in json.loads(run("-m", "simulator.cli.main", "list", "hardware", "--json"))}
    assert {path.stem for path in (ROOT / "hardware" / "gpu").glob("*.yaml")} <= names
    arguments = ("predict", "--model", "llama-3.1-8b", "--hardware", "A100", "--json")
    assert json.loads(run("-m", "simulator.cli.main", *arguments))["fits"] is True
    assert (target / "bin" / "ridgeline").exists()

    # Without the measured tables the gate says what it does not check; the pytest plugin is found by its entry point.
    gate = run("-m", "simulator.cli.main", "regress", "--only", "runs", "--only", "kernels")
    assert "Not checked: measured runs: the tables are not part of this installation." in gate
    (elsewhere / "one.ridgeline.yaml").write_text(
        "scenarios: [{name: one, model: gpt2, hardware: A100, expect: {fits: true, tpot_s: <= 1 s}}]\n"
    )
    tests = run("-m", "pytest", "-q", "-p", "no:dash", "-p", "no:cacheprovider", "-W", "error")
    assert "2 passed" in tests
    shown = run(
        "-c",
        "from dashboards.app import ASSETS, build\n"
        "from dashboards.pages import answer_of, pages\n"
        "from dashboards.state import State\n"
        "build()\n"
        "answer = answer_of(pages()['/accuracy'], State())\n"
        "print(sorted(path.name for path in ASSETS.iterdir()), answer.problem, answer.block('points').empty[:32])",
    )
    assert shown.strip() == "['ridgeline.css', 'ridgeline.js']  The measured runs do not ship wi"
