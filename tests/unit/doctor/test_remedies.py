"""What an error or `isorun doctor` tells people to do can be done: names exist, values are taken, commands are there.

Texts are read out of the source, so a remedy that is added later is looked at as well.
`tests/conformance/test_remedies.py` carries out those that one machine can be brought to need.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from isorun.cli.commands import COMMANDS, below, parser_of
from isorun.core.errors import InvalidRequest
from isorun.settings import _RULES, Settings
from sandbox_runner.namespace.ceilings import PARENT_VARIABLE

SOURCES = sorted((Path(__file__).parents[3] / "src" / "isorun").rglob("*.py"))
HOLE = "\N{BULLET}"  # stands for a part of an f-string that is known at run time only
NAMES = {name for rule in _RULES.values() for name in rule.names}
#: Names beside the settings that a text may tell people to set, and who reads them.
OF_OTHERS = {
    "DOCKER_HOST": "docker",
    "DOCKER_TLS_VERIFY": "docker",
    "DOCKER_CERT_PATH": "docker",
    "DOCKER_BUILDKIT": "docker",
    PARENT_VARIABLE: "sandbox_runner",
}
_NAME = re.compile(
    r"(?<![A-Za-z0-9_{$.])((?:ISORUN|PY_CODE|HOST|EXECUTOR|AGENTIC|SITE|ISO_RUNTIME|SANDBOX_RUNNER|DOCKER)_[A-Z_]*[A-Z])"
)
_ASSIGNED = re.compile(_NAME.pattern + r"=([^\s;,()`'\"]+)")
#: Where a name stands that is no variable of an operator's.
NOT_SET_BY_PEOPLE = {
    "ISORUN_MAX_": "the beginning of every limit's name",
    "ISORUN_SUPERVISOR_ASKED": "of the supervisor's own process",
    "ISORUN_SUPERVISOR_NO_NETWORK": "of the supervisor's own process",
    "SANDBOX_RUNNER_BASE_IMAGE": "of the tests",
}


@cache
def texts() -> list[tuple[str, str]]:
    """Every string of the source that is no docstring, with its place."""
    found = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        skipped = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            if node.body and isinstance(node.body[0], ast.Expr)
        }
        skipped |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if id(node) in skipped:
                continue
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append((f"{path.name}:{node.lineno}", node.value))
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else HOLE for part in node.values)
                found.append((f"{path.name}:{node.lineno}", "".join(map(str, parts))))
    return found


@pytest.mark.slow
def test_every_variable_that_a_text_names_exists() -> None:
    """A remedy that sets a name which nobody reads changes nothing."""
    found = {(place, name) for place, text in texts() for name in _NAME.findall(text)}
    known = NAMES | OF_OTHERS.keys() | NOT_SET_BY_PEOPLE.keys()
    assert len(found) > 40
    assert [pair for pair in sorted(found) if pair[1] not in known and not _is_prefix(pair[1])] == []


def _is_prefix(name: str) -> bool:
    return any(known.startswith(f"{name}_") for known in NAMES)


@pytest.mark.slow
def test_every_value_that_a_text_gives_is_taken() -> None:
    """`NAME=value` of a remedy goes through the reader that will read it."""
    given = {
        (name, value.rstrip("."))
        for _, text in texts()
        for name, value in _ASSIGNED.findall(text)
        if HOLE not in value and name in NAMES and "…" not in value
    }
    assert ("ISORUN_BACKEND", "docker") in given
    for name, value in sorted(given):
        Settings.load(environ={name: value})


@pytest.mark.parametrize("value", ["isorun", "a/b", "/sys/fs/cgroup/isorun", "/sys/fs/cgroup/memory/isorun"])
def test_a_control_group_has_one_grammar(value: str) -> None:
    """A name beneath every hierarchy, or its folder in one; both variables take both."""
    assert Settings.load(environ={"ISORUN_CGROUP_PARENT": value}).cgroup_parent == Path(value)


@pytest.mark.parametrize("value", ["..", "../up", "a/../b", "/sys/fs/cgroup/../x", "."])
def test_a_control_group_outside_of_the_hierarchies_is_refused(value: str) -> None:
    """A name that leads out of them is none."""
    with pytest.raises(InvalidRequest, match="must be a control group"):
        Settings.load(environ={"ISORUN_CGROUP_PARENT": value})


def test_every_command_of_ours_that_a_text_names_exists() -> None:
    """`isorun WORD WORD --option` of a text is a command, with options that it has."""
    pattern = re.compile(r"(?:[`:(]|^|\brun:?|\bwith|\bor|\bby) ?`?isorun(?! as )((?: --?[a-z][a-z-]*| [a-z]+)+)")
    named = {words for _, text in texts() for words in pattern.findall(text)}
    assert len(named) > 5
    assert [words for words in sorted(named) if (why := _wrong(words.split()))] == [], why


def _wrong(words: list[str]) -> str:
    """Why *words*, with the text that follows them, are no command of ours; "" if they are one."""
    name = ""
    while name not in COMMANDS and words and not words[0].startswith("-"):
        if words[0] not in {word for lines in below(name).values() for word in lines}:
            return f"there is no {words[0]}"
        name, words = f"{name} {words[0]}".lstrip(), words[1:]
    shown = set(re.findall(r"--[a-z-]+", parser_of(name).format_help()))
    strange = [word for word in words if word.startswith("--") and word not in shown]
    return f"there is no option {strange[0]}" if strange else ""
