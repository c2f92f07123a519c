"""Baselines as CSV files that a diff shows well: a line per scenario or group, sorted, six significant digits.

Reads and writes; what a difference means is for `changes`.
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from simulator.errors import ImportFormatError, shorten

FOLDER = Path(__file__).resolve().parents[1] / "baselines"
DIGITS = 6
Value = float | str
Table = dict[str, dict[str, Value]]
"""Key -> column -> value."""


def shown(value: Value | None) -> str:
    """A value as it stands in a file: six significant digits; integers without a point.

    >>> shown(0.0123456789), shown(1234567.0), shown("true"), shown(None)
    ('0.0123457', '1.23457e+06', 'true', '')
    """
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.{DIGITS}g}"


def parsed(text: str) -> Value:
    """`shown`, read back.

    >>> parsed("0.5"), parsed("true"), parsed("in-grid")
    (0.5, 'true', 'in-grid')
    """
    try:
        return float(text)
    except ValueError:
        return text


def read(path: Path, key: str) -> Table:
    """A table by its column `key`; empty without the file. Raises ImportFormatError for a file of another form."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise ImportFormatError(
            f"{shorten(path)}: not UTF-8 text; `ridgeline regress --update` writes it anew"
        ) from None
    lines = csv.DictReader(io.StringIO(text), strict=True)
    found: Table = {}
    try:
        if lines.fieldnames is None or key not in lines.fieldnames:
            raise ImportFormatError(
                f"{shorten(path)}:1: no column '{key}'; `ridgeline regress --update` writes it anew"
            )
        for line in lines:
            name = line.pop(key)
            if None in line or None in line.values():
                raise ImportFormatError(f"{shorten(path)}:{lines.line_num}: as many values as columns are wanted")
            if name in found:
                raise ImportFormatError(f"{shorten(path)}:{lines.line_num}: '{name}' is there twice")
            found[name] = {column: parsed(cell) for column, cell in line.items() if cell}
    except csv.Error as error:
        raise ImportFormatError(f"{shorten(path)}:{lines.line_num}: not CSV: {error}") from None
    return found


def text(table: Mapping[str, Mapping[str, Value]], key: str, columns: Sequence[str]) -> str:
    """The file's content, sorted by key so that two branches that add different lines seldom meet."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow([key, *columns])
    for name in sorted(table):
        lines.writerow([name, *(shown(table[name].get(column)) for column in columns)])
    return out.getvalue()


def write(files: Mapping[Path, str], obsolete: Iterable[Path] = ()) -> None:
    """Write all files, each all or nothing, and remove the obsolete ones; a file that has not changed is left alone.

    All of them are written beside their places before the first is put there.
    """
    ready: list[tuple[str, Path]] = []
    try:
        for path, content in files.items():
            if path.exists() and path.read_bytes() == content.encode():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=path.parent, delete=False, encoding="utf-8", newline=""
            ) as stream:
                stream.write(content)
            os.chmod(stream.name, 0o644)
            ready.append((stream.name, path))
        while ready:
            os.replace(*ready[0])
            ready.pop(0)
    finally:
        for name, _ in ready:
            Path(name).unlink(missing_ok=True)
    for path in obsolete:
        path.unlink(missing_ok=True)
