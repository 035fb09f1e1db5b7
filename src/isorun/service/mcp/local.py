"""A `Backend` over one Runtime of this process: the runs that MCP clients of this user asked for.

Their ids begin with `mcp-`, so a model sees these runs, also after a restart, and none that the user made otherwise.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from isorun.core.errors import InvalidRequest
from isorun.core.ids import new_exec_id, time_in
from isorun.core.request import RunRequest
from isorun.core.result import as_result
from isorun.runtime.accepted.handle import Run
from isorun.runtime.runtime import Runtime
from isorun.service.mcp.backend import Ended, File, Listed, Piece
from isorun.service.mcp.stored import no_such_run, read_piece
from isorun.store.recovery import DAMAGED, RUNNING, exec_ids, stored_file

PREFIX = "mcp-"


class LocalBackend:
    """The runs of the MCP clients of this user, in *runtime*, which is open."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._runs: dict[str, Run] = {}

    @property
    def tools(self) -> Mapping[str, Mapping[str, Any]]:
        """See `Backend.tools`."""
        return self._runtime.tools

    async def start(self, request: RunRequest) -> str:
        """See `Backend.start`."""
        run = await self._runtime.start(replace(request, exec_id=PREFIX + new_exec_id()))
        self._runs[run.exec_id] = run
        return run.exec_id

    async def output(self, exec_id: str) -> AsyncIterator[str]:
        """See `Backend.output`."""
        async for event in self._run(exec_id).events():
            if event.kind == "output":
                yield event.data["text"]

    async def result(self, exec_id: str) -> Ended:
        """See `Backend.result`. It is given once."""
        run = self._run(exec_id)
        result = await run.result()
        del self._runs[exec_id]
        files = [
            File(path=one.path, bytes=one.bytes, mime=one.mime, description=one.description) for one in result.artifacts
        ]
        return Ended(exec_id=exec_id, result=result.to_dict(), files=files)

    async def cancel(self, exec_id: str) -> None:
        """See `Backend.cancel`."""
        if run := self._runs.pop(exec_id, None):
            await run.cancel()

    async def read(self, exec_id: str, path: str, *, offset: int, most: int) -> Piece:
        """See `Backend.read`."""
        if not exec_id.startswith(PREFIX):
            raise no_such_run(exec_id)
        return await asyncio.to_thread(partial(read_piece, self._runtime.root, exec_id, path, offset=offset, most=most))

    async def latest(self, most: int) -> Sequence[Listed]:
        """See `Backend.latest`."""
        return await asyncio.to_thread(listed, self._runtime.root, most)

    def _run(self, exec_id: str) -> Run:
        if exec_id not in self._runs:
            raise no_such_run(exec_id)
        return self._runs[exec_id]


def listed(root: Path, most: int) -> list[Listed]:
    """The newest *most* runs of MCP clients that are stored below *root*. The time in an id orders them."""
    found = [exec_id for exec_id in exec_ids(root) if exec_id.startswith(PREFIX)]
    return [_listed(root, exec_id) for exec_id in reversed(found[-most:])]


def _listed(root: Path, exec_id: str) -> Listed:
    try:
        data = stored_file(root, exec_id, "result.json")
    except InvalidRequest:  # removed meanwhile, or something else in its place
        data = b""
    told = (as_result(data) if data is not None else None) or {}
    files = [
        File(path=one["path"], bytes=one["bytes"], mime=str(one.get("mime") or ""))
        for one in told.get("artifacts") or ()
    ]
    return Listed(
        exec_id=exec_id,
        status=str(told.get("status") or (RUNNING if data is None else DAMAGED)),
        started=time_in(exec_id.removeprefix(PREFIX)) or "",
        prog_name=str(told.get("prog_name") or ""),
        files=files,
    )
