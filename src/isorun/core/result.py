"""What a run gives back, and the one shape in which it is stored. Built once, after the run, and never changed.

Theory of operation. What a program can make long is bounded where it enters a result (`Few`, and the constants of
`report`, `hints` and `journal`), so result.json of a run within the default ceilings has at most some 30 MiB. `stored`
holds the promise whatever an operator raised: it cuts texts, then lists, until the document fits `MAX_STORED`, and
readers take up to `MAX_READ`. The folder has all; a notice says what the lists leave out. The module is long because
the shape of a result, and how it is stored and shown, are one subject.
"""

import base64
import builtins
import errno
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from isorun.core.errors import IsorunError
from isorun.core.limits import Limits
from isorun.core.outcome import Code, Status
from isorun.core.pace import rest
from isorun.core.text import visible_json

SCHEMA = 1  # of run.json, result.json and the index of the tool calls
MAX_STORED = 48 << 20  # bytes of result.json
MAX_READ = 64 << 20  # bytes: a file of that name that is larger is none of ours
MAX_PATHS, MAX_PATH_BYTES = 1000, 256 << 10  # of one list of paths
MAX_CALLS = 1000  # tool calls that a result lists
_STORED_OUTPUT = 2 << 20  # characters of stdout, and of stderr, in result.json; user.log and the result have more
_SHORT = (int, float, bool, type(None))
_PIECE = 16 << 10  # characters of a document that are made at once
_CUT_CHARS, _CUT_ENTRIES = 2000, 500  # of every text and list, once a document is too long
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_PICTURES_SHOWN, _PICTURE_BYTES = 10, 4 << 20  # of those that a notebook shows
_NAMED = 10  # artifacts that an error names
_MAYBE_TEXT, _NUMBER = str | None, int | float
_SHAPE: dict[str, Any] = {
    "ok": bool,
    "exec_id": str,
    "prog_name": _MAYBE_TEXT,
    "exit_code": int | None,
    "signal": int | None,
    "error": {"code": str, "message": str, "where": _MAYBE_TEXT, "hint": _MAYBE_TEXT},
    "stdout": str,
    "stderr": str,
    "notices": [str],
    "missing": [str],
    "artifacts": [{"path": str, "bytes": int, "sha256": str}],
    "usage": {"wall_s": _NUMBER},
    "isolation": {"level": _MAYBE_TEXT, "limits": _MAYBE_TEXT},
    "out_dir": str,
}
TIMINGS = ("accepted", "ended", "queued_s", "pool_hit", "slot_s", "run_s", "frozen_s", "total_s")
USAGE = ("cpu_s", "wall_s", "max_rss_bytes", "output_bytes")
ISOLATION = ("level", "without", "backend", "limits", "walls", "fallback")


class Few:
    """The first of *paths*, as many as a result lists; `left_out` counts the others."""

    def __init__(self, paths: Sequence[str]) -> None:
        room, kept = MAX_PATH_BYTES, 0
        for path in islice(paths, MAX_PATHS):
            room -= len(path.encode("utf-8", "surrogatepass"))
            if room < 0:
                break
            kept += 1
        self.paths = tuple(paths[:kept])
        self.left_out = len(paths) - kept


class RunFailed(IsorunError):
    """Raised by `RunResult.raise_for_status`; `result` is the whole result."""

    def __init__(self, result: "RunResult") -> None:
        super().__init__(f"{result.status}: {result.error.message if result.error else ''}")
        self.result = result


@dataclass(frozen=True, slots=True, kw_only=True)
class RunError:
    """Why a run was not ok: a stable code, one sentence, the line if there is one, and what to do."""

    code: Code
    message: str
    where: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that is handed out. `path` is relative to out/; sizes in bytes."""

    path: str
    bytes: int
    sha256: str
    mime: str
    description: str = ""
    visibility: str = "external"
    file: Path
    held: builtins.bytes | None = field(default=None, repr=False)  # all of it, where the run's folder was removed

    def open(self) -> BinaryIO:
        """The file's bytes, to be read piece by piece. Raises FileNotFoundError once the run's folder is gone."""
        try:
            return self.file.open("rb") if self.held is None else io.BytesIO(self.held)
        except FileNotFoundError:
            reason = "the run's folder was removed, by keep=False or by a cleanup"
            raise FileNotFoundError(errno.ENOENT, reason, str(self.file)) from None

    def read_bytes(self) -> builtins.bytes:
        """All of the file."""
        with self.open() as file:
            return file.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        """All of the file as text. Raises UnicodeDecodeError."""
        with io.TextIOWrapper(self.open(), encoding) as text:
            return text.read()

    def _repr_png_(self) -> builtins.bytes | None:
        """What a notebook shows of a picture; None for another file."""
        return self.read_bytes() if self.mime == "image/png" and self.bytes <= _PICTURE_BYTES else None

    def save(self, to: str | Path) -> Path:
        """Copy the file to *to* (a file, or a folder that exists) and return where it is."""
        target = Path(to) / self.file.name if Path(to).is_dir() else Path(to)
        with self.open() as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
        return target


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One contract item, or one entry of the comparison of out/ before and after."""

    path: str
    state: str  # ok, missing, invalid; created, modified, deleted
    codes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    sha256: str | None = None
    bytes: int | None = None
    mime: str | None = None
    description: str = ""
    visibility: str = "external"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Everything that is known of a run. Durations in seconds, monotonic; times RFC 3339 in UTC."""

    ok: bool
    status: Status
    exec_id: str
    turn_id: str
    prog_name: str
    exit_code: int | None
    signal: int | None
    error: RunError | None
    stdout: str
    stderr: str
    truncated: bool
    artifacts: tuple[Artifact, ...]
    items: tuple[Item, ...]
    succeeded: tuple[str, ...]
    missing: tuple[str, ...]
    notices: tuple[str, ...]
    workspace_diff: Mapping[str, tuple[str, ...]] | None
    tool_calls: tuple[Mapping[str, Any], ...]
    report_text: str
    user_log_tail: str
    infra_log_tail: str
    workspace_tree: str  # work/ and out/ of the sandbox, indented; without logs/
    user_error_lines: tuple[str, ...]
    user_tracebacks: tuple[str, ...]
    out_dir: Path
    timings: Mapping[str, Any]
    usage: Mapping[str, float | int]
    limits: Mapping[str, float | int | None]  # None in a lost run
    isolation: Mapping[str, Any]
    value: str | None = None  # the text of the last expression's value; None if there was none, or it was None
    rich: Mapping[str, str] = field(default_factory=dict)  # its other forms by MIME type; a picture's bytes in base64
    kept: bool = True  # whether out_dir is there still, see `RunRequest.keep`
    schema: int = SCHEMA

    def raise_for_status(self) -> "RunResult":
        """Return this result if it is ok; raise `RunFailed` otherwise."""
        if not self.ok:
            raise RunFailed(self)
        return self

    @property
    def text(self) -> str:
        """What the program printed to stdout."""
        return self.stdout

    def to_dict(self) -> dict[str, Any]:
        """This result in JSON's types; what result.json holds."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        data["error"] = asdict(self.error) if self.error else None
        data["out_dir"] = str(self.out_dir)
        data["items"] = [_fields(item) for item in self.items]
        data["artifacts"] = [{**_fields(artifact), "file": str(artifact.file)} for artifact in self.artifacts]
        return data

    def to_json(self) -> str:
        """`to_dict` as one line of JSON, in UTF-8; what cannot be seen is escaped."""
        return as_json(self.to_dict())

    def stored(self) -> bytes:
        """What result.json holds: `to_json`, with long texts and lists cut where it would exceed `MAX_STORED`."""
        told = self.to_dict()
        for stream in ("stdout", "stderr"):
            told[stream] = _cut(told[stream], _STORED_OUTPUT)
        chars = _chars(told)
        if chars > MAX_STORED // 4:  # not first made, at up to twelve bytes a character
            told = _fitted(told)
            chars = _chars(told)
        data = _encoded(told, chars)
        return data if len(data) <= MAX_STORED else _encoded(_fitted(told))

    @classmethod
    def unseen(
        cls,
        *,
        exec_id: str,
        turn_id: str,
        prog_name: str,
        out_dir: Path,
        error: RunError,
        status: Status = Status.LOST,
        timings: Mapping[str, Any],
        timeout_s: float | None = None,
    ) -> "RunResult":
        """The result of a run whose end the host did not see: counts are 0, texts empty, and what is not known is None.

        *timings* may lack any of `TIMINGS`. The function is long because each field has its own line.
        """
        return cls(
            ok=False,
            status=status,
            exec_id=exec_id,
            turn_id=turn_id,
            prog_name=prog_name,
            exit_code=None,
            signal=None,
            error=error,
            stdout="",
            stderr="",
            truncated=False,
            artifacts=(),
            items=(),
            succeeded=(),
            missing=(),
            notices=(),
            workspace_diff=None,
            tool_calls=(),
            report_text="",
            user_log_tail="",
            infra_log_tail="",
            workspace_tree="",
            user_error_lines=(),
            user_tracebacks=(),
            out_dir=out_dir,
            timings={**dict.fromkeys(TIMINGS), **timings},
            usage=dict.fromkeys(USAGE, 0),
            limits={**{f.name: None for f in fields(Limits)}, "wall_s": timeout_s},
            isolation=dict.fromkeys(ISOLATION),
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, the output, the files."""
        import html  # its table of entities is read in a notebook alone

        colour = "#0a7d32" if self.ok else "#b3261e"
        rows = "".join(
            f"<tr><td>{html.escape(a.path)}</td><td>{a.bytes}</td><td><code>{a.sha256[:12]}</code></td></tr>"
            for a in self.artifacts
        )
        error = f"<p>{html.escape(self.error.message)}</p>" if self.error else ""
        hint = f"<p><i>{html.escape(self.error.hint)}</i></p>" if self.error and self.error.hint else ""
        files = f"<table><tr><th>file</th><th>bytes</th><th>sha256</th></tr>{rows}</table>" if rows else ""
        output = html.escape(self.stdout[-4000:] or self.user_log_tail)
        output += f"\n{html.escape(self.value)}" if self.value else ""
        # As pictures, which run no script. Nothing that a program wrote is a page's own HTML.
        pictures = "".join(f'<img src="{uri}">' for uri in (*_rich_pictures(self.rich), *_pictures(self.artifacts)))
        verdict = f'<b style="color:{colour}">{self.status}</b> {html.escape(self.exec_id)}'
        return f"{verdict}{error}{hint}<pre>{output}</pre>{pictures}{files}"

    def __getitem__(self, path: str) -> Artifact:
        """The artifact at *path*, or the one of that name: `result["a.csv"].read_text()`. Raises KeyError."""
        found = [one for one in self.artifacts if one.path == path] or [
            one for one in self.artifacts if one.file.name == path
        ]
        if len(found) != 1:
            known = ", ".join(one.path for one in self.artifacts[:_NAMED]) or "none"
            raise KeyError(f"{len(found)} artifacts are called {path!r}; there are: {known}")
        return found[0]


def _rich_pictures(rich: Mapping[str, str]) -> Iterator[str]:
    if "image/png" in rich:
        yield f"data:image/png;base64,{rich['image/png']}"


def _pictures(artifacts: Sequence[Artifact]) -> Iterator[str]:
    """The pictures among *artifacts* as data URIs, the first few that are not large."""
    small = [one for one in artifacts if one.mime in _PICTURES and one.bytes <= _PICTURE_BYTES]
    for one in small[:_PICTURES_SHOWN]:
        try:
            yield f"data:{one.mime};base64,{base64.b64encode(one.read_bytes()).decode()}"
        except OSError:  # the run's folder is gone
            continue


def as_result(data: bytes | str) -> dict[str, Any] | None:
    """The stored result in *data*, fit to be shown; None if anything in it is not of its kind.

    Keys may be missing: an older isorun wrote fewer for a lost run.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("status") not in list(Status):
        return None
    known = {key: kind for key, kind in _SHAPE.items() if key in value and not (key == "error" and value[key] is None)}
    return value if all(_fits(value[key], kind) for key, kind in known.items()) else None


def _fits(value: object, kind: Any) -> bool:  # noqa: ANN401 - a type, or the same in a list or an object
    if isinstance(kind, list):
        return isinstance(value, list) and all(_fits(item, kind[0]) for item in value)
    if isinstance(kind, dict):
        return isinstance(value, dict) and all(_fits(value.get(key), of) for key, of in kind.items())
    # True is an int for Python, and for nobody who reads JSON.
    return isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)


def _fields(entry: Artifact | Item) -> dict[str, Any]:
    # Nothing in one is a container that could be changed: no copies, as `asdict` makes them, of what is in thousands.
    rest()
    return {name: getattr(entry, name) for name in entry.__slots__ if name != "held"}


def as_json(value: object) -> str:
    """*value* as one line of JSON, in UTF-8. NaN and infinity are a ValueError."""
    return "".join(map(visible_json, _pieces(value)))


def _encoded(value: object, chars: int | None = None) -> bytes:
    return b"".join((*(visible_json(piece).encode() for piece in _pieces(value, chars)), b"\n"))


def _pieces(value: object, chars: int | None = None) -> Iterator[str]:
    """The JSON of *value*, piece by piece: while one is made no other thread has the interpreter.

    *chars*: those of *value*, where they are counted already.
    """
    rest()
    if (_chars(value) if chars is None else chars) <= _PIECE or not isinstance(value, (str, Mapping, list, tuple)):
        yield _dumped(value)
    elif isinstance(value, str):
        yield '"'
        for start in range(0, len(value), _PIECE):
            rest()
            yield _dumped(value[start : start + _PIECE])[1:-1]
        yield '"'
    elif isinstance(value, Mapping):
        yield "{"
        for number, (key, item) in enumerate(value.items()):
            yield f"{', ' if number else ''}{_dumped(key)}: "
            yield from _pieces(item)
        yield "}"
    else:
        yield "["
        for number, item in enumerate(value):
            yield ", " if number else ""
            yield from _pieces(item)
        yield "]"


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _chars(value: object) -> int:
    if type(value) in _SHORT:  # most of what a result holds; asking whether it is a Mapping takes longest
        return 1
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_chars, value.values()))
    if isinstance(value, Mapping):
        return sum(map(_chars, value.values()))
    return sum(map(_chars, value)) if isinstance(value, (list, tuple)) else 1


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}\n[... {len(text) - most} characters were cut here ...]\n"


def _fitted(value: Any) -> Any:  # noqa: ANN401 - JSON's types in and out
    """*value* with every text and every list cut short."""
    if isinstance(value, str):
        return _cut(value, _CUT_CHARS)
    if isinstance(value, Mapping):
        return {key: _fitted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_fitted(item) for item in value[:_CUT_ENTRIES]]
    return value
