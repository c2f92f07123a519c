"""Runs cases, again where they were disturbed, and gathers the table of measurements.

Each case is checked before it is timed. A case that torch refuses is left out and named; one that stays noisy is kept in
the table with its dispersion, and not fitted to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from validation.microbench.cases import Case
from validation.microbench.device import TorchDevice
from validation.microbench.sampling import Clock, Effort, Sample, sample

FEW_ROWS = 16
"""Rows below which torch may refuse a product that it takes with more."""
FRAMEWORK = "torch-eager"
"""Engine that stands for the kernels as torch runs them, one by one."""


@dataclass(slots=True)
class Findings:
    """What came out of running cases."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """First case of each kind that torch refused, and why."""
    too_large: list[str] = field(default_factory=list)
    """Cases that did not fit into the device's memory."""

    def table(self) -> pd.DataFrame:
        """A row per case."""
        return pd.DataFrame(self.rows)


def run_cases(
    cases: Sequence[Case],
    device: TorchDevice,
    machine: str,
    rates: tuple[float, float],
    effort: Effort,
    longest_s: float,
    progress: Callable[[str], object],
    budget_s: float = 75.0,
) -> Findings:
    """Time all cases whose roofline time at `rates` (FLOP/s, bytes/s) is at most `longest_s`; noisy ones once more.

    Waiting for undisturbed repeats stops where a case is behind its share of `budget_s`, so that a busy machine ends too.
    """
    clock = device.kernel_clock()
    version = f"torch-{device.torch.__version__}"
    base = {"framework": FRAMEWORK, "version": version, "device": machine}
    found = Findings()
    noisy: list[tuple[int, Case]] = []
    start = time.monotonic()

    def patient(share: float) -> Effort:
        late = time.monotonic() - start > budget_s * share
        return replace(effort, patience_s=effort.seconds) if late else effort

    for number, case in enumerate(cases, 1):
        progress(case.label)
        if max(case.flops / rates[0], case.bytes / rates[1]) > longest_s:
            continue
        taken = _try(case, device, clock, patient(number / len(cases)), found)
        if taken is None:
            continue
        if taken.noisy or taken.disturbed > 3 * taken.repeats:
            noisy.append((len(found.rows), case))
        found.rows.append(base | case.row | _columns(taken, case))
    for position, case in noisy:
        if time.monotonic() - start > 1.5 * budget_s:
            break
        progress(f"again: {case.label}")
        taken = _try(case, device, clock, patient(1.25), found)
        if taken is not None and taken.dispersion < found.rows[position]["dispersion"]:
            found.rows[position].update(_columns(taken, case))
    return found


def _try(case: Case, device: TorchDevice, clock: Clock, effort: Effort, found: Findings) -> Sample | None:
    kind = f"{case.row['op_name']} {case.row.get('gemm_dtype') or case.row.get('attn_dtype') or case.row.get('dtype')}"
    if case.row.get("m", FEW_ROWS) < FEW_ROWS:
        kind += ", few rows"
    if kind in found.refused:
        return None
    try:
        run, verify = case.make(device)
        verify()
        return sample(run, clock, effort)
    except (RuntimeError, TypeError, ValueError) as error:
        if "out of memory" in str(error):
            found.too_large.append(case.label)
        else:
            found.refused[kind] = f"{case.label}: {str(error).splitlines()[0]}"
        return None


def _columns(taken: Sample, case: Case) -> dict[str, Any]:
    return {
        "latency": taken.seconds * 1e3,
        "dispersion": taken.dispersion,
        "repeats": taken.repeats,
        "disturbed": taken.disturbed,
        "held_out": case.held_out,
    }


def gqa_works(device: TorchDevice) -> bool:
    """Whether this torch attends with fewer KV heads than query heads."""
    torch = device.torch
    q = torch.zeros((1, 2, 4, 8), device=device.name)
    k = torch.zeros((1, 1, 4, 8), device=device.name)
    try:
        torch.nn.functional.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True)
    except (RuntimeError, TypeError):
        return False
    return True


def split_by_op(table: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """The table of each op with its own columns only, named as files."""
    for op, part in table.groupby("op_name", sort=False):
        yield str(op), part.dropna(axis="columns", how="all").reset_index(drop=True)
