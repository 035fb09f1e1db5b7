"""The guard: the one place where a fetch opens a connection.

A name is resolved once. All its addresses are checked, and the socket connects to a checked one, so a
second answer of the name server has no effect. TLS and the Host header keep the name, as they take it from the URL.
Import this module inside a function: it imports the HTTP library.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

import httpcore2
import httpx2

from isorun.tools.web.rules import Refused, Rules

_TRIED = 4  # addresses of one name: a host without IPv6 tries the next one


class Guard(httpcore2.AsyncNetworkBackend):
    """Connects to public addresses. Raises `Refused`, which the HTTP library does not handle."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._network = (rules.network or httpcore2.AnyIOBackend)()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the parameter of the base class
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to one of the checked addresses. One address that is not public refuses the name."""
        addresses = await self._judged(host, port)
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore2.ConnectError:
                continue
        return await self._network.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def _judged(self, host: str, port: int) -> list[str]:
        self._rules.check_port(port)
        try:
            found = await self._rules.resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"{host} has no address: {error}") from None
        for address in found:
            self._rules.check_address(host, ip_address(address))
        if not found:
            raise httpcore2.ConnectError(f"{host} has no address")
        return [str(ip_address(address)) for address in found[:_TRIED]]

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the parameter of the base class
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Always raises `Refused`."""
        raise Refused("no unix socket is opened")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class GuardedTransport(httpx2.AsyncHTTPTransport):
    """The library's transport, on top of the guard: set by a private attribute, for want of a parameter."""

    def __init__(self, rules: Rules) -> None:
        context = rules.context()
        super().__init__(verify=context, trust_env=False)
        self._pool = httpcore2.AsyncConnectionPool(ssl_context=context, network_backend=Guard(rules))


def guarded_client(rules: Rules) -> httpx2.AsyncClient:
    """A client for one URL and its redirects: no cookie, connection or redirect of another. Follows none by itself.

    With a proxy the guard connects nowhere: names are resolved behind the proxy.
    """
    transport = (
        GuardedTransport(rules)
        if rules.proxy is None
        else httpx2.AsyncHTTPTransport(verify=rules.context(), trust_env=False, proxy=rules.proxy)
    )
    return httpx2.AsyncClient(transport=transport, trust_env=False, follow_redirects=False, timeout=None)


def plain_client(rules: Rules, proxy: str | None = None) -> httpx2.AsyncClient:
    """A client without the guard, for the operator's own search service, which may be private."""
    return httpx2.AsyncClient(
        verify=rules.context(), trust_env=False, follow_redirects=False, timeout=None, proxy=proxy
    )
