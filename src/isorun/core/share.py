"""How much of an event loop's time the streams of programs may take. Pure: it is told the time, and asks no clock.

A program pays almost nothing for a frame that costs its reader milliseconds. So what a stream
costs is charged to it: a burst is free, and beyond that all streams that owe something
have `SHARE` of the loop's time together. Who owes is not read until that time has passed.
A program that waits for each answer costs itself as much as its reader, and is not charged.
"""

TURN_S = 0.00025  # of reading one stream before everybody else has a turn
TURN_FRAMES = 16
FREE_S = 0.00025  # of a turn that left nothing behind: one call after another must not be slowed down
BURST_S = 0.05  # some 800 calls at once
SHARE = 0.2


class Owing:
    """The streams of one loop that owe time: they divide `SHARE`."""

    def __init__(self) -> None:
        self._accounts: set[Account] = set()

    @property
    def share(self) -> float:
        """What each of them has of the loop's time."""
        return SHARE / max(1, len(self._accounts))

    def note(self, account: "Account", owes: bool) -> None:
        """Count *account*, or count it no more."""
        (self._accounts.add if owes else self._accounts.discard)(account)


class Account:
    """What one stream may cost now. Times are monotonic seconds."""

    def __init__(self, owing: Owing, now: float) -> None:
        self._owing = owing
        self._credit = BURST_S
        self._at = now

    def spend(self, now: float, seconds: float) -> float:
        """Charge *seconds* of work that ended *now*; how long the stream is to be left alone."""
        self._credit = min(BURST_S, self._credit + (now - self._at) * self._owing.share) - seconds
        self._at = now
        self._owing.note(self, self._credit < 0)
        return max(0.0, -self._credit / self._owing.share)

    def close(self) -> None:
        """The stream is read no more."""
        self._owing.note(self, owes=False)


def charged(seconds: float, frames: int | bool, *, is_behind: bool) -> float:
    """What a turn of *seconds* is charged: all of it, if it left more to do or brought no whole frame."""
    return seconds if is_behind or not frames else max(0.0, seconds - FREE_S)
