"""How an image is asked for, by a Docker CLI that says what an engine would not say on demand."""

import io
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox_runner.docker import build_lock
from sandbox_runner.docker.command import DockerCli
from sandbox_runner.docker.image import MAX_LOG, Image, image_hash, image_tag, resolve_image
from sandbox_runner.errors import ImageBuildFailed, InvalidSpec, SandboxTimeout
from sandbox_runner.spec import SandboxSpec
from sandbox_runner.state import state_root

NONE = {"code": 1, "stdout": "[]\n", "stderr": "Error: No such image\n"}
CLASSIC = {"buildx version": {"code": 1, "stderr": "docker: unknown command: docker buildx\n"}}
BUILDX = {"buildx version": {"stdout": "github.com/docker/buildx v0.24\n"}}


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("SANDBOX_RUNNER_BASE_IMAGE", raising=False)
    monkeypatch.delenv("DOCKER_BUILDKIT", raising=False)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as ours:  # locks of nobody else
        monkeypatch.setenv("XDG_RUNTIME_DIR", ours)
        yield


@pytest.fixture
def spec(tmp_path: Path) -> SandboxSpec:
    root = tmp_path / "context"
    root.mkdir()
    (root / "Dockerfile").write_text("FROM scratch\n")
    return SandboxSpec(image_context_path=root, image_repo="repo/name", build_timeout_seconds=30.0)


def there(digest: str | None, *, number: str = "sha256:1", base: str = "") -> dict[str, Any]:
    """What `inspect` answers for an image of that hash."""
    labels = {"sandbox_runner.image": digest, "sandbox_runner.base": base} if digest else None
    found = {"Id": number, "Config": {"Labels": labels}, "Os": "linux", "Architecture": "amd64"}
    return {"stdout": json.dumps([found])}


def resolve(spec: SandboxSpec) -> tuple[Image, bytes, list[str]]:
    log, progress = io.BytesIO(), []
    image = resolve_image(spec, DockerCli(), log, progress.append)
    return image, log.getvalue(), progress


def built(spec: SandboxSpec) -> dict[str, Any]:
    """`inspect`: the image is not there, and after a build it is."""
    return {"inspect": [NONE, NONE, there(image_hash(spec))]}


def program(path: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CLI that is the shell script *body*."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setenv("SANDBOX_RUNNER_DOCKER", str(path))


def ends(pid: int) -> bool:
    """Whether the process ends, or has ended: it may have been killed a moment ago."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 10)[0])
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("builder", "begin", "with_variable"),
    [
        (CLASSIC, ["build", "--rm", "--force-rm"], True),
        (BUILDX, ["buildx", "build", "--load", "--progress=plain"], False),
    ],
)
def test_each_builder_is_asked_in_its_own_words(stub_docker, spec, builder, begin, with_variable) -> None:
    """A CLI without buildx is never given --progress; one with it is never made to use the classic builder."""
    digest = image_hash(spec)
    stub = stub_docker({**builder, **built(spec), " ".join(begin[:-2]): {"stdout": "Step 1\n", "stderr": "note\n"}})
    image, log, _ = resolve(spec)
    assert image == Image(f"repo/name:{digest[:24]}", digest, "sha256:1")
    assert sorted(log.splitlines()) == [b"Step 1", b"note"]
    [call] = [call for call in stub.calls if "build" in call.argv]
    assert call.argv == [
        *begin,
        "--file=Dockerfile",
        f"--tag=repo/name:{digest[:24]}",
        f"--label=sandbox_runner.image={digest}",
        "--label=sandbox_runner.base=",
        "-",
    ]
    assert ("DOCKER_BUILDKIT" in call.env) is with_variable


def test_each_option_is_on_the_builders_line(stub_docker, spec, tmp_path: Path) -> None:
    """Target, platform, network, build arguments in order, base image and --no-cache, each as one word."""
    (tmp_path / "context" / "deep").mkdir()
    (tmp_path / "context" / "deep" / "Other").write_text("FROM scratch\n")
    spec = replace(
        spec,
        dockerfile="deep/../deep/Other",
        build_args={"Z": "1 2", "A": "--x=$HOME"},
        base_image="base:1",
        build_target="last",
        platform="linux/amd64",
        build_network="host",
        rebuild_image=True,
    )
    stub = stub_docker(
        {
            **CLASSIC,
            "inspect --type image base:1": there(None, number="sha256:base"),
            "inspect": there(image_hash(spec)),
            "build": {},
        }
    )
    resolve(spec)
    [call] = [call for call in stub.calls if call.argv[0] == "build"]
    assert call.argv[3:] == [
        "--file=deep/Other",
        f"--tag={image_tag(spec, image_hash(spec))}",
        f"--label=sandbox_runner.image={image_hash(spec)}",
        "--label=sandbox_runner.base=sha256:base",
        "--build-arg=A=--x=$HOME",
        "--build-arg=BASE_IMAGE=base:1",
        "--build-arg=Z=1 2",
        "--target=last",
        "--platform=linux/amd64",
        "--network=host",
        "--no-cache",
        "-",
    ]


def test_an_image_that_is_there_is_not_built(stub_docker, spec) -> None:
    """Its tag and its label say the hash: one question to the engine, and nothing else."""
    stub = stub_docker({"inspect": there(image_hash(spec))})
    image, log, progress = resolve(spec)
    assert [call.argv for call in stub.calls] == [["inspect", "--type", "image", image.tag]]
    assert (log, progress) == (b"", [f"image {image.tag}: sha256:1"])


@pytest.mark.parametrize("digest", [None, "0" * 64])
def test_a_tag_on_another_image_is_built_over(stub_docker, spec, digest) -> None:
    """A tag can be put on anything: an image without our label of the whole hash is not the one."""
    other = there(digest)
    stub = stub_docker({**CLASSIC, "build": {}, "inspect": [other, other, there(image_hash(spec))]})
    resolve(spec)
    assert [call.argv[0] for call in stub.calls].count("build") == 1


@pytest.mark.parametrize(
    ("base", "builds"),
    [(there(None, number="sha256:new"), 1), (there(None, number="sha256:old"), 0), (NONE, 0)],
)
def test_a_base_image_that_is_another_by_now_is_built_upon(stub_docker, spec, base, builds) -> None:
    """The name in BASE_IMAGE means another image than at the last build: build again. If it is not here: stay."""
    spec = replace(spec, base_image="base:1")
    mine = there(image_hash(spec), base="sha256:old")
    stub = stub_docker({**CLASSIC, "build": {}, "inspect --type image base:1": base, "inspect": mine})
    resolve(spec)
    assert [call.argv[0] for call in stub.calls].count("build") == builds


def test_a_failed_build_shows_its_last_lines_and_nothing_on_our_output(stub_docker, spec, capfd) -> None:
    """The log has all of it as it came; the error has 20 lines as plain text; our own output has none."""
    lines = "".join(f"line {number}\n" for number in range(100))
    said = lines + "\x1b[31mred\x1b[0m\x07 \x1b]0;title\x07\n"
    stub_docker({**CLASSIC, "inspect": NONE, "build": {"code": 17, "stdout": said}})
    log = io.BytesIO()
    with pytest.raises(ImageBuildFailed) as caught:
        resolve_image(spec, DockerCli(), log, lambda _: None)
    assert log.getvalue().decode() == said
    text = str(caught.value)
    tag = image_tag(spec, image_hash(spec))
    assert text.startswith(
        f"the build of {tag} failed (exit code 17); to use another base, give base_image or set"
        " SANDBOX_RUNNER_BASE_IMAGE; its output is in docker_build.log, the end of it is:\nline 81\n"
    )
    assert text.endswith("line 99\nred   ]0;title ")
    assert capfd.readouterr() == ("", "")


def test_a_build_that_prints_without_end_fills_neither_disk_nor_error(spec, tmp_path, monkeypatch) -> None:
    """The log ends at its ceiling and says so; the build is read on, so that it does not hang."""
    body = f'case "$1" in build) head -c {MAX_LOG + 100_000} /dev/zero; exit 3;; *) exit 1;; esac'
    program(tmp_path / "docker", body, monkeypatch)
    log = io.BytesIO()
    with pytest.raises(ImageBuildFailed, match=r"failed \(exit code 3\)") as caught:
        resolve_image(spec, DockerCli(), log, lambda _: None)
    assert log.getvalue()[MAX_LOG:] == b"\n[what follows is not kept]\n"
    assert len(str(caught.value)) < 3000


class SlowLog(io.BytesIO):
    """A disk that takes longer for a write than the build prints for the next one."""

    writes = 0

    def write(self, data: object) -> int:
        self.writes += 1
        assert self.writes < 10, "the build goes on after its time"
        time.sleep(0.3)
        return 0


def test_a_build_that_always_has_more_to_say_is_ended_in_time(spec, tmp_path, monkeypatch) -> None:
    """Output that waits to be read does not put off the end."""
    program(tmp_path / "docker", 'case "$1" in build) exec yes;; *) exit 1;; esac', monkeypatch)
    with pytest.raises(SandboxTimeout, match="was ended"):
        resolve_image(replace(spec, build_timeout_seconds=0.5), DockerCli(), SlowLog(), lambda _: None)


@pytest.mark.parametrize("output", ["", "yes &"])
def test_a_build_that_takes_too_long_is_ended_with_all_it_started(spec, tmp_path, monkeypatch, output) -> None:
    """buildx is a program that the CLI starts: it ends too. A build that prints all the time is no exception."""
    pids = tmp_path / "pids"
    body = f"""case "$1" in
    build) sleep 1000 & echo $! $$ > {pids}; echo started; {output} wait;;
    *) exit 1;;
    esac"""
    program(tmp_path / "docker", body, monkeypatch)
    with pytest.raises(SandboxTimeout) as caught:
        resolve_image(replace(spec, build_timeout_seconds=3.0), DockerCli(), io.BytesIO(), lambda _: None)
    tag = image_tag(spec, image_hash(spec))
    assert str(caught.value).startswith(
        f"the build of {tag} took longer than build_timeout_seconds=3 and was ended; its output is in"
        f" docker_build.log, the end of it is:\n{'y' if output else 'started'}"
    )
    assert all(ends(int(pid)) for pid in pids.read_text().split())


def test_a_log_that_cannot_be_written_ends_the_build(spec, tmp_path, monkeypatch) -> None:
    """Whatever is raised while a build runs, the CLI does not go on without us."""
    pids = tmp_path / "pids"
    body = f'case "$1" in build) echo $$ > {pids}; echo started; exec sleep 1000;; *) exit 1;; esac'
    program(tmp_path / "docker", body, monkeypatch)
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "wb", buffering=0) as full:
        resolve_image(spec, DockerCli(), full, lambda _: None)
    assert ends(int(pids.read_text()))


def test_a_context_that_changes_between_hash_and_build_is_not_built(spec, tmp_path, monkeypatch) -> None:
    """What is sent is what was hashed: an image can never have the tag of another content."""
    body = f"""echo "$1" >> {tmp_path}/calls
    case "$1" in inspect) echo "#" >> {tmp_path}/context/Dockerfile;; esac
    exit 1"""
    program(tmp_path / "docker", body, monkeypatch)
    with pytest.raises(ImageBuildFailed) as caught:
        resolve(spec)
    assert str(caught.value) == f"{tmp_path}/context changed while it was read: build again when nothing changes it"
    assert (tmp_path / "calls").read_text().split() == ["inspect", "inspect"]


def test_a_build_that_leaves_no_image_here_is_a_failure(stub_docker, spec) -> None:
    """A builder on another machine ends well and loads nothing: that is not taken for an image."""
    stub_docker({**BUILDX, "buildx build": {}, "inspect": NONE})
    with pytest.raises(ImageBuildFailed) as caught:
        resolve(spec)
    tag = image_tag(spec, image_hash(spec))
    assert str(caught.value) == f"{tag} was built, but the engine does not have it: is its builder on another machine?"


def test_a_build_argument_with_a_nul_is_refused(spec) -> None:
    """It could not be on a command line; the spec is refused before anything starts."""
    with pytest.raises(InvalidSpec, match=r"\Abuild_args: the value of A holds a NUL\Z"):
        image_hash(replace(spec, build_args={"A": "\0"}))


_RESOLVE = """
import io, sys
from sandbox_runner.docker.command import DockerCli
from sandbox_runner.docker.image import resolve_image
from sandbox_runner.spec import SandboxSpec
spec = SandboxSpec(image_context_path=sys.argv[1], build_timeout_seconds=60.0)
resolve_image(spec, DockerCli(), io.BytesIO(), lambda line: print(line, flush=True))
"""


def resolving(context: Path) -> "subprocess.Popen[str]":
    """Another process that wants the image of *context*, and prints its progress."""
    return subprocess.Popen([sys.executable, "-c", _RESOLVE, str(context)], stdout=subprocess.PIPE, text=True)


def line_of(process: "subprocess.Popen[str]") -> str:
    """The next line it prints, without the image's name."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n").partition(": ")[2]


def test_two_processes_build_one_hash_once(spec, tmp_path, monkeypatch) -> None:
    """The second waits for the first's build, and then finds its image instead of building another."""
    context = tmp_path / "context"
    answer = shlex.quote(there(image_hash(spec))["stdout"])
    os.mkfifo(tmp_path / "go")
    body = f"""case "$1" in
    buildx) exit 1;;
    inspect) [ -e {tmp_path}/built ] && echo {answer};;
    build) echo build >> {tmp_path}/builds; read line < {tmp_path}/go; : > {tmp_path}/built;;
    esac"""
    program(tmp_path / "docker", body, monkeypatch)
    with resolving(context) as first:
        assert line_of(first) == "building with the classic builder"
        with resolving(context) as second:
            assert line_of(second) == "waiting for another build of it"
            (tmp_path / "go").write_text("\n")  # opens once the first build waits for it
            assert [line_of(first), line_of(second)] == ["sha256:1", "sha256:1"]
    assert (first.returncode, second.returncode) == (0, 0)
    assert (tmp_path / "builds").read_text() == "build\n"
    assert build_lock.sweep(dry_run=True) == []


def test_a_sandbox_may_be_named_as_a_lock(spec) -> None:
    """Its folder is beside the locks, is none, and is not swept; nor is a folder that has a lock's name."""
    for name in (f"build-{image_hash(spec)}.lock", ".build-folder.lock"):
        (state_root() / name).mkdir()
    with build_lock.build_lock(image_hash(spec), 1.0, lambda: pytest.fail("it waited")):
        assert build_lock.sweep() == []


@pytest.mark.parametrize("base", ["--help", "-h", "--format={{.}}"])
def test_a_base_image_is_no_option(spec, stub_docker, monkeypatch, base) -> None:
    """Whoever names it: the spec, a build argument or the environment."""
    stub = stub_docker()
    for named in ({"base_image": base}, {"build_args": {"BASE_IMAGE": base}}):
        with pytest.raises(InvalidSpec):
            resolve(replace(spec, **named))
    monkeypatch.setenv("SANDBOX_RUNNER_BASE_IMAGE", base)
    with pytest.raises(InvalidSpec) as caught:
        resolve(spec)
    assert str(caught.value) == f"base_image: {base!r} is not an image"
    assert stub.calls == []


def test_the_wait_for_another_build_ends(spec, stub_docker) -> None:
    """A build of the same hash that does not end keeps nobody longer than a build of their own may take."""
    stub = stub_docker({"inspect": NONE})
    progress: list[str] = []
    with build_lock.build_lock(image_hash(spec), 1.0, lambda: None), pytest.raises(SandboxTimeout) as caught:
        resolve_image(replace(spec, build_timeout_seconds=0.2), DockerCli(), io.BytesIO(), progress.append)
    assert str(caught.value) == "another process is building this image, and was not done in 0.2 s"
    assert progress == [f"image {image_tag(spec, image_hash(spec))}: waiting for another build of it"]
    assert {call.argv[0] for call in stub.calls} == {"inspect"}


def test_a_killed_builder_gives_its_lock_back_and_its_file_is_swept(spec, tmp_path, monkeypatch) -> None:
    """The next one builds at once. What the dead one left is one empty file, which `sweep` finds and removes."""
    body = f'case "$1" in build) echo $$ > {tmp_path}/cli; exec sleep 1000;; *) exit 1;; esac'
    program(tmp_path / "docker", body, monkeypatch)
    os.mkfifo(tmp_path / "cli")
    with resolving(tmp_path / "context") as first:
        cli = int((tmp_path / "cli").read_text())
        first.send_signal(signal.SIGKILL)
    assert ends(cli)
    [left] = build_lock.sweep(dry_run=True)
    assert left.name == f".build-{image_hash(spec)}.lock"
    assert left.exists()
    with build_lock.build_lock(image_hash(spec), 1.0, lambda: pytest.fail("it waited for a dead process")):
        assert build_lock.sweep() == []  # a lock that is held stays
    assert not left.exists()
    left.touch()
    assert build_lock.sweep() == [left]
    assert not left.exists()
