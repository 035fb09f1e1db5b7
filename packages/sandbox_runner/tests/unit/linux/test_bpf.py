"""The seccomp program says of every system call what its table says: it is run here, instruction by instruction."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_runner.errors import BackendUnavailable
from sandbox_runner.linux import bpf, seccomp
from sandbox_runner.linux.seccomp import ALLOWED, CONDITIONS, MISSING, REFUSED
from sandbox_runner.linux.syscall_numbers import NUMBERS

ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
MACHINES = sorted(AUDIT)


def answer(machine: str, number: int, arguments: tuple[int, ...] = (), architecture: int | None = None) -> int:
    """What the kernel would do under the table of `seccomp`."""
    return ran(PROGRAMS[machine], number, architecture or AUDIT[machine], arguments)


def ran(program: bytes, number: int, architecture: int, arguments: tuple[int, ...]) -> int:
    """Our own reading of struct seccomp_data and of classic BPF."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *(*arguments, *[0] * 6)[:6])
    code = list(struct.iter_unpack("<HBBI", program))
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


PROGRAMS = {machine: seccomp.program(machine) for machine in MACHINES}
EXPECTED = {
    **{name: ALLOW for names in ALLOWED.values() for name in names},
    **{name: ENOSYS for names in MISSING.values() for name in names},
    **{name: EPERM for names in REFUSED.values() for name in names},
}
LINES = dict(CONDITIONS.values())


@pytest.mark.parametrize("machine", MACHINES)
def test_each_call_gets_the_answer_of_the_table(machine: str) -> None:
    """Every name that the architecture has is allowed, missing or refused as the table has it."""
    numbers = NUMBERS[machine]
    got = {name: answer(machine, number) for name, number in numbers.items() if name in EXPECTED}
    assert got == {name: EXPECTED[name] for name in got}
    assert len(got) > 250


@pytest.mark.parametrize("machine", MACHINES)
def test_a_number_without_a_name_is_refused_or_too_new(machine: str) -> None:
    """A gap in the numbers is refused; what is above all of them is missing, as from an older kernel."""
    known, newest = set(NUMBERS[machine].values()), max(NUMBERS[machine].values())
    assert {answer(machine, number) for number in range(newest) if number not in known} <= {EPERM}
    assert {answer(machine, number) for number in (newest + 1, 1000, 0x3FFFFFFF)} == {ENOSYS}


@pytest.mark.parametrize("machine", MACHINES)
def test_a_foreign_calling_convention_is_killed(machine: str) -> None:
    """i386's number 21 is mount and ours is access: what is looked up by number must be of one architecture."""
    for architecture in (0x40000003, 0x40000028, *(set(AUDIT.values()) - {AUDIT[machine]})):
        assert answer(machine, NUMBERS[machine]["read"], architecture=architecture) == KILL
    assert answer(machine, 0x40000000 | NUMBERS[machine]["read"]) == KILL  # x32
    assert answer(machine, 0xFFFFFFFF) == KILL


@pytest.mark.parametrize("machine", MACHINES)
@given(data=st.data())
def test_arguments_are_decided_as_the_table_has_it(machine: str, data: st.DataObject) -> None:
    """Whatever the arguments: a call is made exactly if all conditions of one of its lines hold."""
    name = data.draw(st.sampled_from(sorted(name for name in LINES if name in NUMBERS[machine])))
    line = data.draw(st.sampled_from(LINES[name]))
    arguments = [data.draw(st.integers(0, 2**64 - 1)) for _ in range(6)]
    if data.draw(st.booleans()):  # else nearly none would be allowed
        for index, mask, value in line:
            arguments[index] = arguments[index] & ~mask | value
    allowed = any(all(arguments[i] & mask == value for i, mask, value in one) for one in LINES[name])
    assert answer(machine, NUMBERS[machine][name], tuple(arguments)) == (ALLOW if allowed else EPERM)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_attacks_by_argument_are_refused(machine: str) -> None:
    """Typing into a terminal, with and without high bits that the kernel cuts off; a user namespace; a vsock."""
    numbers = NUMBERS[machine]
    assert answer(machine, numbers["ioctl"], (0, 0x5413)) == ALLOW  # TIOCGWINSZ, its neighbour
    assert answer(machine, numbers["ioctl"], (0, 0x5412)) == EPERM
    assert answer(machine, numbers["ioctl"], (0, 0x5412 | 1 << 32)) == EPERM
    assert answer(machine, numbers["clone"], (0x11,)) == ALLOW
    assert answer(machine, numbers["clone"], (0x10000011,)) == EPERM
    assert answer(machine, numbers["socket"], (1, 1, 0)) == ALLOW
    assert answer(machine, numbers["socket"], (40, 1, 0)) == EPERM


# The compiler itself, with any table

WORDS = st.one_of(
    st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 1 << 31, 2**32 - 1, 1 << 32, (1 << 32) + 1, 1 << 63, 2**64 - 1])
)
TESTS = st.one_of(
    st.builds(bpf.Equal, st.integers(0, 5), WORDS, WORDS), st.builds(bpf.AtLeast, st.integers(0, 5), WORDS)
)
ANSWERS = st.one_of(st.just(bpf.ALLOW), st.integers(0, 133).map(bpf.error))


@st.composite
def near(draw: st.DrawFn, tests: list[bpf.Equal | bpf.AtLeast]) -> tuple[int, ...]:
    """Arguments around the borders of *tests*: any others nearly never meet one."""
    arguments = [draw(WORDS) for _ in range(6)]
    for test in tests:
        if isinstance(test, bpf.AtLeast):
            wanted = test.value + draw(st.sampled_from([-(1 << 32), -1, 0, 1, 1 << 32]))
        else:
            wanted = arguments[test.argument] & ~test.mask | test.value
        if draw(st.integers(0, 3)):
            arguments[test.argument] = wanted & bpf.ALL
    return tuple(arguments)


def holds(test: bpf.Equal | bpf.AtLeast, arguments: tuple[int, ...]) -> bool:
    if isinstance(test, bpf.AtLeast):
        return arguments[test.argument] >= test.value
    return arguments[test.argument] & test.mask == test.value


@given(data=st.data())
def test_the_first_rule_that_holds_answers(data: st.DataObject) -> None:
    """Any rules of one call, with any arguments: masks, 64 bits, several tests of a rule, success without the call."""
    rules = data.draw(st.lists(st.tuples(st.lists(TESTS, max_size=3), ANSWERS), max_size=6))
    last = data.draw(ANSWERS)
    machine = data.draw(st.sampled_from(MACHINES))
    program = bpf.program(machine, {"ioctl": [*rules, ((), last)]}, unnamed=bpf.error(1), newer=bpf.error(2))
    of_one = data.draw(st.sampled_from([tests for tests, _ in rules] or [[]]))
    arguments = data.draw(near(of_one))
    wanted = next((said for tests, said in rules if all(holds(test, arguments) for test in tests)), last)
    assert ran(program, NUMBERS[machine]["ioctl"], AUDIT[machine], arguments) == wanted


@pytest.mark.parametrize("machine", MACHINES)
def test_a_number_is_found_however_far_its_answer_lies(machine: str) -> None:
    """Each call has an answer of its own and tests before it, so no jump of the tree is a short one."""
    numbers = NUMBERS[machine]
    calls = {
        name: [([bpf.AtLeast(0, n) for n in (9, 8, 7)], bpf.ALLOW), ((), bpf.error(number))]
        for name, number in numbers.items()
    }
    program = bpf.program(machine, calls, unnamed=bpf.error(4000), newer=bpf.error(4001))
    found = {number: ran(program, number, AUDIT[machine], ()) for number in range(max(numbers.values()) + 1)}
    named = set(numbers.values())
    assert found == {number: bpf.error(number if number in named else 4000) for number in found}
    assert {ran(program, number, AUDIT[machine], (9,)) for number in named} == {bpf.ALLOW}
    assert ran(program, max(named) + 1, AUDIT[machine], ()) == bpf.error(4001)


def test_the_numbers_are_the_kernels() -> None:
    """Each number is given once, and the two tables agree where the kernel has one numbering for all (from 424 on)."""
    for machine, numbers in NUMBERS.items():
        assert len(set(numbers.values())) == len(numbers), machine
        assert set(numbers) <= {*EXPECTED, *LINES}, machine
    one, other = (NUMBERS[machine] for machine in MACHINES)
    new = {name: number for name, number in one.items() if number >= 424}
    assert new == {name: number for name, number in other.items() if number >= 424}
    assert len(new) > 40
    assert (other["read"], other["execve"], other["mseal"]) == (0, 59, 462)


def test_an_architecture_without_a_table_is_refused() -> None:
    """A wall that cannot be built is a refusal that names how to go on without it."""
    with pytest.raises(
        BackendUnavailable, match=r"not riscv64; to go on without it, name seccomp in SandboxSpec.loosen"
    ):
        seccomp.program("riscv64")
