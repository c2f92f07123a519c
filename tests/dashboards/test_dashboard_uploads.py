"""Files of a reader's own: what is taken, what is refused, and that nothing of them reaches beyond their folder."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboards import uploads
from dashboards.pages import answer_of, pages
from dashboards.state import State, changed, parse, query
from simulator import catalog
from simulator.errors import ImportFormatError, SimulatorError, SpecError

CONFIG = {
    "model_type": "llama", "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8,
    "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 32000, "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}  # fmt: skip


def data_url(text: str | bytes) -> str:
    raw = text.encode() if isinstance(text, str) else text
    return "data:application/octet-stream;base64," + base64.b64encode(raw).decode()


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    uploads._held.clear()


def test_a_config_becomes_a_model_that_pages_show() -> None:
    taken = uploads.take("model", "config.json", data_url(json.dumps(CONFIG)))
    state, notices = changed(State(), {"model": taken.name})
    assert notices == ()
    answer = answer_of(pages()["/"], state)
    assert answer.problem == ""
    block = answer.block("numbers")
    assert block is not None
    assert block.data["weight_bytes"] == pytest.approx(2 * 154e6, rel=0.05)
    assert "./config.json" in block.command
    assert parse(query(state)) == (state, ())


def test_a_link_to_a_file_of_another_session_says_so() -> None:
    taken = uploads.take("model", "config.json", data_url(json.dumps(CONFIG)))
    link = query(changed(State(), {"model": taken.name})[0])
    uploads._held.clear()
    state, notices = parse(link)
    assert state.work.model == State().work.model
    assert "upload it again" in notices[0]


def test_a_device_file_becomes_hardware() -> None:
    text = catalog.find("hardware", "t4").read_text(encoding="utf-8")
    taken = uploads.take("hardware", "t4.yaml", data_url(text))
    mine = answer_of(pages()["/"], changed(State(), {"hw": taken.name})[0]).block("numbers")
    shipped = answer_of(pages()["/"], changed(State(), {"hw": "t4"})[0]).block("numbers")
    assert mine is not None
    assert shipped is not None
    assert mine.data["tpot_s"] == shipped.data["tpot_s"]


def test_a_plan_and_a_trace_feed_the_planner() -> None:
    text = """
name: mine
loads: [{traffic: [[512, 128, 1.0]], rate: 30}]
options: [{hardware: a, price: 1 USD/h}, {hardware: b, price: 3 USD/h}]
throughput: [{option: a, rows: [[512, 128, 5]]}, {option: b, rows: [[512, 128, 20]]}]
"""
    taken = uploads.take("plan", "mine.yaml", data_url(text))
    answer = answer_of(pages()["/fleet"], changed(State(), {"plan": taken.name})[0])
    assert answer.problem == ""
    block = answer.block("plan")
    assert block is not None
    assert block.data["usd_per_hour"] == pytest.approx(5.0)
    trace = uploads.take("trace", "t.csv", data_url("input_tokens,output_tokens\n" + "512,128\n" * 20))
    answer = answer_of(pages()["/fleet"], changed(State(), {"plan": taken.name, "trace": trace.name})[0])
    assert answer.problem == ""


@pytest.mark.parametrize(
    ("kind", "name", "content", "said"),
    [
        ("model", "config.json", "{broken", "broken JSON"),
        ("model", "config.json", '{"model_type": "llama"}', "hidden_size"),
        ("model", "config.json", "[" * 3000 + "]" * 3000, "deep"),
        ("model", "config.json", json.dumps({**CONFIG, "num_hidden_layers": 10**9}), "most here"),
        ("model", "weights.bin", "x", "does not end in"),
        ("model", "model.onnx", "x", "does not end in"),
        ("model", "m.yaml", "a: &a [1]\nb: [*a, *a]", "anchors"),
        ("model", "m.yaml", "!!python/object/apply:os.system ['true']", "YAML"),
        ("model", "m.yaml", "network: {builder: convnet, arguments: {file: /etc/hosts.yaml}}", "names the file"),
        ("hardware", "s.yaml", "parts: [{device: ../../secret.yaml}]", "names the file"),
        ("hardware", "h.yaml", "name: h\nnonsense: 1", "unknown key"),
        ("plan", "p.yaml", "throughput: [{file: /etc/passwd.csv}]", "names the file"),
        ("plan", "p.yaml", "throughput: [{file: /etc/passwd}]", "names the file"),
        ("plan", "p.yaml", "loads: [{traffic: pyproject.toml}]", "names the file"),
        ("plan", "p.yaml", "- 1", "mapping"),
        ("model", "m.yaml", b"\xff\xfe\x00", "UTF-8"),
        ("model", "m.yaml", "x" * 1_100_000, "larger than 1 MB"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(kind: str, name: str, content: str | bytes, said: str) -> None:
    with pytest.raises(SimulatorError, match=said):
        uploads.take(kind, name, data_url(content))
    assert not uploads._held


def test_errors_name_the_readers_file_and_not_the_servers_folder() -> None:
    with pytest.raises((SpecError, ImportFormatError)) as caught:
        uploads.take("hardware", "mine.yaml", data_url("name: mine\nnonsense: 1"))
    assert "mine.yaml" in str(caught.value)
    assert str(uploads._folder()) not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../../../etc/cron.json", "..\\..\\x.json", "/etc/x.json", "a\x00b.json", ".json", "é" * 300 + ".json"]
)
def test_no_name_leaves_the_folder(name: str) -> None:
    try:
        taken = uploads.take("model", name, data_url(json.dumps(CONFIG)))
    except ImportFormatError:
        return
    inside = taken.path.resolve().relative_to(uploads._folder().resolve())
    assert len(inside.parts) == 2
    assert Path(inside.parts[1]).suffix == ".json"


def test_only_so_many_files_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_FILES", 1)
    uploads.take("model", "a.json", data_url(json.dumps(CONFIG)))
    with pytest.raises(ImportFormatError, match="held already"):
        uploads.take("model", "b.json", data_url(json.dumps(CONFIG)))
