"""The application: its routes, its errors, and what is open while it runs."""

from typing import Any

from fastapi import FastAPI

import isorun
from isorun.service import problems
from isorun.service.api import about, artifacts, conversations, runs, uploads
from isorun.service.context import Service
from isorun.service.guard import Guard


def create_app(service: Service, *, hosts: frozenset[str] = frozenset()) -> FastAPI:
    """The application over an open *service*, which answers to the names *hosts*; empty: to any."""
    app = _application()
    app.state.service = service
    app.add_middleware(Guard, hosts=hosts, uploads={"/v1/files": uploads.MOST_UPLOAD})
    return app


def described() -> dict[str, Any]:
    """The interface as OpenAPI, as /openapi.json has it."""
    return _application().openapi()


def _application() -> FastAPI:
    app = FastAPI(
        title="isorun",
        version=isorun.__version__,
        docs_url=None,
        redoc_url=None,
        responses=problems.RESPONSES,
    )
    problems.install(app)
    for router in (runs.router, artifacts.router, uploads.router, conversations.router, about.router):
        app.include_router(router)
    return app
