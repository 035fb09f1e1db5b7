"""The records of a run's tool calls: a JSON file each in out/, and an index of all.

The host publishes them; a program can neither write nor suppress one. What a program
chose (ids, reasons, params) is data in them and never a part of a path unescaped.
"""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from isorun.core.records import Record, summary
from isorun.core.result import SCHEMA
from isorun.store.folder import RunFolder

INDEX = "tool_calls_index.json"
_NAME_CHARS = 100
_SHOWN = ("call_id", "tool_id", "reason", "status", "ms")


def listed(records: Sequence[Record]) -> tuple[Record, ...]:
    """Each call as a result shows it: without params and result, with the name of the file that has them."""
    return tuple(
        {
            **{key: record[key] for key in _SHOWN},
            "started": _started(record).isoformat(timespec="milliseconds")[:-6] + "Z",
            "record": _name(record, number),
        }
        for number, record in enumerate(records, 1)
    )


def publish(folder: RunFolder, records: Sequence[Record]) -> None:
    """Write the records and their index to out/, which holds nothing of the program's yet; nothing without calls."""
    if not records:
        return
    index = listed(records)
    for record, entry in zip(records, index, strict=True):
        told: Record = {**entry, **{key: record[key] for key in ("params", "result", "error") if key in record}}
        folder.write_out(entry["record"], _json(told))
    folder.write_out(INDEX, _json({"schema": SCHEMA, "exec_id": folder.exec_id, "calls": index}))


def _started(record: Record) -> datetime:
    return datetime.fromtimestamp(record["started_at"], UTC)


def _name(record: Record, number: int) -> str:
    tool = re.sub(r"[^A-Za-z0-9._-]", "_", record["tool_id"])[:_NAME_CHARS].lstrip(".") or "call"
    return f"{tool}-{_started(record):%Y%m%dT%H%M%S.%f}-{number}.json"


def _json(value: object) -> bytes:
    return json.dumps(value, default=summary, indent=1).encode() + b"\n"
