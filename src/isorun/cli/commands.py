"""The commands of `isorun`: where each is, and a line about it.

A module is imported only once one of its commands is wanted. It has a function for each,
and a table `OPTIONS` of what that takes; `run` may not have to wait for anything else.
"""

from __future__ import annotations

from importlib import import_module

from isorun.cli.parsing import Parser, nearest, option

TYPE_CHECKING = False  # not from typing, which costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

COMMANDS = {
    "run": ("run.command", "Run one program, sealed, and exit with its exit code."),
    "batch": (
        "batch",
        "Run many programs, one JSON object a line, and print their results as lines of JSON, in order.",
    ),
    "runs ls": ("runs", "The stored runs, newest first."),
    "runs show": ("runs", "How one run ended."),
    "runs logs": ("runs", "What one run printed, or what the host did for it."),
    "runs rm": ("runs", "Remove stored runs, files and logs and all."),
    "sessions ls": ("sessions", "The sessions, by name."),
    "sessions rm": ("sessions", "Remove sessions and their files."),
    "tools ls": ("tools", "The tools, one line each."),
    "tools describe": ("tools", "One tool: what it does, its parameters, its limits."),
    "tools stubs": ("tools", "The tools as .pyi files, for an editor or a type checker."),
    "tools call": ("tools", "Call a tool as a program would, and print its result as JSON; 1 if it gave none."),
    "demo": ("scenes.demo", "Programs work on real data inside the walls, and others fail to get out."),
    "scenario": ("scenes.scenario", "Run scenarios of the example bundle; exit 0 only if each ended as it must."),
    "attack-matrix": (
        "attacks.command",
        "Attack a sandbox of this machine, and say which walls held; exit 4 if one did not.",
    ),
    "doctor": (
        "doctor.command",
        "Look at this machine, run a program, and say which walls stand; exit 4 if not all do.",
    ),
    "serve": ("service", "Serve the page and the HTTP interface, until Ctrl-C."),
    "mcp": ("mcp_server.command", "Offer the sandbox to a model's client: an MCP server on stdin and stdout."),
    "users add": ("service", "Add a user of the service, and print their key. It is shown once."),
    "users ls": ("service", "The users of the service, and how their keys begin."),
    "users revoke": ("service", "Revoke a key, or remove a user with everything of theirs."),
    "image build": ("image", "Build the image that the Docker backend runs programs in."),
    "config show": ("config", "Every setting with its value, its source, and the name it was read from."),
    "config trust": ("config", "Let a .env.backend say everything, as it is now; trust it again once it changes."),
    "cleanup": ("cleanup", "Remove old runs, end lost ones, and clear what dead hosts left behind."),
}
GROUPS = {
    "": "Run Python that you have not read, sealed, and know afterwards exactly what happened.",
    "runs": "Stored runs.",
    "sessions": "Files that are carried from run to run.",
    "tools": "The tools of a bundle.",
    "users": "Who may use the service.",
    "image": "The image of the Docker backend.",
    "config": "Settings.",
}
_HEADINGS = {
    "Programs": ("run", "batch", "runs", "sessions", "tools"),
    "To see it at work": ("demo", "scenario", "attack-matrix"),
    "For others": ("serve", "mcp", "users"),
    "This machine": ("doctor", "image", "config", "cleanup"),
}
_VERSION = option("--version", "Print the version.")


def call(argv: Sequence[str]) -> int:
    """Do what *argv* says; gives the exit code. Raises `UsageError`, and what the command raises."""
    name, words = "", list(argv)
    while name not in COMMANDS:
        if not words:
            parser_of(name).print_help()
            return 2
        word = words.pop(0)
        inner = [known for lines in below(name).values() for known in lines]
        if word in inner:
            name = f"{name} {word}".lstrip()
        elif word.startswith("-") and word != "-":
            if parser_of(name).read([word]):
                import isorun
                from isorun.cli.show import say

                say(f"isorun {isorun.__version__}")
            return 0
        else:
            parser_of(name).error(f"No such command '{word}'{nearest(word, inner)}")
    given = parser_of(name).read(words)
    function: Callable[..., int] = getattr(_module(name), _function(name))
    if given is None:
        return 0
    if name != "run":  # which asks when it chooses a backend: its start is what people wait for
        from isorun.backends.release import check_release

        check_release()
    return function(**given)


def parser_of(name: str) -> Parser:
    """The parser of what follows the command, or the group of commands, *name*."""
    if name in COMMANDS:
        module = _module(name)
        end = getattr(module, "END", None)
        return Parser(_typed(name), COMMANDS[name][1], module.OPTIONS[_function(name)], end=end)
    return Parser(_typed(name), GROUPS[name], () if name else (_VERSION,), inner=below(name))


def below(group: str) -> dict[str, dict[str, str]]:
    """The commands in *group*, by heading, with the line about each."""
    if not group:
        return {heading: {name: _line(name) for name in names} for heading, names in _HEADINGS.items()}
    start = f"{group} "
    return {"Commands": {name.removeprefix(start): _line(name) for name in COMMANDS if name.startswith(start)}}


def _line(name: str) -> str:
    return GROUPS[name] if name in GROUPS else COMMANDS[name][1]


def _module(name: str) -> ModuleType:
    return import_module(f"isorun.cli.{COMMANDS[name][0]}")


def _function(name: str) -> str:
    return name.rpartition(" ")[2].replace("-", "_")


def _typed(name: str) -> str:
    return f"isorun {name}".rstrip()
