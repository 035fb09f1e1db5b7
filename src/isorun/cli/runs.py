"""`isorun runs`: the stored runs, one of them, its logs, and their removal.

What is stored came from programs nobody has read: it is opened without following
links, with a limit, and shown with its control characters visible.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from isorun.cli.parsing import JSON, count, option

_SHOWN = 50  # more than a screen; each of a long list costs a look at its folder
_ID = option("exec_id EXEC_ID", "The run's exec_id, its folder's name, or a beginning that only it has.")
OPTIONS = {
    "ls": (
        option("--limit N", "At most so many (default: the last 50; with --json all).", type=count),
        option("--all", "All of them.", dest="all_"),
        option("--status WORD", "Only those that ended so, as failed; or running."),
        JSON,
    ),
    "show": (_ID, JSON),
    "logs": (_ID, option("--infra", "What the host did, not what was printed."), JSON),
    "rm": (
        option("exec_ids EXEC_ID", "The runs' exec_ids, folder names, or beginnings.", nargs="+"),
        JSON,
    ),
}


def ls(limit: int | None = None, all_: bool = False, status: str | None = None, json: bool = False) -> int:
    """The stored runs, newest first."""
    from dataclasses import asdict

    from isorun.cli.show import print_json_list, print_table, say
    from isorun.cli.verdict import size
    from isorun.core.errors import InvalidRequest
    from isorun.store.recovery import each_listed, exec_ids, listing

    if all_ and limit is not None:
        raise InvalidRequest("--all and --limit contradict each other; leave out one")
    root, most = stored_root(), limit or (None if all_ or json else _SHOWN)
    if json:
        print_json_list(asdict(run) for run in each_listed(root, status=_status(status), most=most))
        return 0
    found = listing(root, status=_status(status), most=most)
    if not found:
        say(f"no runs in {root}{f' with status {status}' if status else ''}")
    else:
        rows = [(r.exec_id, r.status, when(r.accepted), r.prog_name or "-", size(r.bytes_used)) for r in found]
        columns = ("exec_id", "status", "accepted UTC", "program", "size")
        print_table(columns, rows, whole=("exec_id", "accepted UTC"))
        if len(found) == most and (stored := len(exec_ids(root))) > most:
            say(f"the last {most}{f' with status {status}' if status else ''} of {stored:,} runs; --all shows the rest")
    return 0


def _status(word: str | None) -> str | None:
    from isorun.core.errors import InvalidRequest
    from isorun.core.outcome import Status
    from isorun.store.recovery import DAMAGED, RUNNING

    words = (*Status, RUNNING, DAMAGED)
    if word is not None and word not in words:
        raise InvalidRequest(f"--status {word}: there are {', '.join(words)}", code="unknown_status")
    return word


def show(exec_id: str, json: bool = False) -> int:
    """How one run ended."""
    from isorun.cli.show import print_json, say
    from isorun.cli.verdict import print_verdict
    from isorun.core.errors import InvalidRequest
    from isorun.core.result import as_result
    from isorun.store.recovery import stored_file

    root = stored_root()
    exec_id = _named(root, exec_id)
    data = stored_file(root, exec_id, "result.json")
    if data is None:
        raise InvalidRequest(f"run {exec_id} has no result yet", code="no_result")
    result = as_result(data)
    if result is None:
        raise InvalidRequest(f"the result.json of run {exec_id} is damaged", code="damaged_result")
    if json:
        print_json(result)
    else:
        say(f"{exec_id} {result.get('prog_name') or ''}".rstrip())
        print_verdict(result, sys.stdout)
    return 0


def logs(exec_id: str, infra: bool = False, json: bool = False) -> int:
    """What one run printed, or what the host did for it."""
    from isorun.cli.run.live import Visible, write
    from isorun.cli.show import print_json
    from isorun.store.recovery import stored_file

    root = stored_root()
    exec_id = _named(root, exec_id)
    names = {"user_log": "logs/user.log", "infra_log": "logs/infra.log"}
    if json:
        texts = {
            key: (stored_file(root, exec_id, name) or b"").decode("utf-8", "replace") for key, name in names.items()
        }
        print_json({"exec_id": exec_id, **texts})
        return 0
    data = stored_file(root, exec_id, names["infra_log" if infra else "user_log"]) or b""
    write(1, Visible().feed(data, final=True) if sys.stdout.isatty() else data)
    return 0


def rm(exec_ids: list[str], json: bool = False) -> int:
    """Remove stored runs, files and logs and all."""
    from isorun.cli.show import print_json, say
    from isorun.store.recovery import remove

    root = stored_root()
    exec_ids = [_named(root, exec_id) for exec_id in exec_ids]  # all, before any is removed
    for exec_id in exec_ids:
        remove(root, exec_id)
        if not json:
            say(f"removed {exec_id}")
    if json:
        print_json({"removed": exec_ids})
    return 0


def stored_root() -> Path:
    """The root that the settings name. Raises `InvalidRequest`, see `open_root`."""
    from isorun.settings import Settings, get_exec_workspace_root
    from isorun.store.folder import open_root

    return open_root(get_exec_workspace_root(Settings.load()))


def _named(root: Path, name: str) -> str:
    """The exec_id of the run that *name* stands for: its id, its folder's name, or a beginning only it has."""
    from isorun.core.errors import InvalidRequest
    from isorun.core.ids import check_exec_id
    from isorun.store.folder import PREFIX
    from isorun.store.recovery import exec_ids

    exec_id = check_exec_id(name.removeprefix(PREFIX))
    found = [stored for stored in exec_ids(root) if stored.startswith(exec_id)]
    if exec_id in found or not found:
        return exec_id
    if len(found) > 1:
        raise InvalidRequest(f"{len(found)} runs begin with {exec_id}; give more of the id", code="ambiguous_exec_id")
    return found[0]


def when(accepted: str) -> str:
    """Month, day, hour and minute of an ISO time."""
    match = re.match(r"[0-9]{4}-([0-9]{2}-[0-9]{2})T([0-9]{2}:[0-9]{2})", accepted)
    return f"{match[1]} {match[2]}" if match else accepted or "-"
