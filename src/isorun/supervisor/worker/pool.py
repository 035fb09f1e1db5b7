"""The pool of a supervisor's workers: started on demand, reused while idle, recycled before they grow old.

A worker has one call at a time, so a call that crashes its process, or is ended at its deadline, takes no other with
it. A run has all workers but one at most, so a run whose calls all hang until their deadlines delays no call of
another.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Mapping

from isorun.supervisor.worker.handle import OnOutput, WorkerHandle, WorkerLost
from isorun.supervisor.worker.modes import WorkerKind
from isorun.supervisor.worker.spawner_client import SpawnerClient
from isorun.wire.messages import Configure, Failed, Result, Work

MAX_WORKERS = 4  # each is an interpreter with the tools' libraries; further calls wait for their turn
MAX_WORKERS_OF_A_RUN = MAX_WORKERS - 1
MAX_CALLS = 200  # of one worker: what libraries leak is gone after so many
MAX_RSS_BYTES = 400 << 20  # of one worker
_NO_SECRETS = ("ISORUN_FONT_PATH",)  # variables that every worker sees
_RSS_CHECK_CALLS = 10  # a worker's memory is checked after each so many calls


class WorkerPool:
    """The workers for the bundle of *globals_json*. *environment*: what those with secrets see beside the usual."""

    def __init__(self, globals_json: str, environment: Mapping[str, str]) -> None:
        self._globals_json, self._environment = globals_json, dict(environment)
        self._spawner = SpawnerClient()
        self._all: list[WorkerHandle] = []
        self._idle: list[WorkerHandle] = []  # the most recently used is at the end
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()  # by run; the longest waiting is the first
        self._busy: Counter[str] = Counter()  # workers that have a call, by run

    def prepare(self) -> None:
        """Start the spawner, which takes longest, before the first call needs a worker. Raises `OSError`."""
        self._spawner.open()

    async def probe(self, kind: WorkerKind) -> str:
        """Why no worker of *kind* can be started here; empty if one can. The worker that shows it stays in the pool."""
        try:
            worker = await self._acquire(kind, "")
        except WorkerLost as lost:
            return str(lost)
        refused = await worker.started
        self._release(worker, "")
        return refused

    async def call(self, kind: WorkerKind, work: Work, out: int | None, on_output: OnOutput) -> Result | Failed:
        """Have a worker of *kind* do *work*; see `WorkerHandle.call`. If this is cancelled, its process is killed."""
        worker = await self._acquire(kind, work.exec_id)
        try:
            answer = await worker.call(work, out, on_output)
            if worker.calls >= MAX_CALLS or (worker.calls % _RSS_CHECK_CALLS == 0 and worker.rss() > MAX_RSS_BYTES):
                worker.kill()
        except BaseException:
            worker.kill()
            raise
        finally:
            self._release(worker, work.exec_id)
        return answer

    def descriptors(self) -> list[int]:
        """The sockets of all workers and of the spawner, for a child that a tool forks to close."""
        ends = [end.fileno() for worker in self._all for end in (worker.socket, worker.monitor)]
        return [*ends, *self._spawner.descriptors()]

    async def _acquire(self, kind: WorkerKind, run: str) -> WorkerHandle:
        """An idle worker of *kind*, or a new one; at `MAX_WORKERS`, or at those of *run*, this waits for its turn."""
        queue = self._waiting.append
        while self._busy[run] >= MAX_WORKERS_OF_A_RUN or (worker := self._free(kind)) is None:
            turn = (run, asyncio.get_running_loop().create_future())
            queue(turn)
            queue = self._waiting.appendleft  # if another call was quicker, this one is the next
            try:
                await turn[1]
            except asyncio.CancelledError:
                if turn[1].done() and not turn[1].cancelled():
                    self._wake_next()  # this call does not take its turn
                raise
            finally:
                if turn in self._waiting:
                    self._waiting.remove(turn)
        self._busy[run] += 1
        return worker

    def _free(self, kind: WorkerKind) -> WorkerHandle | None:
        """A worker without a call; None if all that there may be are busy or end."""
        for worker in reversed(self._idle):
            if worker.kind == kind and not worker.is_ending:
                self._idle.remove(worker)
                return worker
        if len(self._all) < MAX_WORKERS:
            return self._start(kind)
        if self._idle:  # of another kind: kill the least recently used
            self._idle.pop(0).kill()
        return None

    def _start(self, kind: WorkerKind) -> WorkerHandle:
        seen = {name: text for name, text in self._environment.items() if kind.secrets or name in _NO_SECRETS}
        configure = Configure(globals_json=self._globals_json, environment=seen)
        try:
            worker = WorkerHandle(kind, *self._spawner.spawn(kind.network), configure, self._ended)
        except OSError as error:
            raise WorkerLost(f"could not be started: {error.strerror}") from error
        self._all.append(worker)
        return worker

    def _release(self, worker: WorkerHandle, run: str) -> None:
        self._busy[run] -= 1
        if not self._busy[run]:
            del self._busy[run]
        if worker in self._all and not worker.is_ending:
            self._idle.append(worker)
        self._wake_next()

    def _ended(self, worker: WorkerHandle) -> None:
        self._all.remove(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        self._wake_next()

    def _wake_next(self) -> None:
        """It is the turn of the call that has waited longest, of those whose run may have another worker."""
        for run, turn in tuple(self._waiting):
            if not turn.done() and self._busy[run] < MAX_WORKERS_OF_A_RUN:
                self._waiting.remove((run, turn))
                turn.set_result(None)
                return
