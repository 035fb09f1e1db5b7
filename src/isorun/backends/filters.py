"""Which system calls a program may make: the tables, and the seccomp filter made of them.

It decides and builds bytes; it must not load anything into this process
(`kernel.seccomp.load` does, inside the slot). `sandbox_runner.linux.bpf` compiles.

A call that is not named here is answered with ENOSYS; of the named ones some are
refused, and some of the others by their arguments. A foreign calling convention
(32-bit, x32) is killed: its numbers mean other calls. A name that the machine does not
have is left out of the filter.
"""

import errno
import functools
import os
from dataclasses import dataclass

from isorun.backends import loopback as of_loopback
from isorun.core.errors import Unavailable
from sandbox_runner.linux import bpf
from sandbox_runner.linux.syscall_numbers import NUMBERS

# Who needs it -> what they need.
ALLOWED: dict[str, tuple[str, ...]] = {
    "libc and ld.so: start-up of every process, its exit": (
        "execve", "exit", "exit_group", "brk", "mmap", "munmap", "mprotect", "arch_prctl", "set_tid_address",
        "set_robust_list", "rseq", "prctl",
    ),
    "malloc and mmap objects: growing, giving back, mmap.flush": ("mremap", "madvise", "msync"),
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
    "os.posix_fallocate": ("fallocate",),
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
    "its policies stay with the memory of a file, in memory that no ceiling counts; OpenBLAS does without": (
        "mbind", "set_mempolicy", "set_mempolicy_home_node",
    ),
    "makes a listener that answers system calls in the kernel's place": ("seccomp",),
    "raises or sets credentials beyond what start-up code does": (
        "capset", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups",
    ),
}  # fmt: skip

# Answered with success, and not done. What a program may write lies in memory or is gone with its slot, while a file of
# the jail that it only reads lies on a disk: each call would have the host's disk flush what others wrote.
DONE_FOR_NOTHING: dict[str, tuple[str, ...]] = {"sqlite: durability": ("fsync", "fdatasync")}

# Allowed where a cgroup holds memory and CPU of the run, refused elsewhere.
NEEDS_CGROUP: dict[str, str] = {
    "memfd_create": "its pages count in no process once unmapped, so only a cgroup sees them",
    "sched_setaffinity": "without a cgroup the CPU ceiling is an affinity, which this would undo",
}

_LOW_32 = 0xFFFF_FFFF  # the kernel looks at 32 bits of an int; comparing 64 lets 0x1_0000_5412 pass


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuse `syscall` with `error` if its argument number `argument`, under `mask`, is `value`.

    `error` 0 answers success, without doing it. With `given` that argument must not be NULL, too.
    With `or_above` all values from `value` on are refused, compared on all 64 bits: the mask has no say.
    """

    syscall: str
    argument: int
    mask: int
    value: int
    error: int
    why: str
    given: int | None = None
    or_above: bool = False


_PR_SET_VMA = 0x53564D41
_MOST_XATTR = 511  # bytes of a value
_OFD = (36, 37, 38)  # F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW
_RLIMIT_CORE = 4
_SOCKET_FILTERS = (26, 50, 51, 52)  # SO_ATTACH_FILTER, _BPF, _REUSEPORT_CBPF, _REUSEPORT_EBPF


def _new_namespace(bit: int, what: str) -> Deny:
    return Deny("clone", 0, bit, bit, errno.EPERM, f"a new {what} namespace")


DENIED: tuple[Deny, ...] = (
    Deny("ioctl", 1, _LOW_32, 0x5412, errno.EPERM, "TIOCSTI types into the terminal"),
    Deny("ioctl", 1, _LOW_32, 0x541C, errno.EPERM, "TIOCLINUX pastes into the console"),
    # The whole of both families, by their byte: also those that carry a size. ENOTTY is what a pipe would answer.
    Deny("ioctl", 1, 0xFF00, 0x8900, errno.ENOTTY, "a socket's ioctls name its network's interfaces and addresses"),
    Deny("ioctl", 1, 0xFF00, 0x8B00, errno.ENOTTY, "the same of wireless interfaces"),
    _new_namespace(0x0002_0000, "mount"),
    _new_namespace(0x0200_0000, "cgroup"),
    _new_namespace(0x0400_0000, "uts"),
    _new_namespace(0x0800_0000, "ipc"),
    _new_namespace(0x1000_0000, "user"),
    _new_namespace(0x2000_0000, "pid"),
    _new_namespace(0x4000_0000, "net"),
    # The child would be the zygote's: a zombie of a parent outside keeps the run's pid namespace from ending.
    Deny("clone", 0, 0x8000, 0x8000, errno.EPERM, "CLONE_PARENT gives the child to our parent, outside of the run"),
    # A process that shares the descriptors of another leaves it its file locks, under a pid that is nobody's any more.
    # A thread (CLONE_THREAD) has the pid of its process.
    Deny("clone", 0, 0x1_0400, 0x400, errno.EPERM, "CLONE_FILES without CLONE_THREAD hides whose file locks are"),
    # Open files are bounded and counted for each process, by the table of its first thread.
    Deny("clone", 0, 0x1_0400, 0x1_0000, errno.EPERM, "CLONE_THREAD without CLONE_FILES has descriptors of its own"),
    Deny("close_range", 2, 2, 2, errno.EPERM, "CLOSE_RANGE_UNSHARE: the same, of a thread that is there"),
    # These two bits leave FIFO and regular file; they are set in every other file type.
    Deny("mknod", 1, 0x2000, 0x2000, errno.EPERM, "a character or block device, a link"),
    Deny("mknod", 1, 0x4000, 0x4000, errno.EPERM, "a block device, a directory, a socket"),
    Deny("mknodat", 2, 0x2000, 0x2000, errno.EPERM, "a character or block device, a link"),
    Deny("mknodat", 2, 0x4000, 0x4000, errno.EPERM, "a block device, a directory, a socket"),
    Deny("fcntl", 1, _LOW_32, 1024, errno.EPERM, "F_SETLEASE on a shared file is a channel between runs"),
    Deny("fcntl", 1, _LOW_32, 1026, errno.EPERM, "F_NOTIFY tells of other runs' reads"),
    # EINVAL is what a kernel without it says, so a library that asks for it takes the other kind.
    *(Deny("fcntl", 1, _LOW_32, n, errno.EINVAL, "F_OFD_* locks show no owner to a count of locks") for n in _OFD),
    # As the owner of a file a user may set it through a read-only mount, and the next run reads it there.
    Deny("fcntl", 1, _LOW_32, 1036, errno.EPERM, "F_SET_RW_HINT stays with the file for later runs"),
    Deny("fcntl", 1, _LOW_32, 1038, errno.EPERM, "F_SET_FILE_RW_HINT: the same, of an open file"),
    Deny("prlimit64", 0, _LOW_32, 1, errno.EPERM, "init has our uid: an RLIMIT_CPU set on it kills it"),
    # At any value but 1 the kernel hands a dump to the pipe of core_pattern, to be read by root. Success, because who
    # sets 0 wants no dump, and gets none.
    Deny("prlimit64", 1, _LOW_32, _RLIMIT_CORE, 0, "RLIMIT_CORE must stay 1", given=2),
    Deny("setrlimit", 0, _LOW_32, _RLIMIT_CORE, 0, "RLIMIT_CORE must stay 1"),
    *(
        Deny(
            "setsockopt",
            2,
            _LOW_32,
            n,
            errno.EPERM,
            "a socket's filter is memory that no ceiling counts, and JIT space "
            "of which the machine has so much; without it nobody can load a filter",
        )
        for n in _SOCKET_FILTERS
    ),
    Deny("prctl", 0, _LOW_32, 22, errno.EPERM, "PR_SET_SECCOMP: filters are kept in the same space"),
    # EINVAL is what kernels without them say.
    Deny("prctl", 0, _LOW_32, 78, errno.EINVAL, "PR_FUTEX_HASH: one call makes a table of up to 2 GiB of no process's"),
    Deny("prctl", 0, _LOW_32, _PR_SET_VMA, errno.EINVAL, "names of mappings: memory that no ceiling counts"),
    Deny("prctl", 0, _LOW_32, 67, errno.EPERM, "PR_SET_MEMORY_MERGE tells which pages another run has, too"),
    Deny("madvise", 2, _LOW_32, 12, errno.EINVAL, "MADV_MERGEABLE: the same"),
    Deny("madvise", 2, _LOW_32, 20, errno.EINVAL, "MADV_COLD of shown files takes them from the neighbours' cache"),
    Deny("madvise", 2, _LOW_32, 21, errno.EINVAL, "MADV_PAGEOUT: the same, at once"),
    Deny("fadvise64", 3, _LOW_32, 4, 0, "POSIX_FADV_DONTNEED: the same; it is advice"),
    Deny("msync", 2, 4, 4, 0, "MS_SYNC flushes the host's disk, as fsync would"),
    # An access list is kept beside its file in memory that no ceiling counts, 64 KiB each, two for a folder. ENOTSUP is
    # what copies of attributes go on after.
    *(
        Deny(name, 3, bpf.ALL, _MOST_XATTR + 1, errno.ENOTSUP, "a large access list", or_above=True)
        for name in ("setxattr", "lsetxattr", "fsetxattr")
    ),
    Deny("mmap", 3, 0x40000, 0x40000, errno.EPERM, "MAP_HUGETLB takes huge pages that the host keeps for others"),
    Deny("memfd_create", 1, 4, 4, errno.EPERM, "MFD_HUGETLB: the same"),
)

# Allowed where a cgroup holds memory, refused elsewhere. The watcher counts sockets, and this bounds each.
DENIED_WITHOUT_CGROUP: tuple[Deny, ...] = (
    Deny("setsockopt", 2, _LOW_32, 7, errno.EPERM, "SO_SNDBUF: unread messages count in no process"),
    Deny("setsockopt", 2, _LOW_32, 32, errno.EPERM, "SO_SNDBUFFORCE: the same"),
    # The type of a mapping is 4 bits, of which MAP_SHARED is the one value that the kernel takes with MAP_ANONYMOUS.
    Deny("mmap", 3, 0x2F, 0x21, errno.EPERM, "shared memory without a file counts in no process once unmapped"),
)

# Compared on all 64 bits: high bits can only refuse here, never admit.
UNIX_ONLY: dict[str, str] = {
    "socket": "every other family leads out of the run or into rarely used kernel code",
    "socketpair": "the same; AF_TIPC has pairs",
}
_AF_UNIX = 1


@functools.cache
def build_filter(*, cgroup: bool, loopback: bool = False, machine: str | None = None) -> bytes:
    """The filter of a run whose memory and CPU are held by a cgroup, or are not; to be loaded after no_new_privs.

    With *loopback* that run may have TCP and UDP sockets, too: its network namespace says how far they reach.
    For *machine* (None: this one). Raises `Unavailable` where the policy was not written for its architecture.
    """
    machine = machine or os.uname().machine
    if machine not in NUMBERS:
        # Argument numbers differ elsewhere: on s390x clone's flags are its second.
        raise Unavailable("seccomp: the system call policy is written for x86_64 and aarch64 only")
    absent = bpf.error(errno.ENOSYS)
    return bpf.program(machine, rules(cgroup=cgroup, loopback=loopback), unnamed=absent, newer=absent)


def actions(*, cgroup: bool) -> dict[str, int]:
    """Name -> errno, 0 for allowed; a name that is neither here nor in DONE_FOR_NOTHING is answered with ENOSYS."""
    table = {name: 0 for names in ALLOWED.values() for name in names}
    table |= {name: errno.EPERM for names in REFUSED.values() for name in names}
    table |= dict.fromkeys(NEEDS_CGROUP, 0 if cgroup else errno.EPERM)
    return table


def rules(*, cgroup: bool, loopback: bool = False) -> dict[str, list[bpf.Rule]]:
    """What answers each named call: of its refusals by argument the first that holds, else its number alone."""
    table: dict[str, list[bpf.Rule]] = {}
    by_number = actions(cgroup=cgroup)
    for deny in DENIED if cgroup else (*DENIED, *DENIED_WITHOUT_CGROUP):
        if by_number[deny.syscall] == 0:
            table.setdefault(deny.syscall, []).append((_tests(deny), bpf.error(deny.error)))
    for name in UNIX_ONLY:
        table[name] = [((bpf.Equal(0, bpf.ALL, _AF_UNIX),), bpf.ALLOW)]
        by_number[name] = errno.EAFNOSUPPORT
    for name, number in by_number.items():
        table.setdefault(name, []).append(((), bpf.error(number) if number else bpf.ALLOW))
    if loopback:
        table |= of_loopback.rules(_SOCKET_FILTERS)
    success = bpf.error(0)
    return table | {name: [((), success)] for names in DONE_FOR_NOTHING.values() for name in names}


def _tests(deny: Deny) -> list[bpf.Equal | bpf.AtLeast]:
    if deny.or_above:
        return [bpf.AtLeast(deny.argument, deny.value)]
    given = [] if deny.given is None else [bpf.AtLeast(deny.given, 1)]
    return [bpf.Equal(deny.argument, deny.mask, deny.value), *given]
