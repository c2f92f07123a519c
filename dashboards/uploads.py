"""Files that a reader brings: checked, kept in a temporary folder while the server runs, and named by their content.

Only small text in UTF-8: YAML without anchors, JSON, CSV. Nothing is executed, no name of the reader's becomes a path,
and a file that names another one by path is refused.
"""

from __future__ import annotations

import atexit
import base64
import binascii
import hashlib
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from simulator.errors import ImportFormatError, SimulatorError, SpecError
from simulator.scenario import Scenario
from simulator.spec.loader import parse_mapping

PREFIX = "upload:"
LARGEST_BYTES = 1_000_000
LARGEST_TRACE_BYTES = 8_000_000
MOST_FILES = 64
MOST_LAYERS = 4096
DEEPEST = 40
KINDS = {
    "model": ("config.json or model YAML", (".json", ".yaml", ".yml")),
    "hardware": ("device or system YAML", (".yaml", ".yml")),
    "plan": ("plan YAML", (".yaml", ".yml")),
    "trace": ("request trace, CSV", (".csv",)),
}
"""Kind -> what it is called, and the endings of its files."""
_FREE_TEXT = ("sources", "notes", "title", "aliases", "origin", "ref")


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was taken."""

    name: str
    """`upload:` and 16 hexadecimal digits of its content."""
    path: Path
    kind: str


_held: dict[str, Upload] = {}


@lru_cache(maxsize=1)
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="ridgeline-uploads-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def take(kind: str, file_name: str, contents: str) -> Upload:
    """Keep a file that came as a data URL. Raises ImportFormatError or SpecError with what is wrong with it."""
    title, endings = KINDS[kind]
    shown = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(file_name.replace("\\", "/")).name)[-80:].lstrip(".-") or "file"
    path = Path(shown)
    if path.suffix.lower() not in endings:
        raise ImportFormatError(f"'{shown}' does not end in {', '.join(endings)}, as a {title} does")
    largest = LARGEST_TRACE_BYTES if kind == "trace" else LARGEST_BYTES
    if len(contents) > largest * 4 // 3 + 200:
        raise ImportFormatError(f"'{shown}' is larger than {largest / 1e6:g} MB")
    try:
        raw = base64.b64decode(contents.partition(",")[2], validate=True)
        text = raw.decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        raise ImportFormatError(f"'{shown}' is not text in UTF-8") from None
    if kind != "trace":
        _check(parsed(text, path), shown)
    if len(_held) >= MOST_FILES:
        raise ImportFormatError(f"{MOST_FILES} files are held already; start the dashboard again to drop them")
    digest = hashlib.sha256(f"{kind}\n{shown}\n".encode() + raw).hexdigest()[:16]
    stored = _folder() / digest / shown
    stored.parent.mkdir(exist_ok=True)
    stored.write_bytes(raw)
    found = Upload(PREFIX + digest, stored, kind)
    try:
        _try(found)
    except SimulatorError as error:
        shutil.rmtree(stored.parent, ignore_errors=True)
        raise _told(error, stored) from None
    _held[found.name] = found
    return found


def parsed(text: str, path: Path) -> dict[str, Any]:
    """The mapping that a file holds. Anchors are refused, since a few of them can stand for any amount of content."""
    try:
        if path.suffix.lower() != ".json":
            loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            depth = 0
            for event in yaml.parse(text, Loader=loader):
                if isinstance(event, yaml.AliasEvent):
                    raise ImportFormatError(f"'{path.name}' uses anchors; write their content out")
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if depth > DEEPEST:
                    raise ImportFormatError(f"'{path.name}' is nested more than {DEEPEST} deep")
        return parse_mapping(text, path)
    except RecursionError:
        raise ImportFormatError(f"'{path.name}' is nested more than {DEEPEST} deep") from None
    except yaml.MarkedYAMLError:
        return parse_mapping(text, path)


def path_of(name: str) -> Path:
    """Where the upload of that name is. Raises ValueError if this server does not hold it."""
    known = _held.get(name)
    if known is None:
        raise ValueError("is a file that was uploaded to another session; upload it again")
    return known.path


def held(kind: str) -> list[Upload]:
    """All uploads of a kind, in the order they came."""
    return [upload for upload in _held.values() if upload.kind == kind]


def located(scenario: Scenario) -> Scenario:
    """The scenario with the paths of its uploads in place of their names."""
    changes = {
        key: str(path_of(value))
        for key, value in (("model", scenario.model), ("hardware", scenario.hardware))
        if value.startswith(PREFIX)
    }
    return replace(scenario, **changes) if changes else scenario  # type: ignore[arg-type]


def told(name: str) -> str:
    """What a person calls it: the name itself, or the upload's file name."""
    known = _held.get(name)
    return known.path.name if known else name


def _check(value: Any, shown: str, depth: int = 0) -> None:
    """Refuse paths to other files, and sizes that would only keep the server busy."""
    if depth > DEEPEST:
        raise ImportFormatError(f"'{shown}' is nested more than {DEEPEST} deep")
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, int | float) and "layers" in str(key) and inner > MOST_LAYERS:
                raise ImportFormatError(f"'{shown}': {key} is {inner:g}, and {MOST_LAYERS} are the most here")
            if str(key) not in _FREE_TEXT:
                _check(inner, shown, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, shown, depth + 1)
    elif isinstance(value, str) and _names_a_file(value):
        raise ImportFormatError(f"'{shown}' names the file '{value[:60]}'; an upload may only use known names")


def _names_a_file(text: str) -> bool:
    """Whether a loader could take the text for a file: by its ending, by its form, or because there is one."""
    if text.lower().endswith((".yaml", ".yml", ".json", ".onnx", ".csv", ".parquet")) or text.startswith(
        ("/", "~", "..")
    ):
        return True
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return True


def _try(upload: Upload) -> None:
    """Read it as what it claims to be."""
    if upload.kind == "model":
        from simulator.scenario import load_model

        load_model(str(upload.path))
    elif upload.kind == "hardware":
        from simulator.mapping.machine import load_machine

        load_machine(str(upload.path))


def _told(error: SimulatorError, stored: Path) -> SimulatorError:
    """The error again, without the folder the server keeps the file in."""
    if isinstance(error, SpecError):
        return SpecError([replace(problem, file=stored.name) for problem in error.problems])
    return ImportFormatError(str(error).replace(str(stored.parent) + "/", ""))
