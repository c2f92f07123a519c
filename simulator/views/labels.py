"""Where things fall on the screen: logarithmic axes in pixels, and labels that keep out of each other's way.

Knows the size of the chart, nothing of what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """Pixels of a chart, and of the margins around its plot."""

    width: int = 1200
    height: int = 740
    left: int = 90
    right: int = 210
    top: int = 84
    bottom: int = 104

    @property
    def margin(self) -> dict[str, int]:
        """As Plotly takes it."""
        return {"l": self.left, "r": self.right, "t": self.top, "b": self.bottom}


FULL = Size()
"""A chart by itself."""
COLUMN = Size(900, 640, 78, 12, 12, 118)
"""A chart in a column of a page, with its legend below."""
PHONE = Size(358, 560, 58, 6, 8, 190)


@dataclass(frozen=True, slots=True)
class Axes:
    """Ranges in decades, and where they fall in pixels."""

    x: tuple[float, float]
    y: tuple[float, float]
    size: Size = FULL

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels from the lower left corner of the plot."""
        return (
            (math.log10(x) - self.x[0]) / (self.x[1] - self.x[0]) * self.wide,
            (math.log10(y) - self.y[0]) / (self.y[1] - self.y[0]) * self.high,
        )

    @property
    def wide(self) -> float:
        """Pixels across the plot."""
        return float(self.size.width - self.size.left - self.size.right)

    @property
    def high(self) -> float:
        """Pixels up the plot."""
        return float(self.size.height - self.size.top - self.size.bottom)

    @property
    def slope_degrees(self) -> float:
        """Angle at which a bandwidth rises on the screen."""
        rise = self.high / (self.y[1] - self.y[0])
        return math.degrees(math.atan2(rise, self.wide / (self.x[1] - self.x[0])))


class Labels:
    """Rectangles taken so far, in pixels."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.taken: list[tuple[float, float, float, float]] = []
        self.lines: list[tuple[float, float, float, float]] = []

    def cross(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Note a line, which labels had better not hide."""
        pieces = max(1, int(abs(x1 - x0) / 10)) if y0 != y1 else 1
        for i in range(pieces):
            left, right = (x0 + (x1 - x0) * part / pieces for part in (i, i + 1))
            low, high = (y0 + (y1 - y0) * part / pieces for part in (i, i + 1))
            self.lines.append((left, low - 2, right, high + 2))

    def claim(self, left: float, bottom: float, width: float, height: float, *, over_lines: bool = True) -> bool:
        """Take a rectangle, if nothing is there and it lies inside the plot."""
        box = (left, bottom, left + width, bottom + height)
        if left < 0 or bottom < 0 or box[2] > self.axes.wide or box[3] > self.axes.high:
            return False
        others = self.taken if over_lines else self.taken + self.lines
        if any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in others):
            return False
        self.taken.append(box)
        return True

    def claim_all(self, boxes: Sequence[tuple[float, float, float, float]]) -> bool:
        """Take the rectangles of one slanting label, all or none; they may overlap one another."""
        before = self.taken
        found = []
        for box in boxes:
            self.taken = list(before)
            if not self.claim(*box):
                self.taken = before
                return False
            found.append(self.taken[-1])
        self.taken = before + found
        return True
