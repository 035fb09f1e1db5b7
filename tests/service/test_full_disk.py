"""A service whose disk is full says so, forgets nothing, and goes on once there is room.

Root's alone: in a user namespace of a user's own the service would find /tmp to be a stranger's, and refuse it.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.service.conftest import Served, end_service, start_service
from tests.service.talking import begun, client_of, ended, events_of, until_output

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.sqlite, pytest.mark.timeout(180)]

#: The folder behind it, with what is in it, on a small disk of its own; then the command.
_SMALL_DISK = """
set -e
mkdir "$0.disk"
mount -t tmpfs -o size=48m,mode=0700 none "$0.disk"
cp -a "$0/." "$0.disk/"
mount --move "$0.disk" "$0"
exec "$@"
"""


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[Served]:
    """A service whose data and runs are on a disk of 48 MB."""
    data = tmp_path / "data"
    data.mkdir()
    within = ["unshare", "--mount", "sh", "-c", _SMALL_DISK, str(data)]
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
