"""What is found out about a machine, from trees of /proc and /sys made for the purpose; sampling with clocks made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from validation.microbench import processor
from validation.microbench.device import EventClock, TorchDevice
from validation.microbench.power import Nvml, Power, Rapl, at_rest, mean_watts
from validation.microbench.processor import MeasurementError, chain, check, processor_rates, working_sets
from validation.microbench.sampling import Effort, Sample, ThreadClock, WallClock, sample, summary, waiting_s
from validation.microbench.system import Cache, Cpu, Gpu, cpu_quota, find_cpu

SMT = """processor\t: {0}
vendor_id\t: GenuineTest
model name\t: Test CPU @ 2.00GHz
physical id\t: {1}
core id\t: {2}
flags\t: fpu avx2 avx512_bf16
"""


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two sockets of two cores with two threads each."""
    blocks = [SMT.format(i, i // 4, (i // 2) % 2) for i in range(8)]
    write(tmp_path, "proc/cpuinfo", "\n".join(blocks))
    write(tmp_path, "proc/meminfo", "MemTotal:       16777216 kB\n")
    write(tmp_path, "proc/self/cgroup", "0::/job/inner\n")
    for i in range(8):
        cache = f"sys/devices/system/cpu/cpu{i}/cache"
        pair = i // 2 * 2
        for index, (level, kind, size, shared) in enumerate(
            (("1", "Data", "48K", f"{pair}-{pair + 1}"), ("1", "Instruction", "32K", f"{pair}-{pair + 1}"),
             ("3", "Unified", "32M", f"{i // 4 * 4}-{i // 4 * 4 + 3}"))
        ):  # fmt: skip
            for name, text in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)):
                write(tmp_path, f"{cache}/index{index}/{name}", text + "\n")
    return tmp_path


def test_a_machine_without_limits(tree: Path) -> None:
    cpu = find_cpu(tree, range(8))
    assert (cpu.cores, cpu.installed, cpu.sockets) == (4, 8, 2)
    assert cpu.caches == (Cache(1, 48 * 1024, 4), Cache(3, 32 * 1024**2, 2))
    assert cpu.memory_bytes == 16 * 1024**3
    assert cpu.last_cache_bytes == 64 * 1024**2
    assert "avx512_bf16" in cpu.flags


def test_affinity_limits_cores_and_caches(tree: Path) -> None:
    cpu = find_cpu(tree, [0, 1, 2])
    assert cpu.cores == 2
    assert cpu.caches == (Cache(1, 48 * 1024, 2), Cache(3, 32 * 1024**2, 1))


def test_the_least_quota_of_all_groups_counts(tree: Path) -> None:
    assert cpu_quota(tree) is None
    write(tree, "sys/fs/cgroup/job/inner/cpu.max", "max 100000\n")
    write(tree, "sys/fs/cgroup/job/cpu.max", "250000 100000\n")
    assert cpu_quota(tree) == 2.5
    assert find_cpu(tree, range(8)).cores == 2
    write(tree, "sys/fs/cgroup/job/inner/cpu.max", "50000 100000\n")
    assert find_cpu(tree, range(8)).cores == 1


def test_old_groups_and_memory_limits_count_too(tree: Path) -> None:
    write(tree, "proc/self/cgroup", "3:cpu,cpuacct:/box\n4:memory:/box\n")
    write(tree, "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "300000\n")
    write(tree, "sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n")
    write(tree, "sys/fs/cgroup/memory/box/memory.limit_in_bytes", str(2 * 1024**3))
    cpu = find_cpu(tree, range(8))
    assert cpu.cores == 3
    assert cpu.memory_bytes == 2 * 1024**3


def test_an_unknown_system_is_described_without_guesses(tmp_path: Path) -> None:
    cpu = find_cpu(tmp_path, [0])
    assert cpu.cores == 1
    assert cpu.caches == ()
    assert cpu.max_hz is None
    assert cpu.flags == frozenset()


class Script:
    """A clock that says what it is told to."""

    def __init__(self, *readings: tuple[float, bool]) -> None:
        self.readings = list(readings)

    def time(self, run: Callable[[int], object], first: int, count: int) -> tuple[float, bool]:
        for position in range(first, first + count):
            run(position)
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]


def test_disturbed_repeats_do_not_count() -> None:
    clock = Script((1.0, False), (1.0, False), (50.0, True), (1.1, False), (60.0, True), (1.2, False), (1.3, False))
    taken = sample(lambda _: None, clock, Effort(3, 10.0, 10.0, 2))
    assert (taken.seconds, taken.repeats, taken.disturbed) == (1.2, 3, 2)
    assert not taken.noisy


def test_runs_are_numbered_so_that_operands_rotate() -> None:
    seen: list[int] = []
    sample(seen.append, Script((1.0, False)), Effort(3, 10.0, 10.0, 2))
    assert seen == list(range(5))


def test_a_sample_that_was_never_undisturbed_says_so() -> None:
    clock = Script((1.0, True), (1.0, True), (4.0, True), (8.0, True), (9.0, True))
    taken = sample(lambda _: None, clock, Effort(5, 0.0, 0.0, 1))
    assert taken.noisy
    assert taken.disturbed == 3
    assert summary([], [1.0, 5.0, 9.0]).dispersion > 1.0


def test_clocks_measure_something() -> None:
    for clock in (WallClock(), ThreadClock()):
        seconds, _ = clock.time(lambda _: sum(range(20_000)), 0, 3)
        assert seconds > 0.0


def test_time_spent_waiting_is_that_of_all_threads(tmp_path: Path) -> None:
    write(tmp_path, "7/schedstat", "100 2000000000 3\n")
    write(tmp_path, "8/schedstat", "100 500000000 3\n")
    assert waiting_s(tmp_path) == pytest.approx(2.5)
    write(tmp_path, "9/schedstat", "\n")
    assert waiting_s(tmp_path) is None
    assert waiting_s(tmp_path / "none") is None


def test_events_time_each_run_after_a_flush() -> None:
    order: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            order.append("event")

        def elapsed_time(self, other: Any) -> float:
            return 2.0

    torch = SimpleNamespace(cuda=SimpleNamespace(Event=Event, synchronize=lambda: order.append("wait")))
    clock = EventClock(torch, lambda: order.append("flush"))
    seconds, disturbed = clock.time(lambda i: order.append(f"run {i}"), 4, 2)
    assert order == ["flush", "event", "run 4", "event", "flush", "event", "run 5", "event", "wait"]
    assert (seconds, disturbed) == (2e-3, False)


def test_formats_of_gpus_follow_their_capability() -> None:
    cuda = SimpleNamespace(cuda=SimpleNamespace(set_device=lambda index: None))

    def formats(major: int, minor: int) -> tuple[str, ...]:
        return TorchDevice.on_gpu(cuda, Gpu(1, "g", 80, 80e9, 40e6, (major, minor))).formats

    assert formats(7, 0) == ("fp32", "fp16")
    assert formats(8, 0) == ("fp32", "fp16", "bf16", "int8")
    assert "fp8" in formats(9, 0)
    device = TorchDevice.on_gpu(cuda, Gpu(1, "g", 80, 80e9, 40e6, (9, 0)))
    assert device.is_gpu
    assert device.name == "cuda:1"
    assert device.cold_bytes >= 160e6


def test_energy_counters_wrap(tmp_path: Path) -> None:
    for zone, energy in (("intel-rapl:0", "900"), ("intel-rapl:1", "100"), ("intel-rapl:0:0", "7")):
        write(tmp_path, f"{zone}/energy_uj", energy)
        write(tmp_path, f"{zone}/max_energy_range_uj", "1000")
        write(tmp_path, f"{zone}/constraint_0_power_limit_uw", "65000000")
    meter = Rapl(tmp_path)
    assert meter.joules() == pytest.approx(1000e-6)
    write(tmp_path, "intel-rapl:0/energy_uj", "50")
    assert meter.joules() == pytest.approx((1000 + 50 + 100) * 1e-6)
    assert meter.limit_w() == pytest.approx(130.0)
    assert Rapl(tmp_path / "none").joules() is None


def test_power_is_the_mean_of_a_counter_or_the_median_of_readings() -> None:
    joules = iter([10.0, 16.0])
    counter = SimpleNamespace(name="c", joules=lambda: next(joules), watts=lambda: None, limit_w=lambda: 300.0)
    assert mean_watts(counter, lambda: None, 0.02) > 0.0  # type: ignore[operator]

    class Trouble(Exception):
        pass

    def refuse(handle: Any) -> float:
        raise Trouble

    library = SimpleNamespace(
        NVMLError=Trouble, nvmlInit=lambda: None, nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetHandleByUUID=None,
        nvmlDeviceGetTotalEnergyConsumption=refuse, nvmlDeviceGetPowerUsage=lambda handle: 250_000,
        nvmlDeviceGetEnforcedPowerLimit=lambda handle: 700_000,
    )  # fmt: skip
    assert at_rest(Nvml(library, Gpu(0, "g", 80, 80e9, 40e6, (9, 0))), 0.2) == Power("NVML", 250.0, 700.0)


def test_a_chain_visits_every_line_once() -> None:
    following = chain(50, np.random.default_rng(0))
    at, seen = 0, set()
    for _ in range(50):
        seen.add(at)
        at = int(following[at])
    assert at == 0
    assert len(seen) == 50
    assert all(line % 8 == 0 for line in seen)


def test_wrong_results_stop_a_measurement() -> None:
    check("sum", 1.0 + 1e-12, 1.0, 1e-9)
    with pytest.raises(MeasurementError, match=r"sum: the result differs from the reference by 0\.1"):
        check("sum", 1.1, 1.0, 1e-9)
    with pytest.raises(MeasurementError):
        check("not a number", float("nan"), 1.0, 1e-9)


def test_a_broken_loop_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from validation.microbench import loops

    monkeypatch.setattr(loops, "stream_add", loops.stream_copy)
    with pytest.raises(MeasurementError, match="stream add"):
        processor.streams(find_cpu(), 1, True, Effort(1, 0.0, 0.0, 1))


def test_every_rate_is_positive_and_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = find_cpu()
    rates = [rate for _, group in processor_rates(cpu, (1, 2), True) for rate in group]
    assert {rate.name for rate in rates} >= {"fma_fp32", "fma_fp64", "stream_triad", "read", "latency"}
    assert all(rate.value > 0.0 for rate in rates)
    assert {rate.unit for rate in rates if rate.name == "latency"} == {"s"}
    assert {rate.threads for rate in rates if rate.name == "read"} == {1, 2}


def test_working_sets_reach_beyond_the_last_cache() -> None:
    cpu = Cpu("c", "v", 4, 4, 1, frozenset(), (Cache(3, 100e6, 2),), 64e9)
    sizes = working_sets(cpu, False)
    assert sizes == sorted(sizes)
    assert sizes[-1] > 0.6 * 4 * 200e6
    assert max(working_sets(cpu, True)) <= 1024 * 1024


def test_a_sample_keeps_its_fastest_repeat() -> None:
    assert summary([3.0, 2.0, 4.0], [9.0]) == Sample(3.0, 2.0 / 3.0, 3, 1, 2.0)
