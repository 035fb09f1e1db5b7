"""What the chat service adds to a run: over HTTP from another process, on SQLite and on PostgreSQL with Redis.

The service is `isorun serve` as a user starts it. Its client here is a socket and no library, so that the figures are
the service's. A run over HTTP and one by `Runtime.execute` take turns, so that both have the same machine.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any, NoReturn

import isorun
from bench import clicks
from bench.figures import CONTRACT, HELLO, MEMORY, Figure, complete, pss, shown, vars_of
from bench.measure import Spread, paced, saturated
from tests.servers import postgres_server, redis_server

STREAMS = 1000
POOL = 4
AT_ONCE = 4
_URL = re.compile(r".*http://127\.0\.0\.1:([0-9]+)")
_MORE_MS = {"SQLite": 5, "PostgreSQL and Redis": 8}
_PER_SECOND = 80
_STREAMS_MB = 100


class Client:
    """One connection to the service, which stays open."""

    def __init__(self, port: int, key: str) -> None:
        self._port, self._key = port, key
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, method: str, path: str, body: Mapping[str, Any] | None = None, **headers: str) -> None:
        """A request; its answer is still to be read."""
        if self._ends is None:
            self._ends = await asyncio.open_connection("127.0.0.1", self._port)
        data = b"" if body is None else json.dumps(body).encode()
        named = {"Host": f"127.0.0.1:{self._port}", "Authorization": f"Bearer {self._key}", **headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        head = (
            f"{method} {path} HTTP/1.1\r\n{lines}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        self._ends[1].write(head.encode() + data)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the answer."""
        assert self._ends is not None
        status, *lines = (await self._ends[0].readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        return int(status.split()[1]), headers

    async def answer(self, method: str, path: str, body: Mapping[str, Any] | None = None, **headers: str) -> Any:  # noqa: ANN401 - JSON
        """The status and the JSON that the service answers."""
        await self.send(method, path, body, **headers)
        status, told = await self.head()
        assert self._ends is not None
        return status, json.loads(await self._ends[0].readexactly(int(told["content-length"])))

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, **headers: str) -> Any:  # noqa: ANN401 - JSON
        """What the service answers. Ends the measurement if that is an error."""
        status, answer = await self.answer(method, path, body, **headers)
        if status >= 400:
            raise SystemExit(f"{method} {path}: {answer}")
        return answer

    async def events(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """The events of a stream, until it ends. Nothing else can be asked on this connection."""
        await self.send("GET", path)
        status, _ = await self.head()
        assert self._ends is not None
        if status != 200:
            raise SystemExit(f"no stream: {status}")
        told = b""
        while size := int(await self._ends[0].readline(), 16):  # of a chunk
            told += (await self._ends[0].readexactly(size + 2))[:-2]
            *lines, told = told.split(b"\n")
            for line in lines:
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))

    async def more(self) -> bytes:
        """Some of an answer without an end."""
        assert self._ends is not None
        return await self._ends[0].read(1 << 16)

    def close(self) -> None:
        """Hang up."""
        if self._ends is not None:
            self._ends[1].close()


@asynccontextmanager
async def serving(
    folder: Path, settings: Mapping[str, str], *, log: str = "log"
) -> AsyncIterator[tuple[int, int, str]]:
    """Port, process id and a user's key of a service whose data are in *folder*; *log*: the name of its log there."""
    command = [str(Path(sys.executable).with_name("isorun"))]
    quotas = {"ISORUN_USER_RUNS_AT_ONCE": str(2 * STREAMS), "ISORUN_USER_RUNS_PER_DAY": "1000000"}
    environment = {**os.environ, "ISORUN_SERVICE_DATA": str(folder), **quotas, **settings}
    made = await asyncio.to_thread(
        subprocess.run, [*command, "users", "add", "bench", "--json"], env=environment, stdout=subprocess.PIPE
    )
    made.check_returncode()
    process = _started([*command, "serve", "--port", "0"], folder / log, environment)
    try:
        assert process.stdout is not None
        found = _URL.match(await asyncio.to_thread(process.stdout.readline))
        if found is None:
            raise SystemExit((folder / log).read_text())
        yield int(found[1]), process.pid, json.loads(made.stdout)["key"]
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


def _started(command: list[str], log: Path, environment: dict[str, str]) -> "subprocess.Popen[str]":
    with log.open("wb") as errors:
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)


async def figures(count: int) -> list[Figure]:
    """All of them; PostgreSQL and Redis where this machine has them."""
    found = []
    for name, (servers, _) in STORES.items():
        async with servers() as settings:
            if settings is None:
                continue
            with tempfile.TemporaryDirectory(prefix="isorun-bench-", dir=MEMORY) as folder:
                root = {"ISORUN_WORKSPACE_ROOT": folder, "ISORUN_POOL_SIZE": str(POOL)}
                async with serving(Path(folder), {**settings, **root}) as (port, pid, key):
                    found += await _of_runs(name, count, port, key)
                    clicked = await clicks.figure(name, count, port, key)
                    found += [clicked] if clicked is not None else []
                    found += [await _of_streams(name, port, pid, key)]
    return found


async def _of_runs(store: str, count: int, port: int, key: str) -> list[Figure]:
    """Over HTTP and without, in turns; then as many as the service takes."""
    body = {"code": HELLO, "contract": CONTRACT}
    direct, over_http = [], []
    with tempfile.TemporaryDirectory(prefix="isorun-bench-", dir=MEMORY) as root, closing(Client(port, key)) as client:
        async with isorun.Runtime(pool_size=POOL, workspace_root=root) as runtime:

            async def by_hand() -> float:
                began = time.perf_counter()
                result = await runtime.execute(HELLO, contract=CONTRACT)
                seconds = time.perf_counter() - began
                complete(dict(result.isolation))
                return seconds

            async def posted() -> float:
                began = time.perf_counter()
                view = await client.ask("POST", "/v1/runs", body, Prefer="wait=30")
                seconds = time.perf_counter() - began
                if view["status"] != "ok":
                    raise SystemExit(f"the run ended as {view['status']}")
                return seconds

            for _ in range(count):  # either begins once both pools are full
                for once, seconds in ((by_hand, direct), (posted, over_http)):
                    while (await client.ask("GET", "/v1/status"))["waiting_slots"] < POOL:  # noqa: ASYNC110 - of another process
                        await asyncio.sleep(0.01)
                    seconds += await paced(once, 1, lambda: runtime.waiting_slots == POOL)
    return [_beside(store, Spread.of(direct), Spread.of(over_http)), await _sustained(store, count, port, key)]


def _beside(store: str, direct: Spread, posted: Spread) -> Figure:
    more, most = posted.p50 - direct.p50, _MORE_MS[store]
    return Figure(
        name=f"POST /v1/runs with `Prefer: wait`, {store}; `Runtime.execute` beside it",
        value=f"{shown(posted)}; {shown(direct)}; {more:+.1f} ms",
        gate=f"p50 ≤ that of `execute` + {most} ms",
        ok=more <= most,
        raw={"ms": vars_of(posted), "execute_ms": vars_of(direct)},
    )


async def _sustained(store: str, count: int, port: int, key: str) -> Figure:
    clients = [Client(port, key) for _ in range(AT_ONCE)]
    idle = list(clients)

    async def once() -> float:
        client = idle.pop()
        began = time.perf_counter()
        await client.ask("POST", "/v1/runs", {"code": HELLO, "contract": CONTRACT}, Prefer="wait=30")
        idle.append(client)
        return time.perf_counter() - began

    seconds, rate = await saturated(once, 2 * count, AT_ONCE)
    for client in clients:
        client.close()
    return Figure(
        name=f"sustained runs through HTTP, {AT_ONCE} callers, {store}",
        value=f"{rate:.0f} per second",
        gate=f"≥ {_PER_SECOND} per second",
        ok=rate >= _PER_SECOND,
        raw={"per_second": round(rate, 1), "ms": vars_of(Spread.of(seconds))},
    )


async def _of_streams(store: str, port: int, pid: int, key: str) -> Figure:
    """What the service needs for streams on which nothing happens."""
    with ExitStack() as stack:
        run = await _once(port, key, "POST", "/v1/runs", {"code": "import time; time.sleep(600)", "timeout_s": 600})
        streams = [stack.enter_context(closing(Client(port, key))) for _ in range(STREAMS)]
        await _watch(streams[0], run["id"])
        before = pss(pid)
        for stream in streams[1:]:
            await _watch(stream, run["id"])
        after, began = pss(pid), time.perf_counter()
        await _once(port, key, "GET", "/v1/me")
        seconds = time.perf_counter() - began
        await _once(port, key, "POST", f"/v1/runs/{run['id']}/cancel")
        await asyncio.gather(*(_outcome(stream) for stream in streams))
    return _idle(store, (after - before) / 1e6, seconds)


async def _once(port: int, key: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - JSON
    """By a connection of its own: the service closes one on which nothing is asked for long."""
    with closing(Client(port, key)) as client:
        return await client.ask(method, path, body)


def _idle(store: str, more: float, seconds: float) -> Figure:
    return Figure(
        name=f"{STREAMS} idle event streams, {store}; an answer beside them; each gets the outcome",
        value=f"{more:.0f} MB; {1e3 * seconds:.1f} ms",
        gate=f"≤ {_STREAMS_MB} MB",
        ok=more <= _STREAMS_MB,
        raw={"mb": round(more, 1), "answer_ms": round(1e3 * seconds, 2)},
    )


async def _watch(stream: Client, run: str) -> None:
    await stream.send("GET", f"/v1/runs/{run}/events")
    status, _ = await stream.head()
    if status != 200 or b"queued" not in await stream.more():
        raise SystemExit(f"no stream: {status}")


async def _outcome(stream: Client) -> None:
    async with asyncio.timeout(60):
        told = b""
        while b"event: outcome" not in told:
            if not (more := await stream.more()):
                raise SystemExit("a stream ended without an outcome")
            told = told[-100:] + more


@asynccontextmanager
async def _none() -> AsyncIterator[dict[str, str] | None]:
    yield {}


class _Lacking(Exception):
    """This machine has no such server."""


def _lacking(name: str, reason: str) -> NoReturn:
    raise _Lacking(f"{name}: {reason}")


@asynccontextmanager
async def _postgres_and_redis() -> AsyncIterator[dict[str, str] | None]:
    with ExitStack() as stack:
        try:
            database = stack.enter_context(postgres_server(_lacking))
            news = stack.enter_context(redis_server(_lacking))
        except _Lacking as error:
            sys.stderr.write(f"not measured: {error}\n")
            yield None
            return
        yield {
            "DATABASE_URL": f"postgresql://app:hush-db@127.0.0.1:{database}/postgres",
            "REDIS_URL": f"redis://127.0.0.1:{news}",
        }


#: What starts the servers of each store, and how many processes can share it.
STORES: dict[str, tuple[Callable[[], AbstractAsyncContextManager[dict[str, str] | None]], int]] = {
    "SQLite": (_none, 1),
    "PostgreSQL and Redis": (_postgres_and_redis, 2),
}
