"""What an engine file and a calibration file may hold: how software reaches the hardware's rates.

An engine (vLLM, llama.cpp, ...) adds host time, fusion and memory policy; a calibration says which share of a datasheet
rate the kernels of a device reach. Both are data: the cost model knows no engine and no device by name.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from simulator.spec.hardware import DeviceClass, Source
from simulator.spec.loader import Spec
from simulator.spec.quantity import Count, EnergyPerByte, Fraction, Frequency, Size, Time


class Chain(Spec):
    """A small op that an engine runs as several kernels, one after another."""

    kernels: Count
    passes: Count
    """Times that the op's own reads and writes are made, all its kernels together."""


class Release(Spec):
    """Which releases of an engine a file is for, where that is not the current one."""

    of: str
    """The current release's file. Calibrations and intervals of that name hold for this one too."""
    before: str | None = Field(default=None, pattern=r"^\d+(\.\d+)*$")
    """First version that it does not hold for: a name with a lower version means this file. None: no such versions."""
    until: int
    """Last year that it holds for: so does a name with this year, or an earlier one."""


class EngineSpec(Spec):
    """An inference engine."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str
    aliases: list[str] = Field(default_factory=list)
    release: Release | None = None
    """For an earlier release: `vllm 0.5.2` and `vllm (2023)` find it beside `vllm`, the current one."""
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
    stream_per_sequence: Time | None = None
    """Further host time per sequence of a step when serving, where the process that forms steps also streams the tokens
    to the clients; 0 where it is not given."""
    kernel_host_factor: Fraction
    """Host time to issue one kernel, over the device's own `host_launch`, where no graph is replayed."""
    kernel_gap: Time
    """Time that the device stands still before each op where no graph is replayed: an op may be several small kernels,
    each issued after the last has been seen to start."""
    graph_decode: bool
    """Decode steps replay a captured graph: kernels cost no host time."""
    graph_prefill: bool = False
    graph_architectures: list[str] = Field(default_factory=list)
    """Architectures of devices on which graphs are replayed; all where none is named."""
    unfused: list[str] = Field(default_factory=list)
    """Names of small ops (rope, activation, residual, qk_norm, ...) that are kernels of their own; `all` for every one."""
    norm_kernels: Count
    """Kernels that one norm takes (1 where it is fused with the residual sum)."""
    chains: dict[str, Chain] = Field(default_factory=dict)
    """Small ops (norm, rope, activation, ...; a name ends with this) that are chains of kernels, each reading and writing
    its tensors. For norms, in place of `norm_kernels`."""
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
    mixes_prefill: bool = False
    """When serving, prompts ride in the steps of running decodes, all within `max_batched_tokens`; otherwise they have steps
    of their own, for which the decodes wait."""
    preempts: bool = False
    """Admits sequences whose prompts fit; when caches outgrow the memory, the last ones wait and compute theirs again.
    Otherwise room for whole answers is kept from the start."""
    spills: bool = False
    """Uses further memories (host DRAM, DDR tier, flash) when the first is full."""
    rounds_inputs: bool = False
    """A kernel of its own rounds the input of every product of 8 bits (scales found as it runs); otherwise that is fused
    into the op before it."""
    collective_wait: Time
    """Time that ranks wait for one another at each collective: they do not arrive together."""
    all_reduce: Literal["one_shot", "ring"] = "one_shot"
    """one_shot: small messages are written to every peer at once; ring: always a ring."""
    sums_in_switch: bool = True
    """Lets switches that can do so sum large messages (NCCL from 2.17 on, of March 2023)."""


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
    wide_bandwidth: Fraction | None = None
    """Share of `bandwidth` that products of operands of more than 16 bits keep, where libraries copy such weights into
    another layout at each call; 1 where it is not given."""
    floor: Time | None = None
    """Shortest time of a product besides its launch (choosing a kernel, forking threads); 0 where it is not given."""


class PrefillEfficiency(Spec):
    """Fused attention of many queries."""

    compute: Fraction
    """Share of the matrix peak that its products sustain inside their tiles."""
    softmax: Fraction
    """Vector operations per score that are not hidden behind the products (exponential, maximum, scaling)."""
    query_tile: Count
    """Query rows of one block."""
    key_tile: Count
    """Keys of one tile: tiles that the mask cuts are computed whole. 1 for no padding."""
    block: Time
    """Prologue and epilogue of a block, however few its keys."""
    tail: Fraction
    """Time that cores stand idle in the last wave, over that of a block."""
    bandwidth: Fraction
    """Share of the memory bandwidth at which blocks read their operands and write their result."""
    sharpness: Count
    """`sharpness` of prefill: 1 where a block reads, computes and writes in turn."""
    floor: Time
    """Shortest time of the kernel besides its launch."""
    store: Fraction | None = None
    """Share of the memory bandwidth of a pass of its own that copies new keys and values to the cache; none where it is
    not given."""
    store_row: Time | None = None
    """Time that this pass takes one core for each token, however few its keys."""


class DecodeEfficiency(Spec):
    """Fused attention of one query per sequence."""

    bandwidth: Fraction
    """Share of the memory bandwidth at which all cores together read the cache."""
    core_bandwidth: Count
    """Most that one core reads, over its even share of the memory bandwidth; 1000 for no limit."""
    key_tile: Count
    """Cached positions that a block reads at once; a shorter rest costs as much."""
    block: Time
    """Time of a block however short its cache; 0 for none."""
    least_tiles: Count
    """Fewest tiles of one split."""
    most_splits: Count
    """Most blocks that one cache is split among; 1 where it is never split."""
    reduction: Time
    """The further pass that sums the splits."""
    group_tile: Count
    """Query heads of one KV head are padded to a multiple of this; 1 for no padding."""
    group_limit: Count
    """Most query heads that share one reading of the cache; 1000 for no limit."""
    softmax: Fraction
    """Vector operations per score."""
    sharpness: Count
    """`sharpness` of decode."""
    floor: Time
    """Shortest time of the kernel besides its launch."""


class AttentionEfficiency(Spec):
    """Fused attention."""

    prefill: PrefillEfficiency
    decode: DecodeEfficiency
    single: DecodeEfficiency | None = None
    """Decode where every query head has a KV head of its own, if that is another kernel."""
    narrow_prefill: PrefillEfficiency | None = None
    """Prefill with a cache in FP8 on a device that multiplies in it, if that is another kernel; shares of that rate."""
    narrow: DecodeEfficiency | None = None
    """The same of decode."""


class RoundingEfficiency(Spec):
    """The pass that rounds the input of a narrow product, where it is a kernel of its own."""

    floor: Time
    """Its shortest time, launch included."""
    row: Time
    """Time of one row on one core, however short."""
    bandwidth: Fraction
    """Share of the memory bandwidth at which it reads 16 and writes 8 bits per element."""


class ExpertsEfficiency(Spec):
    """Grouped products of routed experts, against plain ones."""

    floor: Time
    """Further time of one grouped product: tokens are sorted by expert and brought back."""
    compute: Fraction
    """Share of the plain product's rate."""
    bandwidth: Fraction
    """Share of the plain product's memory bandwidth."""
    skew: Fraction
    """The fullest of p ranks that divide the experts gets p^skew times the mean load."""


class LibraryEfficiency(Spec):
    """Collectives of a general library."""

    latency: Time
    """One collective of a tiny message."""
    bandwidth: Fraction
    """Share of a link's bandwidth."""


class EngineEfficiency(Spec):
    """What holds for one engine's kernels in place of the general values."""

    gemm: GemmEfficiency | None = None
    attention: AttentionEfficiency | None = None
    launch: Time | None = None
    rounding: RoundingEfficiency | None = None
    experts: ExpertsEfficiency | None = None
    narrow_compute: Fraction | None = None
    """As that of `gemm`."""
    tuned: bool = True
    """Kernels of products are chosen among all tiles and splits; otherwise by the rows alone, and never split."""
    narrow_tuned: bool = True
    """The same for products of operands of 8 bits or fewer."""
    scaled_compute: Fraction | None = None
    """As `narrow_compute`, of products of 8 bits whose weights have scales by groups; as that where it is not given."""
    scaled_tuned: bool = True
    """The same for these products."""
    dequantize: Count | None = None
    """As that of the calibration."""


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
    engines: dict[str, EngineEfficiency] = Field(default_factory=dict)
    """Engine file -> what its own kernels reach."""
    rounding: RoundingEfficiency
    experts: ExpertsEfficiency
    elementwise_bandwidth: Fraction
    scan_compute: Fraction
    """Share of the vector peak that recurrences sustain."""
    cache_bandwidth: Fraction
    """Share of the last-level cache's bandwidth that tiles stream at."""
    transport: EnergyPerByte
    """Energy of a byte on its way through the chip, from the memory's interface to the cores: controller, crossbar, cache
    and registers. On top of the memory's own energy; not for a unit that sits next to its memory."""
    compute_clock: Fraction | None = None
    """Share of the full clock at which the power limit let 16-bit kernels that compute bounds run when they were measured;
    8-bit ones at `gemm.narrow_compute` of it. Default: 1."""
    reduction: Time
    """A further pass that sums the parts of a product split along k, or of a cache split among blocks; 0 for none."""
    launch: Time | None = None
    """Replaces the device's own `overhead.launch`: kernel to kernel, with the tail of the one and the ramp of the next."""
    clock: Frequency | None = None
    """Highest clock of the device that `launch` was found on. A launch is a number of cycles: it takes less time where the
    clock is higher. Default: `launch` is a time."""
    multicast: Count
    """Neighbouring cores that share one read of an operand from the cache, on top of the units' own `multicast`."""
    sharpness: Count
    """Exponent p of the soft maximum (a^p + b^p)^(1/p) of compute and memory time; high means that they overlap fully."""
    dequantize: Count
    """Vector operations to expand one weight stored in fewer bits than it is multiplied in."""
    link_bandwidth: Fraction
    """Share of a link's bandwidth that collectives reach."""
    link_latency: Time | None = None
    """One collective of a tiny message, where that takes longer than the link's own latency."""
    in_switch: LibraryEfficiency | None = None
    """All-reduces that the switch sums, where it does; not used where nothing is stated."""
    library: LibraryEfficiency | None = None
    """Collectives other than all-reduce, where a general library does them; as all-reduce where nothing is stated."""
    saturating_share: Fraction
    """Share of the cores that is enough to saturate the memory bandwidth."""
