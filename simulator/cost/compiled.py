"""The cost arithmetic compiled by Numba, loaded only when something is to be computed many times.

The module of plain functions is loaded a second time with every function compiled in place; one source, two speeds, the
same results. The compiled code is cached beside the source, or in a folder of the user's where that cannot be written.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from simulator.cost import kernels as _plain


@lru_cache(maxsize=1)
def kernels() -> Any:
    """`simulator.cost.kernels` with its functions compiled."""
    return compile_module(_plain.__name__, Path(inspect.getfile(_plain)))


def compile_module(name: str, path: Path) -> ModuleType:
    """The module at `path` loaded anew, with each function that it defines compiled by Numba in the order of definition."""
    if not os.access(path.parent, os.W_OK):
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ridgeline" / "numba"
        os.environ.setdefault("NUMBA_CACHE_DIR", str(folder))
    import numba

    spec = importlib.util.spec_from_file_location(f"{name}_compiled", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    functions = [f for f in vars(module).values() if inspect.isfunction(f) and f.__module__ == spec.name]
    for function in functions:
        setattr(module, function.__name__, _jit(numba, function))
    return module


def _jit(numba: Any, function: Any) -> Any:
    try:
        return numba.njit(cache=True, error_model="numpy", nogil=True)(function)
    except RuntimeError:  # no folder for the cache can be written
        return numba.njit(cache=False, error_model="numpy", nogil=True)(function)
