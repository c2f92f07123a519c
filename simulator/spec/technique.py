"""What a technique file may hold: a list of primitives with parameters."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from simulator.spec.loader import Spec


class TechniqueSpec(Spec):
    """A technique file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Equals the file's name without `.yaml`."""
    title: str | None = None
    aliases: list[str] = Field(default_factory=list)
    paper: str | None = None
    """Id of the paper that the technique is taken from."""
    notes: str | None = None
    model: str | None = None
    """A model that it fits, where not every transformer will do (routed experts, image tokens)."""
    parameters: dict[str, int | float | str | bool | None] = Field(default_factory=dict)
    """Values that `$name` in `apply` stands for; a scenario may set others as NAME:PARAMETER=VALUE."""
    apply: list[dict[str, dict[str, Any]]] = Field(min_length=1)
    """Primitives in order, each as `{family.primitive: {argument: value}}`."""
