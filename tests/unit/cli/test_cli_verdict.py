"""What people read about a run that has ended."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from isorun.cli.verdict import print_verdict, size, verdict

SOURCE = os.pathsep.join(str(Path(__file__).parents[3] / place) for place in ("src", "packages/sandbox_runner/src"))
RESULT = {
    "ok": False,
    "status": "contract_failed",
    "exit_code": 0,
    "signal": None,
    "error": {
        "code": "missing_output_files",
        "message": "b.txt is missing",
        "where": None,
        "hint": "write it",
    },
    "notices": ["deleted: c.txt"],
    "missing": ["turn_1/files/b.txt"],
    "artifacts": [{"path": "a\x1b.txt", "bytes": 2048, "sha256": "0123456789abcdef"}],
    "out_dir": "/runs/codegen_x/out",
    "usage": {"wall_s": 1.5},
    "isolation": {"level": "full", "limits": "cgroup-v2"},
}


def test_a_verdict_says_status_reason_remedy_files_and_folder() -> None:
    """Everything that somebody needs next is there, and hostile names are harmless."""
    assert verdict(RESULT) == [
        "contract_failed · 1.50 s · isolation full, cgroup-v2",
        "  missing_output_files: b.txt is missing",
        "  hint: write it",
        "  notice: deleted: c.txt",
        "  missing: turn_1/files/b.txt",
        r"  a\x1b.txt    2.0 KiB  0123456789ab",
        "  folder: /runs/codegen_x/out",
    ]


def test_a_stored_result_with_little_in_it_has_a_verdict() -> None:
    """A lost run's result.json holds the error alone."""
    lost = {"ok": False, "status": "lost", "error": {"code": "host_lost", "message": "the host died"}}
    assert verdict(lost) == ["lost", "  host_lost: the host died"]


def test_no_line_of_a_verdict_can_be_forged() -> None:
    """A newline in an exception's text starts no line that looks like ours."""
    said = {**RESULT, "error": {"code": "program_error", "message": "x\n  folder: /etc", "hint": ""}}
    assert verdict(said)[1] == r"  program_error: x\n  folder: /etc"


def test_many_files_are_counted_not_listed() -> None:
    """Ten thousand files do not scroll the reason away."""
    files = [{"path": f"{n}.txt", "bytes": 1, "sha256": "0" * 64} for n in range(60)]
    lines = verdict({"status": "ok", "artifacts": files})
    assert len(lines) == 52
    assert lines[-1] == "  and 10 more files"


def test_without_a_terminal_there_is_no_colour() -> None:
    """Escapes in a log file help nobody."""
    stream = io.StringIO()
    print_verdict(RESULT, stream)
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_on_a_terminal_colour_can_be_refused(environ: dict[str, str], coloured: bool) -> None:
    """NO_COLOR, if it is not blank, and a terminal that has no colours are obeyed."""
    ours, theirs = pty.openpty()
    code = f"import sys; from isorun.cli.verdict import print_verdict; print_verdict({RESULT!r}, sys.stderr)"
    subprocess.run([sys.executable, "-c", code], stderr=theirs, env={**environ, "PYTHONPATH": SOURCE}, check=True)
    os.close(theirs)
    shown = os.read(ours, 4096)
    os.close(ours)
    assert b"contract_failed" in shown
    assert (b"\x1b[" in shown) == coloured


def test_a_sign_that_the_encoding_lacks_is_shown_as_its_number(tmp_path: Path) -> None:
    """An ASCII terminal ends no command half-way."""
    done = subprocess.run(
        [sys.executable, "-m", "isorun.cli.main", "config", "trust", "--revoke", "\N{SNOWMAN}"],
        env={"HOME": str(tmp_path), "PYTHONPATH": SOURCE, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"},
        cwd=tmp_path,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"\\u2603 was not trusted\n")


def test_sizes() -> None:
    """Bytes are whole, larger units have one decimal."""
    assert [size(n) for n in (0, 1023, 1024, 5 << 20, 3 << 30)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 MiB",
        "3.0 GiB",
    ]
