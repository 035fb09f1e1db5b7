"""A run as everybody is shown it: of the stored row, without a path of the host."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isorun.core.errors import InvalidRequest
from isorun.core.result import as_result
from isorun.store.recovery import stored_file

_CALL_CHARS = 4000  # of what a call was given, and of what it gave
_CALLS = 100  # whose parameters and results are kept


def listed(row: Mapping[str, Any]) -> dict[str, Any]:
    """One line of a list of runs."""
    return {
        "id": row["id"],
        "status": row["status"],
        "created": row["created"],
        "started": row["started"],
        "ended": row["ended"],
        "prog_name": row["prog_name"],
        "client": row["client"],
        "scenario": row["scenario"],
        "conversation": row["conversation_id"],
        "turn": row["turn"],
        "bytes": row["bytes"],
        "cost": row["cost"],
    }


def whole(row: Mapping[str, Any]) -> dict[str, Any]:
    """All that is known of a run."""
    asked, result = row["asked"], row["result"]
    kept = result or {}
    return {
        **listed(row),
        "code": asked.get("code", ""),
        "contract": asked.get("contract"),
        "timeout_s": asked.get("timeout_s"),
        "tools": asked.get("tools"),
        "inputs": asked.get("inputs", []),
        "calls": kept.get("calls", []),
        "files": kept.get("files", []),
        "result": {name: value for name, value in kept.items() if name not in ("calls", "files")} if result else None,
    }


def stored_result(stored: bytes | str, exec_id: str, root: Path) -> dict[str, Any] | None:
    """What the database keeps of a result.json, which is bounded. None if the bytes are not a result."""
    told = as_result(stored)
    if told is None:
        return None
    told.pop("out_dir", None)
    promised = {item["path"] for item in told["items"]} if told.get("workspace_diff") is None else set()
    told["artifacts"] = [
        {name: value for name, value in one.items() if name not in ("file", "held")} for one in told["artifacts"]
    ]
    told["files"] = [{**one, "promised": one["path"] in promised} for one in told["artifacts"]]
    told["calls"] = [_call(call, number, exec_id, root) for number, call in enumerate(told.pop("tool_calls", []))]
    return told


def _call(call: dict[str, Any], number: int, exec_id: str, root: Path) -> dict[str, Any]:
    """A tool call with what it was given and what it gave, as its record has them."""
    name = call.pop("record", None)
    record = _record(root, exec_id, name) if isinstance(name, str) and number < _CALLS else {}
    told = {name: _bounded(record.get(name)) for name in ("params", "result", "error")}
    return {**call, **told}


def _record(root: Path, exec_id: str, name: str) -> dict[str, Any]:
    # Written by the supervisor, in a folder that the program could write to, too: it may be anything.
    try:
        found = json.loads(stored_file(root, exec_id, name) or b"{}")
    except (InvalidRequest, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _bounded(value: object) -> object:
    text = json.dumps(value, ensure_ascii=False)
    return value if len(text) <= _CALL_CHARS else f"{text[:_CALL_CHARS]}…"
