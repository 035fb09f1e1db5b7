"""What changes in the filter of a run with loopback: TCP and UDP sockets are there, and some of their options.

Tables and the rules made of them; `filters` puts them into the filter. The kernel's networking is large, so sockets and
options are listed that servers and clients are known to need, and everything else is refused.
"""

import errno

from sandbox_runner.linux import bpf

LOW_32 = 0xFFFF_FFFF
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_STREAM, _DATAGRAM = 1, 2
_KIND = 0xF  # of a type; above it are SOCK_NONBLOCK and SOCK_CLOEXEC

#: Kind and protocol: TCP and UDP, named or as what the kind means. Not MPTCP, SCTP, DCCP, ICMP, L2TP and raw ones.
_SOCKETS = ((_STREAM, 0), (_STREAM, 6), (_DATAGRAM, 0), (_DATAGRAM, 17))

_SOL_SOCKET, _IP, _TCP, _IPV6 = 1, 0, 6, 41
#: Options that a program may set, by level; of SOL_SOCKET all but those below. Not: other congestion control and
#: protocols on top of TCP (more of the kernel); multicast and flow labels (memory that no ceiling counts).
OPTIONS: dict[int, dict[int, str]] = {
    _TCP: {
        1: "TCP_NODELAY: asyncio, http.client, every RPC library",
        3: "TCP_CORK: web servers",
        4: "TCP_KEEPIDLE: database and HTTP clients",
        5: "TCP_KEEPINTVL: the same",
        6: "TCP_KEEPCNT: the same",
        7: "TCP_SYNCNT: the same",
        8: "TCP_LINGER2: web servers",
        12: "TCP_QUICKACK: event loops",
        18: "TCP_USER_TIMEOUT: database clients",
    },
    _IP: {1: "IP_TOS: ssh, asyncio servers", 2: "IP_TTL", 8: "IP_PKTINFO: UDP servers", 11: "IP_RECVERR: UDP clients"},
    _IPV6: {
        16: "IPV6_UNICAST_HOPS",
        25: "IPV6_RECVERR: UDP clients",
        26: "IPV6_V6ONLY: asyncio and socket.create_server set it on every server",
        49: "IPV6_RECVPKTINFO: UDP servers",
        67: "IPV6_TCLASS: as IP_TOS",
    },
}
#: Of SOL_SOCKET, answered and not done: a size is a wish, which the kernel, too, fulfils in part, and programs that set
#: one need no other answer. The watcher counts sockets, and a size that stays as it is bounds each.
DONE_FOR_NOTHING: dict[int, str] = {
    7: "SO_SNDBUF: what is in a socket counts in no process",
    8: "SO_RCVBUF: the same",
}
#: Of SOL_SOCKET, beside those that every run is refused.
REFUSED: dict[int, str] = {
    32: "SO_SNDBUFFORCE: as SO_SNDBUF, and a program may not force it",
    33: "SO_RCVBUFFORCE: the same",
    60: "SO_ZEROCOPY pins pages",
    73: "SO_RESERVE_MEM keeps memory without a message",
}
_ZEROCOPY_RECEIVE = 35


def _is(argument: int, value: int) -> bpf.Equal:
    """The kernel looks at 32 bits of an int."""
    return bpf.Equal(argument, LOW_32, value)


def rules(filters: tuple[int, ...]) -> dict[str, list[bpf.Rule]]:
    """What answers `socket`, `setsockopt` and `getsockopt`. *filters*: options that no run may set on a socket.

    The list of options ends in a refusal, so one of a newer kernel is refused.
    """
    refused, absent = bpf.error(errno.EPERM), bpf.error(errno.ENOPROTOOPT)
    # Families are compared on all 64 bits: high bits can only refuse here, never admit.
    made: list[bpf.Rule] = [((bpf.Equal(0, bpf.ALL, _AF_UNIX),), bpf.ALLOW)]
    for family in (_AF_INET, _AF_INET6):
        of_it = bpf.Equal(0, bpf.ALL, family)
        made += [((of_it, bpf.Equal(1, _KIND, kind), _is(2, protocol)), bpf.ALLOW) for kind, protocol in _SOCKETS]
        made.append(((of_it,), bpf.error(errno.EPROTONOSUPPORT)))
    options: list[bpf.Rule] = [((_is(1, _SOL_SOCKET), _is(2, name)), refused) for name in (*filters, *REFUSED)]
    options += [((_is(1, _SOL_SOCKET), _is(2, name)), bpf.error(0)) for name in DONE_FOR_NOTHING]
    options.append(((_is(1, _SOL_SOCKET),), bpf.ALLOW))
    options += [((_is(1, level), _is(2, name)), bpf.ALLOW) for level, names in OPTIONS.items() for name in names]
    return {
        "socket": [*made, ((), bpf.error(errno.EAFNOSUPPORT))],
        "setsockopt": [*options, ((), absent)],
        # It maps what arrives into the program's memory; few use it, and it had faults.
        "getsockopt": [((_is(1, _TCP), _is(2, _ZEROCOPY_RECEIVE)), absent), ((), bpf.ALLOW)],
    }
