"""What an operator may set, and the only reader of the process environment.

A setting is a field of `Settings` with the names it is read from, ours first.
The process environment beats the files, for every name; within one source
`ISORUN_X` beats the older name for X, and one log line says so when they differ.
A blank value counts as not set, because compose passes unset names on as blank.
Secrets are masked in rows, repr and errors. This module must not read from an
executor, nor hand a credential to one; of ours it imports core and env_file. Why it is
not pydantic-settings: docs/decisions/0002-settings-reader.md; what a file that nobody
named may say: docs/decisions/0008-a-folder-cannot-act.md. The module is long because it holds
every setting with its names, its default and its check.
"""

import functools
import math
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from isorun import env_file as env_files
from isorun.core import quantity
from isorun.core.errors import InvalidRequest
from isorun.core.guard.log import log_of
from isorun.core.limits import Limits, takes_unit
from isorun.core.text import one_line, shown

ENV_FILE = ".env.backend"
ENVIRONMENT = "environment"
CONTAINER_ROOT = Path("/exec-workspace")
KB_STORAGE = Path("/kdcube-storage")  # in a container; for the supervisor alone

#: What any program on this system needs to find its files; nothing in it is a credential.
BASE_NAMES = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    )
)

_log = log_of("isorun.settings")


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One line of `isorun config show`. `source` is "default", "environment" or the file's name."""

    name: str
    value: str | None  # masked
    source: str
    name_used: str


@dataclass(frozen=True, slots=True)
class _Found:
    raw: str = field(repr=False)  # may be a secret
    name: str
    source: str


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a text becomes a value; `parse` raises ValueError for what is not `wants`. A number has a text of its own."""

    wants: str
    parse: Callable[[str], object]
    is_number: bool = False


@dataclass(frozen=True, slots=True)
class _Harmless:
    """Which values of a setting can run no code, choose no path or image, and remove nothing."""

    says: str
    holds: Callable[[Any], bool]


class _From:
    """How a field is read; *names* are older ones, `ISORUN_<FIELD>` comes before them.

    *harmless*: the values that a file may give it which you neither named nor trusted, beside the default.
    """

    def __init__(
        self,
        kind: _Kind,
        *names: str,
        mask: Callable[[str], str] | None = None,
        harmless: _Harmless | None = None,
    ) -> None:
        self.kind = kind
        self.names = names
        self.mask = mask or str
        self.harmless = harmless or _NO_OTHER


_NO_OTHER = _Harmless("no", lambda value: False)
_ANY = _Harmless("yes", lambda value: True)
# No network; every other name is a network that somebody made.
_NO_NETWORK = _Harmless("`none`", lambda value: value == "none")
# It becomes part of a host's name, which a slash or an at sign would change to another host's.
_REGION = _Harmless("letters, digits, `-`", lambda text: re.fullmatch(r"[a-z0-9-]{1,40}", text) is not None)

_FORBIDS = _Harmless("0", lambda value: value is False)


def _at_most(most: float) -> _Harmless:
    return _Harmless("lower", lambda value: value <= most)


def _whole(least: int, most: int) -> _Kind:
    def parse(text: str) -> int:
        # isdigit alone takes other scripts' digits; a sign or an underscore is a slip worth showing.
        if not (text.isascii() and text.isdigit() and len(text) <= 20 and least <= int(text) <= most):
            raise ValueError(text)
        return int(text)

    return _Kind(f"a whole number from {least} to {most}", parse, is_number=True)


def _positive(text: str) -> float:
    return _finite(float(text))


def _size(text: str) -> int:
    value = quantity.bytes_of(text)
    if not 1 <= value <= _MOST:
        raise ValueError(text)
    return value


def _seconds(text: str) -> float:
    return _finite(quantity.seconds_of(text))


def _hours(text: str) -> float:
    return _finite(quantity.seconds_of(text, alone=3600) / 3600)


def _finite(value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(value)
    return value


def _switch(text: str) -> bool:
    word = text.lower()
    if word not in (*_ON, *_OFF):
        raise ValueError(text)
    return word in _ON


def _choice(*words: str) -> _Kind:
    # index() raises the ValueError.
    return _Kind(f"one of {', '.join(words)}", lambda text: words[words.index(text)])


def _path(text: str) -> Path:
    if "\0" in text:
        raise ValueError(text)
    return Path(text).expanduser().absolute()


def _program(text: str) -> Path:
    # A name alone is looked for on PATH, as a shell does.
    return _path(text) if "/" in text or "\0" in text else Path(text)


def _absolute(text: str) -> Path:
    # The daemon resolves it, perhaps on another system: what is relative here means nothing there.
    if "\0" in text or not re.match(r"/|[A-Za-z]:[/\\]", text):
        raise ValueError(text)
    return Path(text)


def _group(text: str) -> Path:
    # A folder of one hierarchy, or a group's name that is valid beneath all of them.
    if "\0" in text or ".." in Path(text).parts or Path(text) == Path():
        raise ValueError(text)
    return Path(text)


def _modules(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not all(word.isidentifier() for name in names for word in name.split(".")):
        raise ValueError(text)
    return names


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    # A name of the loader's or the interpreter's would change what the supervisor runs.
    usable = all(re.fullmatch(r"(?!LD_|PYTHON|ISORUN_|RUNTIME_)[A-Za-z_][A-Za-z0-9_]*", name) for name in names)
    if not usable or not BASE_NAMES.isdisjoint(names):
        raise ValueError(text)
    return names


def _pairs(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    names = [part.partition("=")[0] for part in parts]
    if not all(re.fullmatch(r"[A-Za-z]\w*\.\w+=[a-z_]+", part) for part in parts) or len(set(names)) < len(names):
        raise ValueError(text)
    return parts


def _url(text: str) -> str:
    if not re.match(r"[a-z][a-z0-9+]*://.", text):
        raise ValueError(text)
    return text


def _hide(_: str) -> str:
    return "***"


def _hide_password(url: str) -> str:
    """*url* without its password; greedy, because a password may hold '@', ':' and '/' unescaped."""
    if "://" not in url:
        return "***"  # not a URL: nobody knows where its password is
    url = re.sub(r"(?i)((?:password|passwd|pwd)=)[^&\s]+", r"\1***", url)
    return re.sub(r"(?s)(://[^:]*:).*@", r"\1***@", url)


_ON = ("1", "true", "yes", "on")
_OFF = ("0", "false", "no", "off")
_TEXT = _Kind("a text", str)
_MOST = 2**53
_COUNT = _whole(1, _MOST)
_ID = _whole(1, 2**32 - 2)  # never root: that is what the executor must not be; the last id means "none"
_PORT = _whole(1, 65535)
_NUMBER = _Kind("a finite number above 0", _positive)
_SIZE = _Kind(f"{quantity.SIZE}, above 0", _size)
_TIME = _Kind(f"{quantity.TIME}, above 0", _seconds)
_HOURS = _Kind("a number of hours above 0, or a time such as 90m, 36h or 7d", _hours, is_number=True)
_BOOL = _Kind("1 or 0", _switch)
_PATH = _Kind("a path", _path)
_PROGRAM = _Kind("a program, or the folder of a virtual environment", _program)
_ABSOLUTE = _Kind("an absolute path", _absolute)
_GROUP = _Kind("a control group: an absolute path, or a name beneath every hierarchy", _group)
_NAMES = _Kind("names of environment variables with commas between them", _names)
_PAIRS = _Kind("pairs such as files.convert=local with commas between them, each tool once", _pairs)
_LIST = _Kind("module names with commas between them", _modules)
_URL = _Kind("a URL, scheme://...", _url)

Backend = Literal["auto", "namespace", "docker"]
BACKENDS: tuple[str, ...] = get_args(Backend)
LogMode = Literal["include_logging", "print_only"]
_LOG_MODE = _choice("include_logging", "print_only")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """Every setting, with its default. Made by `Settings.load`; changed by `dataclasses.replace`."""

    env_file: Annotated[Path | None, _From(_PATH)] = None  # of the process environment alone
    # Both hold the whole policy, so the choice between them is harmless.
    backend: Annotated[Backend, _From(_choice(*BACKENDS), harmless=_ANY)] = "auto"
    program_python: Annotated[Path | None, _From(_PROGRAM)] = None
    preload: Annotated[tuple[str, ...], _From(_LIST)] = ()
    pool_size: Annotated[int, _From(_whole(0, 1024), harmless=_at_most(4))] = 4  # waiting slots
    max_runs: Annotated[int | None, _From(_COUNT)] = None  # programs at once; the others wait
    zygote_runs: Annotated[int, _From(_COUNT, harmless=_at_most(1000))] = 1000  # before a zygote is replaced
    workspace_root: Annotated[Path | None, _From(_PATH, "EXEC_WORKSPACE_ROOT")] = None
    bundle: Annotated[Path | None, _From(_PATH)] = None  # whose tools programs may call
    tool_env: Annotated[tuple[str, ...], _From(_NAMES)] = ()  # variables that a bundle's tools may see
    builtin_tools: Annotated[bool, _From(_BOOL)] = False  # beside a bundle's, and for runs that name no tools
    tool_runtime: Annotated[tuple[str, ...], _From(_PAIRS)] = ()  # where tools run: id=mode
    retention_hours: Annotated[float, _From(_HOURS)] = 168.0
    session_retention_hours: Annotated[float, _From(_HOURS)] = 720.0  # after the last use
    cgroup_parent: Annotated[Path | None, _From(_GROUP)] = None
    allow_loopback: Annotated[bool, _From(_BOOL, harmless=_FORBIDS)] = True  # for runs that ask for it
    advertise_side_effect_tool: Annotated[bool, _From(_BOOL, harmless=_ANY)] = False
    require: Annotated[str | None, _From(_TEXT)] = None  # for the tests: skips that become failures

    executor_uid: Annotated[int, _From(_ID, "EXECUTOR_UID")] = 1001
    executor_gid: Annotated[int, _From(_ID, "EXECUTOR_GID")] = 1000
    user_log_mode: Annotated[LogMode, _From(_LOG_MODE, "EXEC_USER_LOG_MODE", harmless=_ANY)] = "include_logging"
    traceback_remap: Annotated[bool, _From(_BOOL, "EXEC_TRACEBACK_REMAP", harmless=_ANY)] = True
    keep_value: Annotated[bool, _From(_BOOL, harmless=_ANY)] = True  # of a program's last expression
    save_figures: Annotated[bool, _From(_BOOL, harmless=_ANY)] = True  # that are shown or left open

    image: Annotated[str, _From(_TEXT, "PY_CODE_EXEC_IMAGE")] = "py-code-exec:latest"
    docker_runtime: Annotated[str | None, _From(_TEXT)] = None  # of executor containers; None: the daemon's own
    network_mode: Annotated[str, _From(_TEXT, "PY_CODE_EXEC_NETWORK_MODE", harmless=_NO_NETWORK)] = "host"
    host_workspace_path: Annotated[Path | None, _From(_ABSOLUTE, "HOST_EXEC_WORKSPACE_PATH")] = None
    host_bundles_path: Annotated[Path | None, _From(_ABSOLUTE, "HOST_BUNDLES_PATH")] = None
    host_kb_storage_path: Annotated[Path | None, _From(_ABSOLUTE, "HOST_KB_STORAGE_PATH")] = None
    bundles_root: Annotated[Path, _From(_ABSOLUTE, "AGENTIC_BUNDLES_ROOT")] = Path("/bundles")
    site_bundles_root: Annotated[Path | None, _From(_ABSOLUTE, "SITE_AGENTIC_BUNDLES_ROOT")] = None
    user_workspace_root: Annotated[Path | None, _From(_PATH, "ISO_RUNTIME_USER_WORKSPACE_ROOT")] = None
    sandbox_root: Annotated[Path | None, _From(_PATH, "ISO_RUNTIME_SANDBOX_ROOT")] = None
    data_home: Annotated[Path | None, _From(_PATH, "XDG_DATA_HOME")] = None

    log_dir: Annotated[Path | None, _From(_PATH, "LOG_DIR")] = None
    redis_url: Annotated[str | None, _From(_URL, "REDIS_URL", mask=_hide_password)] = None
    redis_host: Annotated[str | None, _From(_TEXT, "REDIS_HOST")] = None
    redis_port: Annotated[int, _From(_PORT, "REDIS_PORT")] = 6379
    redis_password: Annotated[str | None, _From(_TEXT, "REDIS_PASSWORD", mask=_hide)] = None
    database_url: Annotated[str | None, _From(_URL, "DATABASE_URL", mask=_hide_password)] = None
    postgres_host: Annotated[str | None, _From(_TEXT, "POSTGRES_HOST")] = None
    postgres_port: Annotated[int, _From(_PORT, "POSTGRES_PORT")] = 5432
    postgres_user: Annotated[str | None, _From(_TEXT, "POSTGRES_USER")] = None
    postgres_password: Annotated[str | None, _From(_TEXT, "POSTGRES_PASSWORD", mask=_hide)] = None
    postgres_db: Annotated[str | None, _From(_TEXT, "POSTGRES_DB")] = None
    service_data: Annotated[Path | None, _From(_PATH)] = None  # of the chat service: its database and its uploads
    user_runs_at_once: Annotated[int, _From(_COUNT, harmless=_at_most(8))] = 8  # of one user of the service
    user_runs_per_day: Annotated[int, _From(_COUNT, harmless=_at_most(10_000))] = 10_000
    user_bytes: Annotated[int, _From(_SIZE, harmless=_at_most(2 << 30))] = 2 << 30  # of runs' files and uploads
    model_url: Annotated[str | None, _From(_URL, mask=_hide_password)] = None  # of an OpenAI-compatible endpoint
    model: Annotated[str | None, _From(_TEXT)] = None
    model_key: Annotated[str | None, _From(_TEXT, mask=_hide)] = None

    # For the supervisor only. The names are other people's and have no twin of ours. A stranger's key would
    # make the tools work for the stranger's account, so keys are not harmless.
    aws_region: Annotated[str | None, _From(_TEXT, harmless=_REGION)] = None
    aws_default_region: Annotated[str | None, _From(_TEXT, harmless=_REGION)] = None
    font_path: Annotated[str | None, _From(_TEXT)] = None  # of documents: folders with colons between them
    search_providers: Annotated[tuple[str, ...], _From(_LIST)] = ()  # of the built-in search, in their order
    search_fixture: Annotated[Path | None, _From(_ABSOLUTE)] = None
    searxng_url: Annotated[str | None, _From(_URL, mask=_hide_password)] = None
    brave_url: Annotated[str | None, _From(_URL, mask=_hide_password)] = None
    tavily_url: Annotated[str | None, _From(_URL, mask=_hide_password)] = None
    web_proxy: Annotated[str | None, _From(_URL, mask=_hide_password)] = None
    brave_api_key: Annotated[str | None, _From(_TEXT, mask=_hide)] = None
    tavily_api_key: Annotated[str | None, _From(_TEXT, mask=_hide)] = None
    aws_access_key_id: Annotated[str | None, _From(_TEXT, mask=_hide)] = None
    aws_secret_access_key: Annotated[str | None, _From(_TEXT, mask=_hide)] = None
    aws_session_token: Annotated[str | None, _From(_TEXT, mask=_hide)] = None
    aws_profile: Annotated[str | None, _From(_TEXT)] = None
    aws_ec2_metadata_disabled: Annotated[str | None, _From(_TEXT)] = None
    aws_sdk_load_config: Annotated[str | None, _From(_TEXT)] = None
    no_proxy: Annotated[str | None, _From(_TEXT)] = None

    ceilings: Limits = field(default_factory=Limits)
    tool_environment: Mapping[str, str] = field(default_factory=dict, hash=False)  # the values of tool_env; secrets
    warnings: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()  # names in a ./.env.backend that nobody trusted
    found: Mapping[str, _Found] = field(default_factory=dict, hash=False, compare=False)

    def __post_init__(self) -> None:
        """Raises `InvalidRequest` for a number that `load` would refuse too: it may have been put here by a caller."""
        for name, kind in _NUMBERS.items():
            value = getattr(self, name)
            try:
                if value is not None or name not in _OPTIONAL:
                    if isinstance(value, bool) or not isinstance(value, int | float):
                        raise ValueError
                    kind.parse(str(value))
            except ValueError:
                text = f"{name} must be {kind.wants}, got {shown(value)}"
                raise InvalidRequest(text, code="invalid_setting") from None

    @classmethod
    def load(cls, env_file: str | Path | None = None, environ: Mapping[str, str] | None = None) -> "Settings":
        """The settings of this process: defaults, files, environment, the last wins.

        The files are `./.env.backend`, the file that ISORUN_ENV_FILE names, and *env_file*, the last wins. The
        first is read whole if its user has trusted it (`isorun config trust`); else what is not harmless in
        it is left out, and one logged line names that. Raises `InvalidRequest` naming the variable, its
        value (masked) and what it must be.
        """
        sources, untrusted = _sources(env_file, os.environ if environ is None else environ)
        found = {key: hit for key, rule in _RULES.items() if (hit := _find(rule, sources))}
        values: dict[str, Any] = {key: _parse(_RULES[key], hit) for key, hit in found.items()}
        limits = {name: values.pop(key) for key, name in _LIMITS.items() if key in values}
        try:
            ceilings = Limits(**limits)
        except InvalidRequest as exc:  # together they make no sense, though each does alone
            names = ", ".join(found[f"max_{name}"].name for name in limits)
            raise InvalidRequest(f"{exc} (set by {names})", code="invalid_setting") from None
        allowed = {name: text for name in values.get("tool_env", ()) if (text := _first(name, sources)) is not None}
        unknown = tuple(_unknown_names(sources))
        ignored: tuple[str, ...] = ()
        if untrusted is not None:
            asked = {*_RULE_OF, *values.get("tool_env", ())}
            ignored = _tell_ignored(untrusted, asked - sources[ENV_FILE].keys())
        return cls(
            **values, ceilings=ceilings, tool_environment=allowed, warnings=unknown, ignored=ignored, found=found
        )

    def limits(self) -> Limits:
        """The ceilings of every run, `ISORUN_MAX_*`."""
        return self.ceilings

    def rows(self) -> list[SettingRow]:
        """Every setting with its value (secrets masked), where it came from, and under which name."""
        return [self._row(key, rule) for key, rule in _RULES.items()]

    def _row(self, key: str, rule: _From) -> SettingRow:
        value = getattr(self.ceilings, _LIMITS[key]) if key in _LIMITS else getattr(self, key)
        text = None if value is None else rule.mask(_shown(value))
        hit = self.found.get(key, _Found("", rule.names[0], "default"))
        return SettingRow(rule.names[0], text, hit.source, hit.name)

    def __repr__(self) -> str:
        given = (f"{row.name}={row.value!r}" for row in self.rows() if row.source != "default")
        return f"Settings({', '.join(given)})"

    def tool_modes(self) -> dict[str, str]:
        """Where the operator has tools run, by their ids. Which ids and modes there are is the bundle's to say."""
        return {tool_id: mode for tool_id, _, mode in (pair.partition("=") for pair in self.tool_runtime)}

    def host_paths(self) -> dict[str, str]:
        """Our folders and the engine's host's, as far as they are set: Docker-in-Docker."""
        pairs = (
            (get_exec_workspace_root(self), self.host_workspace_path),
            (self.bundles_root, self.host_bundles_path),
        )
        return {str(ours): str(theirs) for ours, theirs in pairs if theirs is not None}

    def check_docker(self) -> None:
        """Raise `InvalidRequest` for what only the embedded backend can do."""
        if self.program_python is not None:
            name = self._row("program_python", _RULES["program_python"]).name_used
            raise InvalidRequest(
                f"{name} (--python) is for the embedded backend only: in Docker a program runs on the image's Python; "
                "leave it out, or set PY_CODE_EXEC_IMAGE",
                code="program_python",
            )

    def suits_embedded(self) -> bool:
        """Whether the embedded backend can do all that is set."""
        return self.network_mode in ("host", "none")

    def check_embedded(self) -> None:
        """Raise `InvalidRequest` for what only a docker backend can do."""
        if not self.suits_embedded():
            name = self._row("network_mode", _RULES["network_mode"]).name_used
            raise InvalidRequest(
                f"{name}={self.network_mode}: the embedded backend's supervisor has the host's network or "
                f"none; set {name}=host or {name}=none, or use ISORUN_BACKEND=docker",
                code="network_mode",
            )


_LIMITS = {f"max_{f.name}": f.name for f in fields(Limits)}
_SUPERVISOR_ONLY = tuple(f.name for f in fields(Settings) if f.name.startswith("aws_") or f.name == "no_proxy")
_KEYS_OF_SEARCH = ("brave_api_key", "tavily_api_key")
_OF_BUILT_INS = (
    *("font_path", "search_providers", "search_fixture", "searxng_url", "brave_url", "tavily_url", "web_proxy"),
    *_KEYS_OF_SEARCH,
)


def _rules() -> Iterator[tuple[str, _From]]:
    """Each setting with all its names, the canonical one first."""
    for key, hint in Settings.__annotations__.items():
        for rule in getattr(hint, "__metadata__", ()):
            ours = key.upper() if key in (*_SUPERVISOR_ONLY, *_KEYS_OF_SEARCH) else f"ISORUN_{key.upper()}"
            yield key, _From(rule.kind, ours, *rule.names, mask=rule.mask, harmless=rule.harmless)
    for f in fields(Limits):
        older = ("PY_CODE_EXEC_TIMEOUT",) if f.name == "wall_s" else ()
        kind = _COUNT if f.type is int else _NUMBER
        if takes_unit(f.name):
            kind = _SIZE if f.type is int else _TIME
        # A ceiling may be lowered by anybody.
        yield (
            f"max_{f.name}",
            _From(kind, f"ISORUN_MAX_{f.name.upper()}", *older, harmless=_at_most(getattr(Limits(), f.name))),
        )


_RULES = dict(_rules())
_NUMBERS = {name: rule.kind for name, rule in _RULES.items() if rule.kind.is_number and name not in _LIMITS}
_OPTIONAL = frozenset(f.name for f in fields(Settings) if f.default is None)


_DEFAULTS = {f.name: f.default for f in fields(Settings)} | {
    f"max_{f.name}": getattr(Limits(), f.name) for f in fields(Limits)
}
_RULE_OF = {name: (key, rule) for key, rule in _RULES.items() for name in rule.names}
_ENV_FILE_NAME = _RULES["env_file"].names[0]


def _sources(
    env_file: str | Path | None, environ: Mapping[str, str]
) -> tuple[dict[str, Mapping[str, str]], env_files.EnvFile | None]:
    """The places to look, the strongest first; and the file that may say only what is harmless, if there is one."""
    sources: dict[str, Mapping[str, str]] = {ENVIRONMENT: environ}
    seen = set()
    for named in (env_file, environ.get(_ENV_FILE_NAME, "").strip()):
        if named:
            file = env_files.read_named(Path(named).expanduser())
            seen.add(file.path)
            sources.setdefault(str(named), _without_files(file.values))
    found = env_files.read_found(Path(ENV_FILE))
    if found is None or found.path in seen:
        return sources, None
    if env_files.is_trusted(found, environ):
        sources.setdefault(ENV_FILE, _without_files(found.values))
        return sources, None
    sources[ENV_FILE] = {name: text for name, text in found.values.items() if _is_harmless(name, text)}
    return sources, found


def _without_files(values: Mapping[str, str]) -> dict[str, str]:
    """*values* of a file, which names no other file."""
    return {name: text for name, text in values.items() if name != _ENV_FILE_NAME}


def _tell_ignored(file: env_files.EnvFile, wanted: Iterable[str]) -> tuple[str, ...]:
    """The *wanted* names that *file* has; one line says how to have them."""
    names = tuple(name for name in file.values if name in set(wanted))
    if names:
        _warn_once(
            f"{file.path}: {', '.join(names)} ignored, because you have not trusted this file; "
            f"read it, then run: isorun config trust {shlex.quote(str(file.path))}"
        )
    return names


def _is_harmless(name: str, text: str) -> bool:
    """Whether a file that you have not trusted may say this: the default, and what its rule calls harmless."""
    if name not in _RULE_OF:
        return name.startswith("ISORUN_")  # a slip, which is warned of; no other name is read from there
    key, rule = _RULE_OF[name]
    try:
        value = rule.kind.parse(text.strip())
    except (ValueError, RuntimeError):
        return rule.harmless is not _NO_OTHER  # it is refused, with a text that says how to mend it
    return bool(not text.strip() or value == _DEFAULTS[key] or rule.harmless.holds(value))


@functools.cache
def _warn_once(line: str) -> None:
    """Settings are loaded by every part of a command that needs them; its user reads a line once."""
    _log.warning("%s", one_line(line))


def _find(rule: _From, sources: Mapping[str, Mapping[str, str]]) -> _Found | None:
    """The value that counts. The others that were set and differ are named in the log."""
    hits = [
        _Found(raw, name, source)
        for source, texts in sources.items()
        for name in rule.names
        if (raw := texts.get(name, "").strip())
    ]
    if not hits:
        return None
    winner = hits[0]
    for other in hits[1:]:
        if other.raw != winner.raw and other.name != winner.name:
            used, unused = (f"{hit.name}={rule.mask(hit.raw)} ({hit.source})" for hit in (winner, other))
            _warn_once(f"{used} is used, {unused} is not")
    return winner


def _first(name: str, sources: Mapping[str, Mapping[str, str]]) -> str | None:
    return next((texts[name] for texts in sources.values() if name in texts), None)


def _parse(rule: _From, hit: _Found) -> object:
    try:
        return rule.kind.parse(hit.raw)
    except (ValueError, RuntimeError):  # RuntimeError: expanduser with no such user
        hint = "; remove the comment behind the value" if re.search(r"\s#", hit.raw) else ""
        # from None: the first error's text holds the value unmasked.
        given = one_line(f"{hit.name}={rule.mask(hit.raw)} ({hit.source})")
        raise InvalidRequest(
            f"{given}: must be {rule.kind.wants}{hint}; correct it, or unset it to get the default",
            code="invalid_setting",
        ) from None


def _unknown_names(sources: Mapping[str, Mapping[str, str]]) -> list[str]:
    known = {name for rule in _RULES.values() for name in rule.names}
    slips = [
        (name, source)
        for source, texts in sources.items()
        for name in sorted(texts)
        if name.startswith("ISORUN_") and name not in known
    ]
    told = (f"{name} ({source}) is not a setting{_nearest(name)}" for name, source in slips)
    return [one_line(line) for line in told]


def _nearest(slip: str) -> str:
    """What to write instead of *slip*; where no name is near, where all names are."""
    import difflib  # only where there is a slip to explain: 5 ms

    names: dict[str, str] = {}
    for rule in _RULES.values():
        if rule.names[0].startswith("ISORUN_"):
            for name in rule.names:
                names |= {part: rule.names[0] for part in _spellings(name) if part not in names}
    slips = _spellings(slip)
    near = [found[0] for part in slips if (found := difflib.get_close_matches(part, names, n=1, cutoff=0.75))]
    if not near:
        return "; `isorun config show` has all names"
    return f"; the nearest name is {names[near[0]]}"


def _spellings(name: str) -> list[str]:
    """*name* without our prefix, which would make all alike, and without what people leave out or add."""
    bare = re.sub(r"^(ISORUN_)?(MAX_|PY_CODE_EXEC_|EXEC_)?", "", name)
    return list(dict.fromkeys((name.removeprefix("ISORUN_"), bare, re.sub(r"_(BYTES|S|HOURS)$", "", bare))))


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return ",".join(value) if isinstance(value, tuple) else str(value)


def supervisor_environment(settings: Settings, *, built_ins: bool = False) -> dict[str, str]:
    """What a supervisor's environment has, and an executor's never; with *built_ins* what those need, too."""
    keys = (*_SUPERVISOR_ONLY, *_OF_BUILT_INS) if built_ins else _SUPERVISOR_ONLY
    given = {_RULES[key].names[0]: getattr(settings, key) for key in keys}
    texts = {name: _shown(value) for name, value in given.items() if value not in (None, ())}
    return {**texts, **settings.tool_environment}


def process_environment() -> dict[str, str]:
    """The environment of this process, as it is."""
    return dict(os.environ)


def become_environment(environment: Mapping[str, str]) -> None:
    """Make the environment of this process *environment* and nothing else."""
    os.environ.clear()
    os.environ.update(environment)


def base_environment() -> dict[str, str]:
    """Those of `BASE_NAMES` that this process has."""
    return {name: os.environ[name] for name in BASE_NAMES if name in os.environ}


def get_exec_workspace_root(settings: Settings, *, system_root: Path = Path("/")) -> Path:
    """The folder that holds the runs' folders.

    The one that was set; else, in a container that has it, /exec-workspace; else
    the system's temporary folder. A container without that folder gets no new one
    at its root: an ordinary user could not make it, and nothing outside would see it.
    """
    if settings.workspace_root is not None:
        return settings.workspace_root
    if in_container(system_root) and (system_root / CONTAINER_ROOT.relative_to("/")).is_dir():
        return CONTAINER_ROOT
    return Path(tempfile.gettempdir())


def in_container(system_root: Path = Path("/")) -> bool:
    """Whether this process runs in a container, as docker, podman or the cgroup's name says."""
    if any((system_root / mark).exists() for mark in (".dockerenv", "run/.containerenv")):
        return True
    try:
        text = (system_root / "proc/1/cgroup").read_text(errors="replace")
    except OSError:
        return False
    return re.search(r"docker|kubepods|containerd|libpod", text) is not None
