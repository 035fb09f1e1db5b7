"""What people read about a run: exact texts, and nothing a program writes can break or forge them."""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isorun.core import report
from isorun.core.outcome import Code, Status
from isorun.core.report import error_lines, log_tail, one_line, printable, report_text, tail, tracebacks, tree
from isorun.core.result import Item
from tests.unit.results import result

PLAIN = """\
Traceback (most recent call last):
  File "user_code.py", line 3, in f
    1 / 0
    ~~^~~
ZeroDivisionError: no"""
DURING = "\n\nDuring handling of the above exception, another exception occurred:\n\n"
CAUSE = "\n\nThe above exception was the direct cause of the following exception:\n\n"
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "user_code.py", line 1, in <module>
  | ExceptionGroup: g (1 sub-exception)
  +-+---------------- 1 ----------------
    | ValueError: 1
    +------------------------------------"""
FATAL = """\
Fatal Python error: Segmentation fault

Current thread 0x00007f00 (most recent call first):
  File "user_code.py", line 2 in crash

Extension modules: numpy.core (total: 1)"""
SYNTAX = '  File "/workspace/work/user_code.py", line 1\n    x =\n       ^\nSyntaxError: invalid syntax'
HOSTILE = st.lists(
    st.sampled_from(
        [
            *PLAIN.split("\n"),
            *DURING.split("\n"),
            *GROUP.split("\n"),
            *FATAL.split("\n"),
            *SYNTAX.split("\n"),
            "",
        ]
    )
    | st.text(max_size=20)
).map("\n".join)


@pytest.mark.parametrize(
    "line",
    [
        "2025-01-02T03:04:05.678Z ERROR user disk on fire",
        "2025-01-02T03:04:05.678Z CRITICAL user disk on fire",
        "2025-01-02 03:04:05,678 ERROR app.part text",
        "2025-01-02 03:04:05,678 - app - ERROR - text",
        "ERROR:root:text",
        "CRITICAL:root:text",
        "ERROR disk on fire",
        "ERROR",
    ],
)
def test_a_line_with_the_level_error_is_found(line) -> None:
    """Our format, logging's own formats and the start of a line are known; the whole line is kept."""
    assert error_lines(f"before\n{line}\nafter\n") == (line,)


@pytest.mark.parametrize(
    "line",
    [
        "no error found",
        "no ERROR found",
        "0 ERROR",
        "2025-01-02T03:04:05.678Z INFO user ERROR is a word",
        "2025-01-02T03:04:05.678Z INFO ERROR a logger of that name",
        "INFO:ERROR:text",
        "ERRORS: 0",
        "Error: lower",
        " ERROR indented",
    ],
)
def test_a_mere_substring_is_no_error(line) -> None:
    """The word elsewhere in a line is not its level."""
    assert error_lines(f"before\n{line}\nafter\n") == ()


def test_error_lines_are_bounded_and_printable() -> None:
    """A flood gives 100 lines, a long line 500 characters, an escape sequence its visible form."""
    assert error_lines("ERROR x\n" * 1000) == ("ERROR x",) * 100
    assert [len(line) for line in error_lines("ERROR " + "\x1b" * 9999)] == [500]
    assert error_lines("ERROR \x1b[2Jx\r\n") == ("ERROR \\x1b[2Jx",)


@pytest.mark.parametrize(
    "block",
    [
        PLAIN,
        PLAIN + DURING + PLAIN,
        PLAIN + CAUSE + PLAIN,
        GROUP,
        PLAIN + CAUSE + GROUP,
        GROUP + DURING + PLAIN,
        FATAL,
        SYNTAX,
    ],
    ids=["plain", "during", "cause", "group", "cause of a group", "during a group", "fatal", "syntax"],
)
def test_a_traceback_is_cut_out_whole(block) -> None:
    """One block from the header to the exception's line, chained ones together, without its neighbours."""
    assert tracebacks(f"printed\n{block}\nprinted later\n") == (block,)
    assert tracebacks(block) == (block,)
    assert tracebacks(f"{block}\n\nprinted later\n") == (block,)
    assert tracebacks(f"{block}\n{PLAIN}\n") == (block, PLAIN)


def test_a_traceback_behind_a_print_without_newline_is_found() -> None:
    """What stands before the header on its line is no part of the block."""
    assert tracebacks("progress: 3" + PLAIN) == (PLAIN,)


def test_a_traceback_that_was_cut_short_is_kept() -> None:
    """A program killed while it printed leaves what it had printed."""
    assert tracebacks(PLAIN[:60] + "\n") == (PLAIN[:60],)
    assert tracebacks(f"{PLAIN[:60]}\n{PLAIN}\n") == (PLAIN[:60], PLAIN)


def test_an_indented_file_line_alone_is_no_traceback() -> None:
    """Only a syntax error may do without a header."""
    assert tracebacks('  File "user_code.py", line 1\n    x =\nprinted\n') == ()


def test_tracebacks_are_bounded_and_printable() -> None:
    """The last 20 blocks; of a long one both ends, the exception among them; escapes made visible."""
    assert tracebacks("".join(f"{PLAIN}{number}\n" for number in range(100))) == tuple(
        f"{PLAIN}{number}" for number in range(80, 100)
    )
    frames = "".join(f"  frame {number}\n" for number in range(10_000))
    lines = tracebacks(f"Traceback (most recent call last):\n{frames}E: end\n")[0].split("\n")
    assert len(lines) == 200
    assert lines[98:102] == ["  frame 97", "  frame 98", "  … 9803 lines left out …", "  frame 9902"]
    assert lines[-1] == "E: end"
    assert tracebacks("Traceback (most recent call last):\nE: \x1b]0;owned\x07")[0].endswith("E: \\x1b]0;owned\\x07")


@pytest.mark.parametrize(
    "text", ["\n", "\t\n", "ERROR\n", "  x\n", PLAIN + DURING, "Fatal Python error: \n", SYNTAX[:46] + "\n"]
)
def test_a_log_of_any_shape_is_read_in_linear_time(text) -> None:
    """A million characters of one pattern take under two seconds."""
    log = text * (1_000_000 // len(text))
    started = time.process_time()
    error_lines(log)
    tracebacks(log)
    assert time.process_time() - started < 2


@given(HOSTILE)
def test_no_log_makes_the_extraction_raise(log) -> None:
    """Whatever the log holds, the results are bounded and printable."""
    for text in (*error_lines(log), *tracebacks(log)):
        assert printable(text) == text
    assert all(len(line) <= 500 for line in error_lines(log))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\n", "a\tb\n"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]8;;http://x\x07", "\\x1b]8;;http://x\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("50%\r100%", "50%\\r100%"),
        ("\x00\x7f", "\\x00\\x7f"),
        ("\u202egpj.exe\u2066", "\\u202egpj.exe\\u2066"),
        ("a\u2028b\x85", "a\\u2028b\\x85"),
        ("\udcff", "\\xff"),
        ("naïve 漢字 👩\u200d🔬", "naïve 漢字 👩\\u200d🔬"),
    ],
)
def test_control_characters_are_made_visible(text, shown) -> None:
    """Only newline and tab pass; letters of every script do."""
    assert printable(text) == shown


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_printable_text_can_be_encoded_and_holds_no_control_character(text) -> None:
    """No text makes it raise, and doing it twice changes nothing."""
    shown = printable(text)
    shown.encode()
    assert not [c for c in shown if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160]
    assert printable(shown) == shown


@given(st.text(), st.integers(2, 40))
def test_one_line_is_one_line_and_short(text, most) -> None:
    """Whatever it is given."""
    shown = one_line(text, most)
    assert len(shown) <= most
    assert not set(shown) & {"\n", "\t"}


def test_the_tree_has_every_file_but_the_runs_logs() -> None:
    """Sorted, indented, the logs of the run left out, a folder of that name elsewhere kept."""
    paths = [
        "work/user_code.py",
        "out/turn_1/files/b.md",
        "out/turn_1/files/a/x.csv",
        "out/turn_1/files/logs/mine.txt",
        "out/logs/user.log",
        "out/result.json",
        "logs/infra.log",
    ]
    assert tree(paths) == (
        "out/\n"
        "  result.json\n"
        "  turn_1/\n"
        "    files/\n"
        "      a/\n"
        "        x.csv\n"
        "      b.md\n"
        "      logs/\n"
        "        mine.txt\n"
        "work/\n"
        "  user_code.py"
    )


def test_the_tree_cannot_be_forged_or_blown_up() -> None:
    """A newline in a name stays in its line; many files and deep folders are cut."""
    assert tree(["a\nfake.md", "b\x1b[2J"]) == "a\\nfake.md\nb\\x1b[2J"
    wide = tree(f"f{number:06}" for number in range(100_000)).split("\n")
    assert (len(wide), wide[-1]) == (501, "…")
    assert max(map(len, tree(["d/" * 1000 + "f"]).split("\n"))) == 2 * 20 + len("d/")
    assert tree([]) == ""


@pytest.mark.parametrize(
    ("lines", "chars", "end"),
    [
        (2, 100, "two\nthree"),
        (9, 100, "one\ntwo\nthree"),
        (9, 4, "hree"),
        (9, 5, "three"),
        (1, 7, "three"),
        (0, 9, ""),
        (9, 0, ""),
    ],
)
def test_a_tail_is_the_end_and_no_more(lines, chars, end) -> None:
    """Both bounds hold; a last newline is not a line."""
    assert tail("one\ntwo\nthree\n", lines, chars) == end
    assert tail("one\ntwo\nthree", lines, chars) == end


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        ("".join(f"{n} %\r" for n in range(5000)) + "100 %\ndone\n", "100 %\ndone"),
        ("before\n1 %\r2 %\r", "before\n2 %\\r"),
        ("one\r\ntwo\r\n", "one\\r\ntwo\\r"),
        ("a\rb\nc\r\r\rd\n", "b\nd"),
    ],
)
def test_a_progress_bar_is_shown_as_it_was_left(log, shown) -> None:
    """A terminal shows the last redraw alone; an end of line in the manner of Windows replaces nothing."""
    assert log_tail(log) == shown


@pytest.mark.parametrize(
    "redrawn", ["\r" + "x" * 262_143, "x\r" * 131_072, "\r" * 262_142 + "x\n", "\r" * 262_143 + "\n"]
)
def test_a_line_is_looked_at_once(redrawn) -> None:
    """However long it is, and wherever a terminal would go back in it: a program may print either."""
    started = time.process_time()
    assert len(log_tail(redrawn)) <= len(redrawn) * 2
    assert time.process_time() - started < 2


INVALID = ("artifact_invalid", "empty_file")
FAILED = result(
    exec_id="20250102-abc",
    prog_name="report_generator",
    status=Status.FAILED,
    code=Code.PROGRAM_ERROR,
    message="the program raised ValueError: bad",
    hint="do it well",
    items=(Item(path="turn_1/files/b.json", state="invalid", codes=INVALID, hints=("write JSON",)),),
    missing=("turn_1/files/c.md",),
    succeeded=("turn_1/files/a.md",),
    user_log_tail="one\ntwo\n",
    workspace_diff={"created": ("x.txt",), "modified": ("y.txt",), "deleted": ("z.txt",)},
    notices=("output was cut",),
)


def test_the_report_says_where_it_failed() -> None:
    """The line and its text, on one line of the report whatever the program made of them."""
    assert FAILED.error is not None
    for source, shown in (("x = = 1", ": x = = 1"), ("", ""), ("a\n  hint: b\x1b", r": a\n  hint: b\x1b")):
        error = replace(FAILED.error, where="user_code.py:7", details={"source": source})
        lines = report_text(replace(FAILED, error=error)).splitlines()
        assert lines[3:5] == [f"  where: user_code.py:7{shown}", "  hint: do it well"]


def test_the_report_has_its_parts_in_order() -> None:
    """The order is the one of SPEC B7; notices come last."""
    assert report_text(FAILED, infra_errors=("journal: disk full",)) == (
        "status: failed\n"
        "run: 20250102-abc (report_generator)\n"
        "runtime failure: program_error: the program raised ValueError: bad\n"
        "  hint: do it well\n"
        "file errors:\n"
        "  - turn_1/files/b.json: artifact_invalid, empty_file\n"
        "    hint: write JSON\n"
        "missing outputs:\n"
        "  - turn_1/files/c.md\n"
        "succeeded:\n"
        "  - turn_1/files/a.md\n"
        "infra errors:\n"
        "  - journal: disk full\n"
        "program log, its end:\n"
        "  | one\n"
        "  | two\n"
        "created:\n"
        "  - x.txt\n"
        "modified:\n"
        "  - y.txt\n"
        "deleted:\n"
        "  - z.txt\n"
        "notices:\n"
        "  - output was cut\n"
    )


def test_a_good_run_has_a_short_report() -> None:
    """Parts with nothing to say are left out; side effects that were looked for and not found are said."""
    good = result()
    assert report_text(good) == "status: ok\nrun: e\n"
    assert (
        report_text(replace(good, workspace_diff={"created": (), "modified": (), "deleted": ()}))
        == "status: ok\nrun: e\nside effects: none\n"
    )


def test_a_broken_contract_is_not_called_a_runtime_failure() -> None:
    """The program ended well; its promise is what failed."""
    broken = result(
        prog_name="p",
        status=Status.CONTRACT_FAILED,
        code=Code.MISSING_OUTPUT_FILES,
        message="gone",
    )
    assert report_text(broken) == "status: contract_failed\nrun: e (p)\ncontract failure: missing_output_files: gone\n"


EVIL = "x\x1b[2J\rstatus: ok\nstatus: ok\n\x9b\u202e"


def test_a_program_can_neither_forge_a_heading_nor_reach_the_terminal() -> None:
    """Hostile text in every field: headings stay ours, and no control character is left."""
    evil = result(
        exec_id=EVIL,
        prog_name=EVIL,
        status=Status.FAILED,
        code=Code.PROGRAM_ERROR,
        message=EVIL,
        hint=EVIL,
        items=(Item(path=EVIL, state="invalid", codes=(EVIL,), hints=(EVIL,)),),
        missing=(EVIL,),
        succeeded=(EVIL,),
        user_log_tail=EVIL,
        workspace_diff={"created": (EVIL,), "modified": (EVIL,), "deleted": (EVIL,)},
        notices=(EVIL,),
    )
    text = report_text(evil, infra_errors=(EVIL,))
    assert printable(text) == text
    assert [line for line in text.split("\n") if line.startswith("status:")] == ["status: failed"]


def test_a_report_is_bounded() -> None:
    """Lists are cut at 200 entries and say so; the log at its end."""
    many = replace(FAILED, succeeded=("f",) * 1000, items=FAILED.items * 1000, user_log_tail="y" * 10**6)
    text = report_text(many)
    assert text.count("  … 800 more\n") == 2
    assert text.count("y" * report.TAIL_CHARS) == 1
    assert len(text) < 60_000


_WORDS = ("ERROR", "ERRORS", "\n", "\r\n", "x", "CRITICAL: a", " ", "2026-01-01 00:00:00 ERROR")


@given(st.lists(st.sampled_from(_WORDS)).map("".join), st.integers(0, 50))
def test_a_log_is_searched_in_pieces_of_whole_lines(text: str, most: int) -> None:
    """One search over all of it would hold up every other thread for as long; what is found is the same."""
    with pytest.MonkeyPatch.context() as patch:
        whole = error_lines(text)
        patch.setattr(report, "MAX_SEARCHED", most)
        assert error_lines(text) == whole
        spans = [text[start:end] for start, end in report._pieces(text)]
    assert "".join(spans) == text
    assert [piece for piece in spans[:-1] if not piece.endswith("\n")] == []
    assert [piece for piece in spans if piece.find("\n", most) not in (-1, len(piece) - 1)] == []
