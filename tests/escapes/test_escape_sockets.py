"""What the sockets that a program holds tell of a network: none may be the host's, the tool stream and its successor
included.

A socket belongs to the network namespace in which it was made, whoever holds it: it lists that namespace's interfaces,
takes abstract names in it, and finds who listens there.
"""

import json
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.escapes.attacking import processes_inside
from tests.escapes.probing import RAW_CALLS, inside, outside

pytestmark = pytest.mark.usefixtures("unharmed")

#: Every descriptor that is a socket, and whether it is of the namespace that a new socket is made in.
HELD = """
import array, fcntl, socket, stat, struct
SO_NETNS_COOKIE = 71
def cookie(held):
    return struct.unpack("Q", held.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0]
def held_sockets():
    listed = os.listdir("/proc/self/fd")
    kept = [int(name) for name in listed if os.path.exists("/proc/self/fd/" + name)]  # not the listing's own
    return [socket.socket(fileno=os.dup(n)) for n in kept if stat.S_ISSOCK(os.fstat(n).st_mode)]
def foreign():
    own = cookie(socket.socket(socket.AF_UNIX))
    return [cookie(s) == own for s in held_sockets()]
def stream():
    return socket.socket(fileno=os.dup(3))
def interfaces(held):
    room = array.array("B", bytes(4096))
    asked = struct.pack("iL", len(room), room.buffer_info()[0])
    length = struct.unpack("iL", fcntl.ioctl(held, 0x8912, asked))[0]
    return sorted({bytes(room[n:n + 16]).split(b"\\0")[0].decode() for n in range(0, length, 40)})
def name_of(held, number):
    try:
        return fcntl.ioctl(held, 0x8910, struct.pack("16si16s", b"", number, b""))[:16].split(b"\\0")[0].decode()
    except OSError:
        return ""
"""
ASKED = f"{HELD}\nanswer = [foreign(), interfaces(stream()), [name_of(stream(), n) for n in range(1, 40)]]"


@pytest.mark.embedded
def test_every_socket_is_of_the_programs_own_network(sealed, without) -> None:
    """The tool stream is the only socket, and its namespace is the one that a new socket is made in. The control
    shares the host's network."""
    assert inside(sealed, f"{HELD}\nanswer = foreign()") == [True]
    both = f"{HELD}\nanswer = cookie(stream())"
    ours = outside(f"{HELD}\nanswer = cookie(socket.socket(socket.AF_UNIX))")
    assert inside(sealed, both) != inside(sealed, both) != ours
    assert inside(without("network", "landlock"), both) == ours


@pytest.mark.embedded
def test_the_tool_stream_lists_no_interface(sealed, without) -> None:
    """Each of two layers: the filter answers ENOTTY, and without it the stream knows a loopback that is down. The
    control, in the host's network, has the host's list."""
    refused = f"{HELD}\nanswer = [attempt(lambda: interfaces(stream())), attempt(lambda: fcntl.ioctl(3, 0x8B01, b''))]"
    assert inside(sealed, refused) == ["ENOTTY", "ENOTTY"]
    held, listed, names = inside(without("seccomp"), ASKED)
    assert (held, listed, [name for name in names if name]) == ([True], [], ["lo"])
    shared = inside(without("seccomp", "network", "landlock"), ASKED)[1:]
    own = "def stream(): return socket.socket(socket.AF_UNIX)"
    assert shared == outside(ASKED.replace("answer = ", f"{own}\nanswer = "))[1:]
    assert "lo" in shared[1]


@pytest.mark.parametrize("network", ["none", "loopback"])
def test_every_backend_keeps_to_that(sealed, network) -> None:
    """In a container, too: one socket, of the namespace that a new one is made in, and no ioctl of either family."""
    code = f"""{HELD}
calls = (0x8910, 0x8912, 0x8927, 0x8946, 0x894C, 0x8B01)
answer = [foreign(), sorted({{attempt(lambda: fcntl.ioctl(3, number, bytes(40))) for number in calls}})]
"""
    assert inside(sealed, code, network=network) == [[True], ["ENOTTY"]]


def _bind(name: str) -> str:
    return f"{HELD}\nanswer = attempt(lambda: stream().bind('\\0{name}'))\n"


def _is_listed(name: str) -> bool:
    return f"@{name}" in Path("/proc/net/unix").read_text()


@pytest.mark.embedded
@pytest.mark.parametrize("network", ["none", "loopback"])
def test_no_name_is_taken_outside(sealed, without, network) -> None:
    """An abstract name that is bound on the tool stream is not seen on the host, and a second run may bind it too.
    The control shares the host's network: its name is seen there, and is taken for the next."""
    name = f"isorun-test-{uuid.uuid4()}"
    wait = "print(json.dumps(answer), flush=True)\nimport time; time.sleep(60)\n"
    for walls, seen, second in (((), False, "ok"), (("network", "landlock"), True, "EADDRINUSE")):
        runtime = without(*walls)
        run = runtime.start(
            "import os, sys, json\nfrom raw_calls import *\n" + _bind(name) + wait,
            inputs=[RAW_CALLS],
            timeout_s=20,
            network=network,
        )
        said = next(event.data["text"] for event in run.events() if event.kind == "output")
        assert json.loads(said) == "ok"
        assert _is_listed(name) is seen
        assert inside(runtime, _bind(name), network=network) == second
        assert run.cancel().status == "cancelled"


@pytest.fixture
def listening() -> Iterator[str]:
    """An abstract name on which the host listens."""
    name = f"isorun-test-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        yield name


@pytest.mark.embedded
def test_nobody_tells_who_listens_on_the_host(sealed, without, listening) -> None:
    """`connect` on the tool stream gives one answer for a name of the host's and for none. The control tells them
    apart."""
    code = f"""{HELD}
answer = [attempt(lambda: stream().connect('\\0' + name)) for name in ({listening!r}, 'isorun-test-nobody')]
"""
    assert inside(sealed, code) == ["ECONNREFUSED", "ECONNREFUSED"]
    assert inside(without("network", "landlock"), code) == ["EISCONN", "ECONNREFUSED"]


@pytest.mark.embedded
def test_the_namespace_itself_is_not_handed_out(sealed, without) -> None:
    """SIOCGSKNS, which opens a socket's network namespace, is refused; SO_PEERPIDFD on the stream is its own maker."""
    code = f"""{HELD}
peer = struct.unpack("3i", stream().getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
answer = [attempt(lambda: fcntl.ioctl(3, 0x894C)), peer == os.getpid()]
"""
    assert inside(sealed, code) == ["ENOTTY", True]
    assert inside(without("seccomp"), code) == ["EPERM", True]


@pytest.mark.embedded
def test_children_and_copies_hold_nothing_else(sealed) -> None:
    """What a child of fork, a new program image and a socket that came by SCM_RIGHTS hold is of the same namespace."""
    code = f"""{HELD}
import json, subprocess
def in_child(work):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, json.dumps(work()).encode())
        os._exit(0)
    os.wait()
    return json.loads(os.read(reader, 65536))
one, two = socket.socketpair()
socket.send_fds(one, [b"x"], [3])
_, received, _, _ = socket.recv_fds(two, 1, 1)
again = cookie(socket.socket(fileno=received[0])) == cookie(one)
program = "import os; held = '/proc/self/fd/'; print([n for n in os.listdir(held) if os.path.exists(held + n)])"
image = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
answer = [again, in_child(foreign), image]
"""
    again, child, image = inside(sealed, code)
    assert (again, set(child), image) == (True, {True}, "['0', '1', '2']\n")


@pytest.mark.embedded
def test_init_holds_nothing(sealed) -> None:
    """Init has no descriptor at all, so none of the host's. Only root may list those of what is not dumpable."""
    run = sealed.start("import time; print('up', flush=True); time.sleep(60)")
    next(event for event in run.events() if event.kind == "output")
    inits = [pid for pid in processes_inside() if _inside_number(pid) == "1"]
    listed = [_descriptors_of(pid) for pid in inits]
    run.cancel()
    assert listed
    assert listed == [[] if os.geteuid() == 0 else None] * len(inits)


def _descriptors_of(pid: int) -> list[str] | None:
    try:
        return os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        return None


def _inside_number(pid: int) -> str:
    text = Path(f"/proc/{pid}/status").read_text()
    return next(line.split()[-1] for line in text.splitlines() if line.startswith("NSpid:"))


RESTARTED = f"""{HELD}
def called(tool, **params):
    try:
        return agent_io_tools.tool_call_sync(tool_id=tool, params=params)
    except Exception as error:
        return type(error).__name__
before = [foreign(), cookie(stream())]
died = called("bad.ends", how="SIGKILL")
while (added := called("good.add", a=40, b=2)) != 42:
    pass
answer = [died, added, before[0], foreign(), before[1] == cookie(stream())]
"""


@pytest.mark.embedded
def test_the_stream_that_follows_a_dead_supervisor_is_the_programs_own_too(doomed) -> None:
    """It answers calls, and is of the namespace that the first was of."""
    assert inside(doomed, RESTARTED) == ["ToolUnavailable", 42, [True], [True], True]
