"""The checklist of `isorun doctor --production`: each row can fail, says why, and what to do.

`FAILING` is a table of worlds in which one check fails; a world with nothing wrong is the control of each.
"""

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from isorun.backends.executor_ids import Identity
from isorun.doctor import production
from isorun.doctor.docker import Found
from isorun.doctor.world import World, look
from isorun.settings import Settings
from tests.unit.doctor.worlds import CONTAINER, FOUND, KEYS, PRIVATE, SOCKET, WALLS, settings

pytestmark = pytest.mark.uid


@dataclass(frozen=True, kw_only=True)
class Failing:
    """A world in which one check fails. `detail` and `remedy` are how they begin; {root} is the folder of the runs."""

    id: str
    check: str
    detail: str
    remedy: str
    change: dict[str, Any] = field(default_factory=dict)
    act: Callable[[World], None] = lambda world: None


def container(**config: object) -> Found:
    return replace(FOUND, container={**CONTAINER, "Config": {**CONTAINER["Config"], **config}})


EMBEDDED = {"docker": False, "contained": False, "found": Found(checks=())}
FAILING = (
    Failing(
        id="no-image",
        change={"found": replace(FOUND, image=None)},
        check="image built and tagged",
        detail="py-code-exec:latest is not on this engine",
        remedy="isorun image build",
    ),
    Failing(
        id="only-latest",
        change={"found": replace(FOUND, image={"RepoTags": ["py-code-exec:latest"]})},
        check="image built and tagged",
        detail="only the tag latest names it, and the next build takes that away",
        remedy="docker tag py-code-exec:latest py-code-exec:1 and set PY_CODE_EXEC_IMAGE=py-code-exec:1",
    ),
    Failing(
        id="socket-for-everybody",
        change={"socket": (SOCKET, stat.S_IFSOCK | 0o666)},
        check="Docker socket",
        detail="/var/run/docker.sock has mode 0666: every user of this machine is root through it",
        remedy="chmod 0660 /var/run/docker.sock",
    ),
    Failing(
        id="no-socket",
        change={"socket": (SOCKET, None)},
        check="Docker socket",
        detail="/var/run/docker.sock is not a socket",
        remedy="start the daemon; in a container mount the socket: -v /var/run/docker.sock:/var/run/docker.sock",
    ),
    Failing(
        id="a-port-without-tls",
        change={"socket": ("tcp://10.0.0.1:2375", None)},
        check="Docker socket",
        detail="tcp://10.0.0.1:2375 without TLS: a client that reaches that port is root there",
        remedy="set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH",
    ),
    Failing(
        id="no-entrypoint",
        change={"entrypoint": None, "found": replace(FOUND, engine=None)},
        check="entrypoint",
        detail="/usr/local/bin/docker-entrypoint.sh is not in this container",
        remedy="COPY deployment/docker/all_in_one/docker-entrypoint.sh",
    ),
    Failing(
        id="entrypoint-not-executable",
        change={"entrypoint": PRIVATE},
        check="entrypoint",
        detail="/usr/local/bin/docker-entrypoint.sh is not executable",
        remedy="COPY deployment/docker/all_in_one/docker-entrypoint.sh",
    ),
    Failing(
        id="no-workspace",
        act=lambda world: world.root.rmdir(),
        check="workspace permissions",
        detail="{root}: No such file or directory",
        remedy="mkdir -p {root} && chown 1000 {root}",
    ),
    Failing(
        id="workspace-for-everybody",
        act=lambda world: world.root.chmod(0o1777),
        check="workspace permissions",
        detail="{root} has mode 1777: any user can fill it",
        remedy="set ISORUN_WORKSPACE_ROOT to a folder of this service",
    ),
    Failing(
        id="workspace-is-a-file",
        act=lambda world: (world.root.rmdir(), world.root.touch()),
        check="workspace permissions",
        detail="{root} is not a folder that uid 1000 can write",
        remedy="chown 1000 {root}",
    ),
    Failing(
        id="misspelt-setting",
        change={"settings": settings(ISORUN_POOL_SIZ="9")},
        check="settings",
        detail="ISORUN_POOL_SIZ (environment) is not a setting; the nearest name is ISORUN_POOL_SIZE",
        remedy="correct the name: isorun config show",
    ),
    Failing(
        id="another-containers-network",
        change={"settings": settings(PY_CODE_EXEC_NETWORK_MODE="container:db")},
        check="supervisor's network",
        detail="PY_CODE_EXEC_NETWORK_MODE=container:db shares another container's loopback with the tools",
        remedy="name a network of its own: docker network create chat-internal",
    ),
    Failing(
        id="a-network-that-is-docker's",
        change={**EMBEDDED, "settings": settings(PY_CODE_EXEC_NETWORK_MODE="chat-internal")},
        check="supervisor's network",
        detail="PY_CODE_EXEC_NETWORK_MODE=chat-internal: the embedded backend's supervisor has the host's network",
        remedy="set PY_CODE_EXEC_NETWORK_MODE=host or none",
    ),
    Failing(
        id="half-a-key",
        change={"settings": settings(AWS_ACCESS_KEY_ID="AKIAEXAMPLE", AWS_REGION="eu-west-1")},
        check="AWS credentials",
        detail="AWS_SECRET_ACCESS_KEY is missing beside its twin",
        remedy="set both, or neither for an instance role",
    ),
    Failing(
        id="keys-without-a-region",
        change={"settings": settings(AWS_PROFILE="work")},
        check="AWS credentials",
        detail="credentials without a region",
        remedy="set AWS_REGION and AWS_DEFAULT_REGION",
    ),
    Failing(
        id="no-key-and-no-role",
        change={"settings": settings(AWS_REGION="eu-west-1", AWS_EC2_METADATA_DISABLED="true")},
        check="AWS credentials",
        detail="a region is set, no key is, and AWS_EC2_METADATA_DISABLED=true shuts the instance role off",
        remedy="set AWS_EC2_METADATA_DISABLED=false",
    ),
    Failing(
        id="secret-in-the-environment",
        change={"found": container(Env=["A=b", f"DB={KEYS['POSTGRES_PASSWORD']}", f"URL={KEYS['REDIS_URL']}?x=1"])},
        check="secrets in docker inspect",
        detail="`docker inspect` of this container shows DB, URL",
        remedy="mount the settings as a file",
    ),
    Failing(
        id="secret-on-the-command-line",
        change={"found": container(Cmd=["serve", f"--key={KEYS['AWS_SECRET_ACCESS_KEY']}"])},
        check="secrets in docker inspect",
        detail="`docker inspect` of this container shows Cmd",
        remedy="mount the settings as a file",
    ),
    Failing(
        id="secret-in-the-environment-of-an-unknown-container",
        change={"found": replace(FOUND, container=None)},
        check="secrets in docker inspect",
        detail="the environment of this container has REDIS_URL, POSTGRES_PASSWORD, AWS_ACCESS_KEY_ID",
        remedy="mount the settings as a file",
    ),
    Failing(
        id="root",
        change={"uid": 0},
        check="service's user",
        detail="this process is root in a container that holds the socket, and needs no root",
        remedy="start the container with docker-entrypoint.sh, which changes to appuser",
    ),
    Failing(
        id="executor-is-somebody",
        change={**EMBEDDED, "uid": 0, "executor": Identity(uid=0, gid=3_999_999_999, root=True)},
        check="service's user",
        detail="executors have 0:3999999999: root of this machine can enter every run, read it and write its results",
        remedy="unset ISORUN_EXECUTOR_UID and ISORUN_EXECUTOR_GID, or set them to unused ids",
    ),
    Failing(
        id="engine-without-ceilings",
        change={"found": replace(FOUND, checks=(replace(WALLS, ok=False, detail="no swap", remedy="boot with it"),))},
        check="cgroup",
        detail="no swap",
        remedy="boot with it",
    ),
    Failing(
        id="no-daemon",
        change={"found": replace(FOUND, checks=())},
        check="cgroup",
        detail="no daemon answers",
        remedy="see Docker daemon",
    ),
    Failing(
        id="no-cgroup",
        change={**EMBEDDED, "cgroup": "memory: may not be written"},
        check="cgroup",
        detail="no cgroup holds memory and processes (memory: may not be written)",
        remedy="Delegate=yes in the service's systemd unit, or ISORUN_CGROUP_PARENT",
    ),
    Failing(
        id="a-workspace-that-nothing-holds",
        change={"isolation": {"level": "weakened", "without": [], "walls": {}}},
        check="ceiling of the workspace",
        detail="no file system of its own holds it",
        remedy="read the walls of the trial run",
    ),
    Failing(
        id="dumps-to-a-program",
        change={"core_pattern": "|/usr/share/apport/apport \x1b %p"},
        check="core dumps",
        detail=r"core_pattern starts /usr/share/apport/apport \x1b %p as root; executors are kept from it by ",
        remedy="sysctl -w kernel.core_pattern=core",
    ),
    Failing(
        id="dumps-to-a-socket",
        change={"core_pattern": "@/run/dumps \x1b"},
        check="core dumps",
        detail=r"core_pattern hands dumps to the socket /run/dumps \x1b, executors' too, at any RLIMIT_CORE",
        remedy="sysctl -w kernel.core_pattern=core",
    ),
    Failing(
        id="no-program-ran",
        change={"isolation": None},
        check="ceiling of the workspace",
        detail="no program ran",
        remedy="see the trial",
    ),
    Failing(
        id="more-memory-than-there-is",
        change={"memory_bytes": 512 << 20},
        check="limits of a run",
        detail="a run may take 1024 MiB, this machine has 512 MiB",
        remedy="lower ISORUN_MAX_MEMORY_BYTES",
    ),
    Failing(
        id="a-log-without-end",
        change={
            "found": replace(
                FOUND, container={**CONTAINER, "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {}}}}
            )
        },
        check="bounded logs",
        detail="this container logs to json-file without max-size",
        remedy="--log-opt max-size=10m --log-opt max-file=3",
    ),
    Failing(
        id="old-runs",
        change={"old_runs": 7},
        check="retention",
        detail="7 runs are older than ISORUN_RETENTION_HOURS (168 h) and a day",
        remedy="run `isorun cleanup` every day",
    ),
    Failing(
        id="full-disk",
        change={"settings": settings(ISORUN_MAX_LOG_BYTES=str(1 << 53))},
        check="disk space",
        detail="{root}: ",
        remedy="free space there, `isorun cleanup --older-than HOURS`, or a smaller pool",
    ),
    Failing(
        id="leftovers",
        change={"leftovers": ("container sandbox-1 (its owner is dead)",)},
        check="leftovers",
        detail="1 left by a killed process: container sandbox-1 (its owner is dead)",
        remedy="sandbox-runner cleanup, and isorun cleanup",
    ),
)


def test_a_world_with_nothing_wrong_has_no_failed_check(world: World) -> None:
    """The control of the table, for both backends."""
    assert [check for check in production.examine(world) if not check.ok] == []
    embedded = replace(world, **EMBEDDED)
    assert [row for row in production.examine(embedded) if not row.ok] == []
    apart = [row.name for row in production.examine(embedded) if row.detail.startswith("does not apply: ")]
    of_docker = ["image built and tagged", "Docker socket", "entrypoint", "secrets in docker inspect", "leftovers"]
    assert apart == of_docker


@pytest.mark.parametrize("failing", FAILING, ids=lambda failing: failing.id)
def test_what_is_wrong_is_said_with_its_remedy(failing: Failing, world: World) -> None:
    """That one check fails, and no other; its text holds the value of no secret."""
    changed = replace(world, **failing.change)
    failing.act(changed)
    (failed,) = (check for check in production.examine(changed) if not check.ok)
    assert failed.name == failing.check
    assert failed.detail.startswith(failing.detail.replace("{root}", str(world.root))), failed.detail
    assert failed.remedy.startswith(failing.remedy.replace("{root}", str(world.root))), failed.remedy
    assert "hush" not in failed.detail + failed.remedy


@pytest.mark.parametrize(("mode", "ok"), [(0o600, True), (0o640, True), (0o604, False), (0o644, False)])
def test_a_file_with_secrets_is_not_everybodys(mode: int, ok: bool, world: World, tmp_path: Path) -> None:
    """A file that the whole machine can read gives the keys to every user of it."""
    file = tmp_path / "env"
    file.write_text("AWS_SECRET_ACCESS_KEY=hush-secret-key\nAWS_ACCESS_KEY_ID=AKIAEXAMPLE\nAWS_REGION=eu-west-1\n")
    file.chmod(mode)
    given = Settings.load(file, environ={})
    check = production.check_files(replace(world, settings=given, files={str(file): file.stat().st_mode}))
    assert check.ok == ok
    assert ok or check.detail == f"{file} has mode {mode:04o}: every user of this machine can read it"
    assert ok or check.remedy == f"chmod 0600 {file}"


def test_a_file_without_secrets_may_be_read(world: World, tmp_path: Path) -> None:
    """A pool size is nobody's secret."""
    file = tmp_path / "env"
    file.write_text("ISORUN_POOL_SIZE=2\n")
    given = Settings.load(file, environ={})
    assert production.check_files(replace(world, settings=given, files={str(file): stat.S_IFREG | 0o644})).ok


def test_every_check_can_fail() -> None:
    """A row that is always ok says nothing: each has a world of the table, or a test of its own, in which it fails."""
    named = {failing.check for failing in FAILING} | {"files with secrets"}
    assert named == {check.name for check in production.CHECKS}


def test_every_masked_setting_is_looked_for() -> None:
    """What `isorun config show` masks may not be in an inspected container; a new secret has to be in the list."""
    values = dict.fromkeys(production.SECRETS, "scheme://user:hush@host")
    given = replace(settings(), **values)
    masked = [row.name for row in given.rows() if row.value is not None and "***" in row.value]
    every = replace(settings(), **dict.fromkeys(_text_fields(), "scheme://user:hush@host"))
    assert sorted(masked) == sorted(row.name for row in every.rows() if row.value is not None and "***" in row.value)
    assert len(masked) == len(production.SECRETS)


def _text_fields() -> list[str]:
    return [name for name, hint in Settings.__annotations__.items() if "str | None" in str(hint)]


def test_what_is_known_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`look` reads modes of files, ages of runs and the address of the daemon as they are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env.backend").write_text("POSTGRES_PASSWORD=hush\n")
    (tmp_path / ".env.backend").chmod(0o640)
    monkeypatch.setenv("ISORUN_ENV_FILE", ".env.backend")
    monkeypatch.setenv("DOCKER_HOST", "tcp://h:2376")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    for name, age_h in (("codegen_old", 200.0), ("codegen_new", 1.0), ("other_old", 900.0)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age_h * 3600,) * 2)
    world = look(Settings.load(), tmp_path, FOUND, docker=False)
    assert (world.old_runs, world.socket, world.has_tls) == (1, ("tcp://h:2376", None), True)
    assert {name: stat.S_IMODE(mode) for name, mode in world.files.items()} == {".env.backend": 0o640}
    assert world.uid == os.geteuid()
    assert world.memory_bytes > 1 << 28
