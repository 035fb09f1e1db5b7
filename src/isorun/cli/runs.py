"""`isorun runs`: the stored runs, one of them, its logs, and their removal.

What is stored came from programs nobody has read: it is opened without following
links, with a limit, and shown with its control characters visible.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Annotated

import typer

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Id = Annotated[str, typer.Argument(help="The run's exec_id.", metavar="EXEC_ID")]
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
        rows = [(r.exec_id, r.status, r.accepted, r.prog_name, size(r.bytes_used)) for r in found]
        print_table(("exec_id", "status", "accepted", "program", "size"), rows)
    return 0


def show(exec_id: _Id, json: _Json = False) -> int:
    """How one run ended."""
    import json as codec

    from isorun.cli.show import print_json, say
    from isorun.cli.verdict import print_verdict
    from isorun.core.errors import InvalidRequest

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

    names = {"user_log": "logs/user.log", "infra_log": "logs/infra.log"}
    if json:
        texts = {key: (_stored(exec_id, name) or b"").decode("utf-8", "replace") for key, name in names.items()}
        print_json({"exec_id": exec_id, **texts})
        return 0
    data = _stored(exec_id, names["infra_log" if infra else "user_log"]) or b""
    write(1, Visible().feed(data, final=True) if sys.stdout.isatty() else data)
    return 0


def rm(
    exec_ids: Annotated[list[str], typer.Argument(help="The runs' exec_ids.", metavar="EXEC_ID...")],
    json: _Json = False,
) -> int:
    """Remove stored runs, files and logs and all."""
    from isorun.cli.show import print_json, say
    from isorun.runtime.recovery import remove

    root = _root()
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
