"""States and addresses: what one writes the other reads, and nothing that an address says breaks anything."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboards.state import FIELDS, LONGEST, VERSION, State, changed, parse, query, value_of
from simulator.scenario import Scenario

works = st.builds(
    Scenario,
    model=st.sampled_from(["llama-3.1-8b", "gpt2", "resnet-50"]),
    hardware=st.sampled_from(["t4", "h100-sxm5-80gb", "dgx-h100"]),
    batch=st.integers(1, 10**6),
    input_tokens=st.integers(1, 10**6),
    output_tokens=st.integers(1, 10**6),
    engine=st.sampled_from([None, "vllm", "ideal"]),
    tp=st.sampled_from([None, 1, 8]),
    weight_dtype=st.sampled_from([None, "int4"]),
    techniques=st.sampled_from([(), ("kv-fp8",), ("kv-fp8", "weight-int4")]),
    place=st.sampled_from([(), (("kv", "flash"),)]),
    power_cap_w=st.one_of(st.none(), st.floats(1.0, 1e5).map(lambda watts: float(f"{watts:.6g}"))),
)
states = st.builds(
    State,
    work=works,
    pinned=st.one_of(st.none(), works),
    hardware=st.sampled_from([(), ("t4",), ("t4", "l4")]),
    variants=st.sampled_from([(), ("none", "kv-fp8+weight-int4")]),
    sort=st.sampled_from(["ttft_s", "power_w"]),
    step=st.sampled_from(["prefill", "decode"]),
    prefetch_layers=st.sampled_from([0.0, 1.0, 2.5]),
)


@given(states)
@settings(max_examples=60, deadline=None)
def test_a_link_reproduces_the_state(state: State) -> None:
    found, notices = parse("?" + query(state))
    assert notices == ()
    assert found == state


def test_a_link_does_not_depend_on_the_default_work() -> None:
    for key in ("model=", "hw=", "batch=", "in=", "out="):
        assert key in query(State())


@pytest.mark.parametrize("version", ["2", "0", "abc", ""])
def test_another_version_is_named_and_the_default_shown(version: str) -> None:
    state, notices = parse(f"?v={version}&model=gpt2")
    assert state == State()
    assert len(notices) == 1
    assert f"version {VERSION}" in notices[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batch=many", "whole number"),
        ("batch=0", "from 1"),
        ("batch=nan", "whole number"),
        ("batch=1e400", "whole number"),
        ("cap=-3", "from 1"),
        ("model=gtp2", "not known (near:"),
        ("hw=%00", "not known"),
        ("step=both", "not one of"),
        ("place=kv", "ROLE=MEMORY"),
        ("with=" + ",".join(["t4"] * 40), "32 are the most"),
        ("colour=red", "'colour' is not known"),
        ("b.sort=ttft_s", "not known"),
        ("model=upload:0123456789abcdef", "upload it again"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, said: str) -> None:
    state, notices = parse(f"v=1&{text}")
    assert state == State()
    assert any(said in notice for notice in notices), notices


def test_a_broken_baseline_is_left_out() -> None:
    state, notices = parse("v=1&b.model=gpt2&b.hw=t4&b.batch=x")
    assert state.pinned is None
    assert "baseline is left out" in notices[0]
    state, notices = parse("v=1&b.batch=4")
    assert state.pinned is None
    assert "no model or hardware" in notices[0]


@pytest.mark.parametrize("key", ["model", "hw", "tech", "engine", "with", "variants", "plan"])
@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../../etc/hosts.yaml", "./pyproject.yaml", "workloads/models/gpt2.yaml"]
)
def test_no_address_names_a_file(key: str, name: str) -> None:
    state, notices = parse(f"v=1&{key}={name}")
    assert notices
    assert value_of(state, key) == value_of(State(), key)


def test_a_long_link_is_not_read() -> None:
    state, notices = parse("v=1&model=" + "a" * LONGEST)
    assert state == State()
    assert "characters" in notices[0]


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_text_breaks_the_parser(text: str) -> None:
    parse(text)
    parse("v=1&" + text)


def test_controls_change_the_state_and_buttons_pin_it() -> None:
    state, notices = changed(State(), {"batch": "32", "tech": "kv-fp8,weight-int4", "with": "", "engine": ""}, "pin")
    assert notices == ()
    assert (state.work.batch, state.work.techniques, state.hardware) == (32, ("kv-fp8", "weight-int4"), ())
    assert state.pinned == state.work
    assert parse(query(state)) == (state, ())
    assert changed(state, {}, "unpin")[0].pinned is None
    emptied, notices = changed(state, {"tech": "", "batch": ""})
    assert (emptied.work.techniques, emptied.work.batch) == ((), 32)
    assert "batch is empty" in notices[0]


def test_every_key_reads_what_a_default_writes() -> None:
    for key in FIELDS:
        state, notices = changed(State(), {key: ""})
        assert value_of(state, key) in (value_of(State(), key), (), None), (key, notices)
