"""The part of Jupyter's protocol that runs code: kernels, and a socket to each. For Open WebUI and the like.

Theory of operation. A kernel is a name. Each `execute_request` on its socket is one run, one after the other. What the
run prints is told as it comes; its pictures and its last value follow once it has ended. The socket's reader never
waits for a run, so it sees at once that the client has gone, and then the run is cancelled.
"""

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response, WebSocket
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect

from isorun.core.errors import IsorunError
from isorun.core.request import RunRequest
from isorun.service.api.runs import Open
from isorun.service.clients import cell, wire
from isorun.service.clients.kept import content
from isorun.service.clients.kernels import Kernel, Kernels
from isorun.service.clients.speech import key_owner, no_key, said, speaking, unfinished
from isorun.service.context import Service
from isorun.service.problems import Problem, problem_of
from isorun.service.store.accounts import User
from isorun.service.store.records import Origin

_MOST_PICTURES, _MOST_PICTURE = 20, 8 << 20
_MOST_VALUE = 1 << 20
_MOST_WAITING = 16  # requests of one socket that are not begun


def _shape(problem: Problem) -> Response:
    return JSONResponse({"message": said(problem), "reason": problem.code}, problem.status, problem.headers)


router = APIRouter(prefix="/api/kernels", tags=["clients"], route_class=speaking(_shape), include_in_schema=False)
KernelId = Annotated[str, Path(max_length=64)]


def _kernels(connection: HTTPConnection) -> Kernels:
    found: Kernels = connection.app.state.kernels
    return found


async def _user(request: Request, service: Open) -> User:
    if (user := await key_owner(request, service, in_query=True)) is None:
        raise no_key()
    return user


Kept = Annotated[Kernels, Depends(_kernels)]
KeyUser = Annotated[User, Depends(_user, scope="function")]


@router.post("", status_code=201)
async def new(user: KeyUser, kernels: Kept) -> dict[str, Any]:
    """A new kernel."""
    return kernels.new(user).shown()


@router.get("")
async def listing(user: KeyUser, kernels: Kept) -> list[dict[str, Any]]:
    """The user's kernels."""
    return [one.shown() for one in kernels.of(user)]


@router.get("/{kernel_id}")
async def view(kernel_id: KernelId, user: KeyUser, kernels: Kept) -> dict[str, Any]:
    """One of them."""
    return kernels.one(user, kernel_id).shown()


@router.delete("/{kernel_id}", status_code=204)
async def delete(kernel_id: KernelId, user: KeyUser, kernels: Kept, service: Open) -> Response:
    """Forget a kernel, and cancel what it runs."""
    await _cancel(service, user, kernels.remove(user, kernel_id))
    return Response(status_code=204)


@router.post("/{kernel_id}/interrupt", status_code=204)
async def interrupt(kernel_id: KernelId, user: KeyUser, kernels: Kept, service: Open) -> Response:
    """Cancel what a kernel runs."""
    await _cancel(service, user, kernels.one(user, kernel_id))
    return Response(status_code=204)


@router.websocket("/{kernel_id}/channels")
async def channels(socket: WebSocket, kernel_id: KernelId) -> None:
    """The messages of a kernel. Without a key it is refused before it opens: no page can make a browser ask."""
    service: Service = socket.app.state.service
    user = await key_owner(socket, service, in_query=True)
    try:
        if user is None:
            raise no_key()
        kernel = _kernels(socket).one(user, kernel_id)
    except Problem as problem:
        await socket.send_denial_response(_shape(problem))
        return
    await socket.accept()
    with kernel.connected():
        await _Channels(socket, service, user, kernel).serve()


async def _cancel(service: Service, user: User, kernel: Kernel) -> None:
    if kernel.running:
        with suppress(Problem):
            await service.runs.cancel(user, kernel.running)


class _Channels:
    """One socket."""

    def __init__(self, socket: WebSocket, service: Service, user: User, kernel: Kernel) -> None:
        self._socket, self._service, self._user, self._kernel = socket, service, user, kernel
        self._session = uuid.uuid4().hex
        self._waiting: asyncio.Queue[wire.Request] = asyncio.Queue(_MOST_WAITING)

    async def serve(self) -> None:
        """Until the client leaves, the kernel is deleted or the service ends."""
        tasks = [asyncio.ensure_future(one) for one in (self._read(), self._work(), self._service.closing.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await _cancel(self._service, self._user, self._kernel)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                await self._close(error)

    async def _close(self, error: BaseException) -> None:
        """Say why, if the client is there to hear it."""
        if isinstance(error, WebSocketDisconnect):
            return
        if not isinstance(error, wire.Unreadable):
            raise error
        with suppress(RuntimeError, WebSocketDisconnect):
            await self._socket.close(1008, str(error))

    async def _read(self) -> None:
        while True:
            try:
                request = wire.read(await self._socket.receive_text())
            except KeyError:
                raise wire.Unreadable("a message is text") from None
            self._kernel.touch()
            if request.kind == "interrupt_request":
                await _cancel(self._service, self._user, self._kernel)
                await self._send("interrupt_reply", request, status="ok")
                continue
            if self._waiting.full():
                raise wire.Unreadable("too many requests wait")
            self._waiting.put_nowait(request)

    async def _work(self) -> None:
        while not self._kernel.deleted:
            request = await self._waiting.get()
            if request.kind not in ("execute_request", "kernel_info_request"):
                continue
            await self._send("status", request, execution_state="busy")
            if request.kind == "kernel_info_request":
                await self._send("kernel_info_reply", request, **wire.KERNEL_INFO)
            else:
                await self._execute(request)
            await self._send("status", request, execution_state="idle")

    async def _send(self, kind: str, request: wire.Request, **told: Any) -> None:  # noqa: ANN401 - JSON
        await self._socket.send_text(wire.message(kind, request.header, self._session, told))

    async def _execute(self, request: wire.Request) -> None:
        self._kernel.executions += 1
        count = self._kernel.executions
        try:
            error = await self._run(request, count) if request.code.strip() else None
        except (Problem, IsorunError) as failed:
            problem = problem_of(failed)
            error = {"ename": problem.code, "evalue": problem.detail, "traceback": [said(problem)]}
        if error is not None:
            await self._send("error", request, **error)
        ending: dict[str, Any] = {"status": "error", **error} if error is not None else {"status": "ok"}
        more: dict[str, Any] = {} if error is not None else {"user_expressions": {}, "payload": []}
        await self._send("execute_reply", request, execution_count=count, **ending, **more)

    async def _run(self, request: wire.Request, count: int) -> dict[str, Any] | None:
        """Run the code, and tell what it does; the error that it ended with, if it did."""
        runs, user = self._service.runs, self._user
        asked = RunRequest.of(
            cell.shown(request.code),
            inputs={f"{cell.MODULE}.py": cell.SOURCE},
            env=cell.ENVIRONMENT,
        )
        run_id = await runs.start(user, asked, origin=Origin(client="jupyter"))
        self._kernel.running = run_id
        try:
            async with aclosing(runs.events(run_id)) as events:  # type: ignore[type-var]  # an async generator
                async for event in events:
                    if event.kind == "output":
                        await self._send("stream", request, name=event.data["stream"], text=event.data["text"])
                    elif event.kind == "skipped":
                        text = f"… {event.data.get('bytes', 0)} bytes more are in the log of run {run_id}\n"
                        await self._send("stream", request, name="stderr", text=text)
            view = await runs.wait(user, run_id)
            async for kind, data in self._shown(view):
                more: dict[str, Any] = {"execution_count": count} if kind == "execute_result" else {}
                await self._send(kind, request, data=data, metadata={}, **more)
        except BaseException:
            await runs.cancel(user, run_id)
            raise
        finally:
            self._kernel.running = ""
        return _error(view)

    async def _shown(self, view: dict[str, Any]) -> AsyncIterator[tuple[str, dict[str, str]]]:
        """The pictures and the last value of a run, each as a kind of message with its data by type."""
        pictures = [
            one["path"] for one in view["files"] if one["mime"] == "image/png" and one["bytes"] <= _MOST_PICTURE
        ]
        for path in pictures[:_MOST_PICTURES]:
            picture = await self._content(view, path, _MOST_PICTURE)
            if picture is not None:
                yield "display_data", {"image/png": base64.b64encode(picture).decode(), "text/plain": f"<{path}>"}
        value = await self._content(view, cell.VALUE, _MOST_VALUE)
        if value is not None:
            html = await self._content(view, cell.HTML, _MOST_VALUE)
            more = {} if html is None else {"text/html": html.decode("utf-8", "replace")}
            yield "execute_result", {"text/plain": value.decode("utf-8", "replace"), **more}

    async def _content(self, view: dict[str, Any], path: str, most: int) -> bytes | None:
        if all(one["path"] != path for one in view["files"]):
            return None
        return await asyncio.to_thread(content, self._service, view["id"], path, most)


def _error(view: dict[str, Any]) -> dict[str, Any] | None:
    """What a run that did not end well is told as; the traceback that it has printed is not told a second time."""
    if view["status"] == "ok":
        return None
    error = (view["result"] or {}).get("error") or {}
    name = (error.get("details") or {}).get("exception") or view["status"]
    lines = [unfinished(view).rstrip()] if unfinished(view) else [error["hint"]] if error.get("hint") else []
    return {"ename": name, "evalue": error.get("message") or view["status"], "traceback": lines}
