"""Options of a training step: what is recomputed, divided among ranks, adapted, and in which formats.

A `TrainingScenario` takes them over; inference ignores them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from simulator.techniques.recipe import Recipe
from simulator.techniques.registry import Count, Fraction, Positive, Share, primitive


@primitive("training.recompute", once="what training recomputes")
def recompute(recipe: Recipe, *, kind: Literal["none", "selective", "full"]) -> Recipe:
    """Activations that are computed again in the backward pass: none, attention's scores, or whole blocks."""
    return _option(recipe, "recompute", kind)


@primitive("training.zero", once="what data-parallel ranks divide")
def zero(recipe: Recipe, *, stage: Literal[0, 1, 2, 3]) -> Recipe:
    """ZeRO: 1 divides optimizer state among ranks, 2 also gradients, 3 also weights (arXiv 1910.02054)."""
    return _option(recipe, "zero_stage", stage)


@primitive("training.optimizer", once="the optimizer")
def optimizer(recipe: Recipe, *, name: str) -> Recipe:
    """Another optimizer, with its own state per parameter: sgd, momentum, adamw, adamw8bit, lion, adafactor."""
    return _option(recipe, "optimizer", name)


@primitive("training.gradients", once="the format of gradients")
def gradients(recipe: Recipe, *, dtype: str, warmup: Fraction = 0.0, summed: bool = True) -> Recipe:
    """Gradients are kept and exchanged in this format, after a `warmup` share of the steps in their own.

    On average a step takes warmup T_whole + (1 - warmup) T_compressed (1-bit Adam, arXiv 2102.02888). Without `summed` only
    messages have the format: they go from each rank to each, are summed there and gathered, and each rank keeps its error.
    """
    changed = _option(_option(recipe, "gradient_dtype", dtype), "uncompressed_share", warmup)
    return changed if summed else _option(changed, "gradients_summed", False)


@primitive("training.states", once="the format of optimizer state")
def states(recipe: Recipe, *, dtype: str = "fp32", master: bool = True) -> Recipe:
    """Format of the optimizer's state; `master`: the update is applied to a copy of the weights in 32 bits.

    Without it, and with states in the weights' 16 bits, AdamW keeps 8 bytes per parameter in place of 16.
    """
    return _option(_option(recipe, "state_dtype", dtype), "master_copy", master)


@primitive("training.sequence", once="how training divides a sequence")
def sequence(recipe: Recipe, *, ranks: Count) -> Recipe:
    """Each sequence is divided among so many ranks, beside `dp`; keys and values go around (arXiv 2105.13120).

    Weights are replicated; activations of a rank shrink with its tokens, kept scores with its queries.
    """
    return _option(recipe, "cp", ranks)


@primitive("training.adapters", once="what is trained")
def adapters(recipe: Recipe, *, rank: Count) -> Recipe:
    """Only low-rank adapters are trained (arXiv 2106.09685): no gradients or state for the rest."""
    return _option(recipe, "lora_rank", rank)


@primitive("training.parts", once="what is trained")
def parts(recipe: Recipe, *, share: Share) -> Recipe:
    """Only a share of the heads and feed-forward channels is trained, each side's as one dense block of its last matrix.

    Nothing else has gradients or optimizer state, and only the chosen inputs are kept (S2FT, arXiv 2412.06289).
    """
    return _option(recipe, "part_share", share)


@primitive("training.weights", once="the format of trained weights")
def weights(recipe: Recipe, *, dtype: str) -> Recipe:
    """Format of the weights: of trained ones a float, of frozen ones beside adapters any (QLoRA)."""
    return _option(recipe, "weight_dtype", dtype)


@primitive("training.attention", once="whether attention keeps its scores")
def attention(recipe: Recipe, *, fused: bool, passes: Positive = 2.0) -> Recipe:
    """Whether the scores of every pair stay on chip (fused), or are written and kept for the backward pass.

    `passes`: how often an unfused score crosses memory in each direction.
    """
    return _option(_option(recipe, "flash_attention", fused), "score_passes", passes)


def _option(recipe: Recipe, name: str, value: object) -> Recipe:
    return replace(recipe, training=(*recipe.training, (name, value)))
