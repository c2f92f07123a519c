"""Predictions for states: uploads put in place, families kept, the command that asks the same.

The cache of predictors is `simulator.predict`'s, one per family of scenarios, so that batch and lengths cost a millisecond.
"""

from __future__ import annotations

from dataclasses import replace

from dashboards import uploads
from dashboards.state import State
from simulator.cli.scenario import arguments_of
from simulator.predict import predict
from simulator.result import Prediction
from simulator.scenario import Scenario


def predicted(scenario: Scenario) -> Prediction:
    """The prediction of a scenario that may name uploads."""
    return predict(uploads.located(scenario))


def baseline_of(state: State) -> Prediction | None:
    """The pinned baseline's prediction."""
    return None if state.pinned is None else predicted(state.pinned)


def words(scenario: Scenario) -> tuple[str, ...]:
    """The options that ask for a scenario; an upload is named by its own file name."""
    told = replace(scenario, model=_file(scenario.model), hardware=_file(scenario.hardware))
    return tuple(arguments_of(told))


def _file(name: str) -> str:
    return f"./{uploads.told(name)}" if name.startswith(uploads.PREFIX) else name
