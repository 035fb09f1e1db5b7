"""A disk that is full: what is said, what is kept, and that cleaning up cleans."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import inherited

COMMAND = [sys.executable, "-m", "isorun"]
Command = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = pytest.mark.root


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A workspace root on a disk of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=400,mode=700", "tmpfs", disk], check=True)
    try:
        (disk / "root").mkdir(mode=0o700)
        yield disk / "root"
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
def command(small: Path, tmp_path: Path) -> Command:
    def run(*words: str, program: str = "pass") -> "subprocess.CompletedProcess[str]":
        (tmp_path / "program.py").write_text(program)
        env = {**inherited(), "ISORUN_WORKSPACE_ROOT": str(small), "ISORUN_BACKEND": "namespace"}
        return subprocess.run([*COMMAND, *words], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return run


def fill(small: Path) -> Path:
    """A file that takes all that is left."""
    big = small.parent / "big"
    with big.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 12)):
                pass
        except OSError:
            pass
    return big


FLOODS = {
    "one file": "open('x', 'wb').write(bytes(6 << 20))",
    "many files": "for n in range(60): open(f'x{n}', 'wb').write(bytes(100 << 10))",
    "many names": "for n in range(500): open(f'x{n}', 'w').write('x')",
    "deep folders": "import os\nos.makedirs('/'.join('d' * 400)); open('/'.join('d' * 400) + '/x', 'w').write('x')",
    "output": "print('x' * (6 << 20))",
}


@pytest.mark.parametrize("program", FLOODS.values(), ids=FLOODS)
def test_what_does_not_fit_the_disk_of_the_runs_is_said(program: str, small: Path, command: Command) -> None:
    """The error names the folder and the remedy, and the run is stored with that reason."""
    done = command("run", "program.py", program=program)
    assert done.returncode == 70, done.stderr
    assert f"workspace: {small}/codegen_" in done.stderr
    assert "free space there, or set ISORUN_WORKSPACE_ROOT" in done.stderr
    assert "internal error" not in done.stderr
    (run,) = small.glob("codegen_*")
    result = json.loads((run / "out/result.json").read_text())
    assert (result["status"], result["error"]["code"]) == ("lost", "sandbox_lost")
    assert "No space left on device" in result["error"]["message"]
    assert command("run", "program.py", program="print('fits')").stdout == "fits\n"


def test_cleanup_cleans_a_full_disk(small: Path, command: Command, tmp_path: Path) -> None:
    """Runs that ended go first; what cannot be ended for want of room is removed, and then there is room again."""
    assert command("run", "program.py").returncode == 0
    (tmp_path / "program.py").write_text("print('up', flush=True)\nimport time\ntime.sleep(60)")
    env = {**os.environ, "ISORUN_WORKSPACE_ROOT": str(small), "ISORUN_BACKEND": "namespace"}
    with subprocess.Popen([*COMMAND, "run", "program.py"], env=env, cwd=tmp_path, stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"up\n"
        host.send_signal(signal.SIGKILL)
    fill(small)
    said = command("run", "program.py", program="pass")
    assert said.returncode == 70
    assert str(small) in said.stderr
    assert "internal error" not in said.stderr
    done = command("cleanup", "--all", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["problems"]) == (0, []), done
    assert len(told["removed_runs"]) == 2
    assert list(small.glob("codegen_*")) == []
    assert command("run", "program.py", program="print('room')").stdout == "room\n"


def test_cleanup_without_all_says_what_it_could_not_end(small: Path, command: Command, tmp_path: Path) -> None:
    """A lost run on a full disk is named, with the command that removes it; the exit says that something stays."""
    (tmp_path / "program.py").write_text("print('up', flush=True)\nimport time\ntime.sleep(60)")
    env = {**os.environ, "ISORUN_WORKSPACE_ROOT": str(small), "ISORUN_BACKEND": "namespace"}
    with subprocess.Popen([*COMMAND, "run", "program.py"], env=env, cwd=tmp_path, stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        host.stdout.readline()
        host.send_signal(signal.SIGKILL)
    big = fill(small)
    (run,) = small.glob("codegen_*")
    done = command("cleanup", "--json")
    exec_id = run.name.removeprefix("codegen_")
    assert done.returncode == 71
    assert json.loads(done.stdout)["problems"] == [f"run {exec_id} cannot be ended; `isorun cleanup --all` removes it"]
    big.unlink()
    assert json.loads(command("cleanup", "--json").stdout)["lost_runs"] == [exec_id]


def test_a_session_that_finds_no_room_is_as_it_was(small: Path, command: Command) -> None:
    """Neither the run nor the copy of its files fits; with room again, the next run finds the old files."""
    line = ("run", "program.py", "--session", "s", "--no-keep")
    assert command(*line, program="open('a', 'wb').write(bytes(1 << 20))").returncode == 0
    done = command(*line, program="open('b', 'wb').write(bytes(3 << 20)); open('a', 'w').close()")
    assert done.returncode == 70, done.stderr
    command("cleanup", "--all")
    done = command(*line, program="import os; print([(name, os.path.getsize(name)) for name in sorted(os.listdir())])")
    assert done.stdout == "[('a', 1048576)]\n"


def test_a_folder_to_save_to_that_is_full_loses_nothing(small: Path, command: Command, tmp_path: Path) -> None:
    """What fits is saved, the rest is named, no half of a file stays there, and the run's folder has all of it."""
    line = ("run", "program.py", "--no-keep", "--save-to", str(small.parent / "to"))
    env = {"ISORUN_WORKSPACE_ROOT": str(tmp_path / "runs"), "ISORUN_BACKEND": "namespace"}
    (tmp_path / "program.py").write_text("open('a', 'w').write('x'); open('big', 'wb').write(bytes(6 << 20))")
    done = subprocess.run(
        [*COMMAND, *line], env={**inherited(), **env}, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 70
    assert "isorun: save_to: big: No space left on device: not saved in " in done.stderr
    assert os.listdir(small.parent / "to") == ["a"]
    (run,) = (tmp_path / "runs").glob("codegen_*")
    assert (run / "out/big").stat().st_size == 6 << 20
