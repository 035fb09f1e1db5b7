"""Where a fetch may go: decided from a URL's text, before anything is resolved or opened.

`Rules` holds what a test or an operator may replace: the check of addresses, the ports, the
resolver, the TLS context, the proxy. Must not: connect; the guard in `transport` does.
"""

from __future__ import annotations

import asyncio
import functools
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from isorun.tools.web.addresses import literal, why_refused

if TYPE_CHECKING:
    import ssl

    import httpcore2
    import httpx2

PORTS = frozenset({80, 443})  # what a page is served on; other ports are services that speak something else
MAX_URL = 2048  # characters; a longer URL rather carries data out than names a page
MAX_REDIRECTS = 5

_HOST = re.compile(r"[a-z0-9_.-]+|\[?[0-9a-f:.]+\]?", re.IGNORECASE)  # no zone of an interface

Address = IPv4Address | IPv6Address


class Refused(Exception):
    """A URL or address to which no request is sent. The text is for the program: it says which, and why."""


async def system_resolve(host: str, port: int) -> list[str]:
    """The addresses of *host*, as this system's resolver gives them. Raises `OSError`, `UnicodeError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


@functools.cache
def shared_context() -> ssl.SSLContext:
    """The one TLS context of this process; each costs 81 ms to make. It checks certificates and names."""
    import httpx2

    return httpx2.create_ssl_context(trust_env=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is allowed. *refuses* returns why an address is not, or None; *ports* None allows every port.

    *proxy* is a URL: names are then resolved by the proxy, which must judge their addresses itself.
    *network* makes what opens the socket to an address that was judged; None is the library's own.
    """

    refuses: Callable[[Address], str | None] = why_refused
    ports: frozenset[int] | None = PORTS
    resolve: Callable[[str, int], Awaitable[list[str]]] = system_resolve
    context: Callable[[], ssl.SSLContext] = field(default=shared_context)
    proxy: str | None = field(default=None, repr=False)  # it may hold a password
    network: Callable[[], httpcore2.AsyncNetworkBackend] | None = None

    def check_port(self, port: int) -> None:
        """Raise `Refused` for a port that is not allowed."""
        if self.ports is not None and port not in self.ports:
            raise Refused(f"port {port} is refused: only {' and '.join(map(str, sorted(self.ports)))} are allowed")

    def check_address(self, host: str, address: Address) -> None:
        """Raise `Refused` for an *address* of *host* that is not public."""
        kind = self.refuses(address)
        if kind is not None:
            named = str(address) if host in (str(address), f"[{address}]") else f"{host} is at {address}"
            raise Refused(f"{named}, which is {kind}: only public addresses are fetched")


def checked_url(text: str, rules: Rules, base: httpx2.URL | None = None) -> httpx2.URL:
    """*text* as the URL that will be asked for, relative to *base* if one is given.

    Raises `Refused` for a text that cannot be read as a URL, another scheme than http and https, a user name or
    password, a port that is not allowed, and an address in place of a name that is not public.
    """
    import httpx2

    if len(text) > MAX_URL:
        raise Refused(f"the URL has {len(text)} characters, more than {MAX_URL}")
    try:
        url = httpx2.URL(text) if base is None else base.join(text)
        # As it is sent: a name beyond ASCII is in its encoded form.
        host, port = url.raw_host.decode("ascii"), url.port
    except (httpx2.InvalidURL, UnicodeError, ValueError) as error:
        raise Refused(f"not a URL: {error}") from None
    if url.scheme not in ("http", "https"):
        raise Refused(f"the URL must begin with http:// or https://, not {url.scheme[:20] or 'without a scheme'}")
    if not _HOST.fullmatch(host):
        raise Refused("the URL names no host" if not host else f"{host[:80]!r} is not the name of a host")
    if port is not None and not 0 < port < 1 << 16:
        raise Refused(f"port {port} does not exist")
    if url.userinfo:
        raise Refused("the URL holds a user name or password: leave it out")
    rules.check_port(port or {"http": 80, "https": 443}[url.scheme])
    if (address := literal(host.strip("[]").rstrip("."))) is not None:
        rules.check_address(host, address)
    return url.copy_with(fragment=None)
