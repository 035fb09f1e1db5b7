"""One executor container as a slot: started, waited for, ended.

Its four channels are a `Relay`'s; its `work/` and `out/` are folders of the host. A run is over
when every process of its container is dead: by the word of the kernel where the container's
processes are visible to us, else of the engine.

A container may end without us: an operator ends or pauses it, its engine dies. Then the
engine is asked why (`backends.docker.ending`), and what may live on is killed here, by the kernel,
as a dead daemon kills nothing. Where we may not, init ends it once its run's time is over (`Until`).
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isorun.backends.base import Program, Usage
from isorun.backends.docker import ending as container_ending
from isorun.backends.docker.folder import SlotFolder
from isorun.backends.docker.relay import Relay
from isorun.backends.sending import send_program
from isorun.backends.watch.watching import Subject, Watched, Watcher
from isorun.core.errors import SetupFailed
from isorun.core.guard.log import log_of
from isorun.core.limits import Limits
from isorun.core.outcome import Code, Exit
from isorun.core.text import one_line
from isorun.executor import rules
from isorun.kernel.readiness import Channel, is_readable, wait_readable
from isorun.wire.messages import Exited, Finished, Until
from sandbox_runner.docker.attached import AttachedContainer
from sandbox_runner.errors import SandboxError

_log = log_of("isorun")
_KILL_S = 10.0
_ANSWER_S = 1.0  # for init to end everything, before anybody asks what keeps it
_SPARE_S = 30.0  # beyond a run's time, for a busy host to end it itself
_SEND_S = 60.0  # for its files to be sent
_PAUSE_S, _AGAIN_S = 10.0, 0.05  # for an engine to freeze a container, and before it is asked again
_FROZEN_S = 1e6  # of a frozen program: its time does not pass, whereas init's clock goes on. More is too much for poll


@dataclass(frozen=True, slots=True)
class Watch:
    """Who counts a run's file locks, and as what."""

    watcher: Watcher
    subject: Subject


async def remove(container: AttachedContainer) -> bool:
    """End and remove *container*, also if we are cancelled meanwhile; whether that could be done.

    If the engine is away, the container cannot be removed; the lease removes it when the backend is left.
    """
    try:
        await asyncio.shield(asyncio.to_thread(container.remove))
    except SandboxError as error:
        _log.warning("%s stays until the backend is left: %s", container.name, one_line(str(error)))
        return False
    return True


class DockerSlot:
    """See `Slot`. Owned by the `launch` block that yielded it."""

    def __init__(
        self,
        isolation: Mapping[str, Any],
        origin: Callable[[Path], Sequence[str]],
        relay: Relay,
        control: Channel,
        folder: SlotFolder,
        container: AttachedContainer,
        first: int | None,
        limits: Limits,
        *,
        has_own_kernel: bool,
        watch: "Watch | None" = None,
    ) -> None:
        self._locks = watch
        self._watched: Watched | None = None
        self._has_own_kernel, self._grace_s = has_own_kernel, limits.grace_s
        self.isolation, self.origin = isolation, origin
        self.stdout, self.stderr, self.tools = relay.stdout, relay.stderr, relay.tools
        self.work, self.out = folder.work, folder.out
        self._relay, self._control, self._folder = relay, control, folder
        self._container, self._first = container, first
        self._ended: tuple[Exit, Usage] | None = None
        self._until = 0.0  # monotonic: what init was told
        self._left_s: float | None = None  # while it is frozen, until then
        self._freezing = asyncio.Lock()

    @property
    def is_waiting(self) -> bool:
        """See `Slot.is_waiting`. The kernel knows before the engine has closed the streams."""
        return not (self._relay.is_over or (self._first is not None and is_readable(self._first)))

    async def store(self, program: Program) -> None:
        """See `Slot.store`. Until `start` has said how long it may take, init is told nothing."""

    async def start(self, program: Program) -> None:
        """See `Slot.start`."""
        seconds = program.timeout_s + self._grace_s + _SPARE_S
        self._relay.send(Until(seconds=seconds + _SEND_S))  # first: behind the program it could be what a daemon keeps
        if self._locks is not None:
            self._watched = await self._locks.watcher.watch(self._locks.subject)
        await send_program(self._control, program)
        self._tell_until(seconds)

    def _tell_until(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._relay.send(Until(seconds=seconds))

    def extend(self, seconds: float) -> None:
        """See `Slot.extend`."""
        if self._left_s is not None:
            self._left_s += seconds
        elif not self._relay.is_over:
            self._tell_until(self._until - time.monotonic() + seconds)

    async def freeze(self) -> None:
        """See `Slot.freeze`. What init is told now it reads before it looks at its clock, however long that is."""
        async with self._freezing:
            if self._left_s is not None or self._relay.is_over:
                return
            left_s = self._until - time.monotonic()
            self._relay.send(Until(seconds=_FROZEN_S))
            try:
                await self._pause()
            except SandboxError as error:
                if self._relay.is_over:
                    return
                self._tell_until(left_s)
                with suppress(SandboxError):  # it may have been done too late
                    await asyncio.to_thread(self._container.unpause)
                raise SetupFailed("freeze", one_line(str(error))) from error
            self._left_s = left_s

    async def _pause(self) -> None:
        """Ask again for some time: on a busy machine, or while the program forks, runc gives up within milliseconds."""
        until = time.monotonic() + _PAUSE_S
        while True:
            try:
                return await asyncio.to_thread(self._container.pause)
            except SandboxError:
                if self._relay.is_over or time.monotonic() > until:
                    raise
                await asyncio.sleep(_AGAIN_S)

    async def thaw(self) -> None:
        """See `Slot.thaw`."""
        async with self._freezing:
            if self._left_s is None:
                return
            left_s, self._left_s = self._left_s, None
            if self._relay.failure is None:
                self._tell_until(left_s)
            try:
                await asyncio.to_thread(self._container.unpause)
            except SandboxError as error:
                if self._relay.failure is None:  # else it was ended meanwhile
                    raise SetupFailed("thaw", one_line(str(error))) from error

    async def new_stream(self) -> tuple[socket.socket, socket.socket]:
        """See `Slot.new_stream`."""
        # The relay keeps it; what the program holds is made inside.
        return socket.socketpair()

    async def wait(self) -> None:
        """See `Slot.wait`."""
        await self._relay.wait_over()

    def terminate(self) -> None:
        """See `Slot.terminate`."""
        self._relay.terminate()

    async def stop_watching(self) -> None:
        """Its last process is dead."""
        if self._locks is not None and self._watched is not None:
            self._locks.watcher.forget(self._watched)

    async def kill(self) -> tuple[Exit, Usage]:
        """See `Slot.kill`."""
        if self._ended is None:
            self._relay.finish()
            with suppress(SetupFailed):  # then it is ended by force
                await self.thaw()
            word = None if await self._ends_in_order() else await self._forced()
            await self.stop_watching()
            self._ended = await self._told(word)
            if self._watched is not None:
                self._watched.confirm()
        return self._ended

    async def _ends_in_order(self) -> bool:
        """Whether its first process has ended, by our word or before it."""
        gone = asyncio.ensure_future(self._gone())
        try:
            done, _ = await asyncio.wait({gone}, timeout=_ANSWER_S)
            if not done and not await self._stands_still():
                done, _ = await asyncio.wait({gone}, timeout=_KILL_S)
            return bool(done) and gone.result()
        finally:
            gone.cancel()
            await asyncio.wait({gone})

    async def _stands_still(self) -> bool:
        """Whether init cannot hear us, or cannot act."""
        if self._relay.failure is not None:
            return True
        # A daemon that is only slow to say so keeps nobody: init is waited for.
        return (await container_ending.ask(self._container)).is_paused

    async def _forced(self) -> container_ending.Word:
        """End it without its init; the engine's word from before. Raises `SetupFailed` if it may live on."""
        word = await container_ending.ask(self._container)
        self._relay.stop()
        if word.is_over:
            return word
        if self._first is not None:
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)
            with suppress(TimeoutError):
                async with asyncio.timeout(_ANSWER_S):
                    await wait_readable(self._first)
                    return word
        if not await remove(self._container):
            reason = container_ending.AWAY if word.away else "it cannot be removed"
            raise SetupFailed("container", f"{reason}; init ends the program once its time is over")
        return word

    async def _gone(self) -> bool:
        """Wait for the end of the container's first process, and with it of all others; whether it is known to be."""
        with suppress(SetupFailed):
            await self._relay.hear(Finished)
        if self._first is not None:
            await wait_readable(self._first)
            return True
        await self._relay.wait_gone()
        return self._relay.heard(Finished) is not None  # else the streams may have ended alone, with their daemon

    async def _told(self, word: container_ending.Word | None) -> tuple[Exit, Usage]:
        exited, finished = self._relay.heard(Exited), self._relay.heard(Finished)
        if exited is None or finished is None:
            return self._engines_word(exited, word or await container_ending.ask(self._container))
        held = self._full()
        exit_ = Exit(
            code=exited.code,
            signal=exited.signal,
            oom_kills=max(finished.oom_kills, 0) + self._socket_kills,
            full_bytes=(*held[0], *finished.full_bytes),
            full_inodes=(*held[1], *finished.full_inodes),
            process_limit_hits=max(finished.process_limit_hits, 0),
            limit=self._limit(finished),
            unasked=finished.unasked,
        )
        used = exited.user_s + exited.system_s
        return exit_, Usage(
            cpu_s=finished.cpu_s if finished.cpu_s >= 0 else used,
            max_rss_bytes=finished.peak_memory_bytes if finished.peak_memory_bytes > 0 else exited.max_rss_bytes,
        )

    def _limit(self, finished: Finished) -> Code | None:
        """The ceiling that was watched and not held, and was passed."""
        if finished.too_many_locks or self._has_too_many_locks:
            return Code.LOCK_LIMIT
        return Code.PROCESS_LIMIT if self._has_own_kernel and finished.process_limit_hits > 0 else None

    @property
    def _socket_kills(self) -> int:
        return self._watched.kills if self._watched is not None else 0

    @property
    def _has_too_many_locks(self) -> bool:
        return self._watched is not None and self._watched.has_too_many_locks

    def _engines_word(self, exited: Exited | None, word: container_ending.Word) -> tuple[Exit, Usage]:
        """init had no last word: it died with its container, as gVisor's does when a ceiling around it is reached."""
        if self._has_too_many_locks:  # the watcher has killed it: we were not there to end the run
            return Exit(code=None, signal=9, limit=Code.LOCK_LIMIT), Usage(cpu_s=0.0, max_rss_bytes=0)
        if self._socket_kills:
            return Exit(code=None, signal=9, oom_kills=self._socket_kills), Usage(cpu_s=0.0, max_rss_bytes=0)
        if self._watched is not None:
            self._watched.confirm()
        exit_ = container_ending.exit_of(word, has_own_kernel=self._has_own_kernel)
        if exit_ is None:
            raise self._relay.failure or SetupFailed("container", "the container's first process does not end")
        full_bytes, full_inodes = self._full()
        exit_ = replace(exit_, full_bytes=full_bytes, full_inodes=full_inodes)
        # A program that ended well and whose init did not was not the last to act in its container.
        if exited is not None and exited.signal != 9 and exited.code != 0:
            exit_ = replace(exit_, code=exited.code, signal=exited.signal, outside="", is_lost=False)
        return exit_, Usage(cpu_s=0.0, max_rss_bytes=0)

    def _full(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        found = os.fstatvfs(self._folder.out)
        return (
            (rules.WORKSPACE,) if found.f_bfree == 0 else (),
            (rules.WORKSPACE,) if found.f_ffree == 0 else (),
        )
