"""The artifacts, or the workspace, in a folder that the sandbox can write: no host file is written to for that."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox_runner import (
    DockerSandbox,
    InvalidSpec,
    MountSpec,
    SandboxGone,
    SandboxInstance,
    SandboxSpec,
    SandboxStartFailed,
    attach,
)
from sandbox_runner.diagnostics import capture_container_artifacts, capture_dns_snapshot, probe_commands_in_container
from sandbox_runner.docker import container
from sandbox_runner.docker.context import builtin_context

Started = Callable[..., SandboxInstance]
#: Puts a link to the host's folder in the place of $1, and says so once it is there.
REPLACE = 'mv "$1" "$1-aside" && ln -s "$2" "$1" && echo replaced'
NAMES = ["container_inspect.json", "container_logs.txt", "docker_build.log", "docker_progress.txt", "sandbox.json"]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of the host that no sandbox is given, with a file of each name that we write."""
    folder = tmp_path / "host" / "sandbox"
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text("of the host")
    return folder


@pytest.fixture
def nested(base_image: str, tmp_path: Path) -> Started:
    """A sandbox whose artifacts lie below a folder that is mounted at /run_dir, to be written."""

    def start(below: str = "sandbox", **changes: object) -> SandboxInstance:
        run = tmp_path / "run"
        (run / below).parent.mkdir(parents=True, exist_ok=True)
        spec = SandboxSpec(image_ref=base_image, extra_mounts=[MountSpec(run, "/run_dir")])
        return DockerSandbox(tmp_path / "workspace", run / below, replace(spec, **changes)).start()

    return start


def intact(victim: Path) -> bool:
    """Whether the host's folder is as it was."""
    return {path.name: path.read_text() for path in victim.iterdir()} == dict.fromkeys(NAMES, "of the host")


@pytest.mark.parametrize("below", ["sandbox", "deep/sandbox"])
def test_the_artifacts_may_lie_in_a_folder_that_is_mounted(nested: Started, tmp_path: Path, below: str) -> None:
    """The command sees them at both places, and the records are in them."""
    with nested(below) as sandbox:
        script = f"echo one > /artifacts/one; cat /run_dir/{below}/one"
        assert sandbox.exec(["sh", "-c", script]).stdout == b"one\n"
    assert set(NAMES) <= set(os.listdir(tmp_path / "run" / below))


@pytest.mark.parametrize("below", ["out", "deep/out"])
def test_the_artifacts_may_lie_in_the_workspace(base_image: str, tmp_path: Path, below: str) -> None:
    """Which is a folder that the sandbox can write, too."""
    (tmp_path / "workspace" / below).parent.mkdir(parents=True)
    spec = SandboxSpec(image_ref=base_image)
    with DockerSandbox(tmp_path / "workspace", tmp_path / "workspace" / below, spec).start() as sandbox:
        assert sandbox.exec(["sh", "-c", f"echo > {below}/x; ls /artifacts/x"]).ok


def test_the_workspace_may_lie_in_a_folder_that_is_mounted(base_image: str, tmp_path: Path) -> None:
    """One run's folder with both in it."""
    run = tmp_path / "run"
    run.mkdir()
    spec = SandboxSpec(image_ref=base_image, extra_mounts=[MountSpec(run, "/run_dir")])
    with DockerSandbox(run / "workspace", run / "sandbox", spec).start() as sandbox:
        assert sandbox.exec(["sh", "-c", "echo > x; ls /run_dir/workspace/x"]).ok


@pytest.mark.parametrize(("below", "place"), [("sandbox", "sandbox"), ("deep/sandbox", "deep"), ("a/b/sandbox", "a")])
def test_a_folder_that_becomes_a_link_leads_no_record_away(nested, victim, tmp_path, below, place) -> None:
    """The artifacts, or a folder above them; the records are in the folder that was opened before it ran."""
    away = victim if place == "sandbox" else victim.parent
    (tmp_path / "host" / "b").symlink_to(".")  # a/b/sandbox leads to it, too
    with nested(below) as sandbox:
        replaced = sandbox.exec(["sh", "-c", REPLACE, "sh", f"/run_dir/{place}", str(away)])
        assert replaced.stdout == b"replaced\n"
    assert (tmp_path / "run" / below / "sandbox.json").read_text() == "of the host"  # the attack was one
    assert intact(victim)
    moved = tmp_path / "run" / f"{place}-aside" / Path(below).relative_to(place)
    assert json.loads((moved / "sandbox.json").read_text())["status"] == "closed"


def test_records_by_their_path_would_be_led_away(nested: Started, victim: Path, tmp_path: Path, monkeypatch) -> None:
    """The control: the same attack on records that open their folder again writes to the host."""
    with nested("deep/sandbox") as sandbox:
        assert sandbox.exec(["sh", "-c", REPLACE, "sh", "/run_dir/deep", str(victim.parent)]).ok
        reopened = os.open(tmp_path / "run" / "deep" / "sandbox", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        monkeypatch.setattr(sandbox._records, "_directory", reopened)
    assert not intact(victim)


def test_a_kept_sandbox_that_was_led_away_is_not_taken_up(nested: Started, victim: Path, monkeypatch) -> None:
    """Also if the link comes between the look and the opening. Then nothing is written, and it can be cleaned up."""
    kept = nested("deep/sandbox", keep_container=True)
    kept.close()
    subprocess.run([*kept.command_prefix, "sh", "-c", REPLACE, "sh", "/run_dir/deep", str(victim.parent)], check=True)
    for looks in (container.About.is_in_place, lambda about: True):
        monkeypatch.setattr(container.About, "is_in_place", looks)
        with pytest.raises(SandboxGone, match="has other folders than it was started with"):
            attach(kept.container_name)
    container.remove(kept._cli, kept.container_name, kept._about.nonce)
    kept._state.remove()
    assert intact(victim)


#: The engine's CLI, that cannot end a command.
CANNOT_END = "if argv[0] == 'exec' and 'begun=$token' in ' '.join(argv): sys.exit(1)"


def test_a_container_with_such_a_folder_is_not_started_again(nested: Started, wrapped_docker, docker_cli) -> None:
    """The engine would look its mounts up anew. A command that only a restart could end is the sandbox's end."""
    wrapped_docker(CANNOT_END)
    with nested() as sandbox:
        assert sandbox.exec(["sleep", "450"], timeout_s=1).timed_out
        assert docker_cli("ps", "--all", "--quiet", "--filter", f"name={sandbox.container_name}") == ""
        with pytest.raises(SandboxGone):
            sandbox.exec(["true"])


def test_a_container_without_such_a_folder_is(nested: Started, wrapped_docker) -> None:
    """The control: with folders apart, the sandbox goes on."""
    wrapped_docker(CANNOT_END)
    with nested(extra_mounts=None) as sandbox:
        assert sandbox.exec(["sleep", "450"], timeout_s=1).timed_out
        assert sandbox.exec(["true"]).ok


def test_an_image_that_replaces_a_folder_as_it_starts_is_not_followed(nested, victim, monkeypatch) -> None:
    """Its shell runs before we look: no file of ours is made behind the link, and the start fails."""
    keep = container.inside.keep_alive
    replace_first = f"mv /run_dir/deep /run_dir/aside; ln -s {victim.parent} /run_dir/deep; "
    monkeypatch.setattr("sandbox_runner.docker.line.keep_alive", lambda ttl_s: replace_first + keep(ttl_s))
    before = victim.stat().st_mtime_ns
    with pytest.raises(SandboxStartFailed, match="/run/deep/sandbox was replaced while the sandbox started"):
        nested("deep/sandbox")
    assert intact(victim)
    assert victim.stat().st_mtime_ns == before  # nor was a file there for a moment


def test_the_record_says_where_the_image_is_from(base_image: str, tmp_path: Path) -> None:
    """A name, or a folder and its Dockerfile; a set of walls is a list there."""
    spec = SandboxSpec(image_ref=base_image, loosen={"nofile_limit", "init"})
    DockerSandbox(tmp_path / "workspace", tmp_path / "artifacts", spec).start().close()
    said = json.loads((tmp_path / "artifacts" / "sandbox.json").read_text())
    assert (said["image_ref"], said["context_dir"], said["dockerfile"]) == (base_image, None, None)
    assert said["spec"]["loosen"] == ["init", "nofile_limit"]
    context = tmp_path / "context"
    context.mkdir()
    (context / "Other").write_text(f"FROM {base_image}\n")
    spec = SandboxSpec(image_context_path=context, dockerfile=Path("Other"), docker_timeout_seconds=None)
    DockerSandbox(tmp_path / "workspace", tmp_path / "artifacts", spec).start().close()
    said = json.loads((tmp_path / "artifacts" / "sandbox.json").read_text())
    assert (said["image_ref"], said["context_dir"], said["dockerfile"]) == (None, str(context), f"{context}/Other")


@pytest.mark.parametrize(
    ("options", "slept"),
    [
        (("--timeout", "10"), 10 + 240 + 60),
        (("--timeout", "10", "--ttl", "30"), 30 + 60),
        (("--timeout", "10", "--keep"), 86460),
        ((), 86460),
    ],
)
def test_a_run_with_a_timeout_cannot_outlive_it_by_much(docker_cli, base_image, tmp_path, options, slept) -> None:
    """Whoever kills the owner leaves a container that ends by itself; a kept one is there for more than one command."""
    where = ("--workspace", str(tmp_path / "w"), "--artifacts", str(tmp_path / "a"), "--image", base_image)
    name = f"life-{os.getpid()}-{slept}-{len(options)}"
    command = ["--", "sh", "-c", "cat /proc/[0-9]*/cmdline"]
    argv = [sys.executable, "-m", "sandbox_runner", "run", *where, "--name", name, *options, *command]
    try:
        said = subprocess.run(argv, capture_output=True, check=True).stdout
    finally:
        if "--keep" in options:
            subprocess.run([sys.executable, "-m", "sandbox_runner", "cleanup", name], check=True)
    assert f"sleep\0{slept}\0".encode() in said


def test_the_packaged_context_is_built_from_a_copy_in_the_artifacts(base_image: str, tmp_path: Path) -> None:
    """As callers use it: copied below the run folder, with an overlay's manifest for one run; here nothing to fetch."""
    run = tmp_path / "run"
    context = run / "sandbox" / "builtin_context"
    shutil.copytree(builtin_context().parent / "docker" / "contexts" / "sandbox_cli", context)
    for name in ("apt.txt", "pip.txt", "npm-global.txt"):
        (context / "manifests" / name).write_text("# nothing\n")
    (context / "overlays" / "manifests" / "apt.txt").write_text("# for one run\npython3\n")
    spec = SandboxSpec(
        backend=None,
        image_context_path=context,
        dockerfile=None,
        base_image=base_image,
        image_repo=None,
        resources=None,
        env_allowlist=[],
        extra_mounts=[MountSpec(host_path=run, container_path="/run_dir", read_only=False)],
        docker_timeout_seconds=None,
    )
    with DockerSandbox(
        workspace_dir=tmp_path / "workspace", artifacts_dir=run / "sandbox", spec=spec
    ).start() as sandbox:
        found, told = probe_commands_in_container(command_prefix=sandbox.command_prefix, commands=["python3", "none"])
        capture_dns_snapshot(command_prefix=sandbox.command_prefix, artifacts_dir=run / "sandbox")
        capture_container_artifacts(container_name=sandbox.container_name, artifacts_dir=run / "sandbox")
    assert (found, told["exit_code"]) == ({"python3": True, "none": False}, 0)
    assert "nameserver 192.0.2.1" in (run / "sandbox" / "dns_snapshot.txt").read_text()
    assert sandbox.image_tag.startswith("sandbox_runner:")


def test_a_link_that_an_earlier_sandbox_left_is_not_followed(base_image: str, tmp_path: Path, victim: Path) -> None:
    """The next sandbox with the same folders is refused, and the host's folder is neither mounted nor written to."""
    artifacts = tmp_path / "workspace" / "deep" / "out"
    artifacts.parent.mkdir(parents=True)
    spec = SandboxSpec(image_ref=base_image)
    with DockerSandbox(tmp_path / "workspace", artifacts, spec).start() as sandbox:
        place = ["sh", "-c", REPLACE, "sh", "/workspace/deep", str(victim.parent)]
        assert sandbox.exec(place).stdout == b"replaced\n"
        capture_dns_snapshot(command_prefix=["true"], artifacts_dir=artifacts)  # nor while it lives
    with pytest.raises(InvalidSpec, match="a link in a folder that a sandbox can write leads it to"):
        DockerSandbox(tmp_path / "workspace", artifacts, spec).start()
    assert intact(victim)
    assert [path.name for path in victim.parent.iterdir()] == [victim.name]
