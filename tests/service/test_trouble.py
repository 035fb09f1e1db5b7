"""A full disk, killed parts, clients that stall: who is not concerned is answered, and every run has its end."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.service.conftest import Served, end_service, start_service
from tests.service.talking import begun, client_of, ended, events_of, is_whole, until, until_output

pytestmark = [pytest.mark.slow, pytest.mark.any_user, pytest.mark.sqlite, pytest.mark.timeout(180)]

#: The folder behind it, with what is in it, on a small disk of its own; then the command, as an ordinary program.
_SMALL_DISK = """
set -e
mkdir "$0.disk"
mount -n -t tmpfs -o size=48m,mode=0700 none "$0.disk"
cp -a "$0/." "$0.disk/"
mount -n --move "$0.disk" "$0"
exec setpriv --inh-caps=-all --ambient-caps=-all "$@"
"""


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[Served]:
    """A service whose data and runs are on a disk of 48 MB."""
    data = tmp_path / "data"
    data.mkdir()
    own_mounts = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-current-user", "--keep-caps"])
    within = [*own_mounts, "sh", "-c", _SMALL_DISK, str(data)]
    served = start_service(tmp_path, within=within, ISORUN_WORKSPACE_ROOT=str(data / "runs"))
    try:
        yield served
    finally:
        end_service(served)


def _fill(served: Served, folder: Path) -> Path:
    """A file in *folder*, as *served* sees it, which takes all the room."""
    filler = Path(f"/proc/{served.process.pid}/root{folder}/filler")
    with filler.open("wb", buffering=0) as target, suppress(OSError):
        while True:
            target.write(bytes(4096))
    return filler


def test_a_full_disk_is_said_and_forgotten(cramped: Served, tmp_path: Path) -> None:
    """It is not taken for a database that is away, which would come back by itself; removing a run makes room."""
    data = tmp_path / "data"
    with client_of(cramped) as client:
        large = ended(client, begun(client, "(OUT / 'large.bin').write_bytes(bytes(16_000_000))"))
        assert large["status"] == "ok"
        assert client.get("/readyz").status_code == 200
        filler = _fill(cramped, data)
        uploads = len(list(filler.with_name("uploads").iterdir()))
        refused = [
            client.post("/v1/runs", json={"code": "print(1)"}),
            client.post("/v1/files", files={"file": ("a.bin", bytes(3_000_000))}),
        ]
        assert [(one.status_code, one.json()["code"]) for one in refused] == [(507, "disk_full")] * 2
        assert len(list(filler.with_name("uploads").iterdir())) == uploads
        assert (client.get("/readyz").status_code, client.get("/healthz").status_code) == (503, 200)

        assert client.delete(f"/v1/runs/{large['id']}").status_code == 204
        assert ended(client, begun(client, "print(2)"))["status"] == "ok"
        filler.unlink()
        assert client.get("/readyz").status_code == 200
    log = cramped.log.read_text()
    assert "the disk is full" in log
    assert str(data) in log


def test_a_run_that_finds_no_room_for_its_files_says_so(cramped: Served, tmp_path: Path) -> None:
    """Its promised file is never said to be there."""
    with client_of(cramped) as client:
        run = begun(
            client,
            "import time\nprint('begun', flush=True)\ntime.sleep(3)\n(OUT / 'a.bin').write_bytes(bytes(30_000_000))",
            contract=[{"filename": "a.bin", "description": "bytes"}],
        )
        until_output(events_of(client, run))
        filler = Path(f"/proc/{cramped.process.pid}/root{tmp_path / 'data'}/filler")
        filler.write_bytes(bytes(25_000_000))  # the rest is enough for what the database writes
        view = ended(client, run)
        assert (view["status"], view["result"]["error"]["code"]) == ("lost", "disk_full")
        assert client.get(f"/v1/runs/{run}/files/a.bin").status_code == 404
        filler.unlink()
        assert ended(client, begun(client, "print(2)"))["status"] == "ok"


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
