"""The server without a browser: callbacks by the requests a browser sends, exports by address, and what is refused."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from click.testing import CliRunner

from dashboards.app import build, show_page
from dashboards.bench import MOVES, ask
from dashboards.controls import text_of
from dashboards.pages import pages
from dashboards.state import State, parse, query
from simulator.cli.main import main

HERE = {"Host": "127.0.0.1:8050"}


def state_of(answer: Any) -> State:
    state, notices = parse(answer["address"]["data"].rpartition("?")[2])
    assert notices == ()
    return state


def test_a_control_moves_the_results_and_the_address(client: Any) -> None:
    before, after = (ask(client, "/", {"batch": batch}) for batch in (1, 64))
    assert state_of(after).work.batch == 64
    assert json.dumps(before["results"]) != json.dumps(after["results"])
    links = [value["href"] for key, value in after.items() if "nav" in key]
    assert len(links) == len(pages())
    assert all("batch=64" in link for link in links)


def test_the_baseline_is_pinned_and_let_go(client: Any) -> None:
    pinned = state_of(ask(client, "/", {"batch": 8}, pressed="pin"))
    assert pinned.pinned == pinned.work
    shown = ask(client, "/", {"batch": 16}, search=query(pinned))
    assert state_of(shown).pinned == pinned.pinned
    assert "Baseline: " in json.dumps(shown["results"])
    assert state_of(ask(client, "/", {}, search=query(pinned), pressed="unpin")).pinned is None


def test_a_bad_control_leaves_a_notice_and_the_rest(client: Any) -> None:
    answer = ask(client, "/", {"batch": -4})
    text = json.dumps(answer["results"])
    assert "batch must be a whole number" in text
    assert "Time to first token" in text
    assert "beyond the" in json.dumps(ask(client, "/", {"model": "gpt2", "in": 4096})["results"])


def test_a_page_that_is_not_there_names_those_that_are() -> None:
    children, shown, _ = show_page("/no-such-page", "", "wide", [])
    assert shown == ""
    assert "There is no such page" in str(children)
    assert "Roofline" in str(children)


def test_every_page_has_its_controls_from_a_link() -> None:
    for path, page in pages().items():
        children, shown, _ = show_page(path, "?v=1&batch=7", "narrow", [])
        assert shown.startswith(path)
        text = str(children)
        for key in page.keys:
            assert f"'control': '{key}'" in text


def test_a_link_of_another_version_shows_a_notice() -> None:
    children, _, _ = show_page("/", "?v=99&model=gpt2", "wide", [])
    assert "reads version 1" in str(children)


def test_exports_are_files(client: Any) -> None:
    link = "v=1&model=llama-3.1-8b&hw=t4&batch=2&in=128&out=16"
    found = client.get(f"/data/what-if/numbers.json?{link}", headers=HERE)
    assert found.mimetype == "application/json"
    assert "attachment" in found.headers["Content-Disposition"]
    data = found.get_json()
    rows = list(csv.DictReader(io.StringIO(client.get(f"/data/what-if/numbers.csv?{link}", headers=HERE).text)))
    assert float(rows[0]["tpot_s"]) == data["tpot_s"]
    assert float(rows[0]["tpot_s_low"]) == data["interval"]["tpot_s"][0]


@pytest.mark.parametrize(
    ("address", "status", "said"),
    [
        ("/data/what-if/numbers.json?v=2", 400, "version"),
        ("/data/what-if/numbers.json?v=1&model=gpt2&hw=t4&in=9999", 400, "beyond the 1024"),
        ("/data/what-if/nothing.json?v=1", 404, ""),
        ("/data/nowhere/numbers.json?v=1", 404, ""),
        ("/data/what-if/numbers.xml?v=1", 404, ""),
    ],
)
def test_what_cannot_be_exported_says_why(client: Any, address: str, status: int, said: str) -> None:
    found = client.get(address, headers=HERE)
    assert found.status_code == status
    assert said in found.text


def test_on_loopback_other_names_are_refused(client: Any) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/", headers={"Host": "localhost:8050"}).status_code == 200
    open_to_all = build("0.0.0.0").server.test_client()
    assert open_to_all.get("/", headers={"Host": "box.example:8050"}).status_code == 200


def test_pages_load_nothing_from_elsewhere(client: Any) -> None:
    page = client.get("/", headers=HERE)
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert "http://" not in page.text
    assert "https://" not in page.text


def test_large_requests_are_refused(client: Any) -> None:
    found = client.post(
        "/_dash-update-component", data=b"x" * 12_000_001, headers=HERE, content_type="application/json"
    )
    assert found.status_code == 413


def test_the_command_says_where_and_warns_beyond_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    import dashboards.app

    served = []

    def serve(server: Any) -> None:
        served.append(server.server_address)
        server.server_close()

    monkeypatch.setattr(dashboards.app, "serve", serve)
    done = CliRunner().invoke(main, ["dashboard", "--port", "0"])
    assert done.exit_code == 0, done.output
    assert served[0][0] == "127.0.0.1"
    assert f"http://127.0.0.1:{served[0][1]}" in done.stdout
    assert done.stderr == ""
    done = CliRunner().invoke(main, ["dashboard", "--host", "0.0.0.0", "--port", "0"])
    assert "more than loopback" in done.stderr
    assert served[1][0] == "0.0.0.0"


def test_a_port_that_is_taken_is_an_error_of_the_user(address: str) -> None:
    port = address.rpartition(":")[2]
    done = CliRunner().invoke(main, ["dashboard", "--port", port])
    assert done.exit_code == 2
    assert "error: " in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), ([], ""), (["a", "b"], "a,b"), (16.0, "16"), (0.5, "0.5"), ("x", "x")]
)
def test_what_controls_return_is_written_as_in_an_address(value: Any, text: str) -> None:
    assert text_of(value) == text


def test_the_benchmark_moves_a_control_of_every_page() -> None:
    assert set(MOVES) == set(pages())
    assert all(key in pages()[path].keys for path, (key, _) in MOVES.items())
