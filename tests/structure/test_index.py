"""The stored index of names: one per set of folders, and never older than the files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from simulator import catalog
from simulator.errors import UnknownNameError


def _engine(folder: Path, name: str) -> None:
    path = folder / "workloads" / "engines" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"aliases: [{name}-alias]\n", encoding="utf-8")


def test_each_set_of_folders_keeps_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("first", "second"):
        _engine(tmp_path / name, f"mine-{name}")
        monkeypatch.setenv("RIDGELINE_PATH", str(tmp_path / name))
        assert catalog.find("engine", f"mine-{name}-alias").stem == f"mine-{name}"
    stored = sorted((tmp_path / "cache" / "ridgeline").glob("index-engine-*.json"))
    assert len(stored) == 2


def test_a_changed_file_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("RIDGELINE_PATH", str(tmp_path))
    _engine(tmp_path, "mine")
    assert catalog.find("engine", "mine-alias").stem == "mine"
    path = tmp_path / "workloads" / "engines" / "mine.yaml"
    path.write_text("aliases: [other-alias]\n", encoding="utf-8")
    os.utime(path, ns=(1, 1))
    assert catalog.find("engine", "other-alias") == path
    with pytest.raises(UnknownNameError):
        catalog.find("engine", "mine-alias")
