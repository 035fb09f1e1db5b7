"""The table of limits, and the same limits as the kernel reads them back."""

import json
import subprocess
import sys

import pytest

from isorun.kernel.rlimits import table

MIB = 1 << 20
FIXED = {
    "RLIMIT_CORE": (1, 1),
    "RLIMIT_MEMLOCK": (65536, 65536),
    "RLIMIT_MSGQUEUE": (0, 0),
    "RLIMIT_SIGPENDING": (1024, 1024),
    "RLIMIT_STACK": (8 * MIB, 64 * MIB),
}


def by_name(**changes: int | None) -> dict[str, tuple[int, int]]:
    wanted = {
        "processes": 7,
        "data_bytes": None,
        "file_bytes": MIB,
        "open_files": 64,
    } | changes
    return {name: (soft, hard) for name, soft, hard in table(**wanted)}


def test_the_table_with_a_cgroup() -> None:
    """Where a cgroup holds memory, DATA is not limited per process."""
    assert by_name() == FIXED | {
        "RLIMIT_NPROC": (7, 7),
        "RLIMIT_FSIZE": (MIB, MIB),
        "RLIMIT_NOFILE": (64, 64),
    }


def test_the_table_without_a_cgroup() -> None:
    """Where nothing else holds memory, DATA does."""
    rows = by_name(data_bytes=512 * MIB)
    assert rows["RLIMIT_DATA"] == (512 * MIB, 512 * MIB)


@pytest.mark.parametrize("name", ["processes", "data_bytes", "file_bytes", "open_files"])
@pytest.mark.parametrize("value", [0, -1])
def test_no_value_means_unlimited(name: str, value: int) -> None:
    """Zero and -1, which the kernel reads as infinity, are refused by name."""
    with pytest.raises(ValueError, match=f"^{name} must be positive, got {value}$"):
        by_name(**{name: value})


CHILD = """
import json, resource, sys
from isorun.kernel.rlimits import apply, table
wanted = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 50))
apply(table(**wanted))
names = ["RLIMIT_NPROC", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_DATA"]
print(json.dumps({name: resource.getrlimit(getattr(resource, name)) for name in names}))
try:
    bytearray(200 << 20)
except MemoryError:
    print("MemoryError")
"""


def in_child(code: str, *args: str) -> list[str]:
    command = [sys.executable, "-c", f"import sys\nsys.path[:0] = {sys.path!r}\n{code}", *args]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()


def test_applied_limits_are_read_back_and_hold() -> None:
    """The kernel reports what was set; a lower inherited hard limit stays; DATA refuses a big block."""
    wanted = {"processes": 99, "data_bytes": 100 * MIB, "file_bytes": MIB, "open_files": 64}
    limits, refused = in_child(CHILD, json.dumps(wanted))
    assert json.loads(limits) == {
        "RLIMIT_NPROC": [99, 99],
        "RLIMIT_FSIZE": [MIB, MIB],
        "RLIMIT_NOFILE": [50, 50],
        "RLIMIT_CORE": [1, 1],
        "RLIMIT_DATA": [100 * MIB, 100 * MIB],
    }
    assert refused == "MemoryError"


REFUSED = """
from isorun.kernel.rlimits import apply
for row in (("RLIMIT_CORE", 2, 1), ("RLIMIT_CORE", -1, -1)):
    try:
        apply([row])
    except (OSError, ValueError) as exc:
        print(type(exc).__name__, exc)
"""


def test_a_refused_limit_is_named() -> None:
    """The error says which limit the kernel did not take; -1, the kernel's infinity, never reaches it."""
    assert in_child(REFUSED) == [
        "OSError RLIMIT_CORE: cannot be set to 2, 1: current limit exceeds maximum limit",
        "ValueError RLIMIT_CORE must not be unlimited, got -1, -1",
    ]
