"""A run's own time, and who may make it stand still when; the slot is a script, the loop is real."""

import asyncio
import math
from collections.abc import Callable
from pathlib import Path

import pytest

import isorun
from isorun.core.errors import SetupFailed
from isorun.runtime.clock import Clock, Freezing
from isorun.runtime.events import Event, Feed


class Steps:
    """A slot and its tools, which write down what is asked of them and do what the test says."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.quiets = True
        self.fails: SetupFailed | None = None
        self.was_asked = False
        self.may_freeze = asyncio.Event()
        self.may_freeze.set()

    async def freeze(self) -> None:
        self.was_asked = True
        await self.may_freeze.wait()
        if self.fails is not None:
            raise self.fails
        self.said.append("frozen")

    async def thaw(self) -> None:
        self.said.append("thawed")

    def extend(self, seconds: float) -> None:
        self.said.append(f"extended {seconds:g}")

    async def quiet(self) -> bool:
        self.said.append("quiet?")
        if not self.quiets:
            await asyncio.Event().wait()
        return True

    def go_on(self, frozen_s: float) -> None:
        self.said.append("go on")

    async def close(self) -> None: ...


def freezing(steps: Steps, timeout_s: float = 10.0) -> tuple[Freezing, Clock, Feed]:
    clock, feed = Clock(timeout_s), Feed()
    clock.begin()
    return Freezing(steps, clock, feed), clock, feed  # type: ignore[arg-type] - as much of a slot as is asked for


def test_a_clock_that_stands_counts_apart() -> None:
    """What it stood is no time of the run's, and the deadline comes no nearer."""
    clock = Clock(10)
    assert (clock.has_begun, clock.run_s, clock.frozen_s) == (False, 0.0, 0.0)
    clock.begin()
    clock.stop()
    stood = clock.run_s
    assert clock.left_s is None
    assert clock.go_on() > 0
    left = clock.left_s
    assert left is not None
    assert stood <= clock.run_s <= 10 - left + 0.001
    clock.extend(5)
    assert 14 < (clock.left_s or math.nan) <= 15


async def test_moving_a_deadline_is_told() -> None:
    """Whoever waits for it looks again; until then nothing is done."""
    clock = Clock(10)
    clock.begin()
    for move in (clock.stop, clock.go_on, lambda: clock.extend(1)):
        moved = clock.moved
        assert not moved.done()
        move()
        assert moved.done()


async def test_tools_are_quiet_before_the_slot_is_frozen_and_go_on_before_it_is_thawed() -> None:
    """Each once, however often it is asked for."""
    steps = Steps()
    run, clock, feed = freezing(steps)
    run.begin(steps)
    await asyncio.gather(run.freeze(), run.freeze())
    assert clock.is_stopped
    await asyncio.gather(run.thaw(), run.thaw())
    assert not clock.is_stopped
    assert steps.said == ["quiet?", "frozen", "go on", "thawed"]
    feed.publish(Event(kind="outcome", at_s=0.0))
    assert [event.kind async for event in feed.subscribe()] == ["frozen", "thawed", "outcome"]


async def test_a_freeze_waits_for_the_program() -> None:
    """Before its tools are there it cannot be frozen."""
    steps = Steps()
    run, clock, _ = freezing(steps)
    frozen = asyncio.ensure_future(run.freeze())
    await asyncio.sleep(0)
    assert steps.said == []
    run.begin(steps)
    await frozen
    assert clock.is_stopped


@pytest.mark.parametrize("gives_up", [Freezing.thaw, Freezing.end])
async def test_a_freeze_that_waits_for_a_tool_is_given_up(gives_up: Callable[[Freezing], object]) -> None:
    """By a thaw, and by the end of the run, neither of which waits for the tool."""
    steps = Steps()
    steps.quiets = False
    run, clock, _ = freezing(steps)
    run.begin(steps)
    frozen = asyncio.ensure_future(run.freeze())
    while steps.said != ["quiet?"]:  # noqa: ASYNC110 - it sets no event
        await asyncio.sleep(0)
    await asyncio.wait_for(gives_up(run), 10)  # type: ignore[arg-type] - both are coroutines
    await frozen
    assert not clock.is_stopped
    assert steps.said == ["quiet?", "go on"]


async def test_a_slot_that_cannot_be_frozen_runs_on() -> None:
    """The error is the caller's, tools go on, and the clock has not stood."""
    steps = Steps()
    steps.fails = SetupFailed("freeze", "no")
    run, clock, _ = freezing(steps)
    run.begin(steps)
    with pytest.raises(SetupFailed, match="no"):
        await run.freeze()
    assert (clock.is_stopped, clock.frozen_s, steps.said) == (False, 0.0, ["quiet?", "go on"])


async def test_a_caller_that_goes_away_leaves_nothing_half_done() -> None:
    """The slot is frozen as it would have been, and the clock knows."""
    steps = Steps()
    steps.may_freeze.clear()
    run, clock, _ = freezing(steps)
    run.begin(steps)
    frozen = asyncio.ensure_future(run.freeze())
    while not steps.was_asked:  # noqa: ASYNC110 - it sets no event
        await asyncio.sleep(0)
    frozen.cancel()
    steps.may_freeze.set()
    await run.thaw()
    assert not clock.is_stopped
    assert steps.said == ["quiet?", "frozen", "go on", "thawed"]


async def test_the_end_of_a_run_terminates_before_it_thaws_and_nothing_freezes_it_after() -> None:
    """So the program's first instruction is its handler's."""
    steps = Steps()
    run, clock, _ = freezing(steps)
    run.begin(steps)
    await run.freeze()
    await run.end(lambda: steps.said.append("SIGTERM"))
    await run.freeze()
    run.extend(5)
    assert not clock.is_stopped
    assert steps.said == ["quiet?", "frozen", "SIGTERM", "go on", "thawed"]


async def test_what_a_run_is_extended_by_before_it_begins_is_told_to_its_slot() -> None:
    """As is what comes later; a slot may have a clock of its own."""
    steps = Steps()
    run, clock, _ = freezing(steps)
    run.extend(5)
    run.begin(steps)
    run.extend(2)
    assert steps.said == ["extended 5", "extended 2"]
    assert 16 < (clock.left_s or math.nan) <= 17


async def test_a_run_that_is_frozen_before_it_starts_waits_for_its_program(tmp_path: Path) -> None:
    """`freeze` right behind `start`, with no slot yet, freezes the program once it is there."""
    from isorun.testing.fake import FakeBackend

    async with isorun.Runtime(backend=FakeBackend(), pool_size=0, workspace_root=tmp_path) as runtime:
        run = await runtime.start("import time\ntime.sleep(60)", timeout_s=30)
        async with run.frozen():
            assert run.program_started
        assert (await run.cancel()).timings["frozen_s"] > 0


async def test_a_wait_for_a_run_that_never_starts_is_over_with_it(tmp_path: Path) -> None:
    """Its slot could not be built: the freeze returns, and the result says why."""
    from isorun.testing.fake import Script, ScriptedBackend

    backend = ScriptedBackend(Script(build=SetupFailed("slot", "no")))
    async with isorun.Runtime(backend=backend, pool_size=0, workspace_root=tmp_path) as runtime:
        run = await runtime.start("pass")
        await asyncio.wait_for(run.freeze(), 10)
        with pytest.raises(SetupFailed, match="no"):
            await run.result()
