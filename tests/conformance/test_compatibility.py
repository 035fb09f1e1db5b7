"""Programs do the same inside as outside: same output, same exit, same files.

Each file of `programs/` does real work with one part of Python or its packages and
prints what came of it. It runs once as `python user_code.py` in a folder of its own,
with the environment variables that a program gets inside, and once in each kind of
slot. What cannot be the same inside is listed in the README, and pinned below.
"""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import isorun
from isorun.backends.namespace import NamespaceBackend, Options

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))
KINDS = {
    "cgroup": Options(),
    "no-cgroup": Options(use_cgroup=False),
    "preloaded": Options(preloads=("numpy", "pandas", "matplotlib.pyplot")),
}
TURN = "turn_same"
TIMEOUT_S = 50


class Seen(NamedTuple):
    """What somebody who runs a program sees of it."""

    exit_code: int | None
    stdout: list[str]
    last_error_line: str
    files: dict[str, str]


def last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def run_outside(program: Path, base: Path) -> Seen:
    """*program* as an ordinary process of the same interpreter."""
    out, work, temporary = base / "out", base / "work", base / "tmp"
    for folder in (out / TURN / "files", work, temporary):
        folder.mkdir(parents=True)
    copy = work / "user_code.py"
    copy.write_bytes(program.read_bytes())
    done = subprocess.run(
        [sys.executable, str(copy)],
        cwd=out,
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            **dict.fromkeys(("LANG", "LC_ALL"), "C.UTF-8"),
            **dict.fromkeys(("HOME", "TMPDIR"), str(temporary)),
            "TZ": "UTC",
            "PYTHONUTF8": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "MPLBACKEND": "Agg",
            "OUTPUT_DIR": str(out),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    files = {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    return Seen(done.returncode, done.stdout.splitlines(), last_line(done.stderr), files)


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Seen]:
    """What is seen of a program outside; each runs there once."""
    seen: dict[Path, Seen] = {}

    def once(program: Path) -> Seen:
        if program not in seen:
            seen[program] = run_outside(program, tmp_path_factory.mktemp(program.stem))
        return seen[program]

    return once


@pytest.fixture(scope="module", params=KINDS)
def inside(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator["isorun.SyncRuntime"]:
    """A runtime of each kind; the one named after cgroups uses them only where the machine has one."""
    backend = NamespaceBackend(KINDS[request.param])
    root = tmp_path_factory.mktemp("root")
    with isorun.SyncRuntime(backend=backend, pool_size=1, workspace_root=root) as runtime:
        yield runtime


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_same_inside_as_outside(
    program: Path, inside: "isorun.SyncRuntime", outside: Callable[[Path], Seen]
) -> None:
    """A program's output, exit code, error and files are the same inside as outside."""
    result = inside.execute(program.read_bytes(), turn_id="same", timeout_s=TIMEOUT_S)
    files = {artifact.path: artifact.sha256 for artifact in result.artifacts}
    seen = Seen(result.exit_code, result.stdout.splitlines(), last_line(result.stderr), files)
    assert seen == outside(program), result.stderr
