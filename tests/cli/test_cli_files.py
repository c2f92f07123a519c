"""Commands that read and write files of ours and of others: import, schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from simulator import catalog
from simulator.cli.main import main
from simulator.cli.schema import KINDS, schema, schema_text
from simulator.spec.loader import read_mapping

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The config.json of a known model in a folder of its own."""
    folder = tmp_path / "My Model"
    folder.mkdir()
    body = read_mapping(catalog.find("model", "llama-3.1-8b"))["config"]
    (folder / "config.json").write_text(json.dumps(body))
    return folder / "config.json"


def test_import_summarises_a_config(config: Path) -> None:
    found = json.loads(run("import", str(config), "--json"))
    assert found["name"] == "my-model"
    assert found["parameters"] == 8030261248
    assert found["kv_bytes_per_token"] == 2 * 32 * 8 * 128 * 2
    # 2 FLOPs per weight that is multiplied, and 4 x layers x heads x head_dim per attended position.
    assert found["flops_per_token"] == pytest.approx(2 * 7504924672 + 4 * 32 * 4096 * 1025, rel=0.01)
    assert "KV cache per token" in run("import", str(config))


def test_import_takes_the_folder(config: Path) -> None:
    assert run("import", str(config.parent)) == run("import", str(config))


def test_imported_file_predicts_the_same(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "models" / "mine.yaml"
    run("import", str(config), "--out", str(out))
    assert read_mapping(out)["parameters"] == 8030261248
    arguments = ("--hardware", "A100", "--json")
    mine = json.loads(run("predict", "--model", str(out), *arguments))
    known = json.loads(run("predict", "--model", "llama-3.1-8b", *arguments))
    assert mine["tpot_s"] == known["tpot_s"]


def test_predict_takes_the_folder_too(config: Path) -> None:
    scenario = ("--hardware", "H100", "--json")
    whole = run("predict", "--model", str(config), *scenario)
    assert run("predict", "--model", str(config.parent), *scenario) == whole
    (config.parent / "empty").mkdir()
    assert "unknown model" in run("predict", "--model", str(config.parent / "empty"), *scenario, code=2)


def test_import_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    wrong = tmp_path / "weights.safetensors"
    wrong.write_text("")
    assert "config.json and .onnx" in run("import", str(wrong), code=2)
    broken = tmp_path / "config.json"
    broken.write_text("{")
    assert "broken JSON" in run("import", str(broken), code=2)
    broken.write_text('{"model_type": "lama"}')
    assert "error: " in run("import", str(broken), code=2)


def test_import_refuses_other_outputs(config: Path, tmp_path: Path) -> None:
    assert ".yaml" in run("import", str(config), "--out", str(tmp_path / "model.toml"), code=2)


def test_import_of_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    np = pytest.importorskip("numpy")
    weight = onnx.numpy_helper.from_array(np.zeros((64, 32), np.float32), "w")
    make = onnx.helper
    graph = make.make_graph(
        [make.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [make.make_tensor_value_info("x", 1, ["batch", 64])],
        [make.make_tensor_value_info("y", 1, None)],
        initializer=[weight],
    )
    path = tmp_path / "net.onnx"
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 20)]), path)
    found = json.loads(run("import", str(path), "--json"))
    assert found["parameters"] == 64 * 32
    assert found["flops_per_sample"] == 2 * 64 * 32
    assert "--model" in run("import", str(path), "--out", str(tmp_path / "net.yaml"), code=2)


@pytest.mark.parametrize("kind", KINDS)
def test_schema_of_every_kind(kind: str) -> None:
    found = json.loads(run("schema", kind))
    assert found == schema(kind)
    assert found["additionalProperties"] is False
    assert "name" in found["properties"]


def test_schema_writes_all(tmp_path: Path) -> None:
    run("schema", "--out", str(tmp_path / "schemas"))
    assert {path.name for path in (tmp_path / "schemas").iterdir()} == {f"{kind}.schema.json" for kind in KINDS}
    assert "name a kind" in run("schema", code=2)


@pytest.mark.parametrize("kind", KINDS)
def test_shipped_schemas_are_current(kind: str) -> None:
    shipped = ROOT / KINDS[kind][2] / "_schema" / f"{kind}.schema.json"
    assert json.loads(shipped.read_text()) == json.loads(schema_text(kind)), "run `make docs`"


def test_every_described_key_says_what_it_is() -> None:
    """Spec classes keep a docstring under every field that its name does not explain."""
    body: dict[str, Any] = schema("hardware")
    memory = body["$defs"]["Memory"]["properties"]
    assert memory["bandwidth"]["description"]
    assert memory["holds"]["description"]
