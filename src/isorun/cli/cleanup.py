"""`isorun cleanup`: what runs that are over, and hosts that died, have left.

It must not touch anything of a living host, see `tidy`.
"""

from __future__ import annotations

import sys

from isorun.cli.parsing import JSON, hours, option

OPTIONS = {
    "cleanup": (
        option("--older-than TIME", "Of ended runs: hours, or as 7d (default: ISORUN_RETENTION_HOURS).", type=hours),
        option("--all", "Remove every run that has ended.", dest="all_"),
        JSON,
    )
}


def cleanup(older_than: float | None = None, all_: bool = False, json: bool = False) -> int:
    """Remove old runs, end lost ones, and clear what dead hosts left behind."""
    import math

    from isorun.cli.exits import EXIT
    from isorun.cli.show import print_json, say
    from isorun.core.errors import CleanupFailed, InvalidRequest
    from isorun.core.text import printable
    from isorun.doctor.tidy import tidy
    from isorun.settings import Settings

    if all_ and older_than is not None:
        raise InvalidRequest("--all and --older-than contradict each other; leave out one")
    settings = Settings.load()
    least = 0.0 if all_ else settings.retention_hours if older_than is None else older_than
    if not 0 <= least < math.inf:
        raise InvalidRequest(f"--older-than must be a number of hours, 0 or more, got {least}")
    found = tidy(settings, hours=least)
    code = EXIT[CleanupFailed] if found.problems else 0
    if json:
        print_json({**found.gone, "problems": found.problems})
        return code
    for problem in found.problems:
        print("isorun:", printable(problem), file=sys.stderr)  # noqa: T201 - for the user
    for what, names in found.gone.items():
        say(f"{what.replace('_', ' ')}: {len(names)}")
        for name in names:
            say(f"  {name}")
    return code
