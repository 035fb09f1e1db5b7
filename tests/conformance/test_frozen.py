"""Freezing a run: its program stands still and its time with it, on every backend."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

import isorun
from isorun.api import SyncRun
from tests.bundles import write_bundle

TICKS = "import itertools, time\nfor n in itertools.count():\n    print(n, flush=True)\n    time.sleep(0.01)"
ENDS_S = 20.0  # of a run in a container of a busy engine; the grace is 2 s
PATIENCE_S = 20.0

Start = Callable[..., SyncRun]


@pytest.fixture
def start(rt: isorun.SyncRuntime) -> Iterator[Start]:
    """`start(code)`: a run that has printed something; cancelled behind the test."""
    with ExitStack() as stack:

        def started(code: str, **options: object) -> SyncRun:
            run = rt.start(code, **{"timeout_s": 30, **options})
            stack.callback(run.cancel)
            next(event for event in run.events() if event.kind == "output")
            return run

        yield started


def test_a_frozen_program_stands_still_and_goes_on_from_there(start) -> None:
    """It prints nothing while it is frozen, loses nothing by it, and its events and timings say when it was."""
    told: list[bytes] = []
    run = start(TICKS, on_output=lambda _, data: told.append(data))
    run.freeze()
    time.sleep(1.5)  # what it had printed before is told
    before = len(told)
    time.sleep(0.7)
    assert len(told) == before
    run.thaw()
    until = time.monotonic() + PATIENCE_S
    while len(told) == before and time.monotonic() < until:
        time.sleep(0.01)
    assert len(told) > before
    result = run.cancel()
    lines = result.stdout.split()
    assert lines[:-1] == [str(n) for n in range(len(lines) - 1)]  # it may be ended in the midst of the last
    frozen, thawed = (next(event for event in run.events() if event.kind == kind) for kind in ("frozen", "thawed"))
    assert frozen.at_s <= thawed.at_s < frozen.at_s + 0.5
    assert 2 <= thawed.data["frozen_s"] <= result.timings["frozen_s"] + 0.001
    assert result.timings["run_s"] + result.timings["frozen_s"] <= result.timings["total_s"]


def test_time_that_a_run_is_frozen_does_not_count_to_its_timeout(start) -> None:
    """A program that ends by the wall's clock ends well, though that takes longer than its timeout."""
    code = "import time\nuntil = time.time() + 9\nprint('begun', flush=True)\nwhile time.time() < until: pass"
    run = start(code, timeout_s=8)
    with run.frozen():
        time.sleep(9.5)
    result = run.result()
    assert (result.status, result.usage["wall_s"] < 8) == ("ok", True), result.report_text
    assert result.usage["cpu_s"] < 8


def test_a_frozen_run_is_cancelled_in_the_usual_time(start) -> None:
    """What it has written is kept."""
    run = start("open('kept', 'w').close()\nprint('begun', flush=True)\nwhile True: pass")
    run.freeze()
    run.freeze()
    began = time.monotonic()
    result = run.cancel()
    assert time.monotonic() - began < ENDS_S
    assert (result.status, [artifact.path for artifact in result.artifacts]) == ("cancelled", ["kept"])


def test_a_run_that_has_ended_is_neither_frozen_nor_thawed(start) -> None:
    """Nothing happens, and it keeps its outcome."""
    run = start("print('x')")
    before = run.result()
    run.freeze()
    run.thaw()
    run.extend(5)
    assert run.result() == before
    assert [event.kind for event in run.events() if event.kind in ("frozen", "thawed")] == []


def test_a_run_that_is_not_frozen_is_thawed_without_effect(start) -> None:
    """As is one that is thawed already."""
    run = start(TICKS)
    run.thaw()
    with run.frozen():
        run.thaw()
        run.thaw()
    result = run.cancel()
    assert result.status == "cancelled"
    assert [event.kind for event in run.events() if event.kind in ("frozen", "thawed")] == ["frozen", "thawed"]


def test_a_deadline_is_put_off(start) -> None:
    """A program that takes longer than its timeout ends well, frozen in between or not."""
    run = start("import time\nprint('begun', flush=True)\ntime.sleep(5)\nprint('done')", timeout_s=4)
    run.extend(20)
    with run.frozen():
        pass
    result = run.result()
    assert (result.status, result.stdout) == ("ok", "begun\ndone\n"), result.report_text
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(isorun.InvalidRequest, match="extended by more than 0 seconds"):
            run.extend(wrong)


SLOW = """
import time

@isorun.tool
def rest(seconds: float) -> float:
    'Sleep.'
    time.sleep(seconds)
    return time.time()
"""
CALLS = """
import slow
print("begun", flush=True)
before = time.time()
print(await slow.rest(seconds=2.0) - before, flush=True)
print(await slow.rest(seconds=0.1) - before)
"""


def test_a_freeze_waits_for_the_tool_that_is_at_work(own, tmp_path) -> None:
    """That call is answered before the run is frozen, and the next one is begun once it is thawed."""
    with own(bundle=write_bundle(tmp_path / "bundle", slow=SLOW)) as runtime:
        run = runtime.start("import time\n" + CALLS, timeout_s=60)
        next(event for event in run.events() if event.kind == "output")
        time.sleep(0.5)  # the first call is made; if not, it is begun later, and the test says less
        began = time.monotonic()
        with run.frozen():
            waited = time.monotonic() - began
            time.sleep(3)
        result = run.result()
        kinds = [event.kind for event in run.events() if event.kind in ("frozen", "thawed", "tool_call")]
    assert result.status == "ok", result.report_text
    _, first, second = result.stdout.splitlines()
    assert waited > 0.5
    assert float(first) < 5 <= float(second)
    assert sorted(kinds) == ["frozen", "thawed", "tool_call", "tool_call"]
