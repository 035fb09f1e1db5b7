"""Two processes over one PostgreSQL and one Redis: each serves the runs of both, and a death of any loses no run."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.conftest import Require
from tests.service.conftest import Served, end_service, start_service
from tests.service.killable import Killable, postgres, redis
from tests.service.talking import COUNTING, begun, client_of, ended, events_of, is_whole, printed, until, until_output

pytestmark = [pytest.mark.slow, pytest.mark.any_user, pytest.mark.timeout(300)]


@dataclass
class Shared:
    """Two processes of a service, and what they share."""

    one: Served
    other: Served
    database: Killable
    news: Killable


@pytest.fixture(scope="module")
def servers(require: Require) -> Iterator[tuple[Killable, Killable]]:
    """PostgreSQL and Redis. A test that kills one starts it again."""
    with postgres(require) as database, redis(require) as news:
        yield database, news


@pytest.fixture(scope="module")
def settings(servers: tuple[Killable, Killable]) -> dict[str, str]:
    """Of a process that uses them."""
    database, news = servers
    return {
        "DATABASE_URL": f"postgresql://app:hush-db@127.0.0.1:{database.port}/postgres",
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(news.port),
        "REDIS_PASSWORD": "hush-redis",
        "ISORUN_POOL_SIZE": "1",
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of both processes: what one's runs and uploads leave, the other serves, too."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def processes(folder: Path, settings: dict[str, str]) -> Iterator[list[Served]]:
    """Those that were started."""
    started = [start_service(folder, **settings)]
    started.append(start_service(folder, beside=started[0], **settings))
    yield started
    for process in started:
        end_service(process)


@pytest.fixture
def shared(
    processes: list[Served], folder: Path, settings: dict[str, str], servers: tuple[Killable, Killable]
) -> Iterator[Shared]:
    """Both processes live when the test begins, and what a test began has ended before the next."""
    for place, process in enumerate(processes):
        if process.process.poll() is not None:
            end_service(process)
            processes[place] = start_service(folder, beside=process, **settings)
    yield Shared(*processes, *servers)
    for process in processes:
        if process.process.poll() is None:
            with client_of(process) as client:
                _cancelled(client)


def test_a_run_is_streamed_and_cancelled_by_the_other_process(shared: Shared) -> None:
    """Also its files are served by both, as they share a folder."""
    with client_of(shared.one) as one, client_of(shared.other) as other:
        run = begun(one)
        events = events_of(other, run)
        seen = until_output(events)
        assert other.post(f"/v1/runs/{run}/cancel").status_code == 202
        seen += events
        assert is_whole(seen)
        assert seen[-1]["data"]["status"] == "cancelled"
        assert ended(one, run) == ended(other, run)
        assert "\n0\n" in other.get(f"/v1/runs/{run}/logs/user").text


def test_a_conversation_is_deleted_by_the_other_process_while_its_run_goes_on(shared: Shared, folder: Path) -> None:
    """The run is ended first, by the process that has it; nothing of it stays."""
    with client_of(shared.one) as one, client_of(shared.other) as other:
        conversation = one.post("/v1/conversations", json={}).json()["id"]
        run = one.post(f"/c/{conversation}/runs", json={"code": COUNTING, "timeout_s": 120}).json()["id"]
        until_output(events_of(other, run))
        place = folder / "workspace" / f"codegen_{run}"
        assert place.is_dir()
        assert other.delete(f"/v1/conversations/{conversation}").status_code == 204
        assert not place.exists()
        for path in (f"/v1/runs/{run}", f"/v1/conversations/{conversation}"):
            assert {client.get(path).status_code for client in (one, other)} == {404}


def test_a_waiting_request_at_one_process_is_answered_at_the_end_of_the_run_of_the_other(shared: Shared) -> None:
    """The second POST of a name waits for the first one's run, wherever it is."""
    body, headers = {"code": "import time; time.sleep(1); print('done')"}, {"idempotency-key": "k", "prefer": "wait=60"}
    with client_of(shared.one) as one, client_of(shared.other) as other, ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda client: client.post("/v1/runs", json=body, headers=headers), (one, other)))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert [answer.json()["status"] for answer in answers] == ["ok", "ok"]


def test_quotas_hold_for_requests_at_once_to_both_processes(shared: Shared) -> None:
    """Twenty at once of one user who may have eight: eight begin, whichever process is asked."""
    with client_of(shared.one) as one, client_of(shared.other) as other, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda client: client.post("/v1/runs", json={"code": COUNTING}), 10 * (one, other)))
        codes = sorted(answer.status_code for answer in answers)
        assert codes == 8 * [202] + 12 * [429]
        assert {answer.json()["code"] for answer in answers if answer.status_code == 429} == {"too_many_runs"}
        until(lambda: not _cancelled(one))


def _cancelled(client: httpx2.Client) -> list[str]:
    """The runs that have not ended, which are told to."""
    runs = [run["id"] for run in client.get("/v1/runs").json()["runs"] if run["ended"] is None]
    for run in runs:
        client.post(f"/v1/runs/{run}/cancel")
    return runs


def test_a_text_that_postgres_cannot_hold_is_refused_and_a_program_may_print_it(shared: Shared) -> None:
    """NUL is in no column of text; what is printed is kept as JSON."""
    with client_of(shared.one) as client:
        refused = [
            client.post("/v1/runs", json={"code": "1", "prog_name": "a\0b"}),
            client.post("/v1/conversations", json={"title": "a\0b"}),
            client.get("/v1/runs", params={"q": "a\0b"}),
        ]
        assert [(answer.status_code, answer.json()["code"]) for answer in refused] == 3 * [(422, "invalid_text")]
        run = begun(client, "print('a\\0b')")
        assert printed(list(events_of(client, run))) == "a\0b\n"
        assert ended(client, run)["result"]["stdout"] == "a\0b\n"


def test_runs_of_a_killed_process_are_lost_with_what_they_printed(shared: Shared) -> None:
    """The other process says so, to streams that were open, too; its own runs go on."""
    with client_of(shared.one) as one, client_of(shared.other) as other:
        run, beside = begun(one), begun(other)
        events = events_of(other, run)
        seen = until_output(events)
        shared.one.process.kill()
        seen += events
        assert is_whole(seen)
        assert seen[-1]["data"]["status"] == "lost"
        assert printed(seen).startswith("0\n")
        assert ended(other, run)["result"]["error"]["code"] == "host_lost"
        assert other.get(f"/v1/runs/{beside}").json()["status"] == "running"
        assert other.post(f"/v1/runs/{beside}/cancel").status_code == 202
        assert ended(other, beside)["status"] == "cancelled"


def test_a_process_that_was_stopped_for_long_goes_on_without_the_runs_that_it_lost(shared: Shared) -> None:
    """The others took it for dead, so its run is lost, and what its program prints later is not added."""
    with client_of(shared.one) as one, client_of(shared.other) as other:
        run = begun(one)
        events = events_of(other, run)
        seen = until_output(events)
        os.kill(shared.one.process.pid, signal.SIGSTOP)
        seen += events
        os.kill(shared.one.process.pid, signal.SIGCONT)
        assert seen[-1]["data"]["status"] == "lost"
        answer = one.post("/v1/runs", json={"code": "print(1)"}, headers={"prefer": "wait=60"})
        assert answer.json()["status"] == "ok"
        until(lambda: "took this one for dead" in shared.one.log.read_text())
        assert list(events_of(one, run)) == seen
        assert is_whole(seen)


def test_a_killed_postgres_holds_a_run_up_and_loses_nothing_of_it(shared: Shared) -> None:
    """While it is away the service says so; what was printed meanwhile is there once it is back."""
    with client_of(shared.one) as one, client_of(shared.other) as other:
        run = begun(one, "import time\nfor number in range(80):\n    print(number, flush=True)\n    time.sleep(0.1)\n")
        events = events_of(other, run)
        seen = until_output(events)
        shared.database.kill()
        answer = other.post("/v1/runs", json={"code": "print(1)"})
        assert (answer.status_code, answer.json()["code"]) == (503, "database_away")
        assert int(answer.headers["retry-after"]) > 0
        assert one.get("/readyz").status_code == 503
        assert one.get("/healthz").status_code == 200
        shared.database.start()
        seen += events
        assert is_whole(seen)
        assert seen[-1]["data"]["status"] == "ok"
        assert printed(seen) == "".join(f"{number}\n" for number in range(80))
        until(lambda: other.get("/readyz").status_code == 200)
        again = other.post("/v1/runs", json={"code": "print(1)"}, headers={"prefer": "wait=60"})
        assert again.json()["status"] == "ok"
    for process in (shared.one, shared.other):
        assert "Traceback" not in process.log.read_text()


def test_without_redis_runs_go_on_and_are_still_streamed_by_the_other(shared: Shared) -> None:
    """An order cannot be given meanwhile, and is given once Redis is back."""
    with client_of(shared.one) as one, client_of(shared.other) as other:
        run = begun(one)
        events = events_of(other, run)
        seen = until_output(events)
        shared.news.kill()
        until(lambda: "Redis is away" in other.get("/readyz").text)
        seen += [next(events) for _ in range(5)]
        refused = other.post(f"/v1/runs/{run}/cancel")
        assert (refused.status_code, refused.json()["code"]) == (503, "process_away")
        shared.news.start()
        until(lambda: other.post(f"/v1/runs/{run}/cancel").status_code == 202)
        seen += events
        assert is_whole(seen)
        assert seen[-1]["data"]["status"] == "cancelled"
    for process in (shared.one, shared.other):
        assert "hush" not in process.log.read_text()


def test_a_process_without_redis_is_refused_beside_others(shared: Shared, folder: Path, settings) -> None:
    """And says what to do."""
    without = dict.fromkeys(("REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD"), "")
    with pytest.raises(AssertionError, match="set REDIS_URL"):
        start_service(folder, beside=shared.one, **{**settings, **without})


def test_a_service_of_one_process_over_postgres_takes_its_place_again(
    servers: tuple[Killable, Killable], processes: list[Served], tmp_path: Path
) -> None:
    """A second is refused while the first one lives, also behind a restart of the database."""
    for process in processes:
        end_service(process)
    alone = {"DATABASE_URL": f"postgresql://app:hush-db@127.0.0.1:{servers[0].port}/postgres"}
    first = until(lambda: _started(tmp_path, alone))
    try:
        servers[0].kill()
        servers[0].start()
        until(lambda: "has its place again" in first.log.read_text())
        assert _started(tmp_path, alone, first) is None
        with client_of(first) as client:
            answer = client.post("/v1/runs", json={"code": "print(1)"}, headers={"prefer": "wait=60"})
        assert answer.json()["status"] == "ok"
    finally:
        end_service(first)
    second = until(lambda: _started(tmp_path, alone, first))
    end_service(second)


def test_a_process_whose_place_was_taken_meanwhile_ends(
    servers: tuple[Killable, Killable], processes: list[Served], tmp_path: Path
) -> None:
    """It was stopped while the database was started again, so it had lost its place, and did not know."""
    for process in processes:
        end_service(process)
    alone = {"DATABASE_URL": f"postgresql://app:hush-db@127.0.0.1:{servers[0].port}/postgres"}
    first = until(lambda: _started(tmp_path, alone))
    second = None
    try:
        with client_of(first) as client:
            run = begun(client)
        os.kill(first.process.pid, signal.SIGSTOP)
        servers[0].kill()
        servers[0].start()
        second = start_service(tmp_path, beside=first, **alone)
        with client_of(second) as client:
            assert ended(client, run)["status"] == "lost"
            os.kill(first.process.pid, signal.SIGCONT)
            first.process.wait(60)
            assert "serves this database already" in first.log.read_text()
            assert client.get(f"/v1/runs/{run}").json()["status"] == "lost"
            answer = client.post("/v1/runs", json={"code": "print(1)"}, headers={"prefer": "wait=60"})
            assert answer.json()["status"] == "ok"
    finally:
        first.process.send_signal(signal.SIGCONT)
        for process in (first, second):
            if process is not None:
                end_service(process)


def _started(folder: Path, settings: dict[str, str], beside: Served | None = None) -> Served | None:
    """A process, if it is not refused; then it says why."""
    try:
        return start_service(folder, beside=beside, **settings)
    except AssertionError as error:
        if "serves this database already" not in str(error):
            raise
        return None
