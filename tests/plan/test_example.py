"""The example of the guide runs, and its mixes are never dearer than a single type."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_mixes() -> None:
    spec = importlib.util.spec_from_file_location("mixes", ROOT / "examples" / "mixes.py")
    assert spec is not None
    assert spec.loader is not None
    mixes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mixes)
    frame = mixes.table(rates=(8,))
    assert len(frame) == len(mixes.TRAFFIC) * len(mixes.SLOS)
    assert (frame["saving"] >= -1e-9).all()
    assert frame["saving"].max() > 0.1
    assert (frame["gap"] <= 0.005).all()
    text = mixes.summary(frame)
    assert all(name in text for name in mixes.TRAFFIC)
    assert "Against the best single type a mix saves up to" in text
    page = (ROOT / "docs" / "guides" / "plan.md").read_text(encoding="utf-8")
    assert "<!-- mixes: examples/mixes.py --write -->\n| requests" in page
    figure = mixes.chart(frame)
    assert len(figure.data) == len(frame)
