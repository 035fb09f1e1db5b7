"""The addresses of the page. Each asks the service what there is and renders it; what changes something is in api/."""

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

import isorun
from isorun.core.outcome import Status
from isorun.core.text import one_line
from isorun.service.api.runs import request_of
from isorun.service.auth import CurrentUser, is_from_here, sign_in, user_of
from isorun.service.context import Service, service_of
from isorun.service.page import card, reading, render, shelf, starters, words
from isorun.service.problems import Problem, not_found
from isorun.service.runs import views
from isorun.service.schema import RunBody
from isorun.service.store.accounts import User
from isorun.service.store.records import OPEN, Origin
from isorun.service.store.talks import Message

router = APIRouter(include_in_schema=False)
Open = Annotated[Service, Depends(service_of)]
_PAGE = 50  # runs on a page
_CARDS, _MOST_CARDS = 50, 1000  # runs of a conversation on its page, and as many as can be asked for
_TALKS = 100  # conversations beside it
_NAME = 64  # characters of a program's name
_REPORT = re.compile(r"status: [a-z_]+\nrun: ")
_SIGN_IN = "Open the address that `isorun serve` printed where it was started: it lets one browser in, once."
_BY_KEY = "Or give a key; `isorun users add NAME` makes one."


async def visitor(request: Request, service: Open) -> User:
    """Who looks. Raises `Problem` 401."""
    if (user := await user_of(request, service)) is not None:
        return user
    raise Problem(401, "not_signed_in", "You are not signed in", hint=_SIGN_IN)


def shown(answers: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    """Let *answers* tell a `Problem` as a page for people."""

    @wraps(answers)
    async def answered(request: Request, service: Open, **asked: Any) -> Response:  # noqa: ANN401 - of the address
        try:
            return await answers(request, service, **asked)
        except Problem as problem:
            said = {"hint": problem.hint, "home": problem.status != 401, "by_key": _BY_KEY}
            values = {**said, "title": one_line(problem.detail[:1].upper() + problem.detail[1:]), "text": ""}
            return render.page("notice.html", values, problem.status)

    return answered


@router.get("/static/{version}/{name}")
async def static(request: Request, version: str, name: str) -> Response:
    """A file of the page. An old version's address gives the newest, for a page that was open meanwhile."""
    del version
    found = shelf.answer(request, name)
    if found is None:
        raise not_found("file")
    return found


@router.get("/login")
@shown
async def login(request: Request, service: Open, token: Annotated[str, Query(max_length=200)] = "") -> Response:
    """Let a browser in, by a link that works once."""
    user = await service.accounts.owner_of(token, "once") if token else None
    if user is None:
        if await user_of(request, service) is not None:
            return RedirectResponse("/", 303)
        raise Problem(401, "link_used", "This link has been used, or is too old", hint=_SIGN_IN)
    await service.accounts.forget(token)
    return await _let_in(request, service, user)


@router.post("/login")
@shown
async def login_by_key(request: Request, service: Open, key: Annotated[str, Form(max_length=200)] = "") -> Response:
    """Let a browser in by a user's key: where the service is reached from elsewhere, it prints no link."""
    if not is_from_here(request):  # else another site could sign a browser in as a user of its own
        raise Problem(403, "other_origin", "Another site's page asked for this", hint="Sign in on this page.")
    user = await service.accounts.owner_of(key.strip(), "key")
    if user is None:
        raise Problem(401, "wrong_key", "This key does not count", hint=_SIGN_IN)
    return await _let_in(request, service, user)


async def _let_in(request: Request, service: Service, user: User) -> Response:
    answer = RedirectResponse("/", 303)
    await sign_in(service.accounts, user, answer, secure=request.url.scheme == "https")
    return answer


@router.get("/")
@shown
async def home(request: Request, service: Open) -> Response:
    """A new conversation: the cards of the first minute."""
    user = await visitor(request, service)
    values = {
        "conversation": "",
        "title": "",
        "after": 0,
        "goes_on": False,
        "parts": [],
        "earlier": 0,
        "starters": starters.starters(),
    }
    return render.page("talk.html", {**await _around(service, user), **values})


@router.get("/c/{name}")
@shown
async def conversation(
    request: Request, service: Open, name: str, last: Annotated[int, Query(ge=1, le=_MOST_CARDS)] = _CARDS
) -> Response:
    """A conversation with what was run in it, the *last* runs of it, and what was said meanwhile."""
    user = await visitor(request, service)
    found = await reading.talk(service, user, name, last)
    around = await _around(service, user, here=name)
    parts = await _parts(service, found, _titles(around))
    values = {"conversation": name, "title": found.title, "after": found.after, "goes_on": found.goes_on}
    earlier = min(last + _CARDS, _MOST_CARDS) if found.earlier and last < _MOST_CARDS else 0
    more = {"parts": parts, "earlier": earlier, "starters": starters.starters()}
    return render.page("talk.html", {**around, **values, **more})


@router.post("/c/{name}/runs", status_code=202)
async def start(name: str, body: RunBody, user: CurrentUser, service: Open) -> dict[str, Any]:
    """As POST /v1/runs, in a conversation: its stream tells of the run."""
    await service.talks.one(user, name)
    called = body.prog_name or card.title({"code": body.code}, {})
    called = called if len(called) <= _NAME else f"{called[: _NAME - 1]}…"
    asked = await request_of(body.model_copy(update={"prog_name": called}), user, service)
    run = await service.runs.start(user, asked, origin=Origin(conversation=name, client="page"))
    return await service.runs.view(user, run)


@router.get("/runs")
@shown
async def runs(
    request: Request,
    service: Open,
    q: Annotated[str, Query(max_length=100)] = "",
    status: Annotated[str, Query(max_length=40)] = "",
    cursor: Annotated[str, Query(max_length=120)] = "",
) -> Response:
    """The user's runs, newest first: how each ended, and what it cost."""
    user = await visitor(request, service)
    status = status if status in (*OPEN, *Status) else ""
    found = await service.records.listed(user.id, before=cursor, status=status, text=q, most=_PAGE + 1)
    around = await _around(service, user, here="runs")
    rows = [_line(views.listed(row), _titles(around)) for row in found[:_PAGE]]
    last = found[_PAGE - 1] if len(found) > _PAGE else None
    older = urlencode({"q": q, "status": status, "cursor": f"{last['created']} {last['id']}"}) if last else ""
    values = {"rows": rows, "q": q, "status": status, "statuses": (*OPEN, *Status), "older": older}
    return render.page("runs.html", {**around, **values})


@router.get("/runs/{run_id}")
@shown
async def run(
    request: Request, service: Open, run_id: str, part: Annotated[str, Query(max_length=10)] = ""
) -> Response:
    """One run. `part=card`: its card alone, for a page that is open."""
    user = await visitor(request, service)
    view = await service.runs.view(user, run_id)
    titles = _numbered(service.scenarios)
    made = await _card(service, view, titles)
    if part == "card":
        return render.page("one_card.html", {"card": made})
    values = {"card": made, "conversation": view["conversation"]}
    return render.page("run.html", {**await _around(service, user, here="runs"), **values})


@router.get("/starters/files/{name}")
async def starter_file(name: str, _: CurrentUser) -> Response:
    """A file that a program of a card reads."""
    if (body := starters.data(name)) is None:
        raise not_found("file")
    return Response(body, media_type="text/csv")


@router.get("/starters/{name}")
async def starter(name: str, _: CurrentUser) -> dict[str, Any]:
    """What a card of the first page starts: the body of POST /v1/runs, and the files that it reads."""
    if (found := starters.named(name)) is None:
        raise not_found("card")
    inputs = [{"name": name, "sha256": starters.digest(name)} for name in found.inputs]
    return {"asks": dict(found.asks), "inputs": inputs}


async def _around(service: Service, user: User, *, here: str = "") -> dict[str, Any]:
    """What stands around the middle of every page."""
    walls = await reading.isolation(service)
    return {
        "here": here,
        "version": isorun.__version__,
        "model": service.settings.model if service.settings.model_url else None,
        "isolation": walls.get("level", ""),
        "walls": list(card.walls(walls)),
        "conversations": await service.talks.all(user, _TALKS),
        "scenarios": service.scenarios,
        "titles": {str(one["number"]): one["followup"] for one in service.scenarios},
    }


def _titles(around: Mapping[str, Any]) -> dict[int, str]:
    return _numbered(around["scenarios"])


def _numbered(scenarios: list[dict[str, Any]]) -> dict[int, str]:
    return {one["number"]: one["title"] for one in scenarios}


async def _card(
    service: Service, view: Mapping[str, Any], titles: Mapping[int, str], banners: tuple[str, ...] = ()
) -> card.Card:
    before = await reading.printed(service, view["id"]) if view["status"] == Status.LOST else ""
    return card.card(view, titles=titles, banners=banners, printed=before)


async def _parts(service: Service, found: reading.Talk, titles: Mapping[int, str]) -> list[dict[str, Any]]:
    """What was said and run, in the order of its time; an error that was told of a run is on its card."""
    errors = [one.content for one in found.messages if "error" in one.content]
    known = {run["id"] for run in found.runs}
    # Of one moment the message comes first: it led to the run.
    told = [(one.created, _message(one)) for one in found.messages if one.content.get("exec_id") not in known]
    for run in found.runs:
        of_it = tuple(str(one["error"]) for one in errors if one.get("exec_id") == run["id"])
        told.append((run["created"], {"card": await _card(service, run, titles, of_it)}))
    return [part for _, part in sorted(told, key=lambda one: one[0])]


def _message(said: Message) -> dict[str, Any]:
    content, role = said.content, said.role
    text = str(content.get("text") or "")
    if "error" in content:
        role, text = "error", " ".join(filter(None, (str(content["error"]), str(content.get("hint") or ""))))
    elif role == "assistant" and _REPORT.match(text):
        role = "report"
    files = [str(one.get("name")) for one in content.get("files") or () if isinstance(one, dict)]
    return {"role": role, "text": text, "turn": said.turn, "files": files}


def _line(view: Mapping[str, Any], titles: Mapping[int, str]) -> dict[str, Any]:
    took = dict(card.costs(view))
    return {
        "id": view["id"],
        "status": view["status"],
        "title": card.title(view, titles),
        "when": words.moment(view["created"]),
        "wall": took.get("wall", ""),
        "cpu": took.get("cpu", ""),
        "memory": took.get("memory", ""),
        "bytes": words.size(view["bytes"]) if view["bytes"] else "",
        "client": view["client"],
    }
