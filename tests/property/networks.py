"""Random networks, small enough to be fast: dense, experts, latent attention, recurrent hybrids, sliding windows."""

from __future__ import annotations

from dataclasses import fields

from hypothesis import strategies as st

from simulator.graph.architecture import (
    Architecture,
    Attention,
    Block,
    FeedForward,
    LatentAttention,
    LinearAttention,
    MixtureOfExperts,
    SelectiveScan,
)
from simulator.graph.build import Model, model_from_architecture

FAMILIES = ("dense", "experts", "latent", "scan", "linear", "window")


@st.composite
def architectures(
    draw: st.DrawFn, families: tuple[str, ...] = FAMILIES, *, chunked: bool = False, wide: bool = False
) -> Architecture:
    """A decoder of one to two kinds of blocks; heads and experts are powers of two, so that they divide among ranks."""
    family = draw(st.sampled_from(families))
    head_dim = draw(st.sampled_from([32, 64, 128]))
    kv_heads = draw(st.sampled_from([8] if wide else [1, 2, 4, 8]))
    heads = kv_heads * draw(st.sampled_from([1, 2, 4, 8]))
    hidden = draw(st.sampled_from([256, 512, 1024, 2048]))
    intermediate = hidden * draw(st.sampled_from([1, 2, 4]))
    repeat = draw(st.integers(2, 24))
    plain = Attention(heads, kv_heads, head_dim, qk_norm=draw(st.sampled_from(["none", "head", "full"])))
    dense = FeedForward(intermediate, gated=draw(st.booleans()))
    blocks: tuple[Block, ...] = (Block(plain, dense, repeat),)
    if family == "experts":
        experts = draw(st.sampled_from([8, 16, 64]))
        routed = MixtureOfExperts(
            experts,
            draw(st.sampled_from([1, 2, 4, 8])),
            intermediate // 4,
            shared_intermediate=draw(st.sampled_from([0, 512])),
        )
        blocks = (Block(plain, routed, repeat),)
    elif family == "latent":
        rank = draw(st.sampled_from([None, 256]))
        index = draw(st.booleans())
        mixer = LatentAttention(
            heads, rank, 128, 64, 32, 64, index_heads=4 if index else 0, index_dim=32 if index else 0,
            index_top_k=256 if index else None,
        )  # fmt: skip
        blocks = (Block(mixer, dense, repeat),)
    elif family == "scan":
        mixer_scan = SelectiveScan(2, inner=2 * hidden, state=64, conv=4, heads=2 * hidden // 64, groups=8)
        blocks = (Block(mixer_scan, dense, repeat), Block(plain, dense, 1))
    elif family == "linear":
        mixer_linear = LinearAttention("gated_delta", 8, 16, 64, 64, conv=4)
        blocks = (Block(mixer_linear, dense, repeat), Block(plain, dense, 1))
    elif family == "window":
        reach = draw(st.sampled_from([64, 256]))
        local = Attention(
            heads, kv_heads, head_dim, window=None if chunked else reach, chunk=reach if chunked else None
        )
        blocks = (Block(local, dense, repeat), Block(plain, dense, 1))
    return Architecture(
        f"drawn-{family}", "drawn", draw(st.sampled_from([1000, 32000])), hidden, blocks, None, tied=draw(st.booleans())
    )


class DrawnModel(Model):
    """A model that prints as its architecture."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"model_from_architecture({self.architecture!r})"


def drawn_model(architecture: Architecture) -> Model:
    """The model of a drawn architecture."""
    made = model_from_architecture(architecture)
    return DrawnModel(**{part.name: getattr(made, part.name) for part in fields(made)})


def models(
    families: tuple[str, ...] = FAMILIES, *, chunked: bool = False, wide: bool = False
) -> st.SearchStrategy[Model]:
    """Networks ready to be predicted."""
    return architectures(families, chunked=chunked, wide=wide).map(drawn_model)


SMALL = model_from_architecture(
    Architecture("small", "drawn", 1000, 256, (Block(Attention(4, 2, 64), FeedForward(512), 2),), None)
)
"""A network that fits anywhere."""
