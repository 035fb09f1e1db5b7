"""What a sandbox keeps from a command, tried from inside. From outside: see `engine/`."""

import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sandbox_runner import ResourceSpec

STATUS = ["sh", "-c", "cat /proc/self/status"]


def shown(text: bytes, name: str) -> str:
    """One line of /proc/self/status."""
    found = re.search(rf"^{name}:\s+(\S+)$".encode(), text, re.MULTILINE)
    assert found is not None, f"no line {name}"
    return found[1].decode()


def test_a_command_has_no_capability(sandbox, lacking) -> None:
    """None that it may use, gain or keep; also as user 0."""
    for user in (None, "0"):
        text = sandbox.exec(STATUS, user=user).stdout
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", *([] if lacking("status") else ["CapAmb"])):
            assert int(shown(text, name), 16) == 0, (user, name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a program that gives root's rights")
def test_no_program_gives_more_rights(sandbox, home, lacking) -> None:
    """A program of root's with the set-user-id bit runs as who started it."""
    program = home / "workspace" / "identity"
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o4755)
    here = subprocess.run(["./identity", "-u"], capture_output=True, user=4321, cwd=program.parent)
    assert here.stdout == b"0\n", "the positive control"
    assert sandbox.exec(["/workspace/identity", "-u"], user="4321").stdout == b"4321\n"
    if lacking("status"):
        return
    assert shown(sandbox.exec(STATUS).stdout, "NoNewPrivs") == "1"
    by_prefix = subprocess.run([*sandbox.command_prefix, *STATUS], capture_output=True)
    assert shown(by_prefix.stdout, "NoNewPrivs") == "1"


WRITE = 'for place in "$@"; do (echo x > "$place/sr-written" && rm "$place/sr-written" && echo "$place"); done'


def test_the_system_cannot_be_written(sandbox) -> None:
    """Not even by user 0."""
    places = ["/", "/etc", "/usr", "/usr/bin", "/root", "/home", "/var", "/opt"]
    for user in (None, "0"):
        assert sandbox.exec(["sh", "-c", WRITE, "sh", *places], user=user).stdout == b""
    assert not [place for place in places if os.path.exists(f"{place}/sr-written")]


def test_these_can_be_written(sandbox) -> None:
    """What a program needs, by its user."""
    places = ["/workspace", "/artifacts", "/cache", "/tmp", "/dev/shm"]
    result = sandbox.exec(["sh", "-c", WRITE, "sh", *places])
    assert result.stdout.decode().split() == places, result.stderr


@contextmanager
def listening() -> Iterator[tuple[int, list[bytes]]]:
    """A listener on all addresses of this machine: its port, and who has connected."""
    came: list[bytes] = []
    with socket.create_server(("0.0.0.0", 0), backlog=8) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    came.append(connection.recv(100))
                    connection.sendall(b"welcome")

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


CONNECT = """
import socket, sys
for address in sys.argv[2:]:
    try:
        with socket.create_connection((address, int(sys.argv[1])), timeout=2) as connection:
            connection.sendall(b"hello")
            print(address, connection.recv(100).decode())
    except OSError as error:
        print(address, "no:", type(error).__name__)
"""


def addresses() -> list[str]:
    """Of this machine, as a sandbox may try them: loopback, the engine's bridge, its own."""
    found = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()
    return ["127.0.0.1", *(address for address in found if ":" not in address)]


def test_there_is_no_network(sandbox) -> None:
    """No interface but the loopback of its own, no route, and no way to a listener of this machine."""
    interfaces = sandbox.exec(["sh", "-c", "cat /proc/net/dev"]).stdout.decode().splitlines()[2:]
    assert {line.split(":")[0].strip() for line in interfaces} <= {"lo"}
    with listening() as (port, came):
        result = sandbox.exec(["python3", "-c", CONNECT, str(port), *addresses()], timeout_s=60)
        assert result.ok
        assert b"welcome" not in result.stdout
        assert result.stdout.count(b" no: ") == len(addresses())
        assert came == []


def test_the_listener_can_be_reached_from_here() -> None:
    """The positive control: this machine itself gets an answer."""
    with listening() as (port, came):
        done = subprocess.run(["python3", "-c", CONNECT, str(port), "127.0.0.1"], capture_output=True, text=True)
        assert done.stdout == "127.0.0.1 welcome\n"
        assert came == [b"hello"]


def test_no_socket_of_this_machine_can_be_reached(sandbox) -> None:
    """Nor one without a file (an abstract one), which no mount hides."""
    name = f"sr-test-{os.getpid()}"
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}')"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        assert subprocess.run(["python3", "-c", connect]).returncode == 0, "the positive control"
        result = sandbox.exec(["python3", "-c", connect])
    assert not result.ok
    assert b"Connection refused" in result.stderr or b"Permission" in result.stderr


def test_files_of_this_machine_are_not_there(sandbox, tmp_path) -> None:
    """What is not mounted cannot be read, by its path or through a process's root."""
    secret = tmp_path / "of-the-host"
    secret.write_text("of the host")
    script = f"cat {secret} /proc/1/root{secret} /proc/*/root{secret} 2>/dev/null"
    assert b"of the host" not in sandbox.exec(["sh", "-c", script]).stdout
    assert not sandbox.exec(["ls", "/var/run/docker.sock"]).ok


FILES = """
import os
opened = []
try:
    while len(opened) < 10_000:
        opened.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    print(error.errno, len(opened) + 3)
"""


def test_a_command_can_open_so_many_files(sandbox) -> None:
    """4096, and it cannot raise that."""
    assert sandbox.exec(["python3", "-c", FILES]).stdout == b"24 4096\n"
    assert not sandbox.exec(["sh", "-c", "ulimit -n 5000"]).ok
    assert sandbox.exec(["sh", "-c", "ulimit -Hn"], user="0").stdout == b"4096\n"


FORK = """
import os, time
made = 0
try:
    while made < 200:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except OSError as error:
    print(error.errno, made)
"""


def test_a_sandbox_can_have_so_many_processes(start, lacking) -> None:
    """The spec's number, of all commands together."""
    if lacking("pids"):
        return
    sandbox = start(resources=ResourceSpec(pids_limit=48))
    errno, made = map(int, sandbox.exec(["python3", "-c", FORK], timeout_s=60).stdout.split())
    assert errno == 11
    assert 30 < made < 48
    assert sandbox.exec(["true"]).ok


def test_there_is_no_swap_beyond_the_memory(start, lacking) -> None:
    """A command that wants more than the spec's memory ends, where it could have gone on with swap."""
    if lacking("oom_count"):
        return
    sandbox = start(resources=ResourceSpec(memory="64m"))
    script = "import mmap; m = mmap.mmap(-1, 128 << 20); m[::4096] = b'x' * (len(m) // 4096)"
    result = sandbox.exec(["python3", "-c", script])
    assert (result.signal, result.out_of_memory) == (9, True)


def test_tmp_holds_so_much(start, backend) -> None:
    """`tmp_bytes` of a container's /tmp; then the disk is full for the command, and not for this machine."""
    if backend.name == "namespace":
        return  # its /tmp is a folder on the disk, as its docstring says
    sandbox = start(tmp_bytes=4 << 20)
    result = sandbox.exec(["sh", "-c", "head -c 8m /dev/zero > /tmp/x 2>&1 || head -c 8388608 /dev/zero > /tmp/x"])
    assert not result.ok
    assert b"No space left" in result.stdout + result.stderr
