"""A process of this machine is run to its end: bounded in time and output, and never left behind."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sandbox_runner.errors import InvalidSpec, SandboxError
from sandbox_runner.execution import ExecResult, Finished, run_command, status


class Ended:
    """Counts how often `end` was called."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def run(script: str, **options: object) -> Finished:
    """*script* by sh."""
    return run_command(["sh", "-c", script], **{"end": Ended(), **options})


def is_running(pid: int) -> bool:
    """Whether process *pid* is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_process_that_ends_is_told_as_it_was() -> None:
    """Its streams, its code; `end` is not called."""
    end = Ended()
    done = run("cat; echo err >&2; exit 3", stdin=b"in", end=end)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"in", b"err\n")
    assert (done.timed_out, done.truncated, end.times) == (False, False, 0)
    assert run("kill -15 $$").returncode == -15


def test_the_environment_is_exactly_the_one_given(monkeypatch) -> None:
    """Or the caller's, if none is."""
    monkeypatch.setenv("SR_X", "caller")
    assert run_command(["env"], env={"A": "b", "PATH": os.environ["PATH"]}, end=Ended()).stdout.split()[0] == b"A=b"
    assert b"SR_X=caller" in run("env").stdout.splitlines()


def test_input_larger_than_a_pipe_goes_both_ways() -> None:
    """While the output is read: nobody waits for the other."""
    data = os.urandom(3_000_000)
    assert run("cat", stdin=data).stdout == data


def test_input_that_is_not_read_is_dropped() -> None:
    """With a process that ends first, and one that only closes its input."""
    assert run("exit 4", stdin=b"x" * 1_000_000).returncode == 4
    assert run("exec <&-; echo out", stdin=b"x" * 1_000_000).stdout == b"out\n"


def test_a_timeout_kills_and_calls_end() -> None:
    """The process is dead before `end` is called, once; the output until then is kept."""
    end = Ended()
    began = time.monotonic()
    done = run("echo before; echo $$; exec sleep 60", timeout_s=3, end=end)
    assert done.stdout.startswith(b"before\n")
    assert (done.timed_out, done.returncode, end.times) == (True, -9, 1)
    assert 3 <= time.monotonic() - began < 20
    assert not is_running(int(done.stdout.split()[1]))


def test_streams_that_stay_open_do_not_hold_a_timeout_up() -> None:
    """What the process left may keep them: they are read for some seconds, and no longer."""
    began = time.monotonic()
    done = run("sleep 60 & echo $!; wait", timeout_s=3)
    os.kill(int(done.stdout), 9)
    assert done.timed_out
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, ValueError])
def test_what_on_output_raises_kills_and_calls_end(error) -> None:
    """And is raised."""
    end, pids = Ended(), []

    def refuse(stream: str, data: bytes) -> None:
        pids.append(int(data))
        raise error

    with pytest.raises(error):
        run("echo $$; exec sleep 60", on_output=refuse, end=end)
    assert end.times == 1
    assert not is_running(pids[0])


def test_what_end_raises_is_raised_and_the_process_is_dead() -> None:
    """A sandbox that cannot be reached is not a command that timed out."""
    pids = []

    def end() -> None:
        raise SandboxError("gone")

    with pytest.raises(SandboxError, match="gone"):
        run("echo $$; exec sleep 60", on_output=lambda _, data: pids.append(int(data)), end=end, timeout_s=3)
    assert not is_running(pids[0])


def test_output_is_kept_up_to_a_limit() -> None:
    """Of each stream by itself; passed on is what is kept."""
    passed: list[tuple[str, bytes]] = []
    script = "printf 1234567890; printf 12345 >&2; exit 1"
    done = run(script, max_output_bytes=7, on_output=lambda *came: passed.append(came))
    assert (done.stdout, done.stderr, done.truncated, done.returncode) == (b"1234567", b"12345", True, 1)
    assert sorted(passed) == [("stderr", b"12345"), ("stdout", b"1234567")]
    done = run(script, max_output_bytes=10)
    assert (done.stdout, done.stderr, done.truncated) == (b"1234567890", b"12345", False)


def test_a_process_whose_sandbox_is_gone_is_killed(monkeypatch) -> None:
    """It is asked every few seconds; that is no timeout."""
    monkeypatch.setattr("sandbox_runner.execution._LOOK_S", 0.2)
    end = Ended()
    done = run("exec sleep 60", is_alive=lambda: False, end=end)
    assert (done.returncode, done.timed_out, end.times) == (-9, False, 1)
    alive = iter([True, True, False])
    assert run("exec sleep 60", is_alive=lambda: next(alive), timeout_s=60).timed_out is False


def test_a_filter_has_the_last_word() -> None:
    """What it holds back comes at the end of the stream."""

    class Late:
        held = b""

        def feed(self, data: bytes) -> bytes:
            self.held += data
            return b""

        def end(self) -> bytes:
            return self.held.upper()

    done = run("echo out; echo err >&2", stderr_filter=Late())
    assert (done.stdout, done.stderr) == (b"out\n", b"ERR\n")


def test_what_cannot_be_started_says_so() -> None:
    """By name; a line that is too long is the caller's mistake."""
    with pytest.raises(SandboxError, match=r"^/no/such cannot be started: No such file or directory$"):
        run_command(["/no/such"], end=Ended())
    with pytest.raises(InvalidSpec, match=r"^argv: an argument, or all of them with the environment, is too long$"):
        run_command(["true", "x" * 3_000_000], end=Ended())


def test_a_process_dies_with_the_one_that_started_it(tmp_path) -> None:
    """Also if that was killed."""
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2] / "src")!r})
from sandbox_runner.execution import run_command
run_command(["sh", "-c", "echo $$ > {tmp_path}/pid; mv {tmp_path}/pid {tmp_path}/ready; exec sleep 60"], end=print)
"""
    with subprocess.Popen([sys.executable, "-c", program]) as parent:
        ready = tmp_path / "ready"
        until = time.monotonic() + 30
        while not ready.exists() and time.monotonic() < until:
            time.sleep(0.01)
        pid = int(ready.read_text())
        assert is_running(pid)
        parent.kill()
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not is_running(pid)


def test_processes_run_from_many_threads() -> None:
    """Each has its own."""
    found: dict[int, bytes] = {}

    def one(number: int) -> None:
        found[number] = run(f"read x; echo {number} $x", stdin=b"in %d\n" % number).stdout

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: b"%d in %d\n" % (number, number) for number in range(8)}


@pytest.mark.parametrize(
    ("code", "exit_code", "signal"),
    [(0, 0, None), (1, 1, None), (128, 128, None), (129, None, 1), (137, None, 9), (192, None, 64), (193, 193, None)],
)
def test_a_shells_code_is_an_exit_code_or_a_signal(code, exit_code, signal) -> None:
    """Exactly one of them."""
    assert status(code) == (exit_code, signal)


def test_a_result_is_well_if_the_command_ended_well_by_itself() -> None:
    """Exit code 0, and in time."""
    kept = {"stdout": b"", "stderr": b"", "out_of_memory": False, "truncated": False, "duration_s": 1.0, "signal": None}
    assert ExecResult(exit_code=0, timed_out=False, **kept).ok
    assert not ExecResult(exit_code=0, timed_out=True, **kept).ok
    assert not ExecResult(exit_code=1, timed_out=False, **kept).ok
