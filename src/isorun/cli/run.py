"""`isorun run` as typer knows it: the names, the help and the error of a slip. `options` reads the rest."""

from pathlib import Path
from typing import Annotated

import typer

_File = Annotated[str, typer.Argument(help="The program, or - for stdin.", metavar="FILE|-")]
_Args = Annotated[
    list[str] | None, typer.Argument(help="sys.argv[1:] of the program; put -- before them.", metavar="ARGS")
]
_TurnId = Annotated[str | None, typer.Option(help="The turn whose folder the program writes to.")]
_SideEffects = Annotated[
    bool, typer.Option("--side-effects", help="No contract: report what changed in out/ (the default).")
]
_Contract = Annotated[
    str | None, typer.Option(help="The files the program promises: JSON, or @FILE.", metavar="JSON|@FILE")
]
_Timeout = Annotated[float | None, typer.Option(help="Wall seconds.", metavar="SECONDS")]
_Input = Annotated[
    list[Path] | None, typer.Option(help="A file or folder for the program, beside it; may be repeated.")
]
_Out = Annotated[Path | None, typer.Option(help="Copy out/ to this folder, which must be new or empty.")]
_Backend = Annotated[str | None, typer.Option(help="auto, namespace or docker.")]
_Bundle = Annotated[Path | None, typer.Option(help="The folder whose tools the program may call.", metavar="DIR")]
_Tools = Annotated[
    str | None, typer.Option(help="Only these tools, ids with commas (default: all of the bundle).", metavar="IDS")
]
_Python = Annotated[Path | None, typer.Option(help="The Python that the program runs on.")]
_Preload = Annotated[list[str] | None, typer.Option(help="Modules to import beforehand, with commas; may be repeated.")]
_EnvFile = Annotated[Path | None, typer.Option(help="A file of settings, NAME=value.")]
_Stdin = Annotated[bool, typer.Option("--stdin", help="Give our stdin to the program.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the whole result as JSON, and nothing else.")]


def run(
    file: _File,
    args: _Args = None,
    turn_id: _TurnId = None,
    side_effects: _SideEffects = False,
    contract: _Contract = None,
    timeout: _Timeout = None,
    input: _Input = None,
    out: _Out = None,
    backend: _Backend = None,
    bundle: _Bundle = None,
    tools: _Tools = None,
    python: _Python = None,
    preload: _Preload = None,
    env_file: _EnvFile = None,
    stdin: _Stdin = False,
    json: _Json = False,
) -> int:
    """Run one program, sealed, and exit with its exit code."""
    from isorun.cli.options import Wanted, tool_ids
    from isorun.cli.session import conduct

    wanted = Wanted(
        file=file,
        args=tuple(args or ()),
        turn_id=turn_id,
        side_effects=side_effects,
        contract=contract,
        timeout_s=timeout,
        inputs=tuple(input or ()),
        out=out,
        backend=backend,
        bundle=bundle,
        tools=None if tools is None else tool_ids(tools),
        python=python,
        preload=tuple(name for names in preload or () for name in names.split(",")),
        env_file=env_file,
        stdin=stdin,
        json=json,
    )
    return conduct(wanted, None)
