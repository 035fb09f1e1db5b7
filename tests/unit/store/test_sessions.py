"""Sessions on the disk: whole at every moment, one holder at a time, removed only while nobody has them."""

import fcntl
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import isorun
from isorun.core.ids import check_session
from isorun.store.collect import fingerprints
from isorun.store.folder import open_root, state_name
from isorun.store.recovery import recover
from isorun.store.sessions import HeldSession, files_of, listing, path_of, remove, sweep_sessions, take
from tests.unit.forked import in_child

pytestmark = pytest.mark.uid

LIMITS = isorun.Limits()
FILES = 40
KILLS = 60
ENOUGH = 10  # different files that are seen: with fewer, the kills missed what they were meant for


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return open_root(tmp_path / "root")


def taken(root: Path, name: str = "one") -> HeldSession:
    held = take(root, name)
    assert held is not None
    return held


def keep(root: Path, out: Path, name: str = "one", before: dict[str, str] | None = None) -> None:
    """What a run does once it has ended and left *out*."""
    held = taken(root, name)
    fd = os.open(out, os.O_RDONLY)
    try:
        assert held.prepare(fd, LIMITS, before or {}) == ""
        held.commit()
    finally:
        os.close(fd)
        held.release()


def written(folder: Path, **texts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


def test_what_a_run_left_takes_the_place_of_what_was_there(root: Path, tmp_path: Path) -> None:
    """A file that the run has removed is gone, and nobody else may enter the folder."""
    keep(root, written(tmp_path / "a", old="1", both="1"))
    keep(root, written(tmp_path / "b", both="2", new="2"))
    folder = path_of(root, "one")
    assert {name: (folder / name).read_text() for name in files_of(root, "one")} == {"both": "2", "new": "2"}
    for path in (folder, folder.parent, folder.parents[1]):
        assert path.stat().st_mode & 0o777 == 0o700, path


def test_a_file_that_did_not_change_is_the_old_one(root: Path, tmp_path: Path) -> None:
    """It keeps its time, and is not written again; one that changed, or is gone from the session meanwhile, is new."""
    out = written(tmp_path / "a", same="1", changed="1", gone="1")
    written(out / "deep", same="2")
    keep(root, out)
    folder, before = path_of(root, "one"), fingerprints(out)
    ids = {name: (folder / name).stat().st_ino for name in files_of(root, "one")}
    (folder / "gone").rename(tmp_path / "elsewhere")  # not removed: the new file could get its inode
    written(out, changed="2")
    keep(root, out, before=before)
    assert files_of(root, "one") == ("changed", "deep/same", "gone", "same")
    assert (folder / "changed").read_text() == "2"
    facts = {name: (folder / name).stat() for name in files_of(root, "one")}
    assert [name for name in facts if facts[name].st_ino == ids[name]] == ["deep/same", "same"]
    assert {fact.st_nlink for fact in facts.values()} == {1}


def test_names_of_the_host_and_all_but_plain_files_stay_behind(root: Path, tmp_path: Path) -> None:
    """Logs and records tell of one run; a link or a FIFO would be followed or waited for by the next."""
    out = written(tmp_path / "a", kept="x", **{"result.json": "{}", "runtime.err.log": ""})
    written(out / "logs", **{"user.log": "x"})
    written(out / "deep/er", file="x")
    (out / "link").symlink_to("/etc/passwd")
    (out / "folder").symlink_to("/etc")
    os.mkfifo(out / "fifo")
    keep(root, out)
    assert files_of(root, "one") == ("deep/er/file", "kept")


def test_a_run_that_cannot_be_kept_changes_nothing(root: Path, tmp_path: Path) -> None:
    """The next one finds the old files and no half of the new ones."""
    keep(root, written(tmp_path / "a", old="1"))
    held = taken(root)
    with (tmp_path / "a/old").open() as file, pytest.raises(OSError, match="Not a directory"):
        held.prepare(file.fileno(), LIMITS, {})
    held.commit()
    held.release()
    assert files_of(root, "one") == ("old",)
    assert os.listdir(path_of(root, "one").parent) == ["files"]


@pytest.mark.parametrize(
    "fill",
    [
        lambda out: (out / "big").write_bytes(bytes(29 << 10)),
        lambda out: os.truncate(out / "new", 1 << 30),
        lambda out: [(out / f"{n}").write_text("") for n in range(30)],
        lambda out: [written(out / f"{n}/{n}", x="") for n in range(10)],
        lambda out: [(out / f"{n}").write_text("x") for n in range(8)],
    ],
    ids=["bytes", "sparse", "files", "folders", "pages"],
)
def test_a_session_leaves_its_next_run_room(root: Path, tmp_path: Path, fill: Callable[[Path], object]) -> None:
    """All of it is carried or nothing, and the reason has the numbers: a part would be neither old nor new."""
    keep(root, written(tmp_path / "a", old="1"))
    out = written(tmp_path / "b", new="1")
    fill(out)
    held = taken(root)
    fd = os.open(out, os.O_RDONLY)
    reason = held.prepare(fd, isorun.Limits(workspace_bytes=32 << 10, workspace_inodes=32, file_bytes=32 << 10), {})
    os.close(fd)
    held.commit()
    held.release()
    assert reason.startswith("session one was not changed: out/ has "), reason
    assert "a session may have 28672 in 28, so that its next run has room" in reason
    assert files_of(root, "one") == ("old",)


def _generation(folder: Path) -> int | None:
    """The one number that all files of *folder* hold; None if it is not whole."""
    texts = [(folder / f"{n}").read_text() for n in range(FILES) if (folder / f"{n}").exists()]
    return int(texts[0]) if len(texts) == FILES and len(set(texts)) == 1 else None


def _kept_for_ever(root: Path, tmp_path: Path, put: Callable[[Path, Path], None], first: int) -> None:
    for number in range(first, first + 100_000):
        out = tmp_path / f"out-{os.getpid()}"
        put(root, written(out, **{str(n): str(number) for n in range(FILES)}))


def _killed_after(seconds: float, work: Callable[[], None]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def _kills(root: Path, tmp_path: Path, put: Callable[[Path, Path], None]) -> list[int | None]:
    """What is there after each of many kills at moments that chance chose: more of them where the machine is busy."""
    chance, seen = random.Random(7), list[int | None]()
    first = written(tmp_path / "first", **{str(n): "0" for n in range(FILES)})
    put(root, first)
    began = time.monotonic()
    put(root, first)
    longest_s = 0.03 + 2 * (time.monotonic() - began)
    for number in range(20 * KILLS):
        if number >= KILLS and len(set(seen)) > ENOUGH:
            break
        _killed_after(
            chance.uniform(0, longest_s), lambda first=number * 1000 + 1: _kept_for_ever(root, tmp_path, put, first)
        )
        seen.append(_generation(path_of(root, "one")))
        if seen.count(None) > 1:
            break
    return seen


@pytest.mark.slow
def test_a_killed_host_leaves_the_old_files_or_the_new_ones(root: Path, tmp_path: Path) -> None:
    """Whenever it is killed; the next holder finds the lock free, and removes what was half made."""
    seen = _kills(root, tmp_path, keep)
    assert None not in seen, seen
    assert seen == sorted(seen, key=lambda number: number or 0)
    assert len(set(seen)) > ENOUGH  # else the kills missed what they were meant for
    taken(root).release()
    assert os.listdir(path_of(root, "one").parent) == ["files"]


@pytest.mark.slow
def test_control_files_that_are_copied_over_are_caught_half_way(root: Path, tmp_path: Path) -> None:
    """The same kills, where the old folder is removed and the new one copied into its place."""

    def naive(root: Path, out: Path) -> None:
        shutil.rmtree(path_of(root, "one"), ignore_errors=True)
        shutil.copytree(out, path_of(root, "one"), dirs_exist_ok=True)

    assert None in _kills(root, tmp_path, naive)


def test_one_at_a_time(root: Path, tmp_path: Path) -> None:
    """Also between processes; another session is free meanwhile."""
    keep(root, written(tmp_path / "a", x="1"))
    held = taken(root)
    assert take(root, "one") is None
    assert in_child(lambda: take(root, "one") is None) is True
    taken(root, "two").release()
    held.release()
    taken(root).release()


def test_a_forked_child_does_not_keep_it(root: Path) -> None:
    """It shares the lock, which the parent gives back for both; what the child gives back changes nothing."""
    held = taken(root)
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        held.release()
        os.write(tell, b".")
        signal.pause()
    try:
        assert os.read(ready, 1) == b"."
        assert take(root, "one") is None
        held.release()
        taken(root).release()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(tell)


def test_a_session_without_files_is_none(root: Path, tmp_path: Path) -> None:
    """It was only looked for, or its program has removed them all."""
    taken(root).release()
    assert listing(root) == []
    keep(root, written(tmp_path / "a", x="1"))
    keep(root, written(tmp_path / "b"))
    assert (listing(root), files_of(root, "one")) == ([], ())
    assert os.listdir(root / state_name() / "sessions") == []


def test_the_list_says_what_there_is(root: Path, tmp_path: Path) -> None:
    """Name, files, bytes, and whether a run has it."""
    keep(root, written(tmp_path / "a", x="123", y="4"), "b")
    keep(root, written(tmp_path / "a"), "a")
    held = taken(root, "b")
    try:
        assert [(s.name, s.files, s.bytes, s.in_use) for s in listing(root)] == [("a", 2, 4, False), ("b", 2, 4, True)]
    finally:
        held.release()


def test_to_look_keeps_nobody_from_a_session(root: Path, tmp_path: Path) -> None:
    """Who looks shares the lock for a moment: others look as well, and a run that begins then waits for it."""
    keep(root, written(tmp_path / "a", x="1"))
    looking = os.open(path_of(root, "one").parent, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)  # a listing of another process, in the midst of its look
    assert [one.in_use for one in listing(root)] == [False]
    with ThreadPoolExecutor(1) as pool:
        begun = pool.submit(taken, root)
        with pytest.raises(TimeoutError):  # it waits, and is not refused
            begun.result(timeout=0.05)
        fcntl.flock(looking, fcntl.LOCK_UN)
        held = begun.result()
    assert [one.in_use for one in listing(root)] == [True]
    held.release()
    os.close(looking)


def test_control_a_look_that_takes_the_lock_refuses_a_run(root: Path, tmp_path: Path) -> None:
    """As the other runs of a session do, which this one has to wait for."""
    keep(root, written(tmp_path / "a", x="1"))
    looking = os.open(path_of(root, "one").parent, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_EX)
    assert (take(root, "one"), [one.in_use for one in listing(root)]) == (None, [True])
    os.close(looking)


def test_unused_ones_are_swept_and_used_ones_are_not(root: Path, tmp_path: Path) -> None:
    """What counts is the last use, and a session that somebody has is kept, however old."""
    for name in ("old", "held", "new"):
        keep(root, written(tmp_path / "a", x="1"), name)
    held = taken(root, "held")
    for name in ("old", "held"):
        os.utime(path_of(root, name).parent, (1e9, 1e9))
    assert sweep_sessions(root, older_than_s=3600, now=time.time()) == ["old"]
    held.release()
    assert [one.name for one in listing(root)] == ["held", "new"]  # `release` is a use


def test_what_is_used_is_not_removed(root: Path, tmp_path: Path) -> None:
    """Named with what to do; nor is what is not there."""
    keep(root, written(tmp_path / "a", x="1"))
    held = taken(root)
    with pytest.raises(isorun.InvalidRequest) as caught:
        remove(root, "one")
    assert caught.value.code == "session_in_use"
    held.release()
    remove(root, "one")
    with pytest.raises(isorun.InvalidRequest) as caught:
        remove(root, "one")
    assert (caught.value.code, files_of(root, "one")) == ("no_such_session", ())


def test_a_removal_that_was_killed_is_finished(root: Path, tmp_path: Path) -> None:
    """The session is gone at once; what is left of it goes with the next recovery."""
    keep(root, written(tmp_path / "a", x="1"))
    path_of(root, "one").parent.rename(root / state_name() / "one-1.removed")
    assert listing(root) == []
    recover(root)
    assert os.listdir(root / state_name()) == ["sessions"]


@pytest.mark.parametrize("name", ["a", "0", "a-b_c", "a" * 64])
def test_these_are_names(name: str) -> None:
    """Small letters, digits, `_` and `-`."""
    assert check_session(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a.b", "a/b", "/", "A", "ä", "-a", "_a", "a b", "a\n", "a\0", "\x1b", "a" * 65, 1, None, b"a"],
)
def test_these_are_none(name: object) -> None:
    """A name is one part of a path on every disk, also on one that knows no case."""
    with pytest.raises(isorun.InvalidRequest, match="the name of a session must be 1 to 64 characters") as caught:
        check_session(name)
    assert caught.value.code == "invalid_session"
