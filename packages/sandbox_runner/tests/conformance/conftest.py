"""The backends that one kit of tests holds to one interface. A new one is a line in `BACKENDS`.

What a backend cannot do is an exception of its own here, with the reason, and not a
skip in a test: `Backend.lacks` is the list of them, and the README shows it.
"""

import secrets
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sandbox_runner import DockerSandbox, NamespaceSandbox, SandboxInstance, SandboxSpec
from sandbox_runner.namespace.sandbox import find_bubblewrap

Start = Callable[..., SandboxInstance]


@dataclass(frozen=True)
class Backend:
    """One way to make a sandbox, and what of the kit it does not give."""

    name: str
    kind: type[DockerSandbox] | type[NamespaceSandbox]
    needs: tuple[str, ...]  # fixtures
    spec: dict[str, Any] = field(default_factory=dict)
    lacks: frozenset[str] = frozenset()

    def start(self, workspace: Path, artifacts: Path, **changes: object) -> SandboxInstance:
        """A sandbox of a spec with nothing but *changes*."""
        name = changes.pop("name", None)
        return self.kind(workspace, artifacts, SandboxSpec(**{**self.spec, **changes}), name).start()


GVISOR_LACKS = frozenset(
    {
        "reapers",  # no subreapers: orphans of commands that run at the same time end with the first of them
        "outside",  # its processes are not the host's, and it says nothing of them in the host's /proc
        "oom_count",  # the kernel's count of kills is not shown inside; the sentry dies with the memory ceiling
        "pids",  # the ceiling holds the sentry's own tasks: who reaches it ends the whole sandbox
        "status",  # its /proc/self/status has neither NoNewPrivs nor CapAmb
        "dev_tty",  # its /dev/tty cannot be opened, also by a command that has a terminal
        "client",  # a `docker exec` that runs when the sandbox is removed waits for ever
    }
)
BACKENDS = [
    Backend("docker", DockerSandbox, ("docker_cli", "base_image")),
    Backend("gvisor", DockerSandbox, ("docker_cli", "base_image", "gvisor"), {"runtime": "runsc"}, GVISOR_LACKS),
    Backend("namespace", NamespaceSandbox, ("bubblewrap",), {"backend": "namespace"}),
]


@pytest.fixture(scope="session")
def bubblewrap(require: Callable[[str, str], Any], control_group: None) -> str:
    """The machine's bubblewrap."""
    return find_bubblewrap() or require("namespace", "there is no bubblewrap on PATH")


@pytest.fixture(scope="session", params=BACKENDS, ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend that this machine has."""
    backend: Backend = request.param
    found = {name: request.getfixturevalue(name) for name in backend.needs}
    if "base_image" in found:
        backend.spec["image_ref"] = found["base_image"]
    return backend


@pytest.fixture(scope="session")
def home(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shared sandbox's folders are."""
    return tmp_path_factory.mktemp(backend.name)


@pytest.fixture(scope="session")
def sandbox(backend: Backend, home: Path) -> Iterator[SandboxInstance]:
    """One sandbox of that backend, for every test that leaves it as it was."""
    with backend.start(home / "workspace", home / "artifacts") as sandbox:
        yield sandbox


@pytest.fixture
def start(backend: Backend, tmp_path: Path) -> Iterator[Start]:
    """Start a sandbox of one's own: `start(pids_limit=…)`; in `tmp_path/workspace` and `tmp_path/artifacts`."""
    started: list[SandboxInstance] = []

    def begin(**changes: object) -> SandboxInstance:
        started.append(backend.start(tmp_path / "workspace", tmp_path / "artifacts", **changes))
        return started[-1]

    yield begin
    for sandbox in started:
        sandbox.close()


@pytest.fixture
def lacking(backend: Backend) -> Callable[[str], bool]:
    """`lacking("reapers")`: whether the backend is known not to give that."""
    return lambda what: what in backend.lacks


_SEEN = """
import os, sys
wanted = sys.stdin.buffer.readline().strip()
for name in os.listdir("/proc"):
    try:
        with open("/proc/" + name + "/cmdline", "rb") as file:
            if name.isdigit() and wanted in file.read().split(b"\\0"):
                print(name)
    except OSError:
        pass
"""


def _arguments(cmdline: Path) -> list[str]:
    try:
        return cmdline.read_bytes().decode(errors="replace").split("\0")
    except OSError:  # it has just ended
        return []


class Marker:
    """An argument of `sleep` that no other process has: it sleeps for an hour, and can be found by it."""

    def __init__(self) -> None:
        self.text = f"3600.{secrets.randbelow(10**12):012}"

    def seen_from_outside(self) -> list[str]:
        """The processes of this machine that have it."""
        return [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if self.text in _arguments(path)]

    def seen(self, sandbox: SandboxInstance) -> list[str]:
        """The processes that have it: of this machine, and as the sandbox's next command sees it."""
        result = sandbox.exec(["python3", "-c", _SEEN], stdin=f"{self.text}\n".encode())
        assert result.ok, result
        return [*result.stdout.decode().split(), *self.seen_from_outside()]


@pytest.fixture
def marker() -> Marker:
    """See `Marker`."""
    return Marker()


class Running:
    """A command in a thread of its own, that has printed its first bytes."""

    def __init__(self, sandbox: SandboxInstance, argv: list[str], **options: object) -> None:
        self._begun = threading.Event()
        self._came: list[Any] = []
        self._thread = threading.Thread(target=self._run, args=(sandbox, argv, options), daemon=True)
        self._thread.start()
        assert self._begun.wait(60), "the command printed nothing"

    def _run(self, sandbox: SandboxInstance, argv: list[str], options: dict[str, object]) -> None:
        try:
            self._came.append(sandbox.exec(argv, on_output=lambda *_: self._begun.set(), **options))
        except Exception as error:  # noqa: BLE001 - what it raised is what a test wants to see
            self._came.append(error)
        self._begun.set()

    def result(self) -> Any:  # noqa: ANN401 - a result, or what was raised
        """What it came to."""
        self._thread.join(120)
        assert self._came, "the command does not end"
        return self._came[0]


@pytest.fixture
def running() -> type[Running]:
    """`running(sandbox, argv)`: see `Running`."""
    return Running


@pytest.fixture(scope="session")
def machine_code() -> bytes:
    """A program (x86-64) whose first thread ends at once, and whose second one sleeps for ever."""
    code = bytes.fromhex(
        "b838000000"  # mov eax, 56: clone
        "bf000f0100"  # mov edi, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD
        "488d3500100000"  # lea rsi, [rip + 4096]: its stack, which nothing is put on
        "31d24d31d24d31c0"  # the other arguments are 0
        "0f05"  # syscall
        "85c0"  # the second thread gets 0
        "7409"
        "b83c000000"  # mov eax, 60: exit, of this thread alone
        "31ff"
        "0f05"
        "b822000000"  # mov eax, 34: pause
        "0f05"
        "ebf7"
    )
    size = 64 + 56 + len(code)
    start = 0x400000
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, start + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, start, start, size, 0x4000, 0x1000)
    return header + segment + code
