"""The step before bubblewrap when isorun is root: show what it must bind, then stop being root.

An interpreter below a directory that only root may enter (`/root`, say) could not
be bound by the unprivileged uid that bubblewrap runs as. So, in a mount namespace
of its own, a small tmpfs receives binds of those sources, readable from there on.
Then every group and privilege is given up for good and the command is executed: by a descriptor that was opened
before, because the command's file may be below such a directory too.

Run as `python -c 'from isorun.kernel.stage import main; main()' DIR UID GID TEXT COUNT SOURCE... COMMAND...`: of
COUNT sources number i appears as DIR/i, and TEXT is what an error calls the command. A process with one thread may call
`become` in a forked child instead. A cold start waits for all that is imported here.
"""

from __future__ import annotations

import os
import sys

from isorun.kernel import mounts, namespaces
from isorun.kernel.caps import no_new_privileges

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn


def main() -> None:
    """`become` what the arguments say."""
    become(sys.argv[1:], os.environ)


def become(spec: list[str], environment: Mapping[str, str]) -> None:
    """Stage, drop, execute; never returns. *spec* is DIR UID GID and so on. What fails is one line on stderr.

    From `drop` on until the command is executed, a process with the same ids can neither trace nor read this one: the
    kernel makes it non-dumpable when its ids change.
    """
    at, uid, gid, name, count, *rest = spec
    sources, argv = rest[: int(count)], rest[int(count) :]
    try:
        if sources:
            stage(at, sources)
        program = os.open(argv[0], os.O_PATH | os.O_CLOEXEC)
        drop(int(uid), int(gid))
        execute(program, argv, environment)
    except OSError as error:
        text = f"{name} cannot be started as uid {uid}: {error.strerror or error}\n"
        os.write(2, text.encode())
        os._exit(126)


def execute(program: int, argv: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Execute the open file *program*; a script, whose interpreter could not open it by a number, by its path."""
    try:
        os.execve(program, argv, environment)
    except FileNotFoundError:
        os.execve(argv[0], argv, environment)


def stage(at: str, sources: list[str]) -> None:
    """Bind each of *sources* below *at*, in a mount namespace that only this process has."""
    namespaces.unshare(namespaces.NEWNS)
    mounts.make_private()
    mounts.tmpfs(at, size=1 << 20, inodes=len(sources) + 2, mode=0o755)
    for number, source in enumerate(sources):
        target = f"{at}/{number}"
        if os.path.isdir(source):
            os.mkdir(target, 0o755)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        mounts.bind(source, target)


def drop(uid: int, gid: int) -> None:
    """Become *uid* and *gid* with no other group; exec must not give anything back."""
    os.chdir("/")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    no_new_privileges()


if __name__ == "__main__":
    main()
