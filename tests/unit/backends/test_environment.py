"""Which program is meant by --python, and what is said of one that is no Python."""

import json
import os
import sys
from pathlib import Path

import pytest

from isorun.backends.environment import describe
from isorun.core.errors import Unavailable

BASE = os.path.realpath(sys.executable)


def refused(python: str) -> str:
    with pytest.raises(Unavailable) as caught:
        describe(python)
    return str(caught.value)


def test_a_shim_stands_for_the_program_that_it_starts(tmp_path: Path) -> None:
    """A version manager's shim is a script: the jail starts what answered."""
    shim = tmp_path / "python3"
    shim.write_text(f'#!/bin/sh\nexec {BASE} "$@"\n')
    shim.chmod(0o755)
    assert describe(str(shim)).python == BASE


def test_the_folder_of_a_virtual_environment_stands_for_its_python(tmp_path: Path) -> None:
    """As people name it."""
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/python").symlink_to(BASE)
    (tmp_path / "venv/pyvenv.cfg").write_text(f"home = {os.path.dirname(BASE)}\n")
    assert describe(f"{tmp_path}/venv").python == f"{tmp_path}/venv/bin/python"


def test_a_name_is_looked_for_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never in the current folder, whose programs may be a stranger's."""
    for place in ("here", "path"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "snake").write_text(f'#!/bin/sh\ntouch {tmp_path}/{place}/ran\nexec {BASE} "$@"\n')
        (tmp_path / place / "snake").chmod(0o755)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert describe("snake").python == BASE
    assert [(tmp_path / place / "ran").exists() for place in ("here", "path")] == [False, True]


@pytest.mark.parametrize(
    ("mapped", "shown"),
    [
        ("7f00-7f01 r-xp 00000000 08:01 42   {}/old/lib/libpython3.12.so.1.0\n" * 2, ["old/lib/libpython3.12.so.1.0"]),
        ("7f00-7f01 r--p 00000000 08:01 42   {}/a b/libpython3.13t.so.1.0 (deleted)\n", []),
        ("7f00-7f01 r--p 00000000 08:01 42   {}/libpython3.11/lib/libssl.so\n7f02-7f03 rw-p 0 00:00 0\n", []),
    ],
)
def test_a_shared_library_elsewhere_is_shown(tmp_path: Path, mapped: str, shown: list[str]) -> None:
    """A copied installation loads libpython from its old place, and programs on it have to."""
    for name in ("old/lib/libpython3.12.so.1.0", "libpython3.11/lib/libssl.so"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    prefix = str(tmp_path / "moved")
    facts = [prefix, prefix, prefix, [3, 12, 1], [], [], mapped.format(*[tmp_path] * 2), f"{prefix}/bin/python"]
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(facts)}\nEND\n")
    python.chmod(0o755)
    assert describe(str(python)).binds == tuple(f"{tmp_path}/{name}" for name in shown)


@pytest.mark.parametrize(
    ("python", "reason"),
    [
        ("/bin/ls", "it does not answer as a Python does"),
        ("/bin/true", "it does not answer as a Python does"),
        ("/etc", "the folder has no bin/python"),
        ("/etc/passwd", "Permission denied"),
        ("/no/such/python", "no such file"),
        ("no-such-python", "no such program on PATH, and no such folder here"),
    ],
)
def test_what_is_no_python_is_said_in_one_line(python: str, reason: str) -> None:
    """With what to name instead, and without the question that we asked it."""
    assert refused(python) == (
        f"the program's Python cannot be run: {python}: {reason}; name a Python 3.11 or newer, "
        "such as VENV/bin/python; run `isorun doctor`"
    )
