"""The device that torch computes on, a processor or a GPU, behind the few calls in which they differ.

Timing, synchronising, flushing caches, and which number formats it multiplies natively. All of torch comes through here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from simulator.errors import UnsupportedError
from validation.microbench.sampling import Clock, ThreadClock, WallClock
from validation.microbench.system import Cpu, Gpu

BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0, "fp8": 1.0}
TORCH_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8", "fp8": "float8_e4m3fn"}
NATIVE: dict[str, tuple[str, ...]] = {
    "bf16": ("avx512_bf16", "amx_bf16", "bf16", "svebf16"),
    "fp16": ("avx512_fp16", "amx_fp16", "asimdhp", "fphp"),
    "int8": ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp"),
}
"""Flags of a processor of which one is enough to multiply in that format; fp32 needs none."""


def load_torch() -> ModuleType | None:
    """torch, or None where it is not installed."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None


class EventClock:
    """Time on a GPU between two events, after a flush of its cache that also keeps the queue filled meanwhile."""

    def __init__(self, torch: Any, flush: Callable[[], object]) -> None:
        self.torch, self.flush = torch, flush

    def time(self, run: Callable[[int], object], first: int, count: int) -> tuple[float, bool]:
        """See Clock. Runs of one repeat are timed one by one, as each finds a flushed cache."""
        cuda = self.torch.cuda
        pairs = []
        for position in range(first, first + count):
            self.flush()
            start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
            start.record()
            run(position)
            end.record()
            pairs.append((start, end))
        cuda.synchronize()
        return sum(start.elapsed_time(end) for start, end in pairs) * 1e-3 / count, False


@dataclass(frozen=True, slots=True)
class TorchDevice:
    """Where kernels run."""

    torch: Any
    name: str
    """As torch writes it: cpu, cuda:0."""
    threads: int
    cold_bytes: float
    """Weights of one case are spread over so many bytes: a cache keeps part of what is little more than it holds."""
    formats: tuple[str, ...]
    """Number formats multiplied natively."""
    pools: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def on_cpu(cls, torch: Any, cpu: Cpu, threads: int) -> TorchDevice:
        """The processor, with so many threads."""
        torch.set_num_threads(threads)
        formats = ["fp32", *(name for name, flags in NATIVE.items() if cpu.flags.intersection(flags))]
        return cls(torch, "cpu", threads, min(4.0 * cpu.last_cache_bytes, cpu.memory_bytes / 32), tuple(formats))

    @classmethod
    def on_gpu(cls, torch: Any, gpu: Gpu) -> TorchDevice:
        """A GPU, which becomes torch's current one: events are recorded there. bf16 needs capability 8.0, int8 7.5, fp8 8.9
        (AMD parts report 9.x and try all)."""
        torch.cuda.set_device(gpu.index)
        formats = ["fp32", "fp16"]
        for name, least in (("bf16", (8, 0)), ("int8", (7, 5)), ("fp8", (8, 9))):
            if gpu.capability >= least:
                formats.append(name)
        cold = max(4.0 * gpu.cache_bytes, 256e6)
        return cls(torch, f"cuda:{gpu.index}", gpu.cores, min(cold, gpu.memory_bytes / 16), tuple(formats))

    @property
    def is_gpu(self) -> bool:
        """Work is queued, and a call returns before it is done."""
        return self.name.startswith("cuda")

    def dtype(self, name: str) -> Any:
        """torch's own type of a format."""
        found = getattr(self.torch, TORCH_NAMES[name], None)
        if found is None:
            raise UnsupportedError(f"{name} in torch {self.torch.__version__}")
        return found

    def synchronize(self) -> None:
        """Wait for all work."""
        if self.is_gpu:
            self.torch.cuda.synchronize(self.name)

    def kernel_clock(self) -> Clock:
        """For single kernels: the device's own time."""
        if not self.is_gpu:
            return self.wall_clock()
        buffer = self.torch.empty(int(self.cold_bytes), dtype=self.torch.int8, device=self.name)
        return EventClock(self.torch, buffer.zero_)

    def wall_clock(self) -> Clock:
        """For chains of kernels: elapsed time, the host's part included."""
        if not self.is_gpu and self.threads == 1:
            return ThreadClock()
        return WallClock(self.synchronize if self.is_gpu else None)

    def random(self, shape: tuple[int, ...], dtype: str, copy: int = 0) -> Any:
        """Standard normal values, or whole numbers from -8 to 8 for int8.

        Cut from one pool per format, `copy` after `copy`, so that no memory is spent on each shape.
        """
        count = 1
        for extent in shape:
            count *= extent
        pool = self._pool(dtype, count)
        room = pool.numel() - count
        start = (copy * count) % (room + 1) // 64 * 64 if room else 0
        return pool[start : start + count].view(shape)

    def copies(self, elements: int, dtype: str) -> int:
        """Copies of an operand that make up the cold bytes; at least two, unless it is as large by itself."""
        size = elements * BYTES[dtype]
        return max(1, min(1024, -int(-self.cold_bytes // size))) if size < self.cold_bytes else 2

    def _pool(self, dtype: str, count: int) -> Any:
        need = max(2 * count, int(self.cold_bytes / BYTES[dtype]) + count)
        pool = self.pools.get(dtype)
        if pool is None or pool.numel() < need:
            torch = self.torch
            generator = torch.Generator(device=self.name).manual_seed(7)
            if dtype == "int8":
                pool = torch.randint(-8, 9, (need,), dtype=torch.int8, device=self.name, generator=generator)
            else:
                pool = torch.empty(need, dtype=torch.float32, device=self.name).normal_(generator=generator)
                pool = pool.to(self.dtype(dtype))
            self.pools[dtype] = pool
        return pool


def to_numpy(tensor: Any) -> Any:
    """The values as float64."""
    return tensor.detach().to("cpu").double().numpy()
