"""What a caller asks of a run: one value, whichever way it was asked.

Python keywords, a command line and JSON all become a `RunRequest`, and `Runtime` takes
nothing else. This module gives each option its one form and checks its kind. Whether a
request fits the limits, the bundle and the disk of a host is checked by
`runtime.request` when the run starts.

To add an option: a key of `RunOptions`, a field of `RunRequest` (and its form in `of`), the check in
`runtime.request`, and the option of the command line in `cli.run.command`. The module is long because the form
of each option stands beside the others.
"""

import base64
import binascii
import dataclasses
import inspect
import math
import os
import re
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

from isorun.core import quantity
from isorun.core.errors import InvalidRequest
from isorun.core.ids import check_session
from isorun.core.limits import Limits, own_limits
from isorun.core.text import is_visible, shown

NO_CODE = "there is no code to run"
NO_NETWORK, LOOPBACK = "none", "loopback"
_USER_CHARS = 200
_TOOL_ID = re.compile(r"[A-Za-z][A-Za-z0-9_]*\.[A-Za-z][A-Za-z0-9_]*")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENV_BYTES = 64 << 10  # of all names and values: one execve of the program's takes 128 KiB
_OUR_ENV = "OUTPUT_DIR"
_NAME_BYTES = 255
_INPUT = ("an input", "invalid_input")
_MOST_SOURCE = 64 << 20  # bytes that are read of a file; how many a host takes, its limits say
_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Named:
    """An input under a name of the caller's: its bytes, or the file or folder of the host that it is."""

    name: str  # POSIX, relative
    content: bytes | Path


#: A tool of the caller's: a function that answers its calls, or a description (`description`, `parameters` as a JSON
#: schema, `returns`) of one whose calls the caller answers by `Run.answer`. True: the bundle's own.
OwnTool = Callable[..., Any] | Mapping[str, Any] | bool
Inputs = str | Path | Sequence[str | Path | Named] | Mapping[str, str | bytes | Path]


class ProgramOptions(TypedDict, total=False):
    """What every way of running a program takes."""

    prog_name: str | None
    turn_id: str | int | None
    argv: Sequence[str]
    stdin: str | bytes | None
    env: Mapping[str, str]
    tools: Sequence[str] | Mapping[str, OwnTool] | None
    user_id: str
    limits: Limits | Mapping[str, Any] | None
    network: str


class RunOptions(ProgramOptions, total=False):
    """The keywords of `Runtime.execute`, `Runtime.start` and `isorun.run`; `RunRequest` says what each means."""

    contract: object
    timeout_s: float | str | None
    inputs: Inputs
    start_from: str | Path | None
    save_to: str | Path | None
    session: str | None
    out: str | Path | None
    exec_id: str | None
    keep: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """One run as it was asked for. Make it with `of` or `from_json`, which check the kind of each part."""

    code: bytes  # the program; as Python reads it, so a coding cookie counts
    contract: object = None  # the promised files, as a list or its JSON text; None compares out/ before and after
    timeout_s: float | None = None  # wall seconds from the program's first instruction; None: the host's ceiling
    prog_name: str | None = None  # shown with the run, at most 64 characters
    turn_id: str | int | None = None  # of the folder turn_<id> that the program writes to
    argv: tuple[str, ...] = ()  # sys.argv[1:] of the program
    inputs: tuple[Path | Named, ...] = ()  # where the program begins; as a mapping from names: texts, bytes, paths
    env: tuple[tuple[str, str], ...] = ()  # environment variables of the program, names and values
    start_from: Path | None = None  # a folder of the host that out/ starts as a copy of
    save_to: Path | None = None  # a folder of the host that gets what the run wrote; files there are replaced
    session: str | None = None  # the name under which files are carried from run to run
    out: Path | None = None  # as save_to, all of out/ with logs and result.json, for a new or empty folder
    stdin: bytes | None = None  # None: stdin is at its end
    tools: tuple[str, ...] | Mapping[str, OwnTool] | None = None  # those that it may call; None: the bundle's
    user_id: str = ""  # for the tools to know, at most 200 characters
    exec_id: str | None = None  # an id of the caller's own; None: a new one
    limits: Mapping[str, float] | None = None  # limits of this run alone, by name, below the host's; None: the host's
    network: str = NO_NETWORK  # or `loopback`: a server of the program's is reached by the program alone
    keep: bool = True  # False: the run's folder is removed once the result is made

    @classmethod
    def of(cls, code: "str | bytes | Path | RunRequest", **options: Unpack[RunOptions]) -> "RunRequest":
        """The request for *code* with *options*, or *code* itself if it is a request already.

        A program that is given as a Path is read here. Raises `InvalidRequest` for a part of the wrong kind, or a
        file that cannot be read, and TypeError for an option that there is not.
        """
        check_known(options, OPTIONS, "a run")
        if isinstance(code, RunRequest):
            if options:
                raise TypeError(f"the request is whole: {min(options)} must be in it")
            return code
        formed: dict[str, Any] = {name: _FORMS[name](value) for name, value in options.items()}
        return cls(code=_code(code), **formed)

    def to_json(self) -> dict[str, Any]:
        """The request as JSON values, the values of `env` with it. An option that was not given is left out.

        Raises `InvalidRequest` (not_json) for one with tools of the caller's own.
        """
        if isinstance(self.tools, Mapping):
            raise InvalidRequest(
                f"{', '.join(self.tools)}: JSON cannot hold tools of this process; name those of a bundle",
                code="not_json",
            )
        told = {"code": _told(self.code)}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "code" and value != field.default:
                told[field.name] = _told(value)
        if self.env:
            told["env"] = dict(self.env)
        if any(isinstance(one, Named) for one in self.inputs):
            told["inputs"] = dict(map(_told_input, self.inputs))
        return told

    @classmethod
    def from_json(cls, value: object) -> "RunRequest":
        """The request that `to_json` told of. Raises `InvalidRequest`, also for an unknown key."""
        if not isinstance(value, Mapping):
            raise InvalidRequest(f"a request must be a JSON object, got {shown(value)}", code="invalid_request")
        for key in value:
            if key != "code" and key not in OPTIONS:
                raise InvalidRequest(f"a run has no option {shown(key)}{_nearest(str(key))}", code="unknown_option")
        if "code" not in value:
            raise InvalidRequest(NO_CODE, code="missing_code")
        given: dict[str, Any] = {
            key: _bytes_of(key, part) if key in ("code", "stdin") else part for key, part in value.items()
        }
        return cls.of(**given)


OPTIONS = frozenset(RunOptions.__annotations__)
DEFAULTS: Mapping[str, Any] = {field.name: field.default for field in dataclasses.fields(RunRequest)}


def takes(*kinds: type) -> Callable[[_F], _F]:
    """For a function whose `**options` are the keys of *kinds*: `help()` and editors see each as a keyword."""

    def mark(function: _F) -> _F:
        signature = inspect.signature(function)
        named = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        hints = {name: hint for kind in kinds for name, hint in kind.__annotations__.items()}
        hints = {name: hints[name] for name in (*DEFAULTS, *hints) if name in hints}  # those of a run first
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS.get(name), annotation=hint)
            for name, hint in hints.items()
        ]
        function.__signature__ = signature.replace(parameters=[*named, *added])  # type: ignore[attr-defined]  # functions have it
        return function

    return mark


def check_known(options: Mapping[str, object], known: Collection[str], whose: str) -> None:
    """Raises TypeError for a keyword that there is not, with the nearest that there is."""
    if unknown := options.keys() - set(known):
        raise TypeError(f"{whose} has no option {min(unknown)!r}{_nearest(min(unknown), known)}")


def _nearest(name: str, known: Collection[str] = OPTIONS) -> str:
    from difflib import get_close_matches  # for an error only

    found = get_close_matches(name, sorted(["code", *known]), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _encoded(text: str, name: str, remedy: str = "") -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name} is not valid text: {error.reason}{remedy}", code=f"invalid_{name}") from error


def _code(code: object) -> bytes:
    if isinstance(code, str):
        return _encoded(code, "code")
    if isinstance(code, Path):
        return _file(code)
    if not isinstance(code, bytes):
        raise InvalidRequest(
            f"code must be text or bytes, or the Path of a file, not {type(code).__name__}", code="invalid_code"
        )
    return code


def _file(path: Path) -> bytes:
    """The program in the file *path*; a FIFO or a device, whose reading may never end, is not opened for long."""
    try:
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidRequest(f"the program {path} is not a regular file", code="invalid_code")
            code = file.read(_MOST_SOURCE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidRequest(f"the program {shown(str(path))} cannot be read: {reason}", code="invalid_code") from error
    if len(code) > _MOST_SOURCE:  # never a part of it
        raise InvalidRequest(f"the program {path} has more than {_MOST_SOURCE} bytes", code="code_too_large")
    return code


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO without a writer would hold up every run


def _stdin(stdin: object) -> bytes | None:
    if isinstance(stdin, str):
        return _encoded(stdin, "stdin", "; give bytes")
    if stdin is not None and not isinstance(stdin, bytes):
        raise InvalidRequest(f"stdin must be text or bytes, got {shown(stdin)}", code="invalid_stdin")
    return stdin


def _timeout(timeout_s: object) -> float | None:
    if timeout_s is None:
        return None
    if isinstance(timeout_s, str) and not timeout_s[-1:].isdigit():  # a text needs its unit
        with suppress(ValueError):
            timeout_s = quantity.seconds_of(timeout_s)
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float):
        raise InvalidRequest(
            f"timeout_s must be a number of seconds, or a text with a unit such as 90s, got {timeout_s!r}",
            code="invalid_timeout",
        )
    try:
        seconds = float(timeout_s)
    except OverflowError:  # a whole number of four hundred digits
        seconds = math.inf
    if not 0 < seconds < math.inf:
        raise InvalidRequest(f"timeout_s must be positive and finite, got {shown(timeout_s)}", code="invalid_timeout")
    return seconds


def _argv(argv: object) -> tuple[str, ...]:
    if isinstance(argv, str | bytes) or not isinstance(argv, Sequence):
        raise InvalidRequest(f"argv must be a list of texts, got {shown(argv)}", code="invalid_argument")
    for argument in argv:
        if not isinstance(argument, str) or "\0" in argument or not is_utf8(argument):
            raise InvalidRequest(f"an argument is not text: {shown(argument)}", code="invalid_argument")
    return tuple(argv)


def is_utf8(text: str) -> bool:
    """Whether *text* can be encoded: a surrogate cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _inputs(inputs: object) -> tuple[Path | Named, ...]:
    if isinstance(inputs, Mapping):
        return tuple(_named(name, content) for name, content in inputs.items())
    if isinstance(inputs, str | Path):  # one path; a text is a sequence, of letters
        inputs = (inputs,)
    if isinstance(inputs, bytes) or not isinstance(inputs, Sequence):
        raise InvalidRequest(
            f"inputs must be a list of paths, or names with their contents, got {shown(inputs)}", code="invalid_input"
        )
    return tuple(one if isinstance(one, Named) else _path(one, "an input", "invalid_input") for one in inputs)


def _named(name: object, content: object) -> Named:
    parts = name.split("/") if isinstance(name, str) and is_utf8(name) and is_visible(name) else [""]
    if any(part in ("", ".", "..") or len(part.encode()) > _NAME_BYTES for part in parts):
        raise InvalidRequest(
            f"the name of an input must be a relative path such as data/a.csv, got {shown(name)}", code="invalid_input"
        )
    if isinstance(content, Mapping):
        content = Path(_path(content["path"], *_INPUT)) if set(content) == {"path"} else _bytes_of("input", content)
    if isinstance(content, str):
        content = _encoded(content, "input", "; give bytes")
    if isinstance(content, Path):
        content = _path(content, *_INPUT)
    if not isinstance(content, bytes | Path):
        raise InvalidRequest(
            f"the input {shown(name)} must be text, bytes or a Path, not {type(content).__name__}", code="invalid_input"
        )
    return Named(str(name), content)


def _env(env: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(env, Mapping):
        raise InvalidRequest(f"env must give each variable its text, got {type(env).__name__}", code="invalid_env")
    for name, value in env.items():
        if not isinstance(name, str) or not _ENV_NAME.fullmatch(name):
            raise InvalidRequest(f"env: {shown(name)} cannot be a variable's name", code="invalid_env")
        if not isinstance(value, str) or "\0" in value or not is_utf8(value):
            raise InvalidRequest(f"env: the value of {name} must be text", code="invalid_env")  # and is not shown
        if name == _OUR_ENV:
            raise InvalidRequest(f"env: {name} is set by the run itself", code="invalid_env")
    size = sum(len(name.encode()) + len(value.encode()) for name, value in env.items())
    if size > _ENV_BYTES:
        raise InvalidRequest(f"env has {size} bytes, more than {_ENV_BYTES}: send a file", code="invalid_env")
    return tuple(env.items())


def _path(path: object, name: str, code: str) -> Path:
    if not isinstance(path, str | Path) or "\0" in str(path) or _is_no_name(str(path)):
        raise InvalidRequest(f"{name} must be a path, got {shown(path)}", code=code)
    return Path(path)


def _is_no_name(path: str) -> bool:
    """Whether no file system can have that name: a surrogate that stands for no byte."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return True
    return False


def _tools(tools: object) -> tuple[str, ...] | Mapping[str, OwnTool] | None:
    if tools is None:
        return None
    if isinstance(tools, Mapping):
        return {tool_id: _own_tool(tool_id, one) for tool_id, one in tools.items()}
    if not isinstance(tools, list | tuple | set | frozenset) or not all(isinstance(tool, str) for tool in tools):
        raise InvalidRequest("tools must be a list of ids such as local_tools.write_note", code="invalid_tools")
    return tuple(dict.fromkeys(tools))


def _own_tool(tool_id: object, one: object) -> OwnTool:
    if not isinstance(tool_id, str) or not _TOOL_ID.fullmatch(tool_id):
        raise InvalidRequest(
            f"the id of a tool must be two names as in calc.add, got {shown(tool_id)}", code="invalid_tools"
        )
    if one is True or callable(one) or isinstance(one, Mapping):
        return one
    raise InvalidRequest(
        f"the tool {tool_id} must be a function that answers its calls, an object with its description and parameters, "
        f"or True for the bundle's own, got {shown(one)}",
        code="invalid_tools",
    )


def _user(user_id: object) -> str:
    if not isinstance(user_id, str) or len(user_id) > _USER_CHARS or not is_visible(user_id):
        raise InvalidRequest(
            f"user_id must be at most {_USER_CHARS} printable characters, got {shown(user_id)}", code="invalid_user_id"
        )
    return user_id


def _keep(keep: object) -> bool:
    if not isinstance(keep, bool):
        raise InvalidRequest(f"keep must be true or false, got {shown(keep)}", code="invalid_keep")
    return keep


def check_network(network: object) -> str:
    """*network* if it is a word for one. Raises `InvalidRequest` (invalid_network)."""
    if network not in (NO_NETWORK, LOOPBACK):
        raise InvalidRequest(
            f"network must be {NO_NETWORK} or {LOOPBACK}, got {shown(network)}: nothing leads out of a run; a tool may "
            "fetch what its program needs",
            code="invalid_network",
        )
    return str(network)


def _as_given(value: object) -> object:
    """For what is checked where it is read: ids and names by `core.ids`, the contract by `core.contract`."""
    return value


_FORMS: Mapping[str, Callable[[object], object]] = {
    "contract": _as_given,
    "timeout_s": _timeout,
    "prog_name": _as_given,
    "turn_id": _as_given,
    "argv": _argv,
    "inputs": _inputs,
    "env": _env,
    "start_from": lambda given: None if given is None else _path(given, "start_from", "missing_input"),
    "save_to": lambda given: None if given is None else _path(given, "save_to", "invalid_save_to"),
    "session": lambda given: None if given is None else check_session(given),
    "out": lambda given: None if given is None else _path(given, "out", "invalid_save_to"),
    "stdin": _stdin,
    "tools": _tools,
    "user_id": _user,
    "exec_id": _as_given,
    "limits": own_limits,
    "network": check_network,
    "keep": _keep,
}


def _told_input(one: Path | Named) -> tuple[str, Any]:
    """By its name, as a mapping of inputs has it."""
    named = one if isinstance(one, Named) else Named(one.name, one)
    content = named.content
    return named.name, {"path": str(content)} if isinstance(content, Path) else _told(content)


def _told(value: object) -> Any:  # noqa: ANN401 - a JSON value
    match value:
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return {"base64": base64.b64encode(value).decode()}
        case Path():
            return str(value)
        case Mapping():
            return dict(value)
        case tuple():
            return [_told(one) for one in value]
        case _:
            return value


def _bytes_of(name: str, value: object) -> object:
    """The bytes that `_told` could not tell as text."""
    if not isinstance(value, Mapping):
        return value
    try:
        if set(value) == {"base64"}:
            return base64.b64decode(value["base64"], validate=True)
    except (TypeError, ValueError, binascii.Error):
        pass
    raise InvalidRequest(f'{name} must be text or {{"base64": …}}, got {shown(value)}', code=f"invalid_{name}")
