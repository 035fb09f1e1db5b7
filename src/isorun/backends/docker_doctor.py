"""What this machine has for the Docker backend, probe by probe, with remedies.

Theory of operation. `examine` asks the engine in the order in which a start would fail, and stops
where nothing behind can be asked any more: no CLI, no daemon, no image. Each answer becomes a `Check`
in a function of its own that starts nothing. One probe starts a container: whether the folder of the
runs is the same folder on the daemon's host is known by mounting it alone. The container is removed.

Docker is asked through `sandbox_runner` only. No value of a secret is read here.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isorun.backends.docker import IMAGE_LABEL, IMAGE_VERSION
from isorun.backends.doctor import Check
from isorun.backends.slot_folder import Ids
from isorun.core.errors import Unavailable
from isorun.settings import KB_STORAGE, Settings, in_container, process_environment
from sandbox_runner.docker_cli import Answer, DockerCli
from sandbox_runner.docker_run import Bind
from sandbox_runner.errors import InvalidSpec, SandboxError
from sandbox_runner.host_paths import HostPaths, Surroundings, prove
from sandbox_runner.spec import MountSpec

OLDEST_ENGINE = (20, 10)  # `docker run --pull never`, and cgroup v2
OLDEST_COMPOSE = (2, 0)
PROBE = "/probe"  # where the folder of the runs is inside the container that looks for it

_ASK_S = 15.0
_RUN_S = 60.0
_BUILD = "isorun image build"
_INSTALL = "apt install docker.io; in an image of your own, what Dockerfile_Chat does to have docker-ce-cli"
_SHARE_ROOT = (
    "start this container with -v /host/folder:{folder}, and set HOST_EXEC_WORKSPACE_PATH, if at all, to /host/folder, "
    "a path of the daemon's host"
)
_SHARE_BUNDLES = (
    "a bundle with tools is mounted into the supervisor: start this container with -v /host/folder:{folder}, or keep "
    "it below AGENTIC_BUNDLES_ROOT and set HOST_BUNDLES_PATH"
)
_DESKTOP = "Docker Desktop: add {folder} in Settings, Resources, File sharing; a remote daemon cannot see it"
_READ = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"
_PREFIX = "no Docker daemon answers: "  # of DockerUnavailable
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

    checks: tuple[Check, ...]
    engine: Mapping[str, Any] | None = None  # docker info
    image: Mapping[str, Any] | None = None
    container: Mapping[str, Any] | None = None  # our own, as the daemon knows it

    @property
    def ok(self) -> bool:
        """Whether no probe failed."""
        return all(check.ok for check in self.checks)


def examine(settings: Settings, root: Path, *, start: bool, place: Place | None = None) -> Found:
    """Every probe, in the order in which a start would fail. *root* holds the runs; *place* is for tests.

    With *start* a container is started that looks for a file in *root*; without, nothing is changed. Raises nothing
    for what is missing.
    """
    place = place or Place.here()
    try:
        cli = DockerCli(_ASK_S)
    except SandboxError as error:
        return Found(checks=(Check("Docker CLI", False, str(error), _INSTALL),))
    checks = [Check("Docker CLI", True, cli.program)]
    try:
        return _ask(cli, settings, root, place, checks, start=start)
    except SandboxError as error:  # no daemon, or one that went away or hangs in the middle
        return Found(checks=(*checks, check_no_daemon(str(error), contained=place.contained)))


def _ask(cli: DockerCli, settings: Settings, root: Path, place: Place, checks: list[Check], *, start: bool) -> Found:
    """Go on behind the CLI; what was found is in *checks* too, should it raise."""
    checks.append(check_daemon(cli.run("version", "--format", "{{json .}}"), contained=place.contained))
    if not checks[-1].ok:
        return Found(checks=tuple(checks))
    engine = _json(cli.run("info", "--format", "{{json .}}").stdout)
    image = cli.inspect("image", settings.image)
    container = own_container(cli, place.around)
    checks += [
        check_compose(cli.run("compose", "version")),
        check_engine(engine),
        check_runtime(settings.docker_runtime, engine),
        check_image(settings.image, image),
        look_at_ids(settings),
    ]
    paths, said = host_paths(cli, settings, place)
    checks.append(said)
    if paths is not None:
        checks += check_paths(paths, settings, root, contained=place.contained)
    if start and paths is not None and all(check.ok for check in checks):
        checks.append(look_inside(cli, settings.image, paths, root, contained=place.contained))
    return Found(checks=tuple(checks), engine=engine, image=image, container=container)


def _json(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def check_daemon(answer: Answer, *, contained: bool) -> Check:
    """Whether a daemon answered `docker version`, and whether it is new enough."""
    server = _json(answer.stdout).get("Server") if answer.code == 0 else None
    if not server:
        return check_no_daemon(answer.said, contained=contained)
    version = str(server.get("Version", "unknown"))
    detail = f"{version}, API {server.get('ApiVersion', 'unknown')}"
    if not _at_least(version, OLDEST_ENGINE):
        return Check("Docker daemon", False, f"{version} is older than 20.10", "update the engine to 20.10 or later")
    return Check("Docker daemon", True, detail)


def check_no_daemon(said: str, *, contained: bool) -> Check:
    """Why no daemon answers, by what the CLI *said*. It may have said more before, about its own configuration."""
    text = said.lower()
    if _DENIED in text:
        return Check(
            "Docker daemon",
            False,
            f"permission denied on the daemon's socket: {_line(said, _DENIED).removeprefix(_PREFIX)}",
            "put this user into the group of the socket and log in anew (usermod -aG docker USER); in a container "
            "start as root with docker-entrypoint.sh, which does that, or with --group-add of the socket's group id",
        )
    if any(words in text for words in _UNREACHABLE):
        remedy = "start the daemon (systemctl start docker), or correct DOCKER_HOST"
        if contained:
            remedy = "start this container with -v /var/run/docker.sock:/var/run/docker.sock, or set DOCKER_HOST"
        return Check("Docker daemon", False, _line(said, *_UNREACHABLE), remedy)
    if "took longer than" in text:
        return Check("Docker daemon", False, said, "the daemon hangs: read its log, and restart it")
    return Check("Docker daemon", False, _line(said) or "it said nothing", "try `docker version` yourself")


def check_compose(answer: Answer) -> Check:
    """Compose, which only the service needs: without it runs work, so a missing one is no failure."""
    found = re.search(r"\bv?(\d+(?:\.\d+)+)", answer.stdout.decode("utf-8", "replace"))
    if answer.code or found is None:
        return Check("Docker Compose", True, "none; only the service's compose file needs it (2.0 or later)")
    if not _at_least(found[1], OLDEST_COMPOSE):
        return Check("Docker Compose", False, f"{found[1]} is older than 2.0", "install the plugin docker-compose-v2")
    return Check("Docker Compose", True, found[1])


def check_engine(engine: Mapping[str, Any]) -> Check:
    """Whether the engine can hold an executor's ceilings and its seccomp filter, as `docker info` says."""
    lacks = {"MemoryLimit": "memory", "SwapLimit": "swap", "PidsLimit": "processes", "CpuCfsQuota": "CPU"}
    missing = [what for name, what in lacks.items() if not engine.get(name)]
    group = f"cgroup v{engine.get('CgroupVersion') or 1}"
    if "name=seccomp" not in " ".join(engine.get("SecurityOptions") or ()):
        remedy = "an engine with seccomp, on a kernel with CONFIG_SECCOMP_FILTER"
        return Check("walls of the engine", False, "the engine has no seccomp", remedy)
    if missing:
        remedy = "boot with cgroup_enable=memory swapaccount=1; for rootless Docker delegate the controllers (systemd)"
        return Check("walls of the engine", False, f"{group} here cannot limit {', '.join(missing)}", remedy)
    return Check("walls of the engine", True, f"{group} limits memory, swap, processes and CPU; seccomp filters stand")


def check_runtime(wanted: str | None, engine: Mapping[str, Any]) -> Check:
    """Whether the engine knows the runtime that executors are to run under."""
    known = sorted(engine.get("Runtimes") or {})
    if wanted is None:
        return Check("executor's runtime", True, f"{engine.get('DefaultRuntime', 'unknown')}, the engine's default")
    if wanted not in known:
        return Check(
            "executor's runtime",
            False,
            f"ISORUN_DOCKER_RUNTIME={wanted}: the engine knows {', '.join(known) or 'none'}",
            f'install it, add it to "runtimes" in /etc/docker/daemon.json and restart the daemon; or unset '
            f"ISORUN_DOCKER_RUNTIME to use {engine.get('DefaultRuntime', 'the default')}",
        )
    return Check("executor's runtime", True, wanted)


def check_image(name: str, image: Mapping[str, Any] | None) -> Check:
    """Whether the image is there and of the kind that this version expects."""
    if image is None:
        return Check("executor's image", False, f"{name} is not on this engine", _BUILD)
    label = ((image.get("Config") or {}).get("Labels") or {}).get(IMAGE_LABEL)
    if label is None:
        return Check("executor's image", False, f"{name} has no label {IMAGE_LABEL}: it is another image", _BUILD)
    if label != IMAGE_VERSION:
        detail = f"{name} has the label {IMAGE_LABEL}={label}, and this version of isorun expects {IMAGE_VERSION}"
        return Check("executor's image", False, detail, _BUILD)
    return Check("executor's image", True, f"{name} ({str(image.get('Id', ''))[:19]}), {IMAGE_LABEL}={label}")


def look_at_ids(settings: Settings) -> Check:
    """Whether an executor's container could write what this user may read."""
    try:
        return check_ids(Ids.of_this_process(settings.executor_uid, settings.executor_gid))
    except Unavailable as error:
        return check_ids(str(error))


def check_ids(ids: Ids | str) -> Check:
    """The ids of an executor's container, or why there are none."""
    name = "ids of the container"
    if isinstance(ids, str):
        detail, _, remedy = ids.partition(": ")
        return Check(name, False, detail, remedy)
    how = "which gets its folders" if ids.root else "with which we share folders by the group"
    return Check(name, True, f"{ids.uid}:{ids.gid}, {how}")


def own_container(cli: DockerCli, around: Surroundings) -> Mapping[str, Any] | None:
    """The container that this process runs in, as the daemon knows it; None if the daemon knows of none."""
    for name in around.container_ids():
        found = cli.inspect("container", name)
        if found is not None and found["Id"].startswith(name) and around.may_be(found):
            return found
    return None


def host_paths(cli: DockerCli, settings: Settings, place: Place) -> tuple[HostPaths | None, Check]:
    """How our paths are translated, and which deployment that is; no paths if they cannot be found out."""
    given = settings.host_paths()
    try:
        paths = HostPaths.discover(given or None, cli, process_environment(), surroundings=place.around)
    except SandboxError as error:
        return None, Check("deployment", False, str(error), "correct HOST_EXEC_WORKSPACE_PATH and its like")
    return paths, check_deployment(paths, given, contained=place.contained)


def check_deployment(paths: HostPaths, given: Mapping[str, str], *, contained: bool) -> Check:
    """Bare metal or Docker-in-Docker, and where the translation of paths comes from."""
    if contained and paths.strict:
        source = "HOST_EXEC_WORKSPACE_PATH and its like" if given else paths.source
        return Check("deployment", True, f"Docker-in-Docker; the host's paths come from {source}")
    if contained:
        return Check("deployment", True, "in a container that this daemon does not know, so it must see the same paths")
    # The knowledge base is mounted by the host's path alone, so there it may be named on bare metal, too.
    others = [
        f"{theirs} for {ours}"
        for ours, theirs in given.items()
        if os.path.realpath(ours) != theirs and ours != str(KB_STORAGE)
    ]
    if others:
        detail = f"bare metal, and yet other paths of the host are named: {', '.join(others)}"
        return Check(
            "deployment", False, detail, "unset HOST_EXEC_WORKSPACE_PATH and its like: they are for a container"
        )
    return Check("deployment", True, "bare metal: the daemon sees our paths")


def check_paths(paths: HostPaths, settings: Settings, root: Path, *, contained: bool) -> list[Check]:
    """Each folder that containers get, and the path that the daemon's host has for it."""
    wanted = [("workspace root", root, _SHARE_ROOT)]
    if settings.bundle is not None:  # needed only if a bundle has tools
        wanted.append(("bundles", settings.bundle, _SHARE_BUNDLES))
    checks = [check_path(paths, f"host path of the {what}", folder, remedy) for what, folder, remedy in wanted]
    if settings.host_kb_storage_path is not None:
        checks.append(check_knowledge(settings.host_kb_storage_path, contained=contained))
    return checks


def check_knowledge(theirs: Path, *, contained: bool) -> Check:
    """The knowledge base, of which only the daemon's host's path is used. In a container nothing can be seen of it."""
    name = "host path of the KB storage"
    if not contained and not theirs.is_dir():
        return Check(name, False, f"{theirs} is no folder", "correct HOST_KB_STORAGE_PATH, or unset it")
    return Check(name, True, f"{KB_STORAGE} is {theirs} on the daemon's host")


def check_path(paths: HostPaths, name: str, folder: Path, remedy: str = "") -> Check:
    """Whether the daemon's host has a path for *folder*; if not, *remedy* says what to do about {folder}."""
    try:
        theirs = paths.translate(folder)
    except SandboxError as error:
        return Check(name, False, _cause(error), remedy.format(folder=folder))
    return Check(name, True, theirs if theirs == str(folder) else f"{folder} is {theirs} on the daemon's host")


def look_inside(cli: DockerCli, image: str, paths: HostPaths, root: Path, *, contained: bool) -> Check:
    """Whether a container that mounts *root* sees a file that we write there."""
    name = "folder shared with the host"
    if not root.is_dir():
        return Check(name, True, f"{root} is not there yet; the first run makes it")
    status, theirs = root.stat(), paths.translate(root)

    def read_inside(path: str) -> bytes | None:
        return read_answer(cli.run(*_read_arguments(image, theirs, path, status), timeout_s=_RUN_S))

    try:
        unproved = prove([MountSpec(str(root), PROBE, read_only=True)], paths, read_inside)
    except Unavailable as error:
        return check_not_shared(str(error), root, theirs, contained=contained)
    except InvalidSpec as error:
        return Check(name, False, str(error), "set ISORUN_WORKSPACE_ROOT to another folder")
    except SandboxError as error:
        return Check(name, False, _cause(error), _SHARE_ROOT.format(folder=root))
    if unproved:
        return Check(name, False, f"{root} cannot be written", f"chown it to this user (uid {os.geteuid()})")
    return Check(name, True, f"a container that mounts {theirs} sees a file that was written to {root}")


def _read_arguments(image: str, source: str, path: str, folder: os.stat_result) -> list[str]:
    """`docker run` of a container that may read one folder, and prints one file of it."""
    walls = ["--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    ceilings = ["--memory", "128m", "--pids-limit", "32", "--log-driver", "none"]
    # As the folder's owner: it may be closed to others, and root without capabilities is one of them.
    user = ["--user", f"{folder.st_uid}:{folder.st_gid}", "--label", "isorun.doctor=1"]
    mount = ["--mount", Bind(source, PROBE, read_only=True).option()]
    command = ["--entrypoint", "python3", image, "-I", "-S", "-c", _READ, path]
    return ["run", "--rm", "--pull", "never", *walls, *ceilings, *user, *mount, *command]


def read_answer(answer: Answer) -> bytes | None:
    """What the file holds; None if it is not there. Raises `Unavailable` with the engine's words if nobody looked."""
    if answer.code == 0:
        return answer.stdout
    if "FileNotFoundError" in answer.said or "PermissionError" in answer.said:
        return None
    raise Unavailable(answer.said)


def check_not_shared(said: str, root: Path, theirs: str, *, contained: bool) -> Check:
    """Why the engine would not start a container with the folder of the runs in it."""
    name, text = "folder shared with the host", said.lower()
    if any(words in text for words in _NOT_SHARED):
        remedy = _SHARE_ROOT.format(folder=root) if contained else _DESKTOP.format(folder=theirs)
        return Check(name, False, f"mounts denied: the daemon's host does not share {theirs}: {_line(said)}", remedy)
    return Check(name, False, f"no container starts: {_line(said)}", "what the engine says names the cause")


def _cause(error: SandboxError) -> str:
    """What is wrong, without what `sandbox_runner` would have its own users do."""
    return str(error).partition(" If this process")[0]


def _at_least(version: str, least: tuple[int, int]) -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= least


def _line(text: str, *words: str) -> str:
    """The first line of *text* that has one of *words*; the first at all without words."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if any(word in line.lower() for word in words)] if words else lines
    return (told or lines or [""])[0]
