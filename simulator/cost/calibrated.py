"""Parts of a calibration file as the rows of numbers that the cost arithmetic reads: products in 8 bits and their rounding.

Beside `simulator.cost.efficiency`, which knows which part holds for which engine.
"""

from __future__ import annotations

import math

from simulator.cost.reached import RoundingRow, TabledRow, TileRow
from simulator.spec.calibration import RoundingEfficiency, TabledEfficiency

NO_TABLE = TabledRow(*[0.0] * len(TabledRow._fields))
NO_TILE = TileRow(*[0.0] * len(TileRow._fields))
"""Stands where a table would: never read, but of its type."""


def rounding_row(spec: RoundingEfficiency, bandwidth: float) -> RoundingRow:
    """The pass that rounds inputs, at a factor on the share of the bandwidth that it reaches."""
    return RoundingRow(
        floor_s=spec.floor.value,
        row_s=spec.row.value,
        bandwidth=spec.bandwidth.value * bandwidth,
        strip_s=spec.strip.value if spec.strip else 0.0,
        strip_elements=spec.strip_elements.value if spec.strip_elements else 1.0,
    )


def tabled_row(spec: TabledEfficiency | None, compute: float, bandwidth: float) -> TabledRow:
    """What products by a table of tiles reach, at factors on the shares of compute and bandwidth."""
    if spec is None:
        return NO_TABLE
    return TabledRow(
        compute=spec.compute.value * compute,
        bandwidth=spec.bandwidth.value * bandwidth,
        cache_bandwidth=spec.cache_bandwidth.value,
        fill_bytes=spec.fill_row.value,
        sharpness=spec.sharpness.value,
        least_rows=spec.least_rows.value,
    )


def tile_rows(spec: TabledEfficiency | None) -> tuple[TileRow, ...]:
    """The lines of the table; bounds that are not given bound nothing."""
    if spec is None:
        return (NO_TILE,)
    return tuple(
        TileRow(
            rows=line.rows.value if line.rows else math.inf,
            columns=line.columns.value if line.columns else math.inf,
            depth=line.depth.value if line.depth else 0.0,
            tile_rows=line.tile_rows.value,
            tile_columns=line.tile_columns.value,
            cluster=line.cluster.value if line.cluster else 1.0,
        )
        for line in spec.tiles
    )
