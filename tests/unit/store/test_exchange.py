"""Two names that trade places: what the kernel does, and what is said where it cannot."""

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from isorun.store import exchange as module
from isorun.store.exchange import exchange


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Path, int, int]]:
    """Two folders, a/ with `old` in it and b/ with `new`, and a descriptor of each one's parent."""
    for parent, name, held in (("left", "a", "old"), ("right", "b", "new")):
        (tmp_path / parent / name).mkdir(parents=True)
        (tmp_path / parent / name / held).touch()
    left, right = (os.open(tmp_path / parent, os.O_RDONLY) for parent in ("left", "right"))
    yield tmp_path, left, right
    os.close(left)
    os.close(right)


def test_two_folders_trade_places(two) -> None:
    """Each is then found under the other's name, in the other's parent."""
    root, left, right = two
    exchange("a", "b", one_dir_fd=left, other_dir_fd=right)
    assert os.listdir(root / "left/a") == ["new"]
    assert os.listdir(root / "right/b") == ["old"]


def test_a_link_is_traded_and_not_followed(two) -> None:
    """What it names stays where it is."""
    root, left, right = two
    os.symlink(root / "left/a", root / "right/link")
    exchange("a", "link", one_dir_fd=left, other_dir_fd=right)
    assert (root / "left/a").is_symlink()
    assert os.listdir(root / "right/link") == ["old"]


def test_both_names_must_be_there(two) -> None:
    """The kernel's own error, naming the call; nothing was moved."""
    root, left, right = two
    with pytest.raises(FileNotFoundError, match=r"renameat2\(RENAME_EXCHANGE\)"):
        exchange("a", "nothing", one_dir_fd=left, other_dir_fd=right)
    assert os.listdir(root / "left") == ["a"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_cannot_is_named(two, monkeypatch, number) -> None:
    """EINVAL and ENOSYS of this call mean the same, and the text says what."""
    root, left, right = two

    def refuse(*_: object) -> int:
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(module, "_renameat2", refuse)
    with pytest.raises(OSError, match="this file system cannot exchange two folders in one step") as caught:
        exchange("a", "b", one_dir_fd=left, other_dir_fd=right)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert os.listdir(root / "left/a") == ["old"]


def test_a_c_library_without_a_wrapper_is_enough(two, monkeypatch) -> None:
    """By its number, on the machines whose number is known."""
    root, left, right = two

    class Bare:
        syscall = staticmethod(module.libc.syscall)

    monkeypatch.setattr(module, "libc", Bare())
    exchange("a", "b", one_dir_fd=left, other_dir_fd=right)
    assert os.listdir(root / "left/a") == ["new"]
    monkeypatch.setattr(module.os, "uname", lambda: os.uname_result(("Linux", "here", "6", "#1", "pdp11")))
    with pytest.raises(OSError, match="this file system cannot exchange"):
        exchange("a", "b", one_dir_fd=left, other_dir_fd=right)
