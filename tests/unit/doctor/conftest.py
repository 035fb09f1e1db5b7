"""An engine and a service with nothing wrong."""

from pathlib import Path

import pytest

from isorun.doctor.world import World
from tests.unit.doctor.stand_ins import Engine
from tests.unit.doctor.worlds import service


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The Docker CLI of this process."""
    (tmp_path / "bin").mkdir()
    made = Engine(tmp_path / "bin")
    monkeypatch.setenv("SANDBOX_RUNNER_DOCKER", str(made.program))
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of the runs."""
    folder = tmp_path / "runs"
    folder.mkdir(mode=0o750)
    return folder


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A service in a container beside its executors."""
    return service(tmp_path / "service")
