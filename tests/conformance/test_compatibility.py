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
from isorun.backends.namespace.backend import NamespaceBackend, Options
from tests.conftest import half

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))
KINDS = {
    "cgroup": Options(),
    "no-cgroup": Options(use_cgroup=False),
    "preloaded": Options(preloads=("numpy", "pandas", "matplotlib.pyplot")),
}
#: Root has the cgroups; an ordinary user without any would have the second kind twice.
KINDS_OF_HALF = {"": (*KINDS,), "root": ("cgroup",), "user": ("no-cgroup", "preloaded")}
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
        errors="replace",
        timeout=TIMEOUT_S,
    )
    files = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in (work, out)  # what it makes beside itself comes back, too, unless out/ has such a name
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path != copy
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


@pytest.fixture(scope="module", params=KINDS_OF_HALF[half()])
def inside(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator["isorun.SyncRuntime"]:
    """A runtime of each kind; the one named after cgroups uses them only where the machine has one."""
    backend = NamespaceBackend(KINDS[request.param])
    root = tmp_path_factory.mktemp("root")
    with isorun.SyncRuntime(backend=backend, pool_size=1, workspace_root=root) as runtime:
        yield runtime


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_same_inside_as_outside(program: Path, inside: "isorun.SyncRuntime", outside: Callable[[Path], Seen]) -> None:
    """A program's output, exit code, error and files are the same inside as outside."""
    result = inside.execute(program.read_bytes(), turn_id="same", timeout_s=TIMEOUT_S)
    files = {artifact.path: artifact.sha256 for artifact in result.artifacts}
    seen = Seen(result.exit_code, result.stdout.splitlines(), last_line(result.stderr), files)
    assert seen == outside(program), result.stderr


WHO = """
import getpass, grp, pwd
record = pwd.getpwuid(os.getuid())
print(getpass.getuser(), record.pw_name, record.pw_dir, pwd.getpwnam(record.pw_name) == record)
print(os.getuid(), os.getgid(), grp.getgrgid(os.getgid()).gr_name, len(pwd.getpwall()))
"""


def test_the_user_has_a_name(inside: "isorun.SyncRuntime") -> None:
    """The program's user is found by name and by number, whoever runs isorun."""
    result = inside.execute(WHO, timeout_s=10)
    assert result.stdout == "isorun isorun /tmp True\n1001 1000 isorun 3\n", result.stderr


#: What an agent does that writes a program and its tests, in a project that turns warnings into errors.
TESTS = """
import subprocess
Path("pytest.ini").write_text("[pytest]\\nfilterwarnings = error\\nasyncio_default_fixture_loop_scope = function\\n")
Path("adding.py").write_text("def add(a, b):\\n    return a + b\\n")
Path("test_adding.py").write_text(
    "import adding\\n\\n"
    "def test_good():\\n    assert adding.add(1, 1) == 2\\n\\n"
    "def test_bad():\\n    assert adding.add(1, 1) == 3\\n"
)
"""
WAYS = {
    "in the program": "import pytest\nprint(int(pytest.main(['-q', '-W', 'error'])))",
    "in a child": "print(subprocess.run([sys.executable, '-m', 'pytest', '-W', 'error', '-v']).returncode)",
    "by its command": "print(subprocess.run(['pytest', '-q', '-W', 'error', '-p', 'no:cacheprovider']).returncode)",
}


@pytest.mark.parametrize("way", WAYS)
def test_tests_run_inside(inside: "isorun.SyncRuntime", way: str) -> None:
    """pytest runs a program's tests, where every warning is an error, and sees no plug-in of isorun's."""
    result = inside.execute(TESTS + WAYS[way], timeout_s=TIMEOUT_S)
    assert result.stdout.splitlines()[-1] == "1", result.stdout + result.stderr  # "some tests failed", as they must
    assert "1 failed, 1 passed" in result.stdout
    assert "assert 2 == 3" in result.stdout  # rewritten assertions tell both values
    assert f"isorun-{isorun.__version__}" not in result.stdout


ANNOUNCED = """
from importlib import metadata
print([[metadata.version(name), *metadata.distribution(name).entry_points] for name in ("isorun", "sandbox_runner")])
"""


def test_our_distribution_announces_nothing(inside: "isorun.SyncRuntime") -> None:
    """What isorun installs is there with its version, and has no command and no plug-in, whose code is not shown."""
    result = inside.execute(ANNOUNCED, timeout_s=10)
    assert result.stdout == f"{[[isorun.__version__]] * 2}\n", result.stderr


MEMFD = "import os; m = os.memfd_create('m'); os.write(m, b'in memory'); print(os.pread(m, 9, 0))"
DIFFERENT = {
    "work and out are two mounts": (
        "open('/workspace/work/a', 'w').close(); os.rename('/workspace/work/a', '/workspace/out/a')",
        "OSError: [Errno 18] Invalid cross-device link: '/workspace/work/a' -> '/workspace/out/a'",
    ),
    "no sockets but Unix ones": (
        "import socket; socket.create_server(('127.0.0.1', 0))",
        "OSError: [Errno 97] Address family not supported by protocol",
    ),
    "/proc holds the program's own processes only": (
        "open('/proc/meminfo')",
        "FileNotFoundError: [Errno 2] No such file or directory: '/proc/meminfo'",
    ),
    "no terminals": ("import pty; os.openpty()", "FileNotFoundError: [Errno 2] No such file or directory"),
    "no real-time scheduling": (
        "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
        "OSError: [Errno 38] Function not implemented",
    ),
    "no System V objects": (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
        "if c.shmget(1, 10, 0o1600) < 0: raise OSError(ctypes.get_errno(), 'refused')",
        "OSError: [Errno 38] refused",
    ),
    "a crash dump is written without Python, and has the frames below the program's": (
        "import faulthandler; faulthandler.dump_traceback()",
        '  File "<string>", line 1 in <module>',
    ),
}


@pytest.mark.parametrize(("code", "error"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_is_not_the_same(code: str, error: str, inside: "isorun.SyncRuntime") -> None:
    """What the README says a program cannot do inside fails with this very error."""
    assert last_line(inside.execute(code, timeout_s=10).stderr) == error


def test_memfd_needs_a_cgroup(inside: "isorun.SyncRuntime") -> None:
    """memfd_create works where a cgroup counts its pages, and is refused where nothing would."""
    result = inside.execute(MEMFD, timeout_s=10)
    if result.isolation["limits"] == "rlimits+watcher":
        assert last_line(result.stderr) == "PermissionError: [Errno 1] Operation not permitted"
    else:
        assert result.stdout == "b'in memory'\n"


RANDOM = """
import random, secrets, tempfile, uuid
print(random.random(), secrets.token_hex(8), uuid.uuid4(), tempfile.mktemp())
import numpy
print(numpy.random.random(), numpy.random.default_rng().random(), numpy.random.RandomState().random())
"""


def test_random_state_is_not_shared(inside: "isorun.SyncRuntime") -> None:
    """No random number of one run, module-level numpy's included, comes again in another."""
    runs = [set(inside.execute(RANDOM, timeout_s=30).stdout.split()) for _ in range(3)]
    assert [len(run) for run in runs] == [7, 7, 7]
    assert len(set.union(*runs)) == 21


def test_preloaded_figures_are_not_shared(inside: "isorun.SyncRuntime") -> None:
    """What one run does to matplotlib's state (figures, styles, caches) is not seen by the next."""
    code = "import matplotlib.pyplot as plt; print(plt.get_fignums(), plt.rcParams['lines.linewidth'])"
    dirty = f"{code}; plt.figure(); plt.rcParams['lines.linewidth'] = 9; {code}"
    first, second = inside.execute(dirty, timeout_s=30), inside.execute(code, timeout_s=30)
    assert first.stdout == "[] 1.5\n[1] 9.0\n", first.stderr
    assert second.stdout == "[] 1.5\n"
