"""What an operator may set, and the only reader of the process environment.

A setting is a field of `Settings` with the names it is read from, ours first.
The process environment beats the files, whatever the names; within one source
`ISORUN_X` beats the older name for X, and one log line says so when they differ.
A blank value counts as not set, because compose passes unset names on as blank.
Secrets are masked in rows, repr and errors. This module must not read from an
executor, nor hand a credential to one; of ours it imports core at most. Why it is
not pydantic-settings: docs/decisions/0002-settings-reader.md.
"""

import io
import logging
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from isorun.core.errors import InvalidRequest
from isorun.core.limits import Limits

ENV_FILE = ".env.backend"
ENVIRONMENT = "environment"
MAX_ENV_FILE_CHARS = 1 << 20  # such a file has some thousands; a device given by mistake never ends
CONTAINER_ROOT = Path("/exec-workspace")
KB_STORAGE = Path("/kdcube-storage")  # in a container; for the supervisor alone

#: What any program on this system needs to find its files; nothing in it is a credential.
BASE_NAMES = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    )
)

_log = logging.getLogger("isorun.settings")


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
    """How a text becomes a value; `parse` raises ValueError for what is not `wants`."""

    wants: str
    parse: Callable[[str], object]


class _From:
    """How a field is read; *names* are older ones, `ISORUN_<FIELD>` comes before them."""

    def __init__(self, kind: _Kind, *names: str, mask: Callable[[str], str] | None = None) -> None:
        self.kind = kind
        self.names = names
        self.mask = mask or str


def _whole(least: int, most: int) -> _Kind:
    def parse(text: str) -> int:
        # isdigit alone takes other scripts' digits; a sign or an underscore is a slip worth showing.
        if not (text.isascii() and text.isdigit() and len(text) <= 20 and least <= int(text) <= most):
            raise ValueError(text)
        return int(text)

    return _Kind(f"a whole number from {least} to {most}", parse)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError(text)
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


def _absolute(text: str) -> Path:
    # The daemon resolves it, perhaps on another system: what is relative here means nothing there.
    if "\0" in text or not re.match(r"/|[A-Za-z]:[/\\]", text):
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
_COUNT = _whole(1, 2**53)
_ID = _whole(1, 2**32 - 2)  # never root: that is what the executor must not be; the last id means "none"
_PORT = _whole(1, 65535)
_NUMBER = _Kind("a finite number above 0", _positive)
_BOOL = _Kind("1 or 0", _switch)
_PATH = _Kind("a path", _path)
_ABSOLUTE = _Kind("an absolute path", _absolute)
_NAMES = _Kind("names of environment variables with commas between them", _names)
_LIST = _Kind("module names with commas between them", _modules)
_URL = _Kind("a URL, scheme://...", _url)

Backend = Literal["auto", "namespace", "docker"]
LogMode = Literal["include_logging", "print_only"]
_LOG_MODE = _choice("include_logging", "print_only")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """Every setting, with its default. Made by `Settings.load`; changed by `dataclasses.replace`."""

    backend: Annotated[Backend, _From(_choice("auto", "namespace", "docker"))] = "auto"
    program_python: Annotated[Path | None, _From(_PATH)] = None
    preload: Annotated[tuple[str, ...], _From(_LIST)] = ()
    pool_size: Annotated[int, _From(_whole(0, 1024))] = 4  # waiting slots
    zygote_runs: Annotated[int, _From(_COUNT)] = 1000  # before a zygote is replaced
    workspace_root: Annotated[Path | None, _From(_PATH, "EXEC_WORKSPACE_ROOT")] = None
    bundle: Annotated[Path | None, _From(_PATH)] = None  # whose tools programs may call
    tool_env: Annotated[tuple[str, ...], _From(_NAMES)] = ()  # variables that a bundle's tools may see
    retention_hours: Annotated[float, _From(_NUMBER)] = 168.0
    cgroup_parent: Annotated[Path | None, _From(_ABSOLUTE)] = None
    advertise_side_effect_tool: Annotated[bool, _From(_BOOL)] = False
    require: Annotated[str | None, _From(_TEXT)] = None  # for the tests: skips that become failures

    executor_uid: Annotated[int, _From(_ID, "EXECUTOR_UID")] = 1001
    executor_gid: Annotated[int, _From(_ID, "EXECUTOR_GID")] = 1000
    user_log_mode: Annotated[LogMode, _From(_LOG_MODE, "EXEC_USER_LOG_MODE")] = "include_logging"
    traceback_remap: Annotated[bool, _From(_BOOL, "EXEC_TRACEBACK_REMAP")] = True

    image: Annotated[str, _From(_TEXT, "PY_CODE_EXEC_IMAGE")] = "py-code-exec:latest"
    docker_runtime: Annotated[str | None, _From(_TEXT)] = None  # of executor containers; None: the daemon's own
    network_mode: Annotated[str, _From(_TEXT, "PY_CODE_EXEC_NETWORK_MODE")] = "host"
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
    database_url: Annotated[str | None, _From(_URL, "DATABASE_URL", mask=_hide_password)] = None
    postgres_host: Annotated[str | None, _From(_TEXT, "POSTGRES_HOST")] = None
    postgres_port: Annotated[int, _From(_PORT, "POSTGRES_PORT")] = 5432
    postgres_user: Annotated[str | None, _From(_TEXT, "POSTGRES_USER")] = None
    postgres_password: Annotated[str | None, _From(_TEXT, "POSTGRES_PASSWORD", mask=_hide)] = None
    postgres_db: Annotated[str | None, _From(_TEXT, "POSTGRES_DB")] = None

    # For the supervisor only. The names are other people's and have no twin of ours.
    aws_region: Annotated[str | None, _From(_TEXT)] = None
    aws_default_region: Annotated[str | None, _From(_TEXT)] = None
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
    found: Mapping[str, _Found] = field(default_factory=dict, hash=False, compare=False)

    @classmethod
    def load(cls, env_file: str | Path | None = None, environ: Mapping[str, str] | None = None) -> "Settings":
        """The settings of this process: defaults, `./.env.backend`, *env_file*, environment, the last wins.

        Raises `InvalidRequest` naming the variable, its value (masked) and what it must be.
        """
        sources = _sources(env_file, os.environ if environ is None else environ)
        found = {key: hit for key, rule in _RULES.items() if (hit := _find(rule, sources))}
        values: dict[str, Any] = {key: _parse(_RULES[key], hit) for key, hit in found.items()}
        limits = {name: values.pop(key) for key, name in _LIMITS.items() if key in values}
        try:
            ceilings = Limits(**limits)
        except InvalidRequest as exc:  # together they make no sense, though each does alone
            names = ", ".join(found[f"max_{name}"].name for name in limits)
            raise InvalidRequest(f"{exc} (set by {names})", code="invalid_setting") from None
        allowed = {name: text for name in values.get("tool_env", ()) if (text := _first(name, sources)) is not None}
        return cls(
            **values, ceilings=ceilings, tool_environment=allowed, warnings=tuple(_unknown_names(sources)), found=found
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

    def host_paths(self) -> dict[str, str]:
        """Our folders and the daemon's host's, as far as they are set: Docker-in-Docker."""
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
                f"{name} (--python) is of the embedded backend: in Docker programs run on the image's Python; leave it "
                "out, or set PY_CODE_EXEC_IMAGE",
                code="program_python",
            )

    def check_embedded(self) -> None:
        """Raise `InvalidRequest` for what only a docker backend can do."""
        if self.network_mode not in ("host", "none"):
            name = self._row("network_mode", _RULES["network_mode"]).name_used
            raise InvalidRequest(
                f"{name}={self.network_mode}: the embedded backend's supervisor has the host's network or "
                f"none; set {name}=host or {name}=none, or use ISORUN_BACKEND=docker",
                code="network_mode",
            )


_LIMITS = {f"max_{f.name}": f.name for f in fields(Limits)}
_SUPERVISOR_ONLY = tuple(f.name for f in fields(Settings) if f.name.startswith("aws_") or f.name == "no_proxy")


def _rules() -> Iterator[tuple[str, _From]]:
    """Each setting with all its names, the canonical one first."""
    for key, hint in Settings.__annotations__.items():
        for rule in getattr(hint, "__metadata__", ()):
            ours = key.upper() if key in _SUPERVISOR_ONLY else f"ISORUN_{key.upper()}"
            yield key, _From(rule.kind, ours, *rule.names, mask=rule.mask)
    for f in fields(Limits):
        older = ("PY_CODE_EXEC_TIMEOUT",) if f.name == "wall_s" else ()
        kind = _COUNT if f.type is int else _NUMBER
        yield f"max_{f.name}", _From(kind, f"ISORUN_MAX_{f.name.upper()}", *older)


_RULES = dict(_rules())


def _sources(env_file: str | Path | None, environ: Mapping[str, str]) -> dict[str, Mapping[str, str]]:
    """The places to look, the strongest first."""
    sources: dict[str, Mapping[str, str]] = {ENVIRONMENT: environ}
    if env_file is not None:
        sources[str(env_file)] = _read_env_file(Path(env_file))
    sources.setdefault(ENV_FILE, _read_env_file(Path(ENV_FILE), optional=True))
    return sources


def _read_env_file(path: Path, *, optional: bool = False) -> dict[str, str]:
    """The values of a dotenv file, as written: nothing in them is expanded."""
    try:
        with path.open(encoding="utf-8") as stream:
            text = stream.read(MAX_ENV_FILE_CHARS + 1)
    except OSError as exc:
        if optional and isinstance(exc, FileNotFoundError):
            return {}
        raise InvalidRequest(f"{path}: cannot be read: {exc.strerror}", code="env_file") from None
    except UnicodeDecodeError:
        raise InvalidRequest(f"{path}: is not UTF-8 text", code="env_file") from None
    if len(text) > MAX_ENV_FILE_CHARS:
        raise InvalidRequest(f"{path}: longer than {MAX_ENV_FILE_CHARS} characters", code="env_file")
    # Here, and not above: 20 ms that a start without such a file does not pay.
    from dotenv.parser import parse_stream

    bindings = list(parse_stream(io.StringIO(text)))
    for binding in bindings:
        if binding.error:  # its number and not its text, which may be a secret
            where = f"{path}, line {binding.original.line}"
            raise InvalidRequest(f"{where}: not NAME=value, or a quote that never ends", code="env_file")
    return {b.key: b.value for b in bindings if b.key is not None and b.value is not None}


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
            _log.warning(
                "%s=%s (%s) is used, %s=%s (%s) is not",
                *(winner.name, rule.mask(winner.raw), winner.source),
                *(other.name, rule.mask(other.raw), other.source),
            )
    return winner


def _first(name: str, sources: Mapping[str, Mapping[str, str]]) -> str | None:
    return next((texts[name] for texts in sources.values() if name in texts), None)


def _parse(rule: _From, hit: _Found) -> object:
    try:
        return rule.kind.parse(hit.raw)
    except (ValueError, RuntimeError):  # RuntimeError: expanduser with no such user
        hint = "; remove the comment behind the value" if re.search(r"\s#", hit.raw) else ""
        # from None: the first error's text holds the value unmasked.
        raise InvalidRequest(
            f"{hit.name}={rule.mask(hit.raw)} ({hit.source}): must be {rule.kind.wants}{hint}; "
            "correct it, or unset it to get the default",
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
    return [f"{name} ({source}) is not a setting; the nearest name is {_nearest(name)}" for name, source in slips]


def _nearest(slip: str) -> str:
    import difflib  # only where there is a slip to explain: 5 ms

    rules = list(_RULES.values())
    # An older name behind our prefix is the likeliest slip, and far from ours by spelling.
    names = {older: rule.names[0] for rule in rules for older in rule.names[1:]}
    names |= {rule.names[0]: rule.names[0] for rule in rules if rule.names[0].startswith("ISORUN_")}
    return names[difflib.get_close_matches(slip, names, n=1, cutoff=0.0)[0]]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return ",".join(value) if isinstance(value, tuple) else str(value)


def supervisor_environment(settings: Settings) -> dict[str, str]:
    """The names that go to the supervisor's environment, and never into an executor."""
    given = {_RULES[key].names[0]: getattr(settings, key) for key in _SUPERVISOR_ONLY}
    return {**{name: value for name, value in given.items() if value is not None}, **settings.tool_environment}


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
