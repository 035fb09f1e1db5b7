"""An error that was caught and printed by a program that ended well: told if a wall explains it, and only then."""

import pytest

from isorun.core.outcome import Code, Status
from isorun.runtime.hints.caught import last_words
from isorun.runtime.hints.hint import hint_for
from isorun.runtime.hints.message import may_speak_of_an_error
from isorun.runtime.hints.paths import PLACES
from isorun.runtime.hints.seen import Seen

NO_NETWORK = "the program has no network: give it what it needs with --input (inputs=)"
NO_INSTALL = "nothing can be installed during a run: use what is there"
NO_FILE = "no such file was given to this run: write it first, or give it with --input (inputs=)"
NOT_IN = f"that path is not in the sandbox: {PLACES}"
NOT_WRITABLE = "that path is not writable: write to OUTPUT_DIR or /tmp"
TRACE = 'Traceback (most recent call last):\n  File "user_code.py", line 2, in <module>\n    open("a.csv")\n'


@pytest.mark.parametrize(
    ("printed", "hint"),
    [
        ("Error: [Errno 2] No such file or directory: 'data.csv'\n", NO_FILE),
        ("loading\nFailed to load: [Errno 2] No such file or directory: 'data.csv'\nDone.\n", NO_FILE),
        (f"{TRACE}FileNotFoundError: [Errno 2] No such file or directory: 'a.csv'\n", NO_FILE),
        ("ERROR:root:[Errno 2] No such file or directory: '/data/a.csv'\n", NOT_IN),
        (
            "Error: [Errno 30] Read-only file system: '/etc/x'\n",
            NOT_WRITABLE,
        ),
        ("could not save: [Errno 13] Permission denied: '/usr/x'\n", NOT_WRITABLE),
        ("Error fetching data: <urlopen error [Errno -2] Name or service not known>\n", NO_NETWORK),
        ("Error: HTTPSConnectionPool(host='a.b'): Failed to resolve 'a.b' ([Errno -2] …)\n\nFinished.\n", NO_NETWORK),
        ("Error: [Errno 97] Address family not supported by protocol\n", NO_NETWORK),
        ("Error: No module named 'polars'\n", f"the module polars is missing, and {NO_INSTALL}"),
        ("ERROR: No matching distribution found for humanize\n", NO_INSTALL),
        ("E: Unable to locate package graphviz\n", NO_INSTALL),
        ("Error: Cannot save file into a non-existent directory: 'out2'\n",
         'the folder of that file may be missing: make it first, with os.makedirs("out2", exist_ok=True)'),
        ("Error: [Errno 18] Invalid cross-device link: '/tmp/a' -> 'a'\n",
         "a rename cannot cross from one place of the sandbox into another: use shutil.move"),
        ("An error occurred: EOF when reading a line\n",
         "stdin is at its end: write the values into the program, or give them with --stdin (stdin=)"),
        ("Error: 'utf-8' codec can't decode byte 0xfc in position 1: invalid start byte\n",
         "the file is not UTF-8: read it with its own encoding, often encoding='cp1252', or with errors='replace'"),
        ("Error: [Errno 1] Operation not permitted\n", "the sandbox does not allow that call: do without it"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_an_error_that_a_wall_explains_is_told(printed: str, hint: str, stream: str) -> None:
    """On either stream, from Python, logging or another command."""
    assert last_words(Seen(**{stream: printed})) == hint
    assert may_speak_of_an_error(printed)


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "hello\n",
        "Error: division by zero\n",
        "error: 3 rows are invalid\n",
        "no error found\n",
        "KeyError: 'Total'\n",
        "polars is missing (No module named 'polars'), falling back to pandas\n",
        "No module named 'polars'\nusing pandas instead\n",
        "Skipping optional step: [Errno 2] No such file or directory: 'config.toml'\n",
        "warning: No module named 'tqdm'\nmean = 4.25\n",
        "[Errno 2] No such file or directory: 'cache.json'\nrows: 12\nsum: 7\n",
        "[Errno 2] No such file or directory: 'a'\n" + "line of a table\n" * 10,
    ],
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_program_that_handles_its_errors_is_left_alone(printed: str, stream: str) -> None:
    """It says what it does instead, goes on to a result, or its error is none of the sandbox's."""
    assert last_words(Seen(**{stream: printed})) == ""


def test_a_broken_promise_is_explained_by_the_last_words() -> None:
    """Where the older texts of the log say nothing."""
    seen = Seen(stdout="Error: 'utf-8' codec can't decode byte 0x8b in position 1: invalid start byte\n", turn="turn_1")
    hint = hint_for(Status.CONTRACT_FAILED, Code.MISSING_OUTPUT_FILES, seen)
    assert hint.startswith("the file is compressed: ")
