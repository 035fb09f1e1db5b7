"""A command ends with all that it started, whatever it does against that, and the sandbox goes on."""

import signal
import subprocess
import threading
import time

import pytest

from sandbox_runner import ResourceSpec, SandboxError, SandboxGone
from sandbox_runner.linux import file_locks

#: How a command leaves something behind, by the name of the way. MARK is replaced.
ESCAPES = {
    "background": "sleep MARK & echo begun",
    "setsid": "setsid sleep MARK & echo begun",
    "nohup": "nohup sleep MARK >/dev/null 2>&1 & echo begun",
    "double fork": "( ( setsid sleep MARK & ) & ) ; echo begun",
    "closed streams": "setsid sleep MARK <&- >&- 2>&- & echo begun",
    "ignores signals": "trap '' TERM HUP INT; setsid sleep MARK & echo begun",
    "a name with a line break": r"""cp "$(command -v sleep)" "/tmp/a
b) R 1 1"; setsid "/tmp/a
b) R 1 1" MARK & sleep 0.3; echo begun""",
    "a reaper of its own": """python3 -c '
import ctypes, os
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
if os.fork() == 0:
    os.setsid()
    os.execlp("sleep", "sleep", "MARK")
print("begun", flush=True)
os.waitpid(-1, 0)' & sleep 1; echo begun""",
}


@pytest.mark.parametrize("way", ESCAPES)
def test_what_a_command_leaves_ends_with_it(sandbox, marker, way) -> None:
    """Nothing of it is there for the next command to see, nor on this machine; the exit code is the command's."""
    result = sandbox.exec(["sh", "-c", ESCAPES[way].replace("MARK", marker.text) + "; exit 3"], timeout_s=60)
    assert (result.exit_code, result.timed_out) == (3, False)
    assert result.stdout.startswith(b"begun\n")
    assert marker.seen(sandbox) == []


def test_a_timeout_ends_everything(sandbox, marker, lacking) -> None:
    """Also what tries to get away, in each of the ways at once; the output until then is kept."""
    script = "\n".join(ESCAPES.values()).replace("MARK", marker.text) + f"\nexec sleep {marker.text}"
    for seconds in (8, 25) if lacking("outside") else (4, 10):  # the second where all of them had not begun
        result = sandbox.exec(["sh", "-c", script], timeout_s=seconds)
        assert (result.timed_out, result.exit_code, result.signal, result.ok) == (True, None, signal.SIGKILL, False)
        assert marker.seen(sandbox) == []
        if result.stdout.count(b"begun\n") > len(ESCAPES):
            return
    pytest.fail(f"not all of them have begun: {result.stdout!r}")


def once_seen(sandbox, marker, lacking) -> list[str]:
    """The processes with the marker, once there is one: what a shell starts behind `&` may begin after its echo."""
    until = time.monotonic() + 30.0
    seen: list[str] = []
    while not seen and time.monotonic() < until:
        seen = marker.seen(sandbox) if lacking("outside") else marker.seen_from_outside()
    return seen


def test_processes_are_seen_where_nothing_ends_them(sandbox, marker, running, home, lacking) -> None:
    """The positive control of the two tests above: what is looked for is found while it runs."""
    go = home / "workspace" / "may-end"
    script = f"setsid sleep {marker.text} & echo; until [ -e /workspace/may-end ]; do sleep 0.05; done"
    command = running(sandbox, ["sh", "-c", script], timeout_s=120)
    seen = once_seen(sandbox, marker, lacking)
    go.touch()
    assert command.result().ok
    go.unlink()
    assert len(seen) == 1
    assert marker.seen(sandbox) == []


def test_a_timeout_while_a_command_is_only_beginning_ends_it(sandbox, marker) -> None:
    """However short it is: a command that the engine was just about to start does not run on unseen."""
    for timeout in (0.001, 0.04, 0.07, 0.15):
        assert sandbox.exec(["sleep", marker.text], timeout_s=timeout).timed_out, timeout
    until = time.monotonic() + 1.0  # the time in which the last of them would have begun
    while time.monotonic() < until:
        assert marker.seen(sandbox) == []


def test_a_program_whose_first_thread_has_ended_is_ended(sandbox, marker, home, machine_code) -> None:
    """It looks like a zombie, and lives."""
    program = home / "workspace" / "threaded"
    program.write_bytes(machine_code)
    program.chmod(0o755)
    result = sandbox.exec(["sh", "-c", f"setsid /workspace/threaded {marker.text} & sleep 0.3; exit 3"], timeout_s=60)
    assert result.exit_code == 3
    assert sandbox.exec(["sh", "-c", "cat /proc/[0-9]*/stat"]).stdout.count(b"(threaded)") == 0


def test_a_long_command_survives_the_end_and_the_timeout_of_others(sandbox, running, home, marker, lacking) -> None:
    """Commands that run at the same time do not end each other."""
    go = home / "workspace" / "may-end"
    script = "echo begun; while [ ! -e /workspace/may-end ]; do sleep 0.05; done; exit 4"
    long = running(sandbox, ["sh", "-c", script], timeout_s=120)
    assert sandbox.exec(["sh", "-c", f"setsid sleep {marker.text} & exit 0"]).ok
    assert sandbox.exec(["sh", "-c", f"setsid sleep {marker.text} & wait"], timeout_s=1).timed_out
    sandbox.exec(["sh", "-c", "kill -9 $PPID; exec sleep 1"], timeout_s=5)
    go.touch()
    assert long.result().exit_code == 4
    go.unlink()


def test_an_orphan_of_a_long_command_survives_the_end_of_others(sandbox, running, home, marker, lacking) -> None:
    """What a command left in the background is its own until it ends, and not the next one's to sweep away."""
    go = home / "workspace" / "may-end"
    script = f"( setsid sleep {marker.text} & ) ; echo; while [ ! -e /workspace/may-end ]; do sleep 0.05; done"
    long = running(sandbox, ["sh", "-c", script], timeout_s=120)
    assert sandbox.exec(["true"]).ok
    alive = marker.seen(sandbox) if lacking("reapers") else once_seen(sandbox, marker, lacking)
    go.touch()
    assert long.result().ok
    go.unlink()
    assert len(alive) == (0 if lacking("reapers") else 1)
    assert marker.seen(sandbox) == []


@pytest.mark.parametrize("number", [9, 15])
def test_a_command_that_kills_what_runs_it_ends_alone(sandbox, marker, number) -> None:
    """It is ended with what it started; what it came to is a signal, and the next command runs."""
    script = f"setsid sleep {marker.text} & kill -{number} $PPID; exec sleep {marker.text}"
    result = sandbox.exec(["sh", "-c", script], timeout_s=2)
    assert not result.ok
    assert marker.seen(sandbox) == []


def test_a_command_that_kills_everything_it_can(start, marker, backend) -> None:
    """It ends itself; or, where the commands of a sandbox see each other, all of it, which is then said to be gone."""
    sandbox = start()
    argv = ["sh", "-c", f"setsid sleep {marker.text} & kill -9 -1; sleep {marker.text}"]
    if backend.name == "namespace":
        assert not sandbox.exec(argv, timeout_s=3).ok
        assert sandbox.exec(["true"]).ok
    else:
        with pytest.raises(SandboxGone) as raised:
            sandbox.exec(argv, timeout_s=60)
        said = "something ended all of its processes, or the container"
        assert str(raised.value) == f"{sandbox.container_name} ended while a command ran in it: {said}"
        with pytest.raises(SandboxGone):
            sandbox.exec(["true"])
    assert marker.seen_from_outside() == []


#: Every process of it makes others for ever, whether it can or not. The first one ends after a while, or waits.
BOMB = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    while True:
        try:
            os.fork()
        except OSError:
            pass
time.sleep(60 if "waits" in sys.argv else 0.3)
"""


@pytest.mark.parametrize("waits", [True, False], ids=["that is waited for", "that is left"])
def test_a_fork_bomb_ends_and_the_sandbox_goes_on(start, lacking, waits) -> None:
    """At the timeout, or with its command; other commands run then."""
    sandbox = start(resources=ResourceSpec(pids_limit=256 if lacking("pids") else 48))
    try:
        result = sandbox.exec(["python3", "-c", BOMB, "bomb", *(["waits"] if waits else [])], timeout_s=3)
        assert result.timed_out or not waits
        after = sandbox.exec(["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"], timeout_s=60)
    except SandboxGone:
        assert lacking("pids")
        return
    assert after.ok
    assert b" bomb " not in after.stdout


ALLOCATE = "data = bytearray(400 << 20); data[::4096] = b'x' * len(data[::4096])"


def test_memory_that_is_full_is_said(start, lacking) -> None:
    """The kernel ends who asks for more than there is; then `out_of_memory`, and not before, and not afterwards."""
    sandbox = start(resources=ResourceSpec(memory="96m"))
    assert sandbox.exec(["true"]).out_of_memory is False
    if lacking("oom_count"):
        with pytest.raises(SandboxGone, match=r"its memory was full$"):
            sandbox.exec(["python3", "-c", ALLOCATE], timeout_s=120)
        return
    result = sandbox.exec(["python3", "-c", ALLOCATE])
    assert (result.out_of_memory, result.signal, result.timed_out) == (True, signal.SIGKILL, False)
    result = sandbox.exec(["python3", "-c", "raise SystemExit(9)"])
    assert (result.out_of_memory, result.exit_code) == (False, 9)


def test_memory_that_was_full_for_a_child_is_said(start, lacking) -> None:
    """Also if the command itself ended with exit code 0."""
    sandbox = start(resources=ResourceSpec(memory="96m"))
    if lacking("oom_count"):  # the whole sandbox dies, as above
        with pytest.raises(SandboxGone, match=r"its memory was full$"):
            sandbox.exec(["sh", "-c", f'python3 -c "{ALLOCATE}"; exit 0'], timeout_s=120)
        return
    result = sandbox.exec(["sh", "-c", f'python3 -c "{ALLOCATE}"; exit 0'])
    assert (result.out_of_memory, result.exit_code) == (True, 0)
    assert sandbox.exec(["true"]).out_of_memory is False


def test_a_sandbox_that_is_closed_is_gone(start) -> None:
    """For every later command; and to close it again does nothing."""
    sandbox = start()
    sandbox.close()
    with pytest.raises(SandboxGone) as raised:
        sandbox.exec(["true"])
    assert str(raised.value) == f"{sandbox.container_name} is closed"
    sandbox.close()


def test_to_close_ends_a_command_that_runs(start, running, marker) -> None:
    """It raises there; nothing is left."""
    sandbox = start()
    command = running(sandbox, ["sh", "-c", f"setsid sleep {marker.text} & echo; wait"])
    sandbox.close()
    assert isinstance(command.result(), SandboxError)
    assert marker.seen_from_outside() == []


def test_what_the_prefix_runs_ends_with_the_sandbox(start, marker, lacking) -> None:
    """Also what it left in the background."""
    sandbox = start()
    script = f"setsid sleep {marker.text} & echo; wait"
    process = subprocess.Popen([*sandbox.command_prefix, "sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1) == b"\n"
    sandbox.close()
    process.stdout.close()
    if lacking("client"):
        process.kill()
    process.wait(30)
    assert marker.seen_from_outside() == []


def test_an_interrupt_ends_the_command(sandbox, marker) -> None:
    """Ctrl-C in the caller reaches what runs inside, too."""
    ready = threading.Event()
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        ready.wait(60)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        sandbox.exec(["sh", "-c", f"echo; exec sleep {marker.text}"], on_output=lambda *_: ready.set())
    assert marker.seen(sandbox) == []


LOCKS = """
import fcntl, os, sys
files = [open(f"/tmp/{n}", "wb") for n in range(100)]
for made in range(int(sys.argv[1])):
    fcntl.lockf(files[made % 100], fcntl.LOCK_EX, 1, 2 * (made // 100))
    if made % 1000 == 999:
        os.write(1, b"k")
"""


def test_file_locks_are_counted(sandbox, lacking, monkeypatch) -> None:
    """No control group counts them: a command with thousands is ended, and the next one is not blamed."""
    if lacking("oom_count"):  # a kernel of its own: they are in its memory, which is the sandbox's
        assert sandbox.exec(["python3", "-c", LOCKS, "20000"], timeout_s=60).ok
        return
    result = sandbox.exec(["python3", "-c", LOCKS, "3000000"], timeout_s=60)
    assert (result.too_many_locks, result.signal, result.timed_out) == (True, signal.SIGKILL, False)
    assert 4 <= len(result.stdout) < 300
    after = sandbox.exec(["python3", "-c", LOCKS, "3000"])
    assert (after.ok, after.too_many_locks, after.stdout) == (True, False, b"kkk")
    # Control: more than that, if nobody counts them.
    monkeypatch.setattr(file_locks, "MOST", 1 << 40)
    assert sandbox.exec(["python3", "-c", LOCKS, "30000"]).stdout == b"k" * 30
