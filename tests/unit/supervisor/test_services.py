"""Whether services answer: bytes as real servers send them, and the sentences for all that is no such answer."""

import asyncio
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from isorun.runtime import services
from isorun.settings import Settings
from isorun.supervisor.serving.services import Service, check_services, encode_services

PING = b"*1\r\n$4\r\nPING\r\n"
HUSH = "hush-hush"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a server on the loopback that has *talk* with whoever connects."""

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    running = await asyncio.start_server(meet, "127.0.0.1", 0, ssl=tls)
    async with running:
        yield running.sockets[0].getsockname()[1]


async def asked(name: str, port: int, **more: object) -> str:
    """What the supervisor would say of a service at *port* of the loopback."""
    found = await check_services(encode_services({name: Service("127.0.0.1", port, **more)}))
    assert list(found) == [name]
    return found[name]


def redis(answer: bytes) -> Talk:
    """A Redis that answers a PING so, and does not understand anything else."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer if await reader.readexactly(len(PING)) == PING else b"-ERR unknown command\r\n")
        await writer.drain()

    return talk


def postgres(answer: bytes, told: list[bytes]) -> Talk:
    """A PostgreSQL that reads a start-up message of protocol 3.0, notes what it says, and answers so."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length, version = struct.unpack("!ii", await reader.readexactly(8))
        if version == 3 << 16:
            told.append(await reader.readexactly(length - 8))
            writer.write(answer)
            await writer.drain()

    return talk


def refused(code: str) -> bytes:
    """PostgreSQL's ErrorResponse with that SQLSTATE."""
    fields = b"".join(part + b"\0" for part in (b"SFATAL", b"VFATAL", b"C" + code.encode(), b"Msorry", b""))
    return b"E" + struct.pack("!i", 4 + len(fields)) + fields


ASKS_FOR_SCRAM = b"R" + struct.pack("!ii", 23, 10) + b"SCRAM-SHA-256\0\0"
LETS_IN = b"R" + struct.pack("!ii", 8, 0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"+PONG\r\n", "ok"),
        (b"-NOAUTH Authentication required.\r\n", "ok"),
        (b"-NOPERM this user has no permissions to run the 'ping' command\r\n", "ok"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "unreachable (it says LOADING)"),
        (b"-DENIED Redis is running in protected mode\r\n", "unreachable (it says DENIED)"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "unreachable (what answers is not Redis)"),
        (b"+PONG of another kind\r\n", "unreachable (what answers is not Redis)"),
        (b"-\x1b[31m\r\n", "unreachable (what answers is not Redis)"),
        (b"", "unreachable (it closed the connection)"),
    ],
)
async def test_redis_is_what_answers_a_ping(answer: bytes, said: str) -> None:
    """PONG, or that it wants a password; every other answer is a reason, of which no free text is shown."""
    async with server(redis(answer)) as port:
        assert await asked("redis", port) == said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ASKS_FOR_SCRAM, "ok"),
        (LETS_IN, "ok"),
        (refused("28000"), "ok"),  # no entry in pg_hba.conf for a connection without TLS
        (refused("3D000"), "ok"),  # no such database
        (refused("57P03"), "unreachable (it says 57P03)"),  # the database system is starting up
        (refused("53300"), "unreachable (it says 53300)"),  # too many clients
        (b"E" + struct.pack("!i", 8) + b"oops", "unreachable (what answers is not PostgreSQL)"),
        (b"RFB 003.008\n", "unreachable (what answers is not PostgreSQL)"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "unreachable (what answers is not PostgreSQL)"),
        (b"E" + struct.pack("!i", 100) + b"cut", "unreachable (it closed the connection)"),
        (b"", "unreachable (it closed the connection)"),
    ],
)
async def test_postgres_is_what_answers_a_clients_first_message(answer: bytes, said: str) -> None:
    """It asks for a password, or knows no such user; a server that is starting up, or full, says so by its code."""
    told: list[bytes] = []
    async with server(postgres(answer, told)) as port:
        assert await asked("postgres", port, user="app", database="chat") == said
    assert told == [b"user\0app\0database\0chat\0\0"]


async def test_those_that_say_nothing_cost_a_second() -> None:
    """The start of a supervisor waits for no service longer, and for all of them at once."""
    over = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()

    async with server(silent) as port:
        began = time.monotonic()
        many = {name: Service("127.0.0.1", port) for name in ("redis", "postgres", *"abcdefgh")}
        found = await check_services(encode_services(many))
        took = time.monotonic() - began
        over.set()
    assert set(found.values()) == {"unreachable (no answer within 1 s)"}
    assert took < 5  # one behind the other they would take ten


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1", "connection refused"),
        ("localhost", "connection refused"),  # which may be two addresses, each refused
        ("x" * 70, "no host can have that name"),
        ("nobody.invalid", ""),  # the resolver's own words
    ],
)
async def test_a_reason_is_the_kernels_or_the_resolvers(host: str, said: str, unused_tcp_port: int) -> None:
    """In words that hold no address and no bracket of their own."""
    found = await check_services(encode_services({"redis": Service(host, unused_tcp_port)}))
    reason = found["redis"].removeprefix("unreachable (").removesuffix(")")
    assert reason == (said or reason)
    assert not set(reason) & set("()[]'"), reason
    assert host not in reason


async def test_nothing_to_ask_is_no_question() -> None:
    """Without services the variable is not set."""
    assert await check_services("") == {}


@pytest.mark.parametrize("speaks_tls", [True, False])
async def test_redis_behind_tls_is_asked_in_tls(speaks_tls: bool, certificate: Path) -> None:
    """`rediss://`, with whatever certificate: no password is sent. A server without TLS is said to be one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with server(redis(b"+PONG\r\n"), context if speaks_tls else None) as port:
        said = await asked("redis", port, tls=True)
    assert said == ("ok" if speaks_tls else "unreachable (it does not speak TLS)")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that nobody trusts, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain) + made.public_bytes(encoding)
    )
    return file


NOWHERE = {"redis": "not configured", "postgres": "not configured"}


@pytest.mark.parametrize(
    ("given", "found", "statuses"),
    [
        ({}, {}, NOWHERE),
        ({"redis_host": "redis"}, {"redis": Service("redis", 6379)}, {"postgres": "not configured"}),
        (
            {"redis_url": f"rediss://me:{HUSH}@there:7000/3"},
            {"redis": Service("there", 7000, True, "me", "3")},
            {"postgres": "not configured"},
        ),
        (
            {"postgres_host": "db", "postgres_user": "app", "postgres_db": "chat", "postgres_password": HUSH},
            {"postgres": Service("db", 5432, False, "app", "chat")},
            {"redis": "not configured"},
        ),
        (
            {"database_url": f"postgresql+asyncpg://app%40x:{HUSH}@db/chat"},
            {"postgres": Service("db", 5432, False, "app@x", "chat")},
            {"redis": "not configured"},
        ),
        ({"database_url": "sqlite+aiosqlite:////var/lib/isorun/service.db"}, {}, NOWHERE),
        (
            {"redis_url": "redis://there:notaport/0", "database_url": f"postgresql://app:{HUSH}@/chat?host=/run"},
            {},
            {
                "redis": "unreachable (REDIS_URL names no host and port)",
                "postgres": "unreachable (DATABASE_URL names no host and port)",
            },
        ),
    ],
)
def test_what_is_asked_follows_from_the_settings(given, found, statuses) -> None:
    """A URL beats a host; what cannot be asked over TCP is said; no password goes to the supervisor."""
    told = services._asked(replace(Settings(), **given))
    assert told == (found, statuses)
    assert HUSH not in encode_services(told[0])
