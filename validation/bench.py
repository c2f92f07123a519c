"""How fast the predictions are, against the speed budget: `python -m validation.bench [--write]` (`make bench`).

Each figure is the best of several runs on this machine. With --write, `docs/speed.md` is written from the same rows.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.cost.runner import Shares
    from simulator.events.tasks import Net
    from simulator.graph.step import Step
    from simulator.predict import Predictor

PAGE = Path(__file__).resolve().parent.parent / "docs" / "speed.md"


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the speed budget."""

    what: str
    budget: str
    measured: str
    kept: bool


def best_of(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of `repeats` runs."""
    found = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found = min(found, time.perf_counter() - start)
    return found


def cold_process(arguments: list[str], repeats: int = 5) -> float:
    """Seconds of a fresh interpreter, caches warm."""
    return best_of(lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True), repeats)


def figures() -> list[Figure]:
    """The rows of the budget that there is a program for, measured here."""
    scenario = ["--model", "llama-3.1-8b", "--hardware", "H100", "--batch", "8", "--input", "512", "--output", "128"]
    command = ["-m", "simulator.cli.main"]
    empty = cold_process(["-c", "pass"])
    found = []
    for what, arguments, budget in (
        ("`ridgeline --help`, cold process", [*command, "--help"], 0.15),
        ("`ridgeline predict`, cold process", [*command, "predict", *scenario], 0.5),
        ("`import simulator`, cold process", ["-c", "import simulator"], 0.2),
    ):
        seconds = cold_process(arguments)
        measured = f"{seconds * 1e3:.0f} ms (an empty interpreter: {empty * 1e3:.0f} ms)"
        found.append(Figure(what, f"< {budget} s", measured, seconds < budget))
    found.append(_loop())
    found.append(_sweep())
    found.append(_plan())
    found += [_events(64, "64 resources with queues"), _layers(), *_decode_steps()]
    return found


def _events(resources: int, label: str) -> Figure:
    """Chains of tasks that queue on many resources."""
    from simulator.events.tasks import Net, Resource

    net = Net()
    units = [net.resource(Resource(f"unit {number}", "unit")) for number in range(resources)]
    section = net.section(100)
    for number in range(1024):
        before = [number - resources] if number >= resources else []
        task = net.task("task", units[number % resources], (1 + number % 7) * 1e-6, after=before)
        if not before:
            section.enter("ops", task)
    section.leave("ops", range(1024 - resources, 1024))
    return _event_rate(net, f"event loop, {label}")


def _layers() -> Figure:
    """A net such as a decode step lowers to: launches, loads and waves of 3,000 layers."""
    from simulator.events.tasks import Net, Resource

    net = Net()
    memory, unit = net.resource(Resource("memory", "memory")), net.resource(Resource("unit", "unit", slots=108))
    launch = net.resource(Resource("launch", "launch", "delay"))
    section = net.section(3000)
    last: list[int] = []
    for op in range(11):
        start = net.task("launch", launch, 1e-6, kind="launch", after=last)
        if op == 0:
            section.enter("ops", start)
        load, wave = start, start
        for _ in range(16):
            arriving = net.task("load", memory, 1e-6, kind="load", after=[load, wave])
            wave = net.task("wave", unit, 1e-7, after=dict.fromkeys([wave, load]), width=100)
            load = arriving
        last = [load, wave]
    section.leave("ops", last)
    return _event_rate(net, "event loop, layers of a step")


def _event_rate(net: Net, label: str) -> Figure:
    from simulator.events.engine import assemble, buffers, compiled

    program = assemble(net, [section.repeats for section in net.sections])
    loop, best, events = compiled(), float("inf"), 0
    loop.run(program, buffers(program))
    for _ in range(7):
        work = buffers(program)
        start = time.perf_counter()
        events = loop.run(program, work)
        best = min(best, time.perf_counter() - start)
    rate = events / best
    return Figure(label, "> 10 million events/s", f"{rate / 1e6:.1f} million events/s of {events:,}", rate > 10e6)


def _decode_steps() -> list[Figure]:
    from simulator.events.policy import Policy
    from simulator.events.simulation import step_timeline
    from simulator.graph.step import Slice
    from simulator.predict import predictor
    from simulator.run import BatchRun
    from simulator.scenario import Scenario

    found = []
    for hardware, place in (("A100", ()), ("aim-system", ()), ("gpu-csd", (("kv", "flash"),)), ("sn40l", ())):
        built = predictor(Scenario("llama-2-7b", hardware, place=place))
        run = built.predict(1, 512, 128).run
        assert isinstance(run, BatchRun)
        shares = run.turns[0].placement.shares
        step = (Slice.decode(1, 575),)

        def once(built: Predictor = built, shares: Shares = shares, step: Step = step) -> None:
            step_timeline(built, step, shares, Policy(), label="decode")

        once()
        seconds = best_of(once, 9)
        what = f"timeline of a Llama-2-7B decode step on {hardware}"
        found.append(Figure(what, "< 50 ms", f"{seconds * 1e3:.1f} ms", seconds < 0.05))
    return found


def _loop() -> Figure:
    from simulator.predict import predictor
    from simulator.scenario import Scenario

    built = predictor(Scenario("llama-3.1-8b", "A100"))
    built.runner.compile()
    built.predict(8, 512, 128)

    def many() -> None:
        for batch in range(1, 501):
            built.predict(batch % 64 + 1, 512, 128)

    seconds = best_of(many, 9) / 500
    return Figure("one prefill and decode prediction, in a loop", "< 50 us", f"{seconds * 1e6:.0f} us", seconds < 50e-6)


def _plan() -> Figure:
    """Random fleets of 8 types with comparative advantages, at Melange's hardest rate; the slowest of ten."""
    import numpy as np

    from simulator.plan.milp import Program, Settings, solve

    slowest = 0.0
    for seed in range(10):
        random = np.random.default_rng(seed)
        price = np.sort(random.uniform(0.4, 12.0, 8))
        size = random.permutation(np.geomspace(1.0, 200.0, 100))
        taste = 1.0 + 0.5 * np.tanh((np.log(size) - np.log(14.0)) * (price[:, None] - 4.0) / 6.0)
        work = np.maximum(40.0 * price[:, None] * taste * (1.0 + 0.3 * random.standard_normal((8, 100))), 1.0)
        need = 128.0 * random.dirichlet(np.full(100, 0.5)) * size / work
        none, free = np.zeros(8), np.full(8, np.inf)
        program = Program(need, price, 0.0 * need, np.zeros(8, dtype=int), np.ones(8), none, none, none, free)
        found = solve(program, Settings(gap=0.005))
        assert found.status == "optimal"
        slowest = max(slowest, found.seconds)
    measured = f"{slowest:.2f} s, the slowest of ten"
    return Figure("plan, 8 GPU types x 100 buckets, 128 requests/s, 0.5% gap", "< 0.5 s", measured, slowest < 0.5)


def _sweep() -> Figure:
    from simulator.sweep import run

    def axis(stop: int) -> dict[str, int]:
        return {"start": stop // 100, "stop": stop, "step": stop // 100}

    grid = {
        "model": ["llama-3.1-8b"],
        "hardware": ["mi300x"],
        "batch": axis(100),
        "input_tokens": axis(1600),
        "output_tokens": axis(800),
    }
    run({**grid, "batch": [1]})
    start = time.perf_counter()
    frame = run(grid)
    per_point = (time.perf_counter() - start) / len(frame)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    measured = (
        f"{per_point * 1e6:.2f} us per point, {len(frame):,} points, {peak / 1e9:.2f} GB at the peak of the process"
    )
    return Figure(
        "vectorised sweep", "< 1 us per point, a million points < 1 GB", measured, per_point < 1e-6 and peak < 1e9
    )


def main() -> None:
    """Print the figures, and write the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/speed.md")
    arguments = parser.parse_args()
    rows = figures()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    lines = ["| what | budget | measured | kept |", "|---|---|---|---|"]
    lines += [f"| {row.what} | {row.budget} | {row.measured} | {'yes' if row.kept else 'no'} |" for row in rows]
    print("\n".join(lines))
    if arguments.write:
        introduction = (
            "# Speed\n\n"
            "Written by `make bench`: the best of several runs, on one core of a shared machine "
            f"({machine}), caches warm. Timings there vary by a third from run to run.\n\n"
        )
        PAGE.write_text(introduction + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
