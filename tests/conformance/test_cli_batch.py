"""`isorun batch`, started as a user starts it: lines in, lines out, in order, and an exit code."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import inherited

COMMAND = [sys.executable, "-m", "isorun.cli.main", "batch"]
Batch = Callable[..., "tuple[int, list[dict[str, Any]], str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The user's own, with a workspace root of the test's."""
    return {**inherited(), "ISORUN_WORKSPACE_ROOT": str(tmp_path / "runs")}


@pytest.fixture
def batch(environment: dict[str, str], tmp_path: Path) -> Batch:
    """Run lines through it: the exit code, what was printed as JSON, and stderr."""

    def run(lines: bytes, *words: str) -> tuple[int, list[dict[str, Any]], str]:
        done = subprocess.run([*COMMAND, "-", *words], input=lines, capture_output=True, env=environment, cwd=tmp_path)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()

    return run


def lines_of(*requests: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(request).encode() + b"\n" for request in requests)


@pytest.mark.any_user
def test_results_come_in_the_order_of_the_lines(batch) -> None:
    """The slowest is first; each has its line's number, and blank lines count."""
    slow = {"code": "import time; time.sleep(0.5); print(0)"}
    given = lines_of(slow) + b"\n" + lines_of(*({"code": f"print({n})", "argv": ["a"]} for n in range(1, 6)))
    code, told, stderr = batch(given, "--at-once", "3")
    assert (code, stderr) == (0, "")
    assert [(one["line"], one["stdout"]) for one in told] == [
        (1, "0\n"),
        *((n + 2, f"{n}\n") for n in range(1, 6)),
    ]
    assert all(one["ok"] and one["status"] == "ok" for one in told)


@pytest.mark.any_user
def test_a_bad_line_costs_no_other(batch) -> None:
    """No JSON, no object, an unknown option, a file that is not there, an error of the program: each has its entry."""
    given = (
        b'{"code": "print(1)"}\n{"code": \n["x"]\n\xff\xfe\x00\n{"code": "1", "timeout": 3}\n'
        b'{"code": "1", "inputs": ["/no/such"]}\n{"code": "1 / 0"}\n{"code": "print(8)"}'
    )
    code, told, _ = batch(given)
    assert code == 1
    assert [one["line"] for one in told] == list(range(1, 9))
    assert [one["error"] and one["error"]["code"] for one in told] == [
        None,
        "invalid_json",
        "invalid_request",
        "invalid_json",
        "unknown_option",
        "missing_input",
        "program_error",
        None,
    ]
    assert told[4]["error"]["message"] == "a run has no option 'timeout'; did you mean timeout_s?"


@pytest.mark.any_user
def test_of_a_file_and_with_nothing_kept(environment, tmp_path) -> None:
    """`--no-keep` is for each line; an empty file is no failure, a missing one is a mistake."""
    (tmp_path / "jobs.jsonl").write_bytes(lines_of({"code": "print(1)"}, {"code": "print(2)"}))
    (tmp_path / "empty.jsonl").write_bytes(b"")
    codes = []
    for name in ("jobs", "empty", "missing"):
        words = [*COMMAND, "--no-keep", f"{name}.jsonl"]
        done = subprocess.run(words, capture_output=True, env=environment, cwd=tmp_path)
        codes.append((done.returncode, len(done.stdout.splitlines())))
    assert codes == [(0, 2), (0, 0), (2, 0)]
    assert done.stderr == b"isorun: missing.jsonl cannot be read: No such file or directory\n"
    assert list((tmp_path / "runs").glob("codegen_*")) == []


@pytest.mark.any_user
def test_lines_of_one_session_go_in_their_order(batch, tmp_path) -> None:
    """Each finds what the lines before it left, with as many at once as there are; and files go where a line says."""
    code = "print(sorted(os.listdir())); open(sys.argv[1], 'w').close()"
    lines = lines_of(*({"code": code, "argv": [name], "session": "s"} for name in "abc"))
    last = {"code": "open('d', 'w').close()", "start_from": "from", "save_to": "to"}
    (tmp_path / "from").mkdir()
    (tmp_path / "from/e").write_text("e")
    returned, told, _ = batch(lines + lines_of(last, {"code": "1", "session": "S"}), "--at-once", "5")
    assert returned == 1
    assert [line["stdout"] for line in told[:3]] == ["[]\n", "['a']\n", "['a', 'b']\n"]
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["d"]
    assert told[4]["error"]["code"] == "invalid_session"


@pytest.mark.any_user
def test_a_result_comes_before_the_next_line_is_there(environment, tmp_path) -> None:
    """Lines may come from a program that waits for the answers."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*COMMAND, "-"], env=environment, cwd=tmp_path, **pipes) as process:
        for n in range(3):
            process.stdin.write(lines_of({"code": f"print({n})"}))
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["stdout"] == f"{n}\n"
        process.stdin.close()
        assert process.wait() == 0


def test_an_interrupt_ends_it_though_nothing_more_is_said(environment, tmp_path) -> None:
    """One program hangs and the pipe stays open: the exit code is 130, and no run is left as running."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*COMMAND, "-"], env=environment, cwd=tmp_path, **pipes) as process:
        process.stdin.write(lines_of({"code": "print(1)"}, {"code": "import time; time.sleep(60)"}))
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["ok"]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    for folder in (tmp_path / "runs").glob("codegen_*"):
        assert (folder / "out/result.json").exists()


@pytest.mark.any_user
def test_a_terminal_shows_a_bar(environment, tmp_path) -> None:
    """On stderr, with how many are done of how many; stdout has the results alone."""
    (tmp_path / "jobs.jsonl").write_bytes(lines_of(*({"code": f"print({n})"} for n in range(3))))
    ours, theirs = pty.openpty()
    environment = {**environment, "TERM": "xterm", "COLUMNS": "80"}
    words = [*COMMAND, "jobs.jsonl"]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=theirs, env=environment, cwd=tmp_path)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3)
    assert "3/3" in shown
