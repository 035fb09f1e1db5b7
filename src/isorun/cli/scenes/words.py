"""What the demo's programs tried and how that ended, in words for somebody who has never seen a sandbox.

It must not decide how a program ended: who calls it has compared that before.
"""

from typing import NamedTuple


class Words(NamedTuple):
    """A program's attempt, and its ending if that was the right one; both are short enough for a table."""

    tried: str
    ending: str


WORDS = {
    "A report on real data": Words("make a chart, a workbook and a text", "done: three files, each checked"),
    "A report with sources": Words(
        "search, compare what it finds with the data, and write a PDF", "done: a PDF with its sources, checked"
    ),
    "A promised file": Words("write a file to another place than promised", "noticed: it is not where it was promised"),
    "Reach the network": Words("connect to other machines and look up names", "stopped: a program has no network"),
    "Read the host's files": Words(
        "read password hashes and secrets, change Python itself", "stopped: not there, or not to be changed"
    ),
    "Fork bomb": Words("start processes without end", "stopped: it had all processes it may have"),
    "Eat all memory": Words("take memory without end", "stopped: it had all memory it may have"),
    "Fill the disk": Words("write files without end", "stopped: its disk space was full"),
    "Never end": Words("count for ever", "stopped: its time was over"),
}
