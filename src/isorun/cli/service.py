"""`isorun serve`, and who may use it: `isorun users`."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from isorun.cli.parsing import option
from isorun.core.errors import InvalidRequest
from isorun.settings import Settings

if TYPE_CHECKING:
    from isorun.service.store.accounts import Accounts
    from isorun.service.store.uploads import Uploads

_T = TypeVar("_T")
_PORT = 8000


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give 0 to 65535, 0 for any that is free")
    return int(text)


_JSON = option("--json", "Print one JSON object, and nothing else.")
OPTIONS = {
    "serve": (
        option("--host ADDRESS", "The address to listen on (default: 127.0.0.1). Another one needs a user's key."),
        option("--port N", f"The port (default: {_PORT}); 0 for any that is free.", type=_port),
    ),
    "add": (option("name NAME", "The name of the user: a-z, 0-9, `_` and `-`."), _JSON),
    "ls": (_JSON,),
    "revoke": (
        option("which KEY|NAME", "The first 8 characters of a key, or with --user the name of a user."),
        option("--user", "Remove the user, with conversations and the records of runs."),
    ),
}


def serve(host: str = "127.0.0.1", port: int = _PORT) -> int:
    """Serve the page and the HTTP interface, until Ctrl-C."""
    from isorun.cli.run.importing import uncollected

    try:
        with uncollected():
            from isorun.service.serve import run
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    run(Settings.load(), host, port)
    return 0


def add(name: str, json: bool = False) -> int:
    """Add a user of the service, and print the key that lets him in. It is shown once."""
    from isorun.cli.show import print_json, say

    async def made(accounts: "Accounts", _: "Uploads") -> str:
        user = await accounts.find(name) or await accounts.add(name)
        return await accounts.new_secret(user, "key")

    key = _with_accounts(made)
    if json:
        print_json({"name": name, "key": key})
    else:
        say(f"{name} has a new key, which is not shown again:\n{key}")
    return 0


def ls(json: bool = False) -> int:
    """The users of the service, and how their keys begin."""
    from isorun.cli.show import print_json, print_table

    async def every(accounts: "Accounts", _: "Uploads") -> list[dict[str, Any]]:
        return [
            {"name": one.user.name, "created": one.created, "keys": list(one.prefixes)} for one in await accounts.all()
        ]

    found = _with_accounts(every)
    if json:
        print_json({"users": found})
    else:
        print_table(("user", "since", "keys"), [(one["name"], one["created"], ", ".join(one["keys"])) for one in found])
    return 0


def revoke(which: str, user: bool = False) -> int:
    """Revoke a key, or remove a user with everything of theirs."""
    from isorun.cli.show import say

    async def done(accounts: "Accounts", uploads: "Uploads") -> str:
        if user:
            for upload in await accounts.remove(which):
                uploads.discard(upload)
            return f"removed {which}; the folders of runs go with their time, or by `isorun runs rm`"
        if not await accounts.revoke(which):
            raise InvalidRequest(f"no key begins with {which[:8]}; `isorun users ls` shows them", code="no_such_key")
        return f"the key {which[:8]}… is revoked"

    say(_with_accounts(done))
    return 0


def _with_accounts(work: "Callable[[Accounts, Uploads], Awaitable[_T]]") -> _T:
    try:
        from isorun.service.context import open_database
        from isorun.service.store.accounts import Accounts
        from isorun.service.store.uploads import Uploads
    except ModuleNotFoundError as error:
        raise _missing(error) from None

    async def opened() -> _T:
        async with open_database(Settings.load()) as (folder, database):
            return await work(Accounts(database), Uploads(database, folder / "uploads"))

    coroutine: Coroutine[Any, Any, _T] = opened()
    return asyncio.run(coroutine)


def _missing(error: ModuleNotFoundError) -> InvalidRequest:
    return InvalidRequest(
        f"the service needs {error.name}, which is not installed: pip install 'isorun[server]'", code="missing_extra"
    )
