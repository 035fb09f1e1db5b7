"""The page about the service: its units are well formed, and name settings and commands that there are."""

import configparser
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from isorun.settings import Settings
from isorun.store.recovery import listing, recover
from tests.docs.pages import blocks_of

pytestmark = pytest.mark.any_user

#: As the program of the page: its main thread waits, and another one has a run.
SERVES = """
import threading, isorun
with isorun.SyncRuntime() as runtime:
    told = lambda stream, data: print(data.decode(), end="", flush=True)
    code = "import time; print('begun', flush=True); time.sleep(600)"
    threading.Thread(target=runtime.execute, args=(code,), kwargs={"on_output": told}, daemon=True).start()
    threading.Event().wait()
"""
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
    assert set(given) - {"PYTHONUNBUFFERED"} <= known  # which is Python's own


def test_the_service_delegates_its_control_group() -> None:
    """Without that, its runs have coarser ceilings; and both units look at the same folder of runs."""
    service = read("isorun-web.service")["Service"]
    assert service["Delegate"] == ["yes"]
    assert service["Environment"][0] == read("isorun-cleanup.service")["Service"]["Environment"][0]


def test_each_unit_makes_the_folder_of_the_runs() -> None:
    """The timer may come before the service's first start, and nothing is there then."""
    for name in ("isorun-web.service", "isorun-cleanup.service"):
        service = read(name)["Service"]
        assert (service["StateDirectory"], service["StateDirectoryMode"]) == (["isorun-web"], ["0700"])


@pytest.mark.parametrize(("number", "status"), [(None, "cancelled"), (signal.SIGTERM, "lost")])
def test_the_units_signal_ends_the_runs_of_the_program(tmp_path, number: int | None, status: str) -> None:
    """They are stored as cancelled; after SIGTERM, which ends Python at once, the next host finds them lost."""
    service = read("isorun-web.service")["Service"]
    number = number or signal.Signals[service["KillSignal"][0]]
    environment = {**os.environ, "ISORUN_WORKSPACE_ROOT": str(tmp_path), "ISORUN_BACKEND": "namespace"}
    with subprocess.Popen([sys.executable, "-c", SERVES], env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            process.send_signal(number)
            process.wait(timeout=60)
        finally:
            process.kill()
    recover(tmp_path)
    assert [run.status for run in listing(tmp_path)] == [status]


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
