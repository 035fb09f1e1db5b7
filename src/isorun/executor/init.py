"""pid 1 of a slot: holds its namespaces, reaps its orphans, and dies first.

It is ours, in a place that is not: non-dumpable, so that the program can neither
trace nor read it; without handlers, so that no signal from inside its pid
namespace reaches it; without descriptors and without any right. Orphans are reaped
by the kernel, because it ignores SIGCHLD. When the host kills it, the kernel kills
every process of the slot with it.

It is forked from a Python process, and every page it touches is copied: it does as
little as it can, and sleeps.
"""

import os
import signal
from typing import Any

from isorun.executor.steps import StepFailed, enter
from isorun.kernel import caps, fds, namespaces

READY = b"ready"
_TOLD = 3  # where init finds the pipe that it reports on
_ALWAYS = namespaces.NEWUSER | namespaces.NEWPID | namespaces.NEWNS | namespaces.NEWCGROUP
_OPTIONAL = {"network": namespaces.NEWNET, "ipc": namespaces.NEWIPC, "uts": namespaces.NEWUTS}


def flags(limits: dict[str, Any]) -> int:
    """The namespaces that init is cloned into; the program joins all of them."""
    chosen = _ALWAYS
    for wall, flag in _OPTIONAL.items():
        if wall not in limits["without"]:
            chosen |= flag
    return chosen


def run(told: int) -> None:
    """Be init. Never returns. *told* gets `READY`, or the step that failed and why, and is closed."""
    try:
        enter(
            (
                ("init's descriptors", lambda: fds.keep_only({_TOLD: told})),
                ("init's session", os.setsid),
                ("init's signals", lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)),
                ("init's capabilities", caps.drop_held),
                ("init's no_new_privs", caps.no_new_privileges),
                ("init's dumpable", lambda: caps.set_dumpable(False)),
            )
        )
    except StepFailed as failure:
        os.write(_TOLD, f"{failure.step}\0{failure.reason}".encode())
        os._exit(1)
    os.write(_TOLD, READY)
    os.close(_TOLD)
    while True:
        signal.pause()
