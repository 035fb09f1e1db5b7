"""The line that starts a container is the policy: each wall is on it, each can be taken off it by name, no value is."""

import dataclasses

import pytest

from sandbox_runner.docker.command import DockerCli
from sandbox_runner.docker.container import About, DockerInstance
from sandbox_runner.docker.line import Bind, Plan, missing_walls, run_arguments
from sandbox_runner.errors import InvalidSpec
from sandbox_runner.spec import WALLS, ResourceSpec, SandboxSpec
from sandbox_runner.state import StateFolder

PLAN = Plan(
    name="a-name",
    image="sha256:1234",
    user=(1000, 1001),
    binds=[Bind("/host/w", "/workspace"), Bind("/host/ro", "/mnt/ro", read_only=True)],
    labels={"sandbox_runner": "1"},
    seccomp="/profile.json",
)
#: What each wall is on the line.
OPTIONS = {
    "capabilities": ["--cap-drop", "ALL"],
    "no_new_privileges": ["--security-opt", "no-new-privileges"],
    "init": ["--init"],
    "memory_limit": ["--memory", "2147483648", "--memory-swap", "2147483648"],
    "nofile_limit": ["--ulimit", "nofile=4096:4096"],
    "pids_limit": ["--pids-limit", "512"],
    "read_only_root": ["--read-only"],
    "seccomp": ["--security-opt", "seccomp=/profile.json"],
    "user": ["--user", "1000:1001"],
}
STANDS = {
    "HostConfig": {
        "CapDrop": ["ALL"],
        "CapAdd": None,
        "Privileged": False,
        "SecurityOpt": ["no-new-privileges", "seccomp={}"],
        "Init": True,
        "Memory": 2 << 30,
        "MemorySwap": 2 << 30,
        "Ulimits": [{"Name": "nofile", "Hard": 4096, "Soft": 4096}],
        "PidsLimit": 512,
        "ReadonlyRootfs": True,
        "NetworkMode": "none",
    },
    "Config": {"User": "1000:1001"},
}
SHOWN = {"CapEff:": "0000000000000000", "NoNewPrivs:": "1", "Seccomp:": "2"}


def holds(line: list[str], part: list[str]) -> bool:
    """Whether *part* is in *line*, together."""
    return any(line[start : start + len(part)] == part for start in range(len(line)))


def test_every_wall_is_on_the_line() -> None:
    """With nothing set."""
    line = run_arguments(SandboxSpec(), PLAN)
    assert set(OPTIONS) == set(WALLS)
    for wall, option in OPTIONS.items():
        assert holds(line, option), wall
    assert holds(line, ["--network", "none", "--dns", "192.0.2.1", "--dns-search", "."])
    assert "--privileged" not in line
    assert not any("docker.sock" in part for part in line)


@pytest.mark.parametrize("wall", WALLS)
def test_a_wall_that_is_loosened_and_no_other_is_gone(wall) -> None:
    """What else changes is what that wall means: with the image's own user, folders in memory are everybody's."""
    strict, loose = run_arguments(SandboxSpec(), PLAN), run_arguments(SandboxSpec(loosen=(wall,)), PLAN)
    assert not holds(loose, OPTIONS[wall])
    for other, option in OPTIONS.items():
        assert other == wall or holds(loose, option), other
    added = [part for part in loose if part not in strict]
    if wall == "seccomp":
        assert added == ["seccomp=unconfined"]
    elif wall == "user":
        assert all("mode=1777" in part for part in added)
    else:
        assert added == []


def test_the_image_and_its_command_come_last() -> None:
    """After every option, so that nothing of an image's is read as one; the container only waits."""
    line = run_arguments(SandboxSpec(), PLAN)
    assert line[:3] == ["run", "--detach", "--name"]
    assert line[-5:] == ["--entrypoint", "/bin/sh", "sha256:1234", "-c", "exec sleep 86460"]
    assert run_arguments(SandboxSpec(ttl_seconds=0.5), PLAN)[-1] == "exec sleep 61"
    assert run_arguments(SandboxSpec(ttl_seconds=1e30), PLAN)[-1] == "exec sleep 2147483647"
    assert holds(line, ["--pull", "never"])


@pytest.mark.parametrize(("life_s", "slept"), [(None, 86460), (5, 65), (300.5, 361), (90_000, 86460)])
def test_a_container_that_is_needed_for_less_lives_for_less(life_s, slept) -> None:
    """And never beyond the time that its sandbox has to live."""
    line = run_arguments(SandboxSpec(), dataclasses.replace(PLAN, life_s=life_s))
    assert line[-1] == f"exec sleep {slept}"


def test_folders_are_mounted_as_planned() -> None:
    """By `--mount`, which refuses a source that is not there instead of making it."""
    line = run_arguments(SandboxSpec(), PLAN)
    assert holds(line, ["--mount", "type=bind,source=/host/w,target=/workspace"])
    assert holds(line, ["--mount", "type=bind,source=/host/ro,target=/mnt/ro,readonly"])
    assert "--volume" not in line
    assert "-v" not in line


@pytest.mark.parametrize("path", ["/a,readonly", '/a"b', "/a\nb", "/a\rb"])
def test_a_path_that_could_add_options_is_refused(path) -> None:
    """On either side."""
    for bind in (Bind(path, "/x"), Bind("/x", path)):
        with pytest.raises(InvalidSpec, match=r"a comma, a quote or a line break is in it$"):
            bind.option()


def test_what_is_asked_for_is_on_the_line() -> None:
    """CPUs, memory, processes, the runtime, the platform, an open network, a warm cache without one in memory."""
    spec = SandboxSpec(
        resources=ResourceSpec(cpus=1.5, memory="64m", pids_limit=7),
        runtime="runsc",
        platform="linux/amd64",
        network_mode="open",
        cache_mode="warm",
        cache_dir="/c",
        tmp_bytes=4096,
    )
    line = run_arguments(spec, PLAN)
    for part in (
        ["--cpus", "1.5"],
        ["--memory", "67108864", "--memory-swap", "67108864"],
        ["--pids-limit", "7"],
        ["--runtime", "runsc"],
        ["--platform", "linux/amd64"],
        ["--network", "bridge"],
    ):
        assert holds(line, part), part
    assert not any(part.startswith("/cache:") for part in line)
    assert any(part.startswith("/tmp:") and "size=4096" in part for part in line)


def test_no_value_of_the_environment_is_on_the_line(monkeypatch) -> None:
    """Nor a name: what a command gets is given to the command."""
    monkeypatch.setenv("SR_ALLOWED", "the-allowed-value")
    spec = SandboxSpec(env_allowlist=("SR_ALLOWED",), env_overrides={"SR_OVER": "the-other-value"})
    assert run_arguments(spec, PLAN) == run_arguments(SandboxSpec(), PLAN)


def test_a_wall_that_does_not_stand_is_named() -> None:
    """By what the engine says of it; and all of them stand if it says so."""
    assert missing_walls(SandboxSpec(), PLAN, STANDS, SHOWN) == []
    host: dict[str, object] = STANDS["HostConfig"]
    changes = {
        "capabilities": [{"CapDrop": None}, {"CapAdd": ["SYS_ADMIN"]}, {"Privileged": True}],
        "no_new_privileges": [{"SecurityOpt": ["seccomp={}"]}],
        "init": [{"Init": None}],
        "memory_limit": [{"Memory": 0}, {"MemorySwap": -1}],
        "nofile_limit": [{"Ulimits": None}, {"Ulimits": [{"Name": "nofile", "Hard": 1 << 20, "Soft": 4096}]}],
        "pids_limit": [{"PidsLimit": None}],
        "read_only_root": [{"ReadonlyRootfs": False}],
        "seccomp": [{"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]}],
        "network": [{"NetworkMode": "bridge"}],
    }
    for wall, changed in changes.items():
        for change in changed:
            assert missing_walls(SandboxSpec(), PLAN, {**STANDS, "HostConfig": {**host, **change}}, SHOWN) == [wall]
    assert missing_walls(SandboxSpec(), PLAN, {**STANDS, "Config": {"User": ""}}, SHOWN) == ["user"]
    assert {*changes, "user"} == {*WALLS, "network"}


@pytest.mark.parametrize(
    ("line", "value", "wall"),
    [
        ("CapEff:", "00000000a80425fb", "capabilities"),
        ("NoNewPrivs:", "0", "no_new_privileges"),
        ("Seccomp:", "0", "seccomp"),
    ],
)
def test_what_the_kernel_shows_counts(line, value, wall) -> None:
    """Also if the engine says otherwise, and if the kernel says nothing; with another runtime it cannot."""
    for shown in ({**SHOWN, line: value}, {name: is_shown for name, is_shown in SHOWN.items() if name != line}):
        assert missing_walls(SandboxSpec(), PLAN, STANDS, shown) == [wall]
        assert missing_walls(SandboxSpec(loosen=(wall,)), PLAN, STANDS, shown) == []
        assert missing_walls(SandboxSpec(runtime="runsc"), PLAN, STANDS, shown) == []


ABOUT = About(
    name="NAME",
    nonce="n",
    image_tag="t",
    image_hash=None,
    keeper=7,
    own_init=True,
    env_allowlist=(),
    overridden=(),
    kept=False,
    timeout_s=1,
    artifacts="/a",
    sources=(),
)


def instance(tmp_path, **changes: object) -> DockerInstance:
    """One that is only asked for its prefix."""
    about = dataclasses.replace(ABOUT, **changes)
    return DockerInstance(about, DockerCli(), StateFolder(tmp_path / "NAME"), None)


def test_the_prefix_with_nothing_set(tmp_path, monkeypatch, fake_path) -> None:
    """Exactly `docker exec -i NAME`."""
    monkeypatch.delenv("SANDBOX_RUNNER_DOCKER", raising=False)
    assert instance(tmp_path).command_prefix == ["docker", "exec", "-i", "NAME"]


def test_the_prefix_names_variables_and_no_value(tmp_path, monkeypatch, fake_path) -> None:
    """Allowed ones by their name, overrides by their file; the container's name comes last."""
    monkeypatch.delenv("SANDBOX_RUNNER_DOCKER", raising=False)
    monkeypatch.setenv("A", "the-value-of-a")
    prefix = instance(tmp_path, env_allowlist=("A", "B"), overridden=("B", "C")).command_prefix
    assert prefix == ["docker", "exec", "-i", "--env", "A", "--env-file", f"{tmp_path}/NAME/env", "NAME"]


@pytest.fixture
def fake_path(tmp_path, monkeypatch) -> None:
    """A `docker` on PATH, which is never started."""
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\nexit 99\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
