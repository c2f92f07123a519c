"""Ridgeline: what a neural network costs to run on a piece of hardware, before anyone buys it.

`import simulator as sim; sim.predict(model="llama-3.1-8b", hardware="H100")`. Everything is loaded when it is first
used: importing this package imports no numpy, no pandas and nothing of the model.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from simulator.errors import (
        CapacityError,
        GraphError,
        ImportFormatError,
        InfeasiblePlanError,
        ScenarioError,
        SimulatorError,
        SpecError,
        TimelineError,
        UnitError,
        UnknownNameError,
        UnsupportedError,
    )
    from simulator.events.schedules import simulate_training
    from simulator.events.simulation import Simulation, simulate_scenario
    from simulator.mapping.machine import Machine, load_machine
    from simulator.plan import plan
    from simulator.plan.answer import Plan
    from simulator.plan.pareto import pareto_front
    from simulator.predict import predict
    from simulator.result import OpCost, Prediction
    from simulator.scenario import Scenario, load_model
    from simulator.sweep import run as sweep
    from simulator.train import TrainingPrediction, TrainingScenario, predict_training
    from simulator.views.compare import compare
    from simulator.views.frames import predictions_frame
    from simulator.views.intervals import interval_chart

_WHERE = {
    "Scenario": "scenario",
    "load_model": "scenario",
    "Prediction": "result",
    "OpCost": "result",
    "TrainingPrediction": "train",
    "TrainingScenario": "train",
    "predict_training": "train",
    "Simulation": "events.simulation",
    "simulate_scenario": "events.simulation",
    "simulate_training": "events.schedules",
    "Machine": "mapping.machine",
    "load_machine": "mapping.machine",
    "Plan": "plan.answer",
    "pareto_front": "plan.pareto",
    "compare": "views.compare",
    "predictions_frame": "views.frames",
    "interval_chart": "views.intervals",
    "SimulatorError": "errors",
    "CapacityError": "errors",
    "GraphError": "errors",
    "ImportFormatError": "errors",
    "InfeasiblePlanError": "errors",
    "ScenarioError": "errors",
    "SpecError": "errors",
    "TimelineError": "errors",
    "UnitError": "errors",
    "UnknownNameError": "errors",
    "UnsupportedError": "errors",
}
"""Public name -> the module that defines it."""

_CALLED = {"plan": "plan", "predict": "predict", "sweep": "run"}
"""Modules that are called like the function they are named after: `sim.predict(...)`."""

__all__ = [
    "CapacityError",
    "GraphError",
    "ImportFormatError",
    "InfeasiblePlanError",
    "Machine",
    "OpCost",
    "Plan",
    "Prediction",
    "Scenario",
    "ScenarioError",
    "Simulation",
    "SimulatorError",
    "SpecError",
    "TimelineError",
    "TrainingPrediction",
    "TrainingScenario",
    "UnitError",
    "UnknownNameError",
    "UnsupportedError",
    "__version__",
    "compare",
    "interval_chart",
    "load_machine",
    "load_model",
    "pareto_front",
    "plan",
    "predict",
    "predict_training",
    "predictions_frame",
    "simulate_scenario",
    "simulate_training",
    "sweep",
]


class _Callable(ModuleType):
    """A module whose call is that of its main function."""

    def __call__(self, *positional: Any, **named: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(self, _CALLED[name])(*positional, **named)


class _Package(ModuleType):
    """This package: importing `simulator.predict` by any way leaves `simulator.predict` callable."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CALLED and type(value) is ModuleType:
            value.__class__ = _Callable
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _CALLED:
        return import_module(f"simulator.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'simulator' has no attribute '{name}'")
    value = getattr(import_module(f"simulator.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
