"""kernel.seccomp.load: what it refuses, and that what it loads holds."""

import errno
import os
import socket
import struct
from pathlib import Path

import pytest

from isorun.kernel import seccomp
from tests.unit.forked import after, errno_of, in_child

ALLOW, ERRNO = 0x7FFF_0000, 0x0005_0000
ALLOW_ALL = struct.pack("=HBBI", 6, 0, 0, ALLOW)  # BPF_RET | BPF_K


def except_for(number: int, error: int) -> bytes:
    """A filter that answers one system call with *error* and allows the others."""
    return b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (0x20, 0, 0, 0),  # load the number
            (0x15, 0, 1, number),
            (0x06, 0, 0, ERRNO | error),
            (0x06, 0, 0, ALLOW),
        )
    )


def getcwd_number() -> int:
    return 79 if os.uname().machine == "x86_64" else 17


def test_a_loaded_filter_answers_and_children_inherit_it() -> None:
    """The call gets the filter's answer, in the process and in its child; without the filter it works."""

    def work() -> list[int]:
        return [errno_of(os.getcwd), in_child(lambda: errno_of(os.getcwd))]

    load = after(lambda: seccomp.load(except_for(getcwd_number(), errno.EDOM)))
    assert load(work) == [errno.EDOM, errno.EDOM]
    assert after()(work) == [0, 0]


def test_filters_stack() -> None:
    """A second filter is added to the first and does not replace it."""
    first = except_for(getcwd_number(), errno.EDOM)
    assert after(lambda: seccomp.load(first), lambda: seccomp.load(ALLOW_ALL))(lambda: errno_of(os.getcwd)) == (
        errno.EDOM
    )


def test_the_kernel_says_that_a_filter_is_loaded() -> None:
    """/proc/self/status is what `isolation` is read back from."""

    def work() -> list[str]:
        lines = Path("/proc/self/status").read_text().splitlines()
        return [line.split()[1] for line in lines if line.startswith(("Seccomp:", "Seccomp_filters:"))]

    before, number = after()(work)
    assert before in ("0", "2")
    assert after(lambda: seccomp.load(ALLOW_ALL))(work) == ["2", str(int(number) + 1)]


@pytest.mark.parametrize(
    ("program", "length"),
    [(b"", 0), (ALLOW_ALL[:-1], 7), (ALLOW_ALL * 4097, 32776), (ALLOW_ALL * 65537, 524296)],
)
def test_bytes_that_are_no_filter_are_refused(program: bytes, length: int) -> None:
    """An empty, ragged, or too long program is not loaded; 65537 instructions do not wrap around to one."""
    with pytest.raises(OSError, match=rf"^\[Errno 22\] not a seccomp filter: {length} bytes$"):
        seccomp.load(program)


def test_the_kernels_refusal_is_an_oserror() -> None:
    """A program that the kernel's verifier refuses raises with the kernel's own errno."""

    def work() -> str:
        try:
            seccomp.load(b"\xff" * 8)
        except OSError as exc:
            return str(exc)
        return "loaded"

    assert after()(work) == "[Errno 22] prctl(PR_SET_SECCOMP): Invalid argument"


def test_sockets_work_under_a_filter_that_allows_all() -> None:
    """Control of the tests of the real filters: being filtered alone refuses nothing."""
    work = lambda: errno_of(lambda: socket.socket(socket.AF_INET).close())  # noqa: E731 - one call, with a name
    assert after(lambda: seccomp.load(ALLOW_ALL))(work) == 0
