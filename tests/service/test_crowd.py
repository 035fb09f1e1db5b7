"""Several users at once over two processes; `python -m bench --service --users 50 --seconds 60` has more."""

from pathlib import Path

import pytest

from bench.crowd import Tally, crowd, keys_of
from tests.conftest import Require
from tests.servers import postgres_server, redis_server
from tests.service.conftest import end_service, start_service

USERS, SECONDS = 6, 5.0


@pytest.mark.slow
@pytest.mark.any_user
@pytest.mark.timeout(300)
async def test_no_run_is_lost_and_nothing_is_shown_to_another_user(tmp_path: Path, require: Require) -> None:
    """Runs that are waited for, watched and cancelled, each at one process and the next at the other."""
    with postgres_server(require) as database, redis_server(require) as news:
        settings = {
            "DATABASE_URL": f"postgresql://app:hush-db@127.0.0.1:{database}/postgres",
            "REDIS_URL": f"redis://127.0.0.1:{news}",
        }
        one = start_service(tmp_path, **settings)
        try:
            other = start_service(tmp_path, beside=one, **settings)
            try:
                ports = [int(served.url.rpartition(":")[2]) for served in (one, other)]
                tally = await crowd(ports, await keys_of(tmp_path / "data", settings, USERS), SECONDS)
            finally:
                end_service(other)
        finally:
            end_service(one)
    assert (tally.lost, tally.crossed, dict(tally.errors)) == ([], [], {})
    assert set(tally.ends) == {"ok", "cancelled"}
    assert sum(tally.ends.values()) == sum(map(len, tally.begun.values()))


def test_what_is_lost_and_what_is_crossed_is_seen() -> None:
    """The control: another user's word, no word, another user's run, a run without an end, and one that is gone."""
    tally = Tally({"alice": "word-a", "bob": "word-b"})
    tally.begun = {"alice": {"r1", "r2", "r3"}, "bob": {"r4"}}
    tally.check_text("alice", "r1", "word-a\n")
    tally.check_kept("bob", [{"id": "r4", "status": "ok"}])
    assert (tally.crossed, tally.lost) == ([], [])
    tally.check_text("alice", "r1", "word-a word-b")
    tally.check_text("alice", "r1", "")
    rows = [{"id": one, "status": status} for one, status in (("r1", "running"), ("r2", "lost"), ("r4", "ok"))]
    tally.check_kept("alice", rows)
    assert tally.crossed == ["what r1 of alice printed: of ['bob']", "list of alice: r4"]
    assert sorted(tally.lost) == ["r1: running", "r2: lost", "r3: None", "what r1 printed"]
