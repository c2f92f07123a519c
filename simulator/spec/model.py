"""What a model file may hold: a HF config, or the arguments of a graph builder, and the published parameter count."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from simulator.spec.hardware import Source
from simulator.spec.loader import Spec


class NetworkSpec(Spec):
    """A network described to one of the graph builders (convnet, unet, diffusion transformer, ...)."""

    builder: str
    """Name of a builder in `simulator.graph.networks`."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """What that builder takes; its docstring lists it."""


class ModelSpec(Spec):
    """A model file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Equals the file's name without `.yaml`."""
    title: str
    aliases: list[str] = Field(default_factory=list)
    """Hub ids and other names. Case does not matter."""
    parameters: int = Field(gt=0)
    """Published number of parameters, as the checkpoint holds them."""
    license: str | None = None
    sources: dict[str, Source]
    notes: str | None = None
    config: dict[str, Any] | None = None
    """The model's HF `config.json`, whole or the part that determines its shape."""
    network: NetworkSpec | None = None

    @model_validator(mode="after")
    def _one_description(self) -> ModelSpec:
        if (self.config is None) == (self.network is None):
            raise ValueError("exactly one of `config` and `network` is needed")
        return self
