"""`isorun doctor --fix`: for each failed row say what would be done, ask, do it, look again, and show the new row."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from isorun.backends.remedy import Command
from isorun.cli.doctor.checkup import Report, print_rows
from isorun.cli.show import say
from isorun.doctor.check import Row
from isorun.doctor.mend import by_hand, carry_out, commands


@dataclass(slots=True)
class Fixing:
    """*look* looks at everything anew. With *yes* it does not ask; with *quiet* nothing is printed but errors."""

    look: Callable[[], Report]
    yes: bool = False
    quiet: bool = False
    told: list[dict[str, object]] = field(default_factory=list)  # one for each row, as its JSON

    def mend(self, report: Report) -> Report:
        """Go through what failed, and what fails only after something was mended; what is found at the end."""
        seen: set[object] = set()
        while row := next((row for row in report.rows if not row.ok and _key(row) not in seen), None):
            seen.add(_key(row))
            if self._mended(row):
                report = self.look()
                now = next((one for one in report.rows if one.name == row.name), row)
                self.told[-1]["ok"] = now.ok
                if not self.quiet:
                    print_rows("looked at again", [now])
        return report

    def _mended(self, row: Row) -> bool:
        """Whether anything was done for *row*."""
        todo = commands(row)
        lines = by_hand(action for action in row.actions if action not in todo)
        if not row.actions:
            lines = [str(row.remedy)]
        outcome = self._done(row, todo)
        self.told.append(
            {"name": row.name, "commands": list(map(str, todo)), "outcome": outcome, "by_hand": lines, "ok": row.ok}
        )
        for line in lines:
            self._say(f"{row.name}: {line}")
        return outcome not in ("by hand", "not done")

    def _done(self, row: Row, todo: list[Command]) -> str:
        if not todo:
            return "by hand"
        self._say(f"{row.name}: {' && '.join(map(str, todo))}")
        if not self.yes and not self._asked():
            return "not done"
        if why := carry_out(todo, quiet=self.quiet):
            self._say(f"{row.name}: {why}")
        return why or "done"

    def _asked(self) -> bool:
        if self.quiet or not (sys.stdin.isatty() and sys.stdout.isatty()):
            self._say("not done, because there is no terminal to ask on: --yes does it")
            return False
        try:
            return input("do it? [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            return False

    def _say(self, text: str) -> None:
        if not self.quiet:
            say(text)


def _key(row: Row) -> object:
    """Two rows with the same actions are mended at once; else a row is its name."""
    return row.actions or row.name
