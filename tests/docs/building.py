"""`make dist`, for the tests that look at what it makes."""

import subprocess
import sys
from pathlib import Path

EPOCH = 1_700_000_000  # seconds; the time that is in every archive


def build(checkout: Path, to: Path) -> dict[str, Path]:
    """What `make dist` makes in *to* of the sources in *checkout*, by file name."""
    # -o: the interpreter of these tests is set up, and .venv may be another or none.
    given = ["-o", ".venv/.setup-done", f"BIN={Path(sys.executable).parent}", f"DIST={to}", f"EPOCH={EPOCH}"]
    made = subprocess.run(["make", *given, "dist"], cwd=checkout, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return {path.name: path for path in to.iterdir()}


def wheel_of(dist: dict[str, Path], project: str) -> Path:
    """The wheel of *project* among what `build` made."""
    (wheel,) = [path for name, path in dist.items() if name.startswith(f"{project}-") and name.endswith(".whl")]
    return wheel
