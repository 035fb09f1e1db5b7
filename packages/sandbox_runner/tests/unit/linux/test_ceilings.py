"""Where a control group may be made, decided on made-up trees of files: v1, v2, and where there is none."""

from pathlib import Path
from typing import Any

import pytest

from sandbox_runner.errors import BackendUnavailable
from sandbox_runner.linux.cgroup import Ceilings
from sandbox_runner.linux.cgroup_parent import Host, Parent
from sandbox_runner.namespace.ceilings import (
    HOST_LEAF,
    PARENT_VARIABLE,
    find_parent,
    group_of,
    make_group,
    of_spec,
    remove_group,
)
from sandbox_runner.spec import ResourceSpec, SandboxSpec

BOTH = Ceilings(memory_bytes=1 << 30, pids=100)
PID = 4242
DELEGATE = "start the program with `systemd-run --user --scope -p Delegate=yes COMMAND`"
WITHOUT = "or go on without: name memory_limit and pids_limit in SandboxSpec.loosen"


def host_of(mountinfo: str, own: str, **more: Any) -> Host:  # noqa: ANN401 - any of Host's
    return Host(mountinfo, own, variable=PARENT_VARIABLE, leaf=HOST_LEAF, **more)


def v1_line(point: Path, controllers: str, root: str = "/") -> str:
    return f"30 25 0:26 {root} {point} rw,nosuid - cgroup cgroup rw,{controllers}\n"


def v2_line(point: Path, root: str = "/") -> str:
    return f"30 25 0:26 {root} {point} rw,nosuid - cgroup2 cgroup2 rw\n"


def v2_group(
    place: Path, *, offered: str = "cpu memory pids", enabled: str = "", inside: str = "", is_root: bool = False
) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "cgroup.controllers").write_text(offered)
    (place / "cgroup.subtree_control").write_text(enabled)
    (place / "cgroup.procs").write_text(inside)
    if not is_root:
        (place / "cgroup.type").write_text("domain")
    return place


def refused(ceilings: Ceilings, tree: Host) -> str:
    with pytest.raises(BackendUnavailable) as caught:
        find_parent(ceilings, tree)
    return str(caught.value)


def test_nothing_to_hold_needs_no_group() -> None:
    """A spec that loosens both ceilings and asks for no CPUs starts where there is no control group at all."""
    spec = SandboxSpec(loosen=("memory_limit", "pids_limit"))
    assert find_parent(of_spec(spec), host_of("", "")) is None


def test_a_machine_without_groups_is_told_what_to_do() -> None:
    """The refusal names each ceiling that would not stand, why, and how to go on with and without them."""
    assert refused(BOTH, host_of("", "")) == (
        "memory_limit and pids_limit cannot be held, because no control group can be made here: no hierarchy with the "
        f"memory controller is mounted. Either mount it; {WITHOUT}"
    )


def test_cpus_that_cannot_be_held_are_named() -> None:
    """Asking for CPUs alone is refused too, and the way out is the field's name, since it is no wall."""
    said = refused(Ceilings(cpus=1.5), host_of("", ""))
    assert said.startswith("resources.cpus cannot be held,")
    assert said.endswith("or go on without: leave out resources.cpus")


def test_v1_takes_our_own_group_of_each_hierarchy(tmp_path: Path) -> None:
    """The ceilings set on us hold for a sandbox as well, because its group is beneath ours."""
    memory, pids = tmp_path / "memory", tmp_path / "pids"
    (memory / "mine").mkdir(parents=True)
    pids.mkdir()
    info = v1_line(memory, "memory") + v1_line(pids, "pids") + v2_line(tmp_path / "unified")
    tree = host_of(info, "4:memory:/mine\n8:pids:/\n0::/\n", pid=PID)
    assert find_parent(BOTH, tree) == Parent(1, {"memory": memory / "mine", "pids": pids})


def test_v1_that_is_not_ours_to_write_says_how_it_can_be(tmp_path: Path) -> None:
    """An ordinary user of a v1 machine is told the commands that make a group theirs, and how to name it."""
    info = v1_line(tmp_path / "memory", "memory") + v1_line(tmp_path / "pids", "pids")
    tree = host_of(info, "4:memory:/\n8:pids:/\n", is_writable=lambda path: False)
    groups = f"{tmp_path}/memory/sandbox-runner {tmp_path}/pids/sandbox-runner"
    assert refused(BOTH, tree) == (
        "memory_limit and pids_limit cannot be held, because no control group can be made here: "
        f"{tmp_path}/memory is not writable by this process. Either as root `mkdir -p {groups}` and `chown -R USER "
        f"{groups}`, and then set SANDBOX_RUNNER_CGROUP_PARENT=sandbox-runner; {WITHOUT}"
    )


def test_v1_uses_the_group_that_is_named(tmp_path: Path) -> None:
    """SANDBOX_RUNNER_CGROUP_PARENT is one name beneath every hierarchy."""
    for name in ("memory", "pids"):
        (tmp_path / name / "given").mkdir(parents=True)
    info = v1_line(tmp_path / "memory", "memory") + v1_line(tmp_path / "pids", "pids")
    tree = host_of(info, "4:memory:/elsewhere\n8:pids:/\n", configured="given")
    assert find_parent(BOTH, tree) == Parent(1, {"memory": tmp_path / "memory/given", "pids": tmp_path / "pids/given"})


def test_v1_takes_the_folder_of_a_group_for_its_name(tmp_path: Path) -> None:
    """An absolute path, as ISORUN_CGROUP_PARENT takes it too, means that group in every hierarchy."""
    for name in ("memory", "pids"):
        (tmp_path / name / "svc/given").mkdir(parents=True)
    info = v1_line(tmp_path / "memory", "memory") + v1_line(tmp_path / "pids", "pids")
    tree = host_of(info, "4:memory:/elsewhere\n8:pids:/\n", configured=f"{tmp_path}/pids/svc/given")
    assert find_parent(BOTH, tree) == Parent(
        1, {"memory": tmp_path / "memory/svc/given", "pids": tmp_path / "pids/svc/given"}
    )


def test_v2_takes_the_folder_of_a_group_for_its_name(tmp_path: Path) -> None:
    """The same on v2, where there is one hierarchy."""
    given = v2_group(tmp_path / "svc/given")
    v2_group(tmp_path, is_root=True)
    found = [
        find_parent(BOTH, host_of(v2_line(tmp_path), "0::/\n", configured=configured, pid=PID))
        for configured in (str(given), "svc/given")
    ]
    assert found == [Parent(2, {"memory": given, "pids": given}, enable=("memory", "pids"))] * 2


@pytest.mark.parametrize(
    ("configured", "said"),
    [
        ("missing", ": {tmp_path}/memory/missing does not exist"),
        ("../outside", " is not beneath a control group mount"),
        ("/absolute", " is not beneath a control group mount"),
        ("{tmp_path}/memory/../outside", " is not beneath a control group mount"),
    ],
)
def test_a_named_group_that_does_not_exist_is_refused(tmp_path: Path, configured: str, said: str) -> None:
    """A named wall is not replaced by another one."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "memory").mkdir()
    configured = configured.format(tmp_path=tmp_path)
    tree = host_of(v1_line(tmp_path / "memory", "memory"), "4:memory:/\n", configured=configured)
    wanted = f"SANDBOX_RUNNER_CGROUP_PARENT={configured}{said.format(tmp_path=tmp_path)}. Either correct or unset it;"
    assert wanted in refused(Ceilings(memory_bytes=1 << 30), tree)


def test_v2_moves_a_lone_process_to_a_leaf(tmp_path: Path) -> None:
    """In a scope of our own we enable the controllers ourselves; v2 wants us out of the group for that."""
    own = v2_group(tmp_path / "user/mine.scope", inside=f"{PID}\n")
    v2_group(tmp_path, is_root=True)
    tree = host_of(v2_line(tmp_path), "0::/user/mine.scope\n", pid=PID)
    assert find_parent(BOTH, tree) == Parent(
        2, {"memory": own, "pids": own}, enable=("memory", "pids"), leaf=own / HOST_LEAF
    )


def test_v2_takes_the_group_above_the_leaf(tmp_path: Path) -> None:
    """The second sandbox of a process that has moved is made beside its leaf."""
    own = v2_group(tmp_path / "mine.scope", enabled="memory pids")
    v2_group(own / HOST_LEAF, inside=f"{PID}\n")
    tree = host_of(v2_line(tmp_path), f"0::/mine.scope/{HOST_LEAF}\n", pid=PID)
    assert find_parent(BOTH, tree) == Parent(2, {"memory": own, "pids": own})


def test_v2_takes_the_nearest_group_above_that_is_ours(tmp_path: Path) -> None:
    """A terminal's scope holds a shell too, so nothing can be enabled in it; the user's slice above has it enabled."""
    slice_ = v2_group(tmp_path / "user/app.slice", enabled="memory pids")
    v2_group(slice_ / "terminal.scope", inside=f"1\n{PID}\n")
    tree = host_of(v2_line(tmp_path), "0::/user/app.slice/terminal.scope\n", pid=PID)
    assert find_parent(BOTH, tree) == Parent(2, {"memory": slice_, "pids": slice_})


def test_v2_does_not_climb_over_a_group_that_is_not_ours(tmp_path: Path) -> None:
    """A writable group above one that is not ours is out of reach: the kernel would not let a process move there."""
    own = v2_group(tmp_path / "system/session.scope", inside=f"1\n{PID}\n")
    v2_group(tmp_path / "system", enabled="memory pids")
    v2_group(tmp_path, enabled="memory pids", is_root=True)
    tree = host_of(
        v2_line(tmp_path), "0::/system/session.scope\n", pid=PID, is_writable=lambda path: "system" not in path.parts
    )
    assert refused(BOTH, tree) == (
        "memory_limit and pids_limit cannot be held, because no control group can be made here: "
        f"{own} is not writable by this process. Either {DELEGATE}; {WITHOUT}"
    )


def test_v2_with_others_in_our_group_says_so(tmp_path: Path) -> None:
    """The reason is the first one met, nearest to us."""
    own = v2_group(tmp_path / "mine.scope", inside=f"1\n2\n{PID}\n")
    v2_group(tmp_path, enabled="", is_root=True)
    tree = host_of(v2_line(tmp_path), "0::/mine.scope\n", pid=PID, is_writable=lambda path: path.is_relative_to(own))
    said = refused(BOTH, tree)
    assert f"{own} holds 2 other processes, so its controllers cannot be enabled. Either {DELEGATE};" in said


def test_v2_that_is_not_given_a_controller_names_it(tmp_path: Path) -> None:
    """systemd delegates memory and pids by default, and not cpu."""
    own = v2_group(tmp_path / "mine.scope", offered="memory pids", inside=f"{PID}\n")
    tree = host_of(v2_line(tmp_path), "0::/mine.scope\n", pid=PID, is_writable=lambda path: path.is_relative_to(own))
    said = refused(Ceilings(memory_bytes=1 << 30, cpus=2), tree)
    assert f"{own} is not given the controller cpu. Either {DELEGATE};" in said
    assert said.endswith("or go on without: name memory_limit in SandboxSpec.loosen and leave out resources.cpus")


def test_v2_of_a_container_whose_group_is_not_shown_is_refused(tmp_path: Path) -> None:
    """A mount that shows another part of the tree than our own group gives no place that we could use."""
    v2_group(tmp_path, inside=f"{PID}\n")
    tree = host_of(v2_line(tmp_path, "/docker/abc"), "0::/../other\n", pid=PID)
    assert f"our own group /../other is not beneath the mounted /docker/abc. Either {DELEGATE};" in refused(BOTH, tree)


def test_the_last_mount_of_a_place_counts(tmp_path: Path) -> None:
    """A hierarchy that another mount hides is not used; a space in its path is read as the kernel writes it."""
    place = tmp_path / "with space"
    place.mkdir()
    line = v1_line(Path(str(place).replace(" ", "\\040")), "memory")
    tree = host_of(line.replace("rw,memory", "rw,cpuset") + line, "4:memory:/\n")
    assert find_parent(Ceilings(memory_bytes=1 << 30), tree) == Parent(1, {"memory": place})


@pytest.mark.parametrize(
    ("version", "written"),
    [
        (1, ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.swappiness", "pids.max",
             "cpu.cfs_period_us", "cpu.cfs_quota_us"]),
        (2, ["memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max"]),
    ],
)  # fmt: skip
def test_every_ceiling_has_its_file(version: int, written: list[str]) -> None:
    """Memory is bounded with its swap, on both versions."""
    spec = SandboxSpec(resources=ResourceSpec(cpus=0.5, memory="64m", pids_limit=7))
    files = of_spec(spec).files(version)
    assert [file for _, file, _, _ in files] == written
    texts = {file: text for _, file, text, _ in files}
    assert texts.get("cpu.max", "50000 100000") == "50000 100000"
    assert {texts[name] for name in written if name in ("memory.limit_in_bytes", "memory.max")} == {str(64 << 20)}


def test_a_group_whose_file_is_missing_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    """A ceiling that the kernel does not take is no ceiling: nothing starts, and what was made goes."""
    parent = Parent(2, {"pids": tmp_path})
    group = group_of(parent, "one")
    assert group.paths == (f"{tmp_path}/sandbox-runner-one",)
    with pytest.raises(BackendUnavailable, match=r"pids_limit cannot be held.*pids.max: No such file or directory"):
        make_group(group, parent, Ceilings(pids=5))
    assert list(tmp_path.iterdir()) == []
    remove_group(group)  # as the clean-up does, which cannot know
