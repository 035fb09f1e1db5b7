"""Resources: output. Floods, endless lines, bytes that are no text, and pipes that are closed or kept."""

import time

import pytest

from tests.escapes.attacking import attack, disk_bytes, ended

pytestmark = [pytest.mark.usefixtures("unharmed"), pytest.mark.alone]

MIB = 1 << 20
FLOOD = ("limit_exceeded", "output_limit", "wrote more than 16 MiB of output")
HINT = "use less, or raise ISORUN_MAX_OUTPUT_BYTES"


@pytest.mark.parametrize(
    "write",
    [
        pytest.param("print('x' * 1000)", id="lines"),
        pytest.param("os.write(1, b'x' * 65536)", id="no-newline"),
        pytest.param("os.write(2, b'x' * 65536)", id="stderr"),
        pytest.param("os.write(1, b'\\n' * 4096)", id="empty-lines"),
    ],
)
def test_a_flood_of_output_ends_its_run(sealed, write) -> None:
    """A program that writes without end is stopped; the host keeps the beginning, the end, and a bound."""
    result = attack(sealed, f"import os\nwhile True: {write}", timeout_s=20)
    assert (ended(result), result.error.hint) == (FLOOD, HINT)
    assert result.truncated
    assert result.notices == (f"output was cut: {result.usage['output_bytes']} bytes were printed",)
    assert 16 * MIB < result.usage["output_bytes"] < 18 * MIB
    assert len(result.stdout) + len(result.stderr) < 300_000
    assert disk_bytes(result) < 3 * MIB
    # Control: a program that writes less is not stopped.
    assert sealed.execute(f"import os\nfor _ in range(10): {write}").ok


def test_one_endless_line_is_cut_and_the_run_goes_on(sealed) -> None:
    """A line of 6 MiB is more than is kept, and no fault."""
    result = attack(sealed, "import os\nfor _ in range(96): os.write(1, b'x' * 65536)\nprint('end')")
    assert (result.status, result.truncated, result.stdout[-5:]) == ("ok", True, "xend\n")
    assert "bytes were cut here" in result.stdout
    assert result.usage["output_bytes"] == 96 * 65536 + 4
    # Control: a line that fits is whole.
    assert sealed.execute("print('x' * 100_000)").stdout == "x" * 100_000 + "\n"


def test_a_long_line_behind_a_redraw_does_not_hold_up_the_host(sealed) -> None:
    """The host finds out what a terminal would still show. A pattern for that took minutes for one such line, and
    nothing else of the host ran meanwhile. The control is how long it takes for a line without a redraw.
    """
    before = time.process_time()
    plain = sealed.execute("print('x' * 200_000)")
    took = time.process_time() - before
    result = attack(sealed, "print('\\r' + 'x' * 200_000)", timeout_s=20)
    assert (result.status, result.user_log_tail) == ("ok", plain.user_log_tail)
    assert time.process_time() - before < took + 5


@pytest.mark.parametrize("close", ["os.close(1)", "sys.stdout.close()", "os.dup2(os.open('/dev/null', 1), 1)"])
def test_stdout_closed_early_is_no_end(sealed, close) -> None:
    """The run goes on without it, and what was printed before is kept."""
    code = f"import os, sys\nprint('before', flush=True)\n{close}\nopen('after', 'w').write('ok')"
    result = attack(sealed, code)
    assert (result.status, result.stdout) == ("ok", "before\n")
    assert [a.path for a in result.artifacts] == ["after"]
    # Control: left open, it takes what follows.
    assert sealed.execute("print('before'); print('after')").stdout == "before\nafter\n"


def test_bytes_that_are_no_text_arrive_and_harm_nobody(sealed) -> None:
    """NUL, invalid UTF-8 and terminal sequences: kept in user.log as they came, harmless where shown."""
    raw = b"a\0b\xff\xfe\xed\xa0\x80\x1b[2J\x1b]0;title\x07\x9b31m\r|\n"
    result = attack(
        sealed,
        f"import os\nos.write(1, {raw!r})\nos.write(2, {raw!r})\nraise ValueError({raw!r}.decode('latin-1'))",
    )
    assert (result.out_dir / "logs" / "user.log").read_bytes().count(raw) == 2
    assert result.stdout == raw.decode("utf-8", "replace")
    assert (result.status, result.error.code) == ("failed", "program_error")
    shown = result.report_text + result.error.message
    assert not set(shown) & {"\0", "\x1b", "\x07", "\r", "\x9b"}
    # Control: the program's own text arrives as it is.
    assert sealed.execute("print('grüße ☃')").stdout == "grüße ☃\n"


def test_a_forged_start_line_hides_nothing(sealed) -> None:
    """A program that prints the line with which a run begins cannot hide what it wrote before."""
    code = "import sys\nprint('ERROR: real')\nprint('===== EXECUTION 1 START now =====')\nsys.exit(1)"
    result = attack(sealed, code)
    assert result.user_error_lines == ("ERROR: real",)
    assert "ERROR: real" in result.user_log_tail
    # Control: without the forged line it is the same.
    assert sealed.execute("print('ERROR: real')").user_error_lines == ("ERROR: real",)


def test_a_flood_by_a_child_counts_like_the_programs_own(sealed) -> None:
    """Whoever holds the pipe, the run is ended."""
    code = "import os\nif os.fork() == 0:\n    while True: os.write(1, b'x' * 65536)\nos.wait()"
    assert ended(attack(sealed, code, timeout_s=20)) == FLOOD
    # Control: a child that writes less is waited for.
    assert sealed.execute("import os\nif os.fork() == 0:\n    os.write(1, b'x'); os._exit(0)\nos.wait()").stdout == "x"


def test_a_flood_of_log_records_is_bounded(sealed) -> None:
    """logging is output too."""
    code = "import logging\nlog = logging.getLogger('user')\nwhile True: log.error('x' * 10_000)"
    result = attack(sealed, code, timeout_s=20)
    assert ended(result) == FLOOD
    assert disk_bytes(result) < 3 * MIB
    assert len(result.report_text) < 20_000
    # Control: one record is whole.
    assert sealed.execute("import logging\nlogging.getLogger('user').error('seen')").user_error_lines
