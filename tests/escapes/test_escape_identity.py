"""What a program can learn of the host and of other runs by looking around."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from isorun import SyncRuntime
from isorun.backends.executor_ids import UIDS
from isorun.settings import Settings
from tests.escapes.attacking import processes_inside
from tests.escapes.probing import inside, outside

pytestmark = pytest.mark.usefixtures("unharmed")


def test_the_hostname_is_not_the_hosts(sealed) -> None:
    """uname, gethostname and /etc/hostname say `isorun`."""
    code = """
import socket
answer = [os.uname().nodename, socket.gethostname(), open("/etc/hostname").read()]
"""
    assert inside(sealed, code) == ["isorun", "isorun", "isorun\n"]
    assert outside("answer = os.uname().nodename") == socket.gethostname()


@pytest.mark.linux
def test_the_hosts_names_are_another_namespaces(sealed, without) -> None:
    """Each run has a uts namespace of its own; without it two runs share one."""
    own = "answer = os.stat('/proc/self/ns/uts').st_ino"
    shared = without("uts", "hostname")
    assert inside(shared, own) == inside(shared, own)
    other = sealed.start("import os, time; print(os.stat('/proc/self/ns/uts').st_ino, flush=True); time.sleep(60)")
    printed = next(event for event in other.events() if event.kind == "output").data["text"]
    assert inside(sealed, own) != int(printed)
    other.cancel()


def test_the_name_cannot_be_changed(sealed, without) -> None:
    """sethostname and setdomainname are refused; with capabilities and no filter they change the slot's own
    name."""
    code = """
answer = [said(call("sethostname", b"evil", 4)), said(call("setdomainname", b"evil", 4)), os.uname().nodename]
"""
    assert inside(sealed, code) == ["EPERM", "EPERM", "isorun"]
    assert inside(without("seccomp"), code) == ["EPERM", "EPERM", "isorun"]  # no capability either
    assert inside(without("seccomp", "capabilities"), code) == ["ok", "ok", "evil"]
    assert socket.gethostname() != "evil"
    assert inside(without("seccomp", "capabilities"), "answer = os.uname().nodename") == "isorun"


@pytest.mark.embedded
def test_mountinfo_shows_the_interpreter_and_no_more(sealed) -> None:
    """The paths it shows are the listed system's and the interpreter's; the workspace root and other slots
    are not."""
    code = """
with open("/proc/self/mountinfo") as file:
    lines = [line.split() for line in file]
answer = [[line[3], line[4], line[5].split(",")] for line in lines]
"""
    result = sealed.execute("print(1)")
    mounts = inside(sealed, code)
    text = " ".join(source + " " + target for source, target, _ in mounts)
    for hidden in (
        str(result.out_dir),
        str(result.out_dir.parents[1]),
        result.exec_id,
        str(Path.home() / ".ssh"),
    ):
        assert hidden not in text
    # The control: on the host mountinfo has what is hidden above, the host's own root.
    assert ["/", "/"] in [line[:2] for line in outside(code)]
    # The jail's mounts are still there beneath the slot's own; all that is writable is the slot's.
    writable = {target for _, target, options in mounts if "rw" in options}
    assert writable <= {"/proc", "/workspace/work", "/workspace/out", "/tmp", "/dev/shm"}


def test_other_slots_have_no_path(sealed) -> None:
    """While another run stands, its files are under no path of this one."""
    other = sealed.start("import time; open('mine-alone', 'w').write('x'); print('up', flush=True); time.sleep(60)")
    next(event for event in other.events() if event.kind == "output")
    code = """
answer = [os.path.join(at, name) for at, _, names in os.walk("/") for name in names if name == "mine-alone"]
"""
    assert inside(sealed, code) == []
    assert inside(sealed, "open('mine-alone', 'w').close()" + code) == ["/workspace/out/mine-alone"]  # the control
    result = other.cancel()
    assert [artifact.path for artifact in result.artifacts] == ["mine-alone"]


@pytest.mark.embedded
def test_the_host_root_is_not_there(sealed, tmp_path) -> None:
    """Homes, the workspace root, /proc/sys, /sys, /boot and this test's own files have no path inside."""
    (tmp_path / "file").write_text("host")
    places = [
        "/root",
        "/home",
        "/boot",
        "/sys",
        "/opt",
        "/srv",
        "/etc/shadow",
        "/etc/ssh",
        "/etc/issue",
    ]
    places += [str(tmp_path / "file"), "/etc/resolv.conf", "/run/user", "/var/log", "/var/lib"]
    code = f"answer = {{path: reading(path) for path in {places!r}}}"
    answers = inside(sealed, code)
    # An interpreter that lies below one of them brings the empty folders above itself along.
    shown = [Path(os.path.realpath(path)) for path in (sys.prefix, sys.base_prefix)]
    parents = {str(parent) for path in shown for parent in path.parents}
    assert {path: said for path, said in answers.items() if path not in parents} == {
        path: "ENOENT" for path in places if path not in parents
    }
    for path in parents & set(places):
        names = inside(sealed, f"answer = os.listdir({path!r})")
        assert set(names) <= {part.relative_to(path).parts[0] for part in shown if part.is_relative_to(path)}
    assert inside(sealed, "answer = os.listdir('/mnt')") == ["data"]  # a link of ours to /workspace/out
    assert outside(code)[str(tmp_path / "file")] == "ok"


DOCKER = """
import socket
def connect(path):
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(path)
answer = {path: attempt(lambda: connect(path)) for path in PATHS}
"""


def test_no_socket_of_the_host_can_be_connected(sealed, tmp_path) -> None:
    """docker.sock, containerd's, D-Bus's, and one this test listens on are not there to be connected to."""
    ours = f"{os.path.relpath(tmp_path)}/s" if len(str(tmp_path)) > 90 else f"{tmp_path}/s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(ours)
        listener.listen()
        paths = [
            "/var/run/docker.sock",
            "/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/run/podman/podman.sock",
            "/run/dbus/system_bus_socket",
            "/run/systemd/private",
            str(Path(ours).resolve()),
        ]
        code = DOCKER.replace("PATHS", repr(paths))
        assert inside(sealed, code) == dict.fromkeys(paths, "ENOENT")
        assert outside(code)[paths[-1]] == "ok"


@pytest.mark.embedded
def test_the_cgroup_is_not_to_be_reached(sealed, without) -> None:
    """No cgroup filesystem is mounted; mounting one needs four walls to be down, and then shows the slot's
    own."""
    code = """
os.makedirs("/tmp/cg", exist_ok=True)
answer = [reading("/sys/fs/cgroup/cgroup.procs"), writing("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
          said(call("mount", b"cgroup2", b"/tmp/cg", b"cgroup2", 0, 0)),
          said(call("mount", b"x", b"/tmp/cg", b"cgroup", 0, b"memory"))]
"""
    assert inside(sealed, code) == ["ENOENT", "ENOENT", "EPERM", "EPERM"]
    bare = without("seccomp", "landlock", "capabilities")
    if "ok" in inside(bare, code)[2:]:  # whether a hierarchy may be mounted in a user namespace is the host's to say
        assert inside(bare, code + "answer = writing('/tmp/cg/../../cgroup.procs')\n") == "ENOENT"


HOLDS = "import time; open('kept', 'w').write('42'); print('on', flush=True); time.sleep(60)"


def entered_by(uid: int, **variables: str) -> list[str]:
    """What the account *uid* of the host reads in a run of root, by entering the namespaces of its processes."""
    settings = Settings.load(environ=variables)
    with SyncRuntime(backend="namespace", settings=settings, pool_size=0) as runtime:
        run = runtime.start(HOLDS)
        next(event for event in run.events() if event.kind == "output")
        read = []
        for pid in processes_inside():
            argv = ["nsenter", "-t", str(pid), "-U", "--preserve-credentials", "-m", "cat", "/workspace/out/kept"]
            who = {"user": uid, "group": 1000, "extra_groups": []}
            read.append(subprocess.run(argv, stdout=-1, stderr=-1, text=True, **who).stdout)
        assert run.cancel().status == "cancelled"
    return read


@pytest.mark.root
@pytest.mark.embedded
def test_no_account_of_the_host_enters_a_run() -> None:
    """The second account of most machines is 1001, as programs are inside; on the host they are nobody's."""
    assert set(entered_by(1001)) == {""}
    # Control: the account whose id was named, and the one that nobody has, can.
    assert "42" in entered_by(1001, EXECUTOR_UID="1001", EXECUTOR_GID="1000")
    assert "42" in entered_by(UIDS[0])
