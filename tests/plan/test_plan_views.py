"""What is printed and drawn of plans and Pareto fronts: the data behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import simulator as sim
from simulator.cli.main import main
from simulator.errors import ScenarioError
from simulator.plan.pareto import DEFAULT, mark, undominated
from simulator.views.plan import pareto_figure, plan_figure, singles_table
from tests.plan.test_plan_files import MELANGE, TABLES, changed


def test_text_says_what_was_asked() -> None:
    text = str(sim.plan(TABLES))
    for words in ("40 requests/s in 2 sizes", "proven", "one type alone", "mix saves", "What would lower it"):
        assert words in text
    assert "<table>" in sim.plan(TABLES)._repr_html_()


def test_singles_are_sorted_and_the_unable_say_why() -> None:
    tables = [TABLES["throughput"][1], {"option": "small", "rows": [[500, 100, 5]]}]
    table = singles_table(sim.plan(changed(throughput=tables)))
    assert [row[0] for row in table.rows] == ["large", "small"]
    assert table.rows[1][-1] == "cannot serve 1 of 2 buckets"


def test_figure_shows_the_mix_and_every_type() -> None:
    answer = sim.plan(TABLES)
    figure = plan_figure(answer)
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert sorted(bars[0].y) == ["large", "small"]
    assert sum(bar.x[0] for bar in bars[1:]) == pytest.approx(answer.usd_per_hour)
    total, *points = (trace for trace in figure.data if trace.type == "scatter")
    assert total.text == (f" <b>{answer.usd_per_hour:.2f}</b>",)
    assert sum(float(trace.customdata[:, 0].sum()) for trace in points) == pytest.approx(40.0)


def test_command_prints_writes_and_fails_politely(tmp_path: Path) -> None:
    path = tmp_path / "melange.json"
    path.write_text(json.dumps(MELANGE))
    html, csv = tmp_path / "out" / "plan.html", tmp_path / "out" / "plan.csv"
    run = CliRunner().invoke(main, ["plan", str(path), "--html", str(html), "--csv", str(csv)])
    assert run.exit_code == 0, run.output
    assert "4.68 USD/h" in run.output
    assert html.stat().st_size > 1000
    assert "requests_per_s" in csv.read_text()
    found = json.loads(CliRunner().invoke(main, ["plan", str(path), "--json"]).output)
    assert found["usd_per_hour"] == pytest.approx(4.68)
    assert found["mix"][0]["power_w"] is None
    for arguments, words in (
        (["plan", "nothing-of-that-name"], "unknown deployment"),
        (["plan", str(tmp_path / "gone.yaml")], "cannot be read"),
        (["plan", str(path), "--html", "x.pdf"], "must end in .html or .png"),
    ):
        run = CliRunner().invoke(main, arguments)
        assert run.exit_code == 2
        assert words in run.output
        assert "Traceback" not in run.output
    broken = tmp_path / "broken.yaml"
    broken.write_text(yaml.safe_dump(changed(stock=[{"hardware": "none", "devices": 1}])))
    assert "broken.yaml:" in CliRunner().invoke(main, ["plan", str(broken)]).output


costs = st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=30)


@given(costs)
def test_front_is_what_nothing_beats(points: list[tuple[int, ...]]) -> None:
    values = np.array(points, dtype=float)
    found = undominated(values)
    for i, point in enumerate(values):
        beaten = any((other <= point).all() and (other < point).any() for other in values)
        assert found[i] == (not beaten)
    assert found.any()


def test_marks_leave_out_what_cannot_be() -> None:
    base = {"e2el_s": 1.0, "usd_per_million_output_tokens": 1.0, "energy_j_per_output_token": 1.0, "fits": True}
    records: list[dict[str, Any]] = [
        {**base, "e2el_s": 2.0},
        {**base, "fits": False, "e2el_s": 0.1},
        {**base, "problem": "no", "e2el_s": 0.1},
        {**base, "usd_per_million_output_tokens": None},
        base,
    ]
    assert mark(records) == [False, False, False, False, True]
    with pytest.raises(ScenarioError, match="no objective 'latencie'; did you mean 'latency'"):
        mark(records, ["latencie"])
    with pytest.raises(ScenarioError, match="needs objectives"):
        mark(records, [])


def test_front_of_a_sweep() -> None:
    frame = sim.sweep({"model": ["llama-3.1-8b"], "hardware": ["A100", "H100"], "batch": [1, 8, 64]})
    front = sim.pareto_front(frame, ["tpot", "throughput"])
    assert 0 < len(front) <= len(frame)
    assert front["tpot_s"].is_monotonic_increasing
    assert front["output_tokens_per_s"].is_monotonic_increasing
    assert isinstance(front, pd.DataFrame)


def test_compare_prints_and_draws_the_front(tmp_path: Path) -> None:
    chart = tmp_path / "front.html"
    arguments = ["compare", "--model", "llama-3.1-8b", "--hardware", "L4,A100,H100", "--technique", "none,fp8"]
    run = CliRunner().invoke(main, [*arguments, "--pareto", ",".join(DEFAULT), "--html", str(chart), "--json"])
    assert run.exit_code == 0, run.output
    records = json.loads(run.stdout)
    assert 1 <= len(records) <= 6
    assert all(record["pareto"] for record in records)
    assert chart.exists()
    figure = pareto_figure([*records, {**records[0], "pareto": False}], DEFAULT)
    assert [len(trace.x) for trace in figure.data] == [1, len(records)]
    assert CliRunner().invoke(main, [*arguments, "--html", str(chart)]).exit_code == 2
