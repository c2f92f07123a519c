"""The words of docs/accuracy.md around its tables. Holds no numbers of results: those are computed."""

from __future__ import annotations

HEAD = """# How accurate it is

<!-- Written by `python -m validation.accuracy --write` (`make accuracy`); edit validation/wording.py instead. -->

Every number on this page is computed from the tables in `validation/measured/` and from the parameters as they are
shipped. An error is predicted / measured - 1; MAPE is its mean absolute value, median the median of its absolute
value, bias the median with its sign (negative: predicted too fast, or too little energy). Rates are listed under the
time that they turn over, a rate beside the same row's time is not counted twice. `roofline` is the same row with the
engine `ideal`: datasheet peaks and unique bytes, no software. `in 90%` is the share of measurements inside 90%
intervals that have not seen them. Groups of fewer than eight values are taken together.

![Predicted against measured times of runs](images/accuracy-runs.png)

![Predicted against measured times of kernels](images/accuracy-kernels.png)
"""
WORST = """## Where it stands, and where it is bad

`now` is the error on rows that no number was fitted to, by which a goal is met or not; `as shipped` that of the same
rows with the shipped constants, where these were fitted to some of them. Constants are fitted again without a model, or
without a degree of parallelism where all runs are of one model (Splitwise), or without a device: see *Leave models,
degrees or devices out*. Energy of static batches counts runs that state energy, or power and time.
"""
BAD_RUNS = """Static runs with a median error beyond 30%, worst first (groups of 20 values and more). A roofline
column that is as bad or worse does not make these good: do not rely on them.
"""
STATIC = """## Whole runs, static batches

By device, engine and metric. `in 90%`: for measured devices the interval has not seen the model, for others not the
device.
"""
STEADY = """## Steady serving

Requests follow one another at a constant number in flight, and their prompts run between or beside the others' decode
steps; TTFT includes queueing. Predictions are the steady state of that number (`simulator.steady`). All clients are
taken to begin at once and to send ten requests each. Where lengths are drawn at random (from 0.8 of the stated ones up)
later requests of different clients part; where all are alike they stay together. Of ML.ENERGY, prompts are taken to have
300 tokens, as the source does not state them; its rates are requests in flight over time per request.
"""
LOADED = """## Steady serving at a load that is assumed

MLPerf Inference states a scenario and no number of requests. `offline` is predicted as the steady state of as many as
fit beside the weights, at most 2,048 a replica; `server` as that of as many as keep within the limits of the benchmark
with 99 of 100 requests. Assumed as well: mean lengths of the data sets, weights in the narrowest float of 8 or 4 bits
that the device multiplies, a cache in 8 bits, and replicas of the fewest devices of which weights fill half. These rows
inform no parameter and no interval, and are in no other table.
"""
ENERGY = """## What the error in energy is made of

Runs that report power, static and steady. Energy is power times time; `at measured time` gives a run that took longer
than predicted its measured time, with the devices waiting for the rest, so that it is the error of power alone. Weights
are of one device.
"""
SIZES = """## By size

Times of static batches on A100, H100 and H200, by batch and by input and output tokens together.
"""
HELD_OUT = """## Leave one device out: runs

Each device predicted as if its architecture had never been measured: kernel parameters fitted on the other
architecture's devices alone, measured constants of engines found again on the other architecture's runs alone.
`shipped median` is the median error with the shipped parameters. Below them, devices that no parameter was ever
fitted on: they use those of their class. Times from the first token to the last (`e2el_s`); of devices of a class
`tpot_s` as well.
"""
FOLDS = """## Leave models, degrees or devices out: constants of engines

A few constants of engines (host time per step, sequence and prompt; launches from Python; a server's time) can only be
seen in whole runs. Here each is fitted again to the runs that are left when models (in five parts), tensor-parallel
degrees or devices (one at a time) are left out, and predicts those (`python -m validation.folds`); kernels stay as they
are. `shipped` is the prediction of the same rows with the constants as they ship. Choices between a few forms of a
formula, the wait of ranks (20 us for all engines of those years) and that waiting SXM modules draw what running ones
do, were made with all rows in view and are not made again. The time per launch of a host is not fitted: it is the A100's
by the speed of one thread of the hosts' CPUs; with one time per launch for both hosts, constants of one device do not
hold on the other.
"""
CONSTANTS = """The constants of each part; far apart, they cannot be told from one another on the runs that are left:
"""
INTERVALS = """## Intervals

The interval of a prediction is the prediction times these ratios of measured to predicted (engines with measured
constants, static batches; `hardware/interval/shipped.yaml` has all). Quantiles of ln(measured / predicted) on runs
that the parameters were not fitted to: the shortest interval with the weight of 0.9 (K+1) + 0.5 of K cells. A cell
is a device, model and engine for measured devices, a device for others; each weighs the same, however many rows it
has. Groups of fewer than 20 cells are pooled as stated. Measurements that datasheet rates do not allow count neither
here nor for the coverage. `in-grid`: device and engine measured, sizes inside the measured range; `extrapolated`:
measured, sizes at or beyond the ends of the range; `transferred`: parameters of other devices; `datasheet`: assumed
parameters. The less a prediction rests on, the wider: by construction. Devices that carry the tag `datasheet` without
any run of their class (microcontrollers, PIM, storage, accelerators) get the interval of CPUs and boards, which is a
guess.
"""
COVERAGE = """### Coverage

Intervals computed without the model, or without the device and all with the same chip, scored on what was left out.
The column to look at is `unseen models` for `in-grid` and `extrapolated`, and `unseen devices` for `transferred` and
`datasheet`.
"""
COVERAGE_METRIC = """By metric, where the right thing was held out; `of rows` weighs rows instead of cells. Metrics
with few cells are uneven, and power is the weakest.
"""
BAD_KERNELS = """## Kernels

Kernels with a median error beyond 30%, worst first:
"""
KERNELS = """### By device, engine, op and format

Seconds of single kernels. `hf` on the fp32 tables is eager PyTorch, which multiplies fp32 in fp32, not in TF32.
"""
KERNEL_SIZES = """### By size

bf16, all engines. Sizes are rows of a product; sequences times cached positions of attention.
"""
KERNELS_HELD_OUT = """### Leave one device out: kernels

Parameters fitted on the shipped tables of other devices alone. A100 and Hopper are different architectures; H100 and
H200 are one chip with different memories, which is why they predict each other so well.
"""
FITTED = """## What was fitted on what

Parameters with a measured source, and the rows behind them. Rows of LLM-Inference-Bench (Argonne) on A100 and H100
with vLLM, TensorRT-LLM and llama.cpp, of Splitwise and of ML.ENERGY informed host times of engines, so these runs with
shipped constants are not an independent test; the tables of held-out models, degrees and devices are. No energy of a run
has informed a number. All other runs, and all of H200, MI300X, Max 1550, L40S, RTX, Apple, CPUs and boards, have
informed no parameter. Kernel tables of A100 and H100 informed their
calibrations, but for the weight shapes, head counts and message sizes that `validation.fit` holds out; those of H200
and the fp32 operators informed none.
"""
ODD = "## Known oddities of the measured data\n"
RESIDUAL = """## What the residual is made of

Whole static runs on measured devices, engines with measured constants. Each row of the table takes the mean of its
groups away from ln(measured / predicted), within the groups of the rows above it: a property that takes much away is
modelled badly on average; what is left at the end differs between rows that agree in all of them.
"""
VERSIONS = """By engine as the table states it; a version is rarely stated, and what was measured spans years:
"""
REPEATS = """How far do measurements of one and the same configuration differ in the tables themselves? Distance from
the group's median; no prediction can be closer than this on average. Rows of llama.cpp differ in the prompt chunk,
which is not predicted.
"""
PRODUCTS = """The same bf16 product in the tables of several frameworks, all of which call the vendor's library:
"""
REMAINDER = """### Kernels, on shapes that no fit has seen

![Error against size](images/accuracy-size.png)

What error would be left if a property were known exactly, that is with the median residual of each of its groups taken
away, property within property; but for the size and how full the last tile is, which stand apart from the others. The
last lines are a floor for any law that is smooth in the size: how far a kernel's residual lies from the mean of its two
neighbours in size, all else equal. That much is choices between kernels from one size to the next, and noise of the
measurement. What lies between them and `bias by shape` is bent along the size; what lies between the first line and
`bias by shape` is a matter of heads, windows, experts or weight shapes.

Half of the sizes of products beyond 256 rows are one row more than whole tiles. The kernels of vLLM and SGLang for FP8
take longer for tiles with one row than for full ones, so that a product of 257 rows may take longer than one of 512. No
prediction follows that, because here more rows never take less time: it lies between the two. Products of 2 to 16 rows
are one tile in those engines, whatever their number, so that the spread of their times is noise of the measurement.
"""
SIX = """### Six figures

No parameter has seen these. A short prompt alone on the device is the hardest: host time and launches make it up.
"""
