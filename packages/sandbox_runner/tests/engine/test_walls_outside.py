"""Each wall is seen from the host, in the kernel's own files; an engine that leaves one out is refused."""

import json
import os
import re
from pathlib import Path

import pytest

from sandbox_runner import MountSpec, ResourceSpec, SandboxStartFailed, SandboxTimeout
from sandbox_runner.spec import WALLS

CEILINGS = ResourceSpec(memory="123m", pids_limit=77, cpus=0.5)


@pytest.fixture
def seen(start, docker_cli, tmp_path) -> Path:
    """/proc of a container's first process, on the host."""
    (tmp_path / "readable").mkdir()
    sandbox = start(resources=CEILINGS, extra_mounts=(MountSpec(tmp_path / "readable", "/mnt/ro", read_only=True),))
    found = Path("/proc") / docker_cli("inspect", "--format", "{{.State.Pid}}", sandbox.container_name)
    if not (found / "status").exists():
        pytest.skip("the engine runs in another pid namespace than the tests")
    return found


def status(process: Path) -> dict[str, str]:
    """The lines of its `status`."""
    lines = (process / "status").read_text().splitlines()
    return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in lines)}


def children(process: Path) -> list[Path]:
    """The processes that it has started."""
    numbers = (process / "task" / process.name / "children").read_text().split()
    return [Path("/proc") / number for number in numbers]


def test_the_kernel_holds_each_process_of_it(seen, tmp_path) -> None:
    """No capability, no way to one, a filter of system calls, the owner's uid, so many files."""
    owner = (tmp_path / "workspace").stat()
    processes = [seen, *children(seen)]
    assert len(processes) == 2, "an init, and what waits"
    for process in processes:
        found = status(process)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(found[name], 16) == 0, name
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
        assert found["Uid"].split() == [str(owner.st_uid)] * 4
        assert found["Gid"].split() == [str(owner.st_gid)] * 4
        assert set(found["Groups"].split()) <= {str(owner.st_gid)}
        limits = (process / "limits").read_text()
        assert re.search(r"Max open files +4096 +4096 ", limits)


def test_a_command_is_held_as_the_container_is(start, docker_cli, tmp_path) -> None:
    """Also as user 0, seen while it runs."""
    sandbox = start()
    first = docker_cli("inspect", "--format", "{{.State.Pid}}", sandbox.container_name)
    found: list[dict[str, str]] = []

    def look(stream: str, data: bytes) -> None:
        space = os.readlink(f"/proc/{first}/ns/pid")
        for path in Path("/proc").iterdir():
            try:
                if path.name.isdigit() and os.readlink(path / "ns" / "pid") == space:
                    found.append(status(path))
            except OSError:
                continue

    for user in (None, "0"):
        assert sandbox.exec(["sh", "-c", "echo; sleep 1"], user=user, on_output=look).ok
    assert {"sh", "sleep", "docker-init"} <= {one["Name"] for one in found}
    for one in found:
        assert {int(one[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}, one
        assert (one["NoNewPrivs"], one["Seccomp"]) == ("1", "2"), one


def test_the_root_is_read_only_and_only_what_was_named_is_mounted(seen, tmp_path) -> None:
    """From the host's folders: two to write, one to read; what is writable beside them is in memory."""
    lines = [line.split(" - ") for line in (seen / "mountinfo").read_text().splitlines()]
    mounts = {front.split()[4]: (set(front.split()[5].split(",")), back.split()) for front, back in lines}
    assert "ro" in mounts["/"][0]
    assert "rw" in mounts["/workspace"][0]
    assert "rw" in mounts["/artifacts"][0]
    assert "ro" in mounts["/mnt/ro"][0]
    for place in ("/tmp", "/run", "/var/tmp", "/cache"):
        options, kind = mounts[place]
        assert kind[0] == "tmpfs", place
        assert {"nosuid", "nodev"} <= options, place
    writable = {
        place for place, (options, kind) in mounts.items() if "rw" in options and kind[0] not in ("proc", "sysfs")
    }
    engines = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
    ours = {"/workspace", "/artifacts", "/tmp", "/run", "/var/tmp", "/cache"}
    rest = {place for place in writable - ours - engines if not place.startswith(("/dev", "/proc", "/sys"))}
    assert rest == set()


def test_its_network_is_empty(seen) -> None:
    """A name space of its own with the loopback alone, seen from here."""
    assert os.readlink(seen / "ns" / "net") != os.readlink("/proc/self/ns/net")
    interfaces = (seen / "net" / "dev").read_text().splitlines()[2:]
    assert {line.split(":")[0].strip() for line in interfaces} == {"lo"}
    for name in ("pid", "mnt", "ipc", "uts"):
        assert os.readlink(seen / "ns" / name) != os.readlink(f"/proc/self/ns/{name}"), name


def test_its_environment_has_nothing_of_ours(seen) -> None:
    """Fixed names only."""
    names = {line.split(b"=")[0] for line in (seen / "environ").read_bytes().split(b"\0") if line}
    assert names <= {b"PATH", b"HOSTNAME", b"HOME", b"XDG_CACHE_HOME"}


def control(process: Path, *names: str) -> str:
    """What one of the files *names* of its control group says: of version 1 or 2."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    for line in (process / "cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        for mount in mounts:
            is_here = mount[2] == "cgroup2" if not controllers else mount[2] == "cgroup" and controllers in mount[3]
            for name in names if is_here else ():
                file = Path(mount[1]) / group.lstrip("/") / name
                if file.exists():
                    return file.read_text().strip()
    pytest.skip("the control groups of the engine are not mounted where the tests run")


def test_the_ceilings_are_the_kernels(seen) -> None:
    """Memory, swap, processes and CPUs are in its control group."""
    memory = 123 << 20
    assert control(seen, "memory.limit_in_bytes", "memory.max") == str(memory)
    assert control(seen, "memory.memsw.limit_in_bytes", "memory.swap.max") in (str(memory), "0")
    assert control(seen, "pids.max") == "77"
    assert control(seen, "cpu.cfs_quota_us", "cpu.max") in ("50000", "50000 100000")


#: What an engine that ignores an option does, by wall: the option is dropped on the way, with its value.
DROPPED = {
    "capabilities": ("--cap-drop", True),
    "no_new_privileges": ("no-new-privileges", False),
    "memory_limit": ("--memory-swap", True),
    "nofile_limit": ("--ulimit", True),
    "pids_limit": ("--pids-limit", True),
    "read_only_root": ("--read-only", False),
    "seccomp": ("seccomp=", False),
    "user": ("--user", True),
}
_DROP = """
for number, part in enumerate(argv):
    if argv[0] == "run" and part.startswith({option!r}) and (part == {option!r} or {option!r}.endswith("=")):
        first = number - 1 if argv[number - 1] == "--security-opt" else number
        del argv[first : number + {more}]
        break
"""


@pytest.mark.parametrize("wall", DROPPED)
def test_an_engine_that_leaves_a_wall_out_is_refused(start, wrapped_docker, nothing_left, wall) -> None:
    """By the name of the wall, with nothing left; and not if the spec loosens it."""
    option, has_value = DROPPED[wall]
    wrapped_docker(_DROP.format(option=option, more=2 if has_value else 1))
    with pytest.raises(SandboxStartFailed) as raised:
        start()
    said = "the engine cannot make them, or ignored them. To go on without one, name it in SandboxSpec.loosen"
    assert str(raised.value) == f"these walls do not stand: {wall}; {said}"
    nothing_left()


def test_an_engine_that_leaves_the_network_on_is_refused(start, wrapped_docker, nothing_left) -> None:
    """As for a wall."""
    wrapped_docker(
        'argv = ["bridge" if (argv[n - 1], part) == ("--network", "none") else part for n, part in enumerate(argv)]'
    )
    with pytest.raises(SandboxStartFailed, match=r"^these walls do not stand: network; "):
        start()
    nothing_left()


def test_an_engine_that_leaves_the_init_out_is_refused(start, wrapped_docker, nothing_left) -> None:
    """It is waited for, as it may be slow."""
    wrapped_docker('argv = [part for part in argv if part != "--init"]')
    with pytest.raises(SandboxTimeout, match=r"did not answer within 10 s"):
        start(docker_timeout_seconds=10)
    nothing_left()


@pytest.mark.parametrize("loosen", [*((wall,) for wall in WALLS), WALLS], ids="+".join)
def test_a_wall_can_be_loosened_by_name(start, tmp_path, loosen) -> None:
    """The sandbox starts and runs commands; the record says which walls do not stand; all that a command left ends."""
    sandbox = start(loosen=loosen)
    assert sandbox.exec(["sh", "-c", "setsid sleep 3600 & echo x > /workspace/x"]).ok
    assert sandbox.exec(["true"]).ok
    shown = json.loads((tmp_path / "artifacts" / "sandbox.json").read_text())["walls"]
    assert {wall for wall, stands in shown.items() if not stands} == set(loosen)
    lines = sandbox.exec(["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).stdout
    assert b"sleep 3600" not in lines
