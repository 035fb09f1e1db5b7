"""Has promised files looked into by `inspector`, which runs in a slot of its own.

Theory of operation. The host never parses what a program wrote. The files that need more
than their size are sent, under names of ours, into a slot that nothing ran in before
(`inspectors`), where the inspector answers one line for each, in order. A file whose answer does not come,
because the inspector died, hung, ran out of memory or said something else, is invalid, and
a new slot goes on with the files after it. All files of one run share a slot while it lives:
one that takes the inspector over can lie about the others, and they are one program's.

A run whose files take long holds up no other run's: every run begins with a short turn, and
one that is not through by then goes on, in a new slot, among those that need longer.

What the inspector says is hostile: it is bounded, decoded here, and can only name a code of
`_CODES` and a hint that is shown escaped.
"""

import asyncio
import json
import math
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType

from isorun.backends.base import Backend, File
from isorun.core.contract.checks import needs_a_look
from isorun.core.contract.items import Contract, ContractItem
from isorun.core.limits import MIB, Limits
from isorun.core.outcome import Exit
from isorun.core.text import one_line
from isorun.runtime.inspection.inspectors import AT_ONCE, Inspectors, Place
from isorun.runtime.inspection.verdict import INVALID, Finding
from isorun.runtime.printed.pipes import PipeReader, drain
from isorun.runtime.request import AcceptedRun
from isorun.runtime.run import Options, program_for
from isorun.settings import Settings
from isorun.store.collect import TOO_LARGE, Collected, FileRecord
from isorun.store.folder import RunFolder

FILE_S = 10.0  # a workbook of 100,000 rows by 10 takes 2 s to open and 6 s to search
TOTAL_S = 30.0
SLICE_S = 2.0  # of the first turn: all but large workbooks are through by then
MEMORY_BYTES = 768 * MIB  # beside the files themselves; see MAX_PIXELS in `inspector`
ANSWER_BYTES = 48_000  # one line: all findings, each character of a hint written as \\u and four digits
FINDINGS = 10
HINT = 600  # characters

_MISSING_LIBRARY = "missing_library"
_CODES = (INVALID, TOO_LARGE, _MISSING_LIBRARY)
_TMP_BYTES = 8 * MIB
_SPARE_BYTES = 4 * MIB  # of the workspace: the inspector's own text, and whole pages for small files

Found = dict[str, tuple[Finding, ...]]


@dataclass(frozen=True, slots=True)
class _Task:
    """A file to look into, and the promise it has to keep."""

    item: ContractItem
    file: FileRecord


def to_inspect(contract: Contract | None) -> tuple[ContractItem, ...]:
    """The items whose files have to be looked into once they are there."""
    items = contract.items if contract else ()
    return tuple(item for item in items if needs_a_look(item.path, item.checks))


class Inspection:
    """Inspects the files of every run of a Runtime; entered and left with it.

    *file_s*: seconds for one file, from the answer before it. *total_s*: for all files
    of a run, the building of slots not counted. *slice_s*: how long a run may hold a place that others wait for.
    """

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        *,
        file_s: float = FILE_S,
        total_s: float = TOTAL_S,
        slice_s: float = SLICE_S,
    ) -> None:
        self._file_s, self._total_s, self._slice_s = file_s, total_s, slice_s
        self._inspectors = Inspectors(backend, settings, limits_for(()))
        self._first = asyncio.Semaphore(AT_ONCE)
        self._longer = asyncio.Semaphore(max(1, AT_ONCE // 2))

    async def __aenter__(self) -> "Inspection":
        await self._inspectors.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._inspectors.__aexit__(kind, error, trace)

    @property
    def waiting(self) -> int:
        """Inspectors' slots that are ready now."""
        return self._inspectors.waiting

    def expect(self, contract: Contract | None) -> None:
        """A run with *contract* begins: its inspector may be made ready meanwhile. Returns at once."""
        self._inspectors.expect(to_inspect(contract))

    async def inspect(self, contract: Contract, collected: Collected, folder: RunFolder) -> Found:
        """What is wrong with each promised file of *collected* that needs a look; () for a file that is fine.

        A path that is not in the answer was not there. Raises what `Backend.launch` raises.
        """
        tasks = [
            _Task(item, collected.files[item.path])
            for item in to_inspect(contract)
            if item.path in collected.files and collected.files[item.path].bytes
        ]
        if not tasks:
            return {}
        found = await self._all(tasks, folder)
        for finding in {finding for findings in found.values() for finding in findings}:
            if finding.code == _MISSING_LIBRARY:
                folder.append_infra("inspector", "ERROR", finding.hint)
        return {path: tuple(map(_without_operator_code, findings)) for path, findings in found.items()}

    async def _all(self, tasks: list[_Task], folder: RunFolder) -> Found:
        found, left_s = Found(), self._total_s
        turns, slice_s = self._first, self._slice_s
        while tasks and left_s > 0:
            sitting = _Sitting(tasks, self._file_s, left_s, slice_s)
            async with turns, self._inspectors.place(limits_for(tasks)) as place:
                await sitting.hold(place, folder)
            left_s -= sitting.took_s
            slice_s -= sitting.took_s
            found |= sitting.found
            if sitting.was_cut or slice_s <= 0:
                turns, slice_s = self._longer, math.inf
            tasks = tasks[len(sitting.found) :]
        hint = f"was not checked: the other files of the run used up the {self._total_s:g} s for all of them"
        return found | {task.file.path: (_finding(task, INVALID, hint),) for task in tasks}


def limits_for(tasks: Sequence[_Task]) -> Limits:
    """The ceilings of an inspector that is to look into *tasks*; none of them is the run's."""
    sent = sum(task.file.bytes for task in tasks)
    # By powers of two, so that the cgroup of one inspection serves the next.
    workspace = _SPARE_BYTES + (1 << max(sent - 1, MIB).bit_length())
    return Limits(
        wall_s=TOTAL_S,
        memory_bytes=max(MEMORY_BYTES + workspace, 2 * (workspace + 2 * _TMP_BYTES)),
        processes=8,
        workspace_bytes=workspace,
        file_bytes=workspace,
        tmp_bytes=_TMP_BYTES,
        shm_bytes=_TMP_BYTES,
        output_bytes=MIB,
    )


class _Sitting:
    """One slot, and the files it gets through: `found` has a prefix of *tasks* once `hold` has returned.

    After *slice_s* it is cut: nothing is said of the file in progress, which is for another sitting.
    """

    def __init__(self, tasks: Sequence[_Task], file_s: float, left_s: float, slice_s: float) -> None:
        self._tasks = tasks
        self._file_s, self._left_s, self._slice_s = file_s, left_s, slice_s
        self.was_cut = False
        self._buffer = bytearray()
        self._news = asyncio.Event()
        self._strange = False  # it said what ours would not
        self._over = False  # nothing more is to be expected of this inspector
        self._said = bytearray()  # the end of its stderr
        self.found: Found = {}
        self.took_s = 0.0

    async def hold(self, place: Place, folder: RunFolder) -> None:
        """Have the files inspected at *place*. At least one is answered for, if only by how it failed, or it is cut."""
        slot, limits = place.slot, limits_for(self._tasks)
        request = _request(self._tasks, folder, place.code)
        await slot.start(program_for(request, Options()))
        began = time.monotonic()
        readers = [PipeReader(slot.stdout, self._take), PipeReader(slot.stderr, self._hear)]
        ended = asyncio.ensure_future(slot.wait())
        ended.add_done_callback(lambda _: self._news.set())
        try:
            late = await self._listen(ended)
            self.took_s = time.monotonic() - began
            if ended.done():
                await ended
            exit_ = None
            if len(self.found) < len(self._tasks):  # else nothing that it does counts; it dies with its slot
                exit_, _ = await slot.kill()
                await drain(readers)  # what it said before it died counts
        finally:
            ended.cancel()
            with suppress(asyncio.CancelledError):
                await ended
            for reader in readers:
                reader.stop()
        if exit_ is not None and len(self.found) < len(self._tasks) and not self.was_cut:
            self._blame(late, exit_, limits)
            said = bytes(self._said).decode("utf-8", "replace")
            folder.append_infra("inspector", "WARNING", f"ended early: {exit_}: {said}")

    async def _listen(self, ended: "asyncio.Future[None]") -> float | None:
        """Take answers until there are no more; the seconds that were not enough, if time ran out."""
        began = time.monotonic()
        while not self._over and not ended.done():
            now = time.monotonic()
            allowed = min(self._file_s, began + self._left_s - now)
            to_the_cut = began + self._slice_s - now
            self._news.clear()
            try:
                async with asyncio.timeout(max(min(allowed, to_the_cut), 0)):
                    await self._news.wait()
            except TimeoutError:
                self._stop()
                self.was_cut = to_the_cut < allowed
                return None if self.was_cut else allowed
        return None

    def _blame(self, late: float | None, exit_: Exit, limits: Limits) -> None:
        task = self._tasks[len(self.found)]
        if late is not None:
            finding = _finding(task, INVALID, f"could not be opened in {late:.1f} s; write a smaller or simpler file")
        elif exit_.oom_kills:
            hint = f"needs more than {limits.memory_bytes // MIB} MiB of memory to open; write a smaller file"
            finding = _finding(task, TOO_LARGE, hint)
        else:
            how = f"signal {exit_.signal}" if exit_.signal else f"exit {exit_.code}"
            how = "it sent something else" if self._strange else how
            finding = _finding(task, INVALID, f"could not be opened: the inspector ended without an answer ({how})")
        self.found[task.file.path] = (finding,)

    def _take(self, data: bytes) -> None:
        if self._over:
            return
        self._buffer += data
        while not self._over and (line := self._next_line()) is not None:
            task = self._tasks[len(self.found)]
            answer = decode_answer(line)
            if answer is None:
                self._distrust()
                return
            self.found[task.file.path] = tuple(_finding(task, code, hint) for code, hint in answer)
            self._over = len(self.found) == len(self._tasks)
            self._news.set()
        if len(self._buffer) > ANSWER_BYTES:
            self._distrust()

    def _next_line(self) -> bytes | None:
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        self._buffer = rest
        return bytes(line)

    def _hear(self, data: bytes) -> None:
        self._said = (self._said + data)[-1000:]

    def _distrust(self) -> None:
        """It is not our inspector that speaks any more."""
        self._strange = True
        self._stop()

    def _stop(self) -> None:
        self._over = True
        self._buffer.clear()
        self._news.set()


def decode_answer(line: bytes) -> list[tuple[str, str]] | None:
    """The findings in one *line* of an inspector, or None for anything that ours would not say."""
    if len(line) > ANSWER_BYTES:
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or len(value) > FINDINGS:
        return None
    found: list[tuple[str, str]] = []
    for pair in value:
        match pair:
            case [str(code), str(hint)] if code in _CODES and len(hint) <= HINT:
                found.append((code, hint))
            case _:
                return None
    return found


def _finding(task: _Task, code: str, hint: str) -> Finding:
    if code == _MISSING_LIBRARY:
        hint = f"could not be opened: the Python that isorun runs on lacks {hint[:40]}; {_REMEDY}"
    return Finding(code=code, hint=f"{task.item.path} {one_line(hint)}")


_REMEDY = f"the operator can install what isorun needs with `{sys.executable} -m pip install isorun`"


def _without_operator_code(finding: Finding) -> Finding:
    return replace(finding, code=INVALID) if finding.code == _MISSING_LIBRARY else finding


def _request(tasks: Sequence[_Task], folder: RunFolder, code: bytes) -> AcceptedRun:
    names = [f"files/{number}" for number in range(len(tasks))]
    job = [
        {"file": name, "name": task.item.path, "checks": task.item.checks}
        for name, task in zip(names, tasks, strict=True)
    ]
    sent = [
        File(path=f"work/{name}", source=folder.out / task.file.path, sha256=task.file.sha256)
        for name, task in zip(names, tasks, strict=True)
    ]
    return AcceptedRun(
        exec_id="inspection",
        turn="turn_inspection",
        code=code,
        contract=None,
        timeout_s=TOTAL_S,
        prog_name="inspector",
        inputs=(File(path="work/job.json", data=json.dumps(job).encode()), *sent),
    )
