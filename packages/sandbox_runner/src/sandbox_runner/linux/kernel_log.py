"""Whether the kernel's log tells of processes that it ended for want of memory. Readable by root, or by all.

A witness beside what a control group counts: that goes away with the group, the log stays.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress

KERNEL_LOG = "/dev/kmsg"
_RECORD_BYTES = 8192  # the kernel gives one record a read, and none that is longer
_ENDED_FOR_MEMORY = re.compile(rb"oom-kill:.*oom_memcg=([^,]*)")


def tells_of_full_memory(name: str) -> bool:
    """Whether the memory of a control group that has *name* in its path was full. False if we may not read the log.

    False, too, if so much was logged since that the kernel has dropped the line.
    """
    try:
        descriptor = os.open(KERNEL_LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return any(os.fsencode(name) in path for path in _full_groups(descriptor))
    finally:
        os.close(descriptor)


def _full_groups(descriptor: int) -> list[bytes]:
    found: list[bytes] = []
    with suppress(BlockingIOError):  # at the end of the log
        while True:
            try:
                record = os.read(descriptor, _RECORD_BYTES)
            except BrokenPipeError:  # it was overwritten before we came to it: the next read is of the oldest there is
                continue
            if not record:  # a file, as a test has one
                break
            if b"oom_memcg=" in record and (match := _ENDED_FOR_MEMORY.search(record)):
                found.append(match[1])
    return found
