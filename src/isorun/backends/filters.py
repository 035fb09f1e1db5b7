"""Which system calls a program may make: the table, and the two seccomp filters made of it.

It decides and builds bytes; it must not load anything into this process
(`kernel.seccomp.load` does, inside the slot).

Two filters are stacked and the kernel takes the stricter answer of the two. One
would not do: libseccomp drops a conditional deny of a call that also has an
unconditional allow. `by_number` answers ENOSYS to all that is not named here;
`by_argument` allows all and refuses some arguments. A foreign calling
convention (32-bit, x32) is killed by both: its numbers mean other calls.

A name that the machine or its libseccomp does not know is left out of the
filter, and so gets ENOSYS.
"""

import errno
import functools
import os
from dataclasses import dataclass
from types import ModuleType
from typing import BinaryIO, Protocol

from isorun.core.errors import Unavailable

# Who needs it -> what they need.
ALLOWED: dict[str, tuple[str, ...]] = {
    "libc and ld.so: start-up of every process, its exit": (
        "execve", "exit", "exit_group", "brk", "mmap", "munmap", "mprotect", "arch_prctl", "set_tid_address",
        "set_robust_list", "rseq", "prctl",
    ),
    "malloc and mmap objects: growing, giving back, mmap.flush": ("mremap", "madvise", "msync"),
    "OpenBLAS (numpy): placing its buffers": ("mbind",),
    "open(), io, os.read and friends": (
        "open", "openat", "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev",
        "preadv2", "pwritev2", "lseek", "close", "fcntl", "dup", "dup2", "dup3", "pipe", "pipe2", "ioctl",
    ),
    "glibc creat()": ("creat",),
    "subprocess and os.closerange: closing what a child must not have": ("close_range",),
    "os.stat, pathlib, every import; the older names are older glibc's": (
        "stat", "fstat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink",
        "readlinkat", "getdents64", "getcwd",
    ),
    "os, shutil, tempfile: changing the tree": (
        "chdir", "fchdir", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat",
        "renameat2", "link", "linkat", "symlink", "symlinkat", "truncate", "ftruncate", "umask",
    ),
    "os.mkfifo; devices are refused by argument": ("mknod", "mknodat"),
    "shutil.copy2, tarfile, zipfile: modes, owners (its own only, says the kernel) and times": (
        "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utimensat",
    ),
    "shutil.copystat, os.getxattr and friends": (
        "getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr", "setxattr",
        "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr",
    ),
    "shutil.copyfile, cp": ("sendfile", "copy_file_range", "fadvise64"),
    "sqlite: durability; os.posix_fallocate": ("fsync", "fdatasync", "fallocate"),
    "fcntl.flock, lock files": ("flock",),
    "shutil.disk_usage, os.statvfs": ("statfs", "fstatfs"),
    "selectors, asyncio, subprocess.communicate": (
        "select", "pselect6", "poll", "ppoll", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait",
    ),
    "os.eventfd; native event loops": ("eventfd2",),
    "os.timerfd_create (3.13)": ("timerfd_create", "timerfd_settime", "timerfd_gettime"),
    "watchdog, tail -f": ("inotify_init", "inotify_init1", "inotify_add_watch", "inotify_rm_watch"),
    "signal: handlers, masks, waiting": (
        "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigsuspend", "rt_sigtimedwait",
        "sigaltstack", "pause", "alarm", "getitimer", "setitimer",
    ),
    "os.kill, signal.raise_signal, threads; reaches its own pid namespace only": ("kill", "tgkill"),
    "musl's raise() and pthread_kill()": ("tkill",),
    "timeout(1)": ("timer_create", "timer_settime", "timer_delete"),
    "time.sleep, time.*; the vDSO falls back to these on some clock sources": (
        "nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "time", "times",
    ),
    "the kernel itself: a sleep resumed after SIGCONT": ("restart_syscall",),
    "threading, os.fork; new namespaces are refused by argument": ("clone", "futex", "gettid", "sched_yield"),
    "subprocess (vfork); musl's fork()": ("vfork", "fork"),
    "os.execve of a descriptor": ("execveat",),
    "subprocess, os.wait*": ("wait4", "waitid"),
    "asyncio's child watcher, signal.pidfd_send_signal": ("pidfd_open", "pidfd_send_signal"),
    "os.getpid and friends; shells and subprocess(start_new_session, process_group)": (
        "getpid", "getppid", "getpgid", "getpgrp", "setpgid", "getsid", "setsid", "getuid", "geteuid",
        "getgid", "getegid", "getresuid", "getresgid", "getgroups",
    ),
    "subprocess(user=, group=), programs that drop privileges at start; only their own id is mapped": (
        "setuid", "setgid", "setreuid", "setregid",
    ),
    "os.nice, nice(1)": ("getpriority", "setpriority"),
    "os.cpu_count, os.process_cpu_count, thread pools of numpy and OpenMP": ("sched_getaffinity", "getcpu"),
    "pthread_getschedparam, os.sched_get*": (
        "sched_getparam", "sched_getscheduler", "sched_get_priority_max", "sched_get_priority_min",
    ),
    "resource; another process's limits are refused by argument where it is init": (
        "getrlimit", "setrlimit", "prlimit64", "getrusage",
    ),
    "os.sysconf, platform.uname, os.getloadavg": ("sysinfo", "uname"),
    "hash seeds, random, secrets, uuid": ("getrandom",),
    "multiprocessing (Manager, forkserver), asyncio's self-pipe; AF_UNIX alone, by argument": (
        "socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "recvfrom", "sendto",
        "recvmsg", "sendmsg", "shutdown", "getsockname", "getpeername", "getsockopt", "setsockopt",
    ),
}  # fmt: skip

# What would be gained by it -> the calls. EPERM and not ENOSYS: it exists and is refused,
# which is what container engines answer, so libraries that probe already cope with it.
REFUSED: dict[str, tuple[str, ...]] = {
    "does I/O that seccomp does not see": ("io_uring_setup", "io_uring_enter", "io_uring_register"),
    "reads or drives another process": (
        "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd",
    ),
    "keyrings are shared by all processes of a uid, other runs' too": ("keyctl", "add_key", "request_key"),
    "stops the kernel at a chosen page: the usual aid of kernel exploits": ("userfaultfd",),
    "runs code in, or measures, the kernel": ("bpf", "perf_event_open"),
    "changes mounts or the root": (
        "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "mount_setattr", "fsopen",
        "fsconfig", "fsmount", "fspick",
    ),
    "makes or enters namespaces, and with them capabilities": ("unshare", "setns"),
    "opens files by number, past every mount": ("name_to_handle_at", "open_by_handle_at"),
    "watches or meters whole filesystems": ("fanotify_init", "fanotify_mark", "quotactl", "quotactl_fd"),
    "reads the kernel's log": ("syslog",),
    "loads code into the kernel": (
        "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load",
    ),
    "memory that nothing can inspect, outside of every ceiling but memlock": ("memfd_secret",),
    "administers the machine": (
        "swapon", "swapoff", "reboot", "acct", "iopl", "ioperm", "vhangup", "sethostname", "setdomainname",
        "nfsservctl", "lookup_dcookie",
    ),
    "sets the clock": ("settimeofday", "clock_settime", "clock_adjtime", "adjtimex"),
    "turns off address randomisation, asks for old kernel behaviour": ("personality",),
    "rarely used, often broken in the kernel": ("modify_ldt",),
    "moves other processes' pages": ("move_pages", "migrate_pages"),
    "makes a listener that answers system calls in the kernel's place": ("seccomp",),
    "raises or sets credentials beyond what start-up code does": (
        "capset", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups",
    ),
}  # fmt: skip

# Allowed where a cgroup holds memory and CPU of the run, refused elsewhere.
NEEDS_CGROUP: dict[str, str] = {
    "memfd_create": "its pages count in no process once unmapped, so only a cgroup sees them",
    "sched_setaffinity": "without a cgroup the CPU ceiling is an affinity, which this would undo",
}

_LOW_32 = 0xFFFF_FFFF  # the kernel looks at 32 bits of an int; comparing 64 lets 0x1_0000_5412 pass


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuse `syscall` with `error` if its argument number `argument`, under `mask`, is `value`."""

    syscall: str
    argument: int
    mask: int
    value: int
    error: int
    why: str


def _new_namespace(bit: int, what: str) -> Deny:
    return Deny("clone", 0, bit, bit, errno.EPERM, f"a new {what} namespace")


DENIED: tuple[Deny, ...] = (
    Deny("ioctl", 1, _LOW_32, 0x5412, errno.EPERM, "TIOCSTI types into the terminal"),
    Deny("ioctl", 1, _LOW_32, 0x541C, errno.EPERM, "TIOCLINUX pastes into the console"),
    _new_namespace(0x0002_0000, "mount"),
    _new_namespace(0x0200_0000, "cgroup"),
    _new_namespace(0x0400_0000, "uts"),
    _new_namespace(0x0800_0000, "ipc"),
    _new_namespace(0x1000_0000, "user"),
    _new_namespace(0x2000_0000, "pid"),
    _new_namespace(0x4000_0000, "net"),
    # These two bits leave FIFO and regular file; they are set in every other file type.
    Deny("mknod", 1, 0x2000, 0x2000, errno.EPERM, "a character or block device, a link"),
    Deny("mknod", 1, 0x4000, 0x4000, errno.EPERM, "a block device, a directory, a socket"),
    Deny("mknodat", 2, 0x2000, 0x2000, errno.EPERM, "a character or block device, a link"),
    Deny("mknodat", 2, 0x4000, 0x4000, errno.EPERM, "a block device, a directory, a socket"),
    Deny("fcntl", 1, _LOW_32, 1024, errno.EPERM, "F_SETLEASE on a shared file is a channel between runs"),
    Deny("fcntl", 1, _LOW_32, 1026, errno.EPERM, "F_NOTIFY tells of other runs' reads"),
    Deny("prlimit64", 0, _LOW_32, 1, errno.EPERM, "init has our uid: an RLIMIT_CPU set on it kills it"),
)

# Allowed where a cgroup holds memory, refused elsewhere: the watcher counts sockets, and this bounds each.
DENIED_WITHOUT_CGROUP: tuple[Deny, ...] = (
    Deny("setsockopt", 2, _LOW_32, 7, errno.EPERM, "SO_SNDBUF: unread messages count in no process"),
    Deny("setsockopt", 2, _LOW_32, 32, errno.EPERM, "SO_SNDBUFFORCE: the same"),
)

# Compared on all 64 bits: high bits can only refuse here, never admit.
UNIX_ONLY: dict[str, str] = {
    "socket": "every other family leads out of the run or into rarely used kernel code",
    "socketpair": "the same; AF_TIPC has pairs",
}
_AF_UNIX = 1


@dataclass(frozen=True, slots=True)
class Filters:
    """Two BPF programs. Both must be loaded, in any order, after no_new_privs."""

    by_number: bytes
    by_argument: bytes


@functools.cache
def build_filters(*, cgroup: bool) -> Filters:
    """The filters of a run whose memory and CPU are held by a cgroup, or are not.

    Raises `Unavailable` where libseccomp cannot be used or the policy was not
    written for this machine's architecture.
    """
    lib = _libseccomp()
    if lib.system_arch() not in (lib.Arch.X86_64, lib.Arch.AARCH64):
        # Argument numbers differ elsewhere: on s390x clone's flags are its second.
        raise Unavailable("seccomp: the system call policy is written for x86_64 and aarch64 only")
    try:
        return Filters(by_number=_by_number(lib, cgroup=cgroup), by_argument=_by_argument(lib, cgroup=cgroup))
    except OSError as exc:
        raise Unavailable(f"seccomp: libseccomp could not build the filters: {exc.strerror}") from exc


def actions(*, cgroup: bool) -> dict[str, int]:
    """Name -> errno, 0 for allowed; a name that is not in it is answered with ENOSYS."""
    table = {name: 0 for names in ALLOWED.values() for name in names}
    table |= {name: errno.EPERM for names in REFUSED.values() for name in names}
    table |= dict.fromkeys(NEEDS_CGROUP, 0 if cgroup else errno.EPERM)
    return table


class _Program(Protocol):
    """The part of pyseccomp.SyscallFilter that is used here; the package carries no types."""

    def set_attr(self, attr: int, value: int) -> None: ...

    def add_rule_exactly(self, action: int, syscall: int, *args: object) -> None: ...

    def export_bpf(self, file: BinaryIO) -> None: ...


def _by_number(lib: ModuleType, *, cgroup: bool) -> bytes:
    program = _new(lib, default=lib.ERRNO(errno.ENOSYS))
    # A binary tree and not a list: the kernel tries a filter with every number when it is loaded,
    # once per slot, and a list takes three times as long.
    program.set_attr(lib.Attr.CTL_OPTIMIZE, 2)
    for name, error in actions(cgroup=cgroup).items():
        number = _number(lib, name)
        if number is not None:
            program.add_rule_exactly(lib.ERRNO(error) if error else lib.ALLOW, number)
    return _export(program)


def _by_argument(lib: ModuleType, *, cgroup: bool) -> bytes:
    program = _new(lib, default=lib.ALLOW)
    for deny in DENIED if cgroup else (*DENIED, *DENIED_WITHOUT_CGROUP):
        number = _number(lib, deny.syscall)
        if number is not None:
            test = lib.Arg(deny.argument, lib.MASKED_EQ, deny.mask, deny.value)
            program.add_rule_exactly(lib.ERRNO(deny.error), number, test)
    for name in UNIX_ONLY:
        number = _number(lib, name)
        if number is not None:
            program.add_rule_exactly(lib.ERRNO(errno.EAFNOSUPPORT), number, lib.Arg(0, lib.NE, _AF_UNIX))
    return _export(program)


def _libseccomp() -> ModuleType:
    try:
        import pyseccomp  # not above: it fails where libseccomp is missing, and on other systems
    except ImportError as exc:
        raise Unavailable("seccomp: the package pyseccomp is missing; pip install pyseccomp") from exc
    except (RuntimeError, OSError, AttributeError) as exc:
        # pyseccomp looks for the library when it is imported, and for each function in it.
        raise Unavailable(
            "seccomp: libseccomp 2.5 or later is missing; install libseccomp2 (Debian, Ubuntu) "
            "or libseccomp (Fedora, Arch, Alpine)"
        ) from exc
    lib: ModuleType = pyseccomp
    return lib


def _new(lib: ModuleType, *, default: int) -> _Program:
    program: _Program = lib.SyscallFilter(default)
    program.set_attr(lib.Attr.ACT_BADARCH, lib.KILL_PROCESS)  # the default kills one thread only
    return program


def _number(lib: ModuleType, name: str) -> int | None:
    """The number of a call; None if this architecture or libseccomp has none of that name."""
    number: int = lib.resolve_syscall(lib.Arch.NATIVE, name)
    return number if number >= 0 else None


def _export(program: _Program) -> bytes:
    # Memory and not a temporary file: a full disk must not look like a missing wall.
    with os.fdopen(os.memfd_create("seccomp"), "rb") as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()
