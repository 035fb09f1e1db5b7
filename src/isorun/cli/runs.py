"""`isorun runs`: the stored runs, one of them, its logs, and their removal.

What is stored came from programs nobody has read: it is opened without following
links, with a limit, and shown with its control characters visible.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path
from typing import Annotated

import typer

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Id = Annotated[
    str,
    typer.Argument(help="The run's exec_id, its folder's name, or a beginning that only it has.", metavar="EXEC_ID"),
]
_MAX_STORED = 64 << 20


def ls(json: _Json = False) -> int:
    """The stored runs, newest first."""
    from dataclasses import asdict

    from isorun.cli.show import print_json, print_table, say
    from isorun.cli.verdict import size
    from isorun.runtime.recovery import listing

    root = _root()
    found = listing(root)
    if json:
        print_json([asdict(run) for run in found])
    elif not found:
        say(f"no runs in {root}")
    else:
        rows = [(r.exec_id, r.status, _when(r.accepted), r.prog_name or "-", size(r.bytes_used)) for r in found]
        columns = ("exec_id", "status", "accepted UTC", "program", "size")
        print_table(columns, rows, whole=("exec_id", "accepted UTC"))
    return 0


def show(exec_id: _Id, json: _Json = False) -> int:
    """How one run ended."""
    import json as codec

    from isorun.cli.show import print_json, say
    from isorun.cli.verdict import print_verdict
    from isorun.core.errors import InvalidRequest

    exec_id = _named(_root(), exec_id)
    data = _stored(exec_id, "result.json")
    if data is None:
        raise InvalidRequest(f"run {exec_id} has no result yet", code="no_result")
    try:
        result = codec.loads(data)
    except (ValueError, RecursionError):
        result = None
    if not isinstance(result, dict):
        raise InvalidRequest(f"the result.json of run {exec_id} is damaged", code="damaged_result")
    if json:
        print_json(result)
    else:
        say(f"{exec_id} {result.get('prog_name') or ''}".rstrip())
        print_verdict(result, sys.stdout)
    return 0


def logs(
    exec_id: _Id,
    infra: Annotated[bool, typer.Option("--infra", help="What the host did, not what was printed.")] = False,
    json: _Json = False,
) -> int:
    """What one run printed, or what the host did for it."""
    from isorun.cli.live import Visible, write
    from isorun.cli.show import print_json

    exec_id = _named(_root(), exec_id)
    names = {"user_log": "logs/user.log", "infra_log": "logs/infra.log"}
    if json:
        texts = {key: (_stored(exec_id, name) or b"").decode("utf-8", "replace") for key, name in names.items()}
        print_json({"exec_id": exec_id, **texts})
        return 0
    data = _stored(exec_id, names["infra_log" if infra else "user_log"]) or b""
    write(1, Visible().feed(data, final=True) if sys.stdout.isatty() else data)
    return 0


def rm(
    exec_ids: Annotated[
        list[str], typer.Argument(help="The runs' exec_ids, folder names, or beginnings.", metavar="EXEC_ID...")
    ],
    json: _Json = False,
) -> int:
    """Remove stored runs, files and logs and all."""
    from isorun.cli.show import print_json, say
    from isorun.runtime.recovery import remove

    root = _root()
    exec_ids = [_named(root, exec_id) for exec_id in exec_ids]  # all, before any is removed
    for exec_id in exec_ids:
        remove(root, exec_id)
        if not json:
            say(f"removed {exec_id}")
    if json:
        print_json({"removed": exec_ids})
    return 0


def _root() -> Path:
    from isorun.runtime.folder import open_root
    from isorun.settings import Settings, get_exec_workspace_root

    return open_root(get_exec_workspace_root(Settings.load()))


def _named(root: Path, name: str) -> str:
    """The exec_id of the run that *name* stands for: its id, its folder's name, or a beginning only it has."""
    from isorun.core.errors import InvalidRequest
    from isorun.core.ids import check_exec_id
    from isorun.runtime.folder import PREFIX

    exec_id = check_exec_id(name.removeprefix(PREFIX))
    found = sorted(path.name.removeprefix(PREFIX) for path in root.glob(f"{PREFIX}{exec_id}*"))
    if exec_id in found or not found:
        return exec_id
    if len(found) > 1:
        raise InvalidRequest(f"{len(found)} runs begin with {exec_id}; give more of the id", code="ambiguous_exec_id")
    return found[0]


def _when(accepted: str) -> str:
    """Month, day, hour and minute of an ISO time."""
    match = re.match(r"[0-9]{4}-([0-9]{2}-[0-9]{2})T([0-9]{2}:[0-9]{2})", accepted)
    return f"{match[1]} {match[2]}" if match else accepted or "-"


def _stored(exec_id: str, name: str) -> bytes | None:
    """A file of the run's out/; None if it is not there. Raises `InvalidRequest` if the run is not."""
    from isorun.core.errors import InvalidRequest
    from isorun.core.ids import check_exec_id
    from isorun.runtime.folder import PREFIX

    folder = _root() / (PREFIX + check_exec_id(exec_id))
    if not folder.is_dir() or folder.is_symlink():
        raise InvalidRequest(f"there is no run {exec_id} in {folder.parent}", code="no_such_run")
    try:
        descriptor = os.open(folder / "out" / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidRequest(f"{name} of run {exec_id} cannot be read: {error.strerror}", code="unreadable") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InvalidRequest(f"{name} of run {exec_id} is not a file", code="unreadable")
        return file.read(_MAX_STORED)
