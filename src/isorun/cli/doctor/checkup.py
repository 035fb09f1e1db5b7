"""What `isorun doctor` looks at, in its order, and how that is printed."""

import asyncio
import errno
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import isorun
from isorun.backends.remedy import Action, Command
from isorun.cli.show import print_table, say
from isorun.cli.tools import load
from isorun.core.errors import InvalidRequest, IsorunError, Unavailable
from isorun.core.result import RunResult
from isorun.doctor import docker as docker_doctor
from isorun.doctor import namespace, production, world
from isorun.doctor.check import Finding, Row, check, failed, fine, said_by
from isorun.settings import BACKENDS, Settings, get_exec_workspace_root
from isorun.supervisor.serving.services import UNREACHABLE
from isorun.tools.bundles import example_bundle

_NO_REMEDY = "no other check failed: the error says what to do; report it if it does not"
_PROGRAM = "print('a sealed program says hello')"
_NOTE = "await local_tools.write_note(text='a note of isorun doctor')"
_CALL = re.compile(r"\[tool_call\] local_tools\.write_note \S+ ok .*")
_READY = re.compile(r"\[supervisor\] ready .* redis=(.+) postgres=(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that was found; `docker` says whether runs are containers."""

    docker: bool
    host: list[Row]
    engine: tuple[Row, ...]
    production: list[Row]
    run: Row
    walls: list[Row]
    isolation: dict[str, Any] | None = None

    @property
    def failed(self) -> list[Row]:
        """What decides: not the host's own lines, as the run has tried them, nor Docker's where none is used."""
        bundle = (row for row in self.host if row.name == "bundle")
        counted = (*bundle, *(self.engine if self.docker else ()), *self.production, self.run)
        return [row for row in counted if not row.ok]

    @property
    def rows(self) -> list[Row]:
        """Each row that is shown as failed if it is not ok: those too that do not decide."""
        bundle = [row for row in self.host if row.name == "bundle"]
        used = [*self.engine, *bundle] if self.docker else [*self.host, *self._tried]
        return [*used, *self.production, self.run]

    def as_json(self) -> dict[str, object]:
        """Every row, and what the run says of its walls."""
        return {
            "ok": not self.failed,
            "host": [asdict(row) for row in self.host],
            "docker": [asdict(row) for row in self.engine],
            "production": [asdict(row) for row in self.production],
            "run": asdict(self.run),
            "walls": [asdict(row) for row in self.walls],
            "isolation": self.isolation,
        }

    @property
    def _tried(self) -> tuple[Row, ...]:
        """The engine's lines, where `auto` has tried both backends and neither works."""
        return () if self.run.ok or not self.engine else self.engine

    def print(self, *, verbose: bool = False) -> None:
        """The verdict, then what failed, with what to type; the rest with *verbose*."""
        self.print_verdict()
        failed = [row for row in self.rows if not row.ok]
        if failed:
            print_rows("what failed", failed)
        if any(row.actions for row in failed):
            say("`isorun doctor --fix` does what can be typed here, and asks before each.")
        if not verbose:
            notes = [row for row in self.host if row.ok and row.name == "backend" and row.remedy]
            if notes:
                print_rows("to know", notes)
            say("`isorun doctor --verbose` shows every check.")
            return
        embedded, engine = ("-", "FAILED") if self.docker else ("FAILED", "-")
        tables = [("this machine", self.host, embedded), ("Docker", list(self.engine), engine)]
        for title, rows, missing in reversed(tables) if self.docker else tables:  # first what runs depend on
            if rows:
                print_rows(title, rows, missing=missing)
        if self.walls:
            print_rows("wall of the run", self.walls, "what the kernel says")
        if self.production:
            print_rows("for production", self.production)
        print_rows("trial", [self.run], "result")

    def print_verdict(self) -> None:
        """One line."""
        if not self.run.ok:
            say("programs cannot run sealed here; nothing weaker is started")
        elif self.failed:
            say(f"every wall stands, but not every check is ok: {', '.join(row.name for row in self.failed)}")
        else:
            say("every wall stands: programs run sealed here")


def print_rows(what: str, rows: Iterable[Row], said: str = "what was found", missing: str = "FAILED") -> None:
    """A table; *missing* stands for what is not ok: `-` where nobody needs it."""
    found = [(row, _next(row)) for row in rows]
    cells = [("ok" if row.ok else missing, row.name, row.detail + remedy) for row, remedy in found]
    print_table(("", what, said), cells, styles={"FAILED": "bold red", "ok": "green"})


def _next(row: Row) -> str:
    """What to do about *row*, and the commands of that as they are typed, if the text is not they."""
    told = f"\n→ {row.remedy}" if row.remedy else ""
    as_user = [f"sudo {action}" if _needs_root(action) else str(action) for action in row.actions]
    typed = " && ".join(as_user)
    return told if not typed or typed in row.remedy else f"{told}\n$ {typed}"


def _needs_root(action: Action) -> bool:
    return isinstance(action, Command) and action.as_root and os.geteuid() != 0


def look(settings: Settings, *, in_production: bool) -> Report:
    """Look at this machine and run a program; with *in_production* what a service needs, too."""
    root = get_exec_workspace_root(settings)
    run, isolation, error = _trial(settings)  # first: what `auto` is here, a run alone can tell
    settings, chosen = _chosen(settings, isolation, error)
    docker = settings.backend == "docker"
    host = [chosen, *namespace.examine(settings, root)]
    if settings.bundle is not None:
        host.append(_check_bundle(settings, settings.bundle))
    # Nobody who does not use Docker hears of it; only `auto` without a backend that works has tried it.
    asked = docker or (settings.backend == "auto" and isinstance(error, Unavailable))
    found = docker_doctor.examine(settings, root, start=docker) if asked or in_production else docker_doctor.Found()
    engine = found.checks if asked else ()
    run = _named(run, [row for row in (*(() if docker else host[1:]), *engine) if not row.ok])
    checklist = []
    if in_production:
        seen = world.look(settings, root, found, docker=docker, isolation=isolation)
        checklist = [*production.examine(seen), *tool_trial(settings, root)]
    return Report(
        docker=docker,
        host=host,
        engine=engine,
        production=checklist,
        run=run,
        walls=namespace.walls_of(isolation) if isolation else [],
        isolation=isolation,
    )


def _named(run: Row, failed: list[Row]) -> Row:
    """The trial, whose remedy names what failed beside it."""
    if run.ok or not failed:
        return run
    names = " and ".join(row.name for row in failed)
    return replace(run, remedy=f"mend {names}, then look again: isorun doctor")


def settings_with(backend: str | None) -> Settings:
    """The settings, with *backend* in place of theirs. Raises `InvalidRequest`."""
    settings = Settings.load()
    if backend is None:
        return settings
    if backend not in BACKENDS:
        raise InvalidRequest(f"there is no backend {backend!r}; use one of {', '.join(BACKENDS)}")
    return replace(settings, backend=backend)  # type: ignore[arg-type]  # checked above


def _chosen(settings: Settings, isolation: dict[str, Any] | None, error: IsorunError | None) -> tuple[Settings, Row]:
    """The settings with the backend that the trial run had in place of `auto`, and which that is and why."""
    if settings.backend != "auto":
        return settings, Row("backend", True, f"{settings.backend}, by name")
    if isinstance(error, Unavailable):
        return settings, Row("backend", False, "auto: none works here", "see the trial for the reason of each")
    if isolation is None:
        return settings, Row("backend", True, "auto: not known, because the trial failed for another reason")
    if not isolation["fallback"]:
        return settings, Row("backend", True, f"{isolation['backend']}, the first choice of auto")
    remedy = "name it (ISORUN_BACKEND=docker), or mend what keeps the namespace backend away"
    return replace(settings, backend=isolation["backend"]), Row("backend", True, isolation["fallback"], remedy)


@check("bundle")
def _check_bundle(settings: Settings, root: Path) -> Finding:
    """Whether the bundle's tools can be loaded, by the process that would hold them, where it would run."""
    try:
        tools = asyncio.run(load(settings, root, "docker" if settings.backend == "docker" else "namespace"))
    except IsorunError as error:
        return failed(said_by(error), "correct the bundle, or unset ISORUN_BUNDLE")
    return fine(f"{root}: {len(tools)} tools in {len({i.partition('.')[0] for i in tools})} modules")


def _trial(settings: Settings) -> tuple[Row, dict[str, Any] | None, IsorunError | None]:
    """Whether one program ran behind every wall, and what the kernel said of them; or why none ran."""
    name, result = "a program, sealed", _run(_PROGRAM, replace(settings, bundle=None))
    if isinstance(result, IsorunError):
        return Row(name, False, _failure(result), _NO_REMEDY), None, result
    isolation = dict(result.isolation)
    detail = f"{result.status}, isolation {isolation['level']}, whole run {result.timings['total_s'] * 1000:.0f} ms"
    ok = result.ok and isolation["level"] == "full"
    return Row(name, ok, detail, "" if ok else f"read the logs: isorun runs logs {result.exec_id}"), isolation, None


def _run(code: str, settings: Settings, **options: Any) -> RunResult | IsorunError:  # noqa: ANN401 - of isorun.run
    """The result of one program, or why there is none."""
    try:
        return isorun.run(code, settings=settings, timeout_s=min(30.0, settings.limits().wall_s), **options)
    except IsorunError as error:
        return error


def _failure(error: IsorunError) -> str:
    return f"{type(error).__name__}: {said_by(error)}"


def tool_trial(settings: Settings, root: Path) -> list[Row]:
    """Whether a program's tool call is answered and logged, and what the supervisor reaches."""
    example = example_bundle()
    # In a container the engine's host has no path for what lies in the image, and has one for the folder of the runs.
    try:
        with TemporaryDirectory(prefix=".isorun-doctor-", dir=root) as place:
            bundle = Path(shutil.copytree(example, Path(place, example.name), copy_function=shutil.copy))
            Path(place).chmod(0o755)  # the supervisor's container is another user
            result: RunResult | IsorunError | str = _run(
                _NOTE, replace(settings, bundle=bundle), tools=["local_tools.write_note"]
            )
    except OSError as error:
        cause = _cause(error)
        room = "; free space there, or set ISORUN_WORKSPACE_ROOT" if os.strerror(errno.ENOSPC) in cause else ""
        result = f"{root} cannot be used: {cause}{room}"
    if not isinstance(result, RunResult):
        return tool_checks("", result if isinstance(result, str) else _failure(result))
    log = result.out_dir / "logs" / "infra.log"
    return tool_checks(log.read_text(encoding="utf-8", errors="replace"), f"{result.status}: {log}")


def _cause(error: OSError) -> str:
    """What the kernel said; copytree raises one error for many files, which has no number of its own."""
    if isinstance(error, shutil.Error):
        return str(error.args[0][0][2])
    return error.strerror or str(error)


def tool_checks(log: str, ended: str) -> list[Row]:
    """What a run's infra.log says of its tool call and of the supervisor; *ended* is how the run did."""
    return [_check_call(log, ended), _check_services(log)]


@check("tool call, logged")
def _check_call(log: str, ended: str) -> Finding:
    call = _CALL.search(log)
    return fine(call[0]) if call else failed(f"no such line: {ended}", "read that log, or the error")


@check("supervisor's services")
def _check_services(log: str) -> Finding:
    ready = _READY.search(log)
    if ready is None:
        return failed("no supervisor was ready", "read the error above")
    said = f"redis {ready[1]}, postgres {ready[2]}"
    names = "REDIS_URL, REDIS_HOST, DATABASE_URL, POSTGRES_HOST, or PY_CODE_EXEC_NETWORK_MODE"
    return failed(said, f"correct {names}; or start them") if UNREACHABLE in said else fine(said)
