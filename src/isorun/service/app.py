"""The application: its routes, its errors, and what is open while it runs."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Route

import isorun
from isorun.service import clients, problems
from isorun.service.api import about, artifacts, conversations, runs, uploads
from isorun.service.context import Service
from isorun.service.guard import Guard
from isorun.service.page import routes as page


def create_app(service: Service, *, hosts: frozenset[str] = frozenset()) -> FastAPI:
    """The application over an open *service*, which answers to the names *hosts*; empty: to any."""
    mcp = _mcp(service)
    app = _application(mcp)
    app.state.service = service
    if mcp is not None:
        from isorun.service.mcp.mounted import PATH, ByKey

        app.router.routes.append(Route(PATH, ByKey(mcp, service)))
    app.add_middleware(Guard, hosts=hosts, uploads={"/v1/files": uploads.MOST_UPLOAD, **clients.UPLOADS})
    return app


def described() -> dict[str, Any]:
    """The interface as OpenAPI, as /openapi.json has it."""
    return _application(None).openapi()


def _mcp(service: Service) -> Starlette | None:
    """The MCP server; None where the extra `mcp` is not installed."""
    try:
        from isorun.service.mcp.mounted import make_app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        return None
    return make_app(service)


def _application(mcp: Starlette | None) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if mcp is not None:
                await stack.enter_async_context(mcp.router.lifespan_context(mcp))
            yield

    app = FastAPI(
        title="isorun",
        version=isorun.__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=problems.RESPONSES,
    )
    problems.install(app)
    for router in (runs.router, artifacts.router, uploads.router, conversations.router, about.router):
        app.include_router(router)
    app.include_router(page.router)
    clients.install(app)
    return app
