"""The way of a GPU through `ridgeline calibrate`, with a stand-in for CUDA that computes on the processor.

Shows that every call fits together and what is done on which device; says nothing of a GPU's times or of its own kernels.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from simulator.cli.main import main
from validation.microbench import copies, run
from validation.microbench.device import TorchDevice
from validation.microbench.power import Nvml, Smi
from validation.microbench.sampling import Effort
from validation.microbench.system import Gpu, find_gpus

torch = pytest.importorskip("torch")
UUID = "2a4f1c3e-0000-1111-2222-333344445555"
MADE_BY = ("empty", "ones", "zeros", "randint", "tensor")


class Event:
    """A moment on the host's clock."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: Event) -> float:
        return (other.at - self.at) * 1e3


class Cuda:
    """The part of torch.cuda that is used, for two GPUs of one kind."""

    Event = Event

    def __init__(self) -> None:
        self.current = 0
        self.capability = (8, 0)

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 2

    def get_device_properties(self, index: int) -> Any:
        major, minor = self.capability
        return SimpleNamespace(
            name="Test GPU", multi_processor_count=4, total_memory=1 << 28, L2_cache_size=1 << 20, major=major,
            minor=minor, uuid=UUID if index else "another",
        )  # fmt: skip

    def set_device(self, index: int) -> None:
        self.current = index

    def synchronize(self, device: str | None = None) -> None:
        assert device in (None, f"cuda:{self.current}")


class Torch:
    """torch, except that what it makes on the current GPU lies on the processor."""

    def __init__(self) -> None:
        self.cuda = Cuda()

    def __getattr__(self, name: str) -> Any:
        found = getattr(torch, name)
        return self._made_by(found) if name in MADE_BY else found

    def Generator(self, device: str) -> Any:
        self._check(device)
        return torch.Generator()

    def _made_by(self, function: Any) -> Any:
        def made(*arguments: Any, device: str = "cpu", pin_memory: bool = False, **options: Any) -> Any:
            self._check(device)
            return function(*arguments, **options)

        return made

    def _check(self, device: str) -> None:
        assert device in ("cpu", f"cuda:{self.cuda.current}")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Torch:
    found = Torch()
    monkeypatch.setattr(run, "load_torch", lambda: found)
    monkeypatch.setattr("validation.microbench.system._smi", dict)
    monkeypatch.setattr(run, "_meter", lambda target: None)
    return found


def test_a_gpu_is_measured_whole(fake: Torch, tmp_path: Path) -> None:
    arguments = ["--device", "cuda:1", "--small", "--out", str(tmp_path), "--keep-noisy", "--json"]
    result = CliRunner().invoke(main, ["calibrate", *arguments])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert fake.cuda.current == 1
    assert not any("refused" in line for line in found["left_out"])
    assert {Path(path).name for path in found["files"]} >= {"test-gpu-measured.yaml", "gemm.parquet", "copy.parquet"}
    assert (tmp_path / "hardware/gpu/test-gpu-measured.yaml").is_file()
    assert (tmp_path / "hardware/calibration/test-gpu-measured.yaml").is_file()
    assert {row["dtype"] for row in found["layer"]} == {"bf16"}
    assert all(row["predicted_s"] > 0.0 for row in found["layer"])


def test_a_hopper_multiplies_in_fp8_from_one_row_on(fake: Torch, tmp_path: Path) -> None:
    fake.cuda.capability = (9, 0)
    arguments = ["--device", "cuda", "--small", "--only", "gemm", "--out", str(tmp_path), "--keep-noisy", "--json"]
    result = CliRunner().invoke(main, ["calibrate", *arguments])
    assert result.exit_code == 0, result.output
    assert not any("refused" in line for line in json.loads(result.stdout)["left_out"])
    table = pd.read_parquet(tmp_path / "measured/test-gpu-measured/gemm.parquet")
    assert set(table[table["gemm_dtype"] == "fp8"]["m"]) == {1, 2, 16}


def test_copies_within_a_gpu_are_timed_by_its_events(fake: Torch, monkeypatch: pytest.MonkeyPatch) -> None:
    device = TorchDevice.on_gpu(fake, find_gpus(fake)[0])
    clocks = []
    monkeypatch.setattr(Event, "record", lambda self: clocks.append("event") or setattr(self, "at", len(clocks)))
    found = copies.copies(device, 1e6, True, Effort(1, 0.0, 0.0, 1))
    assert [copy.name for copy in found] == [
        "memory", "cache", "to_device_pinned", "to_host_pinned", "to_device_pageable", "to_host_pageable",
    ]  # fmt: skip
    assert clocks
    assert all(copy.moved == 40.0 * copy.bytes for copy in found if copy.name == "cache")


def test_what_does_not_fit_is_named(fake: Torch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: Any) -> Any:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("validation.microbench.cases._product", full)
    arguments = [
        "--device",
        "cuda",
        "--small",
        "--only",
        "gemm",
        "--only",
        "copy",
        "--out",
        str(tmp_path),
        "--keep-noisy",
    ]
    result = CliRunner().invoke(main, ["calibrate", *arguments])
    assert result.exit_code == 0, result.output
    assert "did not fit into memory" in result.stdout


@pytest.mark.parametrize("device", ["cuda:first", "cuda:-1", "cuda:", "gpu"])
def test_a_device_that_is_misspelt_is_refused(fake: Torch, device: str) -> None:
    result = CliRunner().invoke(main, ["calibrate", "--device", device, "--dry-run"])
    assert result.exit_code == 2
    assert f"--device {device} is not supported" in result.stderr


def test_the_driver_is_asked_for_the_gpu_that_torch_means(fake: Torch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    asked: list[list[str]] = []

    def smi(command: list[str], **_: Any) -> Any:
        asked.append(command)
        if "--query-gpu=power.draw" in command:
            return SimpleNamespace(stdout="120.5\n")
        rows = ["0, GPU-other, 1000, 1500, 250.00, 580.1", f"3, GPU-{UUID}, 1980, 2619, 700.00, 580.1", ""]
        return SimpleNamespace(stdout="\n".join(rows))

    monkeypatch.setattr(subprocess, "run", smi)
    gpu = find_gpus(fake)[1]
    assert (gpu.index, gpu.clock_hz, gpu.power_limit_w) == (1, 1980e6, 700.0)
    assert Smi(gpu).watts() == 120.5
    assert f"--id=GPU-{UUID}" in asked[-1]
    handles = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetHandleByIndex=lambda index: index,
    )
    assert Nvml(handles, gpu).handle == f"GPU-{UUID}"
    assert Nvml(handles, Gpu(2, "g", 1, 1.0, 1.0, (9, 0))).handle == 2
