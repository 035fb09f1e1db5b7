"""`map`: the results of many programs in their order, with a bound on those at once, over any iterable."""

import asyncio
import itertools
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

import isorun
from isorun.core.outcome import Exit
from isorun.runtime.many.ordered import each, ordered
from isorun.testing.fake import Script, ScriptedBackend
from tests.unit.runtime.test_runtime_scripted import runtime

_ENDS = Script(stdout=b"x\n", exit=Exit(code=0))
_HANGS = Script(stdout=b"x\n", at_sigterm=Exit(code=0))


async def mapped(root: Path, programs: object, *scripts: Script, **options: object) -> list[isorun.RunResult]:
    async with runtime(root, *scripts) as rt:
        return [result async for result in rt.map(programs, **options)]


async def test_results_come_in_the_order_of_the_programs(tmp_path) -> None:
    """Code and requests, from a generator; options are for all of the code."""
    results = await mapped(tmp_path, ("pass" for _ in range(5)), _ENDS, at_once=2, prog_name="all")
    assert [result.prog_name for result in results] == ["all"] * 5
    requests = [isorun.RunRequest.of("pass", prog_name=str(n)) for n in range(5)]
    assert [one.prog_name for one in await mapped(tmp_path, requests, _ENDS)] == list("01234")


async def test_of_no_program_there_is_no_result(tmp_path) -> None:
    """And none waits for ever."""
    assert await mapped(tmp_path, [], _ENDS) == []


async def test_a_failed_program_is_a_result_among_the_others(tmp_path) -> None:
    """It costs no other one."""
    results = await mapped(tmp_path, ["pass"] * 3, _ENDS, Script(exit=Exit(code=3)), _ENDS, at_once=1)
    assert [result.status for result in results] == ["ok", "failed", "ok"]


async def test_what_is_refused_is_raised_in_its_place(tmp_path) -> None:
    """After the results of those before it; nothing runs afterwards."""
    async with runtime(tmp_path, _ENDS) as rt:
        results = rt.map(["pass", "pass", "", "pass"], at_once=4)
        assert [(await anext(results)).status, (await anext(results)).status] == ["ok", "ok"]
        with pytest.raises(isorun.InvalidRequest, match="there is no code to run"):
            await anext(results)
        with pytest.raises(StopAsyncIteration):
            await anext(results)


async def test_leaving_it_cancels_what_runs(tmp_path) -> None:
    """Those that wait behind a hanging one have ended, and no more programs were taken."""
    taken = []

    def programs() -> Iterator[str]:
        for n in itertools.count():
            taken.append(n)
            yield "pass"

    async with runtime(tmp_path, _ENDS, _HANGS) as rt:
        async with aclosing(rt.map(programs(), at_once=3, timeout_s=60)) as results:
            assert (await anext(results)).ok
        ended = [json_status(folder) for folder in sorted(rt.root.glob("codegen_*"))]
    assert sorted(ended) == ["cancelled"] * (len(ended) - 1) + ["ok"]
    assert len(taken) <= 6


def json_status(folder: Path) -> str:
    return isorun.core.result.as_result((folder / "out/result.json").read_bytes())["status"]


class Watched:
    """Work that is finished by hand, and knows how much of it was under way."""

    def __init__(self) -> None:
        self.under_way: dict[int, asyncio.Event] = {}
        self.most = 0
        self.taken = 0

    def items(self, count: int) -> Iterator[int]:
        for self.taken in range(1, count + 1):
            yield self.taken

    async def work(self, item: int) -> int:
        self.under_way[item] = asyncio.Event()
        self.most = max(self.most, len(self.under_way))
        try:
            await self.under_way[item].wait()
        finally:
            del self.under_way[item]
        return item


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_slow_one_holds_up_results_and_not_the_work(tmp_path) -> None:
    """The first hangs: others run beside it, never more than may, and no further ahead than eight times as many."""
    watched = Watched()
    done: list[int] = []

    async def all_of(results: AsyncIterator[int]) -> list[int]:
        return [one async for one in results if done.append(one) is None]

    task = asyncio.create_task(all_of(ordered(watched.work, each(watched.items(100)), 3)))
    for _ in range(200):
        await turns()
        for item, event in list(watched.under_way.items()):
            if item != 1:
                event.set()
    assert (done, watched.most, watched.taken) == ([], 3, 24)
    watched.under_way[1].set()
    while not task.done():
        await turns()
        for event in list(watched.under_way.values()):
            event.set()
    assert done == list(range(1, 101))
    assert watched.most == 3


async def test_an_iterable_that_raises_does_so_after_what_came_before(tmp_path) -> None:
    """The caller's own error, as it was."""

    def programs() -> Iterator[str]:
        yield "pass"
        raise LookupError("no more of them")

    async with runtime(tmp_path, _ENDS) as rt:
        results = rt.map(programs())
        assert (await anext(results)).ok
        with pytest.raises(LookupError, match="no more of them"):
            await anext(results)


@pytest.mark.parametrize("at_once", [0, -2, True, "8", 2.0])
async def test_at_once_is_a_count(tmp_path, at_once) -> None:
    """Refused before anything is taken."""
    async with runtime(tmp_path, _ENDS) as rt:
        with pytest.raises(isorun.InvalidRequest, match=r"^at_once must be a whole number above 0, got "):
            rt.map(["pass"], at_once=at_once)
        with pytest.raises(TypeError, match=r"^a run has no option 'timeout'; did you mean timeout_s\?$"):
            rt.map(["pass"], timeout=3)


def twin(root: Path, *scripts: Script) -> isorun.SyncRuntime:
    return isorun.SyncRuntime(
        backend=ScriptedBackend(*scripts), settings=isorun.Settings(), workspace_root=root, pool_size=0
    )


def test_without_a_loop(tmp_path) -> None:
    """`SyncRuntime.map` is an iterator; what makes the programs may use the Runtime itself."""
    with twin(tmp_path, _ENDS) as rt:
        results = rt.map((rt.execute("pass").stdout and "pass" for _ in range(3)), at_once=2)
        assert [result.ok for result in results] == [True] * 3


def test_an_iterator_that_is_closed_cancels_what_runs(tmp_path) -> None:
    """By name, by leaving the loop, and with the Runtime."""
    with twin(tmp_path, _ENDS, _HANGS) as rt:
        for result in rt.map(itertools.repeat("pass"), at_once=2, timeout_s=60):
            assert result.ok
            break
        assert {json_status(folder) for folder in rt.root.glob("codegen_*")} <= {"ok", "cancelled"}
        left = rt.map(["pass"] * 3, timeout_s=60)
    with pytest.raises(isorun.Misused, match=r"^this SyncRuntime is closed; open a new one$"):
        next(left)


def test_closing_waits_for_no_iterator(tmp_path) -> None:
    """One that waits for a queue for ever holds up neither `close()` nor who waits for its next result."""
    asked, never = threading.Event(), threading.Event()
    ended: list[object] = []

    def programs() -> Iterator[str]:
        yield "pass"
        asked.set()
        never.wait()

    def take(rt: isorun.SyncRuntime) -> None:
        try:
            ended.extend(rt.map(programs()))
        except isorun.Misused as error:
            ended.append(str(error))

    rt = isorun.SyncRuntime(backend=ScriptedBackend(_ENDS), settings=isorun.Settings(), workspace_root=tmp_path)
    taker = threading.Thread(target=take, args=(rt.open(),), daemon=True)
    closer = threading.Thread(target=rt.close, daemon=True)
    taker.start()
    assert asked.wait(30)
    closer.start()
    for thread in (closer, taker):
        thread.join(30)
        assert not thread.is_alive()
    never.set()
    assert isinstance(ended[0], isorun.RunResult)
    assert "closed" in str(ended[1])


def test_a_process_ends_beside_an_iterator_that_blocks(tmp_path) -> None:
    """Its thread is not waited for: neither by the loop nor by the interpreter."""
    code = f"""
import threading, isorun
from isorun.testing.fake import Script, ScriptedBackend
asked = threading.Event()
def programs():
    asked.set()
    threading.Event().wait()
    yield
def take():
    try:
        list(rt.open().map(programs()))
    except isorun.Misused as error:
        print(error)
rt = isorun.SyncRuntime(backend=ScriptedBackend(Script()), settings=isorun.Settings(), workspace_root={str(tmp_path)!r})
taker = threading.Thread(target=take)
taker.start()
asked.wait()
rt.close()
taker.join()
print("ends")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "closed" in done.stdout
    assert done.stdout.endswith("ends\n")
