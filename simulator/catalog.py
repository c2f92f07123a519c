"""Where the shipped and the user's own files are, and which file a name or alias means.

Names match without regard to case, spaces, hyphens and underscores. Folders named in RIDGELINE_PATH (separated as in
PATH), then `ridgeline` in the working directory, are searched before the shipped ones; a path is taken as it is.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from simulator.errors import Problem, SpecError, UnknownNameError, shorten

Kind = Literal["hardware", "model", "engine", "technique", "calibration", "interval", "price", "traffic", "deployment"]

_FOLDERS: dict[Kind, tuple[str, ...]] = {
    "hardware": tuple(
        f"hardware/{group}"
        for group in ("gpu", "accelerator", "pim", "storage", "sbc", "mobile", "mcu", "cpu", "fpga", "system")
    ),
    "model": ("workloads/models",),
    "engine": ("workloads/engines",),
    "technique": ("workloads/techniques",),
    "calibration": ("hardware/calibration",),
    "interval": ("hardware/interval",),
    "price": ("hardware/price",),
    "traffic": ("workloads/traffic",),
    "deployment": ("workloads/deployments",),
}


def normal(name: str) -> str:
    """The form in which two spellings of one name are equal.

    >>> normal("NVIDIA A100_SXM4 80GB") == normal("nvidia a100-sxm4-80gb")
    True
    """
    return re.sub(r"[\s_-]+", "-", name.strip().lower())


def roots() -> list[Path]:
    """Folders that hold `hardware/` and `workloads/`: the user's own first, then the shipped one."""
    *own, local = own_roots()
    if local.is_dir():
        own.append(local)
    package = Path(__file__).resolve().parent
    installed = package / "_data"
    return [*own, installed if installed.is_dir() else package.parent]


def own_roots() -> list[Path]:
    """Folders for the user's own files, whether they exist or not: those of RIDGELINE_PATH, then ./ridgeline."""
    named = [Path(part) for part in os.environ.get("RIDGELINE_PATH", "").split(os.pathsep) if part]
    return [*named, Path("ridgeline").absolute()]


def files(kind: Kind) -> Iterator[Path]:
    """Every file of that kind, the user's own first."""
    for root in roots():
        for folder in _FOLDERS[kind]:
            yield from sorted((root / folder).glob("*.yaml"))


def find(kind: Kind, name: str) -> Path:
    """The file that `name`, an alias or a path, stands for. Raises UnknownNameError."""
    if name.endswith((".yaml", ".yml", ".json")) and ("/" in name or os.sep in name or Path(name).is_file()):
        return Path(name)
    entries = index(kind)
    path = entries.get(normal(name))
    if path is None:
        raise UnknownNameError(kind, name, set(entries))
    return Path(path)


def names(kind: Kind) -> list[str]:
    """The names, without aliases, of everything of that kind."""
    return sorted({path.stem for path in files(kind)})


@contextmanager
def unchanged() -> Iterator[None]:
    """Within it files are taken as unchanged: an index is looked up once, for answers that ask for many names."""
    token = _held.set({})
    try:
        yield
    finally:
        _held.reset(token)


_held: ContextVar[dict[str, dict[str, str]] | None] = ContextVar("held", default=None)


def index(kind: Kind) -> dict[str, str]:
    """Normalised name or alias -> path. Read from a cache, one per set of folders, while no file has changed."""
    held = _held.get()
    if held is None:
        return _current(kind)
    if kind not in held:
        held[kind] = _current(kind)
    return held[kind]


def _current(kind: Kind) -> dict[str, str]:
    paths = list(files(kind))
    stamps = tuple((str(path), path.stat().st_mtime_ns) for path in paths)
    return _index(kind, stamps)


@lru_cache(maxsize=32)
def _index(kind: Kind, stamps: tuple[tuple[str, int], ...]) -> dict[str, str]:
    place = zlib.crc32(os.pathsep.join(str(root) for root in roots() if root.is_dir()).encode())
    stored = _cache_folder() / f"index-{kind}-{place:08x}.json"
    wanted = [list(stamp) for stamp in stamps]
    try:
        cached = json.loads(stored.read_text(encoding="utf-8"))
        if cached["stamps"] == wanted:
            return dict(cached["entries"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    entries = _build([Path(path) for path, _ in stamps])
    _store(stored, {"stamps": wanted, "entries": entries})
    return entries


def _build(paths: list[Path]) -> dict[str, str]:
    from simulator.spec.loader import read_mapping

    entries: dict[str, str] = {}
    clashes = []
    for path in paths:
        data = read_mapping(path)
        for name in [path.stem, *(data.get("aliases") or [])]:
            key = normal(str(name))
            first = entries.setdefault(key, str(path))
            if first != str(path) and Path(first).parent.parent.parent == path.parent.parent.parent:
                clashes.append(Problem(shorten(path), 0, 0, "aliases", f"'{name}' already means {shorten(first)}"))
    if clashes:
        raise SpecError(clashes)
    return entries


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "ridgeline"


def _store(path: Path, content: dict[str, Any]) -> None:
    """Write all or nothing; an unwritable cache folder only costs time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as stream:
            json.dump(content, stream)
        os.replace(stream.name, path)
    except OSError:
        pass
