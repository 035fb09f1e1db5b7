"""What PostgreSQL is asked at once means the same as what SQLite is asked piece by piece."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import make_url

from isorun.core.request import RunRequest
from isorun.service.problems import Problem
from isorun.service.runs.rows import new_row
from isorun.service.store.accounts import Accounts, User
from isorun.service.store.database import Database
from isorun.service.store.records import Allowance, Closed, Happened, Origin, Records, Stream, Used
from tests.conftest import Require
from tests.servers import postgres_server

pytestmark = [pytest.mark.slow, pytest.mark.any_user]

ENDED = {
    "status": "ok",
    "ended": "2026-01-01T00:00:00.000Z",
    "bytes": 3,
    "cost": {"wall_s": 1.5},
    "result": {"a": "\0"},
}
QUEUED, OUTCOME = Happened(kind="queued"), Happened(kind="outcome", data={"ok": True})


@pytest.fixture(scope="module")
def port(require: Require) -> Iterator[int]:
    """Of a PostgreSQL."""
    with postgres_server(require) as found:
        yield found


@pytest.fixture
async def both(port: int) -> AsyncIterator[tuple[Records, Records]]:
    """The records as two processes have them."""
    url = make_url(f"postgresql+asyncpg://app:hush-db@127.0.0.1:{port}/postgres")
    async with Database(url) as one, Database(url) as other:
        yield Records(one), Records(other)


@pytest.fixture
async def user(both: tuple[Records, Records]) -> AsyncIterator[User]:
    """The one user, who is gone with all of his behind the test."""
    accounts = Accounts(both[0]._db)
    yield await accounts.add("alice")
    await accounts.remove("alice")


def row(user: User, run_id: str) -> dict[str, Any]:
    """A run that begins."""
    return new_row(user, run_id, RunRequest.of("print(1)"), Origin(), "h.1")


def allowed(most: int = 99) -> Allowance:
    """To have fewer than *most* runs at once."""

    def judge(used: Used) -> None:
        if used.now >= most:
            raise Problem(429, "too_many_runs", "")

    return Allowance(since="", most=Used(now=most, since=99, bytes=99), check=judge)


async def test_what_a_program_prints_is_kept_whatever_it_is(both: tuple[Records, Records], user: User) -> None:
    """PostgreSQL cannot hold a NUL in a text, nor half a letter; in JSON it can, if it does not have to read it."""
    text = "a\0b\ud800\\u0000"
    records = both[0]
    assert await records.begin(row(user, "r1"), [QUEUED], allowed=allowed()) is None
    printed = Happened(kind="output", data={"stream": "stdout", "text": text})
    assert await records.add(Stream(run="r1"), 1, [printed], {"status": "running"}) == 2
    assert await records.add(Stream(run="r1"), 2, [OUTCOME], dict(ENDED)) == 3
    stored = await records.events_of_run("r1", 0)
    assert [(one.seq, one.kind, one.data) for one in stored] == [
        (1, "queued", {}),
        (2, "output", {"stream": "stdout", "text": text}),
        (3, "outcome", {"ok": True}),
    ]
    found = await records.run("r1")
    assert found is not None
    assert {name: found[name] for name in ENDED} == ENDED


async def test_a_run_that_has_ended_takes_nothing_more(both: tuple[Records, Records], user: User) -> None:
    """Of two processes that say at once how it ended, one is told that it has an end; nothing is stored twice."""
    await both[0].begin(row(user, "r1"), [QUEUED], allowed=allowed())
    ends = [Happened(kind="outcome", at=f"2026-01-01T00:00:0{n}.000Z", data={"by": n}) for n in range(2)]
    stream = Stream(run="r1")
    said = (records.add(stream, 1, [end], dict(ENDED)) for records, end in zip(both, ends, strict=True))
    found = await asyncio.gather(*said, return_exceptions=True)
    assert sorted(map(str, map(type, found))) == sorted(map(str, (int, Closed)))
    first = ends[found.index(2)]
    assert [one.data for one in await both[0].events_of_run("r1", 1)] == [first.data]
    assert await both[1].add(stream, 1, [first], dict(ENDED)) == 2  # an answer that was lost is asked for again
    for changes in ({}, dict(ENDED)):
        with pytest.raises(Closed):
            await both[0].add(stream, 2, [OUTCOME], changes)


async def test_runs_at_two_processes_at_once_do_not_pass_a_quota(both: tuple[Records, Records], user: User) -> None:
    """Each is counted before the next is stored, and of one that is refused nothing is."""
    begun = (both[n % 2].begin(row(user, f"r{n}"), [QUEUED], allowed=allowed(3)) for n in range(20))
    found = await asyncio.gather(*begun, return_exceptions=True)
    assert [type(one) for one in found].count(Problem) == 17
    assert len(await both[0].open_runs()) == 3
    refused = [n for n, one in enumerate(found) if isinstance(one, Problem)]
    assert [await both[0].events_of_run(f"r{n}", 0) for n in refused] == [[]] * 17
