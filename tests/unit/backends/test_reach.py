"""How far a run's sockets reach, as it is read back: nothing more than was asked for, and nothing less."""

import errno

import pytest

from isorun.backends.reach import network_name, wrong_answer, wrong_network
from tests.unit.records import NETWORK, SOCKETS


@pytest.mark.parametrize("loopback", [False, True])
def test_what_was_asked_for_is_right(loopback: bool) -> None:
    """Each filter and each network passes for its own runs, and the other one does not."""
    assert wrong_answer(SOCKETS[loopback], loopback=loopback) == ""
    assert wrong_network(NETWORK[loopback], loopback=loopback) == ""
    assert wrong_answer(SOCKETS[loopback], loopback=not loopback)
    assert wrong_network(NETWORK[loopback], loopback=not loopback)
    assert network_name(loopback=loopback) == ("loopback" if loopback else "none")


@pytest.mark.parametrize("name", SOCKETS[True])
@pytest.mark.parametrize("loopback", [False, True])
@pytest.mark.parametrize("answer", [errno.EPERM, errno.EACCES, -1])
def test_no_other_answer_is_taken(name: str, loopback: bool, answer: int) -> None:
    """EPERM is the kernel's own answer to a raw socket: no filter was there."""
    changed = {**SOCKETS[loopback], name: answer}
    assert wrong_answer(changed, loopback=loopback).startswith(f"a socket of the kind {name} is answered with ")


def test_a_kernel_may_lack_ipv6() -> None:
    """With loopback, too; IPv4 it must have."""
    without = {**SOCKETS[True], "inet6": errno.EAFNOSUPPORT}
    assert wrong_answer(without, loopback=True) == ""
    assert wrong_network({**NETWORK[True], "ipv6_route": ""}, loopback=True) == ""
    assert wrong_answer({**without, "inet": errno.EAFNOSUPPORT}, loopback=True)


_ETH = "00000000000000000000000000000000 00 0000 00 0000 00000400 00000001 00000000 00000003     eth0\n"
_ADDRESS = "        |-- 10.1.2.3\n           /32 host LOCAL\n"


@pytest.mark.parametrize(
    ("file", "more", "said"),
    [
        ("dev", "  tunl0:       0       0 0 0\n", "tunl0 is there beside lo: run `sysctl -w net.core.fb_tunnels"),
        ("fib_trie", _ADDRESS, "its IPv4 addresses are 10.1.2.3, 127.0.0.1"),
        ("route", "eth0\t00000000\t0102000A\n", "a route leads to eth0"),
        ("ipv6_route", _ETH, "a route leads to eth0"),
    ],
)
def test_whatever_is_there_beside_lo_is_named(file: str, more: str, said: str) -> None:
    """An interface, an address, a route of either kind."""
    files = {**NETWORK[True], file: NETWORK[True][file] + more}
    assert wrong_network(files, loopback=True).startswith(said)


def test_lo_must_be_up() -> None:
    """By its address; a kernel of a container's own that shows none is believed."""
    assert wrong_network(NETWORK[False], loopback=True) == "its IPv4 addresses are none: lo is down"
    assert wrong_network(NETWORK[False], loopback=True, own_kernel=True) == ""
