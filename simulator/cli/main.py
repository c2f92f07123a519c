"""The `ridgeline` command: names and one-line descriptions of its commands, and how errors are shown.

Each command stands in a module of its own, imported when it is run, so that `ridgeline --help` loads nothing but click.
"""

from __future__ import annotations

from importlib import import_module
from typing import IO, Any

import click

from simulator import __version__
from simulator.errors import SimulatorError

COMMANDS: dict[str, tuple[str, str]] = {
    "predict": ("predict", "Latency, memory, energy and cost of one scenario."),
    "train": ("train", "Time, memory, energy and cost of one optimizer step."),
    "compare": ("compare", "One scenario on several devices, engines or techniques, as a table."),
    "sweep": ("sweep", "Every point of a grid, to Parquet or CSV."),
    "roofline": ("roofline", "Hierarchical roofline chart of a scenario's ops."),
    "simulate": ("simulate", "Event-driven timeline of one scenario: who waits for what."),
    "plan": ("plan", "The cheapest mix of hardware that serves a load within its SLO."),
    "validate": ("validation.command", "Predictions against measurements: end-to-end runs and kernels."),
    "regress": ("validation.regress", "Did predictions move or get worse, against the stored baselines?"),
    "calibrate": ("validation.microbench.command", "Measure this machine; write its device file and calibration."),
    "paper": ("validation.paper", "What a paper's technique does here, and what became of its claims."),
    "dashboard": ("dashboards.command", "What-if, roofline, comparison, timeline and papers in a browser."),
    "list": ("list", "Known hardware, models, techniques, papers and engines."),
    "import": ("import_model", "Read a config.json or ONNX file; write a model file."),
    "schema": ("schema", "JSON Schema of the files a user may write."),
}
"""Command -> its module, in `simulator.cli` unless it is dotted, and its description."""


class Failure(click.ClickException):
    """An error of the user's input: `error: ...` on stderr, exit code 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print without traceback or usage."""
        click.echo(f"error: {self.message}", err=True, file=file)


class LazyGroup(click.Group):
    """A group that imports a command when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of a working day rather than of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported."""
        if cmd_name not in COMMANDS:
            return None
        module = COMMANDS[cmd_name][0]
        command = import_module(module if "." in module else f"simulator.cli.{module}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a hint for a name that is nearly right."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from simulator.errors import close_matches

            near = close_matches(args[0], COMMANDS)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"no command '{args[0]}'{hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run, turning what a user can mend into a message."""
        try:
            return super().invoke(ctx)
        except SimulatorError as error:
            raise Failure(str(error)) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            raise Failure(f"{place}{error.strerror or error}") from None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ridgeline")
def main() -> None:
    """Predict what a neural network costs to run on hardware you do not have yet."""


if __name__ == "__main__":
    main()
