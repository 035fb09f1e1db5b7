"""The out/ that a caller gives a run to start from: read once, before anything is started."""

import socket
from pathlib import Path

import pytest

import isorun
from isorun.backends.base import File, Program
from isorun.backends.sending import send_program
from isorun.core.outcome import Exit
from isorun.core.request import RunRequest
from isorun.kernel.readiness import Channel
from isorun.runtime.request import accept, fingerprint_before
from isorun.testing.fake import Script, ScriptedBackend
from isorun.wire.session import Session, Side, State
from tests.unit.records import CONTEXT


async def test_what_cannot_be_sent_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """`start` itself raises: there is no run, no slot was taken and no folder was made."""
    (tmp_path / "before").mkdir()
    (tmp_path / "before/link").symlink_to("/etc/passwd")
    backend = ScriptedBackend(Script(exit=Exit(code=0)))
    given = {"settings": isorun.Settings(), "pool_size": 0, "workspace_root": tmp_path / "root"}
    async with isorun.Runtime(backend=backend, **given) as rt:
        with pytest.raises(isorun.InvalidRequest, match=r"^out/link is a symbolic link; only files can be sent in$"):
            await rt.start("pass", start_from=tmp_path / "before")
        assert list((tmp_path / "root").glob("codegen_*")) == []
        assert (await rt.execute("pass")).ok  # the only slot there is was not spent


async def test_a_file_that_changed_after_it_was_read_is_not_sent_as_the_old_one(tmp_path: Path) -> None:
    """The comparison after the run would blame the program for what the caller did."""
    (tmp_path / "a.txt").write_text("before")
    sent = fingerprint_before(tmp_path)
    (tmp_path / "a.txt").write_text("after")
    files = [File(path="out/a.txt", source=tmp_path / "a.txt", sha256=sent["a.txt"])]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        with pytest.raises(isorun.InvalidRequest) as caught:
            await send_program(
                Channel(ours, Session(Side.HOST, Side.SLOT, State.READY)), Program(files=files, context=CONTEXT)
            )
    assert str(caught.value) == f"{tmp_path}/a.txt changed while it was sent; send a copy"


def test_names_of_the_host_are_left_out(tmp_path: Path) -> None:
    """The out/ of an earlier run can be given: its logs and its result stay behind."""
    (tmp_path / "logs").mkdir()
    for name in ("a.txt", "result.json", "logs/user.log"):
        (tmp_path / name).write_text("x")
    assert list(fingerprint_before(tmp_path)) == ["a.txt"]


def test_a_folder_that_is_gone_is_the_callers_error(tmp_path: Path) -> None:
    """Between the check and the reading the folder can vanish; that is no failure of the sandbox."""
    (tmp_path / "before").mkdir()
    request = accept(RunRequest.of("pass", start_from=tmp_path / "before"), isorun.Limits())
    assert request.before is not None
    (tmp_path / "before").rmdir()
    with pytest.raises(isorun.InvalidRequest) as caught:
        fingerprint_before(request.before)
    assert caught.value.code == "unreadable_input"
