"""The MCP server: three tools and the files of runs as resources, over any `Backend`, in both eras of the protocol.

Theory of operation. The library has the protocol, both eras of it and the transports. Here a request becomes a call of
the backend, and what comes of it an answer. A call lives as long as its request: when the client cancels or leaves,
the library cancels the handler, and the handler the run. A program that fails is an answer that says so. An unexpected
exception is logged, and the client gets a sentence without a path or a traceback: it may be far away.
"""

import base64
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError

from isorun import __version__
from isorun.core.contract.kinds import kind_of, mime_of
from isorun.core.errors import InvalidRequest, Unavailable
from isorun.core.request import Named
from isorun.core.text import file_name, shown
from isorun.model import NAME
from isorun.service.mcp import answers, asked
from isorun.service.mcp.backend import Backend, Ended
from isorun.service.mcp.pictures import MAX_BYTES, is_picture_name, picture_type
from isorun.service.mcp.progress import tell_progress
from isorun.service.mcp.uris import TEMPLATE, Place, place_of, uri_of

MAX_RESOURCE = 16 << 20  # bytes of a file that is served whole, or that goes into another run
_RESOURCES_OF = 20  # runs whose files are listed
_MOST_RESOURCES = 200
_NO_SANDBOX = "no sandbox can be started here, and nothing was run; the operator of this server can run `isorun doctor`"
_FAILED = "the server failed, and nothing came of this call; its log says why. Try once more, then tell its operator"

_log = logging.getLogger(__name__)
_P = TypeVar("_P")
_R = TypeVar("_R")
_Context = ServerRequestContext[Any, Any]
_Handler = Callable[[_Context, _P], Awaitable[_R]]

#: Gives the runs of whoever sent a request. It gets the HTTP request, and None where there is none, as on stdio.
BackendOf = Callable[[Any], Backend]


def make_server(backend_of: BackendOf, *, instructions: str | None = None) -> Server[Any]:
    """A server of `run_python`, `read_output` and `list_runs`, for `Server.run` or `Server.streamable_http_app`.

    *instructions* are what a model has to know beforehand, as `Runtime.prompt` says it.
    """
    handlers = _Handlers(backend_of)
    return Server(
        "isorun",
        title="isorun",
        version=__version__,
        description="Runs Python programs in a sealed sandbox.",
        instructions=instructions,
        on_list_tools=_guarded(handlers.list_tools),
        on_call_tool=handlers.call_tool,
        on_list_resources=_guarded(handlers.list_resources),
        on_list_resource_templates=_guarded(handlers.list_templates),
        on_read_resource=_guarded(handlers.read_resource),
    )


def explained(error: Exception) -> str:
    """What the client reads of *error*. What it cannot mend is logged, as its text may name paths of this machine."""
    if isinstance(error, InvalidRequest):
        return str(error)
    _log.error("a request failed", exc_info=error)
    return _NO_SANDBOX if isinstance(error, Unavailable) else _FAILED


def _guarded(handler: _Handler[_P, _R]) -> _Handler[_P, _R]:
    """*handler*, whose errors become errors of the protocol."""

    async def handle(context: _Context, params: _P) -> _R:
        try:
            return await handler(context, params)
        except MCPError:
            raise
        except Exception as error:  # noqa: BLE001 - boundary: logged, and the client reads a sentence about it
            code = types.INVALID_PARAMS if isinstance(error, InvalidRequest) else types.INTERNAL_ERROR
            raise MCPError(code, explained(error)) from None

    return handle


class _Handlers:
    """What is done for each method of the protocol."""

    def __init__(self, backend_of: BackendOf) -> None:
        self._backend_of = backend_of
        self._tools = {NAME: _run_python, asked.READ: _read_output, asked.LIST: _list_runs}

    async def list_tools(self, context: _Context, params: object) -> types.ListToolsResult:
        """The three tools; the description of the first names those that programs may call."""
        about, schema = asked.run_tool(self._backend_of(context.request).tools)
        read_about, read_schema = asked.read_tool()
        list_about, list_schema = asked.list_tool()
        tools = [
            _tool(NAME, "Run Python, sealed", about, schema, answers.RUN_OUTPUT),
            _tool(asked.READ, "Read a run's file", read_about, read_schema, None),
            _tool(asked.LIST, "List the latest runs", list_about, list_schema, answers.LIST_OUTPUT),
        ]
        return types.ListToolsResult(tools=tools)

    async def call_tool(self, context: _Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        """The answer of a tool. An unknown tool is an error of the protocol, any other error an answer to read."""
        tool = self._tools.get(params.name)
        if tool is None:
            raise MCPError(
                types.INVALID_PARAMS, f"{shown(params.name)} is not a tool; the tools are {', '.join(self._tools)}"
            )
        try:
            return await tool(self._backend_of(context.request), context, params.arguments or {})
        except MCPError:
            raise
        except Exception as error:  # noqa: BLE001 - boundary: logged, and the model reads a sentence about it
            return answers.refusal(explained(error))

    async def list_resources(self, context: _Context, params: object) -> types.ListResourcesResult:
        """The files of the latest runs."""
        runs = await self._backend_of(context.request).latest(_RESOURCES_OF)
        found = [
            types.Resource(
                name=file_name(file.path),
                uri=uri_of(run.exec_id, file.path),
                mime_type=file.mime,
                size=file.bytes,
                description=f"of run {run.exec_id}",
            )
            for run in runs
            for file in run.files
        ]
        return types.ListResourcesResult(resources=found[:_MOST_RESOURCES])

    async def list_templates(self, context: _Context, params: object) -> types.ListResourceTemplatesResult:
        """The form of an address."""
        about = "A file that a run left. The answer of run_python names them."
        template = types.ResourceTemplate(name="file of a run", uri_template=TEMPLATE, description=about)
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def read_resource(
        self, context: _Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        """The bytes of a file; as text if its name promises text and it is UTF-8."""
        place = place_of(params.uri)
        data = await _whole(self._backend_of(context.request), place)
        kind, mime = kind_of(place.path), mime_of(place.path)
        contents: types.TextResourceContents | types.BlobResourceContents
        contents = types.BlobResourceContents(
            uri=params.uri, mime_type=mime, blob=base64.b64encode(data).decode("ascii")
        )
        if (kind is not None and kind.by == "text") or mime.startswith("text/"):
            with suppress(UnicodeDecodeError):
                contents = types.TextResourceContents(uri=params.uri, mime_type=mime, text=data.decode())
        return types.ReadResourceResult(contents=[contents])


def _tool(name: str, title: str, about: str, schema: dict[str, Any], output: dict[str, Any] | None) -> types.Tool:
    """The definition of a tool. All are closed worlds: what a program does stays in its sandbox."""
    hints = types.ToolAnnotations(
        title=title, read_only_hint=name != NAME, destructive_hint=False, open_world_hint=False
    )
    return types.Tool(
        name=name, title=title, description=about, input_schema=schema, output_schema=output, annotations=hints
    )


async def _run_python(backend: Backend, context: _Context, arguments: Mapping[str, Any]) -> types.CallToolResult:
    """Run a program, tell what it prints meanwhile, and give its answer. Cancelled, the run is cancelled first."""
    wanted = asked.run_arguments(arguments)
    earlier = tuple([Named(name, await _whole(backend, place)) for name, place in wanted.later.items()])
    request = replace(wanted.request, inputs=(*wanted.request.inputs, *earlier))
    exec_id = await backend.start(request)

    async def tell(count: float, text: str) -> None:
        await context.session.report_progress(count, None, text)  # which does nothing if the client asked for none

    try:
        await tell_progress(backend.output(exec_id), tell)
        ended = await backend.result(exec_id)
    except BaseException:
        with anyio.CancelScope(shield=True):  # else each await in here is cancelled, too
            await backend.cancel(exec_id)
        raise
    return answers.run_answer(ended, await _pictures(backend, ended))


async def _pictures(backend: Backend, ended: Ended) -> dict[str, tuple[str, bytes]]:
    """The type and the bytes of the pictures to show, by path. A picture that cannot be read any more stays a link."""
    found = {}
    for file in answers.chosen_pictures(ended.files):
        with suppress(InvalidRequest):
            piece = await backend.read(ended.exec_id, file.path, offset=0, most=MAX_BYTES + 1)
            if mime := picture_type(piece.data):
                found[file.path] = mime, piece.data
    return found


async def _read_output(backend: Backend, context: _Context, arguments: Mapping[str, Any]) -> types.CallToolResult:
    """A part of a text, or a picture."""
    wanted = asked.read_arguments(arguments)
    if wanted.offset == 0 and is_picture_name(wanted.path):
        piece = await backend.read(wanted.exec_id, wanted.path, offset=0, most=MAX_BYTES + 1)
        if mime := picture_type(piece.data):
            return answers.picture_answer(wanted.path, mime, piece.data)
    piece = await backend.read(wanted.exec_id, wanted.path, offset=wanted.offset, most=answers.PIECE_BYTES)
    answer = answers.text_answer(piece)
    if answer is None:
        raise InvalidRequest(
            f"{file_name(wanted.path)} has {piece.total} bytes and is neither a text nor a picture that can be shown; "
            f"open it in a program that gets it in files, with uri={uri_of(wanted.exec_id, wanted.path)}",
            code="not_text",
        )
    return answer


async def _list_runs(backend: Backend, context: _Context, arguments: Mapping[str, Any]) -> types.CallToolResult:
    return answers.list_answer(await backend.latest(asked.list_arguments(arguments)))


async def _whole(backend: Backend, place: Place) -> bytes:
    """All of a file. Raises `InvalidRequest` (too_large)."""
    piece = await backend.read(place.exec_id, place.path, offset=0, most=MAX_RESOURCE)
    if piece.total > MAX_RESOURCE:
        raise InvalidRequest(
            f"{file_name(place.path)} has {piece.total} bytes, and at most {MAX_RESOURCE} are handed on; read a part "
            f"of it with {asked.READ}, or have the program that wrote it write less",
            code="too_large",
        )
    return piece.data
