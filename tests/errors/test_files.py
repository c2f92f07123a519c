"""A spoilt file is refused at its line and column, with the value and the mend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulator import catalog
from simulator.errors import ImportFormatError, SpecError, UnitError, UnknownNameError
from simulator.mapping.machine import load_machine
from simulator.scenario import load_model
from simulator.spec.loader import read_mapping

from .files import DEVICE, MODEL, SYSTEM, Library, spoilt


def line_of(text: str, part: str) -> int:
    """The line, from 1, on which `part` first stands."""
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def refusal(path: Path) -> SpecError:
    with pytest.raises(SpecError) as caught:
        load_machine(str(path))
    return caught.value


def says(error: Exception, *parts: str) -> None:
    for part in parts:
        assert part in str(error), f"{part!r} is not in {error}"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("bandwidth: 2 TB/s", "bandwith: 2 TB/s", ["unknown key 'bandwith'", "did you mean 'bandwidth'?"]),
        ("capacity: 80 GB", "capacity: 80", ["'80' is a number without a unit", "'80 GB'"]),
        ("bandwidth: 2 TB/s", "bandwidth: 2 TB", ["'2 TB' is a capacity", "a bandwidth is needed", "'2 TB/s'"]),
        ("capacity: 80 GB", "capacity: -80 GB", ["'-80 GB' must be greater than 0"]),
        ("capacity: 80 GB", "capacity: 0 GB", ["'0 GB' must be greater than 0"]),
        ("capacity: 80 GB", "capacity: 80 GX", ["unknown unit 'GX'", "known are B, bit"]),
        ("capacity: 80 GB", "capacity: lots", ["'lots' is not a number with a unit"]),
        ("capacity: 80 GB", "capacity: [80 GB]", ["a number with its unit is needed, not list"]),
        ("title: Box", "title: [Box]", ["title: text is needed, not a list"]),
        ("capacity: 80 GB", "capacity: 80 GB @dz", ["source 'dz' is not in `sources`", "did you mean 'ds'?"]),
        ("kind: main", "kind: man", ["'man' is not one of"]),
        ("class: gpu", "class: gpuu", ["'gpuu' is not one of"]),
        ("peak: {bf16: 100 TFLOP/s}", "peak: {bf61: 100 TFLOP/s}", ["'bf61' is not one of"]),
        ("    capacity: 80 GB\n", "", ["key 'capacity' is missing"]),
        ("kind: matrix", "kind: matrix\n    near: hbn", ["is near 'hbn', which is not in `memory`"]),
        ("name: lanes", "name: tensor", ["the names ['tensor', 'tensor'] repeat one another"]),
    ],
)
def test_a_spoilt_device(library: Library, old: str, new: str, said: list[str]) -> None:
    error = refusal(library.device((old, new)))
    says(error, "box.yaml:", *said)
    assert error.problems
    assert all(problem.line > 0 and problem.column > 0 for problem in error.problems)


def test_the_place_is_that_of_the_value(library: Library) -> None:
    text = spoilt(DEVICE, ("bandwidth: 2 TB/s", "bandwidth: 2 TB"))
    error = refusal(library.device(("bandwidth: 2 TB/s", "bandwidth: 2 TB")))
    says(error, f"box.yaml:{line_of(text, 'bandwidth: 2 TB')}:5: memory.0.bandwidth: '2 TB'")


def test_no_source_at_all(library: Library) -> None:
    error = refusal(library.device(("default_source: ds\n", "")))
    says(error, "has no source", "set default_source")


def test_all_problems_of_a_file_at_once(library: Library) -> None:
    error = refusal(
        library.device(
            ("kind: matrix", "kind: matrx"),
            ("capacity: 80 GB", "capacity: 80"),
            ("bandwidth: 2 TB/s", "bandwidht: 2 TB/s"),
        )
    )
    says(error, "'matrx'", "'80' is a number without a unit", "unknown key 'bandwidht'", "'bandwidth' is missing")
    assert len(error.problems) == 4
    assert [problem.line for problem in error.problems] == sorted(problem.line for problem in error.problems)
    assert len(str(error).splitlines()) == 4


def test_broken_yaml(library: Library) -> None:
    error = refusal(library.write("hardware/gpu/box.yaml", "name: box\ncompute: [1, 2\nmemory: 3\n"))
    says(error, "box.yaml:3:", "broken YAML")


def test_a_list_for_a_file(library: Library) -> None:
    says(
        refusal(library.write("hardware/gpu/box.yaml", "- 1\n- 2\n")),
        "box.yaml:1:1: must hold a mapping of keys, not list",
    )


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    says(refusal(tmp_path / "absent.yaml"), "absent.yaml", "cannot be read: No such file")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "noise.yaml"
    path.write_bytes(b"name: \xff\xfe")
    says(refusal(path), "noise.yaml", "is not UTF-8 text (byte 6)")


def test_broken_json(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "llama",\n  "hidden_size": }', encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_model(str(path))
    says(caught.value, "config.json:2:18", "broken JSON")


def test_a_config_of_an_unknown_architecture(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "lama9", "hidden_size": 8}), encoding="utf-8")
    with pytest.raises(ImportFormatError) as caught:
        load_model(str(path))
    says(caught.value, "'lama9'", "llama")


def test_a_config_without_a_model_type(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"hidden_size": 8}), encoding="utf-8")
    with pytest.raises(ImportFormatError, match="model_type"):
        load_model(str(path))


def test_all_that_a_config_lacks_at_once(library: Library) -> None:
    text = spoilt(MODEL, ("  hidden_size: 512\n", ""), ("vocab_size: 1000", "vocab_size: many"))
    with pytest.raises(ImportFormatError) as caught:
        load_model(str(library.write("workloads/models/toy.yaml", text)))
    says(caught.value, "hidden_size", "'vocab_size'", "'many'")


def test_a_model_file_with_neither_config_nor_network(library: Library) -> None:
    text = MODEL[: MODEL.index("config:")]
    with pytest.raises(SpecError, match="exactly one of `config` and `network` is needed"):
        load_model(str(library.write("workloads/models/toy.yaml", text)))


def test_a_network_of_an_unknown_builder(library: Library) -> None:
    text = MODEL[: MODEL.index("config:")] + "network: {builder: convnt}\n"
    with pytest.raises(UnknownNameError) as caught:
        load_model(str(library.write("workloads/models/toy.yaml", text)))
    says(caught.value, "'convnt'", "'convnet'")


def test_two_files_of_one_alias(library: Library) -> None:
    library.device(("name: box", "name: cube"), ("title: Box", "title: Cube"), name="cube")
    with pytest.raises(SpecError) as caught:
        load_machine("boxy")
    says(caught.value, "cube.yaml", "aliases", "'Boxy' already means", "box.yaml")


def test_a_user_file_may_take_a_shipped_name(library: Library) -> None:
    library.device(("name: box", "name: a100-sxm4-80gb"), ("aliases: [Boxy]", "aliases: []"), name="a100-sxm4-80gb")
    assert load_machine("a100-sxm4-80gb").title == "Box"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("main: gpu", "main: cpu", "main 'cpu' is not one of the parts"),
        ("between: [gpu, disk]", "between: [gpu, dick]", "joins 'dick', which is not one of the parts"),
        ("device: drive", "device: drve", "unknown hardware 'drve'; did you mean 'drive'"),
        (", between: [gpu, disk]", "", "needs `between: [part, part]` or `to: peer`"),
    ],
)
def test_a_spoilt_system(library: Library, old: str, new: str, said: str) -> None:
    says(refusal(library.write("hardware/system/pair.yaml", spoilt(SYSTEM, (old, new)))), "pair.yaml", said)


def test_the_unspoilt_files_are_valid(library: Library) -> None:
    assert load_machine("Boxy").name == "box"
    assert load_machine("pair").devices == 2
    assert load_model("org/toy").parameters() > 0
    assert catalog.find("technique", "narrow").parent.parent.parent == library.root
    assert read_mapping(library.root / "hardware/gpu/box.yaml")["title"] == "Box"


@pytest.mark.parametrize("text", ["", "GB", "1 2 GB", "five GB", "1 GB/", "1 QB"])
def test_text_that_is_no_quantity(text: str) -> None:
    from simulator.units import parse

    with pytest.raises(UnitError) as caught:
        parse(text)
    says(caught.value, f"'{text}'")
