"""The README says what the code says: its tables, its options, its links."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import sandbox_runner
from sandbox_runner.spec import WALLS

PACKAGE = Path(__file__).parents[2]
README = (PACKAGE / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """`scripts/api_table.py`."""
    spec = importlib.util.spec_from_file_location("api_table", PACKAGE / "scripts" / "api_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_names_is_the_codes(script) -> None:
    """`python scripts/api_table.py --write` would change nothing."""
    assert script.written(README) == README


def test_every_public_name_has_a_line_and_a_test(script) -> None:
    """None is missing, none is too many, and each line says something."""
    assert set(script.TESTS) == set(sandbox_runner.__all__)
    for name in sandbox_runner.__all__:
        assert len(script.line_of(name).split()) > 3, name


def test_every_test_that_is_named_exists(script) -> None:
    """A function of that name is in that file."""
    for name, where in script.TESTS.items():
        path, _, test = where.partition("::")
        tree = ast.parse((PACKAGE / "tests" / path).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (name, where)


def test_every_wall_is_in_the_table() -> None:
    """In the order of `WALLS`, with a cell for each backend."""
    rows = re.findall(r"^\| `(\w+)` \|([^|]+)\|([^|]+)\|([^|]+)\|$", README, re.MULTILINE)
    assert tuple(name for name, *_ in rows if name in WALLS) == WALLS
    assert all(cell.strip() for row in rows for cell in row)


def test_every_option_that_is_named_exists() -> None:
    """Those of `sandbox-runner`; other programs' own are in the table of walls, or behind their program's name."""
    walls = README.index("## Walls")
    text = re.sub(r"`(docker|systemd-run) [^`]*`", "", README[:walls] + README[README.index("Beside these,") :])
    shown = "".join(
        subprocess.run([sys.executable, "-m", "sandbox_runner", verb, "--help"], capture_output=True, text=True).stdout
        for verb in ("run", "exec", "ps", "cleanup", "doctor")
    )
    named = {option for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text) if option != "--index-url"}
    assert {"--json", "--keep", "--timeout", "--max-output", "--dry-run"} <= named
    assert [option for option in sorted(named) if option not in shown and option not in ("--project", "--write")] == []


def test_every_link_leads_somewhere() -> None:
    """Each to a file of this folder, so that it also does in a copy of it alone."""
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)\)", README) if "://" not in target]
    assert targets
    for target in targets:
        assert (PACKAGE / target).exists(), target
        assert ".." not in target
