"""Which system calls a sandbox may make: the table, and what is made of it.

Docker's seccomp profile (`profile`), and the filter that bubblewrap loads (`program`). `seccomp.json` beside this
module is the table as Docker reads it; `python -m sandbox_runner.linux.seccomp` writes it again and a test compares the
two. Nothing here is loaded into this process or starts anything.

It is an allow-list by name, for any command of a distribution: compilers, package managers, databases, Python,
node. It is narrower than Docker's own profile in what lets one process look into another, in kinds of sockets and
in what is never needed without capabilities. Debuggers (ptrace) and browsers' own sandboxes (user namespaces) do not
work under it: `SandboxSpec(loosen=("seccomp",))` takes it away.

Three answers, because a program goes on after a refusal only if it gets the errno it knows:

* `ALLOWED`, and `CONDITIONS` where arguments decide;
* `MISSING`: ENOSYS, as from an older kernel, so that glibc, libuv and others use what they used before;
* the rest, `REFUSED`: EPERM, the profile's default. Docker 20.10 ignores `defaultErrnoRet`, hence the list above.

A number that is newer than every name here gets ENOSYS from `program` and from runc (1.0.0-rc93 and later), EPERM from
other runtimes.

A filter sees 64 bits of an argument of which the kernel may use 32, so every condition is masked: a comparison of all
64 with TIOCSTI is passed by TIOCSTI + 2**32. Foreign calling conventions (i386, x32, arm) are no part of the
profile: their numbers mean other calls, and a process that uses them is killed. seccomp does not see through
pointers: paths, and the address that `connect` gets, are not decided here.

gVisor (`runsc`) ignores the profile: there its own kernel answers the calls. The Docker CLI, not the daemon, reads
the file.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sandbox_runner.errors import BackendUnavailable
from sandbox_runner.linux import bpf
from sandbox_runner.linux.syscall_numbers import NUMBERS

_LOW_32 = 0xFFFFFFFF  # the bits of an int, to which the kernel cuts the argument

Condition = tuple[int, int, int]  # argument's index, mask of up to 64 bits, and what the masked argument must be

#: Who needs it -> what they need.
ALLOWED: dict[str, tuple[str, ...]] = {
    "start-up, threads and the end of every process": (
        "execve", "execveat", "exit", "exit_group", "arch_prctl", "set_tid_address", "set_robust_list",
        "get_robust_list", "rseq", "futex", "futex_waitv", "futex_wait", "futex_wake", "futex_requeue",
        "membarrier", "fork", "vfork", "wait4", "waitid", "restart_syscall", "getrandom",
    ),
    "memory": (
        "brk", "munmap", "mprotect", "mremap", "msync", "mincore", "mlock", "mlock2", "mlockall",
        "munlock", "munlockall", "mseal", "map_shadow_stack", "pkey_alloc", "pkey_free", "pkey_mprotect",
        "cachestat",
    ),
    "libnuma: to ask where this process's own pages lie": ("get_mempolicy",),
    "open files": (
        "open", "openat", "openat2", "creat", "close", "close_range", "read", "write", "readv", "writev", "pread64",
        "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2", "lseek", "dup", "dup2", "dup3", "flock",
        "pipe", "pipe2", "sendfile", "copy_file_range", "splice", "tee", "vmsplice", "truncate", "ftruncate",
        "fallocate", "fadvise64", "readahead", "sync", "syncfs", "fsync", "fdatasync", "sync_file_range",
    ),
    "Linux AIO: MySQL, nginx, QEMU": (
        "io_setup", "io_destroy", "io_submit", "io_cancel", "io_getevents", "io_pgetevents",
    ),
    "the file tree": (
        "stat", "fstat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink",
        "readlinkat", "getdents", "getdents64", "getcwd", "chdir", "fchdir", "mkdir", "mkdirat", "rmdir", "unlink",
        "unlinkat", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "umask", "statfs",
        "fstatfs",
    ),
    "tar, cp -a, dpkg, pip: modes, owners and times; the kernel decides about owners": (
        "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime", "utimes",
        "utimensat", "futimesat", "getxattr", "lgetxattr", "fgetxattr", "getxattrat", "listxattr", "llistxattr",
        "flistxattr", "listxattrat", "removexattr", "lremovexattr", "fremovexattr", "removexattrat",
    ),
    "event loops": (
        "select", "pselect6", "poll", "ppoll", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait",
        "epoll_pwait", "epoll_pwait2", "eventfd", "eventfd2", "signalfd", "signalfd4", "timerfd_create",
        "timerfd_settime", "timerfd_gettime", "inotify_init", "inotify_init1", "inotify_add_watch",
        "inotify_rm_watch",
    ),
    "signals; they reach the sandbox's own processes only": (
        "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigsuspend", "rt_sigtimedwait",
        "rt_sigqueueinfo", "rt_tgsigqueueinfo", "sigaltstack", "pause", "kill", "tkill", "tgkill", "pidfd_open",
        "pidfd_send_signal",
    ),
    "clocks and timers, to read and to wait": (
        "nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "time", "times", "alarm",
        "getitimer", "setitimer", "timer_create", "timer_settime", "timer_gettime", "timer_getoverrun",
        "timer_delete",
    ),
    "who a process is; the kernel decides about changes, and runc makes them after the filter is on": (
        "getpid", "getppid", "gettid", "getpgid", "getpgrp", "setpgid", "getsid", "setsid", "getuid", "geteuid",
        "getgid", "getegid", "getresuid", "getresgid", "getgroups", "setuid", "setgid", "setreuid", "setregid",
        "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid", "capget", "capset",
    ),
    "scheduling and limits": (
        "sched_yield", "sched_getaffinity", "sched_setaffinity", "sched_getparam", "sched_setparam",
        "sched_getscheduler", "sched_setscheduler", "sched_get_priority_max", "sched_get_priority_min",
        "sched_rr_get_interval", "sched_getattr", "sched_setattr", "getpriority", "setpriority", "ioprio_get",
        "ioprio_set", "getrlimit", "getrusage", "getcpu", "sysinfo", "uname",
    ),
    "sockets, once made": (
        "connect", "bind", "listen", "accept", "accept4", "recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg",
        "sendmmsg", "shutdown", "getsockname", "getpeername", "getsockopt",
    ),
    "shared memory and queues of the sandbox's own IPC namespace: PostgreSQL, multiprocessing": (
        "shmat", "shmdt", "shmctl", "semget", "semop", "semtimedop", "semctl", "msgget", "msgsnd",
        "msgrcv", "msgctl", "mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr",
    ),
    "a program that seals itself further: OpenSSH, Chromium, apt": (
        "seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self",
    ),
    "the kernel's own trampolines, when the host traces functions": ("uprobe", "uretprobe"),
}  # fmt: skip

#: Who goes on without it, if told that it is missing -> the calls.
MISSING: dict[str, tuple[str, ...]] = {
    "glibc, Go, Rust: use clone, whose flags a filter can see": ("clone3",),
    "libuv, liburing, Go: use epoll; its I/O is not seen by seccomp": (
        "io_uring_setup", "io_uring_enter", "io_uring_register",
    ),
    "jemalloc, systemd and others that probe for what is new": (
        "process_madvise", "process_mrelease", "memfd_secret", "set_mempolicy_home_node", "statmount", "listmount",
        "listns", "lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules", "file_getattr", "file_setattr",
        "open_tree_attr", "rseq_slice_yield",
    ),
    "libacl, cp: use setxattr, whose size a filter can see": ("setxattrat",),
    "nobody: the kernel itself has no more than the number": (
        "_sysctl", "afs_syscall", "create_module", "epoll_ctl_old", "epoll_wait_old", "get_kernel_syms",
        "get_thread_area", "getpmsg", "nfsservctl", "putpmsg", "query_module", "remap_file_pages", "security",
        "set_thread_area", "tuxcall", "uselib", "vserver",
    ),
}  # fmt: skip

#: What would be gained by it -> the calls. They are in no rule: EPERM is the default.
REFUSED: dict[str, tuple[str, ...]] = {
    "reads or drives another process": (
        "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "move_pages", "migrate_pages",
    ),
    "makes or enters namespaces, and with them capabilities": ("unshare", "setns"),
    "changes mounts or the root": (
        "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "mount_setattr", "fsopen", "fsconfig",
        "fsmount", "fspick",
    ),
    "opens files by number, past every mount": ("name_to_handle_at", "open_by_handle_at"),
    "watches or meters whole filesystems": ("fanotify_init", "fanotify_mark", "quotactl", "quotactl_fd"),
    "runs code in, or measures, the kernel": ("bpf", "perf_event_open", "lookup_dcookie"),
    "stops the kernel at a chosen page: the usual aid of kernel exploits": ("userfaultfd",),
    "keyrings are shared by all processes of a uid, other containers' too": ("keyctl", "add_key", "request_key"),
    "replaces the kernel or its modules": (
        "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load",
    ),
    "belongs to the host: clock, name, swap, accounting, log, consoles, ports": (
        "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname", "setdomainname", "swapon",
        "swapoff", "reboot", "acct", "syslog", "vhangup", "iopl", "ioperm",
    ),
    "its policies stay with the memory of a file, in memory that no ceiling counts": ("mbind", "set_mempolicy"),
    "16-bit segments: history of kernel faults": ("modify_ldt",),
    "tells of the host's filesystems, and nobody asks any more": ("sysfs", "ustat"),
}  # fmt: skip

_ALL = 0xFFFFFFFFFFFFFFFF  # of a pointer
_RLIMIT_CORE = 4
_SOL_SOCKET = 1
_SOCKET_FILTERS = frozenset({26, 50, 51, 52})  # SO_ATTACH_FILTER, _BPF, _REUSEPORT_CBPF, _REUSEPORT_EBPF
_OFD_LOCKS = frozenset({36, 37, 38})  # they show no owner to whoever counts locks, which are memory of the kernel's
_HINTS = frozenset({1036, 1038})  # F_SET_RW_HINT, F_SET_FILE_RW_HINT: they stay with a file that is only shown
_MEMORY_MERGE, _MERGEABLE = 67, 12  # of prctl and madvise: merged pages tell what another sandbox has in memory
#: PR_FUTEX_HASH, PR_SET_VMA: one makes a table of up to 2 GiB, the other a name for each mapping.
_PRCTL = frozenset({_MEMORY_MERGE, 78, 0x53564D41})
_ABOVE_XATTR = _ALL & ~511  # no bit of which a value's size may have: an access list is memory that no ceiling counts
_MAP_HUGETLB, _MFD_HUGETLB, _SHM_HUGETLB = 0x40000, 4, 0o4000  # pages that the host keeps for others
_CLONE_NEW = 0x7E020000  # NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET; NEWTIME is no flag of clone
_TIOCSTI = 0x5412  # types into a terminal, as if the user of the terminal had
_TIOCLINUX = 0x541C  # pastes into a console
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_STREAM, _DATAGRAM, _RAW = 1, 2, 3
_ROUTE, _AUDIT = 0, 9
_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_TYPE = 0xF  # of a socket's type; SOCK_CLOEXEC and SOCK_NONBLOCK lie above
_KINDS = 0xF000  # of a mode: S_IFMT
_FILE, _FIFO, _SOCKET = 0x8000, 0x1000, 0xC000


def allowed_but(refused: frozenset[int], bits: int = 32) -> Iterator[tuple[int, int]]:
    """Masks and values that together match every number but *refused*, each by one pair.

    An allow-list has no "unless", and comparing for "not equal" has no mask. So: the halves of the number space in
    which nothing is refused, the halves of the other half, and so on.
    """
    spaces = [(0, 0)]
    for bit in (1 << shift for shift in reversed(range(bits))):
        halves = [(mask | bit, value | half) for mask, value in spaces for half in (0, bit)]
        spaces = [(mask, value) for mask, value in halves if any(number & mask == value for number in refused)]
        yield from (half for half in halves if half not in spaces)


def _kinds_of_sockets() -> Iterator[tuple[Condition, ...]]:
    yield ((0, _LOW_32, _AF_UNIX),)
    # getaddrinfo and getifaddrs; useradd, login and sudo, which end without it. The others load modules.
    for protocol in (_ROUTE, _AUDIT):
        yield (0, _LOW_32, _AF_NETLINK), (2, _LOW_32, protocol)
    for family in (_AF_INET, _AF_INET6):
        # By protocol: socket(AF_INET, …, SCTP, DCCP, L2TP or MPTCP) loads a module into the host's kernel.
        for kind, protocols in {_STREAM: (0, _TCP), _DATAGRAM: (0, _UDP, _ICMP, _ICMPV6)}.items():
            for protocol in protocols:
                yield (0, _LOW_32, family), (1, _TYPE, kind), (2, _LOW_32, protocol)
        yield (0, _LOW_32, family), (1, _TYPE, _RAW)  # the kernel asks for CAP_NET_RAW


#: Why arguments decide -> the call and its conditions: it may be made if all of one line hold.
CONDITIONS: dict[str, tuple[str, tuple[tuple[Condition, ...], ...]]] = {
    "threads and fork, without new namespaces": ("clone", (((0, _CLONE_NEW, 0),),)),
    "terminals and files, but not typing into a terminal": (
        "ioctl", tuple(((1, mask, value),) for mask, value in allowed_but(frozenset({_TIOCSTI, _TIOCLINUX}))),
    ),
    "IPv4, IPv6, local sockets, the list of interfaces and the audit log": ("socket", tuple(_kinds_of_sockets())),
    "asyncio, multiprocessing: local pairs": ("socketpair", (((0, _LOW_32, _AF_UNIX),),)),
    "mkfifo; no devices": ("mknod", tuple(((1, _KINDS, kind),) for kind in (0, _FILE, _FIFO, _SOCKET))),
    "mkfifo of today's libc; no devices": (
        "mknodat", tuple(((2, _KINDS, kind),) for kind in (0, _FILE, _FIFO, _SOCKET)),
    ),
    **{
        f"attributes, but no large access lists: {name}": (name, (((3, _ABOVE_XATTR, 0),),))
        for name in ("setxattr", "lsetxattr", "fsetxattr")
    },
    "memory, but not the host's huge pages": ("mmap", (((3, _MAP_HUGETLB, 0),),)),
    "files in memory, the same": ("memfd_create", (((1, _MFD_HUGETLB, 0),),)),
    "shared memory, the same": ("shmget", (((2, _SHM_HUGETLB, 0),),)),
    "advice about memory, but not to merge it": (
        "madvise", tuple(((2, mask, value),) for mask, value in allowed_but(frozenset({_MERGEABLE}))),
    ),
    "the same of all memory, and no tables and names of the kernel's": (
        "prctl", tuple(((0, mask, value),) for mask, value in allowed_but(_PRCTL)),
    ),
    "descriptors, with locks that show their owner": (
        "fcntl", tuple(((1, mask, value),) for mask, value in allowed_but(_OFD_LOCKS | _HINTS)),
    ),
    # A filter takes memory that no ceiling counts, and JIT space without which nobody on the machine can load one.
    "options of sockets, but no filters": (
        "setsockopt",
        (
            *(((1, mask, value),) for mask, value in allowed_but(frozenset({_SOL_SOCKET}))),
            *(((2, mask, value),) for mask, value in allowed_but(_SOCKET_FILTERS)),
        ),
    ),
    # At any value but 1 the kernel hands a dump to the pipe of core_pattern, to be read by root of the host.
    "limits, but not that of core dumps": (
        "setrlimit", tuple(((0, mask, value),) for mask, value in allowed_but(frozenset({_RLIMIT_CORE}))),
    ),
    "the same, by pid; to ask is harmless": (
        "prlimit64",
        (
            *(((1, mask, value),) for mask, value in allowed_but(frozenset({_RLIMIT_CORE}))),
            ((2, _ALL, 0),),
        ),
    ),
    # What this one refuses: fixed addresses (ADDR_NO_RANDOMIZE), executable data and a page at address 0.
    "setarch: Linux (0), 32-bit names (8), and to ask": (
        "personality", tuple(((0, _LOW_32, value),) for value in (0, 8, _LOW_32)),
    ),
}  # fmt: skip


def program(machine: str | None = None) -> bytes:
    """The table as the filter for *machine* (None: this one), for bubblewrap's `--seccomp`.

    Raises `BackendUnavailable` for an architecture that the table was not written for.
    """
    machine = machine or os.uname().machine
    if machine not in NUMBERS:
        raise BackendUnavailable(
            f"seccomp: the table of system calls is for {' and '.join(NUMBERS)}, not {machine}; "
            "to go on without it, name seccomp in SandboxSpec.loosen"
        )
    refused = bpf.error(errno.EPERM)
    calls: dict[str, list[bpf.Rule]] = {name: [((), bpf.ALLOW)] for names in ALLOWED.values() for name in names}
    calls |= {name: [((), bpf.error(errno.ENOSYS))] for names in MISSING.values() for name in names}
    for name, lines in CONDITIONS.values():
        allowed = [([bpf.Equal(*condition) for condition in line], bpf.ALLOW) for line in lines]
        calls[name] = [*allowed, ((), refused)]
    return bpf.program(machine, calls, unnamed=refused, newer=bpf.error(errno.ENOSYS))


def profile() -> dict[str, Any]:
    """The profile, as Docker's JSON has it."""
    rules = [_rule(names, comment) for comment, names in ALLOWED.items()]
    for comment, (name, lines) in CONDITIONS.items():
        rules += [_rule((name,), comment, line) for line in lines]
    for comment, names in MISSING.items():
        rules.append({**_rule(names, comment), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",  # EPERM
        "archMap": [
            {"architecture": architecture, "subArchitectures": []}  # no i386, no x32, no 32-bit arm
            for architecture in ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")
        ],
        "syscalls": rules,
    }


def rendered() -> str:
    """The profile as the file has it: one rule per line, for reading and for diffs."""
    whole = profile()
    rules = ",\n    ".join(json.dumps(rule) for rule in whole.pop("syscalls"))
    head = "".join(f"  {json.dumps(key)}: {json.dumps(value)},\n" for key, value in whole.items())
    return f'{{\n{head}  "syscalls": [\n    {rules}\n  ]\n}}\n'


def profile_path() -> Path:
    """The profile's file, for `--security-opt seccomp=PATH`."""
    return Path(__file__).with_name("seccomp.json")


def _rule(names: tuple[str, ...], comment: str, conditions: tuple[Condition, ...] = ()) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": list(names), "action": "SCMP_ACT_ALLOW", "comment": comment}
    if conditions:
        rule["args"] = [
            {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
            for index, mask, value in conditions
        ]
    return rule


if __name__ == "__main__":
    profile_path().write_text(rendered(), encoding="utf-8")
