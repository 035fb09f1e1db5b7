"""The README's examples, typed as they are printed, where their engine is."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
#: What comes before the fence, language, and text of each block that this page says is run here.
BLOCKS = re.findall(
    r"^<!-- needs: (\w+), [^\n]*tests/engine/test_readme.py runs it -->\n```(\w+)\n(.*?)^```",
    README,
    re.DOTALL | re.MULTILINE,
)


def ids(block: tuple[str, str, str]) -> str:
    """By the first line that says what it is about."""
    return next(line for line in block[2].splitlines() if "sandbox" in line)[:50]


def test_the_quickstart_and_the_rest_are_there() -> None:
    """Two quickstarts, `exec`, secrets, and the command line."""
    assert [language for _, language, _ in BLOCKS] == ["python", "python", "python", "sh", "python"]
    assert README.count("```python") == 4


@pytest.mark.parametrize("block", BLOCKS, ids=ids)
def test_an_example_runs_as_printed(block, docker_cli, base_image, tmp_path: Path) -> None:
    """In folders that did not exist; only /tmp is another folder, so that two readers do not meet."""
    _, language, text = block
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "sandbox-runner"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m sandbox_runner "$@"\n')
    program.chmod(0o755)
    environ = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SANDBOX_RUNNER_BASE_IMAGE": base_image,
    }
    if language == "python":
        text = re.sub(r'(?<=")/tmp/', f"{tmp_path}/", text)
    else:
        text = text.replace("mine", f"mine-{os.getpid()}")
    argv = ["sh", "-euc", text] if language == "sh" else [sys.executable, "-c", text]
    done = subprocess.run(argv, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = {
        "print(open": "42",
        "Docker exec prefix": "Docker exec prefix: ['docker', 'exec', '-i', 'sandbox-",
        "API_TOKEN": "b'from our own environment, north\\n'",
        "SandboxGone": " is closed",
        "sandbox-runner exec": "hello\none\nNAME ",
    }
    (shown,) = [shown for sign, shown in expected.items() if sign in text]
    assert shown in done.stdout
