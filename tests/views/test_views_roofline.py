"""The roofline's data, and that the figure shows them: no pixels are looked at."""

from __future__ import annotations

import pytest

import simulator as sim
from simulator.result import Prediction
from simulator.views.labels import FULL, Axes, Labels
from simulator.views.roofline import points, ridge_points, roofline_figure, roofline_json, roofs, undrawn

SCENARIOS = {
    "gpu": sim.Scenario(model="llama-3.1-8b", hardware="A100"),
    "tensor parallel": sim.Scenario(model="llama-3.1-8b", hardware="dgx-h100", tp=4, dp=2, batch=32),
    "pim": sim.Scenario(model="llama-3.1-8b", hardware="aim-system"),
    "quantized": sim.Scenario(model="llama-3.1-8b", hardware="raspberry-pi-5", techniques=("weight-int4",)),
    "convolutions": sim.Scenario(model="resnet-50", hardware="A100", batch=8),
}


@pytest.fixture(scope="module", params=SCENARIOS, ids=lambda name: name.replace(" ", "-"))
def prediction(request: pytest.FixtureRequest) -> Prediction:
    found: Prediction = sim.predict(SCENARIOS[request.param])
    return found


def test_every_op_is_drawn_or_named(prediction: Prediction) -> None:
    drawn = {(point.phase, point.op) for point in points(prediction)}
    missing = {(op.phase, op.op) for op in undrawn(prediction)}
    every = {(op.phase, op.op) for op in prediction.ops()}
    assert drawn - {p for p in drawn if p[1].startswith("whole ")} == every - missing
    assert all(op.flops == 0 or not op.memory_s for op in undrawn(prediction) if op.kind != "collective")


def test_no_point_is_above_the_roofs(prediction: Prediction) -> None:
    limits = roofs(prediction)
    for point in points(prediction):
        if point.block == "exchange":
            continue
        peak = max(roof.per_s for roof in limits if roof.kind == "compute" and point.unit in roof.units)
        levels = [
            roof.per_s for roof in limits
            if roof.name.split(" to ")[0] == point.level and point.unit in roof.units and roof.kind != "compute"
        ]  # fmt: skip
        assert point.flop_per_s <= peak * 1.001
        assert point.flop_per_s <= max(levels) * point.flop_per_byte * 1.001


def test_figure_shows_the_data(prediction: Prediction) -> None:
    figure = roofline_figure(prediction)
    assert (figure.layout.width, figure.layout.height) == (FULL.width, FULL.height)
    assert FULL.width <= 1280
    assert FULL.height <= 800
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert [trace.name for trace in lines] == [roof.label for roof in roofs(prediction)]
    shown = [trace for trace in figure.data if trace.mode == "markers" and ": " in trace.name]
    low = 10 ** figure.layout.yaxis.range[0]
    expected = {(p.flop_per_byte, p.flop_per_s) for p in points(prediction) if p.flop_per_s > low}
    assert {pair for trace in shown for pair in zip(trace.x, trace.y, strict=True)} == expected
    assert prediction.provenance["hardware"] in figure.layout.title.text


def test_hover_explains_all_terms(prediction: Prediction) -> None:
    texts = [text for trace in roofline_figure(prediction).data for text in trace.hovertext or ()]
    drawn = points(prediction)
    assert all(any(point.terms in text for text in texts) for point in drawn)


def test_json_holds_the_same_points(prediction: Prediction) -> None:
    found = roofline_json(prediction)
    assert len(found["points"]) == len(points(prediction))
    assert len(found["roofs"]) == len(roofs(prediction))


def test_roofs_of_a_gpu() -> None:
    limits = {(roof.kind, roof.name): roof.per_s for roof in roofs(sim.predict(SCENARIOS["gpu"]))}
    machine = sim.load_machine("A100")
    assert limits["memory", "hbm"] == next(m.bytes_per_s for m in machine.memories if m.name == "hbm")
    assert limits["cache", "l2"] == next(m.bytes_per_s for m in machine.memories if m.name == "l2")
    assert limits["compute", "tensor bf16"] == 312e12
    assert ("link", "nvlink") not in limits


def test_ridge_point_of_a_gpu() -> None:
    ridges = {roof.name: (top.name, ridge) for roof, top, ridge in ridge_points(roofs(sim.predict(SCENARIOS["gpu"])))}
    name, ridge = ridges["hbm"]
    assert name == "tensor bf16"
    assert ridge == pytest.approx(312e12 / 2.039e12, rel=0.01)


def test_bf16_weights_of_one_sequence_have_an_intensity_of_one() -> None:
    found = {(p.phase, p.op): p for p in points(sim.predict(SCENARIOS["gpu"]))}
    assert found["decode", "gate_up_proj"].level == "hbm"
    assert found["decode", "gate_up_proj"].flop_per_byte == pytest.approx(1.0, rel=0.01)


def test_links_have_a_roof_where_they_are_used() -> None:
    prediction = sim.predict(SCENARIOS["tensor parallel"])
    (link,) = [roof for roof in roofs(prediction) if roof.kind == "link"]
    assert link.per_s == sim.load_machine("dgx-h100").links[0].bytes_per_s
    assert {p.phase for p in points(prediction) if p.block == "exchange"} == {"prefill", "decode"}


def test_a_memory_has_a_roof_per_way_to_it() -> None:
    limits = [roof for roof in roofs(sim.predict(SCENARIOS["pim"])) if roof.kind == "memory"]
    assert len(limits) == 2
    inside, outside = limits
    assert inside.name.split(" to ")[0] == outside.name.split(" to ")[0]
    assert inside.per_s > outside.per_s


def test_labels_keep_apart() -> None:
    labels = Labels(Axes((0.0, 4.0), (9.0, 15.0)))
    assert labels.claim(10, 10, 100, 16)
    assert not labels.claim(50, 20, 100, 16)
    assert labels.claim(50, 40, 100, 16)
    assert not labels.claim(-5, 80, 10, 10)
    labels.cross(0, 100, 200, 100)
    assert not labels.claim(20, 95, 50, 16, over_lines=False)
    assert labels.claim(20, 95, 50, 16)
