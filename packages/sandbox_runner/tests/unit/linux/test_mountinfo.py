"""The kernel's list of mounts is read as proc(5) writes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_runner.linux.mountinfo import Mounted, every_mount, mounted


def test_optional_fields_and_escapes_are_read() -> None:
    """Any number of optional fields stands before the dash; a space in a path is `\\040`."""
    line = r"36 35 98:0 /a\040b /mnt\134c rw,noatime {}- ext3 /dev/root rw,errors=continue"
    wanted = [Mounted("/a b", "/mnt\\c", "ext3", ("rw", "errors=continue"), read_only=False)]
    assert list(mounted(line.format(""))) == wanted
    assert list(mounted(line.format("master:1 shared:2 "))) == wanted


@pytest.mark.parametrize(("flags", "read_only"), [("ro", True), ("nosuid,ro", True), ("rw,nosuid", False)])
def test_a_mount_that_refuses_writes_is_told_from_a_filesystem_that_does(flags: str, read_only: bool) -> None:
    """The flags of the mount count, in the place before the dash; what its filesystem has is another matter."""
    other = "ro" if not read_only else "rw"
    found = list(mounted(f"36 35 98:0 / /mnt {flags} - ext3 /dev/root {other}"))
    assert [mount.read_only for mount in found] == [read_only]


def test_this_machines_own_list_is_read_whole() -> None:
    """No line of it is passed over."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    assert len(list(mounted(text))) == len(text.splitlines())


@given(st.text(alphabet="/ -\\01a\n", max_size=80))
def test_what_is_no_line_of_it_is_passed_over(text: str) -> None:
    """Nothing is raised."""
    list(mounted(text))


@pytest.mark.parametrize("line", ["short", "", "36 35 98:0 / /mnt rw", "36 35 98:0 / /mnt rw - ext3"])
def test_a_list_that_proves_a_wall_is_read_whole_or_not_at_all(line: str) -> None:
    """A line that `mounted` passes over is an error there; without it the list is the same."""
    good = "36 35 98:0 / /mnt ro - ext3 /dev/root rw"
    assert every_mount(good) == tuple(mounted(good))
    assert list(mounted(f"{good}\n{line}\n")) == list(mounted(good))
    with pytest.raises((ValueError, IndexError)):
        every_mount(f"{good}\n{line}\n")
