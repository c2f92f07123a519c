"""Techniques in the timeline: copies, exchanges beside work, drafts, turns of models; and policies of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.cost.layout import R_TIME
from simulator.errors import ScenarioError
from simulator.events.engine import simulate
from simulator.events.layout import PICOSECONDS
from simulator.events.policy import ANALYTIC, Policy
from simulator.events.simulation import Simulation, simulate_scenario
from simulator.events.speculation import seconds_per_token, speculation_net
from simulator.events.steps import step_timeline
from simulator.events.transfers import Hop, Transfer
from simulator.graph.step import Slice
from simulator.mapping.machine import load_machine
from simulator.predict import predictor
from simulator.scenario import Scenario

WITH = {
    "experts on demand": Scenario("mixtral-8x7b", "server-a100", techniques=("experts-on-host:resident=0",)),
    "experts ahead": Scenario("mixtral-8x7b", "server-a100", techniques=("pre-gated-moe",)),
    "weights streamed": Scenario("llama-2-7b", "server-a100", techniques=("superpipeline",)),
    "half of them": Scenario("llama-2-7b", "server-a100", techniques=("superpipeline-half",)),
    "partly hidden": Scenario("llama-3-70b", "pc-rtx-4090", techniques=("weight-int4", "prima-cpp")),
    "cache on the host": Scenario("llama-2-7b", "server-a100", batch=8, techniques=("cache-on-host",)),
    "neurons on the host": Scenario("opt-30b", "powerinfer-pc", engine="native", techniques=("powerinfer",)),
    "exchanges hidden": Scenario("llama-2-70b", "dgx-h100", techniques=("energonai",)),
    "chunks ride": Scenario("llama-2-7b", "A100", batch=4, techniques=("sarathi",)),
    "samples": Scenario("llama-2-7b", "A100", techniques=("large-language-monkeys",)),
    "models take turns": Scenario("llama-2-7b", "sn40l-8", techniques=("expert-from-ddr",)),
}


@pytest.mark.parametrize("name", sorted(WITH))
def test_agrees_with_the_closed_form(name: str) -> None:
    """With every mechanism off, a technique's run is the closed form's within 1%."""
    found = simulate_scenario(WITH[name], ANALYTIC, explain=False)
    for key in ("ttft_s", "tpot_s", "e2el_s", "output_tokens_per_s"):
        assert getattr(found, key) == pytest.approx(getattr(found.prediction, key), rel=0.01), key


def run(scenario: Scenario, **policy: object) -> Simulation:
    return simulate_scenario(scenario, Policy(**policy), explain=False)  # type: ignore[arg-type]


def test_copies_ahead_hide_and_on_demand_do_not() -> None:
    """Streamed weights take the longer of link and work; without prefetching both."""
    scenario = Scenario(
        "llama-2-7b", "server-a100", batch=32, input_tokens=256, output_tokens=1, techniques=("superpipeline",)
    )
    ahead, demand = run(scenario).prefill, run(scenario, prefetch_layers=0.0).prefill
    link = next(use.busy_s for use in ahead.uses() if use.resource == "ddr4 to gpu")
    work = ahead.closed_form_s  # of the ops: the closed form of a step hides the shorter of the two
    assert ahead.seconds == pytest.approx(max(link, work), rel=0.05)
    assert demand.seconds > ahead.seconds + 0.5 * min(link, demand.seconds - link)


def test_neurons_on_the_host_run_beside_those_on_the_device() -> None:
    """Both halves of an op at once: no longer than the closed form, which takes one after the other."""
    found = run(WITH["neurons on the host"])
    assert found.tpot_s < 0.99 * found.prediction.tpot_s
    assert found.decode is not None
    host = [one for one in found.decode.waited() if one.on in ("dram", "host.p-cores")]
    assert any(one.busy.get("gddr", 0.0) > 0.05 for one in host)


def test_exchanges_beside_work() -> None:
    """Tiles, blocks and halves: each between the longer of links and work, and their sum."""
    made = predictor(Scenario("llama-2-70b", "dgx-a100"))
    shares = made.predict(4, 512, 2).run.turns[0].placement.shares  # type: ignore[attr-defined]
    step = (Slice(4.0, 512.0),)
    plain = step_timeline(made, step, shares, Policy(), label="prefill").seconds
    made.runner.step(step, shares)
    pairs = zip(made.runner.table.ops, made.runner.scratch.records, strict=True)
    links = sum(float(record[R_TIME]) for op, record in pairs if op.kind == "collective")
    seconds = {
        how: step_timeline(made, step, shares, Policy(collectives=how), label="prefill").seconds  # type: ignore[arg-type]
        for how in ("after", "tiles", "blocks", "halves")
    }
    assert seconds["after"] == plain
    for how in ("tiles", "blocks", "halves"):
        assert plain - links < seconds[how] < plain, how
    # A block that does not wait hides the exchange whole; its end alone shows.
    assert seconds["blocks"] == pytest.approx(max(links, plain - links), rel=0.03)


def test_a_technique_says_what_exchanges_run_beside() -> None:
    plain = Scenario("llama-2-70b", "dgx-h100", batch=4, output_tokens=1)
    for technique in ("ladder-residual", "tokenweave", "t3-track-trigger"):
        assert run(plain.with_(techniques=(technique,))).ttft_s < run(plain).ttft_s
    overruled = run(plain.with_(techniques=("ladder-residual",)), collectives="after")
    assert overruled.ttft_s == pytest.approx(run(plain).ttft_s, rel=1e-6)


def test_through_the_host_takes_two_links() -> None:
    """What a drive holds passes the host's memory, on two links in pieces; never faster than directly."""
    scenario = Scenario("llama-2-7b", "gpu-csd", batch=4, input_tokens=2048, output_tokens=4, place=(("kv", "flash"),))
    direct, around = run(scenario, stream=True), run(scenario, stream=True, through_host=True)
    assert direct.decode is not None
    assert around.decode is not None
    links = {use.resource for use in around.decode.uses() if use.group == "link"}
    assert {"flash to dram", "dram.ddr4 to gpu"} <= links
    assert "flash to gpu" not in links
    assert around.tpot_s >= direct.tpot_s * 0.999
    assert around.tpot_s < 1.5 * direct.tpot_s, "pieces overlap on the two links"


def test_links_have_two_rates() -> None:
    """Stores go back at the rate of the way back."""
    machine = load_machine("flexgen-t4")
    unit = machine.units[0]
    host = next(m for m, memory in enumerate(machine.memories) if memory.name == "ddr4")
    assert unit.read_bytes_per_s[host] == pytest.approx(12.89e9)
    assert unit.writes(host) == pytest.approx(0.97e9)
    scenario = Scenario("opt-6.7b", "flexgen-t4", batch=4, output_tokens=2, place=(("kv", "ddr4"),))
    prefill = run(scenario, stream=True).prefill
    stored = next(use.busy_s for use in prefill.uses() if use.resource == "gpu to ddr4")
    made = predictor(scenario)
    assert stored == pytest.approx(4 * made.cache.bytes_of(512) / 0.97e9, rel=0.02)


def test_only_some_units() -> None:
    scenario = Scenario("llama-3.2-1b", "apple-m1-max", output_tokens=8)
    assert run(scenario, units="cpu").tpot_s > 0.0
    assert {use.group for use in run(scenario, units="cpu").prefill.uses()} >= {"unit"}
    names = {use.resource for use in run(scenario, units="cpu").prefill.uses() if use.group == "unit"}
    assert names == {"cpu-p"}
    with pytest.raises(ScenarioError, match=r"no unit 'npu' that may compute; it has"):
        run(scenario, units="npu")


@pytest.mark.parametrize("acceptance", [0.0, 0.5, 0.8, 1.0])
def test_drafts_in_turns(acceptance: float) -> None:
    """(k d + c) per (1 - a^(k+1)) / (1 - a) tokens (Leviathan et al.)."""
    tokens, draft_s, check_s = 4, 1e-3, 9e-3
    found, _ = seconds_per_token(draft_s, check_s, tokens, acceptance)
    gained = tokens + 1 if acceptance == 1.0 else (1 - acceptance ** (tokens + 1)) / (1 - acceptance)
    assert found == pytest.approx((tokens * draft_s + check_s) / gained, rel=0.02)


@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.8, 0.95])
@pytest.mark.parametrize("draft_s", [0.5e-3, 3e-3, 20e-3])
def test_drafts_beside_checks_never_lose(acceptance: float, draft_s: float) -> None:
    """Never slower than one check per token, nor than drafting and checking in turns (arXiv 2405.14105, theorems 1, 2)."""
    check_s = 10e-3
    beside, _ = seconds_per_token(draft_s, check_s, 5, acceptance, servers=7)
    turns, _ = seconds_per_token(draft_s, check_s, 5, acceptance)
    assert beside <= turns * 1.001
    if draft_s <= check_s:
        assert beside <= check_s * 1.001


def test_bad_drafts() -> None:
    with pytest.raises(ScenarioError, match="acceptance from 0 to 1"):
        speculation_net(1e-3, 1e-2, 4, 1.5)


def test_speculation_reaches_the_run() -> None:
    plain = Scenario("llama-2-13b", "A100", engine="hf", techniques=("speculative-plain",))
    beside = plain.with_(techniques=("distributed-speculative-inference",))
    slow, fast = run(plain), run(beside)
    assert fast.tpot_s < slow.tpot_s
    assert slow.tpot_s == pytest.approx(slow.prediction.tpot_s, rel=0.03)
    assert fast.further[0].label == "drafts and checks"


def test_transfer_shares() -> None:
    whole = Transfer((Hop("a", 2.0), Hop("b", 1.0)), 100.0, 4.0)
    assert whole.share(0.25) == Transfer((Hop("a", 0.5), Hop("b", 0.25)), 25.0, 1.0)


def test_energy_of_copies_is_counted() -> None:
    """The ledger of a step with copies is its energy, and copies draw what the closed form says."""
    scenario = replace(WITH["weights streamed"], output_tokens=2)
    made = predictor(scenario)
    shares = made.predict(1, 64, 2).run.turns[0].placement.shares  # type: ignore[attr-defined]
    step = (Slice(1.0, 64.0),)
    timeline = step_timeline(made, step, shares, Policy(), label="prefill")
    copied = sum(terms.copy_j * float(terms.op.repeat) for terms in timeline.ops.values())
    assert copied > 0.0
    assert timeline.ledger()["ddr4 to gpu"] == pytest.approx(copied, rel=1e-6)


def test_pieces_of_a_store_end_with_the_step() -> None:
    """Nothing waits for stores, but the step is not over before they are."""
    scenario = Scenario("opt-6.7b", "flexgen-t4", batch=4, output_tokens=2, place=(("kv", "ddr4"),))
    prefill = run(scenario, stream=True).prefill
    assert prefill.seconds >= max(use.busy_s for use in prefill.uses())
    assert int(prefill.schedule.end.max()) / PICOSECONDS == prefill.seconds
    assert simulate(prefill.schedule.net).seconds == prefill.seconds


def test_recomputing_keys_against_fetching_them() -> None:
    """Half of the cache from hidden states: fewer bytes on the link, more work on the device; all of it may be too much."""
    scenario = Scenario(
        "llama-2-7b", "server-a100", batch=16, input_tokens=2048, output_tokens=2, techniques=("cache-on-host",)
    )
    times = [run(scenario, recompute_cache=share).tpot_s for share in (0.0, 0.5, 1.0)]
    assert times[1] < times[0]
    decode = run(scenario, recompute_cache=0.5).decode
    assert decode is not None
    assert any("recompute" in name for section in decode.schedule.net.sections for name in section.name)
    plain = run(scenario).decode
    assert plain is not None
    link = [next(use.busy_s for use in step.uses() if use.resource == "ddr4 to gpu") for step in (plain, decode)]
    assert link[1] == pytest.approx(0.75 * link[0], rel=1e-3), "hidden states are half of keys and values"
    with pytest.raises(ScenarioError, match="recompute_cache from 0 to 1"):
        Policy(recompute_cache=2.0)


def test_patches_on_a_microcontroller() -> None:
    """One patch at a time: less SRAM for activations, more work at the borders and more reads of weights from flash."""
    plain = Scenario("mobilenet-v2", "stm32h743", input_tokens=1, output_tokens=1)
    whole, patches = run(plain), run(plain.with_(techniques=("mcunetv2",)))
    assert patches.prediction.activation_bytes < 0.3 * whole.prediction.activation_bytes
    assert 1.02 < patches.ttft_s / whole.ttft_s < 1.4
    assert len(patches.prefill.schedule) > len(whole.prefill.schedule)
    closed = simulate_scenario(plain.with_(techniques=("mcunetv2",)), ANALYTIC, explain=False)
    assert closed.ttft_s == pytest.approx(closed.prediction.ttft_s, rel=0.01)
