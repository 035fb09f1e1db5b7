"""Habits of programs that a model wrote for another place, each with a hint that a model can act on."""

import errno

import pytest

from isorun.core.outcome import Code, Status
from isorun.core.sent.claim import Claim
from isorun.runtime.hints.daily import claim_hint
from isorun.runtime.hints.hint import hint_for
from isorun.runtime.hints.paths import PLACES
from isorun.runtime.hints.seen import Seen

ALONE = Seen()
NO_NETWORK = "the program has no network: give it what it needs with --input (inputs=)"
NO_INSTALL = "nothing can be installed during a run: use what is there"
NO_NOTEBOOK = "this is not a notebook: print the value, or write it to a file in OUTPUT_DIR"
NO_PAGE = (
    "nothing can be served from a run: write the page, table or figure to a file in OUTPUT_DIR (.html, .csv, .png)"
)
NO_SCREEN = "a program has no screen: draw with matplotlib, and keep the figure with savefig"
NO_COMMAND = "no such command is in the sandbox: use Python, or another command"
NO_HOME = f"no home folder of yours is in the sandbox: {PLACES}"
NO_STDIN = "stdin is at its end: write the values into the program, or give them with --stdin (stdin=)"
NO_ADDRESS = "that is an address, and a program has no network: give it the file with --input (inputs=)"
NOT_UTF_8 = "the file is not UTF-8: read it with its own encoding, often encoding='cp1252', or with errors='replace'"
NO_ARCHIVE = (
    "the file is not a zip archive, and so not an .xlsx or .docx either: print its first bytes, "
    "open(path, 'rb').read(100); a CSV is read by pd.read_csv"
)
REFUSED = "the sandbox does not allow that call: do without it"
ARGUMENTS = (
    "no argument is there by itself: give the program its arguments with argv= (in a shell behind --), or let it have "
    "a default for each"
)


def module(name: str, **more: str) -> Claim:
    return Claim(type="ModuleNotFoundError", message=f"No module named '{name}'", **more)


def absent(path: str) -> Claim:
    return Claim(type="FileNotFoundError", message=f"[Errno 2] No such file or directory: {path!r}", errno=errno.ENOENT)


def failed(command: object, code: int = 1) -> Claim:
    message = f"Command '{command}' returned non-zero exit status {code}."
    return Claim(type="CalledProcessError", message=message)


@pytest.mark.parametrize(
    ("claim", "hint"),
    [
        (module("google", source="from google.colab import files"), NO_NOTEBOOK),
        (module("google.colab"), NO_NOTEBOOK),
        (module("google", source="from google.cloud import storage"), NO_NETWORK),
        (module("streamlit"), NO_PAGE),
        (module("gradio"), NO_PAGE),
        (module("flask"), NO_PAGE),
        (Claim(type="NameError", message="name 'st' is not defined", source="st.write(df)"), NO_PAGE),
        (module("playwright"), NO_NETWORK),
        (module("selenium.webdriver"), NO_NETWORK),
        (module("s3fs"), NO_NETWORK),
        (module("tkinter"), NO_SCREEN),
        (module("_tkinter"), NO_SCREEN),
        (
            Claim(type="ImportError", message="Cannot load backend 'TkAgg' which requires the 'tk' interactive"),
            NO_SCREEN,
        ),
        (
            Claim(type="ImportError", message="`Import fsspec` failed. Use pip, conda, or your preferred manager"),
            NO_NETWORK,
        ),
        (
            Claim(type="ImportError", message="`Import python-calamine` failed. Use pip or conda", packages="pandas"),
            f"the module python-calamine is missing, and {NO_INSTALL} (pandas)",
        ),
        (
            Claim(type="ImportError", message="Unable to find a usable engine; tried using: 'pyarrow', 'fastparquet'."),
            f"the module pyarrow is missing, and {NO_INSTALL}",
        ),
        (
            Claim(type="ImportError", message="attempted relative import with no known parent package"),
            "the program is in no package: import the module by its name alone; given files are beside the program",
        ),
        (failed(["apt-get", "install", "-y", "graphviz"]), NO_INSTALL),
        (failed("apt-get update && apt-get install -y tesseract-ocr", 100), NO_INSTALL),
        (failed(["npm", "install"]), NO_INSTALL),
        (failed("pip install humanize"), NO_INSTALL),
        (failed(["wget", "https://example.com/a.csv"], 4), NO_NETWORK),
        (failed("curl -sSLO https://example.com/a.csv", 6), NO_NETWORK),
        (failed(["git", "clone", "https://example.com/a"], 128), NO_NETWORK),
        (failed("git fetch --all", 128), NO_NETWORK),
        (failed(["git", "diff", "--exit-code"]), ""),
        (failed("ffmpeg -i a.mp4 b.mp3", 127), NO_COMMAND),
        (failed(["free", "-m"]), "the sandbox shows nothing of the machine: do without that command"),
        (failed("nvidia-smi", 9), "the sandbox shows nothing of the machine: do without that command"),
        (failed(["false"]), ""),
        (absent("~/data.csv"), NO_HOME),
        (absent("/tmp/Downloads/data.csv"), NO_HOME),
        (absent("s3://bucket/key.csv"), NO_ADDRESS),
        (absent("https://example.com/a.csv"), NO_ADDRESS),
        (absent("C:\\Users\\me\\a.csv"), f"there are no drives: {PLACES}"),
        (absent("/content/data.csv"), f"that path is not in the sandbox: {PLACES}"),
        (Claim(type="EOFError", source="raise EOFError"), NO_STDIN),
        (Claim(type="EOFError", message="Ran out of input", source="pickle.load(file)"), ""),
        (Claim(type="IndexError", message="list index out of range", source="path = sys.argv[1]"), ARGUMENTS),
        (Claim(type="IndexError", message="list index out of range", source="rows[1]"), ""),
        (
            Claim(type="Error", message="unsupported locale setting"),
            "the sandbox has no such locale: write numbers as f'{x:,.2f}', and names of days and months yourself",
        ),
        (
            Claim(type="ZoneInfoNotFoundError", message="'No time zone found with key Europe/Nowhere'"),
            "that time zone does not exist: zoneinfo.available_timezones() has the names",
        ),
        (
            Claim(type="OSError", message="cannot open resource"),
            "the sandbox has no such font: use PIL.ImageFont.load_default(size=20)",
        ),
        (Claim(type="PermissionError", errno=errno.EPERM, message="[Errno 1] Operation not permitted"), REFUSED),
        (Claim(type="OSError", errno=errno.ENOSYS, message="[Errno 38] Function not implemented"), REFUSED),
        (Claim(type="BadZipFile", message="File is not a zip file"), NO_ARCHIVE),
        (
            Claim(type="ValueError", message="Excel file format cannot be determined, you must name it."),
            NO_ARCHIVE,
        ),
        (
            Claim(type="UnicodeEncodeError", message="'latin-1' codec can't encode character '\\u20ac' in position 0"),
            "that encoding has no such character: write with encoding='utf-8'",
        ),
        (Claim(type="UnicodeEncodeError", message="'utf-8' codec can't encode character '\\udc80' in position 0"), ""),
    ],
)  # fmt: skip
def test_a_habit_of_another_place_has_its_hint(claim: Claim, hint: str) -> None:
    """Web pages, browsers, installers, downloads, home folders, locales, fonts; a plain mistake explains itself."""
    assert claim_hint(claim, ALONE) == hint


@pytest.mark.parametrize(
    ("data", "line", "hint"),
    [
        ("Jürgen".encode("latin-1"), "open('a.csv').read()", NOT_UTF_8),
        ("Jürgen".encode("utf-16"), "open('a.csv').read()", "the file is UTF-16: read it with encoding='utf-16'"),
        (
            b"\x1f\x8b\x08\x00",
            "pd.read_csv('a.csv')",
            "the file is compressed: read it with gzip.open(path, 'rt'), or compression='gzip' in pandas",
        ),
        (b"PK\x03\x04\x14\xdb", "pd.read_csv('a.xlsx')", "a .xlsx file is not text: read it with pd.read_excel"),
        (b"\x89PNG", "text = open('a.png').read()", "a .png file is not text: read it with PIL.Image.open"),
    ],
)
def test_a_file_of_another_form_is_told_how_to_be_read(data: bytes, line: str, hint: str) -> None:
    """By the byte that is no UTF-8, and by the suffix in the program's own line."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        claim = Claim(type="UnicodeDecodeError", message=str(error), line=2)
    assert claim_hint(claim, Seen(program=f"import pandas as pd\n{line}\n")) == hint


def test_a_file_of_a_similar_name_is_named_first() -> None:
    """Of more given files than are listed."""
    given = ("main.py", "user_code.py", *(f"{letter}.bin" for letter in "abcdefgh"), "in/sales.csv")
    for wrong in ("sale.csv", "sales_data.csv", "sales.xlsx"):
        told = claim_hint(absent(wrong), Seen(given=given))
        assert told.startswith("no such file is there; the given files, in /workspace/work: in/sales.csv, a.bin"), told
        assert told.endswith(" and 4 more")


def test_a_program_without_its_arguments_is_told_how_to_give_them() -> None:
    """argparse exits by itself, so there is no exception to look at."""
    printed = "usage: user_code.py [-h] file\nuser_code.py: error: the following arguments are required: file\n"
    assert hint_for(Status.FAILED, Code.NONZERO_EXIT, Seen(stderr=printed)) == ARGUMENTS


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_time_that_went_on_a_network_is_told_wherever_it_was_printed(stream: str) -> None:
    """A loop that catches the error prints it to stdout."""
    seen = Seen(**{stream: "<urlopen error [Errno -2] Name or service not known>\n" * 3})
    assert hint_for(Status.TIMED_OUT, Code.TIMEOUT, seen).startswith(NO_NETWORK)
