"""`ridgeline train`: one optimizer step, for people or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from simulator.cli.scenario import ONE_OF_EACH, WORK, options

if TYPE_CHECKING:
    from simulator.train import TrainingPrediction
    from simulator.views.document import Block

SHAPE: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("--micro-batch",),
        {"type": int, "default": 1, "show_default": True, "help": "Samples that a rank runs at once."},
    ),
    (
        ("--sequence", "sequence_tokens"),
        {"type": int, "default": 2048, "show_default": True, "help": "Tokens of a sample, where it is made of tokens."},
    ),
    (
        ("--accumulate", "gradient_accumulation"),
        {"type": int, "default": 1, "show_default": True, "help": "Micro-batches per optimizer step."},
    ),
    (("--tp",), {"type": int, "default": 1, "show_default": True, "help": "Tensor-parallel ranks."}),
    (("--pp",), {"type": int, "default": 1, "show_default": True, "help": "Pipeline stages (1F1B)."}),
    (("--dp",), {"type": int, "help": "Data-parallel ranks. Default: what tp and pp leave over of a system, or 1."}),
    (("--ep",), {"type": int, "default": 1, "show_default": True, "help": "Expert-parallel ranks."}),
)
METHOD: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--recompute",), {"default": "none", "show_default": True, "help": "none, selective (attention) or full."}),
    (("--optimizer",), {"default": "adamw", "show_default": True, "help": "adamw, adamw8bit, sgd, lion, ..."}),
    (("--zero", "zero_stage"), {"type": int, "default": 0, "show_default": True, "help": "ZeRO stage, 0 to 3."}),
    (("--lora-rank",), {"type": int, "help": "Train adapters of this rank and freeze the rest."}),
    (
        ("--weight-dtype",),
        {"help": "Of trained weights and arithmetic; with --lora-rank int8, int4, ...: of the frozen weights."},
    ),
    (("--gradient-dtype",), {"help": "Default: that of the weights."}),
    (("--engine",), {"default": "native", "show_default": True, "help": "native, deepspeed, ..., or ideal."}),
)


@click.command("train")
@options(WORK[:1], ONE_OF_EACH[:1], SHAPE, METHOD)
@click.option("--schedule", help="Simulate the pipeline: gpipe, 1f1b or interleaved.")
@click.option(
    "--model-chunks", type=int, default=2, show_default=True, help="Parts of the layers per interleaved stage."
)
@click.option("--explain", is_flag=True, help="Every op of one rank's step with the terms of its time.")
@click.option("--json", "as_json", is_flag=True, help="Stable keys in SI units; with --explain also `ops`.")
def command(schedule: str | None, model_chunks: int, explain: bool, as_json: bool, **named: Any) -> None:
    """Time, memory, energy and cost of one optimizer step.

    \b
    ridgeline train --model llama-2-7b --hardware dgx-a100 --zero 3 --recompute full --micro-batch 4 --sequence 4096
    """
    from simulator.train import predict_training

    prediction = predict_training(**named)
    simulated = None
    if schedule is not None:
        from simulator.events.schedules import simulate_training

        simulated = simulate_training(prediction.scenario, schedule, model_chunks)  # type: ignore[arg-type]
    if as_json:
        from simulator.views.records import op_record, to_json

        found = prediction.to_dict()
        if explain:
            found["ops"] = [op_record(op) for op in prediction.ops()]
        if simulated is not None:
            found["timeline"] = {
                "schedule": simulated.schedule,
                "step_s": simulated.seconds,
                "bubble_share": simulated.bubble_share,
                "passes_in_flight": list(simulated.in_flight),
            }
        click.echo(to_json(found))
        return
    from simulator.views import text
    from simulator.views.document import as_text

    blocks = _blocks(prediction)
    if simulated is not None:
        from simulator.views.simulation import schedule_section

        blocks.insert(1, schedule_section(simulated))
    if explain:
        title = "One rank's step, all micro-batches, before exchanges are hidden"
        blocks.append(text.ops_table(prediction.ops(), title))
    click.echo(as_text(_heading(prediction), blocks))


def _heading(prediction: TrainingPrediction) -> list[str]:
    from simulator.mapping.machine import load_machine

    asked, names = prediction.scenario, prediction.provenance
    machine = load_machine(asked.hardware)
    words = [f"micro-batch {asked.micro_batch}"]
    if prediction.tokens_per_s is not None:
        words.append(f"{asked.sequence_tokens} tokens")
    words.append(f"{asked.gradient_accumulation} per step")
    if prediction.devices > 1:
        degrees = [f"{axis} {names[axis]}" for axis in ("tp", "pp", "ep", "dp") if names[axis] > 1]
        words.append(f"{prediction.devices} devices ({', '.join(degrees)})")
    words += [asked.optimizer, f"ZeRO {asked.zero_stage}", f"recompute {asked.recompute}"]
    if asked.lora_rank is not None:
        words.append(f"adapters of rank {asked.lora_rank}")
    title = f"Training {names['model']} on {machine.title} ({names['hardware']}), engine {names['engine']}"
    return [title, ", ".join(words)]


def _blocks(prediction: TrainingPrediction) -> list[Block]:
    """Time, memory, energy, cost, and how sure it is: the sections of `predict`."""
    from simulator.units import in_engineering
    from simulator.views import text
    from simulator.views.document import Paragraph, Section

    between, names = prediction.interval, prediction.provenance
    step = text.duration(prediction.step_s), text.bounds_text(between["step_s"], "s")
    time = [("optimizer step", *step)]
    for label, key in (("tokens/s", "tokens_per_s"), ("samples/s", "samples_per_s")):
        value = getattr(prediction, key)
        if value is not None:
            time.append((label, text.plain(value), text.bounds_text(between[key], "")))
    time.append(("model FLOPs", in_engineering(prediction.model_flops, "FLOP"), "forward and backward, nothing twice"))
    low, high = between["mfu"]
    time.append(("MFU", f"{prediction.mfu:.1%}", f"{low:.1%} to {high:.1%}"))
    time.append(("pipeline bubble", f"{prediction.bubble_share:.1%}", ""))
    time.append(("exposed communication", f"{prediction.communication_share:.1%}", ""))
    time.append(("bound by", prediction.bound, ""))
    memory = [(str(role), in_engineering(size, "B"), "") for role, size in prediction.memory_by_role_bytes.items()]
    share = prediction.memory_bytes / prediction.capacity_bytes if prediction.capacity_bytes else float("inf")
    verdict = "fits" if prediction.fits else "DOES NOT FIT"
    usable = f"{share:.0%} of {in_engineering(prediction.capacity_bytes, 'B')} usable: {verdict}"
    memory.append(("all", in_engineering(prediction.memory_bytes, "B"), usable))
    energy = [
        ("per step", in_engineering(prediction.energy_j, "J"), text.bounds_text(between["energy_j"], "J")),
        ("average power", in_engineering(prediction.power_w, "W"), "all devices"),
    ]
    parts = sorted(prediction.energy_by_component_j.items(), key=lambda item: -item[1])
    energy += [
        (f"  {name}", in_engineering(joules, "J"), f"{joules / prediction.energy_j:.0%} of the step")
        for name, joules in parts
        if joules > 0
    ]
    price = names["price"] or "no price of this hardware is known"
    cost = [("USD per step", text.money(prediction.usd_per_step), price)]
    if prediction.tokens_per_s is not None:
        cost.append(("USD per billion tokens", text.money(prediction.usd_per_billion_tokens), ""))
    sure = [(f"calibration {names['calibration']}", names["tag"], "fitted on inference kernels, not on training")]
    if names["assumed"]:
        sure.append(("assumed numbers", str(len(names["assumed"])), text.assumed_kinds(names["assumed"])))
    blocks: list[Block] = [
        Section("Time (with 90% intervals)", tuple(time)),
        Section("Memory of the fullest device", tuple(memory)),
        Section("Energy", tuple(energy)),
        Section("Cost", tuple(cost)),
        Section("How sure", tuple(sure)),
    ]
    if prediction.advice:
        blocks.insert(2, Paragraph(f"It does not fit: {prediction.advice}."))
    return blocks
