"""A library of valid files in a temporary folder that RIDGELINE_PATH names."""

from __future__ import annotations

from pathlib import Path

import pytest

from .files import DEVICE, DRIVE, MODEL, SYSTEM, TECHNIQUE, Library


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """The files before anything is spoilt."""
    monkeypatch.setenv("RIDGELINE_PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = Library(tmp_path)
    found.write("hardware/gpu/box.yaml", DEVICE)
    found.write("hardware/storage/drive.yaml", DRIVE)
    found.write("hardware/system/pair.yaml", SYSTEM)
    found.write("workloads/models/toy.yaml", MODEL)
    found.write("workloads/techniques/narrow.yaml", TECHNIQUE)
    return found
