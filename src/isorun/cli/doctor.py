"""`isorun doctor`: what this machine has for the walls, and which of them really stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from isorun.backends.doctor import Check
    from isorun.settings import Settings

_PROGRAM = "print('a sealed program says hello')"


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> int:
    """Look at this machine, run a program, and say which walls stand; exit 4 if not all do."""
    from dataclasses import asdict

    from isorun.backends import doctor as probes
    from isorun.cli.exits import EXIT
    from isorun.cli.show import print_json
    from isorun.core.errors import Unavailable
    from isorun.settings import Settings, get_exec_workspace_root

    settings = Settings.load()
    host = probes.examine(settings, get_exec_workspace_root(settings))
    if settings.bundle is not None:
        host.append(_bundle(settings, settings.bundle))
    run, isolation = _trial(settings)
    walls = probes.walls_of(isolation) if isolation else []
    ok = run.ok and all(check.ok for check in host if check.name == "bundle")
    if json:
        print_json(
            {
                "ok": ok,
                "host": [asdict(check) for check in host],
                "run": asdict(run),
                "walls": [asdict(check) for check in walls],
                "isolation": isolation,
            }
        )
    else:
        _print(host, run, walls)
    return 0 if ok else EXIT[Unavailable]


def _bundle(settings: Settings, root: Path) -> Check:
    """Whether the bundle's tools can be loaded, by the process that would hold them."""
    import asyncio

    from isorun.backends.doctor import Check
    from isorun.cli.tools import load
    from isorun.core.errors import IsorunError

    try:
        tools = asyncio.run(load(settings, root))
    except IsorunError as error:
        return Check("bundle", False, str(error), "correct the bundle, or unset ISORUN_BUNDLE")
    return Check("bundle", True, f"{root}: {len(tools)} tools in {len({i.partition('.')[0] for i in tools})} modules")


def _trial(settings: Settings) -> tuple[Check, dict[str, Any] | None]:
    """Whether one program ran behind every wall, and what the kernel said of them."""
    from dataclasses import replace

    import isorun
    from isorun.backends.doctor import Check
    from isorun.core.errors import IsorunError

    try:
        result = isorun.run(
            _PROGRAM, settings=replace(settings, bundle=None), timeout_s=min(30.0, settings.limits().wall_s)
        )
    except IsorunError as error:
        remedy = "what failed above, else the error itself, names the remedy"
        return Check("a program, sealed", False, f"{type(error).__name__}: {error}", remedy), None
    isolation = dict(result.isolation)
    total = result.timings["total_s"]
    detail = f"{result.status}, isolation {isolation['level']}, whole run {total * 1000:.0f} ms"
    ok = result.ok and isolation["level"] == "full"
    remedy = "" if ok else f"read the logs: isorun runs logs {result.exec_id}"
    return Check("a program, sealed", ok, detail, remedy), isolation


def _print(host: list[Check], run: Check, walls: list[Check]) -> None:
    from isorun.cli.show import print_table, say

    print_table(("", "this machine", "what was found"), _rows(host))
    if walls:
        print_table(("", "wall of the run", "what the kernel says"), _rows(walls))
    print_table(("", "trial", "result"), _rows([run]))
    if run.ok:
        say("every wall stands: programs run sealed here")
    else:
        say("programs cannot run sealed here; nothing weaker is started")


def _rows(checks: list[Check]) -> list[tuple[str, str, str]]:
    found = [(check, f"\n→ {check.remedy}" if check.remedy else "") for check in checks]
    return [("ok" if check.ok else "FAILED", check.name, check.detail + remedy) for check, remedy in found]
