"""`open_output`: a tool opens beneath the run's out/ and nowhere else, whatever the program put there."""

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isorun.supervisor.output import OutputDirectory
from isorun.supervisor.tool import ToolError
from tests.conftest import ORDINARY


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The directory that tools may write to; its neighbour `host` is what they must not reach."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "secret").write_text("untouched")
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def directory(out: Path) -> Iterator[OutputDirectory]:
    opened = OutputDirectory(os.open(out, os.O_RDONLY | os.O_DIRECTORY))
    yield opened
    opened.close()


def untouched(out: Path) -> bool:
    """Whether the host's own file is as it was, and nothing was made beside it."""
    host = out.parent / "host"
    return (host / "secret").read_text() == "untouched" and os.listdir(host) == ["secret"]


def test_a_file_is_written_and_read(directory: OutputDirectory, out: Path) -> None:
    """w replaces, a appends, x makes new, r reads; with b bytes, without it UTF-8, or the encoding told."""
    with directory.open("f", "wb") as file:
        file.write(b"1234567890")
    with directory.open("f") as file:  # the default is wb
        file.write(b"12")
    with directory.open("f", "a") as file:
        file.write("ü")
    assert (out / "f").read_bytes() == "12ü".encode()
    with directory.open("f", "r") as file:
        assert file.read() == "12ü"
    with directory.open("f", "rb") as file:
        assert file.read() == "12ü".encode()
    with directory.open("g", "x", "utf-16-le") as file:
        file.write("ü")
    assert (out / "g").read_bytes() == b"\xfc\x00"
    with pytest.raises(FileExistsError):
        directory.open("g", "x")
    with pytest.raises(FileNotFoundError):
        directory.open("h", "r")
    with pytest.raises(FileNotFoundError):
        directory.open("no/folder/h", "rb")
    assert not (out / "no").exists(), "reading makes no folder"


@pytest.mark.parametrize("mode", ["", "b", "r+", "w+b", "rw", "wt", "U", "wbb", "bw", " w"])
def test_other_modes_are_refused(directory: OutputDirectory, out: Path, mode: str) -> None:
    """What is not r, w, x or a, with or without b, is the tool's own mistake; nothing is made."""
    with pytest.raises(ValueError, match="mode must be r, w, x or a, with or without b, got "):
        directory.open("f", mode)
    assert os.listdir(out) == []


PATHS = {
    "f": "f",
    "./f": "f",
    "a//b/./c": "a/b/c",
    "/workspace/out/f": "f",
    "/workspace/out/a/b": "a/b",
    "a/": "a",
    "..f/f..": "..f/f..",
    "ünï/日本": "ünï/日本",
    " spaces and\nlines ": " spaces and\nlines ",
    "x" * 255: "x" * 255,
    "/".join(["d" * 100] * 9): "/".join(["d" * 100] * 9),
}


@pytest.mark.parametrize("path", PATHS)
def test_folders_on_the_way_are_made(directory: OutputDirectory, out: Path, path: str) -> None:
    """A relative path, or one as the program writes it, is opened where it says, at any depth."""
    with directory.open(path, "w") as file:
        file.write("x")
    assert (out / PATHS[path]).read_text() == "x"


LEADS_OUT = [
    "..", "../host/secret", "a/../../host/secret", "a/..", "/etc/passwd", "/", "", ".", "./", "//f", "/workspace/out",
    "/workspace/out/", "/workspace/out/../f", "/workspace/outside/f", "/workspace/work/f", "/workspace/out//../f",
    "f\0", "\0", "a/\0/b",
]  # fmt: skip


@pytest.mark.parametrize("path", LEADS_OUT)
@pytest.mark.parametrize("mode", ["r", "wb", "x", "a"])
def test_a_path_that_leads_out_is_refused(directory: OutputDirectory, out: Path, path: str, mode: str) -> None:
    """`..`, absolute paths, NUL and names of nothing are refused before anything is looked up or made."""
    with pytest.raises(ToolError, match="must be a relative path below the output directory, without"):
        directory.open(path, mode)
    assert os.listdir(out) == []
    assert untouched(out)


@pytest.mark.parametrize("path", ["x" * 256, "é" * 128, "/".join(["d" * 100] * 11), "a/" * 600 + "f"])
def test_a_path_that_is_too_long_is_refused(directory: OutputDirectory, out: Path, path: str) -> None:
    """The bounds of a contract's names hold for tools too; no folder of it is made."""
    with pytest.raises(ToolError, match="the path is too long: at most 255 bytes a part and 1024 in all"):
        directory.open(path, "w")
    assert os.listdir(out) == []


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("mode", ["r", "wb", "x", "a"])
@pytest.mark.parametrize("target", ["{out}/../host", "../host", "/", "{out}", ".", "nowhere", "loop"])
def test_a_link_in_any_component_is_refused(
    directory: OutputDirectory, out: Path, depth: int, mode: str, target: str
) -> None:
    """A planted link, absolute, relative, dangling, looping or leading inside, is never followed."""
    parts = ["a", "b", "loop"]
    for part in range(depth):
        (out / "/".join(parts[: part + 1])).mkdir()
    link = out / "/".join([*parts[:depth], "loop"])
    link.symlink_to(target.format(out=out))
    for path in (f"{link.relative_to(out)}/secret", str(link.relative_to(out))):
        with pytest.raises((ToolError, FileExistsError)) as raised:
            directory.open(path, mode)
        if isinstance(raised.value, ToolError):
            assert str(raised.value) == f"{path!r} goes through a link"
        else:
            assert (mode, path) == ("x", str(link.relative_to(out)))
    assert untouched(out)


def test_the_control_of_links(out: Path) -> None:
    """Opened by its path on the host, the same link writes to the host's file."""
    (out / "loop").symlink_to("../host")
    with open(out / "loop" / "secret", "w") as file:
        file.write("reached")
    assert not untouched(out)


def test_a_link_that_is_planted_between_two_calls_is_refused(directory: OutputDirectory, out: Path) -> None:
    """A folder that a tool has written to and that the program then replaces by a link is a link from then on."""
    with directory.open("notes/one", "w") as file:
        file.write("1")
    os.rename(out / "notes", out / "old")
    (out / "notes").symlink_to("../host")
    for mode in ("w", "r", "a", "x"):
        with pytest.raises(ToolError, match="'notes/secret' goes through a link"):
            directory.open("notes/secret", mode)
    assert untouched(out)


def test_a_file_that_is_open_stays_the_file_it_was(directory: OutputDirectory, out: Path) -> None:
    """What a program does to the name afterwards does not move an open file."""
    with directory.open("f", "w") as file:
        os.unlink(out / "f")
        (out / "f").symlink_to("../host/secret")
        file.write("mine")
    assert untouched(out)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


KINDS: dict[str, Callable[[Path], None]] = {"FIFO": _fifo, "socket": _socket, "folder": Path.mkdir}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["r", "w", "a"])
def test_what_is_no_regular_file_is_refused_at_once(
    directory: OutputDirectory, out: Path, kind: str, mode: str
) -> None:
    """A FIFO, socket or folder in the place of a file neither blocks nor is opened."""
    KINDS[kind](out / "f")
    with pytest.raises(ToolError, match="'f' is not a regular file"):
        directory.open("f", mode)


def test_a_fifo_with_a_reader_is_refused_too(directory: OutputDirectory, out: Path) -> None:
    """Where the open itself succeeds, what was opened is looked at."""
    os.mkfifo(out / "f")
    reader = os.open(out / "f", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(ToolError, match="'f' is not a regular file"):
        directory.open("f", "w")
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_file_in_the_place_of_a_folder_is_refused(directory: OutputDirectory, out: Path) -> None:
    """The file is not replaced."""
    (out / "a").write_text("x")
    with pytest.raises(ToolError, match="'a/b' is not a regular file"):
        directory.open("a/b", "w")
    assert (out / "a").read_text() == "x"


def test_nothing_is_cut_before_it_is_known_what_it_is(
    directory: OutputDirectory, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is emptied only after the look at its kind: with that look refusing, its bytes are still there."""
    (out / "f").write_text("12345")

    def refuse(descriptor: int, path: str) -> None:
        raise ToolError("no")

    monkeypatch.setattr("isorun.supervisor.output._check_regular", refuse)
    with pytest.raises(ToolError, match="no"):
        directory.open("f", "w")
    assert (out / "f").read_text() == "12345"


def test_nothing_leaks_from_a_refusal(directory: OutputDirectory, out: Path) -> None:
    """A thousand refused opens leave no descriptor behind."""
    os.mkfifo(out / "fifo")
    (out / "link").symlink_to("x")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        for path, mode in (("fifo", "r"), ("link", "w"), ("link/a/b", "w"), ("fifo/x", "w"), ("none", "r")):
            with pytest.raises((ToolError, OSError)):
                directory.open(path, mode)
        with pytest.raises(LookupError):
            directory.open("text", "w", "no-such-encoding")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.root
def test_a_full_disk_stays_an_oserror(tmp_path: Path) -> None:
    """The quota is not a refusal of ours: ENOSPC keeps its kind and says which path, in the tool's words."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = _on_a_full_disk(tmp_path)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _on_a_full_disk(folder: Path) -> int:
    from isorun.kernel import mounts, namespaces

    namespaces.unshare(namespaces.NEWNS)
    mounts.make_private()
    mounts.tmpfs(str(folder), size=64 << 10, inodes=4, mode=0o755)
    directory = OutputDirectory(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
    file = directory.open("f", "wb")
    try:
        file.write(b"x" * (1 << 20))
        file.flush()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            return 2
    try:
        for number in range(10):
            directory.open(f"empty-{number}", "wb")
    except OSError as error:
        return 0 if error.errno == errno.ENOSPC and error.filename == f"empty-{number}" else 3
    return 4


def test_after_close_nothing_is_opened(directory: OutputDirectory, out: Path) -> None:
    """A tool that outlives its run is told so, whatever it asks; closing twice changes nothing."""
    directory.close()
    directory.close()
    for mode in ("r", "wb", "x", "a"):
        with pytest.raises(ToolError, match="the run has ended: its output directory is closed"):
            directory.open("f", mode)
    assert os.listdir(out) == []


@pytest.mark.root
def test_root_acts_as_the_owner(out: Path) -> None:
    """Files and folders belong to the directory's owner, and root's rights are not used: 000 is not readable."""
    os.chown(out, *ORDINARY)
    os.mkdir(out / "theirs")  # root's own, which the owner may not write to
    (out / "closed").write_text("x")
    os.chmod(out / "closed", 0)
    directory = OutputDirectory(os.open(out, os.O_RDONLY | os.O_DIRECTORY))
    with directory.open("a/b/f", "w") as file:
        file.write("x")
    for path in ("a", "a/b", "a/b/f"):
        found = os.stat(out / path)
        assert (found.st_uid, found.st_gid) == ORDINARY
    assert stat.S_IMODE(os.stat(out / "a/b/f").st_mode) & 0o6000 == 0
    for path, mode in (("closed", "r"), ("closed", "w"), ("theirs/f", "w"), ("theirs/a/f", "x")):
        with pytest.raises(PermissionError):
            directory.open(path, mode)
    directory.close()
    open(out / "closed").close()  # the control: root itself can, also after all of that
    assert os.listdir(out / "theirs") == []
