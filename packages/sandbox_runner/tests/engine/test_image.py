"""Images on a real engine, by every Docker CLI that is on PATH."""

import io
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox_runner.docker import build_lock
from sandbox_runner.docker.command import DockerCli
from sandbox_runner.docker.context import builtin_context
from sandbox_runner.docker.image import Image, image_hash, resolve_image
from sandbox_runner.errors import ImageBuildFailed, SandboxTimeout
from sandbox_runner.spec import SandboxSpec

Docker = Callable[..., str]  # the fixture `docker_cli`


def programs() -> list[str]:
    """Every Docker CLI on PATH, each once."""
    found: dict[Path, str] = {}
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        program = shutil.which("docker", path=folder)
        if program:
            found.setdefault(Path(program).resolve(), program)
    return list(found.values()) or ["docker"]


@pytest.fixture(params=programs())
def cli(request: pytest.FixtureRequest, docker_cli: Docker, monkeypatch: pytest.MonkeyPatch) -> DockerCli:
    """One of them, as the one that the product uses."""
    monkeypatch.setenv("SANDBOX_RUNNER_DOCKER", request.param)
    return DockerCli()


@pytest.fixture
def repo(docker_cli: Docker) -> Iterator[str]:
    """A name for images of this test; they are removed with it."""
    name = f"sr-img-{secrets.token_hex(6)}"
    yield name
    named = docker_cli("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={name}")
    replaced = docker_cli("image", "ls", "--quiet", "--filter", f"label=test={name}", "--filter", "dangling=true")
    for image in [*named.split(), *replaced.split()]:
        docker_cli("image", "rm", "--force", image, check=False)  # one may go with another


@pytest.fixture
def spec(tmp_path: Path, repo: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxSpec]:
    """A context that needs no base image: what is sent is the image. Its locks are in a folder of the test's own."""
    monkeypatch.delenv("SANDBOX_RUNNER_BASE_IMAGE", raising=False)
    root = tmp_path / "context"
    root.mkdir()
    (root / "Dockerfile").write_text(f"FROM scratch\nLABEL test={repo}\nCOPY . /\n")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as locks:
        monkeypatch.setenv("XDG_RUNTIME_DIR", locks)
        yield SandboxSpec(image_context_path=root, image_repo=repo, build_timeout_seconds=120.0)


def resolve(spec: SandboxSpec, cli: DockerCli) -> tuple[Image, list[str]]:
    progress: list[str] = []
    return resolve_image(spec, cli, io.BytesIO(), progress.append), [line.partition(": ")[2] for line in progress]


def content(docker: Docker, image: str) -> dict[str, tarfile.TarInfo]:
    """All that is in an image that came from scratch, without what the engine adds to every container."""
    number = docker("create", image, "nothing")
    try:
        exported = subprocess.run(["docker", "export", number], capture_output=True, check=True).stdout
    finally:
        docker("rm", number)
    with tarfile.open(fileobj=io.BytesIO(exported)) as tar:
        added = (".dockerenv", "dev", "etc", "proc", "sys")
        return {info.name: info for info in tar if info.name.split("/")[0] not in added}


def commands(docker: Docker) -> str:
    """What every container of the engine runs."""
    return docker("ps", "--all", "--no-trunc", "--format", "{{.Command}}")


def wait_until(so: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether it comes to be so."""
    until = time.monotonic() + seconds
    while not so():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def test_an_image_has_what_was_hashed(cli: DockerCli, docker_cli: Docker, spec: SandboxSpec, tmp_path: Path) -> None:
    """Names, modes, links and contents arrive; what `.dockerignore` leaves out does not; all is root's."""
    root = tmp_path / "context"
    (root / ".dockerignore").write_text("secret\nDockerfile\n.dockerignore\n")
    (root / "secret").write_text("hidden")
    (root / "tool").write_text("")
    if os.geteuid() == 0:
        os.chown(root / "tool", 1234, 1234)
    (root / "tool").chmod(0o751)
    (root / "folder").mkdir(0o700)
    (root / "folder" / "é").write_text("")
    (root / "link").symlink_to("/etc/passwd")
    image, progress = resolve(spec, cli)
    assert progress == ["building with the classic builder", image.id]
    found = content(docker_cli, image.tag)
    assert sorted(found) == ["folder", "folder/é", "link", "tool"]
    assert (found["tool"].mode & 0o777, found["folder"].mode & 0o777) == (0o751, 0o700)
    assert found["link"].linkname == "/etc/passwd"
    assert {(info.uid, info.gid) for info in found.values()} == {(0, 0)}
    assert docker_cli("image", "inspect", "--format", '{{index .Config.Labels "sandbox_runner.image"}}', image.id) == (
        image.hash
    )


@pytest.mark.parametrize(
    "lines",
    [
        "a\n!a/keep",
        "*\n!a\na/b*",
        "**/*.x\n!a/b/c.x",
        "# no\n/a/b/\n?.x",
        "[a-b]\n![b]",
    ],
)
def test_the_ignore_file_means_what_it_means_to_docker_itself(
    cli: DockerCli, docker_cli: Docker, spec: SandboxSpec, tmp_path: Path, repo: str, lines: str
) -> None:
    """The CLI's own reading of the folder sends the same files as ours."""
    root = tmp_path / "context"
    for name in ("a/keep", "a/b/c.x", "a/b/d", "b/b/c.x", "b/e.x", "c.x", "b/f"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    (root / ".dockerignore").write_text(lines)
    image, _ = resolve(spec, cli)
    by_docker = f"{repo}:by-docker"
    asked = [cli.program, "build", "--quiet", "--tag", by_docker, str(root)]
    subprocess.run(asked, env={**os.environ, "DOCKER_BUILDKIT": "0"}, check=True, capture_output=True)
    ours, theirs = (
        sorted(name for name, info in content(docker_cli, tag).items() if info.isfile())
        for tag in (image.tag, by_docker)
    )
    assert ours == theirs


def test_an_image_is_built_once_and_again_when_told_so(
    cli: DockerCli, docker_cli: Docker, spec: SandboxSpec, tmp_path: Path
) -> None:
    """The same folder is the same image; `rebuild_image` makes another of the same name; a change, another name."""
    first, _ = resolve(spec, cli)
    assert resolve(spec, cli) == (first, [first.id])
    again, progress = resolve(replace(spec, rebuild_image=True), cli)
    docker_cli("image", "rm", first.id)
    assert progress[0] == "building with the classic builder"
    assert (again.tag, again.hash) == (first.tag, first.hash)
    assert again.id != first.id
    (tmp_path / "context" / "new").write_text("")
    other, _ = resolve(spec, cli)
    assert other.tag != first.tag
    assert other.tag == f"{spec.image_repo}:{image_hash(spec)[:24]}"


def test_which_dockerfile_and_target_are_built(
    cli: DockerCli, docker_cli: Docker, spec: SandboxSpec, tmp_path: Path
) -> None:
    """The Dockerfile that is named, up to the target that is named, for the platform that is named, with arguments."""
    (tmp_path / "context" / "deep").mkdir()
    (tmp_path / "context" / "deep" / "Other").write_text(
        "FROM scratch AS first\nARG A\nLABEL a=$A\nCOPY Dockerfile /first\nFROM scratch\nCOPY Dockerfile /last\n"
    )
    spec = replace(spec, dockerfile="deep/Other", build_target="first", platform="linux/amd64", build_args={"A": "x y"})
    image, _ = resolve(spec, cli)
    assert list(content(docker_cli, image.tag)) == ["first"]
    shown = docker_cli("image", "inspect", "--format", "{{.Config.Labels.a}} {{.Architecture}}", image.id)
    assert shown == "x y amd64"


def test_a_failed_build_says_why_and_leaves_no_container(
    cli: DockerCli,
    docker_cli: Docker,
    spec: SandboxSpec,
    base_image: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The error has the builder's last words; no container of a step stays, and nothing is on our own output."""
    mark = secrets.token_hex(8)
    (tmp_path / "context" / "Dockerfile").write_text(f"FROM {base_image}\nRUN echo {mark}; exit 7\n")
    log = io.BytesIO()
    with pytest.raises(ImageBuildFailed, match="returned a non-zero code: 7"):
        resolve_image(spec, cli, log, lambda _: None)
    assert f"\n{mark}\n".encode() in log.getvalue()
    assert mark not in commands(docker_cli)
    assert capfd.readouterr() == ("", "")


def endless(spec: SandboxSpec, base_image: str) -> str:
    """Make *spec*'s build one that does not end; its step's command has the mark in it."""
    mark = secrets.token_hex(8)
    assert spec.image_context_path is not None
    Path(spec.image_context_path, "Dockerfile").write_text(f"FROM {base_image}\nRUN : {mark}; sleep 1000\n")
    return mark


def test_a_build_that_takes_too_long_leaves_no_container(
    cli: DockerCli, docker_cli: Docker, spec: SandboxSpec, base_image: str
) -> None:
    """The engine ends the step when the CLI is gone."""
    mark = endless(spec, base_image)
    with pytest.raises(SandboxTimeout, match="took longer than build_timeout_seconds=3 and was ended"):
        resolve_image(replace(spec, build_timeout_seconds=3.0), cli, io.BytesIO(), lambda _: None)
    assert wait_until(lambda: mark not in commands(docker_cli))


_RESOLVE = """
import io, sys
from sandbox_runner.docker.command import DockerCli
from sandbox_runner.docker.image import resolve_image
from sandbox_runner.spec import SandboxSpec
spec = SandboxSpec(image_context_path=sys.argv[1], image_repo=sys.argv[2], build_timeout_seconds=120.0)
resolve_image(spec, DockerCli(), io.BytesIO(), lambda line: print(line.partition(": ")[2], flush=True))
"""


def resolving(spec: SandboxSpec) -> "subprocess.Popen[str]":
    """Another process that wants the image of *spec*."""
    argv = [sys.executable, "-c", _RESOLVE, str(spec.image_context_path), spec.image_repo]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_a_killed_caller_leaves_no_container(
    cli: DockerCli, docker_cli: Docker, spec: SandboxSpec, base_image: str
) -> None:
    """Its CLI dies with it, and with that the step; nobody has to clean up."""
    mark = endless(spec, base_image)
    with resolving(spec) as process:
        assert wait_until(lambda: mark in commands(docker_cli)), "the step never ran"
        process.send_signal(signal.SIGKILL)
    assert wait_until(lambda: mark not in commands(docker_cli))
    assert [path.name for path in build_lock.sweep()] == [f".build-{image_hash(spec)}.lock"]


def test_two_processes_build_one_hash_once_on_the_engine(
    cli: DockerCli, spec: SandboxSpec, base_image: str, tmp_path: Path
) -> None:
    """Of two that begin while the image is not there, one builds; both get the same one."""
    mark = secrets.token_hex(8)
    (tmp_path / "context" / "Dockerfile").write_text(f"FROM {base_image}\nRUN : {mark}; sleep 1\n")
    with resolving(spec) as first, resolving(spec) as second:
        assert first.stdout is not None
        assert second.stdout is not None
        assert select.select([first.stdout], [], [], 60)[0]
        lines = [stream.read().splitlines() for stream in (first.stdout, second.stdout)]
    assert sorted(lines[0] + lines[1]).count("building with the classic builder") == 1
    assert lines[0][-1] == lines[1][-1]
    assert lines[0][-1].startswith("sha256:")


def test_a_named_image_is_used_as_it_is(cli: DockerCli, docker_cli: Docker, base_image: str) -> None:
    """One that is here is not asked for anywhere; its id is the engine's."""
    number = docker_cli("image", "inspect", "--format", "{{.Id}}", base_image)
    spec = SandboxSpec(image_ref=base_image)
    assert resolve(spec, cli) == (Image(base_image, None, number), [number])
    assert resolve(replace(spec, image_pull_policy="never"), cli)[0].id == number


def test_an_image_that_no_registry_has_is_an_error(cli: DockerCli) -> None:
    """The engine's own words are in it."""
    with pytest.raises(ImageBuildFailed, match=r"localhost:1/no/such:1 could not be pulled \(exit code 1\)") as caught:
        resolve(SandboxSpec(image_ref="localhost:1/no/such:1"), cli)
    assert "connection refused" in str(caught.value)


@pytest.mark.timeout(400)  # longer than the build itself may take
def test_the_builtin_image_is_built_on_a_base_image_of_ones_own(
    cli: DockerCli, docker_cli: Docker, base_image: str, repo: str
) -> None:
    """`SandboxSpec()` with a base image and nothing else gives what an agent needs, also to an ordinary user."""
    spec = SandboxSpec(base_image=base_image, image_repo=repo, build_network="host", build_timeout_seconds=300.0)
    image, _ = resolve(spec, cli)
    needed = "git --version && curl --version && python3 --version && test -s /etc/ssl/certs/ca-certificates.crt"
    said = docker_cli("run", "--rm", "--network", "none", "--user", "12345:12345", image.tag, "/bin/sh", "-ec", needed)
    assert said.startswith("git version ")


@pytest.mark.timeout(400)  # longer than the build itself may take
def test_a_copy_of_the_builtin_context_installs_what_its_manifests_say(
    docker_cli: Docker, base_image: str, repo: str, tmp_path: Path
) -> None:
    """apt and pip packages are there for an ordinary user, the environment on PATH, and the overlay with its modes."""
    root = tmp_path / "mine"
    shutil.copytree(builtin_context(), root)
    for name, entry in (("apt.txt", "tree\npython3-venv"), ("pip.txt", "idna==3.10\npyproject_hooks")):
        with (root / name).open("a") as manifest:
            manifest.write(f"{entry}\n")
    tool = root / "overlay" / "usr" / "local" / "bin" / "mine"
    tool.parent.mkdir(parents=True)
    tool.write_text('#!/bin/sh\npython -c "import idna; print(idna.__version__)"\ntree --version\n')
    tool.chmod(0o755)
    spec = SandboxSpec(
        image_context_path=root,
        base_image=base_image,
        image_repo=repo,
        build_network="host",
        build_timeout_seconds=300.0,
    )
    image, _ = resolve(spec, DockerCli())
    said = docker_cli("run", "--rm", "--network", "none", "--user", "12345:12345", image.tag, "mine")
    assert said.startswith("3.10\ntree v")


def test_a_base_image_that_is_another_by_now_is_built_upon_on_the_engine(
    cli: DockerCli, docker_cli: Docker, spec: SandboxSpec, repo: str, tmp_path: Path
) -> None:
    """A base image's name that comes to mean another image means another image for what is built on it."""
    (tmp_path / "context" / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM $BASE_IMAGE\nCOPY Dockerfile /new\n")
    base = f"{repo}:base"
    for number in (1, 2):
        folder = tmp_path / f"base{number}"
        folder.mkdir()
        (folder / "Dockerfile").write_text(f"FROM scratch\nLABEL test={repo}\nCOPY Dockerfile /base{number}\n")
        asked = [cli.program, "build", "--quiet", "--tag", base, str(folder)]
        subprocess.run(asked, env={**os.environ, "DOCKER_BUILDKIT": "0"}, check=True, capture_output=True)
        image, progress = resolve(replace(spec, base_image=base), cli)
        assert progress == ["building with the classic builder", image.id]
        assert sorted(content(docker_cli, image.tag)) == [f"base{number}", "new"]
        assert resolve(replace(spec, base_image=base), cli) == (image, [image.id])
