"""The profile as data: the file is the table, every call has one answer, and conditions cannot be got round."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_runner.linux import seccomp

HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
EPERM, ENOSYS, ALLOW = 1, 38, 0
HIGH = 1 << 32  # the kernel cuts an int's argument there, a filter does not
RULES: list[dict[str, Any]] = seccomp.profile()["syscalls"]


def answer(name: str, *arguments: int) -> int:
    """What the profile says to this call: 0 or the errno. No two rules of a call have two actions (tested below)."""
    for rule in RULES:
        conditions = rule.get("args", [])
        if name in rule["names"] and all(arguments[c["index"]] & c["value"] == c["valueTwo"] for c in conditions):
            return rule.get("errnoRet", EPERM) if rule["action"] == "SCMP_ACT_ERRNO" else ALLOW
    return EPERM


def test_the_file_is_what_the_code_makes() -> None:
    """`python -m sandbox_runner.linux.seccomp` writes it, and it is read as the table."""
    assert seccomp.profile_path().read_text(encoding="utf-8") == seccomp.rendered()
    assert json.loads(seccomp.rendered()) == seccomp.profile()


def test_every_call_has_one_answer() -> None:
    """A name in two tables would have the answer of whichever rule an engine reads first."""
    tables = (seccomp.ALLOWED, seccomp.MISSING, seccomp.REFUSED)
    names = [name for table in tables for group in table.values() for name in group]
    names += [name for name, _ in seccomp.CONDITIONS.values()]
    assert sorted(names) == sorted(set(names))
    assert len(names) > 380


@pytest.mark.skipif(not HEADER.exists(), reason="linux-libc-dev is not installed")
def test_every_call_of_the_kernels_headers_was_decided() -> None:
    """A call that no table names was forgotten, not refused."""
    tables = (seccomp.ALLOWED, seccomp.MISSING, seccomp.REFUSED)
    decided = {name for table in tables for group in table.values() for name in group}
    decided |= {name for name, _ in seccomp.CONDITIONS.values()}
    there = set(re.findall(r"__NR_(\w+)", HEADER.read_text()))
    assert there - decided == set()


def test_the_default_refuses_with_eperm() -> None:
    """Docker 20.10 ignores defaultErrnoRet, so a profile that relied on it would differ between engines."""
    profile = seccomp.profile()
    assert (profile["defaultAction"], "defaultErrnoRet" in profile) == ("SCMP_ACT_ERRNO", False)
    assert {name for group in seccomp.REFUSED.values() for name in group}.isdisjoint(
        name for rule in RULES for name in rule["names"]
    )
    assert answer("ptrace", 0, 0, 0, 0) == EPERM


def test_what_has_a_fallback_is_missing_and_not_refused() -> None:
    """glibc's pthread_create ends the program if clone3 is EPERM, and falls back if it is ENOSYS."""
    assert {answer(name) for group in seccomp.MISSING.values() for name in group} == {ENOSYS}
    assert answer("clone3") == answer("io_uring_setup") == ENOSYS


def test_no_foreign_calling_convention_is_part_of_it() -> None:
    """i386, x32 and 32-bit arm number other calls: without rules for them a process that uses them is killed."""
    assert [(entry["architecture"], entry["subArchitectures"]) for entry in seccomp.profile()["archMap"]] == [
        ("SCMP_ARCH_X86_64", []),
        ("SCMP_ARCH_AARCH64", []),
    ]


def test_every_condition_is_masked_to_what_the_kernel_reads() -> None:
    """A comparison of 64 bits is passed by the same number with a bit above the 32 that the kernel uses."""
    for rule in RULES:
        for condition in rule.get("args", []):
            assert condition["op"] == "SCMP_CMP_MASKED_EQ"
            wide = {"prlimit64": HIGH * HIGH - 1}  # a pointer; and sizes, of which no high bit may be set
            wide |= dict.fromkeys(("setxattr", "lsetxattr", "fsetxattr"), HIGH * HIGH - 512)
            wanted = None if condition["index"] < 2 else wide.get(rule["names"][0])
            assert condition["value"] == wanted if wanted else condition["value"] < HIGH
            assert condition["valueTwo"] & ~condition["value"] == 0, "such a condition never holds"


def test_an_argument_is_compared_once_in_a_rule() -> None:
    """runc splits a rule with two comparisons of one argument into two rules, of which either is enough."""
    for rule in RULES:
        indices = [condition["index"] for condition in rule.get("args", [])]
        assert len(indices) == len(set(indices))


NEW = {
    "NEWNS": 0x20000, "NEWCGROUP": 0x2000000, "NEWUTS": 0x4000000, "NEWIPC": 0x8000000, "NEWUSER": 0x10000000,
    "NEWPID": 0x20000000, "NEWNET": 0x40000000,
}  # fmt: skip
THREAD = 0x3D0F00  # what pthread_create asks for


@pytest.mark.parametrize("flag", NEW.values(), ids=NEW)
@pytest.mark.parametrize("with_it", [0, 17, THREAD, HIGH])
def test_clone_makes_no_namespace(flag: int, with_it: int) -> None:
    """Whatever else is asked for; processes and threads may be made."""
    assert answer("clone", flag | with_it) == EPERM
    assert answer("clone", with_it) == ALLOW


@pytest.mark.parametrize("refused", [0x5412, 0x541C])
def test_ioctl_does_not_type_into_a_terminal(refused: int) -> None:
    """TIOCSTI and TIOCLINUX, also with bits that the kernel cuts off; their neighbours are allowed."""
    assert [answer("ioctl", 0, refused | high) for high in (0, HIGH, HIGH * 0xFFFFFFFF)] == [EPERM] * 3
    near = [refused ^ 1 << bit for bit in range(32)]
    assert {answer("ioctl", 0, number) for number in near} == {ALLOW}


UNIX, INET, INET6, NETLINK, PACKET, ALG, VSOCK = 1, 2, 10, 16, 17, 38, 40
FLAGS = 0o2004000  # SOCK_CLOEXEC | SOCK_NONBLOCK


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((UNIX, 1, 0), ALLOW), ((UNIX, 5 | FLAGS, 0), ALLOW), ((UNIX | HIGH, 1, 0), ALLOW),
        ((INET, 1, 0), ALLOW), ((INET, 1 | FLAGS, 6), ALLOW), ((INET6, 2, 17), ALLOW), ((INET, 2, 1), ALLOW),
        ((INET, 3, 255), ALLOW),  # raw: the kernel asks for CAP_NET_RAW
        ((INET, 1, 132), EPERM), ((INET, 5, 0), EPERM), ((INET, 5, 132), EPERM),  # SCTP
        ((INET, 6, 0), EPERM), ((INET, 6, 33), EPERM),  # DCCP
        ((INET6, 1, 262), EPERM), ((INET, 2, 115), EPERM), ((INET, 2, 136), EPERM),  # MPTCP, L2TP, UDP-Lite
        ((NETLINK, 3 | FLAGS, 0), ALLOW), ((NETLINK, 3, 9), ALLOW),
        ((NETLINK, 3, 12), EPERM), ((NETLINK, 3, 12 | HIGH), EPERM),
        ((PACKET, 3, 0), EPERM), ((ALG, 5, 0), EPERM), ((VSOCK, 1, 0), EPERM), ((VSOCK | HIGH, 1, 0), EPERM),
    ],
)  # fmt: skip
def test_kinds_of_sockets(arguments: tuple[int, ...], wanted: int) -> None:
    """Local ones, TCP, UDP, ping, interfaces and audit: every other kind is a module of the host's kernel."""
    assert answer("socket", *arguments) == wanted


@pytest.mark.parametrize(
    ("name", "arguments", "wanted"),
    [
        ("socketpair", (UNIX, 1, 0, 0), ALLOW),
        ("socketpair", (INET, 1, 0, 0), EPERM),
        ("mknodat", (0, 0, 0x1000 | 0o600, 0), ALLOW),
        ("mknodat", (0, 0, 0x2000 | 0o600, 0), EPERM),
        ("mknod", (0, 0x6000 | 0o600, 0), EPERM),
        ("mknod", (0, 0o600, 0), ALLOW),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (0,), ALLOW),
        ("personality", (0x40000,), EPERM),
        ("personality", (0x100000,), EPERM),
        ("setsockopt", (3, 1, 9, 0, 4), ALLOW),
        *(("setsockopt", (3, level, option, 0, 16), EPERM) for level in (1, 1 | HIGH) for option in (26, 50, 51, 52)),
        ("setsockopt", (3, 1, 26 | HIGH, 0, 16), EPERM),
        ("setsockopt", (3, 41, 26, 0, 4), ALLOW),  # IPV6_V6ONLY: another level's option of that number
        ("fcntl", (3, 6, 0), ALLOW),
        *(("fcntl", (3, command | high, 0), EPERM) for command in (36, 37, 38, 1036, 1038) for high in (0, HIGH)),
        ("mmap", (0, 4096, 3, 0x22, -1 & HIGH - 1, 0), ALLOW),
        ("mmap", (0, 4096, 3, 0x40022, 0, 0), EPERM),
        ("mmap", (0, 4096, 3, 0x40022 | 21 << 26, 0, 0), EPERM),
        ("memfd_create", (0, 1), ALLOW),
        ("memfd_create", (0, 5), EPERM),
        ("shmget", (0, 4096, 0o1600), ALLOW),
        ("shmget", (0, 4096, 0o5600), EPERM),
        ("madvise", (0, 4096, 4), ALLOW),
        ("madvise", (0, 4096, 12), EPERM),
        ("prctl", (15, 0), ALLOW),
        *(("prctl", (option | high, 1), EPERM) for option in (67, 78, 0x53564D41) for high in (0, HIGH)),
        *((name, (0, 0, 0, 511, 0), ALLOW) for name in ("setxattr", "lsetxattr", "fsetxattr")),
        *(
            (name, (0, 0, 0, size, 0), EPERM)
            for name in ("setxattr", "lsetxattr", "fsetxattr")
            for size in (512, 4096, 65536, 65535, HIGH)
        ),
        ("setxattrat", (0, 0, 0, 0, 0, 0), ENOSYS),
        ("setrlimit", (7, 0), ALLOW),
        ("setrlimit", (4, 0), EPERM),
        ("setrlimit", (4 | HIGH, 0), EPERM),
        ("prlimit64", (0, 7, 1, 0), ALLOW),
        ("prlimit64", (0, 4, 0, 1), ALLOW),
        ("prlimit64", (0, 4, 1, 0), EPERM),
        ("prlimit64", (0, 4 | HIGH, HIGH, 0), EPERM),  # a pointer whose lower half is 0
    ],
)
def test_other_conditions(name: str, arguments: tuple[int, ...], wanted: int) -> None:
    """No devices, weaker address space, memory that nothing counts, pages of the host's, or dumps for its root."""
    assert answer(name, *arguments) == wanted


@given(refused=st.frozensets(st.integers(0, 255), min_size=1, max_size=5), number=st.integers(0, 255))
def test_all_but_some_numbers(refused: frozenset[int], number: int) -> None:
    """Every other number is matched by exactly one pair, and those by none: an allow-list has no other `unless`."""
    matches = [pair for pair in seccomp.allowed_but(refused, bits=8) if number & pair[0] == pair[1]]
    assert len(matches) == (0 if number in refused else 1)
