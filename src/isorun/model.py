"""What is handed to a model: the definition of the tool that runs Python, and a text for its prompt.

Both are made of what a run takes: the options of `RunRequest`, the keys of a contract's items, the
limits, and the schemas of a bundle's tools. `model_request` reads what the model answers with,
which may be hostile: it takes the options that were offered and no others. It runs nothing, and
imports no client of any model.
"""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from isorun.core.contract.items import item_schema
from isorun.core.errors import InvalidRequest
from isorun.core.limits import GIB, KIB, MIB, Limits
from isorun.core.request import LOOPBACK, NO_NETWORK, RunRequest
from isorun.core.signatures import description, signature
from isorun.core.text import shown

Style = Literal["openai", "anthropic", "mcp", "langchain"]
Tools = Mapping[str, Mapping[str, Any]]  # by id, as `Runtime.tools` has them

NAME = "run_python"  # letters, digits and underscores: no model's API takes a dot
_OFFERED = ("code", "contract", "timeout_s", "prog_name")  # of the options of a run: the others are the caller's own
_ABOUT = {
    "code": "The whole program, Python source text. Top-level await is allowed.",
    "contract": "The files that the program promises. Each is checked afterwards; the answer says what is wrong.",
    "timeout_s": "Wall seconds from the program's first instruction.",
    "prog_name": "A name that is shown with the run, at most 64 characters.",
}
_TYPES = {bytes: "string", str: "string", float: "number"}
_NETWORKS = {
    NO_NETWORK: "A program has no network, so no server on localhost either, and",
    LOOPBACK: "A program reaches no network but servers of its own, which it may start on 127.0.0.1, and",
}
_SHOWN_PACKAGES = 60
#: Those that models ask for first, by the names under which they are installed.
_WANTED = (
    *("numpy", "pandas", "scipy", "matplotlib", "scikit-learn", "polars", "pyarrow", "duckdb", "sympy", "seaborn"),
    *("plotly", "statsmodels", "pillow", "openpyxl", "python-docx", "python-pptx", "pypdf", "reportlab", "networkx"),
)


def parameters(*, contract: bool | None = None) -> dict[str, Any]:
    """The JSON schema of the arguments. *contract*: True for a contract that must be there, False for none."""
    hints = typing.get_type_hints(RunRequest)
    properties: dict[str, Any] = {name: _property(name, hints[name]) for name in _OFFERED}
    required = ["code"]
    if contract is False:
        del properties["contract"]
    elif contract:
        required.append("contract")
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _property(name: str, hint: Any) -> dict[str, Any]:  # noqa: ANN401 - a type
    if name == "contract":
        return {"type": "array", "items": item_schema(), "minItems": 1, "description": _ABOUT[name]}
    kind = next(_TYPES[one] for one in (hint, *typing.get_args(hint)) if one in _TYPES)
    more = {"exclusiveMinimum": 0} if name == "timeout_s" else {}
    return {"type": kind, **more, "description": _ABOUT[name]}


def model_tool(style: Style = "openai", *, tools: Tools | None = None) -> dict[str, Any]:
    """The definition of the tool `run_python`, as the API of *style* takes it.

    `openai`: an entry of `tools` of chat completions. `anthropic`: an entry of `tools` of messages.
    `mcp`: an entry of the answer to `tools/list`. `langchain`: a dict for `bind_tools`. *tools*: those that programs
    may call, `Runtime.tools` or a part of it; the description names them. `model_request` reads the
    arguments that the model gives. Raises `InvalidRequest` for another style.
    """
    text, schema = _description(tools or {}), parameters()
    match style:
        case "openai":
            return {"type": "function", "function": {"name": NAME, "description": text, "parameters": schema}}
        case "anthropic":
            return {"name": NAME, "description": text, "input_schema": schema}
        case "mcp":
            return {"name": NAME, "description": text, "inputSchema": schema}
        case "langchain":
            return {"title": NAME, "description": text, **schema}
    known = ", ".join(typing.get_args(Style))
    raise InvalidRequest(f"style must be one of {known}, got {style!r}", code="unknown_style")


def model_request(arguments: str | Mapping[str, Any]) -> RunRequest:
    """The run that a model asked for with *arguments* of `run_python`, a JSON text or its object.

    Only what the definition offers is taken: `inputs` would read files of the host. Raises
    `InvalidRequest`, whose text tells the model what to mend.
    """
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"the arguments are not JSON: {error}", code="invalid_json") from None
    if isinstance(arguments, Mapping):
        for name in arguments:
            if name not in _OFFERED:
                text = f"{NAME} has no argument {shown(name)}; it has {', '.join(_OFFERED)}"
                raise InvalidRequest(text, code="unknown_option")
        arguments = {name: value for name, value in arguments.items() if value is not None}
    return RunRequest.from_json(arguments)


def legal_name(tool_id: str) -> str:
    """*tool_id* as a function's name in the API of any model: letters, digits and underscores, at most 64."""
    return re.sub(r"[^A-Za-z0-9_]", "_", tool_id)[:64]


def _description(tools: Tools) -> str:
    lines = [
        "Run a Python program in a sealed sandbox without network, and get what it printed, its error and its files.",
        "Each program is a new process: variables of an earlier one are gone. Print what you want to see.",
        "Files that it writes to its working directory are handed out. With a contract, promised files are checked.",
    ]
    if tools:
        lines.append("Inside the program these can be awaited, or called with .sync(...) where await is not possible:")
        lines += (f"- {tool_id}{signature(tool)}" for tool_id, tool in tools.items())
    return "\n".join(lines)


def prompt_text(limits: Limits, python: str, packages: Sequence[str], tools: Tools, network: str = NO_NETWORK) -> str:
    """What a model has to know to write programs that work at the first go. *python*: as it is to be named."""
    parts = [
        f"You can run Python programs with the tool {NAME}. Each program is a new process in a sealed sandbox.",
        f"- Python: {python}. {_packages(packages)}",
        f"- {_NETWORKS[network]} pip cannot install anything.",
        "- The working directory is /workspace/out (OUTPUT_DIR): files written there are handed out.",
        "  Files that were given with the run are in it, too. Temporary files go to /tmp.",
        "  Other paths cannot be written.",
        "- Nothing of an earlier program is left: no variables, and no files unless you are told so.",
        "- Print what you want to see.",
        f"- Limits: {_limits(limits)}.",
    ]
    if tools:
        parts.append("- These functions run outside the sandbox. Call them in the program, with arguments by name:")
        parts.append("  `await alias.name(...)`, or `alias.name.sync(...)` in a lambda or a plain function.")
        parts += (_told(tool_id, tool) for tool_id, tool in tools.items())
    else:
        parts.append("- There are no other functions to call from a program.")
    return "\n".join(parts) + "\n"


def _told(tool_id: str, tool: Mapping[str, Any]) -> str:
    text = inspect.cleandoc(description(tool)).replace("\n", "\n      ")
    return f"\n  {tool_id}{signature(tool)}\n      {text}"


def _packages(packages: Sequence[str]) -> str:
    if not packages:
        return "Import a package to see whether it is there."
    rest = f", and {len(packages) - _SHOWN_PACKAGES} more" if len(packages) > _SHOWN_PACKAGES else ""
    return f"Packages beside the standard library: {', '.join(packages[:_SHOWN_PACKAGES])}{rest}."


def _limits(limits: Limits) -> str:
    return (
        f"{limits.wall_s:g} s, {_size(limits.memory_bytes)} of memory, {limits.cpus:g} processor(s), "
        f"{limits.processes} processes and threads, {_size(limits.workspace_bytes)} of files, "
        f"{_size(limits.file_bytes)} in one file, {_size(limits.tmp_bytes)} in /tmp, "
        f"{_size(limits.result_bytes)} of printed text, {limits.tool_calls} calls of functions"
    )


def _size(count: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if count % unit == 0:
            return f"{count // unit} {name}"
    return f"{count} bytes"


def packages_in(folders: Sequence[str]) -> list[str]:
    """Name and version of each package installed in *folders*, those that models ask for first."""
    from importlib import metadata  # not at the top: only a prompt needs it

    found: dict[str, str] = {}
    for one in metadata.distributions(path=list(folders)):
        name = one.metadata["Name"]
        if name:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), f"{name} {one.version}")
    first = [name for name in _WANTED if name in found]
    return [found[name] for name in (*first, *sorted(found.keys() - set(first)))]
