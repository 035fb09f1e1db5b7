"""A Runtime with a ceiling on its runs: who came first runs first, and waiting costs nothing of a run's time."""

import asyncio
import json
from pathlib import Path

import pytest

import isorun
from isorun.core.outcome import Exit
from isorun.runtime.accepted.handle import Run
from isorun.runtime.many.turns import Turns
from isorun.testing.fake import Script
from tests.unit.runtime.test_runtime_scripted import runtime

_ENDS = Script(stdout=b"x\n", exit=Exit(code=0))
_HANGS = Script(stdout=b"x\n", at_sigterm=Exit(code=0))


async def begun(run: Run) -> None:
    """Return once its program has started."""
    async for event in run.events():
        if event.kind == "started":
            return


async def test_no_more_run_than_may(tmp_path) -> None:
    """The third has no folder and no slot until one of the two before it has ended."""
    async with runtime(tmp_path, _HANGS, max_runs=2) as rt:
        runs = [await rt.start("pass", timeout_s=60) for _ in range(3)]
        await asyncio.gather(*map(begun, runs[:2]))
        assert (len(list(tmp_path.glob("codegen_*"))), rt.backend.launched) == (2, 2)
        await runs[1].cancel()
        await begun(runs[2])


async def test_waiting_is_not_charged_and_is_told(tmp_path) -> None:
    """The time limit begins with the program; `queued_s` says how long it waited, `slot_s` not."""
    async with runtime(tmp_path, _HANGS, _ENDS, max_runs=1) as rt:
        first, second = await asyncio.gather(rt.execute("pass", timeout_s=0.4), rt.execute("pass", timeout_s=0.2))
    assert (first.status, second.status) == ("timed_out", "ok")
    assert first.timings["queued_s"] < 0.3 < second.timings["queued_s"]
    assert second.timings["queued_s"] + second.timings["slot_s"] <= second.timings["total_s"]
    assert second.timings["accepted"] < first.timings["ended"]


async def test_a_run_that_waits_can_be_cancelled(tmp_path) -> None:
    """At once, with a result that is stored as that of any run; the next one moves up."""
    async with runtime(tmp_path, _HANGS, _ENDS, max_runs=1) as rt:
        first = await rt.start("pass", timeout_s=60)
        waiting = await rt.start("pass", prog_name="p")
        last = await rt.start("pass")
        await begun(first)
        result = await waiting.cancel()
        assert (result.status, result.error.code, waiting.program_started) == ("cancelled", "cancelled", False)
        assert result.error.message == "cancelled while it waited for its turn: the program was not started"
        assert json.loads((result.out_dir / "result.json").read_bytes())["prog_name"] == "p"
        assert [event.data async for event in waiting.events()] == [{"status": "cancelled", "ok": False}]
        assert rt.backend.launched == 1
        await first.cancel()
        assert (await last.result()).ok
        assert rt.backend.launched == 2


async def test_a_run_that_waits_and_is_not_kept_leaves_nothing(tmp_path) -> None:
    """Cancelled, it has a result and no folder."""
    async with runtime(tmp_path, _HANGS, max_runs=1) as rt:
        first = await rt.start("pass", keep=False)
        waiting = await rt.start("pass", keep=False)
        assert (await waiting.cancel()).kept is False
        await first.cancel()
        assert list(tmp_path.glob("codegen_*")) == []


async def test_leaving_a_runtime_ends_those_that_wait(tmp_path) -> None:
    """None of them is started meanwhile."""
    async with runtime(tmp_path, _HANGS, max_runs=1) as rt:
        runs = [await rt.start("pass", timeout_s=60) for _ in range(5)]
        await begun(runs[0])
    results = [await run.result() for run in runs]
    assert [result.status for result in results] == ["cancelled"] * 5
    assert rt.backend.launched == 1
    assert [result.timings["pool_hit"] for result in results] == [False, None, None, None, None]


@pytest.mark.parametrize(
    "script", [Script(build=isorun.SetupFailed("a", "b")), Script(lost=isorun.SetupFailed("zygote", "it died"))]
)
async def test_a_run_that_fails_gives_its_turn_back(tmp_path, script) -> None:
    """A sandbox that cannot be built, or dies, holds up the next run no longer."""
    async with runtime(tmp_path, script, _ENDS, max_runs=1) as rt:
        failed, after = await asyncio.gather(rt.execute("pass"), rt.execute("pass"), return_exceptions=True)
    assert (type(failed), after.ok) == (isorun.SetupFailed, True)


async def test_a_caller_who_is_cancelled_gives_up_the_turn(tmp_path) -> None:
    """`execute` cancels its run, also one that waits."""
    async with runtime(tmp_path, _HANGS, _ENDS, max_runs=1) as rt:
        first = await rt.start("pass", timeout_s=60)
        waiting = asyncio.create_task(rt.execute("pass"))
        await begun(first)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await first.cancel()
        assert (await rt.execute("pass")).ok


async def test_turns_come_in_order() -> None:
    """Also for one who asks at the moment in which a turn is given back."""
    turns, came = Turns(1), []

    async def take(name: int) -> None:
        async with turns.taken(turns.ask()):
            came.append(name)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for name in range(20):
            group.create_task(take(name))
            if name % 3 == 0:
                await asyncio.sleep(0)
    assert came == list(range(20))


@pytest.mark.parametrize("most", [0, -1, True, "2", 1.5])
def test_a_ceiling_is_a_count(tmp_path: Path, most: object) -> None:
    """Zero would let no program run."""
    with pytest.raises(isorun.InvalidRequest, match=r"^max_runs must be a whole number above 0, got "):
        isorun.Runtime(settings=isorun.Settings(), workspace_root=tmp_path, max_runs=most)  # type: ignore[arg-type]  # the mistake


async def test_the_setting_is_the_default(tmp_path) -> None:
    """ISORUN_MAX_RUNS; a keyword beats it."""
    settings = isorun.Settings.load(environ={"ISORUN_MAX_RUNS": "3"})
    assert isorun.Runtime(settings=settings, workspace_root=tmp_path).settings.max_runs == 3
    assert isorun.Runtime(settings=settings, workspace_root=tmp_path, max_runs=5).settings.max_runs == 5
