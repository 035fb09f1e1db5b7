"""The command `isorun`, started as a user starts it: exit codes, streams, signals, JSON.

What it reads, refuses and prints is marked `any_user`. Where programs run, whose files they leave and which processes
are ended is what root and a user have of their own.
"""

import json
import os
import pty
import random
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conformance.conftest import inherited

COMMAND = [sys.executable, "-m", "isorun.cli.main"]
WAITS = "import time\nprint('begin', flush=True)\ntime.sleep(60)\n"
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAITS
Isorun = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The user's own, with a workspace root of the tests'."""
    return {**inherited(), "ISORUN_WORKSPACE_ROOT": str(tmp_path_factory.mktemp("runs"))}


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """A file with this text."""

    def written(text: str) -> str:
        path = tmp_path / "program.py"
        path.write_text(text)
        return str(path)

    return written


@pytest.fixture
def isorun(environment: dict[str, str], tmp_path: Path) -> Isorun:
    """Run the command to its end."""

    def run(*words: str, stdin: bytes = b"", **variables: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [*COMMAND, *words],
            input=stdin,
            capture_output=True,
            env={**environment, **variables},
            cwd=tmp_path,
        )

    return run


@pytest.fixture
def started(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start the command, and make sure that it is gone afterwards."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=tmp_path,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def _one_line(done: "subprocess.CompletedProcess[bytes]") -> str:
    """The only line on stderr; stdout is empty."""
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


# ---- run: endings --------------------------------------------------------------------------------

ENDINGS = [
    ("print('hi')", (), 0, "ok"),
    ("raise SystemExit(7)", (), 7, "failed"),
    ("raise ValueError('no')", (), 1, "failed"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", (), 139, "killed"),
    ("while True: pass", ("--timeout", "0.3"), 124, "timed_out"),
    ("raise MemoryError", (), 137, "out_of_memory"),
    ("open('a', 'wb').write(bytes(200 << 20))", (), 5, "limit_exceeded"),
    (
        "pass",
        ("--contract", '[{"filename": "turn_1/files/a.txt", "description": "a"}]'),
        3,
        "contract_failed",
    ),
    ("import os; os.write(3, b'\\xff' * 64); os.read(3, 1)", (), 6, "protocol_violation"),
]


@pytest.mark.parametrize(("text", "options", "code", "status"), ENDINGS)
def test_every_ending_has_its_exit_code(
    text: str, options: tuple[str, ...], code: int, status: str, program, isorun: Isorun
) -> None:
    """The exit code is that of the table, and the verdict's first word is the status."""
    done = isorun("run", program(text), *options)
    assert done.returncode == code, done.stderr
    verdict = [line for line in done.stderr.decode().splitlines() if " · isolation full" in line]
    assert [line.split()[0] for line in verdict] == [status]


NOWHERE = "unix:///nonexistent/docker.sock"
REFUSALS = [
    (("run", "no.py"), 2, "isorun: no.py cannot be read: No such file or directory"),
    (("run", "/dev/null"), 2, "isorun: there is no code to run"),
    (
        ("run", "/dev/zero"),
        2,
        "isorun: the code has 1048577 bytes, more than 1048576; give its data as inputs, or raise "
        "ISORUN_MAX_SOURCE_BYTES",
    ),
    (("run", "{p}", "--timeout", "nan"), 2, "isorun: timeout_s must be positive and finite, got nan"),
    (("run", "{p}", "--turn-id", "../x"), 2, "isorun: turn_id must be "),
    (
        ("run", "{p}", "--exec-id", "Job 7"),
        2,
        "isorun: exec_id must be 1 to 40 characters of a-z, 0-9 and '-', got 'Job 7'",
    ),
    (
        ("run", "{p}", "--user-id", "a\nb"),
        2,
        "isorun: user_id must be at most 200 printable characters, got 'a\\nb'",
    ),
    (("run", "{p}", "--contract", "[]"), 2, "isorun: the contract is empty: "),
    (("run", "{p}", "--contract", "["), 2, "isorun: --contract is not JSON ("),
    (("run", "{p}", "--contract", "@no"), 2, "isorun: no cannot be read: No such file or directory"),
    (
        ("run", "{p}", "--contract", "[]", "--side-effects"),
        2,
        "isorun: --side-effects means no contract; leave out one of it and --contract",
    ),
    (("run", "{p}", "--input", "no"), 2, "isorun: there is no input no"),
    (("run", "{p}", "--out", "."), 2, "isorun: out (--out) . is not empty; name a new or empty folder"),
    (
        ("run", "{p}", "--out", "{p}"),
        2,
        "isorun: out (--out) {p} cannot be used: Not a directory; name a folder that you may write to",
    ),
    (
        ("run", "{p}", "--save-to", "{p}"),
        2,
        "isorun: save_to (--save-to) {p} cannot be used: Not a directory; name a folder that you may write to",
    ),
    (("run", "{p}", "--start-from", "no"), 2, "isorun: there is no folder no to start from"),
    (("run", "-", "--stdin"), 2, "isorun: stdin is the program (-), so --stdin has nothing to give to it"),
    (("run", "{p}", "--env-file", "no"), 2, "isorun: no: cannot be read: No such file or directory"),
    (
        ("run", "{p}", "--backend", "best"),
        2,
        "isorun: there is no backend 'best'; use one of auto, namespace, docker",
    ),
    (
        ("run", "{p}", "--timeout", "9999"),
        2,
        "isorun: timeout_s is 9999, more than ISORUN_MAX_WALL_S (PY_CODE_EXEC_TIMEOUT) allows: ",
    ),
    (
        ("run", "{p}", "--backend", "docker", "--python", "/usr/bin/python3"),
        2,
        "isorun: ISORUN_PROGRAM_PYTHON (--python) is for the embedded backend only: ",
    ),
    (("run", "{p}", "--python", "/bin/true"), 4, "isorun: the program's Python cannot be run: /bin/true: "),
    (("run", "{p}", "--bogus"), 2, "isorun: No such option"),
    (("run",), 2, "isorun: Missing argument"),
    (("bogus",), 2, "isorun: No such command"),
    (("runs", "show", "none"), 2, "isorun: there is no run none in "),
    (("runs", "logs", "../x"), 2, "isorun: exec_id must be "),
    (("runs", "rm", "none"), 2, "isorun: there is no run none in "),
    (
        ("cleanup", "--older-than", "-1"),
        2,
        "isorun: --older-than must be a number of hours, 0 or more, got -1.0",
    ),
    (("cleanup", "--all", "--older-than", "1"), 2, "isorun: --all and --older-than contradict each other; "),
]


@pytest.mark.any_user
@pytest.mark.parametrize(("words", "code", "line"), REFUSALS)
def test_a_refusal_is_one_line(words: tuple[str, ...], code: int, line: str, program, isorun: Isorun) -> None:
    """What cannot be done is said in one line on stderr, with its exit code, and never as a traceback."""
    path = program("pass")
    done = isorun(*(word.replace("{p}", path) for word in words))
    assert done.returncode == code
    assert _one_line(done).startswith(line.replace("{p}", path))


@pytest.mark.any_user
def test_without_a_daemon_docker_is_refused_in_one_line(program, isorun: Isorun) -> None:
    """Whether it is the daemon that is missing or the CLI; no other backend is taken."""
    done = isorun("run", program("pass"), "--backend", "docker", DOCKER_HOST=NOWHERE)
    assert done.returncode == 4
    told = ("isorun: the Docker engine does not answer: ", "isorun: there is no docker on PATH: ")
    assert _one_line(done).startswith(told)


@pytest.mark.any_user
@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (("--timeout", "9999"), 2, "timeout_too_large"),
        (("--backend", "docker"), 4, "unavailable"),
        (("--out", "/proc/nothing"), 70, "setup_failed"),
    ],
)
def test_with_json_a_refusal_is_an_object_too(options: tuple[str, ...], code: int, word: str, program, isorun) -> None:
    """A reader of JSON gets one object on stdout, beside the line on stderr, with the same exit code."""
    done = isorun("run", program("pass"), "--json", *options, DOCKER_HOST=NOWHERE)
    assert done.returncode == code
    told = json.loads(done.stdout)
    message = done.stderr.decode().removeprefix("isorun: ").removesuffix("\n")
    assert told == {"ok": False, "error": {"code": word, "message": message}}


@pytest.mark.any_user
@pytest.mark.parametrize("words", [("nosuch",), ("json,nosuch",), ("json", "--preload", "nosuch, csv")])
def test_a_preload_asked_for_by_name_that_fails_is_an_error(program, isorun: Isorun, words: tuple[str, ...]) -> None:
    """Nothing is started; the error names the module and the interpreter that lacks it."""
    before = isorun("runs", "ls", "--json").stdout
    done = isorun("run", program("print(1)"), "--python", sys.executable, "--preload", *words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == (
        "isorun: preload nosuch failed: ModuleNotFoundError: No module named 'nosuch'; "
        f"{sys.executable} cannot import it: install it there, or leave it out\n"
    )
    assert isorun("runs", "ls", "--json").stdout == before


@pytest.mark.any_user
def test_a_preload_of_the_settings_that_fails_is_told(program, isorun: Isorun) -> None:
    """It was set for all programs: this one runs without it, and its notices say so."""
    done = isorun("run", program("print(1)"), "--json", ISORUN_PRELOAD="nosuch")
    assert json.loads(done.stdout)["notices"] == [
        "preload nosuch failed: ModuleNotFoundError: No module named 'nosuch'"
    ]
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_input_opened_in_the_wrong_folder_has_a_hint(program, isorun: Isorun, tmp_path: Path) -> None:
    """The program looks where it would lie elsewhere; it is told where it is."""
    data = tmp_path / "data.csv"
    data.write_text("a\n")
    done = isorun("run", program("open('/data/data.csv')"), "--json", "--input", str(data))
    hint = "data.csv is at /workspace/work/data.csv; the working directory is /workspace/out"
    assert json.loads(done.stdout)["error"]["hint"] == hint


def test_what_cannot_be_set_up_exits_70(program, isorun: Isorun) -> None:
    """A run whose results cannot be handed over is our failure, and names where they are."""
    done = isorun("run", program("print(1)"), "--out", "/proc/nothing")
    assert done.returncode == 70
    assert b"isorun: out: /proc/nothing: No such file or directory: not saved in /proc/nothing; " in done.stderr
    assert b"; the run's files are in " in done.stderr


# ---- run: what goes in ---------------------------------------------------------------------------


@pytest.mark.any_user
def test_arguments_after_two_dashes_are_the_programs(program, isorun: Isorun) -> None:
    """Options behind -- are not ours."""
    done = isorun("run", program("import sys; print(sys.argv[1:])"), "--", "--json", "-x", "a b")
    assert done.stdout == b"['--json', '-x', 'a b']\n"


@pytest.mark.any_user
def test_a_program_from_stdin(isorun: Isorun) -> None:
    """`isorun run -` reads the program."""
    assert isorun("run", "-", stdin=b"print('from stdin')").stdout == b"from stdin\n"


@pytest.mark.any_user
@pytest.mark.parametrize(("options", "said"), [(("--stdin",), b"'data\\n'\n"), ((), b"''\n")])
def test_stdin_is_given_when_asked_for(options, said: bytes, program, isorun: Isorun) -> None:
    """By default the program's stdin is at its end, whatever ours holds."""
    done = isorun("run", program("import sys; print(repr(sys.stdin.read()))"), *options, stdin=b"data\n")
    assert done.stdout == said


@pytest.mark.any_user
def test_an_env_file_sets_limits(program, isorun: Isorun, tmp_path: Path) -> None:
    """The settings of the file count for this run."""
    (tmp_path / "settings").write_text("ISORUN_MAX_WALL_S=1\n")
    done = isorun("run", program("pass"), "--env-file", "settings", "--timeout", "2")
    assert done.returncode == 2
    assert _one_line(done) == "isorun: timeout_s is 2, more than ISORUN_MAX_WALL_S (PY_CODE_EXEC_TIMEOUT) allows: 1"


@pytest.mark.any_user
def test_a_setting_that_does_not_exist_is_said(program, isorun: Isorun) -> None:
    """A misspelt ceiling would not hold; the user hears of it."""
    done = isorun("run", program("pass"), ISORUN_MAX_MEMORY="1")
    assert done.stderr.startswith(b"isorun: warning: ISORUN_MAX_MEMORY (environment) is not a setting; ")


def test_python_and_preload_reach_the_program(program, isorun: Isorun) -> None:
    """The interpreter that is named runs the program, with the module imported beforehand."""
    text = "import sys; print(sys.executable, 'colorsys' in sys.modules)"
    done = isorun("run", program(text), "--python", sys.executable, "--preload", "colorsys")
    assert done.stdout == f"{sys.executable} True\n".encode()


def test_files_go_in_and_come_out(program, isorun: Isorun, tmp_path: Path) -> None:
    """--input lies beside the program, --turn-id names the folder, --out gets what out/ holds."""
    (tmp_path / "data.txt").write_text("data")
    text = "open(f'{TURN_ID}/files/copy.txt', 'w').write(open('/workspace/work/data.txt').read() * 2)"
    done = isorun("run", program(text), "--input", "data.txt", "--turn-id", "5", "--out", "got")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "got/turn_5/files/copy.txt").read_text() == "datadata"
    assert (tmp_path / "got/logs/user.log").exists()
    assert b"turn_5/files/copy.txt" in done.stderr


def test_a_run_has_the_ids_that_its_caller_gives(program, isorun: Isorun, tmp_path: Path) -> None:
    """--exec-id names the run and its folder, and no other run may have it; --user-id is what a tool is told."""
    root = tmp_path / "runs"
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "who.py").write_text(
        "import isorun\n\n\n@isorun.tool\ndef ids(ctx: isorun.ToolContext) -> list[str]:\n"
        '    """Whose run it is."""\n    return [ctx.user_id, ctx.exec_id]\n'
    )
    (bundle / "tools_descriptor.py").write_text("TOOLS = [{'ref': 'who.py', 'alias': 'who'}]\n")
    text = "print(await who.ids())"
    words = ("run", program(text), "--bundle", str(bundle), "--exec-id", "job-7", "--user-id", "Ana B")
    done = isorun(*words, ISORUN_WORKSPACE_ROOT=str(root))
    assert done.stdout == b"['Ana B', 'job-7']\n", done.stderr
    assert (root / "codegen_job-7/out").is_dir()
    again = isorun(*words, ISORUN_WORKSPACE_ROOT=str(root))
    assert again.returncode == 2
    assert _one_line(again) == "isorun: there is a run job-7 already; give another exec_id, or none for a new one"


def test_a_run_goes_on_in_a_session(program, isorun: Isorun, tmp_path: Path) -> None:
    """Each finds the files of the one before; `sessions ls` has it, `sessions rm` removes it."""
    root = {"ISORUN_WORKSPACE_ROOT": str(tmp_path / "runs")}
    line = (
        "run",
        program("open('n', 'a').write('x'); print(len(open('n').read()))"),
        "--session",
        "my-work",
        "--no-keep",
    )
    assert [isorun(*line, **root).stdout for _ in range(3)] == [b"1\n", b"2\n", b"3\n"]
    (told,) = json.loads(isorun("sessions", "ls", "--json", **root).stdout)
    assert (told["name"], told["files"], told["bytes"], told["in_use"]) == ("my-work", 1, 3, False)
    table = isorun("sessions", "ls", **root).stdout.decode()
    assert table.splitlines()[-1].split()[:3] == ["my-work", "1", "3"], table
    assert isorun("sessions", "rm", "my-work", "../x", **root).returncode == 2
    assert isorun("sessions", "rm", "my-work", **root).stdout == b"removed my-work\n"
    gone = isorun("sessions", "rm", "my-work", **root)
    assert (gone.returncode, b"session my-work is not in" in gone.stderr) == (2, True)
    assert b"no sessions in" in isorun("sessions", "ls", **root).stdout


def test_a_session_that_runs_is_not_removed(program, isorun: Isorun, started) -> None:
    """Its run ends as it would have; killed, it leaves the session free."""
    process = started("run", program(WAITS), "--session", "busy")
    assert process.stdout.readline() == b"begin\n"
    done = isorun("sessions", "rm", "busy")
    assert (done.returncode, b"session busy is used by a run" in done.stderr) == (2, True)
    process.kill()
    process.wait()
    assert isorun("run", program("print(1)"), "--session", "busy").stdout == b"1\n"


@pytest.mark.any_user
def test_a_command_that_is_killed_leaves_the_session_whole(program, isorun: Isorun, started, environment) -> None:
    """Wherever in its run it was: the next one finds all files of one run, the last or the one before."""
    text = """
        from pathlib import Path
        was = sorted(Path().iterdir())
        texts = {path.read_text() for path in was}
        assert len(was) in (0, 20) and len(texts) < 2, (was, texts)
        for number in range(20):
            Path(f"{number}").write_text(str(int(min(texts, default="0")) + 1))
        print(min(texts, default="0"), flush=True)
    """
    file = program(textwrap.dedent(text))
    began = time.monotonic()
    assert isorun("run", file, "--session", "killed", "--no-keep").stdout == b"0\n"
    took_s, chance = time.monotonic() - began, random.Random(5)
    for _ in range(12):
        process = started("run", file, "--session", "killed", "--no-keep")
        with suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.3, 1.1) * took_s)
        process.kill()
        process.wait()
    done = isorun("run", file, "--session", "killed")
    assert (done.returncode, int(done.stdout) >= 1) == (0, True), done.stderr


@pytest.mark.any_user
def test_a_contract_from_a_file(program, isorun: Isorun, tmp_path: Path) -> None:
    """@FILE holds the contract; a kept one exits 0."""
    item = {"filename": "turn_1/files/a.txt", "description": "a"}
    (tmp_path / "contract.json").write_text(json.dumps([item]))
    text = "open('turn_1/files/a.txt', 'w').write('kept')"
    done = isorun("run", program(text), "--contract", "@contract.json", "--json")
    assert json.loads(done.stdout)["succeeded"] == ["turn_1/files/a.txt"]


# ---- run: what comes out -------------------------------------------------------------------------


@pytest.mark.any_user
def test_json_is_the_stored_result_and_nothing_else(program, isorun: Isorun) -> None:
    """--json prints the whole RunResult, which is what result.json holds; the program's output is inside."""
    text = "import sys; print('out'); print('err', file=sys.stderr); open('a.txt', 'w').write('a')"
    done = isorun("run", program(text), "--json")
    result = json.loads(done.stdout)
    assert (done.stdout.count(b"\n"), done.stderr) == (1, b"")
    assert result == json.loads((Path(result["out_dir"]) / "result.json").read_text())
    assert (result["stdout"], result["stderr"], result["artifacts"][0]["path"]) == ("out\n", "err\n", "a.txt")


@pytest.mark.any_user
def test_a_pipe_gets_the_bytes_as_they_are(program, isorun: Isorun) -> None:
    """stdout is the program's stdout, byte for byte; the verdict goes to stderr."""
    text = "import sys; sys.stdout.buffer.write(b'\\x1b[31m\\xff\\x00\\r'); sys.stderr.buffer.write(b'\\xfe\\n')"
    done = isorun("run", program(text))
    assert done.stdout == b"\x1b[31m\xff\x00\r"
    assert done.stderr.startswith(b"\xfe\nok ")


@pytest.mark.any_user
def test_a_terminal_gets_no_control_characters(program, environment: dict[str, str]) -> None:
    """On a terminal a hostile program's escapes are text."""
    ours, theirs = pty.openpty()
    path = program("import sys; sys.stdout.write('\\x1b]0;owned\\x07\\x9b31m\\r'); sys.stderr.write('\\x1bc')")
    process = subprocess.Popen(
        [*COMMAND, "run", path],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm"},
    )
    os.close(theirs)
    shown = _all_of(ours)
    assert process.wait() == 0
    assert rb"\x1b]0;owned\x07\x9b31m\r" in shown
    assert rb"\x1bc" in shown
    assert b"\x07" not in shown
    assert b"\x1bc" not in shown
    assert b"\x1b]" not in shown


def _all_of(terminal: int) -> bytes:
    found = bytearray()
    try:
        while data := os.read(terminal, 4096):
            found += data
    except OSError:  # EIO: the last process has closed it
        pass
    finally:
        os.close(terminal)
    return bytes(found)


@pytest.mark.any_user
def test_a_short_run_imports_nothing_heavy(program, isorun: Isorun, environment, tmp_path: Path) -> None:
    """The gate of the cold start: no rich or pydantic on the way to the first output."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *COMMAND[1:], "run", program("print('hi')")],
        capture_output=True,
        env=environment,
    )
    names = {line.rpartition(b"|")[2].strip().split(b".")[0] for line in done.stderr.splitlines()}
    assert done.stdout == b"hi\n"
    assert b"asyncio" in names
    assert names & {b"rich", b"pydantic", b"pydantic_core"} == set()


# ---- run: interrupts -----------------------------------------------------------------------------


def _family(pid: int) -> list[int]:
    """pidfds of all that descend from *pid*."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(text.rpartition(")")[2].split()[1])
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return [os.pidfd_open(child) for child in found]


def _all_gone(pidfds: list[int], within_s: float = 5.0) -> bool:
    gone = all(select.select([pidfd], [], [], within_s)[0] for pidfd in pidfds)
    for pidfd in pidfds:
        os.close(pidfd)
    return gone


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_cancels_and_prints_the_partial_result(number: int, program, started) -> None:
    """Output that came before is there, the verdict says cancelled, and no process is left."""
    process = started("run", program(WAITS))
    assert process.stdout.readline() == b"begin\n"
    family = _family(process.pid)
    assert family
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert err.startswith(b"cancelled ")
    assert _all_gone(family)


@pytest.mark.any_user
def test_an_interrupt_with_json_prints_the_partial_result(program, started, environment) -> None:
    """The partial result is a whole RunResult."""
    process = started("run", program(WAITS), "--json")
    _wait_for_log(Path(environment["ISORUN_WORKSPACE_ROOT"]), process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    result = json.loads(out)
    assert (process.returncode, result["status"], result["stdout"]) == (130, "cancelled", "begin\n")


def _wait_for_log(root: Path, process: "subprocess.Popen[bytes]") -> None:
    """Return once some user.log of a run without a result holds the program's first line."""
    while process.poll() is None:
        for log in root.glob("codegen_*/out/logs/user.log"):
            if not (log.parents[1] / "result.json").exists() and "begin" in log.read_text():
                return
    pytest.fail("the command ended early")


@pytest.mark.alone
def test_a_second_interrupt_ends_at_once(program, started) -> None:
    """A program that ignores SIGTERM has its grace period; who does not want to wait for that need not."""
    process = started("run", program(DEAF))
    assert process.stdout.readline() == b"begin\n"
    family = _family(process.pid)
    ended = os.pidfd_open(process.pid)
    process.send_signal(signal.SIGINT)
    assert not select.select([ended], [], [], 0.5)[0]  # it is in the grace period now
    process.send_signal(signal.SIGINT)
    assert select.select([ended], [], [], 1.0)[0]
    os.close(ended)
    assert process.wait() == 130
    assert _all_gone(family)


def test_a_terminals_ctrl_c_reaches_us_and_not_the_jail(program, environment) -> None:
    """The key sends SIGINT to the whole foreground group; the sandbox must not be a member of it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [*COMMAND, "run", program(WAITS)], environment)
    shown = b""
    while b"begin" not in shown:
        shown += os.read(terminal, 4096)
    os.write(terminal, b"\x03")
    shown += _all_of(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert b"cancelled" in shown


@pytest.mark.any_user
def test_a_reader_that_goes_away_ends_the_run(program, started) -> None:
    """`isorun run x.py | head -1` does not go on for ten minutes."""
    process = started("run", program("while True: print('y' * 1000)"))
    assert process.stdout.readline().startswith(b"yyy")
    process.stdout.close()
    assert process.wait(timeout=20) == 130
    assert b"cancelled " in process.stderr.read()


@pytest.mark.any_user
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_place_for_something_else(closed: str, program, isorun: Isorun, environment) -> None:
    """Without stdin, stdout or stderr the program still runs to its end, and its output goes nowhere else."""
    line = f'exec "$@" {closed}'
    command = ["sh", "-c", line, "sh", *COMMAND, "run", program("print('hi'); raise SystemExit(9)")]
    assert subprocess.run(command, capture_output=True, env=environment).returncode == 9


@pytest.mark.any_user
def test_a_table_that_nobody_reads_is_no_error(environment: dict[str, str]) -> None:
    """`isorun config show | head -1` says nothing about pipes."""
    out, into = os.pipe()
    os.close(out)
    done = subprocess.run([*COMMAND, "config", "show", "--json"], stdout=into, stderr=subprocess.PIPE, env=environment)
    os.close(into)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_killed_command_leaves_no_process(program, started) -> None:
    """SIGKILL cannot be handled; the kernel takes the sandbox down with us."""
    process = started("run", program(WAITS))
    assert process.stdout.readline() == b"begin\n"
    family = _family(process.pid)
    process.kill()
    process.wait()
    assert _all_gone(family)


# ---- the other commands --------------------------------------------------------------------------


def test_doctor_runs_a_program_behind_every_wall(isorun: Isorun) -> None:
    """Where programs run sealed, doctor exits 0 and shows each wall with what the kernel said."""
    done = isorun("doctor", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"], told["isolation"]["level"]) == (0, True, "full")
    assert {check["name"] for check in told["walls"]} >= {
        "seccomp",
        "network",
        "capabilities",
        "read_only_root",
    }
    assert all(check["ok"] for check in told["host"] + told["walls"])
    text = isorun("doctor", "--verbose").stdout.decode()
    assert "bubblewrap" in text
    assert text.startswith("every wall stands: programs run sealed here\n")


def test_doctor_loads_the_bundle_too(isorun: Isorun, tmp_path: Path) -> None:
    """A bundle that is set is loaded by a supervisor; one that cannot be is named with file, line and tool, exit 4."""
    (tmp_path / "tools_descriptor.py").write_text('TOOLS = [{"ref": "mine.py", "alias": "mine"}]\n')
    mine = tmp_path / "mine.py"
    mine.write_text('import isorun\n@isorun.tool\ndef greet(name: str) -> str:\n    "Greet."\n    return name\n')
    good = isorun("doctor", "--json", ISORUN_BUNDLE=str(tmp_path))
    found = {check["name"]: check for check in json.loads(good.stdout)["host"]}
    assert (good.returncode, found["bundle"]["ok"]) == (0, True)
    assert found["bundle"]["detail"] == f"{tmp_path}: 1 tools in 1 modules"
    mine.write_text('import isorun\n@isorun.tool\ndef greet(name) -> str:\n    "Greet."\n    return name\n')
    bad = isorun("doctor", "--json", ISORUN_BUNDLE=str(tmp_path))
    told = json.loads(bad.stdout)
    found = {check["name"]: check for check in told["host"]}
    assert (bad.returncode, told["ok"], found["bundle"]["ok"]) == (4, False, False)
    assert found["bundle"]["detail"] == f"{mine}:2: mine.greet: the parameter name has no type hint"


def test_doctor_exits_4_where_programs_cannot_run(isorun: Isorun) -> None:
    """Each failed line has its cause, and what to do."""
    done = isorun("doctor", ISORUN_PROGRAM_PYTHON="/bin/true")
    text = done.stdout.decode()
    assert done.returncode == 4
    assert "FAILED   Python of programs" in text
    assert "→ set ISORUN_PROGRAM_PYTHON to Python 3.11 or newer" in text
    assert text.startswith("programs cannot run sealed here; nothing weaker is started\n")


def test_stored_runs_are_listed_shown_and_removed(program, isorun: Isorun, tmp_path: Path) -> None:
    """ls, show, logs and rm speak of the same run."""
    root = {"ISORUN_WORKSPACE_ROOT": str(tmp_path / "runs")}
    result = json.loads(isorun("run", program("print('hi')"), "--json", **root).stdout)
    exec_id = result["exec_id"]
    (row,) = json.loads(isorun("runs", "ls", "--json", **root).stdout)
    assert (row["exec_id"], row["status"], row["prog_name"]) == (exec_id, "ok", "program.py")
    table = isorun("runs", "ls", **root).stdout.decode().splitlines()
    assert [line.split()[:2] for line in table if exec_id in line] == [[exec_id, "ok"]]
    assert all(line == line.rstrip() for line in table)
    assert json.loads(isorun("runs", "show", exec_id, "--json", **root).stdout) == result
    assert isorun("runs", "show", exec_id, **root).stdout.decode().startswith(f"{exec_id} program.py\nok ")
    assert isorun("runs", "logs", exec_id, **root).stdout.endswith(b"START " + _started(result) + b" =====\nhi\n")
    assert b"[executor] UID=1001" in isorun("runs", "logs", exec_id, "--infra", **root).stdout
    logs = json.loads(isorun("runs", "logs", exec_id, "--json", **root).stdout)
    assert logs["user_log"].endswith("hi\n")
    for name in (f"codegen_{exec_id}", exec_id[:6]):
        assert json.loads(isorun("runs", "show", name, "--json", **root).stdout) == result
    assert isorun("runs", "rm", exec_id[:8], **root).stdout == f"removed {exec_id}\n".encode()
    assert json.loads(isorun("runs", "ls", "--json", **root).stdout) == []


def _started(result: dict) -> bytes:
    log = (Path(result["out_dir"]) / "logs/user.log").read_text()
    return log.split(" START ")[1].split(" =====")[0].encode()


@pytest.mark.any_user
def test_config_shows_each_setting_its_source_and_no_secret(isorun: Isorun) -> None:
    """A secret is masked, the name that was read is told, a slip is a warning on stderr."""
    given = {"POSTGRES_PASSWORD": "hunter2", "PY_CODE_EXEC_TIMEOUT": "30", "ISORUN_POOLSIZE": "1"}
    done = isorun("config", "show", "--json", **given)
    told = json.loads(done.stdout)
    rows = {row["name"]: row for row in told["settings"]}
    assert rows["ISORUN_POSTGRES_PASSWORD"]["value"] == "***"
    assert rows["ISORUN_MAX_WALL_S"]["name_used"] == "PY_CODE_EXEC_TIMEOUT"
    assert rows["ISORUN_MAX_WALL_S"]["source"] == "environment"
    assert done.stderr.startswith(b"isorun: warning: ISORUN_POOLSIZE (environment) is not a setting; ")
    table = isorun("config", "show", **given).stdout
    assert b"PY_CODE_EXEC_TIMEOUT" in table
    assert b"hunter2" not in table + done.stdout


def test_cleanup_removes_what_has_ended(program, isorun: Isorun, tmp_path: Path) -> None:
    """Without options runs are kept for the retention time; --all removes every one that has ended."""
    root = {"ISORUN_WORKSPACE_ROOT": str(tmp_path / "runs")}
    exec_id = json.loads(isorun("run", program("pass"), "--json", **root).stdout)["exec_id"]
    kept = json.loads(isorun("cleanup", "--json", **root).stdout)
    assert (kept["removed_runs"], kept["lost_runs"]) == ([], [])
    done = isorun("cleanup", "--all", **root)
    assert f"removed runs: 1\n  {exec_id}\n" in done.stdout.decode()
    assert json.loads(isorun("runs", "ls", "--json", **root).stdout) == []


def test_cleanup_removes_sessions_that_were_not_used(program, isorun: Isorun, tmp_path: Path) -> None:
    """By a setting of their own: `--all` speaks of runs."""
    root = {"ISORUN_WORKSPACE_ROOT": str(tmp_path / "runs")}
    isorun("run", program("open('a', 'w').close()"), "--session", "s", **root)
    assert json.loads(isorun("cleanup", "--all", "--json", **root).stdout)["removed_sessions"] == []
    done = isorun("cleanup", "--json", ISORUN_SESSION_RETENTION_HOURS="0.000001", **root)
    assert json.loads(done.stdout)["removed_sessions"] == ["s"]


def test_cleanup_ends_the_runs_of_a_killed_host(program, isorun: Isorun, started, environment) -> None:
    """A run whose host was killed is lost, and says so."""
    process = started("run", program(WAITS))
    assert process.stdout.readline() == b"begin\n"
    process.kill()
    process.wait()
    (exec_id,) = json.loads(isorun("cleanup", "--json").stdout)["lost_runs"]
    assert b"lost\n  host_lost: the host process died before the run ended\n" in isorun("runs", "show", exec_id).stdout


@pytest.mark.any_user
@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("runs", "--help"), ("doctor", "--help")])
def test_help_is_help(words: tuple[str, ...], isorun: Isorun) -> None:
    """Asking for help is not an error."""
    done = isorun(*words)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Usage: isorun" in done.stdout


@pytest.mark.any_user
def test_version(isorun: Isorun) -> None:
    """`isorun --version` names what was installed."""
    assert isorun("--version").stdout == b"isorun 0.1.0\n"


@pytest.mark.any_user
def test_a_run_may_have_lower_limits_of_its_own(isorun: Isorun) -> None:
    """`--memory`, `--cpus` and `--limit` are in the result; sizes and times as people write them."""
    words = ("--memory", "256M", "--limit", "processes=9", "--limit", "grace_s=500ms", "--timeout", "1m")
    done = isorun("run", "-", *words, "--json", stdin=b"pass")
    told = json.loads(done.stdout)["limits"]
    shown = {name: told[name] for name in ("memory_bytes", "tmp_bytes", "processes", "grace_s", "wall_s")}
    assert shown == {"memory_bytes": 256 << 20, "tmp_bytes": 32 << 20, "processes": 9, "grace_s": 0.5, "wall_s": 60}


@pytest.mark.any_user
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("--memory", "64G"),
            "limits: memory_bytes is 68719476736, more than ISORUN_MAX_MEMORY_BYTES allows: 1073741824",
        ),
        (
            ("--memory", "lots"),
            "memory_bytes must be a size such as 256M or 1.5G, or a whole number of bytes, got 'lots'",
        ),
        (("--limit", "process=8"), "'process' is not a limit; did you mean processes?"),
        (("--limit", "processes"), "--limit processes: write NAME=VALUE, as processes=8"),
        (("--memory", "1G", "--limit", "memory_bytes=1G"), "memory_bytes is given twice; leave out one"),
        (("--cpus", "half"), "cpus must be a number, got 'half'"),
    ],
)
def test_a_limit_that_cannot_be_is_named(isorun: Isorun, words: tuple[str, ...], says: str) -> None:
    """Exit code 2, and nothing runs."""
    done = isorun("run", "-", *words, stdin=b"print(1)")
    assert (done.returncode, done.stdout) == (2, b"")
    assert says in done.stderr.decode()


@pytest.mark.any_user
def test_a_program_may_stand_on_the_command_line(isorun: Isorun) -> None:
    """`-c CODE`, with all other words its arguments, and our stdin if `--stdin` says so."""
    done = isorun("run", "-c", "print(sys.argv[1:], sys.stdin.read())", "--stdin", "a", "--", "-b", stdin=b"typed")
    assert (done.returncode, done.stdout) == (0, b"['a', '-b'] typed\n")
    assert isorun("run", "-c", " ").returncode == 2


def test_a_run_that_is_not_kept_leaves_what_was_asked_for(isorun, program, environment, tmp_path) -> None:
    """`--out` has the files, the workspace root has nothing of the run, and no line names its folder."""
    root = Path(environment["ISORUN_WORKSPACE_ROOT"])
    before = set(root.glob("codegen_*"))
    file = program("(OUT / 'a.txt').write_text('x')\nprint('done')")
    done = isorun("run", "--no-keep", file, "--out", str(tmp_path / "to"))
    assert (done.returncode, done.stdout, (tmp_path / "to/a.txt").read_text()) == (0, b"done\n", "x")
    assert b"folder:" not in done.stderr
    alone = isorun("run", "--no-keep", "--json", file)
    assert json.loads(alone.stdout)["kept"] is False
    assert set(root.glob("codegen_*")) == before
