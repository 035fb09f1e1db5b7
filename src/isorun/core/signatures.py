"""A tool as one line of Python, made of the JSON schemas that describe it: `(*, item: str, count: int = 1) -> int`.

The line is what a program sees by `help` and `inspect.signature`, and a model in its prompt.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs milliseconds of a cold start
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_NAMES = {"integer": "int", "number": "float", "boolean": "bool", "null": "None", "string": "str", "object": "dict"}
#: Texts that a program may also pass as such an object. In a result they are texts.
_FORMATS = {"date": "date", "date-time": "datetime", "time": "time", "duration": "timedelta", "uuid": "UUID"}
_DEPTH = 8  # of types in types: a schema may refer to itself
_ABOUT_CHARS = 1_500  # of what is told of one tool
_ABOUT_IN_ALL = 16 << 10  # it is sent to every run


def signature(tool: Mapping[str, Any]) -> str:
    """The parameters and the result of *tool*, as `Runtime.tools` describes it, in Python's notation."""
    schema, required = tool["parameters"], tool["parameters"].get("required", ())
    shown = []
    for name, about in schema.get("properties", {}).items():
        default = ""
        if name not in required:
            default = f" = {about['default']!r}" if "default" in about else " = ..."
        shown.append(f"{name}: {_type(about, schema, in_result=False)}{default}")
    result = tool.get("result") or {}
    takes = f"*, {', '.join(shown)}" if shown else ""
    return f"({takes}) -> {_type(result, result, in_result=True)}"


def description(tool: Mapping[str, Any]) -> str:
    """What *tool* does, what its parameters are, and the fields of the objects that it takes and gives."""
    schema, result = tool["parameters"], tool.get("result") or {}
    properties = schema.get("properties", {}).items()
    about = [f"    {name}: {one['description']}" for name, one in properties if one.get("description")]
    parts = [tool["description"]]
    if about:
        parts.append("\n".join(("Args:", *about)))
    if tool.get("returns"):
        parts.append(f"Returns:\n    {tool['returns']}")
    named = {**objects(schema, in_result=False), **objects(result, in_result=True)}
    if named:
        shown = {name: ", ".join(f"{key!r}: {kind}" for key, kind in fields.items()) for name, fields in named.items()}
        parts.append("\n".join(f"{name}: {{{fields}}}" for name, fields in shown.items()))
    return "\n\n".join(parts)


def about(tools: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Signature and description by the tool's id, cut where it is long; later tools have none once much is told."""
    found: dict[str, list[str]] = {}
    room = _ABOUT_IN_ALL
    for tool_id, tool in tools.items():
        line, text = signature(tool), description(tool)[:_ABOUT_CHARS]
        room -= len(line) + len(text)
        if room >= 0 and len(line) <= _ABOUT_CHARS:
            found[tool_id] = [line, text]
    return found


def objects(schema: Mapping[str, Any], *, in_result: bool, marked: bool = False) -> dict[str, dict[str, str]]:
    """The types of the fields of each object that *schema* has a name for; *marked* tells which may be left out."""
    made = {}
    for name, one in schema.get("$defs", {}).items():
        if fields := one.get("properties"):
            types = {key: _type(about, schema, in_result=in_result) for key, about in fields.items()}
            left_out = types.keys() - set(one.get("required", ())) if marked else ()
            made[_word(name)] = {
                key: f"NotRequired[{kind}]" if key in left_out else kind for key, kind in types.items()
            }
    return made


def _type(schema: Any, whole: Mapping[str, Any], depth: int = 0, *, in_result: bool) -> str:  # noqa: ANN401 - JSON schema
    if depth > _DEPTH or not isinstance(schema, dict):
        return "Any"
    if ref := schema.get("$ref"):
        name = str(ref).rpartition("/")[2]
        meant = whole.get("$defs", {}).get(name, {})
        return _word(name) if "properties" in meant else _type(meant, whole, depth + 1, in_result=in_result)
    if "enum" in schema or "const" in schema:
        return f"Literal[{', '.join(map(repr, schema.get('enum', [schema.get('const')])))}]"
    if any_of := schema.get("anyOf") or schema.get("oneOf"):
        kinds = dict.fromkeys(_type(one, whole, depth + 1, in_result=in_result) for one in any_of)
        return " | ".join(kinds)
    inner = "".join(f"[{found}]" for found in _inner(schema, whole, depth, in_result=in_result))
    return _plain(schema, in_result=in_result) + inner


def _plain(schema: Mapping[str, Any], *, in_result: bool) -> str:
    kind, form = schema.get("type"), schema.get("format")
    if form == "binary":
        return "bytes"
    if kind == "string" and not in_result and form in _FORMATS:
        return _FORMATS[form]
    return "list" if kind == "array" else _NAMES.get(kind, "Any") if isinstance(kind, str) else "Any"


def _inner(schema: Mapping[str, Any], whole: Mapping[str, Any], depth: int, *, in_result: bool) -> Iterator[str]:
    """What stands in brackets behind `list` or `dict`."""
    if schema.get("type") == "array" and schema.get("items"):
        yield _type(schema["items"], whole, depth + 1, in_result=in_result)
    if schema.get("type") == "object" and isinstance(values := schema.get("additionalProperties"), dict):
        yield f"str, {_type(values, whole, depth + 1, in_result=in_result)}"


def _word(name: str) -> str:
    """*name* as a Python name: pydantic calls a generic model `Page[int]`."""
    word = "".join(letter if letter.isalnum() else "_" for letter in name)
    return word if word.isidentifier() else f"_{word}"
