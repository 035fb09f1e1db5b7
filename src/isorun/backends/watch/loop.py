"""The process that watches runs: what it looks at, and whom it ends. `watching` is the host's end of it.

Theory of operation. The host sends one packet for each program that it starts: numbers, and a pidfd of the slot's init
and of the program. Each run whose memory, or whose sockets, no control group holds gets a thread, which samples it
every 20 ms; the main thread counts everybody's file locks, which no control group holds either. Nothing is shared with
the host but that socket and a file of records: it may decode whatever a program sends it, and these looks go on. Nor
does one run hold up the looks at another: a thread waits for the kernel alone, and a turn at the locks has its time.

A host that freezes a run sends the file that thaws it first: a frozen process may outlive SIGKILL until then, and
once the host was killed only this process could thaw it.

A record is written before the kill that it tells of, so it is there when the host sees the death. A run that cannot be
watched any more is killed, and if this process dies, the host kills all of them.
"""

import array
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

from isorun.backends.watch import sampling as watcher
from isorun.backends.watch.memory import DEATH_S, LOOK_S, TRIES, Memory, Sockets, kill, pause_after
from isorun.backends.watch.told import BROKEN, LOCKS, Told
from isorun.kernel import locks

PACKET = 512
THAW = "thaw"  # the first word of a packet of its own, see `Run.entrusted`

_TURN_S = 0.05  # at the list of locks, most of it spent on waiting for those who lock
_OVERTAKEN_S = 0.5  # that a run waits for a pass that began before it
_IDLE_S = 1.0


class Run:
    """One run that is watched, until its init is dead. The pidfds are its own to close."""

    def __init__(self, packet: bytes, pidfds: list[int], records: int, host: socket.socket) -> None:
        numbers = map(int, packet.split())
        self.number, self._most, self._most_in_sockets, init, program, self.tells_first, *devices = numbers
        self._pids = init, program
        self._pidfds, self._host = pidfds, host
        self.told = Told(records, self.number)
        self.since = time.monotonic()
        self.devices = {locks.name_of(device) for device in devices}
        self.pids = {pid for pid in self._pids if pid > 0}
        self.namespace = namespace_of(init)
        self._has_thread = False
        self._thawed_by: tuple[int, bytes] | None = None
        self.lock_breaches = 0

    @property
    def is_over(self) -> bool:
        """Whether its init is dead, and with it every process."""
        return is_readable(self._pidfds[0], 0)

    def end(self, why: int) -> None:
        """Kill all of it."""
        self.told.add(why=why)
        self._end()

    def _end(self) -> None:
        kill(self._pidfds[0])
        if self._thawed_by is not None:
            with suppress(OSError):  # its group has gone
                os.write(*self._thawed_by)

    def entrusted(self, descriptor: int, text: bytes) -> None:
        """It is about to be frozen; *text*, written to *descriptor*, ours to close, thaws it."""
        self._thawed_by = descriptor, text

    def abandon(self) -> None:
        """The host has gone. What is not frozen dies without us."""
        if self._thawed_by is not None:
            self._end()

    def tell(self) -> None:
        """The host, that it has to end."""
        with suppress(OSError):  # a host that reads nothing: then the next looks end it
            self._host.send(b"%d" % self.number)

    def hold_memory(self) -> None:
        """Begin to, in a thread: once, and not for a run that is over before a first look is due."""
        if self._has_thread or not (self._most or self._most_in_sockets) or time.monotonic() - self.since < LOOK_S:
            return
        self._has_thread = True
        copies = os.dup(self._pidfds[0]), os.dup(self._pidfds[1])
        threading.Thread(target=self._hold_memory, args=copies, daemon=True).start()

    def _hold_memory(self, init: int, program: int) -> None:
        try:
            memory: Memory | Sockets
            if self._most:
                memory = Memory(self._most, self._pids, (init, program), self.told)
            else:
                tell = self.tell if self.tells_first else None
                memory = Sockets(self._most_in_sockets, self._pids[0], init, self.told, tell)
            pause = 0.0
            while not is_readable(init, pause):
                pause, dying = memory.look()
                if dying is not None:
                    is_readable(dying, DEATH_S)
                    os.close(dying)
                    pause = LOOK_S  # the others may be growing; this is at most `TRIES` times in a row
        except BaseException:
            self.told.add(why=BROKEN)
            kill(init)  # a run that nobody watches has no ceiling
            raise
        finally:
            os.close(init)
            os.close(program)

    def close(self) -> None:
        """It is over."""
        for descriptor in (*self._pidfds, *(self._thawed_by or ())[:1]):
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
            wait = min(max(self._due - time.monotonic(), 0), LOOK_S) if self.runs else _IDLE_S
            if is_readable(self._host.fileno(), wait) and not self._hear():
                break
            for run in [run for run in self.runs if run.is_over]:
                self._forget(run)
            for run in self.runs:
                run.hold_memory()
            if self.runs and time.monotonic() >= self._due:
                worked = time.thread_time()
                self.look_at_locks()
                self._due = time.monotonic() + pause_after(worked)
        while is_readable(self._host.fileno(), 0) and self._hear():  # the last that it said
            pass
        for run in self.runs:
            run.abandon()

    def _hear(self) -> bool:
        packet, ancillary, _, _ = self._host.recvmsg(PACKET, socket.CMSG_SPACE(2 * 4), socket.MSG_CMSG_CLOEXEC)
        if not packet:
            return False
        descriptors = array.array("i", b"".join(data for _, kind, data in ancillary if kind == socket.SCM_RIGHTS))
        if packet.startswith(THAW.encode()):
            _, number, text = packet.split()
            self._entrusted(int(number), descriptors[0], text)
            return True
        if not self.runs:
            self._due = time.monotonic() + LOOK_S
        self.runs.append(Run(packet, list(descriptors), self._records, self._host))
        return True

    def _entrusted(self, number: int, descriptor: int, text: bytes) -> None:
        for run in self.runs:
            if run.number == number and not run.is_over:
                run.entrusted(descriptor, text)
                return
        os.close(descriptor)  # it has ended meanwhile

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
        if not run.tells_first or run.lock_breaches > TRIES:
            run.end(LOCKS)
            return
        run.told.add(why=LOCKS)
        run.tell()

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


def main() -> None:
    """Serve the host; the arguments are its socket, the file of records, and how many locks a run may hold."""
    control, records, most_locks = map(int, sys.argv[1:])
    with suppress(OSError):  # root's: the programs of many runs may want the processor at once
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    Loop(socket.socket(fileno=control), records, most_locks).serve()
    os._exit(0)  # threads that wait for the kernel are nobody's to wait for
