"""`isorun attack-matrix`: every class of attacks tried on this machine, each with its control."""

from __future__ import annotations

import sys
from itertools import count
from typing import TYPE_CHECKING

from isorun.cli.parsing import BACKEND, JSON

if TYPE_CHECKING:
    from collections.abc import Callable

    from isorun.cli.attacks.attack import Attack


OPTIONS = {"attack_matrix": (BACKEND, JSON)}


def attack_matrix(backend: str | None = None, json: bool = False) -> int:
    """Attack a sandbox of this machine, and say which walls held; exit 4 if one did not."""
    from collections import Counter
    from dataclasses import asdict

    from isorun.cli.attacks import matrix
    from isorun.cli.doctor.checkup import settings_with
    from isorun.cli.exits import EXIT
    from isorun.cli.show import print_json, print_table, say
    from isorun.core.errors import Unavailable

    with matrix.opened(settings_with(backend)) as (host, grounds):
        attacked = grounds.attacked
        rows = list(matrix.attack_all(host, grounds, _teller(len(matrix.ATTACKS), quiet=json)))
    counted = Counter(row.verdict for row in rows)
    if json:
        print_json({"attacked": attacked, "verdicts": dict(counted), "attacks": [asdict(row) for row in rows]})
    else:
        print_table(
            ("class", "attack", "verdict", "control", "reason"),
            [(row.kind, row.attack, row.verdict, row.control, row.reason) for row in rows],
        )
        say(f"{attacked}: " + ", ".join(f"{count} {verdict}" for verdict, count in counted.items()))
    return EXIT[Unavailable] if counted[matrix.NOT_HELD] else 0


def _teller(attacks: int, *, quiet: bool) -> Callable[[Attack], None]:
    """Says on a terminal's stderr which attack is tried, in one line that changes."""
    numbers = count(1)

    def tell(attack: Attack) -> None:
        if not quiet and sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{next(numbers)}/{attacks} {attack.kind}: {attack.name}")
            sys.stderr.flush()

    return tell
