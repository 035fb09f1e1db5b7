"""What there is: tools, scenarios, the walls, who is signed in; and whether all is well."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text

import isorun
from isorun.runtime.services import by_default
from isorun.service.api.runs import Open
from isorun.service.auth import CurrentUser
from isorun.service.problems import Problem
from isorun.service.store.room import LEAST_FREE, without_room

router = APIRouter(tags=["about"])
_log = logging.getLogger("isorun.service")


@router.get("/v1/me")
async def me(user: CurrentUser) -> dict[str, str]:
    """Who is signed in."""
    return {"id": user.id, "name": user.name}


@router.get("/v1/tools")
async def tools(_: CurrentUser, service: Open) -> dict[str, Any]:
    """The tools that a run may be granted, and which of them a run gets that names none."""
    known = service.runtime.tools
    granted = frozenset(by_default(known))
    return {
        "tools": [{"id": name, **_about(one), "granted_by_default": name in granted} for name, one in known.items()]
    }


def _about(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": tool.get("description", ""), "parameters": tool.get("parameters", {})}


@router.get("/v1/scenarios")
async def scenarios(_: CurrentUser, service: Open) -> dict[str, Any]:
    """The scenarios of the example bundle."""
    return {"scenarios": service.scenarios}


@router.get("/v1/status")
async def status(_: CurrentUser, service: Open) -> dict[str, Any]:
    """What runs here, and behind which walls."""
    runtime = service.runtime
    return {
        "version": isorun.__version__,
        "backend": runtime.backend.name,
        "isolation": dict(await service.isolation()),
        "bundle": service.bundle.name,
        "model": service.settings.model if service.settings.model_url else None,
        "open_runs": service.runs.open,
        "waiting_slots": runtime.waiting_slots,
        "waiting_inspectors": runtime.waiting_inspectors,
    }


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> Response:
    """This process answers."""
    return Response("ok\n", media_type="text/plain")


@router.get("/readyz", response_class=PlainTextResponse)
async def readyz(request: Request, service: Open) -> Response:
    """It can take runs: its database answers, and its disks have room. Raises `Problem` 503."""
    del request
    if service.closing.is_set():
        raise Problem(503, "closing", "the service is ending")
    async with service.database.read() as connection:
        await connection.execute(text("SELECT 1"))
    if full := await service.runs.in_thread(without_room, (service.folder, service.runtime.root)):
        _log.error("less than %s bytes are free at %s", LEAST_FREE, ", ".join(map(str, full)))
        raise Problem(503, "disk_full", "a disk of the service is full", hint="its log names the folder: free space")
    return Response("ready\n" if service.wakes.hears else "ready, but Redis is away\n", media_type="text/plain")


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(_: CurrentUser) -> Response:
    """For Prometheus."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
