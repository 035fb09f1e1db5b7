"""The rests of long work beside an event loop, by a clock that only work and rests move on."""

import threading

import pytest

from isorun.core import pace
from isorun.core.share import SHARE
from tests.unit.clock import Clock


def worked(monkeypatch, *, pieces: int, each_s: float, are_others: bool, is_paced: bool = True) -> Clock:
    """The clock of a new thread that did so much."""
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)

    def run() -> None:
        if is_paced:
            pace.pace_this_thread(lambda: are_others)
        clock.work(pieces, each_s)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return clock


@pytest.mark.parametrize("each_s", [0.0001, 0.001, 0.02])
def test_long_work_has_a_share_of_the_time(monkeypatch, each_s: float) -> None:
    """However it is cut into pieces, and but for what is free."""
    clock = worked(monkeypatch, pieces=int(2 / each_s), each_s=each_s, are_others=True)
    assert clock.worked / clock.now == pytest.approx(SHARE, rel=0.02)


def test_it_does_not_rest_where_nobody_waits(monkeypatch) -> None:
    """Nor where nobody paces the thread, nor for work that is short."""
    assert worked(monkeypatch, pieces=2000, each_s=0.001, are_others=False).slept == 0
    assert worked(monkeypatch, pieces=2000, each_s=0.001, are_others=True, is_paced=False).slept == 0
    assert worked(monkeypatch, pieces=80, each_s=0.0001, are_others=True).slept == 0


def test_what_was_done_while_nobody_waited_is_not_paid_later(monkeypatch) -> None:
    """A neighbour that comes late finds the work in turns, and not one rest that is as long as all that was done."""
    clock, others = Clock(), []
    monkeypatch.setattr(pace, "time", clock)

    def run() -> None:
        pace.pace_this_thread(lambda: bool(others))
        clock.work(1000, 0.001)
        others.append(1)
        clock.work(1, 0.001)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert 0 < clock.slept < 0.01
