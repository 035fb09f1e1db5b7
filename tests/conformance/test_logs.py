"""SPEC C1 (user.log), C2 (its first line), C3 (infra.log and the launcher's logs).

Clauses. C1: everything the program, its children, C extensions and crash dumps wrote, in
order · `logging.*` too with include_logging (the default) · with print_only it goes to
infra instead · logger `user` always goes to user.log, at INFO with nothing configured · a
line is `<UTC time> <LEVEL> <name> <text>` · each stream is exact · never inside a line up
to 8 KiB · capped, and what was cut is said. C2: `===== EXECUTION <exec_id> START <UTC time>
=====` · a program that prints such a line hides nothing. C3: infra.log has supervisor,
executor and runtime lines · runtime.out.log and runtime.err.log exist.
"""

import re

import pytest

import isorun

_UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def user_log(result: isorun.RunResult) -> str:
    return (result.out_dir / "logs/user.log").read_bytes().decode("utf-8", "replace")


def body(result: isorun.RunResult) -> str:
    """user.log after its first line."""
    return user_log(result).split("\n", 1)[1]


def test_everything_is_in_the_log(run) -> None:
    """print, raw writes, children, C code and stderr all arrive."""
    result = run("""
        import ctypes, subprocess
        print("by print")
        os.write(2, b"by write\\n")
        subprocess.run(["sh", "-c", "echo by child; echo by child on stderr >&2"])
        libc = ctypes.CDLL(None)
        libc.puts(b"by C"); libc.fflush(None)
        pid = os.fork()
        if pid == 0:
            print("by fork"); os._exit(0)
        os.waitpid(pid, 0)
        sys.__stdout__.write("by dunder\\n")
    """)
    assert sorted(body(result).splitlines()) == sorted(
        ["by print", "by write", "by child", "by child on stderr", "by C", "by fork", "by dunder"]
    )


def test_a_crash_dump_is_in_the_log(run) -> None:
    """A segmentation fault says where it happened."""
    result = run("import ctypes\n\nctypes.string_at(0)")
    assert "Fatal Python error: Segmentation fault" in body(result)
    assert re.search(r'user_code\.py", line 3 in <module>', body(result))


CRASHES = {
    "at the top": ("import ctypes\nctypes.string_at(0)", "line 2 in <module>"),
    "by abort": ("def f():\n    os.abort()\nf()", "line 3 in <module>"),
    "behind an await": ("import ctypes\nawait asyncio.sleep(0)\nctypes.string_at(0)", "line 3 in <module>"),
    "in a coroutine": (
        "import ctypes\nasync def main():\n    ctypes.string_at(0)\nasyncio.run(main())",
        "line 4 in <module>",
    ),
}


@pytest.mark.parametrize(("code", "last"), CRASHES.values(), ids=CRASHES)
def test_a_crash_dump_has_the_programs_frames_alone(run, code: str, last: str) -> None:
    """In the log, the result and the report: none of the loader's, and nothing of where isorun lies."""
    result = run(code)
    for shown in (body(result), result.stderr, result.report_text, "".join(result.user_tracebacks)):
        assert "Fatal Python error: " in shown
        assert f'user_code.py", {last}\n' in shown + "\n"
        assert "executor" not in shown
        assert "main.py" not in shown
    assert result.stderr.count("Fatal Python error") == 1
    assert result.status == "killed"


def test_a_child_that_crashes_says_so_where_its_stderr_goes(run) -> None:
    """At once, and not in the program's place."""
    result = run("""
        import ctypes
        if os.fork() == 0:
            os.dup2(os.open("child.txt", os.O_WRONLY | os.O_CREAT), 2)
            ctypes.string_at(0)
        os.wait()
        print("Fatal Python error: Segmentation fault" in open("child.txt").read())
    """)
    assert (result.status, result.stdout, result.stderr) == ("ok", "True\n", "")


def test_a_crash_on_a_full_disk_has_its_dump(run, sealed: str) -> None:
    """Room for it was kept when the slot was built."""
    result = run("""
        import mmap
        for number in range(4):
            file = open(f"{number}", "w+b")
            file.truncate(90 << 20)
            part = mmap.mmap(file.fileno(), 0)
            for at in range(0, 90 << 20, 4096):
                part[at] = 1
    """)
    assert (result.status, result.signal) == ("killed", 7), result.report_text
    assert 'user_code.py", line 8 in <module>' in result.stderr


def test_a_crash_dump_is_whole_where_tracebacks_are(own) -> None:
    """`EXEC_TRACEBACK_REMAP=0` leaves it as it is."""
    with own(settings=isorun.Settings(traceback_remap=False)) as rt:
        assert "loader.py" in rt.execute("import ctypes\nctypes.string_at(0)").stderr


def test_a_crash_dump_that_is_forged_is_output_like_any_other(run) -> None:
    """The program can write what it likes into the file that the dump is in: it has a bound, and decides nothing."""
    code = """
        with open(os.path.join(os.path.dirname(__file__), ".isorun-last-trace"), "wb") as file:
            file.write(b"Fatal Python error: \\xff\\n" + b"x" * 10_000_000)
    """
    result = run(code)
    assert (result.status, result.exit_code) == ("ok", 0)
    assert len(result.stderr) < 200_000


def test_one_stream_is_in_order(run) -> None:
    """A thousand lines of one stream stand in the order in which they were written."""
    result = run("for n in range(1000): print(n)")
    assert body(result) == "".join(f"{n}\n" for n in range(1000)) == result.stdout


def test_streams_interleave_by_arrival(run) -> None:
    """With a moment between them, lines of both streams stand in the order of time."""
    result = run("""
        for n in range(6):
            print(n, file=(sys.stdout, sys.stderr)[n % 2])
            time.sleep(0.03)
    """)
    assert body(result) == "0\n1\n2\n3\n4\n5\n"


def test_never_inside_a_line(run) -> None:
    """Lines of up to 8 KiB that both streams write piece by piece at the same time stay whole."""
    result = run("""
        import threading
        def write(fd, letter):
            for n in range(50):
                for piece in range(8):
                    os.write(fd, letter * 1000)
                os.write(fd, b"\\n")
        threads = [threading.Thread(target=write, args=pair) for pair in ((1, b"o"), (2, b"e"))]
        [t.start() for t in threads]
        [t.join() for t in threads]
    """)
    lines = body(result).splitlines()
    assert sorted(set(lines)) == ["e" * 8000, "o" * 8000]
    assert len(lines) == 100


def test_a_last_line_without_an_end_is_kept(run) -> None:
    """What was written before the end arrives, newline or not, and streams stay exact."""
    result = run("print('out', end=''); print('err', end='', file=sys.stderr)")
    assert (result.stdout, result.stderr) == ("out", "err")
    assert sorted(body(result).splitlines()) == ["err", "out"]


def test_logging_is_included_by_default(run) -> None:
    """Loggers of any name write lines of the row's form, from WARNING on with nothing configured."""
    result = run("""
        logging.getLogger("pack.age").error("an error")
        logging.getLogger("pack.age").info("hidden")
        logging.warning("of the root, by the module")
        logging.error("again")
    """)
    lines = body(result).splitlines()
    assert [re.sub(_UTC, "T", line) for line in lines] == [
        "T ERROR pack.age an error",
        "T WARNING root of the root, by the module",
        "T ERROR root again",
    ]


def test_a_program_may_configure_logging(run) -> None:
    """A level alone keeps the form of the lines; a format of the program's own is used as outside."""
    levelled = run("logging.basicConfig(level=logging.DEBUG); logging.debug('seen')")
    assert re.fullmatch(_UTC + " DEBUG root seen\n", body(levelled))
    own_form = run("logging.basicConfig(format='%(levelname)s|%(message)s'); logging.error('mine')")
    assert body(own_form) == "ERROR|mine\n"


@pytest.mark.parametrize("mode", ["include_logging", "print_only"])
def test_the_user_logger_always_writes_to_the_log(own, mode) -> None:
    """Logger `user`, at INFO with nothing configured, in both modes, once."""
    with own(settings=isorun.Settings(user_log_mode=mode)) as rt:
        result = rt.execute("u = logging.getLogger('user'); u.info('for you'); u.debug('hidden')")
    assert re.fullmatch(_UTC + " INFO user for you\n", body(result))


def test_print_only_sends_logging_to_infra(own) -> None:
    """Other loggers go to infra.log; prints stay."""
    with own(settings=isorun.Settings(user_log_mode="print_only")) as rt:
        result = rt.execute("print('printed'); logging.getLogger('lib').warning('noise'); logging.info('root noise')")
    assert body(result) == "printed\n"
    lines = [line for line in result.infra_log_tail.splitlines() if "noise" in line]
    assert [re.sub(_UTC, "T", line) for line in lines] == [
        "T WARNING [program] lib noise",
        "T INFO [program] root root noise",
    ]


def test_a_log_that_is_too_long_says_what_was_cut(own) -> None:
    """user.log keeps its beginning and its end within the cap, and the number of bytes between."""
    with own(limits=isorun.Limits(log_bytes=20_000)) as rt:
        result = rt.execute("print('first')\nfor n in range(5000): print('middle', n)\nprint('last')")
    text = body(result)
    assert len(text) < 20_100
    assert text.startswith("first\n")
    assert text.endswith("last\n")
    (cut,) = re.findall(r"^\[\.\.\. (\d+) bytes were cut here \.\.\.\]$", text, re.MULTILINE)
    assert int(cut) == result.usage["output_bytes"] - 20_000
    assert result.truncated


def test_the_first_line(run) -> None:
    """The log begins with the run's id and the time of its start."""
    result = run("print('x')")
    first = user_log(result).split("\n", 1)[0]
    assert re.fullmatch(rf"===== EXECUTION {result.exec_id} START {_UTC} =====", first)


def test_a_program_cannot_hide_behind_such_a_line(run) -> None:
    """What was printed before a forged header is still in the log, its tail and its errors."""
    result = run("""
        print("ERROR the truth")
        print("===== EXECUTION", EXECUTION_ID, "START 2026-01-01T00:00:00.000Z =====")
        print("all is well")
    """)
    assert body(result).splitlines()[0] == "ERROR the truth"
    assert "ERROR the truth" in result.user_log_tail
    assert result.user_error_lines == ("ERROR the truth",)


def test_infra_log_has_every_component(run) -> None:
    """Executor, supervisor and runtime write one merged log, each line with time, level and component."""
    result = run("""
        try:
            agent_io_tools.tool_call_sync(tool_id="a.b")
        except agent_io_tools.ToolError:
            pass
    """)
    lines = (result.out_dir / "logs/infra.log").read_text().splitlines()
    found = [re.fullmatch(rf"{_UTC} [A-Z]+ \[([a-z]+)\] .+", line) for line in lines]
    assert all(found)
    assert {match[1] for match in found if match} == {"runtime", "executor", "supervisor"}
    assert result.infra_log_tail == "\n".join(lines)


def test_nothing_of_the_program_is_in_infra_log(run) -> None:
    """What a program prints is in user.log alone."""
    result = run("print('printed words'); print('more words', file=sys.stderr)")
    assert "words" not in (result.out_dir / "logs/infra.log").read_text()


def test_the_launchers_own_output_has_its_files(run) -> None:
    """runtime.out.log and runtime.err.log are there and hold nothing of the program."""
    result = run("print('printed words'); raise ValueError")
    for name in ("runtime.out.log", "runtime.err.log"):
        assert "words" not in (result.out_dir / name).read_text()
