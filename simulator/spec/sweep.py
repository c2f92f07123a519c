"""What a sweep file may hold: a grid of scenarios."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from simulator.spec.loader import Spec


class Range(Spec):
    """Whole numbers from one to another, by step or by factor."""

    start: int = Field(ge=1)
    stop: int = Field(ge=1)
    """Included."""
    step: int | None = Field(None, ge=1)
    factor: float | None = Field(None, gt=1)

    @model_validator(mode="after")
    def _one_way(self) -> Range:
        if (self.step is None) == (self.factor is None):
            raise ValueError("exactly one of `step` and `factor` is needed")
        return self

    def values(self) -> list[int]:
        """The numbers, in order, without repeats.

        >>> Range(start=1, stop=10, factor=2).values()
        [1, 2, 4, 8]
        """
        if self.step is not None:
            return list(range(self.start, self.stop + 1, self.step))
        found, value = [], float(self.start)
        while round(value) <= self.stop:
            found.append(round(value))
            value *= self.factor or 2.0
        return list(dict.fromkeys(found))


class SweepSpec(Spec):
    """A sweep file: every combination of the axes is one point."""

    name: str | None = None
    model: list[str] = Field(min_length=1)
    hardware: list[str] = Field(min_length=1)
    batch: list[int] | Range = Field(default_factory=lambda: [1])
    input_tokens: list[int] | Range = Field(default_factory=lambda: [512])
    output_tokens: list[int] | Range = Field(default_factory=lambda: [128])
    axes: dict[
        Literal[
            "engine", "devices", "tp", "pp", "ep", "dp", "weight_dtype", "kv_dtype", "activation_dtype", "techniques",
            "images", "max_context", "power_cap_w",
        ],
        list[Any],
    ] = Field(default_factory=dict)  # fmt: skip
    """Further fields of a scenario, each with its values; `techniques` takes lists of names."""
    on_error: Literal["skip", "stop"] = "skip"
    """skip: combinations that cannot be are rows with a reason and no numbers. stop: the first is an error."""
