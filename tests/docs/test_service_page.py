"""The page about the service: its units are well formed, and name settings and commands that there are."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from isorun.settings import Settings
from tests.docs.pages import blocks_of

pytestmark = pytest.mark.any_user

PAGE = Path("docs/exec/service.md")
UNITS = {block.marks["file"]: block.text for block in blocks_of(PAGE) if "file" in block.marks}


def read(name: str) -> dict[str, dict[str, list[str]]]:
    """Each section of a unit, each key with its values: a key may stand more than once."""
    found: dict[str, dict[str, list[str]]] = {}
    for line in filter(None, UNITS[name].splitlines()):
        if head := re.fullmatch(r"\[(\w+)\]", line):
            found[head[1]] = {}
        else:
            key, separator, value = line.partition("=")
            assert separator, line
            found[list(found)[-1]].setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", [name for name in UNITS if name.endswith(".service")])
def test_each_setting_of_a_unit_is_a_setting(name) -> None:
    """A variable that isorun does not know would change nothing."""
    known = {row.name for row in Settings().rows()}
    given = [value.partition("=")[0] for value in read(name)["Service"]["Environment"]]
    assert given
    assert set(given) <= known


def test_the_service_delegates_its_control_group() -> None:
    """Without that, its runs have coarser ceilings; and both units look at the same folder of runs."""
    service = read("isorun-web.service")["Service"]
    assert service["Delegate"] == ["yes"]
    assert service["Environment"][0] == read("isorun-cleanup.service")["Service"]["Environment"][0]


def test_systemd_reads_the_units(tmp_path) -> None:
    """systemd-analyze, where there is one, has no complaint, with programs that exist here in place of ours."""
    for name, text in UNITS.items():
        (tmp_path / name).write_text(re.sub(r"/opt/isorun-web/env/bin/\w+", "/bin/true", text), encoding="utf-8")
    if shutil.which("systemd-analyze") is None:
        parser = configparser.ConfigParser(strict=False)
        assert [parser.read_string(text) for text in UNITS.values()] == [None] * len(UNITS)
        return
    units = [str(tmp_path / name) for name in UNITS]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if "isorun" in line] == []
