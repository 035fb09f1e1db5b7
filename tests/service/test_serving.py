"""The service as a process: where it is, and how it ends."""

import json
import signal
import threading
import time

import httpx2
import pytest

from tests.service.conftest import end_service, start_service
from tests.service.talking import client_of, once_lost

pytestmark = [pytest.mark.slow, pytest.mark.any_user]


def _until_outcome(url: str, key: str, run: str, seen: list[str], begun: threading.Event) -> None:
    with httpx2.stream(
        "GET", f"{url}/v1/runs/{run}/events", headers={"authorization": f"Bearer {key}"}, timeout=60
    ) as told:
        for line in told.iter_lines():
            if line.startswith("event: "):
                seen.append(line[7:])
                if line == "event: output":
                    begun.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_runs_before_streams(tmp_path, number) -> None:
    """Each open stream gets its outcome, the process exits with 0, and the run is `cancelled` with what it printed."""
    running = start_service(tmp_path)
    try:
        headers = {"authorization": f"Bearer {running.key}"}
        code = "import time\nprint('kept', flush=True)\ntime.sleep(600)"
        run = httpx2.post(f"{running.url}/v1/runs", json={"code": code}, headers=headers).json()["id"]
        seen: list[str] = []
        begun = threading.Event()
        watcher = threading.Thread(target=_until_outcome, args=(running.url, running.key, run, seen, begun))
        watcher.start()
        assert begun.wait(60)
        began = time.monotonic()
        running.process.send_signal(number)
        assert running.process.wait(60) == 0
        assert time.monotonic() - began < 30  # the log of a quiet machine says some tenths of a second
        watcher.join(60)
        assert seen[-1] == "outcome"
    finally:
        end_service(running)
    again = start_service(tmp_path)
    try:
        view = httpx2.get(f"{again.url}/v1/runs/{run}", headers=headers).json()
        assert (view["status"], view["result"]["stdout"]) == ("cancelled", "kept\n")
    finally:
        end_service(again)


def test_a_killed_service_leaves_lost_runs_with_their_output(tmp_path) -> None:
    """After SIGKILL the next process ends them, and serves what was printed."""
    running = start_service(tmp_path)
    headers = {"authorization": f"Bearer {running.key}"}
    try:
        code = "import time\nprint('kept', flush=True)\ntime.sleep(600)"
        run = httpx2.post(f"{running.url}/v1/runs", json={"code": code}, headers=headers).json()["id"]
        seen: list[str] = []
        begun = threading.Event()
        watcher = threading.Thread(target=_watched, args=(running.url, running.key, run, seen, begun))
        watcher.start()
        assert begun.wait(60)
    finally:
        running.process.kill()
        end_service(running)
        watcher.join(60)
    again = start_service(tmp_path)
    try:
        with client_of(again, running.key) as client:
            view = once_lost(client, run)
        assert (view["status"], view["result"]["error"]["code"]) == ("lost", "host_lost")
        told = httpx2.get(f"{again.url}/v1/runs/{run}/events", headers=headers).text
        data = [json.loads(line[6:]) for line in told.splitlines() if line.startswith("data: ")]
        assert [one["data"]["text"] for one in data if one["kind"] == "output"] == ["kept\n"]
        assert data[-1]["kind"] == "outcome"
        assert httpx2.get(f"{again.url}/v1/runs/{run}/logs/user", headers=headers).text.endswith("\nkept\n")
    finally:
        end_service(again)


def _watched(url: str, key: str, run: str, seen: list[str], begun: threading.Event) -> None:
    try:
        _until_outcome(url, key, run, seen, begun)
    except httpx2.HTTPError:
        seen.append("cut off")


@pytest.mark.sqlite
def test_a_second_process_is_refused(tmp_path) -> None:
    """Without Redis it would not hear of the first one's runs: it says what to do, and nothing is started."""
    running = start_service(tmp_path)
    try:
        with pytest.raises(AssertionError, match="another process serves"):
            start_service(tmp_path)
    finally:
        end_service(running)
