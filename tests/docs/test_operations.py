"""docs/exec/operations.md says what the code says: its variables, its errors, its checklist."""

import ast
import importlib.util
import re
from types import ModuleType

import pytest

from isorun.cli.doctor.checkup import tool_checks
from isorun.doctor import production
from isorun.runtime.services import built_in_tools
from tests.docs.pages import ROOT, rows_below
from tests.unit.doctor.test_docker_doctor import TROUBLES

pytestmark = pytest.mark.any_user

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


def loaded(name: str) -> ModuleType:
    """A script of tools/docs/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """`tools/docs/settings_table.py`."""
    return loaded("settings_table")


def test_the_reference_of_the_built_in_tools_is_their_schemas() -> None:
    """`python tools/docs/built_in_tools.py --write` would change nothing; each tool has its section."""
    text = (ROOT / "docs/reference/built-in-tools.md").read_text()
    assert loaded("built_in_tools").page() == text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [f"## {one}" for one in built_in_tools()]


def test_the_reference_of_the_http_interface_is_what_the_service_says() -> None:
    """`python tools/docs/http_interface.py --write` would change nothing; each operation has its section."""
    text = (ROOT / "docs/reference/http.md").read_text()
    script = loaded("http_interface")
    assert script.page() == text
    operations = [f"## {method.upper()} {path}" for path, one in script.described()["paths"].items() for method in one]
    assert [line for line in text.splitlines() if line.startswith("## ")] == operations


def test_the_table_of_variables_is_the_settings(script) -> None:
    """`python tools/docs/settings_table.py --write` would change nothing."""
    assert script.written(TEXT) == TEXT


def test_every_setting_has_a_line_that_says_something(script) -> None:
    """A new setting comes with its meaning; one that is gone takes it along."""
    assert set(script.MEANING) == set(script._RULES)
    assert [key for key, text in script.MEANING.items() if len(text.split()) < 2] == []


def test_every_error_of_the_doctor_has_its_row() -> None:
    """Each trouble that a test makes is on the page with a cause, and no row names another; that test reads the row."""
    runs = {f"run-{trouble.id}" for trouble in TROUBLES if trouble.run}
    made = {
        id_[1]: row for row in rows_below(TEXT, "## Troubleshooting") if (id_ := re.search(r" \(([\w.-]+)\)$", row[-1]))
    }
    assert made.keys() == {trouble.id for trouble in TROUBLES} | runs
    assert [id_ for id_, row in made.items() if len(row[2].split()) < 3] == []


def test_every_row_is_shown_by_a_test() -> None:
    """The last cell leads to a file that has the test of that name."""
    rows = rows_below(TEXT, "## Troubleshooting")
    assert len(rows) > len(TROUBLES)
    for row in rows:
        name, path = re.fullmatch(r"\[(\w+)\]\((\S+)\)(?: \([\w.-]+\))?", row[-1]).groups()
        tree = ast.parse((PAGE.parent / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, row
        assert all(row), row


def test_the_older_guides_checklist_is_checked_row_by_row() -> None:
    """Each of its rows is there as printed, with at least one check of ours."""
    rows = rows_below(TEXT, "## Production checklist")[: len(CHECKLIST)]
    assert tuple(row[0] for row in rows) == CHECKLIST
    assert all(re.search(r'"[^"]+"', row[1]) for row in rows)


def test_every_check_is_on_the_page() -> None:
    """Names of checks that the page prints are those that `isorun doctor --production` has, none more, none less."""
    made = {check.name for check in (*production.CHECKS, *tool_checks("", ""))}
    asked = {trouble.check for trouble in TROUBLES} - {"Docker Compose"}  # the service's alone
    on_page = {name for row in rows_below(TEXT, "## Production checklist") for name in re.findall(r'"([^"]+)"', row[1])}
    asked |= {"host path of the workspace root", "ids of the container"}  # which no answer of an engine makes fail
    assert on_page == made | asked | OF_DOCTOR
