"""`isorun doctor --fix`: what is asked, what is done, and what is said of the rest; on real files."""

import os
import pty
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from isorun.backends.remedy import Command, Export, Remedy, by
from isorun.cli.doctor.checkup import Report
from isorun.cli.doctor.command import doctor
from isorun.cli.doctor.fixing import Fixing
from isorun.core.errors import InvalidRequest
from isorun.doctor.check import Row

GOOD = Row("a", True, "")
NAME = Export("PY_CODE_EXEC_IMAGE", "py-code-exec:1")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "env"
    made.touch(mode=0o644)
    made.chmod(0o644)
    return made


def look_at(file: Path) -> Report:
    """A report with two failed rows: one that can be mended, and one that people have to."""
    mode = file.stat().st_mode & 0o777
    closed = Row("files", mode == 0o600, f"{mode:o}", "" if mode == 0o600 else by(Command.of("chmod", "0600", file)))
    bundle = Row("bundle", False, "no such folder", "correct the bundle")
    return Report(docker=False, host=[GOOD, bundle], engine=(), production=[closed], run=GOOD, walls=[])


def fix(file: Path, **options: bool) -> tuple[Fixing, Report]:
    fixing = Fixing(lambda: look_at(file), **options)
    return fixing, fixing.mend(fixing.look())


def test_without_a_terminal_nothing_is_done(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What would be done is said, with what does it; and what is left to people, by its remedy."""
    _, report = fix(file)
    assert [row.name for row in report.failed] == ["bundle", "files"]
    assert capsys.readouterr().out == (
        "bundle: correct the bundle\n"
        f"files: chmod 0600 {file}\n"
        "not done, because there is no terminal to ask on: --yes does it\n"
    )


def test_with_yes_it_is_done_and_looked_at_again(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The new row is shown, and decides."""
    _, report = fix(file, yes=True)
    assert ([row.name for row in report.failed], file.stat().st_mode & 0o777) == (["bundle"], 0o600)
    assert capsys.readouterr().out.splitlines()[-1].split() == ["ok", "files", "600"]


@pytest.mark.parametrize(("yes", "outcome", "mode"), [(False, "not done", 0o644), (True, "done", 0o600)])
def test_json_says_it_in_values(yes, outcome, mode, file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On stdout is nothing but the JSON that comes at the end; nothing is done without `--yes`."""
    fixing, _ = fix(file, yes=yes, quiet=True)
    assert fixing.told == [
        {"name": "bundle", "commands": [], "outcome": "by hand", "by_hand": ["correct the bundle"], "ok": False},
        {"name": "files", "commands": [f"chmod 0600 {file}"], "outcome": outcome, "by_hand": [], "ok": yes},
    ]
    assert (capfd.readouterr().out, file.stat().st_mode & 0o777) == ("", mode)


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The other end of the terminal that this process has as its stdin and stdout in the block."""
    ours, theirs = pty.openpty()
    with open(theirs, "w") as stdout, open(os.dup(theirs)) as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        patch.setattr(sys, "stdout", stdout)
        yield ours
    os.close(ours)


@pytest.mark.parametrize(
    ("typed", "mode"), [("y\n", 0o600), ("yes\n", 0o600), ("n\n", 0o644), ("\n", 0o644), ("\x04", 0o644)]
)
def test_on_a_terminal_it_asks_first(typed: str, mode: int, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No is the answer of Return, of Ctrl-D and of anything but yes."""
    with terminal(monkeypatch) as end:
        os.write(end, typed.encode())
        fix(file)
        told = b""
        while b"do it? [y/N] " not in told:
            told += os.read(end, 1 << 16)
    assert file.stat().st_mode & 0o777 == mode


def test_what_fails_again_is_not_asked_for_ever(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that fails is said with its exit code, the row stays failed, and doctor ends."""
    row = Row("files", False, "", by(Command.of("false")))
    report = replace(look_at(file), production=[row, replace(row, name="the same")])
    fixing = Fixing(lambda: report, yes=True)
    assert row in fixing.mend(report).failed
    assert [one["outcome"] for one in fixing.told] == ["by hand", "false: exit code 1"]
    assert "files: false: exit code 1\n" in capsys.readouterr().out


def test_what_only_a_shell_can_do_is_the_line_to_type(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After what could be done of the same remedy."""
    close = Command.of("chmod", "0600", file)
    report = replace(look_at(file), host=[], production=[Row("files", False, "", Remedy("…", close, NAME))])
    Fixing(lambda: report, yes=True).mend(report)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"files: {close}"
    assert told[1] == f"files: type this in the shell that starts isorun: export {NAME.name}={NAME.value}"
    assert file.stat().st_mode & 0o777 == 0o600


def test_yes_alone_is_a_slip() -> None:
    """It answers a question that nobody asks."""
    with pytest.raises(InvalidRequest, match="--yes answers what --fix asks"):
        doctor(yes=True)
