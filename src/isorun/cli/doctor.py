"""`isorun doctor`: what this machine has for the walls, and which of them really stand."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isorun.backends.docker_doctor import Found
    from isorun.backends.doctor import Check
    from isorun.runtime.result import RunResult
    from isorun.settings import Settings

_PROGRAM = "print('a sealed program says hello')"
_NOTE = "await local_tools.write_note(text='a note of isorun doctor')"
_CALL = re.compile(r"\[tool_call\] local_tools\.write_note \S+ ok .*")
_READY = re.compile(r"\[supervisor\] ready .*redis=(\w[\w ]*?) postgres=(\w[\w ]*)")


def doctor(
    backend: Annotated[
        str | None, typer.Option(help="auto, namespace or docker (default: ISORUN_BACKEND).", metavar="NAME")
    ] = None,
    production: Annotated[
        bool, typer.Option("--production", help="Check too what a service needs that runs day and night.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Look at this machine, run a program, and say which walls stand; exit 4 if not all do."""
    from isorun.backends import docker_doctor
    from isorun.backends import doctor as probes
    from isorun.cli.exits import EXIT
    from isorun.core.errors import Unavailable
    from isorun.settings import get_exec_workspace_root

    settings = _settings(backend)
    root, docker = get_exec_workspace_root(settings), settings.backend == "docker"
    host = probes.examine(settings, root)
    if settings.bundle is not None:
        host.append(_bundle(settings, settings.bundle))
    found = docker_doctor.examine(settings, root, start=docker)
    run, isolation = _trial(settings)
    checklist = [*_checklist(settings, root, found), *_tool_trial(settings, root)] if production else []
    report = Report(
        docker=docker,
        host=host,
        engine=found.checks,
        production=checklist,
        run=run,
        walls=probes.walls_of(isolation) if isolation else [],
    )
    if json:
        report.print_json(isolation)
    else:
        report.print()
    return EXIT[Unavailable] if report.failed else 0


def _settings(backend: str | None) -> Settings:
    """The settings, with *backend* in place of theirs. Raises `InvalidRequest`."""
    from dataclasses import replace

    from isorun.core.errors import InvalidRequest
    from isorun.settings import Settings

    settings = Settings.load()
    if backend is None:
        return settings
    if backend not in ("auto", "namespace", "docker"):
        raise InvalidRequest(f"there is no backend {backend!r}; use one of auto, namespace, docker")
    return replace(settings, backend=backend)  # type: ignore[arg-type]


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

    from isorun.backends.doctor import Check

    result = _run(_PROGRAM, replace(settings, bundle=None))
    if isinstance(result, str):
        return Check(
            "a program, sealed", False, result, "what failed above, else the error itself, names the remedy"
        ), None
    isolation = dict(result.isolation)
    total = result.timings["total_s"]
    detail = f"{result.status}, isolation {isolation['level']}, whole run {total * 1000:.0f} ms"
    ok = result.ok and isolation["level"] == "full"
    remedy = "" if ok else f"read the logs: isorun runs logs {result.exec_id}"
    return Check("a program, sealed", ok, detail, remedy), isolation


def _run(code: str, settings: Settings, **options: object) -> RunResult | str:
    """The result of one program, or why there is none."""
    import isorun
    from isorun.core.errors import IsorunError

    try:
        return isorun.run(code, settings=settings, timeout_s=min(30.0, settings.limits().wall_s), **options)
    except IsorunError as error:
        return f"{type(error).__name__}: {error}"


def _checklist(settings: Settings, root: Path, found: Found) -> list[Check]:
    from isorun.backends import production

    return production.examine(production.look(settings, root, found, docker=settings.backend == "docker"))


def _tool_trial(settings: Settings, root: Path) -> list[Check]:
    """Whether a program's tool call is answered and logged, and what the supervisor reaches."""
    import shutil
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from isorun.tools.bundles import example_bundle

    example = example_bundle()
    # In a container the daemon's host has no path for what lies in the image, and has one for the folder of the runs.
    try:
        with TemporaryDirectory(prefix=".isorun-doctor-", dir=root) as place:
            bundle = Path(shutil.copytree(example, Path(place, example.name), copy_function=shutil.copy))
            Path(place).chmod(0o755)  # the supervisor's container is another user
            result = _run(_NOTE, replace(settings, bundle=bundle), tools=["local_tools.write_note"])
    except OSError as error:
        result = f"{root} cannot be used: {error.strerror}"
    if isinstance(result, str):
        return tool_checks("", result)
    log = result.out_dir / "logs" / "infra.log"
    return tool_checks(log.read_text(encoding="utf-8", errors="replace"), f"{result.status}: {log}")


def tool_checks(log: str, ended: str) -> list[Check]:
    """What a run's infra.log says of its tool call and of the supervisor; *ended* is how the run did."""
    from isorun.backends.doctor import Check

    call, ready = _CALL.search(log), _READY.search(log)
    checks = [
        Check("tool call, logged", True, call[0])
        if call
        else Check("tool call, logged", False, f"no such line: {ended}", "read that log, or the error")
    ]
    if ready is None:
        return [*checks, Check("supervisor's services", False, "no supervisor was ready", "read the error above")]
    said = f"redis {ready[1]}, postgres {ready[2]}"
    if "unreachable" in said:
        remedy = (
            "correct REDIS_URL, REDIS_HOST, DATABASE_URL, POSTGRES_HOST, or PY_CODE_EXEC_NETWORK_MODE; or start them"
        )
        return [*checks, Check("supervisor's services", False, said, remedy)]
    return [*checks, Check("supervisor's services", True, said)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that was found; `docker` says whether runs are containers."""

    docker: bool
    host: list[Check]
    engine: tuple[Check, ...]
    production: list[Check]
    run: Check
    walls: list[Check]

    @property
    def failed(self) -> list[Check]:
        """What decides: not the host's own lines, as the run has tried them, nor Docker's where none is used."""
        bundle = (check for check in self.host if check.name == "bundle")
        counted = (*bundle, *(self.engine if self.docker else ()), *self.production, self.run)
        return [check for check in counted if not check.ok]

    def print_json(self, isolation: dict[str, Any] | None) -> None:
        from isorun.cli.show import print_json

        print_json(
            {
                "ok": not self.failed,
                "host": [asdict(check) for check in self.host],
                "docker": [asdict(check) for check in self.engine],
                "production": [asdict(check) for check in self.production],
                "run": asdict(self.run),
                "walls": [asdict(check) for check in self.walls],
                "isolation": isolation,
            }
        )

    def print(self) -> None:
        from isorun.cli.show import print_table, say

        embedded, engine = ("-", "FAILED") if self.docker else ("FAILED", "-")
        print_table(("", "this machine", "what was found"), _rows(self.host, embedded))
        print_table(("", "Docker", "what was found"), _rows(self.engine, engine))
        if self.walls:
            print_table(("", "wall of the run", "what the kernel says"), _rows(self.walls))
        if self.production:
            print_table(("", "for production", "what was found"), _rows(self.production))
        print_table(("", "trial", "result"), _rows([self.run]))
        if not self.run.ok:
            say("programs cannot run sealed here; nothing weaker is started")
        elif self.failed:
            say(f"every wall stands, but not every check is ok: {', '.join(check.name for check in self.failed)}")
        else:
            say("every wall stands: programs run sealed here")


def _rows(checks: Iterable[Check], missing: str = "FAILED") -> list[tuple[str, str, str]]:
    """For a table; *missing* stands for what is not ok: `-` where nobody needs it."""
    found = [(check, f"\n→ {check.remedy}" if check.remedy else "") for check in checks]
    return [("ok" if check.ok else missing, check.name, check.detail + remedy) for check, remedy in found]
