"""One thing that `isorun doctor` looks at: a `Check` has a name and a probe, whose `Finding` becomes a `Row`.

A probe looks and says. It changes nothing, and raises nothing for what it finds missing.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, ParamSpec

from isorun.backends.remedy import Action, Command, Remedy
from isorun.core.errors import IsorunError, Unavailable

P = ParamSpec("P")
_INSTALLERS = (("apt-get", "install", "--yes"), ("dnf", "install", "--assumeyes"))


class Finding(NamedTuple):
    """What a probe says. *remedy* is a `Remedy` where a machine can carry it out, else a text for people."""

    ok: bool
    detail: str
    remedy: str = ""


def fine(detail: str, remedy: str = "") -> Finding:
    """It is as it should be; *remedy* says how it would be better."""
    return Finding(True, detail, remedy)


def failed(detail: str, remedy: str) -> Finding:
    """It is not as it should be, and what to do about it."""
    return Finding(False, detail, remedy)


def not_applicable(why: str) -> Finding:
    """There is nothing of the kind in this deployment, which is no failure."""
    return Finding(True, f"does not apply: {why}")


@dataclass(frozen=True, slots=True)
class Row:
    """A check that was made. These are the fields of its JSON."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""

    @property
    def actions(self) -> tuple[Action, ...]:
        """What can be carried out to mend it."""
        return self.remedy.actions if isinstance(self.remedy, Remedy) else ()


@dataclass(frozen=True, slots=True)
class Check(Generic[P]):
    """A probe under the name of its row. Called as the probe is, it gives the row."""

    name: str
    probe: Callable[P, Finding]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Row:
        return Row(self.name, *self.probe(*args, **kwargs))


def check(name: str) -> Callable[[Callable[P, Finding]], Check[P]]:
    """Make the probe below the check of that name."""

    def named(probe: Callable[P, Finding]) -> Check[P]:
        return Check(name, probe)

    return named


def said_by(error: IsorunError) -> str:
    """What *error* says, without the command that we are."""
    return error.reason if isinstance(error, Unavailable) else str(error)


def install(text: str, package: str) -> Remedy:
    """The remedy *text*, with the installation of *package* by the package manager of this machine, if it has one."""
    found = (words for words in _INSTALLERS if shutil.which(words[0]))
    return Remedy(text, *(Command((*words, package), as_root=True) for words in list(found)[:1]))
