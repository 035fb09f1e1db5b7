"""backends.executor_ids: programs of root's get ids that are nobody's on this machine."""

import grp
import os
import pwd

import pytest

from isorun.backends import executor_ids
from isorun.backends.executor_ids import GIDS, UIDS, of_settings, unused
from isorun.settings import Settings

pytestmark = pytest.mark.uid

EVERY = [range(1 << 32)]


def find(taken: set[int]) -> object:
    def entry(number: int) -> str:
        if number not in taken:
            raise KeyError(number)
        return "somebody"

    return entry


@pytest.mark.parametrize(
    ("taken", "mapped", "chosen"),
    [
        (set(), EVERY, 2_000_001_001),
        ({1001, 1000}, EVERY, 2_000_001_001),
        ({2_000_001_001}, EVERY, 61_001),
        (set(), [range(65536)], 61_001),
        (set(), [range(10), range(61_001, 61_002)], 61_001),
        ({61_001}, [range(65536)], 1001),
        (set(), [range(2000)], 1001),
        (set(), [], 1001),
    ],
)
def test_the_first_that_is_there_and_nobodys(taken, mapped, chosen) -> None:
    """An id that this process has no name for, or somebody has one for, is passed over; then what was set stays."""
    assert unused(UIDS, find(taken), mapped, 1001) == chosen


def test_what_was_named_is_taken() -> None:
    """A setting decides, each for itself, and also one that says what the default would be."""
    named = {"EXECUTOR_UID": "1001", "ISORUN_EXECUTOR_GID": "1000"}
    assert of_settings(Settings.load(environ=named)) == (1001, 1000)
    assert of_settings(Settings.load(environ={"EXECUTOR_UID": "4711"}))[0] == 4711
    assert of_settings(Settings.load(environ={"EXECUTOR_UID": "4711"}))[1] in (*GIDS, 1000)


def test_by_default_nobody_has_them(monkeypatch) -> None:
    """No account and no group of this machine; and not the next that is made, which gets a small number."""
    monkeypatch.setattr(executor_ids, "_mapped", lambda kind: EVERY)
    uid, gid = of_settings(Settings.load(environ={}))
    assert uid not in {entry.pw_uid for entry in pwd.getpwall()}
    assert gid not in {entry.gr_gid for entry in grp.getgrall()}
    assert min(uid, gid) > 60_000


def test_the_kernels_map_is_read() -> None:
    """This process's own ids are among those it can take."""
    assert any(os.geteuid() in ids for ids in executor_ids._mapped("uid"))
    assert any(os.getegid() in ids for ids in executor_ids._mapped("gid"))
