"""The demo's report.html: one file that needs nothing beside it, with the chart, the attacks and the walls.

What programs printed and named is hostile text: all of it is escaped, and the page forbids scripts and addresses. The
chart is the program's file, byte for byte, as a `data:` address; it is not opened here.
"""

import base64
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from isorun.core.result import RunResult
from isorun.core.text import printable

_MOST_CHART = 2 << 20  # bytes: a larger one would make a page that few viewers open
_MOST_TEXT = 4000  # characters of one text: a program may print and raise much more
_PNG = b"\x89PNG\r\n\x1a\n"

_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>isorun demo</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; width: 100%; } td, th { padding: .35rem .7rem; text-align: left; }
th { color: #666; font-weight: normal; } tr + tr > td { border-top: 1px solid #eee; } td { vertical-align: top; }
td.time { text-align: right; white-space: nowrap; } img { max-width: 100%; } code, pre { font-size: .85rem; }
pre { background: #f6f6f4; padding: .7rem; overflow-x: auto; white-space: pre-wrap; }
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
    source: str
    result: RunResult


def write_page(to: Path, rows: Iterable[Row], *, held: bool, credit: str) -> Path:
    """Write the page to *to*, a file that must not be there yet, and return its path."""
    # Not through a link that somebody left there: the folder may be one that others write to.
    descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(page(list(rows), held=held, credit=credit))
    return to


def page(rows: list[Row], *, held: bool, credit: str) -> str:
    """The page as text: the first of *rows* did useful work, the others are told in a table."""
    first, *others = rows
    word = '<span class="held">every wall held</span>' if held else '<span class="fell">not as expected</span>'
    parts = [
        _HEAD,
        "<h1>isorun demo</h1>",
        f"<p>{len(rows)} programs were run, each in a sandbox of its own: {word}.</p>",
        f"<h2>{_text(first.title)}</h2>",
        f'<p>A program was to {_text(first.tried)}. {_ending(first)} <span class="dim">{_text(credit)}</span></p>',
        _chart(first.result),
        _output(first.result),
        "<details><summary>the program</summary>" + _pre(first.source) + "</details>",
        "<h2>Programs that must not succeed</h2>",
        _table(("program", "tried to", "ending", "time"), [_row(row) for row in others]),
        *(_details(row) for row in others),
        "<h2>The walls of the first program, as the kernel told them</h2>",
        _table(("wall", "seen"), [_wall(name, value) for name, value in _walls(first.result).items()]),
        "</html>\n",
    ]
    return "\n".join(parts)


def _text(text: object) -> str:
    return escape(printable(_cut(str(text))))


def _pre(text: str) -> str:
    return "<pre>" + "\n".join(escape(printable(line)) for line in _cut(text).split("\n")) + "</pre>"


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]} …"


def _ending(row: Row) -> str:
    return f'<span class="{"held" if row.held else "fell"}">{"✔" if row.held else "✘"} {_text(row.ending)}</span>'


def _chart(result: RunResult) -> str:
    """The first promised picture, if it is a PNG and not too large."""
    for artifact in result.artifacts:
        if artifact.mime == "image/png" and artifact.bytes <= _MOST_CHART:
            with artifact.open() as file:
                data = file.read(_MOST_CHART)
            if data.startswith(_PNG):
                name = _text(Path(artifact.path).name)
                return f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(data).decode("ascii")}">'
    return ""


def _output(result: RunResult) -> str:
    return f"<p>It printed:</p>{_pre(result.stdout)}" if result.stdout else ""


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
        f"{_output(row.result)}<p>The program:</p>{_pre(row.source)}</details>"
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
