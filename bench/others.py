"""Whether the machine was quiet enough to tell: what others took of its processors while a figure was not being made.

Between two figures nothing of isorun runs, so whatever the kernel counts beside one busy loop of ours is somebody
else's: another process, or another guest of the machine's own host (steal). A figure that was made beside them says
nothing of isorun, so a gate that it misses is not missed.
"""

import os
import time
from pathlib import Path

MOST = 0.10  # of all processors; a quiet machine has 0.01 to 0.03
_LOOK_S = 0.3  # /proc/stat counts hundredths of a second
_IDLE = (3, 4)  # idle, iowait
_OWN = 8  # user, nice, system, idle, iowait, irq, softirq, steal; the guests after them are in user already


def busy_s(stat: str, ticks: int) -> float:
    """Seconds that all processors were busy, by the first line of /proc/stat."""
    fields = [int(field) for field in stat.splitlines()[0].split()[1 : _OWN + 1]]
    return sum(value for at, value in enumerate(fields) if at not in _IDLE) / ticks


class Others:
    """What others take, summed over all looks."""

    def __init__(self) -> None:
        self._busy_s, self._all_s = 0.0, 0.0

    def add(self, busy_s: float, own_s: float, wall_s: float, processors: int) -> None:
        """Count one look of *wall_s* seconds, in which *processors* were busy for *busy_s*, for us for *own_s*."""
        self._busy_s += max(busy_s - own_s, 0.0)
        self._all_s += wall_s * processors

    def look(self) -> None:
        """Keep one processor busy for a moment, and see what else is."""
        stat, ticks = Path("/proc/stat"), os.sysconf("SC_CLK_TCK")
        began, own, busy = time.perf_counter(), time.process_time(), busy_s(stat.read_text(), ticks)
        while time.perf_counter() < began + _LOOK_S:
            pass
        wall, used = time.perf_counter() - began, time.process_time() - own
        self.add(busy_s(stat.read_text(), ticks) - busy, used, wall, os.cpu_count() or 1)

    @property
    def share(self) -> float:
        """What others took of all processors, 0 to 1."""
        return self._busy_s / self._all_s if self._all_s else 0.0

    @property
    def are_busy(self) -> bool:
        """Whether they took so much that a missed gate says nothing."""
        return self.share > MOST

    def verdict(self) -> str:
        """One sentence for the table and the page."""
        took = f"Between the figures others took {100 * self.share:.0f} % of the processors"
        if self.are_busy:
            return f"{took}, more than {100 * MOST:.0f} %: the machine was too busy to tell."
        return f"{took}; above {100 * MOST:.0f} % the machine would have been too busy to tell."
