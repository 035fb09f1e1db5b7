"""The same server over HTTP, in both eras: each request reaches the runs of the user who sent it."""

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from starlette.requests import Request

from isorun.service.mcp.server import make_server
from tests.unit.service.mcp.test_mcp_server import MODES, Played


@pytest.mark.parametrize("mode", MODES)
async def test_each_user_has_their_own_runs(mode) -> None:
    """The function that chooses the backend gets the HTTP request; output comes as progress here, too."""
    users = {"ana": Played(), "bo": Played()}
    told = []

    def backend_of(request: Request) -> Played:
        return users[request.headers["x-user"]]

    async def progress(count: float, total: float | None, message: str | None) -> None:
        told.append(message)

    app = make_server(backend_of).streamable_http_app()
    async with app.router.lifespan_context(app):
        for name in users:
            transport = httpx2.ASGITransport(app)
            async with (
                httpx2.AsyncClient(transport=transport, headers={"x-user": name}) as http,
                Client(streamable_http_client("http://127.0.0.1:8000/mcp", http_client=http), mode=mode) as client,
            ):
                answer = await client.call_tool("run_python", {"code": name}, progress_callback=progress)
                assert not answer.is_error
    assert {name: [request.code for request in played.asked] for name, played in users.items()} == {
        "ana": [b"ana"],
        "bo": [b"bo"],
    }
    assert told == ["working", "working"]
