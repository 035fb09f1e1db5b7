"""The profile in real containers: each refused class of calls is tried, and ordinary programs run.

Every attack is made three times. As a sandbox starts (profile, no capability, no-new-privileges) and with the profile
and capabilities it must be refused: the second shows that the profile is what refuses. With capabilities and
no profile, the positive control, the same call must not be. The arguments do no harm where the call is made.
"""

import json
import platform
import shutil
from typing import Any

import pytest

from sandbox_runner.linux.seccomp import profile_path

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of system calls are x86-64's")

PROFILE = ("--security-opt", f"seccomp={profile_path()}")
HARDENED = (*PROFILE, "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
#: All that any of these calls asks for. Not ALL, which an engine cannot give if its own machine lacks one.
CAPABILITIES = (
    "DAC_READ_SEARCH", "MKNOD", "NET_ADMIN", "NET_RAW", "SYSLOG", "SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_MODULE",
    "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_TIME", "SYS_TTY_CONFIG",
)  # fmt: skip
WITH = tuple(f"--cap-add={name}" for name in CAPABILITIES)
CAPABLE = (*PROFILE, *WITH)
CONTROL = ("--security-opt", "seccomp=unconfined", *WITH)
EPERM, ENOSYS, SIGSYS = 1, 38, 31

#: Runs inside: each call in a child of its own. Says 0, the errno, or minus the signal that ended the child.
TRY = """
import ctypes, json, os, resource, sys
libc = ctypes.CDLL(None, use_errno=True)
try: resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except ValueError: pass  # the profile refuses it

def call(number, *arguments):
    kept = [ctypes.create_string_buffer(one.encode()) if isinstance(one, str) else one for one in arguments]
    addresses = [ctypes.addressof(one) if not isinstance(one, int) else one for one in kept]
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(one) for one in addresses))
    if number == 56 and result == 0:
        os._exit(0)  # the child that clone made
    return ctypes.get_errno() if result == -1 else 0

def machine_code(code):
    import mmap
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(bytes.fromhex(code))
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
    return 0

answers = {}
for name, attack in json.loads(sys.argv[1]).items():
    child = os.fork()
    if child == 0:
        os._exit(machine_code(attack) if isinstance(attack, str) else call(*attack))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    answers[name] = status
print(json.dumps(answers))
"""

HERE, HIGH = -100 % (1 << 64), 1 << 32  # AT_FDCWD; the bit above those that the kernel reads of an int
BAD = 0xFFFFFFFF  # no descriptor, and no valid flags
CLONE = {
    "NEWNS": 0x20000, "NEWCGROUP": 0x2000000, "NEWUTS": 0x4000000, "NEWIPC": 0x8000000, "NEWUSER": 0x10000000,
    "NEWPID": 0x20000000, "NEWNET": 0x40000000,
}  # fmt: skip
TIOCSTI, TIOCLINUX = 0x5412, 0x541C

#: What is tried -> the call's number and arguments.
REFUSED: dict[str, list[int | str]] = {
    "mount": [165, "none", "/mnt", "tmpfs", 0, 0],
    "umount2": [166, "/mnt", 0],
    "pivot_root": [155, "/", "/"],
    "chroot": [161, "/"],
    "open_tree": [428, HERE, "/", 0],
    "move_mount": [429, BAD, "", BAD, "", 0],
    "fsopen": [430, "tmpfs", 0],
    "fsconfig": [431, BAD, 0, 0, 0, 0],
    "fsmount": [432, BAD, 0, 0],
    "fspick": [433, HERE, "/", 0],
    "mount_setattr": [442, HERE, "/", 0, 0, 0],
    **{f"unshare {name}": [272, flag] for name, flag in CLONE.items()},
    "setns": [308, BAD, 0],
    **{f"clone {name}": [56, flag | 17, 0, 0, 0, 0] for name, flag in CLONE.items()},
    "ptrace": [101, 0, 0, 0, 0],
    "process_vm_readv": [310, 1, 0, 0, 0, 0, 0],
    "process_vm_writev": [311, 1, 0, 0, 0, 0, 0],
    "kcmp": [312, 1, 1, 1, 0, 0],
    "pidfd_getfd": [438, BAD, 0, 0],
    "move_pages": [279, 0, 0, 0, 0, 0, BAD],
    "migrate_pages": [256, 0, BAD, 0, 0],
    "bpf": [321, BAD, 0, 0],
    "perf_event_open": [298, 0, 0, 0, BAD, 0],
    "userfaultfd": [323, 0],
    "keyctl": [250, 0, -3 % HIGH, 0],
    "add_key": [248, 0, 0, 0, 0, 0],
    "request_key": [249, 0, 0, 0, 0],
    "name_to_handle_at": [303, HERE, "/", 0, 0, 0],
    "open_by_handle_at": [304, BAD, 0, 0],
    "fanotify_init": [300, 0, 0],
    "fanotify_mark": [301, BAD, 0, 0, 0, 0],
    "quotactl": [179, 0, 0, 0, 0],
    "quotactl_fd": [443, BAD, 0, 0, 0],
    "init_module": [175, 0, 0, ""],
    "finit_module": [313, BAD, "", 0],
    "delete_module": [176, 0, 0],
    "kexec_load": [246, 0, 0, 0, BAD],
    "kexec_file_load": [320, BAD, BAD, 0, 0, BAD],
    "settimeofday": [164, 0, 1],
    "clock_settime": [227, 0, 0],
    "clock_adjtime": [305, 0, 0],
    "adjtimex": [159, 0],
    "sethostname": [170, "x", 1],
    "setdomainname": [171, "x", 1],
    "swapon": [167, "/none", 0],
    "swapoff": [168, "/none"],
    "reboot": [169, 0, 0, 0, 0],
    "acct": [163, "/none"],
    "syslog": [103, 10, 0, 0],
    "vhangup": [153],
    "iopl": [172, 0],
    "ioperm": [173, 0, 1, 0],
    "modify_ldt": [154, 0, 0, 0],
    "sysfs": [139, 3],
    "ustat": [136, 0, 0],
    "personality without random addresses": [135, 0x40000],
    "socket AF_VSOCK": [41, 40, 1, 0],
    "socket AF_ALG": [41, 38, 5, 0],
    "socket AF_PACKET": [41, 17, 3, 0],
    "socket AF_KEY": [41, 15, 3, 2],
    "socket AF_VSOCK + 2**32": [41, 40 | HIGH, 1, 0],
    "socket of netfilter": [41, 16, 3, 12],
    "socket SCTP": [41, 2, 1, 132],
    "socket DCCP": [41, 2, 6, 0],
    "socket MPTCP": [41, 10, 1, 262],
    "socketpair AF_INET": [53, 2, 1, 0, 0],
    "ioctl TIOCSTI": [16, BAD, TIOCSTI, 0],
    "ioctl TIOCSTI + 2**32": [16, BAD, TIOCSTI | HIGH, 0],
    "ioctl TIOCSTI with all high bits": [16, BAD, TIOCSTI | 0xFFFFFFFF00000000, 0],
    "ioctl TIOCLINUX": [16, BAD, TIOCLINUX, 0],
    "mknod of a device": [133, "/tmp/device", 0x2000, 0x103],
    "mknodat of a device": [259, HERE, "/tmp/device-at", 0x2000, 0x103],
}

MISSING: dict[str, list[int | str]] = {
    "clone3": [435, 0, 0],
    "io_uring_setup": [425, 0, 0],
    "io_uring_enter": [426, BAD, 0, 0, 0, 0, 0],
    "io_uring_register": [427, BAD, 0, 0, 0],
    "process_madvise": [440, BAD, 0, 0, 0, 0],
    "process_mrelease": [448, BAD, 0],
    "remap_file_pages": [216, 0, 0, 0, 0, 0],
}
NEWER: dict[str, list[int | str]] = {"statmount": [457, 0, 0, 0, 0], "listmount": [458, 0, 0, 0, 0], "none": [999]}

FOREIGN: dict[str, Any] = {
    "i386 getpid by int 0x80": "b814000000cd80c3",
    "i386 mount by int 0x80": "b815000000cd80c3",
    "x32 getpid": [0x40000000 | 39],
}

#: What must go on, although a filter looks at its arguments.
ALLOWED: dict[str, list[int | str]] = {
    "fork by clone": [56, 17, 0, 0, 0, 0],
    "mknod of a pipe": [133, "/tmp/pipe", 0x1000 | 0o600, 0],
    "mknodat of a file": [259, HERE, "/tmp/file", 0x8000 | 0o600, 0],
    "personality asked for": [135, 0xFFFFFFFF],
    "socket AF_UNIX": [41, 1, 1 | 0o2000000, 0],
    "socket TCP": [41, 2, 1, 6],
    "socket UDP over IPv6": [41, 10, 2, 17],
    "socket of routes": [41, 16, 3, 0],
}


def tried(docker: Any, image: str, attacks: dict[str, Any], *options: str) -> dict[str, int]:  # noqa: ANN401 - any value will do
    """What `TRY` says of the *attacks* in a container with these *options*."""
    every = ("--rm", "--network", "none", *options, image, "python3", "-c", TRY, json.dumps(attacks))
    return json.loads(docker("run", *every))


@pytest.mark.parametrize("wall", [HARDENED, CAPABLE], ids=["as a sandbox", "with capabilities"])
def test_attacks_are_refused(docker_cli, base_image: str, wall) -> None:
    """Every class of what the profile refuses gets EPERM, whatever the capabilities."""
    answers = tried(docker_cli, base_image, REFUSED, *wall)
    assert {name: said for name, said in answers.items() if said != EPERM} == {}


@pytest.mark.parametrize("wall", [HARDENED, CAPABLE], ids=["as a sandbox", "with capabilities"])
def test_what_has_a_fallback_is_missing(docker_cli, base_image: str, wall) -> None:
    """ENOSYS also where the engine ignores defaultErrnoRet, and for calls that are newer than its libseccomp."""
    answers = tried(docker_cli, base_image, MISSING | NEWER, *wall)
    assert {name: said for name, said in answers.items() if said != ENOSYS} == {}


@pytest.mark.parametrize("wall", [HARDENED, CAPABLE], ids=["as a sandbox", "with capabilities"])
def test_foreign_calling_conventions_are_killed(docker_cli, base_image: str, wall) -> None:
    """A 64-bit program may make 32-bit calls, whose numbers the table does not speak of."""
    answers = tried(docker_cli, base_image, FOREIGN, *wall)
    assert {name: said for name, said in answers.items() if said != -SIGSYS} == {}


def test_without_the_profile_they_are_not_refused(docker_cli, base_image: str) -> None:
    """The positive control: nothing else gives these answers to these calls."""
    answers = tried(docker_cli, base_image, REFUSED | MISSING | FOREIGN, *CONTROL)
    refused = [name for name in REFUSED if answers[name] == EPERM]
    missing = [name for name in MISSING if answers[name] == ENOSYS]
    killed = [name for name in FOREIGN if answers[name] == -SIGSYS]
    assert (refused, missing, killed) == ([], [], [])
    done = ("mount", "chroot", "unshare NEWUSER", "clone NEWUSER", "ptrace", "sethostname", "mknod of a device")
    assert {name: answers[name] for name in done} == dict.fromkeys(done, 0)


def test_what_is_looked_at_and_allowed(docker_cli, base_image: str) -> None:
    """The conditions let through what they are meant to."""
    answers = tried(docker_cli, base_image, ALLOWED, *HARDENED)
    assert answers == dict.fromkeys(ALLOWED, 0)


@pytest.mark.parametrize("program", ["docker", "/usr/bin/docker", "/usr/local/bin/docker"])
@pytest.mark.parametrize("options", [(), HARDENED[2:]], ids=["engine's capabilities", "hardened"])
def test_every_cli_here_loads_it(docker_cli, base_image: str, program: str, options) -> None:
    """The CLI reads the file; without no-new-privileges runc drops its capabilities under the filter."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"there is no {program}")
    answers = tried(docker_cli._replace(program=found), base_image, {"ptrace": [101, 0, 0, 0, 0]}, *PROFILE, *options)
    assert answers == {"ptrace": EPERM}  # the engine's own profile allows it


def test_gvisor_ignores_it(docker_cli, base_image: str, gvisor: str) -> None:
    """It starts with the option; its own kernel answers the calls, and that one allows ptrace."""
    answers = tried(docker_cli, base_image, {"ptrace": [101, 0, 0, 0, 0]}, *HARDENED, "--runtime", gvisor)
    assert answers == {"ptrace": 0}


PYTHON = r"""
import asyncio, concurrent.futures, fcntl, multiprocessing as mp, os, shutil, signal, socket, sqlite3, struct
import subprocess, sys, tempfile, termios, threading, time
from multiprocessing import shared_memory

def square(number):
    return number * number

async def echo():
    async def serve(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"line\n")
    assert await reader.readline() == b"line\n"
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    assert (await process.communicate(b"x"))[0] == b"x"
    writer.close()
    server.close()

if __name__ == "__main__":
    os.chdir(tempfile.mkdtemp())
    for method in ("fork", "spawn", "forkserver"):
        with mp.get_context(method).Pool(2) as pool:
            assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
    with mp.Manager() as manager:
        assert list(manager.list([1])) == [1]
    block = shared_memory.SharedMemory(create=True, size=100)
    block.close()
    block.unlink()
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(square, range(5))) == 30
    asyncio.run(echo())
    base = sqlite3.connect("base.db")
    base.execute("pragma journal_mode=wal")
    base.execute("create table t (a)")
    base.commit()
    os.mkfifo("pipe")
    os.symlink("pipe", "link")
    with open("file", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    shutil.copy2("file", "copy")
    main, side = os.openpty()
    fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    assert os.get_terminal_size(side).columns == 80
    assert socket.getaddrinfo("localhost", 80)
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    signal.pause()
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    os.memfd_create("m")
    os.pidfd_open(os.getpid())
    print("all of Python")
"""

SHELL = r"""
set -eu
export HOME=$(mktemp -d)
cd "$HOME"
git init --quiet repo && cd repo
echo text > file && git add file
git -c user.name=n -c user.email=n@example.org commit --quiet --message m
git clone --quiet . ../clone && git -C ../clone log --oneline | wc -l
tar -C .. -cf ../all.tar clone && tar -tf ../all.tar | grep --count file$
python3 -m http.server --bind 127.0.0.1 8000 > /dev/null 2>&1 & server=$!
curl --silent --retry 40 --retry-connrefused --retry-delay 1 http://127.0.0.1:8000/file
kill $server
printf '%s\n' b a | sort | xargs -n 1 -P 2 echo | wc -l
timeout 5 nice env true
"""

INSTALL = r"""
set -eu
cd "$(mktemp -d)"
mkdir -p made/DEBIAN made/opt
printf '%s\n' 'Package: made' 'Version: 1' 'Architecture: all' 'Maintainer: n <n@example.org>' 'Description: made' \
    > made/DEBIAN/control
printf '#!/bin/sh\nadduser --system --quiet --group made\nchown made:made /opt/thing\n' > made/DEBIAN/postinst
chmod 755 made/DEBIAN/postinst
echo thing > made/opt/thing
dpkg-deb --build --root-owner-group made ./made.deb > /dev/null
apt-get install --yes ./made.deb > log 2>&1 || { cat log; exit 1; }
stat --format %U /opt/thing
apt-get remove --yes made > log 2>&1 || { cat log; exit 1; }
test ! -e /opt/thing
"""


@pytest.mark.parametrize("user", ["0:0", "1000:1000"])
def test_python_runs(docker_cli, base_image: str, user: str) -> None:
    """Processes of each kind, threads, event loops, a database, terminals, sockets and timers."""
    script = f"cat > /tmp/all.py <<'END'\n{PYTHON}\nEND\nexec python3 /tmp/all.py"
    options = ("--rm", "--network", "none", "--user", user, *HARDENED)
    assert docker_cli("run", *options, base_image, "sh", "-c", script) == "all of Python"


def test_shell_git_tar_and_curl_run(docker_cli, base_image: str) -> None:
    """What agents do most of the time, without a network."""
    options = ("--rm", "--network", "none", "--user", "1000:1000", *HARDENED)
    assert docker_cli("run", *options, base_image, "bash", "-c", SHELL).split() == ["1", "1", "text", "2"]


def test_apt_installs_as_root(docker_cli, base_image: str) -> None:
    """With the engine's capabilities (`loosen=("capabilities",)`): apt, dpkg, and a package that makes a user."""
    options = ("--rm", "--network", "none", *PROFILE)
    assert docker_cli("run", *options, base_image, "sh", "-c", INSTALL) == "made"
