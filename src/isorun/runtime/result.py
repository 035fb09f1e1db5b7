"""What a run gives back. Built once, after the run, and never changed."""

import html
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

from isorun.core.errors import IsorunError
from isorun.core.outcome import Code, Status

SCHEMA = 1


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

    def open(self) -> BinaryIO:
        """The file's bytes, to be read piece by piece."""
        return self.file.open("rb")

    def save(self, to: str | Path) -> Path:
        """Copy the file to *to* (a file, or a folder that exists) and return where it is."""
        return Path(shutil.copyfile(self.file, Path(to) / self.file.name if Path(to).is_dir() else to))


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
    limits: Mapping[str, float | int]
    isolation: Mapping[str, Any]
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
        data["items"] = [asdict(item) for item in self.items]
        data["artifacts"] = [{**asdict(artifact), "file": str(artifact.file)} for artifact in self.artifacts]
        return data

    def to_json(self) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict())

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, the output, the files."""
        colour = "#0a7d32" if self.ok else "#b3261e"
        rows = "".join(
            f"<tr><td>{html.escape(a.path)}</td><td>{a.bytes}</td><td><code>{a.sha256[:12]}</code></td></tr>"
            for a in self.artifacts
        )
        error = f"<p>{html.escape(self.error.message)}</p>" if self.error else ""
        hint = f"<p><i>{html.escape(self.error.hint)}</i></p>" if self.error and self.error.hint else ""
        files = f"<table><tr><th>file</th><th>bytes</th><th>sha256</th></tr>{rows}</table>" if rows else ""
        output = html.escape(self.stdout[-4000:] or self.user_log_tail)
        verdict = f'<b style="color:{colour}">{self.status}</b> {html.escape(self.exec_id)}'
        return f"{verdict}{error}{hint}<pre>{output}</pre>{files}"
