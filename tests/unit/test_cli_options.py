"""`isorun run` is read twice: by `options` for speed, by typer for help and slips. They agree."""

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from isorun.cli import run as command
from isorun.cli import session
from isorun.cli.options import FLAGS, LISTS, VALUES, Wanted, parse

LINES = [
    ["x.py"],
    ["-"],
    ["x.py", "--json", "--stdin", "--side-effects"],
    ["--timeout", "1.5", "x.py"],
    ["--timeout=1e3", "x.py", "--turn-id=7", "--contract", '[{"filename": "a"}]'],
    ["x.py", "--input", "a", "--input=b", "--out", "c", "--preload", "json,csv", "--preload", "math"],
    ["x.py", "--backend", "namespace", "--python", "/usr/bin/python3", "--env-file", "e"],
    ["x.py", "--bundle", "b", "--tools", "a.b, c.d,"],
    ["x.py", "--bundle=b", "--tools="],
    ["x.py", "one", "two"],
    ["x.py", "--", "--json", "-x", "--", "-"],
    ["--json", "--", "x.py", "--out", "a"],
    ["--turn-id", "--json", "x.py"],
    ["x.py", "--contract=", "--turn-id", ""],
    ["x.py", "--timeout", "inf"],
    ["x.py", "--timeout", "-1"],
]
REFUSED = [
    ["x.py", "--bogus"],
    ["x.py", "-x"],
    ["x.py", "--timeout"],
    ["x.py", "--timeout", "soon"],
    ["x.py", "--json=1"],
    ["x.py", "--help"],
    ["--json"],
    [],
]


@pytest.fixture
def by_typer(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], Wanted]:
    """What typer makes of a command line, caught on its way into the session."""
    caught: list[Wanted] = []
    monkeypatch.setattr(session, "conduct", lambda wanted, early: caught.append(wanted))
    app = typer.Typer(add_completion=False)
    app.command("run")(command.run)

    def read(line: list[str]) -> Wanted:
        app(args=line, standalone_mode=False)
        return caught.pop()

    return read


@pytest.mark.parametrize("line", LINES)
def test_both_parsers_read_the_same(line: list[str], by_typer) -> None:
    """A command line means one thing, whichever parser reads it."""
    assert parse(["run", *line]) == by_typer(line)


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_not_well_formed_is_left_to_typer(line: list[str]) -> None:
    """The short parser explains nothing, so it answers nothing."""
    assert parse(["run", *line]) is None


@pytest.mark.parametrize("line", [[], ["doctor"], ["runs", "ls"], ["--version"], ["running"]])
def test_other_commands_are_left_to_typer(line: list[str]) -> None:
    """Only `run` has the short way."""
    assert parse(line) is None


def test_every_option_of_typer_has_the_short_way() -> None:
    """An option that is added in one place only would make that command line slow."""
    names = {f"--{name.replace('_', '-')}" for name in inspect.signature(command.run).parameters}
    assert names - {"--file", "--args"} == {*FLAGS, *VALUES, *LISTS}


def test_paths_are_paths() -> None:
    """What comes out has the types that `Wanted` promises."""
    wanted = parse(["run", "x.py", "--out", "o", "--input", "i"])
    assert wanted == Wanted(file="x.py", out=Path("o"), inputs=(Path("i"),))
