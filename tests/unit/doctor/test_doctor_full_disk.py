"""What doctor says of a disk that is full: not that the folder is another user's."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from isorun.cli.doctor.checkup import tool_trial
from isorun.doctor.docker import look_inside
from isorun.settings import Settings
from sandbox_runner.docker.command import PROGRAM_VARIABLE, DockerCli
from sandbox_runner.docker.host_paths import HostPaths

pytestmark = pytest.mark.root


@pytest.fixture(params=["bytes", "names"])
def full(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk that has no room for another byte, or for another name."""
    options = {"bytes": "size=64k", "names": "size=1m,nr_inodes=8"}[request.param]
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"{options},mode=700", "tmpfs", tmp_path], check=True)
    try:
        try:
            for number in range(100):
                (tmp_path / str(number)).write_bytes(bytes(4096))
        except OSError:
            pass
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_full_folder_of_the_runs_is_not_a_matter_of_its_owner(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row names the lack of room and what makes some; no container is asked."""
    monkeypatch.setenv(PROGRAM_VARIABLE, "/bin/false")
    check = look_inside(DockerCli(), "none", HostPaths(), full, contained=False)
    assert (check.ok, check.detail) == (False, f"{full} is full: No space left on device")
    assert check.remedy == "free space there, or set ISORUN_WORKSPACE_ROOT to a folder with room"


def test_the_tool_trial_says_why_its_bundle_cannot_be_copied(full: Path) -> None:
    """The many errors of copying a folder are told by the first one, with the remedy."""
    checks = tool_trial(Settings(), full)
    assert any(
        all(
            said in check.detail for said in (f"{full} cannot be used: ", "No space left", "; free space there, or set")
        )
        for check in checks
    ), checks
