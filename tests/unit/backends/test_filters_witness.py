"""The filter of `backends.filters` beside what libseccomp makes of the same tables: an independent compiler.

libseccomp needs two filters for them (it drops a conditional deny of a call that also has an
unconditional allow), of which the kernel takes the stricter answer. The programs are run here,
instruction by instruction, so that both architectures are tried on any machine.
"""

import errno
import functools
import itertools
import os
import random
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from isorun.backends import filters
from sandbox_runner.linux.syscall_numbers import NUMBERS
from tests.conftest import Require

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
FOREIGN = [0x40000003, 0x40000028, 0x80000016]  # i386, arm, s390x
ERRNO, KILL = 0x0005_0000, 0x8000_0000
MODES = [(machine, cgroup) for machine in sorted(AUDIT) for cgroup in (True, False)]
ALL = 2**64 - 1

Program = list[tuple[int, ...]]


def read(program: bytes) -> Program:
    return list(struct.iter_unpack("<HBBI", program))


def ran(code: Program, number: int, arguments: tuple[int, ...], architecture: int) -> int:
    """What the kernel would do: struct seccomp_data and classic BPF, as both compilers write it."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments)
    at = accumulator = 0
    while True:
        operation, if_true, if_false, operand = code[at]
        at += 1
        match operation:
            case 0x20:
                accumulator = int.from_bytes(data[operand : operand + 4], "little")
            case 0x54:
                accumulator &= operand
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x25:
                at += if_true if accumulator > operand else if_false
            case 0x35:
                at += if_true if accumulator >= operand else if_false
            case 0x05:
                at += operand
            case 0x06:
                return operand
            case _:
                raise AssertionError(f"no such instruction: {operation:#x}")


def exported(program: Any) -> Program:  # noqa: ANN401 - the package carries no types
    with os.fdopen(os.memfd_create("seccomp"), "rb") as file:
        program.export_bpf(file)
        file.seek(0)
        return read(file.read())


@functools.cache
def witness(machine: str, *, cgroup: bool) -> tuple[Program, Program]:
    """Both filters, by number and by argument. libseccomp names calls by this machine's numbers and translates them."""
    import pyseccomp as lib

    arch = {"x86_64": lib.Arch.X86_64, "aarch64": lib.Arch.AARCH64}[machine]

    def new(default: int) -> Any:  # noqa: ANN401 - the package carries no types
        program = lib.SyscallFilter(default)
        program.set_attr(lib.Attr.ACT_BADARCH, lib.KILL_PROCESS)
        if arch != lib.system_arch():
            program.add_arch(arch)
            program.remove_arch(lib.system_arch())
        return program

    def number(name: str) -> int | None:
        if name not in NUMBERS[machine]:
            return None
        known: int = lib.resolve_syscall(lib.Arch.NATIVE, name)
        return None if known == -1 else known

    by_number, by_argument = new(lib.ERRNO(errno.ENOSYS)), new(lib.ALLOW)
    for name, error in filters.actions(cgroup=cgroup).items():
        if (found := number(name)) is not None:
            by_number.add_rule(lib.ERRNO(error) if error else lib.ALLOW, found)
    for name in itertools.chain.from_iterable(filters.DONE_FOR_NOTHING.values()):
        if (found := number(name)) is not None:
            by_number.add_rule(lib.ERRNO(0), found)
    for deny in filters.DENIED if cgroup else (*filters.DENIED, *filters.DENIED_WITHOUT_CGROUP):
        if (found := number(deny.syscall)) is not None:
            tests = [lib.Arg(deny.argument, lib.MASKED_EQ, deny.mask, deny.value)]
            if deny.or_above:
                tests = [lib.Arg(deny.argument, lib.GE, deny.value)]
            if deny.given is not None:
                tests.append(lib.Arg(deny.given, lib.NE, 0))
            by_argument.add_rule(lib.ERRNO(deny.error), found, *tests)
    for name in filters.UNIX_ONLY:
        if (found := number(name)) is not None:
            by_argument.add_rule(lib.ERRNO(errno.EAFNOSUPPORT), found, lib.Arg(0, lib.NE, 1))
    return exported(by_number), exported(by_argument)


def stricter(answers: list[int]) -> int:
    """The kernel's order: killing, then errnos, then what lets the call be made."""
    return min(answers, key=lambda said: [KILL, ERRNO, 0x7FFF_0000].index(said & 0xFFFF_0000))


def around(deny: filters.Deny) -> Iterator[tuple[int, ...]]:
    """Arguments that *deny* refuses, and their neighbours: each bit changed, one below, one above."""
    for other in (0, ALL):
        for given in (0, 1, 1 << 40) if deny.given is not None else (other,):
            for changed in (0, 1, *(1 << bit for bit in range(1, 64)), ALL):
                words = [other] * 6
                words[deny.argument] = (other & ~deny.mask | deny.value) ^ changed
                if deny.given is not None:
                    words[deny.given] = given
                yield tuple(words)
    for value in (deny.value - 1, deny.value, deny.value + 1):
        yield tuple(value & ALL if place == deny.argument else 0 for place in range(6))


def cases(machine: str) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Every number; of the calls in the tables every argument value, its neighbours and chance."""
    chance = random.Random(7)
    numbers = NUMBERS[machine]
    for number in [*range(max(numbers.values()) + 200), 0x0FFF_FFFF, 0x3FFF_FFFF]:
        for word in (0, 1, 2, ALL):
            yield number, (word,) * 6
        yield number, tuple(chance.getrandbits(64) for _ in range(6))
    every = (*filters.DENIED, *filters.DENIED_WITHOUT_CGROUP)
    for deny in every:
        if deny.syscall in numbers:
            for arguments in around(deny):
                yield numbers[deny.syscall], arguments
    values = [deny.value for deny in every]
    for name in sorted({*(deny.syscall for deny in every), *filters.UNIX_ONLY} & set(numbers)):
        for _ in range(200):
            words = [chance.choice([chance.getrandbits(64), chance.getrandbits(8), *values]) for _ in range(6)]
            yield numbers[name], tuple(words)


def unknown() -> set[str]:
    """What this libseccomp is too old for: it leaves the call out, and so answers ENOSYS."""
    import pyseccomp as lib

    every = {name for numbers in NUMBERS.values() for name in numbers}
    return {name for name in every if lib.resolve_syscall(lib.Arch.NATIVE, name) == -1}


@pytest.mark.slow
@pytest.mark.parametrize(("machine", "cgroup"), MODES)
def test_libseccomp_says_the_same(machine: str, cgroup: bool, require: Require) -> None:
    """Of every number, and of every argument value in the tables: the answers of the two compilers are equal.

    But for limits of core dumps of init's, which two rules refuse: ours takes the first.
    """
    try:
        theirs = witness(machine, cgroup=cgroup)
        left_out = unknown()
    except (ImportError, RuntimeError) as error:
        require("seccomp", f"no libseccomp to compare with: {error}")
    assert set(filters.actions(cgroup=cgroup)) & left_out <= {"fchmodat2"}  # came with Linux 6.6
    skipped = {number for name, number in NUMBERS[machine].items() if name in left_out}
    ours = read(filters.build_filter(cgroup=cgroup, machine=machine))
    tried, different = 0, []
    for number, arguments in cases(machine):
        if number in skipped:
            continue
        tried += 1
        mine = ran(ours, number, arguments, AUDIT[machine])
        wanted = stricter([ran(code, number, arguments, AUDIT[machine]) for code in theirs])
        if number == NUMBERS[machine]["prlimit64"] and arguments[0] & 0xFFFF_FFFF == 1:
            assert mine == ERRNO | errno.EPERM
        elif mine != wanted:
            different.append((number, [hex(word) for word in arguments], hex(mine), hex(wanted)))
    assert different == []
    assert tried > 13_000


@pytest.mark.parametrize(("machine", "cgroup"), MODES)
def test_foreign_conventions_are_killed(machine: str, cgroup: bool) -> None:
    """Another architecture, x32, and what only looks like x32: all numbers from 2**30 on.

    Of these libseccomp answers -1, and all on aarch64, with ENOSYS. No kernel has such a call.
    """
    ours = read(filters.build_filter(cgroup=cgroup, machine=machine))
    zeros = (0,) * 6
    assert {ran(ours, number, zeros, other) for number in range(600) for other in FOREIGN} == {KILL}
    far = (0x4000_0000, 0x4000_0027, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)
    assert {ran(ours, number, zeros, AUDIT[machine]) for number in far} == {KILL}


ALLOWED = 0x7FFF_0000
FAMILY, PROTOCOL, OPTION = (ERRNO | number for number in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ENOPROTOOPT))
REFUSED = ERRNO | errno.EPERM
CHANGED = ("socket", "setsockopt", "getsockopt")


def of_socket(family: int, kind: int, protocol: int) -> int:
    """What `socket` is to answer with loopback, written without the tables."""
    if family == 1:
        return ALLOWED
    if family not in (2, 10):
        return FAMILY
    there = (kind & 15, protocol & 0xFFFF_FFFF) in ((1, 0), (1, 6), (2, 0), (2, 17))
    return ALLOWED if there else PROTOCOL


def of_setsockopt(level: int, name: int) -> int:
    """The same of `setsockopt`."""
    level, name = level & 0xFFFF_FFFF, name & 0xFFFF_FFFF
    if level == 1:
        if name in (7, 8):
            return ERRNO  # success, and nothing is done
        return REFUSED if name in (26, 32, 33, 50, 51, 52, 60, 73) else ALLOWED
    usual = {6: (1, 3, 4, 5, 6, 7, 8, 12, 18), 0: (1, 2, 8, 11), 41: (16, 25, 26, 49, 67)}
    return ALLOWED if name in usual.get(level, ()) else OPTION


@pytest.mark.slow
@pytest.mark.parametrize(("machine", "cgroup"), MODES)
def test_loopback_opens_sockets_and_their_usual_options(machine: str, cgroup: bool) -> None:
    """Of every family, kind, protocol, level and option that there is or may come, with bits above 32 set, too."""
    code = read(filters.build_filter(cgroup=cgroup, loopback=True, machine=machine))

    def answer(name: str, *words: int) -> int:
        return ran(code, NUMBERS[machine][name], (*words, *[0] * (6 - len(words))), AUDIT[machine])

    high = 1 << 32
    for family in (*range(50), high + 1, high + 2, high + 10, ALL):
        for kind in (*range(16), *(one | 0x80800 for one in range(16)), high + 1):
            for protocol in (0, 1, 6, 17, 33, 115, 132, 136, 255, 256, 262, high, high + 6, ALL):
                assert answer("socket", family, kind, protocol) == of_socket(family, kind, protocol)
    for level in (*range(300), high, high + 1, high + 6, ALL):
        for name in (*range(120), 0x1000, high + 1, high + 26, ALL):
            assert answer("setsockopt", 3, level, name) == of_setsockopt(level, name)
    assert [answer("getsockopt", 3, 6, 35), answer("getsockopt", 3, 6, 11), answer("getsockopt", 3, 1, 35)] == [
        OPTION, ALLOWED, ALLOWED
    ]  # fmt: skip
    assert [answer("socketpair", family, 1, 0) for family in (1, 2, 10)] == [ALLOWED, FAMILY, FAMILY]


@pytest.mark.slow
@pytest.mark.parametrize(("machine", "cgroup"), MODES)
def test_loopback_changes_nothing_else(machine: str, cgroup: bool) -> None:
    """Every other call, with every argument value of the tables, is answered as in a run without."""
    usual, other = (
        read(filters.build_filter(cgroup=cgroup, loopback=loopback, machine=machine)) for loopback in (False, True)
    )
    changed = {NUMBERS[machine][name] for name in CHANGED}
    for number, arguments in cases(machine):
        if number not in changed:
            answers = {ran(code, number, arguments, AUDIT[machine]) for code in (usual, other)}
            assert len(answers) == 1, (number, arguments)
