"""The table of `seccomp` as the program that the kernel runs (classic BPF), for bubblewrap's `--seccomp`.

Docker has libseccomp for this; the standard library has nothing. Pure: makes bytes and
loads nothing. The numbers of calls are a few hundred, so they are found by a binary tree;
each kind of answer that looks at arguments is written out where its number is found.

Beyond the table: a foreign calling convention (i386, x32, arm) is killed, because its
numbers mean other calls; a number above every one that the table knows gets ENOSYS, as
from an older kernel.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping, Sequence

from sandbox_runner.errors import BackendUnavailable
from sandbox_runner.seccomp import ALLOWED, CONDITIONS, MISSING, Condition
from sandbox_runner.syscall_numbers import NUMBERS

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_…
_X32 = 0x4000_0000  # this bit of a number says x32
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP, _IF_EQUAL, _IF_AT_LEAST = 0x05, 0x15, 0x35
_FAR = 255  # instructions that a conditional jump can skip
_ALLOW, _KILL, _ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000

Instruction = tuple[int, int, int, int]  # code, how many to skip if true, if false, operand


def program(machine: str | None = None) -> bytes:
    """The filter for *machine* (None: this one), as an array of struct sock_filter of a little-endian machine.

    Raises `BackendUnavailable` for an architecture that the table was not written for.
    """
    machine = machine or os.uname().machine
    if machine not in _ARCHITECTURES:
        raise BackendUnavailable(
            f"seccomp: the table of system calls is for {' and '.join(_ARCHITECTURES)}, not {machine}; "
            "to go on without it, name seccomp in SandboxSpec.loosen"
        )
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        *_tree(_segments(NUMBERS[machine])),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def _answers(numbers: Mapping[str, int]) -> dict[int, list[Instruction]]:
    """What each number that the table knows runs into; one that is refused has no entry."""
    found = {}
    for names in ALLOWED.values():
        found.update({numbers[name]: _ends(_ALLOW) for name in names if name in numbers})
    for names in MISSING.values():
        found.update({numbers[name]: _ends(_ERRNO | errno.ENOSYS) for name in names if name in numbers})
    for name, lines in CONDITIONS.values():
        if name in numbers:
            found[numbers[name]] = _decided(lines)
    return found


def _segments(numbers: Mapping[str, int]) -> list[tuple[int, list[Instruction]]]:
    """All numbers there are, as (first number, its answer), in order; neighbours of one answer are one segment."""
    answers, refused = _answers(numbers), _ends(_ERRNO | errno.EPERM)
    newest = max(numbers.values())
    every = [(number, answers.get(number, refused)) for number in range(newest + 1)]
    every += [(newest + 1, _ends(_ERRNO | errno.ENOSYS)), (_X32, _ends(_KILL))]
    return [pair for i, pair in enumerate(every) if i == 0 or pair[1] != every[i - 1][1]]


def _tree(segments: Sequence[tuple[int, list[Instruction]]]) -> list[Instruction]:
    """A search for the number that was loaded; each leaf is a segment's answer."""
    if len(segments) == 1:
        return segments[0][1]
    middle = len(segments) // 2
    low, high = _tree(segments[:middle]), _tree(segments[middle:])
    first = segments[middle][0]
    if len(low) <= _FAR:
        return [(_IF_AT_LEAST, len(low), 0, first), *low, *high]
    return [(_IF_AT_LEAST, 0, 1, first), (_JUMP, 0, 0, len(low)), *low, *high]


def _decided(lines: Sequence[Sequence[Condition]]) -> list[Instruction]:
    """Allow if all conditions of one line hold, else EPERM."""
    code: list[Instruction] = []
    for line in lines:
        tests = [_test(condition) for condition in line]
        size = sum(len(test) for test in tests) + 1
        done = 0
        for test in tests:
            done += len(test)
            # The last instruction of a test goes on if it holds, else behind this line's answer.
            kind, _, _, operand = test[-1]
            code += [*test[:-1], (kind, 0, size - done, operand)]
        code += _ends(_ALLOW)
    return code + _ends(_ERRNO | errno.EPERM)


def _test(condition: Condition) -> list[Instruction]:
    # The low half of the 64 bits: every mask of the table has 32 bits, as the kernel's int has.
    index, mask, value = condition
    return [(_LOAD, 0, 0, _ARGUMENTS + 8 * index), (_AND, 0, 0, mask), (_IF_EQUAL, 0, 0, value)]


def _ends(answer: int) -> list[Instruction]:
    return [(_RETURN, 0, 0, answer)]
