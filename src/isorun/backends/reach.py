"""How far a run's sockets reach, judged by what the kernel says of its network and by what its filter answers.

Pure. Either nothing is there, or loopback alone; both backends demand the same of both.
"""

import errno
from collections.abc import Mapping
from itertools import pairwise

_LOOPBACK = "lo"
_EXPECTED = {"raw": errno.EPROTONOSUPPORT, "netlink": errno.EAFNOSUPPORT, "packet": errno.EAFNOSUPPORT}


def network_name(*, loopback: bool) -> str:
    """What `isolation` says."""
    return "loopback" if loopback else "none"


def wrong_answer(answers: Mapping[str, int], *, loopback: bool) -> str:
    """What the filter answers to `socket` that it should not, by `slot.socket_answers`; "" if it is the right one."""
    for name in ("inet", "inet6", *_EXPECTED):
        wanted = {_EXPECTED.get(name, 0)} if loopback else {errno.EAFNOSUPPORT}
        if name == "inet6":
            wanted.add(errno.EAFNOSUPPORT)  # of a kernel without IPv6, too
        if (answer := answers.get(name, -1)) not in wanted:
            return f"a socket of the kind {name} is answered with {errno.errorcode.get(answer, answer)}"
    return ""


def wrong_network(files: Mapping[str, str], *, loopback: bool, own_kernel: bool = False) -> str:
    """What there is, by `rules.NETWORK_FILES`, that should not be, or the loopback that should and is not; else "".

    A kernel of a container's own may have no `fib_trie`, which is then an empty text: nothing is said of addresses.
    """
    if not loopback:
        return "an IPv4 address is there" if "LOCAL" in files["fib_trie"] else ""
    there = {line.partition(":")[0].strip() for line in files["dev"].splitlines() if ":" in line}
    if others := sorted(there - {_LOOPBACK}):
        # Modules of tunnels put one into every new namespace.
        remedy = "run `sysctl -w net.core.fb_tunnels_only_for_init_net=2`"
        return f"{', '.join(others)} is there beside lo: {remedy}"
    addresses = _addresses(files["fib_trie"])
    if addresses != {"127.0.0.1"} and not (own_kernel and not files["fib_trie"]):
        return f"its IPv4 addresses are {', '.join(sorted(addresses)) or 'none: lo is down'}"
    routes = [line.split()[0] for line in files["route"].splitlines()[1:] if line.strip()]
    routes += [line.split()[-1] for line in files["ipv6_route"].splitlines()]
    if others := sorted({*routes} - {_LOOPBACK}):
        return f"a route leads to {', '.join(others)}"
    return ""


def _addresses(trie: str) -> set[str]:
    """What is an address of this network's own; each stands on the line above."""
    lines = trie.splitlines()
    return {above.rpartition("|-- ")[2].strip() for above, line in pairwise(lines) if "/32 host LOCAL" in line}
