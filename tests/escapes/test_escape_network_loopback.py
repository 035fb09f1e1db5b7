"""A run with loopback: what its sockets reach, of whom, and what else of the kernel's networking is there."""

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.escapes.conftest import nothing_is_harmed
from tests.escapes.probing import RAW_CALLS, inside, outside
from tests.escapes.test_escape_network import FAMILIES

pytestmark = pytest.mark.usefixtures("unharmed")

LOOPBACK = {"network": "loopback"}
OPEN = {"AF_INET", "AF_INET datagrams", "AF_INET6"}
RAW = {"AF_INET raw", "AF_INET6 raw"}
#: Of AF_INET: kind and protocol.
PROTOCOLS = {
    "ICMP by datagrams": (2, 1),
    "UDP-Lite": (2, 136),
    "MPTCP": (1, 262),
    "SCTP": (1, 132),
    "SCTP packets": (5, 132),
    "DCCP": (6, 33),
    "L2TP": (2, 115),
    "SMC": (1, 256),
    "raw": (3, 255),
}


def test_tcp_and_udp_are_there_and_nothing_else(sealed, without) -> None:
    """Sockets of both versions, by TCP and UDP, are made; other protocols, raw sockets and families are refused, also
    with bits above 32 set. Without the filter some of them are there."""
    code = f"""
answer = {{name: said(call('socket', f, k, p)) for name, (f, k, p) in {FAMILIES}.items()}}
answer |= {{name: said(call('socket', 2, k, p)) for name, (k, p) in {PROTOCOLS}.items()}}
answer["high bits"] = said(call('socket', (1 << 32) + 2, 1, 0))
answer["flags"] = said(call('socket', 2, 1 | 0x80800, 6))
"""
    wanted = {name: "ok" if name in OPEN else "EAFNOSUPPORT" for name in FAMILIES}
    wanted |= dict.fromkeys([*PROTOCOLS, *RAW], "EPROTONOSUPPORT")
    assert inside(sealed, code, **LOOPBACK) == {**wanted, "high bits": "EAFNOSUPPORT", "flags": "ok"}
    bare = inside(without("seccomp"), code, **LOOPBACK)
    assert (bare["AF_NETLINK"], bare["high bits"]) == ("ok", "ok")
    assert (bare["raw"], bare["AF_PACKET"]) == ("EPERM", "EPERM")  # no capability either


@pytest.fixture
def listeners() -> Iterator[tuple[int, int, list[str]]]:
    """A TCP and a UDP server on the host's loopback: their ports, and who was heard."""
    heard: list[str] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(("127.0.0.1", 0))

        def accept() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return
                heard.append("tcp")

        def receive() -> None:
            while datagrams.recv(64) != b"end":
                heard.append("udp")

        threads = [threading.Thread(target=one) for one in (accept, receive)]
        for thread in threads:
            thread.start()
        port = datagrams.getsockname()
        yield server.getsockname()[1], port[1], heard
        server.shutdown(socket.SHUT_RDWR)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"end", port)
        for thread in threads:
            thread.join()


def _reaching(tcp: int, udp: int) -> str:
    return f"""
import socket
def connect(host):
    socket.create_connection((host, {tcp}), 2).close()
def send(host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.connect((host, {udp}))
        channel.send(b"from inside")
        channel.settimeout(0.2)
        channel.recv(1)
hosts = ("127.0.0.1", "localhost", "0.0.0.0", "127.9.9.9")
answer = [attempt(lambda: connect(host)) for host in hosts], [attempt(lambda: send(host)) for host in hosts[:1]]
"""


def test_the_hosts_loopback_is_another_one(sealed, without, listeners) -> None:
    """Servers on the host's 127.0.0.1 hear nothing of a run with loopback; in the host's network they do."""
    tcp, udp, heard = listeners
    refused = inside(sealed, _reaching(tcp, udp), **LOOPBACK)
    assert refused == [["ECONNREFUSED"] * 4, ["ECONNREFUSED"]]
    assert heard == []
    shared = inside(without("network"), _reaching(tcp, udp), **LOOPBACK)
    assert (shared[0][:3], shared[1]) == (["ok"] * 3, ["timed out"])  # the server answers nothing
    assert set(heard) == {"tcp", "udp"}


SERVER = """
import socket, time
with socket.create_server(("127.0.0.1", 0)) as server:
    print(json.dumps(server.getsockname()[1]), flush=True)
    server.settimeout(20)
    server.accept()
    print("somebody came", flush=True)
    time.sleep(20)  # it stays taken
"""


def test_two_runs_do_not_meet(sealed, without) -> None:
    """What one run listens on is free in another, and a connection to it is refused. In one network, it is taken."""
    code = """
import socket
answer = [attempt(lambda: socket.create_connection(("127.0.0.1", PORT), 2).close()),
          attempt(lambda: socket.create_server(("127.0.0.1", PORT)).close())]
"""
    for runtime, wanted in ((sealed, ["ECONNREFUSED", "ok"]), (without("network"), ["ok", "EADDRINUSE"])):
        run = runtime.start(f"import json\n{SERVER}", timeout_s=20, **LOOPBACK)
        port = next(json.loads(event.data["text"]) for event in run.events() if event.kind == "output")
        assert inside(runtime, code.replace("PORT", str(port)), **LOOPBACK) == wanted
        if wanted[0] == "ok":  # the server may say so after its client has ended
            next(event for event in run.events() if "somebody came" in event.data.get("text", ""))
        result = run.cancel()
        assert ("somebody came" in result.stdout) is (wanted[0] == "ok")


ADDRESSES = """
import socket
def reach(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as channel:
        channel.settimeout(2)
        channel.connect(address)
def send(family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as channel:
        channel.sendto(b"x", address)
def bind(family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as channel:
        channel.bind(address)
v4, v6 = socket.AF_INET, socket.AF_INET6
answer = [attempt(lambda: reach(v4, ("169.254.169.254", 80))), attempt(lambda: reach(v4, ("10.0.0.1", 80))),
          attempt(lambda: send(v4, ("8.8.8.8", 53))), attempt(lambda: send(v4, ("224.0.0.1", 5353))),
          attempt(lambda: reach(v6, ("fd00:ec2::254", 80))), attempt(lambda: send(v6, ("2001:4860:4860::8888", 53))),
          attempt(lambda: reach(v6, ("::ffff:8.8.8.8", 80))), attempt(lambda: send(v6, ("ff02::1", 5353)))]
elsewhere = [attempt(lambda: send(v4, ("255.255.255.255", 67))), attempt(lambda: bind(v4, ("10.0.0.1", 0)))]
"""


def test_nothing_leads_out(sealed, kernel) -> None:
    """The metadata address, private ranges, DNS, multicast and IPv6: there is no way to any of them.

    The control is the same call to an address of its own, which arrives.
    """
    answer = inside(sealed, ADDRESSES + "\nanswer = [answer, elsewhere]", **LOOPBACK)
    unreachable = {"ENETUNREACH", "EADDRNOTAVAIL"} if kernel == "linux" else {"EHOSTUNREACH", "ENETUNREACH"}
    assert set(answer[0]) <= unreachable, answer
    assert "ok" not in answer[1]
    own = """
import socket
server = socket.create_server(("127.0.0.1", 0))
answer = attempt(lambda: socket.create_connection(("::ffff:127.0.0.1", server.getsockname()[1])).close())
"""
    assert inside(sealed, own, **LOOPBACK) == "ok"


@pytest.mark.linux
def test_lo_is_all_there_is(sealed) -> None:
    """One interface, its address, and no route; the isolation says so, too."""
    code = """
lines = open("/proc/self/net/dev").read().splitlines()
answer = [[line.split(":")[0].strip() for line in lines if ":" in line],
          open("/proc/self/net/route").read().splitlines()[1:],
          sorted({line.split()[-1] for line in open("/proc/self/net/ipv6_route").read().splitlines()})]
"""
    assert inside(sealed, code, **LOOPBACK) == [["lo"], [], ["lo"]]
    assert outside(code)[0] != ["lo"]


def test_nobody_changes_the_network(sealed, without) -> None:
    """No address or route can be added: a socket's ioctls are refused, and netlink is not there. Without the filter
    the kernel refuses who has no capability, and lists interfaces."""
    code = """
import fcntl, socket
channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
calls = {"SIOCSIFFLAGS": 0x8914, "SIOCSIFADDR": 0x8916, "SIOCADDRT": 0x890B, "SIOCGIFCONF": 0x8912}
of_lo = b"lo".ljust(64, bytes(1))
answer = {name: attempt(lambda: fcntl.ioctl(channel, number, of_lo)) for name, number in calls.items()}
"""
    assert set(inside(sealed, code, **LOOPBACK).values()) == {"ENOTTY"}
    bare = inside(without("seccomp"), code, **LOOPBACK)
    assert (bare["SIOCSIFFLAGS"], bare["SIOCADDRT"]) == ("EPERM", "EPERM")


#: Level, number and value of options; what each would be used for is in `backends.loopback`.
REFUSED = {
    "SO_ATTACH_FILTER": (1, 26, 4),
    "SO_ATTACH_BPF": (1, 50, 4),
    "SO_ATTACH_REUSEPORT_CBPF": (1, 51, 4),
    "SO_ATTACH_REUSEPORT_EBPF": (1, 52, 4),
    "SO_ZEROCOPY": (1, 60, 4),
    "SO_RESERVE_MEM": (1, 73, 4),
}
ABSENT = {
    "TCP_CONGESTION": (6, 13, b"reno"),
    "TCP_MD5SIG": (6, 14, 216),
    "TCP_REPAIR": (6, 19, 4),
    "TCP_FASTOPEN": (6, 23, 4),
    "TCP_FASTOPEN_CONNECT": (6, 30, 4),
    "TCP_ULP": (6, 31, b"tls"),
    "IPT_SO_SET_REPLACE": (0, 64, 64),
    "IP_ADD_MEMBERSHIP": (0, 35, b"\xe0\0\0\x01\x7f\0\0\x01"),
    "MCAST_MSFILTER": (0, 48, 144),
    "IPV6_FLOWLABEL_MGR": (41, 32, 32),
    "SOL_UDP's UDP_ENCAP": (17, 100, 4),
    "of SOL_MPTCP": (284, 1, 4),
    "of SOL_TLS": (282, 1, 40),
}


@pytest.mark.parametrize("family", [2, 10])
def test_most_options_are_refused(sealed, without, family) -> None:
    """Options that are memory of no process, or more of the kernel, are refused, and those of every server are there.
    Without the filter, some of the refused are set."""
    code = f"""
import socket
def put(level, name, value):
    with socket.socket({family}, socket.SOCK_STREAM) as channel:
        channel.setsockopt(level, name, bytes([1] + [0] * (value - 1)) if isinstance(value, int) else value)
answer = [{{name: attempt(lambda: put(*option)) for name, option in some.items()}} for some in ({REFUSED}, {ABSENT})]
usual = [(1, 2, 4), (1, 9, 4), (1, 15, 4), (1, 13, 8), (6, 1, 4), (6, 4, 4), (0, 1, 4)]
answer.append([attempt(lambda: put(*option)) for option in usual + [(41, 26, 4)] * ({family} == 10)])
"""
    refused, absent, usual = inside(sealed, code, **LOOPBACK)
    assert refused == dict.fromkeys(REFUSED, "EPERM")
    assert absent == dict.fromkeys(ABSENT, "ENOPROTOOPT")
    assert set(usual) == {"ok"}
    bare = inside(without("seccomp"), code, **LOOPBACK)
    assert bare[1]["TCP_CONGESTION"] == "ok"


#: What a socket says of the size of its buffer before and after a program has set it.
SIZES = """
import itertools, socket
answer = {}
for family, option in itertools.product((1, 2, 10), (7, 8)):
    with socket.socket(family, socket.SOCK_STREAM) as channel:
        before = channel.getsockopt(1, option)
        channel.setsockopt(1, option, 4608)
        answer[f"{family} {option}"] = [before, channel.getsockopt(1, option)]
"""


@pytest.fixture(scope="module")
def answers(sealed, without) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Every size once with all walls, and once without the filter."""
    found = inside(sealed, SIZES, **LOOPBACK), inside(without("seccomp"), SIZES, **LOOPBACK)
    nothing_is_harmed(sealed)
    return found


@pytest.mark.parametrize("family", [1, 2, 10])
@pytest.mark.parametrize("option", [7, 8], ids=["SO_SNDBUF", "SO_RCVBUF"])
def test_the_size_of_a_buffer_stays(answers, family, option) -> None:
    """It is answered as if it were set, because servers set it, and it is not. Without the filter it is."""
    sealed_answers, bare = (given[f"{family} {option}"] for given in answers)
    assert sealed_answers[1] == sealed_answers[0]
    assert bare[1] == 9216  # the kernel doubles it


@pytest.mark.embedded
def test_the_tool_stream_is_what_it_was(sealed) -> None:
    """Of AF_UNIX, of the run's own network, and refused the calls that would name an interface."""
    code = """
import fcntl, socket, struct
stream = socket.socket(fileno=os.dup(3))
def cookie(held):
    return struct.unpack("Q", held.getsockopt(socket.SOL_SOCKET, 71, 8))[0]
answer = [stream.family == socket.AF_UNIX, cookie(stream) == cookie(socket.socket(socket.AF_INET)),
          attempt(lambda: fcntl.ioctl(3, 0x8912, bytes(64)))]
"""
    assert inside(sealed, code, **LOOPBACK) == [True, True, "ENOTTY"]


def test_the_next_run_has_none(sealed) -> None:
    """Loopback is of the run that asked for it: the one after it is refused every such socket, and both are told so."""
    code = "import socket\nanswer = attempt(lambda: socket.socket().close())"
    assert [inside(sealed, code, **LOOPBACK), inside(sealed, code)] == ["ok", "EAFNOSUPPORT"]
    results = [sealed.execute("pass", inputs=[RAW_CALLS], **options) for options in (LOOPBACK, {})]
    assert [result.isolation["walls"]["network"] for result in results] == ["loopback", "none"]


def test_a_program_that_tries_is_told(sealed) -> None:
    """A way out gets the hint of every run: there is no network."""
    code = "import urllib.request; urllib.request.urlopen('http://169.254.169.254/', timeout=5)"
    result = sealed.execute(code, **LOOPBACK)
    assert (result.status, result.error.code) == ("failed", "program_error")
    assert "no network" in result.error.hint
