"""What a program and its caller may rely on, as claims that any `Backend` can be held to.

    from isorun.testing.kit import check

    found = check(MyBackend)
    assert all(said is True for said in found.values()), found

A claim is a function here that runs programs and asserts. None asks for a particular kernel, wall or ceiling: whether
a program is sealed is for the attacks of isorun's own tests to say, and this kit must not be taken for them.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from isorun.api import SyncRuntime
from isorun.backends.base import Backend
from isorun.core.result import RunResult
from isorun.settings import Settings

Left = Callable[[], set[str]]
_SETTLE_S = 10.0  # slots are taken down in the background
_WAITS = "import time\nprint('begun', flush=True)\ntime.sleep(60)\n"


@dataclass(frozen=True)
class Bench:
    """What a claim has: a Runtime on the backend, a folder of its own, and what makes another Runtime."""

    runtime: Any  # a SyncRuntime, whose methods are made of Runtime's
    folder: Path
    open_runtime: Callable[[], contextlib.AbstractContextManager[Any]]
    left: Left

    def run(self, code: str, **options: object) -> RunResult:
        """One program; twenty seconds unless told."""
        result: RunResult = self.runtime.execute(code, **{"timeout_s": 20, **options})
        return result


Claim = Callable[[Bench], None]


def check(make_backend: Callable[[], Backend], *, left: Left | None = None) -> dict[str, Literal[True] | str]:
    """Hold the backend to every claim: by its name True, or why it does not hold.

    *make_backend* gives a new backend, not entered, each time. *left* names what the backend has made beyond this
    process, such as containers; after a Runtime was left it must give what it gave before. Raises what entering the
    backend raises, as then nothing can be said of it.
    """
    with tempfile.TemporaryDirectory(prefix="isorun-kit-") as folder:
        Path(folder).chmod(0o755)  # a program's user may have to pass through it
        bench_of = _benches(make_backend, left or set, Path(folder))
        with next(bench_of).open_runtime() as runtime:
            return {
                name: _held(claim, Bench(runtime, bench.folder, bench.open_runtime, bench.left))
                for (name, claim), bench in zip(CLAIMS.items(), bench_of, strict=False)
            }


def _benches(make_backend: Callable[[], Backend], left: Left, folder: Path) -> Iterator[Bench]:
    def open_runtime() -> contextlib.AbstractContextManager[Any]:
        runtime: contextlib.AbstractContextManager[Any] = SyncRuntime(
            backend=make_backend(), settings=Settings(), pool_size=0, workspace_root=folder / "runs"
        )
        return runtime

    number = 0
    while True:
        own = folder / str(number)
        own.mkdir()
        yield Bench(None, own, open_runtime, left)
        number += 1


def _held(claim: Claim, bench: Bench) -> Literal[True] | str:
    try:
        claim(bench)
    except AssertionError as error:
        return str(error) or "it does not hold"
    except Exception as error:  # noqa: BLE001 - a backend may fail in any way, and the other claims are still asked
        return f"{type(error).__name__}: {error}"
    return True


def _same(found: object, wanted: object, result: RunResult | None = None) -> None:
    """Not `assert`: `python -O` must not make every backend pass."""
    if found != wanted:
        report = f"\n{result.report_text}" if result else ""
        raise AssertionError(f"got {found!r}, not {wanted!r}{report}")


# ---- the claims ----------------------------------------------------------------------------------


def _output(bench: Bench) -> None:
    """Both streams come whole and apart, as text, and nothing else is in them."""
    result = bench.run("import sys\nprint('é 東京')\nprint('beside', file=sys.stderr)")
    _same((result.status, result.stdout, result.stderr), ("ok", "é 東京\n", "beside\n"), result)


def _exit_code(bench: Bench) -> None:
    """An exit, an exception and a signal each give their status and their number."""
    endings = {
        "raise SystemExit(7)": ("failed", 7, None),
        "raise ValueError('no')": ("failed", 1, None),
        "import os; os.kill(os.getpid(), 11)": ("killed", None, 11),
    }
    for code, wanted in endings.items():
        result = bench.run(code)
        _same((result.status, result.exit_code, result.signal), wanted, result)


def _timeout(bench: Bench) -> None:
    """A program that does not end is ended, and what it had printed is kept."""
    began = time.monotonic()
    result = bench.run("print('begun', flush=True)\nwhile True: pass", timeout_s=1)
    _same((result.status, result.stdout), ("timed_out", "begun\n"), result)
    _same(1 <= time.monotonic() - began < 30, True)


def _cancel(bench: Bench) -> None:
    """A run that its caller cancels ends at once with what came until then."""
    run = bench.runtime.start(_WAITS, timeout_s=60)
    next(event for event in run.events() if event.kind == "output")
    result = run.cancel()
    _same((result.status, result.stdout), ("cancelled", "begun\n"), result)


def _frozen(bench: Bench) -> None:
    """A program stands still while it is frozen, goes on when it is thawed, and is cancelled frozen as any other."""
    ticks = "import itertools, time\nfor n in itertools.count():\n    print(n, flush=True)\n    time.sleep(0.01)"
    told: list[bytes] = []
    run = bench.runtime.start(ticks, timeout_s=60, on_output=lambda _, data: told.append(data))
    next(event for event in run.events() if event.kind == "output")
    run.freeze()
    time.sleep(1.5)  # what it had printed before is told
    before = len(told)
    time.sleep(0.5)
    _same(len(told), before)
    run.thaw()
    until = time.monotonic() + _SETTLE_S
    while len(told) == before and time.monotonic() < until:
        time.sleep(0.01)
    _same(len(told) > before, True)
    run.freeze()
    _same(run.cancel().status, "cancelled")
    run.freeze()
    run.thaw()


def _frozen_time(bench: Bench) -> None:
    """What a run is frozen does not count to its timeout."""
    code = "import time\nend = time.time() + 6\nprint(flush=True)\nwhile time.time() < end: pass"
    run = bench.runtime.start(code, timeout_s=5)
    next(event for event in run.events() if event.kind == "output")
    with run.frozen():
        time.sleep(6.5)
    _same(run.result().status, "ok")


def _inputs(bench: Bench) -> None:
    """Files and folders lie beside the program, byte for byte, and the program's changes do not reach the caller's."""
    data = bytes(range(256)) * 300
    (bench.folder / "in.bin").write_bytes(data)
    (bench.folder / "more").mkdir()
    (bench.folder / "more" / "a.txt").write_text("deep")
    result = bench.run(
        "data = open('../work/in.bin', 'rb').read()\n"
        "print(len(data), data == bytes(range(256)) * 300, open('../work/more/a.txt').read())\n"
        "open('../work/in.bin', 'wb').close()",
        inputs=[bench.folder / "in.bin", bench.folder / "more"],
    )
    _same((result.status, result.stdout), ("ok", "76800 True deep\n"), result)
    _same((bench.folder / "in.bin").read_bytes() == data, True)


def _artifacts(bench: Bench) -> None:
    """What the program writes below out/ is the caller's, byte for byte, and so is what it writes beside itself."""
    code = (
        "(OUT / 'a').mkdir()\n(OUT / 'a' / 'b.bin').write_bytes(bytes(range(256)) * 300)\n"
        "Path('../work/scratch').write_text('x')"
    )
    result = bench.run(code)
    found = [(artifact.path, artifact.bytes) for artifact in result.artifacts]
    _same((result.status, found), ("ok", [("a/b.bin", 76800), ("scratch", 1)]), result)
    _same(result.artifacts[0].file.read_bytes() == bytes(range(256)) * 300, True)


def _contract(bench: Bench) -> None:
    """A kept promise is `ok`. A broken one is named, and the run is not ok."""
    promise = [{"filename": "turn_1/files/a.txt", "description": "a"}]
    kept = bench.run("Path(CONTRACT[0]['filename']).write_text('x')", contract=promise, turn_id=1)
    _same((kept.status, kept.succeeded, kept.missing), ("ok", ("turn_1/files/a.txt",), ()), kept)
    broken = bench.run("pass", contract=promise, turn_id=1)
    wanted = ("contract_failed", False, (), ("turn_1/files/a.txt",))
    _same((broken.status, broken.ok, broken.succeeded, broken.missing), wanted, broken)


def _stdin(bench: Bench) -> None:
    """The program reads what it was given to its end, and nothing where it was given nothing."""
    code = "import sys\nprint(len(sys.stdin.read()))"
    for given, wanted in (("é" * 100_000, "100000\n"), (None, "0\n")):
        result = bench.run(code, stdin=given)
        _same((result.status, result.stdout), ("ok", wanted), result)


def _arguments(bench: Bench) -> None:
    """They are the program's words, exactly."""
    words = ["--flag", "a b", "é\n", ""]
    result = bench.run("import sys, json\nprint(json.dumps(sys.argv[1:]))", argv=words)
    _same((result.status, result.stdout), ("ok", '["--flag", "a b", "\\u00e9\\n", ""]\n'), result)


def _big_output(bench: Bench) -> None:
    """Output larger than any pipe holds its order and loses no line."""
    result = bench.run("for number in range(60_000): print(number)")
    _same(result.status, "ok", result)
    _same(result.stdout == "".join(f"{number}\n" for number in range(60_000)), True)


def _two_at_once(bench: Bench) -> None:
    """Each of two programs that run at the same time has its own files and output."""
    runs = [bench.runtime.start(_WAITS, timeout_s=60)]
    next(event for event in runs[0].events() if event.kind == "output")
    code = "(OUT / 'whose').write_text({0!r})\nprint({0!r}, [path.name for path in OUT.iterdir() if path.is_file()])"
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda whose: bench.run(code.format(whose)), ["first", "second"]))
    _same([result.stdout for result in results], ["first ['whose']\n", "second ['whose']\n"], results[0])
    _same([result.artifacts[0].file.read_text() for result in results], ["first", "second"])
    _same(runs[0].cancel().status, "cancelled")


def _fresh(bench: Bench) -> None:
    """No run sees a file that the run before it left in work/ or out/."""
    look = "print([Path(place).exists() for place in ('left', '../work/left')])"
    _same(
        bench.run(f"for place in 'left', '../work/left': Path(place).write_text('x')\n{look}").stdout, "[True, True]\n"
    )
    result = bench.run(look)
    _same((result.status, result.stdout), ("ok", "[False, False]\n"), result)


def _ends_with_its_processes(bench: Bench) -> None:
    """A process that the program leaves behind does not keep the run from ending."""
    began = time.monotonic()
    result = bench.run("import subprocess\nsubprocess.Popen(['sleep', '60'])\nprint('done')", timeout_s=40)
    _same((result.status, result.stdout), ("ok", "done\n"), result)
    _same(time.monotonic() - began < 30, True)


def _nothing_left(bench: Bench) -> None:
    """A Runtime that is left with a run still in it leaves no process, no descriptor and nothing that *left* names."""
    with bench.open_runtime() as runtime:
        runtime.execute("pass", timeout_s=20)  # whatever is made once in a process
    before = _held_now(bench.left)
    with bench.open_runtime() as runtime:
        runtime.execute("pass", timeout_s=20)
        run = runtime.start(_WAITS, timeout_s=60)
        next(event for event in run.events() if event.kind == "output")
    until = time.monotonic() + _SETTLE_S
    while (more := _held_now(bench.left) - before) and time.monotonic() < until:
        time.sleep(0.05)
    _same(sorted(more), [])


def _held_now(left: Left) -> set[str]:
    """What there is: our children, our descriptors by what they are, and what the backend names."""
    children, descriptors = set(), set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            if parent == os.getpid():
                children.add(f"process {int(entry.name)}")
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            descriptors.add(f"descriptor {entry.name}: {entry.readlink()}")
    return children | {one for one in descriptors if "/proc/" not in one} | left()


#: Every claim by its name, in the order in which they are asked.
CLAIMS: dict[str, Claim] = {
    "output": _output,
    "exit codes": _exit_code,
    "timeout": _timeout,
    "cancel": _cancel,
    "frozen": _frozen,
    "frozen time": _frozen_time,
    "inputs": _inputs,
    "artifacts": _artifacts,
    "contract": _contract,
    "stdin": _stdin,
    "arguments": _arguments,
    "big output": _big_output,
    "two at once": _two_at_once,
    "a fresh workspace": _fresh,
    "left processes": _ends_with_its_processes,
    "nothing left": _nothing_left,
}
