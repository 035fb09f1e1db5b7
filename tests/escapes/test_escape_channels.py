"""Ways in which two runs, or a run and the host, could talk without being meant to.

Not tested, because not closed: flock and record locks on a shared read-only file, inotify on
one, timing, caches. `docs/security.md` says so.
"""

import resource
import secrets
import socket
from collections.abc import Iterator

import pytest

from isorun import SyncRuntime
from isorun.backends.namespace.backend import NamespaceBackend, Options
from tests.escapes.probing import RAW_CALLS, inside, outside

pytestmark = pytest.mark.usefixtures("unharmed")

CONNECT = """
import socket
def connect(name):
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(name)
answer = attempt(lambda: connect("\\0" + NAME))
"""
_HOLD = "\nimport time\nprint('up', flush=True)\ntime.sleep(60)\n"


def _beside(runtime: SyncRuntime, holding: str, attack: str) -> object:
    """The answer of *attack* while a neighbour's *holding* is in effect."""
    other = runtime.start("from raw_calls import *\n" + holding + _HOLD, inputs=[RAW_CALLS])
    events = other.events()
    while next(events).kind != "output":
        pass
    try:
        return inside(runtime, attack)
    finally:
        assert other.cancel().status == "cancelled"


def test_an_abstract_socket_of_the_host_is_out_of_reach(sealed) -> None:
    """A name that the host listens on is refused inside: each slot has names of its own (network
    namespace)."""
    name = f"isorun-escape-test-{secrets.token_hex(8)}"  # the other half of CI may listen, too
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        code = CONNECT.replace("NAME", repr(name))
        assert inside(sealed, code) == "ECONNREFUSED"
        assert outside(code) == "ok"


def test_an_abstract_socket_of_another_run_is_out_of_reach(sealed, without) -> None:
    """Two slots do not share abstract names; with one network for both and no Landlock they do."""
    name = f"between-{secrets.token_hex(8)}"  # one network for both is the host's
    holding = f"""
import socket
listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0{name}")
listener.listen()
"""
    code = CONNECT.replace("NAME", repr(name))
    assert _beside(sealed, holding, code) == "ECONNREFUSED"
    assert _beside(without("network", "landlock"), holding, code) == "ok"


@pytest.mark.parametrize("off", [("seccomp",), ("seccomp", "landlock")])
def test_system_v_ipc_stays_in_the_slot(sealed, without, off) -> None:
    """The calls are not there (ENOSYS); without the filter each slot has keys of its own, by namespace."""
    make = "call('shmget', 77, 4096, 0o1666); call('semget', 77, 1, 0o1666); call('msgget', 77, 0o1666)"
    look = "answer = [said(call(name, 77, 0, 0)) for name in ('shmget', 'semget', 'msgget')]"
    assert inside(sealed, look) == ["ENOSYS"] * 3
    assert _beside(without(*off), make, look) == ["ENOENT"] * 3
    assert _beside(without("ipc", *off), make, look) == ["ok"] * 3


def test_posix_ipc_stays_in_the_slot(sealed, without) -> None:
    """A queue has no call to open it; shared memory and semaphores live in the slot's own /dev/shm."""
    make = "call('mq_open', b'between', 0o102, 0o666, 0); open('/dev/shm/between', 'w').close()"
    look = "answer = [said(call('mq_open', b'between', 0, 0, 0)), reading('/dev/shm/between')]"
    assert inside(sealed, "open('/dev/shm/between', 'w').close(); answer = 1") == 1
    assert _beside(sealed, make, look) == ["ENOSYS", "ENOENT"]
    assert _beside(without("seccomp"), make, look) == ["ENOENT", "ENOENT"]
    # RLIMIT_MSGQUEUE is zero too, so that no queue could be made in the first place.
    assert _beside(without("seccomp", "ipc"), make, look) == ["ENOENT", "ENOENT"]
    assert _beside(without("seccomp", "ipc", "rlimits", "landlock"), make, look) == ["ok", "ENOENT"]


LEASES = """
import fcntl
def control(command, argument, path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return said(by_number(NUMBER, descriptor, command, argument))
    finally:
        os.close(descriptor)
NUMBER = 25 if ARM else 72
open("/tmp/own", "w").close()
answer = [control(1024, 0, "/tmp/own"), control((1 << 32) + 1024, 0, "/tmp/own"), control(1026, 1, "/tmp"),
          control(1026, 1, "/usr/bin"), control(1025, 0, "/tmp/own"), control(1, 0, "/tmp/own")]
"""


def test_leases_and_directory_notices_are_refused(sealed, without, kernel) -> None:
    """F_SETLEASE and F_NOTIFY tell of others' opens: refused, also with the high bits set; F_GETFD still
    works."""
    asked = {"linux": "ok", "gvisor": "EINVAL"}[kernel]  # F_GETLEASE: gVisor has no leases
    assert inside(sealed, LEASES) == ["EPERM", "EPERM", "EPERM", "EPERM", asked, "ok"]
    assert inside(without("seccomp"), LEASES) == ["ok"] * 6


KEYS = """
added = call("add_key", b"user", b"between", b"payload", 7, KEYRING)
found = call("keyctl", 10, KEYRING, b"user", b"between", 0)
answer = [said(added), said(found), said(call("request_key", b"user", b"between", 0, 0)),
          said(call("keyctl", 0, -4, 0, 0, 0))]
"""


def test_keyrings_are_refused(sealed, without) -> None:
    """add_key, keyctl and request_key are refused; without the filter the kernel keeps a key for us."""
    code = KEYS.replace("KEYRING", "-4")  # the user's keyring, shared by all processes of a uid in one namespace
    assert inside(sealed, code) == ["EPERM"] * 4
    assert inside(without("seccomp"), KEYS.replace("KEYRING", "-2"))[:2] == ["ok", "ok"]


@pytest.mark.embedded
def test_a_user_keyring_is_a_slots_own(without) -> None:
    """By namespace and not by filter alone: what one run adds to its uid's keyring the next does not find."""
    runtime = without("seccomp")
    look = 'answer = said(call("keyctl", 10, -4, b"user", b"between", 0))'
    inside(runtime, KEYS.replace("KEYRING", "-4"))
    assert inside(runtime, look) == "ENOKEY"


def test_a_signal_cannot_be_sent_through_a_descriptor(sealed) -> None:
    """F_SETOWN towards a process outside is refused, so no SIGIO leaves the run; an own child may be
    named."""
    code = """
import fcntl, socket
one, two = socket.socketpair()
pid = os.fork()
if pid == 0:
    import time
    time.sleep(30)
answer = [attempt(lambda: fcntl.fcntl(one, 8, number)) for number in (pid, 4000000, -4000000)]
os.kill(pid, 9)
"""
    assert inside(sealed, code) == ["ok", "ESRCH", "ESRCH"]


@pytest.fixture
def modest(ceilings, tmp_path) -> Iterator[SyncRuntime]:
    """A runtime started by a process whose soft limit of descriptors is below a program's own."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        options = Options(use_cgroup=ceilings == "cgroup")
        with SyncRuntime(backend=NamespaceBackend(options), pool_size=0, workspace_root=tmp_path) as runtime:
            yield runtime
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


HOARD = """
import os, socket
held, null, refused = [], os.open("/dev/null", os.O_RDONLY), 0
try:
    for _ in range(100):
        pair = socket.socketpair()
        held.append(pair)
        pair[0].setblocking(False)
        for _ in range(4):
            socket.send_fds(pair[0], [b"x"], [null] * 253)
except OSError as error:
    refused = error.errno
assert refused == 109, refused  # ETOOMANYREFS: the kernel lets this uid send no more
"""


@pytest.mark.root
def test_the_neighbour_of_a_descriptor_hoarder_can_be_built(modest) -> None:
    """Descriptors in flight are counted per uid, the jail's included: who holds all it may stops no new slot.

    As root only: an ordinary user's own process is counted too (docs/security.md). The
    control is the hoarder itself, which is refused any more.
    """
    assert _beside(modest, HOARD, "answer = 6 * 7") == 42


LIMITS = "import resource; answer = resource.getrlimit(resource.RLIMIT_NOFILE)"


def test_the_neighbour_of_a_descriptor_hoarder_starts(sealed) -> None:
    """In a container too, where pid 1 is ours and of the program's uid: it may have more on their way than a program.

    The program itself has its own limit, soft and hard. The control is the hoarder, which is refused any more.
    """
    assert inside(sealed, LIMITS) == [sealed.limits.open_files] * 2
    assert _beside(sealed, HOARD, LIMITS) == [sealed.limits.open_files] * 2


REOPENED = """
import fcntl
own = os.open("/dev/stdout", os.O_RDWR | os.O_NONBLOCK)
answer = [attempt(lambda: os.read(own, 100)), attempt(lambda: os.fchmod(own, 0)),
          attempt(lambda: fcntl.fcntl(own, 1031, 1 << 24))]
"""


def test_its_own_streams_opened_again_lead_to_itself(sealed) -> None:
    """A program that opens its output pipe to read has nothing to read but its own words, makes it no larger, and
    its run ends as every run does, also if a child holds both ends."""
    read, _, larger = inside(sealed, REOPENED)
    assert (read, larger) == ("EAGAIN", "EPERM")
    left_open = "import os\nif os.fork() == 0:\n    os.open('/dev/stdout', os.O_RDWR); import time; time.sleep(60)\n"
    after = sealed.execute(left_open + "print('first', flush=True); os._exit(0)", timeout_s=10)
    assert (after.stdout, after.status) == ("first\n", "ok")
