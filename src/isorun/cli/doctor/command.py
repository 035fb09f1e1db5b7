"""`isorun doctor`: what this machine has for the walls, which of them really stand, and what `--fix` can mend."""

from __future__ import annotations

from isorun.cli.parsing import BACKEND, JSON, option

OPTIONS = {
    "doctor": (
        BACKEND,
        option("--production", "Check too what a service needs that runs day and night."),
        option("--verbose", "Show every check, not only those that failed."),
        option("--fix", "Carry out what mends a failed check, asking before each."),
        option("--yes", "With --fix: ask nothing."),
        JSON,
    )
}


def doctor(
    backend: str | None = None,
    production: bool = False,
    verbose: bool = False,
    fix: bool = False,
    yes: bool = False,
    json: bool = False,
) -> int:
    """Look at this machine, run a program, and say which walls stand; exit 4 if not all do."""
    from isorun.cli.doctor.checkup import look, settings_with
    from isorun.cli.doctor.fixing import Fixing
    from isorun.cli.exits import EXIT
    from isorun.cli.show import print_json
    from isorun.core.errors import InvalidRequest, Unavailable

    if yes and not fix:
        raise InvalidRequest("--yes answers what --fix asks: give --fix too, or leave it out")
    fixing = Fixing(lambda: look(settings_with(backend), in_production=production), yes=yes, quiet=json)
    report = fixing.look()
    if not json:
        report.print(verbose=verbose)
    if fix:
        report = fixing.mend(report)
    if json:
        print_json({**report.as_json(), **({"fixes": fixing.told} if fix else {})})
    elif any(one["outcome"] == "done" for one in fixing.told):
        report.print_verdict()
    return EXIT[Unavailable] if report.failed else 0
