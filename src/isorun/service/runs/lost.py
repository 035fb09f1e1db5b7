"""How a run ends whose process could not say so."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from isorun.core.errors import IsorunError
from isorun.core.result import RunResult
from isorun.service.runs.views import stored_result
from isorun.service.store.records import Happened, Records, Row, Stream
from isorun.service.store.room import REMEDY, is_full
from isorun.store.folder import utc_now
from isorun.store.recovery import stored_file

_SHORT, _FEW = 16 << 10, 50  # characters, and entries of lists


async def close_lost(records: Records, root: Path, rows: Sequence[Row], tell: Callable[[Stream], None]) -> int:
    """Give each of *rows*, open runs that are conducted no more, its end. How many there were without one."""
    closed = 0
    for row in rows:
        changes = await asyncio.to_thread(_found_or_lost, root, row["id"])
        stream = Stream(run=row["id"], conversation=row["conversation_id"], turn=row["turn"])
        if await records.close(stream, outcome_of(changes), changes):
            closed += 1
            tell(stream)
    return closed


def _found_or_lost(root: Path, run_id: str) -> dict[str, Any]:
    """The end that is in the run's folder: the process may have died behind it. Else the run is lost."""
    with suppress(IsorunError):
        stored = stored_file(root, run_id, "result.json")
        if stored is not None and (found := ended_changes(root, stored, run_id)) is not None:
            return found
    return lost_changes("host_lost", "the service ended while the program ran; what it had printed is kept")


def is_short(result: RunResult) -> bool:
    """Whether *result* is made into JSON faster than a thread begins: it has no calls, of which each has a file."""
    changed = result.workspace_diff or {}
    lists = (result.items, result.notices, result.user_error_lines, result.user_tracebacks, *changed.values())
    if result.tool_calls or result.rich or sum(map(len, lists)) > _FEW:
        return False
    texts = (result.stdout, result.stderr, result.report_text, result.user_log_tail, result.infra_log_tail)
    more = (result.workspace_tree, result.value or "", *result.user_error_lines, *result.user_tracebacks)
    return sum(map(len, (*texts, *more))) <= _SHORT


def ended_changes(root: Path, stored: bytes | str, run_id: str) -> dict[str, Any] | None:
    """What the row of a run becomes whose result.json is *stored*; None if that is not a result."""
    told = stored_result(stored, run_id, root)
    if told is None:
        return None
    size = sum(one["bytes"] for one in told["artifacts"])
    return {"status": told["status"], "ended": utc_now(), "bytes": size, "cost": told.get("usage"), "result": told}


def failed_changes(error: Exception) -> dict[str, Any]:
    """What the row of a run becomes whose sandbox or whose storing failed with *error*, which is not told."""
    if is_full(error):
        return lost_changes("disk_full", "the service has no room to store the run", REMEDY)
    return lost_changes("sandbox_lost", "the sandbox failed; what happened is in the service's log")


def lost_changes(code: str, message: str, hint: str = "run it again") -> dict[str, Any]:
    """What the row of a lost run becomes."""
    error: dict[str, Any] = {
        "code": code,
        "message": message,
        "where": None,
        "details": {},
        "hint": hint,
    }
    empty: dict[str, Any] = {"stdout": "", "stderr": "", "artifacts": [], "files": [], "calls": [], "items": []}
    result = {"ok": False, "status": "lost", "error": error, "notices": [], "missing": [], **empty}
    return {"status": "lost", "ended": utc_now(), "result": result}


def outcome_of(changes: dict[str, Any]) -> Happened:
    """The last event of a run that ends with *changes*."""
    result = changes["result"]
    error: dict[str, Any] = result.get("error") or {}
    told = {name: error[name] for name in ("code", "message", "where", "hint") if error.get(name)}
    data = {"status": changes["status"], "ok": changes["status"] == "ok"}
    return Happened(kind="outcome", data={**data, "error": told} if told else data)
