"""Predictions with default parameters against a few well-known measurements: `python -m validation.first_look`.

Prints a row per measurement and the mean absolute error per group. The full harness is `ridgeline validate`.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from simulator.predict import predict
from simulator.scenario import Scenario
from validation.rows import dated

MEASURED = Path(__file__).parent / "measured" / "first_look.csv"


def compare() -> list[tuple[str, dict[str, str], float, float]]:
    """(group, row, predicted, measured) of every row of the table."""
    found = []
    with MEASURED.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            scenario = Scenario(
                row["model"],
                row["hardware"],
                batch=int(row["batch"]),
                input_tokens=int(row["input_len"]),
                output_tokens=int(row["output_len"]),
                engine=dated(row["framework"], row["source"]),
                max_context=16384,
            )
            value = float(getattr(predict(scenario), row["metric"]))
            group = f"{row['source']}, {row['hardware']}, {row['framework']}"
            found.append((group, row, value, float(row["measured"])))
    return found


def mean_errors(rows: list[tuple[str, dict[str, str], float, float]]) -> dict[str, float]:
    """Mean of |predicted / measured - 1| per group."""
    errors: dict[str, list[float]] = defaultdict(list)
    for group, _, predicted, measured in rows:
        errors[group].append(abs(predicted / measured - 1.0))
    return {group: sum(values) / len(values) for group, values in errors.items()}


def main() -> None:
    """Print the comparison."""
    rows = compare()
    for _, row, predicted, measured in rows:
        shape = f"batch {row['batch']:>3}, {row['input_len']:>4} in, {row['output_len']:>4} out"
        name = f"{row['model']} on {row['hardware']}, {row['framework']}"
        error = f"{predicted / measured - 1:+7.1%}"
        print(f"{name:64} {shape}  {row['metric']:20} {predicted:10.4g} predicted {measured:10.4g} measured {error}")
    for group, error in mean_errors(rows).items():
        print(f"{group:60} mean error {error:.1%}")


if __name__ == "__main__":
    main()
