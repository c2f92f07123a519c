"""The links of a graph's collectives as the rows of numbers that the cost arithmetic reads.

Bandwidth and latency of the wire, how far collectives get on it, and how long ranks wait for one another.
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.cost.efficiency import Engine, own_efficiency
from simulator.cost.layout import LinkRow
from simulator.graph.op import Op
from simulator.mapping.machine import Interconnect, Machine
from simulator.spec.calibration import Calibration


def link_rows(ops: Sequence[Op], machine: Machine, engine: Engine, calibration: Calibration) -> list[LinkRow]:
    """The link of each op, with the calibrated shares and latencies; meaningful for collectives."""
    return [_link_row(op, machine, engine, calibration) for op in ops]


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
        return LinkRow(*[0.0] * len(LinkRow._fields))
    link = machine.interconnect(op.groups) or Interconnect("none", 0.0, 0.0, 0.0, "switch", 1.0)
    direct = link.topology in ("switch", "mesh")
    switch_bytes_per_s, switch_latency_s = _in_switch(link, engine, calibration)
    row = LinkRow(
        bytes_per_s=link.bytes_per_s,
        latency_s=link.latency_s,
        half_bandwidth_bytes=0.0 if engine.ideal else link.half_bandwidth_bytes,
        joules_per_byte=link.joules_per_byte,
        one_shot=1.0 if (engine.one_shot or engine.ideal) and direct else 0.0,
        ring=1.0 if link.topology in ("ring", "bus") else 0.0,
        wait_s=engine.collective_wait_s,
        large_bytes=engine.large_message_bytes,
        large_share=engine.large_message_share,
        switch_bytes_per_s=switch_bytes_per_s,
        switch_latency_s=switch_latency_s,
    )
    if engine.ideal:
        return row
    least_s = calibration.link_latency.value if calibration.link_latency else 0.0
    row = row._replace(
        bytes_per_s=link.bytes_per_s * calibration.link_bandwidth.value,
        latency_s=max(link.latency_s, least_s),
    )
    own = own_efficiency(engine, calibration).all_reduce or calibration.all_reduce
    if own and op.collective == "all_reduce":
        row = row._replace(
            bytes_per_s=link.bytes_per_s * own.bandwidth.value,
            latency_s=_latency(link, machine, own.latency.value),
            rank_s=own.rank.value,
            direct_bytes_per_s=link.bytes_per_s * own.direct.value,
            second_s=own.second.value,
        )
    library = calibration.library
    if library and op.collective != "send":
        row = row._replace(
            library_bytes_per_s=link.bytes_per_s * library.bandwidth.value,
            library_latency_s=_latency(link, machine, library.latency.value),
            hop_s=library.hop.value,
            quick_bytes_per_s=link.bytes_per_s * library.quick.value,
            slow_s=library.slow.value,
        )
    return row


def _latency(link: Interconnect, machine: Machine, measured_s: float) -> float:
    """The latency measured between two devices, or that of the link where more ranks than those need a slower one."""
    nearest = machine.interconnect(2)
    return measured_s if nearest is None or link.latency_s <= nearest.latency_s else max(link.latency_s, measured_s)
