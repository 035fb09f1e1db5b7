"""The start of a container as far as a Docker CLI that refuses everything lets it come."""

from pathlib import Path

import pytest

from sandbox_runner import DockerSandbox, ImageBuildFailed, InvalidSpec, SandboxSpec
from sandbox_runner.docker.container import _check_for_engine
from sandbox_runner.instance import Command

pytestmark = pytest.mark.uid  # root gives the folders it makes to their owner

NO_IMAGE = {"version": {"stdout": "20.10"}, "inspect": {"code": 1}, "pull": {"code": 1, "stderr": "no such image"}}


class Closed(ValueError):
    """A console that is gone says this."""


@pytest.mark.parametrize("error", [OSError("closed"), Closed(), RuntimeError("a bug of the caller's")])
def test_a_progress_that_raises_ends_nothing(stub_docker, tmp_path: Path, error: Exception) -> None:
    """The line is dropped there, and stays in the records; the start goes on to its own end."""
    told: list[str] = []

    def progress(line: str) -> None:
        told.append(line)
        raise error

    stub_docker(NO_IMAGE)
    spec = SandboxSpec(image_ref="an:image")
    with pytest.raises(ImageBuildFailed, match="could not be pulled"):
        DockerSandbox(tmp_path / "workspace", tmp_path / "artifacts", spec, progress=progress).start()
    assert told == ["image an:image: pulling"]
    record = (tmp_path / "artifacts" / "docker_progress.txt").read_text()
    said = f"progress raised {type(error).__name__} and is not called again"
    assert [line.partition(" ")[2] for line in record.splitlines()][-2:] == ["image an:image: pulling", said]


def test_a_progress_that_is_interrupted_ends_the_start(stub_docker, tmp_path: Path) -> None:
    """The control: Ctrl-C is no failure of the line."""

    def progress(line: str) -> None:
        raise KeyboardInterrupt

    stub_docker(NO_IMAGE)
    spec = SandboxSpec(image_ref="an:image")
    with pytest.raises(KeyboardInterrupt):
        DockerSandbox(tmp_path / "workspace", tmp_path / "artifacts", spec, progress=progress).start()


@pytest.mark.parametrize("name", ["PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "LD_PRELOAD"])
def test_a_line_break_is_refused_where_the_cli_would_obey_it(name: str) -> None:
    """Such a value travels in the CLI's own environment; without a break it does not, and is taken."""

    def checked(value: str) -> None:
        command = Command(
            argv=["true"],
            timeout_s=None,
            env={name: value},
            cwd=None,
            user=None,
            stdin=None,
            terminal=None,
            on_output=None,
            max_output_bytes=0,
        )
        _check_for_engine(command)

    checked("secret")
    with pytest.raises(InvalidSpec) as refused:
        checked("secret\n")
    assert str(refused.value) == f"env: the value of {name} has a line break, and the Docker CLI would obey it itself"
