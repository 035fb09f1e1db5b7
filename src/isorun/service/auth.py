"""Who asks: a program by its key, a browser by its cookie.

A browser also sends its cookie when another site's page makes it ask. So a request that changes something must come
from our own page; the browser tells in Sec-Fetch-Site or Origin. A key needs no such check.
"""

from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.security import HTTPBearer

from isorun.service.context import Service, service_of
from isorun.service.problems import Problem, not_signed_in
from isorun.service.store.accounts import Accounts, User

COOKIE = "isorun_session"
_SESSION = timedelta(days=30)
_LINK = timedelta(hours=12)
_SAFE = ("GET", "HEAD", "OPTIONS")


async def current_user(
    request: Request,
    service: Annotated[Service, Depends(service_of)],
    _: Annotated[object, Depends(HTTPBearer(auto_error=False, description="Your key, `isr_…`."))],
) -> User:
    """Whom the request comes from. Raises `Problem`: 401, or 403 for a browser that another page made ask."""
    if (user := await user_of(request, service)) is not None:
        return user
    raise not_signed_in()


CurrentUser = Annotated[User, Depends(current_user, scope="function")]


async def user_of(request: Request, service: Service) -> User | None:
    """Whom the request comes from, if anybody. Raises `Problem` 403 as `current_user` does."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return await service.accounts.owner_of(secret.strip(), "key")
    if (key := request.headers.get("x-api-key")) is not None:  # as LibreChat sends it
        return await service.accounts.owner_of(key, "key")
    secret = request.cookies.get(COOKIE, "")
    if not secret:
        return None
    if request.method not in _SAFE and not is_from_here(request):
        raise Problem(
            403, "other_origin", "a page of another origin asked for this", hint="use this service's own page"
        )
    return await service.accounts.owner_of(secret, "session")


def is_from_here(request: Request) -> bool:
    """Whether a page of this service asked, as the browser says."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin", "")
    return origin.partition("://")[2] == request.headers.get("host", "")


async def sign_in(accounts: Accounts, user: User, response: Response, *, secure: bool) -> None:
    """Let the browser that gets *response* in as *user*."""
    secret = await accounts.new_secret(user, "session", lives=_SESSION)
    response.set_cookie(
        COOKIE, secret, max_age=int(_SESSION.total_seconds()), httponly=True, samesite="strict", secure=secure
    )


async def sign_in_link(accounts: Accounts, user: User) -> str:
    """The path of a page that signs a browser in as *user*, once."""
    return f"/login?token={await accounts.new_secret(user, 'once', lives=_LINK)}"
