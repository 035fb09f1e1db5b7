"""The command line of an attached container, and what the engine must say of what came of it."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sandbox_runner.attached import AttachedSpec, missing_walls, run_arguments
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
    tmpfs={"/tmp": (1 << 20, 64)},
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
        "Tmpfs": {"/tmp": "rw,size=1048576,nr_inodes=64", "/dev/pts": "rw,size=4096"},
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
        ("--cgroupns", "private"),
        ("--cap-drop", "ALL"),
        ("--security-opt", "no-new-privileges"),
        ("--user", "1001:1000"),
        ("--memory", str(64 << 20)),
        ("--memory-swap", str(64 << 20)),
        ("--pids-limit", "7"),
        ("--cpus", "0.5"),
        ("--ulimit", "core=0:0"),
        ("--ulimit", "nofile=100:100"),
        ("--ulimit", "fsize=4096:4096"),
        ("--tmpfs", "/tmp:rw,exec,nosuid,nodev,mode=1777,size=1048576,nr_inodes=64"),
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


def test_another_runtime_than_the_one_asked_for_is_named() -> None:
    """Without one asked for, the daemon's own will do."""
    assert missing_walls(replace(SPEC, runtime="runsc"), INSPECTED) == ["runtime"]
