"""`ridgeline sweep`: every point of a grid file, to a table."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("sweep")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="FILE.parquet or FILE.csv.")
@click.option("--resume", is_flag=True, help="Keep the points that --out already holds.")
def command(file: Path, out: Path | None, resume: bool) -> None:
    """Every point of a grid, to Parquet or CSV.

    \b
    ridgeline sweep grid.yaml --out grid.parquet --resume
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from simulator.errors import ScenarioError
    from simulator.sweep import run

    if resume and out is None:
        raise ScenarioError("--resume needs --out, the file to go on with")
    if out is not None and out.suffix not in (".parquet", ".csv"):
        raise ScenarioError(f"--out must end in .parquet or .csv, not '{out.suffix or out.name}'")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(file.name, total=None)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        frame = run(file, out, report, resume)
    if out is None:
        click.echo(frame.to_csv(index=False), nl=False)
    else:
        click.echo(f"{len(frame)} points in {out}")
