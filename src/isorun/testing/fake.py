"""Two backends for tests of the runtime: a real loader without walls, and a slot that follows a script.

The module is long because both are a whole backend and slot each, down to the last method.

`FakeBackend` runs programs for real, in a plain subprocess and a temporary folder.
`ScriptedBackend` runs nothing: it plays the endings that no program produces on
demand. Neither seals anything, and each says so in `isolation`. They are given to
a Runtime as objects; no name, setting or command line reaches them, and they must
never be chosen for a caller.
"""

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isorun.backends.base import Program, Slot, Usage
from isorun.backends.ends import Ends
from isorun.backends.environment import Environment, describe
from isorun.backends.sending import send_ahead, send_program
from isorun.core.errors import CleanupFailed, SetupFailed
from isorun.core.limits import Limits
from isorun.core.outcome import Exit
from isorun.kernel.readiness import Channel, is_readable, wait_readable
from isorun.settings import Settings
from isorun.testing.forks import Forks
from isorun.wire.messages import Message, Ready, encode
from isorun.wire.session import Session, Side, State

ISOLATION: Mapping[str, Any] = {"level": "none", "without": [], "backend": "fake", "walls": {}, "limits": "none"}
_KILL_S = 10.0
_STOP_S = 2.0
_LOOK_AGAIN_S = 0.002


class FakeBackend:
    """Slots that are plain processes. No limit but wall time and output is enforced."""

    name = "fake"

    async def __aenter__(self) -> "FakeBackend":
        self._environment = describe()
        self._forks: Forks | None = None
        self._opening = asyncio.Lock()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Of what is held between slots, nothing stays."""
        if self._forks is not None:
            self._forks.close()

    @property
    def environment(self) -> Environment:
        """The Python and packages that run this process."""
        return self._environment

    @property
    def notices(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def failed_preloads(self) -> Mapping[str, str]:
        """None: nothing is imported beforehand."""
        return {}

    def infra_log(self) -> bytes:
        """This backend has no launcher that could print."""
        return b""

    def supervisor(self, settings: Settings, bundle: Path) -> None:
        """As a child of this process; see `Backend.supervisor`."""

    @asynccontextmanager
    async def launch(self, limits: Limits, *, loopback: bool = False) -> AsyncIterator[Slot]:
        """A process that waits for its program; see `Backend.launch`."""
        forks = await self._opened()
        async with AsyncExitStack() as stack:
            ends = _Ends(stack)
            root = _folder(stack)
            family = _Family(forks, forks.fork(root, ends.theirs()))
            stack.callback(family.close)
            stack.push_async_callback(family.end)
            ends.close_theirs()
            control = Channel(ends.control, Session(Side.HOST, Side.SLOT, State.ATTACHED))
            if not isinstance(await control.receive(), Ready):
                raise SetupFailed("program process", "it ended before it was ready")
            yield FakeSlot(ends, control, family, *_directories(stack, root))

    async def _opened(self) -> Forks:
        """The interpreter that forks the programs; started for the first of them."""
        async with self._opening:
            if self._forks is None:
                self._forks = await Forks.open(self._environment)
        return self._forks


class FakeSlot:
    """See `Slot`."""

    isolation = ISOLATION

    def __init__(self, ends: "_Ends", control: Channel, family: "_Family", work: int, out: int) -> None:
        self.stdout, self.stderr, self.tools = ends.stdout, ends.stderr, ends.tools
        self.work, self.out = work, out
        self._control = control
        self._family = family

    def origin(self, folder: Path) -> tuple[str, ...]:
        """See `Slot.origin`."""
        return ()

    @property
    def is_waiting(self) -> bool:
        """See `Slot.is_waiting`."""
        return not is_readable(self._family.pidfd)

    async def store(self, program: Program) -> None:
        """See `Slot.store`."""
        await send_ahead(self._control, program)

    async def start(self, program: Program) -> None:
        """See `Slot.start`."""
        await send_program(self._control, program)

    async def new_stream(self) -> tuple[socket.socket, socket.socket]:
        """See `Slot.new_stream`."""
        return socket.socketpair()

    async def wait(self) -> None:
        """See `Slot.wait`."""
        await wait_readable(self._family.pidfd)

    def terminate(self) -> None:
        """See `Slot.terminate`."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._family.pidfd, signal.SIGTERM)

    def extend(self, seconds: float) -> None:
        """See `Slot.extend`. Nothing inside knows the time."""

    async def freeze(self) -> None:
        """See `Slot.freeze`. By SIGSTOP alone: a program that has itself woken runs on."""
        await self._family.stop()

    async def thaw(self) -> None:
        """See `Slot.thaw`."""
        self._family.wake()

    async def kill(self) -> tuple[Exit, Usage]:
        """See `Slot.kill`."""
        return await self._family.end()


class _Family:
    """A process, everything in its session, and every descendant that can still be traced to it.

    A descendant that left the session and whose parent is dead is nobody's we know:
    the price of no pid namespace. The zombie is reaped last, so its id cannot be
    another process's while we look for its family.
    """

    def __init__(self, forks: Forks, leader: int) -> None:
        self._forks, self._leader = forks, leader
        self.pidfd = os.pidfd_open(leader)
        self._ended: tuple[Exit, Usage] | None = None
        self._stopped: set[int] = set()

    def close(self) -> None:
        os.close(self.pidfd)

    async def stop(self) -> None:
        """SIGSTOP to all of them, until none runs."""
        try:
            async with asyncio.timeout(_STOP_S):
                before: set[int] | None = None  # a family that changes has somebody who was missed
                while (family := _family_of(self._leader)) != before or _running(family):
                    before, running = family, _running(family)
                    self._stopped |= running
                    _signal(running, signal.SIGSTOP)
                    await asyncio.sleep(_LOOK_AGAIN_S)
        except TimeoutError as error:
            self.wake()
            raise SetupFailed("freeze", f"processes run on {_STOP_S:.0f} s after SIGSTOP") from error

    def wake(self) -> None:
        """SIGCONT to those that were stopped here."""
        _signal(self._stopped & _family_of(self._leader), signal.SIGCONT)
        self._stopped.clear()

    async def end(self) -> tuple[Exit, Usage]:
        """Kill all of them; how the first one ended."""
        if self._ended is None:
            try:
                async with asyncio.timeout(_KILL_S):
                    while alive := _family_of(self._leader):
                        _signal(alive, signal.SIGKILL)
                        await asyncio.sleep(_LOOK_AGAIN_S)
                    await wait_readable(self.pidfd)
            except TimeoutError as error:
                raise CleanupFailed(f"processes outlive SIGKILL by {_KILL_S:.0f} s") from error
            self._ended = self._forks.reap(self._leader)
        return self._ended


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _running(family: Iterable[int]) -> set[int]:
    return {pid for pid in family if (facts := _facts(pid)) and facts[0] not in "ZXTt"}


def _family_of(leader: int) -> set[int]:
    """The living processes of *leader*'s session and the descendants of all of them."""
    processes = {pid: facts for pid in _pids() if (facts := _facts(pid))}
    family = {pid for pid, (_, _, session) in processes.items() if pid == leader or session == leader}
    grown = True
    while grown:
        more = {pid for pid, (_, parent, _) in processes.items() if parent in family} - family
        family |= more
        grown = bool(more)
    return {pid for pid in family if processes[pid][0] not in "ZX"}


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _facts(pid: int) -> tuple[str, int, int] | None:
    """State, parent and session of *pid*."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    state, parent, _, session, *_ = text.rpartition(")")[2].split()
    return state, int(parent), int(session)


def _folder(stack: AsyncExitStack) -> str:
    root = tempfile.mkdtemp(prefix="isorun-fake-")
    stack.callback(_remove, root)
    for name in ("work", "out"):
        Path(root, name).mkdir()
    return root


def _remove(root: str) -> None:
    try:
        shutil.rmtree(root)
    except OSError as error:
        raise CleanupFailed(f"{root} stays behind: {error.strerror or error}") from error


def _directories(stack: AsyncExitStack, root: str) -> tuple[int, int]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    work, out = (os.open(f"{root}/{name}", flags) for name in ("work", "out"))
    stack.callback(os.close, work)
    stack.callback(os.close, out)
    return work, out


class _Ends(Ends):
    """With `tools`, a tool stream, and its other end as the fourth of theirs: no slot makes it."""

    def __init__(self, stack: AsyncExitStack) -> None:
        super().__init__(stack)
        self.tools = self._socket(stack)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What one slot does. The parts happen in the order of the fields.

    `exit` None: it hangs, and SIGTERM ends it with `at_sigterm` (None: it hangs on
    until it is killed). `lost` is raised by `wait` or `kill`, whichever comes first,
    as when the zygote dies during the run.
    """

    build: SetupFailed | None = None
    dead: bool = False  # before its program came
    start: SetupFailed | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    stream: tuple[bytes | Message, ...] = ()  # on the tool stream, raw or encoded
    files: Mapping[str, bytes] = field(default_factory=dict)  # below out/
    exit: Exit | None = None
    at_sigterm: Exit | None = None
    lost: SetupFailed | None = None


class ScriptedBackend(FakeBackend):
    """Slots that follow *scripts*, one each; the last one again and again."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self.launched = 0

    @asynccontextmanager
    async def launch(self, limits: Limits, *, loopback: bool = False) -> AsyncIterator[Slot]:
        """A slot without a process; see `Backend.launch`."""
        script = self._scripts[min(self.launched, len(self._scripts) - 1)]
        self.launched += 1
        if script.build is not None:
            raise script.build
        async with AsyncExitStack() as stack:
            root = _folder(stack)
            ends = _Ends(stack)
            yield ScriptedSlot(script, ends, *_directories(stack, root))


class ScriptedSlot:
    """See `Slot`. What it says must fit the kernel's buffers: nobody reads while it speaks."""

    isolation = ISOLATION

    def __init__(self, script: Script, ends: _Ends, work: int, out: int) -> None:
        self.stdout, self.stderr, self.tools = ends.stdout, ends.stderr, ends.tools
        self.work, self.out = work, out
        self._script = script
        self._ends = ends
        self._exit = script.exit
        self._over = asyncio.Event()

    def origin(self, folder: Path) -> tuple[str, ...]:
        """See `Slot.origin`."""
        return ()

    @property
    def is_waiting(self) -> bool:
        """See `Slot.is_waiting`."""
        return not self._script.dead

    async def store(self, program: Program) -> None:
        """See `Slot.store`."""

    async def start(self, program: Program) -> None:
        """Say and write all that the script has, then end or hang."""
        script = self._script
        if script.start is not None:
            raise script.start
        _, stdout, stderr, tools = self._ends.theirs()
        os.write(stdout, script.stdout)
        os.write(stderr, script.stderr)
        for words in script.stream:
            os.write(tools, words if isinstance(words, bytes) else encode(words))
        for path, data in script.files.items():
            _write(self.out, path, data)
        if script.exit is not None or script.lost is not None:
            self._over.set()

    async def new_stream(self) -> tuple[socket.socket, socket.socket]:
        """See `Slot.new_stream`."""
        return socket.socketpair()

    async def wait(self) -> None:
        """See `Slot.wait`."""
        await self._over.wait()
        if self._script.lost is not None:
            raise self._script.lost

    def terminate(self) -> None:
        """See `Slot.terminate`."""
        if self._script.at_sigterm is not None:
            self._exit = self._exit or self._script.at_sigterm
            self._over.set()

    def extend(self, seconds: float) -> None:
        """See `Slot.extend`."""

    async def freeze(self) -> None:
        """See `Slot.freeze`: without a process."""

    async def thaw(self) -> None:
        """See `Slot.thaw`."""

    async def kill(self) -> tuple[Exit, Usage]:
        """See `Slot.kill`."""
        if self._script.lost is not None:
            raise self._script.lost
        self._ends.close_theirs()
        self._over.set()
        return self._exit or Exit(signal=signal.SIGKILL), Usage(cpu_s=0.0, max_rss_bytes=0)


def _write(directory: int, path: str, data: bytes) -> None:
    *folders, name = path.split("/")
    at = os.dup(directory)
    for folder in folders:
        with suppress(FileExistsError):
            os.mkdir(folder, dir_fd=at)
        inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
        os.close(at)
        at = inner
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=at)
    os.write(descriptor, data)
    os.close(descriptor)
    os.close(at)
