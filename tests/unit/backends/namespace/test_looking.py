"""What is read of /proc: no wall's line is left out, and no slot's answer is another's object."""

import os
from pathlib import Path

from isorun.backends.namespace.looking import look, rlimits_of
from isorun.executor.status import status_fields

JUDGED = ("Uid", "Gid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters")


def test_the_lines_of_status_that_walls_judges_are_all_there() -> None:
    """As the kernel wrote them, and no other: sixty lines of two processes a slot are not taken apart."""
    here = os.open("/", os.O_RDONLY)
    try:
        seen = look(os.getpid(), os.getppid(), {}, here, here, here)
    finally:
        os.close(here)
    whole = status_fields(Path("/proc/self/status").read_text())
    found = status_fields(seen["status"])
    assert found == {name: whole[name] for name in JUDGED}
    assert list(status_fields(seen["init"])) == list(found)


def test_what_one_caller_does_to_its_rlimits_changes_no_other() -> None:
    """The text is parsed once; the result of each run has lists of its own."""
    text = Path("/proc/self/limits").read_text()
    first = rlimits_of(text)
    core = [*first["RLIMIT_CORE"]]
    first["RLIMIT_CORE"].clear()
    assert rlimits_of(text)["RLIMIT_CORE"] == core
