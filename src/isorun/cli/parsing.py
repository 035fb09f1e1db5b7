"""What may follow a command's name: a table of options becomes an argparse parser.

Theory of operation. argparse wants all positional words in one place, and refuses a
value that begins with a dash. So `read` puts the words in order first: options, each
joined to its value, then `--`, then the rest. What was not given is not in the answer:
a command's function has the defaults. `isorun run` comes through here before its jail
starts, so nothing heavy may be imported at the top.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from isorun.cli.exits import UsageError

TYPE_CHECKING = False  # not from typing, which costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, NoReturn, TypeAlias

    Option: TypeAlias = tuple[str, dict[str, Any]]

REST = argparse.REMAINDER  # all words that are left
_HELP = ("-h", "--help")
_MISSING = "the following arguments are required: "  # as argparse says it
_COLUMN = 26  # where a help text begins


def option(name: str, help: str, **settings: object) -> Option:
    """What `add_argument` takes: "--name VALUE", "--name" alone for a flag, "name VALUE" for a positional word."""
    name, _, value = name.partition(" ")
    kind = {"metavar": value} if value else {"action": "store_true"}
    return name, {"help": help.replace("%", "%%"), **kind, **settings}


JSON = option("--json", "Print JSON.")
BACKEND = option("--backend NAME", "auto, namespace or docker (default: ISORUN_BACKEND).")
PRELOAD = option(
    "--preload NAMES",
    "Modules to import beforehand, with commas; may be repeated. Each must be there.",
    action="extend",
    type=lambda text: [name.strip() for name in text.split(",") if name.strip()],
)
ENV_FILE = option("--env-file FILE", "A file of settings, NAME=value.", type=Path)


def seconds(text: str, *, alone: float = 1.0) -> float:
    """A time that was typed; whether it may be infinite or negative, the command decides."""
    from isorun.core import quantity

    try:
        return quantity.seconds_of(text, alone=alone)
    except ValueError:
        counted = "seconds" if alone == 1 else "hours"
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of {counted}, nor a time such as 90s, 10m or 7d"
        ) from None


def count(text: str) -> int:
    """A whole number above 0 that was typed."""
    if not (text.isascii() and text.isdigit() and int(text[:9]) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def hours(text: str) -> float:
    """As `seconds`, but a number alone counts hours, and hours are what it gives."""
    return seconds(text, alone=3600) / 3600


def nearest(word: str, words: Iterable[str]) -> str:
    """A question for the one of *words* that was most likely meant; "" if none is near."""
    import difflib  # only where there is a slip to explain: 5 ms

    near = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


class Parser(argparse.ArgumentParser):
    """Reads the words behind one command, or tells what there is. Never exits."""

    def __init__(
        self,
        command: str,
        about: str,
        options: Iterable[Option] = (),
        *,
        inner: Mapping[str, Mapping[str, str]] | None = None,
        end: str | None = None,
    ) -> None:
        """*inner* are the commands below this one, with a line about each, by heading; *end* closes the help."""
        super().__init__(
            prog=command,
            description=about,
            epilog=end,
            formatter_class=partial(argparse.HelpFormatter, max_help_position=_COLUMN),
            add_help=False,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        for heading, lines in (inner or {}).items():
            group = self.add_argument_group(heading)
            for name, line in lines.items():
                group.add_argument(name, help=line, nargs="?")  # to be shown; nobody reads it
        groups = self.add_argument_group("Arguments"), self.add_argument_group("Options")
        words = [groups[name.startswith("-")].add_argument(name, **_absent(settings)) for name, settings in options]
        groups[1].add_argument(*_HELP, action="store_true", help="Show this message.")
        self._named = {name: action for action in words for name in action.option_strings}
        shown = ["COMMAND [ARGS]..."] if inner else [_typed(word) for word in words if not word.option_strings]
        self.usage = " ".join((command, "[OPTIONS]", *shown))
        self._takes_rest = any(word.nargs == REST for word in words)

    def read(self, words: Sequence[str]) -> dict[str, Any] | None:
        """What was given, by name; None if help was asked for, and shown. Raises `UsageError`."""
        ours, others = self._split(words)
        if any(word in _HELP for word in ours):
            self.print_help()
            return None
        given, too_much = self.parse_known_args([*ours, "--", *others] if others else ours)
        if too_much:
            self.error(f"unexpected argument: {others[-1]}")
        return {name: value for name, value in vars(given).items() if value is not None}

    def _split(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """Our options, each with its value in one word; and all other words."""
        ours: list[str] = []
        others: list[str] = []
        rest = iter(words)
        for word in rest:
            name, equals, value = word.partition("=")
            if word == "--":
                others += rest
            elif word == "-" or not word.startswith("-"):
                others.append(word)
            elif word in _HELP:
                ours.append(word)
            elif name not in self._named:
                self._unknown(name)
            elif self._named[name].nargs == 0:
                if equals:
                    self.error(f"{name} takes no value")
                ours.append(word)
            else:
                value = value if equals else next(rest, "--")
                if value == "--":  # argparse would lose it
                    self.error(f"{name} needs a value")
                ours.append(f"{name}={value}")
        return ours, others

    def _unknown(self, name: str) -> NoReturn:
        behind = "; what the program is to get comes after --" if self._takes_rest else ""
        self.error(f"No such option: {name}{nearest(name, (*self._named, '--help'))}{behind}")

    def format_help(self) -> str:
        """With a capital at the head, as our other headings."""
        return super().format_help().replace("usage:", "Usage:", 1)

    def error(self, message: str) -> NoReturn:
        """In place of argparse's own, which exits."""
        said = message.removeprefix("argument ")
        if said.startswith(_MISSING):
            said = f"Missing argument {said.removeprefix(_MISSING).partition(',')[0]}"
        raise UsageError(f"{said} ({self.prog} --help shows what there is)")


def _absent(settings: dict[str, Any]) -> dict[str, Any]:
    """*settings*; a word that may be left out is then None, where argparse would give its mark for that to the type."""
    return {**settings, "default": None} if settings.get("nargs") == "?" else settings


def _typed(word: argparse.Action) -> str:
    """How a positional word stands in the usage line."""
    if word.nargs == REST:
        return f"[-- {word.metavar}...]"
    return {"?": f"[{word.metavar}]", "+": f"{word.metavar}..."}.get(str(word.nargs), str(word.metavar))
