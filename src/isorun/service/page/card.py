"""What a run card shows, as values: made from a RunView, which holds what a program wrote and named.

Nothing here is HTML. Every text goes through `printable` or `one_line`, so what drives a terminal or moves letters is
shown as an escape; the templates escape what is left.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from isorun.core.outcome import Status
from isorun.core.text import one_line, printable
from isorun.service.page import words

View = Mapping[str, Any]

_OUTPUT = 64 << 10  # characters of each stream on a card; the log has the rest
_VALUE = 20_000  # characters of one parameter, result or value
_TITLE = 80
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_KINDS = {
    **dict.fromkeys(_PICTURES, "picture"),
    "image/svg+xml": "frame",
    "text/html": "frame",
    "application/xhtml+xml": "frame",
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "text/markdown": "markdown",
    "application/json": "json",
}
_DOCSTRING = re.compile(r'\s*(?:[rRuU]?("""|\'\'\')|#)\s*(?P<text>[^\n]+)')
_IN_TURN = re.compile(r"turn_[^/]+/files/")
_PNG_CHARS = 600_000  # of base64, of the picture that the last line's value is
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text that a program made. `cut` characters before it are not shown."""

    text: str
    cut: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One promise, or one change of out/. `state`: promised, ok, missing, invalid, created, modified or deleted."""

    name: str
    path: str
    state: str
    about: str = ""
    codes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    tone: words.Tone


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A tool call. `params` and `result` are JSON, indented."""

    tool: str
    reason: str
    status: str
    tone: words.Tone
    took: str
    params: str
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of a run. `kind` says how it is previewed: picture, frame, pdf, csv, tsv, markdown, json, text or none."""

    name: str
    path: str
    url: str
    size: str
    mime: str
    kind: str
    promised: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Everything on a card."""

    id: str
    status: str
    tone: words.Tone
    is_open: bool
    title: str
    created: str
    when: str
    code: str
    lines: int
    hidden: int  # characters of the program that are shown as escapes
    outputs: tuple[tuple[str, Text], ...]
    value: Text | None
    picture: str  # of the value, in base64
    calls: tuple[Call, ...]
    checks: tuple[Check, ...]
    is_contract: bool
    files: tuple[File, ...]
    inputs: tuple[str, ...]
    notices: tuple[str, ...]
    banners: tuple[str, ...]
    sentence: str
    code_of_error: str
    hint: str
    costs: tuple[tuple[str, str], ...]
    isolation: str
    walls: tuple[tuple[str, str], ...] = field(default=())


def card(
    view: View, *, titles: Mapping[int, str] | None = None, banners: Sequence[str] = (), printed: str = ""
) -> Card:
    """The card of *view*. *titles*: of the scenarios; *banners*: errors that were told beside the run.

    *printed*: what a run without a result of its own is known to have printed.

    The function is long because each part of a card has its own line.
    """
    result: View = view.get("result") or {}
    error: View = result.get("error") or {}
    status, code = str(view["status"]), str(view.get("code") or "")
    shown = printable(code)
    return Card(
        id=str(view["id"]),
        status=status,
        tone=words.tone(status),
        is_open=words.is_open(status),
        title=title(view, titles or {}),
        created=str(view.get("created") or ""),
        when=words.moment(view.get("created")),
        code=shown,
        lines=shown.count("\n") + (not shown.endswith("\n")),
        hidden=sum(code.count(char) for char in set(code) if printable(char) != char),
        outputs=tuple(_outputs({**result, "stdout": result.get("stdout") or printed})),
        value=_text(result["value"], _VALUE) if result.get("value") is not None else None,
        picture=_picture(result),
        calls=tuple(map(_call, view.get("calls") or ())),
        checks=tuple(_checks(view, result)),
        is_contract=bool(view.get("contract")),
        files=tuple(_file(str(view["id"]), one) for one in view.get("files") or ()),
        inputs=tuple(one_line(str(one.get("name")), 200) for one in view.get("inputs") or () if isinstance(one, dict)),
        notices=tuple(one_line(str(one), 1000) for one in result.get("notices") or ()),
        banners=tuple(_banners(result, banners)),
        sentence=_sentence(status, error, result),
        code_of_error=one_line(str(error.get("code") or "")),
        hint=one_line(str(error.get("hint") or ""), 2000),
        costs=tuple(costs(view)),
        isolation=isolation_words(result.get("isolation") or {}),
        walls=tuple(walls(result.get("isolation") or {})),
    )


def title(view: View, titles: Mapping[int, str]) -> str:
    """What a run is called: its scenario, its name, or the first words of its program."""
    number = view.get("scenario")
    if isinstance(number, int):
        return f"{number}. {titles[number]}" if number in titles else f"Scenario {number}"
    if view.get("prog_name"):
        return one_line(str(view["prog_name"]), _TITLE)
    code = str(view.get("code") or "")
    said = _DOCSTRING.match(code)
    first = said["text"].removesuffix('"""').removesuffix("'''") if said else code.strip().split("\n", 1)[0]
    return one_line(first.strip(), _TITLE) or "A program"


def costs(view: View) -> Iterator[tuple[str, str]]:
    """What a run took, each with its name; nothing of a run that has not ended."""
    found = view.get("cost") or (view.get("result") or {}).get("usage") or {}
    yield from (
        (name, words.seconds(found[key])) for name, key in (("wall", "wall_s"), ("cpu", "cpu_s")) if found.get(key)
    )
    if found.get("max_rss_bytes"):
        yield "memory", words.size(found["max_rss_bytes"])


def isolation_words(isolation: View) -> str:
    """The walls in a few words; "" if they are not known."""
    if not isolation.get("level"):
        return ""
    return one_line(f"{isolation['level']} isolation, {isolation.get('backend')}, {isolation.get('limits')}", 120)


def walls(isolation: View) -> Iterator[tuple[str, str]]:
    """What was read back of the walls: a name and a text for each."""
    for name in ("level", "backend", "limits", "without", "fallback"):
        if isolation.get(name):
            yield name, _flat(isolation[name])
    found = isolation.get("walls")
    for name, value in found.items() if isinstance(found, dict) else ():
        if isinstance(value, dict):
            yield from ((one_line(f"{name}: {key}".replace("_", " "), 80), _flat(one)) for key, one in value.items())
        else:
            yield one_line(str(name).replace("_", " "), 80), _flat(value)


def _flat(value: object) -> str:
    text = (
        ", ".join(map(str, value))
        if isinstance(value, list)
        else value
        if isinstance(value, str)
        else json.dumps(value)
    )
    return one_line(str(text), 500)


def _text(value: object, most: int) -> Text:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return Text(text=printable(text[-most:]), cut=max(0, len(text) - most))


def _outputs(result: View) -> Iterator[tuple[str, Text]]:
    for name in ("stdout", "stderr"):
        if result.get(name):
            yield name, _text(result[name], _OUTPUT)


def _picture(result: View) -> str:
    found = (result.get("rich") or {}).get("image/png", "")
    return found if isinstance(found, str) and len(found) <= _PNG_CHARS and _BASE64.fullmatch(found) else ""


def _pretty(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    return printable(text[:_VALUE])


def _call(call: View) -> Call:
    status, took = str(call.get("status") or "running"), call.get("ms")
    return Call(
        tool=one_line(str(call.get("tool_id")), 200),
        reason=one_line(str(call.get("reason") or ""), 500),
        status=one_line(status, 60),
        tone="good" if status == "ok" else "live" if status == "running" else "bad",
        took=words.seconds(took / 1000) if isinstance(took, int | float) else "",
        params=_pretty(call.get("params")),
        result=_pretty(call.get("result")),
    )


def _checks(view: View, result: View) -> Iterator[Check]:
    """The promises with what became of each, or what a run without promises changed."""
    tones: dict[str, words.Tone] = {"ok": "good", "missing": "bad", "invalid": "bad"}
    for one in result.get("items") or ():
        yield Check(
            name=_short(str(one["path"])),
            path=one_line(str(one["path"]), 500),
            state=one_line(str(one["state"]), 40),
            about=one_line(str(one.get("description") or ""), 500),
            codes=tuple(one_line(str(code), 80) for code in one.get("codes") or ()),
            hints=tuple(one_line(str(hint), 1000) for hint in one.get("hints") or ()),
            tone=tones.get(str(one["state"]), "quiet"),
        )
    if result.get("items"):
        return
    for promise in _promises(view.get("contract")):
        path = str(promise.get("filename") or promise.get("filepath") or "")
        yield Check(
            name=_short(path),
            path=one_line(path, 500),
            state="promised",
            about=one_line(str(promise.get("description") or ""), 500),
            tone="quiet",
        )


def _promises(contract: object) -> list[View]:
    if isinstance(contract, str):
        try:
            contract = json.loads(contract)
        except (ValueError, RecursionError):
            return []
    return [one for one in contract if isinstance(one, dict)] if isinstance(contract, list) else []


def _short(path: str) -> str:
    return one_line(_IN_TURN.sub("", path, count=1), 200)


def _file(run: str, one: View) -> File:
    path, mime = str(one["path"]), str(one.get("mime") or "")
    kind = _KINDS.get(mime) or ("text" if mime.startswith("text/") else "none")
    return File(
        name=_short(path),
        path=one_line(path, 500),
        url=f"/v1/runs/{quote(run, safe='')}/files/{quote(path, safe='/', errors='surrogateescape')}",
        size=words.size(one.get("bytes")),
        mime=one_line(mime, 100),
        kind=kind,
        promised=bool(one.get("promised")),
    )


def _banners(result: View, told: Sequence[str]) -> Iterator[str]:
    """Errors beside the verdict, each once: those that were told, else that the log has some."""
    yield from dict.fromkeys(one_line(one, 1000) for one in told)
    lines = result.get("user_error_lines") or ()
    if not told and (lines or result.get("user_tracebacks")):
        last = one_line(str(lines[-1]).strip(), 300) if lines else ""
        yield f"Program error detected in user.log{': ' if last else ''}{last}"


def _sentence(status: str, error: View, result: View) -> str:
    kept = len(result.get("items") or ()) if result.get("workspace_diff") is None else 0
    if status == Status.OK and kept:
        return f"It ended well and kept its {'promise' if kept == 1 else f'{kept} promises'}."
    said = one_line(str(error.get("message") or ""), 2000) or words.sentence(status)
    return f"{said} ({one_line(str(error['where']), 200)})" if error.get("where") else said
