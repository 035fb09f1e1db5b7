"""backends.filters: each answer of the two filters, asked of the kernel by a process that has them on."""

import contextlib
import ctypes
import errno
import itertools
import mmap
import multiprocessing
import os
import platform
import signal
import socket
import sqlite3
import stat
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
from tests.conftest import Require
from tests.unit.forked import Killed, after, errno_of, in_child

Run = Callable[[Callable[[], object]], Any]

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
X86_64 = platform.machine() == "x86_64"
MISSING_NUMBER = 0x0FFF_FFFF


def build(require: Require, *, cgroup: bool) -> filters.Filters:
    try:
        return filters.build_filters(cgroup=cgroup)
    except Unavailable as exc:
        require("seccomp", str(exc))


def under(built: filters.Filters) -> Run:
    return after(lambda: seccomp.load(built.by_number), lambda: seccomp.load(built.by_argument))


@pytest.fixture(scope="module")
def sealed(require: Require) -> Run:
    """Does its work in a child that has both filters, with a cgroup."""
    return under(build(require, cgroup=True))


@pytest.fixture(scope="module")
def sealed_without_cgroup(require: Require) -> Run:
    return under(build(require, cgroup=False))


free = after()  # the control: the same child without the filters


def number_of(name: str) -> int:
    import pyseccomp

    return pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)


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
    """A rule of the second filter for a call that the first refuses would be dead."""
    by_argument = {deny.syscall for deny in filters.DENIED} | set(filters.UNIX_ONLY)
    assert by_argument <= set(names(filters.ALLOWED))


def test_libseccomp_knows_the_names(require: Require) -> None:
    """A misspelt name would be left out of the filter without a word."""
    build(require, cgroup=True)
    unknown = {name for name in filters.actions(cgroup=True) if number_of(name) == -1}
    assert unknown <= {"fchmodat2"}  # came with Linux 6.6


def test_each_kind_is_built_once() -> None:
    """The bytes are cached: a pool that refills does not compile filters."""
    assert filters.build_filters(cgroup=True) is filters.build_filters(cgroup=True)


@pytest.mark.parametrize(
    ("stub", "message"),
    [
        (None, "seccomp: the package pyseccomp is missing; pip install pyseccomp"),
        (
            "raise RuntimeError('Unable to find libseccomp')",
            "seccomp: libseccomp 2.5 or later is missing; install libseccomp2 (Debian, Ubuntu) "
            "or libseccomp (Fedora, Arch, Alpine)",
        ),
        (
            "class Arch: X86_64 = 1; AARCH64 = 2\ndef system_arch(): return 3",
            "seccomp: the system call policy is written for x86_64 and aarch64 only",
        ),
    ],
)
def test_without_libseccomp_it_refuses_and_says_what_to_install(stub: str | None, message: str, tmp_path: Path) -> None:
    """No library, no package, no policy for the machine: `Unavailable` with a remedy, nothing weaker."""
    if stub is not None:
        (tmp_path / "pyseccomp.py").write_text(stub)
    source = Path(filters.__file__).parents[2]
    program = (
        f"import sys; sys.path[:0] = [{str(source)!r}, {str(tmp_path)!r}]\n"
        "from isorun.backends.filters import build_filters\n"
        "from isorun.core.errors import Unavailable\n"
        "try: build_filters(cgroup=True)\n"
        "except Unavailable as exc: print(exc)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == message


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
    named = {number_of(name) for name in filters.actions(cgroup=True)}
    # uretprobe and uprobe: the kernel's own trampolines, let past every filter; it kills other callers.
    unnamed = [n for n in [*range(700), MISSING_NUMBER] if n not in named | ({335, 336} if X86_64 else set())]
    assert {"clone3", "shmget", "semget", "msgget", "mq_open", "splice", "vmsplice", "tee"}.isdisjoint(
        filters.actions(cgroup=True)
    )
    answers = sealed(lambda: {n: raw(n, -1, -1, -1, -1, -1, -1) for n in unnamed})
    assert {n for n, answer in answers.items() if answer != errno.ENOSYS} == set()


def test_without_the_filter_the_unnamed_calls_exist() -> None:
    """Control: clone3 and the queues are there, so ENOSYS above is the filter's word."""
    work = lambda: [call("clone3", 0, 0), call("mq_open", 0, 0), call("tee", -1, -1, 1, 0)]  # noqa: E731
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
    work = lambda: call("ioctl", -1, request_, 0)  # noqa: E731
    assert sealed(work) == errno.EPERM
    assert free(work) == errno.EBADF


def test_other_ioctls_reach_the_kernel(sealed: Run) -> None:
    """FIONBIO, FIONREAD and TCGETS are not touched."""
    work = lambda: [call("ioctl", -1, number, 0) for number in (0x5421, 0x541B, 0x5401)]  # noqa: E731
    assert sealed(work) == [errno.EBADF] * 3


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
    assert {deny.mask for deny in filters.DENIED if deny.syscall == "clone"} == NEW


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
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
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
