"""A run as it is stored when it begins."""

import hashlib
from pathlib import Path
from typing import Any

from isorun.core.request import Named, RunRequest
from isorun.service.store.accounts import User
from isorun.service.store.records import Origin
from isorun.service.store.uploads import Brought
from isorun.store.folder import utc_now


def new_row(user: User, run_id: str, asked: RunRequest, origin: Origin, host_id: str) -> dict[str, Any]:
    """Every column of it. *host_id*: the process that conducts the run."""
    return {
        "id": run_id,
        "user_id": user.id,
        "conversation_id": origin.conversation,
        "turn": origin.turn,
        "status": "queued",
        "host_id": host_id,
        "client": origin.client,
        "scenario": origin.scenario,
        "prog_name": asked.prog_name or "",
        "asked": {
            "code": asked.code.decode("utf-8", "replace"),
            "sha256": hashlib.sha256(asked.code).hexdigest(),
            "contract": asked.contract,
            "timeout_s": asked.timeout_s,
            "tools": None if asked.tools is None else list(asked.tools),
            "inputs": [_input(one) for one in asked.inputs],
        },
        "created": utc_now(),
        "started": None,
        "ended": None,
        "bytes": 0,
        "cost": None,
        "result": None,
    }


def _input(given: Path | Named) -> dict[str, str]:
    """Its name, and the id of an upload."""
    return {"name": given.name, "id": given.upload} if isinstance(given, Brought) else {"name": given.name}
