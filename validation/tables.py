"""The measured tables: those that come with the repository, and any other CSV or Parquet file in the same form.

Reads them and says which columns are missing. What the columns mean is for the modules that compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from simulator.errors import ImportFormatError, shorten

SHIPPED = Path(__file__).parent / "measured"
END_TO_END = SHIPPED / "e2e.parquet"
KERNELS = SHIPPED / "kernels"
POWER = KERNELS.with_name("kernel_power")


def end_to_end_files(paths: Sequence[Path]) -> list[Path]:
    """The tables to read: those given, folders expanded, or the shipped one."""
    return _expand(paths) or _shipped(END_TO_END, "e2e")


def kernel_files(paths: Sequence[Path]) -> list[Path]:
    """The kernel tables to read: those given, folders expanded, or the shipped ones."""
    return _expand(paths) or _shipped(KERNELS, "kernels")


def power_folders(paths: Sequence[Path]) -> list[Path]:
    """The folders of power tables, each named after its device: those given, or the shipped ones."""
    if paths:
        return list(paths)
    return sorted({path.parent for path in _shipped(POWER, "energy")})


def read_table(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A CSV or Parquet file. Raises ImportFormatError if it is neither, or lacks a column."""
    if not path.is_file():
        raise ImportFormatError(f"{shorten(path)}: no such file")
    try:
        frame = pd.read_csv(path, low_memory=False) if path.suffix == ".csv" else pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise ImportFormatError(f"{shorten(path)}: not a CSV or Parquet table: {error}") from None
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ImportFormatError(f"{shorten(path)}: no column {', '.join(missing)}; it has {', '.join(frame.columns)}")
    return frame


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write CSV or Parquet, by the suffix; its folder is made if need be. Raises ImportFormatError for another suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        raise ImportFormatError(f"{shorten(path)}: the file to write must end in .parquet or .csv")


def _expand(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(entry for entry in path.rglob("*") if entry.suffix in (".parquet", ".csv"))
        if not inside:
            raise ImportFormatError(f"{shorten(path)}: no .parquet or .csv file in this folder")
        found += inside
    return found


def _shipped(place: Path, name: str) -> list[Path]:
    files = [place] if place.is_file() else sorted(place.rglob("*.parquet"))
    if not files:
        raise ImportFormatError(
            f"the measured tables are not part of this installation; pass a file: `ridgeline validate {name} TABLE.parquet` "
            "(a clone of the repository has them in validation/measured/)"
        )
    return files
