"""Thousands of runs of every kind of ending, three at a time, and what is left of them: statuses, things, growth.

By hand: `python -m tests.escapes.soak 10000`. `test_soak` asserts the same of 2,000.
"""

import asyncio
import ctypes
import gc
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isorun import Limits, RunResult, Runtime
from isorun.backends.namespace import spawn
from isorun.backends.namespace.backend import NamespaceBackend
from tests.bundles import write_bundle

AT_ONCE, POOL = 3, 3
_MIB = 1 << 20
LIMITS = Limits(
    wall_s=30.0,
    memory_bytes=128 * _MIB,
    processes=32,
    workspace_bytes=4 * _MIB,
    workspace_inodes=200,
    file_bytes=2 * _MIB,
    tmp_bytes=4 * _MIB,
    shm_bytes=4 * _MIB,
    open_files=256,
    log_bytes=_MIB,
    result_bytes=64 << 10,
    output_bytes=2 * _MIB,
    grace_s=0.1,
)
_TOOLS = '''
import asyncio
@isorun.tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b
@isorun.tool
def fails() -> int:
    """Fail."""
    raise ValueError("no")
@isorun.tool
async def waits() -> int:
    """Wait."""
    await asyncio.sleep(3600)
'''
_JSON = {"contract": [{"filename": "turn_1/files/a.json", "description": "d"}], "turn_id": 1}
_CALL = "agent_io_tools.tool_call_sync(tool_id={!r}, params={})"
_ADD = _CALL.format("t.add", "dict(a=n, b=1)")


@dataclass(frozen=True, slots=True)
class Kind:
    """A program, how it is run, and how it ends."""

    code: str
    status: str
    options: Mapping[str, Any] = field(default_factory=dict)


_SHORT = {"timeout_s": 0.3}
KINDS = {
    "ok": Kind("print('done'); open('a.txt', 'w').write('x')", "ok"),
    "raises": Kind("raise ValueError('x')", "failed"),
    "exit 3": Kind("import sys; sys.exit(3)", "failed"),
    "_exit": Kind("import os; os._exit(4)", "failed"),
    "segfault": Kind("import ctypes; ctypes.string_at(0)", "killed"),
    "abort": Kind("import os; os.abort()", "killed"),
    "SIGKILL": Kind("import os; os.kill(os.getpid(), 9)", "killed"),
    "busy": Kind("while True: pass", "timed_out", _SHORT),
    "sleeps": Kind("import time; time.sleep(60)", "timed_out", _SHORT),
    "ignores SIGTERM": Kind(
        "import signal\nsignal.signal(15, signal.SIG_IGN)\nwhile True: signal.pause()", "timed_out", _SHORT
    ),
    "stopped": Kind("import os; os.kill(os.getpid(), 19)", "timed_out", _SHORT),
    "memory": Kind("kept = []\nwhile True: kept.append(bytearray(1 << 24))", "out_of_memory"),
    "children": Kind("import os, signal\nfor _ in range(12):\n    if os.fork() == 0: signal.pause()", "ok"),
    "siblings": Kind("import ctypes\nfor _ in range(4): ctypes.CDLL(None).syscall(56, 0x8011, 0, 0, 0, 0)", "ok"),
    "processes": Kind("import os, signal\nwhile True:\n    if os.fork() == 0: signal.pause()", "limit_exceeded"),
    "flood": Kind("while True: print('x' * 65536)", "limit_exceeded"),
    "disk": Kind("for n in range(99): open(str(n), 'wb').write(bytes(1 << 20))", "limit_exceeded"),
    "inodes": Kind("for n in range(999): open(str(n), 'w').close()", "limit_exceeded"),
    "file": Kind("open('a', 'wb').write(bytes(3 << 20))", "limit_exceeded"),
    "protocol": Kind("import os, time; os.write(3, b'x' * 64); time.sleep(60)", "protocol_violation"),
    "half a frame": Kind("import os; os.write(3, b'\\0\\0\\0\\x20\\0\\0')", "ok"),
    "closed": Kind("import os; os.closerange(0, 10); os._exit(0)", "ok"),
    "tools": Kind(f"for n in range(20): assert {_ADD} == n + 1", "ok"),
    "failing tool": Kind(_CALL.format("t.fails", "{}"), "failed"),
    "tool past the deadline": Kind(_CALL.format("t.waits", "{}"), "timed_out", _SHORT),
    "kept": Kind("open('turn_1/files/a.json', 'w').write('[1]')", "ok", _JSON),
    "bad": Kind("open('turn_1/files/a.json', 'w').write('[1')", "contract_failed", _JSON),
    "missing": Kind("pass", "contract_failed", _JSON),
    "a link": Kind("import os; os.symlink('/etc/passwd', 'turn_1/files/a.json')", "contract_failed", _JSON),
    "daemon": Kind(
        "import os, signal\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: signal.pause()", "ok"
    ),
    "threads": Kind(
        "import threading\nfor _ in range(12): threading.Thread(target=threading.Event().wait, daemon=True).start()",
        "ok",
    ),
    "in flight": Kind(
        "import socket\na, b = socket.socketpair()\nfor _ in range(20): socket.send_fds(a, [b'x'], [0, 1])", "ok"
    ),
    "stderr": Kind("import sys; sys.stderr.write('x' * 900_000)", "ok"),
    "cancelled": Kind("import time; time.sleep(60)", "cancelled"),
    "unread": Kind("for n in range(500): print(n)", "ok"),
}


@dataclass(frozen=True, slots=True)
class Held:
    """What this process held at a moment at which no run was going on.

    Memory that the allocator only keeps for the next one who asks is not held: of a session with forty threads it was
    up to 14 MiB more or less from one look to the next.
    """

    rss_bytes: int
    descriptors: int
    threads: int
    objects: int
    processes: int
    mounts: int

    @classmethod
    def now(cls, root: Path) -> "Held":
        """Now; of the mounts those of a jail's, and below *root*: this machine's others are not ours."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        return cls(
            rss_bytes=int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
            descriptors=len(os.listdir("/proc/self/fd")),
            threads=threading.active_count(),
            objects=len(gc.get_objects()),
            processes=len(descendants()),
            mounts=sum(spawn.STAGE in line or str(root) in line for line in _mounts()),
        )


@dataclass(slots=True)
class Report:
    """What became of them. `wrong` names each run that ended otherwise than its kind does."""

    runs: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    held: dict[str, Held] = field(default_factory=dict)  # before, middle, end, closed
    without_result: int = 0
    left: list[str] = field(default_factory=list)
    took_s: float = 0.0


def _mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def descendants() -> set[int]:
    """Every process, zombies too, that comes from us."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        with suppress(OSError, ValueError):
            parent = int(Path(f"/proc/{int(entry.name)}/stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    todo, found = [os.getpid()], set[int]()
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo += below
    return found


async def soak(runs: int, root: Path, seed: int = 0) -> Report:
    """Run *runs* programs below *root*, of every kind in turn, and look at what is left."""
    report, began = Report(), time.monotonic()
    bundle = write_bundle(root / "bundle", t=_TOOLS)
    order = [name for _ in range(-(-runs // len(KINDS))) for name in KINDS][:runs]
    random.Random(seed).shuffle(order)
    report.held["before"] = Held.now(root)
    async with Runtime(
        backend=NamespaceBackend(), limits=LIMITS, pool_size=POOL, bundle=bundle, workspace_root=root / "runs"
    ) as runtime:
        quarter = max(runs // 4, 1)
        await _all(runtime, order[:quarter], report)
        report.held["middle"] = await _quiet(runtime, root)
        await _all(runtime, order[quarter:], report)
        report.held["end"] = await _quiet(runtime, root)
    report.held["closed"] = Held.now(root)
    report.left = _left(root / "runs")
    report.took_s = time.monotonic() - began
    return report


async def _all(runtime: Runtime, order: list[str], report: Report) -> None:
    todo = iter(order)

    async def worker() -> None:
        for name in todo:
            await _one(runtime, name, report)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))


async def _one(runtime: Runtime, name: str, report: Report) -> None:
    kind = KINDS[name]
    report.runs[name] += 1
    try:
        run = await runtime.start(kind.code, **{"timeout_s": 20.0, **kind.options})
        if name == "unread":
            run.events()
        if name == "cancelled":
            await asyncio.sleep(random.uniform(0, 0.05))
            result = await run.cancel()
        else:
            result = await run.result()
    except Exception as error:  # noqa: BLE001 - it is counted, and shown
        report.wrong.append(f"{name}: {error!r}")
        return
    if result.status != kind.status:
        report.wrong.append(f"{name}: {result.status} {result.error}")
    report.without_result += not _is_stored(result)
    await asyncio.to_thread(shutil.rmtree, result.out_dir.parent)


def _is_stored(result: RunResult) -> bool:
    try:
        return bool(json.loads((result.out_dir / "result.json").read_text())["status"] == result.status)
    except (OSError, ValueError):
        return False


async def _quiet(runtime: Runtime, root: Path) -> Held:
    """What is held once every slot of the past is gone and both pools are full again."""
    for _ in range(2000):
        pools = [pool for pool in (runtime._pool, runtime._course.inspection._inspectors._pool) if pool]
        if len(pools) == 2 and all(p.waiting == p._size and not p._closing and not p._building for p in pools):
            break
        await asyncio.sleep(0.01)
    return Held.now(root)


def _left(root: Path) -> list[str]:
    found = [str(path) for path in root.rglob("*") if path.name != f".isorun-{os.geteuid()}"]
    for at, names, _ in os.walk("/sys/fs/cgroup"):
        found += [f"{at}/{name}" for name in names if name.startswith(f"isorun-{os.getpid()}-")]
    return found


def main() -> int:
    """Print the report; 1 if a status was wrong or something is left."""
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(soak(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000, Path(folder)))
    print(f"{report.runs.total()} runs of {len(report.runs)} kinds in {report.took_s:.0f} s")
    print(f"statuses wrong: {len(report.wrong)}; results missing: {report.without_result}; left: {len(report.left)}")
    for name, held in report.held.items():
        print(f"{name}: {held}")
    print(*report.wrong[:20], *report.left[:20], sep="\n")
    return int(bool(report.wrong or report.left or report.without_result))


if __name__ == "__main__":
    sys.exit(main())
