"""Every memory with timings of its own: streams near the peak, random reads at the bound, bursts of all banks, flash."""

from __future__ import annotations

import numpy as np
import pytest

from simulator import catalog
from simulator.events.memory import Access, Dram, access, dram, flash
from simulator.mapping.machine import Machine, load_machine

MACHINES = [load_machine(str(path)) for path in catalog.files("hardware")]
DEVICES = [machine for machine in MACHINES if not machine.is_system]
DRAMS = [(machine.name, found) for machine in DEVICES for memory in machine.memories if (found := dram(memory))]
SHARED_BUS = [(m.name, memory, found) for m in DEVICES for memory in m.memories if (found := dram(memory))
              and found.peak_bytes_per_s > 0.5 * memory.bytes_per_s]  # fmt: skip
FLASHES = [(m.name, memory) for m in DEVICES for memory in m.memories if flash(memory, memory.bytes_per_s)]
STREAMED = {  # GB/s written in one stream, and read and written in equal parts: RRZE-HPC gpu-benches 1c36d50, gpu-stream
    "v100-sxm2-32gb": (895, 814), "a100-sxm4-40gb": (1503, 1381), "a100-sxm4-80gb": (1892, 1759),
    "h100-pcie-80gb": (2018, 1704), "mi210": (1539, 1399), "a40": (679, 659), "l40": (846, 777), "rx-6900-xt": (503, 456),
}  # fmt: skip
REFRESH_ALONE_TAKES_A_TENTH = {"hbm3-pim-attacc"}


@pytest.mark.parametrize(("name", "memory", "found"), SHARED_BUS, ids=[name for name, _, _ in SHARED_BUS])
def test_streams_near_the_datasheet(name: str, memory: object, found: Dram) -> None:
    rate = found.stream_bytes_per_s()
    listed = getattr(memory, "bytes_per_s")  # noqa: B009
    if name in REFRESH_ALONE_TAKES_A_TENTH:
        assert 0.85 < found.awake < 0.9
        assert rate / listed > 0.98 * found.awake
    else:
        assert rate / listed >= 0.9
    assert rate <= found.peak_bytes_per_s * found.awake * 1.01


@pytest.mark.parametrize(("name", "found"), DRAMS, ids=[name for name, _ in DRAMS])
def test_random_reads_meet_the_bound(name: str, found: Dram) -> None:
    """One burst per row: banks / tRC and 4 / tFAW. Banks in turn reach it; banks at random wait for one another."""
    count = 20_000
    request, groups = np.arange(count), found.banks // found.per_group
    turn = request % groups * found.per_group + request // groups % found.per_group
    in_turn = found._rate(turn, np.arange(count))
    assert in_turn == pytest.approx(found.random_bytes_per_s, rel=0.12)
    scattered = found.scattered_bytes_per_s()
    assert 0.65 * found.random_bytes_per_s < scattered <= 1.01 * found.random_bytes_per_s
    assert scattered <= found.stream_bytes_per_s() * 1.01


@pytest.mark.parametrize("name", ["gddr6-aim", "hbm-pim", "hbm3-pim-attacc"])
def test_all_bank_bursts(name: str) -> None:
    """Rows opened, read through and closed: below the internal bandwidth, several times the external one."""
    machine = load_machine(name)
    position = next(i for i, memory in enumerate(machine.memories) if dram(memory))
    unit = next(unit for unit in machine.units if unit.near_inside)
    found, by = dram(machine.memories[position]), access(machine.memories[position], position, unit)
    assert isinstance(by, Access)
    assert found is not None
    assert by.kind == "pim burst"
    internal = unit.read_bytes_per_s[position]
    ccd = found.channels * found.banks * found.burst_bytes / internal
    row = found.times.rcd * 1e-12 + found.row_bytes / found.burst_bytes * ccd + found.times.rp * 1e-12
    row = max(row, found.times.rc * 1e-12)
    assert by.bytes_per_s == pytest.approx(found.channels * found.banks * found.row_bytes / row * found.awake, rel=1e-6)
    assert machine.memories[position].bytes_per_s < by.bytes_per_s < internal


@pytest.mark.parametrize(("name", "memory"), FLASHES, ids=[name for name, _ in FLASHES])
def test_flash_reaches_its_bound(name: str, memory: object) -> None:
    """min(channels x rate, dies x planes x page / tR) for many pages; tR and one transfer for one."""
    found = flash(memory, getattr(memory, "bytes_per_s"))  # type: ignore[arg-type]  # noqa: B009
    assert found is not None
    assert 1e9 / found.seconds(1e9) == pytest.approx(found.bound_bytes_per_s, rel=0.02)
    one = found.seconds(1.0)
    assert one == pytest.approx((found.read_ps + found.transfer_ps) * 1e-12, rel=1e-9)


def test_few_dies_hide_nothing() -> None:
    """With one die per channel the array is the bottleneck once tR exceeds the transfer."""
    from dataclasses import replace

    memory = next(memory for memory in load_machine("instinfer-csd").memories if memory.kind == "storage")
    found = flash(memory, memory.bytes_per_s)
    assert found is not None
    few = replace(found, dies=found.channels)
    assert few.read_ps > few.transfer_ps
    assert 1e8 / few.seconds(1e8) == pytest.approx(few.bound_bytes_per_s, rel=0.02)
    assert few.bound_bytes_per_s < found.bound_bytes_per_s


def test_devices_without_timings_have_none() -> None:
    machine: Machine = load_machine("m40-24gb")
    assert all(dram(memory) is None and flash(memory, 1e9) is None for memory in machine.memories)


@pytest.mark.parametrize(("name", "streamed"), list(STREAMED.items()), ids=list(STREAMED))
def test_streams_of_gpus_as_measured(name: str, streamed: tuple[int, int]) -> None:
    """Banks bound what kernels reach: by at most 8% in one direction, and turning the bus explains most of the rest."""
    memory = next(memory for memory in load_machine(name).memories if dram(memory))
    found = dram(memory)
    assert found is not None
    one, both = (1e9 * rate for rate in streamed)
    assert 0.92 < one / found.stream_bytes_per_s() <= 1.01
    assert found.mixed_bytes_per_s() < 0.97 * found.stream_bytes_per_s()
    assert both / found.mixed_bytes_per_s() == pytest.approx(1.0, abs=0.12)


def test_banks_refreshed_one_by_one_leave_the_bus_to_the_others() -> None:
    from dataclasses import replace

    single = next(found for memory in load_machine("A100").memories if (found := dram(memory)))
    at_once = replace(single, times=single.times._replace(rfb=0, rfc=350_000))
    never = replace(single, times=single.times._replace(refi=0))
    assert single.stream_bytes_per_s() > 0.99 * never.stream_bytes_per_s()
    assert at_once.stream_bytes_per_s() == pytest.approx(at_once.awake * never.stream_bytes_per_s(), rel=0.01)
    assert at_once.awake < 0.92
    assert single.scattered_bytes_per_s() < never.scattered_bytes_per_s()
    assert single.scattered_bytes_per_s() > at_once.scattered_bytes_per_s()


def test_what_was_measured_is_bounded_by_the_banks_and_not_replaced() -> None:
    """On a calibrated device an op takes what the closed form says, unless its banks cannot follow."""
    from simulator.events.policy import ANALYTIC, Policy
    from simulator.events.simulation import simulate_scenario
    from simulator.scenario import Scenario

    scenario = Scenario("llama-2-7b", "A100", input_tokens=512, output_tokens=2)
    plain = simulate_scenario(scenario, ANALYTIC, explain=False)
    banks = simulate_scenario(scenario, Policy().only("memory"), explain=False)
    assert 1.0 - 1e-9 <= banks.tpot_s / plain.tpot_s < 1.01
