"""The program that a namespace sandbox's `command_prefix` runs: it becomes bubblewrap, with the command inside.

    python -I -S enter.py [--request=TOKEN] STATE_FOLDER COMMAND…

Theory of operation. `plan.json` in the state folder says what the sandbox is; a request beside it what one
`exec` wants otherwise. In this order: join the control groups, while we may; as root, show what the
sandbox's user could not reach by its path, and become that user; hand bubblewrap its arguments in a file
in memory. So the environment, which the values of the caller's variables become part of here, is neither
on a command line nor in the environment of a process that runs outside: a variable such as
LD_LIBRARY_PATH would make the linker load, outside, what a command has written inside.

Must not: import anything of the package (it is started for every command), or decide what a wall is.
Its own failures are one line on stderr and exit code 125, as Docker has it.
"""

from __future__ import annotations

import json
import os
import resource
import stat
import sys
from typing import Any, NoReturn

FAILED = 125
SAYS = "sandbox-runner: "
PLAN = "plan.json"
SECCOMP = "seccomp.bpf"
REQUEST = "request-"  # and its token: what one command wants
STATUS = "status-"  # and its token: a FIFO, for what bubblewrap says of it
RUNNING = "running-"  # and a token: which process is the first inside, where no control group holds it
_STAGE = "/mnt"
_NEW_MOUNTS, _BIND, _PRIVATE, _RECURSIVE = 0x0002_0000, 0x1000, 1 << 18, 0x4000


def main() -> NoReturn:
    """Run the command in the sandbox that the arguments name. Does not return."""
    os.closerange(3, 1 << 30)  # an open folder of the caller's would lead out of the sandbox
    words = sys.argv[1:]
    try:
        token = words.pop(0).removeprefix("--request=") if words[0].startswith("--request=") else ""
        folder = words.pop(0)
        _become_bubblewrap(folder, token, words)
    except FileNotFoundError as error:
        _fail(f"{error.filename} is not there: the sandbox is closed" if error.filename else str(error))
    except (OSError, ValueError, KeyError, IndexError) as error:
        _fail(f"the sandbox cannot be entered: {error}")


def _become_bubblewrap(folder: str, token: str, command: list[str]) -> NoReturn:
    if not command:
        raise ValueError("no command was given")
    plan = _read(folder, PLAN)
    request = _read(folder, REQUEST + token) if token else {}
    status = os.open(f"{folder}/{STATUS}{token}", os.O_WRONLY | os.O_NONBLOCK) if token else None
    filters = os.open(f"{folder}/{SECCOMP}", os.O_RDONLY) if plan["seccomp"] else None
    running = None if plan["groups"] else _note(folder, token)
    for group in plan["groups"]:
        with open(f"{group}/cgroup.procs", "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib is slow to import
            file.write("0")  # whoever writes it
    mounts = plan["mounts"]
    if plan["become"] is None:
        mounts = [_checked(mount, plan["pinned"], by_descriptor=plan["by_descriptor"]) for mount in mounts]
    else:
        mounts = _staged(mounts, plan["pinned"])
        uid, gid = plan["become"]
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    arguments = [*plan["before"]]
    for mount in mounts:
        arguments += mount
    arguments += [*plan["after"], "--chdir", request.get("cwd") or plan["cwd"]]
    uid, gid = request.get("user") or plan["user"]
    arguments += ["--uid", str(uid), "--gid", str(gid)]
    for name, value in _environment(plan, request).items():
        arguments += ["--setenv", name, value]
    for option, descriptor in (("--seccomp", filters), ("--json-status-fd", status), ("--info-fd", running)):
        if descriptor is not None:
            arguments += [option, str(_inheritable(descriptor))]
    _limit(plan["nofile"])
    os.execve(  # noqa: S606 - the program that `start` found, with our arguments
        plan["program"],
        [f"sandbox-runner:{plan['name']}:{token}", "--args", str(_file(arguments)), "--", *command],
        {},
    )


def _read(folder: str, name: str) -> dict[str, Any]:
    descriptor = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_NOFOLLOW)
    with open(descriptor, encoding="ascii") as file:  # noqa: PTH123 - see above
        # The folder's place may be everybody's: once a sandbox is gone, somebody else can make one of its name.
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise ValueError(f"{folder}/{name} is another user's")
        found: dict[str, Any] = json.load(file)
        return found


def _note(folder: str, token: str) -> int:
    """Where bubblewrap notes, before the command begins, its first process: `take_down` finds it by no title then.

    Commands by `command_prefix` leave their note at the end, so the next command removes it.
    """
    for name in os.listdir(folder) if not token else ():  # noqa: PTH208 - see above
        if name.startswith(RUNNING):
            try:
                number = _read(folder, name)["child-pid"]
                if _has_ended(number):
                    os.unlink(f"{folder}/{name}")  # noqa: PTH108 - see above
            except (FileNotFoundError, ValueError):
                continue  # another did, or it is not written yet
    path = f"{folder}/{RUNNING}{token or os.urandom(8).hex()}"
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _has_ended(number: int) -> bool:
    try:
        with open(f"/proc/{number}/stat", "rb") as file:  # noqa: PTH123 - see above
            return file.read().rpartition(b")")[2].split()[0] == b"Z"  # which nobody has waited for
    except (FileNotFoundError, ProcessLookupError):
        return True


def _environment(plan: dict[str, Any], request: dict[str, Any]) -> dict[str, str]:
    allowed = {name: os.environ[name] for name in plan["allowed"] if name in os.environ}
    return {**plan["environment"], **allowed, **plan["overrides"], **request.get("env", {})}


def _open(source: str, pinned: dict[str, list[int]]) -> int:
    """The folder or file *source*, which had no link on its path at the start.

    Who may write to a folder on that path, a command or the folder's owner, can have put one there since, to what only
    we can open. A folder that the sandbox may have replaced must be the same as at the start.
    """
    try:
        descriptor = os.open(source, os.O_PATH)
    except FileNotFoundError:
        raise ValueError(f"{source}: No such file or directory") from None  # not what `main` takes it for
    found = os.fstat(descriptor)
    is_same = source not in pinned or [found.st_dev, found.st_ino] == pinned[source]
    if not is_same or os.readlink(f"/proc/self/fd/{descriptor}") != source:  # noqa: PTH115 - see above
        raise ValueError(f"{source} was replaced after the start")
    return descriptor


def _checked(mount: list[str], pinned: dict[str, list[int]], *, by_descriptor: bool) -> list[str]:
    option, source, target = mount
    descriptor = _open(source, pinned)
    if not by_descriptor:  # an older bubblewrap, for which `start` has refused what a command could replace
        os.close(descriptor)
        return mount
    # bubblewrap compares what it has mounted with what is open, so there is no moment to replace it in.
    return [f"{option}-fd", str(_inheritable(descriptor)), target]


def _staged(mounts: list[list[str]], pinned: dict[str, list[int]]) -> list[list[str]]:
    """*mounts* (option, source, target) from places that every user reaches, in a mount namespace of our own."""
    import ctypes  # here: it takes longer to import than all the rest

    libc = ctypes.CDLL(None, use_errno=True)

    def call(function: str, *arguments: Any) -> None:  # noqa: ANN401 - as C has it
        if getattr(libc, function)(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{function}: {os.strerror(number)}")

    call("unshare", _NEW_MOUNTS)
    call("mount", None, b"/", None, _PRIVATE | _RECURSIVE, None)
    # Opened before the stage hides what is beneath it.
    sources = [_open(source, pinned) for _, source, _ in mounts]
    call("mount", b"tmpfs", _STAGE.encode(), b"tmpfs", 0, b"mode=0755,size=1m")
    staged = []
    for i, (source, (option, _, target)) in enumerate(zip(sources, mounts, strict=True)):
        place = f"{_STAGE}/{i}"
        if stat.S_ISDIR(os.fstat(source).st_mode):
            os.mkdir(place)  # noqa: PTH102 - see above
        else:
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT, 0o600))
        call("mount", f"/proc/self/fd/{source}".encode(), place.encode(), None, _BIND | _RECURSIVE, None)
        staged.append([option, place, target])
    return staged


def _limit(nofile: int | None) -> None:
    # The kernel keeps a dump from the pipe of the host's core_pattern at exactly 1; no file of one fits into that.
    most = 0 if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 else 1
    if most == 0 and _has_core_pipe():
        raise ValueError(
            "RLIMIT_CORE is 0, where a dump goes to the host's core_pattern: start with `ulimit -Hc unlimited`"
        )
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    if nofile is not None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        most = nofile if hard == resource.RLIM_INFINITY else min(nofile, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _has_core_pipe() -> bool:
    with open("/proc/sys/kernel/core_pattern", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - see above
        return file.read(1) == "|"


def _file(arguments: list[str]) -> int:
    descriptor = os.memfd_create("arguments")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(b"".join(os.fsencode(argument) + b"\0" for argument in arguments))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return _inheritable(descriptor)


def _inheritable(descriptor: int) -> int:
    os.set_inheritable(descriptor, True)
    return descriptor


def _fail(why: str) -> NoReturn:
    sys.stderr.write(f"{SAYS}{why}\n")
    raise SystemExit(FAILED)


if __name__ == "__main__":
    main()
