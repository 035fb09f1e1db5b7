"""The commands and their options, for typer. Nothing heavy is imported before a command runs."""

from importlib import import_module
from typing import Annotated

import typer

from isorun.cli import cleanup, config, doctor, run, runs

#: What typer raises for a command line it cannot read; some versions have click beside them, some inside.
UsageError: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    help="Run Python that nobody has read, sealed, and know afterwards exactly what happened.",
    no_args_is_help=True,
    add_completion=False,
)
app.command("run")(run.run)
app.command("doctor")(doctor.doctor)
app.command("cleanup")(cleanup.cleanup)

_runs = typer.Typer(help="Stored runs.", no_args_is_help=True)
_runs.command("ls")(runs.ls)
_runs.command("show")(runs.show)
_runs.command("logs")(runs.logs)
_runs.command("rm")(runs.rm)
app.add_typer(_runs, name="runs")

_config = typer.Typer(help="Settings.", no_args_is_help=True)
_config.command("show")(config.show)
app.add_typer(_config, name="config")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        import isorun

        typer.echo(f"isorun {isorun.__version__}")
        raise typer.Exit


@app.command("demo", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def demo(context: typer.Context) -> int:
    """A program works on real data inside the walls, and fails to get out."""
    inner = typer.Typer(add_completion=False)
    inner.command("demo")(import_module("isorun.cli.demo").demo)
    code = inner(args=context.args, prog_name="isorun demo", standalone_mode=False)
    return code if isinstance(code, int) else 0
