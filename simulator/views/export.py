"""Writing a figure to a file: HTML that needs no network, JSON, or PNG and SVG through an installed browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from simulator.errors import UnsupportedError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
_FLAGS = (
    "--headless",
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1",
)  # fmt: skip


_TO_SVG = """Plotly.toImage(document.querySelector('.plotly-graph-div'), {format: 'svg'}).then(found => {
  document.body.innerHTML = '<pre id="picture">' + found.split(',').slice(1).join(',') + '</pre>';
});"""
"""Leaves the picture, percent-encoded, as the only content of the page."""


def write_figure(figure: Any, path: Path) -> None:
    """Write a Plotly figure as the suffix, .html, .json, .png or .svg, says, into a folder that is made if need be.

    Raises UnsupportedError for a picture without a browser.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        path.write_bytes(_browse(figure, "png"))
    elif path.suffix == ".svg":
        path.write_bytes(_browse(figure, "svg"))
    elif path.suffix == ".json":
        path.write_text(figure.to_json(), encoding="utf-8")
    else:
        figure.write_html(path, include_plotlyjs=True, full_html=True, config={"displaylogo": False})


def _browse(figure: Any, form: str) -> bytes:
    """The picture as a browser draws it."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise UnsupportedError(f"{form.upper()} without a browser (chromium or chrome) on PATH", ["--out FILE.html"])
    width, height = int(figure.layout.width or 1200), int(figure.layout.height or 740)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "figure.html"
        script = _TO_SVG if form == "svg" else None
        figure.write_html(
            page, include_plotlyjs=True, full_html=True, config={"displayModeBar": False}, post_script=script
        )
        picture = Path(folder) / "figure.png"
        command = [
            browser, *_FLAGS, f"--user-data-dir={folder}/profile", f"--window-size={width + 16},{height + 16}",
            "--virtual-time-budget=5000", "--dump-dom" if form == "svg" else f"--screenshot={picture}", page.as_uri(),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        except subprocess.TimeoutExpired:
            raise UnsupportedError(
                f"{form.upper()} with {browser}, which did not finish", ["--out FILE.html"]
            ) from None
        content = b""
        if form == "svg":
            drawn = re.search(r'<pre id="picture">(.*?)</pre>', done.stdout, re.DOTALL)
            content = unquote(drawn[1]).encode() if drawn else b""
        elif picture.exists():
            content = picture.read_bytes()
        if not content:
            reason = done.stderr.strip().splitlines()[-1:] or ["no output"]
            raise UnsupportedError(f"{form.upper()} with {browser} ({reason[0]})", ["--out FILE.html"])
        return content
