"""A caller's file as it is sent is the one that was checked, whatever other users of its folder did meanwhile."""

import asyncio
import errno
import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from isorun.backends.base import File, Program
from isorun.backends.sending import send_ahead, send_program
from isorun.core.errors import InvalidRequest
from isorun.core.limits import Limits
from isorun.kernel.readiness import Channel
from isorun.runtime.request import check_inputs
from isorun.wire.messages import Go, Put, Started, StoreError
from isorun.wire.session import Session, Side, State
from tests.unit.records import CONTEXT

SECRET = b"for root alone"


async def _sent(files: tuple[File, ...]) -> list[Put]:
    """What a slot gets of *files*."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    slot, got = Channel(theirs, Session(Side.SLOT, Side.HOST, State.READY)), []

    async def take() -> None:
        while isinstance(message := await slot.receive(), Put):
            got.append(message)
        if message is not None:
            await slot.send(Started())

    taking = asyncio.create_task(take())
    with ours, theirs:
        try:
            await send_program(
                Channel(ours, Session(Side.HOST, Side.SLOT, State.READY)),
                Program(files=list(files), argv=(), context=CONTEXT),
            )
        finally:
            ours.close()  # after a refusal nothing more comes: that ends the other task
            await taking
    return got


@pytest.mark.parametrize(("size", "ahead"), [(10, ["work/a", "work/b"]), (40_000, [])])
async def test_small_files_go_ahead_once(size: int, ahead: list[str]) -> None:
    """What `send_ahead` sent is not sent again, and the digests are those of what was sent; large files wait."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    files = [File(path=f"work/{name}", data=name.encode() * size) for name in "ab"]
    program = Program(files=files, context=CONTEXT)
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        slot = Channel(theirs, Session(Side.SLOT, Side.HOST, State.READY))
        host = Channel(ours, Session(Side.HOST, Side.SLOT, State.READY))
        await send_ahead(host, program)
        assert list(program.digests) == ahead
        sending = asyncio.create_task(send_program(host, program))
        paths = []
        while isinstance(message := await slot.receive(), Put):
            paths.append(message.path)
        await slot.send(Started())
        await sending
    assert isinstance(message, Go)
    assert paths == ["work/a", "work/b"]
    assert program.digests == {file.path: hashlib.sha256(file.data or b"").hexdigest() for file in files}


async def test_a_slot_that_is_gone_is_told_of_at_the_start() -> None:
    """Sending ahead raises nothing: what the slot said last is known when it is to start."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    program = Program(files=[File(path="work/a", data=b"a")], context=CONTEXT)
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        slot = Channel(theirs, Session(Side.SLOT, Side.HOST, State.READY))
        host = Channel(ours, Session(Side.HOST, Side.SLOT, State.READY))
        await send_ahead(host, program)
        await slot.receive()
        await slot.send(StoreError(path="work/a", reason="No space left on device", errno=errno.ENOSPC))
        theirs.close()
        with pytest.raises(InvalidRequest, match="work/a does not fit the workspace"):
            await send_program(host, program)


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A folder that other users may change, with one file, and a file beside it that they may not read."""
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/sub/f.txt").write_bytes(b"ordinary")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/f.txt").write_bytes(SECRET)
    return tmp_path / "d"


def _is_link(file: Path, secret: Path) -> None:
    file.unlink()
    file.symlink_to(secret)


def _folder_is_link(file: Path, secret: Path) -> None:
    file.unlink()
    file.parent.rmdir()
    file.parent.symlink_to(secret.parent)


def _is_fifo(file: Path, secret: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _is_other(file: Path, secret: Path) -> None:
    (file.parent / "new").write_bytes(b"ordinary")
    (file.parent / "new").replace(file)


def _is_socket(file: Path, secret: Path) -> None:
    file.unlink()
    os.chdir(file.parent)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(file.name)


def _is_larger(file: Path, secret: Path) -> None:
    with file.open("ab") as more:
        more.write(b"x" * (60 << 20))


def _is_gone(file: Path, secret: Path) -> None:
    file.unlink()


CHANGES = (_is_link, _folder_is_link, _is_fifo, _is_other, _is_socket, _is_larger, _is_gone)


async def test_what_was_checked_is_sent(given: Path) -> None:
    """The control: unchanged files of a folder arrive, in order, with their names."""
    (given / "empty").touch()
    puts = await _sent(check_inputs([given], Limits()))
    assert [(put.path, put.data) for put in puts] == [("work/d/empty", b""), ("work/d/sub/f.txt", b"ordinary")]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_a_file_that_changed_after_the_check_is_refused(
    change: Callable[[Path, Path], None], given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not followed, not waited for, not sent beyond what was counted; the loop goes on meanwhile."""
    monkeypatch.chdir(tmp_path)
    files = check_inputs([given], Limits())
    change(given / "sub/f.txt", tmp_path / "secret/f.txt")
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    with pytest.raises(InvalidRequest, match=r"sub/f\.txt changed while it was sent; send a copy"):
        await asyncio.wait_for(_sent(files), 10)
    turning.cancel()
    assert turns > 0


async def test_a_link_in_a_folder_of_out_is_not_followed(given: Path, tmp_path: Path) -> None:
    """The folder that out/ starts with is fingerprinted first; a link put there afterwards is refused, too."""
    file = File(path="out/f.txt", source=given / "sub/f.txt", sha256="0" * 64)
    _is_link(given / "sub/f.txt", tmp_path / "secret/f.txt")
    with pytest.raises(InvalidRequest, match="changed while it was sent"):
        await _sent((file,))


def test_a_folder_that_becomes_a_link_while_it_is_walked_is_not_entered(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walk goes by descriptors: between a folder's name and its entry nobody can put another one."""
    real = os.open

    def racing(path: object, *arguments: object, **options: object) -> int:
        if path == "sub":
            os.rename(given / "sub", given / "aside")
            (given / "sub").symlink_to(tmp_path / "secret")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", racing)
    try:
        found = check_inputs([given], Limits())
    except (InvalidRequest, OSError):
        return
    secret = (tmp_path / "secret/f.txt").stat().st_ino
    assert secret not in {file.checked.inode for file in found if file.checked}
