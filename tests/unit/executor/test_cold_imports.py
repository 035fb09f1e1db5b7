"""What the processes of a cold start import: each run would pay for what crept in."""

import subprocess
import sys
from pathlib import Path

import pytest

import isorun
import sandbox_runner

SOURCES = [str(Path(package.__file__).parents[1]) for package in (isorun, sandbox_runner)]
SLOW = {"dataclasses", "inspect", "typing", "platform", "pathlib", "asyncio"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("isorun.executor.template", SLOW),
        ("isorun.wire.messages", SLOW),
        ("isorun.kernel.stage", SLOW | {"json", "re", "enum", "socket"}),
        ("isorun.backends.namespace.spawn", {"asyncio", "platform", "uuid", "datetime"}),
        ("isorun.backends.watch.loop", SLOW | {"json", "re"}),
    ],
)
def test_it_imports_little(module: str, unwanted: set[str]) -> None:
    """In the bare interpreter that it is started with."""
    code = f"import sys; sys.path[:0] = {SOURCES!r}; import {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not unwanted & set(done.stdout.split())
