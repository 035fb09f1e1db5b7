"""The MCP server at /mcp of the service: each request reaches the runs of the user whose key it carries.

A browser's cookie lets nothing in here: a page cannot make a browser send a key.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from isorun.core.errors import InvalidRequest
from isorun.core.request import RunRequest
from isorun.service.context import Service
from isorun.service.mcp.backend import Ended, File, Listed, Piece
from isorun.service.mcp.server import make_server
from isorun.service.mcp.stored import no_such_run, read_piece
from isorun.service.problems import Problem, answer, not_signed_in
from isorun.service.store.accounts import User
from isorun.service.store.records import Origin

PATH = "/mcp"
_USER = "isorun.user"


class UserRuns:
    """The runs of one user, as `Backend` has them: also those that were not asked for over MCP."""

    def __init__(self, service: Service, user: User) -> None:
        self._service, self._user = service, user

    @property
    def tools(self) -> Mapping[str, Mapping[str, Any]]:
        """See `Backend.tools`."""
        return self._service.runtime.tools

    async def start(self, request: RunRequest) -> str:
        """See `Backend.start`."""
        try:
            return await self._service.runs.start(self._user, request, origin=Origin(client="mcp"))
        except Problem as problem:
            hint = f": {problem.hint}" if problem.hint else ""
            raise InvalidRequest(f"{problem.detail}{hint}", code=problem.code) from None

    async def output(self, exec_id: str) -> AsyncIterator[str]:
        """See `Backend.output`."""
        await self._row(exec_id)
        async for event in self._service.runs.events(exec_id):
            if event.kind == "output":
                yield str(event.data["text"])

    async def result(self, exec_id: str) -> Ended:
        """See `Backend.result`."""
        await self._row(exec_id)
        view = await self._service.runs.wait(self._user, exec_id)
        return Ended(exec_id=exec_id, result=view["result"] or {}, files=_files(view["files"]))

    async def cancel(self, exec_id: str) -> None:
        """See `Backend.cancel`."""
        await self._row(exec_id)
        await self._service.runs.cancel(self._user, exec_id)
        await self._service.runs.wait(self._user, exec_id)

    async def read(self, exec_id: str, path: str, *, offset: int, most: int) -> Piece:
        """See `Backend.read`."""
        await self._row(exec_id)
        read = partial(read_piece, self._service.runtime.root, exec_id, path, offset=offset, most=most)
        return await asyncio.to_thread(read)

    async def latest(self, most: int) -> Sequence[Listed]:
        """See `Backend.latest`."""
        found = []
        for row in await self._service.records.listed(self._user.id, most=most):
            view = await self._service.runs.view(self._user, row["id"])
            listed = Listed(
                exec_id=row["id"],
                status=row["status"],
                started=row["started"] or row["created"],
                prog_name=row["prog_name"],
                files=_files(view["files"]),
            )
            found.append(listed)
        return found

    async def _row(self, exec_id: str) -> None:
        try:
            await self._service.runs.row(self._user, exec_id)
        except Problem:
            raise no_such_run(exec_id) from None


def _files(files: Sequence[Mapping[str, Any]]) -> list[File]:
    return [
        File(path=one["path"], bytes=one["bytes"], mime=one["mime"] or "", description=one.get("description") or "")
        for one in files
    ]


def make_app(service: Service) -> Starlette:
    """The server as an application with the one path `PATH`; its lifespan must run."""

    def backend_of(request: Request) -> UserRuns:
        return UserRuns(service, request.scope[_USER])

    instructions = service.runtime.prompt(tools=tuple(service.runtime.tools))
    # Which Host may be asked for, the service's own guard decides; a key decides who.
    open_to_any = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    server = make_server(backend_of, instructions=instructions)
    return server.streamable_http_app(streamable_http_path=PATH, transport_security=open_to_any)


class ByKey:
    """*app* for those who send a key; else 401."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find the user of the key, and hand the request on."""
        scheme, _, secret = Headers(scope=scope).get("authorization", "").partition(" ")
        user = await self._service.accounts.owner_of(secret.strip(), "key") if scheme.lower() == "bearer" else None
        if user is None:
            await answer(not_signed_in())(scope, receive, send)
            return
        await self._app({**scope, _USER: user}, receive, send)
