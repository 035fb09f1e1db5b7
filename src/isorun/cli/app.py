"""The commands and their options, for typer. Nothing heavy is imported before a command runs."""

from importlib import import_module
from typing import Annotated

import typer

from isorun.cli import cleanup, config, doctor, image, run, runs, tools

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

_tools = typer.Typer(help="The tools of a bundle.", no_args_is_help=True)
_tools.command("ls")(tools.ls)
_tools.command("describe")(tools.describe)
_tools.command("call")(tools.call)
app.add_typer(_tools, name="tools")

_image = typer.Typer(help="The image of the Docker backend.", no_args_is_help=True)
_image.command("build")(image.build)
app.add_typer(_image, name="image")

_config = typer.Typer(help="Settings.", no_args_is_help=True)
_config.command("show")(config.show)
app.add_typer(_config, name="config")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        import isorun

        typer.echo(f"isorun {isorun.__version__}")
        raise typer.Exit


_WHOLE = {"allow_extra_args": True, "ignore_unknown_options": True}  # the command's own parser reads them


@app.command("demo", context_settings=_WHOLE, add_help_option=False)
def demo(context: typer.Context) -> int:
    """A program works on real data inside the walls, and fails to get out."""
    return _run_late("demo", context)


@app.command("scenario", context_settings=_WHOLE, add_help_option=False)
def scenario(context: typer.Context) -> int:
    """Run the scenarios of the example bundle, expected verdicts beside real ones."""
    return _run_late("scenario", context)


def _run_late(name: str, context: typer.Context) -> int:
    """Import a command that is heavy only once it is wanted."""
    inner = typer.Typer(add_completion=False)
    inner.command(name)(getattr(import_module(f"isorun.cli.{name}"), name))
    code = inner(args=context.args, prog_name=f"isorun {name}", standalone_mode=False)
    return code if isinstance(code, int) else 0
