"""How long a memory takes by its own timings, where its file has them: streams, random reads, bursts of all banks, pages.

The mechanism in place of a calibrated share of the bandwidth. Rates of long streams are worked out once per memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from simulator.errors import TimelineError
from simulator.events import banks
from simulator.events.banks import BankTimes
from simulator.events.layout import PICOSECONDS
from simulator.mapping.machine import MemoryLevel, Unit

WINDOW = 64
"""Requests that a controller looks ahead per channel."""
LONG_STREAM = 32768
"""Requests after which a stream's rate no longer changes: some tens of refreshes."""
LONG_FLASH = 4096


@lru_cache(maxsize=1)
def compiled() -> Any:
    """`simulator.events.banks` with its functions compiled."""
    from simulator.cost.compiled import compile_modules

    return compile_modules((banks,), "the loop over memory banks")[0]


@dataclass(frozen=True, slots=True)
class Dram:
    """The channels of one memory of one rank."""

    name: str
    channels: float
    banks: int
    """Per channel."""
    per_group: int
    row_bytes: float
    burst_bytes: float
    times: BankTimes
    turn_ps: int = 0
    """Bus idle from reads to writes and back."""

    @property
    def peak_bytes_per_s(self) -> float:
        """One burst per tCCD_S on every channel."""
        return self.channels * self.burst_bytes * PICOSECONDS / self.times.ccd_s

    @property
    def random_bytes_per_s(self) -> float:
        """Bound of reads of one burst each from random rows: banks / tRC, 4 / tFAW and 1 / tRRD, less refresh.

        Of N banks chosen at random, a controller that keeps order finds its next bank busy at times, so that the bound
        by tRC is only neared with a long window.
        """
        t = self.times
        alone = 1.0 - t.rfb / t.refi if t.rfb else 1.0
        limits = [PICOSECONDS / t.ccd_s, alone * self.banks * PICOSECONDS / t.rc if t.rc else math.inf]
        limits += [4 * PICOSECONDS / t.faw] if t.faw else []
        limits += [PICOSECONDS / t.rrd] if t.rrd else []
        return self.channels * self.burst_bytes * min(limits) * self.awake

    @property
    def awake(self) -> float:
        """Share of the time that refresh of all banks leaves; banks refreshed one by one leave the bus to the others."""
        if self.times.rfb:
            return 1.0
        return 1.0 - self.times.rfc / self.times.refi if self.times.refi else 1.0

    def all_bank_bytes_per_s(self, internal_bytes_per_s: float) -> float:
        """Rate of multiply-accumulate bursts that all banks do in step: rows opened, read through, closed.

        A row of B bursts takes max(tRC, tRCD + B tCCD' + tRP); tCCD' is what the internal bandwidth says, which the
        power limit may have stretched (Park et al., ASPLOS 2024).
        """
        ccd = self.channels * self.banks * self.burst_bytes * PICOSECONDS / internal_bytes_per_s
        row = max(self.times.rc, self.times.rcd + self.row_bytes / self.burst_bytes * ccd + self.times.rp)
        return self.channels * self.banks * self.row_bytes * PICOSECONDS / row * self.awake

    def stream_bytes_per_s(self) -> float:
        """Rate of a long stream that is spread over channels and bank groups."""
        groups = max(1, self.banks // self.per_group)
        request = np.arange(LONG_STREAM)
        group, turn = request % groups, request // groups
        per_row = max(1, round(self.row_bytes / self.burst_bytes))
        block = turn // per_row
        return self._rate(group * self.per_group + block % self.per_group, block // self.per_group)

    def mixed_bytes_per_s(self) -> float:
        """Rate of a stream of reads and as many writes: a queue of each at a time, and the bus turned twice between.

        2 W tCCD_S / (2 W tCCD_S + tRTW + tWTR) of the stream's rate, for queues of W bursts.
        """
        work = 2 * WINDOW * self.times.ccd_s
        return self.stream_bytes_per_s() * work / (work + self.turn_ps)

    def scattered_bytes_per_s(self, seed: int = 0) -> float:
        """Rate of single bursts from random rows of random banks."""
        rng = np.random.default_rng(seed)
        return self._rate(rng.integers(0, self.banks, LONG_STREAM), rng.integers(0, 1 << 20, LONG_STREAM))

    def _rate(self, bank: Any, row: Any) -> float:
        state, done = np.zeros((self.banks, 4), np.int64), np.zeros(WINDOW, np.int64)
        took = compiled().serve_banks(
            bank.astype(np.int64), row.astype(np.int64), self.per_group, WINDOW, self.times, state, done
        )
        return float(self.channels * len(bank) * self.burst_bytes * PICOSECONDS / took)


def dram(memory: MemoryLevel) -> Dram | None:
    """The banks of a memory; None where its file lacks what they need."""
    geometry, timing = memory.geometry, memory.timing
    if geometry is None or timing is None or geometry.channels is None or geometry.banks is None:
        return None
    if geometry.burst is None or timing.t_ccd_s is None or timing.t_rcd is None or timing.t_rp is None:
        return None
    count = int(float(geometry.banks))
    groups = int(float(geometry.bank_groups)) if geometry.bank_groups else 1
    ras = _ps(timing.t_ras)
    times = BankTimes(
        rcd=_ps(timing.t_rcd),
        rp=_ps(timing.t_rp),
        ras=ras,
        rc=_ps(timing.t_rc) or ras + _ps(timing.t_rp),
        ccd_s=_ps(timing.t_ccd_s),
        ccd_l=_ps(timing.t_ccd_l) or _ps(timing.t_ccd_s),
        rrd=_ps(timing.t_rrd),
        faw=_ps(timing.t_faw),
        refi=_ps(timing.t_refi) if timing.t_rfc or timing.t_rfc_bank else 0,
        rfc=_ps(timing.t_rfc),
        rfb=_ps(timing.t_rfc_bank),
    )
    if times.ccd_s <= 0:
        raise TimelineError(memory.name, "its column commands take no time (t_ccd_s)")
    burst = float(geometry.burst)
    row = float(geometry.row) if geometry.row else burst
    turn = _ps(timing.t_rtw) + _ps(timing.t_wtr)
    channels = float(geometry.channels) * memory.parts
    return Dram(memory.name, channels, count, max(1, count // groups), row, burst, times, turn)


@lru_cache(maxsize=256)
def _stream_rate(found: Dram) -> float:
    return found.stream_bytes_per_s()


@dataclass(frozen=True, slots=True)
class Flash:
    """The channels and dies of one flash memory of one rank."""

    name: str
    channels: int
    dies: int
    planes: float
    page_bytes: float
    read_ps: int
    transfer_ps: int
    """Of the pages of all planes of a die over one channel."""
    parts: float
    """Drives that work side by side."""

    @property
    def bound_bytes_per_s(self) -> float:
        """min(channels x rate, dies x planes x page / tR): reads hide behind transfers, two registers per die."""
        unit = self.planes * self.page_bytes * PICOSECONDS
        return self.parts * min(self.channels * unit / self.transfer_ps, self.dies * unit / self.read_ps)

    def seconds(self, size: float) -> float:
        """To read `size` bytes that are spread over all drives and dies, in whole pages."""
        at_once = self.planes * self.page_bytes
        pages = math.ceil(size / self.parts / at_once)
        if pages <= LONG_FLASH:
            return _flash_ps(self, pages) / PICOSECONDS
        whole, half = _flash_ps(self, LONG_FLASH), _flash_ps(self, LONG_FLASH // 2)
        return (whole + (pages - LONG_FLASH) * (whole - half) / (LONG_FLASH - LONG_FLASH // 2)) / PICOSECONDS


@lru_cache(maxsize=4096)
def _flash_ps(flash: Flash, pages: int) -> int:
    free, bus = np.zeros((flash.dies, 2), np.int64), np.zeros(flash.channels, np.int64)
    return int(compiled().serve_dies(pages, flash.read_ps, flash.transfer_ps, free, bus))


def flash(memory: MemoryLevel, internal_bytes_per_s: float) -> Flash | None:
    """The dies of a flash memory whose channels carry `internal_bytes_per_s` together; None without their timings."""
    geometry, timing = memory.geometry, memory.timing
    if geometry is None or timing is None or timing.t_read is None or internal_bytes_per_s <= 0.0:
        return None
    if geometry.channels is None or geometry.dies is None or geometry.page is None:
        return None
    channels, planes = int(float(geometry.channels)), float(geometry.planes) if geometry.planes else 1.0
    page = float(geometry.page)
    rate = internal_bytes_per_s / memory.parts / channels
    return Flash(
        memory.name, channels, int(float(geometry.dies)), planes, page, _ps(timing.t_read),
        round(planes * page / rate * PICOSECONDS), memory.parts,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Access:
    """How one unit reads one memory by that memory's timings."""

    kind: Literal["load", "pim burst", "flash read"]
    bytes_per_s: float
    """Of a long stream."""
    flash: Flash | None = None
    least: bool = False
    """What kernels reach of this memory was measured: its timings only bound it."""

    def seconds(self, size: float) -> float:
        """To read so many bytes."""
        return self.flash.seconds(size) if self.flash else size / self.bytes_per_s


def access(memory: MemoryLevel, position: int, unit: Unit) -> Access | None:
    """By a memory's own timings; None where they are not known, or where a link is slower than the memory."""
    seen = unit.read_bytes_per_s[position]
    found = dram(memory)
    inside = unit.near == position and unit.near_inside
    if found is not None:
        if inside:
            return Access("pim burst", found.all_bank_bytes_per_s(seen))
        if found.peak_bytes_per_s >= 0.9 * memory.bytes_per_s:  # else its banks have units of their own, not one bus
            return Access("load", min(seen, _stream_rate(found)))
        return None
    drive = flash(memory, memory.bytes_per_s)
    if drive is not None and (inside or unit.part == memory.part):
        return Access("flash read", drive.bound_bytes_per_s, drive)
    return None


def _ps(value: Any) -> int:
    return round(float(value) * PICOSECONDS) if value is not None else 0


__all__ = ["Access", "Dram", "Flash", "access", "dram", "flash"]
