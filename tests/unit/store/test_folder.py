"""The run folder: what is written where, what a full disk says, whose roots are refused."""

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isorun.core.errors import InvalidRequest, SetupFailed
from isorun.store.folder import Lease, RunFolder, lease_held, open_root, open_state
from tests.unit.forked import in_child

pytestmark = pytest.mark.uid

ABOUT = {"prog_name": "report", "turn": "turn_1", "timeout": 600}
REMEDY = "free space there, or set ISORUN_WORKSPACE_ROOT to a writable folder with room"


def test_a_run_folder_is_private_and_names_its_host(tmp_path: Path) -> None:
    """A new folder is 0700, has work/ and out/logs/, and its run.json names run, lease and time."""
    with Lease.take(tmp_path) as lease:
        folder = RunFolder.create(tmp_path, "run-1", lease, ABOUT)
        assert folder.path == tmp_path / "codegen_run-1"
        assert folder.path.stat().st_mode & 0o7777 == 0o700
        assert sorted(str(p.relative_to(folder.path)) for p in folder.path.rglob("*")) == [
            "out",
            "out/logs",
            "run.json",
            "work",
        ]
        told = json.loads((folder.path / "run.json").read_bytes())
        assert told.pop("accepted").endswith("Z")
        assert told == {**ABOUT, "schema": 1, "exec_id": "run-1", "lease": lease.name}


def test_a_folder_made_ahead_becomes_that_of_a_conducted_run(tmp_path: Path) -> None:
    """It is as private, has its logs, still empty, and is used once; a run that is not conducted gets none."""
    with Lease.take(tmp_path) as lease:
        state = open_state(str(tmp_path))
        lease.make_ahead()
        (made,) = set(os.listdir(state)) - {lease.name}
        assert re.fullmatch(rf"{re.escape(lease.name)}\.[0-9a-f]{{32}}\.building", made)
        inode = os.stat(f"{state}/{made}").st_ino
        assert RunFolder.create(tmp_path, "run-1", lease, ABOUT).path.stat().st_ino != inode
        folder = RunFolder.create(tmp_path, "run-2", lease, ABOUT, conducted=True)
        assert (folder.path.stat().st_ino, folder.path.stat().st_mode & 0o7777) == (inode, 0o700)
        assert json.loads((folder.path / "run.json").read_bytes())["exec_id"] == "run-2"
        logs = sorted(path for path in folder.out.rglob("*") if path.is_file())
        assert [(path.name, path.stat().st_size) for path in logs] == [
            ("infra.log", 0),
            ("user.log", 0),
            ("runtime.err.log", 0),
            ("runtime.out.log", 0),
        ]
        folder.write_launcher(b"", b"said")
        assert (folder.out / "runtime.err.log").read_bytes() == b"said"
        third = RunFolder.create(tmp_path, "run-3", lease, ABOUT, conducted=True)
        third.write_launcher(b"", b"")
        assert (third.out / "runtime.err.log").read_bytes() == b""
        assert os.listdir(state) == [lease.name]


def test_folders_made_ahead_are_few_and_go_with_their_lease(tmp_path: Path) -> None:
    """A taken exec id removes the one that was to be its run's; after the lease none is made."""
    with Lease.take(tmp_path) as lease:
        state = open_state(str(tmp_path))
        for _ in range(20):
            lease.make_ahead()
        assert len(os.listdir(state)) == 1 + 4
        RunFolder.create(tmp_path, "run-1", lease, ABOUT).write_result(b"{}")
        with pytest.raises(InvalidRequest, match="there is a run run-1 already"):
            RunFolder.create(tmp_path, "run-1", lease, ABOUT, conducted=True)
        assert len(os.listdir(state)) == 1 + 3
        in_child(lease.make_ahead)
        assert len(os.listdir(state)) == 1 + 3
    assert os.listdir(state) == []
    lease.make_ahead()
    assert os.listdir(state) == []


def test_an_old_folder_made_ahead_is_not_used(tmp_path: Path, monkeypatch) -> None:
    """Who tidies temporary folders may have taken files out of it."""
    with Lease.take(tmp_path) as lease:
        lease.make_ahead()
        now = time.monotonic()
        monkeypatch.setattr("isorun.store.folder.time.monotonic", lambda: now + 301)
        assert lease.take_ahead() is None
        assert os.listdir(open_state(str(tmp_path))) == [lease.name]


def test_a_program_is_kept_twice_and_not_linked(tmp_path: Path) -> None:
    """The record in out/executed_programs is a copy: writing to work/ does not change it."""
    with Lease.take(tmp_path) as lease:
        folder = RunFolder.create(tmp_path, "run-1", lease, ABOUT)
        folder.write_program(b"main", b"code")
        for name, data in (("main.py", b"main"), ("user_code.py", b"code")):
            (folder.work / name).write_bytes(b"changed")
            assert (folder.out / "executed_programs/run-1" / name).read_bytes() == data


def test_an_exec_id_is_used_once(tmp_path: Path) -> None:
    """A second run of the same id is refused, and leaves the first as it was and nothing aside."""
    with Lease.take(tmp_path) as lease:
        RunFolder.create(tmp_path, "run-1", lease, ABOUT)
        with pytest.raises(InvalidRequest, match=r"^there is a run run-1 already; give another exec_id") as caught:
            RunFolder.create(tmp_path, "run-1", lease, {})
        assert caught.value.code == "exec_id_taken"
        assert os.listdir(open_state(str(tmp_path))) == [lease.name]


@pytest.mark.parametrize("exec_id", ["", "..", "a/b", "A", "a" * 41])
def test_an_exec_id_that_is_no_name_makes_nothing(tmp_path: Path, exec_id: str) -> None:
    """An id that could leave the root is refused before anything is made."""
    with Lease.take(tmp_path) as lease:
        before = os.listdir(tmp_path)
        with pytest.raises(InvalidRequest):
            RunFolder.create(tmp_path, exec_id, lease, ABOUT)
        assert os.listdir(tmp_path) == before


def test_a_log_line_cannot_be_forged(tmp_path: Path) -> None:
    """Each append is one line; newlines, escapes and text direction marks are shown, not acted on."""
    with Lease.take(tmp_path) as lease:
        folder = RunFolder.create(tmp_path, "run-1", lease, ABOUT)
        folder.append_infra("executor", "warning", "a\n2026 INFO [runtime] b\x1b[2J\u2028\u202e\udc80 ü")
        folder.append_infra("runtime", "info", "next")
    first, second = folder.infra_log.read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO \[runtime\] next", second)
    assert first.partition("Z ")[2] == (r"WARNING [executor] a\n2026 INFO [runtime] b\x1b[2J\u2028\u202e\x80 ü")


def test_infra_log_is_opened_once_in_a_block_and_closed_after_it(tmp_path: Path) -> None:
    """All lines of a run go to the file that its first one went to; before and after the block, each opens it anew."""
    with Lease.take(tmp_path) as lease:
        folder = RunFolder.create(tmp_path, "run-1", lease, ABOUT)
        folder.append_infra("runtime", "info", "before")
        held = os.listdir("/proc/self/fd")
        with folder:
            folder.append_infra("runtime", "info", "first")
            folder.infra_log.rename(tmp_path / "moved")
            folder.append_infra("runtime", "info", "second")
            assert folder.infra_text().count("\n") == 3
        assert os.listdir("/proc/self/fd") == held
        folder.append_infra("runtime", "info", "after")
        words = [line.rpartition(" ")[2] for line in (tmp_path / "moved").read_text().splitlines()]
        assert words == ["before", "first", "second"]
        assert folder.infra_text().endswith("after\n")


def test_a_result_is_whole(tmp_path: Path) -> None:
    """A result replaces the last one in a single step."""
    with Lease.take(tmp_path) as lease:
        folder = RunFolder.create(tmp_path, "run-1", lease, ABOUT)
        folder.write_result(b'{"z": 1}\n')
        assert (folder.out / "result.json").read_bytes() == b'{"z": 1}\n'
        folder.write_result(b'{"z": 2}\n')
        assert (folder.out / "result.json").read_bytes() == b'{"z": 2}\n'
        assert sorted(os.listdir(folder.path)) == ["out", "run.json", "work"]


@pytest.mark.parametrize(
    ("path", "reserved"),
    [
        ("result.json", True),
        ("./result.json", True),
        ("tool_calls_index.json", True),
        ("runtime.out.log", True),
        ("runtime.err.log", True),
        ("logs", True),
        ("logs/user.log", True),
        ("executed_programs/x/main.py", True),
        ("Result.json", True),
        ("LOGS/user.log", True),
        ("tt.add-20260101T000000.000000-1.json", True),
        ("TT.ADD-20260101T000000.000000-1.JSON", True),
        ("\u200btt.add-20260101T000000.000000-1.json/x", True),
        ("a\nb-20260101T000000.000000-99.json", True),
        ("tt.add-20260101T000000.000000-1.json.txt", False),
        ("turn_1/files/tt.add-20260101T000000.000000-1.json", False),
        ("tt.add-2026-01-01-1.json", False),
        ("turn_1/files/result.json", False),
        ("logs2/a", False),
        ("", False),
    ],
)
def test_the_hosts_names_are_reserved(path: str, reserved: bool) -> None:
    """A program's file may not take a name of the host's, or one like it, at the top of out/ and nowhere else."""
    assert RunFolder.reserved(path) is reserved


def test_a_lease_is_held_for_the_life_of_its_block(tmp_path: Path) -> None:
    """A lease is locked inside its block; after it there is no file."""
    with Lease.take(tmp_path) as lease:
        path = Path(lease.path)
        with path.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert not path.exists()


@pytest.mark.parametrize("name", ["../held.lease", "held", "gone.lease", "held.lease\0", ".lease"])
def test_what_is_no_lease_is_not_held(tmp_path: Path, name: str) -> None:
    """A lease name from a changed run.json leads to nothing outside the state folder."""
    (tmp_path / "state").mkdir()
    state_fd = os.open(tmp_path / "state", os.O_RDONLY)
    try:
        with (tmp_path / "held.lease").open("w") as file, (tmp_path / "state/held").open("w") as other:
            fcntl.flock(file, fcntl.LOCK_EX)
            fcntl.flock(other, fcntl.LOCK_EX)
            assert not lease_held(name, state_fd)
    finally:
        os.close(state_fd)


def test_asking_for_a_lease_does_not_look_like_holding_it(tmp_path: Path) -> None:
    """A host that asks while another one asks learns that the lease is dead."""
    (tmp_path / "dead.lease").touch()
    state_fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with (tmp_path / "dead.lease").open() as asking:
            fcntl.flock(asking, fcntl.LOCK_SH)
            assert not lease_held("dead.lease", state_fd)
    finally:
        os.close(state_fd)


def test_a_missing_root_is_made(tmp_path: Path) -> None:
    """A root is made with its parents, for its owner alone."""
    root = open_root(tmp_path / "a/b")
    assert root == tmp_path / "a/b"
    assert root.stat().st_mode & 0o7777 == 0o700


def test_ones_own_link_is_a_root(tmp_path: Path) -> None:
    """A link of one's own is followed once, at the start: later it cannot be turned elsewhere."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert open_root(tmp_path / "link") == tmp_path / "real"


@pytest.mark.root
def test_a_link_of_another_user_is_refused(tmp_path: Path) -> None:
    """Whoever owns the link could turn it elsewhere."""
    link = tmp_path / "link"
    link.symlink_to("/")
    os.lchown(link, 12345, 12345)
    with pytest.raises(InvalidRequest) as caught:
        open_root(link)
    assert str(caught.value) == (
        f"the workspace root {link} is a link that belongs to uid 12345; "
        "set ISORUN_WORKSPACE_ROOT to a folder of your own"
    )
    assert caught.value.code == "invalid_root"


@pytest.mark.parametrize(("name", "reason"), [("file", "File exists"), ("file/x", "Not a directory")])
def test_a_root_that_is_no_folder_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    """A root that is a file or below one is the caller's mistake."""
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequest, match=f"cannot be used: {reason}"):
        open_root(tmp_path / name)


@pytest.mark.user
def test_a_root_that_cannot_be_written_is_refused(ordinary_user: tuple[int, int] | None) -> None:
    """A folder that is not writable is refused at the start, not at the first run."""

    def refusal() -> str:
        if ordinary_user is not None:
            os.setresgid(ordinary_user[1], ordinary_user[1], ordinary_user[1])
            os.setresuid(ordinary_user[0], ordinary_user[0], ordinary_user[0])
        with pytest.raises(InvalidRequest) as caught:
            open_root(Path("/"))
        return str(caught.value)

    assert in_child(refusal) == (
        "the workspace root / cannot be written; set ISORUN_WORKSPACE_ROOT to a folder of your own"
    )


@pytest.mark.root
def test_a_state_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    """In a shared temporary folder another user may make ours first, and could then remove our leases."""
    state = open_state(str(tmp_path))
    os.chown(state, 12345, 12345)
    with pytest.raises(SetupFailed) as caught:
        Lease.take(tmp_path)
    assert str(caught.value) == (
        f"workspace: {state} is not a folder of this user but belongs to uid 12345; have that user or root remove it "
        f"(rm -r {state}), or set ISORUN_WORKSPACE_ROOT to a folder of your own"
    )


FULL = """
import os, subprocess, sys
from contextlib import suppress
from pathlib import Path
from isorun.core.errors import SetupFailed
from isorun.store.folder import Lease, RunFolder

def told(call, *args):
    try:
        call(*args)
    except SetupFailed as exc:
        print(exc)

root = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k,mode=0700", "tmpfs", root], check=True)
with Lease.take(root) as lease:
    folder = RunFolder.create(root, "run-1", lease, {})
    told(folder.write_result, b"x" * 1_000_000)
    told(folder.write_result, b"x")
    with suppress(OSError), open(root / "filler", "wb", buffering=0) as filler:
        while filler.write(b"x" * 4096):
            pass
    told(RunFolder.create, root, "run-2", lease, {})
    print(sorted(os.listdir(root)), sorted(os.listdir(folder.path)), sorted(os.listdir(folder.out)))
    print(os.listdir(Path(lease.path).parent) == [lease.name])
subprocess.run(["mount", "-o", "remount,ro", root], check=True)
told(folder.append_infra, "runtime", "info", "x")
"""


def test_a_full_disk_names_the_folder_and_the_remedy(tmp_path: Path, require) -> None:
    """No space and a read-only disk are SetupFailed with a remedy; nothing half-made stays."""
    if os.geteuid() != 0:
        require("root", "a tmpfs is mounted in a namespace of the test's own")
    done = subprocess.run(["unshare", "-m", sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True)
    run = f"workspace: {tmp_path}/codegen_run"
    assert done.stdout.splitlines() == [
        f"{run}-1: No space left on device; {REMEDY}",
        f"{run}-2: No space left on device; {REMEDY}",
        "['.isorun-0', 'codegen_run-1', 'filler'] ['out', 'run.json', 'work'] ['logs', 'result.json']",
        "True",
        f"{run}-1/out/logs/infra.log: Read-only file system; {REMEDY}",
    ], done.stderr


def test_a_root_with_an_access_list_that_lets_others_write_is_refused(tmp_path: Path) -> None:
    """Its group's bits are then not its group's, but the most that anybody in the list has."""
    root = tmp_path / "root"
    root.mkdir()
    rows = ((1, 7, -1), (2, 7, 12345), (4, 0, -1), (0x10, 7, -1), (0x20, 0, -1))  # user 12345 may write
    access = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *row) for row in rows)
    os.setxattr(root, "system.posix_acl_access", access)
    with pytest.raises(InvalidRequest, match=rf"others may write {root} \(mode 0770\)"):
        open_root(root)
    root.chmod(0o750)  # of the list's rights this leaves reading
    assert open_root(root) == root


def test_a_root_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """Whoever can rename a run's folder puts a link in its place, and root writes where it leads."""
    root = tmp_path / "a/root"
    root.mkdir(parents=True)
    assert open_root(root) == root
    for folder in (root, root.parent):
        for mode in (0o777, 0o757, 0o722):
            folder.chmod(mode)
            with pytest.raises(InvalidRequest) as caught:
                open_root(root)
            assert f"others may write {folder} (mode {mode:04o})" in str(caught.value)
            assert f"chmod go-w {folder}" in str(caught.value)
        folder.chmod(0o1777)
        assert open_root(root) == root, "in a sticky folder only an owner renames"
        folder.chmod(0o700)


@pytest.mark.root
def test_a_root_of_another_user_is_refused(tmp_path: Path) -> None:
    """Its owner may rename what lies in it, also where the folder is sticky; so may the owner of one above."""
    root = tmp_path / "a/root"
    root.mkdir(parents=True)
    for folder in (root, root.parent):
        os.chown(folder, 4242, -1)
        for mode in (0o755, 0o1777):
            folder.chmod(mode)
            with pytest.raises(InvalidRequest, match=f"{folder} belongs to uid 4242"):
                open_root(root)
        os.chown(folder, 0, -1)
        folder.chmod(0o755)
    os.chown(root, 0, 4242)
    root.chmod(0o775)
    with pytest.raises(InvalidRequest, match="others may write"):
        open_root(root)
    root.chmod(0o755)


@pytest.mark.root
@pytest.mark.parametrize("root", ["links/way/new/root", "own/new/root", "links/../links/way/new", "up"])
def test_a_link_of_another_user_on_the_way_is_refused(tmp_path: Path, root: str) -> None:
    """It would say where root makes folders; one of the user's own is followed, also through a second one."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (tmp_path / "links").mkdir()
    (tmp_path / "links/way").symlink_to("../secret")
    (tmp_path / "own").symlink_to(tmp_path / "links/way")
    (tmp_path / "up").symlink_to("own")
    os.lchown(tmp_path / "links/way", 4242, -1)
    with pytest.raises(InvalidRequest, match=f"is reached by {tmp_path}/links/way, a link that belongs to uid 4242"):
        open_root(tmp_path / root)
    assert not list(secret.iterdir()), "nothing was made where the link leads"
    os.lchown(tmp_path / "links/way", 0, -1)
    # Nor may it lie where another user can put a link of root's, or his own, in its place.
    os.chown(tmp_path / "links", 4242, -1)
    with pytest.raises(InvalidRequest, match=f"is reached by the link {tmp_path}/links/way, which is not safe"):
        open_root(tmp_path / root)
    assert not list(secret.iterdir())
    os.chown(tmp_path / "links", 0, -1)
    assert open_root(tmp_path / root).is_relative_to(secret)


def test_a_link_to_itself_is_no_root(tmp_path: Path) -> None:
    """It is refused, and the walk over the links ends."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for root in ("a", "a/x"):
        with pytest.raises(InvalidRequest, match="cannot be used: "):
            open_root(tmp_path / root)
