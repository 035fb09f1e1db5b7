"""`isorun cleanup`: what runs that are over, and hosts that died, have left.

It must not touch anything of a living host: runs have leases, cgroups the pid and
start time of their owner, staging folders a process that names them.
"""

from __future__ import annotations

from typing import Annotated

import typer


def cleanup(
    older_than: Annotated[
        float | None,
        typer.Option(help="Of runs that have ended (default: ISORUN_RETENTION_HOURS).", metavar="HOURS"),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Remove every run that has ended.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Remove old runs, end lost ones, and clear what dead hosts left behind."""
    import math

    from isorun.cli.show import print_json, say
    from isorun.cli.tidy import tidy
    from isorun.core.errors import InvalidRequest
    from isorun.settings import Settings

    if all_ and older_than is not None:
        raise InvalidRequest("--all and --older-than contradict each other; leave out one")
    settings = Settings.load()
    hours = 0.0 if all_ else settings.retention_hours if older_than is None else older_than
    if not 0 <= hours < math.inf:
        raise InvalidRequest(f"--older-than must be a number of hours, 0 or more, got {hours}")
    found = tidy(settings, hours=hours)
    if json:
        print_json(found)
        return 0
    for what, names in found.items():
        say(f"{what.replace('_', ' ')}: {len(names)}")
        for name in names:
            say(f"  {name}")
    return 0
