"""Tools that run in processes of their own: the same answers as in the supervisor, and what a bad ending costs.

The supervisor is a real one; the programs are these tests, each with a stream of its own.
"""

import asyncio
import os
import re
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from isorun.core.sent.claim import Claim
from isorun.doctor.tidy import remove_temporary
from isorun.kernel.readiness import Channel
from isorun.runtime.services import mode_policy_of
from isorun.settings import Settings, base_environment
from isorun.supervisor.client import Supervisor
from isorun.supervisor.descriptor import load_descriptor
from isorun.supervisor.session import CallLimits
from isorun.supervisor.worker.modes import ModePolicy
from isorun.supervisor.worker.spawner import TEMPORARY
from isorun.tools import tools_insights
from isorun.wire.messages import Call, Refused, Reply
from isorun.wire.session import Session, Side, State
from tests.bundles import supervisors, write_bundle

pytestmark = pytest.mark.slow  # each test starts a supervisor and its spawner

PATIENCE_S = 50.0
TOOLS = '''
import asyncio, ctypes, dataclasses, datetime, decimal, itertools, mmap, os, re, signal, socket, subprocess, sys, time

CALLS = itertools.count(1)

@dataclasses.dataclass
class Row:
    when: datetime.date
    price: decimal.Decimal

@isorun.tool
def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b

@isorun.tool
async def later(a: int) -> dict:
    """Wait a little."""
    await asyncio.sleep(0.001)
    print("waited")
    return {"a": [a, None, 1.5], "b": b"\\0bytes"}

@isorun.tool
def row(when: datetime.date) -> list[Row]:
    """Types of its own, in and out."""
    assert isinstance(when, datetime.date)
    return [Row(when, decimal.Decimal("1.50"))]

@isorun.tool
def thing() -> object:
    """Not to be sent."""
    return {"a": [1, object()]}

@isorun.tool
def missing() -> float:
    """Not to be sent, either."""
    return float("nan")

@isorun.tool
def long(count: int) -> bytes:
    """Bytes."""
    return b"x" * count

@isorun.tool
def says(text: str) -> None:
    """Refuse in its own words."""
    raise isorun.ToolError(text + "\\udcff")

@isorun.tool
def fails() -> None:
    """Fail."""
    sys.stdout.write("no end")
    raise KeyError("s3cret")

@isorun.tool
async def fails_later() -> None:
    """Fail."""
    await asyncio.sleep(0)
    raise ValueError("s3cret")

@isorun.tool
def prints(text: str, ctx: isorun.ToolContext) -> str:
    """Say it in every way."""
    print("out", text)
    print("err", text, file=sys.stderr)
    ctx.log.warning("log %s", text)
    sys.stdout.write("no end " + text)
    return ctx.log.name

@isorun.tool
def floods() -> None:
    """Print a lot."""
    for number in range(5000):
        print("line", number, "x" * 80)

@isorun.tool
def who(ctx: isorun.ToolContext) -> list:
    """What is known of the run."""
    in_time = 0 < ctx.deadline - time.monotonic() < 60
    return [ctx.user_id, ctx.turn_id, ctx.exec_id, str(ctx.output_dir), in_time, dict(ctx.env)]

@isorun.tool
def writes(path: str, text: str, ctx: isorun.ToolContext) -> str:
    """Write and read a file."""
    with ctx.open_output(path, "w") as file:
        file.write(text)
    with ctx.open_output(path, "r") as file:
        return file.read()

@isorun.tool(network=False)
def sealed(ctx: isorun.ToolContext) -> dict:
    """What a tool without network sees."""
    return seen(ctx)

@isorun.tool
def opened(ctx: isorun.ToolContext) -> dict:
    """What any other tool sees."""
    return seen(ctx)

def seen(ctx):
    return {"net": os.readlink("/proc/self/ns/net"), "environ": dict(os.environ), "env": dict(ctx.env),
            "descriptors": {name: os.readlink(f"/proc/self/fd/{name}") for name in sorted(os.listdir("/proc/self/fd"))
                            if os.path.islink(f"/proc/self/fd/{name}")},
            "session": os.getsid(0) == os.getpid()}

def reach(path, port):
    words = []
    for family, address in ((socket.AF_UNIX, path), (socket.AF_INET, ("127.0.0.1", port))):
        try:
            with socket.socket(family) as one:
                one.settimeout(5)
                one.connect(address)
            words.append("connected")
        except OSError as error:
            words.append(os.strerror(error.errno))
    return words

@isorun.tool(network=False)
def sealed_reach(path: str, port: int) -> list[str]:
    """Connect."""
    return reach(path, port)

@isorun.tool
def open_reach(path: str, port: int) -> list[str]:
    """Connect."""
    return reach(path, port)

@isorun.tool
def counts() -> int:
    """How many calls this process has had."""
    return next(CALLS)

@isorun.tool
def spends(seconds: float) -> list[float]:
    """When it began and ended."""
    began = time.monotonic()
    time.sleep(seconds)
    return [began, time.monotonic()]

@isorun.tool
def leaves(mark: str) -> None:
    """Start processes that have left its session, and do not come back."""
    code = "import sys, time; time.sleep(600)"
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            os.execv(sys.executable, [sys.executable, "-c", code, mark])
        os._exit(0)
    subprocess.Popen([sys.executable, "-c", code, mark], start_new_session=True)
    while True:
        time.sleep(1)

@isorun.tool
def keeps(hangs: bool) -> str:
    """Leave a file in the temporary folder, after which it hangs, perhaps."""
    import tempfile
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(b"what a run gave to its tool")
    while hangs: time.sleep(1)
    return os.path.dirname(file.name) + " " + os.environ["TMPDIR"]

@isorun.tool
def ends(how: str) -> int:
    """End in some way."""
    print("begun")
    if how == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "fault":
        ctypes.string_at(0)
    if how == "exit":
        os._exit(3)
    if how == "spin":
        while True: pass
    if how == "backtrack":
        re.match("(a*)*b", "a" * 64)
    if how == "memory":
        return len(bytearray(10 << 30))
    if how == "closes":
        os.close(3)
        time.sleep(600)
    if how == "garbage":
        os.write(3, b"\\xff" * 64)
        time.sleep(600)
    if how == "too large":
        os.write(3, (1 << 30).to_bytes(4, "big") + bytes(64))
        time.sleep(600)
    if how == "forged":
        os.write(3, bytes([0, 0, 0, 2, 0, 0, 0, 2]) + b"{}")
        time.sleep(600)
    if how == "endless":
        from isorun.wire.messages import Output, encode
        frame = encode(Output(level="INFO", text="x" * 8000))
        while True: os.write(3, frame)
    return 0
'''
LIMITS = CallLimits(calls=100_000, at_once=16, call_s=50.0, frame_bytes=1 << 20)


class Run:
    """A run of a supervisor: what its program is answered, and what the host hears of it (a `opened.RunListener`)."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self._number = channel, 0
        self._answers: dict[int, asyncio.Future[Reply | Refused]] = {}
        self.lines: list[str] = []
        self.records: list[dict[str, Any]] = []

    async def listen(self) -> None:
        while (message := await self._channel.receive()) is not None:
            assert isinstance(message, Reply | Refused)
            self._answers.pop(message.id).set_result(message)

    async def call(self, tool_id: str, timeout_s: float | None = None, /, **params: object) -> Any:  # noqa: ANN401 - a result
        """The result, or the error as `[type, text]`."""
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._channel.send(Call(id=self._number, tool=tool_id, params=params, reason="", timeout_s=timeout_s))
        got = await asyncio.wait_for(answer, PATIENCE_S)
        return got.value if isinstance(got, Reply) else [got.error, got.text]

    def told(self, component: str, level: str, text: str) -> None:
        self.lines.append(f"{level} [{component}] {text}")

    def logged(self, level: str, name: str, text: str) -> None:
        raise AssertionError

    def claimed(self, claim: Claim) -> None:
        raise AssertionError

    def violated(self, reason: str) -> None:
        raise AssertionError(reason)

    def began(self, record: dict[str, Any]) -> None:
        raise AssertionError

    def called(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def journalled(self, records: Sequence[dict[str, Any]]) -> None:
        self.records += records


class Host:
    """A supervisor, and its runs."""

    def __init__(self, supervisor: Supervisor, root: Path) -> None:
        self.supervisor, self._root = supervisor, root

    @asynccontextmanager
    async def run(self, name: str = "out", limits: CallLimits = LIMITS) -> AsyncIterator[Run]:
        out = self._root / name
        out.mkdir(exist_ok=True)
        with ExitStack() as stack:
            ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
            ours.setblocking(False)
            folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, folder)
            run = Run(Channel(ours, Session(Side.PROGRAM, Side.SUPERVISOR, State.OPEN)))
            listening = asyncio.create_task(run.listen())
            opened = await self.supervisor.open(
                exec_id=name,
                turn="turn_1",
                user="u",
                grants=list(self.supervisor.tools),
                limits=limits,
                stream=theirs,
                out=folder,
                listener=run,
            )
            try:
                yield run
            finally:
                ours.shutdown(socket.SHUT_RDWR)
                await opened.close()
                await listening


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", x=TOOLS)


@asynccontextmanager
async def host(bundle: Path, mode: str = "local", **env: str) -> AsyncIterator[Host]:
    """A supervisor of *bundle* whose tools run in *mode*, but those that need a process."""
    environment = {**base_environment(), **env}
    policy = ModePolicy(default=lambda _: mode)
    async with Supervisor(load_descriptor(bundle), environment, mode_policy=policy) as supervisor:
        yield Host(supervisor, bundle.parent)


def below(pid: int) -> set[int]:
    """The live descendants of a process."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents[int(stat.parent.name)] = int(parent)
    found, before = {pid}, 0
    while len(found) != before:
        before = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {pid}


def marked(mark: str) -> list[int]:
    """The live processes with *mark* on their command line."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words, state = line.read_bytes(), (line.parent / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if mark.encode() in words and state != "Z":
            found.append(int(line.parent.name))
    return found


def without_tmpdir() -> dict[str, str]:
    return {name: text for name, text in base_environment().items() if name != "TMPDIR"}


async def comes(true: Callable[[], bool]) -> None:
    """Wait until it is so."""
    until = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until, "it did not come"
        await asyncio.sleep(0.02)


#: `link` and `other.txt` are links out of the run's folder; `elsewhere` is another run's.
LEADING_OUT = ("../c.txt", "/workspace/out/../elsewhere/c.txt", "/etc/c.txt", "link/c.txt", "other.txt")
CALLS: tuple[tuple[str, dict[str, object]], ...] = (
    ("x.add", {"a": 1}),
    ("x.add", {"a": 1, "b": 2}),
    ("x.add", {"a": "1"}),
    ("x.add", {"a": 1, "c": 2}),
    ("x.later", {"a": 7}),
    ("x.row", {"when": "2024-02-29"}),
    ("x.row", {"when": "never"}),
    ("x.thing", {}),
    ("x.missing", {}),
    ("x.long", {"count": 1000}),
    ("x.long", {"count": (1 << 20) - 50}),
    ("x.long", {"count": 1 << 20}),
    ("x.says", {"text": "in its own words"}),
    ("x.fails", {}),
    ("x.fails_later", {}),
    ("x.prints", {"text": "this"}),
    ("x.floods", {}),
    ("x.who", {}),
    ("x.writes", {"path": "a/b.txt", "text": "ä"}),
    ("x.writes", {"path": "/workspace/out/c.txt", "text": ""}),
    *(("x.writes", {"path": path, "text": "out of it"}) for path in LEADING_OUT),
    ("x.ends", {"how": "memory"}),
)


async def _all_of_it(bundle: Path, mode: str) -> tuple[list[object], list[str], list[dict[str, Any]], dict[str, bytes]]:
    """What the calls come to, what is told and recorded of them, and the files that they leave."""
    out = bundle.parent / "out"
    out.mkdir()
    elsewhere = bundle.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (out / "link").symlink_to("../elsewhere")
    (out / "other.txt").symlink_to("../elsewhere/secret")
    (out / "other.txt").write_text("s3cret")  # the control: without open_output the link is followed
    async with host(bundle, mode, GIVEN="allowed") as opened, opened.run() as run:
        results = [await run.call(tool, **params) for tool, params in CALLS if (tool, mode) != ("x.ends", "none")]
        await comes(lambda: len(run.records) == len(results))
    for record in run.records:
        del record["ms"], record["started_at"]
    files = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for path in sorted(out.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    out.rmdir()
    return results, run.lines, run.records, files


async def test_a_call_is_the_same_in_every_mode(bundle: Path) -> None:
    """Results, errors, what is printed, raised and logged, the journal and the files: all of it, byte for byte."""
    wanted = await _all_of_it(bundle, "none")
    assert wanted[0][0] == 2
    assert any("KeyError: 's3cret'" in line for line in wanted[1])
    assert wanted[3] == {"a/b.txt": "ä".encode(), "c.txt": b"", "other.txt": b"s3cret"}
    for mode in ("local", "local_network"):
        results, lines, records, files = await _all_of_it(bundle, mode)
        assert results.pop() == ["ToolFailed", f"the tool failed (call {len(CALLS)})"]
        assert results == wanted[0]
        assert [line for line in lines if f"x.ends {len(CALLS)}" not in line] == wanted[1]
        assert records[:-1] == wanted[2]
        assert files == wanted[3]
    first = next(number for number, (_, params) in enumerate(CALLS) if params.get("path") == LEADING_OUT[0])
    assert all(error == "ToolFailed" for error, _ in wanted[0][first : first + len(LEADING_OUT)])
    left = bundle.parent / "elsewhere"
    assert [path.name for path in left.iterdir()] == ["secret"]
    assert (left / "secret").read_text() == "s3cret"
    assert not (bundle.parent / "c.txt").exists()


ENDS = {
    "signal": ("ToolFailed", "the tool's process ended by signal 11 (call {})"),
    "fault": ("ToolFailed", "the tool's process ended by signal 11 (call {})"),
    "exit": ("ToolFailed", "the tool's process ended with exit code 3 (call {})"),
    "memory": ("ToolFailed", "the tool failed (call {})"),
    "closes": ("ToolFailed", "the tool's process closed its connection (call {})"),
    "garbage": ("ToolFailed", "the tool's process sent bytes that are not an answer (call {})"),
    "too large": ("ToolFailed", "the tool's process sent bytes that are not an answer (call {})"),
    "forged": ("ToolFailed", "the tool's process sent bytes that are not an answer (call {})"),
    "endless": ("ToolFailed", "the tool's process sent bytes that are not an answer (call {})"),
    "spin": ("ToolTimeout", "x.ends took longer than 2 s"),
    "backtrack": ("ToolTimeout", "x.ends took longer than 2 s"),
}


async def test_a_bad_ending_costs_its_own_call(bundle: Path) -> None:
    """Of each kind: the text says how, another run's calls are answered meanwhile, and the next call finds a worker."""
    async with host(bundle) as opened, opened.run() as run, opened.run("other") as other:
        (supervisor,) = supervisors()
        assert await other.call("x.counts") == 1
        for number, (how, (error, text)) in enumerate(ENDS.items(), 1):
            calls = [
                run.call("x.ends", 2.0 if error == "ToolTimeout" else None, how=how),
                other.call("x.add", a=number),
            ]
            ended, answered = await asyncio.gather(*calls)
            assert ended == [error, text.format(number)]
            assert answered == number + 1
        assert await run.call("x.add", a=1) == 2
        await comes(lambda: len(run.records) == len(ENDS) + 1)
        assert supervisors() == [supervisor]
    assert [record["status"] for record in run.records] == [*(error for error, _ in ENDS.values()), "ok"]
    assert sum("begun" in line for line in run.lines) == len(ENDS)


async def test_a_tool_that_hangs_holds_up_no_other_run(bundle: Path) -> None:
    """100 calls of another run are answered while one call holds its interpreter in C and gives it to nobody."""
    async with host(bundle) as opened, opened.run() as run, opened.run("other") as other:
        hung = asyncio.create_task(run.call("x.ends", how="backtrack"))
        await comes(lambda: any("begun" in line for line in run.lines))
        for number in range(100):
            assert await other.call("x.add", a=number) == number + 1
        assert not hung.done()
        hung.cancel()


@pytest.mark.parametrize("mode", ["local", "local_network"])
async def test_at_the_deadline_all_that_the_tool_started_is_ended(bundle: Path, mode: str) -> None:
    """Also what has forked twice and left its session. In the supervisor it would live on, which is the control."""
    mark = f"left-by-{os.getpid()}-{mode}"
    async with host(bundle, mode) as opened, opened.run() as run:
        leaving = asyncio.create_task(run.call("x.leaves", 20.0, mark=mark))
        await comes(lambda: len(marked(mark)) == 2)
        assert await leaving == ["ToolTimeout", "x.leaves took longer than 20 s"]
        await comes(lambda: not marked(mark))
    control = f"control-{mark}"
    async with host(bundle, "none") as opened, opened.run() as run:
        leaving = asyncio.create_task(run.call("x.leaves", 1.0, mark=control))
        try:
            await comes(lambda: len(marked(control)) == 2)
            assert await leaving == ["ToolTimeout", "x.leaves took longer than 1 s"]
            assert len(marked(control)) == 2
        finally:
            for pid in marked(control):
                os.kill(pid, signal.SIGKILL)


async def test_a_run_that_ends_ends_its_calls(bundle: Path) -> None:
    """What the tool started does not go on for a program that is gone."""
    mark = f"gone-{os.getpid()}"
    async with host(bundle) as opened:
        async with opened.run() as run:
            leaving = asyncio.create_task(run.call("x.leaves", mark=mark))
            await comes(lambda: len(marked(mark)) == 2)
        await comes(lambda: not marked(mark))
        leaving.cancel()


async def test_workers_end_with_their_supervisor(bundle: Path) -> None:
    """Killed without a word: its workers, and what their tools had started, are gone."""
    mark = f"orphan-{os.getpid()}"
    async with host(bundle) as opened, opened.run() as run:
        (supervisor,) = supervisors()
        leaving = asyncio.create_task(run.call("x.leaves", mark=mark))
        await comes(lambda: len(marked(mark)) == 2)
        everyone = below(supervisor)
        os.kill(supervisor, signal.SIGKILL)
        await comes(lambda: not marked(mark))
        await comes(lambda: not any(Path(f"/proc/{pid}").exists() for pid in everyone))
        leaving.cancel()


async def test_what_a_worker_has(bundle: Path) -> None:
    """The names that the operator allows, its own session and temporary folder, and no descriptor but its socket and
    the run's folder."""
    async with host(bundle, GIVEN="allowed") as opened, opened.run() as run:
        seen = await run.call("x.opened")
        assert seen["env"] == {"GIVEN": "allowed"}
        own = f"{tempfile.gettempdir()}/isorun-worker-"
        assert seen["environ"].pop("TMPDIR").startswith(own)
        assert seen["environ"] == {**without_tmpdir(), "GIVEN": "allowed"}
        assert seen["session"]
        assert seen["net"] == os.readlink("/proc/self/ns/net")
        kinds = {number: re.sub(r"\[\d+\]", "", name) for number, name in seen["descriptors"].items()}
        out = str(bundle.parent / "out")
        assert kinds == {"0": "/dev/null", "1": "pipe:", "2": "pipe:", "3": "socket:", "4": out}


async def test_without_network_there_is_no_secret_and_no_socket(bundle: Path, tmp_path: Path) -> None:
    """Of a tool that is marked so. The control is the same tool without the mark."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        path, port = str(tmp_path / "s"), tcp.getsockname()[1]
        unix.bind(path)
        unix.listen()
        async with host(bundle, GIVEN="allowed") as opened, opened.run() as run:
            seen = await run.call("x.sealed")
            assert seen["env"] == {}
            assert seen["environ"].pop("TMPDIR").startswith(f"{tempfile.gettempdir()}/isorun-worker-")
            assert seen["environ"] == without_tmpdir()
            assert seen["net"] != os.readlink("/proc/self/ns/net")
            assert await run.call("x.sealed_reach", path=path, port=port) == ["Permission denied"] * 2
            assert await run.call("x.open_reach", path=path, port=port) == ["connected"] * 2
        async with host(bundle, "local_network", GIVEN="allowed") as opened, opened.run() as run:
            assert (await run.call("x.opened"))["env"] == {"GIVEN": "allowed"}
            assert await run.call("x.open_reach", path=path, port=port) == ["connected", "Network is unreachable"]


async def test_at_most_four_work_at_once_and_the_others_have_their_turn(bundle: Path) -> None:
    """Twelve calls that are made together are all answered."""
    async with host(bundle) as opened, opened.run() as run:
        spans = await asyncio.gather(*(run.call("x.spends", seconds=0.2) for _ in range(12)))
    assert max(sum(began <= moment < ended for began, ended in spans) for moment, _ in spans) in (2, 3, 4)


async def test_a_worker_is_replaced_before_it_grows_old(bundle: Path) -> None:
    """After 200 calls: what a library leaks is gone."""
    async with host(bundle) as opened, opened.run() as run:
        counted = [await run.call("x.counts") for _ in range(201)]
    assert counted == [*range(1, 201), 1]


async def test_one_line_moves_a_tool_to_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of the documentation: its neighbour stays in the supervisor."""
    monkeypatch.setattr(tools_insights, "CUSTOM_ISOLATED", {"my_tools.my_heavy_tool"})
    source = '''
        import os
        @isorun.tool
        def my_heavy_tool() -> int:
            """Heavy."""
            return os.getpid()
        @isorun.tool
        def light() -> int:
            """Light."""
            return os.getpid()
    '''
    descriptor = load_descriptor(write_bundle(tmp_path / "bundle", my_tools=source))
    for environ, moves in ({}, True), ({"ISORUN_TOOL_RUNTIME": "my_tools.my_heavy_tool=none"}, False):
        policy = mode_policy_of(Settings.load(environ=environ))
        supervisor = Supervisor(descriptor, base_environment(), mode_policy=policy)
        async with supervisor, Host(supervisor, tmp_path).run() as run:
            (pid,) = supervisors()
            assert await run.call("my_tools.light") == pid
            assert (await run.call("my_tools.my_heavy_tool") != pid) == moves


@pytest.mark.parametrize("hangs", [False, True], ids=["ends", "is ended"])
async def test_what_a_worker_leaves_in_its_temporary_folder_goes_with_it(bundle: Path, tmp_path: Path, hangs) -> None:
    """A call that is ended at its deadline cannot tidy up: 1,000 documents with their pictures would fill the disk."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    async with host(bundle, TMPDIR=str(folder)) as h, h.run() as run:
        answer = await run.call("x.keeps", 3.0 if hangs else None, hangs=hangs)
        if hangs:
            assert answer[0] == "ToolTimeout"
        else:
            used, told = answer.split()
            assert (used, Path(used).parent) == (told, folder)
        await comes(lambda: len(list(folder.glob("*/tmp*"))) == (not hangs))
    await comes(lambda: not list(folder.iterdir()))


async def test_cleanup_removes_what_a_killed_monitor_leaves(bundle: Path, tmp_path: Path) -> None:
    """Nobody is left to remove the folder of its worker; that of another worker, which lives, stays."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    async with host(bundle, TMPDIR=str(folder)) as opened, opened.run() as run:
        both = asyncio.gather(*(run.call("x.keeps", 60, hangs=True) for _ in range(2)))
        await comes(lambda: len(list(folder.glob("*/tmp*"))) == 2)
        killed, living = (file.parent for file in folder.glob("*/tmp*"))
        os.kill(int(killed.name.removeprefix(TEMPORARY).partition("-")[0]), signal.SIGKILL)
        await comes(lambda: remove_temporary(folder) == [killed])
        assert [file.parent for file in folder.glob("*/tmp*")] == [living]
        both.cancel()
        await asyncio.wait({both})
