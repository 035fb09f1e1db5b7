"""From a dead run to its result: files collected and judged, logs closed, result.json written."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from isorun.backends.base import Slot
from isorun.core.limits import Limits
from isorun.core.outcome import Claim, Code, Status
from isorun.runtime.collect import Collected, WorkspaceDiff, collect, diff
from isorun.runtime.folder import RunFolder
from isorun.runtime.hints import hint_for, message_for
from isorun.runtime.report import ReportFacts, error_lines, printable, report_text, tail, tracebacks, tree
from isorun.runtime.request import CODE_NAME, MAIN_NAME, RunRequest
from isorun.runtime.result import Artifact, Item, RunError, RunResult
from isorun.runtime.run import Ending
from isorun.runtime.verdict import CHECKS, ItemVerdict, judge, precedence

_TAIL_LINES = 60
_TAIL_CHARS = 8000
_REFUSALS_SHOWN = 20  # a program can leave a link behind for every inode it has
_ENDING_CHARS = 1 << 20  # of user.log that is searched for errors and tracebacks


def finish(
    request: RunRequest,
    ending: Ending,
    slot: Slot,
    folder: RunFolder,
    limits: Limits,
    timings: Mapping[str, Any],
    launcher: bytes,
    began: float,
    noticed: tuple[str, ...] = (),
) -> RunResult:
    """Collect, judge, write and return. Called after the slot is dead; *began* is monotonic.

    *noticed* is what the backend tells of itself (`Backend.notices`).
    """
    collected = collect(
        slot.out,
        folder.out,
        reserved=folder.reserved,
        max_bytes=limits.workspace_bytes,
        max_entries=limits.workspace_inodes,
    )
    verdicts = judge(request.contract, collected, tuple(CHECKS.values())) if request.contract else ()
    status, code = _judged(ending, verdicts)
    changed = diff(request.sent, collected.files, collected.refused) if request.contract is None else None
    items = tuple(map(_item, verdicts)) if changed is None else _entries(changed, collected)
    handed_out = [item for item in items if item.state in ("ok", "created", "modified")]
    log = ending.output.log_text()[-_ENDING_CHARS:]
    error = _error(request, ending, status, code, verdicts, limits)
    notices = (*map(printable, noticed), *_notices(request, ending, collected, changed, status))
    for notice in notices:
        folder.append_infra("runtime", "NOTICE", notice)
    folder.append_infra("runtime", "INFO", f"ended: {status} after {ending.run_s:.3f} s")
    folder.write_launcher(b"", launcher)
    missing = tuple(verdict.path for verdict in verdicts if verdict.state == "missing")
    succeeded = tuple(verdict.path for verdict in verdicts if verdict.state == "ok")
    user_tail = printable(tail(log, _TAIL_LINES, _TAIL_CHARS))
    differences = {k: tuple(v) for k, v in asdict(changed).items()} if changed is not None else None
    facts = ReportFacts(
        exec_id=request.exec_id,
        prog_name=request.prog_name,
        status=status,
        code=code,
        message=error.message if error else "",
        hint=error.hint if error else "",
        file_errors=tuple((v.path, v.codes, v.hints) for v in verdicts if v.state == "invalid"),
        missing=missing,
        succeeded=succeeded,
        infra_errors=(ending.output.problem,) if ending.output.problem else (),
        user_log_tail=user_tail,
        diff=(changed.created, changed.modified, changed.deleted) if changed is not None else None,
        notices=notices,
    )
    result = RunResult(
        ok=status is Status.OK,
        status=status,
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
        succeeded=succeeded,
        missing=missing,
        notices=notices,
        workspace_diff=differences,
        tool_calls=ending.tool_calls,
        report_text=report_text(facts),
        user_log_tail=user_tail,
        infra_log_tail=printable(tail(folder.infra_text(), _TAIL_LINES, _TAIL_CHARS)),
        workspace_tree=_tree(request, collected),
        user_error_lines=error_lines(log),
        user_tracebacks=tracebacks(log),
        out_dir=folder.out,
        timings={**timings, "total_s": time.monotonic() - began},
        usage={
            "cpu_s": ending.usage.cpu_s,
            "wall_s": ending.run_s,
            "max_rss_bytes": ending.usage.max_rss_bytes,
            "output_bytes": ending.output.total,
        },
        limits={**asdict(limits), "wall_s": request.timeout_s},
        isolation=slot.isolation,
    )
    folder.write_result(result.to_dict())
    return result


def _judged(ending: Ending, verdicts: tuple[ItemVerdict, ...]) -> tuple[Status, Code | None]:
    """The run's own failure comes first; only a run that ended well can break its contract."""
    broken = precedence(verdicts)
    if ending.status is Status.OK and broken is not None:
        return Status.CONTRACT_FAILED, broken
    return ending.status, ending.code


def _error(
    request: RunRequest,
    ending: Ending,
    status: Status,
    code: Code | None,
    verdicts: tuple[ItemVerdict, ...],
    limits: Limits,
) -> RunError | None:
    if code is None:
        return None
    if status is Status.CONTRACT_FAILED:
        bad = [verdict for verdict in verdicts if verdict.state != "ok"]
        said = "; ".join(f"{verdict.path}: {', '.join(verdict.codes)}" for verdict in bad)
        hints = " ".join(hint for verdict in bad for hint in verdict.hints)
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


def _notices(
    request: RunRequest,
    ending: Ending,
    collected: Collected,
    changed: WorkspaceDiff | None,
    status: Status,
) -> tuple[str, ...]:
    found = list(request.contract.notices) if request.contract else []
    if ending.exit.oom_kills and status is not Status.OUT_OF_MEMORY:
        found.append(f"{ending.exit.oom_kills} process(es) of the run were killed for memory")
    if ending.exit.process_limit_hits and code_is_not_process_limit(ending):
        found.append(f"{ending.exit.process_limit_hits} fork(s) or thread(s) were refused: process limit")
    refused = collected.refused
    found += [f"{refusal.path}: {refusal.code}: {refusal.reason}" for refusal in refused[:_REFUSALS_SHOWN]]
    if len(refused) > _REFUSALS_SHOWN:
        found.append(f"and {len(refused) - _REFUSALS_SHOWN} more")
    found += [f"deleted: {path}" for path in (changed.deleted if changed else ())]
    if ending.output.truncated:
        found.append(f"output was cut: {ending.output.total} bytes were printed")
    if ending.output.problem:
        found.append(ending.output.problem)
    return tuple(map(printable, found))


def code_is_not_process_limit(ending: Ending) -> bool:
    """Whether refused forks are news: the error itself does not say so."""
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
