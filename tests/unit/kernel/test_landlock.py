"""kernel.landlock: what may and may not be reached by a process that is restricted."""

import errno
import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isorun.kernel import landlock
from tests.conftest import Require
from tests.unit.forked import after, errno_of, in_child

Restricted = Callable[[Callable[[], object]], Any]

SYSTEM = [path for path in ("/usr", "/lib", "/lib64", "/bin", "/etc") if Path(path).exists()]
free = after()  # the control: the same work without Landlock


@pytest.fixture
def abi(require: Require) -> int:
    version = landlock.abi()
    if version == 0:
        require("landlock", "this kernel has no Landlock, or has it off")
    return version


class Trees:
    """A tree to read, one to write, and one that no rule names, each with a file in it."""

    def __init__(self, root: Path) -> None:
        self.read, self.write, self.unlisted = root / "read", root / "write", root / "unlisted"
        for tree in (self.read, self.write, self.unlisted):
            tree.mkdir()
            (tree / "file").write_text("old")


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    return Trees(tmp_path)


@pytest.fixture
def restricted(abi: int, trees: Trees) -> Restricted:
    """Does its work in a child under the three trees' rules."""
    return after(lambda: landlock.restrict([*SYSTEM, str(trees.read)], [str(trees.write)], devices=["/dev/null"]))


def read(path: Path | str) -> int:
    return errno_of(lambda: os.close(os.open(path, os.O_RDONLY)))


def write(path: Path | str) -> int:
    return errno_of(lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)))


def test_unlisted_paths_are_out_of_reach(restricted: Restricted, trees: Trees) -> None:
    """Reading, listing and writing what no rule names is EACCES."""

    def work() -> list[int]:
        return [
            read(trees.unlisted / "file"),
            errno_of(lambda: list(trees.unlisted.iterdir())),
            write(trees.unlisted / "new"),
            write(trees.unlisted / "file"),
            errno_of((trees.unlisted / "file").unlink),
        ]

    assert restricted(work) == [errno.EACCES] * 5
    assert free(work) == [0] * 5


def test_a_read_only_tree_is_read_and_executed_only(restricted: Restricted, trees: Trees) -> None:
    """Reading, listing and executing work; no change does."""
    (trees.read / "true").write_text("#!/bin/sh\nexit 0\n")
    (trees.read / "true").chmod(0o755)

    def allowed() -> list[int]:
        return [
            read(trees.read / "file"),
            errno_of(lambda: list(trees.read.iterdir())),
            os.spawnv(os.P_WAIT, str(trees.read / "true"), ["true"]),
        ]

    def refused() -> list[int]:
        return [
            write(trees.read / "file"),
            write(trees.read / "new"),
            errno_of((trees.read / "dir").mkdir),
            errno_of((trees.read / "file").unlink),
        ]

    assert restricted(allowed) == [0, 0, 0]
    assert restricted(refused) == [errno.EACCES] * 4
    assert free(refused) == [0] * 4


def test_truncating_needs_no_open_and_is_refused_too(abi: int, restricted: Restricted, trees: Trees) -> None:
    """truncate(2) by path is EACCES outside of the written tree, from ABI 3 on."""
    work = lambda: errno_of(lambda: os.truncate(trees.read / "file", 0))  # noqa: E731 - one call, with a name
    assert restricted(work) == (errno.EACCES if abi >= 3 else 0)
    assert free(work) == 0


def test_a_written_tree_is_whole(abi: int, restricted: Restricted, trees: Trees) -> None:
    """Files, directories, links, FIFOs, sockets, renames across directories and removal work in it."""
    inside = trees.write

    def work() -> list[int]:
        bound = socket.socket(socket.AF_UNIX)
        return [
            write(inside / "file"),
            errno_of(lambda: os.truncate(inside / "file", 1)),
            errno_of((inside / "dir").mkdir),
            errno_of(lambda: (inside / "symlink").symlink_to("file")),
            errno_of(lambda: os.mkfifo(inside / "fifo")),
            errno_of(lambda: bound.bind(str(inside / "socket"))),
            errno_of(lambda: os.link(inside / "file", inside / "link")),
            errno_of((inside / "link").unlink),
            errno_of(lambda: (inside / "file").rename(inside / "dir" / "file")) if abi >= 2 else 0,
        ]

    assert restricted(work) == [0] * 9


def test_nothing_is_moved_in_or_out(restricted: Restricted, trees: Trees) -> None:
    """A link or rename from a written tree to another, or back, does not carry a file over the border."""

    def work() -> list[int]:
        return [
            errno_of(lambda: os.link(trees.unlisted / "file", trees.write / "stolen")),
            errno_of(lambda: (trees.write / "file").rename(trees.unlisted / "planted")),
        ]

    assert set(restricted(work)) <= {errno.EACCES, errno.EXDEV}
    assert free(work) == [0, 0]


def test_no_device_node_is_made(restricted: Restricted, trees: Trees) -> None:
    """A character device (0:0, which any user may make) is EACCES in the written tree."""
    work = lambda: errno_of(lambda: os.mknod(trees.write / "chr", stat.S_IFCHR | 0o600, 0))  # noqa: E731 - one call, with a name
    assert restricted(work) == errno.EACCES
    assert free(work) == 0


def test_a_listed_device_is_read_and_written(abi: int, restricted: Restricted) -> None:
    """open() of a listed device works in both modes, its ioctls do not (ABI 5); other devices are EACCES."""

    def work() -> list[int]:
        Path("/dev/null").write_text("x")
        with Path("/dev/null").open("rb", buffering=0) as null:
            return [len(null.read()), errno_of(lambda: os.tcgetpgrp(null.fileno())), read("/dev/zero")]

    assert restricted(work) == [0, errno.EACCES if abi >= 5 else errno.ENOTTY, errno.EACCES]
    assert free(work) == [0, errno.ENOTTY, 0]


def test_a_single_file_can_be_listed(abi: int, trees: Trees) -> None:
    """A path may name a file: that file is granted and its neighbour is not."""
    (trees.read / "neighbour").write_text("")
    only = after(lambda: landlock.restrict([str(trees.read / "file")], [str(trees.write / "file")], devices=[]))

    def work() -> list[int]:
        return [read(trees.read / "file"), write(trees.write / "file"), read(trees.read / "neighbour")]

    assert only(work) == [0, 0, errno.EACCES]


def test_tcp_is_refused(abi: int, restricted: Restricted, require: Require) -> None:
    """bind and connect of TCP sockets are EACCES (ABI 4), whatever the address."""
    if abi < 4:
        require("landlock", f"TCP rules came with ABI 4, this is {abi}")

    def work() -> list[int]:
        with socket.socket() as server, socket.socket() as client:
            return [
                errno_of(lambda: server.bind(("127.0.0.1", 0))),
                errno_of(lambda: client.connect(("127.0.0.1", 1))),
            ]

    assert restricted(work) == [errno.EACCES] * 2
    assert free(work) == [0, errno.ECONNREFUSED]


def test_signals_stay_among_the_restricted(abi: int, restricted: Restricted, require: Require) -> None:
    """A process outside, with the same uid, cannot be signalled (ABI 6); a child of its own can."""
    if abi < 6:
        require("landlock", f"scopes came with ABI 6, this is {abi}")
    outside = os.getpid()

    def work() -> list[int]:
        child = os.fork()
        if child == 0:
            signal.pause()
        inside = errno_of(lambda: os.kill(child, signal.SIGKILL))
        return [errno_of(lambda: os.kill(outside, 0)), inside, os.waitpid(child, 0)[1]]

    assert restricted(work) == [errno.EPERM, 0, signal.SIGKILL]
    assert free(work) == [0, 0, signal.SIGKILL]


def test_abstract_sockets_stay_among_the_restricted(abi: int, restricted: Restricted, require: Require) -> None:
    """An abstract socket made outside is EPERM (ABI 6); one made inside can be reached."""
    if abi < 6:
        require("landlock", f"scopes came with ABI 6, this is {abi}")
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind("")  # the kernel picks an abstract name that is free
        outside.listen()

        def reach(server: socket.socket) -> int:
            with socket.socket(socket.AF_UNIX) as client:
                return errno_of(lambda: client.connect(server.getsockname()))

        def work() -> list[int]:
            with socket.socket(socket.AF_UNIX) as inside:
                inside.bind("")
                inside.listen()
                return [reach(outside), reach(inside)]

        assert restricted(work) == [errno.EPERM, 0]
        assert free(work) == [0, 0]


def test_children_are_restricted_too(restricted: Restricted, trees: Trees) -> None:
    """Neither fork nor a second `restrict` with more paths gives anything back."""

    def work() -> list[int]:
        landlock.restrict(["/"], ["/"], devices=[])
        return [in_child(lambda: read(trees.unlisted / "file")), in_child(lambda: read(trees.read / "file"))]

    assert restricted(work) == [errno.EACCES, 0]


def test_the_abi_in_use_is_returned(abi: int) -> None:
    """The answer is the kernel's ABI, or the newest that the module knows, and no descriptor is left open."""

    def work() -> list[int]:
        before = len(list(Path("/proc/self/fd").iterdir()))
        used = landlock.restrict(["/"], [], devices=[])
        return [used, len(list(Path("/proc/self/fd").iterdir())) - before]

    assert after()(work) == [min(abi, 7), 0]


def test_a_missing_path_is_an_error_and_restricts_nothing(abi: int, trees: Trees) -> None:
    """A plan that names what is not there raises, and the process is as it was."""

    def work() -> list[int]:
        missing = str(trees.read / "missing")
        return [errno_of(lambda: landlock.restrict([missing], [], devices=[])), read(trees.unlisted / "file")]

    assert after()(work) == [errno.ENOENT, 0]


def test_a_refused_rule_names_its_path(abi: int) -> None:
    """An error of the kernel says which call failed and for which path."""

    def work() -> str:
        try:
            landlock.restrict([], ["/proc/self/ns/net"], devices=[])
        except OSError as exc:
            return str(exc)
        return "accepted"

    assert after()(work) == "[Errno 77] landlock_add_rule(/proc/self/ns/net): File descriptor in bad state"
