"""Llama-3.1-8B on eight kinds of hardware: latency, memory, energy and cost, and the rooflines that explain them.

Run with `make demo`, or `python examples/demo.py --out out` where ridgeline is installed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import simulator as sim
from simulator.views.compare import records
from simulator.views.text import compare_table

HARDWARE = ("A100", "H100", "H200", "GH200", "SN40L", "aim-system", "gpu-csd", "raspberry-pi-5")
WORK: dict[str, Any] = {"model": "llama-3.1-8b", "batch": 1, "input_tokens": 512, "output_tokens": 128}


def scenarios() -> list[sim.Scenario]:
    """Every machine with the engine it would be used with; the smallest once more with weights that fit into it."""
    found = [sim.Scenario(hardware=name, **WORK) for name in HARDWARE]
    return [*found, found[-1].with_(techniques=("weight-int4",))]


def write_rooflines(asked: list[sim.Scenario], path: Path) -> None:
    """One page with a roofline per machine; it needs no network."""
    parts = [
        sim.predict(scenario).roofline().to_html(full_html=False, include_plotlyjs=position == 0)
        for position, scenario in enumerate(asked)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "<!doctype html><html><head><meta charset='utf-8'><title>Rooflines</title></head><body>"
    path.write_text(head + "\n".join(parts) + "</body></html>\n", encoding="utf-8")


def main() -> None:
    """Print the table, write the rooflines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for roofline.html")
    folder = parser.parse_args().out
    asked = scenarios()
    print(f"{WORK['model']}: batch {WORK['batch']}, {WORK['input_tokens']} tokens in, {WORK['output_tokens']} out")
    print("each machine under the engine of its row; bf16 unless a technique says otherwise\n")
    print(compare_table(records(asked)))
    page = folder / "roofline.html"
    write_rooflines(asked, page)
    print(f"\nrooflines: {page}")


if __name__ == "__main__":
    main()
