"""What a model asks for: the schemas of the three tools, and its arguments read by them.

Arguments may be hostile. A name that was not offered is refused; a file comes as text, as base64 or as the address of a
file of an earlier run, and never as a path of this machine.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from isorun.core.errors import InvalidRequest
from isorun.core.ids import check_exec_id
from isorun.core.request import Named, RunRequest
from isorun.core.text import shown
from isorun.model import NAME, model_request, model_tool
from isorun.service.mcp.uris import Place, check_path, place_of

READ, LIST = "read_output", "list_runs"
MAX_FILES = 100  # that one call may bring
_WAYS = ("text", "base64", "uri")
_FILES = {
    "type": "array",
    "maxItems": MAX_FILES,
    "description": "Files that the program finds in its working directory.",
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "A relative path, as data.csv or data/a.csv."},
            "text": {"type": "string", "description": "All of the file, as text."},
            "base64": {"type": "string", "description": "All of the file, in base64."},
            "uri": {"type": "string", "description": "A file of an earlier run, isorun://runs/<exec_id>/out/<path>."},
        },
        "required": ["name"],
        "additionalProperties": False,
        "description": "A name, and one of text, base64 and uri.",
    },
}
_EXEC_ID = {"type": "string", "description": "The exec_id in the answer of run_python."}
_READ: dict[str, Any] = {
    "type": "object",
    "properties": {
        "exec_id": _EXEC_ID,
        "path": {
            "type": "string",
            "description": "As the list of files has it; logs/user.log is all that the program printed.",
        },
        "offset": {"type": "integer", "minimum": 0, "description": "The byte to begin at; 0 if it is left out."},
    },
    "required": ["exec_id", "path"],
    "additionalProperties": False,
}
_LIST: dict[str, Any] = {
    "type": "object",
    "properties": {"limit": {"type": "integer", "minimum": 1, "maximum": 100, "description": "How many; 20 if not."}},
    "additionalProperties": False,
}
_DEFAULT_LIMIT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A run that was asked for. `later` are inputs that are files of earlier runs, by the name that each is to have."""

    request: RunRequest
    later: Mapping[str, Place] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A part of a file that was asked for."""

    exec_id: str
    path: str
    offset: int


def run_tool(tools: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
    """The description and the input schema of `run_python`, whose programs may call *tools*."""
    offered = model_tool("mcp", tools=tools)
    schema = offered["inputSchema"]
    properties = {
        name: schema["properties"][name] for name in ("code", "contract", "timeout_s") if name in schema["properties"]
    }
    text = (
        f"{offered['description']}\n"
        f"Files and pictures come back with the answer; {READ} shows a picture again, or the rest of a long output.\n"
        "To go on with a file of an earlier run, give its uri in files."
    )
    return text, {**schema, "properties": {**properties, "files": _FILES}}


def read_tool() -> tuple[str, dict[str, Any]]:
    """The description and the input schema of `read_output`."""
    return (
        "Read a file that a run left, a part at a time: text as text, PNG and JPEG as a picture.\n"
        "A longer text ends with the offset at which it goes on. Other files can be opened by a program that gets "
        "them by their uri."
    ), _READ


def list_tool() -> tuple[str, dict[str, Any]]:
    """The description and the input schema of `list_runs`."""
    return "The latest runs with their status and files, the newest first.", _LIST


def run_arguments(arguments: Mapping[str, Any]) -> Wanted:
    """The run that *arguments* of `run_python` ask for. Raises `InvalidRequest`, whose text says what to mend."""
    _check_names(NAME, arguments, ("code", "contract", "timeout_s", "files"))
    rest = {name: value for name, value in arguments.items() if name != "files"}
    request = model_request(rest)
    given, later = _files(arguments.get("files"))
    inputs = RunRequest.of(b"", inputs={**given, **dict.fromkeys(later, b"")}).inputs  # each name is checked
    at_once = tuple(one for one in inputs if isinstance(one, Named) and one.name in given)
    return Wanted(request=replace(request, inputs=at_once), later=later)


def read_arguments(arguments: Mapping[str, Any]) -> Reading:
    """What *arguments* of `read_output` ask for. Raises `InvalidRequest`."""
    _check_names(READ, arguments, tuple(_READ["properties"]))
    offset = _whole("offset", arguments.get("offset"), 0, least=0, most=1 << 62)
    return Reading(
        exec_id=check_exec_id(arguments.get("exec_id")), path=check_path(arguments.get("path")), offset=offset
    )


def list_arguments(arguments: Mapping[str, Any]) -> int:
    """How many runs *arguments* of `list_runs` ask for. Raises `InvalidRequest`."""
    _check_names(LIST, arguments, ("limit",))
    return _whole("limit", arguments.get("limit"), _DEFAULT_LIMIT, least=1, most=100)


def _check_names(tool: str, arguments: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in arguments:
        if name not in known:
            _refuse(f"{tool} has no argument {shown(name)}; it has {', '.join(known)}", "unknown_option")


def _whole(name: str, value: object, default: int, *, least: int, most: int) -> int:
    if value is None:
        return default
    if isinstance(value, float) and value.is_integer():  # JSON has one kind of number
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        _refuse(f"{name} must be a whole number from {least} to {most}, got {shown(value)}", "invalid_argument")
    return value


def _files(value: object) -> tuple[dict[str, str | bytes], dict[str, Place]]:
    """The files that are here, and those that are still to be read, by name."""
    given: dict[str, str | bytes] = {}
    later: dict[str, Place] = {}
    if value is None:
        return given, later
    if not isinstance(value, list) or len(value) > MAX_FILES:
        got = f"{len(value)} of them" if isinstance(value, list) else shown(value)
        _refuse(f"files must be a list of at most {MAX_FILES} objects, got {got}", "invalid_input")
    for number, one in enumerate(value, 1):
        name, way, content = _file(number, one)
        if name in given or name in later:
            _refuse(f"files: {shown(name)} is given twice", "invalid_input")
        if way == "uri":
            later[name] = place_of(content)
        else:
            given[name] = content if way == "text" else _decoded(number, content)
    return given, later


def _file(number: int, value: object) -> tuple[str, str, str]:
    """The name of a file, and the way in which it is given, and as what."""
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        _refuse(f"file {number} must be an object with a name, and one of {', '.join(_WAYS)}", "invalid_input")
    for key in value:
        if key != "name" and key not in _WAYS:
            _refuse(f"file {number} has no key {shown(key)}; it has name, {', '.join(_WAYS)}", "invalid_input")
    ways = [way for way in _WAYS if value.get(way) is not None]
    if len(ways) != 1 or not isinstance(value[ways[0]], str):
        _refuse(f"file {number} ({shown(value['name'])}) needs one text: {', '.join(_WAYS)}", "invalid_input")
    return value["name"], ways[0], value[ways[0]]


def _decoded(number: int, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        _refuse(f"file {number}: its base64 cannot be decoded", "invalid_input")


def _refuse(text: str, code: str) -> NoReturn:
    raise InvalidRequest(text, code=code)
