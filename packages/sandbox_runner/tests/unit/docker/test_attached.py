"""The command line of an attached container, and what the engine must say of what came of it."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sandbox_runner.docker.attached import AttachedSpec, Tmpfs, missing_walls, run_arguments, run_to_end
from sandbox_runner.docker.command import DockerCli
from sandbox_runner.docker.engine import Engine
from sandbox_runner.errors import DockerUnavailable, SandboxTimeout
from sandbox_runner.spec import MountSpec

SPEC = AttachedSpec(
    image="img",
    command=("python3", "-c", "pass"),
    user=(1001, 1000),
    memory_bytes=64 << 20,
    pids=7,
    cpus=0.5,
    nofile=100,
    file_bytes=4096,
    mounts=(MountSpec("/host/out", "/out"), MountSpec("/host/in", "/in", read_only=True)),
    tmpfs={"/tmp": Tmpfs(1 << 20, 64)},
    env={"TZ": "UTC"},
)
#: What an engine says of it.
INSPECTED: dict[str, Any] = {
    "Config": {"User": "1001:1000"},
    "HostConfig": {
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", 'seccomp={"x":1}'],
        "Memory": 64 << 20,
        "MemorySwap": 64 << 20,
        "PidsLimit": 7,
        "NanoCpus": 500_000_000,
        "Ulimits": [{"Name": "nofile", "Hard": 100}, {"Name": "fsize", "Hard": 4096}],
        "ReadonlyRootfs": True,
        "NetworkMode": "none",
        "Tmpfs": {"/tmp": Tmpfs(1 << 20, 64).options(), "/dev/pts": "rw,size=4096"},
        "Runtime": "runc",
    },
    "Mounts": [
        {"Source": "/host/out", "Destination": "/out", "RW": True},
        {"Source": "/host/in", "Destination": "/in", "RW": False},
    ],
}


def options(argv: list[str]) -> list[tuple[str, str]]:
    """Each option with what follows it."""
    return list(zip(argv, [*argv[1:], ""], strict=True))


def test_every_wall_is_on_the_command_line() -> None:
    """None depends on an engine's default."""
    said = options(run_arguments(SPEC, "name", "nonce"))
    for option in (
        ("--name", "name"),
        ("--pull", "never"),
        ("--network", "none"),
        ("--dns", "192.0.2.1"),
        ("--cgroupns", "private"),
        ("--cap-drop", "ALL"),
        ("--security-opt", "no-new-privileges"),
        ("--user", "1001:1000"),
        ("--memory", str(64 << 20)),
        ("--memory-swap", str(64 << 20)),
        ("--pids-limit", "7"),
        ("--cpus", "0.5"),
        ("--ulimit", "core=1:1"),
        ("--ulimit", "nofile=100:100"),
        ("--ulimit", "fsize=4096:4096"),
        ("--tmpfs", "/tmp:rw,exec,nosuid,nodev,mode=1777,uid=0,gid=0,size=1048576,nr_inodes=64"),
        ("--tmpfs", "/dev/pts:rw,noexec,nosuid,nodev,mode=0755,size=4096,nr_inodes=1"),
        ("--mount", "type=bind,source=/host/out,target=/out"),
        ("--mount", "type=bind,source=/host/in,target=/in,readonly"),
        ("--env", "TZ=UTC"),
        ("--log-opt", "max-size=1m"),
    ):
        assert option in said, option
    argv = run_arguments(SPEC, "name", "nonce")
    assert argv[-5:] == ["--entrypoint", "python3", "img", "-c", "pass"]
    assert "--read-only" in argv
    assert not {"--privileged", "--cap-add", "--init", "--detach", "--rm"} & set(argv)


def test_open_files_may_be_the_engines_own() -> None:
    """None asks for no limit, and whatever default a daemon adds to a container is no missing wall."""
    spec = replace(SPEC, nofile=None)
    assert not [value for option, value in options(run_arguments(spec, "n", "n")) if value.startswith("nofile")]
    for ulimits in ([], [{"Name": "nofile", "Hard": 20_000, "Soft": 1024}]):
        host = {"Ulimits": [{"Name": "fsize", "Hard": 4096}, *ulimits]}
        assert "nofile_limit" not in missing_walls(spec, {"HostConfig": host, "Config": {}})
        assert "nofile_limit" in missing_walls(SPEC, {"HostConfig": host, "Config": {}})


def test_a_label_of_the_callers_does_not_take_the_place_of_ours() -> None:
    """`cleanup` goes by ours."""
    argv = run_arguments(replace(SPEC, labels={"sandbox_runner": "no", "mine": "yes"}), "name", "nonce")
    labels = [value for option, value in options(argv) if option == "--label"]
    assert [label for label in labels if label.startswith(("sandbox_runner=", "mine="))] == [
        "sandbox_runner=1",
        "mine=yes",
    ]


def test_an_engine_that_made_all_of_it_misses_nothing() -> None:
    """The control of the next test."""
    assert missing_walls(SPEC, INSPECTED) == []


BREAKS: dict[str, Callable[[dict[str, Any]], object]] = {
    "capabilities": lambda host: host.update(CapAdd=["SYS_ADMIN"]),
    "no_new_privileges": lambda host: host.update(SecurityOpt=['seccomp={"x":1}']),
    "memory_limit": lambda host: host.update(MemorySwap=-1),
    "pids_limit": lambda host: host.update(PidsLimit=None),
    "cpus": lambda host: host.update(NanoCpus=0),
    "nofile_limit": lambda host: host.update(Ulimits=[{"Name": "fsize", "Hard": 4096}]),
    "file_size_limit": lambda host: host.update(Ulimits=[{"Name": "nofile", "Hard": 100}]),
    "read_only_root": lambda host: host.update(ReadonlyRootfs=False),
    "seccomp": lambda host: host.update(SecurityOpt=["no-new-privileges", "seccomp=unconfined"]),
    "network": lambda host: host.update(NetworkMode="bridge"),
    "tmpfs": lambda host: host["Tmpfs"].pop("/tmp"),
    "terminals": lambda host: host["Tmpfs"].pop("/dev/pts"),
}


@pytest.mark.parametrize("wall", BREAKS)
def test_a_wall_that_the_engine_left_out_is_named(wall: str) -> None:
    """Each alone."""
    said = copy.deepcopy(INSPECTED)
    BREAKS[wall](said["HostConfig"])
    assert missing_walls(SPEC, said) == [wall]


@pytest.mark.parametrize(
    ("change", "wall"),
    [
        ({"Config": {"User": "0:0"}}, "user"),
        ({"Mounts": [*INSPECTED["Mounts"], {"Source": "/", "Destination": "/host", "RW": True}]}, "mounts"),
        ({"Mounts": [{**mount, "RW": True} for mount in INSPECTED["Mounts"]]}, "mounts"),
        ({"Mounts": []}, "mounts"),
    ],
)
def test_another_user_or_mount_is_named(change: dict[str, Any], wall: str) -> None:
    """One mount too many, one too few, one that can be written."""
    assert missing_walls(SPEC, {**INSPECTED, **change}) == [wall]


@pytest.mark.parametrize("other", [Tmpfs(1 << 21, 64), Tmpfs(1 << 20, 0), Tmpfs(1 << 20, 64, owner=(1001, 0))])
def test_another_file_system_in_memory_is_named(other: Tmpfs) -> None:
    """Larger, without a ceiling of inodes, or somebody else's to change; control: the same options in another order."""
    said = copy.deepcopy(INSPECTED)
    said["HostConfig"]["Tmpfs"]["/tmp"] = ",".join(reversed(Tmpfs(1 << 20, 64).options().split(",")))
    assert missing_walls(SPEC, said) == []
    said["HostConfig"]["Tmpfs"]["/tmp"] = other.options()
    assert missing_walls(SPEC, said) == ["tmpfs"]


def test_a_workspace_that_two_containers_share_is_in_memory_and_has_no_name() -> None:
    """So it holds no more than was asked for, and is removed with them; another one is named.

    Its labels are its container's, whatever is in them: no value of one adds an option.
    """
    holder, other = (replace(SPEC, **given) for given in ({"shared": ("/w", Tmpfs(4096, 9))}, {"shares": ("h", "/w")}))
    (volume,) = [value for option, value in options(run_arguments(holder, "h", "n")) if value.startswith("type=volume")]
    assert volume == (
        "type=volume,target=/w,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs,"
        f'"volume-opt=o={Tmpfs(4096, 9).options()}"'
    )
    labelled = replace(holder, labels={"mine": "yes", "place": '/a,b"c'})
    assert f'{volume},volume-label=mine=yes,"volume-label=place=/a,b""c"' in run_arguments(labelled, "h", "n")
    assert ("--volumes-from", "h") in options(run_arguments(other, "o", "n"))
    told = {"Type": "volume", "Source": "/var/lib/docker/volumes/x/_data", "Destination": "/w", "RW": True}
    for spec in (holder, other):
        assert missing_walls(spec, INSPECTED) == ["mounts"]
        assert missing_walls(spec, {**INSPECTED, "Mounts": [*INSPECTED["Mounts"], told]}) == []
    assert missing_walls(SPEC, {**INSPECTED, "Mounts": [*INSPECTED["Mounts"], told]}) == ["mounts"]


def test_another_runtime_than_the_one_asked_for_is_named() -> None:
    """Without one asked for, the daemon's own will do."""
    assert missing_walls(replace(SPEC, runtime="runsc"), INSPECTED) == ["runtime"]


@pytest.mark.parametrize(
    ("run", "raises"), [({"stdout": "seen"}, None), ({"code": 125}, None), ({"sleep": 5}, SandboxTimeout)]
)
def test_what_runs_to_its_end_is_removed(run, raises, stub_docker: Callable[..., Any]) -> None:
    """Also what the engine refused, and what took too long: the engine may have made it all the same."""
    stub = stub_docker({"run": run, "ps": {"stdout": "abc"}, "inspect": {"code": 1}, "rm": {}})
    if raises:
        with pytest.raises(raises):
            run_to_end(DockerCli(), SPEC, 0.5)
    else:
        answer = run_to_end(DockerCli(), SPEC, 5.0)
        assert (answer.code, answer.stdout) == (run.get("code", 0), run.get("stdout", "").encode())
    assert [call.argv[0] for call in stub.calls][:2] == ["run", "ps"]
    assert ["rm", "--force", "--volumes", "abc"] in [call.argv for call in stub.calls]


@pytest.mark.parametrize("answers", [{"code": 1, "stderr": "boom"}, {"stdout": "not JSON"}, {"stdout": "[]"}])
def test_an_engine_that_tells_nothing_of_itself_is_none(answers, stub_docker: Callable[..., Any]) -> None:
    """One error of ours, with what the CLI said, and `info` is not asked then."""
    stub = stub_docker({"version": answers, "info": {"stdout": "{}"}})
    with pytest.raises(DockerUnavailable, match=r"^the Docker engine does not answer: ."):
        Engine.ask(DockerCli())
    assert [call.argv[0] for call in stub.calls] == ["version"]
