"""Making or entering namespaces, which would give a program capabilities to attack the kernel with."""

import pytest

from tests.escapes.probing import inside, outside

pytestmark = pytest.mark.usefixtures("unharmed")

KINDS = {
    "mnt": 0x0002_0000,
    "cgroup": 0x0200_0000,
    "uts": 0x0400_0000,
    "ipc": 0x0800_0000,
    "user": 0x1000_0000,
    "pid": 0x2000_0000,
    "net": 0x4000_0000,
    "time": 0x80,
}
#: Every namespace is made in a child, so that the program can still answer.
MAKE = f"""
KINDS = {KINDS}
def in_child(action):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, said(action()).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    text = os.read(reader, 64).decode()
    os.close(reader)
    return text

def cloned(flags):
    pid = call("clone", flags | 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    if pid > 0:
        os.waitpid(pid, 0)
    return pid

def cloned3(flags):
    import struct
    pid = call("clone3", struct.pack("8Q", flags, 0, 0, 0, 17, 0, 0, 0), 64)
    if pid == 0:
        os._exit(0)
    if pid > 0:
        os.waitpid(pid, 0)
    return pid
"""


def test_unshare_makes_no_namespace(sealed, without) -> None:
    """unshare is refused for every kind; without the filter the slot's ceiling of no user namespace still
    holds, and without both a user namespace is to be had, and with it all others."""
    code = MAKE + "answer = {kind: in_child(lambda: call('unshare', flag)) for kind, flag in KINDS.items()}"
    assert inside(sealed, code) == dict.fromkeys(KINDS, "EPERM")
    assert inside(without("seccomp"), code) == {**dict.fromkeys(KINDS, "EPERM"), "user": "ENOSPC"}
    assert inside(without("seccomp", "rlimits"), code) == {**dict.fromkeys(KINDS, "EPERM"), "user": "ok"}
    assert inside(without("seccomp", "rlimits", "capabilities"), code) == dict.fromkeys(KINDS, "ok")


def test_clone_makes_no_namespace(sealed, without) -> None:
    """clone is refused for each flag alone and for all together, and still makes an ordinary child."""
    kinds = {kind: flag for kind, flag in KINDS.items() if kind != "time"}  # clone(2) has no flag for it
    code = MAKE.replace(f"KINDS = {KINDS}", f"KINDS = {kinds | {'all': 0x7E02_0000}}")
    code += "answer = {kind: said(cloned(flag)) for kind, flag in KINDS.items()}\n"
    code += "answer['none'] = said(cloned(0))"
    wanted = dict.fromkeys([*kinds, "all"], "EPERM")
    assert inside(sealed, code) == {**wanted, "none": "ok"}
    held = inside(without("seccomp"), code)
    assert (held["user"], held["all"], held["none"]) == ("ENOSPC", "ENOSPC", "ok")
    bare = inside(without("seccomp", "rlimits"), code)
    assert (bare["user"], bare["all"], bare["none"]) == ("ok", "ok", "ok")


def test_clone3_is_not_there(sealed, without) -> None:
    """Its flags are behind a pointer that a filter cannot follow, so it is ENOSYS: libc falls back to
    clone."""
    code = MAKE + "answer = [said(cloned3(0)), said(cloned3(0x1000_0000)), said(cloned3(0x7E02_0000))]"
    assert inside(sealed, code) == ["ENOSYS"] * 3
    assert inside(without("seccomp"), code) == ["ok", "ENOSPC", "ENOSPC"]
    assert inside(without("seccomp", "rlimits"), code) == ["ok"] * 3


SETNS = """
flags = {"mnt": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "net": 0x40000000}
def joined(kind):
    descriptor = os.open(f"/proc/self/ns/{kind}", os.O_RDONLY)
    return in_child(lambda: call("setns", descriptor, flags[kind]))
answer = [joined(kind) for kind in flags]
answer.append(in_child(lambda: call("setns", call("pidfd_open", 1, 0), 0x20000 | 0x40000000)))
"""


@pytest.mark.linux
def test_setns_enters_nothing(sealed, without) -> None:
    """setns is refused by namespace file and by pidfd; with capabilities and no filter it may enter its own
    again."""
    assert inside(sealed, MAKE + SETNS) == ["EPERM"] * 6
    assert inside(without("seccomp"), MAKE + SETNS) == ["EPERM"] * 6
    assert inside(without("seccomp", "capabilities", "landlock"), MAKE + SETNS)[:5] == ["ok"] * 5


@pytest.mark.embedded
def test_no_namespace_file_of_another_process_is_there(sealed) -> None:
    """/proc/1/ns and the host's are not there to be opened, so even a working setns would lead nowhere."""
    code = "answer = [reading(f'/proc/{pid}/ns/net') for pid in (1, 3, 100)]"
    assert inside(sealed, code) == ["ENOENT"] * 3
    pid = "answer = attempt(lambda: os.close(os.open(f'/proc/{os.getppid()}/ns/net', os.O_RDONLY)))"
    assert outside(pid) == "ok"


def test_a_binary_asks_in_vain(sealed) -> None:
    """unshare(1) and a child's own start meet the same filter: it is inherited through fork and execve."""
    code = """
import subprocess
done = subprocess.run(["/usr/bin/unshare", "--user", "--map-root-user", "id"], capture_output=True, text=True)
answer = [done.returncode, done.stdout]
"""
    assert inside(sealed, code) == [1, ""]


def test_identities_cannot_be_mapped_again(sealed, without, kernel) -> None:
    """uid_map of the slot is written once, before the program: a second map is refused with or without
    Landlock."""
    code = """
def write(name, text):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
answer = [attempt(lambda: write("uid_map", "0 1001 1")), attempt(lambda: write("gid_map", "0 1000 1")),
          attempt(lambda: write("setgroups", "allow")), os.getuid(), os.getgid()]
"""
    refused = {"linux": ["EACCES"] * 3, "gvisor": ["EPERM", "EPERM", "EACCES"]}[kernel]
    assert inside(sealed, code) == [*refused, 1001, 1000]
    assert inside(without("landlock"), code) == ["EPERM", "EPERM", "EACCES", 1001, 1000]


@pytest.mark.embedded
def test_no_other_identity_can_be_taken(sealed, without) -> None:
    """setuid(0) is EINVAL: only our own id is mapped. With capabilities the answer is the same."""
    code = """
answer = [attempt(lambda: os.setuid(0)), attempt(lambda: os.setgid(0)), attempt(lambda: os.setreuid(0, 0)),
          said(call("setresuid", 0, 0, 0)), said(call("setgroups", 0, 0)),
          attempt(lambda: os.setuid(os.getuid()))]
"""
    assert inside(sealed, code) == ["EINVAL", "EINVAL", "EINVAL", "EPERM", "EPERM", "ok"]
    bare = inside(without("seccomp", "capabilities"), code)
    assert bare == ["EINVAL", "EINVAL", "EINVAL", "EINVAL", "EPERM", "ok"]
