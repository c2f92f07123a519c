"""Copies of large blocks: within the device's memory and its cache, on the host, and between host and GPU.

Bytes per second as a user sees them: of the copied block, except within one memory, where it is read and written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from validation.microbench.device import TorchDevice
from validation.microbench.sampling import Effort, Sample, WallClock, sample


@dataclass(frozen=True, slots=True)
class Copy:
    """One kind of copy."""

    name: str
    bytes: float
    moved: float
    """Bytes that count for the rate."""
    sample: Sample

    @property
    def bytes_per_s(self) -> float:
        """Rate of the fastest repeat."""
        return self.moved / self.sample.fastest_s

    def row(self) -> dict[str, Any]:
        """As a row of the table of measurements."""
        return {
            "op_name": "copy", "kernel_source": self.name, "bytes": self.bytes, "latency": self.sample.seconds * 1e3,
            "dispersion": self.sample.dispersion, "repeats": self.sample.repeats, "disturbed": self.sample.disturbed,
            "held_out": False,
        }  # fmt: skip


def copies(device: TorchDevice, cache_bytes: float, small: bool, effort: Effort) -> list[Copy]:
    """All kinds that the device has."""
    torch = device.torch
    block = int(1e6 if small else max(64e6, 4.0 * cache_bytes))
    found = [_within("memory", device, block, effort)]
    if device.is_gpu:
        if cache_bytes:
            found.append(_within("cache", device, int(cache_bytes / 6), effort))
        there = torch.empty(block, dtype=torch.uint8, device=device.name)
        for name, pinned in (("pinned", True), ("pageable", False)):
            here = torch.empty(block, dtype=torch.uint8, pin_memory=pinned)
            clock = WallClock(device.synchronize)
            for way, target, source in (("to_device", there, here), ("to_host", here, there)):
                taken = sample(_copying(target, here if source is here else there, pinned), clock, effort)
                found.append(Copy(f"{way}_{name}", block, block, taken))
    else:
        found.append(_within("host", device, block, effort))
    return found


def _within(name: str, device: TorchDevice, block: int, effort: Effort) -> Copy:
    """By the device's own time: on a GPU, issuing a copy within the cache takes the host longer than the copy."""
    torch = device.torch
    source = torch.ones(block // 4, dtype=torch.float32, device=device.name)
    target = torch.empty_like(source)
    repeats = 20 if device.is_gpu and name == "cache" else 1

    def run(_: int) -> None:
        for _ in range(repeats):
            target.copy_(source)

    taken = sample(run, device.kernel_clock(), effort)
    return Copy(name, block, 2.0 * repeats * block, taken)


def _copying(target: Any, source: Any, pinned: bool) -> Callable[[int], Any]:
    return lambda _: target.copy_(source, non_blocking=pinned)


def launch_times(device: TorchDevice, small: bool) -> tuple[float, float]:
    """Seconds per kernel of a long chain of tiny ones, until all are done, and of the host alone to issue one.

    The chain is a rotary embedding: five kernels with the views between them, as a layer has. On a processor a call
    returns when its work is done, and both are the same.
    """
    torch = device.torch
    x = torch.ones((2, 16), device=device.name)
    kernels, count = 5.0, 20 if small else 200

    def chain() -> Any:
        first, second = x.chunk(2, -1)
        return x * x + torch.cat((-second, first), -1) * x

    issued, done = [], []
    for _ in range(7):
        device.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            chain()
        issued.append((time.perf_counter() - start) / count / kernels)
        device.synchronize()
        done.append((time.perf_counter() - start) / count / kernels)
    return min(done), min(issued)


def steady(device: TorchDevice, dtype: str, small: bool) -> dict[str, Callable[[], object]]:
    """Two kernels to draw power with: a large product, and a copy of a large block. Each call waits for its end."""
    size = 64 if small else 4096 if device.is_gpu else 2048
    a, b = device.random((size, size), dtype), device.random((size, size), dtype, 1)
    block = device.torch.ones(int(1e5 if small else device.cold_bytes / 4), device=device.name)
    target = device.torch.empty_like(block)

    def product() -> None:
        for _ in range(10 if device.is_gpu else 1):
            device.torch.nn.functional.linear(a, b)
        device.synchronize()

    def copy() -> None:
        for _ in range(10 if device.is_gpu else 1):
            target.copy_(block)
        device.synchronize()

    return {f"{dtype} product": product, "copy": copy}
