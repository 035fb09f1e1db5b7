"""What a command line of `isorun run` asks for, read without the weight of typer.

Typer costs a third of a short run's start, so a well-formed `isorun run` does not load
it. Anything else, a slip or `--help`, is None here, and typer explains it. A test
holds the two parsers to the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The options of `isorun run`, as given."""

    file: str
    args: tuple[str, ...] = ()
    turn_id: str | None = None
    side_effects: bool = False
    contract: str | None = None
    timeout_s: float | None = None
    inputs: tuple[Path, ...] = ()
    out: Path | None = None
    backend: str | None = None
    bundle: Path | None = None
    tools: tuple[str, ...] | None = None
    python: Path | None = None
    preload: tuple[str, ...] = ()
    env_file: Path | None = None
    stdin: bool = False
    json: bool = False


def tool_ids(text: str) -> tuple[str, ...]:
    """The ids in *text*, with commas between them; an empty text is none."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


FLAGS = {"--side-effects": "side_effects", "--stdin": "stdin", "--json": "json"}
VALUES: dict[str, tuple[str, Callable[[str], object]]] = {
    "--turn-id": ("turn_id", str),
    "--contract": ("contract", str),
    "--timeout": ("timeout_s", float),
    "--out": ("out", Path),
    "--backend": ("backend", str),
    "--bundle": ("bundle", Path),
    "--tools": ("tools", tool_ids),
    "--python": ("python", Path),
    "--env-file": ("env_file", Path),
}
LISTS: dict[str, tuple[str, Callable[[str], tuple[object, ...]]]] = {
    "--input": ("inputs", lambda text: (Path(text),)),
    "--preload": ("preload", lambda text: tuple(text.split(","))),
}


def parse(argv: Sequence[str]) -> Wanted | None:
    """The options of `isorun run ...`; None for what is not that, or not well-formed."""
    if not argv or argv[0] != "run":
        return None
    words: list[str] = []
    found: dict[str, object] = {}
    rest = iter(argv[1:])
    for word in rest:
        if word == "--":
            words += rest
        elif word == "-" or not word.startswith("-"):
            words.append(word)
        elif word in FLAGS:
            found[FLAGS[word]] = True
        elif not _valued(word, rest, found):
            return None
    if not words:
        return None
    return Wanted(file=words[0], args=tuple(words[1:]), **found)  # type: ignore[arg-type]


def _valued(word: str, rest: Iterator[str], found: dict[str, object]) -> bool:
    """Read one option with its value, `--name value` or `--name=value`; False if it is not one of ours."""
    name, equals, text = word.partition("=")
    if name not in VALUES and name not in LISTS:
        return False
    value = text if equals else next(rest, None)
    if value is None:
        return False
    try:
        if name in LISTS:
            key, some = LISTS[name]
            found[key] = (*found.get(key, ()), *some(value))  # type: ignore[misc]
        else:
            key, convert = VALUES[name]
            found[key] = convert(value)
    except ValueError:
        return False
    return True
