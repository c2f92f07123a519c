"""Where does a mix of GPUs pay? Kinds of requests x SLOs x rates, on the four GPUs and at the prices of the Melange paper.

Run with `python examples/mixes.py --out out`: a summary, mixes.csv and mixes.png (.html without a browser).
With `--write`, the table and the pictures of docs/guides/plan.md are those of this run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
from plotly.subplots import make_subplots

import simulator as sim
from simulator.errors import UnsupportedError
from simulator.views.export import write_figure
from simulator.views.plan import plan_figure

TRAFFIC: dict[str, Any] = {
    "short chat": "azure-conversation-2023-short",
    "long documents": "arxiv-summarization",
    "mixed, 4 to 1": {"azure-conversation-2023-short": 0.8, "arxiv-summarization": 0.2},
    "Azure conversation": "azure-conversation-2023",
    "Azure code": "azure-code-2023",
}
SLOS = {"TPOT 120 ms": {"tpot": "120 ms"}, "TPOT 40 ms": {"tpot": "40 ms"}}
RATES = (1, 2, 4, 8, 16, 32, 64, 128)
GPUS = ["l4", "a10g", "a100-sxm4-80gb", "h100-sxm5-80gb"]
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


def planned(traffic: Any, slo: dict[str, str], rate: float) -> sim.Plan:
    """The best mix for one point."""
    load = {"model": "llama-2-7b", "max_context": 32768, "traffic": traffic, "rate": rate, "slo": slo}
    return sim.plan({"prices": "melange", "loads": [load], "options": [{"hardware": GPUS, "engine": "vllm"}]})


def table(rates: tuple[int, ...] = RATES) -> pd.DataFrame:
    """A row per kind of requests, SLO and rate: the mix, its cost, and what it saves against each type alone."""
    rows = []
    for slo_name, slo in SLOS.items():
        for name, traffic in TRAFFIC.items():
            for rate in rates:
                answer = planned(traffic, slo, rate)
                row: dict[str, Any] = {"requests": name, "slo": slo_name, "requests_per_s": rate}
                row["mix"] = " + ".join(f"{part.instances} {part.option.hardware}" for part in answer.parts)
                row["usd_per_hour"] = answer.usd_per_hour
                row["best_single"] = answer.best_single.hardware if answer.best_single else None
                row["saving"] = answer.saving
                for one in answer.singles:
                    saved = None if one.objective is None else 1 - answer.objective / one.objective
                    row[f"saving_{one.hardware}"] = saved
                row["gap"], row["solver_s"] = answer.gap, answer.seconds
                rows.append(row)
    return pd.DataFrame(rows)


def chart(frame: pd.DataFrame) -> Any:
    """What the mix saves against the best single type, over the rate: a panel per SLO."""
    slos = list(dict.fromkeys(frame["slo"]))
    figure = make_subplots(rows=1, cols=len(slos), subplot_titles=slos, shared_yaxes=True, horizontal_spacing=0.05)
    for column, slo in enumerate(slos, 1):
        for color, (name, part) in zip(COLORS, frame[frame["slo"] == slo].groupby("requests", sort=False), strict=True):
            figure.add_scatter(
                x=part["requests_per_s"], y=100 * part["saving"].astype(float), name=str(name), legendgroup=str(name),
                showlegend=column == 1, mode="lines+markers", line={"color": color, "width": 2}, marker={"size": 8},
                customdata=part["mix"], hovertemplate="%{customdata}<br>%{y:.1f}%<extra>" + str(name) + "</extra>",
                row=1, col=column,
            )  # fmt: skip
        figure.update_xaxes(
            type="log",
            tickvals=list(RATES),
            ticktext=[str(rate) for rate in RATES],
            title="requests/s",
            row=1,
            col=column,
        )
    figure.update_yaxes(title="saved against the best single type, %", rangemode="tozero", row=1, col=1)
    figure.update_layout(
        template="plotly_white", width=1100, height=470, margin={"l": 70, "r": 20, "t": 90, "b": 90},
        title={"text": "<b>What a mix of GPUs saves</b>: Llama 2 7B, vLLM, L4 + A10G + A100 + H100", "x": 0.01},
        font={"family": "Helvetica, Arial, sans-serif", "size": 13, "color": "#222222"},
        legend={"orientation": "h", "x": 0.0, "y": -0.18},
    )  # fmt: skip
    return figure


def summary(frame: pd.DataFrame) -> str:
    """What the table says, as Markdown: a row per kind of requests and SLO."""
    lines = [
        "| requests | SLO | most saved against the best single type | at 128/s | against A100 alone | against H100 alone |",
        "|---|---|---|---|---|---|",
    ]
    for (slo, name), part in frame.groupby(["slo", "requests"], sort=False):
        best = part.loc[part["saving"].idxmax()]
        most = f"{best['saving']:.0%}"
        if best["saving"] > 0.005:
            most += f" at {best['requests_per_s']}/s ({_short(best['mix'])})"
        ranges = [
            f"{part[column].min():.0%} to {part[column].max():.0%}"
            for column in ("saving_a100-sxm4-80gb", "saving_h100-sxm5-80gb")
        ]
        lines.append(f"| {name} | {slo} | {most} | {part['saving'].iloc[-1]:.0%} | {' | '.join(ranges)} |")
    saving = frame["saving"].astype(float)
    last = frame[frame["requests_per_s"] == frame["requests_per_s"].max()]["saving"].astype(float)
    given = max(frame[column].max() for column in frame.columns if column.startswith("saving_"))
    nothing = int((saving < 0.005).sum())
    lines += [
        "",
        f"Against the best single type a mix saves up to {saving.max():.0%}, {saving.mean():.0%} on average, and in "
        f"{nothing} of {len(frame)} cases nothing; at {frame['requests_per_s'].max()} requests/s "
        f"{last.min():.0%} to {last.max():.0%}. "
        f"Against one given type it saves up to {given:.0%}.",
    ]
    return "\n".join(lines)


def _short(mix: str) -> str:
    return " + ".join(f"{part.split()[0]} {part.split()[1].split('-')[0].upper()}" for part in mix.split(" + "))


def write_guide(frame: pd.DataFrame) -> None:
    """Put the summary and the pictures of this run into the guide."""
    root = Path(__file__).resolve().parents[1]
    page = root / "docs" / "guides" / "plan.md"
    head, start, rest = page.read_text(encoding="utf-8").partition("<!-- mixes: examples/mixes.py --write -->\n")
    _, end, tail = rest.partition("<!-- end -->")
    page.write_text(head + start + summary(frame) + "\n" + end + tail, encoding="utf-8")
    write_figure(chart(frame), root / "docs" / "images" / "plan-mixes.png")
    write_figure(plan_figure(sim.plan("melange-mixed")), root / "docs" / "images" / "plan-fleet.png")


def main() -> None:
    """Print the summary, write the table and the chart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for mixes.csv and the chart")
    parser.add_argument("--write", action="store_true", help="also into docs/guides/plan.md")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    frame = table()
    print(summary(frame))
    frame.to_csv(asked.out / "mixes.csv", index=False)
    try:
        write_figure(chart(frame), asked.out / "mixes.png")
    except UnsupportedError:
        write_figure(chart(frame), asked.out / "mixes.html")
    if asked.write:
        write_guide(frame)


if __name__ == "__main__":
    main()
