"""What the images are made of: the packages that are needed, in the versions that are tested, and one recipe."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "deployment" / "docker"
EXECUTOR = DOCKER / "py-code-exec"
ALL_IN_ONE = DOCKER / "all_in_one"
PINNED = {
    "executor": EXECUTOR / "requirements.txt",
    "build": ALL_IN_ONE / "requirements-build.txt",
    "chat": ROOT / "requirements-chat.txt",
}


def pins(path: Path) -> dict[str, frozenset[str]]:
    """`name==version` (and for which Python) of each entry, with its hashes."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    entries = [line.split("--hash=") for line in text.splitlines() if line.strip()]
    return {" ".join(name.split()): frozenset(digest.strip() for digest in hashes) for name, *hashes in entries}


def names_in(pinned: dict[str, frozenset[str]]) -> set[str]:
    return {entry.partition("==")[0] for entry in pinned}


@pytest.mark.parametrize("path", PINNED.values(), ids=PINNED)
def test_what_is_installed_is_what_is_tested(path: Path) -> None:
    """Each package of an image has the version and the hashes that the tests run with, and no index is named."""
    tested = pins(ROOT / "requirements" / "dev.txt")
    found = pins(path)
    assert found
    anywhere = {entry.partition(" ;")[0]: hashes for entry, hashes in tested.items() if " ;" not in entry}
    for entry, hashes in found.items():
        # What is tested on every platform may be asked for here on some of them.
        assert hashes == (tested[entry] if entry in tested else anywhere[entry.partition(" ;")[0]]) != frozenset()
    assert not re.search(r"^\s*(-|--)|://", re.sub(r"^ +--hash=.*$", "", path.read_text(), flags=re.MULTILINE), re.M)


def imports(path: Path) -> set[str]:
    """The modules, by their first name, that a file imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_the_image_has_what_our_code_imports_in_it() -> None:
    """What the inspector of promised files and the supervisor import is installed, and so is isorun[science]."""
    sources = [ROOT / "src/isorun/runtime/inspection/inspector.py", *(ROOT / "src/isorun/supervisor").glob("*.py")]
    modules = set().union(*map(imports, sources)) - sys.stdlib_module_names - {"isorun"}
    assert {"pypdf", "pydantic"} <= modules
    of = packages_distributions()
    needed = {of[module][0].lower().replace("_", "-") for module in modules}
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    needed |= {re.split("[>=<]", requirement)[0] for requirement in extra["science"]}
    assert needed <= names_in(pins(EXECUTOR / "requirements.txt"))


def steps(path: Path) -> list[str]:
    """A Dockerfile without its comments, a step a line."""
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_both_recipes_of_the_executor_image_are_one() -> None:
    """Dockerfile_Exec has the steps of py-code-exec/Dockerfile; what it copies is in that folder."""
    here = [step.replace("deployment/docker/py-code-exec/", "") for step in steps(ALL_IN_ONE / "Dockerfile_Exec")]
    assert here == steps(EXECUTOR / "Dockerfile")


@pytest.mark.parametrize("path", sorted(DOCKER.glob("*/Dockerfile*")), ids=lambda path: path.name)
def test_every_recipe_is_for_any_builder(path: Path) -> None:
    """The base is an argument with the documented default, and the only one; no step needs BuildKit."""
    found = steps(path)
    assert found[0] == "ARG BASE_IMAGE=python:3.12-slim"
    assert not path.read_text(encoding="utf-8").startswith("# syntax=")
    assert not any(re.search(r"--(mount|chmod|link|network|security)\b|<<", step) for step in found)
    assert [step for step in found if step.startswith("ARG ")] == found[:1]


@pytest.mark.parametrize("path", sorted(DOCKER.glob("*/*.sh")), ids=lambda path: path.name)
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_every_script_is_a_script_of_any_shell(path: Path, shell: str) -> None:
    """Both shells read it to its end."""
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_chat_service_gets_what_isorun_needs() -> None:
    """requirements-chat.txt has isorun's own requirements, and those of the service and of MCP."""
    chat = names_in(pins(ROOT / "requirements-chat.txt"))
    assert names_in(pins(ROOT / "requirements" / "base.txt")) | {"fastapi", "uvicorn", "sqlalchemy", "mcp"} <= chat
