"""What a plan file and a traffic histogram may hold. Knows forms and ranges; names are looked up by `simulator.plan`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from simulator import units
from simulator.errors import UnitError
from simulator.spec.hardware import Source
from simulator.spec.loader import Spec


class Given:
    """Marks a field as a number with its unit and without a source: what a user wants is not a fact to be sourced."""

    def __init__(self, dimension: units.Dimension, *, zero: bool = False) -> None:
        self.dimension, self.zero = dimension, zero

    def _read(self, raw: Any) -> float:
        if isinstance(raw, bool) or not isinstance(raw, str | int | float):
            raise PydanticCustomError(
                "quantity", "a number with its unit is needed, not {kind}", {"kind": type(raw).__name__}
            )
        try:
            value = units.to_si(str(raw), self.dimension)
        except UnitError as error:
            raise PydanticCustomError("unit", "{message}", {"message": str(error)}) from None
        if not math.isfinite(value) or value < 0 or (value == 0 and not self.zero):
            bound = "at least" if self.zero else "greater than"
            raise PydanticCustomError("range", "'{raw}' must be {bound} 0", {"raw": str(raw), "bound": bound})
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read by `_read` into SI units."""
        return core_schema.no_info_plain_validator_function(self._read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """A string with an example, or a plain number."""
        example = units.example(self.dimension)
        return {"type": ["string", "number"], "description": units.describe(self.dimension), "examples": [example]}


Seconds = Annotated[float, Given(units.TIME)]
SecondsOrNone = Annotated[float, Given(units.TIME, zero=True)]
Watts = Annotated[float, Given(units.POWER)]
BytesPerSecond = Annotated[float, Given(units.BANDWIDTH)]
Dollars = Annotated[float, Given(units.MONEY, zero=True)]
DollarsPerSecond = Annotated[float, Given(units.MONEY_PER_TIME)]
DollarsPerJoule = Annotated[float, Given(units.MONEY_PER_ENERGY, zero=True)]
Purchase = Literal["on_demand", "reserved", "spot"]


class SloSpec(Spec):
    """What every request has to meet; at least one of the three times."""

    ttft: Seconds | None = None
    """Arrival to first token, queueing included."""
    tpot: Seconds | None = None
    """Time per output token after the first."""
    e2el: Seconds | None = None
    """Arrival to last token, queueing included."""
    percentile: float | None = Field(None, gt=0, lt=100)
    """Of the requests of every size that must meet it, such as 99. None: the mean."""
    exempt: float = Field(0.0, ge=0, lt=1)
    """Share of the requests, the longest ones, that need not meet it and are served all the same."""

    @model_validator(mode="after")
    def _one(self) -> SloSpec:
        if self.ttft is None and self.tpot is None and self.e2el is None:
            raise ValueError("an SLO needs at least one of ttft, tpot and e2el")
        return self


class LoadSpec(Spec):
    """Requests to one model."""

    name: str = "load"
    model: str | None = None
    """Needed where throughput comes from the performance model rather than from tables."""
    traffic: str | dict[str, float] | list[tuple[float, float, float]]
    """A histogram of workloads/traffic, a CSV file, a mix {histogram: share}, or rows of [input, output, weight]."""
    rate: float = Field(gt=0, allow_inf_nan=False)
    """Requests per second."""
    slo: SloSpec | None = None
    """Needed where throughput comes from the performance model."""
    max_context: int | None = Field(None, ge=1)
    """Replaces the model's own limit."""
    arrival_cv: float = Field(1.0, ge=0, le=20)
    """Coefficient of variation of the times between arrivals; 1 is Poisson."""


class OptionSpec(Spec):
    """Deployments that may be used. Lists are multiplied: every hardware x tp x engine x ... is one option."""

    hardware: str | list[str]
    tp: int | list[int] = 1
    """Tensor-parallel degree; an instance has tp devices."""
    engine: str | list[str] | None = None
    """None: the hardware's own."""
    techniques: list[str] = Field(default_factory=lambda: ["none"], min_length=1)
    """Variants, each names joined by +, or none."""
    loads: list[str] | None = None
    """Which loads it may serve. None: all."""
    role: Literal["whole", "prefill", "decode"] = "whole"
    """whole: prefill and decode on one instance. The others are pools joined by the file's `link`."""
    purchase: Purchase | list[Purchase] = "on_demand"
    region: str | list[str] | None = None
    """Only prices of that region; carbon and electricity of `regions`."""
    provider: str | None = None
    """Only prices of that provider."""
    price: DollarsPerSecond | None = None
    """Per device. None: the cheapest that the price table lists."""
    table: str | None = None
    """Its name in the tables of throughput. None: the hardware."""
    power: Watts | None = None
    """Of an instance at full use. None: from the performance model."""
    idle_power: Annotated[float, Given(units.POWER, zero=True)] | None = None
    """Of an instance that waits. None: from the device file."""
    min_replicas: int = Field(0, ge=0)
    """Fewest instances if it is used at all."""
    keep: int = Field(0, ge=0)
    """Fewest instances in any case."""
    max_replicas: int | None = Field(None, ge=0)
    current: int = Field(0, ge=0)
    """Instances that run today."""
    interruptions_per_hour: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Of one spot instance."""


class StockSpec(Spec):
    """Devices that can be had."""

    hardware: str
    region: str | None = None
    """None: in all regions together."""
    purchase: Purchase | None = None
    devices: int = Field(ge=0)


class RegionSpec(Spec):
    """What depends on the place."""

    carbon_g_per_kwh: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Of its electricity."""
    pue: float = Field(1.0, ge=1, le=5)
    """Power of the building over that of the machines."""
    electricity: DollarsPerJoule | None = None
    """Paid on top of prices; for machines of one's own."""


class HeadroomSpec(Spec):
    """What is kept free."""

    instances: int = Field(0, ge=0)
    """Of every option in use, as many may fail without missing the load."""
    share: float = Field(0.0, ge=0, lt=1)
    """Of every instance's throughput."""
    max_utilization: float = Field(0.95, gt=0, lt=1)
    """Most that the queueing margin may use of an instance where the SLO bounds no wait (TPOT alone)."""


class SpotSpec(Spec):
    """Interruptions of spot instances."""

    recovery: SecondsOrNone = 300.0
    """From an interruption until a new instance serves."""
    max_share: float = Field(1.0, ge=0, le=1)
    """Of each load that spot instances may carry."""


class SwitchingSpec(Spec):
    """What it costs to leave today's fleet."""

    start: Dollars = 0.0
    """Per instance started."""
    stop: Dollars = 0.0
    """Per instance given back."""
    horizon: Seconds = 720 * 3600.0
    """Time over which these are written off."""


class LinkSpec(Spec):
    """Between prefill and decode pools."""

    bandwidth: BytesPerSecond
    """Out of one prefill instance, one direction."""
    latency: SecondsOrNone = 0.0


class TableSpec(Spec):
    """Throughput that the user has measured: a file, or rows of [input, output, requests/s] of one option."""

    file: str | None = None
    """CSV (option,input_tokens,output_tokens,requests_per_s[,power_w]), or an AIBrix profile in JSON."""
    option: str | None = None
    """Whose rows they are; for an AIBrix profile, in place of its own `gpu`."""
    rows: list[tuple[float, float, float]] | None = None

    @model_validator(mode="after")
    def _one(self) -> TableSpec:
        if (self.file is None) == (self.rows is None):
            raise ValueError("exactly one of `file` and `rows` is needed")
        if self.rows is not None and self.option is None:
            raise ValueError("`rows` need `option`, whose rows they are")
        return self


class BudgetSpec(Spec):
    """Limits on what is not minimised."""

    money: DollarsPerSecond | None = None
    power: Watts | None = None
    carbon_g_per_hour: float | None = Field(None, gt=0, allow_inf_nan=False)


class SolverSpec(Spec):
    """When to stop."""

    gap: float = Field(0.005, ge=0, lt=1)
    """Proven distance from the best possible, of the objective."""
    time_limit: Seconds = 10.0
    name: Literal["highs", "cbc"] | None = None
    """None: HiGHS, and CBC where HiGHS is not installed."""


class PlanSpec(Spec):
    """A plan file: loads, the deployments that may serve them, and limits."""

    name: str | None = None
    title: str | None = None
    loads: list[LoadSpec] = Field(min_length=1)
    options: list[OptionSpec] = Field(min_length=1)
    throughput: list[TableSpec] = Field(default_factory=list)
    """Tables in place of the performance model; then every option needs rows in one."""
    prices: str = "cloud"
    """A table of hardware/price."""
    stock: list[StockSpec] = Field(default_factory=list)
    regions: dict[str, RegionSpec] = Field(default_factory=dict)
    objective: Literal["money", "power", "carbon"] = "money"
    budgets: BudgetSpec = Field(default_factory=BudgetSpec)
    headroom: HeadroomSpec = Field(default_factory=HeadroomSpec)
    spot: SpotSpec = Field(default_factory=SpotSpec)
    switching: SwitchingSpec = Field(default_factory=SwitchingSpec)
    link: LinkSpec | None = None
    """Needed with prefill and decode pools."""
    solver: SolverSpec = Field(default_factory=SolverSpec)


class TrafficSpec(Spec):
    """A histogram of request sizes."""

    name: str
    title: str
    sources: dict[str, Source]
    licence: str
    """Of the trace that it was counted from."""
    requests: int = Field(gt=0)
    """Counted."""
    rate: float | None = Field(None, gt=0)
    """Requests per second of the trace, for the record."""
    buckets: list[tuple[float, float, float]] = Field(min_length=1)
    """Mean input tokens, mean output tokens and number of requests of each bucket."""


def resolve_path(name: str, beside: Path) -> Path:
    """A path of a plan file: as given, or relative to the file."""
    path = Path(name)
    return path if path.is_absolute() or path.exists() else beside.parent / name
