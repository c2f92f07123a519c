"""The links of a graph's collectives as the rows of numbers that the cost arithmetic reads.

Bandwidth and latency of the wire, how far collectives get on it, and how long ranks wait for one another.
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.cost.efficiency import Engine
from simulator.cost.layout import LinkRow
from simulator.graph.op import Op
from simulator.mapping.machine import Interconnect, Machine
from simulator.spec.engine import Calibration


def link_rows(ops: Sequence[Op], machine: Machine, engine: Engine, calibration: Calibration) -> list[LinkRow]:
    """The link of each op, with the calibrated share and latency; meaningful for collectives."""
    return [_link_row(op, machine, engine, calibration) for op in ops]


def _link_efficiency(op: Op, engine: Engine, calibration: Calibration) -> tuple[float, float]:
    """Share of the bandwidth and least latency: of kernels made for all-reduce, or of the library that does the rest."""
    if engine.ideal:
        return 1.0, 0.0
    library = calibration.library
    if library and op.collective in ("all_gather", "reduce_scatter", "all_to_all"):
        return library.bandwidth.value, library.latency.value
    return calibration.link_bandwidth.value, calibration.link_latency.value if calibration.link_latency else 0.0


def _in_switch(link: Interconnect, engine: Engine, calibration: Calibration) -> tuple[float, float]:
    """Rate and latency of all-reduces that the switch sums; zeros where it does not, or where nothing was measured."""
    if not (link.reduces and engine.sums_in_switch):
        return 0.0, 0.0
    if engine.ideal:
        return link.bytes_per_s, 0.0
    found = calibration.in_switch
    return (link.bytes_per_s * found.bandwidth.value, found.latency.value) if found else (0.0, 0.0)


def _link_row(op: Op, machine: Machine, engine: Engine, calibration: Calibration) -> LinkRow:
    if op.kind != "collective":
        return LinkRow(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    share, latency_s = _link_efficiency(op, engine, calibration)
    link = machine.interconnect(op.groups) or Interconnect("none", 0.0, 0.0, 0.0, "switch", 1.0)
    switch_bytes_per_s, switch_latency_s = _in_switch(link, engine, calibration)
    return LinkRow(
        bytes_per_s=link.bytes_per_s * share,
        latency_s=max(link.latency_s, latency_s) + engine.collective_wait_s,
        half_bandwidth_bytes=0.0 if engine.ideal else link.half_bandwidth_bytes,
        joules_per_byte=link.joules_per_byte,
        one_shot=1.0 if (engine.one_shot or engine.ideal) and link.topology in ("switch", "mesh") else 0.0,
        ring=1.0 if link.topology in ("ring", "bus") else 0.0,
        switch_bytes_per_s=switch_bytes_per_s,
        switch_latency_s=switch_latency_s + (engine.collective_wait_s if switch_bytes_per_s else 0.0),
    )
