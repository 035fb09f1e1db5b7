"""The workspace of a container slot: a file system of the engine's, in memory, whose open folders the host is handed.

Theory of operation. The engine mounts a tmpfs of the run's size at /workspace. Its root is
this process's user's, so nobody inside can change it. Before there is a program, init
connects to a socket in a folder of ours, sends the open root, and waits. We make `work/`
and `out/` there and keep both open, the socket goes, and init goes on. From then on tools
write and files are collected by these descriptors, as in any slot; the kernel holds the
ceilings, charges the container for the bytes, and frees all of it with the last descriptor.

No file of a program is on a disk of the host, so nothing of a killed host's is left there.
"""

import asyncio
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from isorun.backends.docker.folder import PREFIX, SlotFolder, given, remove
from isorun.backends.docker.relay import Relay
from isorun.backends.executor_ids import Identity
from isorun.core.errors import SetupFailed
from isorun.core.limits import Limits
from isorun.executor import rules
from isorun.kernel import fds
from isorun.kernel.readiness import wait_readable
from isorun.wire.frames import Frames, ProtocolError
from isorun.wire.messages import Attached, Joined, decode, encode
from sandbox_runner.docker.attached import Tmpfs

_OF_OURS = 3  # inodes beyond a run's: the root, work/ and out/
_PAGE = 8192  # bytes by which a file system's size is rounded
_PACKET = 4096
_SAID_S = 1.0


def mount(limits: Limits, ids: Identity) -> Tmpfs:
    """What the engine is asked to mount at /workspace."""
    return Tmpfs(
        limits.workspace_bytes, limits.workspace_inodes + _OF_OURS, mode=0o755, owner=(os.geteuid(), ids.shared_gid)
    )


class Handover:
    """Where init comes to, once. Owned by the `handover` block that yielded it."""

    def __init__(self, path: Path, ids: Identity, stack: ExitStack) -> None:
        self.path = path  # what the container is shown, read-only
        self._ids, self._stack = ids, stack
        self._listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        self._listen()

    def _listen(self) -> None:
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # By the number of its folder: a path of a socket has 107 bytes at most.
            self._listener.bind(f"/proc/self/fd/{folder}/{rules.HANDOVER_SOCKET}")
        finally:
            os.close(folder)
        place = self.path / rules.HANDOVER_SOCKET
        if self._ids.root:
            os.chown(place, self._ids.uid, self._ids.gid)
            place.chmod(0o600)
        else:
            os.chown(place, -1, self._ids.gid)
            place.chmod(0o660)
        self._listener.setblocking(False)
        self._listener.listen(1)  # from here on it can be connected

    async def taken(self, relay: Relay, limits: Limits) -> SlotFolder:
        """Wait for init. Raises `SetupFailed` for another thing than the engine was asked for, or a container's end."""
        taking = asyncio.ensure_future(self._take(limits))
        ended = asyncio.ensure_future(relay.wait_over())
        try:
            await asyncio.wait({taking, ended}, return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                if taking.exception() is not None:  # init may have said more of it, by another way
                    await asyncio.wait({ended}, timeout=_SAID_S)
                    if relay.failure is not None:
                        raise relay.failure from taking.exception()
                return taking.result()
            raise relay.failure or SetupFailed("workspace", "the container ended")
        finally:
            for task in (taking, ended):
                task.cancel()
            await asyncio.gather(taking, ended, return_exceptions=True)

    async def _take(self, limits: Limits) -> SlotFolder:
        await wait_readable(self._listener.fileno())
        with self._listener.accept()[0] as channel:
            # Gone before a program is there: the folder that it is shown is empty.
            self._listener.close()
            (self.path / rules.HANDOVER_SOCKET).unlink()
            channel.setblocking(False)
            await wait_readable(channel.fileno())
            root = _received(channel)
            try:
                _check(root, limits)
                folders = [self._made(name, root) for name in ("work", "out")]
            except OSError as error:
                raise SetupFailed("workspace", f"the file system from init: {error.strerror or error}") from error
            finally:
                os.close(root)
            channel.send(encode(Attached()))
        return SlotFolder(path=self.path, work=folders[0], out=folders[1])

    def _made(self, name: str, root: int) -> int:
        opened = given(name, root, self._ids)
        self._stack.callback(os.close, opened)
        return opened


@contextmanager
def handover(slots: Path, ids: Identity) -> Iterator[Handover]:
    """A folder below *slots* with a socket in it; behind the block nothing is left. Raises `SetupFailed`."""
    path = slots / f"{PREFIX}{secrets.token_hex(8)}"
    with ExitStack() as stack:
        stack.callback(remove, path)
        try:
            path.mkdir(mode=0o700)
            os.chown(path, -1, ids.shared_gid)
            path.chmod(0o711 if ids.root else 0o710)  # whatever the umask is: the container looks into it
            made = Handover(path, ids, stack)
        except OSError as error:
            raise SetupFailed("workspace", f"{path}: {error.strerror or error}") from error
        yield made


def _received(channel: socket.socket) -> int:
    """The one descriptor of init's one message. Raises `SetupFailed`."""
    try:
        data, descriptors, _ = fds.receive(channel, _PACKET, most=1)
    except OSError as error:
        raise SetupFailed("workspace", f"the message from init: {error.strerror or error}") from error
    with suppress(ProtocolError):
        frames = Frames()
        frames.feed(data)
        frame = frames.next()
        if len(descriptors) == 1 and frame is not None and isinstance(decode(*frame), Joined):
            return descriptors[0]
    for descriptor in descriptors:
        os.close(descriptor)
    raise SetupFailed("workspace", "init did not send its file system")


def _check(root: int, limits: Limits) -> None:
    """The kernel's word, not init's. Raises `SetupFailed`."""
    info, held = os.fstat(root), os.fstatvfs(root)
    size = held.f_blocks * held.f_frsize
    if not stat.S_ISDIR(info.st_mode) or os.major(info.st_dev) or info.st_uid != os.geteuid():
        raise SetupFailed("workspace", "init did not send a tmpfs that belongs to us")
    if not 0 < size < limits.workspace_bytes + _PAGE or not 0 < held.f_files <= limits.workspace_inodes + _OF_OURS:
        raise SetupFailed("workspace", f"the tmpfs from init holds {size} bytes and {held.f_files} inodes")
