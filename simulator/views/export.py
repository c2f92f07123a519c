"""Writing a figure to a file: HTML that needs no network, or PNG through an installed browser."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from simulator.errors import UnsupportedError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
_FLAGS = (
    "--headless",
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1",
)  # fmt: skip


def write_figure(figure: Any, path: Path) -> None:
    """Write a Plotly figure as the suffix, .html or .png, says. Raises UnsupportedError for PNG without a browser."""
    if path.suffix == ".png":
        _write_png(figure, path)
    else:
        figure.write_html(path, include_plotlyjs=True, full_html=True, config={"displaylogo": False})


def _write_png(figure: Any, path: Path) -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise UnsupportedError("PNG without a browser (chromium or chrome) on PATH", ["--out FILE.html"])
    width, height = int(figure.layout.width or 1200), int(figure.layout.height or 740)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "figure.html"
        figure.write_html(page, include_plotlyjs=True, full_html=True, config={"displayModeBar": False})
        picture = Path(folder) / "figure.png"
        command = [
            browser, *_FLAGS, f"--user-data-dir={folder}/profile", f"--window-size={width + 16},{height + 16}",
            "--virtual-time-budget=5000", f"--screenshot={picture}", page.as_uri(),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        except subprocess.TimeoutExpired:
            raise UnsupportedError(f"PNG with {browser}, which did not finish", ["--out FILE.html"]) from None
        if not picture.exists():
            reason = done.stderr.strip().splitlines()[-1:] or ["no output"]
            raise UnsupportedError(f"PNG with {browser} ({reason[0]})", ["--out FILE.html"])
        path.write_bytes(picture.read_bytes())
