"""What a contract is: the files a run promises, checked before anything starts.

Pure: from the caller's value to a `Contract`, or to `InvalidRequest` with a code
of its own and a text that names the item. It never looks at a file; whether a
promise was kept is decided after the run, by the code that reads the workspace.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal, NoReturn, get_args

from isorun.core.contract.checks import MEANING, impossible
from isorun.core.errors import InvalidRequest
from isorun.core.ids import check_exec_id, turn_folder
from isorun.core.text import composed, folded, is_visible, shown

MAX_PART_BYTES = 255  # NAME_MAX of every file system a result is saved to
MAX_PATH_BYTES = 1024
FILES = "files"

_DRIVE = re.compile(r"[A-Za-z]:[/\\]")
_NAME_KEYS = ("filename", "filepath")

Visibility = Literal["external", "internal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractItem:
    """One promised file. `path` and `bare` are POSIX, relative to `out/`; `path` is `turn_<id>/files/...`."""

    path: str
    description: str
    bare: str = ""  # a name without a turn, as it was given: `out/<bare>` keeps the promise, too
    visibility: Visibility = "external"
    checks: dict[str, Any] = field(default_factory=dict, hash=False)  # by key, as `core.contract.checks` explains them


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """The promises of one run, in the caller's order, and what was changed in reading them."""

    turn: str
    items: tuple[ContractItem, ...]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Where:
    """The item being read; every refusal goes through here, so that it is always named."""

    number: int
    name: object = None

    def __str__(self) -> str:
        name = f" ({shown(self.name)})" if isinstance(self.name, str) else ""
        return f"contract item {self.number}{name}"

    def refuse(self, code: str, reason: str) -> NoReturn:
        raise InvalidRequest(f"{self}: {reason}", code=code)


def parse_contract(value: object, *, turn: str | int | None, exec_id: str, max_items: int) -> Contract:
    """The contract in *value*: a list of objects, or the same as a JSON string.

    *turn* is the caller's turn id or None (see `turn_folder`). Raises
    `InvalidRequest` with a code of its own for each kind of nonsense.
    """
    check_exec_id(exec_id)
    raw_items = _items_of(value, max_items)
    wheres = [_Where(number, _raw_name(raw)) for number, raw in enumerate(raw_items, 1)]
    for where, raw in zip(wheres, raw_items, strict=True):
        _check_keys(where, raw)
    names = [_check_name(where) for where in wheres]
    folder = turn_folder(turn, names, exec_id)
    given, names = names, [_respelt(name, turn, folder) for name in names]
    items = tuple(
        ContractItem(
            path=_placed(where, name, folder),
            bare=_bare(name, folder),
            description=_description(where, raw),
            visibility=_visibility(where, raw),
            checks=_checks(where, raw, name),
        )
        for where, raw, name in zip(wheres, raw_items, names, strict=True)
    )
    _refuse_clashes(wheres, items)
    notices = [
        f"{where} is taken as {item.path!r}"
        for where, name, item in zip(wheres, given, items, strict=True)
        if name != item.path
    ]
    return Contract(turn=folder, items=items, notices=(*notices, *_case_notices(wheres, items)))


def _items_of(value: object, max_items: int) -> list[dict[str, Any]]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as exc:  # deep nesting is a RecursionError, not a ValueError
            reason = exc.msg if isinstance(exc, json.JSONDecodeError) else "nested too deep or a number too long"
            raise InvalidRequest(f"the contract is a string but not JSON: {reason}", code="invalid_json") from None
    if not isinstance(value, (list, tuple)):
        raise InvalidRequest(
            f"the contract must be a list of objects, got a value of type {type(value).__name__}",
            code="contract_not_a_list",
        )
    if not value:
        raise InvalidRequest(
            "the contract is empty: name at least one file, or leave it out to run for side effects",
            code="empty_contract",
        )
    if len(value) > max_items:
        raise InvalidRequest(
            f"the contract has {len(value)} items, the limit is {max_items}; promise fewer, or raise "
            "ISORUN_MAX_CONTRACT_ITEMS",
            code="too_many_items",
        )
    for number, raw in enumerate(value, 1):
        if not isinstance(raw, dict):
            kind = type(raw).__name__
            _Where(number).refuse("item_not_an_object", f"must be an object with filename and description, got {kind}")
    return list(value)


def _raw_name(raw: dict[str, Any]) -> object:
    return next((raw[key] for key in _NAME_KEYS if key in raw), "")


def _check_keys(where: _Where, raw: dict[str, Any]) -> None:
    known = {*_NAME_KEYS, "description", "visibility", *_CHECKS}
    for key in raw:
        if key not in known:
            where.refuse("unknown_key", f"unknown key {shown(key)}; known are {', '.join(sorted(known))}")
    if all(key in raw for key in _NAME_KEYS):
        where.refuse("filename_and_filepath", "has filename and filepath; give one of them")


def _check_name(where: _Where) -> str:
    """The file name as given, if it is a relative path that stays where it is put."""
    name = where.name
    if not isinstance(name, str):
        where.refuse("invalid_filename", f"filename must be a string, got {type(name).__name__}")
    if not name.strip():
        where.refuse("blank_filename", "filename is blank")
    if name.startswith("/") or _DRIVE.match(name):
        where.refuse("absolute_path", "filename must be relative to out/, for example turn_1/files/report.md")
    if ".." in name.split("/"):
        where.refuse("path_escape", "filename must not contain '..'")
    if "\0" in name:
        where.refuse("nul_in_path", "filename must not contain NUL")
    # A backslash is a letter here and a separator where the file may be saved to.
    if "\\" in name:
        where.refuse("invalid_filename", "filename must use '/' between its parts, not a backslash")
    if _has_surrogate(name):
        where.refuse("invalid_filename", "filename is not valid Unicode (a lone surrogate)")
    # Marks of direction show 'gpj.exe' as 'exe.jpg'; of two names that look alike one could be promised.
    if not is_visible(name):
        where.refuse("control_character", "filename must not contain characters that cannot be seen")
    return name


def _respelt(name: str, turn: str | int | None, folder: str) -> str:
    """*name* with the *folder* of the turn where it begins with the turn's id as the caller spells it."""
    own = f"{turn}/{FILES}/"
    return f"{folder}/{FILES}/{name.removeprefix(own)}" if isinstance(turn, str) and name.startswith(own) else name


def _placed(where: _Where, name: str, folder: str) -> str:
    """The path below `out/` that *name* stands for in the turn *folder*."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.endswith(("/", "/.")) or parts in ([], [FILES], [folder, FILES]):
        where.refuse("is_a_directory", "names a directory; promise the files in it one by one")
    if len(parts) > 1 and parts[0].startswith("turn_"):
        if parts[0] != folder:
            where.refuse("other_turn", f"belongs to {shown(parts[0])}, this run's turn is {folder!r}")
        if parts[1] != FILES:
            where.refuse("outside_files", f"lies outside {folder}/{FILES}/, where a run's files belong")
        path = "/".join(parts)
    else:
        path = "/".join((folder, FILES, *(parts[1:] if parts[0] == FILES else parts)))
    longest = max(len(part.encode()) for part in path.split("/"))
    if longest > MAX_PART_BYTES or len(path.encode()) > MAX_PATH_BYTES:
        where.refuse(
            "path_too_long",
            f"a part has {longest} bytes and the path {len(path.encode())}; "
            f"the limits are {MAX_PART_BYTES} and {MAX_PATH_BYTES}",
        )
    return path


def _bare(name: str, folder: str) -> str:
    """*name* as a path below `out/`, if it names no turn; a checked name."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "" if len(parts) > 1 and parts[0] == folder else "/".join(parts)


def _description(where: _Where, raw: dict[str, Any]) -> str:
    text = raw.get("description")
    if not isinstance(text, str) or not text.strip():
        where.refuse("blank_description", "description must be a string that says what the file holds")
    if _has_surrogate(text):
        where.refuse("invalid_description", "description is not valid Unicode (a lone surrogate)")
    return text


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)


def _visibility(where: _Where, raw: dict[str, Any]) -> Visibility:
    match raw.get("visibility", "external"):
        case "external":
            return "external"
        case "internal":
            return "internal"
        case other:
            where.refuse("invalid_visibility", f"visibility must be 'external' or 'internal', got {shown(other)}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


_CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {
    "min_bytes": (_is_count, "a whole number above 0"),
    "mime": (_is_text, "a string such as 'application/pdf'"),
    "json_schema": (lambda value: isinstance(value, dict), "an object of JSON values"),
    "columns": (_is_texts, "a list of column names"),
    "min_rows": (_is_count, "a whole number above 0"),
    "pages": (_is_count, "a whole number above 0"),
    "must_contain": (lambda value: _is_text(value) or _is_texts(value), "a string or a list of strings"),
}

_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT, "minItems": 1}
#: The checks whose value is no whole number, as JSON schema says it.
_SCHEMAS: dict[str, dict[str, Any]] = {
    "mime": _TEXT,
    "json_schema": {"type": "object"},
    "columns": _TEXTS,
    "must_contain": {"anyOf": [_TEXT, _TEXTS]},
}


def item_schema() -> dict[str, Any]:
    """The JSON schema of an item: the keys that `parse_contract` takes, and what each means."""
    count = {"type": "integer", "minimum": 1}
    checks = {key: {**_SCHEMAS.get(key, count), "description": MEANING[key]} for key in _CHECKS}
    filename = f"A path below the working directory, such as report.md; or turn_<id>/{FILES}/report.md"
    return {
        "type": "object",
        "properties": {
            "filename": {"type": "string", "description": filename},
            "description": {"type": "string", "description": "What the file holds."},
            "visibility": {"type": "string", "enum": list(get_args(Visibility))},
            **checks,
        },
        "required": ["filename", "description"],
        "additionalProperties": False,
    }


def _checks(where: _Where, raw: dict[str, Any], name: str) -> dict[str, Any]:
    """The content checks of an item, copied: a caller that changes its object later changes nothing."""
    kept: dict[str, Any] = {}
    for key, (accepts, wanted) in _CHECKS.items():
        if key not in raw:
            continue
        if not accepts(raw[key]):
            where.refuse("invalid_check", f"{key} must be {wanted}, got {shown(raw[key])}")
        try:
            kept[key] = json.loads(json.dumps(raw[key], allow_nan=False))
        except (ValueError, TypeError, RecursionError):  # NaN or a cycle, not JSON, too deep
            where.refuse("invalid_check", f"{key} must be {wanted}")
        if reason := impossible(name, key, kept[key]):
            where.refuse("impossible_check", reason)
    return kept


def _refuse_clashes(wheres: list[_Where], items: tuple[ContractItem, ...]) -> None:
    seen: dict[str, _Where] = {}
    for where, item in zip(wheres, items, strict=True):
        # One name in two normal forms is one file to people, and on some disks to the kernel.
        path = composed(item.path)
        if path in seen:
            where.refuse("duplicate_filename", f"promises the same file as contract item {seen[path].number}")
        seen[path] = where
    for path, where in seen.items():
        for parent in accumulate(path.split("/")[:-1], lambda left, right: f"{left}/{right}"):
            if parent in seen:
                seen[parent].refuse("is_a_directory", f"contract item {where.number} promises a file below it")


def _case_notices(wheres: list[_Where], items: tuple[ContractItem, ...]) -> list[str]:
    first: dict[str, _Where] = {}
    notices: list[str] = []
    for where, item in zip(wheres, items, strict=True):
        key = folded(item.path)
        if key in first:
            notices.append(
                f"{where} differs only in case from contract item {first[key].number}: "
                "on a disk that ignores case they are one file"
            )
        first.setdefault(key, where)
    return notices
