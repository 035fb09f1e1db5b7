"""One process over SQLite: every run that was accepted ends, also if the process is killed."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.service.conftest import Served, end_service, start_service
from tests.service.talking import begun, client_of, ended, events_of, is_whole, printed, until_output

pytestmark = [pytest.mark.slow, pytest.mark.any_user, pytest.mark.timeout(180)]


@pytest.mark.stores
def test_a_stream_goes_on_behind_the_event_that_the_client_names(served: Served) -> None:
    """Last-Event-ID 3: the first event is the fourth, and each has its number as its id."""
    with client_of(served) as client:
        run = begun(client, "for number in range(5):\n    print(number, flush=True)\n(OUT / 'a.txt').write_text('a')")
        seen = list(events_of(client, run))
        assert is_whole(seen)
        assert len(seen) > 4
        assert list(events_of(client, run, after=3)) == seen[3:]


@pytest.mark.stores
def test_a_killed_process_leaves_runs_that_the_next_one_ends_as_lost(tmp_path: Path) -> None:
    """With what they had printed."""
    first = start_service(tmp_path)
    with client_of(first) as client:
        run = begun(client)
        seen = until_output(events_of(client, run))
    first.process.kill()
    first.process.wait()
    assert first.process.stdout is not None
    first.process.stdout.close()
    second = start_service(tmp_path)
    try:
        with client_of(second) as client:
            told = list(events_of(client, run))
            assert told[: len(seen)] == seen
            assert is_whole(told)
            assert told[-1]["data"]["status"] == "lost"
            assert client.get(f"/v1/runs/{run}").json()["status"] == "lost"
            assert "\n0\n" in client.get(f"/v1/runs/{run}/logs/user").text
    finally:
        end_service(second)


@pytest.mark.stores
def test_of_fifty_runs_at_once_on_four_slots_none_is_lost(tmp_path: Path) -> None:
    """Each ends well, with its own output."""
    served = start_service(tmp_path, ISORUN_MAX_RUNS="4", ISORUN_USER_RUNS_AT_ONCE="50")
    try:
        with client_of(served) as client, ThreadPoolExecutor(50) as pool:
            runs = list(pool.map(lambda number: begun(client, f"print({number})"), range(50)))
            views = list(pool.map(lambda run: ended(client, run), runs))
        assert [view["status"] for view in views] == 50 * ["ok"]
        assert [view["result"]["stdout"] for view in views] == [f"{number}\n" for number in range(50)]
    finally:
        end_service(served)


@pytest.mark.alone
def test_a_service_that_is_told_to_end_does_so_within_five_seconds_and_every_stream_has_its_outcome(
    tmp_path: Path,
) -> None:
    """What was printed is kept."""
    served = start_service(tmp_path)
    with client_of(served) as client, ThreadPoolExecutor(4) as pool:
        runs = [begun(client) for _ in range(4)]
        streams = [events_of(client, run) for run in runs]
        seen = [until_output(stream) for stream in streams]
        rest = [pool.submit(list, stream) for stream in streams]
        began = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        served.process.wait(60)
        took = time.monotonic() - began
        told = [before + behind.result() for before, behind in zip(seen, rest, strict=True)]
    end_service(served)
    assert took < 5
    assert all(is_whole(one) for one in told)
    assert {one[-1]["data"]["status"] for one in told} == {"cancelled"}
    assert all(printed(one).startswith("0\n") for one in told)
