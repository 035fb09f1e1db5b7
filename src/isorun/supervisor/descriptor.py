"""A bundle's `tools_descriptor.py`: which tool modules it has, under which alias, and where they run.

The file is Python and is executed, for it is the owner's own; what it says is then
checked like anybody's input. The names it defines:

`TOOLS`: a list of `{"ref": "tools/local_tools.py", "alias": "local_tools"}` (a file of
the bundle) or `{"module": "package.module", "alias": "x"}` (importable by the
interpreter that runs isorun).
`TOOL_RUNTIME`, optional: `{"<alias>.<tool>": "<mode>"}`; the modes are in `worker.modes`.
"""

import builtins
import hashlib
import json
import keyword
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from traceback import walk_tb
from typing import Any, NoReturn

from isorun.core.errors import InvalidRequest
from isorun.core.ids import BUILT_IN_ALIAS, BUILT_IN_MODULE
from isorun.core.text import is_visible, shown
from isorun.executor import names
from isorun.supervisor.worker.modes import MODES

DESCRIPTOR = "tools_descriptor.py"
GLOBALS = "RUNTIME_GLOBALS_JSON"  # the supervisor process reads its bundle from this variable, or from stdin
GLOBALS_BYTES = 32 << 10  # of it in an environment; the kernel takes 128 KiB for one variable at most
NO_NETWORK = "ISORUN_SUPERVISOR_NO_NETWORK"  # set for a supervisor process that must leave the network
SERVICES = "ISORUN_SUPERVISOR_ASKED"  # services to ask, as `serving.services` encodes them
#: An alias is a name in the program and a module that it can import.
_TAKEN = frozenset((*dir(builtins), *sys.stdlib_module_names, *names.base(""), *names.OF_RUN, "exec_tools"))
_KEYS = ("module", "ref", "alias")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One module of tools: exactly one of `module` and `ref` (a path below the bundle) is set."""

    alias: str
    module: str = ""
    ref: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A bundle: its folder (absolute), its tool modules in order, the mode of each tool that names one.

    `owners`: the folder as its owner sees it, where that is another path; texts are for the owner. `file` and
    `sha256`: the descriptor's own, by which it is known again in another place.
    """

    root: Path
    entries: tuple[Entry, ...]
    modes: Mapping[str, str]
    owners: Path | None = None
    file: str = DESCRIPTOR
    sha256: str = ""

    @property
    def name(self) -> str:
        """The bundle's name: that of its folder."""
        return self.root.name

    def for_owner(self, text: str) -> str:
        """*text* with the paths that the bundle's owner knows."""
        return text if self.owners is None else text.replace(str(self.root), str(self.owners))

    def to_json(self) -> str:
        """What `RUNTIME_GLOBALS_JSON` holds."""
        tools = [
            {"alias": e.alias, "module": e.module} if e.module else {"alias": e.alias, "ref": e.ref}
            for e in self.entries
        ]
        known = {"descriptor": self.file, "sha256": self.sha256}
        return json.dumps({"bundle": str(self.root), "tools": tools, "runtime": dict(self.modes), **known})


#: Of a supervisor that has no tools of its own: it hands calls back to the host.
NO_BUNDLE = Descriptor(root=Path("no bundle"), entries=(), modes={})
BUILT_IN = Entry(alias=BUILT_IN_ALIAS, module=BUILT_IN_MODULE)
#: Of a supervisor that has the built-in tools alone.
BUILT_INS = Descriptor(root=Path("built-in tools"), entries=(BUILT_IN,), modes={})


def with_built_ins(descriptor: Descriptor) -> Descriptor:
    """*descriptor* with the built-in tools, too, unless an entry of its own has their alias."""
    if any(entry.alias == BUILT_IN.alias for entry in descriptor.entries):
        return descriptor
    return replace(descriptor, entries=(*descriptor.entries, BUILT_IN))


def absolute(bundle: str | Path) -> Path:
    """Its path without `..`: a mount must mean the same folder. A link keeps its own name."""
    path = Path(bundle).absolute()
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def load_descriptor(bundle: str | Path) -> Descriptor:
    """The descriptor of the folder *bundle*, or of a descriptor file. Raises `InvalidRequest` naming file and line."""
    path = absolute(bundle)
    file = path if path.suffix == ".py" else path / DESCRIPTOR
    try:
        source = file.read_bytes()
    except OSError as error:
        _refuse(f"{file}: {error.strerror}; a bundle is a folder with a {DESCRIPTOR}")
    defined: dict[str, Any] = {"__file__": str(file), "__name__": "tools_descriptor"}
    try:
        exec(compile(source, str(file), "exec", dont_inherit=True), defined)  # noqa: S102 - the owner's own file
    except (Exception, SystemExit) as error:  # noqa: BLE001 - boundary: it may raise anything
        _refuse(f"{file}:{line_of(error, str(file))}: {type(error).__name__}: {error}")
    parsed = parse_descriptor(defined, file.parent, str(file))
    return replace(parsed, file=file.name, sha256=hashlib.sha256(source).hexdigest())


def from_json(text: str) -> Descriptor:
    """What `to_json` wrote. Raises `InvalidRequest`."""
    try:
        told = json.loads(text)
        defined = {"TOOLS": told["tools"], "TOOL_RUNTIME": told["runtime"]}
        owners, root = Path(told["bundle"]), Path(told.get("place", told["bundle"]))
        file, digest = str(told.get("descriptor", DESCRIPTOR)), str(told.get("sha256", ""))
    except (ValueError, KeyError, TypeError, RecursionError):
        _refuse("RUNTIME_GLOBALS_JSON is not an object with bundle, tools and runtime")
    for ours in (NO_BUNDLE, BUILT_INS):
        if owners == ours.root:
            return ours
    if root == owners:
        return parse_descriptor(defined, root, GLOBALS)
    _check_place(root, owners, file, digest)
    try:
        return replace(parse_descriptor(defined, root, str(owners)), owners=owners)
    except InvalidRequest as error:
        _refuse(str(error).replace(str(root), str(owners)))


def _check_place(root: Path, owners: Path, file: str, digest: str) -> None:
    """Refuse another folder than the bundle's: an engine mounts the folder of that path, or an empty one."""
    try:
        found = hashlib.sha256((root / file).read_bytes()).hexdigest()
    except PermissionError:
        _refuse(_unreadable(owners / file, owners))
    except OSError:
        found = ""
    if found != digest:
        _refuse(
            f"{owners}: the engine's host has another folder in its place, with {'another' if found else 'no'} "
            f"{file}; if isorun runs in a container, correct HOST_BUNDLES_PATH"
        )


def _unreadable(path: Path, root: Path) -> str:
    return f"uid {os.getuid()} cannot read {path}: let others read the bundle (chmod -R o+rX {root})"


def parse_descriptor(defined: Mapping[str, Any], root: Path, where: str) -> Descriptor:
    """Check what a descriptor defines; raises `InvalidRequest` naming the entry, and nothing else."""
    if "TOOLS" not in defined:
        _refuse(f"{where}: it defines no TOOLS, a list of entries with alias, and ref or module")
    tools = defined["TOOLS"]
    if not isinstance(tools, (list, tuple)) or not tools:
        _refuse(f"{where}: TOOLS must be a list of entries with alias, and ref or module")
    entries = tuple(_entry(raw, f"{where}: TOOLS[{number}]", root) for number, raw in enumerate(tools))
    seen: set[str] = set()
    for number, entry in enumerate(entries):
        if entry.alias in seen:
            _refuse(f"{where}: TOOLS[{number}]: the alias {entry.alias} is taken by an earlier entry")
        seen.add(entry.alias)
    return Descriptor(root=root, entries=entries, modes=_modes(defined.get("TOOL_RUNTIME", {}), where, seen))


def _entry(raw: object, where: str, root: Path) -> Entry:
    if not isinstance(raw, dict):
        _refuse(f"{where} must be an object with alias, and ref or module, got {shown(raw)}")
    for key in raw:
        if key not in _KEYS:
            _refuse(f"{where}: unknown key {shown(key)}; known are {', '.join(_KEYS)}")
    if "alias" not in raw:
        _refuse(f"{where}: alias is missing: the name under which programs find the tools")
    alias, module, ref = (raw.get(key, "") for key in ("alias", "module", "ref"))
    check_alias(alias, where)
    if bool(module) == bool(ref):
        _refuse(f"{where} ({alias}): give exactly one of module and ref")
    if module and not (isinstance(module, str) and all(part.isidentifier() for part in module.split("."))):
        _refuse(f"{where} ({alias}): module must be a dotted name, got {shown(module)}")
    if ref:
        _check_ref(ref, f"{where} ({alias})", root)
    return Entry(alias=alias, module=module, ref=ref)


def check_alias(alias: object, where: str) -> None:
    """Raise `InvalidRequest` (invalid_bundle) for what programs cannot have as a name for tools."""
    if not isinstance(alias, str) or not alias.isidentifier() or not alias.isascii() or alias.startswith("_"):
        _refuse(f"{where}: alias must be a name such as local_tools, got {shown(alias)}")
    if alias in _TAKEN or keyword.iskeyword(alias):
        _refuse(f"{where}: the alias {alias} is a name that every program has already; choose another")


def _check_ref(ref: object, where: str, root: Path) -> None:
    if not isinstance(ref, str) or not ref.endswith(".py") or "\0" in ref or not is_visible(ref):
        _refuse(f"{where}: ref must be the path of a .py file below the bundle, got {shown(ref)}")
    if Path(ref).is_absolute() or ".." in Path(ref).parts:
        _refuse(f"{where}: ref must stay below the bundle, got {shown(ref)}")
    try:
        with (root / ref).open("rb"):
            return
    except PermissionError:
        _refuse(f"{where}: {_unreadable(root / ref, root)}")
    except OSError:  # a folder, or a name that is too long
        _refuse(f"{where}: there is no file {root / ref}")


def _modes(raw: object, where: str, aliases: set[str]) -> dict[str, str]:
    if not isinstance(raw, dict):
        _refuse(f"{where}: TOOL_RUNTIME must be an object such as {{'local_tools.write_note': 'none'}}")
    for tool_id, mode in raw.items():
        if not isinstance(tool_id, str) or tool_id.partition(".")[0] not in aliases or not tool_id.partition(".")[2]:
            _refuse(f"{where}: TOOL_RUNTIME names {shown(tool_id)}, but no alias in TOOLS has such a tool")
        if mode not in MODES:
            _refuse(f"{where}: TOOL_RUNTIME[{tool_id!r}] is {shown(mode)}; use one of {', '.join(MODES)}")
    return dict(raw)


def line_of(error: BaseException, file: str) -> int:
    """The line of *file* that *error* came from; its last one, if several are on the way."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno or 1
    line = 1
    for frame, number in walk_tb(error.__traceback__):
        if frame.f_code.co_filename == file:
            line = number
    return line


def _refuse(text: str) -> NoReturn:
    raise InvalidRequest(text, code="invalid_bundle")
