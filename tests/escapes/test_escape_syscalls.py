"""System calls that open the kernel itself: by name, by argument, and by entries that a filter could miss."""

import platform

import pytest

from tests.escapes.conftest import nothing_is_harmed
from tests.escapes.probing import inside, outside

pytestmark = pytest.mark.usefixtures("unharmed")

#: name: (the call, what the kernel itself answers where the filter is off, or ENOSYS if it has none).
CALLS = {
    "userfaultfd": ("call('userfaultfd', 1)", {"ok", "EPERM"}),  # user-mode only: needs no privilege
    "bpf": ("call('bpf', 0, ctypes.create_string_buffer(8), 8)", {"EINVAL", "EPERM"}),
    "perf": (
        "call('perf_event_open', ctypes.create_string_buffer(128), 0, -1, -1, 0)",
        {"ok", "EACCES", "EINVAL", "ENOENT"},
    ),
    "io_uring": ("call('io_uring_setup', 8, ctypes.create_string_buffer(120))", {"ok", "EPERM"}),
    "io_uring enter": ("call('io_uring_enter', 0, 1, 0, 0, 0, 0)", {"ENOTSUP", "EOPNOTSUPP"}),
    "io_uring register": ("call('io_uring_register', 0, 0, 0, 0)", {"ENOTSUP", "EOPNOTSUPP", "EINVAL"}),
    "keyctl": ("call('keyctl', 0, -3, 1, 0, 0)", {"ok"}),
    "name_to_handle": ("call('name_to_handle_at', AT_FDCWD, b'/usr', HANDLE, MOUNT, 0)", {"ok", "EOVERFLOW"}),
    "open_by_handle": ("call('open_by_handle_at', AT_FDCWD, HANDLE, 0)", {"EPERM", "EINVAL", "ESTALE"}),
    "kcmp": ("call('kcmp', os.getpid(), os.getpid(), 1, 0, 0)", {"ok"}),
    "memfd_secret": ("call('memfd_secret', 0)", {"ok"}),
    "personality": ("call('personality', 0xffffffff)", {"ok"}),
    "fanotify": ("call('fanotify_init', 0x200, 0)", {"ok", "EPERM"}),
    "syslog": ("call('syslog', 10, 0, 0)", {"ok", "EPERM"}),
    "seccomp": ("call('seccomp', 2, 0, (ctypes.c_uint32 * 1)(0x7fff0000))", {"ok"}),
    "quotactl": ("call('quotactl', 0x80000100, 0, 0, 0)", {"ok", "EINVAL"}),
    "modules": ("call('finit_module', 0, b'', 0)", {"EPERM"}),
    "kexec": ("call('kexec_load', 0, 0, 0, 0)", {"EPERM"}),
    "reboot": ("call('reboot', 0, 0, 0, 0)", {"EPERM", "EINVAL"}),
    "swapon": ("call('swapon', b'/tmp/x', 0)", {"EPERM"}),
    "accounting": ("call('acct', b'/tmp/x')", {"EPERM"}),
    "clock": ("call('settimeofday', 0, 0)", {"EPERM", "ok"}),
    "ports": ("call('iopl', 3)", {"EPERM"}),
    "move_pages": ("call('move_pages', 1, 0, 0, 0, 0, 0)", {"EPERM", "ok", "ESRCH"}),
    "migrate_pages": ("call('migrate_pages', 1, 0, 0, 0)", {"EINVAL", "EPERM"}),
}
_BUFFERS = """
import struct
HANDLE = ctypes.create_string_buffer(struct.pack('Ii', 64, 0), 128)
MOUNT = (ctypes.c_int * 1)()
"""


@pytest.fixture(scope="module")
def answers(sealed, without) -> tuple[dict[str, str], dict[str, str]]:
    """Every call of the table once with all walls, and once without the filter."""
    code = _BUFFERS + "answer = {" + ", ".join(f"{k!r}: said({c})" for k, (c, _) in CALLS.items()) + "}"
    found = inside(sealed, code), inside(without("seccomp"), code)
    nothing_is_harmed(sealed)
    return found


@pytest.mark.parametrize("name", CALLS)
def test_the_call_never_reaches_the_kernel(answers, name) -> None:
    """The filter answers EPERM; without it the kernel answers for itself, or refuses for reasons of its
    own."""
    sealed_answers, bare = answers
    if name == "ports" and platform.machine() != "x86_64":
        pytest.skip("iopl: this architecture has no I/O ports")
    assert sealed_answers[name] == "EPERM"
    assert bare[name] in CALLS[name][1] | {"ENOSYS"}


RING = """
import mmap, socket, struct
parameters = ctypes.create_string_buffer(120)
ring = call("io_uring_setup", 8, parameters)
answer = said(ring)
if ring >= 0:
    fields = struct.unpack_from("30I", parameters.raw)
    entries, (sq_tail, sq_mask, sq_array) = fields[0], (fields[11], fields[12], fields[16])
    rings = mmap.mmap(ring, sq_array and fields[16] + entries * 4, mmap.MAP_SHARED, offset=0)
    submissions = mmap.mmap(ring, entries * 64, mmap.MAP_SHARED, offset=0x10000000)
    # IORING_OP_SOCKET: AF_INET, SOCK_STREAM. The filter on socket() never sees it.
    submissions[:64] = struct.pack("=BBHiQQIIQHHiQQ", 45, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    rings[sq_array:sq_array + 4] = struct.pack("I", 0)
    rings[sq_tail:sq_tail + 4] = struct.pack("I", 1)
    call("io_uring_enter", ring, 1, 1, 1, 0, 0)
    completed = mmap.mmap(ring, fields[25] + 32 * fields[1], mmap.MAP_SHARED, offset=0)
    result = struct.unpack_from("i", completed, fields[25] + 8)[0]
    answer = said(result)
"""


def test_a_ring_is_no_way_around_the_filter(sealed, without) -> None:
    """io_uring could make the Internet socket that socket() refuses: no ring can be made. Without the
    filter it does."""
    assert inside(sealed, RING) == "EPERM"
    bare = inside(without("seccomp"), RING)
    assert bare == outside(RING) or bare == "ok"


def test_nothing_is_typed_into_a_terminal(sealed, without) -> None:
    """TIOCSTI and TIOCLINUX are refused, also with high bits set; without the filter the kernel is asked
    (ENOTTY)."""
    code = """
character = ctypes.create_string_buffer(b"x", 8)
asked = [said(call("ioctl", 1, 0x541B, character))]  # FIONREAD, which a pipe does answer
numbers = [0x5412, 0x541C, 0x1_0000_5412, 0xFFFF_FFFF_0000_5412 - (1 << 64)]
answer = [said(call("ioctl", 1, number, character)) for number in numbers] + asked
"""
    assert inside(sealed, code) == ["EPERM"] * 4 + ["ok"]
    assert inside(without("seccomp"), code) == ["ENOTTY"] * 4 + ["ok"]


@pytest.mark.embedded
def test_there_is_no_terminal_to_type_into(sealed) -> None:
    """No run has a controlling terminal or can get one: setsid was called, and there is no tty or pty to
    open."""
    code = """
answer = [reading("/dev/tty"), attempt(lambda: os.openpty()), [os.isatty(n) for n in range(4)],
          open("/proc/self/stat").read().rsplit(") ", 1)[1].split()[4]]
"""
    assert inside(sealed, code) == ["ENOENT", "ENOENT", [False] * 4, "0"]


def test_unknown_numbers_are_not_there(sealed) -> None:
    """A call that was added to the kernel after the table was written is ENOSYS. No control: the table is
    total."""
    assert inside(sealed, "answer = [said(by_number(n)) for n in (463, 470, 500, 511, 600, 100000)]") == ["ENOSYS"] * 6


X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="x86_64 alone has these entries")
MACHINE_CODE = """
import ctypes, mmap
private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
area = mmap.mmap(-1, 4096, flags=private, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
area.write(bytes.fromhex(CODE))
entry = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(area)))
print("calling", flush=True)
print("answer", entry(), flush=True)
"""
#: getpid by the x32 number, by int 0x80, by sysenter's number through int 0x80 for execve's 32-bit number.
ENTRIES = {
    "x32": "b8270000400f05c3",  # mov eax, 0x40000027; syscall; ret
    "32-bit": "b814000000cd80c3",  # mov eax, 20; int 0x80; ret
    "32-bit socket": "b867010000bb02000000b901000000ba00000000cd80c3",  # socketcall-free socket(2)
}


@X86
@pytest.mark.parametrize("entry", ENTRIES)
def test_foreign_entries_kill_the_program(sealed, without, kernel, entry) -> None:
    """Numbers of another calling convention mean other calls, so using one ends the program: SIGSYS, not an errno.

    gVisor takes the 32-bit entries for 64-bit calls of that number, which meet the filter as such.
    """
    code = MACHINE_CODE.replace("CODE", repr(ENTRIES[entry]))
    result = sealed.execute(code)
    if kernel == "gvisor" and entry != "x32":
        answer = {"32-bit": "answer -9\n", "32-bit socket": "answer -38\n"}[entry]  # writev's; none of that number
        assert (result.status, result.stdout) == ("ok", "calling\n" + answer)
    else:
        assert (result.status, result.signal, result.stdout) == ("killed", 31, "calling\n")
        assert result.error.message == "ended by signal 31 (SIGSYS)"
    bare = without("seccomp").execute(code)
    if entry == "x32":
        assert bare.stdout in ("calling\nanswer -38\n", "calling\nanswer 2\n")  # most kernels have no x32
    elif bare.status == "ok":
        assert bare.stdout.startswith("calling\nanswer ")
    else:
        assert bare.signal == 11  # a kernel without 32-bit entry


@X86
def test_a_64_bit_call_from_machine_code_meets_the_filter(sealed, without) -> None:
    """No wrapper is needed to reach the kernel, and none is trusted: raw `syscall` for unshare gives
    -EPERM."""
    code = MACHINE_CODE.replace("CODE", repr("b810010000bf000000100f05c3"))
    assert sealed.execute(code).stdout == "calling\nanswer -1\n"
    assert without("seccomp", "rlimits").execute(code).stdout == "calling\nanswer 0\n"
