"""Answers to system calls as the program that the kernel runs (classic BPF), for seccomp.

It knows no policy: `seccomp` here and other tables say which call gets which answer.
Docker has libseccomp for this; the standard library has nothing. Pure: it makes bytes
and loads nothing.

The numbers of calls are a few hundred, so they are found by a balanced tree: the kernel
tries a filter with every number when it is loaded, and a list would take it three times
as long. The tests of a call's arguments stand where its number is found.

Beyond any table: a foreign calling convention (i386, x32, arm) is killed, because its
numbers mean other calls. With x32 goes every number from 2**30 on, -1 too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sandbox_runner.linux.syscall_numbers import NUMBERS

ALLOW = 0x7FFF_0000
ALL = 0xFFFF_FFFF_FFFF_FFFF  # every bit of an argument

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_…
_KILL, _ERRNO = 0x8000_0000, 0x0005_0000
_X32 = 0x4000_0000  # this bit of a number says x32
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP, _IF_EQUAL, _IF_ABOVE, _IF_AT_LEAST = 0x05, 0x15, 0x25, 0x35
_HALF = 0xFFFF_FFFF
_FAR = 255  # instructions that a conditional jump can skip
_HOLDS, _FAILS = -1, -2  # where a test jumps to, until the places of both are known

Instruction = tuple[int, int, int, int]  # code, how many to skip if true, if false, operand


class Equal(NamedTuple):
    """An argument, looked at through a mask of up to 64 bits, is this value."""

    argument: int
    mask: int
    value: int


class AtLeast(NamedTuple):
    """An argument is this value or above: all 64 bits, unsigned. From 1 on it is not NULL."""

    argument: int
    value: int


#: All of these hold -> the answer.
Rule = tuple[Sequence[Equal | AtLeast], int]


def error(number: int) -> int:
    """The answer that fails with this errno. 0 is success, and the call is not made."""
    return _ERRNO | number


def program(machine: str, calls: Mapping[str, Sequence[Rule]], *, unnamed: int, newer: int) -> bytes:
    """The filter for *machine*, as an array of struct sock_filter of a little-endian machine.

    The first rule of a call that holds answers it, so the last one has no tests. A call that the machine does not
    have is left out. *unnamed* answers a number without rules, *newer* those above all known ones.
    KeyError for a machine that is not in `NUMBERS`.
    """
    numbers = NUMBERS[machine]
    answers = {numbers[name]: _decided(rules) for name, rules in calls.items() if name in numbers}
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        *_ends(_KILL),
        (_LOAD, 0, 0, _NUMBER),
        *_tree(_segments(answers, max(numbers.values()), unnamed, newer)),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def _segments(
    answers: Mapping[int, list[Instruction]], newest: int, unnamed: int, newer: int
) -> list[tuple[int, list[Instruction]]]:
    """All numbers there are, as (first number, its answer), in order; neighbours of one answer are one segment."""
    other = _ends(unnamed)
    every = [(number, answers.get(number, other)) for number in range(newest + 1)]
    every += [(newest + 1, _ends(newer)), (_X32, _ends(_KILL))]
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


def _decided(rules: Sequence[Rule]) -> list[Instruction]:
    """The answer of the first rule whose tests all hold."""
    code: list[Instruction] = []
    for tests, answer in rules:
        written = [_written(test) for test in tests]
        left = sum(map(len, written)) + 1  # of this rule, with its answer
        for test in written:
            left -= len(test)
            code += _placed(test, left)
        code += _ends(answer)
    return code


def _placed(test: Sequence[Instruction], left: int) -> Iterator[Instruction]:
    """A test that goes on behind itself if it holds, else behind the *left* instructions that follow in its rule."""
    for at, (code, if_true, if_false, operand) in enumerate(test, 1):
        behind = {_HOLDS: len(test) - at, _FAILS: len(test) - at + left}
        yield code, behind.get(if_true, if_true), behind.get(if_false, if_false), operand


def _written(test: Equal | AtLeast) -> list[Instruction]:
    """A test of each half of the 64 bits, as the accumulator has 32."""
    low = _ARGUMENTS + 8 * test.argument
    high = low + 4
    if isinstance(test, AtLeast):
        above = test.value >> 32
        return [
            (_LOAD, 0, 0, high),
            (_IF_ABOVE, _HOLDS, 0, above),
            (_IF_EQUAL, 0, _FAILS, above),
            (_LOAD, 0, 0, low),
            (_IF_AT_LEAST, _HOLDS, _FAILS, test.value & _HALF),
        ]
    code: list[Instruction] = []
    for at, bits, wanted in ((low, test.mask & _HALF, test.value & _HALF), (high, test.mask >> 32, test.value >> 32)):
        if bits or wanted:
            looked = [(_AND, 0, 0, bits)] if bits != _HALF else []
            code += [(_LOAD, 0, 0, at), *looked, (_IF_EQUAL, 0, _FAILS, wanted)]
    return code


def _ends(answer: int) -> list[Instruction]:
    return [(_RETURN, 0, 0, answer)]
