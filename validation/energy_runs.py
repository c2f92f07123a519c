"""How much of the error in energy of whole runs is error in time: `python -m validation.energy_runs`.

Energy is power times time. Where a run took longer than predicted, the devices are taken to have waited for the rest of
it; what is then still wrong is the model of power.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from simulator.mapping.machine import load_machine
from validation.endtoend import compare
from validation.tables import END_TO_END, read_table

TIMES = ("e2el_s", "total_tokens_per_s", "output_tokens_per_s")
"""Metrics that say how long a run took; of the first that a row states, the ratio of times is taken."""


PARTS = ("time", "power", "energy", "energy_at_measured_time")
"""Errors of a run, as `split` names them."""
CLASSES = (
    ("devices", "devices", (0, 1, 2, 4, 8, np.inf)),
    ("requests in flight", "batch", (0, 1, 32, 128, 512, np.inf)),
    ("weights, GB", "weights_gb", (0, 10, 20, 40, np.inf)),
)
"""Property, column of `split`, and ends of its classes."""


def split(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per run that states power and a time: errors of time, power and energy, and of energy at the measured time.

    `rows` are those of `endtoend.compare`. With predicted energy E in time t of d devices, and a measured time T > t, the
    energy at the measured time is E + d waiting (T - t); for T < t, E.

    >>> run = {"table": "t", "row": 0, "source": "s", "hardware": "a100-sxm4-80gb", "framework": "f"}
    >>> run |= {"tp": 1, "pp": 1, "dp": 1}
    >>> power = run | {"metric": "power_w", "measured": 200.0, "predicted": 300.0}
    >>> found = split(pd.DataFrame([power, run | {"metric": "e2el_s", "measured": 2.0, "predicted": 1.0}]))
    >>> round(found["energy"].item(), 2), round(found["energy_at_measured_time"].item(), 2)
    (-0.25, 0.01)
    """
    ratios = rows.assign(ratio=rows["predicted"] / rows["measured"]).set_index(["table", "row"])
    power = ratios[ratios["metric"] == "power_w"]
    time = pd.Series(np.nan, index=power.index)
    for metric in TIMES:
        found = ratios[ratios["metric"] == metric]["ratio"].reindex(power.index)
        time = time.fillna(found if metric == "e2el_s" else 1.0 / found)
    waiting = power["hardware"].map({name: load_machine(name).waiting_w for name in power["hardware"].unique()})
    waiting *= power[["tp", "pp", "dp"]].astype(float).prod(axis=1)
    filled = power["predicted"] * time + waiting * np.maximum(0.0, 1.0 - time)
    more = {"devices": power[["tp", "pp", "dp"]].astype(float).prod(axis=1)}
    if {"batch", "weight_bytes"} <= set(power):
        more |= {"batch": power["batch"].astype(float), "weights_gb": power["weight_bytes"].astype(float) / 1e9}
    return power[["source", "hardware", "framework"]].assign(
        **more,
        time=time - 1.0,
        power=power["ratio"] - 1.0,
        energy=power["ratio"] * time - 1.0,
        energy_at_measured_time=filled / power["measured"] - 1.0,
    )


def by_property(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Median and signed median errors of the rows of `split`, by device and engine and by classes of size.

    Records with `property`, `value`, `n`, and `median` and `bias` of each of `PARTS`.
    """
    divisions = [("device and engine", runs["hardware"] + ", " + runs["framework"])]
    for label, column, ends in CLASSES:
        names = [_class(low, high) for low, high in pairwise(ends)]
        divisions.append((label, pd.cut(runs[column], list(ends), labels=names)))
    found = []
    for label, groups in divisions:
        for value, part in runs.groupby(groups, observed=True):
            record: dict[str, Any] = {"property": label, "value": str(value), "n": len(part)}
            for name in PARTS:
                record |= {
                    f"{name}_median": float(part[name].abs().median()),
                    f"{name}_bias": float(part[name].median()),
                }
            found.append(record)
    return found


def _class(low: float, high: float) -> str:
    """Name of the class above `low` up to `high`.

    >>> _class(0, 1), _class(8, np.inf)
    ('up to 1', 'above 8')
    """
    return f"above {low:g}" if np.isinf(high) else f"up to {high:g}" if low == 0 else f"{low:g} to {high:g}"


def waiting_w(rows: pd.DataFrame) -> pd.DataFrame:
    """What a device draws as the work of a run goes to nothing, by hardware and number of devices.

    P = a + b D of power per device at the measured time, where D is the predicted energy beyond waiting, over the measured
    time; by weighted least squares of relative errors, large ones weighing less. `a` is then what the devices draw while
    they wait, and b what predicted joules are off by. Groups of fewer than 20 runs are left out.
    """
    ratios = rows.assign(ratio=rows["predicted"] / rows["measured"]).set_index(["table", "row"])
    power = ratios[ratios["metric"] == "power_w"]
    rate = ratios[ratios["metric"] == "output_tokens_per_s"]["ratio"].reindex(power.index)
    devices = power[["tp", "pp", "dp"]].astype(float).prod(axis=1)
    waits = power["hardware"].map({name: load_machine(name).waiting_w for name in power["hardware"].unique()})
    measured = power["measured"] / devices
    work = (power["predicted"] / devices - waits) / rate
    groups = pd.cut(devices, [0, 1, 4, np.inf], labels=["1", "2-4", "5 and more"])
    found = []
    for (hardware, group), part in power[rate.notna()].groupby(["hardware", groups], observed=True):
        if len(part) < 20:
            continue
        y, terms = measured[part.index].to_numpy(), np.ones((len(part), 2))
        terms[:, 1] = work[part.index]
        weights = 1.0 / y
        for _ in range(30):
            a, b = np.linalg.lstsq(terms * weights[:, None], y * weights, rcond=None)[0]
            off = np.abs((terms @ [a, b]) / y - 1.0)
            weights = 1.0 / (y * np.sqrt(np.maximum(off, 0.01)))
        found.append((hardware, group, len(part), round(a, 1), round(b, 2), round(float(np.median(off)), 3)))
    return pd.DataFrame(found, columns=["hardware", "devices", "runs", "waiting_w", "of_work", "median_error"])


def main() -> None:
    """Print the medians by source, hardware and framework."""
    comparison = compare([(END_TO_END.name, read_table(END_TO_END))])
    found = split(comparison.scored).dropna(subset=["time"])
    groups = found.groupby(["source", "hardware", "framework"])
    columns = {"n": groups.size()}
    for name in ("time", "power", "energy", "energy_at_measured_time"):
        columns[f"{name} bias"] = groups[name].median()
        columns[f"{name} median"] = groups[name].agg(lambda values: values.abs().median())
    with pd.option_context("display.width", 200, "display.max_columns", 20):
        print(pd.DataFrame(columns).round(3).to_string())
        steady = comparison.scored[comparison.scored["steady"]]
        print(waiting_w(steady).to_string())


if __name__ == "__main__":
    main()
