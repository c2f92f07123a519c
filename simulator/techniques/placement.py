"""Where weights and cache lie: shares in the memory of a host, a drive or a PIM device, copied or used in place.

Labels the ops and adds a rule; which memory a name stands for is known once a machine is chosen. What neither primitive
names is placed as always: in the first memory, and in the next where the engine spills.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from simulator.errors import ScenarioError
from simulator.graph.op import Op, Routing, Tensor
from simulator.techniques.recipe import Recipe, Rule
from simulator.techniques.registry import Amount0, Fraction, Positive, Share, new_rules, primitive
from simulator.techniques.select import LINEAR, attends, each, in_blocks, layers_cut, named, present, with_tensors


@primitive("placement.weights", keeps=("flops", "weight_bytes", "cache_bytes"))
def weights(
    recipe: Recipe,
    *,
    memory: str,
    share: Share = 1.0,
    resident: Fraction = 0.0,
    hit: Fraction | None = None,
    copied: bool = True,
    overlap: Fraction = 1.0,
    chunk_bytes: Positive | None = None,
    latency_s: Amount0 = 0.0,
    staged: Amount0 = 2.0,
    blocks: Sequence[str] = LINEAR,
    names: Sequence[str] = ("*",),
) -> Recipe:
    """The weights of a share of the layers lie in `memory`, but for a share `resident` of each.

    `hit`: share of the accesses that find what is resident; equal to `resident` unless what is used most is kept.
    `copied`: streamed to the memory of the activations, `overlap` of it beside computation; otherwise used in place by
    whichever unit is fastest (the host's, a unit in the memory). `staged`: operands of one layer held at a time.
    """
    rule = Rule(
        _label(recipe), "weight", memory, resident, 1.0 - (resident if hit is None else hit), copied, overlap,
        chunk_bytes, latency_s, staged,
    )  # fmt: skip

    def holds(op: Op) -> bool:
        owns = any(tensor.role == "weight" and any(tensor.read) for tensor in op.tensors)
        return op.kind in ("gemm", "elementwise") and in_blocks(op, blocks) and named(op, names) and owns

    return _placed(recipe, rule, share, holds, f"weights named {', '.join(names)} in {', '.join(blocks)}")


@primitive("placement.experts", keeps=("flops", "weight_bytes", "cache_bytes"))
def experts(
    recipe: Recipe,
    *,
    memory: str,
    resident: Fraction = 0.0,
    skew: Amount0 = 0.0,
    hit: Fraction | None = None,
    copied: bool = True,
    overlap: Fraction = 0.0,
    chunk_bytes: Positive | None = None,
    latency_s: Amount0 = 0.0,
    staged: Amount0 = 2.0,
) -> Recipe:
    """Routed experts lie in `memory`; a share `resident` of them is cached beside the activations.

    Without `hit`, the share of choices that falls on cached experts follows Zipf's law of exponent `skew` (0: all
    experts are equally likely), the most popular being cached. Prefetching is `overlap`. With `copied` off, experts are
    computed where they lie: those beside the activations there, the others by a unit of `memory` if that is faster.

    >>> round(zipf_share(64, 16, 0.0), 3), round(zipf_share(64, 16, 1.0), 3)
    (0.25, 0.713)
    """
    routed = [op.routing.experts for op in recipe.model.graph.ops if op.routing]
    if not routed:
        raise ScenarioError(f"{recipe.model.name} has no routed experts")
    found = zipf_share(routed[0], round(resident * routed[0]), skew) if hit is None else hit

    def holds(op: Op) -> bool:
        return op.routing is not None and op.kind == "gemm"

    if not copied and 0.0 < resident < 1.0:
        rule = Rule(_label(recipe), "weight", memory, 0.0, 1.0, copied, overlap, chunk_bytes, latency_s, 0.0)

        def divided(op: Op) -> list[Op]:
            _unclaimed(op, recipe)
            cold = _some_experts(op, 1.0 - resident, 1.0 - found)
            return [_some_experts(op, resident, found), replace(cold, name=f"{op.name}.cold", part=rule.part)]

        return new_rules(recipe.with_graph(each(recipe.model.graph, holds, divided, "routed experts")), rule)
    rule = Rule(
        _label(recipe), "weight", memory, resident, 1.0 - found, copied, overlap, chunk_bytes, latency_s,
        staged * min(1.0, 4.0 / routed[0]),
    )  # fmt: skip
    return _placed(recipe, rule, 1.0, holds, "routed experts")


@primitive("placement.cache", keeps=("flops", "weight_bytes", "cache_bytes"))
def cache(
    recipe: Recipe,
    *,
    memory: str,
    share: Share = 1.0,
    resident: Fraction = 0.0,
    hit: Fraction | None = None,
    copied: bool = True,
    overlap: Fraction = 1.0,
    chunk_bytes: Positive | None = None,
    latency_s: Amount0 = 0.0,
    staged: Amount0 = 2.0,
    index: bool = False,
) -> Recipe:
    """The cache of a share of the layers lies in `memory`, but for a share `resident`; see `placement.weights`.

    With `copied` off, attention runs where the cache lies if a unit there is faster (a CPU, a drive, PIM): over what is
    resident beside the activations, over the rest there. `index`: an index of `kv_cache.retrieve` lies there too.
    """
    used = resident if hit is None else hit

    def holds(op: Op) -> bool:
        return attends(op) and (index or not op.name.endswith(".select"))

    what = "cache of keys and values"
    if not copied and 0.0 < resident < 1.0:
        rule = Rule(_label(recipe), "cache", memory, 0.0, 1.0, copied, overlap, chunk_bytes, latency_s, 0.0)

        def divided(op: Op) -> list[Op]:
            _unclaimed(op, recipe)
            chosen, rest = layers_cut(op, share)
            assert chosen is not None
            cold = _some_positions(chosen, 1.0 - resident, 1.0 - used)
            parts = (_some_positions(chosen, resident, used), replace(cold, name=f"{op.name}.cold", part=rule.part))
            return present(*parts, rest)

        return new_rules(recipe.with_graph(each(recipe.model.graph, holds, divided, what)), rule)
    rule = Rule(
        _label(recipe), "cache", memory, resident, 1.0 - used, copied, overlap, chunk_bytes, latency_s, staged
    )  # fmt: skip
    return _placed(recipe, rule, share, holds, what)


@primitive("placement.neurons", keeps=("flops", "weight_bytes", "cache_bytes"))
def neurons(
    recipe: Recipe, *, memory: str, resident: Fraction, hit: Fraction, blocks: Sequence[str] = ("ffn",)
) -> Recipe:
    """Neurons that fire often stay with the activations, the others in `memory`, each computed where it lies.

    `resident`: share of the weights that stays; `hit`: share of the neurons in use that are among them.
    """
    rule = Rule(_label(recipe), "weight", memory, resident, 1.0 - hit, copied=False)

    def holds(op: Op) -> bool:
        return op.kind == "gemm" and in_blocks(op, blocks) and any(t.role == "weight" for t in op.tensors)

    def change(op: Op) -> list[Op]:
        _unclaimed(op, recipe)
        hot = _portion(op, hit, resident)
        cold = _portion(op, 1.0 - hit, 1.0 - resident)
        return present(hot, replace(cold, name=f"{op.name}.cold", part=rule.part) if cold else None)

    graph = each(recipe.model.graph, holds, change, f"weights in {', '.join(blocks)}")
    return new_rules(recipe.with_graph(graph), replace(rule, resident=0.0, missed=1.0, staged=0.0))


def zipf_share(count: int, kept: int, skew: float) -> float:
    """Share of the choices that falls on the `kept` most popular of `count`, whose popularity goes as rank^-skew.

    >>> zipf_share(8, 8, 2.0)
    1.0
    """
    popularity: list[float] = [(rank + 1.0) ** -skew for rank in range(count)]
    return sum(popularity[:kept]) / sum(popularity)


def _portion(op: Op, used: float, kept: float) -> Op | None:
    """A share of an op's neurons: `used` of the work and of the weights read, `kept` of the weights stored."""
    if used <= 0.0 and kept <= 0.0:
        return None
    wide = op.split != "row"
    n, k = (max(1, round(op.n * used)), op.k) if wide else (op.n, max(1, round(op.k * used)))
    tensors = tuple(
        replace(t, read=t.read * used, resident=t.resident * kept) if t.role == "weight" else t for t in op.tensors
    )
    return replace(op, n=n, k=k, tensors=tensors, flops=op.flops * used)


def _some_experts(op: Op, kept: float, used: float) -> Op:
    """A share `kept` of an op's experts, on which a share `used` of the choices falls."""
    assert op.routing is not None
    count = max(1, round(op.routing.experts * kept))
    tensors = tuple(t.scaled(kept if t.role == "weight" else used) for t in op.tensors)
    routing = Routing(count, min(float(count), op.routing.top_k * used))
    return replace(
        op, groups=max(1, round(op.groups * kept)), rows=op.rows * used, flops=op.flops * used, tensors=tensors,
        routing=routing,
    )  # fmt: skip


def _some_positions(op: Op, kept: float, used: float) -> Op:
    """Attention over a share `kept` of the cached positions, on which a share `used` of the reads falls."""

    def fewer(tensor: Tensor) -> Tensor:
        if tensor.role != "kv":
            return tensor
        return replace(tensor, read=tensor.read * used, write=tensor.write * kept, resident=tensor.resident * kept)

    flops = op.flops._replace(pairs=op.flops.pairs * used)
    return replace(with_tensors(op, fewer), flops=flops)


def _label(recipe: Recipe) -> str:
    return f"part{len(recipe.rules) + 1}"


def _placed(recipe: Recipe, rule: Rule, share: float, holds: Callable[[Op], bool], what: str) -> Recipe:
    def change(op: Op) -> list[Op]:
        _unclaimed(op, recipe)
        chosen, rest = layers_cut(op, share)
        return present(replace(chosen, part=rule.part) if chosen else None, rest)

    return new_rules(recipe.with_graph(each(recipe.model.graph, holds, change, what)), rule)


def _unclaimed(op: Op, recipe: Recipe) -> None:
    if op.part:
        first = next(rule for rule in recipe.rules if rule.part == op.part)
        raise ScenarioError(f"'{op.name}' is placed in '{first.memory}' already, by {first.origin}")
