"""What this machine has for the Docker backend, probe by probe, with remedies.

Theory of operation. `examine` asks the engine in the order in which a start would fail, and stops
where nothing behind can be asked any more: no CLI, no daemon, no image. Each answer becomes a `Row`
by a check of its own that starts nothing. One probe starts a container: whether the folder of the
runs is the same folder on the engine's host is known by mounting it alone. The container is removed.

Docker is asked through `sandbox_runner` only. No value of a secret is read here.
"""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isorun.backends.docker import refusals
from isorun.backends.docker.lease import small
from isorun.backends.docker.refusals import IMAGE_LABEL, IMAGE_VERSION, version_of
from isorun.backends.executor_ids import Identity
from isorun.backends.remedy import Command, Remedy, by
from isorun.core.errors import Unavailable
from isorun.doctor.check import Finding, Row, check, failed, fine, install, said_by
from isorun.settings import KB_STORAGE, Settings, in_container, process_environment
from sandbox_runner.docker.attached import run_to_end
from sandbox_runner.docker.command import Answer, DockerCli
from sandbox_runner.docker.engine import SILENT, Engine, at_least
from sandbox_runner.docker.host_paths import HostPaths, Surroundings, own_container, prove
from sandbox_runner.errors import InvalidSpec, SandboxError
from sandbox_runner.execution import run_command
from sandbox_runner.spec import MountSpec

OLDEST_COMPOSE = (2, 24)  # of the service's compose file, whose `env_file` may be missing
PROBE = "/probe"  # where the folder of the runs is inside the container that looks for it

_ASK_S = 15.0
_RUN_S = 60.0
BUILD = by(refusals.BUILD)
_CLI = "Docker CLI"
_INSTALL = "apt install docker.io; in an image of your own, what Dockerfile_Chat does to have docker-ce-cli"
_START = Command.of("systemctl", "start", "docker", as_root=True)
_SHARE_ROOT = (
    "start this container with -v /host/folder:{folder}, and set HOST_EXEC_WORKSPACE_PATH, if at all, to /host/folder, "
    "a path of the engine's host"
)
_SHARE_BUNDLES = (
    "a bundle with tools is mounted into the supervisor: start this container with -v /host/folder:{folder}, or keep "
    "it below AGENTIC_BUNDLES_ROOT and set HOST_BUNDLES_PATH"
)
_DESKTOP = "Docker Desktop: add {folder} in Settings, Resources, File sharing; a remote daemon cannot see it"
_READ = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"
_PREFIX = "the Docker engine does not answer: "  # of DockerUnavailable
_DENIED = "permission denied while trying to connect"
_UNREACHABLE = ("cannot connect to the docker daemon", "error during connect")
_NOT_SHARED = ("mounts denied", "is not shared from the host", "bind source path does not exist")


@dataclass(frozen=True, slots=True)
class Place:
    """Where this process runs."""

    contained: bool  # in a container, as far as it can tell
    around: Surroundings

    @classmethod
    def here(cls) -> "Place":
        """Look around."""
        return cls(in_container(), Surroundings.look())


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was asked of the engine. `engine`, `image` and `container` are None where there is none."""

    checks: tuple[Row, ...] = ()
    engine: Engine | None = None
    image: Mapping[str, Any] | None = None
    container: Mapping[str, Any] | None = None  # our own, as the daemon knows it

    @property
    def ok(self) -> bool:
        """Whether no probe failed."""
        return all(row.ok for row in self.checks)


def examine(settings: Settings, root: Path, *, start: bool, place: Place | None = None) -> Found:
    """Every probe, in the order in which a start would fail. *root* holds the runs; *place* is for tests.

    With *start* a container is started that looks for a file in *root*; without, nothing is changed. Raises nothing
    for what is missing.
    """
    place = place or Place.here()
    try:
        cli = DockerCli(_ASK_S)
    except SandboxError as error:
        return Found(checks=(Row(_CLI, False, str(error), install(_INSTALL, "docker.io")),))
    rows = [Row(_CLI, True, cli.program)]
    try:
        return _ask(cli, settings, root, place, rows, start=start)
    except SandboxError as error:  # no daemon, or one that went away or hangs in the middle
        return Found(checks=(*rows, check_no_daemon(str(error), contained=place.contained)))


def _ask(cli: DockerCli, settings: Settings, root: Path, place: Place, rows: list[Row], *, start: bool) -> Found:
    """Go on behind the CLI; what was found is in *rows* too, should it raise."""
    engine = Engine.ask(cli)
    rows.append(check_daemon(engine))
    if not rows[-1].ok:
        return Found(checks=tuple(rows))
    image = cli.inspect("image", settings.image)
    container = own_container(place.around, cli)
    rows += [
        check_compose(cli.run("compose", "version"), standalone_compose()),
        check_engine(engine),
        check_runtime(settings.docker_runtime, engine),
        check_image(settings.image, image),
        look_at_ids(settings),
    ]
    paths, said = host_paths(cli, settings, place)
    rows.append(said)
    if paths is not None:
        rows += check_paths(paths, settings, root, contained=place.contained)
    if start and paths is not None and all(row.ok for row in rows):
        rows.append(look_inside(cli, settings.image, paths, root, contained=place.contained))
    return Found(checks=tuple(rows), engine=engine, image=image, container=container)


@check("Docker daemon")
def check_daemon(engine: Engine) -> Finding:
    """Whether the daemon is new enough."""
    if engine.is_old:
        return failed(f"{engine.version} is older than 20.10", "update the engine to 20.10 or later")
    return fine(f"{engine.version}, API {engine.api}")


@check("Docker daemon")
def check_no_daemon(said: str, *, contained: bool) -> Finding:
    """Why no daemon answers, by what the CLI *said*. It may have said more before, about its own configuration."""
    text = said.lower()
    if _DENIED in text:
        return failed(
            f"permission denied on the daemon's socket: {_line(said, _DENIED).removeprefix(_PREFIX)}",
            "put this user into the group of the socket and log in anew (usermod -aG docker USER); in a container "
            "start as root with docker-entrypoint.sh, which does that, or with --group-add of the socket's group id",
        )
    if any(words in text for words in _UNREACHABLE):
        remedy = Remedy(f"start the daemon ({_START}), or correct DOCKER_HOST", _START)
        if contained:
            remedy = Remedy(
                "start this container with -v /var/run/docker.sock:/var/run/docker.sock, or set DOCKER_HOST"
            )
        return failed(_line(said, *_UNREACHABLE), remedy)
    if "took longer than" in text:
        return failed(said, "the daemon hangs: read its log, and restart it")
    return failed(_line(said.removeprefix(SILENT)) or "it said nothing", "try `docker version` yourself")


_VERSION = re.compile(r"\bv?(\d+(?:\.\d+)+)")


def standalone_compose() -> str:
    """What the program `docker-compose` says of its version; empty without one."""
    program = shutil.which("docker-compose")
    if program is None:
        return ""
    try:
        done = run_command([program, "version", "--short"], timeout_s=_ASK_S, max_output_bytes=4096, end=lambda: None)
    except SandboxError:
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


@check("Docker Compose")
def check_compose(answer: Answer, standalone: str = "") -> Finding:
    """Compose, which only the service needs: without it runs work, so a missing one is no failure.

    *standalone* is what a `docker-compose` on PATH says of its version; the plugin is asked first.
    """
    if (found := _VERSION.search(answer.stdout.decode("utf-8", "replace"))) and not answer.code:
        said, version = found[1], found[1]
    elif alone := _VERSION.search(standalone):
        said, version = f"no plugin; docker-compose {alone[1]} on PATH", alone[1]
    else:
        return fine("none; only the service's compose file needs it (2.24 or later)")
    plugin = install("install the plugin docker-compose-v2", "docker-compose-v2")
    if said == version and not at_least(version, (2, 0)):
        return failed(f"{said} is older than 2.0, and the service's compose file needs 2.24 or later", plugin)
    if not at_least(version, OLDEST_COMPOSE):
        return fine(f"{said}, and the service's compose file needs 2.24 or later", plugin)
    return fine(said)


@check("walls of the engine")
def check_engine(engine: Engine) -> Finding:
    """Whether the engine can hold an executor's ceilings and its seccomp filter, as `docker info` says."""
    if not engine.has_seccomp:
        return failed("the engine has no seccomp", "an engine with seccomp, on a kernel with CONFIG_SECCOMP_FILTER")
    if engine.cannot_limit:
        remedy = "boot with cgroup_enable=memory swapaccount=1; for rootless Docker delegate the controllers (systemd)"
        return failed(f"{engine.group} here cannot limit {', '.join(engine.cannot_limit)}", remedy)
    return fine(f"{engine.group} limits memory, swap, processes and CPU; seccomp filters stand")


@check("executor's runtime")
def check_runtime(wanted: str | None, engine: Engine) -> Finding:
    """Whether the engine knows the runtime that executors are to run under."""
    if wanted is None:
        return fine(f"{engine.runtime}, the engine's default")
    if wanted not in engine.runtimes:
        return failed(
            f"ISORUN_DOCKER_RUNTIME={wanted}: the engine knows {', '.join(engine.runtimes) or 'none'}",
            f'install it, add it to "runtimes" in /etc/docker/daemon.json and restart the daemon; or unset '
            f"ISORUN_DOCKER_RUNTIME to use {engine.runtime}",
        )
    return fine(wanted)


@check("executor's image")
def check_image(name: str, image: Mapping[str, Any] | None) -> Finding:
    """Whether the image is there and of the kind that this version expects."""
    if image is None:
        return failed(f"{name} is not on this engine", BUILD)
    label = version_of(image)
    if label is None:
        return failed(f"{name} has no label {IMAGE_LABEL}: it is another image", BUILD)
    if label != IMAGE_VERSION:
        detail = f"{name} has the label {IMAGE_LABEL}={label}, and this version of isorun expects {IMAGE_VERSION}"
        return failed(detail, BUILD)
    return fine(f"{name} ({str(image.get('Id', ''))[:19]}), {IMAGE_LABEL}={label}")


def look_at_ids(settings: Settings) -> Row:
    """Whether an executor's container could write what this user may read."""
    try:
        return check_ids(Identity.of_container(settings.executor_uid, settings.executor_gid))
    except Unavailable as error:
        return check_ids(said_by(error))


@check("ids of the container")
def check_ids(ids: Identity | str) -> Finding:
    """The ids of an executor's container, or why there are none."""
    if isinstance(ids, str):
        detail, _, remedy = ids.partition(": ")
        return failed(detail, remedy)
    how = "which gets its folders" if ids.root else "with which we share folders by the group"
    return fine(f"{ids.uid}:{ids.gid}, {how}")


def host_paths(cli: DockerCli, settings: Settings, place: Place) -> tuple[HostPaths | None, Row]:
    """How our paths are translated, and which deployment that is; no paths if they cannot be found out."""
    given = settings.host_paths()
    try:
        paths = HostPaths.discover(given or None, cli, process_environment(), surroundings=place.around)
    except SandboxError as error:
        return None, Row(check_deployment.name, False, str(error), "correct HOST_EXEC_WORKSPACE_PATH and its like")
    return paths, check_deployment(paths, given, contained=place.contained)


@check("deployment")
def check_deployment(paths: HostPaths, given: Mapping[str, str], *, contained: bool) -> Finding:
    """Bare metal or Docker-in-Docker, and where the translation of paths comes from."""
    if contained and paths.strict:
        source = "HOST_EXEC_WORKSPACE_PATH and its like" if given else paths.source
        return fine(f"Docker-in-Docker; the host's paths come from {source}")
    if contained:
        return fine("in a container that this daemon does not know, so it must see the same paths")
    # The knowledge base is mounted by the host's path alone, so there it may be named on bare metal, too.
    others = [
        f"{theirs} for {ours}"
        for ours, theirs in given.items()
        if os.path.realpath(ours) != theirs and ours != str(KB_STORAGE)
    ]
    if others:
        detail = f"bare metal, and yet other paths of the host are named: {', '.join(others)}"
        return failed(detail, "unset HOST_EXEC_WORKSPACE_PATH and its like: they are for a container")
    return fine("bare metal: the engine sees our paths")


def check_paths(paths: HostPaths, settings: Settings, root: Path, *, contained: bool) -> list[Row]:
    """Each folder that containers get, and the path that the engine's host has for it."""
    wanted = [("workspace root", root, _SHARE_ROOT)]
    if settings.bundle is not None:  # needed only if a bundle has tools
        wanted.append(("bundles", settings.bundle, _SHARE_BUNDLES))
    rows = [check_path(paths, f"host path of the {what}", folder, remedy) for what, folder, remedy in wanted]
    if settings.host_kb_storage_path is not None:
        rows.append(check_knowledge(settings.host_kb_storage_path, contained=contained))
    return rows


@check("host path of the KB storage")
def check_knowledge(theirs: Path, *, contained: bool) -> Finding:
    """The knowledge base, of which only the path on the engine's host is used. A container shows nothing of it."""
    if not contained and not theirs.is_dir():
        return failed(f"{theirs} is not a folder", "correct HOST_KB_STORAGE_PATH, or unset it")
    return fine(f"{KB_STORAGE} is {theirs} on the engine's host")


def check_path(paths: HostPaths, name: str, folder: Path, remedy: str = "") -> Row:
    """Whether the engine's host has a path for *folder*; if not, *remedy* says what to do about {folder}."""
    try:
        theirs = paths.translate(folder)
    except SandboxError as error:
        return Row(name, False, _cause(error), remedy.format(folder=folder))
    return Row(name, True, theirs if theirs == str(folder) else f"{folder} is {theirs} on the engine's host")


@check("folder shared with the host")
def look_inside(cli: DockerCli, image: str, paths: HostPaths, root: Path, *, contained: bool) -> Finding:
    """Whether a container that mounts *root* sees a file that we write there."""
    if not root.is_dir():
        return fine(f"{root} is not there yet; the first run makes it")
    status, theirs = root.stat(), paths.translate(root)

    def read_inside(path: str) -> bytes | None:
        # As the folder's owner: it may be closed to others, and root without capabilities is one of them.
        owner = status.st_uid, status.st_gid
        return read_answer(
            run_to_end(cli, small(image, owner, MountSpec(theirs, PROBE, read_only=True), _READ, path), _RUN_S)
        )

    try:
        unproved = prove([MountSpec(str(root), PROBE, read_only=True)], paths, read_inside)
    except Unavailable as error:
        return not_shared(str(error), root, theirs, contained=contained)
    except InvalidSpec as error:
        return failed(str(error), "set ISORUN_WORKSPACE_ROOT to another folder")
    except SandboxError as error:
        return failed(_cause(error), _SHARE_ROOT.format(folder=root))
    if unproved:
        return unwritable(root)
    return fine(f"a container that mounts {theirs} sees a file that was written to {root}")


def unwritable(root: Path) -> Finding:
    """Why no file can be written to *root*: no room is not a matter of its owner."""
    try:
        with tempfile.TemporaryFile(dir=root, buffering=0) as file:
            file.write(b"x")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free space there, or set ISORUN_WORKSPACE_ROOT to a folder with room"
            return failed(f"{root} is full: {error.strerror}", remedy)
    own = Command.of("chown", os.geteuid(), root, as_root=True)
    return failed(f"{root} cannot be written", Remedy(f"chown it to this user (uid {os.geteuid()})", own))


def read_answer(answer: Answer) -> bytes | None:
    """What the file holds; None if it is not there. Raises `Unavailable` with the engine's words if nobody looked."""
    if answer.code == 0:
        return answer.stdout
    if "FileNotFoundError" in answer.said or "PermissionError" in answer.said:
        return None
    raise Unavailable(answer.said)


def not_shared(said: str, root: Path, theirs: str, *, contained: bool) -> Finding:
    """Why the engine would not start a container with the folder of the runs in it."""
    if any(words in said.lower() for words in _NOT_SHARED):
        remedy = _SHARE_ROOT.format(folder=root) if contained else _DESKTOP.format(folder=theirs)
        return failed(f"mounts denied: the engine's host does not share {theirs}: {_line(said)}", remedy)
    return failed(f"no container starts: {_line(said)}", "what the engine says names the cause")


def _cause(error: SandboxError) -> str:
    """What is wrong, without what `sandbox_runner` would have its own users do."""
    return str(error).partition(" If this process")[0]


def _line(text: str, *words: str) -> str:
    """The first line of *text* that has one of *words*; the first at all without words."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if any(word in line.lower() for word in words)] if words else lines
    return (told or lines or [""])[0]
