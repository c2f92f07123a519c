"""Encoder-decoders of BART's kind beside BART: M2M-100 and NLLB, Marian, Pegasus, mBART, and umT5.

They differ in their norms and in whether positions are weights. Knows no counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from simulator.graph.architecture import Architecture
from simulator.importers.hf_encoders import sides, t5
from simulator.importers.hf_reader import Config


def m2m_100(c: Config) -> Architecture:
    """M2M-100 and NLLB: sinusoidal positions, which no checkpoint holds, and a norm at the end of each side."""
    longest = c.integer("max_position_embeddings", 1024)
    made = sides(c, longest, longest, fixed=False)
    encoder = replace(made.encoder, position_embeddings=0) if made.encoder else None
    return replace(made, encoder=encoder, position_embeddings=0)


def marian(c: Config) -> Architecture:
    """Sinusoidal positions stored as weights; no norms around the layers."""
    longest = c.integer("max_position_embeddings", 1024)
    made = sides(c, longest, longest, fixed=False)
    encoder = replace(made.encoder, final_norm=False) if made.encoder else None
    return replace(made, encoder=encoder, final_norm=False)


def pegasus(c: Config) -> Architecture:
    """Sinusoidal positions stored as weights, and a norm at the end of each side."""
    longest = c.integer("max_position_embeddings", 1024)
    return sides(c, longest, longest, fixed=False)


def mbart(c: Config) -> Architecture:
    """BART with a norm at the end of each side, and positions two longer than the context."""
    longest, hidden = c.integer("max_position_embeddings", 1024), c.integer("hidden_size")
    made = sides(c, longest + 2, longest + 2, fixed=False)
    encoder = replace(made.encoder, max_context=longest, extra_parameters=2 * hidden) if made.encoder else None
    return replace(made, encoder=encoder, embedding_norm=True, max_context=longest)


def umt5(c: Config) -> Architecture:
    """mT5 with a table of relative positions in every layer."""
    made = t5(c)
    if made.encoder is None:
        return made
    above, table = made.encoder, made.extra_parameters
    return replace(
        made,
        encoder=replace(above, extra_parameters=table * above.layers),
        extra_parameters=table * made.layers,
    )


FAMILIES: dict[str, Callable[[Config], Architecture]] = {
    "m2m_100": m2m_100,
    "marian": marian,
    "pegasus": pegasus,
    "mbart": mbart,
    "umt5": umt5,
}
