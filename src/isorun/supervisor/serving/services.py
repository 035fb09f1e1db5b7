"""Whether Redis and PostgreSQL answer where the tools run: the one to PING, the other to a client's first message.

No password is sent, so a server that asks for one is `ok`: whether it takes yours is for its clients to say. The host
must not ask in the supervisor's place: a supervisor may have another network, or none.
"""

import asyncio
import json
import os
import re
import ssl
import struct
from collections.abc import Mapping
from typing import NamedTuple

OK, UNREACHABLE = "ok", "unreachable"
_ANSWER_S = 1.0  # from the look-up of the name to the answer: a start of the supervisor waits for it
_CLOSED = "it closed the connection"


class Service(NamedTuple):
    """Where a service is; `user` and `database` are PostgreSQL's, which has to be told them first."""

    host: str
    port: int
    tls: bool = False
    user: str = ""
    database: str = ""


def encode_services(services: Mapping[str, Service]) -> str:
    """The value of the variable `descriptor.SERVICES`; the names are `redis` and `postgres`."""
    return json.dumps(services)


def unreachable(reason: str) -> str:
    """The status of a service that did not answer."""
    return f"{UNREACHABLE} ({reason})"


async def check_services(text: str) -> dict[str, str]:
    """`ok` or `unreachable (reason)` for each service in *text*, which `encode_services` made; within a second."""
    services = {name: Service(*told) for name, told in json.loads(text).items()} if text else {}
    statuses = await asyncio.gather(*(_status(name, service) for name, service in services.items()))
    return dict(zip(services, statuses, strict=True))


async def _status(name: str, service: Service) -> str:
    try:
        async with asyncio.timeout(_ANSWER_S):
            reason = await _ask(name, service)
    except TimeoutError:
        reason = f"no answer within {_ANSWER_S:.0f} s"
    except OSError as error:
        reason = _said(error)
    except UnicodeError:
        reason = "no host can have that name"
    return unreachable(reason) if reason else OK


async def _ask(name: str, service: Service) -> str:
    """Why *service* is not as it should be; empty if it is."""
    reader, writer = await asyncio.open_connection(
        service.host, service.port, ssl=_any_certificate() if service.tls else None
    )
    try:
        return await (_ask_redis(reader, writer) if name == "redis" else _ask_postgres(reader, writer, service))
    finally:
        writer.transport.abort()  # closing TLS in good manners would wait for the other side


async def _ask_redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    writer.write(b"*1\r\n$4\r\nPING\r\n")
    line = await reader.read(64)
    if not line:
        return _CLOSED
    code = re.match(rb"-([A-Z]{1,20})\b", line)
    if line == b"+PONG\r\n" or (code and code[1] in (b"NOAUTH", b"NOPERM")):
        return ""
    return f"it says {code[1].decode()}" if code else "what answers is not Redis"


async def _ask_postgres(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: Service) -> str:
    user = service.user or "postgres"
    told = {"user": user, "database": service.database or user}
    words = b"".join(f"{name}\0{value}\0".encode() for name, value in told.items()) + b"\0"
    writer.write(struct.pack("!ii", 8 + len(words), 3 << 16) + words)
    try:
        kind, length = struct.unpack("!ci", await reader.readexactly(5))
        if kind not in b"RE" or not 8 <= length <= 1 << 12:
            return "what answers is not PostgreSQL"
        body = await reader.readexactly(length - 4)
    except asyncio.IncompleteReadError:
        return _CLOSED
    if kind == b"R":  # it asks who we are, or does not need to
        return ""
    code = re.search(rb"(?:^|\0)C([0-9A-Z]{5})\0", body)
    if code and code[1].startswith((b"28", b"3D")):  # not this user or database, or not without TLS: but it is up
        return ""
    return f"it says {code[1].decode()}" if code else "what answers is not PostgreSQL"


def _any_certificate() -> ssl.SSLContext:
    # Nothing of worth is sent. Whether the certificate is good enough is for those to say who send a password.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _said(error: OSError) -> str:
    """The kernel's or the resolver's words. asyncio puts addresses in their place, and all errors of a name in one."""
    if isinstance(error, ssl.SSLError):
        return "it does not speak TLS"
    number = error.errno
    if number is None and (told := re.search(r"\[Errno (\d+)\]", str(error))):
        number = int(told[1])
    words = os.strerror(number) if number and number > 0 else error.strerror
    return (words or _CLOSED).lower()  # asyncio has no words for a connection that ends in a handshake
