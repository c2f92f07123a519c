"""Ops and predictions as pandas frames: the tables that charts, notebooks and tests read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from simulator.result import OpCost, Prediction
from simulator.views.records import op_record, prediction_record


def ops_frame(ops: Iterable[OpCost]) -> pd.DataFrame:
    """A row per op and phase; `NAME_s` and `NAME_bytes` per memory, 0 where an op does not touch it."""
    frame = pd.DataFrame([op_record(op) for op in ops])
    memories = [column for column in frame.columns if column.endswith("_bytes")]
    memories += [column.removesuffix("_bytes") + "_s" for column in memories]
    return frame.fillna(dict.fromkeys(memories, 0.0))


def predictions_frame(predictions: Iterable[Prediction]) -> pd.DataFrame:
    """A row per prediction: the scenario, the keys of the JSON form, and the ends of the intervals."""
    return records_frame(prediction_record(prediction) for prediction in predictions)


def records_frame(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A row per record of `simulator.views.records.prediction_record`."""
    return pd.DataFrame(list(records))
