"""Many users of the chat service at once, each with runs, streams and cancels: is any lost, is anybody shown another's?

Every program prints a word that its user alone knows: an answer, an event or a list with another user's is crossed. A
run is lost if the service accepted it and the store has no end of it, or `lost` as its end, or if its word is missing.
With PostgreSQL and Redis there are two processes; a run begun at one is watched and cancelled at the other.
"""

import asyncio
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from bench.figures import MEMORY, Figure
from bench.measure import Spread
from bench.service import POOL, STORES, Client, serving
from isorun.service.context import open_database
from isorun.service.store.accounts import Accounts
from isorun.settings import Settings

_SHORT = "print({word!r})"
_TALKS = "import time\nfor number in range(5):\n    print({word!r}, number, flush=True)\n    time.sleep(0.05)"
_LONG = "import time\nprint({word!r}, flush=True)\ntime.sleep(60)"
_NO_END = ("queued", "running", "lost")
_TOLD_LINES = 300  # of a log, if anything went wrong
_SETTLE_S = 90.0  # in which what was begun must have ended


@dataclass
class Tally:
    """What was seen. *words*: of each user, by his name."""

    words: dict[str, str]
    ends: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    crossed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"answer": [], "stream": [], "cancel": []})
    begun: dict[str, set[str]] = field(default_factory=dict)  # ids that were accepted, by their user

    def check_text(self, user: str, run: str, text: str) -> None:
        """*text*, all that the *run* of *user* printed, holds the word of that user and of nobody else."""
        others = [name for name, word in self.words.items() if name != user and word in text]
        if others:
            self.crossed.append(f"what {run} of {user} printed: of {others}")
        elif self.words[user] not in text:
            self.lost.append(f"what {run} printed")

    def check_kept(self, user: str, rows: Sequence[dict[str, Any]]) -> None:
        """*rows*, all of the user's in the store, are those that he began, and each has ended."""
        kept = {row["id"]: row["status"] for row in rows}
        begun = self.begun.get(user, set())
        theirs = {run for name, runs in self.begun.items() if name != user for run in runs}
        self.crossed += [f"list of {user}: {run}" for run in kept.keys() & theirs]
        self.lost += [f"{run}: {kept.get(run)}" for run in begun if kept.get(run, "queued") in _NO_END]
        self.ends.update(status for run, status in kept.items() if run in begun)


class _User:
    """One of them. *ports*: of every process of the service."""

    def __init__(self, name: str, key: str, ports: Sequence[int], tally: Tally) -> None:
        self._name, self._key, self._tally = name, key, tally
        self._word, self._random = tally.words[name], random.Random(name)
        self._ports = ports

    async def until(self, end: float) -> None:
        """One thing after the other, each of a kind that is drawn, until the time *end*."""
        kinds = (self._answered, self._answered, self._streamed, self._cancelled, self._peeked)
        while time.monotonic() < end:
            await self._random.choice(kinds)()

    async def kept(self) -> list[dict[str, Any]]:
        """All the user's runs, once each has ended, or when there was time for it."""
        end = time.monotonic() + _SETTLE_S
        while True:
            rows, cursor = [], ""
            while cursor is not None:
                path = f"/v1/runs?limit=200&cursor={cursor.replace(' ', '%20')}"
                status, page = await self._ask("GET", path)
                if status != 200:
                    raise SystemExit(f"the runs of {self._name} cannot be listed: {page}")
                rows, cursor = rows + page["runs"], page["next"]
            if all(row["ended"] for row in rows) or time.monotonic() > end:
                return rows
            await asyncio.sleep(0.5)

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None, **headers: str) -> Any:  # noqa: ANN401 - JSON
        """By a connection of its own: the service closes one on which nothing is asked for long."""
        with closing(self._client()) as client:
            return await client.answer(method, path, body, **headers)

    def _client(self) -> Client:
        return Client(self._random.choice(self._ports), self._key)

    async def _begin(self, code: str, **headers: str) -> dict[str, Any] | None:
        body = {"code": code.format(word=self._word)}
        status, view = await self._ask("POST", "/v1/runs", body, **headers)
        if status >= 400:
            self._tally.errors[view["code"]] += 1
            return None
        self._tally.begun.setdefault(self._name, set()).add(view["id"])
        return dict(view)

    async def _answered(self) -> None:
        began = time.perf_counter()
        view = await self._begin(_SHORT, Prefer="wait=60")
        if view is not None and view["result"] is not None:
            self._tally.seconds["answer"].append(time.perf_counter() - began)
            if view["status"] != "lost":
                self._tally.check_text(self._name, view["id"], view["result"]["stdout"])

    async def _streamed(self) -> None:
        began = time.perf_counter()
        if (view := await self._begin(_TALKS)) is not None:
            await self._watch(view["id"])
            self._tally.seconds["stream"].append(time.perf_counter() - began)

    async def _cancelled(self) -> None:
        view = await self._begin(_LONG)
        began = None if view is None else await self._watch(view["id"], cancels=True)
        if began is not None:
            self._tally.seconds["cancel"].append(time.perf_counter() - began)

    async def _watch(self, run: str, *, cancels: bool = False) -> float | None:
        """See a run to its outcome; *cancels*: cancel it once it prints, and give the time of that."""
        printed, cancelled, last, end = "", None, 0, ""
        with closing(self._client()) as stream:
            async for event in stream.events(f"/v1/runs/{run}/events"):
                if event["run"] != run or event["seq"] != last + 1:
                    self._tally.crossed.append(f"event {event['seq']} of {event['run']} behind {last} of {run}")
                last, kind = event["seq"], event["kind"]
                printed += event["data"]["text"] if kind == "output" else ""
                end = event["data"]["status"] if kind == "outcome" else ""
                if cancels and kind == "output" and cancelled is None:
                    cancelled = time.perf_counter()
                    status, said = await self._ask("POST", f"/v1/runs/{run}/cancel")
                    self._tally.errors.update([said["code"]] if status >= 400 else [])
        if not end:
            self._tally.lost.append(f"the outcome of {run}")
        elif end != "lost":
            self._tally.check_text(self._name, run, printed)
        return cancelled

    async def _peeked(self) -> None:
        others = [run for name, runs in self._tally.begun.items() if name != self._name for run in runs]
        if others:
            run = self._random.choice(others)
            status, _ = await self._ask("GET", f"/v1/runs/{run}")
            if status != 404:
                self._tally.crossed.append(f"{self._name} asked for another user's run: {status}")


async def crowd(ports: Sequence[int], keys: dict[str, str], seconds: float) -> Tally:
    """What users of these *keys*, by name, saw at the processes on *ports* in so many *seconds*."""
    tally = Tally({name: f"word-{secrets.token_hex(8)}" for name in keys})
    users = {name: _User(name, key, ports, tally) for name, key in keys.items()}
    end = time.monotonic() + seconds
    await asyncio.gather(*(user.until(end) for user in users.values()))
    for name, user in users.items():
        tally.check_kept(name, await user.kept())
    return tally


async def keys_of(folder: Path, settings: dict[str, str], count: int) -> dict[str, str]:
    """Keys of *count* new users of the service whose data are in *folder*, by their names."""
    own = replace(Settings(), service_data=folder, database_url=settings.get("DATABASE_URL"))
    async with open_database(own) as (_, database):
        accounts = Accounts(database)
        return {
            f"user{number}": await accounts.new_secret(await accounts.add(f"user{number}"), "key")
            for number in range(count)
        }


async def figures(users: int, seconds: float) -> list[Figure]:
    """One for each store that this machine has."""
    found = []
    for name, (servers, processes) in STORES.items():
        async with AsyncExitStack() as stack:
            if (settings := await stack.enter_async_context(servers())) is None:
                continue
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="isorun-bench-", dir=MEMORY))
            own = {**settings, "ISORUN_WORKSPACE_ROOT": folder, "ISORUN_POOL_SIZE": str(POOL)}
            ports = []
            for number in range(processes):
                opened = serving(Path(folder), own, log=f"log{number}")
                ports.append((await stack.enter_async_context(opened))[0])
            tally = await crowd(ports, await keys_of(Path(folder), settings, users), seconds)
            if tally.lost or tally.crossed:
                sys.stderr.writelines(_told(Path(folder)))
            found.append(_figure(f"{users} users for {seconds:.0f} s, {name}, {processes} process(es)", tally))
    return found


def _told(folder: Path) -> Iterator[str]:
    """What the service's processes said beside their answers."""
    for log in sorted(folder.glob("log*")):
        lines = (line for line in log.read_text(errors="replace").splitlines(keepends=True) if " INFO " not in line)
        yield from islice(lines, _TOLD_LINES)


def _figure(name: str, tally: Tally) -> Figure:
    runs = sum(map(len, tally.begun.values()))
    spreads = {kind: Spread.of(seconds) for kind, seconds in tally.seconds.items() if seconds}
    said = [
        f"{runs} runs: " + ", ".join(f"{count} {status}" for status, count in tally.ends.most_common()),
        f"{len(tally.lost)} lost, {len(tally.crossed)} crossed",
        *(f"{kind} p50 {spread.p50:.0f}, p99 {spread.p99:.0f} ms" for kind, spread in spreads.items()),
        "errors: " + (", ".join(f"{count} {code}" for code, count in tally.errors.most_common()) or "none"),
    ]
    raw = {"runs": runs, "ends": dict(tally.ends), "errors": dict(tally.errors)}
    raw |= {"lost": tally.lost[:20], "crossed": tally.crossed[:20]}
    return Figure(
        name=name,
        value="; ".join(said),
        gate="no run lost, nothing crossed",
        ok=bool(runs) and not tally.lost and not tally.crossed,
        raw=raw,
    )
