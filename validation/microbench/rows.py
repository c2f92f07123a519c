"""Rows of a table of measurements as the model times them: their ops and steps once, their seconds under any calibration.

The ops are those of `validation.shapes`, the arithmetic that of every prediction. Knows no parameter by name.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from simulator.cost.compiled import KERNELS, compile_modules
from simulator.cost.efficiency import Engine, efficiency
from simulator.cost.layout import NUM_STATIC, HostRow, Scratch, Tables
from simulator.cost.table import as_arrays, build_table
from simulator.graph.op import Graph, Op
from simulator.mapping.machine import Machine
from simulator.mapping.place import Need, Placer, Policy
from simulator.spec.calibration import Calibration
from validation.shapes import Numbers, family_of


class Rows:
    """Rows of one op, ready to be timed; rows whose number format the model does not know are left out of `table`."""

    def __init__(self, table: pd.DataFrame, machine: Machine, engine: Engine) -> None:
        family = family_of(table)
        if family is None:
            raise ValueError(f"no model of op '{table['op_name'].iloc[0]}'")
        self.machine, self.engine = machine, engine
        columns = [name for name in family.shape if name in table.columns]
        shapes = table[columns].drop_duplicates().reset_index(drop=True)
        ops: list[Op] = []
        known: list[int] = []
        for position, shape in enumerate(shapes.to_dict("records")):
            made = family.ops({str(key): value for key, value in shape.items()})
            known.append(len(ops))
            ops += [replace(op, name=f"{op.name}.{position}") for op in made]
        number = table[columns].merge(shapes.assign(shape=known), on=columns, how="left")["shape"]
        self.table = table
        self._ops = Graph("kernels", tuple(ops))
        self._order = number.to_numpy(np.int64)
        self._steps = np.ascontiguousarray(np.column_stack(family.step(table)))
        placer = Placer(machine, Policy(engine.memory_fraction, engine.workspace_bytes, engine.spills))
        shares = placer.place(Need(1.0, 1.0, 1.0), placer.preferences[0]).shares
        self._place = np.array([[share for row in shares for share in row]])

    @property
    def measured_s(self) -> Numbers:
        """The seconds that were measured."""
        return self.table["latency"].to_numpy(np.float64) * 1e-3

    def seconds(self, calibration: Calibration) -> Numbers:
        """Seconds of every row; -1 where no unit can run it."""
        rates = efficiency(self.machine, self.engine, calibration)
        table = build_table(self._ops, self.machine, self.engine, rates, calibration)
        tables = Tables(
            **as_arrays(table),
            place=self._place,
            copies=np.zeros((1, 4)),
            efficiency=table.efficiency,
            beside=table.beside,
            power=table.power,
            host=HostRow(*[0.0] * len(HostRow._fields)),
        )
        columns, memories = table.columns, len(table.memory_names)
        wide = {name: np.zeros(columns) for name in ("trial", "best", "totals", "dense", "prefill", "decode")}
        scratch = Scratch(
            **wide,
            times=np.zeros(memories),
            records=np.zeros((len(table.ops), columns)),
            result=np.zeros(NUM_STATIC),
        )
        found = np.empty(len(self._order))
        _loop()(tables.all, self._order, self._order + 1, self._steps, tables, scratch, found)
        return found


@lru_cache(maxsize=1)
def _loop() -> Any:
    """`validation.loops.time_rows`, compiled with the arithmetic."""
    from simulator.cost import steps
    from validation import loops

    return compile_modules((*KERNELS, steps, loops))[-1].time_rows
