"""What is copied for a caller or a session rests between its pieces, as all long work beside an event loop does."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import isorun
from isorun.core import pace
from isorun.core.limits import MIB
from isorun.store.collect import fingerprints
from isorun.store.folder import open_root
from isorun.store.saving import save
from isorun.store.sessions import take

pytestmark = pytest.mark.uid

FILES, BIG = 30, 5 * MIB


class Rests:
    """Counts the rests, in place of taking them."""

    def __init__(self) -> None:
        self.count = 0

    def rest(self) -> None:
        self.count += 1


@contextmanager
def paced() -> Iterator[Rests]:
    """This thread is paced meanwhile."""
    pace._here.pace = rests = Rests()
    try:
        yield rests
    finally:
        del pace._here.pace


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number}").write_text("x")
    return folder


@pytest.fixture
def big(tmp_path: Path) -> Path:
    folder = tmp_path / "big"
    folder.mkdir()
    (folder / "file").write_bytes(os.urandom(BIG))
    return folder


def saved(folder: Path, to: Path) -> None:
    assert save(folder, to, passed_over=lambda _: False, before={}) == []


def prepared(folder: Path, to: Path) -> None:
    held = take(open_root(to), "one")
    assert held is not None
    fd = os.open(folder, os.O_RDONLY)
    assert held.prepare(fd, isorun.Limits(), {}) == ""
    os.close(fd)
    held.commit()
    held.release()


@pytest.mark.parametrize("work", [saved, prepared])
def test_a_copy_rests_at_each_file_and_at_each_piece(work: Callable[[Path, Path], None], many, big, tmp_path) -> None:
    """A neighbour waits for one file, or for a MiB of it, and not for the whole."""
    with paced() as rests:
        work(many, tmp_path / "to")
    assert rests.count >= FILES
    with paced() as rests:
        work(big, tmp_path / "to")
    assert rests.count >= BIG // MIB


def test_a_session_rests_while_it_keeps_what_did_not_change(many, tmp_path) -> None:
    """To link an old file in the place of its copy is a piece of work, too."""
    prepared(many, tmp_path / "to")
    held = take(open_root(tmp_path / "to"), "one")
    assert held is not None
    fd = os.open(many, os.O_RDONLY)
    before = fingerprints(many)
    assert before["0"] == hashlib.sha256(b"x").hexdigest()
    with paced() as rests:
        assert held.prepare(fd, isorun.Limits(), before) == ""
    held.release()
    os.close(fd)
    assert rests.count >= 2 * FILES
