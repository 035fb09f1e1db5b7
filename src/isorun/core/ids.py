"""The names of a run: execution id, turn folder, session, program name.

Each check returns the value it was given, fit for its use, or raises
`InvalidRequest`. Ids and turn folders become parts of paths, so they are held to
a short ASCII alphabet; a program name never does, it is only shown. The one
clock read of `core` is in `new_exec_id`; nothing here touches a file.
"""

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from isorun.core.errors import InvalidRequest
from isorun.core.text import is_visible, shown

MAX_EXEC_ID = 40
MAX_SESSION = 64
MAX_TURN = 128  # leaves most of a 1024 byte path to the file itself
MAX_PROG_NAME = 64
TURN_PREFIX = "turn_"
BUILT_IN_ALIAS, BUILT_IN_MODULE = "generic_tools", "isorun.tools.generic_tools"  # of the built-in tools

_EXEC_ID = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{MAX_EXEC_ID - 1}}}")
_OURS = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})-([0-9]{2})([0-9]{2})([0-9]{2})-([0-9]{3})[0-9]{3}-[0-9a-f]{12}")
_SESSION = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{MAX_SESSION - 1}}}")
_TURN = re.compile(r"turn_[A-Za-z0-9._-]+")


def new_exec_id() -> str:
    """A new id: UTC time to the microsecond, then 48 random bits; 35 characters of [a-z0-9-].

    Ids sort by the time they were made. The random part comes from the kernel, so
    forked processes and clocks set back do not repeat one.
    """
    now = datetime.now(UTC)
    return f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(6)}"


def time_in(exec_id: str) -> str | None:
    """When *exec_id* was made, as RFC 3339 in UTC with milliseconds; None if `new_exec_id` did not make it."""
    match = _OURS.fullmatch(exec_id)
    return "{}-{}-{}T{}:{}:{}.{}Z".format(*match.groups()) if match else None


def check_exec_id(exec_id: object) -> str:
    """*exec_id* if it may name a folder; else `InvalidRequest` (invalid_exec_id)."""
    if not isinstance(exec_id, str) or not _EXEC_ID.fullmatch(exec_id):
        raise InvalidRequest(
            f"exec_id must be 1 to {MAX_EXEC_ID} characters of a-z, 0-9 and '-', got {shown(exec_id)}",
            code="invalid_exec_id",
        )
    return exec_id


def check_session(name: object) -> str:
    """*name* if it may name a session, and with it a folder; else `InvalidRequest` (invalid_session).

    It has small letters alone: on a disk that takes two cases of a name for one, two sessions would be one.
    """
    if not isinstance(name, str) or not _SESSION.fullmatch(name):
        raise InvalidRequest(
            f"the name of a session must be 1 to {MAX_SESSION} characters of a-z, 0-9, '_' and '-', "
            f"and begin with a letter or a digit, got {shown(name)}",
            code="invalid_session",
        )
    return name


def check_prog_name(name: object) -> str:
    """*name* if it may be shown to people; else `InvalidRequest` (invalid_prog_name).

    At most 64 printable characters, not blank. It may hold a slash: nothing may
    ever use it as a part of a path.
    """
    # Newlines, escapes and marks of direction could forge a line in a log.
    if not isinstance(name, str) or len(name) > MAX_PROG_NAME or not is_visible(name) or not name.strip():
        raise InvalidRequest(
            f"prog_name must be 1 to {MAX_PROG_NAME} printable characters, got {shown(name)}",
            code="invalid_prog_name",
        )
    return name


def turn_folder(turn_id: str | int | None, contract: Sequence[str], exec_id: str) -> str:
    """The folder of the run's turn, `turn_<id>`; *contract* holds the promised file names.

    `123` and `turn_123` are the same turn. Without a turn id it is the one turn
    that the names in *contract* agree on (names without a turn do not vote), else
    `turn_<exec_id>`. Raises `InvalidRequest` (invalid_turn_id).
    """
    if turn_id is None:
        named = {turn for turn in map(turn_of, contract) if turn}
        turn_id = named.pop() if len(named) == 1 else check_exec_id(exec_id)
    if isinstance(turn_id, int) and not isinstance(turn_id, bool):
        turn_id = str(turn_id)
    if isinstance(turn_id, str):
        folder = turn_id if turn_id.startswith(TURN_PREFIX) else TURN_PREFIX + turn_id
        # The alphabet has no slash and no NUL; dots may not be neighbours, so no '..' either.
        if len(folder) <= MAX_TURN and ".." not in folder and _TURN.fullmatch(folder):
            return folder
    raise InvalidRequest(
        f"turn_id must be letters, digits, '.', '_' and '-' without '..', at most {MAX_TURN} "
        f"characters with its 'turn_', got {shown(turn_id)}",
        code="invalid_turn_id",
    )


def turn_of(filename: str) -> str | None:
    """The turn folder that *filename* begins with, or None. `turn_notes.md` alone names none."""
    parts = [part for part in filename.split("/") if part not in ("", ".")]
    return parts[0] if len(parts) > 1 and parts[0].startswith(TURN_PREFIX) else None


def is_built_in(tool_id: str) -> bool:
    """Whether that is the id of a built-in tool, or would be."""
    return tool_id.partition(".")[0] == BUILT_IN_ALIAS
