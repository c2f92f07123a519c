"""Makes the shipped tables from the originals: `python -m validation.ship E2E.csv KERNELS_FOLDER [POWER_FOLDER]`.

End-to-end rows are taken whole, but for sources without a licence. Kernel tables are thinned by a rule that depends on a
row's shape alone, so that the same shapes are kept on every device and at every time.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import pandas as pd

from validation.tables import END_TO_END, KERNELS, POWER, read_table

WITHHELD = ("transcribed_excerpts: NVIDIA blog", "transcribed_excerpts: github.com/brand-o")
"""Beginnings of the names of sources that have no licence."""
MODULUS = 6
"""One shape in so many is kept: that whose CRC-32 is a multiple of it."""
RUN_COLUMNS = frozenset({
    "framework", "version", "device", "kernel_source", "latency", "power", "power_limit", "before_w",
    "backend", "implementation",
})  # fmt: skip
"""Columns that are not part of a shape."""
OPERATORS = {
    "dataset__test__": ("bmm", "linear", "elem", "ln", "softmax"),
    "dataset_amd__train__": ("elem", "ln", "softmax"),
}
"""Tables of single operators in fp32: MI100 has only the second set."""
TABLES = ("gemm", "attention", "moe", "mla", "comm")


def kept(table: pd.DataFrame, modulus: int) -> pd.DataFrame:
    """The rows whose shape, all columns but those of the run and the result as text, has a CRC-32 divisible by `modulus`.

    >>> table = pd.DataFrame({"m": range(1000), "latency": 1.0})
    >>> len(kept(table, 1)), 100 < len(kept(table, 6)) < 240
    (1000, True)
    """
    columns = sorted(name for name in table.columns if name not in RUN_COLUMNS)
    text = table[columns].astype(str).agg("|".join, axis=1)
    return table[[zlib.crc32(row.encode()) % modulus == 0 for row in text]]


LONG_MS = 0.34
"""Kernels of at least this latency run for a second, so that half of a reading of their power is their own."""
BEFORE = 16
"""Readings whose mean stands for what a board did before: several boards were measured in turns."""
POWER_MODULUS = 2


def thinned_power(table: pd.DataFrame) -> pd.DataFrame:
    """A power table without what repeats: GEMMs whole, as each reading holds the kernels before it; of the others the long
    ones of a balanced load, one shape in `POWER_MODULUS`, with the mean of the readings before in `before_w`."""
    named = table.drop(columns=["framework", "version", "kernel_source", "device"])
    if table["op_name"].iloc[0] == "gemm":
        return named.astype({"latency": "float32", "power": "float32", "m": "int32", "n": "int32", "k": "int32"})
    before = table["power"].rolling(BEFORE, min_periods=1).mean().shift(1).bfill()
    long = table["latency"] >= LONG_MS
    if "distribution" in table:
        long &= (table["distribution"] == "balanced") & table["moe_dtype"].isin(["bfloat16", "fp8", "fp8_block"])
    return kept(named.assign(before_w=before)[long], POWER_MODULUS).astype(
        {"latency": "float32", "power": "float32", "before_w": "float32"}
    )


def ship_power(folder: Path) -> None:
    """Write the shipped power tables."""
    for path in sorted(folder.glob("*/*.parquet")):
        target = POWER / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        thinned_power(read_table(path)).to_parquet(target, index=False, compression="zstd", compression_level=19)


def operators(folder: Path) -> pd.DataFrame:
    """Single operators of PyTorch in fp32, thinned as the others, with the columns that `validation.torch_shapes` reads."""
    found = []
    for prefix, names in OPERATORS.items():
        for name in names:
            table = read_table(folder / f"{prefix}{name}.parquet")
            table = table.rename(columns={"Latency": "latency", "Device": "device", "OPName": "op_name"})
            made = table[["device", "op_name", "latency"]].assign(framework="PyTorch", dtype="float32")
            product = "M" in table.columns
            made["rows"] = table["B"] * table["M"] if product else table["B"]
            made["groups"] = table["B"] if name == "bmm" else 1
            for column, source in (("n", "N"), ("k", "K"), ("width", "H")):
                made[column] = table[source] if source in table.columns else 0
            found.append(kept(made, MODULUS))
    return pd.concat(found, ignore_index=True)


def main(end_to_end: Path, kernels: Path) -> None:
    """Write the shipped tables."""
    runs = read_table(end_to_end)
    runs = runs[~runs["source"].str.startswith(WITHHELD)]
    END_TO_END.parent.mkdir(exist_ok=True)
    runs.to_parquet(END_TO_END, index=False, compression="zstd")
    KERNELS.mkdir(exist_ok=True)
    for path in sorted(kernels.glob("*_sxm/*.parquet")):
        if not path.name.startswith(TABLES) or "wideep" in path.name:
            continue
        table = read_table(path)
        if "latency" not in table.columns:
            continue
        small = table if path.name.startswith("comm") else kept(table, MODULUS)
        target = KERNELS / path.parent.name / path.name
        target.parent.mkdir(exist_ok=True)
        small.to_parquet(target, index=False, compression="zstd")
    if (kernels / "neusight").is_dir():
        target = KERNELS / "pytorch_fp32" / "ops__pytorch__fp32.parquet"
        target.parent.mkdir(exist_ok=True)
        operators(kernels / "neusight").to_parquet(target, index=False, compression="zstd")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    if len(sys.argv) > 3:
        ship_power(Path(sys.argv[3]))
