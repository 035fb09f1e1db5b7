"""`isorun attack-matrix` on this machine, and the table of docs/security.md."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.docs import attack_table

PAGE = attack_table.PAGE.read_text(encoding="utf-8")
Verdicts = dict[tuple[str, str, str], str]


def attacked(root: Path, *words: str, **variables: str) -> dict[str, Any]:
    """What the command prints; it exits 0 only if every wall held."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ISORUN_", "PY_CODE_"))}
    command = [sys.executable, "-m", "isorun", "attack-matrix", "--json", *words]
    env = {**inherited, "ISORUN_WORKSPACE_ROOT": str(root), **variables}
    done = subprocess.run(command, env=env, cwd=root, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(done.stdout)
    not_held = [row for row in told["attacks"] if row["verdict"] == "not held"]
    assert (done.returncode, not_held) == (0, []), f"{not_held}\n{done.stderr}"
    return told


def documented(column: str) -> Verdicts:
    """The table of the page, as far as *column* goes."""
    section = PAGE.partition(attack_table.BEGIN)[2].partition(attack_table.END)[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    head, _, *rows = lines
    words = {shown: verdict for verdict, shown in attack_table.SHORT.items()}
    return {(row[0], row[1], row[2]): words[row[head.index(column)]] for row in rows}


def agrees(told: dict[str, Any]) -> None:
    """The page has this column as it was printed, and every control that is possible was shown."""
    assert documented(attack_table.column_of(told["attacked"])) == attack_table.rows_of(told)
    assert [row for row in told["attacks"] if "could not be tried" in row["reason"]] == []


@pytest.mark.alone
@pytest.mark.timeout(300)
def test_every_wall_of_the_embedded_backend_holds(tmp_path: Path) -> None:
    """As root with a control group, as an ordinary user without one: the page's column of it."""
    agrees(attacked(tmp_path, "--backend", "namespace"))
