"""What a `.dockerignore` file says of a path. Pure: touches no disk.

The rules are the documented ones of the Docker CLI: one pattern a line, as of Go's
`filepath.Match`, and `**` for any number of folders; `!` makes an exception; a pattern
that matches a folder matches all below it; of the patterns that match, the last one
decides. A line with `#` in its first column is a comment. A leading `/` means nothing.
An exception with a wildcard also counts within a folder that is left out, as with BuildKit; the
Docker CLI's classic builder does not look there.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_ITEM = r"(?:\\.|[^\\\]-])"
_TOKEN = re.compile(
    r"(?P<many>(?:\*\*/?)+)|(?P<some>\*)|(?P<one>\?)|\\(?P<escaped>.)"
    rf"|\[(?P<negated>\^?)(?P<items>(?:{_ITEM}(?:-{_ITEM})?)+)\]|(?P<bad>[\\\[])|(?P<plain>.)",
    re.DOTALL,
)
_RANGE = re.compile(rf"({_ITEM})(?:-({_ITEM}))?", re.DOTALL)

#: Of one path: for each rule in order, whether it matches the path or a folder it is in.
Hits = tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One line: the paths it matches, and whether it keeps them (`!`) or leaves them out."""

    pattern: str
    keeps: bool
    regex: re.Pattern[str]

    @classmethod
    def parse(cls, line: str) -> Rule:
        """Raises `ValueError` for a pattern that Docker refuses."""
        keeps = line.startswith("!")
        written = line[1:].strip() if keeps else line
        if not written:
            raise ValueError("a lone ! is no pattern")
        pattern = posixpath.normpath(written).lstrip("/") or "."
        return cls(pattern, keeps, re.compile(_regex(pattern), re.DOTALL))

    @classmethod
    def keep(cls, path: str) -> Rule:
        """The exception for exactly *path*."""
        return cls(re.sub(r"([*?\\\[])", r"\\\1", path), True, re.compile(re.escape(path)))

    def may_match_below(self, folder: str) -> bool:
        """Whether a path in *folder*, which itself does not match, could match as far as the folder's name tells."""
        for part, name in zip(self.pattern.split("/"), folder.split("/"), strict=False):
            if "**" in part:
                return True
            try:
                if not re.fullmatch(_regex(part), name, re.DOTALL):
                    return False
            except ValueError:
                return True  # a slash within brackets: the parts are none
        return True


class IgnoreRules:
    """The rules of one file, in order. Without any, nothing is left out."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules = tuple(rules)

    @classmethod
    def parse(cls, text: str, always: Sequence[str] = ()) -> IgnoreRules:
        """The rules of a file's *text*. *always* are paths that they cannot leave out.

        Raises `ValueError` that names the line.
        """
        rules = []
        for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
            # The column counts: Docker reads an indented # as a name.
            if line.startswith("#") or not line.strip():
                continue
            try:
                rules.append(Rule.parse(line.strip()))
            except ValueError as error:
                raise ValueError(f"line {number}, {line.strip()!r}: {error}") from None
        return cls([*rules, *map(Rule.keep, always)])

    def hits(self, path: str, of_parent: Hits = ()) -> Hits:
        """Which rules match *path* (relative, with slashes), given what matches the folder it is in."""
        inherited = of_parent or (False,) * len(self._rules)
        return tuple(
            was or rule.regex.fullmatch(path) is not None for rule, was in zip(self._rules, inherited, strict=True)
        )

    def leave_out(self, hits: Hits) -> bool:
        """Whether a path with these hits is left out."""
        last = _last(hits)
        return last >= 0 and not self._rules[last].keeps

    def may_keep_below(self, folder: str, hits: Hits) -> bool:
        """Whether something in *folder*, which is left out, may be kept by a later exception."""
        return any(rule.keeps and rule.may_match_below(folder) for rule in self._rules[_last(hits) + 1 :])


def _last(hits: Hits) -> int:
    return max((number for number, hit in enumerate(hits) if hit), default=-1)


def _regex(pattern: str) -> str:
    tokens = list(_TOKEN.finditer(pattern))
    out = []
    for number, token in enumerate(tokens):
        rest = tokens[number + 1 :]
        if many := token["many"]:
            # `**name` at the front is any path that ends so; anywhere else `**` is whole folders.
            ends_so = number == 0 and not many.endswith("/") and all(after["plain"] for after in rest)
            out.append(".*" if not rest or ends_so else "(?:.*/)?")
        elif token["bad"]:
            raise ValueError("it ends within brackets, or after a backslash")
        elif token["items"]:
            out.append(f"[{token['negated']}{_class(token['items'])}]")
        elif token["some"] or token["one"]:
            out.append("[^/]*" if token["some"] else "[^/]")
        else:
            out.append(re.escape(token["escaped"] or token["plain"]))
    return "".join(out)


def _class(items: str) -> str:
    out = []
    for low, high in _RANGE.findall(items):
        first, last = low[-1], high[-1:]
        if last and last < first:
            raise ValueError(f"{first}-{last} is no range")
        out.append(re.escape(first) + (f"-{re.escape(last)}" if last else ""))
    return "".join(out)
