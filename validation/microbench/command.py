"""`ridgeline calibrate`: measure this machine, write its device file and calibration, and check them on a layer."""

from __future__ import annotations

from pathlib import Path

import click

GROUPS = ("processor", "gemm", "attention", "elementwise", "copy", "layer")


@click.command("calibrate")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the processor. Default: its usable cores.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Catalog folder to write to. Default: the "
              "first of RIDGELINE_PATH, else ./ridgeline, which is searched too.")  # fmt: skip
@click.option("--name", help="Name of the device. Default: made of the product's name.")
@click.option("--only", multiple=True, type=click.Choice(GROUPS), help="Measure only this. Repeatable. Default: all.")
@click.option(
    "--small", "--quick", is_flag=True, help="Tiny sizes, in seconds: a trial of the way, not of the machine."
)
@click.option("--keep-noisy", is_flag=True, help="Write files even where most measurements scatter.")
@click.option("--dry-run", is_flag=True, help="Say what would be measured and written; measure nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    device: str, threads: int | None, out: Path | None, name: str | None, only: tuple[str, ...], small: bool,
    keep_noisy: bool, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure this machine; write its device file and calibration, and check them on a transformer layer.

    \b
    ridgeline calibrate
    ridgeline calibrate --device cuda --out mine
    """
    import json

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from simulator.errors import ScenarioError
    from simulator.spec.hardware import DeviceSpec
    from validation.microbench.report import show, show_target, to_dict
    from validation.microbench.run import Options, calibrate, find_target

    pattern = DeviceSpec.model_fields["name"].metadata[0].pattern
    if name is not None:
        import re

        if not re.match(pattern, name):
            raise ScenarioError(
                f"--name '{name}': only lower-case letters, digits, '.', '_' and '-', beginning with the first two"
            )
    options = Options(device, threads, out, name, small, only or GROUPS, keep_noisy)
    target = find_target(options)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    if dry_run:
        if as_json:
            found = {
                "name": target.name,
                "cpu": target.cpu.to_dict(),
                "gpu": target.gpu.to_dict() if target.gpu else None,
            }
            click.echo(json.dumps(found, indent=1))
        else:
            show_target(target, options, console)
        return
    if not as_json:
        show_target(target, options, console)
    columns = (TextColumn("{task.description:60.60}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("start", total=1.0)
        outcome = calibrate(target, options, lambda what, share: bar.update(task, description=what, completed=share))
    if as_json:
        click.echo(json.dumps(to_dict(outcome), indent=1, allow_nan=False))
        return
    show(outcome, console)
