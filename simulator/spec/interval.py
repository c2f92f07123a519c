"""What an interval file may hold: how far measurements were from predictions, and where measurements exist.

The ratios are quantiles of held-out residuals; `python -m validation.accuracy --write` computes them. Knows no method.
"""

from __future__ import annotations

import datetime
from typing import Literal

from pydantic import Field

from simulator.spec.hardware import Source
from simulator.spec.loader import Spec
from simulator.spec.quantity import Count

Tag = Literal["in-grid", "extrapolated", "transferred", "datasheet"]
TAGS: tuple[Tag, ...] = ("in-grid", "extrapolated", "transferred", "datasheet")
"""How well founded a prediction is, from the best: device and engine measured, at these sizes; measured, at other sizes
or with another engine; the parameters are those of another device; nothing of its class was measured."""
Constants = Literal["measured", "assumed", "ideal", "any"]
"""What an engine's fixed times rest on."""
Regime = Literal["static", "steady"]


class Ratio(Spec):
    """Measured over predicted values of one group of predictions: 90% of them lie between `low` and `high`."""

    metric: str
    """A key of a prediction, or `kernel OP`."""
    tag: Tag
    engine: Constants
    regime: Regime = "static"
    """static: a batch that starts together; steady: requests that arrive one by one, at a steady concurrency."""
    low: Count
    high: Count
    cells: int = Field(ge=0)
    """Independent groups of measurements behind it: pairs of device and model, or devices."""
    values: int = Field(ge=0)
    pooled: str = ""
    """What was taken together because the group alone has too few cells; empty where nothing was."""


class MeasuredRange(Spec):
    """What one device with one engine was measured at. Anything else is extrapolated."""

    hardware: str
    engine: str
    batch: tuple[float, float]
    context: tuple[float, float]
    """Input and output tokens of one sequence, together."""
    weight_bytes: tuple[float, float]
    """Of one device."""
    devices: tuple[int, int]
    formats: list[str]
    """Bits of the weights of matrix products and of the cache."""
    kinds: list[str]
    """Kinds of op in the measured models."""


class Intervals(Spec):
    """Ratios by group and the ranges that tell the groups apart."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str
    method: str
    date: datetime.date
    sources: dict[str, Source]
    default_source: str | None = None
    engines: list[str]
    """Engines of which at least one fixed time was measured."""
    measured: list[MeasuredRange]
    ratios: list[Ratio]
