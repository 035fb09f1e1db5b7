"""The demo's report.html: one file that needs nothing beside it, with the pictures, the attacks and the walls.

What programs printed and named is hostile text: all of it is escaped, and the page forbids scripts and addresses. A
picture is the program's file, byte for byte, as a `data:` address; it is not opened here.
"""

import base64
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from isorun.cli.verdict import size
from isorun.core.result import RunResult
from isorun.core.text import printable

_MOST_PICTURE = 2 << 20  # bytes: a larger one would make a page that few viewers open
_MOST_TEXT = 4000  # characters of one text: a program may print and raise much more
_MOST_SOURCE = 6000  # of a program: the demo's own are shown whole
_PNG = b"\x89PNG\r\n\x1a\n"
_SHEET = ' class="sheet"'

_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>isorun demo</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; width: 100%; } td, th { padding: .35rem .7rem; text-align: left; }
th { color: #666; font-weight: normal; } tr + tr > td { border-top: 1px solid #eee; } td { vertical-align: top; }
td.time { text-align: right; white-space: nowrap; } img { max-width: 100%; } code, pre { font-size: .85rem; }
pre { background: #f6f6f4; padding: .7rem; overflow-x: auto; white-space: pre-wrap; }
.useful { display: grid; grid-template-columns: 7fr 5fr; gap: 2rem; align-items: start; }
.useful > * { min-width: 0; } .useful p:first-child { margin-top: 0; } .useful pre { font-size: .7rem; }
.useful details pre { white-space: pre; max-height: 31rem; overflow: auto; }
.sheet { border: 1px solid #ddd; box-shadow: 0 2px 10px #0002; box-sizing: border-box; }
@media (max-width: 56rem) { .useful { display: block; } }
.held { color: #18794e; font-weight: 600; } .fell { color: #c62a2f; font-weight: 600; } .dim { color: #666; }
</style>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One program of the page: what it tried, how that ended in words, and everything that was told of its run."""

    title: str
    tried: str
    ending: str
    held: bool
    useful: bool
    source: str
    result: RunResult


def write_page(to: Path, rows: Iterable[Row], *, held: bool, credit: str, left_out: str = "") -> Path:
    """Write the page to *to*, a file that must not be there yet, and return its path."""
    # Not through a link that somebody left there: the folder may be one that others write to.
    descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(page(list(rows), held=held, credit=credit, left_out=left_out))
    return to


def page(rows: list[Row], *, held: bool, credit: str, left_out: str = "") -> str:
    """The page as text: the useful ones of *rows* are shown at length, the others in a table.

    *left_out* says what could not be run here. The walls are those of the first row.
    """
    useful, others = [row for row in rows if row.useful], [row for row in rows if not row.useful]
    word = '<span class="held">every wall held</span>' if held else '<span class="fell">not as expected</span>'
    parts = [
        _HEAD,
        "<h1>isorun demo</h1>",
        f"<p>{len(rows)} programs were run, each in a sandbox of its own: {word}. "
        f'<span class="dim">{_text(credit)}</span></p>',
        *(_useful(row) for row in useful),
        *([f'<p class="dim">{_text(left_out)}</p>'] if left_out else []),
        "<h2>Programs that must not succeed</h2>",
        _table(("program", "tried to", "ending", "time"), [_row(row) for row in others]),
        *(_details(row) for row in others),
        "<h2>The walls of the first program, as the kernel told them</h2>",
        _table(("wall", "seen"), [_wall(name, value) for name, value in _walls(rows[0].result).items()]),
        "</html>\n",
    ]
    return "\n".join(parts)


def _useful(row: Row) -> str:
    """A program that did what it was to do: its picture, and beside it what it printed and wrote."""
    picture = _picture(row.result)
    opened = " open" if _SHEET in picture else ""  # a sheet is high: there is room beside it
    return (
        f"<h2>{_text(row.title)}</h2>\n<p>A program was to {_text(row.tried)}. {_ending(row)}</p>\n"
        f'<div class="useful"><div>{picture}</div>\n<div>{_output(row.result)}{_files(row.result)}'
        f"<details{opened}><summary>the program</summary>{_source(row)}</details></div></div>"
    )


def _text(text: object) -> str:
    return escape(printable(_cut(str(text))))


def _pre(text: str) -> str:
    return "<pre>" + "\n".join(escape(printable(line)) for line in text.split("\n")) + "</pre>"


def _source(row: Row) -> str:
    return _pre(_cut(row.source, _MOST_SOURCE))


def _cut(text: str, most: int = _MOST_TEXT) -> str:
    return text if len(text) <= most else f"{text[:most]} …"


def _ending(row: Row) -> str:
    return f'<span class="{"held" if row.held else "fell"}">{"✔" if row.held else "✘"} {_text(row.ending)}</span>'


def _picture(result: RunResult) -> str:
    """The first promised picture, if it is a PNG and not too large."""
    for artifact in result.artifacts:
        if artifact.mime == "image/png" and artifact.bytes <= _MOST_PICTURE:
            with artifact.open() as file:
                data = file.read(_MOST_PICTURE)
            if data.startswith(_PNG):
                name = _text(Path(artifact.path).name)
                form = _SHEET if _is_sheet(data) else ""
                return f'<img{form} alt="{name}" src="data:image/png;base64,{base64.b64encode(data).decode("ascii")}">'
    return ""


def _is_sheet(png: bytes) -> bool:
    """Whether a PNG says of itself that it is higher than wide, as a page of a document is."""
    return png[20:24] > png[16:20]


def _files(result: RunResult) -> str:
    """The files that were handed out, with their sizes."""
    told = ", ".join(f"{Path(artifact.path).name} ({size(artifact.bytes)})" for artifact in result.artifacts)
    return f"<p>Its files: {_text(told)}</p>" if told else ""


def _output(result: RunResult) -> str:
    return f"<p>It printed:</p>{_pre(_cut(result.stdout))}" if result.stdout else ""


def _table(head: Iterable[str], rows: Iterable[str]) -> str:
    cells = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    return "\n".join((f"<table><tr>{cells}</tr>", *rows, "</table>"))


def _row(row: Row) -> str:
    return (
        f"<tr><td>{_text(row.title)}</td><td>{_text(row.tried)}</td><td>{_ending(row)}</td>"
        f'<td class="time">{row.result.usage["wall_s"]:.2f} s</td></tr>'
    )


def _details(row: Row) -> str:
    """What isorun and the program said, for a reader who asks."""
    error = row.result.error
    said = [f"status {row.result.status}"]
    if error:
        said += [f"code {error.code}", error.message, *([f"hint: {error.hint}"] if error.hint else [])]
    facts = "".join(f"<li>{_text(line)}</li>" for line in said)
    return (
        f"<details><summary>{_text(row.title)}: what isorun told</summary><ul>{facts}</ul>"
        f"{_output(row.result)}<p>The program:</p>{_source(row)}</details>"
    )


def _walls(result: RunResult) -> Mapping[str, Any]:
    told = result.isolation
    return {"isolation": told["level"], "limits held by": told["limits"], **told.get("walls", {})}


def _wall(name: str, value: object) -> str:
    return f"<tr><td>{_text(name.replace('_', ' '))}</td><td><code>{_text(_flat(value))}</code></td></tr>"


def _flat(value: object) -> str:
    """A wall's value on a line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_flat(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_flat, value))
    return str(value)
