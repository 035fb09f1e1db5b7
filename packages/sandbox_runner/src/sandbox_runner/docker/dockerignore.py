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
from functools import lru_cache

_ITEM = r"(?:\\.|[^\\\]-])"
_TOKEN = re.compile(
    r"(?P<many>(?:\*\*/?)+)|(?P<some>\*)|(?P<one>\?)|\\(?P<escaped>.)"
    rf"|\[(?P<negated>\^?)(?P<items>(?:{_ITEM}(?:-{_ITEM})?)+)\]|(?P<bad>[\\\[])|(?P<plain>.)",
    re.DOTALL,
)
_RANGE = re.compile(rf"({_ITEM})(?:-({_ITEM}))?", re.DOTALL)
_ANY, _SLASH, _NO_SLASH, _NEVER = (re.compile(text, re.DOTALL) for text in (".", "/", "[^/]", "(?!)"))
_MOST = 4096  # characters of a pattern, as of a path; and steps of one that are remembered

#: Of one path: for each rule in order, whether it matches the path or a folder it is in.
Hits = tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One line: the paths it matches, and whether it keeps them (`!`) or leaves them out."""

    pattern: str
    keeps: bool
    matcher: _Matcher

    @classmethod
    def parse(cls, line: str) -> Rule:
        """Raises `ValueError` for a pattern that Docker refuses."""
        keeps = line.startswith("!")
        written = line[1:].strip() if keeps else line
        if not written:
            raise ValueError("a lone ! is not a pattern")
        pattern = posixpath.normpath(written).lstrip("/") or "."
        return cls(pattern, keeps, _Matcher(pattern))

    @classmethod
    def keep(cls, path: str) -> Rule:
        """The exception for exactly *path*."""
        pattern = re.sub(r"([*?\\\[])", r"\\\1", path)
        return cls(pattern, True, _Matcher(pattern))

    def may_match_below(self, folder: str) -> bool:
        """Whether a path in *folder*, which itself does not match, could match as far as the folder's name tells."""
        for part, name in zip(self.pattern.split("/"), folder.split("/"), strict=False):
            if "**" in part:
                return True
            try:
                if not _matcher(part).matches(name):
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

        Raises `ValueError` that names the line by its number: the text may be of a file that is not for every eye.
        """
        rules = []
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            # The column counts: Docker reads an indented # as a name.
            if line.startswith("#") or not line.strip():
                continue
            try:
                rules.append(Rule.parse(line.strip()))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
        return cls([*rules, *map(Rule.keep, always)])

    def hits(self, path: str, of_parent: Hits = ()) -> Hits:
        """Which rules match *path* (relative, with slashes), given what matches the folder it is in."""
        inherited = of_parent or (False,) * len(self._rules)
        return tuple(was or rule.matcher.matches(path) for rule, was in zip(self._rules, inherited, strict=True))

    def leave_out(self, hits: Hits) -> bool:
        """Whether a path with these hits is left out."""
        last = _last(hits)
        return last >= 0 and not self._rules[last].keeps

    def may_keep_below(self, folder: str, hits: Hits) -> bool:
        """Whether something in *folder*, which is left out, may be kept by a later exception."""
        return any(rule.keeps and rule.may_match_below(folder) for rule in self._rules[_last(hits) + 1 :])


def _last(hits: Hits) -> int:
    return max((number for number, hit in enumerate(hits) if hit), default=-1)


class _Matcher:
    """Whether a whole path is of a pattern; in time that grows with the path's length, whatever the pattern.

    A regular expression would try every way to share a path out between the stars: hours, for a dozen of them. So
    all ways are followed at once, as a set of states. State n: what is before token n has matched.
    """

    def __init__(self, pattern: str) -> None:
        """Raises `ValueError` for a pattern that Docker refuses."""
        if len(pattern) > _MOST:
            raise ValueError(f"it has more than {_MOST} characters")
        self._states = _states(pattern)
        self._start = self._with_skips(1)
        self._known: dict[tuple[int, str], int] = {}  # the set that a character makes of a set

    def matches(self, path: str) -> bool:
        at = self._start
        for character in path:
            step = at, character
            if (after := self._known.get(step)) is None:
                if len(self._known) >= _MOST:
                    self._known.clear()
                after = self._known[step] = self._after(at, character)
            if not after:
                return False
            at = after
        return bool(at >> len(self._states) & 1)

    def _after(self, at: int, character: str) -> int:
        after = 0
        for number, state in enumerate(self._states):
            if at >> number & 1:
                after |= bool(state.stays.match(character)) << number
                after |= bool(state.goes.match(character)) << number + 1
        return self._with_skips(after)

    def _with_skips(self, at: int) -> int:
        for number, state in enumerate(self._states):  # they lead forward only
            if at >> number & 1:
                for skip in state.skips:
                    at |= 1 << number + skip
        return at


@dataclass(frozen=True, slots=True)
class _State:
    """The characters that leave it as it is, those that lead to the next one, and which are reached without any."""

    goes: re.Pattern[str] = _NEVER
    stays: re.Pattern[str] = _NEVER
    skips: tuple[int, ...] = ()


_matcher = lru_cache(maxsize=1000)(_Matcher)


def _states(pattern: str) -> list[_State]:
    tokens = list(_TOKEN.finditer(pattern))
    states = []
    for number, token in enumerate(tokens):
        if many := token["many"]:
            # `**name` at the front is any path that ends so; anywhere else `**` is whole folders, each with its slash.
            is_last = number + 1 == len(tokens)
            ends_so = number == 0 and not many.endswith("/") and all(after["plain"] for after in tokens[1:])
            if is_last or ends_so:
                states.append(_State(stays=_ANY, skips=(1,)))
            else:
                states += [_State(skips=(1, 2)), _State(stays=_ANY, goes=_SLASH)]
        elif token["bad"]:
            raise ValueError("it ends within brackets, or after a backslash")
        elif token["items"]:
            states.append(_State(goes=re.compile(f"[{token['negated']}{_class(token['items'])}]")))
        elif token["some"]:
            states.append(_State(stays=_NO_SLASH, skips=(1,)))
        elif token["one"]:
            states.append(_State(goes=_NO_SLASH))
        else:
            states.append(_State(goes=re.compile(re.escape(token["escaped"] or token["plain"]))))
    return states


def _class(items: str) -> str:
    out = []
    for low, high in _RANGE.findall(items):
        first, last = low[-1], high[-1:]
        if last and last < first:
            raise ValueError("a range within brackets ends before it begins")
        out.append(re.escape(first) + (f"-{re.escape(last)}" if last else ""))
    return "".join(out)
