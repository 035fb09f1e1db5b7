"""A few lines about a run that has ended, for people. What a program named or said is hostile text."""

from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from isorun.core.text import one_line, printable
from isorun.settings import process_environment

_LINE = 500  # characters of what was said
_FILES = 50  # of a list; the folder is named
_GREEN, _RED, _PLAIN = "\x1b[1;32m", "\x1b[1;31m", "\x1b[0m"


def print_verdict(result: Mapping[str, Any], to: TextIO, *, new_line: bool = False) -> None:
    """Write the verdict on *result* (a `RunResult.to_dict`, or a stored one with less in it) to *to*."""
    first, *rest = verdict(result)
    if to.isatty() and _may_colour(process_environment()):
        word, _, others = first.partition(" ")
        first = f"{_GREEN if result.get('ok') else _RED}{word}{_PLAIN} {others}"
    text = "\n".join((first, *rest)) + "\n"
    to.write("\n" + text if new_line else text)
    to.flush()


def _may_colour(environ: Mapping[str, str]) -> bool:
    """Whether the user's terminal has colours and the user wants them (https://no-color.org)."""
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def verdict(result: Mapping[str, Any]) -> list[str]:
    """The lines: status, why, what to do, what was noticed, the files, the folder."""
    return [printable(line) for line in _lines(result)]


def _lines(result: Mapping[str, Any]) -> Iterator[str]:
    yield " · ".join(_facts(result))
    error = result.get("error") or {}
    if error.get("message"):
        where = f" ({error['where']})" if error.get("where") else ""
        yield f"  {error['code']}: {one_line(error['message'], _LINE)}{where}"
    if error.get("hint"):
        yield f"  hint: {one_line(error['hint'], 1000)}"
    for notice in result.get("notices") or ():
        yield f"  notice: {one_line(notice, _LINE)}"
    for path in result.get("missing") or ():
        yield f"  missing: {one_line(path, _LINE)}"
    yield from _files(result.get("artifacts") or ())
    if result.get("out_dir") and result.get("kept", True):
        yield f"  folder: {result['out_dir']}"


def _facts(result: Mapping[str, Any]) -> Iterator[str]:
    yield str(result.get("status"))
    if (result.get("usage") or {}).get("wall_s"):
        yield f"{result['usage']['wall_s']:.2f} s"
    if result.get("exit_code"):
        yield f"exit code {result['exit_code']}"
    if result.get("signal"):
        yield f"signal {result['signal']}"
    isolation = result.get("isolation") or {}
    if isolation.get("level"):  # of a lost run nobody knows
        yield f"isolation {isolation['level']}, {isolation['limits']}"


def _files(artifacts: Any) -> Iterator[str]:  # noqa: ANN401 - a list of JSON objects
    shown = artifacts[:_FILES]
    names = [one_line(artifact["path"], 120) for artifact in shown]
    width = max(map(len, names), default=0)
    for name, artifact in zip(names, shown, strict=True):
        yield f"  {name:<{width}}  {size(artifact['bytes']):>9}  {artifact['sha256'][:12]}"
    if len(artifacts) > _FILES:
        yield f"  and {len(artifacts) - _FILES} more files"


def size(count: int) -> str:
    """A number of bytes, short."""
    number = float(count)
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"
