"""`isorun config`: every setting and where it came from; which files of settings are trusted."""

import sys
from pathlib import Path

from isorun.cli.parsing import JSON, option

_FILE = Path(".env.backend")
OPTIONS = {
    "show": (option("--env-file FILE", "A file of settings, NAME=value.", type=Path), JSON),
    "trust": (
        option("file FILE", f"The file to trust (default: {_FILE}).", nargs="?", type=Path),
        option("--revoke", "Trust it no longer."),
        JSON,
    ),
}


def show(env_file: Path | None = None, json: bool = False) -> int:
    """Every setting with its value, its source, and the name it was read from."""
    from dataclasses import asdict

    from isorun.cli.show import print_json, print_table
    from isorun.core.text import one_line
    from isorun.settings import Settings

    settings = Settings.load(env_file)
    for warning in settings.warnings:
        print("isorun: warning:", one_line(warning), file=sys.stderr)  # noqa: T201 - for the user
    rows = settings.rows()
    if json:
        told = {"warnings": list(settings.warnings), "ignored": list(settings.ignored)}
        print_json({"settings": [asdict(row) for row in rows], **told})
    else:
        print_table(
            ("name", "value", "source", "name used"),
            [(row.name, "-" if row.value is None else row.value, row.source, row.name_used) for row in rows],
        )
    return 0


def trust(file: Path = _FILE, revoke: bool = False, json: bool = False) -> int:
    """Let the settings file *file* say everything, as it is now; or no longer."""
    from isorun import env_file
    from isorun.cli.show import print_json, say
    from isorun.settings import ENV_FILE, process_environment

    environ, path = process_environment(), file.resolve()
    names: list[str] = []
    if revoke:
        gone = env_file.forget(file, environ)
        told = f"{path} is not trusted any more" if gone else f"{path} was not trusted"
    else:
        trusted = env_file.trust(file, environ)
        names = list(trusted.values)
        told = f"{path} is trusted as it is now: {', '.join(names) or 'it sets nothing'}"
        if path.name != ENV_FILE:
            told += f". Only a file called {ENV_FILE} is read without being named"
    if json:
        print_json({"file": str(path), "trusted": not revoke, "names": names})
    else:
        say(told)
    return 0
