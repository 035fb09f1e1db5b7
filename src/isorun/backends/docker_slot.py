"""One executor container as a slot: started, waited for, ended.

Its four channels are a `Relay`'s; its `work/` and `out/` are folders of the host. A run is over
when every process of its container is dead: by the word of the kernel where the container's
processes are visible to us, else of the engine.
"""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from isorun.backends.base import Program, Usage
from isorun.backends.relay import Relay
from isorun.backends.sending import send_program
from isorun.backends.slot_folder import SlotFolder, WorkspaceWatch
from isorun.core.errors import SetupFailed
from isorun.core.limits import Limits
from isorun.core.outcome import Code, Exit
from isorun.executor import rules
from isorun.kernel.readiness import Channel, is_readable, wait_readable
from isorun.wire.messages import Exited, Finished
from sandbox_runner.attached import AttachedContainer
from sandbox_runner.errors import SandboxError

_log = logging.getLogger("isorun")
_KILL_S = 10.0


async def remove(container: AttachedContainer) -> None:
    """End and remove *container*, also if we are cancelled meanwhile.

    One that cannot be removed, because the daemon is away, is the lease's to remove when the backend is left: it has
    lost its stdin, so its program is dead or the daemon is.
    """
    try:
        await asyncio.shield(asyncio.to_thread(container.remove))
    except SandboxError as error:
        _log.warning("%s stays until the backend is left: %s", container.name, error)


class DockerSlot:
    """See `Slot`. Owned by the `launch` block that yielded it."""

    memory_kills = 0

    def __init__(
        self,
        isolation: Mapping[str, Any],
        origin: Sequence[str],
        relay: Relay,
        control: Channel,
        folder: SlotFolder,
        container: AttachedContainer,
        first: int | None,
        limits: Limits,
        *,
        has_own_kernel: bool,
    ) -> None:
        self._has_own_kernel = has_own_kernel
        self.isolation, self.origin = isolation, origin
        self.stdout, self.stderr, self.tools = relay.stdout, relay.stderr, relay.tools
        self.work, self.out = folder.work, folder.out
        self._relay, self._control, self._folder = relay, control, folder
        self._container, self._first = container, first
        self._watch = WorkspaceWatch(folder, limits, relay.finish)
        self._watching: asyncio.Task[None] | None = None
        self._ended: tuple[Exit, Usage] | None = None

    @property
    def is_waiting(self) -> bool:
        """See `Slot.is_waiting`. The kernel knows before the engine has closed the streams."""
        return not (self._relay.is_over or (self._first is not None and is_readable(self._first)))

    async def start(self, program: Program) -> None:
        """See `Slot.start`."""
        await send_program(self._control, program)
        if not self._folder.is_sized:
            self._watching = asyncio.create_task(self._watch.run(), name="isorun-workspace")

    async def wait(self) -> None:
        """See `Slot.wait`."""
        await self._relay.wait_over()

    def terminate(self) -> None:
        """See `Slot.terminate`."""
        self._relay.terminate()

    async def stop_watching(self) -> None:
        """The folder is about to go."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None

    async def kill(self) -> tuple[Exit, Usage]:
        """See `Slot.kill`."""
        if self._ended is None:
            self._relay.finish()
            try:
                async with asyncio.timeout(_KILL_S):
                    await self._gone()
            except TimeoutError:
                self._relay.stop()
                await remove(self._container)
            await self.stop_watching()
            if not self._folder.is_sized:
                await self._watch.look()
            self._ended = await self._told()
        return self._ended

    async def _gone(self) -> None:
        """Return once the container's first process is dead, and with it all others."""
        with suppress(SetupFailed):
            await self._relay.hear(Finished)
        if self._first is None:
            await self._relay.wait_gone()
        else:
            await wait_readable(self._first)

    async def _told(self) -> tuple[Exit, Usage]:
        exited, finished = self._relay.heard(Exited), self._relay.heard(Finished)
        if exited is None or finished is None:
            return await self._engines_word(exited)
        held = self._full()
        exit_ = Exit(
            code=exited.code,
            signal=exited.signal,
            oom_kills=max(finished.oom_kills, 0),
            full_bytes=(*held[0], *finished.full_bytes),
            full_inodes=(*held[1], *finished.full_inodes),
            process_limit_hits=max(finished.process_limit_hits, 0),
            limit=self._limit(finished),
        )
        used = exited.user_s + exited.system_s
        return exit_, Usage(
            cpu_s=finished.cpu_s if finished.cpu_s >= 0 else used,
            max_rss_bytes=finished.peak_memory_bytes if finished.peak_memory_bytes > 0 else exited.max_rss_bytes,
        )

    def _limit(self, finished: Finished) -> Code | None:
        """The ceiling that was watched and not held, and was passed."""
        has_forked = self._has_own_kernel and finished.process_limit_hits > 0
        return self._workspace_limit() or (Code.PROCESS_LIMIT if has_forked else None)

    def _workspace_limit(self) -> Code | None:
        if self._watch.full_bytes:
            return Code.WORKSPACE_LIMIT
        return Code.INODE_LIMIT if self._watch.full_inodes else None

    async def _engines_word(self, exited: Exited | None) -> tuple[Exit, Usage]:
        """init had no last word: it died with its container, as gVisor's does when a ceiling around it is reached."""
        failure = self._relay.failure or SetupFailed("container", "its first process does not end")
        try:
            inspected = await asyncio.to_thread(self._container.inspect)
        except SandboxError as error:  # the daemon is away, and may have taken the container along
            raise failure from error
        killed = bool(inspected["State"].get("OOMKilled"))
        if not killed and not self._has_own_kernel:
            raise failure
        full_bytes, full_inodes = self._full()
        exit_ = Exit(code=None, signal=9, oom_kills=int(killed), full_bytes=full_bytes, full_inodes=full_inodes)
        # A program that ended well and whose init did not was not the last to act in its container.
        if exited is not None and exited.signal != 9 and exited.code != 0:
            exit_ = replace(exit_, code=exited.code, signal=exited.signal)
        return replace(exit_, limit=self._workspace_limit()), Usage(cpu_s=0.0, max_rss_bytes=0)

    def _full(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if not self._folder.is_sized:
            full = (rules.WORKSPACE,)
            return (full if self._watch.full_bytes else (), full if self._watch.full_inodes else ())
        found = os.fstatvfs(self._folder.out)
        return (
            (rules.WORKSPACE,) if found.f_bfree == 0 else (),
            (rules.WORKSPACE,) if found.f_ffree == 0 else (),
        )
