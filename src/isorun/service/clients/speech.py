"""What each client's protocol needs: whose key it is, errors in its own shape, and runs that end with their request."""

import asyncio
import base64
import binascii
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection

from isorun.core.request import RunRequest
from isorun.service.context import Service, service_of
from isorun.service.problems import KNOWN, Problem, problem_of
from isorun.service.store.accounts import User
from isorun.service.store.records import Origin

#: A problem, as a client expects an error.
Shape = Callable[[Problem], Response]
_Handler = Callable[[Request], Coroutine[Any, Any, Response]]
_NO_KEY = "this needs a key of yours"
_HINT = "`isorun users add NAME` makes a key; send it as `Authorization: Bearer …` or `X-API-Key: …`"


def speaking(shape: Shape) -> type[APIRoute]:
    """A class of routes whose errors have that *shape*."""

    class Speaking(APIRoute):
        """Catches what `problems` would answer in the service's own shape."""

        def get_route_handler(self) -> _Handler:
            """The handler, with errors of its own."""
            handle = super().get_route_handler()

            async def handled(request: Request) -> Response:
                try:
                    return await handle(request)
                except KNOWN as error:
                    return shape(problem_of(error))

            return handled

    return Speaking


async def key_owner(connection: HTTPConnection, service: Service, *, in_query: bool = False) -> User | None:
    """Whose key the client sends: Bearer or `token` of Authorization, the password of Basic, or `X-API-Key`.

    Basic is what a client sends that knows a URL alone: `http://isorun:KEY@host`. *in_query*: `?token=` counts, too.
    """
    sent = _sent(connection)
    if sent is None and in_query:
        sent = connection.query_params.get("token")
    return None if not sent else await service.accounts.owner_of(sent, "key")


def _sent(connection: HTTPConnection) -> str | None:
    scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer" | "token":
            return secret.strip()
        case "basic":
            try:
                return base64.b64decode(secret.strip(), validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return None
        case _:
            pass
    return connection.headers.get("x-api-key")


async def key_user(request: Request, service: Annotated[Service, Depends(service_of)]) -> User:
    """As `key_owner`. Raises `Problem` 401."""
    user = await key_owner(request, service)
    if user is None:
        raise no_key()
    return user


KeyUser = Annotated[User, Depends(key_user, scope="function")]


def no_key() -> Problem:
    """No key was sent that counts. It asks for no Basic: a browser would keep that, and send it from any page."""
    return Problem(401, "not_signed_in", _NO_KEY, hint=_HINT, headers={"WWW-Authenticate": "Bearer"})


def said(problem: Problem) -> str:
    """A problem in one line, for a shape that has one text."""
    return f"{problem.detail}; {problem.hint}" if problem.hint else problem.detail


async def run_while_asked(
    request: Request, service: Service, user: User, asked: RunRequest, client: str
) -> dict[str, Any]:
    """Run *asked* to its end, as `Runs.view` shows it; a client that leaves takes its run along.

    Raises `Problem`, `InvalidRequest`, `Unavailable`, `SetupFailed`.
    """
    run_id = await service.runs.start(user, asked, origin=Origin(client=client))
    await while_asked(request, service, user, run_id, service.runs.wait(user, run_id))
    return await service.runs.view(user, run_id)


async def while_asked(
    request: Request, service: Service, user: User, run_id: str, waiting: Coroutine[Any, Any, Any]
) -> None:
    """Wait for *waiting*. If the client leaves meanwhile, its run is cancelled."""
    ended = asyncio.ensure_future(waiting)
    left = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({ended, left}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
        else:
            await service.runs.cancel(user, run_id)
    finally:
        for task in (ended, left):
            task.cancel()
        await asyncio.wait({ended, left})


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def timeout_of(seconds: float | None, service: Service) -> float | None:
    """What a client wishes, below the ceiling of this host; None for nothing that is a time."""
    if seconds is None or not seconds > 0:
        return None
    return min(seconds, service.runtime.limits.wall_s)


def unfinished(view: dict[str, Any]) -> str:
    """What the host says of a run whose program could not say it itself: the time was over, the memory used up."""
    error = (view["result"] or {}).get("error") or {}
    if view["status"] in ("ok", "failed") or not error.get("message"):
        return ""
    return f"{error['message']}\n{error['hint']}\n" if error.get("hint") else f"{error['message']}\n"
