"""Calls a bundle's tools without a program: for people who write tools, and for their tests.

The supervisor cannot tell the difference: it gets a run whose program is us, and whose
output directory is a folder of the caller's. So a tool that works here works there.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isorun.core.limits import Limits
from isorun.core.sent.claim import Claim
from isorun.executor.calls.agent_io_tools import ERRORS
from isorun.kernel.readiness import Channel
from isorun.supervisor.client import Supervisor
from isorun.supervisor.descriptor import Descriptor, load_descriptor
from isorun.supervisor.session import CallLimits
from isorun.supervisor.worker.modes import ModePolicy
from isorun.wire.messages import Call, Refused, Reply
from isorun.wire.session import Session, Side, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, as the tools' context shows it."""

    user_id: str = "developer"
    turn_id: str = "turn_1"
    exec_id: str = "direct"


class _Heard:
    """Keeps what the tools printed and what became of each call (a `opened.RunListener`)."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.records: list[dict[str, Any]] = []

    def told(self, component: str, level: str, text: str) -> None:
        self.lines.append(f"{level} [{component}] {text}")

    def logged(self, level: str, name: str, text: str) -> None:
        self.lines.append(f"{level} [{name}] {text}")

    def claimed(self, claim: Claim) -> None:
        raise RuntimeError("we make no such claim")

    def violated(self, reason: str) -> None:
        self.lines.append(f"ERROR {reason}")

    def began(self, record: dict[str, Any]) -> None:
        pass

    def called(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def journalled(self, records: Sequence[dict[str, Any]]) -> None:
        self.records += records


class DirectCalls:
    """The tools of one bundle, to be called one at a time. `lines` is what they printed and logged."""

    def __init__(self, supervisor: Supervisor, channel: Channel, heard: _Heard, out: Path) -> None:
        self.tools: Mapping[str, Mapping[str, Any]] = supervisor.tools
        self.out = out
        self.lines: Sequence[str] = heard.lines
        self._channel = channel
        self._number = 0

    async def call(
        self, tool_id: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> Any:  # noqa: ANN401 - the tool's result is its own affair
        """The tool's result. Raises the error that a program would get (`ToolDenied`, `ToolInputInvalid`, …)."""
        self._number += 1
        call = Call(id=self._number, tool=tool_id, params=dict(params or {}), reason="direct call", timeout_s=timeout_s)
        with suppress(BrokenPipeError):  # then there is nothing to receive either
            await self._channel.send(call)
        match await self._channel.receive():
            case Reply(value=value):
                return value
            case Refused(error=error, text=text):
                raise ERRORS[error](text)
            case _:
                said = "; ".join(self.lines[-3:])
                raise ERRORS["ToolUnavailable"](f"the supervisor is gone {said}".rstrip())


@asynccontextmanager
async def direct_calls(
    bundle: str | Path | Descriptor,
    out: Path,
    environment: Mapping[str, str],
    *,
    limits: Limits | None = None,
    caller: Caller | None = None,
    network: bool = True,
    mode_policy: ModePolicy | None = None,
) -> AsyncIterator[DirectCalls]:
    """The tools of *bundle*, a folder or what it says, with *out*, an existing folder, as their output directory.

    *environment* is the supervisor's. Raises `InvalidRequest` (invalid_bundle) naming file, line and tool.
    Long because it closes all that it opens, in one order.
    """
    limits, caller = limits or Limits(), caller or Caller()
    descriptor = bundle if isinstance(bundle, Descriptor) else await asyncio.to_thread(load_descriptor, bundle)
    heard = _Heard()
    ours, theirs = socket.socketpair()
    channel = Channel(ours, Session(Side.PROGRAM, Side.SUPERVISOR, State.OPEN))
    folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ours.setblocking(False)
        async with Supervisor(descriptor, environment, network=network, mode_policy=mode_policy) as supervisor:
            run = await supervisor.open(
                exec_id=caller.exec_id,
                turn=caller.turn_id,
                user=caller.user_id,
                grants=list(supervisor.tools),
                limits=CallLimits.of(limits),
                stream=theirs,
                out=folder,
                listener=heard,
            )
            try:
                yield DirectCalls(supervisor, channel, heard, out)
            finally:
                with suppress(OSError):
                    ours.shutdown(socket.SHUT_RDWR)
                await run.close()
    finally:
        ours.close()
        theirs.close()
        os.close(folder)
        for unused in channel.descriptors:  # a new stream, from a supervisor that was started anew: not used here
            os.close(unused)
