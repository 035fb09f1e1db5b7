"""What several processes must agree on: who has died, who writes last, who may have how much."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import exc, make_url

from isorun.core.request import RunRequest
from isorun.service.problems import Problem
from isorun.service.runs.news import followed
from isorun.service.runs.patience import patiently
from isorun.service.runs.place import Watch
from isorun.service.runs.redis_wakes import RedisWakes, client_of
from isorun.service.runs.rows import new_row
from isorun.service.store.accounts import Accounts, User
from isorun.service.store.database import Away, Database, is_away
from isorun.service.store.hosts import Hosts
from isorun.service.store.records import Allowance, Closed, Happened, Origin, Records, Stored, Stream, Used
from isorun.service.store.talks import Talks
from isorun.settings import Settings

ANYTHING = Allowance(since="", most=Used(now=99, since=99, bytes=99), check=lambda used: None)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """Of SQLite, as empty as a new service's."""
    async with Database(make_url(f"sqlite:///{tmp_path / 'd.sqlite3'}")) as opened:
        yield opened


@pytest.fixture
async def user(database: Database) -> User:
    """The one user."""
    return await Accounts(database).add("alice")


def row(user: User, run_id: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - columns
    """A run that begins."""
    return {**new_row(user, run_id, RunRequest.of("print(1)"), Origin(), "h.1"), **more}


async def stored(records: Records, run_id: str) -> list[tuple[int, str]]:
    """The numbers and kinds of a run's events."""
    return [(one.seq, one.kind) for one in await records.events_of_run(run_id, 0)]


ENDED = {"status": "ok", "ended": "2026-01-01T00:00:00.000Z"}
QUEUED, OUTPUT, OUTCOME = (Happened(kind=kind, at=f"2026-01-01T00:00:0{n}.000Z") for n, kind in enumerate(
    ("queued", "output", "outcome")
))  # fmt: skip


# Who has died.


def test_a_process_dies_by_a_number_that_stays_the_same() -> None:
    """For ten seconds as the one sees it who looks; whether the number goes up or down is all the same."""
    watch = Watch(dead_s=10, gap_s=5)
    for now in range(0, 12, 2):
        numbers = {"alive": 100 - now, "dead": 7}
        assert watch.died(numbers, 1000 + now) == []
    assert watch.died({"alive": 1, "dead": 7}, 1012) == ["dead"]
    assert watch.died({"alive": 2}, 1014) == []


def test_who_has_not_looked_for_a_while_begins_to_count_anew() -> None:
    """The database was away, or this process was stopped: the others raised no numbers, or were not seen to."""
    watch = Watch(dead_s=10, gap_s=5)
    assert watch.died({"other": 1}, 0) == []
    assert watch.died({"other": 1}, 100) == []
    assert watch.died({"other": 1}, 104) == []
    assert watch.died({"other": 1}, 108) == []
    assert watch.died({"other": 1}, 111) == ["other"]


def test_a_process_that_comes_later_has_its_ten_seconds() -> None:
    """It is counted from when it was first seen."""
    watch = Watch(dead_s=10, gap_s=5)
    for now in range(0, 20, 4):
        watch.died({"me": now}, now)
    assert watch.died({"me": 20, "new": 0}, 20) == []


async def test_a_process_is_buried_once_and_not_if_it_has_moved(database: Database) -> None:
    """Of two who see the same, one may say so."""
    hosts = Hosts(database)
    await hosts.join("a.1")
    assert not await hosts.bury("a.1", 5)
    assert [await hosts.bury("a.1", 0), await hosts.bury("a.1", 0)] == [True, False]


# Who writes last.


async def test_a_run_has_one_end(database: Database, user: User) -> None:
    """Who conducts it and who takes it for lost may both try: the first one's outcome is the last event."""
    records, stream = Records(database), Stream(run="r1")
    await records.begin(row(user, "r1"), [QUEUED], allowed=ANYTHING)
    lost = Happened(kind="outcome", data={"status": "lost"})
    assert await records.close(stream, lost, {**ENDED, "status": "lost"})
    assert not await records.close(stream, lost, {**ENDED, "status": "lost"})
    for changes in (None, ENDED):
        with pytest.raises(Closed):
            await records.add(stream, 1, [OUTPUT], changes)
    assert await stored(records, "r1") == [(1, "queued"), (2, "outcome")]
    assert (await records.run("r1") or {})["status"] == "lost"


async def test_the_end_of_a_lost_run_comes_behind_all_that_was_written(database: Database, user: User) -> None:
    """To close it takes the next number in the transaction that closes it."""
    records, stream = Records(database), Stream(run="r1")
    await records.begin(row(user, "r1"), [QUEUED], allowed=ANYTHING)
    ends = [records.add(stream, 1, [OUTPUT]), records.close(stream, OUTCOME, ENDED)]
    await asyncio.gather(*ends, return_exceptions=True)
    assert [number for number, _ in await stored(records, "r1")] in ([1, 2], [1, 2, 3])
    assert (await stored(records, "r1"))[-1][1] == "outcome"


@pytest.mark.parametrize("changes", [None, ENDED], ids=["events", "the end"])
async def test_what_was_stored_and_not_answered_is_not_stored_twice(database: Database, user: User, changes) -> None:
    """The connection broke behind the commit, so the writer does the same again."""
    records, stream, happened = Records(database), Stream(run="r1"), [OUTPUT, OUTCOME]
    await records.begin(row(user, "r1"), [QUEUED], allowed=ANYTHING)
    assert await records.add(stream, 1, happened, changes) == 3
    assert await records.add(stream, 1, happened, changes) == 3
    assert await stored(records, "r1") == [(1, "queued"), (2, "output"), (3, "outcome")]


async def test_nothing_is_written_about_a_run_that_was_removed(database: Database, user: User) -> None:
    """And one that goes on is not removed."""
    records, stream = Records(database), Stream(run="r1")
    await records.begin(row(user, "r1"), [QUEUED], allowed=ANYTHING)
    assert not await records.remove("r1")
    await records.add(stream, 1, [OUTCOME], ENDED)
    assert await records.remove("r1")
    with pytest.raises(Closed):
        await records.add(stream, 2, [OUTPUT])
    assert await stored(records, "r1") == []


async def test_writers_of_one_conversation_get_numbers_without_a_gap(database: Database, user: User) -> None:
    """Those of two runs and of the conversation itself, at once."""
    records, talks = Records(database), Talks(database)
    await talks.create(user, "c1", "")
    for run_id in ("r1", "r2"):
        await records.begin(row(user, run_id, conversation_id="c1"), [QUEUED], allowed=ANYTHING)

    async def write(run: str | None) -> None:
        for after in range(1, 11):
            await records.add(Stream(run=run, conversation="c1"), after, [OUTPUT])

    await asyncio.gather(write("r1"), write("r2"), write(None))
    assert [one.seq for one in await records.events_of_conversation("c1", 0)] == list(range(1, 33))


async def test_a_turn_goes_on_in_one_process_and_has_one_end(database: Database, user: User) -> None:
    """Also if both the process and another that takes it for dead write it."""
    records, talks = Records(database), Talks(database)
    await talks.create(user, "c1", "")
    assert await talks.begin_turn("c1", "a.1") == 1
    assert await talks.begin_turn("c1", "b.1") is None
    assert [one["id"] for one in await talks.going_on(orphans=True)] == ["c1"]
    assert [await records.end_turn("c1", 1, [Happened(kind="turn_ended")]) for _ in range(2)] == [True, False]
    assert await talks.begin_turn("c1", "b.1") == 2
    assert not await records.end_turn("c1", 1, [Happened(kind="turn_ended")])


async def test_runs_of_a_process_without_a_row_are_orphans(database: Database, user: User) -> None:
    """Those that have not ended."""
    records = Records(database)
    await Hosts(database).join("alive.1")
    for run_id, host in (("r1", "alive.1"), ("r2", "dead.1"), ("r3", "dead.1")):
        await records.begin(row(user, run_id, host_id=host), [QUEUED], allowed=ANYTHING)
    await records.add(Stream(run="r3"), 1, [OUTCOME], ENDED)
    assert [one["id"] for one in await records.orphans()] == ["r2"]


# Who may have how much.


async def test_twenty_runs_at_once_do_not_pass_a_quota_of_three(database: Database, user: User) -> None:
    """Each is counted before the next is asked for."""
    records = Records(database)

    def judge(used: Used) -> None:
        if used.now >= 3:
            raise Problem(429, "too_many_runs", "")

    allowed = Allowance(since="", most=Used(now=3, since=99, bytes=99), check=judge)
    beginnings = (records.begin(row(user, f"r{n}"), [QUEUED], allowed=allowed) for n in range(20))
    found = await asyncio.gather(*beginnings, return_exceptions=True)
    assert sum(one is None for one in found) == 3
    assert len(await records.open_runs()) == 3


async def test_the_second_request_of_a_name_is_the_first_ones_run(database: Database, user: User) -> None:
    """Of ten at once, one begins a run; nothing of the others is stored, and no quota is asked for them."""
    records = Records(database)
    keyed = (records.begin(row(user, f"r{n}"), [QUEUED], allowed=ANYTHING, key=("k", "d")) for n in range(10))
    found = await asyncio.gather(*keyed)
    (began,) = [one["id"] for one in await records.open_runs()]
    assert found.count(None) == 1
    assert {one for one in found if one} == {("d", began)}


async def test_no_run_begins_for_a_user_who_was_removed(database: Database, user: User) -> None:
    """Between the check of his key and his run."""
    await Accounts(database).remove("alice")
    with pytest.raises(Problem) as refused:
        await Records(database).begin(row(user, "r1"), [QUEUED], allowed=ANYTHING)
    assert refused.value.status == 401


# A database that is away.


async def test_a_database_that_does_not_answer_in_time_is_away(database: Database) -> None:
    """Also if the error has no text: who asks is told to ask again, and not that the service failed."""
    with pytest.raises(Away, match=r"^TimeoutError$"):
        async with database.read():
            raise TimeoutError


class _Refused(Exception):
    sqlstate = "23505"


class _ShutDown(Exception):
    sqlstate = "57P01"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (exc.TimeoutError(), True),
        (asyncpg.CannotConnectNowError("the database system is starting up"), True),
        (asyncpg.ConnectionDoesNotExistError("closed in the middle of operation"), True),
        (exc.OperationalError("", None, Exception("database is locked")), True),
        (exc.InterfaceError("", None, Exception("connection is closed")), True),
        (exc.DBAPIError("", None, _ShutDown()), True),
        (exc.DBAPIError("", None, Exception(), connection_invalidated=True), True),
        (exc.DBAPIError("", None, _Refused()), False),
        (exc.IntegrityError("", None, _Refused()), False),
        (exc.ProgrammingError("", None, Exception("no such table")), False),
        (ValueError(), False),
    ],
    ids=lambda one: str(getattr(one, "orig", one) or type(one).__name__),
)
def test_what_says_that_the_database_is_away(error: Exception, expected: bool) -> None:
    """Everything else is a defect of ours, and is not asked for again."""
    assert is_away(error) is expected


async def test_a_write_is_tried_until_the_database_is_there(caplog: pytest.LogCaptureFixture) -> None:
    """One line of the log says so, not one for each time."""
    answers: list[Exception | int] = [Away("gone"), Away("gone"), 7]

    async def write() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await patiently("run r1", write, gives_up=lambda: False) == 7
    assert caplog.messages == ["run r1 is not stored yet, the database is away: gone"]


async def test_who_gives_up_is_told_that_the_database_is_away() -> None:
    """After one more time."""
    asked = []

    async def write() -> None:
        asked.append(1)
        raise Away("gone")

    with pytest.raises(Away):
        await patiently("run r1", write, gives_up=lambda: len(asked) == 2)
    assert len(asked) == 2


# News and orders through Redis.


def heard(wakes: RedisWakes, told: object) -> None:
    """As if it came from Redis."""
    wakes._take({"type": "message", "data": told if isinstance(told, bytes) else json.dumps(told).encode()})


@pytest.fixture
async def wakes() -> AsyncIterator[RedisWakes]:
    """Of a process whose Redis is not asked."""
    client = client_of(Settings(redis_host="127.0.0.1", redis_port=1))
    assert client is not None
    async with client:
        yield RedisWakes(client, "me")


async def test_news_of_others_wake_those_who_wait_for_them(wakes: RedisWakes) -> None:
    """They alone, but for the word that means all."""
    with wakes.listen("r1") as one, wakes.listen("r2") as other:
        heard(wakes, {"from": "other", "news": ["r1"]})
        assert (one.is_set(), other.is_set()) == (True, False)
        heard(wakes, {"from": "other", "news": ["*"]})
        assert other.is_set()


async def test_who_waits_looks_often_until_redis_is_there_and_is_woken_when_it_comes_and_goes(
    wakes: RedisWakes,
) -> None:
    """News may have been missed before and behind."""
    assert (wakes.hears, wakes.look_again_s) == (False, 1.0)
    with wakes.listen("r1") as news:
        heard(wakes, {"from": wakes._me, "news": []})
        assert (wakes.hears, wakes.look_again_s, news.is_set()) == (True, 15.0, True)
        news.clear()
        wakes._set(hears=False)
        assert (wakes.look_again_s, news.is_set()) == (1.0, True)


@pytest.mark.parametrize("told", [b"\xff", b"[", [], 1, None, {}, {"news": 1}, {"verb": "cancel"}, {"news": [{}]}])
async def test_what_others_publish_there_is_passed_over(wakes: RedisWakes, told: object) -> None:
    """Bytes, shapes and words that are not ours."""
    with wakes.listen("r1") as news:
        heard(wakes, told)
        assert not news.is_set()


async def test_an_order_is_obeyed_and_an_unknown_one_is_not(wakes: RedisWakes) -> None:
    """With what it is about."""
    obeyed = asyncio.Queue[str]()
    wakes.on("cancel", obeyed.put)
    heard(wakes, {"verb": "dance", "subject": "r0"})
    heard(wakes, {"verb": "cancel", "subject": "r1"})
    assert await obeyed.get() == "r1"


async def test_an_order_without_redis_is_not_given(wakes: RedisWakes) -> None:
    """Who gave it is told so."""
    assert not await wakes.order("other.1", "cancel", "r1")


async def test_news_between_reading_and_waiting_are_not_missed(wakes: RedisWakes) -> None:
    """An event that is stored behind the look that did not see it is read at once, and not by the next look."""
    heard(wakes, {"from": wakes._me, "news": []})  # the next look would be in 15 seconds
    event = Stored(seq=1, run="r1", kind="outcome")
    answers: list[list[Stored] | Exception | None] = [[], [event], Away("gone"), None]

    async def more(after: int) -> list[Stored] | None:
        wakes.tell("r1")
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with asyncio.timeout(5):
        assert [one async for one in followed(wakes, "r1", more, 0)] == [event]
