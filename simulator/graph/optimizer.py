"""How a network is trained: the plan, what each optimizer keeps and moves, and what data-parallel ranks exchange.

Counts per optimizer step and rank; ZeRO divides residents and update work among the ranks (Rajbhandari et al.,
arXiv 1910.02054). Knows weights as numbers of elements, not what they compute.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from simulator.errors import ScenarioError, UnknownNameError
from simulator.graph.counts import ONCE
from simulator.graph.op import BITS, Collective, Op, Role, Routing, Split, Tensor
from simulator.graph.step import ZERO

Recompute = Literal["none", "selective", "full"]
When = Literal["forward", "backward", "update"]


@dataclass(frozen=True, slots=True)
class State:
    """A tensor that an optimizer keeps per parameter."""

    name: str
    dtype: str | None = None
    """None: the plan's optimizer_dtype."""
    factored: bool = False
    """A row and a column vector per matrix instead of the matrix."""
    overhead_bits: float = 0.0


@dataclass(frozen=True, slots=True)
class Optimizer:
    """What an update keeps and computes per parameter. FLOPs count a square root or a division as 1."""

    states: tuple[State, ...]
    flops_per_parameter: float


_BLOCK_SCALE_BITS = 32 / 2048
"""One fp32 scale per block of 2048 (Dettmers et al., arXiv 2110.02861)."""

OPTIMIZERS: dict[str, Optimizer] = {
    # scale, subtract
    "sgd": Optimizer((), 2.0),
    # decay and add, scale, subtract
    "momentum": Optimizer((State("momentum"),), 4.0),
    # arXiv 1711.05101: moments 3 + 4, bias corrections 2, root, epsilon, quotient, decay 2, step 2
    "adamw": Optimizer((State("first_moment"), State("second_moment")), 16.0),
    # the same with a (de)quantisation of each moment
    "adamw8bit": Optimizer(
        (
            State("first_moment", "int8", overhead_bits=_BLOCK_SCALE_BITS),
            State("second_moment", "int8", overhead_bits=_BLOCK_SCALE_BITS),
        ),
        20.0,
    ),
    # arXiv 2302.06675: interpolate 3, sign, decay 2, step 2, momentum 3
    "lion": Optimizer((State("momentum"),), 11.0),
    # arXiv 1804.04235 without first moment: square 2, row and column means 2, outer product 2, scale 2, clip 3, step 2
    "adafactor": Optimizer((State("second_moment", factored=True),), 13.0),
}


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How a network is trained. The defaults are mixed-precision AdamW: 16 bytes per parameter on one rank.

    The step a training graph is evaluated at is one micro-batch of one data-parallel rank; the graph's counts are
    those of one whole optimizer step of that rank, so forward and backward ops repeat `gradient_accumulation` times.
    """

    recompute: Recompute = "none"
    """full: every block runs forward once more, only block inputs stay; selective: attention only."""
    optimizer: str = "adamw"
    """A key of OPTIMIZERS."""
    zero_stage: int = 0
    """What data-parallel ranks divide: 1 optimizer state, 2 and gradients, 3 and weights."""
    data_parallel: int = 1
    parameter_dtype: str = "bf16"
    """Of the weights that are trained; frozen ones keep their own."""
    gradient_dtype: str = "bf16"
    gradients_summed: bool = True
    """False: `gradient_dtype` is that of messages only, not summed on their way; what rounding leaves out is kept."""
    optimizer_dtype: str = "fp32"
    master_dtype: str | None = "fp32"
    """Of the copy that the update is applied to; no copy if None or the same as parameter_dtype."""
    lora_rank: int | None = None
    """Train only low-rank adapters of this rank (arXiv 2106.09685) and freeze the rest."""
    lora_targets: tuple[str, ...] = ("*_proj", "experts_*")
    """Patterns of the names of the GEMMs that get an adapter; by default the projections of attention, FFN, mixers."""
    part_share: float | None = None
    """Train only this share of the inputs (heads, channels) of the GEMMs that a norm does not feed, as one dense part."""
    gradient_accumulation: int = 1
    """Micro-batches per optimizer step."""
    flash_attention: bool = True
    """False: the scores of every (query, key) pair are written, and kept for the backward pass."""
    score_passes: float = 2.0
    """Crossings of memory of a score without flash attention, in each direction: write and read; more where scaling,
    masking, softmax in 32 bits and dropout are kernels of their own, which take masked pairs along."""
    dropout: bool = False
    """Keeps a one-byte mask of every residual branch, and of the scores without flash_attention."""
    loss_positions: Literal["all", "sampled"] = "all"
    """all: logits of every token (language modelling); sampled: of one position per sequence (classification)."""

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UnknownNameError("optimizer", self.optimizer, OPTIMIZERS)
        choices = {"recompute": ("none", "selective", "full"), "loss_positions": ("all", "sampled")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ScenarioError(f"{name} must be one of {', '.join(allowed)}, got '{getattr(self, name)}'")
        for name in ("parameter_dtype", "gradient_dtype", "optimizer_dtype", "master_dtype"):
            dtype = getattr(self, name)
            if dtype not in BITS and not (name == "master_dtype" and dtype is None):
                raise UnknownNameError("dtype", str(dtype), BITS)
        if self.zero_stage not in (0, 1, 2, 3):
            raise ScenarioError(f"zero_stage must be 0, 1, 2 or 3, got {self.zero_stage}")
        for name in ("data_parallel", "gradient_accumulation", "lora_rank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ScenarioError(f"{name} must be at least 1, got {value}")

    @property
    def freezes(self) -> bool:
        """Whether most weights are not trained."""
        return self.lora_rank is not None or self.part_share is not None

    @property
    def keeps_master(self) -> bool:
        """Whether the update needs a copy of the weights in another format."""
        return self.master_dtype is not None and self.master_dtype != self.parameter_dtype

    def share(self, stage: int) -> float:
        """A rank's share of what ZeRO divides from `stage` on.

        >>> TrainingPlan(zero_stage=2, data_parallel=8).share(1), TrainingPlan(zero_stage=2, data_parallel=8).share(3)
        (0.125, 1.0)
        """
        return 1.0 / self.data_parallel if self.zero_stage >= stage else 1.0


@dataclass(frozen=True, slots=True)
class Parameter:
    """A tensor of weights as the optimizer and the ranks see it: per repeat of its group."""

    elements: float
    factored: float
    """Elements of a factored second moment: rows + columns of each matrix; all elements of a vector."""
    dtype: str
    overhead_bits: float
    split: bool
    trained: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Weights that are updated and exchanged together: those of one block, experts apart."""

    name: str
    repeat: float
    routing: Routing | None
    parameters: tuple[Parameter, ...]


def groups(name: str, repeat: float, ops: Iterable[tuple[Op, bool]]) -> list[Group]:
    """The weights of a block's ops, each with whether it is trained; routed experts are a group of their own."""
    found: dict[Routing | None, list[Parameter]] = {}
    for op, trained in ops:
        for tensor in op.tensors:
            if tensor.role == "weight" and tensor.resident.const:
                scale = op.repeat / repeat
                parameter = Parameter(
                    tensor.resident.const * scale,
                    _factored(op, tensor) * scale,
                    tensor.dtype,
                    tensor.overhead_bits,
                    tensor.split and op.split != "none",
                    trained,
                )
                found.setdefault(op.routing, []).append(parameter)
    return [
        Group(f"{name}.experts" if routing else name, repeat, routing, tuple(parameters))
        for routing, parameters in found.items()
    ]


def update_ops(group: Group, plan: TrainingPlan) -> list[Op]:
    """The optimizer's pass over the trained weights of a group, on one rank: 1/N of them from ZeRO stage 1 on.

    Per parameter it reads the gradient, the master copy and the states, and writes the master copy, the states and the
    weight: 2 + 12 + 12 + 2 = 28 bytes for AdamW in bf16 with fp32 master and moments. Residents per parameter: gradient
    (1/N from stage 2), master and states (1/N from stage 1); the weights stay with the forward ops.

    >>> group = Group("block", 1, None, (Parameter(1000.0, 1000.0, "bf16", 0.0, False, True),))
    >>> op, = update_ops(group, TrainingPlan())
    >>> sum((t.read + t.write).const * t.bytes_per_element for t in op.tensors) / 1000
    28.0
    """
    optimizer = OPTIMIZERS[plan.optimizer]
    tensors: list[Tensor] = []
    total = 0.0
    for split in (True, False):
        trained = [p for p in group.parameters if p.trained and p.split == split]
        elements, factored = sum(p.elements for p in trained), sum(p.factored for p in trained)
        if not elements:
            continue
        total += elements
        whole, mine = ONCE * elements, ONCE * (elements * plan.share(1))
        resident = whole * plan.share(2)
        kept = plan.gradient_dtype if plan.gradients_summed else plan.parameter_dtype
        tensors.append(Tensor("gradient", "gradient", kept, read=mine, resident=resident, split=split))
        if not plan.gradients_summed:
            tensors.append(_updated("error", "fp32", elements, split))
        if plan.keeps_master and plan.master_dtype is not None:
            tensors.append(_updated("master", plan.master_dtype, elements * plan.share(1), split))
        for state in optimizer.states:
            held = (factored if state.factored else elements) * plan.share(1)
            tensor = _updated(state.name, state.dtype or plan.optimizer_dtype, held, split)
            tensors.append(replace(tensor, overhead_bits=state.overhead_bits))
        read = ZERO if plan.keeps_master else mine
        tensors.append(Tensor("weight", "weight", plan.parameter_dtype, read=read, write=mine, split=split))
    if not tensors:
        return []
    mine = ONCE * (total * plan.share(1))
    return [
        Op(
            f"{group.name}.update",
            "elementwise",
            tuple(tensors),
            flops=mine * optimizer.flops_per_parameter,
            repeat=group.repeat,
            dtype=plan.master_dtype or plan.optimizer_dtype,
            rows=mine,
            n=1,
            split=_split(group.parameters),
            block="optimizer",
            routing=group.routing,
        )
    ]


def gather_ops(group: Group, plan: TrainingPlan, when: When) -> list[Op]:
    """The all-gather of weights that ranks hold in shares.

    ZeRO-3 gathers every weight, frozen ones too, before the forward and again before the backward pass of each
    micro-batch; ZeRO-1 and -2 gather the trained ones once, after the update. The message is the gathered whole.
    """
    if plan.zero_stage == 3 and when != "update":
        times, parameters = plan.gradient_accumulation, group.parameters
    elif plan.zero_stage in (1, 2) and when == "update":
        times, parameters = 1, tuple(p for p in group.parameters if p.trained)
    else:
        return []
    return _exchange(f"{group.name}.all_gather.{when}", group, parameters, "all_gather", "weight", times, None)


def gradient_ops(group: Group, plan: TrainingPlan) -> list[Op]:
    """The exchange of gradients between data-parallel ranks; the message is the whole gradient of the group.

    ZeRO-0 all-reduces once per optimizer step, ZeRO-1 reduce-scatters once. From ZeRO-2 on a rank has no room for whole
    gradients between micro-batches, so every micro-batch reduce-scatters.

    A sum of one-bit values is none itself, so that such messages cannot be summed on their way around a ring: each rank
    sends every other its chunk, sums the chunks it is sent, and all-gathers the sums (1-bit Adam, arXiv 2102.02888).
    """
    trained = tuple(p for p in group.parameters if p.trained)
    if not plan.gradients_summed and not plan.zero_stage:
        steps: tuple[Collective, ...] = ("all_to_all", "all_gather")
        name = f"{group.name}.gradient"
        return [
            op
            for step in steps
            for op in _exchange(f"{name}.{step}", group, trained, step, "gradient", 1, plan.gradient_dtype)
        ]
    kind: Collective = "reduce_scatter" if plan.zero_stage else "all_reduce"
    times = plan.gradient_accumulation if plan.zero_stage >= 2 else 1
    return _exchange(f"{group.name}.gradient.{kind}", group, trained, kind, "gradient", times, plan.gradient_dtype)


def _exchange(
    name: str,
    group: Group,
    parameters: tuple[Parameter, ...],
    kind: Collective,
    role: Role,
    times: float,
    dtype: str | None,
) -> list[Op]:
    sizes: dict[tuple[str, float, bool], float] = {}
    for p in parameters:
        key = (dtype or p.dtype, 0.0 if dtype else p.overhead_bits, p.split)
        sizes[key] = sizes.get(key, 0.0) + p.elements
    if not sizes:
        return []
    tensors = tuple(
        Tensor("message", role, form, read=ONCE * size, split=split, overhead_bits=bits)
        for (form, bits, split), size in sizes.items()
    )
    return [
        Op(
            name,
            "collective",
            tensors,
            repeat=group.repeat * times,
            dtype=tensors[0].dtype,
            rows=ONCE,
            n=int(sum(sizes.values())),
            split=_split(parameters),
            block="communication",
            routing=group.routing,
            collective=kind,
            axis="dp",
        )
    ]


def _updated(name: str, dtype: str, elements: float, split: bool) -> Tensor:
    amount = ONCE * elements
    return Tensor(name, "optimizer", dtype, read=amount, write=amount, resident=amount, split=split)


def _split(parameters: tuple[Parameter, ...]) -> Split:
    return "column" if any(p.split for p in parameters) else "none"


def _factored(op: Op, tensor: Tensor) -> float:
    elements = tensor.resident.const
    if op.kind == "gemm" and tensor.read.const == float(op.groups) * op.n * op.k:
        return op.groups * (op.n + op.k) * elements / tensor.read.const
    if op.kind == "gather" and op.n:
        return elements / op.n + op.n
    return elements
