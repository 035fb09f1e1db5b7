"""Killed parts, clients that stall: who is not concerned is answered, and every run has its end."""

import os
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.service.conftest import Served, end_service, start_service
from tests.service.talking import begun, client_of, ended, events_of, is_whole, until, until_output

pytestmark = [pytest.mark.slow, pytest.mark.any_user, pytest.mark.sqlite, pytest.mark.timeout(180)]

_CALLS_A_TOOL = "import generic_tools\nprint(type(await generic_tools.web_search(query='birds')))"


def _below(pid: int) -> list[int]:
    """Every process that descends from *pid*."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            for child in (task / "children").read_text().split():
                found += [int(child), *_below(int(child))]
    return found


def test_of_killed_processes_of_ours_every_run_has_an_end_and_the_next_is_well(tmp_path: Path) -> None:
    """Zygote, template, waiting slots, supervisor, all of them at once, while runs go on."""
    served = start_service(tmp_path)
    try:
        with client_of(served) as client:
            runs = [begun(client) for _ in range(3)]
            streams = [events_of(client, run) for run in runs]
            seen = [until_output(stream) for stream in streams]
            for pid in _below(served.process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            told = [[*before, *behind] for before, behind in zip(seen, streams, strict=True)]
            assert all(is_whole(one) for one in told)
            assert {one[-1]["data"]["status"] for one in told} == {"lost"}
            again = ended(client, begun(client, _CALLS_A_TOOL, tools=["generic_tools.web_search"]))
            assert (again["status"], again["result"]["stdout"]) == ("ok", "<class 'list'>\n")
    finally:
        end_service(served)


def test_clients_that_stall_hold_up_nobody(served: Served) -> None:
    """A hundred who send half a request, and a hundred who ask for a flood and do not read it."""
    host, port = served.url.removeprefix("http://").split(":")
    flood = "import sys\nfor _ in range(200):\n    sys.stdout.write(5_000 * 'x' + '\\n')\n"
    with ExitStack() as stack, client_of(served) as client:
        run = ended(client, begun(client, flood))["id"]
        before = _memory(served)
        head = f"GET /v1/runs/{run}/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {served.key}\r\n"
        for number in range(200):
            made = stack.enter_context(socket.create_connection((host, int(port))))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            made.sendall(head.encode() + (b"\r\n" if number % 2 else b""))
        answers = [ended(client, begun(client, f"print({number})")) for number in range(5)]
        assert [one["result"]["stdout"] for one in answers] == [f"{number}\n" for number in range(5)]
        assert _memory(served) - before < 64 << 20
    with client_of(served) as client:
        assert until(lambda: client.get("/healthz").status_code == 200)


def _memory(served: Served) -> int:
    """Bytes that the service's process holds."""
    text = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) << 10
