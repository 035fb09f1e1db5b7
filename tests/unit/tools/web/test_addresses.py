"""Which addresses are public."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isorun.tools.web.addresses import literal, why_refused

PUBLIC = (
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2a00::5efe:808:808",
)
NOT_PUBLIC = {
    "0.0.0.0": "this host",
    "10.1.2.3": "private",
    "100.64.0.1": "shared by a carrier's customers",
    "100.100.100.200": "shared by a carrier's customers",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "168.63.129.16": "a cloud's metadata service",
    "169.254.169.254": "link-local, where clouds have their metadata",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.192": "reserved for protocols",
    "192.0.2.1": "for documentation",
    "192.88.99.1": "a 6to4 relay",
    "192.168.1.1": "private",
    "198.18.0.1": "for benchmarks",
    "198.51.100.1": "for documentation",
    "203.0.113.1": "for documentation",
    "224.0.0.1": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "an IPv4 address in an outdated form",
    "::1": "loopback",
    "::127.0.0.1": "an IPv4 address in an outdated form",
    "::8.8.8.8": "an IPv4 address in an outdated form",
    "::ffff:127.0.0.1": "loopback",
    "::ffff:169.254.169.254": "link-local, where clouds have their metadata",
    "64:ff9b::7f00:1": "loopback",
    "64:ff9b::a00:1": "private",
    "64:ff9b:1::1": "a private translation to IPv4",
    "100::1": "not given to any network of the internet",
    "2001::1": "reserved for protocols such as Teredo",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "reserved for protocols such as Teredo",
    "2001:db8::1": "for documentation",
    "2002:7f00:1::": "6to4, an outdated tunnel to any IPv4 address",
    "2002:808:808::": "6to4, an outdated tunnel to any IPv4 address",
    "2a00::5efe:a00:1": "private",
    "2a00::200:5efe:7f00:1": "loopback",
    "3fff::1": "for documentation",
    "4000::1": "not given to any network of the internet",
    "5f00::1": "not given to any network of the internet",
    "fc00::1": "private",
    "fd00:ec2::254": "private",
    "fe80::1": "link-local",
    "fe80::1%2": "of one interface",
    "2606:4700::1%2": "of one interface",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_let_through(address) -> None:
    """The neighbours of each refused network are public: the table takes no more than it says."""
    assert why_refused(ip_address(address)) is None


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_any_other_address_is_refused_with_its_kind(address) -> None:
    """The kind is in the error text, so that its reader knows why."""
    assert why_refused(ip_address(address)) == NOT_PUBLIC[address]


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_what_python_calls_private_is_refused(address) -> None:
    """The table of this module is never wider than the one of `ipaddress`, whose version may be older or newer."""
    if not address.is_global and address not in map(IPv4Address, ("192.0.0.9", "192.0.0.10")):
        assert why_refused(address) is not None


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_an_ipv4_address_has_one_verdict_in_every_form(address) -> None:
    """Mapped and translated, it is what it is as IPv4."""
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        assert why_refused(IPv6Address(int(IPv6Address(prefix)) + int(address))) == why_refused(address)


@given(st.integers(0, 2**128 - 1).map(IPv6Address))
def test_every_ipv6_address_has_a_verdict(address) -> None:
    """Outside of 2000::/3 nothing is public but IPv4 in another form."""
    verdict = why_refused(address)
    is_ipv4 = address.ipv4_mapped is not None or str(address).startswith("64:ff9b::")
    assert verdict is not None or int(address) >> 125 == 1 or is_ipv4


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("2130706433", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
    ],
)
def test_a_number_in_place_of_a_name_is_an_address(host, address) -> None:
    """What the system's resolver takes for an address is judged before it is asked."""
    assert literal(host) == ip_address(address)


@pytest.mark.parametrize("host", ["example.org", "1e100.net", "127.0.0.1.nip.io", "", "4294967296", "1.2.3.4.5"])
def test_a_name_is_no_address(host) -> None:
    """Names are left to the resolver, and their addresses to the guard."""
    assert literal(host) is None
