"""Ends processes that somebody lists, however fast they fork. Who they are is the caller's to know."""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress


def end_processes(members: Callable[[], Iterable[int]], within_s: float) -> None:
    """SIGKILL what *members* lists, until it lists nothing. Raises TimeoutError after *within_s*."""
    until = time.monotonic() + within_s
    while numbers := set(members()):
        if time.monotonic() > until:
            reason = f"{len(numbers)} processes outlive SIGKILL, for example {min(numbers)}"
            raise TimeoutError(errno.ETIMEDOUT, reason)
        descriptors: dict[int, int] = {}
        try:
            for number in numbers:
                with suppress(ProcessLookupError):
                    descriptors[number] = os.pidfd_open(number)
            # Only what is still listed: a number may have become a stranger's before it was opened.
            for number in set(members()) & descriptors.keys():
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptors[number], signal.SIGKILL)
            _wait_ended(descriptors.values(), until)
        finally:
            for descriptor in descriptors.values():
                os.close(descriptor)


def _wait_ended(descriptors: Iterable[int], until: float) -> None:
    waiting = set(descriptors)
    poll = select.poll()  # not select: there may be more than 1024
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    while waiting and (left := until - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            poll.unregister(descriptor)
            waiting.discard(descriptor)
