"""A calibration in tables, for people. Knows nothing of how it was made."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from simulator.errors import shorten
from simulator.units import in_engineering
from validation.microbench.run import Options, Outcome, Target

SHOWN_CHANGE = 0.02
"""Least relative change of a number that is listed."""


def show_target(target: Target, options: Options, console: Console) -> None:
    """What would be measured, and where it would be written."""
    cpu = target.cpu
    caches = ", ".join(f"L{c.level} {c.instances} x {in_engineering(c.bytes, 'B')}" for c in cpu.caches)
    lines = [
        f"processor  {cpu.model}: {cpu.cores} of {cpu.installed} processors usable, {cpu.sockets} sockets; {caches}",
        f"memory     {in_engineering(cpu.memory_bytes, 'B')}",
        f"torch      {target.torch.__version__ if target.torch else 'not installed'}",
    ]
    if target.gpu:
        gpu = target.gpu
        lines.append(f"GPU        {gpu.name}: {gpu.cores} cores, {in_engineering(gpu.memory_bytes, 'B')}")
    lines += [
        f"measures   {', '.join(options.only)}, {target.threads} threads" + (", small sizes" if options.small else ""),
        f"writes     {target.folder / 'hardware' / target.group / (target.name + '.yaml')} and its calibration",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def show(outcome: Outcome, console: Console) -> None:
    """Rates, residuals, changes, the layer, warnings and files."""
    if outcome.rates:
        console.print(_rates(outcome))
    if outcome.fit is not None:
        console.print(_residuals(outcome))
    if outcome.changes:
        console.print(_changes(outcome))
    if outcome.layer:
        console.print(_layer(outcome))
        console.print(f"median error {outcome.layer_error:.1%} over {len(outcome.layer)} steps, none of them fitted to")
    for name, watts in outcome.watts.items():
        console.print(f"{name}: {watts:.0f} W" if watts is not None else f"{name}: power could not be read")
    for line in (*outcome.left_out, *outcome.warnings):
        console.print(f"note: {line}", highlight=False, soft_wrap=True)
    for path in outcome.files:
        console.print(f"wrote {shorten(path)}", highlight=False, soft_wrap=True)
    console.print(
        f"{outcome.seconds:.0f} s; try: ridgeline predict --hardware {outcome.target.name} --model MODEL",
        soft_wrap=True,
    )


def to_dict(outcome: Outcome) -> dict[str, Any]:
    """The JSON form."""
    target = outcome.target
    return {
        "name": target.name,
        "title": target.title,
        "cpu": target.cpu.to_dict(),
        "gpu": target.gpu.to_dict() if target.gpu else None,
        "torch": target.torch.__version__ if target.torch else None,
        "threads": target.threads,
        "rates": [
            {
                "name": rate.name, "threads": rate.threads, "value": rate.value, "unit": rate.unit,
                "working_set_bytes": rate.working_set_bytes, "dispersion": rate.sample.dispersion,
            }
            for rate in outcome.rates
        ],
        "rows": len(outcome.table),
        "residuals": [residual.to_dict() for residual in outcome.fit.residuals] if outcome.fit else [],
        "changes": [{"key": key, "before": before, "after": after} for key, before, after in outcome.changes],
        "layer": outcome.layer,
        "layer_median_error": outcome.layer_error,
        "idle_w": outcome.power.idle_w if outcome.power else None,
        "power_w": outcome.watts,
        "warnings": outcome.warnings,
        "left_out": outcome.left_out,
        "files": [str(path) for path in outcome.files],
    }  # fmt: skip


def _rates(outcome: Outcome) -> Table:
    table = Table(title="Processor", title_justify="left")
    for name in ("what", "threads", "working set", "rate", "scatter"):
        table.add_column(name, justify="left" if name == "what" else "right")
    last = max((rate.working_set_bytes for rate in outcome.rates if rate.name == "read"), default=0.0)
    levels = [cache.bytes / 2 for cache in outcome.target.cpu.caches]
    for rate in outcome.rates:
        swept = rate.name in ("read", "latency")
        near = any(0.8 <= rate.working_set_bytes / level <= 1.25 for level in levels)
        if swept and not near and rate.working_set_bytes != last:
            continue
        table.add_row(
            rate.name, str(rate.threads), in_engineering(rate.working_set_bytes, "B"), in_engineering(rate.value, rate.unit),
            f"{rate.sample.dispersion:.0%}",
        )  # fmt: skip
    return table


def _residuals(outcome: Outcome) -> Table:
    assert outcome.fit is not None
    table = Table(title="Fit: predicted against measured kernels", title_justify="left")
    for name in ("op", "format", "rows", "", "median", "mean", "bias"):
        table.add_column(name, justify="left" if name in ("op", "format", "") else "right")
    for r in outcome.fit.residuals:
        which = "held out" if r.held_out else "fitted"
        table.add_row(r.op, r.dtype, str(r.rows), which, f"{r.median_ape:.1%}", f"{r.mape:.1%}", f"{r.bias:+.1%}")
    return table


def _changes(outcome: Outcome) -> Table:
    first = all(before is None for _, before, _ in outcome.changes)
    table = Table(
        title="First calibration of this device" if first else "Since the last calibration", title_justify="left"
    )
    for name in ("number", "before", "after", "change"):
        table.add_column(name, justify="left" if name == "number" else "right")
    for key, before, after in outcome.changes:
        change = after / before - 1.0 if before else None
        if change is not None and abs(change) < SHOWN_CHANGE:
            continue
        shown = f"{change:+.1%}" if change is not None else ("new" if before is None else "")
        table.add_row(key, "" if before is None else f"{before:.4g}", f"{after:.4g}", shown)
    return table


def _layer(outcome: Outcome) -> Table:
    table = Table(title="A transformer layer, predicted before it was timed", title_justify="left")
    for name in ("step", "format", "predicted", "measured", "error", "scatter"):
        table.add_column(name, justify="left" if name in ("step", "format") else "right")
    for row in outcome.layer:
        table.add_row(
            row["step"], row["dtype"], in_engineering(row["predicted_s"], "s"), in_engineering(row["measured_s"], "s"),
            f"{row['error']:+.1%}", f"{row['dispersion']:.0%}",
        )  # fmt: skip
    return table
