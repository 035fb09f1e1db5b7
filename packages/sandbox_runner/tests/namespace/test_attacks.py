"""What a command in a namespace sandbox tries against its host. Each attack succeeds where its one wall is off."""

import errno
import fcntl
import os
import secrets
import socket
import subprocess
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_runner import InvalidSpec, MountSpec, NamespaceSandbox, SandboxSpec, SandboxStartFailed
from sandbox_runner.namespace import enter
from sandbox_runner.namespace import instance as namespace_instance
from sandbox_runner.namespace import sandbox as namespace
from sandbox_runner.namespace.bubblewrap import find_bubblewrap
from sandbox_runner.namespace.processes import called, title

SECRET = f"a-value-that-nobody-may-see-{secrets.token_hex(8)}"  # another session may have one, too


def errno_of(sandbox, python: str, call: str) -> int:
    """What the C library's *call* comes to inside: an errno, or 0."""
    script = (
        f"import ctypes; c = ctypes.CDLL(None, use_errno=True); r = c.{call}; print(ctypes.get_errno() * (r == -1))"
    )
    result = sandbox.exec([python, "-c", script])
    assert result.ok, result
    return int(result.stdout)


@pytest.mark.parametrize("path", ["{tmp}/host/secret", "/workspace/../host/secret", "/proc/1/root/{tmp}/host/secret",
                                  "/proc/self/cwd/../host/secret"])  # fmt: skip
def test_a_file_of_the_host_cannot_be_read(start, tmp_path: Path, path: str) -> None:
    """By its path, by the workspace's parent, and by what /proc calls the first process's root. A mount shows it."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host/secret").write_text(SECRET)
    result = start().exec(["cat", path.format(tmp=tmp_path)])
    assert (result.stdout, result.exit_code) == (b"", 1)
    shown = start(extra_mounts=(MountSpec(tmp_path / "host", "/host"),))
    assert shown.exec(["cat", "/host/secret"]).stdout == SECRET.encode()


@pytest.mark.parametrize(
    ("call", "free"),
    [
        ("setxattr(b'/tmp/x', b'user.x', bytes(512), ctypes.c_size_t(512), 0)", {errno.ENOENT}),
        ("lsetxattr(b'/tmp/x', b'user.x', bytes(65536), ctypes.c_size_t(65536), 0)", {errno.ENOENT}),
        ("fsetxattr(-1, b'user.x', bytes(512), ctypes.c_size_t(512), 0)", {errno.EBADF}),
        ("prctl(78, 2, 0, 0, 0)", {0, errno.EINVAL}),  # PR_FUTEX_HASH, Linux 6.16
    ],
)
def test_nothing_is_kept_that_no_ceiling_counts(start, python, call: str, free: set[int]) -> None:
    """Large access lists and tables are memory of the kernel's in no control group; small attributes are asked."""
    assert errno_of(start(), python, call) == errno.EPERM
    small = call.replace("65536", "511").replace("512", "511")
    assert small == call or errno_of(start(), python, small) in free
    assert errno_of(start(loosen=("seccomp",)), python, call) in free


def test_only_what_was_meant_is_shown(sandbox) -> None:
    """Nobody's home, no machine's /var, /run, /sys or /etc beyond what libraries read; no other user's name."""
    script = (
        "ls / ; ls -A /run /var /var/tmp /tmp /workspace /cache; cat /etc/shadow /etc/ssh/* /etc/machine-id; ls /etc"
    )
    shown = sandbox.exec(["sh", "-c", script]).stdout.decode().split()
    assert {"root", "home", "sys", "boot", "mnt", "srv", "opt", "lost+found"}.isdisjoint(shown)
    etc = set(sandbox.exec(["ls", "/etc"]).stdout.decode().split())
    assert etc <= {"alternatives", "ca-certificates", "group", "hostname", "hosts", "ld.so.cache", "ld.so.conf",
                   "ld.so.conf.d", "localtime", "mime.types", "nsswitch.conf", "passwd", "pki", "protocols",
                   "services", "ssl"}  # fmt: skip
    assert set(sandbox.exec(["sh", "-c", "ls /etc/ssl"]).stdout.split()) <= {b"certs", b"openssl.cnf"}  # no private/
    users = sandbox.exec(["cat", "/etc/passwd"]).stdout.decode().splitlines()
    assert {line.split(":")[0] for line in users} <= {"sandbox", "nobody", "root"}


def test_nothing_but_the_mounts_can_be_written(sandbox, tmp_path: Path) -> None:
    """Not the root, the programs, the devices' folder nor the kernel's settings, even by uid 0; the workspace can."""
    places = "/ /usr /usr/bin /etc /dev /proc/sys/kernel /workspace/.. /etc/ssl/certs"
    script = f"for p in {places}; do touch $p/planted 2>/dev/null && echo $p; done; true"
    assert sandbox.exec(["sh", "-c", script]).stdout == b""
    assert sandbox.exec(["touch", "/workspace/planted"]).ok
    assert not (tmp_path / "planted").exists()


def test_the_kernels_settings_cannot_be_written(sandbox, bubblewrap) -> None:
    """Outside of the processes' own folders, no file of /proc is writable; it would be for root's user.

    Only asked, and not tried: a setting such as core_pattern is the whole machine's.
    """
    look = 'find /proc -path "/proc/[0-9]*" -prune -o -type f -writable -exec test -f {} \\; -print'
    found = sandbox.exec(["sh", "-c", look])
    assert found.stdout == b""
    for name in ("kcore", "keys", "timer_list"):
        assert sandbox.exec(["cat", f"/proc/{name}"]).stdout == b""
    if os.geteuid() == 0:  # of another user no such file is
        bare = [bubblewrap, "--unshare-user", "--unshare-pid", "--cap-drop", "ALL", "--ro-bind", "/", "/"]
        shown = subprocess.run([*bare, "--proc", "/proc", "sh", "-c", look], capture_output=True).stdout
        assert b"/proc/sys/kernel/core_pattern\n" in shown


def test_what_the_kernel_tells_root_alone_is_not_read(sandbox, bubblewrap) -> None:
    """The machine's log and the state of its memory, which root's user reads without a capability, are empty files."""
    look = "find /proc -maxdepth 1 -type f ! -perm -0004 -readable"
    assert sandbox.exec(["sh", "-c", look]).stdout == b""
    if os.geteuid() == 0:
        bare = [bubblewrap, "--unshare-user", "--unshare-pid", "--cap-drop", "ALL", "--ro-bind", "/", "/"]
        shown = subprocess.run([*bare, "--proc", "/proc", "sh", "-c", look], capture_output=True).stdout.split()
        assert {b"/proc/kmsg", b"/proc/vmallocinfo"} <= set(shown)


def test_processes_of_the_host_are_not_seen(sandbox) -> None:
    """Every number inside is of the command's own; the host sees the command."""
    numbers = sandbox.exec(["sh", "-c", "cd /proc; echo [0-9]*"]).stdout.split()
    assert all(int(number) < 20 for number in numbers)
    assert sandbox.exec(["sh", "-c", f"kill -0 {os.getpid()}"]).exit_code == 1
    found = set()
    sandbox.exec(
        ["sh", "-c", "echo; sleep 2"], on_output=lambda *_: found.update(called(title(sandbox.container_name)))
    )
    assert found


@pytest.fixture
def served() -> Iterator[tuple[int, str]]:
    """A TCP port on the host's loopback and an abstract local socket, both of which greet whoever connects."""
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as local:
        tcp.bind(("127.0.0.1", 0))
        name = f"sandbox-runner-test-{os.getpid()}"
        local.bind(f"\0{name}")
        for listener in (tcp, local):
            listener.listen()
            threading.Thread(target=_greet, args=(listener,), daemon=True).start()
        yield tcp.getsockname()[1], name
        for listener in (tcp, local):
            listener.shutdown(socket.SHUT_RDWR)


def _greet(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"reached")


def test_the_network_is_not_the_hosts(start, python, served: tuple[int, str]) -> None:
    """Neither a loopback server nor an abstract socket is reached; with the network open both are."""
    port, name = served
    script = (
        "import socket\n"
        f"for family, address in ((socket.AF_INET, ('127.0.0.1', {port})), (socket.AF_UNIX, '\\0{name}')):\n"
        "    try:\n"
        "        s = socket.socket(family); s.connect(address); print(s.recv(99).decode())\n"
        "    except OSError as error: print(error.strerror)\n"
    )
    walled = start().exec([python, "-c", script])
    assert walled.stdout == b"Connection refused\nConnection refused\n"
    opened = start(network_mode="open").exec([python, "-c", script])
    assert opened.stdout == b"reached\nreached\n"


def test_only_the_loopback_is_there(sandbox) -> None:
    """An interface of the host's would be a way out."""
    lines = sandbox.exec(["cat", "/proc/net/dev"]).stdout.decode().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]


def test_typing_into_a_terminal_is_refused(start, python) -> None:
    """TIOCSTI would run a command in the caller's shell; with a bit above the 32 that the kernel reads as well."""
    call = "ioctl(0, ctypes.c_ulong({}), b'x')"
    walled, loose = start(), start(loosen=("seccomp",))
    for request in ("0x5412", "0x5412 | 1 << 32"):
        assert errno_of(walled, python, call.format(request)) == errno.EPERM
        assert errno_of(loose, python, call.format(request)) == errno.ENOTTY  # it asked the device


def test_a_command_has_no_controlling_terminal(sandbox) -> None:
    """Started from a terminal, it cannot open it anew: it could read there what is meant for the caller's shell."""
    script = ["sh", "-c", "[ -t 0 ] && echo tty; : < /dev/tty && echo opened"]
    assert _on_a_terminal([*sandbox.command_prefix, *script]) == "tty\n"
    assert _on_a_terminal(script) == "tty\nopened\n"


def _on_a_terminal(command: list[str]) -> str:
    """What *command* prints, with a terminal for its stdin that is its session's."""
    outer, inner = os.openpty()
    try:
        done = subprocess.run(
            command,
            stdin=inner,
            capture_output=True,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
    finally:
        os.close(outer)
        os.close(inner)
    return done.stdout


def test_no_new_namespace_can_be_made(start) -> None:
    """A user namespace would give capabilities over a new network and mounts; seccomp alone is what stops it."""
    walled, loose = start(), start(loosen=("seccomp",))
    assert walled.exec(["unshare", "-U", "true"]).stderr == b"unshare: unshare failed: Operation not permitted\n"
    assert loose.exec(["unshare", "-U", "true"]).ok


def test_nothing_can_be_mounted(start, python) -> None:
    """mount needs a capability, and is refused by number first."""
    call = 'mount(b"tmpfs", b"/workspace", b"tmpfs", 0, None)'
    assert errno_of(start(), python, call) == errno.EPERM
    # In namespaces of its own: CLONE_NEWUSER and CLONE_NEWNS.
    assert errno_of(start(loosen=("seccomp",)), python, f"unshare(0x10020000) or c.{call}") == 0


def test_there_is_no_capability(start) -> None:
    """No set has one, also for uid 0; loosened, they are those of the sandbox's own user namespace."""

    def effective(**fields: object) -> dict[str, int]:
        status = start(**fields).exec(["cat", "/proc/self/status"]).stdout.decode().splitlines()
        return {line.split()[0]: int(line.split()[1], 16) for line in status if line.startswith("Cap")}

    assert set(effective().values()) == {0}
    assert set(effective(loosen=("user",)).values()) == {0}
    assert effective(loosen=("capabilities",))["CapEff:"] != 0


def test_keys_of_the_host_are_not_reached(start, python) -> None:
    """A user's keyring is no part of any namespace."""
    call = "syscall(ctypes.c_long(250 if __import__('os').uname().machine == 'x86_64' else 219), 0, -4, 1)"
    assert errno_of(start(), python, call) == errno.EPERM
    assert errno_of(start(loosen=("seccomp",)), python, call) == 0


def test_a_32_bit_call_is_killed(start, python, require) -> None:
    """int 0x80 runs other calls under the numbers that were allowed."""
    if os.uname().machine != "x86_64":
        require("x86_64", "this machine has no second calling convention")
    script = (
        "import ctypes, mmap\n"
        "page = mmap.mmap(-1, 4096, prot=7)\n"
        "page.write(bytes.fromhex('b814000000cd80c3'))\n"  # mov eax, 20 (getpid); int 0x80; ret
        "print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))() > 0)\n"
    )
    assert start().exec([python, "-c", script]).signal == 31  # SIGSYS
    loose = start(loosen=("seccomp",)).exec([python, "-c", script])
    assert loose.stdout == b"True\n" or loose.signal == 11  # a kernel without 32-bit calls


def test_another_commands_environment_is_not_seen(sandbox) -> None:
    """Two commands of one sandbox at once: neither finds the other's variables, which the host's /proc shows."""
    begun, done, found = threading.Event(), threading.Event(), []

    def hold() -> None:
        script = "echo begun; until [ -e /workspace/done ]; do sleep 0.01; done"
        sandbox.exec(["sh", "-c", script], env={"HELD": SECRET}, on_output=lambda *_: begun.set(), timeout_s=30)
        done.set()

    threading.Thread(target=hold).start()
    assert begun.wait(20)
    look = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline"
    shown = sandbox.exec(["sh", "-c", look], env={"OWN": "own"}).stdout
    found = [path for path in Path("/proc").glob("[0-9]*/environ") if SECRET in _text(path)]
    sandbox.exec(["touch", "/workspace/done"])
    assert done.wait(20)
    assert b"OWN=own" in shown
    assert SECRET.encode() not in shown
    assert found


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def test_no_value_is_on_a_command_line(start) -> None:
    """While a command runs, no process of the host has a value on its command line, and bubblewrap has none at all."""
    sandbox = start(env_overrides={"OVERRIDE": SECRET}, env_allowlist=("ALLOWED",))
    seen: dict[str, list[str]] = {}

    def look(*_: object) -> None:
        ours = called(title(sandbox.container_name))
        seen["lines"] = [text for path in Path("/proc").glob("[0-9]*/cmdline") if SECRET in (text := _text(path))]
        seen["bubblewrap"] = [text for number in ours if SECRET in (text := _text(Path(f"/proc/{number}/environ")))]
        seen["ours"] = [str(number) for number in ours]

    result = sandbox.exec(["sh", "-c", "echo $OVERRIDE $ONE; sleep 2"], env={"ONE": SECRET}, on_output=look)
    assert result.stdout.decode() == f"{SECRET} {SECRET}\n"
    assert len(seen["ours"]) >= 2
    assert (seen["lines"], seen["bubblewrap"]) == ([], [])
    # The look finds what is there: the same value as an argument.
    sandbox.exec(["sh", "-c", "echo; sleep 2", SECRET], on_output=look)
    assert seen["lines"]


def test_a_variable_does_not_reach_the_linker_outside(start, tmp_path: Path) -> None:
    """With LD_PRELOAD a command could have bubblewrap load, on the host, what it wrote to its workspace."""
    planted = tmp_path / "planted.so"
    planted.write_text("not a library")
    sandbox = start(env_overrides={"LD_PRELOAD": str(planted)})
    assert b"file too short" not in sandbox.exec(["true"]).stderr
    assert b"cannot open shared object file" in sandbox.exec(["true"]).stderr  # inside there is no such file
    outside = subprocess.run(
        [str(find_bubblewrap()), "--version"], env={"LD_PRELOAD": str(planted)}, capture_output=True
    )
    assert b"file too short" in outside.stderr


def test_an_open_folder_of_the_caller_does_not_get_in(sandbox, tmp_path: Path) -> None:
    """A descriptor that the caller passes on leads past every mount; it is closed on the way."""
    (tmp_path / "secret").write_text(SECRET)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    read = ["sh", "-c", f"cat /proc/self/fd/{descriptor}/secret"]
    try:
        inside = subprocess.run([*sandbox.command_prefix, *read], pass_fds=[descriptor], capture_output=True)
        outside = subprocess.run(read, pass_fds=[descriptor], capture_output=True)
    finally:
        os.close(descriptor)
    assert (inside.stdout, outside.stdout) == (b"", SECRET.encode())


def without_the_check(tmp_path: Path, monkeypatch) -> None:
    """From now on `enter` opens whatever is at a mount's path, and bubblewrap mounts it by its path."""
    text = Path(enter.__file__).read_text()
    assert text.count("    if not is_same or ") == text.count("    if not by_descriptor:") == 1
    text = text.replace("    if not is_same or ", "    if False and ")
    (tmp_path / "enter.py").write_text(text.replace("    if not by_descriptor:", "    if True:"))
    monkeypatch.setattr(namespace_instance, "ENTER", str(tmp_path / "enter.py"))


#: Puts a link to a folder of the host where the artifacts lie, which the next command would have.
REPLACE = ["sh", "-c", 'mv artifacts aside && ln -s "$1" artifacts', "sh"]


@pytest.fixture(params=["own", "another's"])
def workspace(request: pytest.FixtureRequest, bubblewrap, tmp_path: Path) -> Path:
    """A workspace that is ours or, if we are root, another user's; beside it a folder with a secret."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host/secret").write_text(SECRET)
    (tmp_path / "workspace").mkdir()
    if os.geteuid() == 0 and request.param != "own":
        os.chown(tmp_path / "workspace", 65432, 65432)
    return tmp_path / "workspace"


@pytest.fixture
def nested(workspace: Path) -> NamespaceSandbox:
    """A sandbox whose artifacts lie in its workspace."""
    return NamespaceSandbox(workspace, workspace / "artifacts", SandboxSpec())


def test_a_mount_cannot_be_redirected(nested: NamespaceSandbox, tmp_path: Path, monkeypatch) -> None:
    """What lies in the workspace is what it was at the start, or no command runs. Else a secret would be read."""
    with nested.start() as sandbox:
        assert sandbox.exec(["sh", "-c", "echo x > /artifacts/made; cat artifacts/made"]).stdout == b"x\n"
        assert sandbox.exec(["sh", "-c", "ls /proc/$$/fd; true"]).stdout == b"0\n1\n2\n"
        assert sandbox.exec([*REPLACE, f"{tmp_path}/host"]).ok
        with pytest.raises(SandboxStartFailed, match=r"workspace/artifacts was replaced after the start$"):
            sandbox.exec(["cat", "/artifacts/secret"])
    (tmp_path / "workspace/artifacts").unlink()
    (tmp_path / "workspace/aside").rename(tmp_path / "workspace/artifacts")
    without_the_check(tmp_path, monkeypatch)
    with nested.start() as sandbox:
        assert sandbox.exec([*REPLACE, f"{tmp_path}/host"]).ok
        assert sandbox.exec(["cat", "/artifacts/secret"]).stdout == SECRET.encode()


def test_a_folder_that_is_swapped_on_the_host_is_not_shown(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns the folder where the artifacts lie puts a link there, to what only we may open."""

    def swapped(name: str) -> bytes:
        with NamespaceSandbox(workspace, tmp_path / name, SandboxSpec()).start() as sandbox:
            (tmp_path / name).rename(tmp_path / f"{name}-aside")
            (tmp_path / name).symlink_to(tmp_path / "host")
            return sandbox.exec(["cat", "/artifacts/secret"]).stdout

    with pytest.raises(SandboxStartFailed, match=r"/one was replaced after the start$"):
        swapped("one")
    without_the_check(tmp_path, monkeypatch)
    assert swapped("two") == SECRET.encode()


#: Moves the sandbox's own folder away, and makes one of links that has a folder of the host for its /tmp.
OWN = 'cd /temporary && mv "$1" aside && mkdir "$1" && for n in $3; do ln -s "../aside/$n" "$1/$n"; done && '
OWN += 'rm "$1/tmp" && ln -s "$2" "$1/tmp"'


def test_the_sandboxs_own_folder_cannot_be_redirected(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the machine's folder for temporary files is mounted, a command reaches its own sandbox's folder there."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    os.chown(temporary, *namespace.owner_of(workspace))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    spec = SandboxSpec(extra_mounts=(MountSpec(temporary, "/temporary"),))

    def redirected() -> bytes:
        with NamespaceSandbox(workspace, tmp_path / "artifacts", spec).start() as sandbox:
            (own,) = temporary.glob("sandbox-runner-*")
            names = " ".join(os.listdir(own))
            assert sandbox.exec(["sh", "-c", OWN, "sh", own.name, f"{tmp_path}/host", names]).ok
            return sandbox.exec(["cat", "/tmp/secret"]).stdout

    with pytest.raises(SandboxStartFailed, match=r"/tmp was replaced after the start$"):
        redirected()
    (temporary / "aside").rename(tmp_path / "aside")
    without_the_check(tmp_path, monkeypatch)
    assert redirected() == SECRET.encode()
    monkeypatch.setattr(namespace, "_can_pin", lambda program: False)
    with pytest.raises(InvalidSpec, match=r"temporary/sandbox-runner lies in a folder that the sandbox can write"):
        NamespaceSandbox(workspace, tmp_path / "artifacts", spec).start()


def test_a_bubblewrap_that_cannot_pin_is_given_no_such_folder(
    nested: NamespaceSandbox, tmp_path: Path, monkeypatch
) -> None:
    """An older one mounts by path alone, so the folders must be apart; nothing was made."""
    monkeypatch.setattr(namespace, "_can_pin", lambda program: False)
    with pytest.raises(InvalidSpec, match=r"workspace/artifacts lies in a folder that the sandbox can write"):
        nested.start()
    assert os.listdir(tmp_path / "workspace") == []


def test_a_place_to_mount_at_cannot_be_redirected(start, tmp_path: Path, monkeypatch) -> None:
    """Where a command can write, it puts a link out of the sandbox: refused, or a folder is made on the host."""
    for name in ("host", "data", "other"):
        (tmp_path / name).mkdir()
    at_tmp = (MountSpec(tmp_path / "data", "/tmp/way/made"),)
    with pytest.raises(InvalidSpec, match=r"^mounts: /tmp/way/made lies in /tmp, which the sandbox can write"):
        start(extra_mounts=at_tmp)
    with pytest.raises(InvalidSpec, match=r"^mounts: /a/b lies in /a, which the sandbox can write"):
        start(extra_mounts=(MountSpec(tmp_path / "other", "/a/b"), MountSpec(tmp_path / "data", "/a")))
    monkeypatch.setattr(namespace, "_check_targets", lambda mounts: None)
    sandbox = start(extra_mounts=at_tmp)
    assert sandbox.exec(["sh", "-c", f"cd /tmp && mv way aside && ln -s /oldroot{tmp_path}/host way"]).ok
    sandbox.exec(["true"])
    assert (tmp_path / "host/made").is_dir()


def test_a_link_at_a_mount_is_taken_as_it_was_at_the_start(start, tmp_path: Path) -> None:
    """The workspace may be a link; where it points is decided once, by the caller."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "two/secret").write_text(SECRET)
    (tmp_path / "workspace").symlink_to("one")
    sandbox = start()
    (tmp_path / "workspace").unlink()
    (tmp_path / "workspace").symlink_to("two")
    assert sandbox.exec(["ls"]).stdout == b""


def test_a_command_does_not_outlive_its_caller(sandbox, tmp_path: Path) -> None:
    """The process that used the prefix is killed: so is the command, which the host then no longer has."""
    script = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    command = [*sandbox.command_prefix, "sh", "-c", "echo x > /workspace/begun; sleep 600"]
    caller = subprocess.Popen([command[0], "-c", script, *command])
    _until(lambda: (tmp_path / "workspace/begun").exists())
    assert called(title(sandbox.container_name))
    caller.kill()
    caller.wait()
    _until(lambda: not called(title(sandbox.container_name)))


def _until(holds) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)
