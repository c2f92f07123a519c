"""What a person is told of steady serving beside a prediction's own sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulator.views.document import Section, as_text
from simulator.views.text import duration, plain


def steady_text(served: Mapping[str, Any]) -> str:
    """Rates, steps and room of steady serving, for a terminal."""
    running = plain(served["running"])
    if served["running"] < served["concurrency"]:
        running += f" of {plain(served['concurrency'])}: the others queue"
    rows = (
        ("requests at work", running, f"at most {served['max_concurrency']} fit"),
        ("requests/s", plain(served["requests_per_s"]), ""),
        ("mean step", duration(served["step_s"]), ""),
        ("step of decodes alone", duration(served["decode_step_s"]), ""),
        ("step with prompts", duration(served["prompt_step_s"]), ""),
        ("time that prompts add", f"{served['prefill_share']:.0%}", ""),
    )
    return as_text([], [Section("Steady serving", rows)])
