"""From a dead run to its result: files collected, inspected and judged, logs closed, result.json written.

The module is long because each field of a result is made here, and each notice in its place among the others.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, TypeVar

from isorun.backends.base import Slot
from isorun.core.limits import Limits
from isorun.core.outcome import Code, Status
from isorun.core.report import MAX_SCANNED, error_lines, log_tail, report_text, tracebacks, tree
from isorun.core.result import MAX_CALLS, Artifact, Few, Item, RunError, RunResult
from isorun.core.text import file_name, one_line, printable
from isorun.runtime.aside import Aside, is_slight
from isorun.runtime.glance import glance
from isorun.runtime.hints.message import may_speak_of_an_error, message_for
from isorun.runtime.inspection.inspection import Found, Inspection, to_inspect
from isorun.runtime.inspection.verdict import checks_with, judge, precedence
from isorun.runtime.request import AcceptedRun
from isorun.runtime.run import Ending
from isorun.runtime.shown import is_scratch, left_in_tmp, read_left, read_shown, unsaved_figures
from isorun.store.collect import Collected, WorkspaceDiff, collect, diff
from isorun.store.folder import RunFolder
from isorun.store.journal import INDEX, listed, publish
from isorun.store.places import beside, kept_elsewhere, notices_of, place

if TYPE_CHECKING:
    from isorun.runtime.hints.seen import Seen

_T = TypeVar("_T")
_SLIGHT_CALLS = 16  # each has a file of its own
_DELETIONS_SHOWN = 100
_OTHERS_SHOWN = 10
_REFUSALS_SHOWN = 20  # a program can leave a link behind for every inode it has
_NOTICES = 200
_SAID_CHARS = 4000  # of an error's message, and of its hint
_TAIL = 4000  # characters of each stream's end that a hint may be made of
_FROM_OUTSIDE = "Run the program again. Everything it printed and wrote until then is in out/."


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadRun:
    """A run whose slot was killed: all that its result is made of, but for its files.

    *began* is monotonic; *noticed* is what the backend tells of itself (`Backend.notices`).
    """

    request: AcceptedRun
    ending: Ending
    slot: Slot
    folder: RunFolder
    limits: Limits
    timings: Mapping[str, Any]
    launcher: bytes
    given: Mapping[str, str] = field(default_factory=dict)  # sha256 of each input that stood in out/, by its path
    began: float
    noticed: tuple[str, ...] = ()
    fallback: str = ""  # why `auto` took another backend than its first; empty if it did not


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgement:
    """What became of the run's promises, or of out/ if it made none."""

    collected: Collected
    verdicts: tuple[Item, ...]
    changed: WorkspaceDiff | None
    left_out: tuple[int, int, int]  # of what was created, modified and deleted, not in *changed*
    status: Status
    code: Code | None

    def paths(self, state: str) -> tuple[str, ...]:
        return tuple(verdict.path for verdict in self.verdicts if verdict.state == state)

    def items(self) -> tuple[Item, ...]:
        if self.changed is None:
            return self.verdicts
        return _entries(self.changed, self.collected)


async def finish(run: DeadRun, inspection: Inspection, aside: Aside, *, large: bool) -> RunResult:
    """Collect, have inspected what promises more than its presence, judge, write and return.

    *large*: the run left more behind than is usual, see `aside`.
    """
    contract = run.request.contract
    do = _at_once if _is_slight(run) else partial(aside.do, large=large)
    if contract is None or not to_inspect(contract) or run.ending.status is Status.LOST:  # no backend to look with
        return await do(lambda: _concluded(run, _collected(run), {}))
    collected = await do(partial(_collected, run))
    found = await inspection.inspect(contract, collected, run.folder)
    return await do(partial(_concluded, run, collected, found))


def _is_slight(run: DeadRun) -> bool:
    """Whether it is concluded in the loop. A run that failed is not: a hint is looked for in all that it left."""
    ended_well = run.ending.status is Status.OK and len(run.ending.tool_calls) <= _SLIGHT_CALLS
    return ended_well and is_slight(os.fstatvfs(run.slot.out), run.ending.output.total)


async def _at_once(work: Callable[[], _T]) -> _T:
    return work()


def _collected(run: DeadRun) -> Collected:
    # Before anything of the program's is there: its file of such a name is refused, the record is not.
    publish(run.folder, run.ending.tool_calls)
    room = {"max_bytes": run.limits.workspace_bytes, "max_entries": run.limits.workspace_inodes}
    reserved = run.folder.reserved
    collected = collect(run.slot.out, run.folder.out, reserved=reserved, given=run.given, **room)
    collected = beside(run.slot.work, run.folder.out, collected, known=run.request.in_work, reserved=reserved, **room)
    before = run.request.sent
    made = {path: file for path, file in collected.files.items() if before.get(path) != file.sha256}
    items = run.request.contract.items if run.request.contract else ()
    return place(run.folder.out, collected, dict(kept_elsewhere(items, made)))


def _concluded(run: DeadRun, collected: Collected, found: Found) -> RunResult:
    judged = _judged(run, collected, found)
    error = _error(run, judged)
    notices = (*map(printable, run.noticed), *_notices(run, judged))
    for notice in notices:
        run.folder.append_infra("runtime", "NOTICE", notice)
    run.folder.append_infra("runtime", "INFO", f"ended: {judged.status} after {run.ending.run_s:.3f} s")
    run.folder.write_launcher(b"", run.launcher)
    result = _result(run, judged, error, notices)
    problems = (run.ending.output.problem,) if run.ending.output.problem else ()
    result = replace(result, report_text=report_text(result, infra_errors=problems, left_out=judged.left_out))
    run.folder.write_result(result.stored())
    return result


def _judged(run: DeadRun, collected: Collected, found: Found) -> _Judgement:
    """The run's own failure comes first; only a run that ended well can break its contract."""
    request, ending = run.request, run.ending
    verdicts: tuple[Item, ...] = ()
    if request.contract:
        seen = glance(request.contract, collected, run.folder.out)
        for path, findings in found.items():
            seen[path] = (*seen.get(path, ()), *findings)
        verdicts = judge(request.contract, collected, checks_with(seen, looked_into=found))
    broken = precedence(verdicts)
    status, code = ending.status, ending.code
    if status is Status.OK and broken is not None:
        status, code = Status.CONTRACT_FAILED, broken
    changed, left_out = None, (0, 0, 0)
    if request.contract is None:
        # An input that the run has changed is an output of it; one that it has removed was never the caller's file.
        changed_inputs = {path: digest for path, digest in run.given.items() if path in collected.files}
        before = {path: digest for path, digest in {**request.sent, **changed_inputs}.items() if not is_scratch(path)}
        after = {path: file for path, file in collected.files.items() if not is_scratch(path)}
        whole = diff(before, after, collected.refused)
        # Each by itself: ten thousand new files must not hide the one that was deleted.
        created, modified, deleted = Few(whole.created), Few(whole.modified), Few(whole.deleted)
        changed = WorkspaceDiff(created=created.paths, modified=modified.paths, deleted=deleted.paths)
        left_out = (created.left_out, modified.left_out, deleted.left_out)
    return _Judgement(
        collected=collected, verdicts=verdicts, changed=changed, left_out=left_out, status=status, code=code
    )


def _result(run: DeadRun, judged: _Judgement, error: RunError | None, notices: tuple[str, ...]) -> RunResult:
    request, ending, folder = run.request, run.ending, run.folder
    log = ending.output.log_text()
    items, changed = judged.items(), judged.changed
    shown = read_shown(run.slot.work)
    handed_out = [item for item in items if item.state in ("ok", "created", "modified")]
    return RunResult(
        ok=judged.status is Status.OK,
        status=judged.status,
        exec_id=request.exec_id,
        turn_id=request.turn,
        prog_name=request.prog_name,
        exit_code=ending.exit.code,
        signal=ending.exit.signal,
        error=error,
        stdout=ending.output.text("stdout"),
        stderr=ending.output.text("stderr"),
        truncated=ending.output.truncated,
        artifacts=tuple(_artifact(item, folder) for item in handed_out),
        items=items,
        succeeded=judged.paths("ok"),
        missing=judged.paths("missing"),
        notices=notices,
        workspace_diff=_paths_by_state(changed) if changed is not None else None,
        tool_calls=listed(ending.tool_calls[:MAX_CALLS]),
        report_text="",
        user_log_tail=log_tail(log),
        infra_log_tail=log_tail(folder.infra_text()),
        workspace_tree=_tree(request, judged.collected),
        user_error_lines=error_lines(log),
        user_tracebacks=tracebacks(log) or _cut_off_traceback(ending),
        out_dir=folder.out,
        timings={**run.timings, "total_s": time.monotonic() - run.began},
        usage=_usage(ending),
        limits={**run.limits.as_dict(), "wall_s": request.timeout_s},
        isolation={**run.slot.isolation, "fallback": run.fallback or None},
        value=shown.value,
        rich=shown.rich,
    )


def _paths_by_state(changed: WorkspaceDiff) -> dict[str, tuple[str, ...]]:
    return {"created": changed.created, "modified": changed.modified, "deleted": changed.deleted}


def _cut_off_traceback(ending: Ending) -> tuple[str, ...]:
    """The traceback whose message is so long that the end of the log does not hold its beginning."""
    return tracebacks(ending.output.text("stderr")[:MAX_SCANNED]) if ending.claim else ()


def _usage(ending: Ending) -> dict[str, Any]:
    return {
        "cpu_s": ending.usage.cpu_s,
        "wall_s": ending.run_s,
        "max_rss_bytes": ending.usage.max_rss_bytes,
        "output_bytes": ending.output.total,
    }


def _error(run: DeadRun, judged: _Judgement) -> RunError | None:
    ending, status, code = run.ending, judged.status, judged.code
    if code is None:
        return None
    if status is Status.CONTRACT_FAILED:
        bad = [verdict for verdict in judged.verdicts if verdict.state != "ok"]
        said = "; ".join(f"{verdict.path}: {', '.join(verdict.codes)}" for verdict in bad)
        hints = "; ".join(hint for verdict in bad for hint in verdict.hints)
        hint = hints or _hint(run, judged, status, code)
        return RunError(code=code, message=_said(f"the contract was not kept: {said}"), hint=_said(hint))
    if ending.exit.outside and status in (Status.KILLED, Status.LOST):
        return RunError(code=code, message=_said(ending.exit.outside), hint=_FROM_OUTSIDE)
    if code is Code.PROTOCOL_VIOLATION:
        broken = f"the program broke the tool protocol: {ending.violation}"
        message = f"the program was ended: {ending.exit.violation}" if ending.exit.violation else broken
    elif code is Code.TIMEOUT:
        message = f"exceeded its timeout of {run.request.timeout_s:g} s"
    else:
        message = message_for(status, code, ending.exit, ending.claim, run.limits)
    claim, details = ending.claim, {}
    if claim:
        details = {"exception": one_line(claim.type, 200), "source": printable(claim.source[:_SAID_CHARS])}
    return RunError(
        code=code,
        message=_said(message),
        where=f"user_code.py:{claim.line}" if claim and claim.line else None,
        details=details,
        hint=_said(_hint(run, judged, status, code)),
    )


def _said(text: str) -> str:
    """*text* with its end left out where it is too long for a sentence: a hundred promises may each say why."""
    return printable(text if len(text) <= _SAID_CHARS else f"{text[: _SAID_CHARS - 1]}…")


def _hint(run: DeadRun, judged: _Judgement, status: Status, code: Code) -> str:
    from isorun.runtime.hints.hint import hint_for  # its patterns cost a cold start that ends well nothing

    return hint_for(status, code, _seen(run, judged.collected))


def _seen(run: DeadRun, collected: Collected) -> "Seen":
    from isorun.runtime.hints.seen import Seen  # as above

    request, ending = run.request, run.ending
    return Seen(
        claim=ending.claim,
        trace=ending.last_trace,
        stdout=ending.output.text("stdout")[-_TAIL:],
        stderr=ending.output.text("stderr")[-_TAIL:],
        exit=ending.exit,
        limits=run.limits,
        program=request.code.decode("utf-8", "replace"),
        turn=request.turn if request.contract else None,
        given=request.in_work,
        left=read_left(run.slot.work),
        tools=request.grants,
        loopback=request.loopback,
        files=collected.files,
        at_limit=_at_limit(collected, run.limits),
    )


def _at_limit(collected: Collected, limits: Limits) -> tuple[str, ...]:
    """The files that were most likely cut at the size limit, or could not take another page."""
    least = limits.file_bytes - min(4096, limits.file_bytes >> 10)
    return tuple(path for path, file in collected.files.items() if least < file.bytes <= limits.file_bytes)


def _notices(run: DeadRun, judged: _Judgement) -> tuple[str, ...]:
    request, ending, changed, status = run.request, run.ending, judged.changed, judged.status
    found = list(request.contract.notices) if request.contract else []
    found += notices_of(judged.collected)
    found += _untouched(request, judged.verdicts)
    found += unsaved_figures(run.slot.work, judged.collected.files)
    found += _forgotten(ending.output.text("stderr"))
    found += _met(run, judged)
    found += _caught(run, judged)
    if ending.exit.oom_kills and status is not Status.OUT_OF_MEMORY:
        found.append(f"{ending.exit.oom_kills} process(es) of the run were killed for memory")
    if ending.exit.process_limit_hits and ending.code is not Code.PROCESS_LIMIT:  # else the error itself says it
        found.append(f"{ending.exit.process_limit_hits} fork(s) or thread(s) were refused: process limit")
    refused = judged.collected.refused
    found += [f"{refusal.path}: {refusal.code}: {refusal.reason}" for refusal in refused[:_REFUSALS_SHOWN]]
    if len(refused) > _REFUSALS_SHOWN:
        found.append(f"and {len(refused) - _REFUSALS_SHOWN} more")
    if request.contract is not None:
        found += _not_promised(request, judged.collected)
    if changed is not None:
        if scratch := sum(map(is_scratch, judged.collected.files)):
            found.append(f"{scratch} files of caches or version control are in out/, and not listed")
        found += _diff_notices(changed, judged.left_out, len(judged.collected.files))
    calls = len(ending.tool_calls)
    if calls > MAX_CALLS:
        found.append(f"{calls - MAX_CALLS} of {calls} tool calls are not listed; {INDEX} has them")
    if ending.output.truncated:
        found.append(f"output was cut: {ending.output.total} bytes were printed")
    if ending.output.problem:
        found.append(ending.output.problem)
    found += ending.heard
    if len(found) > _NOTICES:
        found[_NOTICES - 1 :] = [f"and {len(found) - _NOTICES + 1} more notices"]
    return tuple(one_line(text, _SAID_CHARS) for text in found)


def _forgotten(stderr: str) -> tuple[str, ...]:
    if "was never awaited" not in stderr and "Warning: Glyph" not in stderr:
        return ()
    from isorun.runtime.hints.daily import forgotten_awaits  # as in `_hint`
    from isorun.runtime.hints.glyphs import missing_glyphs

    return (*forgotten_awaits(stderr), *missing_glyphs(stderr))


def _met(run: DeadRun, judged: _Judgement) -> Iterator[str]:
    """The ceilings that a run met and ended well all the same: what it wrote last is most likely not whole."""
    if judged.status is Status.OK and (run.ending.exit.full_bytes or run.ending.exit.full_inodes):
        from isorun.runtime.hints.met import full_places  # as in `_hint`

        yield from full_places(_seen(run, judged.collected))
    for path in _at_limit(judged.collected, run.limits)[:_OTHERS_SHOWN]:
        yield f"{file_name(path)} has the size that a file may have, so its end is most likely missing"


def _caught(run: DeadRun, judged: _Judgement) -> Iterator[str]:
    """Of a program that ended well and left no file: the error that it printed at its end, and its files in /tmp."""
    if judged.status is not Status.OK or judged.items():
        return
    yield from left_in_tmp(read_left(run.slot.work))
    printed = (run.ending.output.text(stream) for stream in ("stdout", "stderr"))
    if any(map(may_speak_of_an_error, printed)):
        from isorun.runtime.hints.caught import last_words  # as in `_hint`

        if hint := last_words(_seen(run, judged.collected)):
            yield f"the program printed an error, ended well and wrote no file: {hint}"


def _not_promised(request: AcceptedRun, collected: Collected) -> Iterator[str]:
    """What the run wrote beside its promises: it stays in its folder, and may be promised the next time."""
    promised = {item.path for item in request.contract.items} if request.contract else set()
    others = [
        file for path, file in collected.files.items() if path not in promised and request.sent.get(path) != file.sha256
    ]
    if others:
        shown = nsmallest(_OTHERS_SHOWN, others, key=lambda file: file.path)
        names = ", ".join(f"{file_name(file.path)} ({file.bytes} bytes)" for file in shown)
        more = f" and {len(others) - len(shown)} more" if len(others) > len(shown) else ""
        yield f"also written, not promised: {names}{more}"


def _diff_notices(changed: WorkspaceDiff, left_out: tuple[int, int, int], files: int) -> Iterator[str]:
    for state, paths, more in zip(("created", "modified"), (changed.created, changed.modified), left_out, strict=False):
        if more:
            yield f"{len(paths)} of {len(paths) + more} {state} files are listed; out/ has all {files}"
    shown = changed.deleted[:_DELETIONS_SHOWN]
    yield from (f"deleted: {path}" for path in shown)
    if more := len(changed.deleted) - len(shown) + left_out[2]:
        yield f"deleted: {more} more files"


def _untouched(request: AcceptedRun, verdicts: Sequence[Item]) -> list[str]:
    """A kept promise that the run had no part in is kept; whoever reads the file should know."""
    return [
        f"{verdict.path} was in out/ before the run and was not changed"
        for verdict in verdicts
        if verdict.sha256 is not None and request.sent.get(verdict.path) == verdict.sha256
    ]


def _tree(request: AcceptedRun, collected: Collected) -> str:
    """The sandbox as the run left it: what it was given in work/, and what was collected of out/."""
    given = (f"work/{name}" for name in request.in_work)
    return tree((*given, *(f"out/{path}" for path in collected.files)))


def _entries(changed: WorkspaceDiff, collected: Collected) -> tuple[Item, ...]:
    items = []
    for state in ("created", "modified"):
        for path in getattr(changed, state):
            record = collected.files[path]
            items.append(Item(path=path, state=state, sha256=record.sha256, bytes=record.bytes, mime=record.mime))
    return (*items, *(Item(path=path, state="deleted") for path in changed.deleted))


def _artifact(item: Item, folder: RunFolder) -> Artifact:
    return Artifact(
        path=item.path,
        bytes=item.bytes or 0,
        sha256=item.sha256 or "",
        mime=item.mime or "application/octet-stream",
        description=item.description,
        visibility=item.visibility,
        file=folder.out / item.path,
    )
