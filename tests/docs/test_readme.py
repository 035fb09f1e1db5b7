"""The README's own code: each block runs as printed, and each command exists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    """The fenced blocks of that language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def run(argv: list[str], tmp_path: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run *argv* as a reader would, with a workspace root of the test's own."""
    env = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "ISORUN_WORKSPACE_ROOT": str(tmp_path / "runs"),
    }
    return subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, **options)


def test_the_ten_lines_run_as_printed(tmp_path: Path) -> None:
    """The first thing a reader pastes works, and prints what the program made."""
    (code,) = blocks("python")
    done = run([sys.executable, "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok [('i', 4), ('s', 4)]\n b'i, s' ")


def test_the_shell_lines_run_as_printed(tmp_path: Path) -> None:
    """The commands under "In a shell" work one after the other."""
    (lines,) = [block for block in blocks("console") if "answer.py" in block]
    script = "\n".join(line.removeprefix("$ ") for line in lines.splitlines())
    done = run(["bash", "-euo", "pipefail", "-c", script], tmp_path)
    assert "42\n" in done.stdout, done.stderr


@pytest.mark.parametrize("target", ["demo", "test", "check", "bench", "dist"])
def test_the_make_targets_exist(target: str) -> None:
    """Every `make …` that the README names is a target."""
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_table_of_endings_is_the_code() -> None:
    """Each status stands in the table with its codes and the exit code of the CLI."""
    from isorun.core.outcome import CODES_OF, Status

    rows = {m[1]: m[2] for m in re.finditer(r"^\| `(\w+)` \| (.*?) \|", README, re.MULTILINE)}
    for status in Status:
        assert re.findall(r"`(\w+)`", rows[status]) == list(CODES_OF[status])


def test_the_readme_is_short() -> None:
    """160 lines at most: the rest is in docs/."""
    assert len(README.splitlines()) <= 160


def test_the_readme_begins_with_what_it_is_for() -> None:
    """A newcomer reads the purpose, then one command that needs no clone, then sees a picture, then `make demo`."""
    places = [README.index(part) for part in ("sealed sandbox", "$ uvx --from git+", "](docs/demo.png)", "$ make demo")]
    assert places == sorted(places)
    assert places[-1] < README.index("\n## ")
    assert (ROOT / "docs" / "demo.png").stat().st_size < 100_000


def test_the_readme_does_not_need_to_be_explained() -> None:
    """Its figures stand in sentences; the goals, with those that are missed, are the table of docs/performance.md."""
    assert not re.search(r"\bgates?\b|\*\*no\*\*", README)
    performance = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert "| figure | measured | gate | met |" in performance
