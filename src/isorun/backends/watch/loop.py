"""The process that watches runs: what it looks at, and whom it ends. `watching` is the host's end of it.

Theory of operation. The host sends one packet for each program that it starts: numbers, and a pidfd of the slot's init
and of the program. Each run whose memory no control group holds gets a thread, which samples it every 20 ms; the main
thread counts everybody's file locks, which no control group holds either. Nothing is shared with the host but that
socket and a file of records: it may decode whatever a program sends it, and these looks go on. Nor does one run hold up
the looks at another: a thread waits for the kernel alone, and a turn at the locks has its time.

A record is written before the kill that it tells of, so it is there when the host sees the death. A run that cannot be
watched any more is killed, and if this process dies, the host kills all of them.
"""

import array
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from isorun.backends.watch import sampling as watcher
from isorun.kernel import locks

#: Of one run: its peak in bytes, the most file locks that were seen, the processes killed for memory, why it was ended.
RECORD = struct.Struct("<QQII")
LOCKS, BROKEN = 1, 2
PACKET = 512
LOCK_BYTES = 208  # struct file_lock of Linux 6, to tell what was held

_LOOK_S = 0.02
_DEATH_S = 0.05  # to give back what a killed process holds; the next look does not wait longer for it
_EXACT_LOOKS = 25  # that long a sum may take which counts a shared page once
_TRIES = 3  # confirmed looks in a row that kill one process; at the next one all are killed
_TURN_S = 0.05  # at the list of locks, most of it spent on waiting for those who lock
_OVERTAKEN_S = 0.5  # that a run waits for a pass that began before it
_IDLE_S = 1.0
_FAR = 1.5  # times the ceiling
_OUTSIDE = 32 << 20  # more than a process shares with those that are not of its run: what it was forked from
_STEP = 1.1  # how much more has to be mapped for the peak to be measured again
#: To count a shared page once takes the kernel 18 ns for each process that has it, and some 700 ns for each page of
#: their tables, full or not: 128 processes that share 1 GiB would keep the watcher from its next look for 500 ms.
_TABLE_COST = 64
_DEAR, _DEAR_BYTES = 16, 16 << 30  # times the ceiling, or this: a run above it that is as dear to measure is ended
_CHEAP_BYTES = 1 << 30  # up to this, 20 ms or so, it is also measured where nothing depends on it


class Told:
    """What the host reads of one run. Two threads write it."""

    def __init__(self, records: int, number: int) -> None:
        self._records, self._offset = records, number * RECORD.size
        self._lock = threading.Lock()
        self._peak = self._locks = self._kills = self._why = 0

    def add(self, *, peak: int = 0, file_locks: int = 0, kills: int = 0, why: int = 0) -> None:
        """Peaks are kept, *kills* are added, the first *why* stays."""
        with self._lock:
            self._peak, self._locks = max(self._peak, peak), max(self._locks, file_locks)
            self._kills, self._why = self._kills + kills, self._why or why
            os.pwrite(self._records, RECORD.pack(self._peak, self._locks, self._kills, self._why), self._offset)


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

    @property
    def is_done(self) -> bool:
        """Whether it is there, or could not be made."""
        return self._is_done.is_set()

    def wait(self, wait_s: float) -> bool:
        """Whether it is so within *wait_s*."""
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
        # A slot with very many processes must not eat a core of the host by being watched. What counts is the time on
        # the processor: a look that had to wait for it is no reason to look later.
        pause = max(_LOOK_S, 4 * (time.thread_time() - worked))
        if sample.rss_bytes + sockets > self._most:
            started = time.monotonic()
            victim = self._hold(sample, sockets)
            return pause + min(time.monotonic() - started, _DEATH_S), victim
        self._breaches = 0
        self._told.add(peak=sample.least_bytes + sockets)
        self._measure_for_telling(sample)
        return pause, None

    def _measure_for_telling(self, sample: watcher.Sample) -> None:
        """All that is held, if the run has grown and the sum is cheap to measure; the looks do not wait for it."""
        if sample.rss_bytes > _STEP * self._mapped and _cost(sample) < _CHEAP_BYTES and self._telling.is_done:
            self._mapped = sample.rss_bytes
            self._telling = Exact(self._pids, lambda exact: self._told.add(peak=exact.rss_bytes))

    def _hold(self, sample: watcher.Sample, sockets: int) -> int | None:
        """Kill one process, or all, if a sum that counts a shared page once is above the ceiling, too."""
        init, program = self._pids
        least = sample.least_bytes + sockets
        self._told.add(peak=least)
        if least > _FAR * self._most or _cost(sample) > max(_DEAR * self._most, _DEAR_BYTES):
            return self._end_all()
        pid = max(sample.pids, key=lambda pid: (pid != init, sample.bytes_of[pid], pid != program), default=init)
        victim = self._open(pid)
        exact = self._confirmed(sample, sockets)
        if exact is not None and sockets + exact.rss_bytes <= self._most:
            self._breaches = 0
            if victim is not None:
                os.close(victim)
            return None
        self._breaches += 1
        # Far above: too fast to be held one by one. Within: the rest is in sockets, and nothing tells whose.
        one_by_one = exact is not None and self._most < exact.rss_bytes <= _FAR * self._most
        if exact is None or not one_by_one or self._breaches > _TRIES:
            if victim is not None:
                os.close(victim)
            return self._end_all()
        # Opened, then still listed: the pid was not another process's when it was opened.
        if victim is not None and pid in exact.bytes_of:
            self._told.add(kills=int(pid != self._last_victim))  # one that is slow to die is one
            self._last_victim = pid
            kill(victim)
        return victim

    def _confirmed(self, sample: watcher.Sample, sockets: int) -> watcher.Sample | None:
        """What is held in truth; nothing has to be measured where that is above the ceiling whatever is shared."""
        if self._is_certain(sample):
            return watcher.sample(self._pids)
        return self._exact(sample, sockets)

    def _is_certain(self, sample: watcher.Sample) -> bool:
        return max(sample.table_bytes, sample.least_bytes - _OUTSIDE) > self._most

    def _exact(self, sample: watcher.Sample, sockets: int) -> watcher.Sample | None:
        """The sum that counts a shared page once; None if the run is far above before it is there, or keeps it away.

        A process that changes its mappings without end keeps out whoever wants to walk them; more of them on its
        processor make each wait longer, and page tables without pages take the kernel long to walk. What the cheap sum
        reads is behind no such lock.
        """
        asked, growth = Exact(self._pids, lambda exact: None), 0
        before = sample
        for _ in range(_EXACT_LOOKS):  # looks, not seconds: on a busy machine both take longer
            if asked.wait(_LOOK_S):
                self._told.add(peak=asked.found.rss_bytes + sockets if asked.found is not None else 0)
                return asked.found
            now = watcher.sample(self._pids)
            growth += sum(max(0, now.own_of[pid] - held) for pid, held in before.own_of.items() if pid in now.own_of)
            self._told.add(peak=sample.least_bytes + growth)
            if sample.least_bytes + growth > _FAR * self._most:
                return None
            if self._is_certain(now):
                return now
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


def _cost(sample: watcher.Sample) -> int:
    """Of counting its shared pages once: as that of so many bytes that are mapped."""
    return sample.rss_bytes + _TABLE_COST * sample.table_bytes


class Run:
    """One run that is watched, until its init is dead. The pidfds are its own to close."""

    def __init__(self, packet: bytes, pidfds: list[int], records: int) -> None:
        self.number, self._most, init, program, self.tells_first, *devices = map(int, packet.split())
        self._pids = init, program
        self._pidfds = pidfds
        self.told = Told(records, self.number)
        self.since = time.monotonic()
        self.devices = {locks.name_of(device) for device in devices}
        self.pids = {pid for pid in self._pids if pid > 0}
        self.namespace = namespace_of(init)
        self._has_thread = False
        self.lock_breaches = 0

    @property
    def is_over(self) -> bool:
        """Whether its init is dead, and with it every process."""
        return is_readable(self._pidfds[0], 0)

    def end(self, why: int) -> None:
        """Kill all of it."""
        self.told.add(why=why)
        kill(self._pidfds[0])

    def hold_memory(self) -> None:
        """Begin to, in a thread: once, and not for a run that is over before a first look is due."""
        if self._has_thread or not self._most or time.monotonic() - self.since < _LOOK_S:
            return
        self._has_thread = True
        copies = os.dup(self._pidfds[0]), os.dup(self._pidfds[1])
        threading.Thread(target=self._hold_memory, args=copies, daemon=True).start()

    def _hold_memory(self, init: int, program: int) -> None:
        try:
            memory = Memory(self._most, self._pids, (init, program), self.told)
            pause = 0.0
            while not is_readable(init, pause):
                pause, dying = memory.look()
                if dying is not None:
                    is_readable(dying, _DEATH_S)
                    os.close(dying)
                    pause = _LOOK_S  # the others may be growing; this is at most `_TRIES` times in a row
        except BaseException:
            self.told.add(why=BROKEN)
            kill(init)  # a run that nobody watches has no ceiling
            raise
        finally:
            os.close(init)
            os.close(program)

    def close(self) -> None:
        """It is over."""
        for descriptor in self._pidfds:
            os.close(descriptor)


class Loop:
    """The main thread: hears the host, and counts file locks."""

    def __init__(self, host: socket.socket, records: int, most_locks: int) -> None:
        self._host, self._records, self._most_locks = host, records, most_locks
        self._parent = os.getppid()
        self._listing = locks.Listing()
        self._whose: dict[int, Run | None] = {}
        self._due = 0.0
        self.runs: list[Run] = []

    def serve(self) -> None:
        """Until the host is gone."""
        self._host.send(b"ready")
        while os.getppid() == self._parent:
            wait = min(max(self._due - time.monotonic(), 0), _LOOK_S) if self.runs else _IDLE_S
            if is_readable(self._host.fileno(), wait) and not self._hear():
                return
            for run in [run for run in self.runs if run.is_over]:
                self._forget(run)
            for run in self.runs:
                run.hold_memory()
            if self.runs and time.monotonic() >= self._due:
                started = time.monotonic()
                self.look_at_locks()
                self._due = time.monotonic() + max(_LOOK_S, 4 * (time.monotonic() - started))

    def _hear(self) -> bool:
        packet, ancillary, _, _ = self._host.recvmsg(PACKET, socket.CMSG_SPACE(2 * 4), socket.MSG_CMSG_CLOEXEC)
        if not packet:
            return False
        if not self.runs:
            self._due = time.monotonic() + _LOOK_S
        pidfds = array.array("i", b"".join(data for _, kind, data in ancillary if kind == socket.SCM_RIGHTS))
        self.runs.append(Run(packet, list(pidfds), self._records))
        return True

    def _forget(self, run: Run) -> None:
        self.runs.remove(run)
        self._whose = {pid: other for pid, other in self._whose.items() if other is not run}
        run.close()

    def look_at_locks(self) -> None:
        """One turn at the list; a run that has too many in what was read of it is ended."""
        until = time.monotonic() + _TURN_S
        while time.monotonic() < until:
            is_whole = self._listing.read(until, self._most_locks)
            if self._listing.lines > self._most_locks and (self._end_those_with_too_many() or self._is_overtaken):
                self._listing.start_again()
                is_whole = True
            if is_whole:
                self._whose = {}
                return

    @property
    def _is_overtaken(self) -> bool:
        """Whether a run has waited long for this pass, which cannot judge it, and may not end while a program locks."""
        waits = time.monotonic() - _OVERTAKEN_S
        return any(self._listing.began < run.since < waits for run in self.runs)

    def _end_those_with_too_many(self) -> bool:
        found = False
        for run, count in self._owners().items():
            run.told.add(file_locks=count)
            if count > self._most_locks:
                found = True
                self._end(run)
        return found

    def _end(self, run: Run) -> None:
        run.lock_breaches += 1
        if not run.tells_first or run.lock_breaches > _TRIES:
            run.end(LOCKS)
            return
        run.told.add(why=LOCKS)
        with suppress(OSError):  # a host that reads nothing: then the next looks end it
            self._host.send(b"%d" % run.number)

    def _owners(self) -> dict[Run, int]:
        by_device = {device: run for run in self._judged() for device in run.devices}
        found: dict[Run, int] = {}
        for (pid, device), count in self._listing.counts.items():
            # First by the run's own file systems: whoever made the lock may be dead, and its pid another's.
            run = by_device.get(device) or self._owner(pid)
            if run is not None:
                found[run] = found.get(run, 0) + count
        return found

    def _judged(self) -> list[Run]:
        """The runs that were there when this pass began: a younger one may have a dead one's devices and numbers."""
        return [run for run in self.runs if run.since <= self._listing.began and not run.is_over]

    def _owner(self, pid: int) -> Run | None:
        if pid not in self._whose:
            self._whose[pid] = self._find_owner(pid)
        return self._whose[pid]

    def _find_owner(self, pid: int) -> Run | None:
        namespace = namespace_of(pid)
        above = set(_ancestors(pid))  # of a process that we may not look into
        judged = self._judged()
        return next((run for run in judged if run.pids & above or run.namespace == namespace is not None), None)


def _ancestors(pid: int) -> Iterator[int]:
    for _ in range(1000):
        if pid <= 1:
            return
        yield pid
        pid = watcher.parent_of(pid) or 0


def namespace_of(pid: int) -> int | None:
    """Its pid namespace, which no process of a run can leave; None if it is gone or not ours to ask."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino  # noqa: PTH116 - every import is paid for at each start
    except OSError:
        return None


def is_readable(descriptor: int, wait_s: float) -> bool:
    """Whether it can be read, or (a pidfd) its process is dead, within *wait_s*."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(wait_s * 1000))


def kill(pidfd: int) -> None:
    """SIGKILL. If the kill fails, the sum stays above the ceiling, and then init is killed."""
    with suppress(OSError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def main() -> None:
    """Serve the host; the arguments are its socket, the file of records, and how many locks a run may hold."""
    control, records, most_locks = map(int, sys.argv[1:])
    with suppress(OSError):  # root's: the programs of many runs may want the processor at once
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    Loop(socket.socket(fileno=control), records, most_locks).serve()
    os._exit(0)  # threads that wait for the kernel are nobody's to wait for
