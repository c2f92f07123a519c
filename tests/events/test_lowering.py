"""A scenario's timeline against the closed form: equal where nothing contends, different for a stated reason elsewhere."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from simulator.cost.layout import R_TIME
from simulator.errors import ScenarioError, UnknownNameError
from simulator.events.engine import simulate
from simulator.events.layout import PICOSECONDS
from simulator.events.lower import lower
from simulator.events.policy import ANALYTIC, Policy, policy_from
from simulator.events.simulation import simulate_scenario
from simulator.events.steps import explain_difference, step_timeline
from simulator.graph.step import Slice
from simulator.predict import predictor
from simulator.scenario import Scenario

CLASSES = {
    "gpu": Scenario("llama-2-7b", "A100"),
    "gpu without graphs": Scenario("llama-2-7b", "A100", engine="hf"),
    "gpu, coupled host": Scenario("llama-2-7b", "gh200-96gb"),
    "gpus": Scenario("llama-2-70b", "dgx-a100"),
    "experts": Scenario("mixtral-8x7b", "dgx-h100"),
    "latent attention": Scenario("deepseek-v3", "dgx-h200"),
    "recurrent": Scenario("mamba-2.8b", "A100"),
    "systolic": Scenario("llama-2-7b", "tpu-v5e", devices=8),
    "dataflow": Scenario("llama-2-7b", "sn40l"),
    "cpu": Scenario("llama-2-7b", "xeon-8480"),
    "pim": Scenario("llama-2-7b", "aim-system"),
    "pim, many": Scenario("llama-2-7b", "cent-32"),
    "pim, bus": Scenario("llama-3.1-8b", "upmem-server"),
    "gpu and pim": Scenario("llama-2-7b", "gpu-aim"),
    "drive that computes": Scenario("llama-2-7b", "gpu-csd", place=(("kv", "flash"),)),
    "offload": Scenario("opt-30b", "flexgen-t4"),
    "phone": Scenario("llama-3.2-1b", "apple-a14"),
    "cluster": Scenario("llama-3.1-8b", "home-cluster-wifi"),
    "convolutions": Scenario("resnet-50", "A100"),
    "microcontroller": Scenario("mobilenet-v1-0.25-96", "stm32h743"),
}


def built(scenario: Scenario):  # type: ignore[no-untyped-def]
    """(predictor, shares) of a scenario of four short sequences, fewer where they do not fit."""
    made = predictor(scenario)
    decodes = made.resolved.model.decode
    answer = made.predict(4 if decodes else 1, 200, 16 if decodes else 1)
    return made, answer.run.turns[0].placement.shares  # type: ignore[attr-defined]


@pytest.fixture(params=sorted(CLASSES))
def scenario(request: pytest.FixtureRequest) -> Scenario:
    found = CLASSES[request.param]
    try:
        predictor(found)
    except UnknownNameError as error:
        pytest.fail(str(error))
    return found


@pytest.mark.parametrize("label", ["prefill", "decode"])
def test_agrees_with_the_closed_form(scenario: Scenario, label: str) -> None:
    made, shares = built(scenario)
    if label == "decode" and not made.resolved.model.decode:
        pytest.skip("decodes nothing")
    for sequences in (1.0, 4.0, 33.0):
        step = (Slice(sequences, 1.0, 199.0) if label == "decode" else Slice(sequences, 200.0),)
        timeline = step_timeline(made, step, shares, ANALYTIC, label=label)
        assert timeline.seconds == pytest.approx(timeline.closed_form_s, rel=0.01)


def test_each_op_takes_its_own_time(scenario: Scenario) -> None:
    """Every kind of op, one by one: from the end of the op before to its own end."""
    made, shares = built(scenario)
    step = (Slice(4.0, 1.0, 199.0),) if made.resolved.model.decode else (Slice(4.0, 200.0),)
    policy = replace(ANALYTIC)
    lowered = lower(made, step, shares, policy, decoding=True)
    schedule = simulate(lowered.net)
    made.runner.step(step, shares)
    column, seen = schedule.column("op"), set()
    for index, terms in lowered.ops.items():
        mine = np.flatnonzero((column == index) & (schedule.copy == 0))
        took = int(schedule.end[mine].max() - schedule.start[mine].min()) / PICOSECONDS
        gap = 0.0 if made.host.graph_decode else made.host.gap_s * terms.kernels
        repeat = float(terms.op.repeat)
        expected = float(made.runner.scratch.records[index][R_TIME]) / repeat + gap
        assert took == pytest.approx(expected * repeat / max(1, round(repeat)), rel=0.01, abs=1e-10)
        seen.add(terms.op.kind)
    assert seen


def test_every_kind_of_op_is_covered() -> None:
    kinds = set()
    for scenario in CLASSES.values():
        kinds |= {op.kind for op in predictor(scenario).runner.table.ops}
    assert kinds == {"gemm", "attention", "scan", "elementwise", "gather", "collective"}


def test_runs_agree_too() -> None:
    for scenario in (
        CLASSES["gpu"],
        CLASSES["pim"],
        replace(CLASSES["gpu"], batch=64, input_tokens=2048, max_context=9999),
    ):
        found = simulate_scenario(scenario, ANALYTIC)
        closed = found.prediction
        for key in ("ttft_s", "tpot_s", "e2el_s", "output_tokens_per_s", "energy_j", "power_w"):
            assert getattr(found, key) == pytest.approx(getattr(closed, key), rel=0.01), key


def test_energy_is_the_sum_of_its_parts(scenario: Scenario) -> None:
    made, shares = built(scenario)
    step = (Slice(2.0, 200.0),)
    for policy in (ANALYTIC, Policy()):
        timeline = step_timeline(made, step, shares, policy)
        ledger = timeline.ledger()
        assert timeline.energy_j == math.fsum(ledger.values())
        edges, watts = timeline.power(64)
        assert sum(float((w * np.diff(edges)).sum()) for w in watts.values()) == pytest.approx(
            timeline.energy_j, rel=1e-9
        )


def test_differences_add_up() -> None:
    for name in ("offload", "dataflow", "pim, many", "drive that computes", "gpu without graphs"):
        made, shares = built(CLASSES[name])
        for label, step in (("prefill", (Slice(4.0, 200.0),)), ("decode", (Slice(4.0, 1.0, 199.0),))):
            timeline = step_timeline(made, step, shares, Policy(), label=label)
            parts = explain_difference(made, step, shares, Policy(), label)
            assert sum(parts.values()) == pytest.approx(
                timeline.seconds - timeline.closed_form_s, abs=1e-4 * timeline.seconds
            )


def test_offloaded_weights_hide_behind_the_longer_of_link_and_work() -> None:
    """Weights in host memory: on demand their time adds up; fetched ahead, a layer takes the longer of the two."""
    made, shares = built(replace(CLASSES["offload"], place=(("weight", "ddr4"),)))
    step = (Slice(4.0, 256.0),)
    ahead = step_timeline(made, step, shares, Policy(), label="prefill")
    demand = step_timeline(made, step, shares, Policy(prefetch_layers=0.0), label="prefill")
    link = sum(use.busy_s for use in ahead.uses() if use.resource == "ddr4 to gpu")
    work = step_timeline(made, step, (made.placer.all_at_home().shares), Policy(), label="prefill").seconds
    assert ahead.seconds < demand.seconds
    assert max(link, work) * 0.999 <= ahead.seconds <= max(link, work) * 1.1
    assert demand.seconds > 0.9 * (link + work)


def test_deeper_prefetch_never_slows() -> None:
    made, shares = built(CLASSES["offload"])
    step = (Slice(16.0, 256.0),)
    times = [
        step_timeline(made, step, shares, Policy(prefetch_layers=depth), label="prefill").seconds
        for depth in (0, 1, 2, 4)
    ]
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in itertools.pairwise(times))


def test_launches_bind_small_steps() -> None:
    """Kernels issued one by one: a step cannot be shorter than the host's launches, and waits for the first."""
    made, shares = built(CLASSES["gpu without graphs"])
    slow = replace_host(made, kernel_s=50e-6)
    step = (Slice(1.0, 1.0, 63.0),)
    timeline = step_timeline(slow, step, shares, Policy(), label="decode")
    kernels = sum(terms.kernels * float(terms.op.repeat) for terms in timeline.ops.values())
    assert timeline.seconds >= kernels * 50e-6 + made.host.step_s
    assert max(timeline.waited(), key=lambda one: one.seconds).on == "host thread"


def replace_host(made, **changes: float):  # type: ignore[no-untyped-def]
    """The predictor with another host."""
    from simulator.predict import Predictor

    other = Predictor(made.resolved)
    other.host = made.host._replace(**changes)
    other.runner.host = other.host
    return other


def test_coupled_host_launches_more_slowly() -> None:
    """Eager decode at batch 1: the coupled system's host binds, the discrete one's binds less."""
    share = {}
    for name in ("gh200-96gb", "h100-sxm5-80gb"):
        found = simulate_scenario(Scenario("llama-3.2-1b", name, engine="hf", input_tokens=64, output_tokens=4)).decode
        assert found is not None
        share[name] = sum(one.share for one in found.waited() if one.on == "host thread")
    assert share["gh200-96gb"] > share["h100-sxm5-80gb"] > 0.2


def test_collectives_overlap() -> None:
    made, shares = built(CLASSES["gpus"])
    step = (Slice(4.0, 512.0),)
    plain = step_timeline(made, step, shares, Policy(), label="prefill").seconds
    overlapped = step_timeline(made, step, shares, Policy(collectives="tiles"), label="prefill").seconds
    made.runner.step(step, shares)
    links = sum(
        float(record[R_TIME])
        for op, record in zip(made.runner.table.ops, made.runner.scratch.records, strict=True)
        if op.kind == "collective"
    )
    assert plain - links <= overlapped < plain


def test_attention_in_the_drive_beats_fetching_the_cache() -> None:
    """Decode on a long cache in flash: an engine beside the dies against the path to the GPU."""
    scenario = Scenario("llama-2-7b", "gpu-csd", batch=4, input_tokens=2048, place=(("kv", "flash"),))
    inside, streamed = simulate_scenario(scenario), simulate_scenario(scenario, Policy(stream=True))
    assert inside.decode is not None
    assert streamed.decode is not None
    longest = max(inside.decode.uses(), key=lambda use: use.critical_s)
    assert longest.resource in ("flash", "csd.attention-engine")
    assert max(streamed.decode.uses(), key=lambda use: use.busy_s).resource == "flash to gpu"
    assert inside.tpot_s < streamed.tpot_s


def test_prefill_on_pim_is_slower_than_on_a_gpu() -> None:
    """No reuse across rows: 32 devices lose to one GPU where arithmetic is dense, and win where it is not."""
    gpu = simulate_scenario(
        Scenario("llama-2-7b", "A100", engine="native", batch=1, input_tokens=512, output_tokens=16)
    )
    pim = simulate_scenario(Scenario("llama-2-7b", "cent-32", batch=1, input_tokens=512, output_tokens=16))
    assert pim.ttft_s > gpu.ttft_s
    assert pim.tpot_s < gpu.tpot_s


def test_pim_time_is_linear_in_the_batch() -> None:
    """Row buffers hold one operand, so every sequence reads the weights again; filling the pipeline is paid once."""
    made, shares = built(CLASSES["pim, many"])
    times = []
    for batch in (8.0, 16.0, 32.0):
        timeline = step_timeline(made, (Slice(batch, 1.0, 199.0),), shares, Policy(), label="decode")
        times.append(sum(use.critical_s for use in timeline.uses() if use.group in ("unit", "memory")))
    assert (times[2] - times[1]) / (times[1] - times[0]) == pytest.approx(2.0, rel=0.05)
    assert (times[1] - times[0]) > 0.3 * times[1]


def test_bandwidth_never_slows() -> None:
    """The timeline keeps the closed form's laws: more of the batch never takes less time."""
    made, shares = built(CLASSES["gpu"])
    times = [
        step_timeline(made, (Slice(b, 1.0, 199.0),), shares, Policy(), label="decode").seconds
        for b in (1.0, 2.0, 8.0, 64.0)
    ]
    assert times == sorted(times)


def test_switches() -> None:
    assert policy_from(("all=analytic",)) == ANALYTIC
    assert policy_from(()) == Policy()
    with pytest.raises(UnknownNameError, match="did you mean 'memory'"):
        policy_from(("memry=event",))
    with pytest.raises(ScenarioError, match="--fidelity takes KIND=analytic or KIND=event"):
        policy_from(("host=exact",))
    with pytest.raises(ScenarioError, match="chunks must be at least 1"):
        Policy(chunks=0)


def test_same_scenario_same_timeline() -> None:
    scenario = Scenario("llama-2-7b", "sn40l", batch=3)
    first, second = simulate_scenario(scenario), simulate_scenario(scenario)
    assert first.to_dict() == second.to_dict()
