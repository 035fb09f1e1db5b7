"""backends.filters: each answer of the filter, asked of the kernel by a process that has it on."""

import contextlib
import ctypes
import errno
import fcntl
import itertools
import mmap
import multiprocessing
import os
import platform
import resource
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isorun.backends import filters
from isorun.core.errors import Unavailable
from isorun.kernel import seccomp
from sandbox_runner.linux.syscall_numbers import NUMBERS
from tests.conftest import Require
from tests.unit.forked import Killed, after, errno_of, in_child

pytestmark = pytest.mark.uid

Run = Callable[[Callable[[], object]], Any]

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
X86_64 = platform.machine() == "x86_64"
MISSING_NUMBER = 0x0FFF_FFFF


def build(require: Require, *, cgroup: bool) -> bytes:
    try:
        return filters.build_filter(cgroup=cgroup)
    except Unavailable as exc:
        require("seccomp", str(exc))


def under(built: bytes) -> Run:
    return after(lambda: seccomp.load(built))


@pytest.fixture(scope="module")
def sealed(require: Require) -> Run:
    """Does its work in a child that has the filter, with a cgroup."""
    return under(build(require, cgroup=True))


@pytest.fixture(scope="module")
def sealed_without_cgroup(require: Require) -> Run:
    return under(build(require, cgroup=False))


free = after()  # the control: the same child without the filters


def number_of(name: str) -> int:
    """The number of a call on this machine; -1 if it has none of that name."""
    return NUMBERS[platform.machine()].get(name, -1)


def raw(number: int, *arguments: int) -> int:
    """0, or the errno of a system call made by number."""
    words = [ctypes.c_ulong(argument & (2**64 - 1)) for argument in arguments]
    ctypes.set_errno(0)
    return ctypes.get_errno() if libc.syscall(ctypes.c_long(number), *words) == -1 else 0


def call(name: str, *arguments: int) -> int:
    return raw(number_of(name), *arguments)


def names(table: dict[str, tuple[str, ...]]) -> Iterator[str]:
    return itertools.chain.from_iterable(table.values())


# The table itself


def test_every_name_has_one_answer_and_a_reason() -> None:
    """No call is named twice, and none without the reason why."""
    every = [*names(filters.ALLOWED), *names(filters.REFUSED), *filters.NEEDS_CGROUP]
    assert sorted(every) == sorted(set(every))
    reasons = [
        *filters.ALLOWED,
        *filters.REFUSED,
        *filters.NEEDS_CGROUP.values(),
        *filters.UNIX_ONLY.values(),
    ]
    assert all(reason.strip() for reason in [*reasons, *(deny.why for deny in filters.DENIED)])


def test_what_is_refused_by_argument_is_allowed_by_number() -> None:
    """A refusal by argument of a call that its number refuses would be dead."""
    by_argument = {deny.syscall for deny in filters.DENIED} | set(filters.UNIX_ONLY)
    assert by_argument <= set(names(filters.ALLOWED)) | set(filters.NEEDS_CGROUP)


def test_the_kernel_has_the_names() -> None:
    """A misspelt name would be left out of the filter without a word."""
    every = {*filters.actions(cgroup=True), *names(filters.DONE_FOR_NOTHING)}
    assert every - set(NUMBERS["x86_64"]) == set()


def test_each_kind_is_built_once() -> None:
    """The bytes are cached: a pool that refills does not compile filters."""
    assert filters.build_filter(cgroup=True) is filters.build_filter(cgroup=True)


def test_another_machine_is_refused() -> None:
    """No policy for the machine: `Unavailable`, nothing weaker."""
    with pytest.raises(
        Unavailable,
        match=r"^seccomp: the system call policy is written for x86_64 and aarch64 only; run `isorun doctor`$",
    ):
        filters.build_filter(cgroup=True, machine="riscv64")


# By number


def test_every_refused_call_answers_eperm(sealed: Run) -> None:
    """Each call of REFUSED, made by its raw number, is answered with EPERM."""
    known = [name for name in names(filters.REFUSED) if number_of(name) >= 0]
    assert sealed(lambda: {name: call(name) for name in known}) == dict.fromkeys(known, errno.EPERM)


def test_without_the_filter_the_kernel_looks_at_these_calls() -> None:
    """Control: with arguments that do nothing, the kernel does not answer EPERM by itself."""
    harmless = {
        "io_uring_setup": (0, 0),
        "ptrace": (-1, -1),
        "kcmp": (-1, -1, 0, 0, 0),
        "pidfd_getfd": (-1, 0, 0),
        "keyctl": (-1,),
        "name_to_handle_at": (-1, 0, 0, 0, 0),
        "unshare": (0,),
        "setns": (-1, 0),
        "chroot": (0,),
        "personality": (0xFFFF_FFFF,),
        "seccomp": (99, 0, 0),
        "setresuid": (-1, -1, -1),
    }
    answers = free(lambda: {name: call(name, *arguments) for name, arguments in harmless.items()})
    assert [name for name, answer in answers.items() if answer in (errno.EPERM,)] == []


def test_every_number_that_is_not_named_is_enosys(sealed: Run) -> None:
    """clone3, System V and POSIX queues, splice, what the kernel will grow: all answered as if absent."""
    named = {number_of(name) for name in [*filters.actions(cgroup=True), *names(filters.DONE_FOR_NOTHING)]}
    # uretprobe and uprobe: the kernel's own trampolines, let past every filter; it kills other callers.
    unnamed = [n for n in [*range(700), MISSING_NUMBER] if n not in named | ({335, 336} if X86_64 else set())]
    assert {"clone3", "shmget", "semget", "msgget", "mq_open", "splice", "vmsplice", "tee"}.isdisjoint(
        filters.actions(cgroup=True)
    )
    answers = sealed(lambda: {n: raw(n, -1, -1, -1, -1, -1, -1) for n in unnamed})
    assert {n for n, answer in answers.items() if answer != errno.ENOSYS} == set()


def test_without_the_filter_the_unnamed_calls_exist() -> None:
    """Control: clone3 and the queues are there, so ENOSYS above is the filter's word."""
    work = lambda: [call("clone3", 0, 0), call("mq_open", 0, 0), call("tee", -1, -1, 1, 0)]  # noqa: E731 - one call, with a name
    assert free(work) == [errno.EINVAL, errno.EFAULT, errno.EBADF]


def test_memfd_and_affinity_need_a_cgroup(sealed: Run, sealed_without_cgroup: Run) -> None:
    """Where the ceilings are not a cgroup's, the two ways around them are refused."""

    def work() -> list[int]:
        return [
            errno_of(lambda: os.close(os.memfd_create("x"))),
            errno_of(lambda: os.sched_setaffinity(0, os.sched_getaffinity(0))),
        ]

    assert sealed(work) == [0, 0]
    assert sealed_without_cgroup(work) == [errno.EPERM, errno.EPERM]


# By argument


@pytest.mark.parametrize("request_", [0x5412, 0x1_0000_5412, 0x541C, 0xFFFF_FFFF_0000_541C])
def test_typing_into_a_terminal_is_refused(request_: int, sealed: Run) -> None:
    """TIOCSTI and TIOCLINUX are EPERM whatever the upper half says, which the kernel ignores."""
    work = lambda: call("ioctl", -1, request_, 0)  # noqa: E731 - one call, with a name
    assert sealed(work) == errno.EPERM
    assert free(work) == errno.EBADF


def test_other_ioctls_reach_the_kernel(sealed: Run) -> None:
    """FIONBIO, FIONREAD and TCGETS are not touched."""
    work = lambda: [call("ioctl", -1, number, 0) for number in (0x5421, 0x541B, 0x5401)]  # noqa: E731 - one call, with a name
    assert sealed(work) == [errno.EBADF] * 3


@pytest.mark.parametrize("family", [0x8900, 0x8B00])
def test_no_ioctl_asks_a_socket_about_its_network(family: int, sealed: Run) -> None:
    """Both families are ENOTTY, with a size or high bits in front too; without the filter the kernel answers."""
    numbers = [head | family | low for head in (0, 0x8010_0000, 0xC020_0000, 1 << 32) for low in range(256)]
    assert sealed(lambda: sorted({call("ioctl", 0, number, 0) for number in numbers})) == [errno.ENOTTY]
    assert sealed(lambda: [call("ioctl", -1, number, 0) for number in (0x8800, 0x8A00, 0x8C00)]) == [errno.EBADF] * 3

    def interfaces() -> int:
        with socket.socketpair()[0] as ours:
            return call("ioctl", ours.fileno(), 0x8912, ctypes.addressof(ctypes.create_string_buffer(16)))

    assert (free(interfaces), sealed(interfaces)) == (0, errno.ENOTTY)


@pytest.mark.parametrize("name", ["socket", "socketpair"])
def test_only_unix_sockets_exist(name: str, sealed: Run) -> None:
    """Every other family is EAFNOSUPPORT, also with the upper half set, which the kernel ignores."""
    families = [n for n in range(64) if n != socket.AF_UNIX]
    others = [*families, -1, 2**31, *(1 << 32 | n for n in families)]
    pair = (ctypes.c_int * 2)()
    type_, room = socket.SOCK_STREAM, ctypes.addressof(pair)

    def work() -> list[int]:
        return sorted({call(name, family, type_, 0, room) for family in others})

    assert sealed(work) == [errno.EAFNOSUPPORT]
    assert sealed(lambda: call(name, socket.AF_UNIX, type_, 0, room)) == 0
    assert free(lambda: call("socket", socket.AF_INET, type_, 0)) == 0
    assert free(lambda: call("socket", 1 << 32 | socket.AF_INET, type_, 0)) == 0


NEW_USER = 0x1000_0000
NEW = {0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, NEW_USER, 0x2000_0000, 0x4000_0000}


def cloned(flags: int) -> int:
    """0 if clone(2) made a child (which ends at once), else its errno."""
    ctypes.set_errno(0)
    pid = libc.syscall(ctypes.c_long(number_of("clone")), ctypes.c_ulong(flags | signal.SIGCHLD), 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    if pid > 0:
        os.waitpid(pid, 0)
    return ctypes.get_errno() if pid == -1 else 0


def test_clone_makes_no_namespace(sealed: Run, require: Require) -> None:
    """Each CLONE_NEW bit, alone and with the others, is EPERM; a plain clone works."""
    if free(lambda: cloned(NEW_USER)) != 0:
        require("namespace", "user namespaces are off, so the control cannot be shown")
    assert sealed(lambda: {hex(bit): cloned(bit) for bit in NEW}) == {hex(bit): errno.EPERM for bit in NEW}
    assert sealed(lambda: cloned(sum(NEW))) == errno.EPERM
    assert sealed(lambda: cloned(0)) == 0
    assert free(lambda: [cloned(bit | NEW_USER) for bit in NEW]) == [0] * len(NEW)


def test_the_table_names_every_namespace_bit_of_clone() -> None:
    """CLONE_NEWTIME is not among them: clone(2) reads that bit as a part of the exit signal."""
    assert {deny.mask for deny in filters.DENIED if deny.syscall == "clone"} == NEW | {PARENT, FILES | THREAD}


PARENT = 0x8000
FILES, THREAD = 0x400, 0x1_0000


def test_descriptors_are_shared_by_threads_alone(sealed: Run) -> None:
    """CLONE_FILES without CLONE_THREAD is EPERM; both together reach the kernel, which wants more of a thread."""
    assert sealed(lambda: [cloned(FILES), cloned(FILES | 1 << 32), cloned(0)]) == [errno.EPERM, errno.EPERM, 0]
    assert sealed(lambda: cloned(FILES | THREAD)) == errno.EINVAL
    assert free(lambda: cloned(FILES)) == 0


def test_no_thread_has_descriptors_of_its_own(sealed: Run) -> None:
    """A thread neither begins nor goes on with a table of its own, which nobody counts: EPERM. Closing works."""
    assert sealed(lambda: [cloned(THREAD), cloned(THREAD | 1 << 32)]) == [errno.EPERM] * 2
    work = lambda: [call("close_range", 900, 901, flags) for flags in (0, 4, 2, 6, 1 << 32 | 2)]  # noqa: E731 - one call, with a name
    assert sealed(work) == [0, 0, errno.EPERM, errno.EPERM, errno.EPERM]
    assert free(lambda: cloned(THREAD)) == errno.EINVAL
    assert free(work) == [0] * 5


CLONE_BITS = [1 << bit for bit in range(8, 63)]


def test_no_flag_of_clone_makes_a_child_of_somebody_else(sealed: Run) -> None:
    """CLONE_PARENT is EPERM alone and beside every other bit; without the filter the child is our parent's."""

    def parents(*flags: int) -> int | str:
        """Whose the child is (0: ours, 1: somebody else's), or why there is none."""
        reader, writer = os.pipe()
        pid = libc.syscall(ctypes.c_long(number_of("clone")), ctypes.c_ulong(sum(flags) | signal.SIGCHLD), 0, 0, 0, 0)
        if pid == 0:
            os.write(writer, os.getppid().to_bytes(4, "little"))
            os._exit(0)
        if pid == -1:
            return errno.errorcode[ctypes.get_errno()]
        return int(os.read(reader, 4) != os.getpid().to_bytes(4, "little"))

    assert sealed(lambda: [parents(PARENT), parents(1 << 32, PARENT), parents()]) == ["EPERM", "EPERM", 0]
    assert free(lambda: [parents(PARENT), parents()]) == [1, 0]
    with_others = sealed(lambda: sorted({parents(PARENT, bit) for bit in CLONE_BITS if bit != PARENT}))
    assert with_others == ["EPERM"]
    os.waitpid(-1, 0)  # the control's child is ours


def test_no_device_is_made(sealed: Run, tmp_path: Path) -> None:
    """FIFOs and files may be made by mknod; devices (also a whiteout, 0:0), sockets and the rest may not."""
    kinds = {
        "fifo": stat.S_IFIFO, "file": stat.S_IFREG, "zero": 0, "chr": stat.S_IFCHR, "blk": stat.S_IFBLK,
        "sock": stat.S_IFSOCK, "lnk": stat.S_IFLNK, "dir": stat.S_IFDIR,
    }  # fmt: skip

    def make(where: str, kind: str) -> int:
        return errno_of(lambda: os.mknod(tmp_path / f"{where}-{kind}", kinds[kind] | 0o600, 0))

    def made(where: str) -> dict[str, int]:
        return {kind: make(where, kind) for kind in kinds}

    refused = dict.fromkeys(("chr", "blk", "sock", "lnk", "dir"), errno.EPERM)
    assert sealed(lambda: made("sealed")) == {"fifo": 0, "file": 0, "zero": 0, **refused}
    control = free(lambda: made("free"))
    assert (control["chr"], control["sock"]) == (0, 0)
    if number_of("mknod") >= 0:
        path = ctypes.create_string_buffer(os.fsencode(tmp_path / "old"))
        assert sealed(lambda: call("mknod", ctypes.addressof(path), stat.S_IFCHR, 0)) == errno.EPERM
        assert sealed(lambda: call("mknod", ctypes.addressof(path), stat.S_IFIFO, 0)) == 0


def test_the_limits_of_init_are_out_of_reach(sealed: Run) -> None:
    """prlimit64 on pid 1 is EPERM; on itself, by 0 and by its own pid, it works."""
    old = (ctypes.c_uint64 * 2)()
    nofile, room = 7, ctypes.addressof(old)

    def work() -> list[int]:
        return [call("prlimit64", pid, nofile, 0, room) for pid in (1, 1 << 32 | 1, 0, os.getpid())]

    assert sealed(work) == [errno.EPERM, errno.EPERM, 0, 0]
    if os.geteuid() == 0:  # elsewhere the kernel refuses too: this pid 1 is another user's
        assert free(work) == [0, 0, 0, 0]


RLIMIT_CORE = 4
PAGE = mmap.PAGESIZE


def test_the_limit_of_core_dumps_cannot_be_changed(sealed: Run) -> None:
    """By no call and for no process: each is answered with success, and the limit stays; the others can be set."""
    held, zero = (ctypes.c_uint64 * 2)(), (ctypes.c_uint64 * 2)()

    def left(*change: int | str) -> tuple[int, list[int]]:
        answer = call(str(change[0]), *map(int, change[1:]), ctypes.addressof(zero), 0)
        call("prlimit64", 0, RLIMIT_CORE, 0, ctypes.addressof(held))
        return answer, list(held)

    def work() -> list[tuple[int, list[int]]]:
        by_pid = [left("prlimit64", pid, which) for pid in (0, os.getpid()) for which in (4, 1 << 32 | 4)]
        return [*by_pid, left("setrlimit", RLIMIT_CORE), left("setrlimit", 1 << 32 | RLIMIT_CORE)]

    now = list(resource.getrlimit(resource.RLIMIT_CORE))
    same = [0, [word & 2**64 - 1 for word in now]]
    assert [list(one) for one in sealed(work)] == [same] * 6
    assert [list(one) for one in free(work)] == [[0, [0, 0]]] * 6
    # A pointer whose lower half is 0 is one, too: EFAULT would be the kernel's answer.
    assert sealed(lambda: call("prlimit64", 0, RLIMIT_CORE, 1 << 40, 0)) == 0
    room = ctypes.addressof(held)
    assert sealed(lambda: call("prlimit64", 0, 7, 0, room) or call("prlimit64", 0, 7, room, 0)) == 0


SHARED = mmap.mmap(-1, PAGE)  # kept, so that its address stays its own


def _shared_page() -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(SHARED))


def test_no_policy_of_placement_is_left_with_memory(sealed: Run) -> None:
    """mbind and set_mempolicy are EPERM; without the filter the kernel keeps what it is told."""
    node = ctypes.c_ulong(1)

    def work() -> list[int]:
        at = ctypes.addressof(node)
        return [call("mbind", _shared_page(), PAGE, 1, at, 64, 0), call("set_mempolicy", 1, at, 64)]

    assert (sealed(work), free(work)) == ([errno.EPERM] * 2, [0, 0])


@pytest.mark.parametrize("option", [26, 50, 51, 52])
def test_no_socket_gets_a_filter(option: int, sealed: Run) -> None:
    """Of no kind, whatever the upper half of the option; other options work."""
    program = ctypes.create_string_buffer(bytes.fromhex("06000000ffffffff"))
    given = ctypes.create_string_buffer((1).to_bytes(8, "little") + ctypes.addressof(program).to_bytes(8, "little"))

    def attach(number: int) -> int:
        with socket.socketpair()[0] as ours:
            return call("setsockopt", ours.fileno(), socket.SOL_SOCKET, number, ctypes.addressof(given), 16)

    assert sealed(lambda: [attach(option), attach(1 << 32 | option)]) == [errno.EPERM] * 2
    assert free(lambda: attach(option)) != errno.EPERM
    assert free(lambda: attach(26)) == 0
    assert sealed(lambda: attach(socket.SO_PASSCRED)) == 0


def test_prctl_adds_no_filter_and_shares_no_pages(sealed: Run) -> None:
    """PR_SET_SECCOMP and PR_SET_MEMORY_MERGE are EPERM; a name can still be set."""
    program = ctypes.create_string_buffer(bytes.fromhex("060000000000ff7f"))
    given = ctypes.create_string_buffer((1).to_bytes(8, "little") + ctypes.addressof(program).to_bytes(8, "little"))
    work = lambda: [call("prctl", 22, 2, ctypes.addressof(given)), call("prctl", 67, 1, 0, 0, 0)]  # noqa: E731 - one call, with a name
    assert sealed(work) == [errno.EPERM] * 2
    assert free(lambda: call("prctl", 38, 1, 0, 0, 0) or call("prctl", 22, 2, ctypes.addressof(given))) == 0
    assert sealed(lambda: call("prctl", 15, ctypes.addressof(program))) == 0


def test_open_file_locks_are_not_there(sealed: Run, tmp_path: Path) -> None:
    """F_OFD_* are EINVAL, as on a kernel without them; a process's own locks and flock work."""

    def work() -> list[int]:
        lock = struct.pack("hhqqixxxx", fcntl.F_WRLCK, 0, 0, 1, 0)
        with (tmp_path / "locked").open("w") as file:
            found = [errno_of(lambda n=n: fcntl.fcntl(file, n, lock)) for n in (36, 37, 38)]
            fcntl.lockf(file, fcntl.LOCK_EX, 1, 10)
            fcntl.flock(file, fcntl.LOCK_EX)
            return found

    assert (sealed(work), free(work)) == ([errno.EINVAL] * 3, [0, 0, 0])


def test_no_hint_stays_with_a_file(sealed: Run, tmp_path: Path) -> None:
    """F_SET_RW_HINT outlives the run with the file; without the filter the owner sets it and reads it back."""

    def work() -> int:
        hint = ctypes.c_uint64(3)
        with (tmp_path / "hinted").open("w") as file:
            return call("fcntl", file.fileno(), 1036, ctypes.addressof(hint))

    assert (sealed(work), free(work)) == (errno.EPERM, 0)
    assert sealed(lambda: call("fcntl", -1, 1038, 0)) == errno.EPERM


def test_huge_pages_of_the_host_are_not_to_be_had(sealed: Run) -> None:
    """MAP_HUGETLB with and without a size, and MFD_HUGETLB, never reach the kernel."""
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    name = ctypes.create_string_buffer(b"x")

    def work() -> list[int]:
        sizes = (0, 21 << 26, 30 << 26)
        mapped = [call("mmap", 0, 2 << 20, 3, private | 0x40000 | size, -1, 0) for size in sizes]
        return [*mapped, call("memfd_create", ctypes.addressof(name), 4)]

    assert set(sealed(work)) == {errno.EPERM}
    assert errno.EPERM not in free(work)
    assert sealed(lambda: call("mmap", 0, 2 << 20, 3, private, -1, 0)) == 0


def test_shared_memory_without_a_file_needs_a_cgroup(sealed: Run, sealed_without_cgroup: Run) -> None:
    """MAP_SHARED with MAP_ANONYMOUS, whatever else is asked for with them; private memory is there for all."""
    shared = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
    others = (0, 0x8000, 0x4000, 0x2_0000, 1 << 32)  # MAP_POPULATE, MAP_NORESERVE, MAP_STACK; a bit without a meaning
    work = lambda: [call("mmap", 0, PAGE, 3, shared | other, -1, 0) for other in others]  # noqa: E731 - one call, with a name
    assert sealed_without_cgroup(work) == [errno.EPERM] * len(others)
    assert (sealed(work), free(work)) == ([0] * len(others), [0] * len(others))
    private = lambda: call("mmap", 0, PAGE, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)  # noqa: E731 - one call, with a name
    assert sealed_without_cgroup(private) == 0
    # The other words for shared memory are for files: the kernel itself takes none of them here.
    assert free(lambda: [call("mmap", 0, PAGE, 3, n | mmap.MAP_ANONYMOUS, -1, 0) for n in (0, 3)]) == [errno.EINVAL] * 2


def test_what_flushes_or_evicts_a_shared_file_is_not_done(sealed: Run, tmp_path: Path) -> None:
    """fsync and its like answer success and flush nothing; advice that would empty a neighbour's cache is not taken.

    That nothing is done is seen where the kernel would refuse: on descriptors that it would not take.
    """
    work = lambda: [call("fsync", -1), call("fdatasync", -1), call("fadvise64", -1, 0, 0, 4)]  # noqa: E731 - one call, with a name
    assert (sealed(work), free(work)) == ([0, 0, 0], [errno.EBADF] * 3)
    synced = lambda: call("msync", 1 << 46, PAGE, 4)  # noqa: E731 - one call, with a name
    assert (sealed(synced), free(synced)) == (0, errno.ENOMEM)
    advised = lambda: [call("madvise", _shared_page(), PAGE, how) for how in (12, 20, 21)]  # noqa: E731 - one call, with a name
    assert (sealed(advised), free(advised)) == ([errno.EINVAL] * 3, [0, 0, 0])
    assert sealed(lambda: call("fadvise64", -1, 0, 0, 2)) == errno.EBADF, "other advice reaches the kernel"


# Foreign calling conventions

if X86_64:

    def test_x32_is_killed(sealed: Run) -> None:
        """getpid by its x32 number ends the process, although getpid is allowed."""
        x32 = 0x4000_0000
        with pytest.raises(Killed) as caught:
            sealed(lambda: raw(x32 | 39))
        assert caught.value.signal == signal.SIGSYS
        assert free(lambda: raw(x32 | 39)) in (0, errno.ENOSYS)
        assert sealed(lambda: raw(39)) == 0

    def int80(number: int) -> int:
        """A 32-bit system call without arguments, from 64-bit code."""
        code = b"\xb8" + number.to_bytes(4, "little") + b"\xcd\x80\xc3"  # mov eax, number; int 0x80; ret
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=private, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()

    def test_32_bit_entry_is_killed(sealed: Run) -> None:
        """getpid by int 0x80 (20 there) ends the process: 20 means writev in the table that was filtered."""
        with pytest.raises(Killed) as caught:
            sealed(lambda: int80(20))
        assert caught.value.signal == signal.SIGSYS
        with contextlib.suppress(Killed):  # the control: a kernel without 32-bit entry has nothing to refuse
            ours, theirs = free(lambda: [os.getpid(), int80(20)])
            assert ours == theirs


# What must work


def in_thread() -> str:
    got: list[str] = []
    thread = threading.Thread(target=lambda: got.append("thread"))
    thread.start()
    thread.join()
    return got[0]


def in_pool() -> list[int]:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, 2, -3])


def in_unix_socket() -> str:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"pair")
        return theirs.recv(4).decode()


def in_database(directory: Path) -> list[list[int]]:
    with sqlite3.connect(directory / "x.db") as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table t(n)")
        database.execute("insert into t values (7)")
        return [list(row) for row in database.execute("select n from t")]


def test_programs_work(sealed_without_cgroup: Run, tmp_path: Path) -> None:
    """Threads, fork, subprocess, a shell, a pool, sqlite and Unix sockets do what they do without filters."""

    def work_in(directory: Path) -> Callable[[], object]:
        directory.mkdir()
        return lambda: [
            in_thread(),
            in_child(lambda: "forked"),
            subprocess.run([sys.executable, "-c", "print(6*7)"], capture_output=True, text=True).stdout,
            subprocess.run("echo $((1+1)) | cat", shell=True, capture_output=True, text=True).stdout,
            in_pool(),
            in_unix_socket(),
            in_database(directory),
        ]

    expected = ["thread", "forked", "42\n", "2\n", [1, 2, 3], "pair", [[7]]]
    assert sealed_without_cgroup(work_in(tmp_path / "sealed")) == expected
    assert free(work_in(tmp_path / "free")) == expected


XATTRS = ("setxattr", "lsetxattr", "fsetxattr")


@pytest.mark.parametrize("name", XATTRS)
def test_no_large_attribute_is_set(name: str, sealed: Run, sealed_without_cgroup: Run) -> None:
    """A value above 511 bytes is ENOTSUP, whichever bit makes it so; a smaller one reaches the kernel."""
    text = ctypes.create_string_buffer(b"/nowhere/x\0")
    file = 0xFFFF if name == "fsetxattr" else ctypes.addressof(text)
    sizes = [512, 513, *(1 << bit for bit in range(9, 64)), 2**64 - 1, 1 << 32 | 8]
    work = lambda size: call(name, file, ctypes.addressof(text), ctypes.addressof(text), size, 0)  # noqa: E731 - one call, with a name
    for run in (sealed, sealed_without_cgroup):
        assert run(lambda: sorted({work(size) for size in sizes})) == [errno.ENOTSUP]
        assert run(lambda: errno.ENOTSUP in {work(size) for size in (0, 1, 8, 511)}) is False
    assert free(lambda: errno.ENOTSUP in {work(size) for size in (512, 65536)}) is False


@pytest.mark.parametrize("option", [78, 78 | 1 << 32, 0x53564D41, 0x1_5356_4D41])
def test_no_table_and_no_name_of_a_mapping_is_made(option: int, sealed: Run) -> None:
    """PR_FUTEX_HASH and PR_SET_VMA are EINVAL, as where the kernel has them not; their neighbours are asked."""
    assert sealed(lambda: call("prctl", option, 2, 0, 0, 0)) == errno.EINVAL
    assert sealed(lambda: [call("prctl", 3, 0, 0, 0, 0), call("prctl", 39, 0, 0, 0, 0)]) == [0, 0]
    if option & _LOW == 78:  # the control: how large the table is; came with Linux 6.16
        newest = tuple(map(int, platform.release().split(".")[:2])) >= (6, 16)
        assert (free(lambda: call("prctl", option, 2, 0, 0, 0)) == 0) is newest


_LOW = 0xFFFF_FFFF
