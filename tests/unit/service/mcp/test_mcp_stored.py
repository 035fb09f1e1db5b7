"""Files of stored runs: what a program left is read, and no link, name or owner leads anywhere else."""

import os
from pathlib import Path

import pytest

from isorun.core.errors import InvalidRequest
from isorun.service.mcp.stored import read_piece

SECRET = b"a secret of the host"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with one run, as a hostile program may have left it."""
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "secret").write_bytes(SECRET)
    out = tmp_path / "root" / "codegen_mcp-1" / "out"
    (out / "d").mkdir(parents=True)
    (out / "logs").mkdir()
    (out / "d" / "a.csv").write_bytes(b"0123456789")
    (out / "logs" / "user.log").write_bytes(b"printed")
    (out / "logs" / "infra.log").write_bytes(SECRET)
    (out / "result.json").write_bytes(SECRET)
    (out.parent / "beside").write_bytes(SECRET)
    (out / "link").symlink_to(tmp_path / "secret")
    (out / "up").symlink_to(tmp_path / "folder")
    os.mkfifo(out / "fifo")
    return tmp_path / "root"


def test_a_part_of_a_file_is_read(root) -> None:
    """From an offset, as many bytes as asked for, and how many there are; behind the end nothing."""
    piece = read_piece(root, "mcp-1", "d/a.csv", offset=3, most=4)
    assert (piece.data, piece.offset, piece.total) == (b"3456", 3, 10)
    assert read_piece(root, "mcp-1", "d/a.csv", offset=8, most=99).data == b"89"
    assert read_piece(root, "mcp-1", "d/a.csv", offset=99, most=99).data == b""
    assert read_piece(root, "mcp-1", "logs/user.log", offset=0, most=99).data == b"printed"


@pytest.mark.parametrize(
    ("exec_id", "path", "code"),
    [
        ("mcp-1", "link", "unreadable"),
        ("mcp-1", "up/secret", "unreadable"),
        ("mcp-1", "fifo", "unreadable"),
        ("mcp-1", "d", "unreadable"),
        ("mcp-1", "d/a.csv/b", "unreadable"),
        ("mcp-1", "a\udc80", "no_such_file"),
        ("mcp-1", "result.json", "unreadable"),
        ("mcp-1", "RESULT.json", "unreadable"),
        ("mcp-1", "logs/infra.log", "unreadable"),
        ("mcp-1", "../beside", "invalid_path"),
        ("mcp-1", "d/../../beside", "invalid_path"),
        ("mcp-1", "nothing", "no_such_file"),
        ("mcp-2", "d/a.csv", "no_such_run"),
        ("..", "secret", "invalid_exec_id"),
    ],
)
def test_nothing_else_is_read(root, exec_id, path, code) -> None:
    """A link, a way up, a special file, a record of the host: each is refused, and no path of the host is told."""
    with pytest.raises(InvalidRequest) as caught:
        read_piece(root, exec_id, path, offset=0, most=99)
    assert caught.value.code == code
    assert str(root) not in str(caught.value)


@pytest.mark.parametrize("name", ["out", "codegen_mcp-1"])
def test_a_folder_of_the_run_may_not_be_a_link(root, tmp_path, name) -> None:
    """Also where the run's own folder was replaced."""
    (tmp_path / "folder" / "out").mkdir()
    (tmp_path / "folder" / "out" / "secret").write_bytes(SECRET)
    place = root / "codegen_mcp-1" / "out" if name == "out" else root / "codegen_mcp-1"
    place.rename(tmp_path / "away")
    place.symlink_to(tmp_path / "folder")
    with pytest.raises(InvalidRequest):
        read_piece(root, "mcp-1", "secret", offset=0, most=99)


@pytest.mark.root
def test_the_folder_of_another_user_is_no_run(root) -> None:
    """In a root that many users write to, a folder that one of them made is not read for another."""
    os.chown(root / "codegen_mcp-1", 12345, 12345)
    with pytest.raises(InvalidRequest) as caught:
        read_piece(root, "mcp-1", "d/a.csv", offset=0, most=99)
    assert caught.value.code == "no_such_run"
