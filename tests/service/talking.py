"""A client of the service as these tests need one."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2

from tests.service.conftest import Served
from tests.service.several import store

PATIENCE_S = 60.0
#: Prints a number ten times a second, for a minute at most.
COUNTING = "import time\nfor number in range(600):\n    print(number, flush=True)\n    time.sleep(0.1)\n"


def client_of(served: Served, key: str = "") -> httpx2.Client:
    """Of alice, or of who has *key*."""
    headers = {"authorization": f"Bearer {key or served.key}"}
    return httpx2.Client(base_url=served.url, headers=headers, timeout=PATIENCE_S)


def begun(client: httpx2.Client, code: str = COUNTING, **body: Any) -> str:  # noqa: ANN401 - fields of the body
    """The id of a new run."""
    answer = client.post("/v1/runs", json={"code": code, "timeout_s": 120, **body})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def events_of(client: httpx2.Client, run: str, after: int = 0) -> Iterator[dict[str, Any]]:
    """The events of a run, as a program that waits for them gets them, until the stream ends."""
    headers = {"last-event-id": str(after)} if after else {}
    with client.stream("GET", f"/v1/runs/{run}/events", headers=headers) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


def until_output(events: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events until something was printed."""
    seen = []
    for one in events:
        seen.append(one)
        if one["kind"] == "output":
            return seen
    raise AssertionError(f"nothing was printed: {seen}")


def printed(events: list[dict[str, Any]]) -> str:
    """All of what the events say was printed."""
    return "".join(one["data"]["text"] for one in events if one["kind"] == "output")


def is_whole(events: list[dict[str, Any]]) -> bool:
    """Whether no event is missing, none comes twice, and the outcome is the last."""
    numbers = [one["seq"] for one in events]
    kinds = [one["kind"] for one in events]
    return numbers == list(range(1, len(numbers) + 1)) and kinds.index("outcome") == len(kinds) - 1


def ended(client: httpx2.Client, run: str) -> dict[str, Any]:
    """The run once it has ended."""
    return until(lambda: (view := client.get(f"/v1/runs/{run}").json()).get("ended") and view)


def once_lost(client: httpx2.Client, run: str) -> dict[str, Any]:
    """The run whose process was killed. A process alone ends it before it serves; of several, one does so later."""
    return ended(client, run) if store() == "postgres" else dict(client.get(f"/v1/runs/{run}").json())


def until(look: Callable[[], Any]) -> Any:  # noqa: ANN401 - what is looked for
    """What *look* finds, once it finds something."""
    end = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
    return found
