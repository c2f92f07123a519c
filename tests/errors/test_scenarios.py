"""A scenario that cannot be is refused before anything is computed, with what can."""

from __future__ import annotations

from typing import Any

import pytest

from simulator import errors
from simulator.errors import (
    CapacityError,
    GraphError,
    ScenarioError,
    SimulatorError,
    SpecError,
    UnknownNameError,
    UnsupportedError,
)
from simulator.graph.op import Graph, Op, Tensor, verify
from simulator.graph.step import Amount
from simulator.predict import predict

from .files import DEVICE, TECHNIQUE, Library, spoilt

EIGHT = "llama-3.1-8b"


def refused(kind: type[SimulatorError], *said: str, **named: Any) -> SimulatorError:
    scenario = {"model": EIGHT, "hardware": "a100-sxm4-80gb", **named}
    with pytest.raises(kind) as caught:
        predict(**scenario)
    for part in said:
        assert part in str(caught.value), f"{part!r} is not in {caught.value}"
    return caught.value


def test_a_misspelt_device() -> None:
    error = refused(UnknownNameError, "unknown hardware 'A1000'", "did you mean", "a100", "`ridgeline list hardware`",
                    hardware="A1000")  # fmt: skip
    assert isinstance(error, UnknownNameError)
    assert error.close_matches


def test_a_misspelt_model() -> None:
    refused(
        UnknownNameError,
        "unknown model 'lama-3.1-8b'",
        "'llama-3.1-8b'",
        "`ridgeline list models`",
        model="lama-3.1-8b",
    )


def test_a_misspelt_engine() -> None:
    refused(UnknownNameError, "unknown engine 'vlm'", "'vllm'", "`ridgeline list engines`", engine="vlm")


def test_a_misspelt_technique() -> None:
    refused(UnknownNameError, "unknown technique 'wieght-int4'", "'weight-int4'", techniques=("wieght-int4",))


@pytest.mark.parametrize("field", ["weight_dtype", "kv_dtype", "activation_dtype"])
def test_an_unknown_dtype(field: str) -> None:
    refused(UnknownNameError, "unknown dtype 'fp88'", "'fp8'", **{field: "fp88"})


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"batch": 0}, ["batch must be at least 1, got 0"]),
        ({"batch": -3}, ["batch must be at least 1, got -3"]),
        ({"input_tokens": 0}, ["input must be at least 1, got 0"]),
        ({"output_tokens": 0}, ["output must be at least 1, got 0"]),
        ({"input_tokens": 131072, "output_tokens": 1}, ["131073 tokens of context are beyond the 131072", EIGHT]),
        ({"tp": 3}, ["tp=3 does not divide the 32 query and 8 KV heads", "it can be 1, 2, 4, 8, 16 or 32"]),
        ({"tp": 0}, ["tp must be at least 1, got 0"]),
        ({"pp": 0}, ["pp must be at least 1, got 0"]),
        ({"dp": 0, "hardware": "dgx-a100"}, ["dp must be at least 1, got 0"]),
        ({"ep": 0}, ["ep must be at least 1, got 0"]),
        ({"pp": 64, "tp": 1}, ["pp=64 is more than the 32 layers"]),
        ({"ep": 2, "tp": 2}, ["ep=2", "has no routed experts", "leave ep at 1"]),
        ({"model": "mixtral-8x7b", "ep": 3, "tp": 1, "dp": 3}, ["ep=3 does not divide the 8 experts"]),
        ({"model": "mixtral-8x7b", "ep": 4, "tp": 2}, ["ep=4 must divide tp x dp = 2"]),
        ({"devices": 4, "tp": 2, "pp": 1}, ["tp x pp x dp = 2 x 1 x 1 = 2 is not the 4 devices"]),
        ({"devices": 4, "pp": 3}, ["is not the 4 devices"]),
        ({"devices": -1}, ["devices"]),
        ({"hardware": "dgx-a100", "devices": 16}, ["16 devices are asked for", "dgx-a100 has 8"]),
        ({"hardware": "dgx-a100", "pp": 9}, ["9 devices are asked for", "dgx-a100 has 8"]),
        ({"hardware": "nvme-pcie4"}, ["nvme-pcie4 computes nothing by itself", "part of a system"]),
        ({"images": 1}, ["takes no images", "leave --images at 0"]),
        ({"images": -1}, ["images must be at least 0"]),
        ({"place": (("kv", "flsh"),)}, ["kv cannot be placed in 'flsh'", "it can be in hbm"]),
        ({"place": (("logits", "hbm"),)}, ["place takes weight=MEMORY or kv=MEMORY, not 'logits'"]),
        ({"hardware": "gpu-nvme", "engine": "vllm", "place": (("weight", "flash"),)}, ["weight cannot be placed in"]),
    ],
)  # fmt: skip
def test_what_cannot_be(named: dict[str, Any], said: list[str]) -> None:
    refused(ScenarioError, *said, **named)


def technique(library: Library, *changes: tuple[str, str]) -> SpecError:
    library.write("workloads/techniques/narrow.yaml", spoilt(TECHNIQUE, *changes))
    with pytest.raises(SpecError) as caught:
        predict(model="toy", hardware="box", techniques=("narrow",))
    assert all(problem.line == 5 and problem.column > 0 for problem in caught.value.problems), str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("quantization.weights", "quantization.wieghts", ["unknown primitive", "'quantization.weights'"]),
        ("group: 128", "groop: 128", ["quantization.weights has no argument 'groop'", "did you mean 'group'?"]),
        ("$bits", "$bitz", ["'$bitz' is not in `parameters`", "did you mean '$bits'?"]),
        ("$bits", "int44", ["unknown dtype 'int44'", "'int4'"]),
        ("group: 128", "group: some", ["narrow.yaml:5:"]),
    ],
)  # fmt: skip
def test_a_spoilt_technique(library: Library, old: str, new: str, said: list[str]) -> None:
    error = technique(library, (old, new))
    for part in ("narrow.yaml:5:", *said):
        assert part in str(error)


def test_an_argument_that_a_primitive_needs(library: Library) -> None:
    assert "dtype" in str(technique(library, ("dtype: $bits, ", "")))


def test_a_device_that_cannot_run_an_op(library: Library) -> None:
    library.device(
        ("  - name: lanes\n    kind: vector\n    count: 16\n    peak: {bf16: 10 TFLOP/s, fp32: 10 TFLOP/s}\n", "")
    )
    refused(UnsupportedError, "box", "is not supported; use '", model="toy", hardware="box")


def test_what_does_not_fit_says_so_and_what_would() -> None:
    answer = predict(model="llama-3.1-70b", hardware="rtx-4090", engine="vllm", batch=1, input_tokens=64)
    assert not answer.fits
    assert answer.advice
    assert "short" in answer.advice
    with pytest.raises(CapacityError) as caught:
        answer.require_fit()
    assert "needs 1" in str(caught.value)
    assert "largest: weights" in str(caught.value)
    assert caught.value.need_bytes == answer.memory_bytes
    assert caught.value.largest[0][0] == "weights"


def test_what_fits_passes() -> None:
    answer = predict(model=EIGHT, hardware="a100-sxm4-80gb", input_tokens=64)
    assert answer.require_fit() is answer
    assert answer.advice is None


@pytest.mark.parametrize(
    ("op", "said"),
    [
        (Op("bad", "gemm", (), n=0, k=4), "a GEMM needs n and k"),
        (Op("bad", "attention", ()), "attention needs heads"),
        (Op("bad", "collective", ()), "a collective needs its kind and its axis"),
        (Op("bad", "elementwise", (), flops=Amount(tokens=-1.0)), "negative FLOPs"),
        (Op("bad", "elementwise", (), repeat=-1), "must be positive"),
        (Op("bad", "elementwise", (Tensor("w", "weight", "bf17"),)), "unknown dtype 'bf17'"),
        (Op("bad", "elementwise", (Tensor("w", "weight", "bf16", read=Amount(const=-1.0)),)), "negative count"),
    ],
)
def test_a_graph_that_does_not_hold_together(op: Op, said: str) -> None:
    with pytest.raises(GraphError) as caught:
        verify(Graph("example", (op,)), "some.pass")
    assert str(caught.value).startswith("op 'bad' after some.pass: ")
    assert said in str(caught.value)
    assert (caught.value.op, caught.value.stage) == ("bad", "some.pass")


def test_every_error_of_the_tree_is_a_simulator_error() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) >= 9
    assert all(issubclass(kind, SimulatorError) for kind in kinds)
    assert all(kind.__doc__ for kind in kinds)


def test_the_unspoilt_library_predicts(library: Library) -> None:
    assert DEVICE
    for hardware in ("box", "pair"):
        answer = predict(model="toy", hardware=hardware, techniques=("narrow",), input_tokens=100)
        assert answer.e2el_s > 0
