"""pid 1 of a slot: holds its namespaces, reaps its orphans, and dies first.

It is ours, in a place that is not: non-dumpable, so that the program can neither
trace nor read it; without handlers, so that no signal from inside its pid
namespace reaches it; without descriptors and without any right (the host reads that
from /proc before it hands the slot out). The kernel reaps orphans in its place,
because it ignores SIGCHLD. When the host kills it, the kernel kills every process
of the slot with it. It runs no Python: see `kernel.processes.idle`.
"""

import signal
from collections.abc import Collection

from isorun.kernel import caps, namespaces
from isorun.kernel.processes.idle import IdleProcess

_ALWAYS = namespaces.NEWUSER | namespaces.NEWPID | namespaces.NEWNS | namespaces.NEWCGROUP
_OPTIONAL = {"network": namespaces.NEWNET, "ipc": namespaces.NEWIPC, "uts": namespaces.NEWUTS}


def flags(without: Collection[str]) -> int:
    """The namespaces that init is cloned into, *without* those of some walls; the program joins all of them."""
    chosen = _ALWAYS
    for wall, flag in _OPTIONAL.items():
        if wall not in without:
            chosen |= flag
    return chosen


def prepare() -> IdleProcess:
    """Make this process one whose idle children are inits."""
    # Only handlers reach pid 1 of a pid namespace; Python's own for SIGINT would be one.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    caps.no_new_privileges()
    caps.set_dumpable(False)
    return IdleProcess()
