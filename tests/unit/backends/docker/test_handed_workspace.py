"""What init hands over is looked at before anything is made in it, and can be handed over once.

A thread of the test stands in init's place; what it hands over is real.
"""

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isorun.backends.docker import workspace
from isorun.backends.docker.folder import SlotFolder
from isorun.backends.docker.workspace import Handover, handover, mount
from isorun.backends.executor_ids import Identity
from isorun.core.errors import SetupFailed
from isorun.core.limits import Limits
from isorun.executor import rules
from isorun.executor.container import handing
from isorun.wire.messages import Attached, Joined, encode

pytestmark = pytest.mark.uid

OURS = Identity(uid=os.geteuid(), gid=os.getegid(), root=os.geteuid() == 0)
HELD = os.statvfs("/dev/shm")
#: What /dev/shm holds, which stands for what the engine mounts.
SIZE = HELD.f_blocks * HELD.f_frsize
LIMITS = replace(Limits(), memory_bytes=4 * SIZE, workspace_bytes=SIZE, workspace_inodes=HELD.f_files)


class Container:
    """A relay that has heard nothing, or of the end."""

    def __init__(self, failure: SetupFailed | None = None) -> None:
        self.failure = failure

    async def wait_over(self) -> None:
        """Return at once if it is over, else never."""
        if self.failure is None:
            await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch) -> None:
    """A relay that will hear nothing more is not waited for long."""
    monkeypatch.setattr(workspace, "_SAID_S", 0.2)


@pytest.fixture
def in_memory() -> Iterator[int]:
    """An open folder of ours on a file system in memory."""
    path = tempfile.mkdtemp(dir="/dev/shm")
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield opened
    os.close(opened)
    shutil.rmtree(path)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Handover]:
    with handover(tmp_path, OURS) as made:
        yield made
    assert list(tmp_path.iterdir()) == []


def hand(place: Handover, descriptors: list[int], message: bytes) -> bytes:
    """What the host answers."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(10)
        # By the folder's number, as a path of a socket has 107 bytes at most.
        folder = os.open(place.path, os.O_PATH)
        channel.connect(f"/proc/self/fd/{folder}/{rules.HANDOVER_SOCKET}")
        os.close(folder)
        socket.send_fds(channel, [message], descriptors)
        try:
            return channel.recv(4096)
        except ConnectionResetError:
            return b""


async def taken(
    place: Handover, descriptors: list[int], message: bytes = encode(Joined()), limits: Limits = LIMITS
) -> tuple[SlotFolder | SetupFailed, bytes]:
    """What came of it for the host, and for init."""
    relay: Any = Container()
    taking = asyncio.create_task(place.taken(relay, limits))
    answer = await asyncio.to_thread(hand, place, descriptors, message)
    try:
        return await taking, answer
    except SetupFailed as failure:
        return failure, answer


async def test_the_folders_are_made_by_the_host_and_init_is_told(place: Handover, in_memory: int) -> None:
    """`work/` and `out/` are there and open before init goes on, and the socket is gone by then."""
    folder, answer = await taken(place, [in_memory])
    assert isinstance(folder, SlotFolder)
    assert (sorted(os.listdir(in_memory)), answer) == (["out", "work"], encode(Attached()))
    assert os.path.samestat(os.fstat(folder.out), os.stat("out", dir_fd=in_memory))
    assert list(place.path.iterdir()) == []


async def test_nobody_comes_after_init(place: Handover, in_memory: int) -> None:
    """A program that finds the folder finds nobody there; who had opened the socket before is refused."""
    early = os.open(place.path / rules.HANDOVER_SOCKET, os.O_PATH)
    await taken(place, [in_memory])
    with pytest.raises(FileNotFoundError):
        hand(place, [], b"")
    with socket.socket(socket.AF_UNIX) as channel, pytest.raises(ConnectionRefusedError):
        channel.connect(f"/proc/self/fd/{early}")
    os.close(early)


HOSTILE: dict[str, tuple[Callable[[Path, int], list[int]], str]] = {
    "nothing": (lambda disk, shm: [], "init did not send its file system"),
    "two": (lambda disk, shm: [os.dup(shm), os.dup(shm)], "init did not send its file system"),
    "many": (
        lambda disk, shm: [os.dup(shm) for _ in range(100)],
        "the message from init: more than 1 descriptors in one message",
    ),
    "a folder of a disk": (
        lambda disk, shm: [os.open(disk, os.O_RDONLY)],
        "init did not send a tmpfs that belongs to us",
    ),
    "a file": (
        lambda disk, shm: [os.open("file", os.O_RDWR | os.O_CREAT, dir_fd=shm)],
        "init did not send a tmpfs that belongs to us",
    ),
    "a socket": (
        lambda disk, shm: [socket.socket(socket.AF_UNIX).detach()],
        "init did not send a tmpfs that belongs to us",
    ),
    "the kernel's": (
        lambda disk, shm: [os.open("/proc/self/task", os.O_RDONLY)],
        r"the tmpfs from init holds 0 bytes and 0 inodes",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_what_is_not_the_engines_file_system_is_refused(
    case: str, place: Handover, in_memory: int, tmp_path_factory
) -> None:
    """Nothing is made in it, init is not told to go on, and no descriptor of it stays open here."""
    make, said = HOSTILE[case]
    disk = tmp_path_factory.mktemp("disk")
    given = make(disk, in_memory)
    before = set(os.listdir("/proc/self/fd"))
    failure, answer = await taken(place, given)
    assert isinstance(failure, SetupFailed)
    assert (failure.step, failure.reason, answer) == ("workspace", said, b"")
    assert set(os.listdir("/proc/self/fd")) <= before
    for descriptor in given:
        os.close(descriptor)
    assert list(disk.iterdir()) == []
    assert not {"work", "out"} & set(os.listdir(in_memory))


async def test_why_init_could_not_send_it_is_told(place: Handover) -> None:
    """What init says of it by its other way comes behind, and is what the caller reads."""

    class Late(Container):
        async def wait_over(self) -> None:
            """Over once init's word has come, which is after its socket was refused."""
            await asyncio.wait_for(closed.wait(), 10)
            await asyncio.sleep(0.05)
            self.failure = SetupFailed("container", "workspace: it cannot be handed over: too many references")

    closed = asyncio.Event()
    relay: Any = Late()
    taking = asyncio.create_task(place.taken(relay, LIMITS))
    assert await asyncio.to_thread(hand, place, [], b"\xff" * 100) == b""
    closed.set()
    with pytest.raises(SetupFailed, match="too many references"):
        await taking


async def test_another_message_is_refused(place: Handover, in_memory: int) -> None:
    """The bytes are judged like any of init's."""
    failure, answer = await taken(place, [in_memory], b"\\xff" * 100)
    assert (str(failure), answer) == ("workspace: init did not send its file system", b"")


@pytest.mark.parametrize("less", [{"workspace_bytes": 1 << 20}, {"workspace_inodes": 1}], ids=str)
async def test_a_file_system_that_holds_more_is_refused(place: Handover, in_memory: int, less: dict[str, int]) -> None:
    """By the kernel's word, whatever init would say of it."""
    failure, answer = await taken(place, [in_memory], limits=replace(LIMITS, **less))
    assert isinstance(failure, SetupFailed)
    assert (failure.reason.startswith("the tmpfs from init holds "), answer) == (True, b"")


async def test_a_container_that_ends_is_not_waited_for(place: Handover) -> None:
    """What it said of its end is the reason."""
    relay: Any = Container(SetupFailed("container", "there is no such runtime"))
    with pytest.raises(SetupFailed, match="there is no such runtime"):
        await place.taken(relay, LIMITS)


def test_the_place_is_shown_to_the_container_whatever_the_umask_is(tmp_path: Path) -> None:
    """The folder can be entered and not listed by others; the socket is the executor's alone."""
    with ExitStack() as stack:
        stack.callback(os.umask, os.umask(0o077))
        made = stack.enter_context(handover(tmp_path, OURS))
        assert made.path.stat().st_mode & 0o777 == (0o711 if OURS.root else 0o710)
        info = (made.path / rules.HANDOVER_SOCKET).stat()
        assert (info.st_mode & 0o777, info.st_gid) == (0o600 if OURS.root else 0o660, OURS.gid)


def test_the_root_is_not_the_executors() -> None:
    """Else a program could take the host's folders away, and put its own in their place."""
    asked = mount(Limits(), replace(OURS, uid=1001))
    assert (asked.owner[0], asked.mode, asked.size) == (os.geteuid(), 0o755, Limits().workspace_bytes)


def test_a_folder_that_is_not_the_hosts_is_said() -> None:
    """Here nobody waits for init: the reason has the cause, and the folder to look at."""
    said = handing.hand_over()
    assert said.startswith("it cannot be handed over: [Errno 2] No such file or directory")
    assert said.endswith("; is /run/isorun the folder that isorun made?")
