"""Tables on a terminal and through a pipe: their colour and their width."""

import os
import pty
import subprocess
import sys

import pytest

_SHOW = """
from isorun.cli.show import print_table
print_table(("", "b"), [("FAILED", "word " * 60)], styles={"FAILED": "bold red"})
"""
_MARK = "\x1b["


def shown(*, on_terminal: bool, **variables: str) -> str:
    """What a table of one long cell prints, with nothing but *variables* in the environment."""
    argv = [sys.executable, "-c", _SHOW]
    if not on_terminal:
        return subprocess.run(argv, env=variables, capture_output=True, text=True, check=True).stdout
    ours, theirs = pty.openpty()
    with subprocess.Popen(argv, env={"TERM": "xterm", **variables}, stdout=theirs):
        os.close(theirs)
        parts = []
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            parts.append(part)
    os.close(ours)
    return b"".join(parts).decode()


@pytest.mark.parametrize(
    ("on_terminal", "variables", "is_coloured"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {"NO_COLOR": ""}, True),
        (False, {}, False),
    ],
)
def test_colour_is_for_a_terminal_that_wants_it(
    on_terminal: bool, variables: dict[str, str], is_coloured: bool
) -> None:
    """Bold is a mark too: without colour there is none at all."""
    text = shown(on_terminal=on_terminal, **variables)
    assert "FAILED" in text
    assert (_MARK in text) == is_coloured


@pytest.mark.parametrize("on_terminal", [True, False])
@pytest.mark.parametrize("columns", [40, 90])
def test_columns_is_the_width(on_terminal: bool, columns: int) -> None:
    """With or without a terminal."""
    text = shown(on_terminal=on_terminal, COLUMNS=str(columns), NO_COLOR="1")
    assert columns - 8 <= max(len(line.rstrip()) for line in text.splitlines()) <= columns


@pytest.mark.parametrize("columns", ["", "0", "-5", "wide", "9999999", "3"])
def test_columns_that_mean_nothing_are_left_alone(columns: str) -> None:
    """A table is made all the same."""
    assert "FAILED" in shown(on_terminal=False, COLUMNS=columns)
