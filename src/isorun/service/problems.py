"""The one shape of every error over HTTP (RFC 9457), and who writes it.

No text repeats what was sent, names a path of the host or shows a traceback.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from isorun.core.errors import InvalidRequest, IsorunError, Unavailable
from isorun.service.store.database import Away
from isorun.service.store.room import REMEDY, is_full

MEDIA_TYPE = "application/problem+json"
_log = logging.getLogger("isorun.service")
_CODES = {
    401: ("not_signed_in", "send your key as `Authorization: Bearer …`, or sign in on the page"),
    404: ("not_found", "look at /openapi.json for what there is"),
    405: ("method_not_allowed", "look at /openapi.json for what there is"),
}


class Problem(Exception):
    """An answer that is an error: its HTTP status, a stable code, one sentence, and what to do."""

    def __init__(
        self, status: int, code: str, detail: str, *, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.hint = status, code, detail, hint
        self.headers = dict(headers or {})


#: What a route may raise for whom it answers.
KNOWN = (Problem, HTTPException, RequestValidationError, IsorunError, Away)
_SHAPE = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("type", "title", "detail", "code", "hint")}
    | {"status": {"type": "integer"}},
    "required": ["type", "title", "status", "detail", "code", "hint"],
}
#: For the description of the interface: what every route may answer beside its own.
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": about, "content": {MEDIA_TYPE: {"schema": _SHAPE}}}
    for status, about in (
        (422, "The request cannot be understood or carried out."),
        ("4XX", "The request is refused; `code` and `hint` say why and what to do."),
        ("5XX", "The service failed or is ending."),
    )
}


def not_found(what: str = "it") -> Problem:
    """The same bytes for what is not there and for what is another user's."""
    return Problem(404, "not_found", f"this {what} does not exist, or is not yours")


def not_signed_in() -> Problem:
    """No key and no cookie that counts."""
    code, hint = "not_signed_in", _CODES[401][1]
    return Problem(401, code, "you are not signed in", hint=hint, headers={"WWW-Authenticate": "Bearer"})


def answer(problem: Problem) -> JSONResponse:
    """*problem* as a response."""
    body = {
        "type": f"/errors/{problem.code}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "hint": problem.hint,
    }
    return JSONResponse(body, problem.status, problem.headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Write every error of *app* in this shape."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(IsorunError, _ours)
    app.add_exception_handler(Away, _away)
    app.add_exception_handler(Exception, _unexpected)


async def _problem(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return answer(error)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    problem = problem_of(error)
    if problem.status == HTTPStatus.METHOD_NOT_ALLOWED:
        problem.headers["Allow"] = ", ".join(sorted(_allowed(request)))
    return answer(problem)


def _allowed(request: Request) -> set[str]:
    """The methods of every route with the path; the framework names those of the first one alone."""
    return {
        method
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return answer(problem_of(error))


def problem_of(error: Exception) -> Problem:
    """What is answered to *error*, one of `KNOWN`. Why the sandbox or the database failed is logged, and not told."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        status = HTTPStatus(error.status_code)
        code, hint = _CODES.get(status, (status.name.lower(), ""))
        return Problem(status, code, status.phrase.lower(), hint=hint, headers=error.headers)
    if is_full(error):
        return disk_full(error)
    if isinstance(error, Away):
        _log.warning("the database is away: %s", error)
        return database_away()
    if isinstance(error, RequestValidationError):
        places = [_place(one) for one in error.errors()[:5]]
        return Problem(422, "invalid_request", "; ".join(places), hint="/openapi.json has the shape of each body")
    if isinstance(error, InvalidRequest):
        return Problem(422, error.code, str(error))
    if isinstance(error, Unavailable):
        _log.error("no sandbox can be built: %s", error)
        return Problem(503, "unavailable", "this host cannot build a sandbox", hint="ask who runs it: `isorun doctor`")
    _log.error("the sandbox failed", exc_info=error)
    return Problem(500, "internal_error", "the service failed; what happened is in its log")


def _place(error: Mapping[str, Any]) -> str:
    # The names of fields are ours, or stand in the body: of those only what looks like a name is repeated.
    names = [str(part) for part in error["loc"] if str(part).isidentifier() or isinstance(part, int)]
    return f"{'.'.join(names[:6])[:200]}: {error['type'].replace('_', ' ')}"


async def _ours(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, IsorunError)
    return answer(problem_of(error))


def database_away() -> Problem:
    """Nothing can be looked up or stored now."""
    hint = "send it again in a few seconds; with an Idempotency-Key it is done once"
    return Problem(503, "database_away", "the database does not answer", hint=hint, headers={"Retry-After": "2"})


def disk_full(error: BaseException) -> Problem:
    """Something could not be written: *error* is logged, and says what, with the remedy; it is not told."""
    _log.error("the disk is full (%s): remove runs, free space, or give the service another disk", error)
    return Problem(507, "disk_full", "the service has no room to store that", hint=REMEDY)


async def _away(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Away)
    return answer(problem_of(error))


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    if is_full(error):
        return answer(disk_full(error))
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return answer(Problem(500, "internal_error", "the service failed; what happened is in its log"))
