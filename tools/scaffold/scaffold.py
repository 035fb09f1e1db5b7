"""`python tools/scaffold/scaffold.py run TASK --project PROJECT`: a project's commands, from the top of the checkout.

For contributors; needs Python and make. isorun's tasks are those of the whole checkout, sandbox_runner's of that
package alone. The exit code is that of the first command that fails.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = str(ROOT / ".venv" / "bin" / "python")
MAKE = ("make", f"PYTHON={sys.executable}")  # of the environment that it makes; there may be no python3
#: What is run, one command after the other, for each project and task.
TASKS: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {
    "sandbox_runner": {
        "install": ((*MAKE, "setup"),),
        "test": ((*MAKE, "setup"), (PYTHON, "-m", "pytest", "packages/sandbox_runner/tests")),
        "lint": (
            (*MAKE, "setup"),
            (PYTHON, "-m", "ruff", "check", "packages/sandbox_runner"),
            (PYTHON, "-m", "ruff", "format", "--check", "packages/sandbox_runner"),
            (PYTHON, "-m", "mypy", "packages/sandbox_runner/src"),
        ),
    },
    "isorun": {
        "install": ((*MAKE, "setup"),),
        "test": ((*MAKE, "test"),),
        "lint": ((*MAKE, "check"),),
    },
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the task; the exit code of its first command that fails, 2 for a task or project that there is not."""
    parser = argparse.ArgumentParser(prog="scaffold.py", description="A project's commands.")
    run = parser.add_subparsers(required=True, metavar="run").add_parser("run", help="run one task of a project")
    run.add_argument("task", choices=sorted(TASKS["isorun"]), metavar="TASK", help="%(choices)s")
    run.add_argument("--project", required=True, choices=sorted(TASKS), metavar="PROJECT", help="%(choices)s")
    asked = parser.parse_args(arguments)
    for command in TASKS[asked.project][asked.task]:
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if code:
            return code if code > 0 else 128 - code  # as a shell shows a signal
    return 0


if __name__ == "__main__":
    sys.exit(main())
