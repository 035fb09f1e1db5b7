"""Recovery, listing, removal and retention of run folders, with real hosts that are really killed."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from isorun.core.errors import InvalidRequest
from isorun.core.result import RunResult
from isorun.store.folder import Lease, RunFolder, open_state
from isorun.store.recovery import host_died, listing, recover, remove, sweep
from tests.unit.forked import in_child

pytestmark = pytest.mark.uid

ABOUT = {"prog_name": "report", "turn": "turn_1", "timeout": 600}


@contextmanager
def host(root: Path, *exec_ids: str, first: Callable[[Lease], None] | None = None) -> Iterator[int]:
    """A process with a lease and the given runs, killed at the end of the block if not before."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        lease = Lease.take(root)
        for exec_id in exec_ids:
            RunFolder.create(root, exec_id, lease, ABOUT)
        if first:
            first(lease)
        os.write(tell, b".")
        signal.pause()
        os._exit(0)
    os.close(tell)
    try:
        assert os.read(ready, 1) == b"."
        yield pid
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def made(root: Path, exec_id: str, status: str | None = "ok") -> RunFolder:
    """A folder whose host has gone; with a result unless *status* is None."""
    with Lease.take(root) as lease:
        folder = RunFolder.create(root, exec_id, lease, ABOUT)
        if status:
            folder.write_result(json.dumps({"status": status}).encode())
    return folder


def statuses(root: Path) -> dict[str, str]:
    return {run.exec_id: run.status for run in listing(root)}


def test_a_killed_hosts_run_is_ended_as_lost(tmp_path: Path) -> None:
    """A run whose host was SIGKILLed gets a result and a log line that say so, once."""
    with host(tmp_path, "run-1"):
        pass
    assert recover(tmp_path) == ["run-1"]
    out = tmp_path / "codegen_run-1/out"
    result = json.loads((out / "result.json").read_bytes())
    assert set(result) == {f.name for f in fields(RunResult)}
    assert result["timings"]["accepted"] < result["timings"]["ended"]
    assert result["error"] == {
        "code": "host_lost",
        "message": "the host process died before the run ended",
        "where": None,
        "details": {},
        "hint": "Run the program again. Everything logged until then is in out/logs/.",
    }
    known = {name: result[name] for name in ("schema", "ok", "status", "exec_id", "turn_id", "prog_name", "out_dir")}
    assert known == {
        "schema": 1,
        "ok": False,
        "status": "lost",
        "exec_id": "run-1",
        "turn_id": "turn_1",
        "prog_name": "report",
        "out_dir": str(out),
    }
    assert result["report_text"].startswith("status: lost\nrun: run-1 (report)\nruntime failure: host_lost: ")
    (line,) = (out / "logs/infra.log").read_text().splitlines()
    assert line.endswith("Z ERROR [runtime] host_lost: the host process died before the run ended")
    assert os.listdir(open_state(str(tmp_path))) == []
    assert recover(tmp_path) == []


def test_a_living_hosts_run_is_not_touched(tmp_path: Path) -> None:
    """While its host lives a run is running: not recovered, not swept, not removed."""
    with host(tmp_path, "run-1"):
        assert recover(tmp_path) == []
        assert sweep(tmp_path, older_than_s=0, now=1e12) == []
        with pytest.raises(InvalidRequest, match=r"^run run-1 is running; cancel it first, or wait for its end$"):
            remove(tmp_path, "run-1")
        assert statuses(tmp_path) == {"run-1": "running"}
        assert not (tmp_path / "codegen_run-1/out/result.json").exists()
    assert statuses(tmp_path) == {"run-1": "lost"}


def test_ones_own_run_is_not_touched(tmp_path: Path) -> None:
    """A second Runtime in the same process does not end the runs of the first."""
    with Lease.take(tmp_path) as lease:
        RunFolder.create(tmp_path, "run-1", lease, ABOUT)
        assert recover(tmp_path) == []
        assert statuses(tmp_path) == {"run-1": "running"}


def test_an_ended_run_keeps_its_result(tmp_path: Path) -> None:
    """A result that stands is never overwritten by recovery."""
    made(tmp_path, "run-1", "failed")
    assert recover(tmp_path) == []
    assert statuses(tmp_path) == {"run-1": "failed"}


def test_hosts_that_recover_at_once_do_not_collide(tmp_path: Path) -> None:
    """Of four hosts that start together each lost run is ended by one, and none is forgotten."""
    runs = [f"run-{number:02}" for number in range(40)]
    with host(tmp_path, *runs[:20]), host(tmp_path, *runs[20:]):
        pass
    gate, opened = os.pipe()
    pids, answers = [], []
    for _ in range(4):
        answer, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(opened)
            os.read(gate, 1)  # ends for all at once, when the test closes its end
            os.write(tell, json.dumps(recover(tmp_path)).encode())
            os._exit(0)
        os.close(tell)
        pids.append(pid)
        answers.append(answer)
    os.close(opened)
    os.close(gate)
    ended = [exec_id for fd in answers for exec_id in json.loads(os.read(fd, 65536))]
    for pid, fd in zip(pids, answers, strict=True):
        os.close(fd)
        assert os.waitpid(pid, 0)[1] == 0
    assert sorted(ended) == runs
    for exec_id in runs:
        log = tmp_path / f"codegen_{exec_id}/out/logs/infra.log"
        assert len(log.read_text().splitlines()) == 1
    assert set(statuses(tmp_path).values()) == {"lost"}


def test_a_host_killed_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    """A half-made folder, one made ahead, a half-removed one and a half-written result are cleared away."""

    def half(lease: Lease) -> None:
        os.makedirs(f"{lease.path}.run-2.building/out/logs")
        lease.make_ahead()
        os.makedirs(f"{os.path.dirname(lease.path)}/run-3-x.removed/out/deep")
        (tmp_path / "codegen_run-1/result.json.new").write_text('{"status": "o')

    with host(tmp_path, "run-1", first=half):
        assert recover(tmp_path) == []
        state = open_state(str(tmp_path))
        assert sorted(name.rpartition(".")[2] for name in os.listdir(state)) == ["building", "building", "lease"]
    assert recover(tmp_path) == ["run-1"]
    assert os.listdir(state) == []
    assert statuses(tmp_path) == {"run-1": "lost"}


def test_a_cut_run_json_is_a_lost_run(tmp_path: Path) -> None:
    """What a power failure cut short is shown as damaged, and ended like any lost run."""
    folder = made(tmp_path, "run-1", None)
    (folder.path / "run.json").write_text('{"exec_id": ')
    assert statuses(tmp_path) == {"run-1": "damaged"}
    assert recover(tmp_path) == ["run-1"]
    assert json.loads((folder.out / "result.json").read_bytes())["status"] == "lost"


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '{"status": "fine"}', '{"status": []}', "\xff"])
def test_a_damaged_result_does_not_break_the_listing(tmp_path: Path, text: str) -> None:
    """A result that is no result is one damaged line, and the other runs are listed."""
    (made(tmp_path, "run-1").out / "result.json").write_bytes(text.encode("latin-1"))
    made(tmp_path, "run-2")
    assert statuses(tmp_path) == {"run-2": "ok", "run-1": "damaged"}


def test_a_fifo_for_a_result_does_not_hold_the_listing(tmp_path: Path) -> None:
    """Whoever puts a FIFO where the result belongs gets a damaged run, not a hanging reader."""
    result = made(tmp_path, "run-1").out / "result.json"
    result.unlink()
    os.mkfifo(result)
    assert statuses(tmp_path) == {"run-1": "damaged"}


def test_the_newest_run_is_first_and_its_size_is_told(tmp_path: Path) -> None:
    """The listing is sorted by time of acceptance and says what a run takes on the disk."""
    for exec_id in ("b", "a", "c"):
        folder = made(tmp_path, exec_id)
        told = json.loads((folder.path / "run.json").read_bytes())
        told["accepted"] = f"2026-01-0{'bac'.index(exec_id) + 1}T00:00:00.000Z"
        (folder.path / "run.json").write_text(json.dumps(told))
    (tmp_path / "codegen_c/out/large").write_bytes(b"x" * 100_000)
    runs = listing(tmp_path)
    assert [(run.exec_id, run.accepted[:10], run.prog_name) for run in runs] == [
        ("c", "2026-01-03", "report"),
        ("a", "2026-01-02", "report"),
        ("b", "2026-01-01", "report"),
    ]
    assert runs[0].bytes_used - runs[1].bytes_used >= 100_000


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, ["d", "c", "b", "a"]),
        ({"most": 2}, ["d", "c"]),
        ({"status": "failed"}, ["c", "a"]),
        ({"status": "failed", "most": 1}, ["c"]),
        ({"status": "ok", "most": 9}, ["d", "b"]),
    ],
)
def test_the_newest_of_one_status_are_listed(tmp_path: Path, options: dict[str, Any], found: list[str]) -> None:
    """As many as are asked for, by the time of acceptance, not by name or by when a folder changed."""
    for day, exec_id in reversed(list(enumerate("abcd", 1))):
        folder = made(tmp_path, exec_id, "failed" if exec_id in "ac" else "ok")
        told = json.loads((folder.path / "run.json").read_bytes())
        told["accepted"] = f"2026-01-0{day}T00:00:00.000Z"
        (folder.path / "run.json").write_text(json.dumps(told))
    assert [run.exec_id for run in listing(tmp_path, **options)] == found


def test_only_old_and_ended_runs_are_swept(tmp_path: Path) -> None:
    """Retention removes what ended before the moment, and keeps what did not end."""
    for exec_id, status, ended in (("old", "ok", 1000), ("new", "ok", 2000), ("open", None, 0)):
        folder = made(tmp_path, exec_id, status)
        if status:
            os.utime(folder.out / "result.json", (ended, ended))
    assert sweep(tmp_path, older_than_s=500, now=2000) == ["old"]
    assert statuses(tmp_path) == {"open": "lost", "new": "ok"}
    (lease,) = os.listdir(open_state(str(tmp_path)))  # of the run that did not end: a start sees by it that one is lost
    assert lease == json.loads((tmp_path / "codegen_open/run.json").read_bytes())["lease"]


def test_an_id_tells_that_a_run_is_not_old(tmp_path: Path) -> None:
    """A run whose id was made since then is passed over; not one with an id of the caller's, or of the future."""
    day = {"young": "20260302-000000-000000-0123456789ab", "old": "20260101-000000-000000-0123456789ab"}
    ids = [*day.values(), "20990101-000000-000000-0123456789ab", "mine"]
    for exec_id in ids:
        os.utime(made(tmp_path, exec_id).out / "result.json", (1000, 1000))
    now = datetime(2026, 3, 3, tzinfo=UTC).timestamp()
    assert sweep(tmp_path, older_than_s=7 * 86400, now=now, by_id=True) == sorted(set(ids) - {day["young"]})
    assert sweep(tmp_path, older_than_s=7 * 86400, now=now) == [day["young"]]


def test_a_removal_stops_when_it_is_told_to(tmp_path: Path) -> None:
    """A host that closes does not wait until ten thousand runs have gone; the next one goes on."""
    for exec_id in "abc":
        made(tmp_path, exec_id)
    turns = iter((True, True, False))
    assert sweep(tmp_path, older_than_s=0, now=1e12, goes_on=lambda: next(turns)) == ["a", "b"]
    assert sweep(tmp_path, older_than_s=0, now=1e12) == ["c"]


def test_a_host_that_closes_leaves_its_lease_only_with_a_run_without_result(tmp_path: Path) -> None:
    """So the leases alone tell whether something is lost: of a run that ended, or was discarded, none stays."""
    made(tmp_path, "run-1")
    with Lease.take(tmp_path) as lease:
        RunFolder.create(tmp_path, "run-2", lease, ABOUT).discard()
        assert not host_died(tmp_path)
    assert not host_died(tmp_path)
    made(tmp_path, "run-3", None)
    assert host_died(tmp_path)
    assert recover(tmp_path) == ["run-3"]
    assert not host_died(tmp_path)


def test_a_dead_hosts_lease_stays_until_its_runs_are_ended(tmp_path: Path) -> None:
    """A recovery that is interrupted, or passes one over, does not make the next start believe that all is well."""
    made(tmp_path, "run-1", None)
    assert recover(tmp_path, goes_on=lambda: False) == []
    assert host_died(tmp_path)
    (tmp_path / "codegen_run-1/out").rename(tmp_path / "codegen_run-1/was")
    (tmp_path / "codegen_run-1/out").symlink_to(tmp_path)
    stuck: list[str] = []
    assert (recover(tmp_path, stuck), stuck) == ([], ["run-1"])
    assert host_died(tmp_path)
    (tmp_path / "codegen_run-1/out").unlink()
    assert recover(tmp_path) == ["run-1"]
    assert not host_died(tmp_path)


def test_an_id_of_ours_is_listed_without_a_look_into_its_folder(tmp_path: Path) -> None:
    """Of many runs the newest are found by their ids; what is shown is read."""
    ids = [f"20260101-00000{n}-000000-0123456789ab" for n in range(4)]
    for exec_id in ids:
        made(tmp_path, exec_id)
    for exec_id in ids[:2]:
        (tmp_path / f"codegen_{exec_id}/run.json").unlink()  # would be listed as damaged, by when its folder changed
    assert [run.exec_id for run in listing(tmp_path, most=2)] == [ids[3], ids[2]]


def test_links_and_strangers_are_not_removed(tmp_path: Path) -> None:
    """A link named like a run, a bad id, and a folder without a run.json survive everything."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (outside / "out").mkdir(parents=True)
    (outside / "run.json").write_text("{}")
    (outside / "out/result.json").write_text("{}")
    (root / "codegen_mine/out").mkdir(parents=True)
    (root / "codegen_mine/out/result.json").write_text("{}")
    (root / "codegen_other/out").mkdir(parents=True)
    (root / "codegen_x").symlink_to(outside)
    (root / "codegen_BAD").mkdir()
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    assert recover(root) == []
    assert sweep(root, older_than_s=0, now=1e12) == []
    with pytest.raises(InvalidRequest, match=r"^there is no run x in ") as caught:
        remove(root, "x")
    assert caught.value.code == "no_such_run"
    with pytest.raises(InvalidRequest, match=r"^exec_id must be "):
        remove(root, "../outside")
    after = {str(path) for path in tmp_path.rglob("*")} - {open_state(str(root))}
    assert sorted(after) == before


@pytest.mark.root
def test_another_users_run_is_not_touched(tmp_path: Path) -> None:
    """A folder of another user is not listed, not ended and not removed, even by root."""
    folder = made(tmp_path, "run-1", None)
    os.chown(folder.path, 12345, 12345)
    assert recover(tmp_path) == []
    assert listing(tmp_path) == []
    with pytest.raises(InvalidRequest, match="there is no run run-1"):
        remove(tmp_path, "run-1")


def test_out_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    """A lost run whose out/ leads elsewhere is passed over: no result is written outside."""
    (tmp_path / "outside").mkdir()
    folder = made(tmp_path, "run-1", None)
    os.rename(folder.out, folder.path / "was")
    folder.out.symlink_to(tmp_path / "outside")
    made(tmp_path, "run-2", None)
    assert recover(tmp_path) == ["run-2"]
    assert os.listdir(tmp_path / "outside") == []


def hostile(out: Path, outside: Path) -> None:
    """What a program may leave: closed folders, links out of the root, deep nesting, odd names."""
    closed = out / "closed/inner"
    closed.mkdir(parents=True)
    (closed / "file").touch()
    closed.chmod(0)
    closed.parent.chmod(0)
    (out / "fixed/inner").mkdir(parents=True)
    (out / "fixed/inner").chmod(0o500)
    (out / "fixed").chmod(0o500)
    (out / "link").symlink_to(outside)
    (out / "loop").symlink_to("loop")
    os.mkfifo(out / "fifo")
    (out / os.fsdecode(b"\xff\n")).touch()
    fd = os.open(out, os.O_RDONLY)
    for _ in range(3000):  # deeper than the stack, the fds and PATH_MAX allow
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


@pytest.mark.slow
@pytest.mark.user
def test_whatever_a_program_left_is_removed(tmp_path: Path, ordinary_user: tuple[int, int] | None) -> None:
    """An ordinary user's run goes wholly: mode-000 folders, 3000 levels, and no link is followed."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "keep").touch()

    def work() -> list[str]:
        if ordinary_user is not None:
            os.setresgid(ordinary_user[1], ordinary_user[1], ordinary_user[1])
            os.setresuid(ordinary_user[0], ordinary_user[0], ordinary_user[0])
        os.chdir("/proc/self/fd/" + str(root_fd))
        hostile(made(Path("."), "run-1").out, outside)
        assert statuses(Path(".")) == {"run-1": "ok"}
        remove(Path("."), "run-1")
        return [*os.listdir("."), *os.listdir(open_state("."))]

    if ordinary_user is not None:
        for path in (root, outside):
            os.chown(path, *ordinary_user)
    root_fd = os.open(root, os.O_RDONLY)
    try:
        left = in_child(work)
    finally:
        os.close(root_fd)
        subprocess.run(["rm", "-rf", root], check=False)  # pytest's own removal cannot go 3000 folders deep
    assert len(left) == 1  # the empty state folder
    assert left[0].startswith(".isorun-")
    assert os.listdir(outside) == ["keep"]
