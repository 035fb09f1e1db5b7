"""Resources: processes, threads, CPU and time. What a run may take of them, and what is left of it after."""

import os
import select
import signal
import subprocess
import sys
import time

import pytest

from tests.escapes.attacking import attack, cpu_s_inside, ended, processes_inside, programs_inside
from tests.escapes.conftest import ROOMY

pytestmark = [pytest.mark.usefixtures("unharmed"), pytest.mark.alone]

PROCESS_LIMIT = ("limit_exceeded", "process_limit", "exceeded its limit of 32 processes and threads")
SPIN = "while True: pass"


def timed_out(seconds: float) -> tuple[str, str, str]:
    return ("timed_out", "timeout", f"exceeded its timeout of {seconds:g} s")


FORKS = """
import os, time
made = 0
while made < {most}:
    if os.fork() == 0:
        time.sleep(30)
        os._exit(0)
    made += 1
print(made)
"""


def test_a_fork_bomb_ends_at_the_process_limit(sealed, without, kernel) -> None:
    """A program that forks without end dies of it, is told so, and its children die with it.

    Under gVisor, whose kernel may die of it first, not every time in those words.
    """
    result = attack(sealed, FORKS.format(most=10_000), timeout_s=3)
    if kernel == "gvisor":
        assert result.status in ("limit_exceeded", "killed", "out_of_memory")
    else:
        assert ended(result) == PROCESS_LIMIT
        assert result.error.hint == "use less, or raise ISORUN_MAX_PROCESSES"
    assert programs_inside() == []
    # Control: with room for it, the same program makes 60 processes.
    assert without(limits=ROOMY).execute(FORKS.format(most=60)).stdout == "60\n"


@pytest.mark.linux
def test_a_fork_bomb_that_ignores_errors_ends_at_the_deadline(sealed, ceilings) -> None:
    """Every process forks for ever and none dies of EAGAIN: the deadline ends all of them. Under gVisor none ever sees
    EAGAIN: see the fork bomb above.
    """
    code = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    result = attack(sealed, code, timeout_s=1)
    assert ended(result) == timed_out(1)
    assert programs_inside() == []
    refused = [n for n in result.notices if n.endswith("fork(s) or thread(s) were refused: process limit")]
    assert len(refused) == (1 if ceilings != "no-cgroup" else 0)  # nothing else counts refusals
    # Control: that of the fork bomb above.


THREADS = """
import threading, time
for made in range({most}):
    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
print(made + 1)
"""


def test_a_thread_bomb_ends_at_the_process_limit(sealed, without) -> None:
    """Threads count as processes do."""
    assert ended(attack(sealed, THREADS.format(most=10_000), timeout_s=3)) == PROCESS_LIMIT
    # Control: with room for them, the same program makes 60 threads.
    assert without(limits=ROOMY).execute(THREADS.format(most=60)).stdout == "60\n"


@pytest.mark.embedded
def test_a_fork_bomb_does_not_starve_a_neighbour(sealed) -> None:
    """While one run holds all processes that it may have, another forks its own full number."""
    full = "import os, time\ntry:\n" + "".join(f"    {line}\n" for line in FORKS.format(most=99).splitlines()[1:])
    bomb = sealed.start(full + "except OSError:\n    print('full')\n    time.sleep(30)")
    assert [event.kind for _, event in zip(range(2), bomb.events(), strict=False)] == ["started", "output"]
    assert len(processes_inside()) == 33
    forks = "import os\nfor _ in range(30):\n    if os.fork() == 0: os.read(os.pipe()[0], 1)\nprint('forked')"
    assert sealed.execute(forks).stdout == "forked\n"
    assert bomb.cancel().stdout == "full\n"
    # No control is possible: no option puts two slots into one user namespace, where NPROC would be shared.


@pytest.mark.linux
def test_no_signal_ends_pid_1(sealed) -> None:
    """Each signal sent to init and to everybody is refused or without effect; the program goes on.

    Under gVisor it ends its own container: `test_init_gets_no_signal`.
    """
    code = """
        import os, signal
        child = os.fork()
        if child == 0: signal.pause()
        for number in signal.valid_signals():
            try: os.kill(1, number)
            except PermissionError: pass
        os.kill(-1, signal.SIGKILL)  # everybody but init and ourselves
        print(os.waitpid(child, 0)[1], os.path.exists("/proc/self"))
    """
    result = attack(sealed, "if True:\n" + code)
    assert (result.status, result.stdout) == ("ok", "9 True\n")
    # Control: the SIGKILL to everybody did end the program's own child.


def test_a_busy_loop_ends_at_the_deadline(sealed) -> None:
    """A spinning program is ended at its deadline, and the line that it span in is named."""
    result = attack(sealed, f"print('on')\n{SPIN}", timeout_s=0.5)
    assert (ended(result), result.error.hint, result.stdout) == (
        timed_out(0.5),
        "last line executed: 2",
        "on\n",
    )
    assert result.usage["wall_s"] < 1.5
    # Control: without its loop the program ends by itself; every other test here shows that.


@pytest.mark.embedded
def test_two_spinning_processes_get_one_core(sealed, ceilings) -> None:
    """Two processes that try to leave their CPU and spin have, by the kernel's count, one core together."""
    code = """
import os, time
print("start", flush=True)
spun = time.process_time()
parent = os.fork()
try: os.sched_setaffinity(0, range(256))
except PermissionError: pass
while time.process_time() < spun + 0.6: pass  # by the processor, which a busy machine gives it late
if parent: print("end", flush=True)
time.sleep(30)  # a process that has ended is not counted any more
"""
    run = sealed.start(code)
    for event in run.events():
        if event.kind == "output" and event.data["text"] == "start\n":
            began_at, before_s = time.monotonic(), cpu_s_inside()
        elif event.kind == "output":
            spent_s, wall_s = cpu_s_inside() - before_s, time.monotonic() - began_at
            break
    result = run.cancel()
    assert spent_s > 0.5
    assert spent_s / wall_s <= 1.15
    assert result.usage["cpu_s"] / result.usage["wall_s"] <= 1.15
    walls = result.isolation["walls"]
    assert walls["cgroup"]["cpus"] == 1.0 if ceilings != "no-cgroup" else len(walls["cpus"]) == 1
    # No control is possible here: it would need two idle cores, which nobody promises a test.


def test_a_sleep_for_ever_ends_at_the_deadline(sealed) -> None:
    """A program that waits is ended like one that spins, and what it printed is kept."""
    result = attack(sealed, "import time\nprint('zzz')\ntime.sleep(1e8)", timeout_s=0.5)
    assert (ended(result), result.error.hint, result.stdout) == (
        timed_out(0.5),
        "last line executed: 3",
        "zzz\n",
    )
    # Control: a shorter sleep ends well.
    assert sealed.execute("import time; time.sleep(0.01)").ok


def test_a_stopped_program_ends_at_the_deadline(sealed) -> None:
    """A program that stops itself cannot take SIGTERM; after the grace it is killed all the same."""
    result = attack(sealed, "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nprint('woken')", timeout_s=0.5)
    assert (ended(result), result.signal, result.stdout) == (timed_out(0.5), signal.SIGKILL, "")
    # Control: one that is continued goes on.
    code = (
        "import os, signal, time\nme = os.getpid()\nif os.fork() == 0:\n"
        "    time.sleep(0.1); os.kill(me, signal.SIGCONT); os._exit(0)\n"
        "os.kill(me, signal.SIGSTOP)\nprint('woken')"
    )
    assert sealed.execute(code, timeout_s=5).stdout == "woken\n"


def test_a_program_that_ignores_sigterm_is_killed(sealed) -> None:
    """Ignoring SIGTERM wins the grace period and no more."""
    code = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SPIN}"
    result = attack(sealed, code, timeout_s=0.5)
    assert (ended(result), result.signal) == (timed_out(0.5), signal.SIGKILL)
    assert 0.8 <= result.usage["wall_s"] < 1.8
    # Control: the busy loop above, which does not ignore it, ends by SIGTERM.


DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        print(os.getpid(), flush=True)
        end = time.monotonic() + LIVES
        while time.monotonic() < end: time.sleep(0.1)
    os._exit(0)
time.sleep(0.2)
"""


def test_a_daemon_does_not_outlive_its_run(sealed) -> None:
    """A double-forked process that ignores every signal is gone when the result is there."""
    result = attack(sealed, f"LIVES = 30\n{DAEMON}")
    assert (result.status, result.stdout.strip().isdigit(), programs_inside()) == ("ok", True, [])
    # Control: outside of a run it lives on after its parent, and holds the pipe.
    argv = [sys.executable, "-c", f"LIVES = 1\n{DAEMON}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, bufsize=0) as plain:
        assert plain.wait() == 0
        assert int(plain.stdout.readline()) > 0
        assert select.select([plain.stdout], [], [], 0.1)[0] == []


def test_a_grandchild_that_keeps_stdout_open_delays_nothing(sealed) -> None:
    """The run ends with its program, whoever else still holds the pipes."""
    code = "import subprocess\nsubprocess.Popen(['sleep', '{}'])\nprint('done')"
    result = attack(sealed, code.format(30), timeout_s=9)
    assert (result.status, result.stdout) == ("ok", "done\n")
    assert result.usage["wall_s"] < 2
    # Control: a plain reader of such a pipe is kept waiting.
    with subprocess.Popen([sys.executable, "-c", code.format(1)], stdout=subprocess.PIPE, bufsize=0) as plain:
        assert (plain.stdout.readline(), plain.wait()) == (b"done\n", 0)
        assert select.select([plain.stdout], [], [], 0.2)[0] == []


def test_a_program_that_ends_while_daemon_threads_spin_is_over(sealed) -> None:
    """Daemon threads end with the program, spinning or not."""
    code = f"""
import threading
def spin():
    {SPIN}
for _ in range(4): threading.Thread(target=spin, daemon=True).start()
print("end")
"""
    result = attack(sealed, code, timeout_s=5)
    assert (result.status, result.stdout, programs_inside()) == ("ok", "end\n", [])
    # Control: the next test.


def test_a_program_that_ends_while_threads_run_is_waited_for_until_its_deadline(sealed) -> None:
    """Other threads are waited for, as Python does, and the deadline still holds."""
    code = """
import threading, time
def late():
    time.sleep({})
    print("late")
threading.Thread(target=late).start()
"""
    assert ended(attack(sealed, code.format(30), timeout_s=0.5)) == timed_out(0.5)
    # Control: one that ends in time is waited for.
    assert sealed.execute(code.format(0.1)).stdout == "late\n"


def test_a_hanging_atexit_function_ends_at_the_deadline(sealed) -> None:
    """What a program does at exit is on its own time."""
    code = "import atexit, time\natexit.register(time.sleep, {})\nprint('bye')"
    result = attack(sealed, code.format(30), timeout_s=0.5)
    assert (ended(result), result.stdout) == (timed_out(0.5), "bye\n")
    # Control: one that returns is run to its end.
    assert sealed.execute(code.format(0.01)).ok


def test_the_host_kept_its_own_processes(sealed) -> None:
    """A run that kills whatever it can see kills nothing of ours."""
    before = os.getpid(), sealed.execute("print(1)").status
    code = """
import os
for pid in set(range(2, 70_000)) - {os.getpid()}:
    try: os.kill(pid, 9)
    except OSError: pass
"""
    assert attack(sealed, code).status == "ok"
    assert (os.getpid(), sealed.execute("print(1)").status) == before
    # Control: that of pid 1 above, where the program's own child died.


def test_a_refused_read_is_not_a_fork_bomb(sealed) -> None:
    """EAGAIN of anything else than a fork is not called a process limit."""
    code = "import os\nreader, _ = os.pipe()\nos.set_blocking(reader, False)\nos.read(reader, 1)"
    message = "the program raised BlockingIOError: [Errno 11] Resource temporarily unavailable"
    result = attack(sealed, code)
    assert ended(result) == ("failed", "program_error", message)
    assert result.error.details == {"exception": "BlockingIOError", "source": "os.read(reader, 1)"}
    # Control: the fork bomb above, which is called one.
