"""Of a mount in a home directory, as an agent's login is: it is found at `~`, whoever the sandbox's user is."""

import os
from pathlib import Path

import pytest

from sandbox_runner import DockerSandbox, MountSpec, SandboxSpec

USERS = [os.getuid(), 1000] if os.getuid() == 0 else [os.getuid()]


@pytest.fixture
def given(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A login on the host, in a folder that belongs to the workspace's owner."""
    folder = tmp_path / "login"
    folder.mkdir()
    (folder / "auth.json").write_text("key\n")
    (tmp_path / "workspace").mkdir()
    for path in (folder, folder / "auth.json", tmp_path / "workspace"):
        os.chown(path, request.param, -1)
    return folder


@pytest.mark.parametrize("given", USERS, indirect=True)
@pytest.mark.parametrize(
    ("source", "target", "home"),
    [
        (".", "/root/.codex", "/root"),
        ("auth.json", "/root/.codex/auth.json", "/root"),
        (".", "/home/agent/.config/codex", "/home/agent"),
        (".", "/root", "/root"),
    ],
)
def test_a_login_is_found_and_something_can_be_put_beside_it(base_image, tmp_path, given, source, target, home) -> None:
    """The CLI of an agent looks in `~`, and writes there."""
    spec = SandboxSpec(image_ref=base_image, extra_mounts=(MountSpec(given / source, target),))
    at = target if source != "." else f"{target}/auth.json"
    script = f'cat "$HOME{at.removeprefix(home)}" && echo new > ~/beside && cat ~/beside && echo "$HOME"'
    with DockerSandbox(tmp_path / "workspace", tmp_path / "artifacts", spec).start() as sandbox:
        done = sandbox.exec(["sh", "-c", script])
    assert (done.stdout.decode().split(), done.stderr) == (["key", "new", home], b"")


@pytest.mark.parametrize("given", USERS[:1], indirect=True)
@pytest.mark.parametrize("target", ["/opt/login", "/home", "/root-of-it/login"])
def test_without_such_a_mount_home_is_in_memory(base_image, tmp_path, given, target) -> None:
    """And the caller's own word counts, with one or without."""
    spec = SandboxSpec(image_ref=base_image, extra_mounts=(MountSpec(given, target),))
    with DockerSandbox(tmp_path / "workspace", tmp_path / "artifacts", spec).start() as sandbox:
        assert sandbox.exec(["sh", "-c", "echo ~"]).stdout == b"/tmp\n"
    mount = MountSpec(given, "/root/login")
    spec = SandboxSpec(image_ref=base_image, extra_mounts=(mount,), env_overrides={"HOME": "/run"})
    with DockerSandbox(tmp_path / "workspace", tmp_path / "artifacts", spec).start() as sandbox:
        assert sandbox.exec(["sh", "-c", "echo ~"]).stdout == b"/run\n"
