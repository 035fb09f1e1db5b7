"""Reading, driving and signalling processes that are not the program's own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.escapes.attacking import cgroups_left, idle, processes_inside
from tests.escapes.probing import inside, outside

pytestmark = pytest.mark.usefixtures("unharmed")


@pytest.fixture
def host_process() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the host that runs as the executor's own uid, as far as this test may choose that."""
    ids = {"user": 1001, "group": 1000, "extra_groups": []} if os.geteuid() == 0 else {}
    with subprocess.Popen(["/bin/sleep", "60"], **ids) as process:
        yield process
        process.kill()


@pytest.mark.embedded
def test_what_is_looked_for_after_each_attack_can_be_seen(sealed, ceilings) -> None:
    """The control of `unharmed`: the processes of a program that runs are found, and its cgroups where it has any."""
    child = "if os.fork() == 0: time.sleep(30)"
    program = sealed.start(f"import os, time\n{child}\nprint('there', flush=True)\ntime.sleep(30)")
    assert [event.kind for _, event in zip(range(2), program.events(), strict=False)] == ["started", "output"]
    assert len(processes_inside()) == 3  # init, the program and its child
    assert bool(cgroups_left()) == (ceilings == "cgroup")
    program.cancel()
    assert idle(time.monotonic() + 3.0) == []


@pytest.mark.embedded
def test_init_and_the_zygote_are_not_in_proc(sealed, without) -> None:
    """/proc names the program and its children, not init; without the option it names pid 1."""
    code = """
answer = [sorted(n for n in os.listdir("/proc") if n.isdigit()) == [str(os.getpid())],
          *(reading("/proc/1/" + n) for n in ("status", "environ", "mem", "maps", "cmdline", "fd", "root"))]
"""
    assert inside(sealed, code) == [True, *["ENOENT"] * 7]
    shown = inside(without("proc"), code)
    assert shown[:2] == [False, "ok"]
    # init is non-dumpable: what it holds stays shut even where its entry is seen.
    assert shown[2:5] == ["EACCES"] * 3


@pytest.mark.embedded
def test_another_run_is_not_in_proc(sealed) -> None:
    """Two runs at once see one process each. No control: no option lets slots share a pid namespace."""
    other = sealed.start("import time; print('up', flush=True); time.sleep(60)")
    events = other.events()
    while next(events).kind != "output":
        pass
    seen = inside(sealed, "answer = [n for n in os.listdir('/proc') if n.isdigit()]")
    assert seen == ["2"]
    assert other.cancel().status == "cancelled"
    assert "1" in outside("answer = [n for n in os.listdir('/proc') if n.isdigit()]")


def test_a_host_process_of_the_same_uid_is_out_of_sight_and_reach(sealed, kernel, host_process) -> None:
    """The host's number of a process with our uid means nothing inside: not in /proc, by kill, pidfd or
    ptrace."""
    code = f"""
pid = {host_process.pid}
answer = [reading(f"/proc/{{pid}}/status"), said(call("kill", pid, 0)), said(call("tgkill", pid, pid, 0)),
          said(call("tkill", pid, 0)), said(call("pidfd_open", pid, 0)),
          said(call("prlimit64", pid, 7, 0, 0)), attempt(lambda: os.sched_getaffinity(pid)),
          attempt(lambda: os.setpriority(os.PRIO_PROCESS, pid, 5))]
"""
    by_pidfd = {"linux": "ESRCH", "gvisor": "ENOSYS"}[kernel]
    assert inside(sealed, code) == ["ENOENT", *["ESRCH"] * 3, by_pidfd, *["ESRCH"] * 3]
    assert host_process.poll() is None
    assert os.getpriority(os.PRIO_PROCESS, host_process.pid) == 0
    ids = {"user": 1001, "group": 1000, "extra_groups": []} if os.geteuid() == 0 else {}
    status = f"/proc/{host_process.pid}/status"
    reached = subprocess.run(
        ["/bin/sh", "-c", f"cat {status} >/dev/null && kill -9 {host_process.pid}"], check=False, **ids
    )
    assert reached.returncode == 0
    assert host_process.wait() == -signal.SIGKILL


def test_every_process_of_the_uid_is_a_program_of_this_run(sealed, kernel, host_process) -> None:
    """kill(-1) and PRIO_USER stop at the run: the host's process of the same uid lives on, unchanged."""
    code = """
answer = [said(call("kill", -1, 9)), attempt(lambda: os.setpriority(os.PRIO_USER, 0, 7)),
          os.getpriority(os.PRIO_PROCESS, 0)]
"""
    nice = {"linux": 7, "gvisor": 0}[kernel]  # gVisor takes it for one process only
    assert inside(sealed, code) == ["ESRCH", "ok", nice]
    assert host_process.poll() is None
    assert os.getpriority(os.PRIO_PROCESS, host_process.pid) == 0


INIT = """
descriptor = call("pidfd_open", 1, 0)
answer = [said(call("kill", 1, 9)), said(call("tgkill", 1, 1, 9)), said(call("tkill", 1, 9)),
          said(call("pidfd_send_signal", descriptor, 9, 0, 0))]
"""


def test_init_gets_no_signal(sealed, without, kernel) -> None:
    """Landlock refuses all signals to init; without it the call succeeds and init, as pid 1, gets none.

    Under gVisor it gets them, and the program's container ends with it: that run's own loss.
    """
    if kernel == "gvisor":
        assert sealed.execute("import os, time; os.kill(1, 9); time.sleep(20)").status == "killed"
        return
    assert inside(sealed, INIT) == ["EPERM"] * 4
    # This program goes on to print its answer: had init died, the kernel would have killed it.
    assert inside(without("landlock"), INIT) == ["ok"] * 4


def test_init_cannot_be_given_a_limit_that_kills_it(sealed, without) -> None:
    """prlimit(RLIMIT_CPU) on pid 1 is refused by argument; without that rule the kernel allows it."""
    code = """
limit = ctypes.create_string_buffer(16)
answer = [said(call("prlimit64", 1, 0, limit, 0)), said(call("prlimit64", (1 << 32) + 1, 0, limit, 0)),
          said(call("prlimit64", 0, 0, 0, limit))]
"""
    assert inside(sealed, code) == ["EPERM", "EPERM", "ok"]
    # The kernel compares uids alone: only read here, a limit set on init would end the control itself.
    assert inside(without("seccomp"), code.replace("limit, 0)", "0, limit)")) == ["ok", "ok", "ok"]


READERS = """
import time
pid = os.fork()
if pid == 0:
    secret = ctypes.create_string_buffer(b"mine")
    time.sleep(30)
here, there = ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)
vector = (ctypes.c_void_p * 2)(ctypes.addressof(here), 8)
remote = (ctypes.c_void_p * 2)(ctypes.addressof(there), 8)
answer = [said(call("process_vm_readv", TARGET, vector, 1, remote, 1, 0)),
          said(call("process_vm_writev", TARGET, vector, 1, remote, 1, 0)),
          said(call("ptrace", 16, TARGET, 0, 0)),
          said(call("kcmp", os.getpid(), TARGET, 0, 0, 0)),
          said(call("pidfd_getfd", call("pidfd_open", TARGET, 0), 0, 0))]
os.kill(pid, 9)
os.waitpid(pid, 0)
"""


def test_no_process_is_read_or_traced(sealed, without) -> None:
    """Reading, writing, tracing a process and taking its descriptors are refused, even towards an own
    child."""
    own_child = READERS.replace("TARGET", "pid")
    assert inside(sealed, own_child) == ["EPERM"] * 5
    assert inside(without("seccomp"), own_child) == ["ok"] * 5


@pytest.mark.embedded
@pytest.mark.parametrize("off", [("seccomp",), ("seccomp", "landlock")])
def test_init_cannot_be_read_even_without_the_filter(without, off) -> None:
    """init is outside of the program's Landlock domain and non-dumpable: either makes the kernel refuse."""
    assert inside(without(*off), READERS.replace("TARGET", "1")) == ["EPERM"] * 5


MEMORY = """
value = ctypes.create_string_buffer(b"old!")
def write(pid):
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(ctypes.addressof(value))
        memory.write(b"new!")
answer = [attempt(lambda: write("self")), attempt(lambda: write("1")), value.value.decode()]
"""


@pytest.mark.embedded
def test_memory_is_not_written_through_proc(sealed, without) -> None:
    """/proc/self/mem is read-only inside, which keeps read-only pages what they are; init's is not there."""
    assert inside(sealed, MEMORY) == ["EACCES", "ENOENT", "old!"]
    assert inside(without("landlock"), MEMORY) == ["ok", "ENOENT", "new!"]


@pytest.mark.embedded
def test_a_child_reads_no_more_than_its_parent(sealed) -> None:
    """A new program image (execve) in the run sees /proc as the run does. No control: /proc is the run's."""
    code = f"""
import subprocess
program = "import os; print(sorted(n for n in os.listdir('/proc') if n.isdigit()), os.path.exists('/proc/1'))"
done = subprocess.run([{os.path.basename(sys.executable)!r}, "-c", program], capture_output=True, text=True)
answer = done.stdout
"""
    numbers, shown = inside(sealed, code).rsplit(" ", 1)
    assert (numbers.count(","), shown) == (1, "False\n")
