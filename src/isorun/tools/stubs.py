"""A bundle's tools as `.pyi` files, for the editor and the type checker of people who write programs."""

import keyword
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from isorun.core import signatures

_HEAD = '"""The tools of {alias}, as programs find them. Made by `isorun tools stubs`."""'
_OPEN = '# mypy: disable-error-code="type-arg"'  # an object of which no more is known
_IMPORTED = {
    "datetime": ("date", "datetime", "time", "timedelta"),
    "typing": ("Any", "Literal", "NotRequired", "Protocol", "TypedDict"),
    "uuid": ("UUID",),
}


def stubs(tools: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The text of `<alias>.pyi` by alias, for *tools* as `Runtime.tools` describes them.

    Each tool is an object that is awaited, or called by its `sync`; objects in parameters and results are `TypedDict`s.
    """
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for tool_id, tool in tools.items():
        alias, _, name = tool_id.partition(".")
        found.setdefault(alias, {})[name] = tool
    return {alias: _module(alias, named) for alias, named in found.items()}


def _module(alias: str, tools: Mapping[str, Mapping[str, Any]]) -> str:
    objects: dict[str, dict[str, str]] = {}
    for tool in tools.values():
        for schema, in_result in ((tool["parameters"], False), (tool.get("result") or {}, True)):
            for name, fields in signatures.objects(schema, in_result=in_result, marked=True).items():
                _add(objects.setdefault(name, {}), fields)
    types = " ".join(
        [kind for fields in objects.values() for kind in fields.values()] + list(map(_line, tools.values()))
    )
    types += " Protocol TypedDict" if objects else " Protocol"
    parts = ["\n".join((_HEAD.format(alias=alias), _OPEN, "", *_imports(types), ""))]
    parts += (_typed_dict(name, fields) for name, fields in objects.items())
    parts += ("\n".join(_protocol(name, tool)) for name, tool in tools.items())
    return "\n\n".join(parts)


def _imports(types: str) -> Iterator[str]:
    """Only what is used: a tool may be called `time`."""
    for module, names in _IMPORTED.items():
        if used := [name for name in names if re.search(rf"\b{name}\b", types)]:
            yield f"from {module} import {', '.join(used)}"


def _add(fields: dict[str, str], more: Mapping[str, str]) -> None:
    """A parameter takes a date where a result has its text; one class stands for both."""
    for name, kind in more.items():
        known = fields.setdefault(name, kind)
        if kind not in known.split(" | "):
            fields[name] = f"{known} | {kind}"


def _typed_dict(name: str, fields: Mapping[str, str]) -> str:
    if all(key.isidentifier() and not keyword.iskeyword(key) for key in fields):
        return "\n".join((f"class {name}(TypedDict):", *(f"    {key}: {kind}" for key, kind in fields.items()))) + "\n"
    told = ", ".join(f"{key!r}: {kind}" for key, kind in fields.items())
    return f"{name} = TypedDict({name!r}, {{{told}}})\n"


def _line(tool: Mapping[str, Any]) -> str:
    line = signatures.signature(tool)
    return "(self" + (line[1:] if line.startswith("()") else f", {line[1:]}")


def _protocol(name: str, tool: Mapping[str, Any]) -> Iterator[str]:
    line, about = _line(tool), _quoted(signatures.description(tool))
    yield f"class _{name}(Protocol):"
    yield f"    async def __call__{line}:"
    yield textwrap.indent(f'"""{about}"""', " " * 8)
    yield ""
    yield f"    def sync{line}: ..."
    yield ""
    yield ""
    yield f"{name}: _{name}"
    yield ""


def _quoted(text: str) -> str:
    """*text* between three quotation marks; the author of a tool may have written any."""
    escaped = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return escaped + " " if escaped.endswith('"') else escaped
