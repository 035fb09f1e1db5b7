"""CI runs the tests as root and as an ordinary user: no claim may fall between the two halves."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conformance.conftest import HALF_OF, KINDS, WHOLE
from tests.conformance.test_compatibility import KINDS as SLOTS
from tests.conformance.test_shown import FIGURES, VALUES
from tests.conftest import FACILITIES, HALVES
from tests.docs.pages import ROOT

pytestmark = [pytest.mark.any_user, pytest.mark.timeout(180)]  # the first test waits for the sessions that all look at

#: Of one place, its tables and their rows.
SHOWN = "tests/conformance/test_shown.py"
TABLES = {
    "test_the_value_of_the_last_expression_is_kept": VALUES,
    "test_a_figure_that_nobody_saved_comes_back": FIGURES,
}

#: One of each kind of place.
PLACES = (
    "tests/unit/store/test_folder.py",
    "tests/unit/core/test_ids.py",
    "tests/unit/tools/documents/test_opens_elsewhere.py",
    "tests/docs/test_house.py",
    "tests/conformance/test_cli.py",
    "tests/conformance/test_compatibility.py",
    "tests/conformance/test_names.py",
    "tests/conformance/test_refusals.py",
    SHOWN,
    "tests/escapes/test_escape_mounts.py",
    "tests/escapes/test_resources_output.py",
)
#: The same of sandbox_runner, whose sessions have a configuration of their own: below its folder.
PACKAGE = ROOT / "packages" / "sandbox_runner"
OF_PACKAGE = (
    "tests/unit/test_state.py",
    "tests/unit/test_text.py",
    "tests/namespace/test_users.py",
    "tests/conformance/test_typing.py",
)


def _collect(half: str, places: tuple[str, ...], folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *options, *places]
    environ = {**os.environ, "ISORUN_TEST_HALF": half, "ISORUN_TEST_KINDS": ""}
    return subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True)


@cache  # a session that collects takes a second of the processor, so there is one for each half
def _all_collected(half: str, places: tuple[str, ...] = PLACES, folder: Path = ROOT) -> set[str]:
    plugins = "" if folder == ROOT else " -p no:asyncio -p no:isorun"
    done = _collect(half, places, folder, "-o", f"addopts=--import-mode=importlib{plugins}")
    assert done.returncode in (0, 5), done.stdout + done.stderr  # 5: there is none
    return {line for line in done.stdout.splitlines() if "::" in line}


def collected(half: str, place: str) -> set[str]:
    """The tests of *place* that a session in that half has, by their ids."""
    assert place in PLACES
    return {line for line in _all_collected(half) if line.startswith(f"{place}::")}


def test_each_kind_of_backend_is_tested_in_one_half() -> None:
    """The table is total, and both halves have some."""
    assert set(HALF_OF) == set(KINDS)
    assert set(HALF_OF.values()) == set(HALVES)


@pytest.mark.parametrize("place", PLACES)
def test_what_one_half_leaves_out_the_other_has(place: str) -> None:
    """The two together are the whole, but for rows of tables."""
    whole, root, user = (collected(half, place) for half in ("", "root", "user"))
    assert whole
    assert root | user <= whole
    assert {test.partition("::")[2].partition("[")[0] for test in whole - root - user} <= set(TABLES)


def test_of_a_table_one_kind_has_every_row_and_each_other_the_first() -> None:
    """A row proves our code, whatever seals it; the first proves that the kind carries it."""
    for name, rows in TABLES.items():
        of_kind = {
            kind: len([test for test in collected(half, SHOWN) if f"::{name}[{kind}-" in test])
            for kind, half in HALF_OF.items()
        }
        assert of_kind == {**dict.fromkeys(KINDS, 1), WHOLE: len(rows), "gvisor": 0}


def test_what_one_half_leaves_out_of_the_package_the_other_has() -> None:
    """The user's has all; root's lacks unit tests that look at no uid, and nothing that is made by a backend."""
    whole, root, user = (_all_collected(half, OF_PACKAGE, PACKAGE) for half in ("", "root", "user"))
    assert {line.partition("::")[0] for line in whole} == set(OF_PACKAGE)
    assert user == whole
    assert whole - root == {line for line in whole if line.startswith("tests/unit/test_text.py::")}


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
    alike = "tests/conformance/test_compatibility.py"
    assert {kind: f"[{kind}" in "".join(collected("root", alike)) for kind in SLOTS} == {
        "cgroup": True,
        "no-cgroup": False,
        "preloaded": False,
    }
    assert "[cgroup" not in "".join(collected("user", alike))


@pytest.mark.parametrize(("folder", "place"), [(ROOT, "tests/unit/core/test_ids.py"), (PACKAGE, OF_PACKAGE[1])])
def test_a_half_that_does_not_exist_is_refused(folder: Path, place: str) -> None:
    """A misspelt name would leave tests out of both."""
    done = _collect("rooot", (place,), folder)
    assert done.returncode == 4
    assert "ISORUN_TEST_HALF is rooot; known are root, user" in done.stdout + done.stderr


def test_no_facility_is_lost_unseen() -> None:
    """CI requires each facility in a half, and LibreOffice in the half that has its tests, so its lack fails there."""
    user, root = (
        set(words.split(",")) for words in re.findall(r"ISORUN_REQUIRE=(\S+)", (ROOT / ".ci/run").read_text("utf-8"))
    )
    assert user | root == set(FACILITIES)
    opens = "tests/unit/tools/documents/test_opens_elsewhere.py"
    assert [bool(collected(half, opens)) for half in HALVES] == ["libreoffice" in root, "libreoffice" in user]
