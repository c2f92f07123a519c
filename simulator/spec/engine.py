"""What an engine file and a calibration file may hold: how software reaches the hardware's rates.

An engine (vLLM, llama.cpp, ...) adds host time, fusion and memory policy; a calibration says which share of a datasheet
rate the kernels of a device reach. Both are data: the cost model knows no engine and no device by name.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from simulator.spec.hardware import DeviceClass, Source
from simulator.spec.loader import Spec
from simulator.spec.quantity import Count, EnergyPerByte, Fraction, Size, Time


class EngineSpec(Spec):
    """An inference engine."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str
    aliases: list[str] = Field(default_factory=list)
    notes: str | None = None
    sources: dict[str, Source]
    default_source: str | None = None
    ideal: bool = False
    """Datasheet rates, unique bytes, no overhead of any kind: the speed of light."""
    host_step: Time
    """Host time of one decode step that the device waits for (scheduling, sampling, detokenising)."""
    host_prefill: Time
    """The same for a step that starts sequences."""
    host_per_sequence: Time
    """Further host time per sequence of a step."""
    kernel_host_factor: Fraction
    """Host time to issue one kernel, over the device's own `host_launch`, where no graph is replayed."""
    kernel_gap: Time
    """Time that the device stands still before each op where no graph is replayed: an op may be several small kernels,
    each issued after the last has been seen to start."""
    graph_decode: bool
    """Decode steps replay a captured graph: kernels cost no host time."""
    graph_prefill: bool = False
    unfused: list[str] = Field(default_factory=list)
    """Names of small ops (rope, activation, residual, qk_norm, ...) that are kernels of their own; `all` for every one."""
    norm_kernels: Count
    """Kernels that one norm takes (1 where it is fused with the residual sum)."""
    compute_factor: Fraction
    """Share of the calibrated GEMM and attention rates that its kernels reach."""
    bandwidth_factor: Fraction
    """Share of the calibrated memory rates that its kernels reach."""
    memory_fraction: Fraction
    """Share of the device memory it may use."""
    workspace: Size
    """Context, kernels and buffers besides tensors."""

    max_batched_tokens: Count
    """Most prompt tokens in one step; longer prompts are cut into chunks."""
    spills: bool = False
    """Uses further memories (host DRAM, DDR tier, flash) when the first is full."""
    collective_wait: Time
    """Time that ranks wait for one another at each collective: they do not arrive together."""
    all_reduce: Literal["one_shot", "ring"] = "one_shot"
    """one_shot: small messages are written to every peer at once; ring: always a ring."""


class GemmEfficiency(Spec):
    """Matrix products of many rows, on the unit of one kind."""

    compute: Fraction
    """Share of the peak that a large, well-shaped product sustains inside its tiles."""
    bandwidth: Fraction
    """Share of the memory bandwidth that operands stream at."""
    vector_bandwidth: Fraction
    """The same for the matrix-vector kernel that few rows use."""
    vector_rows: Count
    """Rows that one pass of the matrix-vector kernel serves."""
    fill: Time
    """Pipeline fill and drain of one wave of tiles, where it does not shrink with the tile; 0 where it does."""
    fill_row: Size
    """Prologue and epilogue of a tile, as bytes of an operand's row that take as long to multiply; 0 for none."""
    core_bandwidth: Count
    """Most that one core takes in from the last cache, over its even share of that cache's bandwidth; 1000 for no limit."""
    narrow_compute: Fraction
    """Share of `compute` that products of operands of 8 bits or fewer keep (wider sums, power); 1 for all of it."""


class AttentionEfficiency(Spec):
    """Fused attention."""

    compute: Fraction
    """Share of the peak in prefill, at long sequences."""
    bandwidth: Fraction
    """Share of the memory bandwidth at which decode reads the cache."""
    floor: Time
    """Shortest time of the kernel besides its launch (split, reduction)."""
    query_tile: Count
    """Query rows of one block of prefill."""
    context_tile: Count
    """Cached positions that a block of decode reads at once; a shorter rest costs as much."""
    split_tokens: Count
    """Least cached positions of one block of decode: a longer cache is split among more cores."""
    saturating_share: Fraction
    """Share of the cores that is enough to saturate the memory bandwidth in decode."""
    block: Time
    """Time of every further wave of blocks of decode, however short the cache; 0 for none."""
    key_tile: Count
    """Keys of one tile of prefill: the tile on the causal diagonal is computed whole. 1 for no padding."""
    prefill_bandwidth: Fraction
    """Share of the memory bandwidth at which blocks of prefill read their operands and write their result."""
    prefill_sharpness: Count
    """`sharpness` of prefill: 1 where a block reads, computes and writes in turn."""


class Calibration(Spec):
    """Efficiencies of a device, of an architecture, or of a class, whichever is the most specific that exists."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str
    devices: list[str] = Field(default_factory=list)
    """Device files it holds for. The most specific match wins: device, architecture, class."""
    architectures: list[str] = Field(default_factory=list)
    classes: list[DeviceClass] = Field(default_factory=list)
    sources: dict[str, Source]
    default_source: str | None = None
    tag: Literal["in-grid", "transferred", "datasheet"]
    """How well founded predictions made with it are."""
    default_engine: str
    """Engine that a prediction uses when none is named."""
    interval_low: Fraction | None = None
    interval_high: Fraction | None = None
    """Measured over predicted times, 5% and 95% quantiles of this calibration's own measurements, for its own devices; where
    absent, as in the shipped files, the interval file's ratios hold."""
    gemm: GemmEfficiency
    attention: AttentionEfficiency
    elementwise_bandwidth: Fraction
    scan_compute: Fraction
    """Share of the vector peak that recurrences sustain."""
    cache_bandwidth: Fraction
    """Share of the last-level cache's bandwidth that tiles stream at."""
    transport: EnergyPerByte
    """Energy of a byte on its way through the chip, from the memory's interface to the cores: controller, crossbar, cache
    and registers. On top of the memory's own energy; not for a unit that sits next to its memory."""
    reduction: Time
    """A further pass that sums the parts of a product split along k, or of a cache split among blocks; 0 for none."""
    launch: Time | None = None
    """Replaces the device's own `overhead.launch`: kernel to kernel, with the tail of the one and the ramp of the next."""
    multicast: Count
    """Neighbouring cores that share one read of an operand from the cache (thread block clusters, systolic rows)."""
    sharpness: Count
    """Exponent p of the soft maximum (a^p + b^p)^(1/p) of compute and memory time; high means that they overlap fully."""
    dequantize: Count
    """Vector operations to expand one weight stored in fewer bits than it is multiplied in."""
    link_bandwidth: Fraction
    """Share of a link's bandwidth that collectives reach."""
    link_latency: Time | None = None
    """One collective of a tiny message, where that takes longer than the link's own latency."""
    saturating_share: Fraction
    """Share of the cores that is enough to saturate the memory bandwidth."""
