"""From a dead run to its result: files collected, inspected and judged, logs closed, result.json written."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from isorun.backends.base import Slot
from isorun.core.limits import Limits
from isorun.core.outcome import Claim, Code, Status
from isorun.runtime.collect import Collected, WorkspaceDiff, collect, diff
from isorun.runtime.folder import RunFolder
from isorun.runtime.hints import forgotten_awaits, hint_for, message_for
from isorun.runtime.inspection import Found, Inspection, to_inspect
from isorun.runtime.journal import listed, publish
from isorun.runtime.report import ReportFacts, error_lines, printable, report_text, tail, tracebacks, tree
from isorun.runtime.request import CODE_NAME, MAIN_NAME, RunRequest
from isorun.runtime.result import Artifact, Item, RunError, RunResult
from isorun.runtime.run import Ending
from isorun.runtime.verdict import ItemVerdict, checks_with, judge, precedence

_TAIL_LINES = 60
_TAIL_CHARS = 8000
_REFUSALS_SHOWN = 20  # a program can leave a link behind for every inode it has
_ENDING_CHARS = 1 << 20  # of user.log that is searched for errors and tracebacks


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadRun:
    """A run whose slot was killed: all that its result is made of, but for its files.

    *began* is monotonic; *noticed* is what the backend tells of itself (`Backend.notices`).
    """

    request: RunRequest
    ending: Ending
    slot: Slot
    folder: RunFolder
    limits: Limits
    timings: Mapping[str, Any]
    launcher: bytes
    began: float
    noticed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgement:
    """What became of the run's promises, or of out/ if it made none."""

    collected: Collected
    verdicts: tuple[ItemVerdict, ...]
    changed: WorkspaceDiff | None
    status: Status
    code: Code | None

    def paths(self, state: str) -> tuple[str, ...]:
        return tuple(verdict.path for verdict in self.verdicts if verdict.state == state)

    def items(self) -> tuple[Item, ...]:
        if self.changed is None:
            return tuple(map(_item, self.verdicts))
        return _entries(self.changed, self.collected)


async def finish(run: DeadRun, inspection: Inspection) -> RunResult:
    """Collect, have inspected what promises more than its presence, judge, write and return."""
    contract = run.request.contract
    if contract is None or not to_inspect(contract):
        return await asyncio.to_thread(lambda: _concluded(run, _collected(run), {}))
    collected = await asyncio.to_thread(_collected, run)
    found = await inspection.inspect(contract, collected, run.folder)
    return await asyncio.to_thread(_concluded, run, collected, found)


def _collected(run: DeadRun) -> Collected:
    # Before anything of the program's is there: its file of such a name is refused, the record is not.
    publish(run.folder, run.ending.tool_calls)
    return collect(
        run.slot.out,
        run.folder.out,
        reserved=run.folder.reserved,
        max_bytes=run.limits.workspace_bytes,
        max_entries=run.limits.workspace_inodes,
    )


def _concluded(run: DeadRun, collected: Collected, found: Found) -> RunResult:
    judged = _judged(run, collected, found)
    error = _error(run.request, run.ending, judged, run.limits)
    notices = (*map(printable, run.noticed), *_notices(run, judged))
    for notice in notices:
        run.folder.append_infra("runtime", "NOTICE", notice)
    run.folder.append_infra("runtime", "INFO", f"ended: {judged.status} after {run.ending.run_s:.3f} s")
    run.folder.write_launcher(b"", run.launcher)
    result = _result(run, judged, error, notices)
    run.folder.write_result(result.to_dict())
    return result


def _judged(run: DeadRun, collected: Collected, found: Found) -> _Judgement:
    """The run's own failure comes first; only a run that ended well can break its contract."""
    request, ending = run.request, run.ending
    verdicts = judge(request.contract, collected, checks_with(found)) if request.contract else ()
    broken = precedence(verdicts)
    status, code = ending.status, ending.code
    if status is Status.OK and broken is not None:
        status, code = Status.CONTRACT_FAILED, broken
    changed = diff(request.sent, collected.files, collected.refused) if request.contract is None else None
    return _Judgement(collected=collected, verdicts=verdicts, changed=changed, status=status, code=code)


def _result(run: DeadRun, judged: _Judgement, error: RunError | None, notices: tuple[str, ...]) -> RunResult:
    request, ending, folder = run.request, run.ending, run.folder
    log = ending.output.log_text()[-_ENDING_CHARS:]
    user_tail = printable(tail(log, _TAIL_LINES, _TAIL_CHARS))
    items, changed = judged.items(), judged.changed
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
        workspace_diff={k: tuple(v) for k, v in asdict(changed).items()} if changed is not None else None,
        tool_calls=listed(ending.tool_calls),
        report_text=report_text(_report_facts(run, judged, error, notices, user_tail)),
        user_log_tail=user_tail,
        infra_log_tail=printable(tail(folder.infra_text(), _TAIL_LINES, _TAIL_CHARS)),
        workspace_tree=_tree(request, judged.collected),
        user_error_lines=error_lines(log),
        user_tracebacks=tracebacks(log),
        out_dir=folder.out,
        timings={**run.timings, "total_s": time.monotonic() - run.began},
        usage=_usage(ending),
        limits={**asdict(run.limits), "wall_s": request.timeout_s},
        isolation=run.slot.isolation,
    )


def _usage(ending: Ending) -> dict[str, Any]:
    return {
        "cpu_s": ending.usage.cpu_s,
        "wall_s": ending.run_s,
        "max_rss_bytes": ending.usage.max_rss_bytes,
        "output_bytes": ending.output.total,
    }


def _report_facts(
    run: DeadRun, judged: _Judgement, error: RunError | None, notices: tuple[str, ...], user_tail: str
) -> ReportFacts:
    changed, problem = judged.changed, run.ending.output.problem
    return ReportFacts(
        exec_id=run.request.exec_id,
        prog_name=run.request.prog_name,
        status=judged.status,
        code=judged.code,
        message=error.message if error else "",
        hint=error.hint if error else "",
        file_errors=tuple((v.path, v.codes, v.hints) for v in judged.verdicts if v.state == "invalid"),
        missing=judged.paths("missing"),
        succeeded=judged.paths("ok"),
        infra_errors=(problem,) if problem else (),
        user_log_tail=user_tail,
        diff=(changed.created, changed.modified, changed.deleted) if changed is not None else None,
        notices=notices,
    )


def _error(request: RunRequest, ending: Ending, judged: _Judgement, limits: Limits) -> RunError | None:
    status, code = judged.status, judged.code
    if code is None:
        return None
    if status is Status.CONTRACT_FAILED:
        bad = [verdict for verdict in judged.verdicts if verdict.state != "ok"]
        said = "; ".join(f"{verdict.path}: {', '.join(verdict.codes)}" for verdict in bad)
        hints = "; ".join(hint for verdict in bad for hint in verdict.hints)
        hint = hints or printable(_hint(request, ending, status, code))
        return RunError(code=code, message=f"the contract was not kept: {said}", hint=hint)
    if code is Code.PROTOCOL_VIOLATION:
        message = f"the program broke the tool protocol: {ending.violation}"
    elif code is Code.TIMEOUT:
        message = f"exceeded its timeout of {request.timeout_s:g} s"
    else:
        message = message_for(status, code, ending.exit, ending.claim, limits)
    line = ending.claim.line if ending.claim else None
    return RunError(
        code=code,
        message=printable(message),
        where=f"user_code.py:{line}" if line else None,
        details=_details(ending.claim) if ending.claim else {},
        hint=printable(_hint(request, ending, status, code)),
    )


def _details(claim: Claim) -> dict[str, Any]:
    return {"exception": claim.type, "source": printable(claim.source)}


def _hint(request: RunRequest, ending: Ending, status: Status, code: Code) -> str:
    return hint_for(
        status,
        code,
        ending.claim,
        contract_turn=request.turn if request.contract else None,
        last_trace=ending.last_trace or None,
        stderr_tail=ending.output.text("stderr")[-4000:],
        full=(*ending.exit.full_bytes, *ending.exit.full_inodes),
        given=(MAIN_NAME, CODE_NAME, *(file.path.removeprefix("work/") for file in request.inputs)),
    )


def _notices(run: DeadRun, judged: _Judgement) -> tuple[str, ...]:
    request, ending, changed, status = run.request, run.ending, judged.changed, judged.status
    found = list(request.contract.notices) if request.contract else []
    found += _untouched(request, judged.verdicts)
    found += forgotten_awaits(ending.output.text("stderr"))
    if ending.exit.oom_kills and status is not Status.OUT_OF_MEMORY:
        found.append(f"{ending.exit.oom_kills} process(es) of the run were killed for memory")
    if ending.exit.process_limit_hits and _process_limit_is_news(ending):
        found.append(f"{ending.exit.process_limit_hits} fork(s) or thread(s) were refused: process limit")
    refused = judged.collected.refused
    found += [f"{refusal.path}: {refusal.code}: {refusal.reason}" for refusal in refused[:_REFUSALS_SHOWN]]
    if len(refused) > _REFUSALS_SHOWN:
        found.append(f"and {len(refused) - _REFUSALS_SHOWN} more")
    found += [f"deleted: {path}" for path in (changed.deleted if changed else ())]
    if ending.output.truncated:
        found.append(f"output was cut: {ending.output.total} bytes were printed")
    if ending.output.problem:
        found.append(ending.output.problem)
    return tuple(map(printable, found))


def _untouched(request: RunRequest, verdicts: Sequence[ItemVerdict]) -> list[str]:
    """A kept promise that the run had no part in is kept; whoever reads the file should know."""
    return [
        f"{verdict.path} was in out/ before the run, which did not change it"
        for verdict in verdicts
        if verdict.sha256 is not None and request.sent.get(verdict.path) == verdict.sha256
    ]


def _process_limit_is_news(ending: Ending) -> bool:
    """Whether the error itself does not speak of refused forks."""
    return ending.code is not Code.PROCESS_LIMIT


def _tree(request: RunRequest, collected: Collected) -> str:
    """The sandbox as the run left it: what it was given in work/, and what was collected of out/."""
    given = (f"work/{MAIN_NAME}", f"work/{CODE_NAME}", *(file.path for file in request.inputs))
    return tree((*given, *(f"out/{path}" for path in collected.files)))


def _item(verdict: ItemVerdict) -> Item:
    return Item(
        path=verdict.path,
        state=verdict.state,
        codes=verdict.codes,
        hints=verdict.hints,
        sha256=verdict.sha256,
        bytes=verdict.bytes,
        mime=verdict.mime,
        description=verdict.description,
        visibility=verdict.visibility,
    )


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
