"""Records of the wire for tests that need one and do not care what it says."""

import errno

from isorun.core.sent.context import RunContext
from isorun.core.sent.facts import ContainerFacts
from isorun.core.sent.sealing import Sealing

#: What a filter answers to sockets of each kind, without and with loopback.
SOCKETS = {
    False: dict.fromkeys(("inet", "inet6", "raw", "netlink", "packet"), errno.EAFNOSUPPORT),
    True: {
        "inet": 0,
        "inet6": 0,
        "raw": errno.EPROTONOSUPPORT,
        "netlink": errno.EAFNOSUPPORT,
        "packet": errno.EAFNOSUPPORT,
    },
}
_DEV = "Inter-|   Receive    |  Transmit\n face |bytes    packets|bytes    packets\n    lo:       0       0 0 0\n"
_ROUTE = "Iface\tDestination\tGateway\n"
_IPV6 = "00000000000000000000000000000001 80 0000 00 0000 00000000 00000002 00000000 80200001       lo\n"
_TRIE = """\
Local:
  +-- 127.0.0.0/8 2 0 2
     +-- 127.0.0.0/31 1 0 0
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
     |-- 127.255.255.255
        /32 link BROADCAST
"""
#: Files of /proc/<pid>/net, without and with loopback.
NETWORK = {
    False: {"dev": _DEV, "fib_trie": "", "route": _ROUTE, "ipv6_route": ""},
    True: {"dev": _DEV, "fib_trie": _TRIE, "route": _ROUTE, "ipv6_route": _IPV6},
}

SEALING = Sealing(
    without=[],
    cgroup=True,
    loopback=False,
    nproc=8,
    data_bytes=None,
    file_bytes=1 << 20,
    open_files=64,
    may_lack=[],
    workspace_bytes=1 << 20,
    workspace_inodes=64,
    tmp_bytes=1 << 20,
    shm_bytes=1 << 20,
)

CONTEXT = RunContext(
    exec_id="",
    turn="turn_1",
    contract=[],
    directories=[],
    log_mode="full",
    traceback_remap=True,
    keep_value=True,
    save_figures=True,
    frame_bytes=1 << 16,
    frame_values=1 << 10,
    cpus=1,
    stdin=False,
    given=[],
    tools={},
    about={},
)

FACTS = ContainerFacts(
    status="",
    init="",
    mountinfo="",
    rlimits="",
    namespaces={},
    network={},
    fds=[],
    sizes={},
    cgroup={},
)
