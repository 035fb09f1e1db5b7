"""Which addresses a page may be fetched from: the public ones. No socket is needed to decide.

The table is written out, because `ipaddress.is_global` differs between versions of Python and calls
multicast, 6to4 and translated private addresses global. An IPv6 address is refused unless it lies
in the part that is given to networks of the internet. Must not: resolve a name, or open anything.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_IPV4 = tuple(
    (IPv4Network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "this host"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by a carrier's customers"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's metadata service"),  # Azure's; it looks public
        ("169.254.0.0/16", "link-local, where clouds have their metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_IPV6 = tuple(
    (IPv6Network(network), kind)
    for network, kind in (
        ("::1/128", "loopback"),
        ("::/96", "an IPv4 address in an outdated form"),
        ("64:ff9b:1::/48", "a private translation to IPv4"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
        ("2001::/23", "reserved for protocols such as Teredo"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "6to4, an outdated tunnel to any IPv4 address"),
        ("3fff::/20", "for documentation"),
    )
)
_INTERNET = IPv6Network("2000::/3")  # all addresses that are assigned to networks of the internet
#: Both mean the IPv4 address in their last 32 bits, and nothing else.
_MEANS_IPV4 = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
_ISATAP = (0x00005EFE, 0x02005EFE)  # the half of an interface's name before an IPv4 address


def why_refused(address: IPv4Address | IPv6Address) -> str | None:
    """What *address* is, in words that follow "which is"; None for a public one.

    An IPv4 address written as IPv6 (mapped, or NAT64 as DNS64 makes it) is judged as the IPv4 address.
    """
    if isinstance(address, IPv4Address):
        return next((kind for network, kind in _IPV4 if address in network), None)
    if address.scope_id is not None:
        return "of one interface"
    inner = IPv4Address(int(address) & 0xFFFFFFFF)
    if any(address in network for network in _MEANS_IPV4):
        return why_refused(inner)
    for network, kind in _IPV6:
        if address in network:
            return kind
    if address not in _INTERNET:
        return "not given to any network of the internet"
    if int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
        return why_refused(inner)
    return None


def literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that *host* is, also as a resolver takes it (`127.1`, `0x7f.1`, `2130706433`); None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        pass
    if not host.isascii() or not host[:1].isdigit():
        return None
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None
