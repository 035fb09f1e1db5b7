"""docs/exec/operations.md says what the code says: its variables, its errors, its checklist."""

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from isorun.backends import production
from isorun.backends.docker_doctor import Found
from isorun.backends.jail import Identity
from isorun.backends.production import World
from isorun.cli.doctor import tool_checks
from isorun.settings import Settings
from tests.docs.pages import ROOT
from tests.unit.test_docker_doctor import RUNS, TROUBLES

PAGE = ROOT / "docs" / "exec" / "operations.md"
TEXT = PAGE.read_text(encoding="utf-8")
#: What the older guide's checklist asks for, word for word.
CHECKLIST = (
    "py-code-exec image built and tagged",
    "Docker-in-Docker enabled (socket mounted)",
    "entrypoint.sh in place and executable",
    "exec-workspace directory created with correct permissions",
    "Environment variables configured (paths, AWS region)",
    "AWS credentials configured (instance role for EC2)",
    "Volume mounts verified (exec-workspace, kdcube-storage, bundles)",
    "Test execution completes successfully",
    "Workspace files visible on host",
    "Tool calls logged correctly",
    "Security verified (executor isolated, supervisor has access)",
)
#: Rows of `isorun doctor` itself, which count in production too.
OF_DOCTOR = {"a program, sealed", "host path of the bundles", "host path of the KB storage"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """`tools/docs/settings_table.py`."""
    spec = importlib.util.spec_from_file_location("settings_table", ROOT / "tools" / "docs" / "settings_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_below(heading: str) -> list[list[str]]:
    """The cells of every table of that section, without the tables' heads."""
    section = TEXT.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    heads = {
        number for number, line in enumerate(lines) if number + 1 < len(lines) and lines[number + 1].startswith("|---")
    }
    kept = (line for number, line in enumerate(lines) if number not in heads and not line.startswith("|---"))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in kept]


def test_the_table_of_variables_is_the_settings(script) -> None:
    """`python tools/docs/settings_table.py --write` would change nothing."""
    assert script.written(TEXT) == TEXT


def test_every_setting_has_a_line_that_says_something(script) -> None:
    """A new setting comes with its meaning; one that is gone takes it along."""
    assert set(script.MEANING) == set(script._RULES)
    assert [key for key, text in script.MEANING.items() if len(text.split()) < 2] == []


@pytest.mark.parametrize("trouble", [*TROUBLES, *RUNS], ids=lambda trouble: trouble.id)
def test_every_error_of_the_doctor_has_its_row(trouble) -> None:
    """The words that are reported are on the page, with the remedy that is reported, and a link to the test."""
    (row,) = (row for row in rows_below("## Troubleshooting") if row[-1].endswith(f" ({trouble.id})"))
    said, _, cause, remedy, _ = (cell.replace("`", "") for cell in row)
    assert said.startswith(trouble.detail.replace("`", "").replace("{root}", "/exec-workspace").strip())
    assert remedy.startswith(trouble.remedy.replace("`", "").replace("{root}", "/exec-workspace"))
    assert len(cause.split()) >= 3


def test_every_row_is_shown_by_a_test() -> None:
    """The last cell leads to a file that has the test of that name."""
    rows = rows_below("## Troubleshooting")
    assert len(rows) > len(TROUBLES) + len(RUNS)
    for row in rows:
        name, path = re.fullmatch(r"\[(\w+)\]\((\S+)\)(?: \([\w.-]+\))?", row[-1]).groups()
        tree = ast.parse((PAGE.parent / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, row
        assert all(row), row


def test_the_older_guides_checklist_is_checked_row_by_row() -> None:
    """Each of its rows is there as printed, with at least one check of ours."""
    rows = rows_below("## Production checklist")[: len(CHECKLIST)]
    assert tuple(row[0] for row in rows) == CHECKLIST
    assert all(re.search(r'"[^"]+"', row[1]) for row in rows)


def test_every_check_is_on_the_page() -> None:
    """Names of checks that the page prints are those that `isorun doctor --production` has, none more, none less."""
    ids = Identity(uid=1, gid=1, root=False)
    world = World(
        settings=Settings.load(environ={}),
        root=Path("/"),
        docker=False,
        found=Found(checks=()),
        contained=False,
        uid=1,
        executor=ids,
    )
    made = {check.name for check in (*production.examine(world), *tool_checks("", ""))}
    asked = {trouble.check for trouble in TROUBLES} - {"Docker Compose"}  # the service's alone
    on_page = {name for row in rows_below("## Production checklist") for name in re.findall(r'"([^"]+)"', row[1])}
    asked |= {"host path of the workspace root", "ids of the container"}  # which no answer of an engine makes fail
    assert on_page == made | asked | OF_DOCTOR
