"""What a sandbox plants in its artifacts directory leads none of our writes to a file of the host."""

import json
import os
import subprocess
from pathlib import Path

import pytest

NAMES = ["sandbox.json", "docker_build.log", "docker_progress.txt", "container_logs.txt", "container_inspect.json"]
#: Plants one thing under each name; the host's file is not there inside, so its path dangles there, and not here.
PLANTS = {
    "links": 'ln -sf "$HOST" "$name"',
    "links to nothing": 'ln -sf "$HOST.made" "$name"',
    "folders": 'rm -rf "$name"; mkdir -p "$name/x"',
    "pipes": 'rm -rf "$name"; mkfifo "$name"',
    "folders that are links": 'rm -rf "$name"; ln -s "$(dirname "$HOST")" "$name"',
}


@pytest.fixture
def host_file(tmp_path: Path) -> Path:
    """A file of the host that only we can write."""
    path = tmp_path / "host" / "file"
    path.parent.mkdir()
    path.write_bytes(b"of the host")
    return path


def intact(host_file: Path) -> None:
    """The host's folder is as it was."""
    assert host_file.read_bytes() == b"of the host"
    assert os.listdir(host_file.parent) == ["file"]


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_while_it_runs_is_not_followed(start, host_file, tmp_path, plant) -> None:
    """By a command, under every name of ours; after the end the records are ours, and files."""
    sandbox = start()
    script = f"cd /artifacts; for name in {' '.join(NAMES)}; do rm -rf $name; {PLANTS[plant]}; done"
    assert sandbox.exec(["sh", "-c", script], env={"HOST": str(host_file)}).ok
    sandbox.close()
    intact(host_file)
    for name in NAMES:
        assert (tmp_path / "artifacts" / name).is_file()
        assert not (tmp_path / "artifacts" / name).is_symlink()
    assert json.loads((tmp_path / "artifacts" / "sandbox.json").read_text())["status"] == "closed"
    drafts = [name for name in os.listdir(tmp_path / "artifacts") if name.startswith(".")]
    assert drafts == []


@pytest.mark.parametrize("hard", [False, True], ids=["links", "hard links"])
def test_what_was_planted_before_is_not_followed(start, host_file, tmp_path, hard) -> None:
    """By an earlier run in the same directory."""
    (tmp_path / "artifacts").mkdir()
    for name in NAMES:
        if hard:
            (tmp_path / "artifacts" / name).hardlink_to(host_file)
        else:
            (tmp_path / "artifacts" / name).symlink_to(host_file)
    start().close()
    intact(host_file)
    assert host_file.stat().st_nlink == 1


def test_a_command_that_plants_without_end_leads_nothing_astray(start, host_file, tmp_path) -> None:
    """While it puts links under our names as fast as it can, the sandbox is closed and others are started."""
    sandbox = start()
    script = 'cd /artifacts; echo; while :; do for name in $NAMES; do ln -sf "$HOST" $name 2>/dev/null; done; done'
    environ = ["env", f"HOST={host_file}", f"NAMES={' '.join(NAMES)}"]
    command = [*sandbox.command_prefix, *environ, "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"\n"
        start().close()
        sandbox.close()
    intact(host_file)
    assert json.loads((tmp_path / "artifacts" / "sandbox.json").read_text())["status"] == "closed"


def test_an_open_by_name_follows(start, host_file, tmp_path) -> None:
    """The positive control: the same link, planted by a command, leads a plain write to the host's file."""
    sandbox = start()
    planted = sandbox.exec(["ln", "-sf", str(host_file), "/artifacts/sandbox.json"])
    assert planted.ok
    (tmp_path / "artifacts" / "sandbox.json").write_text("written")
    assert host_file.read_text() == "written"
