"""A clock that only work and rests move on."""

from isorun.core import pace


class Clock:
    """What `pace` reads of the module `time`."""

    def __init__(self) -> None:
        self.now = self.worked = self.slept = 0.0

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.worked

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds

    def work(self, pieces: int, each_s: float) -> None:
        for _ in range(pieces):
            self.now += each_s
            self.worked += each_s
            pace.rest()
