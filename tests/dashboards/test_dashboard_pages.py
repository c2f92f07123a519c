"""Every page's answer: it says something, everything on it can be exported, and its commands give the same numbers."""

from __future__ import annotations

import csv
import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dashboards.answer import Answer, Page, Screen
from dashboards.controls import CONTROLS, control, text_of
from dashboards.export import exported
from dashboards.pages import answer_of, pages
from dashboards.state import FIELDS, State, changed, parse, value_of
from simulator.cli.main import main
from simulator.scenario import Scenario

WORK = Scenario("llama-3.1-8b", "h100-sxm5-80gb", batch=4, input_tokens=256, output_tokens=32)
STATE = State(
    work=WORK, pinned=Scenario("llama-3.1-8b", "a100-sxm4-80gb", 4, 256, 32), hardware=("a100-sxm4-80gb", "t4")
)


def shown(path: str, state: State = STATE, *, narrow: bool = False) -> Answer:
    return answer_of(pages()[path], state, Screen(narrow=narrow))


@pytest.fixture(params=sorted(pages()))
def page(request: pytest.FixtureRequest) -> Page:
    return pages()[request.param]


def test_every_page_of_the_menu_answers(page: Page) -> None:
    for narrow in (False, True):
        answer = answer_of(page, STATE, Screen(narrow=narrow))
        assert answer.problem == ""
        assert answer.heading
        assert answer.blocks
        names = [block.id for block in answer.blocks]
        assert len(names) == len(set(names))
        for block in answer.blocks:
            assert block.title
            assert block.values or block.figure is not None or block.report or block.empty


def test_everything_on_a_page_can_be_exported(page: Page) -> None:
    for block in answer_of(page, STATE).blocks:
        if block.empty:
            continue
        text = exported(block, "json")
        assert text is not None, block.id
        assert json.loads(text) is not None
        if block.records:
            rows = list(csv.DictReader(io.StringIO(exported(block, "csv") or "")))
            assert len(rows) == len(block.records), block.id
        else:
            assert block.id == "timeline"


def test_every_figure_says_what_it_shows(page: Page) -> None:
    for block in answer_of(page, STATE).blocks:
        assert block.figure is None or block.describes, block.id


def test_controls_show_the_state_and_read_back_as_it(page: Page) -> None:
    for key in page.keys:
        control(key, STATE)
        assert CONTROLS[key].label
        state, notices = changed(STATE, {key: text_of(value_of(STATE, key))})
        assert notices == ()
        assert value_of(state, key) == value_of(STATE, key)
    assert set(page.keys) <= set(FIELDS)


def run(command: tuple[str, ...], folder: Path) -> Any:
    """What a command prints, or writes to the file it names, as JSON; it went through a shell's quoting first."""
    words = shlex.split(shlex.join(command))
    assert words[0] == "ridgeline"
    out = None
    for option in ("--out", "--csv"):
        if option in words:
            out = folder / words[words.index(option) + 1]
            words[words.index(option) + 1] = str(out)
    done = CliRunner().invoke(main, words[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    if out is None:
        return json.loads(done.stdout)
    text = out.read_text(encoding="utf-8")
    return json.loads(text) if out.suffix == ".json" else list(csv.DictReader(io.StringIO(text)))


def numbers_in(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for inner in value.values() for number in numbers_in(inner)]
    if isinstance(value, list):
        return [number for inner in value for number in numbers_in(inner)]
    if isinstance(value, str):
        try:
            return [float(f"{float(value):.6g}")]
        except ValueError:
            return []
    return [float(f"{value:.6g}")] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_the_command_gives_the_numbers_of_its_block(page: Page, tmp_path: Path) -> None:
    answers: dict[tuple[str, ...], set[float]] = {}
    for block in answer_of(page, STATE).blocks:
        if not block.command or (block.id == "points" and page.path == "/accuracy"):
            continue
        if block.command not in answers:
            answers[block.command] = set(numbers_in(run(block.command, tmp_path)))
        mine = json.loads(exported(block, "json") or "null")
        if isinstance(mine, dict):
            mine.pop("seconds", None)
        missing = set(numbers_in(mine)) - answers[block.command]
        assert not missing, (block.id, sorted(missing)[:5], block.command)


def test_the_command_quotes_what_a_shell_would_take_apart(tmp_path: Path) -> None:
    state = State(work=WORK.with_(techniques=("duo-attention:sink=32", "kv-fp8"), power_cap_w=450.0))
    block = shown("/", state).block("numbers")
    assert block is not None
    assert run(block.command, tmp_path)["tpot_s"] == pytest.approx(block.data["tpot_s"], rel=1e-12)


def test_numbers_come_with_intervals_and_with_the_change_against_the_baseline() -> None:
    block = shown("/").block("numbers")
    assert block is not None
    by_key = {value.key: value for value in block.values}
    tpot = by_key["tpot_s"]
    assert tpot.low is not None
    assert tpot.high is not None
    assert tpot.value is not None
    assert tpot.low <= tpot.value <= tpot.high
    assert tpot.change is not None
    assert tpot.change.direction == "better"
    assert tpot.baseline is not None
    assert tpot.baseline > tpot.value
    assert by_key["output_tokens_per_s"].change is not None
    assert by_key["output_tokens_per_s"].change.direction == "better"


def test_a_network_without_decoding_is_shown_as_passes() -> None:
    block = shown("/", State(work=Scenario("resnet-50", "t4", batch=8))).block("numbers")
    assert block is not None
    labels = {value.label for value in block.values}
    assert "One pass" in labels
    assert "Samples/s" in labels
    assert not any("token" in label for label in labels)


def test_what_does_not_fit_says_what_would() -> None:
    block = shown("/", State(work=Scenario("llama-3.1-70b", "t4"))).block("numbers")
    assert block is not None
    assert any("does not fit" in getattr(item, "text", "") for item in block.report)


@pytest.mark.parametrize(
    ("path", "query", "said"),
    [
        ("/", "v=1&model=gpt2&in=2000", "beyond the 1024"),
        ("/", "v=1&tp=3", "does not divide"),
        ("/roofline", "v=1&hw=nvme-pcie4", "computes nothing by itself"),
        ("/timeline", "v=1&tp=3", "does not divide"),
        ("/paper", "v=1&paper=nothing-like-it", "unknown paper"),
        ("/accuracy", "v=1&device=abacus", "nothing was measured"),
        ("/fleet", "v=1&tpot=0.01", "no fleet can serve"),
    ],
)
def test_errors_are_said_in_place(path: str, query: str, said: str) -> None:
    state, notices = parse(query)
    assert notices == ()
    answer = shown(path, state)
    assert said in answer.problem
    assert answer.blocks == ()


def test_a_defect_is_said_in_place_too(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(state: State, screen: Screen) -> Answer:
        raise ZeroDivisionError("by design")

    answer = answer_of(Page("/x", "X", "X", "", (), broken), State())
    assert "defect of the dashboard" in answer.problem
    assert "by design" in capsys.readouterr().err


def test_compare_keeps_a_device_that_cannot_with_its_reason() -> None:
    state = State(work=Scenario("llama-3.1-8b", "h100-sxm5-80gb"), hardware=("nvme-pcie4",))
    block = shown("/compare", state).block("table")
    assert block is not None
    assert any("computes nothing" in str(record["problem"]) for record in block.records)


def test_accuracy_without_the_measured_tables_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from dashboards import measured

    monkeypatch.setattr(measured, "run_points", lambda: None)
    block = shown("/accuracy").block("points")
    assert block is not None
    assert "do not ship" in block.empty
    assert shown("/accuracy").block("groups").figure is not None  # type: ignore[union-attr]
