"""The pytest plugin in a project of its own, as a user runs it: found by its entry point, in another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from simulator.errors import ImportFormatError, SpecError
from simulator.guard.check import LEAST, guards, moved, read_stored, stored_beside, watched, write_stored
from simulator.result import KEYS
from simulator.scenario import Scenario
from simulator.spec.guard import DIMENSIONS, WORDS, Fields

ROOT = Path(__file__).resolve().parents[2]
GUARDED = """
defaults: {model: gpt2, hardware: A100, input_tokens: 64, output_tokens: 16}
tolerance: 1%
scenarios:
  - name: small
    expect: {fits: true, tpot_s: <= 1 s}
  - name: too fast
    expect: {tpot_s: <= 1 us}
    stored: false
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a guard file, and what an installation would have written beside the package."""
    info = tmp_path / "site" / "ridgeline-0.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ridgeline\nVersion: 0.0.0\n")
    (info / "entry_points.txt").write_text("[pytest11]\nridgeline = simulator.guard.plugin\n")
    project = tmp_path / "project"
    project.mkdir()
    (project / "chat.ridgeline.yaml").write_text(GUARDED)
    (project / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers -p no:dash -p no:cacheprovider\n")
    return project


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest in the project, warnings as errors."""
    path = os.pathsep.join([str(project.parent / "site"), str(ROOT)])
    command = [sys.executable, "-W", "error::pytest.PytestWarning", "-m", "pytest", "-q", "-W", "error", *arguments]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    return subprocess.run(
        command, cwd=project, env=environment | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120
    )


def test_a_project_guards_its_scenarios(project: Path) -> None:
    first = run(project)
    assert first.returncode == 1, first.stdout + first.stderr
    assert "2 failed, 2 passed" in first.stdout
    assert "nothing is stored in chat.ridgeline.baseline.json; run pytest --ridgeline-update" in first.stdout
    assert "chat.ridgeline.yaml:7: too fast\ntpot_s is" in first.stdout
    assert "expected <= 1 us\n90% interval" in first.stdout
    assert "Traceback" not in first.stdout
    assert ".py:" not in first.stdout

    updated = run(project, "--ridgeline-update", "-k", "small")
    assert updated.returncode == 0, updated.stdout
    assert "baselines written to" in updated.stdout
    stored = json.loads((project / "chat.ridgeline.baseline.json").read_text())["scenarios"]
    assert list(stored) == ["small"]
    assert stored["small"]["fits"] is True
    assert run(project, "-k", "small").returncode == 0

    (project / "chat.ridgeline.yaml").write_text(GUARDED.replace("input_tokens: 64", "input_tokens: 640"))
    later = run(project, "-m", "ridgeline", "-k", "small")
    assert later.returncode == 1
    assert "moved by more than 0.01:\nttft_s: " in later.stdout
    assert "1 failed, 2 passed" in later.stdout


def test_mistakes_are_shown_at_their_line_without_a_traceback(project: Path) -> None:
    (project / "chat.ridgeline.yaml").write_text("scenarios:\n  - {name: a, model: gpt2, hardwar: A100}\n")
    (project / "other.ridgeline.yaml").write_text("scenarios:\n  - {name: a, model: gpt-2x, hardware: A100}\n")
    found = run(project)
    assert found.returncode == 2
    assert "chat.ridgeline.yaml:2:" in found.stdout
    assert "unknown key 'hardwar'; did you mean 'hardware'?" in found.stdout
    assert "Traceback" not in found.stdout
    (project / "chat.ridgeline.yaml").unlink()
    found = run(project)
    assert found.returncode == 1
    assert "unknown model 'gpt-2x'; did you mean" in found.stdout


def test_other_tests_are_left_alone(project: Path) -> None:
    """Without a guard file nothing of the model is imported, and the plugin can be turned off."""
    text = "import sys\n\ndef test_light():\n    assert not {'numpy', 'pydantic', 'simulator.predict'} & set(sys.modules)\n"
    (project / "test_own.py").write_text(text)
    assert run(project, "test_own.py").returncode == 0
    off = run(project, "-p", "no:ridgeline")
    assert "1 passed" in off.stdout


def test_the_example_passes(tmp_path: Path) -> None:
    """Limits of the file that the guide tells to copy; the workflow beside it is YAML and runs the plugin."""
    from simulator.guard.check import broken

    for guard in guards(ROOT / "examples" / "ci" / "chat.ridgeline.yaml"):
        answer = guard.predict()
        assert guard.tolerance == 0.02
        for key in guard.spec.expect:
            assert broken(guard, key, answer) is None
    workflow = yaml.safe_load((ROOT / "examples" / "ci" / "ridgeline.yml").read_text())
    assert any("pytest -m ridgeline" in step.get("run", "") for step in workflow["jobs"]["guard"]["steps"])


def test_fields_are_those_of_a_scenario() -> None:
    assert list(Fields.model_fields) == sorted(Fields.model_fields, key=list(Fields.model_fields).index)
    assert set(Fields.model_fields) == {field.name for field in fields(Scenario)}
    assert set(DIMENSIONS) | set(WORDS) == set(KEYS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("expect: {tpot_s: 20 ms}", "'20 ms' is no limit; write <= 20 ms"),
        ("expect: {tpot_s: <= 20 GB}", "does not measure tpot_s"),
        ("expect: {tpot_s: <= fast}", "write <= 20 ms"),
        ("expect: {tpot: <= 20 ms}", "did you mean 'tpot_s'"),
        ("expect: {fits: 3}", "fits is true or false"),
        ("expect: {tpot_s: true}", "tpot_s takes a limit"),
        ("tolerance: 150%", "less than 1"),
        ("batch: 0", "greater than or equal to 1"),
        ("model: null", "has no model"),
    ],
)
def test_what_cannot_be_guarded_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.ridgeline.yaml"
    own = "" if text.startswith("model") else "    model: gpt2\n"
    path.write_text(f"scenarios:\n  - name: a\n{own}    hardware: A100\n    {text}\n")
    with pytest.raises(SpecError, match=message):
        guards(path)


def test_a_sure_limit_is_kept_by_the_whole_interval(tmp_path: Path) -> None:
    from simulator.guard.check import broken

    path = tmp_path / "a.ridgeline.yaml"
    path.write_text("scenarios: [{name: a, model: gpt2, hardware: A100}]")
    answer = guards(path)[0].predict()
    low, high = answer.interval["tpot_s"]
    assert low < answer.tpot_s < high
    limit_s = (answer.tpot_s + high) / 2
    for sure, kept in ((False, True), (True, False)):
        path.write_text(
            f"scenarios: [{{name: a, model: gpt2, hardware: A100, sure: {str(sure).lower()}, "
            f"expect: {{tpot_s: <= {limit_s}}}}}]"
        )
        (guard,) = guards(path)
        assert (broken(guard, "tpot_s", answer) is None) == kept


def test_a_model_beside_the_file_is_found(tmp_path: Path) -> None:
    config = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 1000,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    path = tmp_path / "a.ridgeline.yaml"
    path.write_text("tolerance: 0\nscenarios: [{name: a, model: own/config.json, hardware: A100, output_tokens: 8}]")
    (guard,) = guards(path)
    assert guard.tolerance == LEAST
    assert guard.predict().fits


def test_stored_predictions_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.ridgeline.yaml"
    path.write_text(
        "tolerance: 0\nscenarios: [{name: a, model: gpt2, hardware: A100}, {name: b, model: gpt2, hardware: t4}]"
    )
    one, two = guards(path)
    target = stored_beside(path)
    write_stored(target, {"b": watched(two, two.predict()), "a": watched(one, one.predict()), "gone": {}}, ["a", "b"])
    assert list(read_stored(target)) == ["a", "b"]
    assert moved(read_stored(target)["a"], watched(one, one.predict()), LEAST) == []
    assert moved(read_stored(target)["a"], watched(two, two.predict()), LEAST)
    target.write_text("{")
    with pytest.raises(ImportFormatError, match="broken JSON"):
        read_stored(target)
    target.write_text('{"scenarios": {"a": 1}}')
    with pytest.raises(ImportFormatError, match="no baselines"):
        read_stored(target)
