"""A record is put into a folder that a sandbox can write: nothing that is planted there is followed or written."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox_runner import state as state_module
from sandbox_runner.records import SANDBOX, Records, publish, remove_drafts
from sandbox_runner.state import StateFolder

pytestmark = pytest.mark.uid  # root may read what nobody else may


@pytest.fixture
def host_file(tmp_path: Path) -> Path:
    """A file of the host that must stay as it is."""
    path = tmp_path / "host-file"
    path.write_bytes(b"of the host")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The artifacts directory."""
    (tmp_path / "artifacts").mkdir()
    return tmp_path / "artifacts"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateFolder:
    """A sandbox's state folder."""
    (tmp_path / "memory").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "memory"))
    monkeypatch.setattr(state_module, "_is_in_memory", lambda place: str(place).startswith(str(tmp_path)))
    return StateFolder.create("one", 60)


def linked(at: Path, host_file: Path) -> None:
    at.symlink_to(host_file)


def hard_linked(at: Path, host_file: Path) -> None:
    at.hardlink_to(host_file)


def dangling(at: Path, host_file: Path) -> None:
    at.symlink_to(host_file.with_name("not-there-yet"))


def to_folder(at: Path, host_file: Path) -> None:
    at.symlink_to(host_file.parent)


def plain(at: Path, host_file: Path) -> None:
    at.write_bytes(b"planted")
    at.chmod(0)


def folders(at: Path, host_file: Path) -> None:
    (at / "deeper").mkdir(parents=True)
    (at / "deeper" / "link").symlink_to(host_file)


def fifo(at: Path, host_file: Path) -> None:
    os.mkfifo(at)


def listener(at: Path, host_file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(at))


PLANTS = [linked, hard_linked, dangling, to_folder, plain, folders, fifo, listener]


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_is_replaced_and_never_followed(folder, host_file, plant: Callable[[Path, Path], None]) -> None:
    """Before the record is there, and again while it is: a new file takes the name."""
    descriptor = os.open(folder, os.O_RDONLY)
    for turn in (b"first", b"second"):
        (folder / "sandbox.json").unlink(missing_ok=True)
        plant(folder / "sandbox.json", host_file)
        publish(descriptor, "sandbox.json", turn)
        assert (folder / "sandbox.json").read_bytes() == turn
        assert (folder / "sandbox.json").lstat().st_nlink == 1
        assert not (folder / "sandbox.json").is_symlink()
    os.close(descriptor)
    assert host_file.read_bytes() == b"of the host"
    assert not host_file.with_name("not-there-yet").exists()
    aside = [name for name in os.listdir(folder) if name != "sandbox.json"]
    assert all(name.startswith("sandbox.json-") and name.endswith(".planted") for name in aside)
    assert len(aside) == (2 if plant is folders else 0)


@pytest.mark.parametrize("plant", [linked, hard_linked, dangling])
def test_a_file_that_is_opened_by_its_name_would_follow(folder, host_file, plant) -> None:
    """The positive control: the same link leads a plain `open` to the host's file."""
    plant(folder / "sandbox.json", host_file)
    with open(folder / "sandbox.json", "wb") as file:
        file.write(b"written")
    reached = host_file.with_name("not-there-yet") if plant is dangling else host_file
    assert reached.read_bytes() == b"written"


def test_a_record_that_cannot_be_put_leaves_nothing(folder, monkeypatch) -> None:
    """No draft, and no open file."""
    descriptor = os.open(folder, os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd"))

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="No space left"):
        publish(descriptor, "x", b"data")
    assert os.listdir(folder) == []
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(descriptor)


@pytest.fixture
def records(state: StateFolder, folder: Path) -> Iterator[Records]:
    """The records of one sandbox."""
    records = Records(state, folder)
    yield records
    records.close()


def test_a_growing_record_goes_where_it_was_begun(records, state, folder, host_file) -> None:
    """What is planted under its name meanwhile gets nothing, and does not stop it."""
    with records.growing("docker_build.log") as log:
        log.write(b"one\n")
        assert (folder / "docker_build.log").read_bytes() == b"one\n"
        (folder / "docker_build.log").unlink()
        hard_linked(folder / "docker_build.log", host_file)
        log.write(b"two\n")
    assert host_file.read_bytes() == b"of the host"
    assert state.read("docker_build.log") == b"one\ntwo\n"
    records.publish_all()
    assert (folder / "docker_build.log").read_bytes() == b"one\ntwo\n"
    assert host_file.read_bytes() == b"of the host"


@pytest.mark.parametrize("plant", [linked, hard_linked, fifo, folders])
def test_a_growing_record_is_never_opened_by_its_name(records, state, folder, host_file, plant, monkeypatch) -> None:
    """Also if the plant is there at the very moment when it has been put."""
    rename = os.rename

    def put_and_plant(*arguments: object, **options: object) -> None:
        rename(*arguments, **options)
        (folder / "docker_build.log").unlink()
        plant(folder / "docker_build.log", host_file)

    monkeypatch.setattr(os, "rename", put_and_plant)
    with records.growing("docker_build.log") as log:
        monkeypatch.undo()
        log.write(b"one\n")
    assert host_file.read_bytes() == b"of the host"


def test_a_failure_keeps_what_had_grown(records, folder) -> None:
    """The log of a build that failed is what one wants to read."""

    def build() -> None:
        with records.growing("docker_build.log") as log:
            log.write(b"one\n")
            raise ValueError("it failed")

    with pytest.raises(ValueError, match=r"^it failed$"):
        build()
    records.publish_all()
    assert (folder / "docker_build.log").read_bytes() == b"one\n"


def test_the_directory_is_the_one_that_was_there_first(records, folder, tmp_path) -> None:
    """A sandbox that can rename it, and put a link in its place, leads nothing astray."""
    (tmp_path / "elsewhere").mkdir()
    folder.rename(tmp_path / "moved")
    folder.symlink_to("elsewhere")
    records.write("sandbox.json", b"{}")
    assert os.listdir(tmp_path / "elsewhere") == []
    assert (tmp_path / "moved" / "sandbox.json").exists()


def test_a_link_is_no_directory(state, folder, tmp_path) -> None:
    """The caller has resolved it before: what is a link now was put there since."""
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        Records(state, tmp_path / "link")


def test_the_record_says_when_the_sandbox_is_closed(records, state, folder) -> None:
    """And with which schema it is written; a sandbox that is kept is still running."""
    records.write_json(SANDBOX, {"status": "running", "name": "ü\udcff"})
    records.publish_all(is_closed=False)
    assert json.loads((folder / SANDBOX).read_bytes())["status"] == "running"
    records.publish_all()
    found = json.loads((folder / SANDBOX).read_bytes())
    assert (found["schema"], found["status"]) == (1, "closed")


def test_the_last_word_is_ours(records, folder) -> None:
    """What a sandbox has made of its records while it lived is put right."""
    records.write("container_logs.txt", b"ours")
    (folder / "container_logs.txt").unlink()
    (folder / "container_logs.txt").write_bytes(b"a lie")
    records.publish_all()
    assert (folder / "container_logs.txt").read_bytes() == b"ours"
    records.close()
    records.close()


def test_what_a_killed_owner_left_in_the_middle_of_writing_is_removed(records, state, folder, tmp_path) -> None:
    """By the part of its name that was noted before; a file of another's, and one that is not hidden, stay."""
    (tmp_path / "workspace").mkdir()
    records.will_write_in([tmp_path / "workspace", tmp_path / "not-there"])
    for place in (folder, tmp_path / "workspace"):
        (place / f".draft-{records.token}1").touch()
        (place / f"seen-{records.token}").touch()
        (place / ".draft-0123456789abcdef").touch()
    remove_drafts(state)
    for place in (folder, tmp_path / "workspace"):
        assert sorted(os.listdir(place)) == [".draft-0123456789abcdef", f"seen-{records.token}"]


def test_a_draft_is_named_so_that_it_is_found(records, state, folder, monkeypatch) -> None:
    """Who is killed between making the file and giving it its name leaves one that is removed."""

    rename = os.rename

    def die(*arguments: object, **options: object) -> None:
        if "src_dir_fd" in options:
            raise KeyboardInterrupt  # as sudden as a kill: nothing is tidied up
        rename(*arguments, **options)

    monkeypatch.setattr(os, "rename", die)
    with pytest.raises(KeyboardInterrupt):
        records.write("sandbox.json", b"{}")
    with pytest.raises(KeyboardInterrupt):
        records.publish_all()
    monkeypatch.undo()
    assert len(os.listdir(folder)) > 0
    remove_drafts(state)
    assert os.listdir(folder) == []
