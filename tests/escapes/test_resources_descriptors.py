"""Resources: descriptors, and the pools of the kernel that all processes of one user share."""

import resource
from dataclasses import replace

import pytest

from tests.escapes.attacking import attack, ended
from tests.escapes.conftest import ROOMY, SMALL

pytestmark = [pytest.mark.usefixtures("unharmed"), pytest.mark.alone]

TAKE = """
import ctypes, os, socket, tempfile
libc = ctypes.CDLL(None, use_errno=True)
def inotify():
    taken = libc.inotify_init1(0)
    if taken < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return taken
held = []
while len(held) < {most}:
    held.append({take})
print(len(held))
"""


@pytest.mark.parametrize(
    "take",
    [
        pytest.param("os.open('/dev/null', os.O_RDONLY)", id="file"),
        pytest.param("os.pipe()", id="pipe"),
        pytest.param("os.eventfd(0)", id="eventfd"),
        pytest.param("inotify()", id="inotify"),
        pytest.param("socket.socketpair()", id="socket"),
    ],
)
def test_descriptors_end_at_their_limit(sealed, without, take) -> None:
    """Each kind of descriptor runs out for the program alone, with an error that it can read."""
    result = attack(sealed, TAKE.format(most=10**6, take=take))
    status, code, message = ended(result)
    assert (status, code) == ("failed", "program_error")
    assert message.startswith("the program raised OSError: [Errno 24] Too many open files")
    assert result.error.hint == "close what is no longer used, or raise ISORUN_MAX_OPEN_FILES"
    # Control: with room for them, the same program gets 300 (of inotify 30, with the rlimits off).
    room = without("rlimits", limits=ROOMY)
    most = 30 if take == "inotify()" else 300
    assert room.execute(TAKE.format(most=most, take=take)).stdout == f"{most}\n"


def beside(runtime, holder: str, neighbour: str) -> tuple[str, str]:
    """What *neighbour* prints while *holder* holds what it took, and what *holder* printed."""
    run = runtime.start(holder + "\nimport time; time.sleep(30)")
    for event in run.events():
        if event.kind == "output":
            break
    said = runtime.execute(neighbour, timeout_s=5).stdout
    return said, run.cancel().stdout


INOTIFY = (
    "try:\n"
    + "".join(f"    {line}\n" for line in TAKE.format(most=10**6, take="inotify()").splitlines() if line)
    + "except OSError as error:\n    print(len(held), error.strerror, flush=True)\n"
)


@pytest.mark.embedded
def test_inotify_held_by_one_run_is_not_missing_in_another(sealed, without) -> None:
    """The 128 instances of a user are shared by all slots, so one slot gets a few of them only."""
    took = "16 Too many open files\n"
    assert beside(sealed, INOTIFY, INOTIFY) == (took, took)
    # Control: without that limit one run takes them all.
    said, _ = beside(without("rlimits"), INOTIFY, INOTIFY)
    assert said == "0 Too many open files\n"


IN_FLIGHT = """
import os, socket
null = os.open("/dev/null", os.O_RDONLY)
held, sent = [], 0
try:
    while True:
        pair = socket.socketpair()
        held.append(pair)
        pair[0].setblocking(False)
        try:
            while True:
                socket.send_fds(pair[0], [b"x"], [null] * 50)
                sent += 50
        except BlockingIOError: pass
except OSError as error:
    print(error.strerror, sent > 200, flush=True)
"""


def test_descriptors_in_flight_stop_no_slot_from_being_built(sealed, without, kernel) -> None:
    """A run that leaves as many descriptors as it may on their way keeps nobody from starting another.

    The kernel counts them per user and refuses a sender by its own limit, so what builds slots
    must have a higher one than a program.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))  # as on a host that was set up by nobody
    try:
        runtime = without(limits=replace(SMALL, open_files=512))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    said, held = beside(runtime, IN_FLIGHT, "print('built')")
    refused = {"linux": "Too many references: cannot splice True\n", "gvisor": ""}[kernel]
    assert (said, held) == ("built\n", refused)
    # Control: the sender itself was refused. (Between two programs the pool is still shared; gVisor's is its own.)


def test_epoll_and_timers_end_at_the_limits_of_their_process(sealed, kernel) -> None:
    """Watches need descriptors and timers count as pending signals: both are bounded; gVisor's timers by its memory."""
    code = """
import ctypes, os, select
epolls, files = [], []
try:
    while True: epolls.append(select.epoll()); files.append(os.eventfd(0))
except OSError as error: print(error.strerror)
libc = ctypes.CDLL(None, use_errno=True)
timer, made = ctypes.c_void_p(), 0
while libc.timer_create(1, None, ctypes.byref(timer)) == 0: made += 1
print(os.strerror(ctypes.get_errno()), 0 < made <= 1024)
"""
    result = attack(sealed, code)
    timers = {"linux": ("ok", "Resource temporarily unavailable True\n"), "gvisor": ("out_of_memory", "")}[kernel]
    assert (result.status, result.stdout) == (timers[0], f"Too many open files\n{timers[1]}")
    # Control: some of each were made before.
