"""Files through which the kernel itself is configured, read or driven, and binaries that lend a privilege."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.escapes.probing import inside, outside

pytestmark = pytest.mark.usefixtures("unharmed")

PROC = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sys/user/max_user_namespaces",
    "/proc/sysrq-trigger",
    "/proc/kcore",
    "/proc/kmsg",
    "/proc/kallsyms",
    "/proc/keys",
    "/proc/key-users",
    "/proc/locks",
    "/proc/modules",
    "/proc/mounts",
    "/proc/cmdline",
    "/proc/net/tcp",
    "/proc/bus",
    "/proc/irq",
    "/proc/meminfo",
]
DEVICES = [
    "/dev/kmsg",
    "/dev/kvm",
    "/dev/vsock",
    "/dev/vhost-vsock",
    "/dev/mem",
    "/dev/kmem",
    "/dev/port",
    "/dev/fuse",
    "/dev/net/tun",
    "/dev/loop-control",
    "/dev/mapper/control",
    "/dev/console",
    "/dev/tty",
    "/dev/tty0",
    "/dev/ptmx",
    "/dev/pts/0",
    "/dev/hwrng",
    "/dev/vda",
    "/dev/sda",
    "/dev/userfaultfd",
    "/dev/dri",
]
BOTH = "answer = {path: [reading(path), writing(path)] for path in PATHS}"


@pytest.mark.embedded
def test_the_kernels_settings_are_not_in_proc(sealed, without) -> None:
    """core_pattern, sysrq and all else that is not a process is hidden (subset=pid); else it is read-only
    by uid."""
    code = BOTH.replace("PATHS", repr(PROC))
    hidden = {path: ["ENOENT", "ENOENT"] for path in PROC if path not in ("/proc/mounts", "/proc/net/tcp")}
    seen = inside(sealed, code)
    assert {path: seen[path] for path in hidden} == hidden
    shown = inside(without("proc"), code)
    assert shown["/proc/sys/kernel/core_pattern"][0] == "ok"
    assert "ok" not in [shown[path][1] for path in PROC]  # Landlock; and below it, uid 1001:
    bare = inside(without("proc", "landlock"), code)
    assert "ok" not in [bare[path][1] for path in PROC if not path.startswith("/proc/sys/user/")]


@pytest.mark.embedded
def test_mounts_and_sockets_in_proc_are_the_slots_own(sealed) -> None:
    """What subset=pid leaves of /proc/mounts and /proc/net is of this process: no line of the host's is in
    it. Of sockets there are the two ends of its own tool stream, which have no name."""
    code = """
answer = [open("/proc/self/net/unix").read().count("\\n"), open("/proc/self/net/tcp").read().count("\\n"),
          open("/proc/self/net/dev").read().count(":")]
"""
    unix, tcp, devices = inside(sealed, code)
    assert (tcp, devices) == (1, 1)  # the heading; the loopback, which is down
    assert unix == 3  # the heading, and the stream, which is of the slot's network
    named = """
lines = open("/proc/self/net/unix").read().splitlines()[1:]
held = os.readlink("/proc/self/fd/3")
answer = [[line.split()[7:] for line in lines], [f"socket:[{line.split()[6]}]" for line in lines].count(held)]
"""
    assert inside(sealed, named) == [[[], []], 1]
    assert outside(code)[2] > 1


@pytest.mark.embedded
def test_no_device_but_five_is_there(sealed) -> None:
    """kmsg, kvm, vsock, mem, disks, terminals, fuse, tun: no node. Their opposite: /dev/null opens for
    both."""
    code = BOTH.replace("PATHS", repr([*DEVICES, "/dev/null"]))
    assert inside(sealed, code) == {
        **{path: ["ENOENT", "ENOENT"] for path in DEVICES},
        "/dev/null": ["ok", "ok"],
    }
    listed = inside(sealed, "answer = sorted(os.listdir('/dev'))")
    assert listed == ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"]
    on_host = outside("answer = sorted(os.listdir('/dev'))")
    assert set(on_host) - set(listed)


def test_a_shared_devices_controls_are_refused(sealed, without) -> None:
    """No ioctl of the host's /dev/random is taken (Landlock); below that, crediting and clearing need a
    capability."""
    code = """
descriptor = os.open("/dev/random", os.O_RDWR)
number = (ctypes.c_int * 1)(1)
answer = [said(call("ioctl", descriptor, n, number)) for n in (0x5204, 0x5206, 0x40045201, 0x80045200)]
"""
    if sealed.execute("pass").isolation["walls"]["landlock_abi"] >= 5:
        assert inside(sealed, code) == ["EACCES"] * 4
    # The last one only asks how much entropy there is, which is everybody's to know.
    assert inside(without("seccomp", "landlock", "capabilities"), code) == ["EPERM", "EPERM", "EPERM", "ok"]


SETUID = """
import glob, subprocess
found = [path for folder in ("/usr/bin", "/usr/sbin", "/usr/lib") for path in glob.glob(folder + "/*")
         if os.path.isfile(path) and os.stat(path).st_mode & 0o6000]
program = "import os; print(os.getuid(), os.geteuid(), os.getgid(), os.getegid())"
def identity(path):
    return subprocess.run([path], capture_output=True, text=True).stdout
status = dict(line.strip("\\n").split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
answer = [bool(found), status.get("NoNewPrivs"), status["CapEff"], status["CapBnd"]]
"""


def test_setuid_binaries_lend_nothing(sealed, without, kernel) -> None:
    """su, mount and the like start as uid 1001: no_new_privs, nosuid mounts and one mapped id each forbid
    more."""
    found, no_new_privs, effective, bounding = inside(sealed, SETUID)
    told = {"linux": "1", "gvisor": None}[kernel]  # gVisor's /proc has no such line
    assert (no_new_privs, int(effective, 16), int(bounding, 16)) == (told, 0, 0)
    if not found:
        pytest.skip("this host has no setuid binary in /usr")
    code = """
import subprocess
script = "cp /usr/bin/id /tmp/id; chmod 6755 /tmp/id; /tmp/id -u; /usr/bin/id -u"
copied = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True).stdout.split()
mount = subprocess.run(["/bin/su", "-c", "id -u"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
answer = [copied, mount.returncode == 0, mount.stdout]
"""
    assert inside(sealed, code) == [["1001", "1001"], False, ""]
    # The control needs the host (below): without no_new_privs, nosuid and the id map still hold.
    assert inside(without("no_new_privs", "seccomp", "landlock"), code) == [["1001", "1001"], False, ""]


@pytest.mark.embedded
@pytest.mark.root
def test_a_setuid_binary_does_lend_outside(tmp_path) -> None:
    """The control: the same kind of copy, run by uid 1001 where it is neither nosuid nor no_new_privs."""
    os.chmod(tmp_path, 0o755)
    copy = tmp_path / "id"  # run by descriptor: uid 1001 may not enter pytest's folders
    subprocess.run(["/bin/cp", "/usr/bin/id", str(copy)], check=True)
    os.chmod(copy, 0o4755)
    descriptor = os.open(copy, os.O_RDONLY)
    try:
        done = subprocess.run(
            [f"/proc/self/fd/{descriptor}", "-u"],
            user=1001,
            group=1000,
            extra_groups=[],
            pass_fds=[descriptor],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(descriptor)
    assert done.stdout == "0\n"


def test_file_capabilities_are_not_gained(sealed, kernel) -> None:
    """A capability on a copied binary cannot be set, and what /usr's binaries carry is not taken up
    (nosuid)."""
    code = """
import shutil
shutil.copy("/usr/bin/id", "/tmp/id")
net_raw = bytes.fromhex("0100000200200000" + "00" * 12)
answer = attempt(lambda: os.setxattr("/tmp/id", "security.capability", net_raw))
"""
    assert inside(sealed, code) == {"linux": "EPERM", "gvisor": "ENOTSUP"}[kernel]


CRASH = """
import ctypes, os, resource, signal
for wanted in ((0, 1), (0, 0), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)):
    try:
        resource.setrlimit(resource.RLIMIT_CORE, wanted)
    except (ValueError, OSError):
        pass
print(resource.getrlimit(resource.RLIMIT_CORE), flush=True)
if os.fork() == 0:
    os.abort()
os.wait()
os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.fixture
def dumps(tmp_path: Path) -> Iterator[Path]:
    """What the program that core_pattern names was given, while the test runs; then the machine is as it was."""
    told, handler, pattern = tmp_path / "dumps", tmp_path / "handler", Path("/proc/sys/kernel/core_pattern")
    handler.write_text(f'#!/bin/sh\necho "$1" >>{told}\nexec cat >/dev/null\n')
    handler.chmod(0o755)
    told.touch()
    with open("/run/lock/isorun-core-pattern", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = pattern.read_text()
        try:
            pattern.write_text(f"|{handler} %e\n")
            yield told
        finally:
            pattern.write_text(before)


@pytest.mark.root
def test_a_core_dump_is_not_handed_to_the_host(sealed, kernel, dumps: Path) -> None:
    """However a program and its children crash, core_pattern's program is not started; at a limit of 0 it is."""
    result = sealed.execute(CRASH)
    assert (result.status, result.signal) == ("killed", 11)
    if kernel == "linux":
        assert result.stdout == "(1, 1)\n"
    assert result.artifacts == ()
    assert "python" not in dumps.read_text()
    outside = "import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()"
    subprocess.run([sys.executable, "-c", outside], stderr=subprocess.DEVNULL)
    assert "python" in dumps.read_text(), "the control: the kernel starts it in spite of that limit"
