"""How a container ended whose init had no last word: from what the engine says of it to an `Exit`.

An operator's `docker kill`, the engine or the kernel ended it, not the program and not we, and the reason
is the caller's to read. If it ended by itself and without a reason, the sandbox has failed, and the slot has no `Exit`.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isorun.core.outcome import Exit
from sandbox_runner.docker.attached import AttachedContainer
from sandbox_runner.docker.container import was_out_of_memory
from sandbox_runner.errors import SandboxError, SandboxGone

AWAY = "the Docker engine went away"
_OUTSIDE = "the container was ended from outside"
_ASK_S = 10.0
_SETTLE_S, _LOOK_S = 2.0, 0.1  # the engine notes an end some time after the kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What the engine says. Neither set: it knows no such container."""

    away: str = ""  # why it says nothing
    inspected: Mapping[str, Any] | None = None
    memory_was_full: bool = False

    @property
    def is_over(self) -> bool:
        """Whether no process of it is left."""
        if self.away:
            return False
        return self.inspected is None or not (self.is_paused or self.inspected["State"].get("Running"))

    @property
    def is_paused(self) -> bool:
        """Whether the engine has frozen it, so that nothing in it can obey."""
        return self.inspected is not None and bool(self.inspected["State"].get("Paused"))


async def ask(container: AttachedContainer) -> Word:
    """The engine's word, once it has noted the end of *container*, or after two seconds."""
    until = asyncio.get_running_loop().time() + _SETTLE_S
    while True:
        try:
            async with asyncio.timeout(_ASK_S):
                word = await asyncio.to_thread(_inspected, container)  # off the loop: it may read the kernel's log
        except SandboxGone:
            return Word()
        except (SandboxError, TimeoutError) as error:
            return Word(away=str(error) or f"no answer in {_ASK_S:.0f} s")
        if word.is_paused or word.is_over or asyncio.get_running_loop().time() > until:
            return word
        await asyncio.sleep(_LOOK_S)


def _inspected(container: AttachedContainer) -> Word:
    inspected = container.inspect()
    return Word(inspected=inspected, memory_was_full=was_out_of_memory(inspected))


def exit_of(word: Word, *, has_own_kernel: bool) -> Exit | None:
    """The end of a container whose streams have ended, or that was ended because it was paused."""
    if word.away:
        return Exit(signal=9, outside=AWAY, is_lost=True)
    if word.inspected is None:
        return Exit(signal=9, outside=f"{_OUTSIDE}: it was removed (docker rm)")
    state, code = word.inspected["State"], int(word.inspected["State"].get("ExitCode") or 0)
    if word.memory_was_full:
        return Exit(signal=9, oom_kills=1)
    if word.is_paused:
        return Exit(signal=9, outside=f"{_OUTSIDE}: it was paused (docker pause)")
    if word.inspected.get("RestartCount") or state.get("Restarting"):
        return Exit(signal=9, outside=f"{_OUTSIDE}: the engine restarted it")
    if state.get("Running"):  # and yet its streams have ended
        return Exit(signal=9, outside=f"{AWAY}, and came back", is_lost=True)
    if has_own_kernel:  # which a program can end, by a bomb or a signal to init: nobody outside is to blame for sure
        return Exit(signal=9)
    if 128 < code <= 192:
        return Exit(signal=code - 128, outside=f"{_OUTSIDE}: exit {code}, not out of memory")
    return None
