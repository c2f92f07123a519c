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
    """The first four rows of the budget, measured here."""
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
