"""The list of file locks, read from a file that looks like the kernel's and from the real one."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

from isorun.kernel.locks import Listing, name_of

LIST = """\
1: FLOCK  ADVISORY  WRITE 10 fe:00:1466544 0 EOF
2: POSIX  ADVISORY  READ  20 00:1b:7 0 9
2: -> POSIX  ADVISORY  WRITE 30 00:1b:7 0 9
3: OFDLCK ADVISORY  WRITE -1 00:1b:8 4 4
4: POSIX  ADVISORY  READ  20 00:1b:7 20 29
5: LEASE  ACTIVE    READ  40 08:01:2 0 EOF
6: POSIX  ADVISORY  WRITE 50 <none>:0 0 EOF
"""

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "wb")
for byte in range(0, 20, 2):
    fcntl.lockf(file, fcntl.LOCK_EX, 1, byte)
print("held", flush=True)
sys.stdin.read()
"""


def listing(path: Path, text: str) -> Listing:
    path.write_text(text)
    return Listing(str(path))


def soon() -> float:
    return time.monotonic() + 60


def test_every_kind_of_lock_is_counted_by_process_and_device(tmp_path: Path) -> None:
    """Also who waits for one, and those that belong to no process."""
    listed = listing(tmp_path / "locks", LIST)
    assert listed.read(soon(), 100)
    assert listed.counts == {
        (10, "fe:00"): 1,
        (20, "00:1b"): 2,
        (30, "00:1b"): 1,
        (-1, "00:1b"): 1,
        (40, "08:01"): 1,
        (50, "<none>"): 1,
    }
    assert listed.lines == 7


def test_a_line_that_is_not_understood_is_no_lock(tmp_path: Path) -> None:
    """A later kernel may say something else."""
    listed = listing(tmp_path / "locks", "1: ?\nsome words that are no lock at all\n\n" + LIST)
    assert listed.read(soon(), 100)
    assert listed.lines == 7


def test_a_lock_that_is_met_again_counts_once(tmp_path: Path) -> None:
    """New locks are listed first, so in a later turn the others have moved to later places."""
    again = LIST + "".join(f"{9 + int(line[0])}{line[1:]}\n" for line in LIST.splitlines())
    listed = listing(tmp_path / "locks", again)
    assert listed.read(soon(), 100)
    assert listed.lines == 7


def test_a_turn_is_bounded(tmp_path: Path) -> None:
    """A long list takes several turns; the next pass begins anew."""
    many = "".join(f"{n}: POSIX  ADVISORY  WRITE 10 00:1b:{n} 0 EOF\n" for n in range(6000))
    listed = listing(tmp_path / "locks", many)
    assert not listed.read(soon(), 1000)
    assert 1000 <= listed.lines < 3000
    assert not listed.read(time.monotonic() - 1, 100_000)
    assert listed.read(soon(), 100_000)
    assert listed.counts == {(10, "00:1b"): 6000}
    assert not listed.read(soon(), 1000)
    assert listed.lines < 3000
    listed.start_again()


def test_the_longest_list_is_not_read_to_its_end(tmp_path: Path) -> None:
    """The kernel walks over all before a line: what a million locks would cost is not paid."""
    many = "".join(f"{n}: POSIX  ADVISORY  WRITE 10 00:1b:{n} 0 EOF\n" for n in range(70_000))
    listed = listing(tmp_path / "locks", many)
    assert listed.read(soon(), 100_000)
    assert (1 << 16) <= listed.lines < 70_000


def test_the_same_lines_are_not_met_for_ever(tmp_path: Path) -> None:
    """Who locks faster than the list is read moves it on, so a reader that counts new lines alone has no end."""
    same = "".join(f"{n}: POSIX  ADVISORY  WRITE 10 00:1b:1 0 EOF\n" for n in range(70_000))
    listed = listing(tmp_path / "locks", same + "70000: POSIX  ADVISORY  WRITE 11 00:1b:1 0 EOF\n")
    assert listed.read(soon(), 100_000)
    assert listed.counts == {(10, "00:1b"): 1}


def test_a_kernel_that_copies_nothing_is_read(tmp_path: Path, monkeypatch) -> None:
    """Where sendfile refuses such a file, read gives the same."""
    refused = []

    def refuse(*args: object) -> int:
        refused.append(args)
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(os, "sendfile", refuse)
    listed = listing(tmp_path / "locks", LIST)
    assert listed.read(soon(), 100)
    assert listed.lines == 7
    assert refused


def test_real_locks_are_listed_under_their_holder(tmp_path: Path) -> None:
    """And under the name of their file's device. The holder has no other lock, as a process of many tests may."""
    path = tmp_path / "file"
    holding = [sys.executable, "-I", "-c", HOLD, str(path)]
    with subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        listed = Listing()
        while not listed.read(soon(), 1 << 16):
            pass
        holder.stdin.close()
    assert listed.counts[holder.pid, name_of(path.stat().st_dev)] == 10
