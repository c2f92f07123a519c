"""The builders of networks that are not described by a Hugging Face config, by name.

Checks the arguments of a model file and hands them to the builder. Builders are imported when they are first used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from simulator.errors import UnknownNameError
from simulator.graph.op import Graph
from simulator.spec.loader import check

Builder = Callable[[Mapping[str, Any], str], Graph]


def network_graph(builder: str, arguments: Mapping[str, Any], name: str) -> Graph:
    """The graph that `builder` makes of `arguments`.

    Raises UnknownNameError for an unknown builder, SpecError for arguments it does not take (all of them at once), and
    GraphError for shapes that do not fit together.

    >>> layers = [{"linear": {"features": 10}}]
    >>> network_graph("convnet", {"input": [3, 8, 8], "layers": layers}, "one layer").parameters()
    1930.0
    """
    make = BUILDERS.get(builder)
    if make is None:
        raise UnknownNameError("graph builder", builder, BUILDERS)
    return make(arguments, name)


def _convnet(arguments: Mapping[str, Any], name: str) -> Graph:
    from simulator.graph.convnet import ConvNet, convnet

    return convnet(check(dict(arguments), ConvNet, Path(name)), name)


def _unet(arguments: Mapping[str, Any], name: str) -> Graph:
    from simulator.graph.unet import UNet, unet

    return unet(check(dict(arguments), UNet, Path(name)), name)


def _image_autoencoder(arguments: Mapping[str, Any], name: str) -> Graph:
    from simulator.graph.unet import AutoEncoder, image_autoencoder

    return image_autoencoder(check(dict(arguments), AutoEncoder, Path(name)), name)


def _diffusion_transformer(arguments: Mapping[str, Any], name: str) -> Graph:
    from simulator.graph.diffusion_transformer import DiffusionTransformer, diffusion_transformer

    return diffusion_transformer(check(dict(arguments), DiffusionTransformer, Path(name)), name)


def _joint_transformer(arguments: Mapping[str, Any], name: str) -> Graph:
    from simulator.graph.diffusion_transformer import JointTransformer, joint_transformer

    return joint_transformer(check(dict(arguments), JointTransformer, Path(name)), name)


def _graph_network(arguments: Mapping[str, Any], name: str) -> Graph:
    from simulator.graph.gnn import GraphNetwork, graph_network

    return graph_network(check(dict(arguments), GraphNetwork, Path(name)), name)


def _recommender(arguments: Mapping[str, Any], name: str) -> Graph:
    from simulator.graph.recommender import Recommender, recommender

    return recommender(check(dict(arguments), Recommender, Path(name)), name)


BUILDERS: dict[str, Builder] = {
    "convnet": _convnet,
    "unet": _unet,
    "image_autoencoder": _image_autoencoder,
    "diffusion_transformer": _diffusion_transformer,
    "joint_transformer": _joint_transformer,
    "graph_network": _graph_network,
    "recommender": _recommender,
}
