"""The bounds of a document, and how a breach is reported: by a refusal or a notice. It knows no format."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from isorun.supervisor.tool import ToolError

MAX_CONTENT = 1 << 20  # bytes: the time of the parsers grows faster than their input
MAX_TITLE = 1000  # characters
MAX_DEPTH = 20  # levels of lists, quotes and the like; no page shows more
_EXAMPLES = 8
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff\ud800-\udfff]")
_INSTALL = "pip install 'isorun[tools]'"


class Refused(ToolError):
    """No document was made. The text names the item and says what to do."""


@dataclass(slots=True)
class Notices:
    """How a document differs from what was given: one sentence for each kind, with a count and examples."""

    _texts: dict[str, None] = field(default_factory=dict)
    _counted: dict[str, Counter[str]] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Note *text* once."""
        self._texts[text] = None

    def count(self, kind: str, example: str) -> None:
        """Note one more of *kind*, a text with the fields {count} and {examples}."""
        self._counted.setdefault(kind, Counter())[example] += 1

    def texts(self) -> list[str]:
        """Every notice, as a sentence."""
        counted = [
            kind.format(count=sum(found.values()), examples=", ".join(list(found)[:_EXAMPLES]))
            for kind, found in self._counted.items()
        ]
        return [*self._texts, *counted]


def cleaned(text: str, notices: Notices) -> str:
    """*text* without control characters and lone surrogates, which no document can hold."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    found = _UNFIT.findall(text)
    for each in found:
        notices.count("{count} control characters or half characters were left out: {examples}", f"U+{ord(each):04X}")
    return _UNFIT.sub("", text) if found else text


def bounded(content: object) -> str:
    """*content*, if it is a text that is not too long. Raises `Refused`."""
    if not isinstance(content, str):
        raise Refused(f"content is of type {type(content).__name__}; give a text")
    size = len(content.encode("utf-8", "surrogatepass"))
    if size > MAX_CONTENT:
        raise Refused(
            f"content has {size:,} bytes, more than {MAX_CONTENT:,}: shorten it, write several documents, "
            "or put long tables into write_xlsx and raw text into write_file"
        )
    return content


def titled(title: object, notices: Notices) -> str:
    """*title* as one clean line. Raises `Refused`."""
    if not isinstance(title, str):
        raise Refused(f"title is of type {type(title).__name__}; give a text")
    if len(title) > MAX_TITLE:
        raise Refused(f"title has {len(title):,} characters, more than {MAX_TITLE:,}: shorten it")
    return " ".join(cleaned(title, notices).split())


@contextmanager
def libraries() -> Iterator[None]:
    """For the block that imports libraries: if one is not installed, `Refused` says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise Refused(f"this writer needs the package {error.name}, which is not installed: {_INSTALL}") from error
