"""A run as it was asked for, checked. A request that is refused here starts nothing."""

import math
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isorun.backends.base import File
from isorun.core.contract import Contract, parse_contract
from isorun.core.errors import InvalidRequest
from isorun.core.ids import check_exec_id, check_prog_name, new_exec_id, shown, turn_folder
from isorun.core.limits import Limits
from isorun.runtime.collect import fingerprints
from isorun.runtime.folder import RunFolder
from isorun.runtime.schema import schema_fault

MAIN_NAME = "main.py"
CODE_NAME = "user_code.py"
_OURS = (MAIN_NAME, CODE_NAME)
_USER_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """One run, ready to start: every name checked, every size within its limit."""

    exec_id: str
    turn: str
    code: bytes
    contract: Contract | None  # None: out/ is compared before and after
    timeout_s: float
    prog_name: str
    argv: tuple[str, ...] = ()
    inputs: tuple[File, ...] = ()
    before: Path | None = None  # an out/ of the caller's that the program starts with
    sent: Mapping[str, str] = field(default_factory=dict)  # sha256 of each file of it that is sent
    stdin: bytes | None = None
    grants: tuple[str, ...] = ()  # ids of the tools it may call
    user_id: str = ""


def build_request(
    code: str | bytes,
    *,
    limits: Limits,
    contract: object = None,
    timeout_s: float | None = None,
    prog_name: str | None = None,
    turn_id: str | int | None = None,
    argv: Sequence[str] = (),
    inputs: Sequence[str | Path] = (),
    out: str | Path | None = None,
    stdin: str | bytes | None = None,
    exec_id: str | None = None,
    user_id: str = "",
    tools: Sequence[str] | None = None,
    bundle_tools: Collection[str] = (),
) -> RunRequest:
    """Check everything a caller may say of a run; raises `InvalidRequest` naming the item and the remedy.

    *bundle_tools* are the ids that may be granted, all of them if *tools* is None.
    """
    exec_id = check_exec_id(exec_id) if exec_id is not None else new_exec_id()
    parsed = None
    if contract is not None:
        parsed = parse_contract(contract, turn=turn_id, exec_id=exec_id, max_items=limits.contract_items)
        _refuse_bad_schemas(parsed)
    return RunRequest(
        exec_id=exec_id,
        turn=parsed.turn if parsed else turn_folder(turn_id, (), exec_id),
        code=check_code(code, limits),
        contract=parsed,
        timeout_s=check_timeout(timeout_s, limits),
        prog_name=check_prog_name(prog_name) if prog_name is not None else "",
        argv=_check_argv(argv),
        inputs=check_inputs(inputs, limits),
        before=_check_before(out),
        stdin=_check_stdin(stdin, limits),
        grants=_check_grants(tools, bundle_tools),
        user_id=_check_user(user_id),
    )


def _refuse_bad_schemas(contract: Contract) -> None:
    for number, item in enumerate(contract.items, start=1):
        schema = item.checks.get("json_schema")
        fault = schema_fault(schema) if schema is not None else ""
        if fault:
            raise InvalidRequest(
                f"contract item {number} ({item.path!r}): json_schema {fault}", code="invalid_json_schema"
            )


def _check_grants(tools: Sequence[str] | None, bundle_tools: Collection[str]) -> tuple[str, ...]:
    if tools is None:
        return tuple(bundle_tools)
    if not isinstance(tools, (list, tuple, set, frozenset)) or not all(isinstance(tool, str) for tool in tools):
        raise InvalidRequest("tools must be a list of ids such as local_tools.write_note", code="invalid_tools")
    for tool in tools:
        if tool not in bundle_tools:
            known = (
                f"it has {', '.join(bundle_tools)}" if bundle_tools else "no bundle is loaded; give bundle= (--bundle)"
            )
            raise InvalidRequest(f"the bundle has no tool {shown(tool)}: {known}", code="unknown_tool")
    return tuple(dict.fromkeys(tools))


def _check_user(user_id: object) -> str:
    if not isinstance(user_id, str) or len(user_id) > _USER_CHARS or not (user_id.isprintable() and _is_utf8(user_id)):
        raise InvalidRequest(
            f"user_id must be at most {_USER_CHARS} printable characters, got {shown(user_id)}", code="invalid_user_id"
        )
    return user_id


def check_code(code: object, limits: Limits) -> bytes:
    """The program's bytes."""
    if isinstance(code, str):
        try:
            code = code.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"the code is not valid text: {error.reason}", code="invalid_code") from error
    if not isinstance(code, bytes):
        raise InvalidRequest(f"code must be text or bytes, not {type(code).__name__}", code="invalid_code")
    if not code.strip():
        raise InvalidRequest("there is no code to run", code="missing_code")
    if len(code) > limits.source_bytes:
        raise InvalidRequest(
            f"the code has {len(code)} bytes, more than {limits.source_bytes} (ISORUN_MAX_SOURCE_BYTES)",
            code="code_too_large",
        )
    return code


def check_timeout(timeout_s: object, limits: Limits) -> float:
    """Seconds of wall time, at most the operator's."""
    if timeout_s is None:
        return limits.wall_s
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float):
        raise InvalidRequest(f"timeout_s must be a number of seconds, got {timeout_s!r}", code="invalid_timeout")
    if not 0 < timeout_s < math.inf:
        raise InvalidRequest(f"timeout_s must be positive and finite, got {timeout_s}", code="invalid_timeout")
    if timeout_s > limits.wall_s:
        raise InvalidRequest(
            f"timeout_s is {timeout_s:g}, more than ISORUN_MAX_WALL_S (PY_CODE_EXEC_TIMEOUT) allows: {limits.wall_s:g}",
            code="timeout_too_large",
        )
    return float(timeout_s)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_stdin(stdin: object, limits: Limits) -> bytes | None:
    if isinstance(stdin, str):
        if not _is_utf8(stdin):
            raise InvalidRequest("stdin is not valid text; give bytes", code="invalid_stdin")
        stdin = stdin.encode()
    if stdin is None:
        return None
    if not isinstance(stdin, bytes):
        raise InvalidRequest(f"stdin must be text or bytes, got {shown(stdin)}", code="invalid_stdin")
    if len(stdin) > limits.input_bytes:
        raise InvalidRequest(
            f"stdin has {len(stdin)} bytes, more than {limits.input_bytes} (ISORUN_MAX_INPUT_BYTES)",
            code="inputs_too_large",
        )
    return stdin


def _check_argv(argv: Sequence[str]) -> tuple[str, ...]:
    for argument in argv:
        if not isinstance(argument, str) or "\0" in argument or not _is_utf8(argument):
            raise InvalidRequest(f"an argument is not text: {shown(argument)}", code="invalid_argument")
    return tuple(argv)


def check_inputs(inputs: Sequence[str | Path], limits: Limits) -> tuple[File, ...]:
    """Files and folders of the caller, as they will stand in work/. Links are refused, not followed."""
    found: dict[str, File] = {}
    for given in map(Path, inputs):
        for path, source in _files_of(given):
            if not _is_utf8(path):
                raise InvalidRequest(f"the name of an input is not text: {path!r}", code="invalid_input")
            if path in _OURS or path in found:
                raise InvalidRequest(f"two inputs would be work/{path}: {source}", code="duplicate_input")
            found[path] = File(path=f"work/{path}", source=source)
    total = sum(file.source.stat().st_size for file in found.values() if file.source)
    if total > limits.input_bytes:
        raise InvalidRequest(
            f"the inputs have {total} bytes, more than {limits.input_bytes}; send less",
            code="inputs_too_large",
        )
    return tuple(found.values())


def _files_of(given: Path) -> list[tuple[str, Path]]:
    # A link that the caller names is the caller's wish; one inside a folder may be anybody's.
    top = given.resolve()
    if not top.exists():
        raise InvalidRequest(f"there is no input {given}", code="missing_input")
    name = given.name if given.name not in ("", "..") else top.name  # `.` and `..` have a name of their own
    if top.is_file():
        return [(name, top)]
    files = []
    for path in sorted(top.rglob("*")):
        kind = path.lstat().st_mode
        if stat.S_ISREG(kind):
            files.append((f"{name}/{path.relative_to(top).as_posix()}", path))
        elif not stat.S_ISDIR(kind):
            raise InvalidRequest(f"input {path} is not a regular file", code="invalid_input")
    return files


def _check_before(out: str | Path | None) -> Path | None:
    if out is None:
        return None
    if not Path(out).is_dir():
        raise InvalidRequest(f"there is no folder {out} to start from", code="missing_input")
    return Path(out)


def fingerprint_before(folder: Path) -> dict[str, str]:
    """The sha256 of each file of *folder* that out/ starts with, by POSIX path; reads every one of them.

    A name that the host writes itself is left out: *folder* may be the out/ of an earlier run.
    Raises `InvalidRequest` for what cannot be sent.
    """
    try:
        found = fingerprints(folder)
    except OSError as error:
        raise InvalidRequest(
            f"the folder {folder} cannot be read: {error.strerror}", code="unreadable_input"
        ) from error
    return {path: digest for path, digest in found.items() if not RunFolder.reserved(path)}
