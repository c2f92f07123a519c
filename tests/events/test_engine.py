"""The event loop against closed forms: what it must compute whatever it is used for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import TimelineError
from simulator.events.engine import Schedule, simulate
from simulator.events.layout import PICOSECONDS
from simulator.events.repeat import simulate_repeated
from simulator.events.tasks import Net, Resource
from simulator.events.timeline import Timeline


def cores(net: Net, slots: int) -> int:
    return net.resource(Resource("cores", "unit", slots=slots))


def test_amdahl() -> None:
    """T(n) = serial + parallel / n."""
    for number in (1, 2, 8, 64):
        net = Net()
        unit = cores(net, number)
        serial = net.task("serial", unit, 1e-3)
        for piece in range(64):
            net.task(f"piece {piece}", unit, 1e-3, after=[serial])
        assert simulate(net).seconds == pytest.approx(1e-3 + 64e-3 / number, rel=1e-12)


@given(stages=st.integers(1, 6), items=st.integers(1, 12), micro=st.integers(1, 1000))
@settings(max_examples=40, deadline=None)
def test_pipeline_fills_and_drains(stages: int, items: int, micro: int) -> None:
    """p stages of equal length and m items: (m + p - 1) t."""
    net = Net()
    where = [net.resource(Resource(f"stage {s}", "unit")) for s in range(stages)]
    for _ in range(items):
        before: list[int] = []
        for stage in where:
            before = [net.task("item", stage, micro * 1e-6, after=before)]
    assert simulate(net).seconds == pytest.approx((items + stages - 1) * micro * 1e-6, rel=1e-12)


@given(times=st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_double_buffering(times: list[tuple[int, int]]) -> None:
    """load(0) + sum of max(load(i + 1), compute(i)), with room for one load besides the one in use."""
    net = Net()
    bus, unit = net.resource(Resource("bus", "link")), net.resource(Resource("unit", "unit"))
    room = net.buffer("two tiles", 2)
    computes: list[int] = []
    for load, compute in times:
        # The load of i + 1 starts with the computation of i, as a loop with a barrier does.
        arrived = net.task("load", bus, load * 1e-6, kind="load", takes=(room, 1), after=computes[-2:-1])
        computes.append(net.task("compute", unit, compute * 1e-6, after=[arrived, *computes[-1:]], gives=(room, 1)))
    expected = times[0][0] + sum(max(load, compute) for (load, _), (_, compute) in zip(times[1:], times, strict=False))
    assert simulate(net).seconds * 1e6 <= expected + times[-1][1] + 1e-6
    assert simulate(net).seconds * 1e6 >= max(sum(load for load, _ in times), sum(c for _, c in times)) - 1e-6


def test_double_buffering_with_equal_tiles() -> None:
    """load + (n - 1) max(load, compute) + compute."""
    for load, compute in ((3, 5), (5, 3), (4, 4)):
        net = Net()
        bus, unit = net.resource(Resource("bus", "link")), net.resource(Resource("unit", "unit"))
        room = net.buffer("two tiles", 2)
        for _ in range(10):
            arrived = net.task("load", bus, load * 1e-6, kind="load", takes=(room, 1))
            net.task("compute", unit, compute * 1e-6, after=[arrived], gives=(room, 1))
        assert simulate(net).seconds * 1e6 == pytest.approx(load + 9 * max(load, compute) + compute)


def test_back_pressure_of_one_tile() -> None:
    """Room for one tile only: nothing overlaps."""
    net = Net()
    bus, unit = net.resource(Resource("bus", "link")), net.resource(Resource("unit", "unit"))
    room = net.buffer("one tile", 1)
    for _ in range(10):
        arrived = net.task("load", bus, 3e-6, kind="load", takes=(room, 1))
        net.task("compute", unit, 5e-6, after=[arrived], gives=(room, 1))
    assert simulate(net).seconds * 1e6 == pytest.approx(80)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_queue_of_a_link(load: float) -> None:
    """M/D/1: mean wait rho s / (2 (1 - rho))."""
    rng = np.random.default_rng(1)
    arrivals = np.cumsum(rng.exponential(1e-6 / load, 60_000))
    net = Net()
    clock = net.resource(Resource("clock", "wait", "delay"))
    link = net.resource(Resource("link", "link"))
    for at in arrivals:
        net.task("send", link, 1e-6, kind="exchange", after=[net.task("arrive", clock, float(at), kind="wait")])
    schedule = simulate(net)
    sent = schedule.column("resource") == link
    waited = float((schedule.start - schedule.ready)[sent].mean()) / PICOSECONDS
    assert waited == pytest.approx(load * 1e-6 / (2 * (1 - load)), rel=0.06)


def test_shared_link_divides_evenly() -> None:
    """Processor sharing: two transfers of 3 and 1 us end after 4 and 2 us."""
    net = Net()
    link = net.resource(Resource("link", "link", "shared"))
    net.task("long", link, 3e-6, kind="exchange")
    net.task("short", link, 1e-6, kind="exchange")
    assert (simulate(net).end / 1e6).tolist() == [4.0, 2.0]


@given(sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_shared_link_conserves_work(sizes: list[int]) -> None:
    net = Net()
    link = net.resource(Resource("link", "link", "shared"))
    for size in sizes:
        net.task("send", link, size * 1e-6, kind="exchange")
    assert simulate(net).seconds == pytest.approx(sum(sizes) * 1e-6, rel=1e-9)


@pytest.mark.parametrize("tiles", [1, 107, 108, 109, 216, 217, 512])
def test_wave_quantization(tiles: int) -> None:
    """Tiles on 108 cores take ceil(tiles / 108) waves: 100% of the rate at 108, 50.5% at 109, 94.8% at 512."""
    net = Net()
    unit = cores(net, 108)
    for tile in range(tiles):
        net.task(f"tile {tile}", unit, 1e-6)
    schedule = simulate(net)
    assert schedule.seconds == pytest.approx(math.ceil(tiles / 108) * 1e-6, rel=1e-12)
    efficiency = tiles * 1e-6 / 108 / schedule.seconds
    known = {108: 1.0, 109: 0.505, 512: 0.948}
    if tiles in known:
        assert efficiency == pytest.approx(known[tiles], abs=5e-4)


def test_banks_in_parallel() -> None:
    """Requests to B banks behind one bus: the banks' rate until the bus is full. Speed-up min(B, (miss + bus) / bus)."""
    miss, transfer, requests = 40, 4, 480
    alone = 0.0
    for number in (1, 2, 4, 8, 16, 32):
        net = Net()
        banks = [net.resource(Resource(f"bank {b}", "memory")) for b in range(number)]
        bus = net.resource(Resource("bus", "memory"))
        room = [net.buffer(f"row {b}", 1) for b in range(number)]
        for request in range(requests):
            b = request % number
            opened = net.task("activate", banks[b], miss * 1e-9, kind="load", takes=(room[b], 1))
            net.task("read", bus, transfer * 1e-9, kind="load", after=[opened], gives=(room[b], 1))
        seconds = simulate(net).seconds
        alone = alone or seconds
        assert alone / seconds == pytest.approx(min(number, (miss + transfer) / transfer), rel=0.12)


def test_urgent_tasks_go_first() -> None:
    net = Net()
    unit = net.resource(Resource("unit", "unit"))
    net.task("first", unit, 1e-6)
    net.task("late", unit, 1e-6, priority=1)
    net.task("urgent", unit, 1e-6, priority=0)
    assert [int(at) for at in simulate(net).start // 10**6] == [0, 2, 1]


def test_ties_go_by_number() -> None:
    net = Net()
    unit = net.resource(Resource("unit", "unit"))
    for number in range(50):
        net.task(f"{number}", unit, 1e-6)
    assert simulate(net).start.tolist() == sorted(simulate(net).start.tolist())


def test_wide_tasks_wait_for_their_slots() -> None:
    net = Net()
    unit = cores(net, 4)
    net.task("narrow", unit, 2e-6, width=1)
    net.task("wide", unit, 1e-6, width=4)
    net.task("behind", unit, 1e-6, width=1)
    assert [int(at) for at in simulate(net).start // 10**6] == [0, 2, 3]


@st.composite
def nets(draw: st.DrawFn) -> Net:
    """Sections that repeat, with loads that run ahead, on all kinds of resource."""
    net = Net()
    kinds = [draw(st.sampled_from(["slots", "slots", "delay", "shared"])) for _ in range(3)]
    units = [
        net.resource(Resource(f"r{i}", "unit", kind, slots=draw(st.integers(1, 3)))) for i, kind in enumerate(kinds)
    ]
    room = net.buffer("room", draw(st.integers(1, 4)))
    ahead, user = net.resource(Resource("ahead", "link")), net.resource(Resource("user", "unit"))
    for _ in range(draw(st.integers(1, 3))):
        section = net.section(draw(st.sampled_from([1, 5, 9, 23])))
        tasks: list[int] = []
        for number in range(draw(st.integers(1, 6))):
            unit = draw(st.sampled_from(units))
            after = [task for task in tasks if draw(st.booleans())]
            task = net.task(
                f"t{number}", unit, draw(st.integers(0, 9)) * 1e-6, after=after, priority=draw(st.integers(0, 1)),
                joules=draw(st.integers(0, 3)) * 1.0,
            )  # fmt: skip
            if not after:
                section.enter("ops", task)
            tasks.append(task)
        section.leave("ops", tasks)
        if draw(st.booleans()):
            load = net.task("load", ahead, draw(st.integers(1, 9)) * 1e-6, kind="load", takes=(room, 1), priority=1)
            use = net.task("use", user, draw(st.integers(1, 9)) * 1e-6, after=[load, tasks[-1]], gives=(room, 1))
            section.enter("loads", load)
            section.leave("loads", [load])
            section.leave("ops", [*tasks, use])
    return net


def same(a: Schedule, b: Schedule) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("start", "end", "section", "copy"))


@given(net=nets())
@settings(max_examples=150, deadline=None)
def test_repeated_layers_are_exact(net: Net) -> None:
    full, fast = simulate(net), simulate_repeated(net)
    assert same(full, fast)
    caused = fast.cause >= 0
    assert np.array_equal(fast.end[fast.cause[caused]], fast.start[caused])


def test_repeated_layers_are_skipped() -> None:
    net = Net()
    bus, unit = net.resource(Resource("bus", "memory")), net.resource(Resource("unit", "unit"))
    section = net.section(1000)
    load = net.task("load", bus, 3e-6, kind="load")
    section.enter("ops", load)
    section.leave("ops", [net.task("compute", unit, 2e-6, after=[load])])
    full, fast = simulate(net), simulate_repeated(net)
    assert same(full, fast)
    assert fast.events < 50 < full.events


@given(net=nets())
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost(net: Net) -> None:
    """Work, order and slots are conserved; the critical path has no gaps; energy is the sum of its parts."""
    schedule = simulate(net)
    duration = schedule.column("duration_ps")
    resource = schedule.column("resource")
    for position, one in enumerate(net.resources):
        mine = resource == position
        length = (schedule.end - schedule.start)[mine]
        if one.service != "shared":
            assert np.array_equal(length, duration[mine])
        else:
            assert (length >= duration[mine]).all()
        if one.service == "slots":
            moments = np.concatenate([schedule.start[mine], schedule.end[mine]])
            change = np.concatenate([np.ones(mine.sum()), -np.ones(mine.sum())])
            order = np.lexsort((change, moments))
            assert np.cumsum(change[order]).max(initial=0) <= one.slots
    assert (schedule.start >= schedule.ready).all()
    timeline = Timeline("step", schedule, {}, 7.0, 7.0, 0.0, 1.0)
    path = timeline.critical_path
    assert schedule.start[path[0]] == 0
    assert all(schedule.end[a] == schedule.start[b] for a, b in itertools.pairwise(path))
    if timeline.seconds > 0.0:
        edges, watts = timeline.power(50)
        whole = sum(float((values * np.diff(edges)).sum()) for values in watts.values())
        assert whole == pytest.approx(timeline.energy_j, rel=1e-9)
        assert timeline.energy_j == math.fsum(timeline.ledger().values())
        assert math.fsum(timeline.joules.tolist()) + 7.0 * timeline.seconds == pytest.approx(
            timeline.energy_j, rel=1e-12
        )


def test_same_net_same_schedule() -> None:
    rng = np.random.default_rng(0)
    net = Net()
    unit, link = cores(net, 3), net.resource(Resource("link", "link", "shared"))
    for number in range(300):
        after = [int(before) for before in rng.integers(0, number, 2)] if number > 2 else []
        net.task("task", unit if number % 3 else link, float(rng.integers(1, 5)) * 1e-6, after=after)
    assert same(simulate(net), simulate(net))


def test_cycle_names_its_tasks() -> None:
    net = Net()
    unit = net.resource(Resource("unit", "unit"))
    first = net.task("first", unit, 1e-6)
    second = net.task("second", unit, 1e-6, after=[first])
    net.sections[0].edges.append((second, first))
    with pytest.raises(TimelineError, match=r"waits for itself: .*first.*second|waits for itself: .*second.*first"):
        simulate(net)


def test_unknown_resource() -> None:
    net = Net()
    net.resource(Resource("hbm", "memory"))
    with pytest.raises(TimelineError, match=r"task 'load weights': there is no resource 'flash'; there are hbm"):
        net.find("flash", "load weights")
    with pytest.raises(TimelineError, match=r"task 'load': there is no resource 3"):
        net.task("load", 3, 1e-6)


def test_buffer_smaller_than_a_tile() -> None:
    net = Net()
    bus = net.resource(Resource("bus", "link"))
    small = net.buffer("scratchpad", 1024)
    with pytest.raises(
        TimelineError, match=r"task 'load tile': moves 4096 bytes at once, and buffer 'scratchpad' holds"
    ):
        net.task("load tile", bus, 1e-6, takes=(small, 4096))


def test_no_bandwidth() -> None:
    net = Net()
    bus = net.resource(Resource("wire", "link", bytes_per_s=0.0))
    with pytest.raises(TimelineError, match=r"task 'send': wire has no bandwidth"):
        net.task("send", bus, bytes=1e6)
    with pytest.raises(TimelineError, match=r"task 'send': lasts inf s"):
        net.task("send", bus, math.inf)


def test_room_that_nobody_frees() -> None:
    net = Net()
    bus = net.resource(Resource("bus", "link"))
    room = net.buffer("room", 1)
    net.task("first", bus, 1e-6, takes=(room, 1))
    net.task("second", bus, 1e-6, takes=(room, 1))
    with pytest.raises(TimelineError, match=r"task 'second': waits for room in buffer 'room'"):
        simulate(net)


def test_too_wide() -> None:
    net = Net()
    with pytest.raises(TimelineError, match=r"needs 5 slots at once of cores, which has 4"):
        net.task("wide", cores(net, 4), 1e-6, width=5)


def test_too_long() -> None:
    net = Net()
    unit = net.resource(Resource("unit", "unit"))
    net.section(100)
    net.task("short", unit, 1.0)
    net.task("endless", unit, 86400.0)
    with pytest.raises(TimelineError, match=r"task 'endless': it and its like take longer than 53 days"):
        simulate(net)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda net: net.task("send", 0, bytes=-1.0), r"task 'send': moves -1.0 bytes over wire"),
        (lambda net: net.task("send", 1, bytes=1.0), r"task 'send': bare has no bandwidth \(none is given\)"),
        (lambda net: net.task("send", 0, takes=(0, math.nan)), r"task 'send': moves nan bytes in buffer 'room'"),
        (lambda net: net.buffer("hole", -1), r"task 'hole': a buffer's capacity must be finite and not below zero"),
        (lambda net: net.section(-1, "layers"), r"task 'layers': cannot be repeated -1 times"),
        (lambda net: net.section().enter("loads", 4), r"task 'loads 4': the section has no such task; it has 0"),
        (lambda net: net.section().leave("loads", [4]), r"task 'loads 4': the section has no such task"),
        (lambda net: net.resource(Resource("x", "link", "fifo")), r"task 'x': serves as one of slots, shared, delay"),
    ],
)
def test_what_makes_no_sense_is_named(build: Callable[[Net], object], message: str) -> None:
    net = Net()
    net.resource(Resource("wire", "link", bytes_per_s=1e9))
    net.resource(Resource("bare", "link"))
    net.buffer("room", 10)
    with pytest.raises(TimelineError, match=message):
        build(net)
