"""What every test may ask of the machine it runs on, and what happens where that is missing.

A test never skips by itself: it says which facility it lacks through `require`.
A facility named in ISORUN_REQUIRE (comma-separated) may not be lacking, so the
skip becomes a failure: a machine that is meant to show a wall cannot lose it
unseen. Nothing here imports isorun; a product that misjudges the machine must
not decide what is tested.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest
from hypothesis import HealthCheck, settings

# No test is timed: how long an input takes to make depends on the machine, and on what a first run has cached.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

#: CI runs the tests twice, as root and as an ordinary user, and names the half in ISORUN_TEST_HALF. A claim that is
#: the same in both is then tested in one. Where no half is named, everything runs.
HALVES = ("root", "user")
#: Marks of the unit tests that root's half runs: what depends on who runs it. The user's half runs them all.
ROOTS_OWN = ("root", "user", "uid")

FACILITIES = (
    *("namespace", "seccomp", "landlock", "cgroup", "user", "root", "docker", "gvisor", "control_group"),
    *("libreoffice", "chromium", "redis", "postgres", "compose"),
)


class Ids(NamedTuple):
    """The ids of an ordinary user: nobody's on this machine, so nothing of value belongs to them."""

    uid: int
    gid: int


ORDINARY = Ids(12345, 12345)

Require = Callable[[str, str], NoReturn]


def required() -> frozenset[str]:
    """The facilities that ISORUN_REQUIRE names."""
    words = os.environ.get("ISORUN_REQUIRE", "").split(",")
    return frozenset(word.strip() for word in words) - {""}


def half() -> str:
    """Which half of CI this is; empty outside."""
    return os.environ.get("ISORUN_TEST_HALF", "")


def lacking(name: str, reason: str) -> NoReturn:
    """End the test: this machine lacks *name*. A failure if ISORUN_REQUIRE names it, else a skip."""
    if name not in FACILITIES:
        raise ValueError(f"{name} is not one of {', '.join(FACILITIES)}")
    if name in required():
        pytest.fail(f"{name}: {reason}, and ISORUN_REQUIRE names it", pytrace=False)
    pytest.skip(f"{name}: {reason}")


def pytest_configure(config: pytest.Config) -> None:
    """A misspelt name would turn a failure back into a skip, so it stops the session."""
    unknown = required() - set(FACILITIES)
    if unknown:
        raise pytest.UsageError(f"ISORUN_REQUIRE names {', '.join(sorted(unknown))}; known are {', '.join(FACILITIES)}")
    if half() not in ("", *HALVES):
        raise pytest.UsageError(f"ISORUN_TEST_HALF is {half()}; known are {', '.join(HALVES)}")


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the unit tests. Root's half leaves out what is the same whoever runs it: those without a mark of
    `ROOTS_OWN`, and what is marked so.
    """
    units = Path(__file__).parent / "unit"
    for item in items:
        if units in item.path.parents:
            item.add_marker("unit")
    if half() != "root":
        return
    out = [
        item
        for item in items
        if (item.get_closest_marker("any_user") and not item.get_closest_marker("stores"))
        or (item.get_closest_marker("unit") and not any(map(item.get_closest_marker, ROOTS_OWN)))
    ]
    items[:] = [item for item in items if item not in out]
    config.hook.pytest_deselected(items=out)


def pytest_report_header(config: pytest.Config) -> str:
    return (
        f"ISORUN_REQUIRE: {','.join(sorted(required())) or '(nothing)'}; half {half() or '(whole)'}; uid {os.geteuid()}"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        lacking("root", f"needs uid 0, this is uid {os.geteuid()}")
    if item.get_closest_marker("user") and os.geteuid() == 0 and not _can_become(ORDINARY):
        lacking("user", f"root here may not become uid {ORDINARY.uid}")


def _can_become(ids: Ids) -> bool:
    try:
        # Not sys.executable: it may lie in root's home, and whether that works is for tests to say.
        subprocess.run(["/bin/true"], user=ids.uid, group=ids.gid, extra_groups=[], check=True)
    except OSError:  # no CAP_SETUID, or an id that is not mapped
        return False
    return True


@pytest.fixture(scope="session")
def require() -> Require:
    """`require(name, reason)`: call it once it is known that this machine lacks *name*."""
    return lacking


@pytest.fixture(scope="session")
def ordinary_user() -> Ids | None:
    """The ids under which root must start a test's subprocess; None if this process is an ordinary user's.

    That user may be unable to read the checkout or to start `sys.executable`, if they lie in root's home.
    """
    return ORDINARY if os.geteuid() == 0 else None
