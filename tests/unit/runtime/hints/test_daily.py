"""SPEC A9, widened: errors that programs written by a model make daily, each with a hint that a model can act on."""

import errno
import os
from dataclasses import replace

import pytest

from isorun.core.outcome import Code, Exit, Status
from isorun.core.sent.claim import Claim
from isorun.runtime.hints.daily import claim_hint, forgotten_awaits, tail_hint
from isorun.runtime.hints.hint import hint_for
from isorun.runtime.hints.paths import PLACES
from isorun.runtime.hints.seen import Seen

ALONE = Seen()
WITH_TOOLS = Seen(tools=("kit.echo", "kit.other"))
TOP = "`await` is allowed at the top level and in `async def` only"
FENCE = "the program holds a markdown fence (```): send only the code between the fences"
NOTEBOOK = "`!`, `%` and `?` are commands of a notebook: use subprocess.run, or leave them out"
PROSE = "that line is prose: send Python only, and prose as a comment (#)"
INSTALL = "`!` and `%` are commands of a notebook, and nothing can be installed during a run: use what is there"
NO_INSTALL = "nothing can be installed during a run: use what is there"
NO_NOTEBOOK = "this is not a notebook: print the value, or write it to a file in OUTPUT_DIR"
NO_NETWORK = "the program has no network: give it what it needs with --input (inputs=)"
NO_TERMINAL = "a program has no terminal and can make none: use pipes, and shutil.get_terminal_size() for a width"


def refused(source: str, flags: int = 0) -> Claim:
    """What the loader claims of *source*, which the interpreter that runs this test refuses."""
    try:
        compile(source, "user_code.py", "exec", flags=flags)
    except SyntaxError as error:
        text = error.text or source.split("\n")[(error.lineno or 1) - 1]
        return Claim(type=type(error).__name__, message=str(error), line=error.lineno, source=text.strip())
    raise AssertionError("it compiles")


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("```python\nprint(1)\n```\n", FENCE),
        ("print(1)\n```\n", FENCE),
        ("Here it is:\n```\nprint(1)\n```\n", PROSE),
        ("Sure! Let's load the file.\nprint(1)\n", PROSE),
        ("1. Load the data\nprint(1)\n", PROSE),
        ("!pip install -q humanize\n", INSTALL),
        ("%pip install humanize\n", INSTALL),
        ("!ls -l\n", NOTEBOOK),
        ("files = !ls\n", NOTEBOOK),
        ("%matplotlib inline\n", NOTEBOOK),
        ("%%time\nx = 1\n", NOTEBOOK),
        ("df?\n", NOTEBOOK),
        (">>> x = 1\n1\n", "leave out the prompts (`>>>`, `In [1]:`) and what the program printed"),
        (
            "if 1 &lt; 2:\n    pass\n",
            "the program holds HTML entities (&lt; &gt; &amp;): send the characters themselves",
        ),
        (r"import os\nprint(1)", r"the program holds \n as two characters: send line breaks"),
        ("return 1\n", "`return` is for functions only: print the value, or end the program with sys.exit()"),
        ("yield 1\n", "`yield` is for functions only: print the value, or collect it in a list"),
        ("print(\u201chi\u201d)\n", "write straight quotes, \" or ', around texts"),
        ("x\xa0= 1\n", "outside of texts, write ASCII characters and plain blanks"),
        ("x = 3 \u00d7 4\n", "outside of texts, write ASCII characters and plain blanks"),
        ("open('C:\\Users\\a')\n", r'a backslash begins an escape: write the text as r"…", or the path with /'),
        ("f(1,\n", "close what was opened there; if the program was cut, send all of it"),
        ("'''abc\n", "close what was opened there; if the program was cut, send all of it"),
        ("  x = 1\n", "a line is indented without a block above it: remove what all lines are indented by"),
        (
            "if 1:\n\tx = 1\n        y = 2\n",
            "tabs and blanks are mixed in the indentation: use four blanks for each level",
        ),
        (
            "if 1:\n    x = 1\n  y = 2\n",
            "give every line of one block the same indentation: four blanks for each level",
        ),
        ("def f():\n    await g()\n", f"{TOP}: make the function around it `async def`"),
        ("x = = 1\n", ""),
        ("print 'what?'\n", ""),
    ],
)
def test_a_program_that_cannot_be_compiled_has_its_hint(source: str, hint: str) -> None:
    """By the interpreter's words and the line it stopped at; a plain mistake explains itself."""
    assert claim_hint(refused(source), Seen(program=source)) == hint


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("df.apply(lambda v: (await kit.echo(x=v))[0])\n", f"{TOP}: use `kit.echo.sync(...)` there"),
        ("def f():\n    return await kit.echo(x=1)\n", f"{TOP}: use `kit.echo.sync(...)` there"),
        (
            "def f():\n    return [x async for x in rows()]\n",
            f"{TOP}: make the function around it `async def`, and `<alias>.<tool>.sync(...)` calls a tool anywhere",
        ),
    ],
)
def test_an_await_in_a_plain_function_is_told_the_call_that_works_there(source: str, hint: str) -> None:
    """The tool is named if the line names one that the program may call."""
    assert claim_hint(refused(source), WITH_TOOLS) == hint


def test_a_forgotten_await_has_both_remedies() -> None:
    """In a lambda `await` would be refused."""
    assert forgotten_awaits("x.py:1: RuntimeWarning: coroutine 'kit.echo' was never awaited\n") == (
        "kit.echo was called without await, so nothing was done: write `await kit.echo(...)`, or `kit.echo.sync(...)` "
        "in a plain function or lambda",
    )


@pytest.mark.parametrize(
    "message",
    [
        "'coroutine' object is not subscriptable",
        "object of type 'coroutine' has no len()",
        "Object of type coroutine is not JSON serializable",
    ],
)
def test_a_coroutine_taken_for_its_result_is_recognised(message: str) -> None:
    """Whatever was done with it."""
    told = claim_hint(Claim(type="TypeError", message=message), WITH_TOOLS)
    assert told == (
        "a coroutine was called without await: write `await` before the call, or `<alias>.<tool>.sync(...)` for a tool "
        "in a plain function or lambda"
    )


def _absent(path: str, kind: str = "FileNotFoundError") -> Claim:
    return Claim(type=kind, message=f"[Errno 2] No such file or directory: {path!r}", errno=errno.ENOENT)


NO_SYSTEM = "the sandbox does not show that file of the machine: do without it"
NOT_IN = f"that path is not in the sandbox: {PLACES}"
_MAKE = 'the folder of that file may be missing: make it first, with os.makedirs("{}", exist_ok=True)'
NONE_GIVEN = "no such file was given to this run: write it first, or give it with --input (inputs=)"


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/home/user/a.csv", NOT_IN),
        ("/app/a.csv", NOT_IN),
        ("/data/a.csv", NOT_IN),
        ("/content/drive/a.csv", NOT_IN),
        ("../input/train.csv", NOT_IN),
        ("C:\\Users\\me\\a.csv", f"there are no drives: {PLACES}"),
        ("/proc/meminfo", NO_SYSTEM),
        ("/sys/fs/cgroup/cpu.max", NO_SYSTEM),
        ("/dev/ptmx", NO_TERMINAL),
        ("results/t.csv", _MAKE),
        ("/tmp/deep/er/t.csv", _MAKE),
        ("a.csv", NONE_GIVEN),
        ("/mnt/data/a.csv", NONE_GIVEN),
        ("made/b.csv", NONE_GIVEN),
        ("na\nme/b.csv", _MAKE.replace('"{}"', "FOLDER")),
    ],
)  # fmt: skip
def test_a_file_that_is_not_there_is_explained_by_where_its_path_points(path: str, hint: str) -> None:
    """Outside the four folders, of the machine, below a folder that is missing, or simply not there."""
    folder = os.path.dirname(path)
    assert claim_hint(_absent(path), Seen(files=("made/a.csv",))) == hint.replace("{}", folder)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("OSError", "Cannot save file into a non-existent directory: 'results'"),
        ("FileNotFoundError", "[Errno 2] Failed to open local file 'results/x.parquet'. Detail: no such file"),
        ("FileNotFoundError", "results/x.txt not found."),
    ],
)
def test_a_library_that_misses_a_folder_in_its_own_words_is_understood(kind: str, message: str) -> None:
    """pandas, pyarrow and numpy each say it otherwise."""
    assert 'os.makedirs("results", exist_ok=True)' in claim_hint(Claim(type=kind, message=message), ALONE)


def test_an_input_in_another_unicode_form_is_pointed_to() -> None:
    """The two names look the same, so it is said that they are not."""
    told = claim_hint(_absent("caf\u00e9.csv"), Seen(given=("cafe\u0301.csv",)))
    assert told.endswith("its name in another Unicode form, which looks the same: take the name from os.listdir")


@pytest.mark.parametrize(
    ("claim", "hint"),
    [
        (
            Claim(type="OSError", errno=errno.EXDEV, message="[Errno 18] Invalid cross-device link: '/tmp/a' -> 'a'"),
            "a rename cannot cross from one place of the sandbox into another: use shutil.move",
        ),
        (
            Claim(type="EOFError", message="EOF when reading a line"),
            "stdin is at its end: write the values into the program, or give them with --stdin (stdin=)",
        ),
        (Claim(type="OSError", message="out of pty devices"), NO_TERMINAL),
        (
            Claim(type="error", message="(25, 'Inappropriate ioctl for device')"),
            NO_TERMINAL,
        ),
        (Claim(type="NameError", message="name 'display' is not defined"), NO_NOTEBOOK),
        (Claim(type="ModuleNotFoundError", message="No module named 'IPython'"), NO_NOTEBOOK),
        (Claim(type="ModuleNotFoundError", message="No module named 'google.colab'"), NO_NOTEBOOK),
        (Claim(type="NameError", message="name 'pd' is not defined"), "write `import pandas as pd` first"),
        (
            Claim(type="NameError", message="name 'total' is not defined"),
            "the program does not define total, and no run has the names of an earlier one: define it in this program",
        ),
        (
            Claim(type="TclError", message="no display name and no $DISPLAY environment variable"),
            "a program has no screen: draw with matplotlib, and keep the figure with savefig",
        ),
        (
            Claim(type="KeyError", message="'OPENAI_API_KEY'"),
            "a program has none of the host's variables: a tool may have the secret that the program lacks",
        ),
        (Claim(type="KeyError", message="'Total'", source="row['Total']"), ""),
        (
            Claim(
                type="FileNotFoundError",
                errno=2,
                message="[Errno 2] No such file or directory: 'git'",
                source="raise child_exception_type(errno_num, err_msg, err_filename)",
            ),
            "no such command is in the sandbox: use Python, or another command",
        ),
        (
            Claim(type="OperationalError", message="unable to open database file"),
            f"the folder of that database is missing (make it with os.makedirs), or is not writable: {PLACES}",
        ),
        (Claim(type="ModuleNotFoundError", message="No module named 'requests'"), NO_NETWORK),
        (Claim(type="OfflineModeIsEnabled", message="Cannot reach it: offline mode is enabled."), NO_NETWORK),
        (
            Claim(type="CalledProcessError", message="Command 'pip install x' returned non-zero exit status 1."),
            NO_INSTALL,
        ),
    ],
)  # fmt: skip
def test_a_daily_error_has_its_hint(claim: Claim, hint: str) -> None:
    """What a model learnt in other places, and cannot do here."""
    assert claim_hint(claim, ALONE) == hint


def test_a_missing_module_names_what_is_installed() -> None:
    """Of the usual packages alone, in our order: what the program says of itself adds no name."""
    claim = Claim(type="ModuleNotFoundError", message="No module named 'polars'", packages="pandas evil numpy \x1b[2J")
    assert claim_hint(claim, ALONE) == (f"the module polars is missing, and {NO_INSTALL} (numpy, pandas)")
    part = Claim(type="ModuleNotFoundError", message="No module named 'numpy.nope'", packages="numpy")
    assert claim_hint(part, ALONE) == "numpy is installed, and its version has no module numpy.nope"


def test_a_module_that_was_given_in_a_folder_is_pointed_to() -> None:
    """Only the folder of the program itself is on its path."""
    claim = Claim(type="ModuleNotFoundError", message="No module named 'helper'")
    told = claim_hint(claim, Seen(given=("lib/helper.py",)))
    assert told == "lib/helper.py is in /workspace/work: write sys.path.append('/workspace/work/lib') first"


NO_SERVER = (
    "the program has no loopback either, so no server can listen: call the handler directly, use a Unix socket "
    '(socket.AF_UNIX), or have the caller turn loopback on: --loopback (network="loopback")'
)
NONE_LISTENS = (
    "no server listens there: the program reaches only servers that it starts itself, so start one first, wait until "
    "it listens, and take the port that it got"
)
NO_FAMILY = "[Errno 97] Address family not supported by protocol"
TO_ITSELF = "Popen(['python', '-m', 'http.server']); urlopen('http://127.0.0.1:8000/')"


@pytest.mark.parametrize(
    ("claim", "seen", "hint"),
    [
        (Claim(type="OSError", errno=97), Seen(stderr="  s = HTTPServer(a)\n"), NO_SERVER),
        (Claim(type="OSError", errno=97), Seen(program="s.listen(); connect(('localhost', 80))"), NO_SERVER),
        (Claim(type="OSError", errno=97), Seen(program="connect(('localhost', 80))"), NO_NETWORK),
        (Claim(type="URLError", message=f"<urlopen error {NO_FAMILY}>"), Seen(program=TO_ITSELF), NO_SERVER),
        (Claim(type="OSError", errno=97), Seen(program="app.run(); create_connection(('::1', 80))"), NO_SERVER),
        (Claim(type="IndexError", source="port = server.sockets[0].getsockname()"), Seen(), NO_SERVER),
        (Claim(type="IndexError", source="port = server.sockets[0].getsockname()"), Seen(loopback=True), ""),
        (Claim(type="IndexError", source="port = servers[0]"), Seen(program=TO_ITSELF), ""),
        (
            Claim(type="OSError", message="could not bind on any address out of [('127.0.0.1', 0)]"),
            Seen(program="start_server(echo, '127.0.0.1', 0)"),
            NO_SERVER,
        ),
        (Claim(type="OSError", errno=97), Seen(program="x[1::1]; create_connection(('1.2.3.4', 80))"), NO_NETWORK),
        (Claim(type="OSError", errno=97), Seen(program="connect(('1127.0.0.1', 1))"), NO_NETWORK),
        (Claim(type="gaierror", errno=-3), Seen(program="connect('localhost.example.com')"), NO_NETWORK),
        (Claim(type="OSError", errno=101), Seen(program=TO_ITSELF, loopback=True), NO_NETWORK),
        (Claim(type="OSError", errno=113), Seen(loopback=True), NO_NETWORK),
        (Claim(type="gaierror", message="anything"), Seen(loopback=True), NO_NETWORK),
        (Claim(type="ConnectionRefusedError", errno=111), Seen(loopback=True), NONE_LISTENS),
        (Claim(type="URLError", message="<urlopen error [Errno 111] anything>"), Seen(loopback=True), NONE_LISTENS),
        (Claim(type="ConnectionRefusedError", errno=111), Seen(), ""),
        (Claim(type="OSError", errno=97), Seen(program=TO_ITSELF, loopback=True), NO_NETWORK),  # of another family
    ],
)  # fmt: skip
def test_a_server_is_a_matter_of_loopback(claim: Claim, seen: Seen, hint: str) -> None:
    """A program that would reach itself is told who may turn that on; one that has it hears of the way out it lacks."""
    assert claim_hint(claim, seen) == hint


def test_a_server_in_a_child_is_seen_by_what_was_printed() -> None:
    """As that of a program which caught the error and went on."""
    printed = f"  server = socketserver.TCPServer(a, H)\nOSError: {NO_FAMILY}\n"
    assert tail_hint(printed, Seen(stderr=printed)) == NO_SERVER
    refused = "ConnectionRefusedError: [Errno 111] Connection refused\n"
    assert tail_hint(refused, Seen(stderr=refused, loopback=True)) == NONE_LISTENS


LOST = "a worker of the pool is gone, and the kernel killed no process of the run for memory: the worker"
ALONE_SHOWS = "do its task without the pool (n_jobs=1) to see where"
JOBLIB = (
    "A worker process managed by the executor was unexpectedly terminated. This could be caused by a segmentation "
    "fault while calling the function or by an excessive memory usage causing the Operating System to kill the "
    "worker.\n\n"
    "The exit codes of the workers are {%s}"
)
POOL = "A process in the process pool was terminated abruptly while the future was running or pending."


@pytest.mark.parametrize(
    ("kind", "text", "hint"),
    [
        ("TerminatedWorkerError", JOBLIB % "SIGSEGV(-11)", f"{LOST} was ended by SIGSEGV: {ALONE_SHOWS}"),
        ("TerminatedWorkerError", JOBLIB % "EXIT(1)", f"{LOST} ended by itself, or crashed: {ALONE_SHOWS}"),
        ("BrokenProcessPool", POOL, f"{LOST} ended by itself, or crashed: {ALONE_SHOWS}"),
    ],
)
def test_a_worker_that_is_gone_is_told_with_what_the_kernel_counted(kind: str, text: str, hint: str) -> None:
    """Not with the paths that a library looked for in vain meanwhile; where it was killed for memory, that is told."""
    stderr = "FileNotFoundError: [Errno 2] No such file or directory: '/proc/meminfo'\n"
    seen = Seen(claim=Claim(type=kind, message=text), stderr=stderr, exit=Exit(code=1))
    assert hint_for(Status.FAILED, Code.PROGRAM_ERROR, seen) == hint
    killed = hint_for(Status.FAILED, Code.PROGRAM_ERROR, replace(seen, exit=Exit(code=1, oom_kills=1)))
    assert killed.startswith("1 process(es) of the run were killed for memory (")
    assert LOST not in killed
    assert "/proc" not in killed
