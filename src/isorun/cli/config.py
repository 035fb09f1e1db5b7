"""`isorun config show`: every setting, its value (secrets masked), and where it came from."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def show(
    env_file: Annotated[Path | None, typer.Option(help="A file of settings, NAME=value.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Every setting with its value, its source, and the name it was read from."""
    from dataclasses import asdict

    from isorun.cli.show import print_json, print_table
    from isorun.settings import Settings

    settings = Settings.load(env_file)
    for warning in settings.warnings:
        print("isorun: warning:", warning, file=sys.stderr)  # noqa: T201 - for the user
    rows = settings.rows()
    if json:
        print_json({"settings": [asdict(row) for row in rows], "warnings": list(settings.warnings)})
    else:
        print_table(
            ("name", "value", "source", "name used"),
            [(row.name, "-" if row.value is None else row.value, row.source, row.name_used) for row in rows],
        )
    return 0
