"""A request held against the limits, the bundle and the disk of this host. A refused request starts nothing."""

import os
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from isorun.backends.base import File, FileId
from isorun.core.contract.items import Contract, parse_contract
from isorun.core.errors import InvalidRequest
from isorun.core.guard.caller import caller
from isorun.core.ids import check_exec_id, check_prog_name, is_built_in, new_exec_id, turn_folder
from isorun.core.limits import Limits, check_own, with_own
from isorun.core.request import LOOPBACK, NO_CODE, Named, RunRequest, is_utf8
from isorun.core.text import shown
from isorun.executor import rules
from isorun.executor.shown.value import FORMS, TEXT
from isorun.runtime.held.tools import HostTool, host_tools
from isorun.runtime.inspection.schema import schema_fault
from isorun.store.collect import fingerprints
from isorun.store.folder import RunFolder

MAIN_NAME = "main.py"
_SAVE = "invalid_save_to"
CODE_NAME = "user_code.py"
#: Names in work/ that every run has already, and what is called so.
_OURS = {
    MAIN_NAME: "the loader",
    CODE_NAME: "the program itself",
    rules.STDIN_FILE: "the program's stdin",
    rules.LAST_TRACE: "where a timeout is noted",
    rules.LEFT: "where files in /tmp are noted",
    rules.FIGURES: "where saved figures are noted",
    **{f"{rules.VALUE}.{ending}": "the value of the last line" for ending in (TEXT, *(form[1] for form in FORMS))},
}
_TAKEN = (
    "the input {source} cannot be work/{name}: that is {ours}; rename it, or give the folder that holds it as the input"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """Where the files of a run go afterwards, and which."""

    to: Path  # absolute
    option: str  # the one that said so
    whole: bool  # all of out/ with what the host wrote there, or what the run itself wrote


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedRun:
    """One run, ready to start: every name checked, every size within its limit."""

    exec_id: str
    turn: str
    code: bytes
    contract: Contract | None  # None: out/ is compared before and after
    timeout_s: float
    prog_name: str
    argv: tuple[str, ...] = ()
    inputs: tuple[File, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    before: Path | None = None  # an out/ of the caller's that the program starts with
    sent: Mapping[str, str] = field(default_factory=dict)  # sha256 of each file of it that is sent
    shown: bool = False  # whether the inputs stand in out/, where the program begins, and work/ has links to them
    needs_turn: bool = True  # whether its turn's folder is there before it begins
    stdin: bytes | None = None
    grants: tuple[str, ...] = ()  # ids of the tools it may call
    own_tools: Mapping[str, HostTool] = field(default_factory=dict)  # those of them that this process answers
    user_id: str = ""
    limits: Limits = field(default_factory=Limits)  # the host's, or lower ones of its own
    loopback: bool = False  # whether it has its own, and sockets that reach that alone
    keep: bool = True  # whether its folder stays after the run
    saving: Saving | None = None
    session: str | None = None
    caller: str = ""  # the file of the code that asked for it, for a list of runs

    @property
    def in_work(self) -> tuple[str, ...]:
        """What is in work/ when the program begins: the run's own two files and the inputs, relative to it."""
        return MAIN_NAME, CODE_NAME, *(file.path.removeprefix("work/") for file in self.inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """The tools that a run may be granted: those that it may name, and those that it gets if it names none."""

    tools: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # as `Runtime.tools` describes them
    by_default: tuple[str, ...] = ()
    has_bundle: bool = False


def accept(
    request: RunRequest, limits: Limits, offered: "Offered | None" = None, *, allow_loopback: bool = True
) -> AcceptedRun:
    """Check everything that a caller asked for; raises `InvalidRequest` naming the item and the remedy.

    *limits* are the host's; the run may ask for lower ones. *allow_loopback* is the operator's word.
    """
    check_own(limits, request.limits)
    own = host_tools(request.tools) if isinstance(request.tools, Mapping) else {}
    host, limits = limits, with_own(limits, request.limits)
    exec_id = check_exec_id(request.exec_id) if request.exec_id is not None else new_exec_id()
    contract = _check_contract(request, exec_id, limits)
    turn = contract.turn if contract else turn_folder(request.turn_id, (), exec_id)
    return AcceptedRun(
        exec_id=exec_id,
        turn=turn,
        code=check_code(request.code, limits),
        shown=True,
        needs_turn=_needs_turn(request, contract, turn),
        contract=contract,
        timeout_s=_check_both(check_timeout(request.timeout_s, host), request, limits),
        prog_name=check_prog_name(request.prog_name) if request.prog_name is not None else "",
        argv=request.argv,
        inputs=check_inputs(request.inputs, limits),
        env=dict(request.env),
        before=_check_before(request),
        stdin=_check_stdin(request.stdin, limits),
        grants=granted(request.tools, own, offered or Offered()),
        own_tools=own,
        user_id=request.user_id,
        limits=limits,
        loopback=_check_network(request.network, allow_loopback),
        keep=request.keep,
        saving=_check_saving(request),
        session=request.session,
        caller=caller(),
    )


def _check_contract(request: RunRequest, exec_id: str, limits: Limits) -> Contract | None:
    if request.contract is None:
        return None
    contract = parse_contract(request.contract, turn=request.turn_id, exec_id=exec_id, max_items=limits.contract_items)
    _refuse_bad_schemas(contract)
    return contract


def _needs_turn(request: RunRequest, contract: Contract | None, turn: str) -> bool:
    """Whether the caller or the program speaks of the turn's folder. To any other program it would be a strange one."""
    if request.turn_id is not None or (contract and not all(item.bare for item in contract.items)):
        return True
    return any(word in request.code for word in (b"TURN_ID", b"CONTRACT", turn.encode()))


def _check_both(timeout_s: float, request: RunRequest, own: Limits) -> float:
    """*timeout_s* below the run's own `wall_s`, too."""
    if request.timeout_s is not None and timeout_s > own.wall_s:
        raise InvalidRequest(
            f"timeout_s is {timeout_s:g}, more than wall_s of the run's own limits: {own.wall_s:g}; leave out one",
            code="timeout_too_large",
        )
    return min(timeout_s, own.wall_s)


def _refuse_bad_schemas(contract: Contract) -> None:
    for number, item in enumerate(contract.items, start=1):
        schema = item.checks.get("json_schema")
        fault = schema_fault(schema) if schema is not None else ""
        if fault:
            raise InvalidRequest(
                f"contract item {number} ({item.path!r}): json_schema {fault}", code="invalid_json_schema"
            )


def granted(tools: Iterable[str] | None, own: Collection[str], offered: Offered) -> tuple[str, ...]:
    """The ids in *tools*, of those *offered* or of the caller's *own*. Raises `InvalidRequest` for an unknown one."""
    if tools is None:
        return offered.by_default
    for tool_id in tools:
        if tool_id not in own and tool_id not in offered.tools:
            raise InvalidRequest(_unknown_tool(tool_id, offered), code="unknown_tool")
    return tuple(tools)


def _unknown_tool(tool_id: str, offered: Offered) -> str:
    if is_built_in(tool_id) and offered.has_bundle:
        return f"{shown(tool_id)} is not there: set ISORUN_BUILTIN_TOOLS=1, or list generic_tools in the bundle"
    if not offered.has_bundle and not offered.tools:
        return f"the bundle has no tool {shown(tool_id)}: no bundle is loaded; give bundle= (--bundle)"
    whose = "the bundle has" if offered.has_bundle else "there is"
    return f"{whose} no tool {shown(tool_id)}: it has {', '.join(offered.tools)}"


def check_count(name: str, count: object) -> int:
    """*count* if it is a whole number above 0. Raises `InvalidRequest` (invalid_<name>)."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InvalidRequest(f"{name} must be a whole number above 0, got {shown(count)}", code=f"invalid_{name}")
    return count


def check_preload(names: object) -> tuple[str, ...]:
    """*names* if they are a list of names of modules. Raises `InvalidRequest` (invalid_preload)."""
    listed = tuple(names) if isinstance(names, Sequence) and not isinstance(names, str | bytes) else (None,)
    if not all(isinstance(name, str) and name for name in listed):
        raise InvalidRequest(
            f'preload must be a list of names, as ["numpy"], got {shown(names)}', code="invalid_preload"
        )
    return listed


def check_code(code: bytes, limits: Limits) -> bytes:
    """The program's bytes, at most as many as the operator allows."""
    if not code.strip():
        raise InvalidRequest(NO_CODE, code="missing_code")
    if len(code) > limits.source_bytes:
        raise InvalidRequest(
            f"the code has {len(code)} bytes, more than {limits.source_bytes}; give its data as inputs, or raise "
            "ISORUN_MAX_SOURCE_BYTES",
            code="code_too_large",
        )
    return code


def check_timeout(timeout_s: float | None, limits: Limits) -> float:
    """Seconds of wall time, at most the operator's."""
    if timeout_s is None:
        return limits.wall_s
    if timeout_s > limits.wall_s:
        raise InvalidRequest(
            f"timeout_s is {timeout_s:g}, more than ISORUN_MAX_WALL_S (PY_CODE_EXEC_TIMEOUT) allows: {limits.wall_s:g}",
            code="timeout_too_large",
        )
    return timeout_s


def _check_network(network: str, allow_loopback: bool) -> bool:
    if network == LOOPBACK and not allow_loopback:
        raise InvalidRequest(
            'network="loopback" (--loopback) is not allowed here: ISORUN_ALLOW_LOOPBACK is 0; leave it out, or have '
            "the operator set it to 1",
            code="loopback_not_allowed",
        )
    return network == LOOPBACK


def _check_stdin(stdin: bytes | None, limits: Limits) -> bytes | None:
    if stdin is not None and len(stdin) > limits.input_bytes:
        raise InvalidRequest(
            f"stdin has {len(stdin)} bytes, more than {limits.input_bytes}; send less, or raise ISORUN_MAX_INPUT_BYTES",
            code="inputs_too_large",
        )
    return stdin


def check_inputs(inputs: Sequence[Path | Named], limits: Limits) -> tuple[File, ...]:
    """Files and folders of the caller, as they will stand in work/.

    A link that is itself named is followed; one inside a folder is refused.
    """
    found: dict[str, File] = {}
    total = 0
    for given in inputs:
        for file, size in _readable(given):
            path = file.path.removeprefix("work/")
            if not is_utf8(path):
                raise InvalidRequest(f"the name of an input is not text: {path!r}", code="invalid_input")
            first = path.partition("/")[0]
            if first in _OURS:
                source = file.source or path
                raise InvalidRequest(_TAKEN.format(name=first, source=source, ours=_OURS[first]), code="reserved_input")
            if path in found:
                raise InvalidRequest(f"two inputs would be work/{path}: {file.source or path}", code="duplicate_input")
            found[path] = file
            total += size
    _refuse_nested(found)
    if total > limits.input_bytes:
        raise InvalidRequest(
            f"the inputs have {total} bytes, more than {limits.input_bytes}; send less, or raise "
            "ISORUN_MAX_INPUT_BYTES",
            code="inputs_too_large",
        )
    return tuple(found.values())


def _readable(given: Path | Named) -> list[tuple[File, int]]:
    """As `_input_files`. Raises `InvalidRequest` for what the disk refuses: a closed folder, links in a circle."""
    try:
        return _input_files(given)
    except InvalidRequest:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidRequest(f"an input cannot be read: {error}", code="unreadable_input") from error


def _refuse_nested(paths: Collection[str]) -> None:
    for path in paths:
        for parent in accumulate(path.split("/")[:-1], lambda left, right: f"{left}/{right}"):
            if parent in paths:
                raise InvalidRequest(
                    f"the input {parent} cannot be a file and the folder of {path}", code="duplicate_input"
                )


def _input_files(given: Path | Named) -> list[tuple[File, int]]:
    """Each file of *given*, and its size."""
    if isinstance(given, Named) and isinstance(given.content, bytes):
        return [(File(path=f"work/{given.name}", data=given.content), len(given.content))]
    source, name = (given, None) if isinstance(given, Path) else (given.content, given.name)
    assert isinstance(source, Path)
    return [
        (File(path=f"work/{path}", source=file, checked=checked), checked.size)
        for path, file, checked in _files_of(source, name)
    ]


def _files_of(given: Path, called: str | None) -> list[tuple[str, Path, FileId]]:
    """The files of *given* by their names, which begin with *called*, or with its own name."""
    # A link that the caller names is the caller's wish; one inside a folder may be anybody's.
    top = given.resolve()
    try:
        kind = top.lstat()
    except OSError:
        raise InvalidRequest(f"there is no input {given}", code="missing_input") from None
    name = called or (given.name if given.name not in ("", "..") else top.name)  # `.` and `..` have names of their own
    if stat.S_ISREG(kind.st_mode):
        return [(name, top, FileId.of(kind))]
    if not stat.S_ISDIR(kind.st_mode):
        raise InvalidRequest(f"input {top} is not a regular file", code="invalid_input")
    files = []
    # By descriptors: a folder that becomes a link meanwhile is not entered.
    for at, folders, names, descriptor in os.fwalk(top, onerror=_raise):
        folders.sort()
        for file in sorted([*names, *folders]):
            path = Path(at, file)
            status = os.stat(file, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                files.append((f"{name}/{path.relative_to(top).as_posix()}", path, FileId.of(status)))
            elif not stat.S_ISDIR(status.st_mode):
                raise InvalidRequest(f"input {path} is not a regular file", code="invalid_input")
    return sorted(files)


def _raise(error: OSError) -> None:
    raise error


def _check_before(request: RunRequest) -> Path | None:
    folder = request.start_from
    if folder is not None and request.session is not None:
        raise InvalidRequest(
            f"a run of session {request.session} starts from the session's files; give others as inputs (--input), and "
            "leave out start_from (--start-from)",
            code="invalid_session",
        )
    try:
        is_there = folder is None or folder.is_dir()
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"the folder {folder} cannot be read: {error}", code="unreadable_input") from error
    if not is_there:
        raise InvalidRequest(f"there is no folder {folder} to start from", code="missing_input")
    return folder


def _check_saving(request: RunRequest) -> Saving | None:
    """Where the run's files are to go. A folder that cannot take them is better known before the run than after it."""
    if request.out is not None and request.save_to is not None:
        raise InvalidRequest("out (--out) and save_to (--save-to) both say where files go; leave out one", code=_SAVE)
    to, option = (request.save_to, "save_to") if request.out is None else (request.out, "out")
    if to is None:
        return None
    dashed = f"--{option.replace('_', '-')}"
    try:
        # Some meant by `out` what is called start_from: their folder is not empty, and stays as it is.
        is_full = any(to.iterdir()) and option == "out"
    except FileNotFoundError:
        is_full = False
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        remedy = "name a folder that you may write to"
        text = f"{option} ({dashed}) {to} cannot be used: {reason}; {remedy}"
        raise InvalidRequest(text, code="out_unusable") from None
    if is_full:
        raise InvalidRequest(
            f"out (--out) {to} is not empty; name a new or empty folder, or say save_to (--save-to) to replace files "
            "there, or start_from (--start-from) to let out/ start as a copy of it",
            code="out_not_empty",
        )
    return Saving(to=to.absolute(), option=option, whole=option == "out")


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
