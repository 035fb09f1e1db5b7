"""The kernel's list of mounts is read as proc(5) writes it."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sandbox_runner.mountinfo import Mounted, mounted


def test_optional_fields_and_escapes_are_read() -> None:
    """Any number of optional fields stands before the dash; a space in a path is `\\040`."""
    line = r"36 35 98:0 /a\040b /mnt\134c rw,noatime {}- ext3 /dev/root rw,errors=continue"
    wanted = [Mounted("/a b", "/mnt\\c", "ext3", ("rw", "errors=continue"))]
    assert list(mounted(line.format(""))) == wanted
    assert list(mounted(line.format("master:1 shared:2 "))) == wanted


def test_this_machines_own_list_is_read_whole() -> None:
    """No line of it is passed over."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    assert len(list(mounted(text))) == len(text.splitlines())


@given(st.text(alphabet="/ -\\01a\n", max_size=80))
def test_what_is_no_line_of_it_is_passed_over(text: str) -> None:
    """Nothing is raised."""
    list(mounted(text))
