"""Hostile pages and crashes beside a run that does its work: the real supervisor, workers and parsers."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from isorun.settings import base_environment
from isorun.supervisor.client import Supervisor
from isorun.supervisor.descriptor import load_descriptor
from isorun.supervisor.worker.modes import ModePolicy
from isorun.supervisor.worker.pool import MAX_WORKERS
from tests.bundles import supervisors, write_bundle
from tests.unit.supervisor.worker.test_workers import Host, Run, below, comes

pytestmark = pytest.mark.alone

TOOLS = '''
import ctypes, os

def attributes():
    return "<div " + " ".join(f"a{number}=1" for number in range(250_000)) + ">x"

@isorun.tool
def parses(page: str) -> int:
    """Give a page to a parser as it is, as the built-in tools do not."""
    if page == "elements in selectolax":
        from selectolax.lexbor import LexborHTMLParser
        return len(LexborHTMLParser("<div>" * 210_000).text())
    if page == "attributes in selectolax":
        from selectolax.lexbor import LexborHTMLParser
        return len(LexborHTMLParser(attributes()).text())
    if page == "elements in nh3":
        import nh3
        return len(nh3.clean("<div>" * 210_000))
    if page == "attributes in nh3":
        import nh3
        return len(nh3.clean(attributes() * 4))
    if page == "attributes in trafilatura":
        import trafilatura
        return len(trafilatura.extract(attributes()) or "")
    raise ValueError(page)

@isorun.tool
def ends(how: str) -> None:
    """End in some way."""
    if how == "segfault":
        ctypes.string_at(0)
    if how == "_exit":
        os._exit(3)
    if how == "hang":
        while True: pass
    if how == "memory":
        kept = []
        while True: kept.append(bytes(1 << 26))  # which are not touched
    if how == "prints":
        while True: print("x" * 8000)

@isorun.tool
def here(a: int) -> list:
    """Answer from the supervisor itself."""
    return [a, 0]

@isorun.tool
def there(a: int) -> list:
    """Answer from a process of its own; and how long that has waited for a processor."""
    return [a, int(open("/proc/self/schedstat").read().split()[1]) / 1e9]
'''
ANSWERS = ("x.here", "x.there")
PAGES = (
    *("elements in selectolax", "attributes in selectolax", "elements in nh3", "attributes in nh3"),
    "attributes in trafilatura",
)
LIMIT_S = 0.05
CALL_S = 2.0


@asynccontextmanager
async def two_runs(folder: Path) -> AsyncIterator[tuple[Run, Run]]:
    """Two runs of one supervisor; `x.here` is answered by itself, all else by workers."""
    bundle = write_bundle(folder / "bundle", x=TOOLS)
    descriptor = bundle / "tools_descriptor.py"
    entry = {"module": "isorun.tools.generic_tools", "alias": "generic_tools"}
    descriptor.write_text(f"{descriptor.read_text()}TOOLS += [{entry}]\n")
    policy = ModePolicy(default=lambda tool: "none" if tool == "x.here" else "local")
    async with Supervisor(load_descriptor(bundle), base_environment(), mode_policy=policy) as supervisor:
        opened = Host(supervisor, folder)
        async with opened.run() as run, opened.run("other") as other:
            yield run, other


async def asked(other: Run, tool: str, until: asyncio.Event) -> list[float]:
    """Seconds that each of its calls took, one behind the other for as long as that; each was answered.

    Without those in which a process of the call's was ready and had no processor: they are the machine's doing.
    """
    (supervisor,) = supervisors()
    took: list[float] = []
    in_worker = 0.0
    while not until.is_set():
        began, stood = time.perf_counter(), waited(os.getpid()) + waited(supervisor)
        answer, told = await other.call(tool, a=len(took))
        seconds = time.perf_counter() - began
        stood = waited(os.getpid()) + waited(supervisor) - stood + max(told - in_worker, 0)
        assert answer == len(took)
        took.append(seconds - stood)
        in_worker = told
        await asyncio.sleep(0.002)  # the calls are to be met by the page, and not to be the load themselves
    return took


def waited(pid: int) -> float:
    """Seconds that its threads have been ready and not at work."""
    found = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has ended
            found += int((thread / "schedstat").read_text().split()[1])
    return found / 1e9


async def beside(other: Run, work: Awaitable[object]) -> tuple[object, dict[str, list[float]]]:
    """What *work* comes to, and the times of the other run's calls from its beginning to its end."""
    until = asyncio.Event()
    asking = [asyncio.create_task(asked(other, tool, until)) for tool in ANSWERS]
    try:
        answer = await work
    finally:
        until.set()
        times = await asyncio.gather(*asking)
    return answer, dict(zip(ANSWERS, times, strict=True))


def late(times: list[float]) -> float:
    """The part of the calls that took longer than they may."""
    return sum(each > LIMIT_S for each in times) / len(times)


async def test_a_hostile_page_ends_at_its_time_and_delays_no_other_run(tmp_path: Path) -> None:
    """Pages that hold a C or Rust parser for minutes: each call ends as ToolTimeout at its deadline. Another run's
    calls, made for all that time, take less than 50 ms.

    The control is the same calls with no page beside them, before and after: each 200th has a new worker. Beside a
    page one of a hundred more may be late, and none waits for the page.
    """
    async with two_runs(tmp_path) as (run, other):
        await asyncio.gather(*(other.call(tool, a=0) for tool in ANSWERS))  # the first call has a worker made
        _, control = await beside(other, asyncio.sleep(CALL_S))
        times = {}
        for page in PAGES:
            began = time.monotonic()
            ended, times[page] = await beside(other, run.call("x.parses", CALL_S, page=page))
            assert ended == ["ToolTimeout", "x.parses took longer than 2 s"], page
            assert CALL_S <= time.monotonic() - began < CALL_S + 1
        brackets = run.call("generic_tools.write_html", CALL_S, path="a.html", content="![a](" * 200_000)
        ended, times["brackets"] = await beside(other, brackets)
        assert ended == ["ToolTimeout", "generic_tools.write_html took longer than 2 s"]
        _, again = await beside(other, asyncio.sleep(CALL_S))
    for tool in ANSWERS:
        allowed = max(late(control[tool]), late(again[tool])) + 0.01
        for page, took in times.items():
            assert len(took[tool]) > 100, (page, tool)
            assert late(took[tool]) <= allowed, (page, tool, sorted(took[tool])[-10:])
            assert max(took[tool]) < CALL_S / 2, (page, tool)


async def test_a_run_with_many_hostile_pages_leaves_a_worker_to_the_others(tmp_path: Path) -> None:
    """More at once than there are workers: another run's call does not wait for their deadline, and the hostile run's
    own calls have their turn behind each other."""
    async with two_runs(tmp_path) as (run, other):
        await other.call("x.there", a=0)
        many = (run.call("x.parses", CALL_S, page="elements in nh3") for _ in range(8))
        ended, times = await beside(other, asyncio.gather(*many))
        assert ended == [["ToolTimeout", "x.parses took longer than 2 s"]] * 8
        assert len(times["x.there"]) > 50
        assert max(times["x.there"]) < CALL_S / 2
        assert (await run.call("x.there", a=1))[0] == 1


CRASHES = 200
#: How a call ends, and how the text begins that its program is told. Those with a deadline are at work until then.
ENDS = {
    "segfault": (None, "ToolFailed", "the tool's process ended by signal 11 (call {})"),
    "_exit": (None, "ToolFailed", "the tool's process ended with exit code 3 (call {})"),
    "hang": (0.05, "ToolTimeout", "x.ends took longer than 0.0"),
    "memory": (None, "ToolFailed", "the tool failed (call {})"),
    "prints": (0.05, "ToolTimeout", "x.ends took longer than 0.0"),
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.timeout(180)
async def test_two_hundred_crashes_in_a_row_leave_nothing(tmp_path: Path, how: str) -> None:
    """Of each kind: each call has its answer and each of another run has its own, the supervisor is the one that it
    was and answers, and no process is left, neither beside it nor behind it."""
    seconds, error, text = ENDS[how]
    async with two_runs(tmp_path) as (run, other):
        (supervisor,) = supervisors()
        for number in range(1, CRASHES + 1):
            calls = (run.call("x.ends", seconds, how=how), *(other.call(tool, a=number) for tool in ANSWERS))
            ended, *answered = await asyncio.gather(*calls)
            assert (ended[0], [answer for answer, _ in answered]) == (error, [number, number])
            assert ended[1].startswith(text.format(number))
        assert [(await run.call(tool, a=1))[0] for tool in ANSWERS] == [1, 1]
        assert supervisors() == [supervisor]
        # The spawner, and each of four at most with its monitor and the first process of its namespace.
        await comes(lambda: len(below(supervisor)) <= 1 + 3 * MAX_WORKERS)
        everyone = below(supervisor)
    await comes(lambda: not any(Path(f"/proc/{pid}").exists() for pid in everyone))
