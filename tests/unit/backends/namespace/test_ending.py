"""The end of a jail's processes, wherever a start that was given up has left them."""

import select
import subprocess
import sys
from typing import IO

from isorun.backends.namespace.ending import end_group
from isorun.backends.namespace.orphans import new_mark

#: As bubblewrap's child does that asks to die with its parent once that is dead: a session of its own, and no parent.
LEFT_BEHIND = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    os.write(1, b"there")
time.sleep(60)
"""


def jail(mark: str) -> "subprocess.Popen[bytes]":
    line = [sys.executable, "-c", LEFT_BEHIND, mark]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.read(5) == b"there"
    return process


def is_at_its_end(pipe: IO[bytes]) -> bool:
    """Whether nobody is left who could write into it: of those who had it, all are dead."""
    return select.select([pipe], [], [], 0)[0] != [] and pipe.read() == b""


async def test_a_child_that_nothing_ties_to_its_leader_is_ended() -> None:
    """It is in a session of its own and its parent is dead, but it carries the jail's mark. Another jail goes on."""
    mark, another = new_mark(), new_mark()
    with jail(mark) as ours, jail(another) as theirs:
        assert ours.stdout is not None
        assert theirs.stdout is not None
        await end_group(ours, mark)
        assert is_at_its_end(ours.stdout)
        assert theirs.poll() is None
        assert not is_at_its_end(theirs.stdout)
        await end_group(theirs, another)
        assert is_at_its_end(theirs.stdout)
