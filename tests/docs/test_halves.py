"""CI runs the tests as root and as an ordinary user: no claim may fall between the two halves."""

import os
import subprocess
import sys

import pytest

from tests.conformance.conftest import HALF_OF, KINDS
from tests.conftest import HALVES
from tests.docs.pages import ROOT

pytestmark = pytest.mark.any_user


def collected(half: str, *places: str) -> set[str]:
    """The tests that a session in that half has, by their ids."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *places]
    environ = {**os.environ, "ISORUN_TEST_HALF": half, "ISORUN_TEST_KINDS": ""}
    done = subprocess.run(
        [*command, "-o", "addopts=--import-mode=importlib"], env=environ, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode in (0, 5), done.stdout + done.stderr  # 5: there is none
    return {line for line in done.stdout.splitlines() if "::" in line}


def test_each_kind_of_backend_is_tested_in_one_half() -> None:
    """The table is total, and both halves have some."""
    assert set(HALF_OF) == set(KINDS)
    assert set(HALF_OF.values()) == set(HALVES)


@pytest.mark.parametrize(
    "place",
    [
        "tests/unit/store/test_folder.py",
        "tests/unit/core/test_ids.py",
        "tests/docs/test_house.py",
        "tests/conformance/test_names.py",
        "tests/conformance/test_refusals.py",
        "tests/escapes/test_escape_mounts.py",
        "tests/escapes/test_resources_output.py",
    ],
)
def test_what_one_half_leaves_out_the_other_has(place: str) -> None:
    """The two together are the whole."""
    whole, root, user = (collected(half, place) for half in ("", "root", "user"))
    assert whole
    assert root | user == whole


def test_what_each_half_leaves_out() -> None:
    """Root's lacks unit tests that look at no uid, documents of no user, and attacks without a group; the user's, the
    kinds of root."""
    assert collected("root", "tests/unit/core/test_ids.py") == set()
    assert collected("root", "tests/docs/test_house.py") == set()
    assert "[no-cgroup" not in "".join(collected("root", "tests/escapes/test_escape_mounts.py"))
    assert "[no-cgroup" in "".join(collected("root", "tests/escapes/test_resources_output.py"))
    kinds = "".join(collected("user", "tests/conformance/test_names.py"))
    assert "namespace-rlimits" in kinds
    assert "namespace-cgroup" not in kinds


def test_a_half_that_does_not_exist_is_refused() -> None:
    """A misspelt name would leave tests out of both."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "tests/unit/core/test_ids.py"]
    environ = {**os.environ, "ISORUN_TEST_HALF": "rooot"}
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 4
    assert "ISORUN_TEST_HALF is rooot; known are root, user" in done.stderr
