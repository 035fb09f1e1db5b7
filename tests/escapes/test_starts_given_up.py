"""Starts that are given up at any moment, 500 of them: nothing of one is left.

No attacker is needed: a caller that is cancelled, or a service that is killed, gives up a start. Slots, jails and whole
processes are given up, each at moments spread over as long as an undisturbed one takes.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from isorun import Runtime, Unavailable
from isorun.backends.namespace import spawn
from isorun.backends.namespace.backend import NamespaceBackend, Options
from tests.escapes.conftest import SMALL

pytestmark = pytest.mark.alone

JAILS, SLOTS, PROCESSES, RUNTIMES = 60, 300, 25, 10  # for each of two seeds, one, two
MARK = "ISORUN_TEST_STARTS"


def _carrying(mark: str) -> list[str]:
    """The processes with *mark* in their command line or environment, wherever they were reparented to."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                text = b"".join(Path(f"/proc/{entry.name}/{name}").read_bytes() for name in ("cmdline", "environ"))
                if mark.encode() in text:
                    found.append(f"{entry.name} {text[:200]!r}")
    return found


def _descendants() -> set[int]:
    """Every process, zombies too, that we or the group of one of our jails has."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        with suppress(OSError, ValueError):
            fields = Path(f"/proc/{int(entry.name)}/stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    todo, found = [os.getpid()], set[int]()
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo += below
    return found


def _grandchildren() -> str:
    found = ""
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            with suppress(OSError):
                found += Path(f"/proc/{child}/task/{child}/children").read_text()
    return found


async def _until_a_grandchild(start: "asyncio.Future[object]") -> None:
    born = asyncio.get_running_loop().create_future()

    def look() -> None:
        if _grandchildren() or start.done():
            born.set_result(None)
        else:
            asyncio.get_running_loop().call_soon(look)

    look()
    await born


def _stages() -> set[str]:
    return {str(path) for place in spawn.staging_places() for path in place.glob(f"{spawn.STAGE}*")}


def _groups(pid: int) -> set[str]:
    return {f"{at}/{name}" for at, names, _ in os.walk("/sys/fs/cgroup") for name in names if f"isorun-{pid}-" in name}


@asynccontextmanager
async def _nothing_left() -> AsyncIterator[None]:
    before = _descendants(), _stages(), _bubblewraps(), len(os.listdir("/proc/self/fd"))
    yield
    after = _descendants(), _stages() & before[1], _bubblewraps(), len(os.listdir("/proc/self/fd"))
    left = after[0] - before[0], after[2] - before[2]
    assert left == (set(), set())
    assert after[3] <= before[3], "descriptors"


def _bubblewraps() -> set[int]:
    """Every bubblewrap with a command line of this checkout's, an orphan too."""
    found = set()
    for entry in os.scandir("/proc"):
        with suppress(OSError, ValueError):
            line = Path(f"/proc/{int(entry.name)}/cmdline").read_bytes()
            if b"--unshare-user" in line and str(Path(spawn.__file__).parents[2]).encode() in line:
                found.add(int(entry.name))
    return found


async def _given_up(make: Callable[[], object], count: int, seed: int, *, born: bool = False) -> int:
    """Cancel *count* of what *make* gives, at moments that an undisturbed one takes; how many had come to their end.

    With *born* every second one is given up within the 2 ms after a child of ours has its first child.
    """
    chance, ended = random.Random(seed), 0
    started = time.monotonic()
    await asyncio.ensure_future(make())
    whole = time.monotonic() - started
    for number in range(count):
        task = asyncio.ensure_future(make())
        if born and number % 2:
            await _until_a_grandchild(task)
            done, _ = await asyncio.wait({task}, timeout=chance.uniform(0, 0.002))
        else:
            done, _ = await asyncio.wait({task}, timeout=chance.uniform(0, whole))
        ended += len(done)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()
    return ended


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_jail_that_is_given_up_leaves_nothing(require, seed) -> None:
    """Cancelled at 60 moments from the first to the last of its start, bubblewrap, its child and its folder are
    gone."""

    async def start() -> None:
        async with NamespaceBackend():
            pass

    try:
        await start()
    except Unavailable as error:
        require("namespace", str(error))
    kept = _groups(os.getpid())  # by the runtimes of this session, for later slots
    async with _nothing_left():
        ended = await _given_up(start, JAILS, seed, born=True)
    assert ended < JAILS  # most were given up: the longest pause is as long as one start
    assert _groups(os.getpid()) <= kept


async def test_a_runtime_that_is_given_up_leaves_nothing(tmp_path, tool_bundle) -> None:
    """Cancelled at 10 moments of its start, its supervisor, watcher, pool and jail are gone."""

    async def start() -> None:
        settings = {"pool_size": 2, "bundle": tool_bundle, "workspace_root": tmp_path}
        async with Runtime(backend=NamespaceBackend(), **settings):
            pass

    await start()
    async with _nothing_left():
        await _given_up(start, RUNTIMES, seed=6)
    assert [str(path) for path in tmp_path.glob(".isorun-*/*")] == []


@pytest.mark.embedded
async def test_a_slot_that_is_given_up_leaves_nothing(ceilings) -> None:
    """Cancelled at 300 moments of its build, its init and its program are gone while the jail goes on."""
    async with NamespaceBackend(Options(use_cgroup=ceilings == "cgroup")) as backend:

        async def build() -> None:
            async with backend.launch(SMALL):
                pass

        await build()
        async with _nothing_left():
            await _given_up(build, SLOTS, seed=3)
            jail = await backend._current()
            assert not jail.jail.remains
        await build()


_HOST = """
import asyncio
from isorun.backends.namespace.backend import NamespaceBackend
async def main():
    async with NamespaceBackend():
        print("up", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("seed", [4, 5])
def test_a_host_that_is_killed_while_it_starts_leaves_no_process(seed) -> None:
    """SIGKILL to the whole process at 25 moments of its start: what it had begun ends by itself."""
    mark = f"{MARK}_{os.getpid()}_{seed}"
    argv = [sys.executable, "-c", f"{_HOST}# {mark}"]
    chance, before = random.Random(seed), _bubblewraps()
    whole = _killed_after(argv, None)
    for _ in range(PROCESSES):
        _killed_after(argv, chance.uniform(0.3, 1.1) * whole)
    deadline = time.monotonic() + 10
    while (left := _bubblewraps() - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == set(), [Path(f"/proc/{pid}/stat").read_text() for pid in left]
    assert _carrying(mark) == []


def _killed_after(argv: list[str], seconds: float | None) -> float:
    """How long the start took, if *seconds* is None."""
    started = time.monotonic()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env={**os.environ, "PYTHONWARNINGS": "ignore"}) as process:
        assert process.stdout is not None
        if seconds is None:
            assert process.stdout.readline() == b"up\n"
        else:
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
        whole = time.monotonic() - started
        process.send_signal(signal.SIGKILL)
        process.stdout.read()
    return whole
