"""`isorun doctor --production`: what must be true before other people's programs run here day and night.

`look` collects what is known into a `World`; each check is a function from that value to a `Check`, and
`CHECKS` is the list, in the order of docs/exec/operations.md. A check that has nothing to look at in this
deployment is ok and says so. None changes anything, and no value of a secret is in any text.
"""

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isorun.backends.docker_doctor import Found
from isorun.backends.doctor import Check, accounts
from isorun.backends.jail import Identity
from isorun.core.errors import InvalidRequest
from isorun.core.limits import MIB
from isorun.kernel import cgroup
from isorun.settings import ENVIRONMENT, SettingRow, Settings, in_container, process_environment
from sandbox_runner.errors import SandboxError
from sandbox_runner.leftovers import listed

ENTRYPOINT = Path("/usr/local/bin/docker-entrypoint.sh")
SOCKET = "unix:///var/run/docker.sock"
#: Settings whose value is a secret; of the two addresses only the password is.
SECRETS = (
    *("aws_access_key_id", "aws_secret_access_key", "aws_session_token"),
    *("postgres_password", "redis_url", "database_url"),
)
_LEAST_SECRET = 6  # characters; a shorter value is found in texts that do not hold it
_GRACE_H = 24.0  # runs are removed when a Runtime starts, so a day may pass
_NOT_DOCKER = "does not apply: the embedded backend is used"
_NOT_CONTAINED = "does not apply: this process is in no container"
_AS_A_FILE = "mount the settings as a file (-v ./.env.backend:/app/.env.backend:ro, mode 0600), not by env_file"
_UNBOUNDED_LOGS = ("json-file", "")  # of Docker's log drivers: kept on the host, without a limit of its own
_OPEN_NETWORKS = ("host", "bridge", "default", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that the checks judge by."""

    settings: Settings
    root: Path
    docker: bool  # whether runs are containers
    found: Found
    contained: bool  # whether this process is in a container
    uid: int
    executor: Identity
    entrypoint: int | None = None  # mode of the file; None: it is not there
    socket: tuple[str, int | None] = (SOCKET, None)  # the daemon's address, and the mode of its file
    has_tls: bool = False  # of the daemon's address, if it is a port
    files: Mapping[str, int] = field(default_factory=dict)  # the settings' files -> their modes
    leftovers: tuple[str, ...] = ()
    memory_bytes: int = 0  # of this machine
    cgroup: str = ""  # why there is none; empty if there is one
    old_runs: int = 0


def look(settings: Settings, root: Path, found: Found, *, docker: bool) -> World:
    """What this machine is like. *found* is what the engine said, if it was asked."""
    parent = cgroup.find_own_parent(str(settings.cgroup_parent) if settings.cgroup_parent else None)
    lacks = parent.lacks if isinstance(parent, cgroup.Refusal) else ()
    environ = process_environment()
    address = environ.get("DOCKER_HOST") or SOCKET
    sources = {row.source for row in settings.rows()} - {ENVIRONMENT, "default"}
    modes = {source: _mode(Path(source)) for source in sources}
    return World(
        settings=settings,
        root=root,
        docker=docker,
        found=found,
        contained=in_container(),
        uid=os.geteuid(),
        executor=Identity.of_this_process(settings.executor_uid, settings.executor_gid),
        entrypoint=_mode(ENTRYPOINT),
        socket=(address, _mode(Path(address.removeprefix("unix://"))) if address.startswith("unix://") else None),
        has_tls=bool(environ.get("DOCKER_TLS_VERIFY")),
        files={source: mode for source, mode in modes.items() if mode is not None},
        leftovers=tuple(_leftovers()) if docker else (),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        cgroup="; ".join(f"{lack.controller}: {lack.reason}" for lack in lacks),
        old_runs=_old_runs(root, (settings.retention_hours + _GRACE_H) * 3600, time.time()),
    )


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except OSError:
        return None


def _leftovers() -> Iterator[str]:
    try:
        for one in listed():
            if one.why:
                yield f"{one.kind} {one.name} ({one.why})"
    except SandboxError as error:
        yield f"not known: {error}"


def _old_runs(root: Path, age_s: float, now: float) -> int:
    count = 0
    with suppress(OSError):  # no such folder, or one that we may not read: another check says so
        for entry in os.scandir(root):
            if entry.name.startswith("codegen_") and now - entry.stat(follow_symlinks=False).st_mtime > age_s:
                count += 1
    return count


def examine(world: World) -> list[Check]:
    """Every check, in the order of the list."""
    return [check(world) for check in CHECKS]


def check_image_tag(world: World) -> Check:
    """A tag beside `latest`, which the next build takes away: without one there is no way back."""
    name, settings = "image built and tagged", world.settings
    if not world.docker:
        return Check(name, True, _NOT_DOCKER)
    if world.found.image is None:
        return Check(name, False, f"{settings.image} is not on this engine", "isorun image build")
    names = [*(world.found.image.get("RepoTags") or ()), *(world.found.image.get("RepoDigests") or ())]
    kept = [tag for tag in names if not tag.endswith(":latest")]
    if not kept:
        plain = settings.image.removesuffix(":latest")
        remedy = f"docker tag {settings.image} {plain}:1 and set PY_CODE_EXEC_IMAGE={plain}:1, counting up"
        return Check(name, False, "only the tag latest names it, and the next build takes that away", remedy)
    return Check(name, True, ", ".join(kept))


def check_socket(world: World) -> Check:
    """Who may speak to the daemon is root on its host."""
    name, (address, mode) = "Docker socket", world.socket
    if not world.docker:
        return Check(name, True, _NOT_DOCKER)
    if address.startswith("tcp://") and not world.has_tls:
        remedy = "set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH, or use ssh:// or a Unix socket"
        return Check(name, False, f"{address} without TLS: whoever reaches that port is root there", remedy)
    if not address.startswith("unix://"):
        return Check(name, True, address)
    path = address.removeprefix("unix://")
    if mode is None or not stat.S_ISSOCK(mode):
        remedy = f"start the daemon; in a container mount the socket: -v /var/run/docker.sock:{path}"
        return Check(name, False, f"{path} is no socket", remedy)
    if mode & stat.S_IWOTH:
        said = f"{path} has mode {stat.S_IMODE(mode):04o}: every user of this machine is root through it"
        return Check(name, False, said, f"chmod 0660 {path}, and add who needs it to its group")
    return Check(name, True, f"{path} has mode {stat.S_IMODE(mode):04o}")


def check_entrypoint(world: World) -> Check:
    """What gives an ordinary user of our container the socket's group."""
    name = "entrypoint"
    if not world.docker or not world.contained:
        return Check(name, True, _NOT_CONTAINED if world.docker else _NOT_DOCKER)
    remedy = f"COPY deployment/docker/all_in_one/docker-entrypoint.sh {ENTRYPOINT} and chmod 0755 it in the image"
    if world.entrypoint is None:
        if world.found.engine is not None and world.uid:
            return Check(name, True, f"no {ENTRYPOINT}; uid {world.uid} reaches the daemon without it")
        return Check(name, False, f"{ENTRYPOINT} is not in this container", remedy)
    if not world.entrypoint & 0o111:
        return Check(name, False, f"{ENTRYPOINT} is not executable", remedy)
    return Check(name, True, f"{ENTRYPOINT} has mode {stat.S_IMODE(world.entrypoint):04o}")


def check_workspace(world: World) -> Check:
    """The folder of the runs: there, ours to write, and nobody else's."""
    name, root = "workspace permissions", world.root
    try:
        status = root.stat()
    except OSError as error:
        remedy = f"mkdir -p {root} && chown {world.uid} {root} && chmod 0750 {root}"
        return Check(name, False, f"{root}: {error.strerror}", remedy)
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode) or not os.access(root, os.W_OK | os.X_OK):
        return Check(name, False, f"{root} is no folder that uid {world.uid} can write", f"chown {world.uid} {root}")
    if mode & stat.S_IWOTH:
        said = f"{root} has mode {mode:04o}: any user can fill it, and the system empties it if it is /tmp"
        return Check(name, False, said, "set ISORUN_WORKSPACE_ROOT to a folder of this service, mode 0750")
    return Check(name, True, f"{root} has mode {mode:04o}, owner {status.st_uid}")


def check_settings(world: World) -> Check:
    """No misspelt name, which would leave a default in force."""
    if world.settings.warnings:
        return Check("settings", False, "; ".join(world.settings.warnings), "correct the name: isorun config show")
    given = sum(row.source != "default" for row in world.settings.rows())
    return Check("settings", True, f"{given} set, every name known")


def check_network(world: World) -> Check:
    """The supervisor's network; an executor has none on any backend."""
    name, mode = "supervisor's network", world.settings.network_mode
    if not world.docker:
        try:
            world.settings.check_embedded()
        except InvalidRequest as error:
            return Check(name, False, str(error), "set PY_CODE_EXEC_NETWORK_MODE=host or none")
        return Check(name, True, f"{mode}; executors have none")
    if mode.startswith("container:"):
        said = f"PY_CODE_EXEC_NETWORK_MODE={mode} shares another container's loopback with the tools"
        return Check(name, False, said, "name a network of its own: docker network create chat-internal")
    what = "" if mode in _OPEN_NETWORKS else ", a network of that name"
    return Check(name, True, f"{mode}{what}; executors have none")


def check_aws(world: World) -> Check:
    """Whole keys with a region, or none: an instance role then serves the tools."""
    name, settings = "AWS credentials", world.settings
    given = (settings.aws_access_key_id is not None, settings.aws_secret_access_key is not None)
    if any(given) and not all(given):
        lacking = "AWS_ACCESS_KEY_ID" if given[1] else "AWS_SECRET_ACCESS_KEY"
        return Check(name, False, f"{lacking} is missing beside its twin", "set both, or neither for an instance role")
    has_region = settings.aws_region or settings.aws_default_region
    if (any(given) or settings.aws_profile) and not has_region:
        return Check(name, False, "credentials without a region", "set AWS_REGION and AWS_DEFAULT_REGION")
    if any(given):
        return Check(name, True, "keys are set, and passed to the supervisor only; an instance role needs none")
    if settings.aws_profile:
        return Check(name, True, f"profile {settings.aws_profile} of ~/.aws, for the supervisor only")
    if has_region and (settings.aws_ec2_metadata_disabled or "").lower() == "true":
        said = "a region is set, no key is, and AWS_EC2_METADATA_DISABLED=true shuts the instance role off"
        return Check(name, False, said, "set AWS_EC2_METADATA_DISABLED=false, or give keys")
    return Check(name, True, "absent: tools that need any have the instance role, through the supervisor's network")


def check_files(world: World) -> Check:
    """Files of settings that hold a secret are readable by their owner, at most by a group."""
    name = "files with secrets"
    holding = {row.source for row in world.settings.rows() if _is_secret(row)}
    if world.settings.tool_environment:
        holding |= world.files.keys()  # where each of those came from is not kept
    open_ = [file for file, mode in sorted(world.files.items()) if file in holding and mode & stat.S_IROTH]
    if open_:
        said = ", ".join(f"{file} has mode {stat.S_IMODE(world.files[file]):04o}" for file in open_)
        return Check(name, False, f"{said}: every user of this machine can read it", f"chmod 0600 {' '.join(open_)}")
    return Check(name, True, f"{', '.join(sorted(holding & world.files.keys())) or 'none'}")


def _is_secret(row: SettingRow) -> bool:
    return row.value is not None and "***" in row.value


def check_inspect(world: World) -> Check:
    """What `docker inspect` shows of our own container is read by everybody who may use the daemon."""
    name, container = "secrets in docker inspect", world.found.container
    if container is None:
        return _check_own_environment(name, world)
    secrets = list(_secret_values(world.settings))
    shown = sorted({place for place, text in _shown(container) if any(secret in text for secret in secrets)})
    if shown:
        return Check(name, False, f"`docker inspect` of this container shows {', '.join(shown)}", _AS_A_FILE)
    return Check(name, True, "none")


def _check_own_environment(name: str, world: World) -> Check:
    """The same where the daemon cannot be asked: what our environment has, our container's most likely has."""
    if not world.contained:
        return Check(name, True, _NOT_CONTAINED)
    given = [row.name_used for row in world.settings.rows() if _is_secret(row) and row.source == ENVIRONMENT]
    if given:
        return Check(name, False, f"the environment of this container has {', '.join(given)}", _AS_A_FILE)
    return Check(name, True, "none in this environment; this daemon does not know our container")


def _secret_values(settings: Settings) -> Iterator[str]:
    masked = {row.name for row in settings.rows() if _is_secret(row)}
    for key in SECRETS:
        if {key.upper(), f"ISORUN_{key.upper()}"} & masked and len(
            value := str(getattr(settings, key))
        ) >= _LEAST_SECRET:
            yield value
    yield from (value for value in settings.tool_environment.values() if len(value) >= _LEAST_SECRET)


def _shown(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each text of an inspected container that may hold a value, with the name of its place."""
    config = container.get("Config") or {}
    for line in config.get("Env") or ():
        name, _, value = line.partition("=")
        yield name, value
    for place in ("Cmd", "Entrypoint"):
        yield from ((place, text) for text in config.get(place) or ())
    yield from ((f"label {name}", text) for name, text in (config.get("Labels") or {}).items())


def check_user(world: World) -> Check:
    """Nobody's ids for the executor, and no root where nothing needs it."""
    name, executor = "service's user", world.executor
    if world.docker:
        if world.uid == 0 and world.contained:
            remedy = "start the container with docker-entrypoint.sh, which changes to appuser"
            said = "this process is root in a container that holds the socket, and needs no root"
            return Check(name, False, said, remedy)
        how = "held by file systems of their own" if world.uid == 0 else "watched"
        return Check(name, True, f"uid {world.uid}; the sizes of work/ and out/ are {how}")
    owners = accounts(executor.uid, executor.gid) if executor.root else ()
    if owners:
        said = f"executors have the real ids of {' and '.join(owners)}, which may signal programs"
        return Check(name, False, said, "set ISORUN_EXECUTOR_UID and ISORUN_EXECUTOR_GID to unused ids")
    whose = "unused ids" if executor.root else "this user's own, so give the service an account of its own"
    return Check(name, True, f"uid {world.uid}; executors have {executor.uid}:{executor.gid}, {whose}")


def check_ceilings(world: World) -> Check:
    """A cgroup holds the executor itself; a watcher is late by its interval."""
    name = "cgroup"
    if world.docker:
        stands = next((check for check in world.found.checks if check.name == "walls of the engine"), None)
        if stands is None:
            return Check(name, False, "no daemon answers", "see Docker daemon")
        return Check(name, stands.ok, stands.detail, stands.remedy)
    if world.cgroup:
        remedy = "Delegate=yes in the service's systemd unit, or ISORUN_CGROUP_PARENT"
        return Check(name, False, f"no cgroup holds memory and processes ({world.cgroup})", remedy)
    return Check(name, True, "holds memory, processes and CPU of each run")


def check_limits(world: World) -> Check:
    """The ceilings of one run fit this machine."""
    limits = world.settings.limits()
    detail = (
        f"{limits.wall_s:g} s, {limits.memory_bytes // MIB} MiB, {limits.processes} processes, {limits.cpus:g} CPU, "
        f"{limits.workspace_bytes // MIB} MiB of files a run"
    )
    if limits.memory_bytes > world.memory_bytes:
        said = f"a run may take {limits.memory_bytes // MIB} MiB, this machine has {world.memory_bytes // MIB} MiB"
        return Check("limits of a run", False, said, "lower ISORUN_MAX_MEMORY_BYTES, or the kernel ends something else")
    return Check("limits of a run", True, detail)


def check_logs(world: World) -> Check:
    """Nothing that is logged grows without end."""
    name, kept = "bounded logs", f"user.log of a run holds at most {world.settings.limits().log_bytes // MIB} MiB"
    if world.found.container is None:
        return Check(name, True, kept)
    config = (world.found.container.get("HostConfig") or {}).get("LogConfig") or {}
    driver = str(config.get("Type") or "")
    if driver in _UNBOUNDED_LOGS and not (config.get("Config") or {}).get("max-size"):
        remedy = "--log-opt max-size=10m --log-opt max-file=3, `logging:` in compose, or log-opts in daemon.json"
        return Check(name, False, f"this container logs to {driver or 'json-file'} without max-size", remedy)
    return Check(name, True, f"this container logs to {driver}; {kept}")


def check_retention(world: World) -> Check:
    """Runs that are over their time are removed; a service that never restarts needs a timer for it."""
    name, hours = "retention", world.settings.retention_hours
    if world.old_runs:
        said = f"{world.old_runs} runs are older than ISORUN_RETENTION_HOURS ({hours:g} h) and a day"
        return Check(name, False, said, "run `isorun cleanup` every day (cron, or a systemd timer)")
    return Check(name, True, f"{hours:g} h, none is older")


def check_space(world: World) -> Check:
    """The disk holds as many runs as wait in the pool, and one more."""
    name, limits = "disk space", world.settings.limits()
    needed = (world.settings.pool_size + 1) * (limits.workspace_bytes + limits.log_bytes)
    place = next(path for path in (world.root, *world.root.parents) if path.exists())
    told = os.statvfs(place)
    free, inodes = told.f_bavail * told.f_frsize, told.f_favail
    if free < needed:
        said = f"{place}: {free // MIB} MiB free, {world.settings.pool_size + 1} runs at once may need {needed // MIB}"
        return Check(name, False, said, "free space there, `isorun cleanup --older-than HOURS`, or a smaller pool")
    return Check(name, True, f"{place}: {free // MIB} MiB and {inodes} inodes free")


def check_leftovers(world: World) -> Check:
    """No container or folder that nobody owns any more."""
    if world.leftovers:
        said = f"{len(world.leftovers)} left by a killed process: {', '.join(world.leftovers[:5])}"
        return Check("leftovers", False, said, "sandbox-runner cleanup, and isorun cleanup")
    return Check("leftovers", True, "none" if world.docker else _NOT_DOCKER)


CHECKS: tuple[Callable[[World], Check], ...] = (
    check_image_tag,
    check_socket,
    check_entrypoint,
    check_workspace,
    check_settings,
    check_network,
    check_aws,
    check_files,
    check_inspect,
    check_user,
    check_ceilings,
    check_limits,
    check_logs,
    check_retention,
    check_space,
    check_leftovers,
)
