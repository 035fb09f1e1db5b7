"""A `SyncRuntime` that is open when its process ends: closed in time, whoever was to do it, and nothing is left."""

import glob
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_OPEN = """
import atexit, os, sys, threading, time, weakref
from pathlib import Path
from conformance.conftest import options_for
import isorun
from isorun.testing.fake import FakeBackend
from isorun.backends.namespace.backend import NamespaceBackend, Options

kind, root = sys.argv[1:]
backend = FakeBackend() if kind == "fake" else NamespaceBackend(Options(use_cgroup=kind == "namespace-cgroup"))
rt = isorun.SyncRuntime(**options_for(backend, Path(root), pool_size=1)).open()
print(rt.execute("print('done')", timeout_s=20).stdout.strip(), os.getpid(), flush=True)
"""
_WAYS = {
    "atexit": "atexit.register(rt.close)",
    "an object's end": "weakref.finalize(rt, rt.close)",
    "nobody": "del rt",
    "nobody, amid a run": "next(rt.start('import time; time.sleep(60)', timeout_s=90).events())",
    "another thread": "threading.Thread(target=lambda: (threading.main_thread().join(), rt.close())).start()",
}


@pytest.fixture
def root() -> Iterator[str]:
    """A folder that the jail's unprivileged user can pass through, as it can /tmp."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield folder


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("closes", _WAYS)
def test_a_runtime_that_is_open_at_the_end_is_closed(rt, kind, root, closes) -> None:
    """The process ends by itself, says nothing, and leaves no lease and no control group."""
    tests = Path(__file__).parents[1]
    script = f"import sys; sys.path.insert(0, {str(tests)!r})\n{_OPEN}{_WAYS[closes]}\n"
    done = subprocess.run(
        [sys.executable, "-c", script, kind, root], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    said, number = done.stdout.split()
    assert said == "done"
    assert list(Path(root).glob(".isorun-*/*.lease")) == []
    assert glob.glob(f"/sys/fs/cgroup/**/isorun-{number}-*", recursive=True) == []


@pytest.mark.usefixtures("embedded")
def test_what_fails_at_the_end_is_said_and_the_others_are_closed(rt, kind, root) -> None:
    """One that cannot be closed keeps no other from it, and the process ends as it would."""
    tests = Path(__file__).parents[1]
    fails = (
        "class Stuck:\n    def close(self): raise OSError('stuck')\n"
        "from isorun.core.guard import at_end\nat_end.will_close(Stuck())\nsys.exit(3)"
    )
    script = f"import sys; sys.path.insert(0, {str(tests)!r})\n{_OPEN}{fails}\n"
    done = subprocess.run(
        [sys.executable, "-c", script, kind, root], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 3
    assert "Stuck could not be closed at the interpreter's end" in done.stderr
    assert list(Path(root).glob(".isorun-*/*.lease")) == []
