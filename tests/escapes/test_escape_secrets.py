"""What a program could find without leaving: descriptors, environment, memory, files it was not meant to
hold."""

import os
import stat
import sys
from pathlib import Path

import pytest

from isorun import Limits, SyncRuntime
from isorun.backends.namespace.backend import NamespaceBackend, Options
from tests.escapes.probing import inside, outside

pytestmark = pytest.mark.usefixtures("unharmed")

_CANARY = "canary-" + "5ecb2f"  # in two parts: a core of this file's text must not count as a find

#: Looks for a text, which it never holds in one piece itself, in all memory, the environment and every file.
SEARCH = """
def needle():
    return bytes(reversed(BACKWARDS))

def in_memory():
    found = []
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", buffering=0) as memory:
        for line in maps.read().splitlines():
            span, mode, *rest = line.split()
            name = rest[-1] if len(rest) > 3 else "anonymous"
            if "r" not in mode or name in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):
                continue
            start, end = (int(n, 16) for n in span.split("-"))
            if any(contains(memory, at, min(1 << 20, end - at)) for at in range(start, end, 1 << 20)):
                found.append(name)
    return found

def contains(memory, at, size):
    try:
        memory.seek(at)
        data = memory.read(size + 64)
    except OSError:
        return False
    most, last = len(BACKWARDS) - 1, BACKWARDS[:1]
    index = data.rfind(BACKWARDS[:0:-1])  # all of the text but its last letter ...
    while index >= 0:
        if data[index + most:index + most + 1] == last:  # ... and the letter behind it
            return True
        index = data.rfind(BACKWARDS[:0:-1], 0, index)
    return False

def in_files(roots):
    found = []
    for root in roots:
        for at, _, names in os.walk(root):
            for name in names:
                path = os.path.join(at, name)
                if not os.path.isfile(path) or os.path.getsize(path) > 1 << 20:
                    continue
                try:
                    with open(path, "rb") as file:
                        if needle() in file.read():
                            found.append(path)
                except OSError:
                    pass
    return found
"""


def _search(text: str) -> str:
    return f"BACKWARDS = {text[::-1].encode()!r}\n" + SEARCH


@pytest.fixture
def beside_a_secret(ceilings, monkeypatch, tmp_path) -> SyncRuntime:
    """A runtime that was started by a process with a secret in its environment, memory and files."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", _CANARY)
    (tmp_path / "credentials").write_text(_CANARY)
    options = Options(use_cgroup=ceilings == "cgroup", preloads=("json",))
    with SyncRuntime(
        backend=NamespaceBackend(options), limits=Limits(), pool_size=1, workspace_root=tmp_path / "runs"
    ) as runtime:
        yield runtime


@pytest.mark.embedded
def test_no_secret_of_the_host_is_in_memory(beside_a_secret) -> None:
    """A canary in the environment of the process that started the zygote is nowhere in the program's
    memory."""
    code = _search(_CANARY) + "answer = in_memory()\n"
    assert inside(beside_a_secret, code) == []
    # The same search finds it where it is: given as a file, read, and kept by the program.
    given = code.replace("answer", "kept = sys.stdin.read()\nanswer", 1)
    assert inside(beside_a_secret, given, stdin=_CANARY) != []


@pytest.mark.embedded
def test_no_secret_of_the_host_is_in_the_environment(beside_a_secret) -> None:
    """Neither os.environ nor the environment block the kernel keeps holds it; outside both do."""
    code = (
        _search(_CANARY)
        + """
with open("/proc/self/environ", "rb") as file:
    block = file.read()
answer = ["AWS_SECRET_ACCESS_KEY" in os.environ, needle() in block]
"""
    )
    assert inside(beside_a_secret, code) == [False, False]
    assert outside(code) == [True, True]


@pytest.mark.embedded
def test_no_secret_of_the_host_is_in_a_file(beside_a_secret, tmp_path) -> None:
    """No file that a program can open below the writable and synthetic places holds it; nor is the host's
    there."""
    roots = "in_files(['/etc', '/tmp', '/run', '/var', '/workspace', '/dev'])"
    code = _search(_CANARY) + f"answer = [{roots}, reading({str(tmp_path / 'credentials')!r})]\n"
    assert inside(beside_a_secret, code) == [[], "ENOENT"]
    planted = "open('/tmp/planted', 'wb').write(needle())\nanswer"
    assert inside(beside_a_secret, code.replace("answer", planted, 1))[0] == ["/tmp/planted"]


def test_an_earlier_run_leaves_nothing_in_memory(sealed) -> None:
    """What one run was given as code, argument and stdin is not in the memory of the next. No control: it was
    never in the zygote, and no option puts it there; the search itself is shown to find in the test above."""
    secret = "earlier-" + "9d1c40"
    kept = f"print({secret!r}, len(sys.argv), sys.stdin.read())"
    first = sealed.execute("import sys\n" + kept, argv=[secret], stdin=secret)
    assert first.stdout == f"{secret} 2 {secret}\n"
    assert inside(sealed, _search(secret) + "answer = in_memory()\n") == []


DESCRIPTORS = """
answer = {}
for name in sorted(os.listdir("/proc/self/fd"), key=int):
    try:
        answer[name] = os.readlink("/proc/self/fd/" + name).split(":")[0]
    except OSError:
        pass
"""


def test_the_program_holds_five_descriptors_of_its_own(sealed, without) -> None:
    """stdin, two pipes, the tool stream and its own trace file; without the wall one of the host's is left
    open."""
    own = ["/dev/null", "/workspace/work/.isorun-last-trace", "pipe", "pipe", "socket"]
    held = inside(sealed, DESCRIPTORS)
    assert [held[n] for n in "0123"] == ["/dev/null", "pipe", "pipe", "socket"]
    assert sorted(held.values()) == own
    left_open = inside(without("descriptors"), DESCRIPTORS)
    assert (left_open["9"], sorted(left_open.values())) == ("/dev/null", ["/dev/null", *own])


def test_the_control_socket_is_closed_before_the_program(sealed) -> None:
    """The tool stream is the only socket. No control: the loader always closes it."""
    code = """
import stat
kinds = {}
for number in range(256):
    try:
        kinds[number] = stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:
        pass
answer = [number for number, is_socket in kinds.items() if is_socket]
"""
    assert inside(sealed, code) == [3]


def test_a_child_has_no_tool_stream(sealed) -> None:
    """An executed child inherits 0, 1 and 2 only; the control hands it descriptor 3 on purpose."""
    code = """
import subprocess
def inherits(**options):
    return subprocess.run(["/bin/sh", "-c", "test -S /proc/self/fd/3"], **options).returncode == 0
answer = [inherits(close_fds=False), inherits(pass_fds=[3])]
"""
    assert inside(sealed, code) == [False, True]


PEER = """
import socket, struct
def peer_of(number):
    with socket.socket(fileno=os.dup(number)) as stream:
        pid = struct.unpack("3i", stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        try:
            return pid, struct.unpack("i", stream.getsockopt(socket.SOL_SOCKET, 77, 4))[0]  # SO_PEERPIDFD
        except OSError:
            return pid, None  # Linux 6.4 and older have none
"""
OWN_PEER = f"""{PEER}
pid, peer = peer_of(3)
answer = [pid == os.getpid(), peer is None or f"Pid:\\t{{pid}}\\n" in open(f"/proc/self/fdinfo/{{peer}}").read()]
"""
#: A supervisor's death has the zygote make the stream that follows.
ITS_PEER = f"""{PEER}
def called(tool, **params):
    try:
        return agent_io_tools.tool_call_sync(tool_id=tool, params=params)
    except Exception as error:
        return type(error).__name__
called("bad.ends", how="SIGKILL")
while (added := called("good.add", a=40, b=2)) != 42:
    pass
pid, peer = peer_of(3)
answer = {{"added": added, "pid": pid, "signals": [], "namespaces": []}}
if peer is not None:
    answer["signals"] = sorted({{said(call("pidfd_send_signal", peer, n, 0, 0)) for n in (0, 9, 15, 19)}})
    answer["namespaces"] = sorted({{said(call("ioctl", peer, 0xFF01 + n, 0)) for n in range(10)}})
    answer["taken"] = said(call("pidfd_getfd", peer, 0, 0))
    answer["joined"] = said(call("setns", peer, 0x40000000))
"""


@pytest.mark.embedded
def test_the_tool_stream_leads_to_nobody_but_the_program(sealed) -> None:
    """The kernel names who made it, by number and by SO_PEERPIDFD: the program's own process."""
    assert inside(sealed, OWN_PEER) == [True, True]


@pytest.mark.embedded
def test_the_stream_after_a_dead_supervisor_does_not_lead_to_the_zygote(doomed) -> None:
    """SO_PEERPIDFD gives a handle of the zygote, which made that stream, and nothing can be done with it."""
    found = inside(doomed, ITS_PEER)
    assert (found["added"], found["pid"]) == (42, 0)
    if not found["signals"]:
        return  # a kernel without SO_PEERPIDFD: there is nothing to hold
    assert found["signals"] == ["EINVAL"]  # not in a pid namespace below ours
    assert found["namespaces"] in (["EACCES"], ["ENOTTY"])  # ENOTTY: before Linux 6.11
    assert (found["taken"], found["joined"]) == ("EPERM", "EPERM")


@pytest.mark.embedded
def test_the_peer_handle_is_harmless_without_seccomp_too(exposed) -> None:
    """pidfd_getfd and setns on the zygote's handle fail by the kernel's own rules where seccomp is off."""
    found = inside(exposed, ITS_PEER)
    assert (found["added"], found["pid"]) == (42, 0)
    if found["signals"]:
        assert (found["signals"], found["taken"], found["joined"]) == (["EINVAL"], "EPERM", "EPERM")


@pytest.mark.embedded
def test_a_handle_of_an_own_child_works() -> None:
    """The control of the tests above: towards a process one may signal, the same calls succeed."""
    code = """
pid = os.fork()
if pid == 0:
    import time
    time.sleep(30)
peer = call("pidfd_open", pid, 0)
answer = [said(call("pidfd_send_signal", peer, 0, 0, 0)), said(call("pidfd_getfd", peer, 0, 0))]
os.kill(pid, 9)
"""
    assert outside(code) == ["ok", "ok"]


@pytest.mark.embedded
def test_no_file_below_the_workspace_is_inherited(sealed) -> None:
    """/workspace, /tmp and /dev/shm hold what this run was given and nothing else. No control: they are new
    tmpfs."""
    # What lies below /tmp on the host and is shown for its own sake: the interpreter, its packages, this checkout.
    shown = [str(Path(path).resolve()) for path in (sys.prefix, sys.base_prefix, Path(__file__).parents[2])]
    code = f"""
shown = {shown!r}
answer = {{root: sorted(os.path.join(at, name) for at, _, names in os.walk(root) for name in names
                       if not any((at + "/").startswith(path + "/") for path in shown))
          for root in ("/workspace", "/tmp", "/dev/shm", "/run", "/var")}}
"""
    found = inside(sealed, code)
    beside = [".isorun-last-trace", "main.py", "raw_calls.py", "user_code.py"]  # the input is a link to that in out/
    given = ["/workspace/out/raw_calls.py", *(f"/workspace/work/{name}" for name in beside)]
    nothing = {root: [] for root in ("/tmp", "/dev/shm", "/run", "/var")}
    assert found == {"/workspace": given, **nothing}


def test_the_runs_own_folder_is_closed_to_others(sealed) -> None:
    """On the host a run's files belong to the user who ran isorun: nobody else may enter its folder."""
    result = sealed.execute("open('secret.txt', 'w').write('x')")
    folder = result.out_dir.parent
    assert stat.S_IMODE(os.stat(folder).st_mode) & 0o077 == 0
