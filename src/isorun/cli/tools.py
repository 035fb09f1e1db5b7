"""`isorun tools`: those of a bundle, or the built-in ones; one of them; a call of it, as a program would make it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from isorun.cli.parsing import JSON, option, seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isorun.settings import Settings
    from isorun.tools.calling import Called

_BUNDLE = option("--bundle DIR", "The bundle's folder (default: ISORUN_BUNDLE, else the built-in tools).", type=Path)
_ID = option("tool_id ID", "The tool, such as local_tools.write_note.")
OPTIONS = {
    "ls": (_BUNDLE, JSON),
    "describe": (_ID, _BUNDLE, JSON),
    "stubs": (_BUNDLE, option("--out DIR", "Where the files go (default: they are printed).", type=Path)),
    "call": (
        _ID,
        _BUNDLE,
        option("--json OBJECT", "The arguments, a JSON object (default: {})."),
        option("--out DIR", "The tool's output directory (default: a new temporary folder).", type=Path),
        option("--timeout TIME", "Seconds, or as 500ms, 2m.", type=seconds),
    ),
}


def ls(bundle: Path | None = None, json: bool = False) -> int:
    """The tools, one line each."""
    from isorun.cli.show import print_json, print_table

    tools = _loaded(bundle)
    if json:
        print_json(tools)
        return 0
    rows = [(tool_id, tool["description"].splitlines()[0], tool["where"]) for tool_id, tool in tools.items()]
    print_table(("tool", "what it does", "where"), rows, whole=("tool",))
    return 0


def describe(tool_id: str, bundle: Path | None = None, json: bool = False) -> int:
    """One tool: how it is called, what it does, its parameters, its limits."""
    from isorun.cli.show import print_json, print_table, say
    from isorun.core.signatures import signature

    tool = _one(_loaded(bundle), tool_id)
    if json:
        print_json(tool)
        return 0
    say(f"{tool_id}  ({tool['where']})")
    say(f"await {tool_id}{signature(tool)}")
    say(tool["description"])
    required = tool["parameters"].get("required", ())
    rows = [
        (name, _type(schema), "yes" if name in required else "no", schema.get("description", ""))
        for name, schema in tool["parameters"].get("properties", {}).items()
    ]
    if rows:
        print_table(("parameter", "type", "required", "what it is"), rows)
    for name, unit in (("timeout_s", " s at most"), ("max_calls", " calls a run")):
        if tool[name] is not None:
            say(f"{tool[name]:g}{unit}")
    if tool["returns"]:
        say(f"returns: {tool['returns']}")
    return 0


def stubs(bundle: Path | None = None, out: Path | None = None) -> int:
    """The tools as `.pyi` files, one for each alias, for an editor or a type checker."""
    from isorun.cli.show import say
    from isorun.core.errors import InvalidRequest
    from isorun.tools.stubs import stubs as made

    for alias, text in made(_loaded(bundle)).items():
        if out is None:
            say(f"# {alias}.pyi")
            say(text)
            continue
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / f"{alias}.pyi").write_text(text, encoding="utf-8")
        except OSError as error:
            raise InvalidRequest(f"--out {out} cannot be used: {error.strerror}", code="out_unusable") from None
        say(f"wrote {out / alias}.pyi")
    return 0


def call(
    tool_id: str, bundle: Path | None = None, json: str = "{}", out: Path | None = None, timeout: float | None = None
) -> int:
    """Call a tool as a program would, and print its result as JSON; 1 if it gave none."""
    import sys

    from isorun.cli.show import print_json
    from isorun.core.records import summary
    from isorun.core.text import printable

    done, written = _call(tool_id, bundle, _object(json), out, timeout)
    for line in (*done.lines, *(f"wrote {path}" for path in written)):
        print(printable(line), file=sys.stderr)  # noqa: T201 - for the user
    if done.error is not None:
        told = f"{type(done.error).__name__}: {printable(str(done.error))}"
        print(f"isorun: {told}", file=sys.stderr)  # noqa: T201 - for the user
        return 1
    print_json(done.result, summary)
    return 0


def _call(
    tool_id: str, bundle: Path | None, params: dict[str, Any], out: Path | None, timeout_s: float | None
) -> tuple[Called, list[Path]]:
    import asyncio
    import shutil
    import tempfile

    from isorun.tools.calling import called

    settings, made = _settings(), out is None
    out = Path(tempfile.mkdtemp(prefix="isorun-tool-")) if out is None else out
    before = _stamps(out)
    written: list[Path] = []
    try:
        done = asyncio.run(called(tool_id, params, settings, out=out, bundle=bundle, timeout_s=timeout_s))
        written += sorted(path for path, stamp in _stamps(out).items() if before.get(path) != stamp)
        return done, written
    finally:
        if made and not written:
            shutil.rmtree(out)


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """When each file of *folder* was changed, and how long it is: enough to tell which the tool wrote."""
    files = {path: path.lstat() for path in folder.rglob("*") if path.is_file()}
    return {path: (info.st_mtime_ns, info.st_size) for path, info in files.items()}


def _object(text: str) -> dict[str, Any]:
    import json as codec

    from isorun.core.errors import InvalidRequest

    try:
        value = codec.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"--json is not JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"--json must be an object of arguments, got {type(value).__name__}", code="invalid_json")
    return value


def _settings() -> Settings:
    from isorun.settings import Settings

    settings = Settings.load()
    settings.check_embedded()
    return settings


def _loaded(bundle: Path | None) -> Mapping[str, Any]:
    """The tools of the bundle, or of the settings' bundle; without either the built-in ones."""
    import asyncio

    from isorun.runtime.services import built_in_tools

    settings = _settings()
    root = bundle or settings.bundle
    return built_in_tools() if root is None else asyncio.run(load(settings, root))


async def load(settings: Settings, root: Path, backend: str = "namespace") -> dict[str, Any]:
    """The tools of the bundle *root*, by a process that would answer for them where *backend* has tools run.

    Raises `InvalidRequest`, `Unavailable`, `SetupFailed`.
    """
    from contextlib import AsyncExitStack
    from dataclasses import replace

    from isorun.runtime.choose import Chosen, named_backend
    from isorun.runtime.services import open_supervisor

    chosen = named_backend(backend, settings)
    assert chosen is not None
    async with AsyncExitStack() as stack:
        supervisor, _ = await open_supervisor(replace(settings, bundle=root), stack, Chosen(chosen))
        return dict(supervisor.tools) if supervisor is not None else {}


def _one(tools: Any, tool_id: str) -> Any:  # noqa: ANN401 - as the supervisor describes it
    from isorun.core.errors import InvalidRequest

    if tool_id not in tools:
        raise InvalidRequest(f"the bundle has no tool {tool_id}; it has {', '.join(tools)}", code="unknown_tool")
    return tools[tool_id]


def _type(schema: Any) -> str:  # noqa: ANN401 - JSON schema
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(map(repr, schema["enum"]))
    inner = f" of {_type(schema['items'])}" if schema.get("items") else ""
    return f"{schema.get('format') or schema.get('type', 'any')}{inner}"
