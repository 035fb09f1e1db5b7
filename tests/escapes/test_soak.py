"""Two thousand runs of every kind of ending, three at a time: nothing is wrong, left or growing."""

from pathlib import Path

import pytest

from tests.escapes.soak import KINDS, soak

RUNS = 2000
_MIB = 1 << 20


@pytest.mark.alone
@pytest.mark.timeout(600)  # four minutes on two cores that are otherwise idle
async def test_nothing_is_left_of_two_thousand_runs(tmp_path: Path) -> None:
    """Every run ends as its kind does, with a result; no process, group, mount, descriptor or folder is left, and
    from the quarter to the end nothing grows but by the noise of the interpreter."""
    report = await soak(RUNS, tmp_path)
    assert report.wrong == []
    assert (report.runs.total(), set(report.runs), report.without_result) == (RUNS, set(KINDS), 0)
    assert report.left == []
    before, middle, end, closed = (report.held[name] for name in ("before", "middle", "end", "closed"))
    assert closed.processes == before.processes
    assert closed.descriptors == before.descriptors
    assert closed.mounts == end.mounts == before.mounts
    assert end.processes <= middle.processes
    assert end.descriptors <= middle.descriptors
    assert end.threads <= middle.threads + 1  # a worker thread more, of the executor's bounded number
    assert end.objects <= middle.objects * 1.05
    assert end.rss_bytes <= middle.rss_bytes + 8 * _MIB
