"""SPEC C4 (tracebacks) and C5 (diagnostics).

Clauses. C4: the program's own lines with source text · the loader's frames are hidden ·
line numbers are the program's · EXEC_TRACEBACK_REMAP=0 shows the raw traceback. C5: tails
of both logs · extracted ERROR lines, by level or line start and not by substring ·
tracebacks · the tree of the sandbox, without logs/.
"""

import json
import re

import pytest

import isorun


def test_a_traceback_is_what_python_shows(run) -> None:
    """Own frames with source lines and numbers, chained, and not one frame of ours."""
    result = run("""\
        def first():
            raise KeyError("inner")

        def second():
            try:
                first()
            except KeyError as error:
                raise ValueError("outer") from error

        second()
    """)
    frames = re.findall(r'File "([^"]+)", line (\d+), in (\S+)', result.stderr)
    assert [(path.rsplit("/", 1)[1], int(line), name) for path, line, name in frames] == [
        ("user_code.py", 6, "second"),
        ("user_code.py", 2, "first"),
        ("user_code.py", 10, "<module>"),
        ("user_code.py", 8, "second"),
    ]
    for source in ('raise KeyError("inner")', 'raise ValueError("outer") from error', "second()"):
        assert source in result.stderr
    assert result.error.where == "user_code.py:8"
    assert result.error.details["exception"] == "ValueError"


SHOWN = {
    "print_stack": "import traceback; traceback.print_stack(file=sys.stdout)",
    "inspect": "import inspect\nfor frame in inspect.stack(): print(frame.filename, frame.code_context)",
    "logging": "logging.warning('here', stack_info=True)",
    "a warning": "import warnings; warnings.warn('far', stacklevel=9)",
    "in a loop": "import traceback\nawait asyncio.sleep(0)\ntraceback.print_stack(file=sys.stdout)",
    "never awaited": "async def main(): pass\nkept = main()",
    "never awaited, and an error": "async def main(): pass\nkept = main()\nraise SystemExit(0)",
    "the limit": "sys.setrecursionlimit(5000); print(sys.getrecursionlimit())",
}


@pytest.mark.parametrize("name", SHOWN)
def test_no_stack_shows_a_frame_of_ours(run, name) -> None:
    """However a program has its stack shown, it ends with the program's own first frame."""
    result = run(SHOWN[name])
    assert result.status == "ok", result.stderr
    shown = result.stdout + result.stderr
    assert shown
    assert "executor" not in shown
    assert "main.py" not in shown
    assert "<string>" not in shown


def test_a_coroutine_that_nobody_awaits_is_said_as_outside(run) -> None:
    """The warning at the end names no file, as the interpreter's own does."""
    result = run("async def fetch(): pass\nkept = fetch()")
    assert result.stderr.splitlines()[0] == "sys:1: RuntimeWarning: coroutine 'fetch' was never awaited"


def test_the_recursion_limit_is_the_interpreters(run) -> None:
    """It is 1000 as told and as reached, and what the program sets is what it gets."""
    result = run("""
        def deep(n):
            try:
                return deep(n + 1)
            except RecursionError:
                return n
        print(sys.getrecursionlimit(), deep(1))
        sys.setrecursionlimit(150)
        print(sys.getrecursionlimit(), deep(1))
    """)
    assert result.stdout == "1000 999\n150 149\n"


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("await asyncio.sleep(0)\n\n1/0\n", 3),
        ("async def main():\n    1/0\n\nasyncio.run(main())\n", 2),
        ("import json\njson.loads('{')\n", 2),
        ("def f():\n  f()\nf()\n", 2),
        ("raise ExceptionGroup('g', [ValueError(1)])\n", 1),
    ],
)
def test_no_frame_of_the_loader(run, code, line) -> None:
    """With await, asyncio.run, a library or a deep stack: no path of ours, and the line is the program's."""
    result = run(code)
    assert "isorun" not in result.stderr.replace("isorun-fake-", "")
    assert "main.py" not in result.stderr
    assert result.error.where == f"user_code.py:{line}"


def test_a_syntax_error_shows_its_line(run) -> None:
    """The source line and the caret, as the interpreter shows them."""
    result = run("x = 1\ny = (2,\n")
    assert "isorun" not in result.stderr.replace("isorun-fake-", "")
    assert "y = (2," in result.stderr
    assert "SyntaxError: '(' was never closed" in result.stderr


def test_raw_when_asked(own) -> None:
    """With EXEC_TRACEBACK_REMAP=0 the loader's frames are there too."""
    settings = isorun.Settings.load(environ={"EXEC_TRACEBACK_REMAP": "0"})
    with own(settings=settings) as rt:
        result = rt.execute("1/0")
    assert "executor/loader.py" in result.stderr
    assert 'user_code.py", line 1, in <module>' in result.stderr


def test_a_hostile_exception_cannot_break_the_report(run) -> None:
    """An exception whose text cannot be made still ends the run as failed, with its type."""
    result = run("""
        class Bad(Exception):
            def __str__(self): raise RuntimeError("no text")
            __repr__ = __str__
        raise Bad
    """)
    assert (result.status, result.error.code, result.error.details["exception"]) == (
        "failed",
        "program_error",
        "Bad",
    )


def test_error_lines_are_levels_and_line_starts(run) -> None:
    """Lines at level ERROR or CRITICAL and lines that start with ERROR; not the word in a sentence."""
    result = run("""
        print("no error found")
        print("0 ERROR in the file")
        print("ERROR at the start")
        logging.getLogger("user").error("by level")
        logging.getLogger("user").info("ERROR in a text")
        logging.getLogger("x").critical("critical")
    """)
    assert sorted(re.sub(r"^\S+Z ", "", line) for line in result.user_error_lines) == [
        "CRITICAL x critical",
        "ERROR at the start",
        "ERROR user by level",
    ]


def test_tracebacks_are_extracted(run) -> None:
    """Both the one that was caught and printed and the one that ended the program."""
    result = run("""
        import traceback
        try:
            1/0
        except ZeroDivisionError:
            traceback.print_exc()
        print("between", file=sys.stderr)
        raise ValueError("the end")
    """)
    assert [text.splitlines()[-1] for text in result.user_tracebacks] == [
        "ZeroDivisionError: division by zero",
        "ValueError: the end",
    ]
    assert all(text.startswith("Traceback (most recent call last):\n") for text in result.user_tracebacks)


def test_tails_of_both_logs(run) -> None:
    """The last lines of user.log and infra.log are in the result."""
    result = run("for n in range(500): print('line', n)")
    lines = result.user_log_tail.splitlines()
    assert lines[-1] == "line 499"
    assert 10 <= len(lines) < 500
    assert "ended: ok" in result.infra_log_tail.splitlines()[-1]


def test_control_characters_do_not_reach_a_terminal(run) -> None:
    """What people are shown of the log cannot move their cursor or recolour their screen."""
    result = run(r"print('\x1b[2J\x1b]0;title\x07ERROR'); raise ValueError('\x1b[31mred')")
    for text in (result.report_text, result.error.message, *result.user_tracebacks, *result.user_error_lines):
        assert "\x1b" not in text
        assert "\x07" not in text


def test_the_tree_of_the_sandbox(run, tmp_path) -> None:
    """Program, inputs and what was collected, as a tree; logs/ is not in it, and result.json has it too."""
    (tmp_path / "data.csv").write_text("1,2")
    (tmp_path / "folder/deep").mkdir(parents=True)
    (tmp_path / "folder/deep/x.bin").write_bytes(b"x")
    result = run(
        "Path('a/b').mkdir(parents=True); Path('a/b/c.txt').write_text('c'); Path('top.txt').write_text('t')",
        inputs=[tmp_path / "data.csv", tmp_path / "folder"],
    )
    assert result.workspace_tree.splitlines() == [
        "out/",
        "  a/",
        "    b/",
        "      c.txt",
        "  top.txt",
        "work/",
        "  data.csv",
        "  folder/",
        "    deep/",
        "      x.bin",
        "  main.py",
        "  user_code.py",
    ]
    assert json.loads((result.out_dir / "result.json").read_bytes())["workspace_tree"] == result.workspace_tree


def test_the_tails_are_printable(run) -> None:
    """The result's tails can be written to a terminal as they are; the log files keep every byte."""
    result = run(r"print('\x1b[2Jcleared\x07')")
    assert result.user_log_tail.splitlines()[-1] == r"\x1b[2Jcleared\x07"
    assert b"\x1b[2Jcleared\x07" in (result.out_dir / "logs/user.log").read_bytes()
    assert "\x1b" not in result.infra_log_tail


def test_a_broken_contract_without_a_better_hint_says_where_to_write(run) -> None:
    """A promised file of which there is no trace: the hint names the folder; a trace of it is the better hint."""
    promised = [{"filename": "turn_1/files/a.txt", "description": "d"}]
    assert run("pass", contract=promised).error.hint == "write each promised file beneath OUTPUT_DIR/turn_1/files"
    near = run("Path('a.txt').write_text('x')", contract=promised)
    assert near.error.hint == "found out/a.txt, promised turn_1/files/a.txt"


@pytest.mark.table
@pytest.mark.parametrize(
    ("code", "line", "source", "hint"),
    [
        ("```python\nprint(1)\n```\n", 1, "```python", "markdown fence"),
        ("import os\n!pip install -q humanize\n", 2, "!pip install -q humanize", "nothing can be installed"),
        ("x = 1\n%matplotlib inline\n", 2, "%matplotlib inline", "commands of a notebook"),
        ("def f():\n    return 1\n\nreturn f()\n", 4, "return f()", "`return` is for functions only"),
        ("x = 1\nf = lambda v: await g(v)\n", 2, "f = lambda v: await g(v)", "`async def` only"),
        ("if 1:\n\tx = 1\n        y = 2\n", 3, "y = 2", "tabs and blanks are mixed"),
        (b"x = 1\ny = \0\n", 2, r"y = \x00", "NUL byte"),
        (b"x = 1\ny = '\xe9'\n", 2, "y = '\ufffd'", "not UTF-8"),
        (b"# coding: utf-8\ny = '\xe9'\n", 2, "y = '\ufffd'", "not UTF-8"),
        ("x = 1\ndisplay(x)\n", 2, "display(x)", "not a notebook"),
    ],
)
def test_an_error_of_form_has_its_place_its_source_and_a_hint(run, code, line, source, hint) -> None:
    """Whatever `compile` refuses, and what a notebook would do."""
    error = run(code).error
    assert (error.where, error.details["source"]) == (f"user_code.py:{line}", source)
    assert hint in error.hint


def test_bytes_that_are_no_text_are_told_as_the_interpreter_tells_them(run) -> None:
    """The byte and the line, where compile says neither."""
    result = run(b"x = 1\n\ny = 'caf\xe9'\n")
    assert "Non-UTF-8 code starting with '\\xe9' in file" in result.stderr
    assert "user_code.py on line 3, but no encoding declared" in result.stderr


def test_a_very_long_exception_leaves_its_place(run) -> None:
    """The traceback and the report say the line, though the log's end is full of the message."""
    result = run("x = 1\nraise ValueError('x' * 3_000_000)\n")
    assert "  where: user_code.py:2: raise ValueError('x' * 3_000_000)\n" in result.report_text
    assert [text.splitlines()[0] for text in result.user_tracebacks] == ["Traceback (most recent call last):"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import warnings\nwarnings.warn('far', stacklevel=9)", "UserWarning: far\n"),
        ("import warnings\nwarnings.warn('near')", '2: UserWarning: near\n  warnings.warn(\'near\')\n'),
        (
            "async def f(): pass\nleft = f()",
            "RuntimeWarning: coroutine 'f' was never awaited\n"
            "RuntimeWarning: Enable tracemalloc to get the object allocation traceback\n",
        ),
    ],
)  # fmt: skip
def test_a_warning_shows_no_line_of_ours(run, code, expected) -> None:
    """A warning about the program has its line; one whose line would be ours has none."""
    stderr = run(code).stderr
    assert stderr.endswith(expected)
    assert "isorun/" not in stderr.replace("isorun-fake-", "")
