"""Running the cost arithmetic over one table: interpreted at first, compiled once it is asked for often.

Holds the buffers that the arithmetic writes into, so that a call allocates almost nothing. Not for concurrent use.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from simulator.cost import batches, serving, steps
from simulator.cost.layout import NUM_SERVED, NUM_STATIC, R_ENERGY, HostRow, Scratch, Tables, Waves
from simulator.cost.table import Table, as_arrays, compiled_efficiency, flat

COMPILE_AFTER_CALLS = 40
"""Loading the compiled arithmetic takes as long as some forty interpreted predictions."""

Shares = tuple[tuple[float, ...], ...]
"""`Placement.shares`: rows of weights, cache and activations, and four more rows per further part."""


ALONE = (0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
"""Nothing runs beside the network: the `beside` of `serving.serve`."""
EVEN = Waves()
"""Requests evenly spread from the start."""


class StaticBatch(NamedTuple):
    """What a batch of equal sequences takes on one rank; the S_ columns of `simulator.cost.layout`."""

    ttft_s: float
    tpot_s: float
    prefill_j: float
    step_j: float
    failed_op: float
    prefill_device_s: float
    step_device_s: float


class Runner:
    """Evaluates a table at steps and at static batches."""

    __slots__ = (
        "_batches",
        "_beside",
        "_calls",
        "_compiled",
        "_efficiency",
        "_places",
        "_rows",
        "_serving",
        "_stages",
        "_steps",
        "host",
        "scratch",
        "table",
    )  # fmt: skip

    def __init__(self, table: Table, host: HostRow, stages: int = 1) -> None:
        self.table, self.host = table, host
        self._stages = float(stages)
        self._calls = 0
        self._compiled = False
        self._steps: Any = steps
        self._batches: Any = batches
        self._serving: Any = serving
        self._rows: dict[str, Any] = flat(table)
        self._efficiency, self._beside = table.efficiency, table.beside
        self._places: dict[Shares, Tables] = {}
        columns, memories = table.columns, len(table.memory_names)
        self.scratch = Scratch(
            times=[0.0] * memories,
            trial=[0.0] * columns,
            best=[0.0] * columns,
            records=[[0.0] * columns for _ in table.ops],
            totals=[0.0] * columns,
            dense=[0.0] * columns,
            prefill=[0.0] * columns,
            decode=[0.0] * columns,
            result=[0.0] * NUM_STATIC,
        )

    def compile(self) -> None:
        """Switch to the compiled arithmetic now."""
        if self._compiled:
            return
        import numpy as np

        from simulator.cost.compiled import arithmetic

        self._steps, self._batches, self._serving = arithmetic()
        self._rows = as_arrays(self.table)
        self._efficiency = compiled_efficiency(self.table.efficiency)
        self._beside = tuple(compiled_efficiency(found) for found in self.table.beside)
        self._places = {}
        self.scratch = Scratch(*(np.zeros(np.shape(buffer)) for buffer in self.scratch))
        self._compiled = True

    def rehost(self, host: HostRow) -> None:
        """Replace what the host adds to a step."""
        self.host = host
        self._places = {}

    def static_batch(self, batch: float, prompt: float, output: float, source: float, shares: Shares) -> StaticBatch:
        """A batch prefilled and decoded together (`batches.static_batch`)."""
        tables = self._tables(shares)
        scratch = self.scratch
        self._batches.static_batch(
            float(batch), float(prompt), float(output), float(source), self._stages, tables, scratch
        )
        return StaticBatch(*(scratch.result.tolist() if self._compiled else scratch.result))

    def static_grid(self, points: Any, shares: Shares) -> Any:
        """`batches.static_grid`: (P, 4) points in, (P, NUM_STATIC) answers out. Always compiled."""
        import numpy as np

        self.compile()
        answers = np.empty((len(points), NUM_STATIC))
        self._batches.static_grid(points, self._stages, self._tables(shares), self.scratch, answers)
        return answers

    def serve(
        self,
        point: tuple[float, float, float, float],
        budget: float,
        mixes: bool,
        shares: Shares,
        beside: tuple[float, ...] = ALONE,
        waves: Waves = EVEN,
    ) -> list[float]:
        """`serving.serve` at one point (requests at work, prompt, output, source): its V_ columns."""
        tables = self._tables(shares)
        if self._compiled:
            import numpy as np

            answers = self.serve_grid(np.array([point], dtype=np.float64), budget, mixes, shares, beside, waves)
            return list(answers[0].tolist())
        answer = [0.0] * NUM_SERVED
        flight, prompt, output, source = map(float, point)
        self._serving.serve(
            False, flight, prompt, output, source, float(budget), float(mixes), beside, waves, self._stages, tables,
            self.scratch, answer,
        )  # fmt: skip
        return answer

    def serve_grid(
        self,
        points: Any,
        budget: float,
        mixes: bool,
        shares: Shares,
        beside: tuple[float, ...] = ALONE,
        waves: Waves = EVEN,
    ) -> Any:
        """`serving.serve_grid`: (P, 4) points in, (P, NUM_SERVED) answers out. Always compiled."""
        import numpy as np

        self.compile()
        answers = np.empty((len(points), NUM_SERVED))
        self._serving.serve_grid(
            points, float(budget), float(mixes), beside, waves, self._stages, self._tables(shares), self.scratch,
            answers,
        )  # fmt: skip
        return answers

    def step(self, slices: tuple[tuple[float, ...], ...], shares: Shares) -> int:
        """One mixed step into the records and totals of `scratch`; returns the first op that no unit can run, or -1."""
        tables = self._tables(shares)
        exact = tuple(tuple(float(value) for value in part) for part in slices)
        return int(self._steps.time_step(tables.all, exact, tables, self.scratch))

    def step_cost(self, slices: tuple[tuple[float, ...], ...], shares: Shares) -> tuple[float, float]:
        """Seconds and joules of one mixed step, with the host."""
        self.step(slices, shares)
        totals, host = self.scratch.totals, self.host
        decoding = sum(part[0] for part in slices if part[1] == 1.0)
        seconds = float(self._steps.step_seconds(totals, host, decoding, decoding > 0))
        return seconds, float(totals[R_ENERGY]) + self.table.power.static_w * seconds

    def _tables(self, shares: Shares) -> Tables:
        self._calls += 1
        if not self._compiled and self._calls > COMPILE_AFTER_CALLS:
            self.compile()
        tables = self._places.get(shares)
        if tables is None:
            place, copies = _by_part(shares, len(self.table.parts))
            if self._compiled:
                import numpy as np

                place, copies = np.array(place), np.array(copies)
            if len(self._places) > 256:
                self._places.clear()
            tables = self._places[shares] = Tables(
                **self._rows,
                place=place,
                copies=copies,
                efficiency=self._efficiency,
                beside=self._beside,
                power=self.table.power,
                host=self.host,
            )
        return tables


def _by_part(shares: Shares, parts: int) -> tuple[Any, Any]:
    """(parts, 3 M) shares of each role in each memory, and (parts, 4) of what copying a byte costs."""
    place: list[list[float]] = [[share for row in shares[:3] for share in row]]
    copies: list[list[float]] = [[0.0, 0.0, 0.0, 0.0]]
    for part in range(1, parts):
        rows = shares[4 * part - 1 : 4 * part + 3]
        place.append([share for row in rows[:3] for share in row])
        copies.append(list(rows[3]))
    return place, copies
