"""What is shown of a simulation: the trace's format, the tables, the chart's data, the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from simulator.cli.main import main
from simulator.events.simulation import Simulation, simulate_scenario
from simulator.scenario import Scenario
from simulator.views.simulation import resources_table, simulation_html, simulation_text, waits_table
from simulator.views.timeline import shown_window, spans, timeline_figure
from simulator.views.trace import trace


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate_scenario(Scenario("llama-2-7b", "gpu-csd", batch=2, place=(("kv", "flash"),)))


def test_trace_is_in_the_trace_event_format(simulation: Simulation) -> None:
    """JSON object form; metadata, complete events and counters with the fields that the format asks of each."""
    found = json.loads(json.dumps(trace(simulation)))
    assert set(found) == {"traceEvents", "displayTimeUnit", "otherData"}
    assert found["displayTimeUnit"] in ("ms", "ns")
    events = found["traceEvents"]
    named = {(event["pid"], event["tid"]) for event in events if event["ph"] == "M" and event["name"] == "thread_name"}
    processes = {event["pid"] for event in events if event["ph"] == "M" and event["name"] == "process_name"}
    assert len(processes) == 2
    last: dict[tuple[int, int], int] = {}
    arrows: dict[str, dict[int, dict[str, object]]] = {"s": {}, "f": {}}
    for event in events:
        assert {"name", "ph", "ts", "pid", "tid"} <= set(event)
        assert event["ph"] in ("M", "X", "C", "s", "f")
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "X":
            track = (event["pid"], event["tid"])
            assert track in named
            begin, length = (round(1000 * event[key], 6) for key in ("ts", "dur"))
            assert begin == int(begin), "readers keep whole nanoseconds"
            assert length == int(length) >= 0
            assert begin >= last.get(track, 0), "tasks of one track may not overlap, by no nanosecond"
            last[track] = int(begin + length)
        if event["ph"] in ("s", "f"):
            assert isinstance(event["id"], int)
            assert event["id"] not in arrows[event["ph"]]
            arrows[event["ph"]][event["id"]] = event
        if event["ph"] == "C":
            assert all(isinstance(value, int | float) for value in event["args"].values())
    whole = sum(timeline.seconds for timeline in simulation.timelines)
    assert max(last.values()) / 1e9 == pytest.approx(whole, abs=2e-9)
    assert arrows["s"]
    assert set(arrows["s"]) == set(arrows["f"])


def test_trace_has_every_task_that_takes_time(simulation: Simulation) -> None:
    drawn = sum(event["ph"] == "X" for event in trace(simulation)["traceEvents"])
    assert drawn == sum(int((t.schedule.end > t.schedule.start).sum()) for t in simulation.timelines)


def test_tables(simulation: Simulation) -> None:
    timeline = simulation.timelines[-1]
    uses = resources_table(timeline)
    assert uses.columns[:4] == ("resource", "kind", "busy", "critical path")
    assert {"flash", "gddr"} <= {row[0] for row in uses.rows}
    assert sum(use.critical_s for use in timeline.uses()) == pytest.approx(timeline.seconds, rel=1e-9)
    waits = waits_table(timeline)
    assert waits.rows[0][0] in ("flash", "csd.attention-engine", "gddr")
    assert all(0.0 <= share <= 1.0 + 1e-9 for one in timeline.waited() for share in one.busy.values())
    text = simulation_text(simulation)
    assert "While the critical path was on one resource" in text
    assert "closed form" in text
    assert "<table>" in simulation_html(simulation)


def test_chart(simulation: Simulation) -> None:
    timeline = simulation.timelines[-1]
    window = shown_window(timeline)
    assert 0 <= window[0] < window[1] <= timeline.schedule.end.max()
    found = spans(timeline, window)
    assert {span.op for span in found} >= {"qkv_proj", "attention", "down_proj"}
    assert any(span.critical for span in found)
    figure = timeline_figure(simulation)
    assert len(simulation.figure().data) == len(figure.data)
    assert "<table>" in simulation._repr_html_()
    kinds = {trace.type for trace in figure.data}
    assert kinds == {"bar", "heatmap", "scatter"}
    heat = next(trace for trace in figure.data if trace.type == "heatmap")
    assert max(max(row) for row in heat.z) <= 1.0 + 1e-9


def test_command(tmp_path: Path) -> None:
    out, page = tmp_path / "deep" / "trace.json", tmp_path / "chart.html"
    arguments = ["simulate", "--model", "llama-2-7b", "--hardware", "A100", "--output", "8"]
    done = CliRunner().invoke(main, [*arguments, "--trace", str(out), "--html", str(page)])
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text())["traceEvents"]
    assert "plotly" in page.read_text()[:20000].lower()
    found = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).output)
    assert set(found) == {
        "ttft_s", "tpot_s", "e2el_s", "output_tokens_per_s", "energy_j", "power_w", "fits", "closed_form", "steps",
        "provenance",
    }  # fmt: skip
    decode = found["steps"]["decode"]
    assert decode["seconds"] == pytest.approx(decode["closed_form_s"], rel=0.01)
    assert sum(decode["ledger_j"].values()) == pytest.approx(decode["energy_j"], rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fidelity", "hbm=event"], "unknown resource kind 'hbm'"),
        (["--fidelity", "memory=exact"], "--fidelity takes KIND=analytic or KIND=event"),
        (["--trace", "trace.txt"], "--trace must end in .json"),
        (["--html", "chart.pdf"], "--html must end in .html or .png"),
        (["--chunks", "0"], "chunks must be at least 1"),
        (["--collectives", "thirds"], "Invalid value for '--collectives'"),
        (["--units", "npu"], "no unit 'npu'"),
    ],
)
def test_bad_input(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(main, ["simulate", "--model", "llama-2-7b", "--hardware", "A100", *arguments])
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


CLASSES = (
    ("llama-3-8b", "rtx-4090"), ("llama-2-7b", "cent-32"), ("opt-6.7b", "gpu-csd"), ("llama-2-7b", "sn40l"),
    ("ds-cnn", "stm32h743"), ("llama-2-7b", "home-cluster-wifi"), ("llama-3-8b", "jetson-agx-orin-64gb"),
    ("llama-3.2-1b", "tpu-v5e"), ("llama-2-7b", "xeon-8480"), ("llama-2-7b", "apple-m2-ultra"),
)  # fmt: skip
"""A model and a machine of each class of device."""


@pytest.mark.parametrize(("model", "hardware"), CLASSES)
def test_every_class_of_device_has_a_chart_and_a_trace(tmp_path: Path, model: str, hardware: str) -> None:
    """What takes the time has the longest bars, no resource is busy for longer than the step, and the trace has it all."""
    path = tmp_path / "trace.json"
    asked = ["--model", model, "--hardware", hardware, "--input", "64", "--output", "4", "--json", "--trace", str(path)]
    outcome = CliRunner().invoke(main, ["simulate", *asked], catch_exceptions=False)
    assert outcome.exit_code == 0
    found = json.loads(outcome.output)
    assert found["fits"]
    assert 0.5 < found["e2el_s"] / found["closed_form"]["e2el_s"] < 2.0
    for step in found["steps"].values():
        shares = {name: use["busy_share"] for name, use in step["resources"].items()}
        assert 0.3 < max(shares.values()) <= 1.0 + 1e-9
        assert sum(use["critical_s"] for use in step["resources"].values()) == pytest.approx(step["seconds"], rel=0.02)
        assert step["energy_j"] == pytest.approx(sum(step["ledger_j"].values()), rel=1e-6)
    events = [event for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == "X"]
    assert len(events) > 10
    named = {word for event in events for word in str(event["name"]).split()}
    assert any("proj" in word or "conv" in word for word in named)
    figure = timeline_figure(
        simulate_scenario(Scenario(model, hardware, input_tokens=64, output_tokens=4), explain=False)
    )
    assert len(figure.data) > 3


def test_what_does_not_fit_says_so() -> None:
    asked = ["--model", "llama-3.1-405b", "--hardware", "rtx-4090", "--batch", "4", "--input", "64", "--output", "4"]
    outcome = CliRunner().invoke(main, ["simulate", *asked], catch_exceptions=False)
    assert outcome.exit_code == 0
    assert "It does not fit: needs" in outcome.output
    asked[1] = "resnet-50"
    outcome = CliRunner().invoke(main, ["simulate", *asked], catch_exceptions=False)
    assert "It does not fit" not in outcome.output
    assert "One pass" in outcome.output
    assert "64 tokens" not in outcome.output


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--tp", "3"], "'attention'"),
        (["--place", "kv=tape"], "tape"),
        (["--activation-dtype", "fp3"], "fp3"),
        (["--prefetch-layers", "-1"], "-1"),
    ],
)
def test_bad_input_is_named(asked: list[str], told: str) -> None:
    outcome = CliRunner().invoke(main, ["simulate", "--model", "llama-2-7b", "--hardware", "a100", *asked])
    assert outcome.exit_code == 2
    assert told in outcome.output
    assert "Traceback" not in outcome.output
