"""What the processes of a cold start import: each run would pay for what crept in."""

import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[3] / "src"
SLOW = {"dataclasses", "inspect", "typing", "platform", "pathlib", "asyncio"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("isorun.executor.template", SLOW),
        ("isorun.wire.messages", SLOW),
        ("isorun.kernel.stage", SLOW | {"json", "re", "enum", "socket"}),
        ("isorun.backends.watch.loop", SLOW | {"json", "re"}),
    ],
)
def test_it_imports_little(module: str, unwanted: set[str]) -> None:
    """In the bare interpreter that it is started with."""
    code = f"import sys; sys.path.insert(0, {str(SOURCES)!r}); import {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not unwanted & set(done.stdout.split())
