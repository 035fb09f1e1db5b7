"""What an operator can do about a failure: a text for people, with the actions in it that a machine can do.

A `Remedy` is its text, so it is printed and compared as one. `isorun doctor --fix` carries its actions out.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Command:
    """A command, by its arguments; with *as_root* only root can do it. `isorun …` is this isorun."""

    argv: tuple[str, ...]
    as_root: bool = False

    @classmethod
    def of(cls, *words: object, as_root: bool = False) -> Self:
        """The command of *words*."""
        return cls(tuple(map(str, words)), as_root)

    def __str__(self) -> str:
        """As it is typed."""
        return shlex.join(self.argv)


@dataclass(frozen=True, slots=True)
class Export:
    """A variable of the environment that isorun starts in. No process can set it for its parent."""

    name: str
    value: str

    def __str__(self) -> str:
        """As it is typed."""
        return f"export {self.name}={shlex.quote(self.value)}"


Action = Command | Export


class Remedy(str):
    """The text of a remedy. All of its `actions`, in their order, mend what it is for; none: people have to choose."""

    actions: tuple[Action, ...]

    def __new__(cls, text: str = "", *actions: Action) -> Self:
        """The remedy that reads *text*."""
        made = super().__new__(cls, text)
        made.actions = actions
        return made


#: Kernel switches that turn user namespaces off: the file, the value that does, what turns it back, and what else does.
SWITCHES = (
    ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=15000", ""),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1", ""),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "kernel.apparmor_restrict_unprivileged_userns=0",
        ", or an AppArmor profile for bwrap",
    ),
)


def read_switches() -> dict[str, str]:
    """The value of each of `SWITCHES` that this kernel has, by its file."""
    found = {}
    for path, *_ in SWITCHES:
        try:
            found[path] = Path(path).read_text().strip()
        except OSError:
            continue  # this kernel has no such switch
    return found


def open_switches(values: Mapping[str, str]) -> Remedy:
    """What turns user namespaces on again where *values*, of `read_switches`, have them off; empty if none does."""
    off = [switch for switch in SWITCHES if values.get(switch[0]) == switch[1]]
    turns = [Command.of("sysctl", "-w", opened, as_root=True) for *_, opened, _ in off]
    return Remedy("; ".join(f"{turn}{else_}" for turn, (*_, else_) in zip(turns, off, strict=True)), *turns)


def by(*commands: Command) -> Remedy:
    """The remedy whose text is its commands."""
    return Remedy(" && ".join(map(str, commands)), *commands)


def actions_of(*remedies: str) -> tuple[Action, ...]:
    """The actions of them all, each once."""
    found = (action for one in remedies if isinstance(one, Remedy) for action in one.actions)
    return tuple(dict.fromkeys(found))
