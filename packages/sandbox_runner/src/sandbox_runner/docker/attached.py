"""A container whose one command is spoken to over its stdin, stdout and stderr, for as long as it lives.

`docker run --interactive`, at the one choke point for the CLI: one CLI process a container
carries the three streams, from a local daemon or a remote one, for any runtime. The
container has the labels of every sandbox, so `cleanup` finds it when its owner was killed.
Every wall stands, none can be loosened; `AttachedContainer.confirm` reads them back.

What the streams carry is not known here.
"""

from __future__ import annotations

import csv
import io
import os
import secrets
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sandbox_runner.docker.command import Answer, DockerCli
from sandbox_runner.docker.container import remove, remove_number
from sandbox_runner.docker.line import (
    EXPIRES,
    IMAGE,
    KEPT,
    LABEL,
    NAME,
    NO_RESOLVER,
    NONCE,
    OWN_ADDRESS,
    OWNER,
    ROOT,
    Bind,
)
from sandbox_runner.errors import DockerUnavailable, SandboxError, SandboxGone, SandboxStartFailed
from sandbox_runner.linux.seccomp import profile_path
from sandbox_runner.spec import MountSpec
from sandbox_runner.starting import new_name
from sandbox_runner.state import Owner, state_root

_TERMINALS = "/dev/pts"
_LOGS = ("--log-driver", "json-file", "--log-opt", "max-size=1m", "--log-opt", "max-file=2")


class Tmpfs(NamedTuple):
    """A file system in memory: the bytes and the inodes it may hold, and of its root the mode, the uid and the gid."""

    size: int
    inodes: int
    mode: int = 0o1777
    owner: tuple[int, int] = (0, 0)

    def options(self) -> str:
        """What the engine mounts it with."""
        owned = f"mode={self.mode:04o},uid={self.owner[0]},gid={self.owner[1]}"
        return f"rw,exec,nosuid,nodev,{owned},size={self.size},nr_inodes={self.inodes}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedSpec:
    """One container. Paths of `mounts` are the engine's host's (see `host_paths`); sizes are bytes.

    `env` is shown by `docker inspect`: no secret may be in it, nor in `command`. `nofile` is the limit of open files,
    soft and hard; None: the engine's own. `tmpfs` maps a path inside to what
    is mounted there. `shared` is a path and a file system in memory that other containers may have, too: those whose
    `shares` is this container's name and the path. It is gone with the last of them. `labels` are the
    caller's, and are the shared one's, too. `sysctls` are of its own network namespace.
    """

    image: str
    command: tuple[str, ...]
    user: tuple[int, int]
    memory_bytes: int
    pids: int
    cpus: float
    nofile: int | None
    file_bytes: int | None = None
    mounts: tuple[MountSpec, ...] = ()
    tmpfs: Mapping[str, Tmpfs] = field(default_factory=dict)
    shared: tuple[str, Tmpfs] | None = None
    shares: tuple[str, str] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    network: str = "none"
    sysctls: Mapping[str, str] = field(default_factory=dict)
    hostname: str = "sandbox"
    runtime: str | None = None
    init: bool = False  # the engine's own, as its first process: for a command that cannot be one
    ttl_seconds: float = 86_400.0


class AttachedContainer:
    """A container that was asked for. `stdin`, `stdout` and `stderr` are descriptors, ours to read, write and close.

    The streams end when it does, or when the engine would not start it: then `stderr` says why. When our process ends,
    however it ends, its command sees the end of its stdin.
    """

    def __init__(self, cli: DockerCli, name: str, nonce: str, process: subprocess.Popen[bytes]) -> None:
        streams = [stream for stream in (process.stdin, process.stdout, process.stderr) if stream is not None]
        self._cli, self._nonce, self._process = cli, nonce, process
        self.name = name
        self.stdin, self.stdout, self.stderr = (os.dup(stream.fileno()) for stream in streams)
        for stream in streams:
            stream.close()
        self._is_open = True
        self._number: str | None = None  # the engine's, of no other container ever; known once it was inspected

    @classmethod
    def start(cls, cli: DockerCli, spec: AttachedSpec) -> AttachedContainer:
        """Ask the engine for it; does not wait. Raises `DockerUnavailable`, `SandboxStartFailed`."""
        name, nonce = new_name(), secrets.token_hex(16)
        argv = [cli.program, *run_arguments(spec, name, nonce)]
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # a terminal's Ctrl-C is for us
            )
        except OSError as error:
            raise DockerUnavailable(f"{cli.program} cannot be started: {error.strerror}") from None
        return cls(cli, name, nonce, process)

    def inspect(self) -> dict[str, Any]:
        """What the engine says of it. Raises `SandboxGone` if it does not know it."""
        found = self._cli.inspect("container", self.name)
        if found is None:
            raise SandboxGone(f"the engine does not know the container {self.name}")
        if (found["Config"].get("Labels") or {}).get(NONCE) == self._nonce:
            self._number = found["Id"]
        return found

    def confirm(self, spec: AttachedSpec) -> dict[str, Any]:
        """`inspect`, once every wall of *spec* stands by the engine's word. Raises `SandboxStartFailed`."""
        inspected = self.inspect()
        if missing := missing_walls(spec, inspected):
            raise SandboxStartFailed(
                f"these walls do not stand: {', '.join(missing)}; the engine cannot make them, or ignored them"
            )
        return inspected

    def pause(self) -> None:
        """Have the engine freeze every process of it until `unpause`. Raises `SandboxError` if it does not."""
        self._told("pause")

    def unpause(self) -> None:
        """Let it run on. Raises `SandboxError` if the engine does not, as where it is not frozen."""
        self._told("unpause")

    def _told(self, command: str) -> None:
        answer = self._cli.run(command, self.name)
        if answer.code:
            raise SandboxError(f"docker {command}: {answer.said}")

    def wait(self, timeout_s: float | None) -> int | None:
        """Its exit code once it has ended, or the engine refused it; None if *timeout_s* came first."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def remove(self) -> None:
        """End and remove it, and its volumes. Raises `SandboxError` if it stays, for `cleanup` or a second call."""
        was_open, self._is_open = self._is_open, False
        for descriptor in (self.stdin, self.stdout, self.stderr) if was_open else ():
            os.close(descriptor)  # once: by a second call the number may be another's
        try:
            if self._number is not None:  # nothing has to be searched for
                remove_number(self._cli, self.name, self._number)
            else:
                remove(self._cli, self.name, self._nonce, may_come=self._process.poll() is None)
        finally:
            self._process.kill()  # without effect if it has ended with its container
            self._process.wait()


def run_to_end(cli: DockerCli, spec: AttachedSpec, timeout_s: float) -> Answer:
    """Start it without input, wait for its end, and remove it; what it printed, or why the engine refused it.

    Raises as `DockerCli.run` does, and `SandboxError` if it stays.
    """
    name, nonce, answer = new_name(), secrets.token_hex(16), None
    try:
        answer = cli.run(*run_arguments(spec, name, nonce), timeout_s=timeout_s)
    finally:
        remove(cli, name, nonce, may_come=answer is None)
    return answer


def run_arguments(spec: AttachedSpec, name: str, nonce: str) -> list[str]:
    """The arguments of `docker`. Long because it is the whole command line, in its order."""
    owner = Owner.of_this_process()
    labels = {
        **spec.labels,
        LABEL: "1",
        IMAGE: spec.image,
        NAME: name,
        ROOT: str(state_root()),
        NONCE: nonce,
        OWNER: f"{owner.pid} {owner.started} {owner.host}",
        EXPIRES: f"{time.time() + spec.ttl_seconds:.0f}",
        KEPT: "no",
    }
    argv = ["run", "--interactive", "--sig-proxy=false", "--name", name, "--pull", "never", "--no-healthcheck", *_LOGS]
    argv += ["--network", spec.network, *(NO_RESOLVER if spec.network == "none" else ()), "--cgroupns", "private"]
    if spec.network != "host":
        argv += ["--hostname", spec.hostname]
    if spec.network == "none":
        argv += ["--add-host", f"{spec.hostname}:{OWN_ADDRESS}"]
    for sysctl, value in spec.sysctls.items():
        argv += ["--sysctl", f"{sysctl}={value}"]
    for label, value in labels.items():
        argv += ["--label", f"{label}={value}"]
    memory = str(spec.memory_bytes)
    argv += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"]
    argv += ["--security-opt", f"seccomp={profile_path()}", "--user", f"{spec.user[0]}:{spec.user[1]}"]
    argv += ["--memory", memory, "--memory-swap", memory, "--pids-limit", str(spec.pids), "--cpus", f"{spec.cpus:g}"]
    argv += ["--ulimit", "core=1:1"]
    if spec.nofile is not None:
        argv += ["--ulimit", f"nofile={spec.nofile}:{spec.nofile}"]
    if spec.file_bytes is not None:
        argv += ["--ulimit", f"fsize={spec.file_bytes}:{spec.file_bytes}"]
    # In place of the devpts that an engine mounts: all of a machine's terminals are counted as one.
    argv += ["--tmpfs", f"{_TERMINALS}:rw,noexec,nosuid,nodev,mode=0755,size=4096,nr_inodes=1"]
    for path, tmpfs in spec.tmpfs.items():
        argv += ["--tmpfs", f"{path}:{tmpfs.options()}"]
    if spec.shared is not None:
        argv += ["--mount", _volume(*spec.shared, spec.labels)]
    if spec.shares is not None:
        argv += ["--volumes-from", spec.shares[0]]
    for mount in spec.mounts:
        argv += ["--mount", Bind(os.fspath(mount.host_path), mount.inside, mount.read_only).option()]
    for variable, value in spec.env.items():
        argv += ["--env", f"{variable}={value}"]
    argv += ["--init"] if spec.init else []
    argv += [] if spec.runtime is None else ["--runtime", spec.runtime]
    return [*argv, "--workdir", "/", "--entrypoint", spec.command[0], spec.image, *spec.command[1:]]


def _volume(path: str, tmpfs: Tmpfs, labels: Mapping[str, str]) -> str:
    """For `--mount`: without a name, so it is removed with the container that it was made for.

    An engine makes it before it has that container: a start that is cut off there leaves a volume that is found by
    its labels alone.
    """
    fields = ["type=volume", f"target={path}", "volume-driver=local"]
    fields += ["volume-opt=type=tmpfs", "volume-opt=device=tmpfs", f"volume-opt=o={tmpfs.options()}"]
    fields += [f"volume-label={label}={value}" for label, value in labels.items()]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def missing_walls(spec: AttachedSpec, inspected: Mapping[str, Any]) -> list[str]:
    """The walls that do not stand, by what the engine says it made."""
    host, security = inspected["HostConfig"], inspected["HostConfig"].get("SecurityOpt") or []
    ulimits = {limit["Name"]: limit["Hard"] for limit in host.get("Ulimits") or []}
    tmpfs = host.get("Tmpfs") or {}
    wanted_binds = {(os.fspath(mount.host_path), mount.inside, not mount.read_only) for mount in spec.mounts}
    mounts = inspected.get("Mounts") or ()
    binds = {(mount["Source"], mount["Destination"], mount["RW"]) for mount in mounts if mount.get("Type") != "volume"}
    volumes = {mount["Destination"] for mount in mounts if mount.get("Type") == "volume"}
    wanted_volumes = {path for path in (spec.shared and spec.shared[0], spec.shares and spec.shares[1]) if path}
    standing = {
        "capabilities": host.get("CapDrop") == ["ALL"] and not host.get("CapAdd") and not host.get("Privileged"),
        "no_new_privileges": any(option.startswith("no-new-privileges") for option in security),
        "memory_limit": host.get("Memory") == spec.memory_bytes and host.get("MemorySwap") == spec.memory_bytes,
        "pids_limit": host.get("PidsLimit") == spec.pids,
        "cpus": host.get("NanoCpus") == round(spec.cpus * 1e9),
        "nofile_limit": spec.nofile in (None, ulimits.get("nofile")),
        "file_size_limit": ulimits.get("fsize") == spec.file_bytes,
        "read_only_root": host.get("ReadonlyRootfs") is True,
        "seccomp": any(option.startswith("seccomp={") for option in security),
        "user": inspected["Config"].get("User") == f"{spec.user[0]}:{spec.user[1]}",
        "network": host.get("NetworkMode") == spec.network,
        "sysctls": (host.get("Sysctls") or {}) == dict(spec.sysctls),
        "tmpfs": all(_has(tmpfs.get(path, ""), wanted.options()) for path, wanted in spec.tmpfs.items()),
        "terminals": _TERMINALS in tmpfs,
        "mounts": binds == wanted_binds and volumes == wanted_volumes,
        "runtime": spec.runtime in (None, host.get("Runtime")),
    }
    return [wall for wall, stands in standing.items() if not stands]


def _has(told: str, wanted: str) -> bool:
    return set(wanted.split(",")) <= set(told.split(","))
