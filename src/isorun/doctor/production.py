"""`isorun doctor --production`: what must be true before other people's programs run here day and night.

Each check judges by a `World` alone, and `CHECKS` is the list, in the order of docs/exec/operations.md. A check that
has nothing to look at in this deployment is ok and says so. No value of a secret is in any text.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from isorun.backends.executor_ids import accounts
from isorun.backends.remedy import Command, Export, Remedy, by
from isorun.core.errors import InvalidRequest
from isorun.core.limits import MIB
from isorun.core.text import one_line
from isorun.doctor.check import Check, Finding, Row, check, failed, fine, not_applicable
from isorun.doctor.docker import BUILD
from isorun.doctor.namespace import IDS_REMEDY, owned
from isorun.doctor.world import ENTRYPOINT, World
from isorun.settings import ENV_FILE, ENVIRONMENT, SettingRow, Settings

#: Settings whose value is a secret; of the two addresses only the password is.
SECRETS = (
    *("aws_access_key_id", "aws_secret_access_key", "aws_session_token"),
    *("postgres_password", "redis_url", "database_url"),
    *("brave_api_key", "tavily_api_key", "searxng_url", "brave_url", "tavily_url", "web_proxy"),
    *("redis_password", "model_url", "model_key"),
)
_LEAST_SECRET = 6  # characters; a shorter value is found in texts that do not hold it
_NOT_DOCKER = "the embedded backend is used"
_NOT_CONTAINED = "this process is in no container"
_AS_A_FILE = "mount the settings as a file (-v ./.env.backend:/app/.env.backend:ro, mode 0600), not by env_file"
CLEANUP = Command.of("isorun", "cleanup")
_UNBOUNDED_LOGS = ("json-file", "")  # of Docker's log drivers: kept on the host, without a limit of its own
_OPEN_NETWORKS = ("host", "bridge", "default", "none")


def examine(world: World) -> list[Row]:
    """Every check, in the order of the list."""
    return [each(world) for each in CHECKS]


@check("image built and tagged")
def check_image_tag(world: World) -> Finding:
    """A tag beside `latest`, which the next build takes away: without one there is no way back."""
    settings = world.settings
    if not world.docker:
        return not_applicable(_NOT_DOCKER)
    if world.found.image is None:
        return failed(f"{settings.image} is not on this engine", BUILD)
    names = [*(world.found.image.get("RepoTags") or ()), *(world.found.image.get("RepoDigests") or ())]
    kept = [tag for tag in names if not tag.endswith(":latest")]
    if not kept:
        plain = settings.image.removesuffix(":latest")
        tag, use = Command.of("docker", "tag", settings.image, f"{plain}:1"), Export("PY_CODE_EXEC_IMAGE", f"{plain}:1")
        remedy = Remedy(f"{tag} and set {use.name}={use.value}, counting up", tag, use)
        return failed("only the tag latest names it, and the next build takes that away", remedy)
    return fine(", ".join(kept))


@check("Docker socket")
def check_socket(world: World) -> Finding:
    """Who may speak to the daemon is root on its host."""
    address, mode = world.socket
    if not world.docker:
        return not_applicable(_NOT_DOCKER)
    if address.startswith("tcp://") and not world.has_tls:
        remedy = "set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH, or use ssh:// or a Unix socket"
        return failed(f"{address} without TLS: a client that reaches that port is root there", remedy)
    if not address.startswith("unix://"):
        return fine(address)
    path = address.removeprefix("unix://")
    if mode is None or not stat.S_ISSOCK(mode):
        remedy = f"start the daemon; in a container mount the socket: -v /var/run/docker.sock:{path}"
        return failed(f"{path} is not a socket", remedy)
    if mode & stat.S_IWOTH:
        said = f"{path} has mode {stat.S_IMODE(mode):04o}: every user of this machine is root through it"
        close = Command.of("chmod", "0660", path, as_root=True)
        return failed(said, Remedy(f"{close}, and add each account that needs it to its group", close))
    return fine(f"{path} has mode {stat.S_IMODE(mode):04o}")


@check("entrypoint")
def check_entrypoint(world: World) -> Finding:
    """What gives an ordinary user of our container the socket's group."""
    if not world.docker or not world.contained:
        return not_applicable(_NOT_CONTAINED if world.docker else _NOT_DOCKER)
    remedy = f"COPY deployment/docker/all_in_one/docker-entrypoint.sh {ENTRYPOINT} and chmod 0755 it in the image"
    if world.entrypoint is None:
        if world.found.engine is not None and world.uid:
            return fine(f"no {ENTRYPOINT}; uid {world.uid} reaches the daemon without it")
        return failed(f"{ENTRYPOINT} is not in this container", remedy)
    if not world.entrypoint & 0o111:
        return failed(f"{ENTRYPOINT} is not executable", remedy)
    return fine(f"{ENTRYPOINT} has mode {stat.S_IMODE(world.entrypoint):04o}")


@check("workspace permissions")
def check_workspace(world: World) -> Finding:
    """The folder of the runs: there, ours to write, and nobody else's."""
    root = world.root
    own = Command.of("chown", world.uid, root, as_root=True)
    try:
        status = root.stat()
    except OSError as error:
        make = Command.of("mkdir", "-p", root), replace(own, as_root=False), Command.of("chmod", "0750", root)
        return failed(f"{root}: {error.strerror}", by(*make))
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode) or not os.access(root, os.W_OK | os.X_OK):
        return failed(f"{root} is not a folder that uid {world.uid} can write", by(own))
    if mode & stat.S_IWOTH:
        said = f"{root} has mode {mode:04o}: any user can fill it, and the system empties it if it is /tmp"
        return failed(said, "set ISORUN_WORKSPACE_ROOT to a folder of this service, mode 0750")
    return fine(f"{root} has mode {mode:04o}, owner {status.st_uid}")


@check("settings")
def check_settings(world: World) -> Finding:
    """No misspelt name and no file that nobody trusted, which would leave a default in force."""
    if world.settings.ignored:
        said = f"{', '.join(world.settings.ignored)} of {ENV_FILE} ignored, because you have not trusted it"
        trust = Command.of("isorun", "config", "trust", ENV_FILE)
        return failed(said, Remedy(f"{trust}, or set ISORUN_ENV_FILE to its path", trust))
    if world.settings.warnings:
        return failed("; ".join(world.settings.warnings), "correct the name: isorun config show")
    given = sum(row.source != "default" for row in world.settings.rows())
    return fine(f"{given} set, every name known")


@check("supervisor's network")
def check_network(world: World) -> Finding:
    """The supervisor's network; an executor has none on any backend."""
    mode = world.settings.network_mode
    if not world.docker:
        try:
            world.settings.check_embedded()
        except InvalidRequest as error:
            own = Export("PY_CODE_EXEC_NETWORK_MODE", "host")
            return failed(str(error), Remedy(f"set {own.name}={own.value} or none", own))
        return fine(f"{mode}; executors have none")
    if mode.startswith("container:"):
        said = f"PY_CODE_EXEC_NETWORK_MODE={mode} shares another container's loopback with the tools"
        return failed(said, "name a network of its own: docker network create chat-internal")
    what = "" if mode in _OPEN_NETWORKS else ", a network of that name"
    return fine(f"{mode}{what}; executors have none")


@check("AWS credentials")
def check_aws(world: World) -> Finding:
    """Whole keys with a region, or none: an instance role then serves the tools."""
    settings = world.settings
    given = (settings.aws_access_key_id is not None, settings.aws_secret_access_key is not None)
    if any(given) and not all(given):
        lacking = "AWS_ACCESS_KEY_ID" if given[1] else "AWS_SECRET_ACCESS_KEY"
        return failed(f"{lacking} is missing beside its twin", "set both, or neither for an instance role")
    has_region = settings.aws_region or settings.aws_default_region
    if (any(given) or settings.aws_profile) and not has_region:
        return failed("credentials without a region", "set AWS_REGION and AWS_DEFAULT_REGION")
    if any(given):
        return fine("keys are set, and passed to the supervisor only; an instance role needs none")
    if settings.aws_profile:
        return fine(f"profile {settings.aws_profile} of ~/.aws, for the supervisor only")
    if has_region and (settings.aws_ec2_metadata_disabled or "").lower() == "true":
        said = "a region is set, no key is, and AWS_EC2_METADATA_DISABLED=true shuts the instance role off"
        role = Export("AWS_EC2_METADATA_DISABLED", "false")
        return failed(said, Remedy(f"set {role.name}={role.value}, or give keys", role))
    return fine("absent: tools that need any have the instance role, through the supervisor's network")


@check("files with secrets")
def check_files(world: World) -> Finding:
    """Files of settings that hold a secret are readable by their owner, at most by a group."""
    holding = {row.source for row in world.settings.rows() if _is_secret(row)}
    if world.settings.tool_environment:
        holding |= world.files.keys()  # where each of those came from is not kept
    open_ = [file for file, mode in sorted(world.files.items()) if file in holding and mode & stat.S_IROTH]
    if open_:
        said = ", ".join(f"{file} has mode {stat.S_IMODE(world.files[file]):04o}" for file in open_)
        return failed(f"{said}: every user of this machine can read it", by(Command.of("chmod", "0600", *open_)))
    return fine(f"{', '.join(sorted(holding & world.files.keys())) or 'none'}")


def _is_secret(row: SettingRow) -> bool:
    return row.value is not None and "***" in row.value


@check("secrets in docker inspect")
def check_inspect(world: World) -> Finding:
    """What `docker inspect` shows of our own container is read by everybody who may use the daemon."""
    container = world.found.container
    if container is None:
        return _look_at_own_environment(world)
    secrets = list(_secret_values(world.settings))
    shown = sorted({place for place, text in _shown(container) if any(secret in text for secret in secrets)})
    if shown:
        return failed(f"`docker inspect` of this container shows {', '.join(shown)}", _AS_A_FILE)
    return fine("none")


def _look_at_own_environment(world: World) -> Finding:
    """The same where the daemon cannot be asked: what our environment has, our container's most likely has."""
    if not world.contained:
        return not_applicable(_NOT_CONTAINED)
    given = [row.name_used for row in world.settings.rows() if _is_secret(row) and row.source == ENVIRONMENT]
    if given:
        return failed(f"the environment of this container has {', '.join(given)}", _AS_A_FILE)
    return fine("none in this environment; this daemon does not know our container")


def _secret_values(settings: Settings) -> Iterator[str]:
    masked = {row.name for row in settings.rows() if _is_secret(row)}
    for key in SECRETS:
        value = str(getattr(settings, key))
        if {key.upper(), f"ISORUN_{key.upper()}"} & masked and len(value) >= _LEAST_SECRET:
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


@check("service's user")
def check_user(world: World) -> Finding:
    """Nobody's ids for the executor, and no root where nothing needs it."""
    executor = world.executor
    if world.docker and world.contained and world.uid == 0:
        said = "this process is root in a container that holds the socket, and needs no root"
        return failed(said, "start the container with docker-entrypoint.sh, which changes to appuser")
    if world.docker:
        return fine(f"uid {world.uid}")
    owners = accounts(executor.uid, executor.gid) if executor.root else ()
    if owners:
        return failed(f"executors have {executor.uid}:{executor.gid}: {owned(owners)}", IDS_REMEDY)
    whose = "unused ids" if executor.root else "this user's own, so give the service an account of its own"
    return fine(f"uid {world.uid}; executors have {executor.uid}:{executor.gid}, {whose}")


@check("cgroup")
def check_ceilings(world: World) -> Finding:
    """A cgroup holds the executor itself; a watcher is late by its interval."""
    if world.docker:
        stands = next((row for row in world.found.checks if row.name == "walls of the engine"), None)
        if stands is None:
            return failed("no daemon answers", "see Docker daemon")
        return Finding(stands.ok, stands.detail, stands.remedy)
    if world.cgroup:
        text = "Delegate=yes in the service's systemd unit, or ISORUN_CGROUP_PARENT"
        remedy = Remedy(text, *world.cgroup_actions)
        return failed(f"no cgroup holds memory and processes ({world.cgroup})", remedy)
    return fine("holds memory, processes and CPU of each run")


@check("ceiling of the workspace")
def check_workspace_ceiling(world: World) -> Finding:
    """A program leaves a watcher behind, and fills the disk; a file system of a size it cannot."""
    if world.isolation is None:
        return failed("no program ran", "see the trial")
    if "sizes" not in world.isolation["walls"] or "workspace" in world.isolation["without"]:
        return failed("no file system of its own holds it", "read the walls of the trial run")
    return fine("held by a file system of its own")


@check("core dumps")
def check_dumps(world: World) -> Finding:
    """Executors make no dumps; what else crashes on this machine hands its memory to that program, as root."""
    pattern = world.core_pattern
    if not pattern.startswith(("|", "@")):
        return fine(f"no program is started for them (core_pattern is {one_line(pattern) or 'not to be seen'})")
    change = Command.of("sysctl", "-w", "kernel.core_pattern=core", as_root=True)
    said = f"hands dumps to the socket {one_line(pattern[1:])}, executors' too, at any RLIMIT_CORE"
    if pattern.startswith("|"):
        said = f"starts {one_line(pattern[1:])} as root; executors are kept from it by RLIMIT_CORE 1 alone"
    return failed(f"core_pattern {said}", Remedy(f"{change}, and in /etc/sysctl.d", change))


@check("limits of a run")
def check_limits(world: World) -> Finding:
    """The ceilings of one run fit this machine."""
    limits = world.settings.limits()
    detail = (
        f"{limits.wall_s:g} s, {limits.memory_bytes // MIB} MiB, {limits.processes} processes, {limits.cpus:g} CPU, "
        f"{limits.workspace_bytes // MIB} MiB of files a run"
    )
    if limits.memory_bytes > world.memory_bytes:
        said = f"a run may take {limits.memory_bytes // MIB} MiB, this machine has {world.memory_bytes // MIB} MiB"
        return failed(said, "lower ISORUN_MAX_MEMORY_BYTES, or the kernel ends something else")
    return fine(detail)


@check("bounded logs")
def check_logs(world: World) -> Finding:
    """Nothing that is logged grows without end."""
    kept = f"user.log of a run holds at most {world.settings.limits().log_bytes // MIB} MiB"
    if world.found.container is None:
        return fine(kept)
    config = (world.found.container.get("HostConfig") or {}).get("LogConfig") or {}
    driver = str(config.get("Type") or "")
    if driver in _UNBOUNDED_LOGS and not (config.get("Config") or {}).get("max-size"):
        remedy = "--log-opt max-size=10m --log-opt max-file=3, `logging:` in compose, or log-opts in daemon.json"
        return failed(f"this container logs to {driver or 'json-file'} without max-size", remedy)
    return fine(f"this container logs to {driver}; {kept}")


@check("retention")
def check_retention(world: World) -> Finding:
    """Runs that are over their time are removed; a service that never restarts needs a timer for it."""
    hours = world.settings.retention_hours
    if world.old_runs:
        said = f"{world.old_runs} runs are older than ISORUN_RETENTION_HOURS ({hours:g} h) and a day"
        return failed(said, Remedy("run `isorun cleanup` every day (cron, or a systemd timer)", CLEANUP))
    return fine(f"{hours:g} h, none is older")


@check("disk space")
def check_space(world: World) -> Finding:
    """The disk holds as many runs as wait in the pool, and one more."""
    limits = world.settings.limits()
    needed = (world.settings.pool_size + 1) * (limits.workspace_bytes + limits.log_bytes)
    place = next(path for path in (world.root, *world.root.parents) if path.exists())
    told = os.statvfs(place)
    free, inodes = told.f_bavail * told.f_frsize, told.f_favail
    if free < needed:
        said = f"{place}: {free // MIB} MiB free, {world.settings.pool_size + 1} runs at once may need {needed // MIB}"
        return failed(said, "free space there, `isorun cleanup --older-than HOURS`, or a smaller pool")
    return fine(f"{place}: {free // MIB} MiB and {inodes} inodes free")


@check("leftovers")
def check_leftovers(world: World) -> Finding:
    """No container or folder that nobody owns any more."""
    if world.leftovers:
        said = f"{len(world.leftovers)} left by a killed process: {', '.join(world.leftovers[:5])}"
        sandboxes = Command.of("sandbox-runner", "cleanup")
        return failed(said, Remedy(f"{sandboxes}, and {CLEANUP}", sandboxes, CLEANUP))
    return fine("none") if world.docker else not_applicable(_NOT_DOCKER)


#: In the order of this file, which is the order of the page.
CHECKS: tuple[Check[[World]], ...] = tuple(each for each in vars().values() if isinstance(each, Check))
