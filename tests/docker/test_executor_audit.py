"""A running executor container, looked at from outside: nothing that it says of itself counts here.

The daemon, the kernel's /proc and the engine's cgroups are asked; every secret that the host
process has is looked for in all of them, and inside.
"""

import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import isorun
from isorun.core.limits import MIB
from tests.docker.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
CANARY = "hush-canary-of-the-host"
SECRETS = {
    name: f"{CANARY}-{number}"
    for number, name in enumerate(
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "POSTGRES_PASSWORD", "ISORUN_OWN_SECRET")
    )
}
#: Everything that a program can read is searched for the canary: variables, /proc, files, mounts.
SEARCH = f"""
import glob
needle, hits, seen = {CANARY[:11]!r}.encode() + {CANARY[11:]!r}.encode(), [], 0
names = [name for kind in ("environ", "cmdline", "maps") for name in glob.glob(f"/proc/*/{{kind}}")]
names.append("/proc/self/mountinfo")
for top in ("/workspace", "/tmp", "/run", "/etc", "/var", "/dev/shm", "/root", "/home"):
    for folder, _, files in os.walk(top):
        names += [os.path.join(folder, name) for name in files]
for name in names:
    try:
        with open(name, "rb") as file:
            data = file.read(1 << 20)
    except OSError:
        continue
    seen += 1
    if needle in data:
        hits.append(name)
print(json.dumps([seen, hits, sorted(os.environ)]), flush=True)
time.sleep(600)
"""


class Audited(NamedTuple):
    """One executor: its program from outside, the engine's word, what the program found, what its result will claim."""

    pid: int
    init: int
    status: dict[str, str]
    inspected: dict[str, Any]
    text: str
    found: list[Any]
    walls: dict[str, Any]


def fields(pid: int) -> dict[str, str]:
    """The lines of /proc/<pid>/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.fixture(scope="module")
def audited(docker_engine: Engine, executor_image: str, tmp_path_factory) -> Iterator[Audited]:
    """A program that has searched, and now sleeps."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        settings = isorun.Settings.load(environ={**os.environ, "PY_CODE_EXEC_IMAGE": executor_image})
        root = tmp_path_factory.mktemp("root")
        with isorun.SyncRuntime(backend="docker", settings=settings, workspace_root=root, pool_size=0) as runtime:
            run = runtime.start(SEARCH, timeout_s=500)
            line = next(event.data["text"] for event in run.events() if event.kind == "output")
            labelled = ["--filter", "label=isorun.role=executor", "--filter", f"label=isorun.lease={_lease(root)}"]
            number = docker_engine("ps", "--quiet", *labelled)
            text = docker_engine("inspect", number)
            init = int(json.loads(text)[0]["State"]["Pid"])
            pid = int(Path(f"/proc/{init}/task/{init}/children").read_text().split()[0])
            status = fields(pid)
            yield Audited(pid, init, status, json.loads(text)[0], text, json.loads(line), {})
            run.cancel()


def _lease(root: Path) -> str:
    (lease,) = root.glob(".isorun-*/containers/host_*")
    return lease.name


def test_ids_and_rights(audited: Audited) -> None:
    """uid 1001, gid 1000, no other group, and not one capability in any set, of the program and of init."""
    for pid in (audited.pid, audited.init):
        status = fields(pid)
        assert (status["Uid"].split(), status["Gid"].split()) == (["1001"] * 4, ["1000"] * 4)
        assert set(status["Groups"].split()) <= {"1000"}
        sets = [name for name in status if name.startswith("Cap") and int(status[name], 16)]
        assert (sets, status["NoNewPrivs"]) == ([], "1")


def test_system_calls_are_filtered_twice(audited: Audited) -> None:
    """The engine's profile, and our filter: the strictest answer counts."""
    assert (audited.status["Seccomp"], int(audited.status["Seccomp_filters"])) == ("2", 2)


def test_namespaces_are_its_own(audited: Audited) -> None:
    """All that an engine makes. The user namespace is the host's, which is why no capability may be left."""
    own = [
        kind
        for kind in ("pid", "mnt", "net", "ipc", "uts", "cgroup")
        if _inode(audited.pid, kind) != _inode(os.getpid(), kind)
    ]
    assert own == ["pid", "mnt", "net", "ipc", "uts", "cgroup"]


def _inode(pid: int, kind: str) -> int:
    return os.stat(f"/proc/{pid}/ns/{kind}").st_ino


def test_there_is_no_network(audited: Audited) -> None:
    """Not one interface beside the loopback, by the kernel's table of its namespace."""
    lines = Path(f"/proc/{audited.pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]
    assert audited.inspected["NetworkSettings"]["Networks"].keys() == {"none"}


def test_no_address_of_the_hosts_network_is_told(audited: Audited, docker_engine: Engine) -> None:
    """An engine copies the host's resolver into every container, also where there is no network."""
    root = Path(f"/proc/{audited.pid}/root/etc")
    assert (root / "resolv.conf").read_text().split() == ["nameserver", "192.0.2.1"]  # nobody's (RFC 5737)
    ours = {word for word in (root / "hosts").read_text().split() if word[0].isdigit()}
    assert ours == {"127.0.0.1", "127.0.1.1"}  # the second is the name that the container has
    # Control: what it copies where it is not told another one.
    plain = docker_engine("run", "--rm", "--network", "none", docker_engine.base_image, "cat", "/etc/resolv.conf")
    assert "nameserver" in plain
    assert "192.0.2.1" not in plain


def test_no_folder_of_the_host_can_be_written(audited: Audited) -> None:
    """One is mounted, of this slot alone: read-only, and empty once there is a program. The root cannot be written."""
    (mount,) = audited.inspected["Mounts"]
    assert (mount["Destination"], mount["RW"], os.listdir(mount["Source"])) == ("/run/isorun", False, [])
    lines = [line.split() for line in Path(f"/proc/{audited.pid}/mountinfo").read_text().splitlines()]
    (root,) = [line for line in lines if line[4] == "/"]
    assert "ro" in root[5].split(",")
    assert "docker.sock" not in audited.text


def test_ceilings_are_the_executors_own(audited: Audited) -> None:
    """In the cgroup of this container, read from the host: memory without swap beyond it, processes, CPU."""
    groups = dict(line.split(":", 2)[1:] for line in Path(f"/proc/{audited.pid}/cgroup").read_text().splitlines())
    limits = isorun.Limits()
    if "memory" in groups:
        memory = Path("/sys/fs/cgroup/memory" + groups["memory"])
        assert int((memory / "memory.limit_in_bytes").read_text()) == limits.memory_bytes
        pids = Path("/sys/fs/cgroup/pids" + groups["pids"])
        assert int((pids / "pids.max").read_text()) == limits.processes + 1
    host = audited.inspected["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (limits.memory_bytes, limits.memory_bytes, 10**9)
    wanted = {"core": 1, "fsize": limits.file_bytes}
    assert {limit["Name"]: limit["Hard"] for limit in host["Ulimits"]} == wanted
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "2", "max-size": "1m"}}


def test_memory_file_systems_are_sized(audited: Audited) -> None:
    """/tmp, /dev/shm and the workspace, bytes and inodes; of the workspace's root the program is not the owner."""
    root = f"/proc/{audited.pid}/root"
    for path, size in (("/tmp", 128 * MIB), ("/dev/shm", 128 * MIB), ("/workspace/out", 256 * MIB)):
        found = os.statvfs(root + path)
        assert (found.f_blocks * found.f_frsize, 0 < found.f_files <= 16384) == (size, True), path
    workspace, out = (os.stat(f"{root}/workspace{below}") for below in ("", "/out"))
    assert (workspace.st_uid, stat.S_IMODE(workspace.st_mode), workspace.st_dev) == (os.geteuid(), 0o755, out.st_dev)


def test_no_secret_of_the_host_is_anywhere(audited: Audited) -> None:
    """Not in what the program can read, its environment, the engine's word, nor the kernel's; and they are ours."""
    seen, hits, names = audited.found
    assert (hits, seen > 50) == ([], True)
    assert set(SECRETS) & set(names) == set()
    assert [name for name, value in SECRETS.items() if value in audited.text] == []
    for pid in (audited.pid, audited.init):
        for file in ("environ", "cmdline"):
            assert CANARY.encode() not in Path(f"/proc/{pid}/{file}").read_bytes()
    assert os.environ["AWS_SECRET_ACCESS_KEY"].startswith(CANARY)


def test_the_search_finds_what_is_there(docker_engine: Engine, executor_image: str, tmp_path: Path) -> None:
    """Its control: a secret that is in a file of the program's reach is found."""
    settings = isorun.Settings.load(environ={"PY_CODE_EXEC_IMAGE": executor_image, "PATH": os.environ["PATH"]})
    (tmp_path / "leak.txt").write_text(CANARY)
    with isorun.SyncRuntime(backend="docker", settings=settings, workspace_root=tmp_path / "r", pool_size=0) as runtime:
        result = runtime.execute(SEARCH.replace("time.sleep(600)", ""), inputs=[tmp_path / "leak.txt"], timeout_s=30)
    assert json.loads(result.stdout)[1] == ["/workspace/out/leak.txt", "/workspace/work/leak.txt"]  # a link to it


def test_the_line_that_operators_look_for(audited: Audited, docker_engine: Engine) -> None:
    """`docker logs … | grep UID`."""
    until = time.monotonic() + 10
    while (
        "UID=" not in (logs := docker_engine.run("logs", audited.inspected["Id"]).stderr) and time.monotonic() < until
    ):
        time.sleep(0.05)
    assert "[executor] UID=1001 GID=1000 CapEff=0 NoNewPrivs=1 Seccomp=2" in logs.splitlines()


def test_init_cannot_be_read_by_the_program(docker_engine: Engine, executor_image: str, tmp_path: Path) -> None:
    """It has the same uid, and is not dumpable: neither its memory, nor its descriptors, nor its environment."""
    settings = isorun.Settings.load(environ={"PY_CODE_EXEC_IMAGE": executor_image, "PATH": os.environ["PATH"]})
    code = """
    answers = []
    for action in (lambda: open("/proc/1/mem", "rb"), lambda: os.listdir("/proc/1/fd"),
                   lambda: open("/proc/1/fd/1", "wb"), lambda: open("/proc/1/environ").read(),
                   lambda: os.readlink("/proc/1/exe"), lambda: os.kill(1, 9)):
        try:
            answers.append(str(action()))
        except OSError as error:
            answers.append(type(error).__name__)
    time.sleep(0.2)
    print(answers)
    """
    with isorun.SyncRuntime(backend="docker", settings=settings, workspace_root=tmp_path, pool_size=0) as runtime:
        result = runtime.execute("\n".join(line[4:] for line in code.splitlines()), timeout_s=30)
    assert result.stdout.strip() == str(["PermissionError"] * 6), result.report_text
