"""Attention whose scores lie in memory: how often they cross it, and where they do not."""

from __future__ import annotations

import pytest

from simulator.cost.chains import with_scores
from simulator.cost.efficiency import load_engine
from simulator.graph.step import Slice
from simulator.scenario import load_model
from simulator.techniques.attention import unfused

STEP = (Slice.prefill(2, 512),)


@pytest.mark.parametrize(("model", "layers", "heads"), [("bert-large", 24, 16), ("gpt2-large", 36, 20)])
def test_eight_crossings_of_every_score(model: str, layers: int, heads: int) -> None:
    graph = load_model(model).graph
    extra = with_scores(graph, load_engine("hf-2023")).bytes_at(STEP) - graph.bytes_at(STEP)
    # a causal mask cuts the diagonal too: 512 x 513 / 2 pairs, computed twice over
    pairs = 2 * 512 * (512 if model == "bert-large" else 513)
    element = next(op.tensors[0].bytes_per_element for op in graph.ops if op.kind == "attention")
    assert extra == pytest.approx(8 * layers * heads * pairs * element)


def test_current_releases_and_networks_without_attention_keep_their_graph() -> None:
    graph = load_model("gpt2-large").graph
    assert with_scores(graph, load_engine("hf")) is graph
    convolutions = load_model("resnet-50").graph
    assert with_scores(convolutions, load_engine("hf-2023")) is convolutions


def test_scores_that_a_technique_writes_are_not_written_again() -> None:
    written = unfused(load_model("gpt2-large").graph, passes=6.0)
    assert with_scores(written, load_engine("hf-2023")) is written
