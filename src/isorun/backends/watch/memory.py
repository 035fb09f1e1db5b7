"""One run's memory, looked at by a thread of the watcher's process: above the ceiling its largest process is killed.

Where that cannot help, all are. It must not wait long for a sum that the run can make late, nor kill by a pid.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from isorun.backends.watch import sampling as watcher
from isorun.backends.watch.told import Told

LOOK_S = 0.02
DEATH_S = 0.05  # to give back what a killed process holds; the next look does not wait longer for it
_EXACT_LOOKS = 25  # that long a sum may take which counts a shared page once
TRIES = 3  # confirmed looks in a row that kill one process; at the next one all are killed
_FAR = 1.5  # times the ceiling
_STEP = 1.1  # how much more has to be mapped for the peak to be measured again
#: To count a shared page once takes the kernel 18 ns for each process that has it, and some 700 ns for each page of
#: their tables, full or not: 128 processes that share 1 GiB would keep the watcher from its next look for 500 ms.
_TABLE_COST = 64
_DEAR, _DEAR_BYTES = 16, 16 << 30  # times the ceiling, or this: more than that is not summed, the run is ended
_CHEAP_BYTES = 1 << 30  # up to this, 20 ms or so, it is also measured where nothing depends on it


class Exact:
    """A sum that counts a shared page once, made in a thread of its own: the run can make that take long."""

    def __init__(self, pids: tuple[int, int], then: Callable[[watcher.Sample], None] | None) -> None:
        self.found: watcher.Sample | None = None
        self._is_done = threading.Event()
        if then is None:
            self._is_done.set()
        else:
            threading.Thread(target=self._measure, args=(pids, then), daemon=True).start()

    def _measure(self, pids: tuple[int, int], then: Callable[[watcher.Sample], None]) -> None:
        try:
            self.found = watcher.sample(pids, shared_once=True)
            then(self.found)
        finally:
            self._is_done.set()

    def wait(self, wait_s: float) -> bool:
        """Whether it is there, or could not be made, within *wait_s*."""
        return self._is_done.wait(wait_s)


class Memory:
    """One run's memory: looked at, and its largest process killed when the sum is over the ceiling.

    A child that takes too much dies alone, as under a cgroup. All die where that cannot help, or does
    not soon: many that grow together, or memory that belongs to no process, as that of sockets.
    """

    def __init__(self, most: int, pids: tuple[int, int], pidfds: tuple[int, int], told: Told) -> None:
        self._most, self._pids, self._told = most, pids, told
        self._pidfds = dict(zip(pids, pidfds, strict=True))
        self._breaches = self._last_victim = self._mapped = 0
        self._telling = Exact(pids, None)

    def look(self) -> tuple[float, int | None]:
        """Look once. How long to wait now, and the pidfd of the process that was to die, for the caller to close."""
        worked = time.thread_time()
        sample = watcher.sample(self._pids)
        sockets = watcher.socket_bytes(self._pids[0])
        pause = pause_after(worked)
        if sample.rss_bytes + sockets > self._most:
            started = time.monotonic()
            victim = self._hold(sample, sockets)
            return pause + min(time.monotonic() - started, DEATH_S), victim
        self._breaches = 0
        self._told.add(peak=sample.least_bytes + sockets)
        self._measure_for_telling(sample)
        return pause, None

    def _measure_for_telling(self, sample: watcher.Sample) -> None:
        """All that is held, if the run has grown and the sum is cheap to measure; the looks do not wait for it."""
        if sample.rss_bytes > _STEP * self._mapped and _cost(sample) < _CHEAP_BYTES and self._telling.wait(0):
            self._mapped = sample.rss_bytes
            self._telling = Exact(self._pids, lambda exact: self._told.add(peak=exact.rss_bytes))

    def _hold(self, sample: watcher.Sample, sockets: int) -> int | None:
        """Kill one process, or all, if a sum that counts a shared page once is above the ceiling, too."""
        init, program = self._pids
        least = sample.least_bytes + sockets
        self._told.add(peak=least)
        if self._is_far(sample, sockets) or _cost(sample) > max(_DEAR * self._most, _DEAR_BYTES):
            return self._end_all()
        pid = max(sample.pids, key=lambda pid: (pid != init, sample.bytes_of[pid], pid != program), default=init)
        victim = self._open(pid)
        exact = self._exact(sample, sockets)
        if exact is not None and sockets + exact.rss_bytes <= self._most:
            self._breaches = 0
            if victim is not None:
                os.close(victim)
            return None
        self._breaches += 1
        # Far above: too fast to be held one by one. Within: the rest is in sockets, and nothing tells whose.
        one_by_one = exact is not None and self._most < exact.rss_bytes <= _FAR * self._most
        if exact is None or not one_by_one or self._breaches > TRIES:
            if victim is not None:
                os.close(victim)
            return self._end_all()
        # Opened, then still listed: the pid was not another process's when it was opened.
        if victim is not None and pid in exact.bytes_of:
            self._told.add(kills=int(pid != self._last_victim))  # one that is slow to die is one
            self._last_victim = pid
            kill(victim)
        return victim

    def _is_far(self, sample: watcher.Sample, sockets: int) -> bool:
        """Whether nothing has to be measured. Page tables are never shared, and many take long to walk."""
        return sample.least_bytes + sockets > _FAR * self._most or sample.table_bytes > self._most

    def _exact(self, sample: watcher.Sample, sockets: int) -> watcher.Sample | None:
        """The sum that counts a shared page once; None if the run is far above before it is there, or keeps it away.

        A process that changes its mappings without end keeps out whoever wants to walk them; more of them on its
        processor make each wait longer, and page tables without pages take the kernel long to walk. What the cheap sum
        reads is behind no such lock.
        """
        asked, growth = Exact(self._pids, lambda exact: None), 0
        before = sample
        for _ in range(_EXACT_LOOKS):  # looks, not seconds: on a busy machine both take longer
            if asked.wait(LOOK_S):
                self._told.add(peak=asked.found.rss_bytes + sockets if asked.found is not None else 0)
                return asked.found
            now = watcher.sample(self._pids)
            growth += sum(max(0, now.own_of[pid] - held) for pid, held in before.own_of.items() if pid in now.own_of)
            self._told.add(peak=sample.least_bytes + growth)
            if self._is_far(now, 0) or sample.least_bytes + growth > _FAR * self._most:
                return None
            before = now
        return None

    def _end_all(self) -> int:
        self._told.add(kills=1)
        init = self._pidfds[self._pids[0]]
        kill(init)
        return os.dup(init)

    def _open(self, pid: int) -> int | None:
        """A pidfd of our own for *pid*; None if it is gone."""
        if pid in self._pidfds:
            return os.dup(self._pidfds[pid])
        try:
            return os.pidfd_open(pid)
        except OSError:
            return None


class Sockets:
    """One run with loopback whose memory a control group holds: not that of its sockets, or not all of it."""

    def __init__(self, most: int, pid: int, pidfd: int, told: Told, tell: Callable[[], None] | None) -> None:
        self._most, self._pid, self._pidfd, self._told, self._tell = most, pid, pidfd, told, tell
        self._breaches = 0

    def look(self) -> tuple[float, int | None]:
        """As `Memory.look`. Nothing tells whose a socket is, so all of the run ends."""
        worked = time.thread_time()
        if watcher.socket_bytes(self._pid) <= self._most:
            return pause_after(worked), None
        self._told.add(kills=int(self._breaches == 0))
        self._breaches += 1
        if self._tell is not None and self._breaches <= TRIES:  # whoever hears it may end what we may not
            self._tell()
        else:
            kill(self._pidfd)
        return LOOK_S, os.dup(self._pidfd)


def _cost(sample: watcher.Sample) -> int:
    """Of counting its shared pages once: as that of so many bytes that are mapped."""
    return sample.rss_bytes + _TABLE_COST * sample.table_bytes


def pause_after(worked: float) -> float:
    """How long to wait for the next look, after the look that began at *worked* of this thread's time.

    A run must not eat a core of the host by being watched. Only time on the processor counts: a look that waited, for
    the processor or for those who lock, does not make the next one later.
    """
    return max(LOOK_S, 4 * (time.thread_time() - worked))


def kill(pidfd: int) -> None:
    """SIGKILL. If the kill fails, the sum stays above the ceiling, and then init is killed."""
    with suppress(OSError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
