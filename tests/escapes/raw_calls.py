"""System calls by number, for attack programs: no library stands between the program and the kernel.

It is given to a run as an input file and imported there, and imported outside for the
positive controls. It needs the standard library only and asserts nothing.
"""

import ctypes
import errno
import os
import platform
from collections.abc import Callable

ARM = platform.machine() == "aarch64"
NUMBERS = {  # name: (x86_64, aarch64); None: the architecture has no such call
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "capset": (126, 91),
    "chroot": (161, 51),
    "clone": (56, 220),
    "clone3": (435, 435),
    "exit": (60, 93),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioctl": (16, 29),
    "iopl": (172, None),
    "ioperm": (173, None),
    "kcmp": (312, 272),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "kill": (62, 129),
    "memfd_secret": (447, 447),
    "migrate_pages": (256, 238),
    "mknodat": (259, 33),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "prlimit64": (302, 261),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "sched_setaffinity": (203, 122),
    "seccomp": (317, 277),
    "semget": (64, 190),
    "setdomainname": (171, 162),
    "setgroups": (116, 159),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "setresuid": (117, 147),
    "settimeofday": (164, 170),
    "shmget": (29, 194),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "tgkill": (234, 131),
    "tkill": (200, 130),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def call(name: str, *arguments: int | bytes | object) -> int:
    """What the call returned, or minus its errno: the kernel's own convention."""
    number = NUMBERS[name][ARM]
    if number is None:
        return -errno.ENOSYS
    return by_number(number, *arguments)


def by_number(number: int, *arguments: int | bytes | object) -> int:
    """As `call`, for a number that has no name here."""
    ctypes.set_errno(0)
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = _libc.syscall(ctypes.c_long(number), *wide)
    return result if result != -1 else -ctypes.get_errno()


def said(result: int) -> str:
    """`ok`, or the errno's name."""
    return "ok" if result >= 0 else errno.errorcode[-result]


def attempt(action: Callable[[], object]) -> str:
    """`ok`, or the name of the errno that *action* ended with."""
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "ok"


def reading(path: str) -> str:
    """What comes of opening and reading *path*: `ok`, or the errno's name."""
    return attempt(lambda: _read(path))


def writing(path: str) -> str:
    """What comes of opening *path* for writing; nothing is written."""
    return attempt(lambda: os.close(os.open(path, os.O_WRONLY)))


def _read(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.read(descriptor, 64)
    finally:
        os.close(descriptor)
