"""Between the command and its jail: what root stages, and the process that stages it.

The process that becomes the jail is a fork of the command, which holds the secrets of the environment. An attacker here
has the ids that programs have on the host: they are in another run, say, and got out of its walls.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import isorun
from isorun.backends.executor_ids import of_settings
from isorun.kernel import stage
from isorun.kernel.libc import libc
from isorun.kernel.processes import forked
from tests.unit.forked import in_child

WAITS = "import time; print('begun', flush=True); time.sleep(60)"
SECRET = "a-secret-of-the-command"
UID, GID = of_settings(isorun.Settings())
SOURCES = Path(isorun.__file__).parents[1]


@contextmanager
def _child(become: Callable[[], None]) -> Iterator[forked.Forked]:
    reader, writer = os.pipe()
    child = forked.start(become, output=writer, kept=())
    try:
        yield child
    finally:
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        child.poll()
        os.close(reader)
        os.close(writer)


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _uid_of(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Uid:")))


def _attack(pid: int) -> dict[str, str]:
    """What somebody with the executor's ids learns of *pid*, by each way there is."""

    def attack() -> dict[str, str]:
        os.setgroups([])
        os.setresgid(GID, GID, GID)
        os.setresuid(UID, UID, UID)
        found = {}
        for name in ("environ", "mem", "maps", "fd", "root"):
            try:
                with suppress(IsADirectoryError), open(f"/proc/{pid}/{name}", "rb") as file:
                    file.read(0 if name == "mem" else -1)
                if name in ("fd", "root"):
                    os.listdir(f"/proc/{pid}/{name}")
                found[name] = "open"
            except OSError as error:
                found[name] = error.strerror or ""
        seized = libc.ptrace(0x4206, ctypes.c_long(pid), None, None)  # PTRACE_SEIZE
        found["ptrace"] = "open" if seized == 0 else os.strerror(ctypes.get_errno())
        return found

    found: dict[str, str] = in_child(attack)
    return found


@pytest.mark.root
def test_the_process_that_stages_cannot_be_read_by_the_ids_that_it_takes() -> None:
    """Dropped, and not executed yet, it still has the command's memory. Control: what it executes can be read."""

    def drops() -> None:
        stage.drop(UID, GID)
        signal.pause()

    def executes() -> None:
        stage.drop(UID, GID)
        os.execve("/bin/sleep", ["sleep", "60"], {})

    with _child(drops) as child:
        _until(lambda: _uid_of(child.pid) == UID)
        shut = _attack(child.pid)
    assert shut.pop("ptrace") == "Operation not permitted"
    assert set(shut.values()) == {"Permission denied"}
    with _child(executes) as child:
        _until(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n")
        assert set(_attack(child.pid).values()) == {"open"}


@pytest.mark.root
def test_what_was_staged_cannot_be_changed_by_the_executors_ids(tmp_path: Path) -> None:
    """Neither a file that is shown, nor what else lies in the folder. Control: root can."""
    at = tmp_path / "stage"
    at.mkdir()
    source = tmp_path / "source"
    source.mkdir()
    (source / "module.py").write_text("kept")

    def tamper() -> dict[str, str]:
        found = {}
        for name, act in {
            "overwrite": lambda: (at / "0/module.py").write_text("x"),
            "remove": lambda: (at / "0/module.py").unlink(),
            "replace": lambda: (at / "0").rename(at / "moved"),
            "add": lambda: (at / "1").mkdir(),
            "add inside": lambda: (at / "0/new.py").write_text("x"),
        }.items():
            try:
                act()
                found[name] = "done"
            except OSError as error:
                found[name] = error.strerror or ""
        return found

    def attack(uid: int, gid: int) -> dict[str, str]:
        def staged() -> dict[str, str]:
            stage.stage(str(at), [str(source)])
            stage.drop(uid, gid)
            return tamper()

        found: dict[str, str] = in_child(staged)
        return found

    tmp_path.chmod(0o755)
    assert set(attack(UID, GID).values()) == {"Permission denied"}
    assert (source / "module.py").read_text() == "kept"
    assert attack(0, 0)["overwrite"] == "done"


def _jail_of(command: int) -> list[int]:
    """Every process below the bubblewrap that *command* started, and that."""
    found = [pid for pid in _children(command) if b"--unshare-user" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    for pid in found:
        found += _children(pid)
    return found


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.uid
def test_the_jail_gets_nothing_of_the_commands_environment_or_descriptors(tmp_path: Path) -> None:
    """Root's is a fork of the command, an ordinary user's is not. Control: the command has both."""
    reader, hidden = os.pipe()
    pipe = os.readlink(f"/proc/self/fd/{hidden}")
    with subprocess.Popen(
        [sys.executable, "-m", "isorun", "run", "--backend", "namespace", "-c", WAITS],
        env={**os.environ, "MY_TOKEN": SECRET, "ISORUN_WORKSPACE_ROOT": str(tmp_path)},
        stdout=subprocess.PIPE,
        pass_fds=[hidden],
        cwd=tmp_path,
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == b"begun\n"
        try:
            found = {pid: shown for pid in (command.pid, *_jail_of(command.pid)) if (shown := _shown(pid))}
        finally:
            command.send_signal(signal.SIGINT)
            command.stdout.read()
    os.close(reader)
    os.close(hidden)
    environment, files = found.pop(command.pid)
    assert SECRET.encode() in environment
    assert pipe in files
    assert len(found) >= 3  # of bubblewrap, its child, the template and the zygote
    assert not any(SECRET.encode() in environment or pipe in files for environment, files in found.values())


def _shown(pid: int) -> tuple[bytes, set[str]] | None:
    """The environment and the files of *pid*; None for an ordinary user's template, which that user cannot read."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes(), _files(pid)
    except PermissionError:
        return None


def _files(pid: int) -> set[str]:
    found = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            found.add(os.readlink(entry.path))
    return found


@pytest.mark.root
def test_the_command_works_from_a_home_that_only_root_may_enter(tmp_path: Path) -> None:
    """Interpreter, packages and isorun below a folder of mode 0700: what the forked child stages is found there."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    venv.create(home / "venv", symlinks=True)
    packages = next((home / "venv/lib").glob("python3*/site-packages"))
    ours = [entry for entry in sys.path if "site-packages" in entry]
    (packages / "all.pth").write_text(
        "\n".join([str(SOURCES), str(SOURCES.parent / "packages/sandbox_runner/src"), *ours])
    )
    (packages / "of_home.py").write_text("WHERE = 'home'\n")
    done = subprocess.run(
        [home / "venv/bin/python", "-m", "isorun", "run", "-c", "import of_home; print(of_home.WHERE)"],
        env={"PATH": os.environ["PATH"], "ISORUN_WORKSPACE_ROOT": str(tmp_path), "ISORUN_BACKEND": "namespace"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.stdout, done.returncode) == ("home\n", 0), done.stderr
