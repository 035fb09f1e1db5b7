"""The outer jail as the host sees it: one bubblewrap with a template and a zygote inside.

Theory of operation. The jail is started once and makes many slots. Two packet
sockets lead into it: builds go to the template, forks to the zygote. Everything
from the zygote is read by one task, which hands each message to the slot it names;
when either process dies that task ends and `died` is set, and nothing is asked of
this jail again. `spawn` starts its processes.
"""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from isorun.backends.environment import Environment
from isorun.backends.executor_ids import Identity
from isorun.backends.namespace import ending
from isorun.backends.namespace.spawn import Spawned, spawn
from isorun.backends.output import OutputTail
from isorun.core.errors import SetupFailed, Unavailable
from isorun.kernel.readiness import Channel, PacketSender
from isorun.wire.frames import ProtocolError
from isorun.wire.messages import BuildFailed, Exited, Message, Warmed
from isorun.wire.session import Session, Side, State

if TYPE_CHECKING:
    from isorun.backends.namespace.spawn import Process

_WARM_S = 120.0


class RunningJail:
    """A started jail, and what may be asked of it."""

    def __init__(self, process: "Process", builds: socket.socket, forks: socket.socket) -> None:
        self.process = process
        zygote = Session(Side.HOST, Side.ZYGOTE, State.COLD)
        self.forks = Channel(forks, zygote)
        self._to_template = PacketSender(builds, Session(Side.HOST, Side.TEMPLATE, State.BUILDING))
        self._to_zygote = PacketSender(forks, zygote)
        self.died = asyncio.Event()
        self.failed_preloads: Mapping[str, str] = {}
        self.launched = 0
        self.remains = ending.Remains()
        self.numbers = itertools.count(1)
        self._expected: dict[int, asyncio.Future[Message]] = {}

    def expect(self, slot: int) -> "asyncio.Future[Message]":
        """What the zygote will say of *slot*: `Exited` or `BuildFailed`."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._expected[slot] = future
        return future

    def forget(self, slot: int) -> None:
        """Forget *slot*: its caller has gone."""
        self._expected.pop(slot, None)

    async def ask_template(self, message: Message, descriptors: Sequence[int]) -> None:
        """Send to the template; raises `SetupFailed` if the jail is gone."""
        await self._send(self._to_template, message, descriptors)

    async def ask_zygote(self, message: Message, descriptors: Sequence[int]) -> None:
        """Send to the zygote; raises `SetupFailed` if the jail is gone."""
        await self._send(self._to_zygote, message, descriptors)

    async def _send(self, sender: PacketSender, message: Message, descriptors: Sequence[int]) -> None:
        try:
            await sender.send(message, descriptors)
        except OSError as error:
            raise SetupFailed("zygote", f"it cannot be asked: {error.strerror}") from error

    async def listen(self) -> None:
        """Hand out what the zygote says, until it is gone."""
        try:
            while (message := await self.forks.receive()) is not None:
                if isinstance(message, Exited | BuildFailed):
                    future = self._expected.pop(message.slot, None)
                    if future is not None and not future.done():
                        future.set_result(message)
        except (OSError, ProtocolError):
            pass  # the same as an end: this jail is not used again
        finally:
            self.died.set()
            for future in self._expected.values():
                if not future.done():
                    future.set_exception(SetupFailed("zygote", "it died"))
                    future.exception()  # retrieved here: nobody may be waiting


@asynccontextmanager
async def start(
    environment: Environment,
    identity: Identity,
    preloads: Sequence[str],
    output: OutputTail,
    without: frozenset[str] = frozenset(),
    spawned: Spawned | None = None,
) -> AsyncIterator[RunningJail]:
    """A jail whose zygote has imported *preloads*. Nothing of it is left when the block is.

    *spawned*, if given, was started so, and is ended here, too.
    """
    async with AsyncExitStack() as stack:
        if spawned is None:
            spawned = spawn(environment, identity, preloads, without)
        _take(spawned, stack)
        output.follow(spawned.output)
        stack.callback(output.unfollow, spawned.output)
        jail = RunningJail(spawned.process, spawned.builds, spawned.forks)
        await _warm(jail, output)
        listener = asyncio.ensure_future(jail.listen())
        stack.push_async_callback(_ended, listener)
        yield jail


async def give_up(spawned: Spawned) -> None:
    """End *spawned*, unless it was taken: then it has an owner who does."""
    if not spawned.is_taken:
        async with AsyncExitStack() as stack:
            _take(spawned, stack)


def _take(spawned: Spawned, stack: AsyncExitStack) -> None:
    spawned.is_taken = True
    stack.callback(spawned.close)
    stack.push_async_callback(ending.end_group, spawned.process, spawned.mark)


async def _ended(task: "asyncio.Future[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _warm(jail: RunningJail, output: OutputTail) -> None:
    try:
        async with asyncio.timeout(_WARM_S):
            message = await _first_word(jail)
    except TimeoutError as error:
        raise SetupFailed("zygote", f"not ready after {_WARM_S:.0f} s") from error
    if not isinstance(message, Warmed):
        text = without_traceback(output.read().decode(errors="replace"))
        raise Unavailable(f"the outer jail did not start: {text or 'no reason given'}{_remedy(text)}")
    jail.failed_preloads = message.failed


def without_traceback(text: str) -> str:
    """What a process said, on one line: of a Python traceback only its last line, which has the error."""
    lines = text.strip().splitlines()
    if any(line.startswith("Traceback (most recent call last)") for line in lines):
        lines = [line for line in lines if not line.startswith((" ", "Traceback "))]
    return " ".join(filter(None, map(str.strip, lines)))


async def _first_word(jail: RunningJail) -> Message | None:
    """What the zygote says first; None once it, or bubblewrap, is gone.

    A child that bubblewrap has left behind may hold the zygote's socket for ever, and say nothing.
    """
    said, gone = asyncio.ensure_future(jail.forks.receive()), asyncio.ensure_future(ending.wait_ended(jail.process.pid))
    try:
        await asyncio.wait({said, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await said if said.done() else None
    finally:
        for task in (said, gone):
            task.cancel()
        await asyncio.wait({said, gone})


def _remedy(text: str) -> str:
    signs = ("uid map", "Operation not permitted", "No permissions to create", "namespaces exceeded", "ENOSPC")
    if any(sign in text for sign in signs):
        # Imported where a start has failed already: a good one is quicker without.
        from isorun.backends.remedy import open_switches, read_switches

        if known := open_switches(read_switches()):
            return f"; user namespaces are off: {known}"
        return (
            "; unprivileged user namespaces seem to be off: sysctl -w kernel.unprivileged_userns_clone=1 "
            "user.max_user_namespaces=15000, and on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0"
        )
    return ""
