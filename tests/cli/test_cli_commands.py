"""Every command as a user meets it: output, JSON keys, exit codes, and what is imported on the way."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from simulator.cli.main import COMMANDS, main

CONTRACT = [
    "ttft_s", "tpot_s", "e2el_s", "output_tokens_per_s", "total_tokens_per_s", "weight_bytes", "kv_bytes",
    "activation_bytes", "memory_bytes", "capacity_bytes", "fits", "prefill_energy_j", "energy_j_per_output_token",
    "power_w", "usd_per_million_output_tokens", "bound", "interval", "provenance",
]  # fmt: skip
LLAMA = ("--model", "llama-3.1-8b")
HEAVY = ("numpy", "pandas", "pydantic", "plotly", "numba", "torch", "rich", "yaml", "dash", "pulp", "pyarrow")


def ridgeline(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def answer(*arguments: str) -> Any:
    result = ridgeline(*arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refusal(*arguments: str) -> str:
    """The message of a command that must fail: exit 2, nothing on stdout, no traceback."""
    result = ridgeline(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


def imported_by(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter has loaded after `code`."""
    probe = f"import sys\n{code}\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_names_every_command() -> None:
    text = ridgeline("--help").stdout
    assert all(f"  {name} " in text for name in COMMANDS)
    assert "Traceback" not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = ridgeline(name, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_help_loads_nothing_heavy() -> None:
    code = "from simulator.cli.main import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    assert imported_by(code) == set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert imported_by("import simulator") == set()


def test_a_json_prediction_draws_nothing() -> None:
    code = (
        "from simulator.cli.main import main\ntry:\n"
        "    main(['predict', '--model', 'llama-3.1-8b', '--hardware', 'A100', '--json'])\nexcept SystemExit:\n    pass"
    )
    assert imported_by(code) <= {"pydantic", "yaml"}


def test_unknown_command_offers_the_nearest() -> None:
    assert "did you mean 'predict'" in refusal("predikt")


def test_predict_json_has_the_keys_of_the_contract() -> None:
    found = answer(
        "predict", *LLAMA, "--hardware", "H100", "--batch", "4", "--input", "256", "--output", "64", "--json"
    )
    assert list(found) == CONTRACT
    assert found["fits"] is True
    assert set(found["interval"]) <= set(CONTRACT)
    for key, (low, high) in found["interval"].items():
        assert low <= found[key] <= high
    assert found["memory_bytes"] == pytest.approx(found["weight_bytes"] + found["kv_bytes"] + found["activation_bytes"])
    assert {"model", "hardware", "engine", "tag", "assumed"} <= set(found["provenance"])


def test_predict_takes_every_option() -> None:
    found = answer(
        "predict", *LLAMA, "--hardware", "dgx-h100", "--devices", "4", "--tp", "2", "--pp", "1", "--ep", "1", "--dp",
        "2",
        "--batch", "8", "--input", "128", "--output", "16", "--technique", "weight-int4", "--technique", "kv-fp8",
        "--engine", "vLLM", "--activation-dtype", "int8", "--images", "0", "--place", "kv=hbm", "--json",
    )  # fmt: skip
    assert found["provenance"]["tp"] == 2
    assert found["provenance"]["dp"] == 2
    assert found["weight_bytes"] < 2 * 8e9


@pytest.mark.parametrize(("option", "value"), [("--weight-dtype", "int4"), ("--kv-dtype", "fp8")])
def test_narrower_formats_shrink_what_they_name(option: str, value: str) -> None:
    key = {"--weight-dtype": "weight_bytes", "--kv-dtype": "kv_bytes"}[option]
    plain = answer("predict", *LLAMA, "--hardware", "A100", "--json")
    narrow = answer("predict", *LLAMA, "--hardware", "A100", option, value, "--json")
    assert narrow[key] < 0.6 * plain[key]


def test_explain_adds_the_ops_to_the_json() -> None:
    found = answer("predict", *LLAMA, "--hardware", "A100", "--explain", "--json")
    assert list(found) == [*CONTRACT, "ops", "waterfall", "energy_by_component_j"]
    for phase in ("prefill", "decode"):
        shares = [op["share"] for op in found["ops"] if op["phase"] == phase]
        assert sum(shares) == pytest.approx(1.0)


def test_predict_tells_a_person_what_matters() -> None:
    text = ridgeline("predict", *LLAMA, "--hardware", "A100", "--explain").stdout
    for words in (
        "TTFT",
        "TPOT",
        "output tokens/s",
        "weights",
        "usable: fits",
        "W limit",
        "USD per million",
        "assumed",
    ):
        assert words in text
    for words in ("Prefill step", "Decode step", "gate_up_proj", "launch", "FLOP/B", "would help most"):
        assert words in text


def test_what_does_not_fit_comes_with_advice() -> None:
    text = ridgeline("predict", *LLAMA, "--hardware", "raspberry-pi-5").stdout
    assert "DOES NOT FIT" in text
    assert "would fit with" in text


def test_a_network_that_does_not_generate_has_one_pass() -> None:
    text = ridgeline("predict", "--model", "resnet-50", "--hardware", "A100", "--batch", "8").stdout
    assert "one pass" in text
    assert "per sample" in text
    assert "TTFT" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*LLAMA, "--hardware", "A1O0"), "did you mean"),
        (("--model", "lama-3.1-8b", "--hardware", "A100"), "llama-3.1-8b"),
        ((*LLAMA, "--hardware", "A100", "--engine", "vlm"), "vllm"),
        ((*LLAMA, "--hardware", "A100", "--technique", "weight-int5"), "weight-int4"),
        ((*LLAMA, "--hardware", "A100", "--batch", "0"), "batch must be at least 1"),
        ((*LLAMA, "--hardware", "A100", "--tp", "2", "--devices", "3"), "devices"),
        ((*LLAMA, "--hardware", "A100", "--input", "200000"), "131072"),
        ((*LLAMA, "--hardware", "A100", "--images", "1"), "takes no images"),
        ((*LLAMA, "--hardware", "A100", "--weight-dtype", "int17"), "int17"),
        ((*LLAMA, "--hardware", "A100", "--place", "kv"), "ROLE=MEMORY"),
        ((*LLAMA, "--hardware", "A100", "--place", "kv=flash"), "flash"),
        ((*LLAMA, "--hardware", "nvme-pcie4"), "computes nothing"),
    ],
)
def test_errors_say_what_and_exit_2(arguments: tuple[str, ...], words: str) -> None:
    message = refusal("predict", *arguments)
    assert message.startswith("error: ")
    assert words in message


def test_errors_of_a_real_process(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: broken\ntitle: [\n")
    command = [sys.executable, "-m", "simulator.cli.main", "predict", *LLAMA, "--hardware", str(broken)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "broken.yaml:" in done.stderr


def test_compare_sorts_and_keeps_failures() -> None:
    found = answer(
        "compare", *LLAMA, "--hardware", "A100,H100", "--hardware", "nvme-pcie4", "--engine", "ideal",
        "--sort", "tpot_s", "--json",
    )  # fmt: skip
    assert [row["hardware"] for row in found] == ["h100-sxm5-80gb", "a100-sxm4-80gb", "nvme-pcie4"]
    assert [row["problem"] is None for row in found] == [True, True, False]


def test_compare_puts_the_largest_rate_first() -> None:
    found = answer("compare", *LLAMA, "--hardware", "A100,H100", "--sort", "output_tokens_per_s", "--json")
    rates = [row["output_tokens_per_s"] for row in found]
    assert rates == sorted(rates, reverse=True)


def test_compare_varies_techniques_and_engines() -> None:
    arguments = ("--engine", "ideal,vllm", "--technique", "none,weight-int4+kv-fp8")
    found = answer("compare", *LLAMA, "--hardware", "H100", *arguments, "--json")
    assert {(row["engine"], row["techniques"]) for row in found} == {
        (engine, techniques) for engine in ("ideal", "vllm") for techniques in ("", "weight-int4+kv-fp8")
    }


def test_compare_as_csv_and_table() -> None:
    text = ridgeline("compare", *LLAMA, "--hardware", "A100,H100,nvme-pcie4", "--csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 3
    assert float(rows[0]["ttft_s"]) > 0
    table = ridgeline("compare", *LLAMA, "--hardware", "A100,H100").stdout.splitlines()
    assert table[0].split()[:3] == ["hardware", "engine", "TTFT"]
    assert len(table) == 3


def test_compare_wants_hardware() -> None:
    assert "--hardware names nothing" in refusal("compare", *LLAMA, "--hardware", " , ")


def test_compare_refuses_an_unknown_key() -> None:
    assert "ttft_s" in refusal("compare", *LLAMA, "--hardware", "A100", "--sort", "speed")


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("hardware", {"name", "class", "peak_flop_per_s", "bandwidth_bytes_per_s", "capacity_bytes", "tdp_w"}),
        ("models", {"name", "parameters", "kind"}),
        ("techniques", {"name", "paper", "primitives"}),
        ("engines", {"name", "host_step_s", "graph_decode"}),
    ],
)
def test_list_as_json_and_table(kind: str, keys: set[str]) -> None:
    found = answer("list", kind, "--json")
    assert all(keys <= set(record) for record in found)
    names = [record["name"] for record in found]
    assert names == sorted(names)
    text = ridgeline("list", kind).stdout
    assert all(name in text for name in names)


def test_list_papers_has_all_and_those_that_techniques_name() -> None:
    named = {record["paper"] for record in answer("list", "techniques", "--json") if record["paper"]}
    listed = {record["name"]: record for record in answer("list", "papers", "--json")}
    assert named == {name for name, record in listed.items() if record["techniques"]}
    assert len(listed) == 462


def test_list_matches_titles_and_classes() -> None:
    found = answer("list", "hardware", "--match", "raspberry", "--json")
    assert "raspberry-pi-5" in {record["name"] for record in found}
    assert "no hardware" in ridgeline("list", "hardware", "--match", "zzzz").stdout


def test_sweep_reports_progress_and_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import pandas as pd

    calls = []

    def run(path: Path, out: Path | None, progress: Any, resume: bool) -> pd.DataFrame:
        calls.append((path.name, out, resume))
        progress(1, 2)
        progress(2, 2)
        return pd.DataFrame({"tpot_s": [0.25, 0.5]})

    module = ModuleType("simulator.sweep")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "simulator.sweep", module)
    grid = tmp_path / "grid.yaml"
    grid.write_text("model: llama-3.1-8b\n")
    out = tmp_path / "points.parquet"
    assert "2 points" in ridgeline("sweep", str(grid), "--out", str(out), "--resume").stdout
    assert ridgeline("sweep", str(grid)).stdout.splitlines() == ["tpot_s", "0.25", "0.5"]
    assert calls == [("grid.yaml", out, True), ("grid.yaml", None, False)]
    assert "--resume needs --out" in refusal("sweep", str(grid), "--resume")
    assert ".parquet or .csv" in refusal("sweep", str(grid), "--out", "points.xlsx")


def test_a_real_sweep(tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text("model: [llama-3.1-8b]\nhardware: [A100, H100]\nbatch: {start: 1, stop: 4, factor: 2}\n")
    out = tmp_path / "points.csv"
    assert ridgeline("sweep", str(grid), "--out", str(out)).stdout.splitlines()[-1] == f"6 points in {out}"
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [int(row["batch"]) for row in rows] == [1, 2, 4, 1, 2, 4]
    point = answer("predict", *LLAMA, "--hardware", "H100", "--batch", "4", "--json")
    assert float(rows[-1]["tpot_s"]) == pytest.approx(point["tpot_s"], rel=1e-6)
    grid.write_text("model: [llama-3.1-8b]\nhardwear: [A100]\n")
    message = refusal("sweep", str(grid))
    assert "did you mean 'hardware'" in message
    assert "grid.yaml:2" in message


def test_roofline_writes_html_and_json(tmp_path: Path) -> None:
    page, data = tmp_path / "new" / "r.html", tmp_path / "r.json"
    assert ridgeline("roofline", *LLAMA, "--hardware", "A100", "--out", str(page)).exit_code == 0
    text = page.read_text()
    assert "Roofline: llama-3.1-8b" in text
    assert "cdn.plot.ly" not in text.split("<body>")[0]
    assert ridgeline("roofline", *LLAMA, "--hardware", "A100", "--out", str(data)).exit_code == 0
    found = json.loads(data.read_text())
    assert set(found) == {"scenario", "roofs", "points", "not_drawn"}


def test_roofline_without_a_browser_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    message = refusal("roofline", *LLAMA, "--hardware", "A100", "--out", str(tmp_path / "r.png"))
    assert "browser" in message
    assert "--out FILE.html" in message


def test_roofline_refuses_other_formats() -> None:
    assert ".html, .json or .png" in refusal("roofline", *LLAMA, "--hardware", "A100", "--out", "chart.pdf")


def test_unwritable_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = refusal("roofline", *LLAMA, "--hardware", "A100", "--out", str(tmp_path / "file" / "r.html"))
    assert message.startswith("error: ")
