"""What one stream may take of a loop's time: pure arithmetic, told the time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isorun.core.share import BURST_S, FREE_S, SHARE, Account, Owing, charged

turns = st.lists(st.tuples(st.floats(0, 0.2), st.floats(0, 0.1)), max_size=60)


@given(turns)
def test_what_is_served_stays_within_a_burst_and_the_share(found: list[tuple[float, float]]) -> None:
    """Whatever a stream does after its pauses, all its turns but the last fit into a burst and a share of the time."""
    now, spent, pause = 0.0, 0.0, 0.0
    account = Account(Owing(), now)
    for waits, costs in found:
        now += pause + waits
        assert spent <= BURST_S + SHARE * now + 1e-9
        now += costs
        pause = account.spend(now, costs)
        spent += costs


@given(st.integers(1, 20))
def test_many_streams_that_owe_have_one_share_together(count: int) -> None:
    """Each is left alone for as many times longer as there are of them."""
    owing = Owing()
    accounts = [Account(owing, 0.0) for _ in range(count)]
    for account in accounts:
        account.spend(0.0, 2 * BURST_S)
    pauses = [account.spend(0.0, 0.0) for account in accounts]
    assert pauses == pytest.approx([BURST_S * count / SHARE] * count)
    accounts[0].close()
    assert owing.share == SHARE / max(1, count - 1)


def test_a_stream_that_pays_its_debt_is_counted_no_more() -> None:
    """Otherwise one burst would slow down every other stream for ever."""
    owing = Owing()
    account = Account(owing, 0.0)
    pause = account.spend(0.0, 2 * BURST_S)
    assert pause == pytest.approx(BURST_S / SHARE)
    assert account.spend(pause + 1e-6, 0.0) == 0
    assert owing.share == SHARE


@pytest.mark.parametrize(
    ("seconds", "frames", "is_behind", "cost"),
    [
        (FREE_S, 1, False, 0.0),  # one call after another
        (FREE_S, 0, False, FREE_S),  # a frame byte by byte
        (FREE_S, 16, True, FREE_S),  # more was waiting
        (10 * FREE_S, 1, False, 9 * FREE_S),
    ],
)
def test_only_a_short_turn_that_left_nothing_behind_is_free(seconds, frames, is_behind, cost) -> None:
    """A program that waits for each answer is not slowed down; every other way of sending is charged."""
    assert charged(seconds, frames, is_behind=is_behind) == pytest.approx(cost)
