"""The pages, in the order of the menu, and how any of them answers without ever failing."""

from __future__ import annotations

import sys
import threading
import traceback
from dataclasses import replace
from functools import lru_cache
from importlib import import_module

from dashboards.answer import Answer, Page, Screen
from dashboards.state import State
from simulator import catalog
from simulator.errors import SimulatorError

MODULES = ("whatif", "roofline", "compare", "timeline", "paper", "fleet", "accuracy")
WIDE = Screen()
_one_at_a_time = threading.RLock()
"""A predictor keeps the buffers it computes in, so that two requests must not use it at once."""


@lru_cache(maxsize=1)
def pages() -> dict[str, Page]:
    """Path -> page."""
    found = [import_module(f"dashboards.pages.{name}").PAGE for name in MODULES]
    return {page.path: page for page in found}


def answer_of(page: Page, state: State, screen: Screen = WIDE, notices: tuple[str, ...] = ()) -> Answer:
    """A page's answer; what the reader can mend, and what they cannot, is said in its place."""
    try:
        with _one_at_a_time, catalog.unchanged():
            found = page.answer(state, screen)
    except (SimulatorError, OSError) as error:
        found = Answer(problem=str(error))
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        found = Answer(
            problem=f"This is a defect of the dashboard, not of your input ({type(error).__name__}: {error})."
        )
    return replace(found, notices=notices + found.notices)
