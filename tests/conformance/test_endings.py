"""SPEC B9: endings, and DESIGN 6's words and codes for them.

Clauses: sys.exit(0) is success · a non-zero exit, a signal, an OOM kill, a limit and a
timeout (B8) are told apart · the exit decides, log text never does. Besides: what the
interpreter does at the end (threads, atexit, flushing) is done.
"""

import pytest

import isorun

_ENDINGS = {
    "return": ("pass", "ok", None, 0, None),
    "sys.exit()": ("sys.exit()", "ok", None, 0, None),
    "sys.exit(0)": ("sys.exit(0)", "ok", None, 0, None),
    "sys.exit(None)": ("sys.exit(None)", "ok", None, 0, None),
    "sys.exit(3)": ("sys.exit(3)", "failed", "nonzero_exit", 3, None),
    "sys.exit(256)": ("sys.exit(256)", "ok", None, 0, None),
    "sys.exit(-1)": ("sys.exit(-1)", "failed", "nonzero_exit", 255, None),
    "sys.exit(text)": ("sys.exit('text')", "failed", "nonzero_exit", 1, None),
    "raise SystemExit": ("raise SystemExit", "ok", None, 0, None),
    "os._exit(7)": ("os._exit(7)", "failed", "nonzero_exit", 7, None),
    "os._exit(0)": ("os._exit(0)", "ok", None, 0, None),
    "raise": ("raise ValueError('mine')", "failed", "program_error", 1, None),
    "syntax error": ("def broken(:", "failed", "program_error", 1, None),
    "raise in await": ("await asyncio.sleep(0); 1/0", "failed", "program_error", 1, None),
    "recursion": ("def f(): f()\nf()", "failed", "program_error", 1, None),
    "base exception": ("class B(BaseException): pass\nraise B", "failed", "program_error", 1, None),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "killed", "signal", None, 2),
    "SIGINT": ("os.kill(os.getpid(), 2); time.sleep(9)", "killed", "signal", None, 2),
    "SIGTERM": ("os.kill(os.getpid(), 15); time.sleep(9)", "killed", "signal", None, 15),
    "SIGKILL": ("os.kill(os.getpid(), 9)", "killed", "signal", None, 9),
    "SIGSEGV": ("os.kill(os.getpid(), 11)", "killed", "signal", None, 11),
    "SIGUSR1": ("os.kill(os.getpid(), 10); time.sleep(9)", "killed", "signal", None, 10),
    "segfault": ("import ctypes; ctypes.string_at(0)", "killed", "signal", None, 11),
    "abort": ("os.abort()", "killed", "signal", None, 6),
    "MemoryError": ("raise MemoryError", "out_of_memory", "out_of_memory", 1, None),
}


@pytest.mark.parametrize("name", _ENDINGS)
def test_every_ending_has_its_word(run, name) -> None:
    """Status, code, exit code and signal are those of the table."""
    code, *expected = _ENDINGS[name]
    result = run(code)
    assert [result.status, result.error and result.error.code, result.exit_code, result.signal] == expected
    assert result.ok == (expected[0] == "ok")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("sys.exit(3)", "exit code 3"),
        ("raise ValueError('mine')", "the program raised ValueError: mine"),
        ("os.abort()", "ended by signal 6 (SIGABRT)"),
        ("os.kill(os.getpid(), 9)", "ended by signal 9 (SIGKILL)"),
    ],
)
def test_messages(run, code, message) -> None:
    """One sentence says how it ended."""
    assert run(code).error.message == message


def test_exit_text_goes_to_stderr(run) -> None:
    """sys.exit("text") prints the text, as it does outside."""
    assert run("sys.exit('the reason')").stderr == "the reason\n"


def test_log_text_never_decides(run) -> None:
    """One that prints tracebacks and errors and exits 0 is ok; one that prints success and exits 1 is not."""
    loud = run("""
        print("Traceback (most recent call last):\\n  File 'x'\\nValueError: no\\nERROR out of memory",
              file=sys.stderr)
    """)
    assert (loud.status, loud.exit_code) == ("ok", 0)
    quiet = run("print('status: ok, everything succeeded'); sys.exit(1)")
    assert quiet.status == "failed"


def test_a_claim_cannot_make_a_success(run) -> None:
    """What the loader's side says of an exception names the reason of a failure and no more."""
    result = run("""
        from isorun.executor import loader
        claim = loader.Ended(claim=loader.Claim(type="MemoryError", line=1))
        loader._current[0].tools.send(claim)
        sys.exit(0)
    """)
    assert (result.status, result.error) == ("ok", None)


@pytest.mark.table
@pytest.mark.parametrize(
    ("code", "source"),
    [
        ("def fail():\n    raise ValueError('no')  # why\nfail()", "raise ValueError('no')  # why"),
        ("import json\njson.loads('[')", 'raise JSONDecodeError("Expecting value", s, err.value) from None'),
        ("x = 1 / 0" + " " * 9 + "#" * 300, ("x = 1 / 0" + " " * 9 + "#" * 300)[:200]),
        ("x = = 1", "x = = 1"),
        ("exec('1 / 0')", ""),
        ("import linecache\nlinecache.getline = None\n1 / 0", ""),
        ("import linecache\nlinecache.getline = lambda *_: '\\x1b[2J\\ud800'\n1 / 0", "\\x1b[2J?"),
    ],
)
def test_the_line_that_raised_is_told(run, code, source) -> None:
    """The innermost line, whosever it is, without its indentation; "" where there is none or the program hid it."""
    assert run(code).error.details["source"] == source


def test_non_daemon_threads_are_waited_for_and_daemon_threads_are_not(run) -> None:
    """The program ends when its last ordinary thread does."""
    result = run("""
        import threading
        threading.Thread(target=lambda: (time.sleep(0.2), print("thread done"))).start()
        threading.Thread(target=time.sleep, args=(99,), daemon=True).start()
        print("main done")
    """)
    assert (result.status, result.stdout) == ("ok", "main done\nthread done\n")
    assert result.usage["wall_s"] < 3


def test_atexit_and_flush(run) -> None:
    """atexit functions run, last first, after threads; a file that was left open is written."""
    result = run("""
        import atexit, threading
        atexit.register(print, "first registered")
        atexit.register(print, "second registered")
        left = open("left.txt", "w"); left.write("unflushed text")
        def hold():
            inner = open("inner.bin", "wb"); inner.write(b"12"); globals()["kept"] = [inner]
        hold()
        threading.Thread(target=lambda: (time.sleep(0.05), print("thread"))).start()
        sys.stdout.write("no newline")
    """)
    assert result.stdout == "no newlinethread\nsecond registered\nfirst registered\n"
    assert (result.out_dir / "left.txt").read_text() == "unflushed text"
    assert (result.out_dir / "inner.bin").read_bytes() == b"12"


def test_files_are_flushed_when_it_raises(run) -> None:
    """An uncaught exception does not cost the files that were open."""
    result = run("f = open('left.txt', 'w'); f.write('kept'); raise ValueError")
    assert (result.status, (result.out_dir / "left.txt").read_text()) == ("failed", "kept")


def test_a_child_left_running_does_not_keep_the_run(run) -> None:
    """The run ends with the program; what it left behind is killed and can hold no pipe open."""
    result = run("""
        import subprocess
        subprocess.Popen(["sleep", "97.25"])
        print("done")
    """)
    assert (result.status, result.stdout) == ("ok", "done\n")
    assert result.usage["wall_s"] < 5


_SMALL = isorun.Limits(memory_bytes=96 << 20, workspace_bytes=8 << 20, tmp_bytes=4 << 20, shm_bytes=4 << 20)
_EAT = "kept = []\nwhile True: kept.append(bytearray(os.urandom(1 << 20)))\n"


@pytest.mark.usefixtures("sealed")
def test_own_out_of_memory(own) -> None:
    """Allocating to the limit is out_of_memory, by a kill or by MemoryError; the output is kept."""
    with own(limits=_SMALL) as rt:
        result = rt.execute(f"print('before')\n{_EAT}", timeout_s=20)
    assert (result.status, result.error.code, result.stdout) == ("out_of_memory", "out_of_memory", "before\n")
    assert "96 MiB" in result.error.message
    assert (result.exit_code, result.signal) in ((1, None), (None, 9))


@pytest.mark.usefixtures("sealed")
def test_a_childs_out_of_memory_is_a_notice(own, kind) -> None:
    """The program lives on when a child dies of memory; where the kernel killed it, a notice says so.

    Under gVisor the kernel of the sandbox is the process that is killed, and all of it ends.
    """
    code = """
import subprocess
eat = "import os; os.urandom(1 << 30)"  # far above the limit in one piece: refused, or killed
child = subprocess.run([sys.executable, "-c", eat], stderr=subprocess.DEVNULL)
print("child", child.returncode != 0)
"""
    with own(limits=_SMALL) as rt:
        result = rt.execute(code, timeout_s=20)
    if kind == "gvisor":
        assert result.status == "out_of_memory"
        return
    assert (result.status, result.stdout) == ("ok", "child True\n")
    if kind in ("namespace-cgroup", "docker"):
        assert "1 process(es) of the run were killed for memory" in result.notices


@pytest.mark.usefixtures("sealed")
@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("open('f', 'wb').write(bytes(5 << 20))", "file_size_limit"),
        ("for n in range(9): open(f'f{n}', 'wb').write(bytes(1 << 20))", "workspace_limit"),
        ("for n in range(999): open(f'f{n}', 'wb').close()", "inode_limit"),
        ("from threading import Timer\nfor n in range(99): t = Timer(9, print); t.daemon = True; t.start()",
         "process_limit"),
        ("while True: os.write(1, bytes(1 << 16))", "output_limit"),
    ],
)  # fmt: skip
def test_each_limit_has_its_code(own, code, error) -> None:
    """A program that dies of a limit is told which one, and with which setting it would move."""
    limits = isorun.Limits(
        workspace_bytes=8 << 20,
        workspace_inodes=500,
        file_bytes=4 << 20,
        processes=20,
        output_bytes=8 << 20,
    )
    with own(limits=limits) as rt:
        result = rt.execute(code, timeout_s=20)
    assert (result.status, result.error.code) == ("limit_exceeded", error)
    assert "ISORUN_MAX_" in result.error.hint


_ROOM = isorun.Limits(workspace_bytes=16 << 20, tmp_bytes=4 << 20, shm_bytes=4 << 20, file_bytes=2 << 20)
_MAP = """
import mmap
with open({0!r}, "w+b") as file:
    file.truncate({1})
    mmap.mmap(file.fileno(), {1})[:] = bytes([1]) * {1}
"""
_FILL = """
try:
    for n in range(9): open(f'/tmp/{n}', 'wb').write(bytes(1 << 20))
except OSError:
    pass
"""


@pytest.mark.usefixtures("sealed")
@pytest.mark.parametrize(
    ("code", "status", "hint"),
    [
        (f"{_FILL}raise ValueError('later')", "failed", "/tmp (4 MiB) is full"),
        (f"{_FILL}os.abort()", "killed", "/tmp (4 MiB) is full"),
        (
            "try: open('a', 'wb').write(bytes(3 << 20))\nexcept OSError: raise ValueError('cut') from None",
            "failed",
            "a: a file takes at most 2 MiB",
        ),
        (
            "open('a', 'wb').write(bytes(2 << 20))\nraise OSError('3145728 requested and 2097152 written')",
            "failed",
            "a: a file takes at most 2 MiB",
        ),
    ],
)
def test_a_ceiling_is_told_by_fact_whatever_followed(own, code, status, hint) -> None:
    """A disk that is full at the end, a file that can take no more: the hint begins with it."""
    with own(limits=_ROOM) as rt:
        result = rt.execute(code, timeout_s=20)
    assert (result.status, result.error.hint.startswith(hint)) == (status, True), result.error


@pytest.mark.usefixtures("sealed")
@pytest.mark.parametrize(("place", "size"), [("/dev/shm/a", "/dev/shm (4 MiB)"), ("/tmp/a", "/tmp (4 MiB)")])
def test_a_bus_error_on_a_full_disk_is_a_ceiling(own, kind, place, size) -> None:
    """Memory of a mapped file that the disk has no room for: the hint names the disk.

    Under gVisor another kernel makes the room, and ends the program as it likes.
    """
    limits = isorun.Limits(workspace_bytes=16 << 20, tmp_bytes=4 << 20, shm_bytes=4 << 20)
    with own(limits=limits) as rt:
        result = rt.execute(_MAP.format(place, 8 << 20), timeout_s=20)
    assert not result.ok
    if kind != "gvisor":
        assert (result.status, result.signal) == ("killed", 7)
        assert result.error.hint.startswith(f"{size} is full")


@pytest.mark.usefixtures("sealed")
def test_a_file_at_the_limit_of_an_ok_run_is_a_notice(own) -> None:
    """Its end is most likely missing, and nobody would look."""
    with own(limits=_ROOM) as rt:
        result = rt.execute("try: open('a', 'wb').write(bytes(3 << 20))\nexcept OSError: pass", timeout_s=20)
    assert result.status == "ok"
    assert "a has the size that a file may have, so its end is most likely missing" in result.notices


@pytest.mark.usefixtures("sealed")
def test_children_killed_for_memory_are_told_first_at_a_timeout(own, kind) -> None:
    """A pool waits for ever for a worker that was killed: more time would not help.

    Only a control group counts the processes that it killed; under gVisor all of the sandbox ends.
    """
    code = """
import subprocess
subprocess.run([sys.executable, "-c", "kept = [bytearray(b'x' * (1 << 20)) for _ in range(999)]"])
while True: time.sleep(1)
"""
    with own(limits=_SMALL) as rt:
        result = rt.execute(code, timeout_s=8)
    if kind == "gvisor":
        assert result.status == "out_of_memory"
        return
    assert (result.status, "last line executed: " in result.error.hint) == ("timed_out", True)
    if kind in ("namespace-cgroup", "docker"):
        assert result.error.hint.startswith("1 process(es) of the run were killed for memory")
