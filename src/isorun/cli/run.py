"""`isorun run`: one program, its output as it arrives, and a verdict."""

from pathlib import Path
from typing import Annotated

import typer

from isorun.cli.early import Early


def run(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="The program, or - for stdin.", metavar="FILE|-")],
    args: Annotated[list[str] | None, typer.Argument(help="What follows -- is the program's sys.argv[1:].")] = None,
    turn_id: Annotated[str | None, typer.Option(help="The turn whose folder the program writes to.")] = None,
    side_effects: Annotated[
        bool, typer.Option("--side-effects", help="No contract: report what changed in out/ (the default).")
    ] = False,
    contract: Annotated[
        str | None, typer.Option(help="The files the program promises: JSON, or @FILE.", metavar="JSON|@FILE")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Wall seconds.", metavar="SECONDS")] = None,
    input: Annotated[  # noqa: A002 - the option's name
        list[Path] | None, typer.Option(help="A file or folder for the program, beside it; may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Copy out/ to this folder, which must be new or empty.")] = None,
    backend: Annotated[str | None, typer.Option(help="auto, namespace or docker.")] = None,
    python: Annotated[Path | None, typer.Option(help="The Python that the program runs on.")] = None,
    preload: Annotated[list[str] | None, typer.Option(help="A module to import before the fork; may be repeated.")] = None,
    env_file: Annotated[Path | None, typer.Option(help="A file of settings, NAME=value.")] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Give our stdin to the program.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON, and nothing else.")] = False,
) -> int:
    """Run a program sealed; exit with its code (README: the table of exit codes)."""
    from isorun.cli import session

    wanted = session.Wanted(
        file=file,
        args=tuple(args or ()),
        turn_id=turn_id,
        side_effects=side_effects,
        contract=contract,
        timeout_s=timeout,
        inputs=tuple(input or ()),
        out=out,
        backend=backend,
        python=python,
        preload=tuple(name for names in preload or () for name in names.split(",")),
        env_file=env_file,
        stdin=stdin,
        json=json,
    )
    return session.conduct(wanted, context.find_object(Early))
