"""The `docker run` line of a sandbox, decided from its spec, and whether the container that came of it is as decided.

Pure: starts nothing. The line is the security policy of the Docker backend; each wall that
the spec does not loosen is on it, and is read back from what the engine made of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox_runner.docker.inside import keep_alive
from sandbox_runner.errors import InvalidSpec
from sandbox_runner.linux import walls
from sandbox_runner.spec import CACHE, DEFAULT_NOFILE, WALLS, WORKSPACE, SandboxSpec

LABEL = "sandbox_runner"
NAME = "sandbox_runner.name"  # a container of an image that was committed from ours has all of our labels, and another
NONCE = "sandbox_runner.nonce"  # of one start: what has the name and not this is somebody else's
OWNER = "sandbox_runner.owner"
IMAGE = "sandbox_runner.from"
EXPIRES = "sandbox_runner.expires"
KEPT = "sandbox_runner.kept"
ROOT = "sandbox_runner.root"  # where its state is: whoever has another place can say nothing of its owner
#: An engine copies the host's resolver into each container, also without a network: this one is nobody's (RFC 5737).
NO_RESOLVER = ("--dns", "192.0.2.1", "--dns-search", ".")
#: What a container without a network finds by its own hostname: an engine writes that into /etc/hosts for others alone.
#: As on Debian it is not the address of `localhost`, which would then be what `socket.getfqdn` answers.
OWN_ADDRESS = "127.0.1.1"
_RUN_BYTES = 16 << 20
_TEMPORARY = "/tmp"
_HOME = re.compile(r"(/root|/home/[^/:]+)(?:/.*)?")
_INODES = 200_000
_LOGS = ("--log-driver", "json-file", "--log-opt", "max-size=1m", "--log-opt", "max-file=2")


@dataclass(frozen=True, slots=True)
class Bind:
    """A folder or file of the engine's host, inside."""

    source: str
    target: str
    read_only: bool = False

    def option(self) -> str:
        """For `--mount`. Raises `InvalidSpec` for a path that could add options of its own."""
        if any(character in f"{self.source}{self.target}" for character in ',"\n\r'):
            raise InvalidSpec(
                "path", f"the engine cannot mount {self.source!r}: a comma, a quote or a line break is in it"
            )
        return f"type=bind,source={self.source},target={self.target}" + (",readonly" if self.read_only else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that `docker run` is told."""

    name: str
    image: str
    user: tuple[int, int]
    binds: Sequence[Bind]
    labels: Mapping[str, str]
    seccomp: str  # path of our profile, as the CLI sees it
    life_s: float | None = None  # how long the container is needed, if that is known to be less than its time to live


def run_arguments(spec: SandboxSpec, plan: Plan) -> list[str]:
    """The arguments of `docker`. No value of the environment is among them."""
    uid, gid = plan.user
    private = f"uid={uid},gid={gid},mode=0700" if "user" not in spec.loosen else "mode=1777"
    argv = [
        "run",
        "--detach",
        "--name",
        plan.name,
        "--pull",
        "never",
        "--hostname",
        "sandbox",
        "--no-healthcheck",
        *_LOGS,
    ]
    for name, value in plan.labels.items():
        argv += ["--label", f"{name}={value}"]
    argv += ["--network", "none", *NO_RESOLVER] if spec.network_mode == "none" else ["--network", "bridge"]
    argv += _wall_options(spec, plan)
    # A dump would hold the values of the environment. Not 0: the pipe of the host's core_pattern gets it at 0 too.
    argv += ["--ulimit", "core=1:1"]
    argv += ["--tmpfs", f"/tmp:rw,exec,nosuid,nodev,mode=1777,size={spec.tmp_bytes},nr_inodes={_INODES}"]
    for place in ("/run", "/var/tmp"):
        argv += ["--tmpfs", f"{place}:rw,noexec,nosuid,nodev,{private},size={_RUN_BYTES},nr_inodes=1000"]
    if spec.cache_mode == "cold":
        argv += ["--tmpfs", f"{CACHE}:rw,exec,nosuid,nodev,{private},size={spec.tmp_bytes},nr_inodes={_INODES}"]
    home = home_of(plan.binds)
    if home not in (_TEMPORARY, *(bind.target for bind in plan.binds)):
        # The image's is root's alone as a rule, and read-only: nobody else could reach the mount, or write beside it.
        argv += ["--tmpfs", f"{home}:rw,exec,nosuid,nodev,{private},size={spec.tmp_bytes},nr_inodes={_INODES}"]
    for bind in plan.binds:
        argv += ["--mount", bind.option()]
    if spec.resources.cpus is not None:
        argv += ["--cpus", f"{spec.resources.cpus:g}"]
    argv += [] if spec.runtime is None else ["--runtime", spec.runtime]
    argv += [] if spec.platform is None else ["--platform", spec.platform]
    argv += ["--env", f"HOME={home}", "--env", f"XDG_CACHE_HOME={CACHE}", "--workdir", WORKSPACE]
    return [*argv, "--entrypoint", "/bin/sh", plan.image, "-c", keep_alive(_life_s(spec, plan))]


def home_of(binds: Sequence[Bind]) -> str:
    """What `~` is: the home directory that the first such mount is, or lies in, as /root/.config does; else /tmp."""
    return next((found[1] for bind in binds if (found := _HOME.fullmatch(bind.target))), _TEMPORARY)


def _life_s(spec: SandboxSpec, plan: Plan) -> float:
    return spec.ttl_seconds if plan.life_s is None else min(plan.life_s, spec.ttl_seconds)


def _wall_options(spec: SandboxSpec, plan: Plan) -> list[str]:
    options = {
        "capabilities": ["--cap-drop", "ALL"],
        "no_new_privileges": ["--security-opt", "no-new-privileges"],
        "init": ["--init"],
        # Memory and swap together: without the second, as much again of swap would be free.
        "memory_limit": ["--memory", str(spec.memory_bytes), "--memory-swap", str(spec.memory_bytes)],
        "nofile_limit": ["--ulimit", f"nofile={DEFAULT_NOFILE}:{DEFAULT_NOFILE}"],
        "pids_limit": ["--pids-limit", str(spec.pids)],
        "read_only_root": ["--read-only"],
        "seccomp": ["--security-opt", f"seccomp={plan.seccomp}"],
        "user": ["--user", f"{plan.user[0]}:{plan.user[1]}"],
    }
    loosened = {"seccomp": ["--security-opt", "seccomp=unconfined"]}
    return [part for wall in WALLS for part in (loosened.get(wall, []) if wall in spec.loosen else options[wall])]


def missing_walls(spec: SandboxSpec, plan: Plan, inspected: Mapping[str, Any], shown: Mapping[str, str]) -> list[str]:
    """The walls that the spec wants and that do not stand, by what the engine says, and the container's kernel.

    *shown* is what `inside.PROBE` printed of /proc/self/status. Another runtime than the engine's own keeps its walls
    outside of that file, so there the engine's word counts.
    """
    host = inspected["HostConfig"]
    security = host.get("SecurityOpt") or []
    standing = {
        "capabilities": host.get("CapDrop") == ["ALL"] and not host.get("CapAdd") and not host.get("Privileged"),
        "no_new_privileges": any(option.startswith("no-new-privileges") for option in security),
        "init": host.get("Init") is True,
        "memory_limit": host.get("Memory") == spec.memory_bytes and host.get("MemorySwap") == spec.memory_bytes,
        "nofile_limit": any(
            limit["Name"] == "nofile" and limit["Hard"] == DEFAULT_NOFILE for limit in host.get("Ulimits") or []
        ),
        "pids_limit": host.get("PidsLimit") == spec.pids,
        "read_only_root": host.get("ReadonlyRootfs") is True,
        "seccomp": any(option.startswith("seccomp={") for option in security),
        "user": inspected["Config"].get("User") == f"{plan.user[0]}:{plan.user[1]}",
    }
    if spec.runtime is None:
        for wall, stands in walls.standing(shown).items():
            standing[wall] &= stands
    missing = [wall for wall in WALLS if wall not in spec.loosen and not standing[wall]]
    if spec.network_mode == "none" and host.get("NetworkMode") != "none":
        missing.append("network")
    return missing
