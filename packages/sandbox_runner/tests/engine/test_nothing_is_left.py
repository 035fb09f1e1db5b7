"""The check that ends a session on a real engine: it sees what is left, and nothing that another session uses."""

import subprocess
from pathlib import Path


def test_what_is_left_in_the_engine_is_seen(docker_cli, base_image) -> None:
    """The check at the session's end sees a container with our label and an unused volume, whatever their names."""
    before = docker_cli.left()
    volume = docker_cli("volume", "create")
    container = docker_cli(
        "create", "--label", "sandbox_runner=1", "--label", "sandbox_runner.owner=1 1 x", base_image, "true"
    )
    try:
        left = docker_cli.left() - before
    finally:
        docker_cli("rm", "--force", container)
        docker_cli("volume", "rm", volume)
    assert f"volume {volume}" in left
    assert [container.startswith(one.split()[0]) for one in left].count(True) == 1


def test_another_session_s_container_is_not_ours(docker_cli, base_image) -> None:
    """A container whose owner is another process that lives is in use, and no leftover."""
    with subprocess.Popen(["sleep", "3600"]) as owner:
        started = Path(f"/proc/{owner.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
        labels = ["--label", "sandbox_runner=1", "--label", f"sandbox_runner.owner={owner.pid} {started} x"]
        container = docker_cli("create", *labels, base_image, "true")
        try:
            assert not [one for one in docker_cli.left() if container.startswith(one.split()[0])]
            owner.kill()
            owner.wait()
            assert [one for one in docker_cli.left() if container.startswith(one.split()[0])]
        finally:
            owner.kill()
            docker_cli("rm", "--force", container)
