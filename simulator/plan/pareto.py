"""Which points of a sweep or a comparison are worth considering: those that no other beats on every objective.

Works on frames and records of any columns; knows of each key of a prediction whether more or less of it is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.errors import ScenarioError, close_matches

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

OBJECTIVES = {
    "latency": "e2el_s",
    "ttft": "ttft_s",
    "tpot": "tpot_s",
    "cost": "usd_per_million_output_tokens",
    "energy": "energy_j_per_output_token",
    "throughput": "output_tokens_per_s",
    "memory": "memory_bytes",
    "power": "power_w",
}
"""Short names of objectives -> keys of a prediction."""
MORE_IS_BETTER = frozenset({"output_tokens_per_s", "total_tokens_per_s", "capacity_bytes", "requests_per_s"})
DEFAULT = ("latency", "cost", "energy")


def keys_of(objectives: Sequence[str], known: Sequence[str]) -> list[str]:
    """The columns that objectives stand for. Raises ScenarioError for one that is not there."""
    found = []
    for name in objectives:
        key = OBJECTIVES.get(name, name)
        if key not in known:
            near = close_matches(name, [*OBJECTIVES, *known])
            hint = f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(OBJECTIVES)}"
            raise ScenarioError(f"no objective '{name}'{hint}")
        found.append(key)
    if not found:
        raise ScenarioError(f"a Pareto front needs objectives, such as {','.join(DEFAULT)}")
    return found


def undominated(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) whether a point of (N, K) costs is beaten by none: no other is at most as dear in all and dearer in none.

    Points that are the same in all are all kept; those with a NaN are not considered.

    >>> undominated(np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 3.0], [1.0, 3.0]])).tolist()
    [True, True, False, True]
    """
    front = np.zeros(len(costs), bool)
    able = np.flatnonzero(~np.isnan(costs).any(axis=1))
    order = able[np.lexsort(costs[able].T[::-1])]
    kept = np.empty((0, costs.shape[1]))
    for position in order:
        point = costs[position]
        beaten = (kept <= point).all(axis=1) & (kept < point).any(axis=1)
        if not beaten.any():
            front[position] = True
            kept = np.vstack([kept, point])
    return front


def mark(records: Sequence[Mapping[str, Any]], objectives: Sequence[str] = DEFAULT) -> list[bool]:
    """Which records are on the front; one with a `problem`, that does not fit, or that lacks a number is not.

    >>> mark([{"e2el_s": 1.0, "power_w": 9.0}, {"e2el_s": 2.0, "power_w": 9.0}], ["latency", "power"])
    [True, False]
    """
    known = sorted({key for record in records for key in record})
    keys = keys_of(objectives, known)
    costs = np.full((len(records), len(keys)), np.nan)
    for row, record in enumerate(records):
        if record.get("problem") or not record.get("fits", True):
            continue
        for column, key in enumerate(keys):
            value = record.get(key)
            if value is not None:
                costs[row, column] = -value if key in MORE_IS_BETTER else value
    return [bool(on) for on in undominated(costs)]


def pareto_front(frame: pd.DataFrame, objectives: Sequence[str] = DEFAULT) -> pd.DataFrame:
    """The rows of a frame of a sweep or a comparison that no other row beats on every objective, best first by the first.

    Raises ScenarioError for an objective that is not a column.
    """
    keys = keys_of(objectives, list(frame.columns))
    costs = np.column_stack(
        [frame[key].to_numpy(dtype=float) * (-1.0 if key in MORE_IS_BETTER else 1.0) for key in keys]
    )
    if "fits" in frame.columns:
        costs[~frame["fits"].eq(True).to_numpy(dtype=bool)] = np.nan
    return frame[undominated(costs)].sort_values(keys[0], ascending=keys[0] not in MORE_IS_BETTER)
