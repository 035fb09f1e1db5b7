"""The pool's file under overlapping writers, killed writers, and a program that does what it likes to it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest

from isorun.supervisor.output import OutputDirectory
from isorun.supervisor.tool import ToolContext
from isorun.tools import sources_pool
from isorun.tools.output_files import sources_of
from isorun.tools.sources_pool import ASIDE, FILE, MAX_BYTES, MAX_SOURCES, add_sources, read_sources

ROOT = Path(__file__).resolve().parents[3]


def context_of(folder: Path, seconds: float = 60.0) -> ToolContext:
    """A tool's context whose output directory is *folder*, opened as the supervisor opens it."""
    output = OutputDirectory(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
    return ToolContext(
        output_dir=PurePosixPath("/workspace/out"),
        user_id="u",
        turn_id="t",
        exec_id="e",
        deadline=time.monotonic() + seconds,
        log=logging.getLogger("tests.sources"),
        env={},
        opener=output.open,
    )


@pytest.fixture
def context(tmp_path) -> ToolContext:
    """Of an empty output directory, which is `tmp_path`."""
    return context_of(tmp_path)


def row(sid: int, name: str, text: str = "") -> dict:
    return {"sid": sid, "url": f"http://{name}.example/", "title": name, "text": text, "published": None}


def on_disk(tmp_path: Path) -> list[dict]:
    """What any reader of JSON finds in the file."""
    found = json.loads((tmp_path / FILE).read_bytes())
    assert isinstance(found, list)
    return found


def test_the_file_is_a_json_list_that_grows(context, tmp_path) -> None:
    """Two calls: the second sees the first's sources, and the file holds both."""
    assert read_sources(context) == []
    assert add_sources(context, [row(1, "a"), row(2, "b")])[1] == {1: 1, 2: 2}
    pool, numbers = add_sources(context, [row(1, "b", "text"), row(2, "c")])
    assert numbers == {1: 2, 2: 3}
    assert on_disk(tmp_path) == read_sources(context) == pool
    assert [(source["sid"], source["title"], source["text"]) for source in pool] == [
        (1, "a", ""),
        (2, "b", "text"),
        (3, "c", ""),
    ]
    assert os.listdir(tmp_path) == [FILE]


def test_rows_that_are_known_leave_the_file_as_it_is(context, tmp_path) -> None:
    """A program that watches the file sees a write only if there is something new."""
    add_sources(context, [row(1, "a")])
    before = (tmp_path / FILE).stat().st_mtime_ns
    add_sources(context, [row(1, "a")])
    assert (tmp_path / FILE).stat().st_mtime_ns == before


#: Forks writers that begin together; each says what it was told, in one line that no other can split.
WRITERS = """
import os, sys
from pathlib import Path
from tests.unit.tools.test_sources_pool import context_of, row
from isorun.tools.sources_pool import add_sources
folder, count, turns = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
gate, opened = os.pipe()
for number in range(count):
    if os.fork() == 0:
        os.close(opened)
        os.read(gate, 1)
        context = context_of(folder)
        for turn in range(turns):
            own = row(1, f"own-{number}-{turn}", "x" * 500)
            _, numbers = add_sources(context, [own, row(2, f"shared-{turn}", "y" * number)], lock_s=50)
            os.write(1, f"{own['url']} {numbers[1]} {numbers[2]}\\n".encode())
        os._exit(0)
os.close(opened)
for _ in range(count):
    os.wait()
"""


def writers(folder: Path, count: int, turns: int) -> subprocess.Popen[str]:
    """That many processes which write into one pool at the same time, in a process group of their own."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITERS, str(folder), str(count), str(turns)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def told(running: subprocess.Popen[str]) -> list[tuple[str, int, int]]:
    """What the writers were told of their rows."""
    out, _ = running.communicate(timeout=50)
    return [(url, int(own), int(shared)) for url, own, shared in map(str.split, out.splitlines())]


@pytest.mark.slow
def test_fifty_overlapping_processes_lose_nothing(tmp_path) -> None:
    """Every row is there under the number that its writer was told, and a page that all found is one source."""
    lines = told(writers(tmp_path, 50, 2))
    assert len(lines) == 100
    by_url = {source["url"]: source for source in on_disk(tmp_path)}
    assert len(by_url) == 100 + 2
    assert all(by_url[url]["sid"] == own for url, own, _ in lines)
    for turn in range(2):
        shared = by_url[f"http://shared-{turn}.example/"]
        assert {number for url, _, number in lines if url.endswith(f"-{turn}.example/")} == {shared["sid"]}
        assert len(shared["text"]) == 49


def test_overlapping_threads_lose_nothing(context, tmp_path) -> None:
    """Fifty threads of one worker: the lock is the file's, so threads exclude each other, too."""
    with ThreadPoolExecutor(50) as threads:
        numbers = list(threads.map(lambda n: add_sources(context, [row(1, f"t{n}")], lock_s=50)[1][1], range(50)))
    assert sorted(numbers) == list(range(1, 51))
    assert len(on_disk(tmp_path)) == 50


def test_killed_processes_lose_nothing_that_was_told(tmp_path) -> None:
    """Writers are killed in the middle; whoever comes next finds each source whose number somebody was told."""
    running = writers(tmp_path, 4, 10_000)
    assert running.stdout is not None
    first = running.stdout.readline()
    os.killpg(running.pid, signal.SIGKILL)
    assert first
    lines = told(running)
    pool, _ = add_sources(context_of(tmp_path), [row(1, "after")])
    by_url = {source["url"]: source["sid"] for source in pool}
    assert all(by_url[url] == own for url, own, _ in lines)
    assert on_disk(tmp_path) == pool
    assert not (tmp_path / ASIDE).exists()


class Killed(BaseException):
    """The process is gone at this point."""


@pytest.mark.parametrize("grown", ["", "z" * 3000])
def test_a_write_that_stops_anywhere_leaves_a_whole_pool(grown, tmp_path, monkeypatch) -> None:
    """After each single byte that reached the file the pool is the one before or the one after, never less."""
    old = [row(1, "a"), row(2, "b")]
    context = context_of(tmp_path)
    before, _ = add_sources(context, old)
    start = (tmp_path / FILE).read_bytes()
    after, _ = add_sources(context, [row(2, "a", grown), row(3, "c")])
    whole = 2 * len((tmp_path / FILE).read_bytes()) + 200
    real = os.pwrite
    for most in [*range(0, whole, 7 if not grown else 501), whole]:
        (tmp_path / FILE).write_bytes(start)
        left = most

        def pwrite(descriptor: int, data: bytes, offset: int) -> int:
            nonlocal left
            written = real(descriptor, bytes(data)[:left], offset) if left else 0
            left -= written
            if written < len(data):
                raise Killed
            return written

        monkeypatch.setattr(os, "pwrite", pwrite)
        with contextlib.suppress(Killed):
            add_sources(context, [row(2, "a", grown), row(3, "c")])
        monkeypatch.setattr(os, "pwrite", real)
        assert read_sources(context) in (before, after), most
        assert add_sources(context, [row(2, "a", grown), row(3, "c")])[0] == after
        assert on_disk(tmp_path) == after


def test_a_full_disk_keeps_the_old_pool(context, tmp_path, monkeypatch) -> None:
    """The rows have their numbers all the same, and the next call that has room writes them."""
    add_sources(context, [row(1, "a")])
    before = (tmp_path / FILE).read_bytes()
    real = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if offset > 10:
            real(descriptor, bytes(data)[:20], offset)
            raise OSError(28, "No space left on device")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    assert add_sources(context, [row(1, "b")])[1] == {1: 2}
    assert (tmp_path / FILE).read_bytes() == before
    monkeypatch.undo()
    add_sources(context, [row(1, "b")])
    assert len(on_disk(tmp_path)) == 2


def test_a_lock_that_is_never_free_does_not_hold_the_call(context, tmp_path, caplog) -> None:
    """The program may lock the file for ever: the rows have numbers, the file is left, the log says why."""
    add_sources(context, [row(1, "a")])
    before = (tmp_path / FILE).read_bytes()
    with (tmp_path / FILE).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        started = time.monotonic()
        pool, numbers = add_sources(context, [row(1, "b")], lock_s=0.2)
        assert time.monotonic() - started < 10
    assert (len(pool), numbers) == (2, {1: 2})
    assert (tmp_path / FILE).read_bytes() == before
    assert "was not updated: its lock is held, perhaps by the program" in caplog.text


def test_the_calls_deadline_bounds_the_wait_too(tmp_path) -> None:
    """A call that is nearly over does not wait for the lock until it is killed."""
    add_sources(context_of(tmp_path), [row(1, "a")])
    with (tmp_path / FILE).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        started = time.monotonic()
        add_sources(context_of(tmp_path, seconds=0.1), [row(1, "b")], lock_s=50)
        assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"not json",
        b"[" * 100_000,
        b'[{"sid": 1, "url": "http://a/"}, {"sid": 1, "url": "http://b/"}]',
        b'[{"sid": 1, "url": "http://a/", "title": "\\ud800"}]',
        b"\xff\xfe\x00",
        b"[]" + b" " * (MAX_BYTES + 10),
        b"\n\x1e\n",
    ],
)
def test_what_is_no_pool_is_put_aside(content, context, tmp_path, caplog) -> None:
    """A new pool begins, what the program wrote is kept beside it, and the log says so."""
    (tmp_path / FILE).write_bytes(content)
    assert add_sources(context, [row(7, "a")])[1] == {7: 7}
    assert [source["sid"] for source in on_disk(tmp_path)] == [7]
    assert (tmp_path / ASIDE).read_bytes() == content[: MAX_BYTES + 1]
    assert f"{FILE} held no pool of sources" in caplog.text


@pytest.mark.parametrize("part", [b"", b"[1]", b"[]x"])
def test_millions_of_marks_cost_nothing(part, context, tmp_path) -> None:
    """Each part of such a file was looked at, for many seconds of the processor: now it is as if it were one."""
    mark = b"\n\x1e\n"
    (tmp_path / FILE).write_bytes((mark + part) * (MAX_BYTES // len(mark + part)))
    began = time.process_time()
    add_sources(context, [row(1, "a")])
    read_sources(context)
    assert time.process_time() - began < 2
    assert [source["sid"] for source in on_disk(tmp_path)] == [1]


def test_an_edited_pool_is_used_as_it_is(context, tmp_path) -> None:
    """The program may remove a source or write one of its own, in its own layout."""
    (tmp_path / FILE).write_text('[ {"url": "http://own.example/", "sid": 40, "more": 1} ]')
    assert add_sources(context, [row(1, "a"), row(40, "b")])[1] == {1: 1, 40: 41}
    assert [source["sid"] for source in on_disk(tmp_path)] == [40, 1, 41]


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_something_else_in_its_place_is_not_written(kind, context, tmp_path, caplog) -> None:
    """Neither where a link leads nor into a FIFO: the rows have numbers, the log says why there is no file."""
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text("[]")
    match kind:
        case "link":
            (tmp_path / FILE).symlink_to(elsewhere)
        case "folder":
            (tmp_path / FILE).mkdir()
        case _:
            os.mkfifo(tmp_path / FILE)
    assert add_sources(context, [row(1, "a")])[1] == {1: 1}
    assert elsewhere.read_text() == "[]"
    assert "was not updated" in caplog.text


def test_a_file_that_is_replaced_again_and_again_ends_the_try(context, tmp_path, monkeypatch, caplog) -> None:
    """The lock would be on another file than the one that is read: nothing is written then."""
    add_sources(context, [row(1, "a")])
    real = fcntl.flock

    def flock(file: object, operation: int) -> None:
        real(file, operation)  # type: ignore[arg-type]  # passed on
        (tmp_path / "new").write_text("[]")
        (tmp_path / "new").replace(tmp_path / FILE)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert add_sources(context, [row(1, "b")])[1] == {1: 1}
    assert "the program replaces it again and again" in caplog.text
    assert (tmp_path / FILE).read_text() == "[]"


def test_a_pool_that_is_full_keeps_its_sources(context, tmp_path, caplog) -> None:
    """More sources have numbers and are not in the file; texts become short before sources are left out."""
    add_sources(context, [row(n, f"a{n}") for n in range(1, MAX_SOURCES + 10)])
    assert len(on_disk(tmp_path)) == MAX_SOURCES
    assert f"{FILE} is full: texts are short, 9 sources are not in it" in caplog.text


def test_a_pool_stays_below_what_is_read_back(context, tmp_path) -> None:
    """A thousand sources with the longest texts of four bytes a character are a pool that can be read again."""
    add_sources(context, [row(n, f"a{n}", "\N{GRINNING FACE}" * 4000) for n in range(1, MAX_SOURCES + 1)])
    assert (tmp_path / FILE).stat().st_size <= sources_pool.MAX_POOL
    assert [source["sid"] for source in read_sources(context)] == list(range(1, MAX_SOURCES + 1))


def test_a_reader_never_waits(context, tmp_path) -> None:
    """Also under a lock: it takes what is there."""
    add_sources(context, [row(1, "a")])
    done = threading.Event()
    with (tmp_path / FILE).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        threading.Thread(target=lambda: (read_sources(context), done.set())).start()
        assert done.wait(30)


def test_a_document_sees_a_whole_pool_beside_a_search(context, tmp_path) -> None:
    """Also when the writer was stopped in the middle of the list at the beginning: the copy behind the mark counts."""
    add_sources(context, [row(1, "a"), row(2, "b")])
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[: len(whole) // 2] + b"#" + b"\n\x1e\n" + whole)
    assert [source["sid"] for source in sources_of(context)] == [1, 2]


@pytest.mark.slow
def test_a_reader_beside_a_writer_misses_nothing_that_was_told(context, tmp_path) -> None:
    """Hundreds of reads while the file grows and shrinks: each sees all sources whose numbers were told before."""
    told: list[int] = [0]

    def write() -> None:
        for number in range(1, 200):
            long = "x" * 4000 if number % 2 else "y"
            told.append(add_sources(context, [row(1, f"r{number}", long), row(2, "same", "z" * number)])[1][1])

    writing = threading.Thread(target=write)
    writing.start()
    reads = 0
    while writing.is_alive():
        least = len(told) - 1
        assert len(read_sources(context)) >= least
        reads += 1
    writing.join()
    assert (len(told), reads > 20) == (200, True)


LEASING = """
import fcntl, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
with open(sys.argv[1], "r+b") as held:
    fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lease_that_is_not_given_back_does_not_hold_the_call(context, tmp_path, caplog) -> None:
    """Who opens such a file waits 45 seconds for its holder. The control is an ordinary `open`, which waits."""
    add_sources(context, [row(1, "a")])
    command = [sys.executable, "-c", LEASING, str(tmp_path / FILE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holding:
        assert holding.stdout is not None
        assert holding.stdout.readline() == "held\n"
        started = time.monotonic()
        assert add_sources(context, [row(1, "b")])[1] == {1: 1}
        assert read_sources(context) == []
        assert time.monotonic() - started < 10
        opening = threading.Thread(target=(tmp_path / FILE).read_bytes)
        opening.start()
        opening.join(1)
        assert opening.is_alive()
        holding.communicate("")
        opening.join()
    assert "was not updated" in caplog.text
    assert len(add_sources(context, [row(1, "b")])[0]) == 2
