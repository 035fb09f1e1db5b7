"""Resources: memory, by every way to it that a program has."""

import dataclasses
import re

import pytest

from isorun import RunResult
from isorun.backends.watch import sampling as watcher
from isorun.core.limits import Limits
from tests.escapes.attacking import attack, ended, programs_inside
from tests.escapes.conftest import ROOMY

pytestmark = [pytest.mark.usefixtures("unharmed"), pytest.mark.alone]

MIB = 1 << 20
KILLED = ("out_of_memory", "out_of_memory", "killed for exceeding its memory limit of 256 MiB")
RAISED = ("out_of_memory", "out_of_memory", "the program raised MemoryError (its memory limit is 256 MiB)")
HINT = "use less, or raise ISORUN_MAX_MEMORY_BYTES"


def full(place: str, size: str, setting: str) -> tuple[tuple[str, str, str], str]:
    """What a program is told that filled *place*."""
    said = ("limit_exceeded", "workspace_limit", f"no space left in {place} ({size})")
    return said, f"write less, or raise {setting}"


TOUCHED = """
held = []
while len(held) * 8 < {most}:
    held.append(bytearray(8 << 20))
print(len(held) * 8)
"""


def test_memory_that_is_touched_is_held(sealed, without, ceilings) -> None:
    """A program that fills memory dies of it: the kernel kills it, or Python is refused and raises."""
    result = attack(sealed, TOUCHED.format(most=4096), timeout_s=9)
    assert (ended(result), result.error.hint) == (KILLED if ceilings != "no-cgroup" else RAISED, HINT)
    # Control: with room for it, the same program has 320 MiB.
    assert without(limits=ROOMY).execute(TOUCHED.format(most=320)).stdout == "320\n"


SHARED = """
import mmap
held = []
while len(held) * 8 < {most}:
    held.append(mmap.mmap(-1, 8 << 20))
    held[-1].write(b"x" * (8 << 20))
print(len(held) * 8)
"""


def test_shared_memory_that_is_touched_is_held(sharing, without, ceilings) -> None:
    """Shared anonymous memory, which no limit of a process counts, is counted for the run."""
    result = attack(sharing, SHARED.format(most=4096), timeout_s=9)
    assert (ended(result), result.error.hint, result.signal) == (KILLED, HINT, 9)
    # Control: with room for it, the same program has 320 MiB.
    off = ("seccomp",) if ceilings == "no-cgroup" else ()
    assert without(*off, limits=ROOMY).execute(SHARED.format(most=320)).stdout == "320\n"


UNMAPPED = """
import ctypes, mmap
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
held = 0
while held < 480:
    at = libc.mmap(None, ctypes.c_size_t(40 << 20), 3, {flags}, {descriptor}, ctypes.c_long(0))
    if at == ctypes.c_void_p(-1).value: raise OSError(ctypes.get_errno(), "refused")
    ctypes.memset(ctypes.c_void_p(at), 1, ctypes.c_size_t(40 << 20))
    assert libc.munmap(ctypes.c_void_p(at + 4096), ctypes.c_size_t((40 << 20) - 4096)) == 0
    held += 40
print(held)
print(next(line for line in open("/proc/self/status") if line.startswith("RssShmem")).split()[1], flush=True)
"""
ANONYMOUS = UNMAPPED.format(flags=0x21, descriptor=-1)
OF_ZERO = "zero = open('/dev/zero', 'r+b', buffering=0)\n" + UNMAPPED.format(flags=1, descriptor="zero.fileno()")


@pytest.mark.linux
@pytest.mark.parametrize("code", [ANONYMOUS, OF_ZERO], ids=["anonymous", "zero"])
def test_shared_memory_that_is_unmapped_is_held(sealed, without, ceilings, code) -> None:
    """Pages of shared memory stay while one of them is mapped. A cgroup counts them; elsewhere nobody may have them."""
    result = attack(sealed, code, timeout_s=9)
    if ceilings != "no-cgroup":
        assert (ended(result), result.signal) == (KILLED, 9)
    else:
        assert (result.status, result.error.code) == ("failed", "program_error")
        assert ("[Errno 1]" if code is ANONYMOUS else "[Errno 13]") in result.error.message
    # Control: 480 MiB are held, of which 48 KiB can be counted, without the walls that refuse them, or in a cgroup that
    # has room for them.
    if ceilings == "no-cgroup":
        assert without("seccomp", "landlock").execute(code).stdout == "480\n48\n"
    else:
        assert without(limits=ROOMY).execute(code).stdout == "480\n48\n"


@pytest.mark.linux
def test_zeroes_can_be_read(sealed, ceilings) -> None:
    """Who has no cgroup may read /dev/zero and not write to it, whatever they do to the node."""
    code = """
import os
def said(work):
    try: return work()
    except OSError as error: return error.errno
print(said(lambda: open("/dev/zero", "rb").read(3)), said(lambda: os.close(os.open("/dev/zero", os.O_RDWR))),
      said(lambda: os.chmod("/dev/zero", 0o666)), said(lambda: os.unlink("/dev/zero")))
"""
    written = 13 if ceilings == "no-cgroup" else None  # control: where such memory is counted it may be
    refused = {"docker": "1 13"}.get(ceilings, "30 30")
    assert sealed.execute(code).stdout == f"b'\\x00\\x00\\x00' {written} {refused}\n"


def test_memory_that_is_mapped_and_not_touched_costs_the_host_nothing(sealed, ceilings) -> None:
    """200 GiB of address space: taken from nobody with a cgroup, refused without."""
    code = (
        "import mmap\nheld = [mmap.mmap(-1, {0}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)"
        " for _ in range(200)]\nprint(len(held))"
    )
    result = attack(sealed, code.format(1 << 30))
    if ceilings != "no-cgroup":
        assert (result.status, result.stdout) == ("ok", "200\n")
        assert result.usage["max_rss_bytes"] < 32 * MIB
    else:
        message = "the program raised OSError: [Errno 12] Cannot allocate memory"
        assert ended(result) == ("failed", "program_error", message)
    # Control: as many, but small, are given out.
    assert sealed.execute(code.format(4096)).stdout == "200\n"


FILL = """
for number in range({most}):
    with open(f"{place}/{{number}}", "wb") as file:
        file.write(bytes(1 << 20))
print(number + 1)
"""


@pytest.mark.parametrize(("place", "setting"), [("/dev/shm", "ISORUN_MAX_SHM_BYTES"), ("/tmp", "ISORUN_MAX_TMP_BYTES")])
def test_memory_through_a_tmpfs_ends_at_its_size(sealed, without, place, setting) -> None:
    """/dev/shm and /tmp are memory, and as large as they are said to be; the one that is full is named."""
    result = attack(sealed, FILL.format(place=place, most=1000))
    assert (ended(result), result.error.hint) == full(place, "16 MiB", setting)
    # Control: with room for it, 40 MiB fit.
    assert without(limits=ROOMY).execute(FILL.format(place=place, most=40)).stdout == "40\n"


@pytest.mark.linux
def test_empty_files_in_tmp_end_at_its_size(sealed) -> None:
    """A million empty files in /tmp end there, and are not taken for a full workspace. gVisor counts bytes alone."""
    result = attack(sealed, "for n in range(1_000_000): open(f'/tmp/{n}', 'w').close()", timeout_s=9)
    assert (ended(result), result.error.hint) == full("/tmp", "16 MiB", "ISORUN_MAX_TMP_BYTES")
    # Control: some are welcome.
    assert sealed.execute("for n in range(1000): open(f'/tmp/{n}', 'w').close()").ok


def test_every_tmpfs_full_leaves_the_program_half_of_its_memory(sealed) -> None:
    """Workspace, /tmp and /dev/shm together cannot use up what the program needs to say so."""
    code = """
for place in "/workspace/work", "/tmp", "/dev/shm":
    try:
        for number in range(1000):
            with open(f"{place}/{number}", "wb") as file: file.write(bytes(1 << 20))
    except OSError as error: print(place, error.strerror)
held = bytearray(100 << 20)
print(len(held))
"""
    result = attack(sealed, code)
    full_ = "".join(f"{place} No space left on device\n" for place in ("/workspace/work", "/tmp", "/dev/shm"))
    assert (result.status, result.stdout) == ("ok", f"{full_}{100 * MIB}\n")
    # Control: the tests above, where each of them alone ends a program.


MEMFD = """
import os
for number in range({most}):
    os.write(os.memfd_create(str(number)), bytes(1 << 20))
print(number + 1)
"""


def test_memory_through_memfd_is_held(sealed, without, ceilings) -> None:
    """Files in memory that no process maps: a cgroup counts them; where none is, none can be made."""
    most = {"no-cgroup": 250, "docker": 200}.get(ceilings, 240)  # a container's own init is within its ceiling
    result = attack(sealed, MEMFD.format(most=most) + TOUCHED.format(most=4096))
    if ceilings != "no-cgroup":
        assert (ended(result), result.stdout) == (KILLED, f"{most}\n")
    else:
        message = "the program raised PermissionError: [Errno 1] Operation not permitted"
        assert ended(result) == ("failed", "program_error", message)
    # Control: without the filter, or within the ceiling, it can make some.
    assert without("seccomp").execute(MEMFD.format(most=20)).stdout == "20\n"


SOCKETS = """
import os, socket, sys, time
full = 0
for child in range({children}):
    if os.fork() == 0:
        held = []
        try:
            while len(held) < 120:
                pair = socket.socketpair()
                held.append(pair)
                for end in pair:
                    end.setblocking(False)
                    try:
                        while True: end.send(bytes(65536))
                    except BlockingIOError: pass
        except OSError: pass
        os.write(1, b"full\\n")
        time.sleep(30)
        os._exit(0)
{wait}
"""


def test_memory_through_unread_messages_is_held(sealed, without, ceilings) -> None:
    """Full socket buffers are the kernel's memory and no process's; the run is charged for them."""
    result = attack(sealed, SOCKETS.format(children=28, wait="time.sleep(30)"), timeout_s=3)
    if ceilings != "no-cgroup":  # the kernel chooses whom to kill; then the others have room again
        killed = re.compile(r"\d+ process\(es\) of the run were killed for memory")
        assert ended(result) == KILLED or any(map(killed.fullmatch, result.notices))
    else:
        assert ended(result) == KILLED
    # Control: with room for them, two processes fill as many sockets as they may open.
    run = without(limits=ROOMY).start(SOCKETS.format(children=2, wait="time.sleep(30)"))
    said = ""
    for event in run.events():
        said += event.data.get("text", "")
        if said == "full\n" * 2:
            break
    assert run.cancel().status == "cancelled"


def test_without_a_cgroup_a_socket_buffer_cannot_be_enlarged(sealed, without, ceilings) -> None:
    """The watcher counts sockets, so their size is fixed; with a cgroup they may grow."""
    code = "import socket as s\na, b = s.socketpair()\na.setsockopt(s.SOL_SOCKET, s.SO_SNDBUF, 1 << 20)"
    assert sealed.execute(code).ok == (ceilings != "no-cgroup")
    # Control: without the filter it can.
    assert without("seccomp").execute(code).ok


CHILDREN = """
import os, time
reader, writer = os.pipe()
for _ in range({children}):
    if os.fork() == 0:
        held = bytearray(60 << 20)
        os.write(writer, b"x")
        time.sleep(30)
        os._exit(0)
for _ in range({gone}):
    os.wait()
for _ in range({full}):
    os.read(reader, 1)
print("on")
"""


def test_memory_of_many_children_is_one_sum(sealed) -> None:
    """Eight children, each under the ceiling, are above it together: some are killed, or the run is."""
    result = attack(sealed, CHILDREN.format(children=8, gone=4, full=0), timeout_s=9)
    if result.status == "ok":  # 480 MiB were asked for
        assert (result.stdout, killed_for_memory(result) >= 4) == ("on\n", True)
    else:
        assert ended(result) == KILLED
    assert programs_inside() == []
    # Control: three of them fit.
    fits = sealed.execute(CHILDREN.format(children=3, gone=0, full=3))
    assert (fits.status, fits.stdout, fits.notices) == ("ok", "on\n", ())


def killed_for_memory(result: RunResult) -> int:
    """How many processes the only notice says were killed; 0 without one."""
    found = [re.fullmatch(r"(\d+) process\(es\) of the run were killed for memory", said) for said in result.notices]
    return int(found[0][1]) if len(found) == 1 and found[0] else 0


GROWING = """
import os, time
for _ in range(20):
    if os.fork() == 0:
        held = []
        for _ in range({each}):
            held.append(bytearray(1 << 20))
            time.sleep(0.001)
        time.sleep(30)
        os._exit(0)
time.sleep(1.5)
until, gone = time.monotonic() + 5, 0
while gone < {gone} and time.monotonic() < until:  # on a busy machine they take longer to grow
    gone += os.waitpid(-1, os.WNOHANG)[0] > 0
    time.sleep(0.01)
print("on")
"""


def test_twenty_children_that_grow_together_are_held(sealed, without, ceilings) -> None:
    """Killing the largest of many does not let the others pass the ceiling by more than as much again."""
    result = attack(sealed, GROWING.format(each=40, gone=10), timeout_s=9)
    if result.status == "ok":  # 800 MiB were asked for
        assert (result.stdout, killed_for_memory(result) >= 10) == ("on\n", True)
    else:
        assert ended(result) == KILLED
    # The watcher's figure counts what the forked share once for each of them: what they start with goes off.
    shared = 0 if ceilings != "no-cgroup" else sealed.execute(GROWING.format(each=0, gone=0)).usage["max_rss_bytes"]
    assert result.usage["max_rss_bytes"] - shared < 2 * 256 * MIB
    assert programs_inside() == []
    # Control: with room for it, all of them live.
    roomy = dataclasses.replace(ROOMY, memory_bytes=1400 * MIB)
    fits = without(limits=roomy).execute(GROWING.format(each=20, gone=0))
    assert (fits.status, fits.stdout, fits.notices) == ("ok", "on\n", ())


@pytest.mark.linux
def test_the_death_of_a_child_by_memory_is_not_the_death_of_its_run(sealed, ceilings) -> None:
    """A program that survives its child's end is ok, and a notice says what happened to the child.

    Under gVisor all of the run ends, see the test of the program itself.
    """
    code = "import os\nchild = os.fork()\nif child == 0:\n    {}\nprint(os.waitpid(child, 0)[1])"
    hog = "held = []\n    while True: held.append(bytearray(8 << 20))"
    result = attack(sealed, code.format(hog), timeout_s=9)
    assert result.status == "ok"
    if ceilings == "no-cgroup" and result.stdout == "256\n":  # the child was refused, and said so itself
        assert result.stderr.endswith("MemoryError\n")
    else:
        assert (result.stdout, result.notices) == ("9\n", ("1 process(es) of the run were killed for memory",))
    # Control: a child that asks for less lives.
    assert sealed.execute(code.format("os._exit(0 * len(bytearray(8 << 20)))")).stdout == "0\n"


GRADUAL = """
import mmap, os, time
def grow(most):
    held = []
    while len(held) * 4 < most:
        held.append(mmap.mmap(-1, 4 << 20))
        held[-1].write(b"x" * (4 << 20))
        time.sleep(0.005)
"""


@pytest.mark.linux
def test_a_child_that_grows_and_grows_dies_alone(sharing) -> None:
    """Shared memory of a child, which only the run's sum bounds, ends that child: its run is ok, with a notice."""
    code = GRADUAL + "child = os.fork()\nif child == 0:\n    grow({0})\n    os._exit(0)\nprint(os.waitpid(child, 0)[1])"
    result = attack(sharing, code.format(4096), timeout_s=9)
    assert (result.status, result.stdout) == ("ok", "9\n"), result.report_text
    assert result.notices == ("1 process(es) of the run were killed for memory",)
    # Control: a child that asks for less lives.
    assert sharing.execute(code.format(100)).stdout == "0\n"


def test_a_program_that_grows_and_grows_is_out_of_memory(sharing) -> None:
    """The same in the program itself, beside a child that holds nothing, is its own end."""
    code = GRADUAL + "child = os.fork()\nif child == 0:\n    time.sleep(30)\n    os._exit(0)\ngrow({0})\nprint('on')"
    result = attack(sharing, code.format(4096), timeout_s=9)
    assert (ended(result), result.signal, result.error.hint) == (KILLED, 9, HINT)
    assert programs_inside() == []
    # Control: one that asks for less ends well.
    assert sharing.execute(code.format(100)).stdout == "on\n"


def test_no_program_turns_swap_on_or_is_swapped(sealed, ceilings) -> None:
    """swapon is refused, and swap that the host has counts as memory, so it is no room above the ceiling."""
    code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
with open("swap", "wb") as file: file.write(bytes(1 << 20))
for call in (lambda: libc.swapon(b"swap", 0), lambda: libc.swapoff(b"swap"), lambda: libc.mlockall(3)):
    print(call(), os.strerror(ctypes.get_errno()))
"""
    result = attack(sealed, code)
    lines = result.stdout.splitlines()
    assert (result.status, lines[:2]) == ("ok", ["-1 Operation not permitted"] * 2)
    assert lines[2].startswith("-1 ")  # nor may it pin what it has
    held = result.isolation["walls"]["cgroup"] or {}
    assert held.get("memory_and_swap_bytes") in (
        256 * MIB,
        None,
    )  # v1; None: swap is not counted, but never used
    assert held.get("swap_bytes") in (0, None)  # v2; None: this host has no swap
    assert bool(held) == (ceilings != "no-cgroup")
    # No control is possible: swapon needs a right over the whole machine, which no slot ever had.


def test_the_watcher_counts_what_was_swapped(tmp_path) -> None:
    """Without a cgroup, pages of a run that lie in the host's swap are part of its sum."""
    process = tmp_path / "7"
    (process / "task" / "7").mkdir(parents=True)
    (process / "status").write_text("Name:\tx\nVmSwap:\t 5 kB\nRssAnon:\t 3 kB\nRssShmem:\t 1 kB\nThreads:\t1\n")
    (process / "smaps_rollup").write_text("x\nPss_Anon:\t 2 kB\nPss_Shmem:\t 1 kB\nSwapPss:\t 4 kB\n")
    assert watcher.sample([7], tmp_path).rss_bytes == 9 << 10
    assert watcher.sample([7], tmp_path, shared_once=True).rss_bytes == 7 << 10
    # No control with real swap is possible: a test may not turn it on.


def test_the_sizes_of_all_tmpfs_are_at_most_half_of_memory() -> None:
    """Limits that would let files alone use up the memory are refused before anything starts."""
    with pytest.raises(Exception, match="more than half of memory_bytes"):
        Limits(memory_bytes=256 * MIB, workspace_bytes=128 * MIB, tmp_bytes=1 * MIB, shm_bytes=1 * MIB)
    # Control: the limits of every run of these tests are accepted.
