"""Running the cost arithmetic over one table: interpreted at first, compiled once it is asked for often.

Holds the buffers that the arithmetic writes into, so that a call allocates almost nothing. Not for concurrent use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simulator.cost import batches, steps
from simulator.cost.layout import ALL, NUM_STATIC, HostRow
from simulator.cost.table import Table, as_arrays

COMPILE_AFTER_CALLS = 40
"""Loading the compiled arithmetic takes as long as some forty interpreted predictions."""

Shares = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class StaticBatch:
    """What a batch of equal sequences takes on one rank, as `batches.static_batch` returns it."""

    ttft_s: float
    tpot_s: float
    prefill_j: float
    step_j: float
    prefill_device_s: float
    step_device_s: float
    failed_op: int


class Runner:
    """Evaluates a table at steps and at static batches."""

    __slots__ = (
        "_arrays",
        "_buffers",
        "_calls",
        "_places",
        "decode_totals",
        "host",
        "prefill_totals",
        "records",
        "stages",
        "table",
        "totals",
    )

    def __init__(self, table: Table, host: HostRow, stages: int = 1) -> None:
        self.table, self.host, self.stages = table, host, stages
        self._calls = 0
        self._arrays: tuple[Any, ...] | None = None
        self._places: dict[Shares, Any] = {}
        columns = table.columns
        memories = len(table.memory_names)
        self.records: Any = [[0.0] * columns for _ in table.ops]
        self.totals: Any = [0.0] * columns
        self.prefill_totals: Any = [0.0] * columns
        self.decode_totals: Any = [0.0] * columns
        self._buffers: Any = ([0.0] * memories, [0.0] * columns, [0.0] * columns, [0.0] * NUM_STATIC)

    def compile(self) -> None:
        """Switch to the compiled arithmetic now."""
        import numpy as np

        if self._arrays is not None:
            return
        arrays = as_arrays(self.table)
        self._arrays = tuple(
            arrays[name] for name in ("ops", "amounts", "units", "rates", "joules", "bandwidth", "byte_joules", "links")
        )
        self.records = np.zeros((len(self.table.ops), self.table.columns))
        self.totals, self.prefill_totals, self.decode_totals = (np.zeros(self.table.columns) for _ in range(3))
        self._buffers = tuple(np.zeros(len(buffer)) for buffer in self._buffers)
        self._places = {}

    def static_batch(self, batch: float, prompt: float, output: float, source: float, shares: Shares) -> StaticBatch:
        """A batch prefilled and decoded together (`batches.static_batch`)."""
        (_, module), (ops, amounts, units, rates, joules, bandwidth, byte_joules, links), place = self._prepared(shares)
        times, trial, best, result = self._buffers
        module.static_batch(
            float(batch),
            float(prompt),
            float(output),
            float(source),
            float(self.stages),
            self.host,
            ops,
            amounts,
            units,
            rates,
            joules,
            bandwidth,
            byte_joules,
            place,
            self.table.efficiency,
            links,
            self.table.power,
            times,
            trial,
            best,
            self.records,
            self.totals,
            self.prefill_totals,
            self.decode_totals,
            result,
        )
        ttft, tpot, prefill_j, step_j, failed, prefill_device, step_device = (float(value) for value in result)
        return StaticBatch(ttft, tpot, prefill_j, step_j, prefill_device, step_device, int(failed))

    def static_grid(self, points: Any, shares: Shares) -> Any:
        """`batches.static_grid`: an array of points in, an array of S_ columns out. Always compiled."""
        import numpy as np

        self.compile()
        (_, module), (ops, amounts, units, rates, joules, bandwidth, byte_joules, links), place = self._prepared(shares)
        times, trial, best, result = self._buffers
        answers = np.empty((len(points), NUM_STATIC))
        records = np.zeros((2, *self.records.shape))
        module.static_grid(
            points,
            float(self.stages),
            self.host,
            ops,
            amounts,
            units,
            rates,
            joules,
            bandwidth,
            byte_joules,
            place,
            self.table.efficiency,
            links,
            self.table.power,
            times,
            trial,
            best,
            records,
            self.totals,
            self.prefill_totals,
            self.decode_totals,
            result,
            answers,
        )
        return answers

    def step(self, slices: tuple[tuple[float, ...], ...], shares: Shares, *, which: int = ALL) -> int:
        """One mixed step into `records` and `totals`; returns the first op that no unit can run, or -1."""
        (module, _), (ops, amounts, units, rates, joules, bandwidth, byte_joules, links), place = self._prepared(shares)
        times, trial, best, _ = self._buffers
        exact = tuple(tuple(float(value) for value in part) for part in slices)
        return int(
            module.time_step(
                which,
                exact,
                ops,
                amounts,
                units,
                rates,
                joules,
                bandwidth,
                byte_joules,
                place,
                self.table.efficiency,
                links,
                self.table.power,
                times,
                trial,
                best,
                self.records,
                self.totals,
            )
        )

    def _prepared(self, shares: Shares) -> tuple[tuple[Any, Any], tuple[Any, ...], Any]:
        self._calls += 1
        if self._arrays is None and self._calls > COMPILE_AFTER_CALLS:
            self.compile()
        if self._arrays is None:
            table = self.table
            rows = (
                table.rows,
                table.amounts,
                table.units,
                table.rates,
                table.joules,
                table.bandwidth,
                table.byte_joules,
                table.links,
            )
            return (steps, batches), rows, shares
        from simulator.cost.compiled import arithmetic

        place = self._places.get(shares)
        if place is None:
            import numpy as np

            if len(self._places) > 256:
                self._places.clear()
            place = self._places[shares] = np.array(shares)
        return arithmetic(), self._arrays, place
