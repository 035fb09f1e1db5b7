"""What a sandbox keeps on the host: nobody else can read it, and whose it is can be told after any death."""

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sandbox_runner import state as state_module
from sandbox_runner.errors import SandboxError, SandboxStartFailed
from sandbox_runner.state import Owner, StateFolder, state_root, this_host

pytestmark = pytest.mark.uid  # whose a folder is


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    """A place of the test's own, taken for one in memory."""
    (tmp_path / "memory").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "memory"))
    monkeypatch.setattr(state_module, "_is_in_memory", lambda place: str(place).startswith(str(tmp_path)))
    return tmp_path / "memory" / f"sandbox-runner-{os.geteuid()}"


def dead() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_nobody_else_can_read_it(root) -> None:
    """Folders are 0700 and files 0400, whatever the umask."""
    before = os.umask(0)
    try:
        state = StateFolder.create("one", 60)
        secret = state.write("secret", b"x")
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (root, state.path, secret, state.path / "owner.json")}
    assert modes == {root: 0o700, state.path: 0o700, secret: 0o400, state.path / "owner.json": 0o400}
    assert state.path == root / "one"


def test_a_file_is_replaced_whole(root) -> None:
    """And read back; one that is not there is None; no draft stays."""
    state = StateFolder.create("one", 60)
    state.write("a", b"first")
    state.write("a", b"second")
    assert state.read("a") == b"second"
    assert state.read("b") is None
    assert sorted(os.listdir(state.path)) == ["a", "owner.json"]


def test_a_name_is_used_once(root) -> None:
    """The second one is refused, and of it nothing is left."""
    StateFolder.create("one", 60)
    with pytest.raises(SandboxStartFailed) as raised:
        StateFolder.create("one", 60)
    said = "a sandbox named one is there already: close it, or run `sandbox-runner cleanup`"
    assert str(raised.value) == said
    assert os.listdir(root) == ["one"]


def test_a_full_disk_is_not_a_name_in_use(root, monkeypatch) -> None:
    """The text says what failed; nothing is left."""

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    StateFolder.create("other", 60)
    monkeypatch.setattr(state_module, "_write", full)
    with pytest.raises(SandboxError, match=r"/one cannot be made: No space left on device$"):
        StateFolder.create("one", 60)
    assert os.listdir(root) == ["other"]


def test_its_owner_is_this_process(root) -> None:
    """Told from any later one of the same number; its time is as long as was asked."""
    state = StateFolder.create("one", 60)
    assert state.owner == Owner.of(os.getpid())
    assert state.owner_is_alive
    assert not state.is_expired
    assert not state.is_abandoned
    assert StateFolder.create("two", 1e-9).is_expired


def owned_by(root: Path, **changes: object) -> StateFolder:
    """A folder whose owner is this process, but for *changes*."""
    state = StateFolder.create("one", 60)
    found = json.loads((state.path / "owner.json").read_text())
    state.write("owner.json", json.dumps({**found, **changes}).encode())
    return state


def test_a_dead_owner_is_dead(root) -> None:
    """Also when another process has its number since, and when it is a zombie."""
    assert not owned_by(root, pid=dead()).owner_is_alive
    StateFolder(root / "one").remove()
    assert not owned_by(root, started=1).owner_is_alive
    with subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert Owner.of(child.pid) is None


def test_an_owner_elsewhere_is_taken_to_live(root) -> None:
    """Of another machine, boot or pid namespace we know nothing."""
    state = owned_by(root, pid=dead(), host="another")
    assert state.owner is not None
    assert not state.owner.is_here
    assert state.owner_is_alive
    assert this_host() == this_host()


def test_a_draft_says_whose_it_is(root, monkeypatch) -> None:
    """Its maker can die at any moment: before the owner's file is written too."""

    def die(path: Path, data: bytes) -> None:
        raise KeyboardInterrupt  # as sudden as a kill: nothing is tidied up

    monkeypatch.setattr(state_module, "_write", die)
    with pytest.raises(KeyboardInterrupt):
        StateFolder.create("one", 60)
    (draft,) = StateFolder.all()
    assert draft.name.startswith(".one-")
    assert draft.owner == Owner.of(os.getpid())
    assert draft.owner_is_alive
    renamed = draft.path.with_name(draft.name.replace(f"-{os.getpid()}-", f"-{dead()}-"))
    draft.path.rename(renamed)
    assert not StateFolder(renamed).owner_is_alive


def test_another_process_can_adopt_it(root) -> None:
    """From then on that is the owner; the time to live stays."""
    state = owned_by(root, pid=dead(), ttl_s=7)
    state.adopt(os.getpid())
    assert state.owner == Owner.of(os.getpid())
    assert json.loads((state.path / "owner.json").read_text())["ttl_s"] == 7
    with pytest.raises(SandboxError):
        state.adopt(dead())


def test_it_can_be_given_up(root) -> None:
    """By an owner that lives on: `cleanup` may take it."""
    state = StateFolder.create("one", 60)
    state.abandon()
    assert state.is_abandoned
    assert state.owner_is_alive


def test_all_are_found_and_the_last_one_takes_the_root_along(root) -> None:
    """A link among them is not ours."""
    one, two = StateFolder.create("one", 60), StateFolder.create("two", 60)
    (root / "link").symlink_to("/etc")
    assert [state.name for state in StateFolder.all()] == ["one", "two"]
    found = StateFolder.find("two")
    assert found is not None
    assert found.path == two.path
    assert StateFolder.find("three") is None
    (root / "link").unlink()
    one.remove()
    assert root.exists()
    two.remove()
    assert not root.exists()
    two.remove()


def test_a_root_that_is_somebody_elses_is_refused(root) -> None:
    """In a folder that everybody can write, another user could have made it, to read what we put there."""
    root.mkdir(mode=0o700)
    state_root()
    for mode in (0o755, 0o710, 0o701):
        root.chmod(mode)
        with pytest.raises(SandboxError) as raised:
            StateFolder.create("one", 60)
        assert str(raised.value) == (
            f"{root} must be a folder that is yours alone (mode 0700): remove it or, if it is another user's, have "
            "root remove it, or set XDG_RUNTIME_DIR to a folder of yours that is in memory (tmpfs)"
        )
    root.rmdir()
    root.symlink_to("/tmp")
    with pytest.raises(SandboxError, match="must be a folder that is yours alone"):
        state_root()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_root_of_another_user_is_refused(root) -> None:
    """Whatever its mode."""
    root.mkdir(mode=0o700)
    os.chown(root, 4321, 4321)
    with pytest.raises(SandboxError, match="must be a folder that is yours alone"):
        state_root()


def test_a_place_where_others_could_move_it_is_not_used(root, tmp_path) -> None:
    """One that others can write is none, unless they cannot rename there what is not theirs (sticky)."""
    root.parent.chmod(0o1777)
    assert state_root() == root
    for mode in (0o777, 0o770):
        root.parent.chmod(mode)
        with pytest.raises(SandboxError, match=r"^no folder in memory"):
            state_root()


def test_a_place_is_known_by_its_real_name(root, tmp_path, monkeypatch) -> None:
    """A link to it may be repointed by whoever owns the link."""
    (tmp_path / "link").symlink_to(root.parent)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "link"))
    assert state_root() == root


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_place_of_another_user_is_not_used(root, tmp_path) -> None:
    """`sudo` may keep XDG_RUNTIME_DIR: its owner could put a folder of their own in the place of root's."""
    os.chown(root.parent, 4321, 4321)
    with pytest.raises(SandboxError, match=r"^no folder in memory"):
        state_root()
    assert not root.exists()


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b"null", b'{"pid": 1}', b'{"pid": "1", "started": [], "host": 1}'])
def test_what_is_not_understood_names_no_owner(root, said) -> None:
    """Half a file, or another version's: its age says whether it is in use, as without the file."""
    state = StateFolder.create("one", 60)
    state.write("owner.json", said)
    assert state.owner is None
    assert state.owner_is_alive
    assert not state.is_expired
    os.utime(state.path, (1, 1))
    assert not state.owner_is_alive


def test_a_folder_on_a_disk_is_not_used(monkeypatch) -> None:
    """A secret is in memory or nowhere."""
    monkeypatch.setattr(state_module, "_is_in_memory", lambda place: False)
    with pytest.raises(SandboxError, match=r"^no folder in memory \(tmpfs\) to keep secrets in: "):
        state_root()


def test_memory_is_told_from_a_disk(monkeypatch, tmp_path) -> None:
    """By the kernel's word of the file system."""
    monkeypatch.undo()
    assert state_module._is_in_memory("/dev/shm")
    assert not state_module._is_in_memory("/proc")
    assert not state_module._is_in_memory(str(tmp_path / "nowhere"))


def test_folders_come_and_go_at_the_same_time(root) -> None:
    """The root is made and removed under those that use it, and none of them fails."""
    failed: list[Exception] = []

    def one(number: int) -> None:
        try:
            for turn in range(60):
                state = StateFolder.create(f"{number}-{turn}", 60)
                assert list(StateFolder.all())
                state.remove()
        except Exception as error:  # noqa: BLE001 - shown by the test
            failed.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert not root.exists()
