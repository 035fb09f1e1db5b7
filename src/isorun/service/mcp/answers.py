"""What a model gets to read: the answers of the tools, bounded, each as text and where it has a schema as JSON.

Some clients show the model the JSON alone, others the text alone, so each says all of it; a picture can only be in the
content, and `read_output`, which has no schema, shows it to the former. Pure: from values to `CallToolResult`.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from mcp_types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent

from isorun.core.outcome import Status
from isorun.core.text import file_name, printable
from isorun.service.mcp.asked import READ
from isorun.service.mcp.backend import Ended, File, Listed, Piece
from isorun.service.mcp.pictures import MAX_BYTES, is_picture_name
from isorun.service.mcp.stored import USER_LOG
from isorun.service.mcp.uris import uri_of

PIECE_BYTES = 48 << 10  # of a text that `read_output` gives at once
MAX_PICTURES = 5  # of one answer
_STDOUT, _STDERR, _VALUE = 16_000, 4_000, 4_000  # characters
_REPORT_HEAD, _REPORT_END = 6_000, 14_000
_MESSAGE = 2_000
_FILES, _LINES = 50, 50  # entries of a list

_TEXT = {"type": "string"}
_FILE = {
    "type": "object",
    "properties": {"path": _TEXT, "bytes": {"type": "integer"}, "mime": _TEXT, "uri": _TEXT},
    "required": ["path", "bytes", "mime", "uri"],
}
_TEXTS = {"type": "array", "items": _TEXT}
RUN_OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "exec_id": {**_TEXT, "description": f"Names the run, for {READ}."},
        "status": {"enum": [str(status) for status in Status], "description": "ok, or how it failed."},
        "error": {**_TEXT, "description": "What went wrong; empty if nothing did."},
        "where": {**_TEXT, "description": "The line of the program that failed."},
        "hint": {**_TEXT, "description": "What to do about it."},
        "stdout": {**_TEXT, "description": f"The end of what was printed; {READ} with {USER_LOG} has all of it."},
        "stderr": {**_TEXT, "description": "The end of what was printed to stderr, with the traceback."},
        "value": {**_TEXT, "description": "The value of the last expression."},
        "files": {"type": "array", "items": _FILE, "description": "What the run handed out."},
        "missing": {**_TEXTS, "description": "Promised files that are not there."},
        "hints": {**_TEXTS, "description": "What is wrong with promised files, and what to do."},
        "notices": {**_TEXTS, "description": "What else to know about the run."},
    },
    "required": ["exec_id", "status", "error", "hint", "stdout", "stderr", "files", "missing"],
}
LIST_OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    **dict.fromkeys(("exec_id", "status", "started", "prog_name"), _TEXT),
                    "files": {"type": "array", "items": _FILE},
                },
                "required": ["exec_id", "status", "started", "files"],
            },
        }
    },
    "required": ["runs"],
}


def run_answer(ended: Ended, pictures: Mapping[str, tuple[str, bytes]]) -> CallToolResult:
    """How a run ended, with its files as links. *pictures*: the type and the bytes of those to show, by path."""
    told = structured(ended)
    content: list[ContentBlock] = [TextContent(text=_report(ended, told))]
    for path, (mime, data) in pictures.items():
        content += (TextContent(text=f"{file_name(path)}:"), _image(mime, data))
    content += (_link(ended.exec_id, file) for file in ended.files[:_FILES])
    return CallToolResult(content=content, structured_content=told, is_error=not ended.result.get("ok", False))


def structured(ended: Ended) -> dict[str, Any]:
    """The answer of `run_python` as JSON, as `RUN_OUTPUT` says."""
    result, error = ended.result, ended.result.get("error") or {}
    told = {
        "exec_id": ended.exec_id,
        "status": str(result["status"]),
        "error": _start(error.get("message"), _MESSAGE),
        "where": _start(error.get("where"), _MESSAGE),
        "hint": _start(error.get("hint"), _MESSAGE),
        "stdout": _end(result.get("stdout"), _STDOUT),
        "stderr": _end(result.get("stderr"), _STDERR),
        "value": _start(result.get("value"), _VALUE),
        "files": [_file(ended.exec_id, file) for file in ended.files[:_FILES]],
        "missing": _some(result.get("missing")),
        "hints": _some([f"{item['path']}: {hint}" for item in result.get("items") or () for hint in item["hints"]]),
        "notices": _some([*_left_out(ended.files), *(result.get("notices") or ())]),
    }
    return {name: value for name, value in told.items() if value or name in RUN_OUTPUT["required"]}


def chosen_pictures(files: Sequence[File]) -> list[File]:
    """The first few of *files* that may be shown as pictures, by their name and size."""
    return [file for file in files if is_picture_name(file.path) and 0 < file.bytes <= MAX_BYTES][:MAX_PICTURES]


def text_answer(piece: Piece) -> CallToolResult | None:
    """A part of a text, and where it goes on; None for a file that holds other bytes."""
    read = _whole_characters(piece)
    if read is None:
        return None
    text, end = read
    content: list[ContentBlock] = [TextContent(text=text)]
    if end < piece.total:
        content.append(TextContent(text=f"[bytes {piece.offset} to {end} of {piece.total}; go on with offset={end}]"))
    elif not text:
        content = [TextContent(text=f"[nothing: the file has {piece.total} bytes, offset was {piece.offset}]")]
    return CallToolResult(content=content)


def picture_answer(path: str, mime: str, data: bytes) -> CallToolResult:
    """A picture, and its name."""
    return CallToolResult(content=[TextContent(text=f"{file_name(path)}:"), _image(mime, data)])


def list_answer(runs: Sequence[Listed]) -> CallToolResult:
    """A list of runs."""
    told = [
        {
            "exec_id": run.exec_id,
            "status": run.status,
            "started": run.started,
            **({"prog_name": run.prog_name} if run.prog_name else {}),
            "files": [_file(run.exec_id, file) for file in run.files[:_FILES]],
        }
        for run in runs
    ]
    lines = [
        f"{run.exec_id} {run.status} {run.started} {', '.join(file_name(file.path) for file in run.files[:_FILES])}"
        for run in runs
    ]
    text = "\n".join(line.rstrip() for line in lines) or "There are no runs yet."
    return CallToolResult(content=[TextContent(text=text)], structured_content={"runs": told})


def refusal(text: str) -> CallToolResult:
    """An answer that tells the model what to mend."""
    return CallToolResult(content=[TextContent(text=text)], is_error=True)


def _report(ended: Ended, told: Mapping[str, Any]) -> str:
    """What is read by those who read no JSON: the run's own report, what it lacks, and how to go on."""
    report = str(ended.result.get("report_text") or f"status: {told['status']}\nrun: {ended.exec_id}\n")
    if len(report) > _REPORT_HEAD + _REPORT_END:
        left = len(report) - _REPORT_HEAD - _REPORT_END
        cut = f"\n[... {left} characters were left out here ...]\n"
        report = f"{report[:_REPORT_HEAD]}{cut}{report[-_REPORT_END:]}"
    value = f"value: {told['value']}\n" if told.get("value") else ""
    more = "".join(f"{line}\n" for line in _left_out(ended.files))
    files = f"{READ} reads a file, exec_id={ended.exec_id}\n" if ended.files else ""
    return f"{report.rstrip()}\n{value}{more}{files}"


def _left_out(files: Sequence[File]) -> list[str]:
    more = len(files) - _FILES
    return [f"{more} more files are not listed; put many files into one archive"] if more > 0 else []


def _file(exec_id: str, file: File) -> dict[str, Any]:
    return {"path": file_name(file.path), "bytes": file.bytes, "mime": file.mime, "uri": uri_of(exec_id, file.path)}


def _link(exec_id: str, file: File) -> ResourceLink:
    return ResourceLink(
        name=file_name(file.path),
        uri=uri_of(exec_id, file.path),
        mime_type=file.mime,
        size=file.bytes,
        description=_start(file.description, _MESSAGE) or None,
    )


def _image(mime: str, data: bytes) -> ImageContent:
    return ImageContent(data=base64.b64encode(data).decode(), mime_type=mime)


def _whole_characters(piece: Piece) -> tuple[str, int] | None:
    """The text of *piece* without a character that is cut at its end, and where it ends; None for other bytes."""
    data = piece.data
    if b"\0" in data:
        return None
    if piece.offset + len(data) < piece.total:
        data = data[: _last_whole(data)]
    text = data.decode("utf-8", "replace")
    # An offset may be within a character, and a log may hold a few bytes of anything; a binary file has more.
    return None if text.count("\ufffd") > max(3, len(text) // 10) else (text, piece.offset + len(data))


def _last_whole(data: bytes) -> int:
    """Where the last character of *data* ends that is whole."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:  # the first byte of one that has more
            needs = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - (back if back < needs else 0)
        if byte < 0x80:
            break
    return len(data)


def _some(texts: object) -> list[str]:
    """The first of *texts*, and how many more there are."""
    given = list(texts) if isinstance(texts, list | tuple) else []
    more = [f"and {len(given) - _LINES} more"] if len(given) > _LINES else []
    return [_start(text, _MESSAGE) for text in given[:_LINES]] + more


def _start(text: object, most: int) -> str:
    """The beginning of *text*. It is cut first: making a megabyte visible takes a tenth of a second."""
    given = text if isinstance(text, str) else ""
    shown = printable(given[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _end(text: object, most: int) -> str:
    """The end of *text*; the first line says what was before it."""
    given = text if isinstance(text, str) else ""
    shown = printable(given[-most:])[-most:]  # an escape has up to ten characters
    if len(given) <= most:
        return shown
    return f"[... {len(given) - most} characters before this: {READ} with path={USER_LOG} ...]\n{shown}"
