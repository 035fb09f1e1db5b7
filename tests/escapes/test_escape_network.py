"""Ways out over a network: every family, the host's loopback, names, and the cloud's metadata address."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.escapes.probing import inside, outside

pytestmark = pytest.mark.usefixtures("unharmed")

FAMILIES = {  # name: (family, type, protocol)
    "AF_INET": (2, 1, 0),
    "AF_INET datagrams": (2, 2, 0),
    "AF_INET raw": (2, 3, 1),
    "AF_INET6": (10, 1, 0),
    "AF_INET6 raw": (10, 3, 1),
    "AF_NETLINK": (16, 3, 0),
    "AF_PACKET": (17, 3, 0),
    "AF_ALG": (38, 5, 0),
    "AF_VSOCK": (40, 1, 0),
    "AF_XDP": (44, 3, 0),
    "AF_KEY": (15, 3, 0),
    "AF_TIPC": (30, 1, 0),
    "AF_BLUETOOTH": (31, 3, 0),
    "AF_CAN": (29, 3, 0),
    "AF_RDS": (21, 5, 0),
    "AF_SMC": (43, 1, 0),
    "AF_QIPCRTR": (42, 2, 0),
    "AF_UNSPEC": (0, 1, 0),
}
SOCKETS = f"answer = {{name: said(call('socket', f, k, p)) for name, (f, k, p) in {FAMILIES}.items()}}"


def test_no_family_but_unix_is_there(sealed, without) -> None:
    """All are EAFNOSUPPORT, also with bits above 32 set; AF_UNIX works. Without the filter the common ones
    open."""
    assert inside(sealed, SOCKETS) == dict.fromkeys(FAMILIES, "EAFNOSUPPORT")
    code = "answer = [said(call('socket', 1, 1, 0)), said(call('socket', (1 << 32) + 1, 1, 0))]"
    assert inside(sealed, code) == ["ok", "EAFNOSUPPORT"]
    bare = inside(without("seccomp"), SOCKETS)
    assert (bare["AF_INET"], bare["AF_NETLINK"]) == ("ok", "ok")
    assert (bare["AF_INET raw"], bare["AF_PACKET"]) == ("EPERM", "EPERM")  # no capability either


@pytest.mark.parametrize("network", ["none", "loopback"])
def test_pairs_are_unix_only(sealed, without, network) -> None:
    """socketpair makes no pair of another family; AF_TIPC, which would have them, is refused by the
    filter."""
    code = """
pair = (ctypes.c_int * 2)()
answer = [said(call("socketpair", family, 1, 0, pair)) for family in (1, 2, 30)]
"""
    assert inside(sealed, code, network=network) == ["ok", "EAFNOSUPPORT", "EAFNOSUPPORT"]
    assert inside(without("seccomp"), code)[1] in ("ENOTSUP", "EOPNOTSUPP")  # two names of one number


@pytest.fixture
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """A server on the host's loopback: its port, and what each who connected sent."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    channel, _ = server.accept()
                except OSError:
                    return
                with channel:
                    heard.append(channel.recv(64))

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], heard
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


LOOPBACK = """
import socket
def reach(host, port):
    with socket.create_connection((host, port), 2) as channel:
        channel.sendall(b"from inside")
answer = [attempt(lambda: reach(host, PORT)) for host in ("127.0.0.1", "localhost", "0.0.0.0")]
"""


def test_the_hosts_loopback_is_out_of_reach(sealed, without, listener) -> None:
    """A listener on 127.0.0.1 hears nothing; with the host's network and neither filter nor Landlock it
    does, which is the control."""
    port, heard = listener
    code = LOOPBACK.replace("PORT", str(port))
    refused = inside(sealed, code)
    assert refused[0] == refused[2] == "EAFNOSUPPORT"
    assert refused[1] != "ok"
    # Landlock refuses TCP by itself (EACCES); with it off too, the slot has no interface that is up.
    assert inside(without("seccomp"), code)[0] in ("EACCES", "ENETUNREACH")
    assert inside(without("seccomp", "landlock"), code)[0] == "ENETUNREACH"
    assert heard == []
    assert inside(without("seccomp", "landlock", "network"), code)[0] == "ok"
    assert outside(code)[0] == "ok"
    assert heard[:2] == [b"from inside"] * 2


ADDRESSES = """
import socket
def reach(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as channel:
        channel.settimeout(2)
        channel.connect(address)
def send(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.sendto(b"x", address)
answer = [attempt(lambda: reach(socket.AF_INET, ("169.254.169.254", 80))),
          attempt(lambda: reach(socket.AF_INET6, ("fd00:ec2::254", 80))),
          attempt(lambda: reach(socket.AF_INET6, ("::1", 80))),
          attempt(lambda: reach(socket.AF_INET, ("10.0.0.1", 80))),
          attempt(lambda: send(("8.8.8.8", 53))), attempt(lambda: send(("255.255.255.255", 67)))]
"""


def test_no_address_is_out_there(sealed, without) -> None:
    """The metadata address, IPv6, private ranges and UDP end at socket().

    No control reaches a real metadata service; without filter and Landlock there is no route to one.
    """
    assert inside(sealed, ADDRESSES) == ["EAFNOSUPPORT"] * 6
    bare = inside(without("seccomp", "landlock"), ADDRESSES)
    assert set(bare) <= {"ENETUNREACH", "EADDRNOTAVAIL", "EACCES", "EAFNOSUPPORT"}, bare


@pytest.mark.embedded
@pytest.mark.parametrize("network", ["none", "loopback"])
def test_no_name_is_resolved(sealed, network) -> None:
    """getaddrinfo of any name fails with a resolver's error, not with a hang; `localhost` is in the hosts
    file."""
    code = """
import socket, time
def resolve(name):
    try:
        return [entry[4][0] for entry in socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)]
    except socket.gaierror as error:
        return "gaierror"
started = time.monotonic()
answer = [resolve("example.com"), resolve("metadata.google.internal"), resolve("localhost")]
answer.append(time.monotonic() - started < 5)
"""
    assert inside(sealed, code, network=network) == ["gaierror", "gaierror", ["127.0.0.1"], True]
    assert inside(sealed, "answer = reading('/etc/resolv.conf')") == "ENOENT"
    assert outside(code)[2] == ["127.0.0.1"]  # the control: the same call resolves where there is a resolver


def test_there_is_no_interface_and_no_route(sealed, without) -> None:
    """The slot's network namespace has a loopback that is down and nothing else; the host's has more."""
    code = """
answer = [line.split(":")[0].strip() for line in open("/proc/self/net/dev") if ":" in line]
routes = open("/proc/self/net/route").read().splitlines()[1:]
answer.append(len(routes))
"""
    assert inside(sealed, code) == ["lo", 0]
    assert inside(without("network", "landlock"), code)[:-1] == outside(code)[:-1] != ["lo"]


def test_a_child_has_no_network_either(sealed) -> None:
    """A new program image meets the same wall, and says so: Network is not what a child process can ask
    for."""
    code = """
import subprocess
program = "import socket; socket.socket()"
done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
answer = [done.returncode, done.stderr.splitlines()[-1]]
"""
    assert inside(sealed, code) == [1, "OSError: [Errno 97] Address family not supported by protocol"]


def test_the_result_says_that_there_is_no_network(sealed) -> None:
    """The outcome of a program that tries: failed, with the errno's text and a hint that names the cause."""
    result = sealed.execute("import urllib.request; urllib.request.urlopen('http://169.254.169.254/', timeout=5)")
    assert (result.status, result.error.code) == ("failed", "program_error")
    assert "no network" in result.error.hint.lower()
    assert result.isolation["walls"]["network"] == "none"
