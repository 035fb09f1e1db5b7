"""The reading of what a command line of `isorun run` names: program, contract, stdin.

Every read has a limit first: a device or an endless pipe given by mistake is refused.
"""

import json
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from isorun.cli.run.command import Wanted
from isorun.core.errors import InvalidRequest
from isorun.core.ids import MAX_PROG_NAME
from isorun.core.limits import MIB, Limits, typed
from isorun.core.request import OPTIONS, RunRequest
from isorun.core.text import is_visible

_CONTRACT_BYTES = MIB


def read_request(wanted: Wanted, limits: Limits) -> RunRequest:
    """What is to be run; raises `InvalidRequest` for what cannot be read."""
    if wanted.side_effects and wanted.contract is not None:
        raise InvalidRequest("--side-effects means no contract; leave out one of it and --contract")
    if wanted.stdin and wanted.file == "-":
        raise InvalidRequest("stdin is the program (-), so --stdin has nothing to give to it")
    as_given: Any = {name: getattr(wanted, name) for name in OPTIONS & _named(wanted)}
    read: Any = {
        "contract": None if wanted.contract is None else _read_contract(wanted.contract),
        "prog_name": _prog_name(wanted.file),
        "argv": wanted.args,
        "env": _variables(wanted.env),
        "limits": _read_limits(wanted),
        "stdin": _read_stdin(limits.input_bytes) if wanted.stdin and not sys.stdin.isatty() else None,
    }
    return RunRequest.of(_read_program(wanted, limits.source_bytes), **{**as_given, **read})


def _variables(given: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE as it is; of NAME alone our own value, which then stands on no command line."""
    ours = os.environ  # noqa: TID251 - a variable that the user hands on, and no setting
    found = {}
    for text in given:
        name, assigned, value = text.partition("=")
        if not assigned and name not in ours:
            raise InvalidRequest(f"--env {name}: we have no such variable; write {name}=value", code="invalid_env")
        found[name] = value if assigned else ours[name]
    return found


def _read_limits(wanted: Wanted) -> dict[str, float]:
    named = {"memory_bytes": wanted.memory, "cpus": wanted.cpus}
    texts = {name: text for name, text in named.items() if text is not None}
    for pair in wanted.limits:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InvalidRequest(f"--limit {pair}: write NAME=VALUE, as processes=8", code="invalid_limit")
        if name in texts:
            raise InvalidRequest(f"--limit {pair}: {name} is given twice; leave out one", code="invalid_limit")
        texts[name] = text
    return {name: typed(name, text) for name, text in texts.items()}


def _named(wanted: Wanted) -> set[str]:
    return {field.name for field in fields(wanted)}


def _read_program(wanted: Wanted, most: int) -> bytes:
    if wanted.code is not None:
        return os.fsencode(wanted.code)  # as it was typed, in whatever encoding
    file = wanted.file
    # One byte more than is allowed: the request's own check then says so.
    if file == "-":
        return sys.stdin.buffer.read(most + 1)
    return _read(Path(file), most + 1)


def _read_stdin(most: int) -> bytes:
    data = sys.stdin.buffer.read(most + 1)
    if len(data) > most:
        raise InvalidRequest(
            f"stdin has more than {most} bytes; send less, or raise ISORUN_MAX_INPUT_BYTES", code="inputs_too_large"
        )
    return data


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(most)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidRequest(f"{path} cannot be read: {reason}", code="unreadable_file") from None


def _read_contract(text: str) -> object:
    where = "--contract"
    if text.startswith("@"):
        where = text[1:]
        data = _read(Path(where), _CONTRACT_BYTES + 1)
        if len(data) > _CONTRACT_BYTES:
            raise InvalidRequest(f"{where} has more than {_CONTRACT_BYTES} bytes", code="invalid_contract")
        text = data.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            f'{where} is not JSON ({error}); write [{{"filename": "turn_1/files/a.txt", "description": "…"}}] or @FILE',
            code="invalid_contract",
        ) from None


def _prog_name(file: str) -> str | None:
    name = Path(file).name[:MAX_PROG_NAME]
    return name if file != "-" and is_visible(name) and name.strip() else None
