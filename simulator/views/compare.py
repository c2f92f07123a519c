"""One piece of work on several machines: hardware x engines x techniques, a prediction or an error for each.

Order and failures are decided here; the numbers are those of `simulator.predict`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from simulator.errors import ScenarioError, SimulatorError, UnknownNameError
from simulator.result import KEYS, Prediction
from simulator.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

SORT_KEYS = tuple(key for key in KEYS if key not in ("bound", "fits"))
_MORE_IS_BETTER = frozenset({"output_tokens_per_s", "total_tokens_per_s", "capacity_bytes"})


def compare(
    hardware: Sequence[str],
    *,
    engines: Sequence[str | None] = (None,),
    techniques: Sequence[str] = ("",),
    sort: str = "e2el_s",
    **work: Any,
) -> pd.DataFrame:
    """A row per combination, best first; a combination that cannot be has its reason under `problem`.

    Each of `techniques` is one variant: names joined by `+`, or `none`.

    >>> frame = compare(["H100", "A100"], engines=["ideal"], model="llama-3.1-8b", batch=1)
    >>> list(frame["hardware"])
    ['h100-sxm5-80gb', 'a100-sxm4-80gb']
    """
    from simulator.views.frames import records_frame

    base = Scenario(hardware="", **work)
    return records_frame(records(variants(base, hardware, engines, techniques), sort))


def variants(
    base: Scenario, hardware: Sequence[str], engines: Sequence[str | None] = (), techniques: Sequence[str] = ()
) -> list[Scenario]:
    """The scenarios that differ from `base` in hardware, engine and techniques, in the order given."""
    found = []
    for device in hardware:
        for engine in engines or (base.engine,):
            for text in techniques or ("",):
                names = tuple(name for name in text.split("+") if name and name != "none")
                found.append(replace(base, hardware=device, engine=engine, techniques=names or base.techniques))
    return found


def records(scenarios: Iterable[Scenario], sort: str | None = None) -> list[dict[str, Any]]:
    """A record per scenario, best first by `sort`; what cannot be comes last, with its reason."""
    from simulator.views.records import prediction_record

    if sort is not None and sort not in SORT_KEYS:
        raise ScenarioError(f"cannot sort by '{sort}'; keys are {', '.join(SORT_KEYS)}")
    found = []
    for scenario in scenarios:
        outcome = _attempt(scenario)
        if isinstance(outcome, Prediction):
            found.append(prediction_record(outcome))
        else:
            found.append(_failure(scenario, outcome))
    if sort is None:
        return found
    sign = -1.0 if sort in _MORE_IS_BETTER else 1.0
    return sorted(
        found,
        key=lambda record: (
            record["problem"] is not None,
            record[sort] is None,
            sign * (record[sort] or 0.0),
        ),
    )


def _attempt(scenario: Scenario) -> Prediction | SimulatorError:
    """A misspelt name is the caller's mistake and is raised; anything else is that combination's own."""
    from simulator.predict import predict

    try:
        return predict(scenario)
    except UnknownNameError:
        raise
    except SimulatorError as error:
        return error


def _failure(scenario: Scenario, error: SimulatorError) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model": scenario.model,
        "hardware": scenario.hardware,
        "engine": scenario.engine,
        "techniques": "+".join(scenario.techniques),
        "devices": scenario.devices,
        "batch": scenario.batch,
        "input_tokens": scenario.input_tokens,
        "output_tokens": scenario.output_tokens,
    }
    found |= dict.fromkeys(KEYS)
    found["problem"] = str(error)
    return found
