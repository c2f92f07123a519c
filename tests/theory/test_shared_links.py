"""Links that several devices share, and switches that sum what ranks send."""

from __future__ import annotations

import pytest

from simulator.cost.collective import collective_time
from simulator.cost.efficiency import find_calibration, load_engine
from simulator.cost.layout import ALL_REDUCE, OpRow
from simulator.cost.links import link_rows
from simulator.mapping.machine import load_machine
from simulator.predict import predict
from simulator.scenario import Scenario, load_model
from simulator.techniques.parallel import Parallelism, shard

SUMMING = ("h100-sxm5-80gb", "dgx-h200", "b200-sxm", "b300-sxm", "gb200", "dgx-gb200-nvl72", "dgx-gb300-nvl72")
PLAIN = OpRow(*[0.0] * len(OpRow._fields))


@pytest.mark.parametrize(("working", "share"), [(1, 1.0), (4, 1.0), (5, 0.5), (8, 0.5), (None, 0.5)])
def test_two_devices_behind_one_uplink_halve_it(working: int | None, share: float) -> None:
    """Devices at work are spread over the uplinks; what they reach is what their units read at, too."""
    machine = load_machine("dgx-a100", working)
    assert machine.joins[0].bytes_per_s == pytest.approx(25e9 * share)
    host = next(i for i, memory in enumerate(machine.memories) if memory.part == "host" and memory.kind == "main")
    assert all(unit.read_bytes_per_s[host] == pytest.approx(25e9 * share) for unit in machine.units)


def test_a_scenario_on_half_of_a_box_has_whole_uplinks() -> None:
    """Weights that are copied from the host before each prompt: eight GPUs copy an eighth each at half the rate."""
    scenario = Scenario(
        "llama-2-7b", "dgx-a100", engine="native", input_tokens=1, output_tokens=1, techniques=("expert-from-host",)
    )
    half, whole = (predict(scenario.with_(devices=devices, tp=devices)) for devices in (4, 8))
    assert half.ttft_s == pytest.approx(whole.ttft_s, rel=0.05)


@pytest.mark.parametrize("hardware", SUMMING)
def test_every_switch_that_sums_is_used(hardware: str) -> None:
    """Its share of the link is known, so that a large all-reduce takes less than its message twice; not so for an engine
    whose library leaves the sums to the ranks."""
    machine = load_machine(hardware)
    assert machine.links[0].reduces
    graph = shard(load_model("llama-2-7b").graph, Parallelism(tp=8))
    op = next(op for op in graph.ops if op.kind == "collective")
    calibration, message = find_calibration(machine), 256e6
    kind = PLAIN._replace(collective=float(ALL_REDUCE), groups=8.0)
    seconds = []
    for engine in (load_engine("vllm"), load_engine("vllm 2023")):
        (row,) = link_rows([op], machine, engine, calibration)
        seconds.append(collective_time(kind, row, message, 0.0))
    least_s = 9 / 8 * message / machine.links[0].bytes_per_s
    assert least_s < seconds[0] < 0.9 * seconds[1]
