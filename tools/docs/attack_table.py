"""The table of attacks in docs/security.md: made from what `isorun attack-matrix --json` printed. For contributors.

isorun attack-matrix --backend namespace --json >namespace.json     # as root, as an ordinary user, on docker, on gVisor
python tools/docs/attack_table.py *.json                            # print the table
python tools/docs/attack_table.py --write *.json                    # put it into the page
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
BEGIN, END = "## The attack matrix\n", "\n## The folder that you stand in\n"  # the headings that it stands between
COLUMNS = ("namespace", "namespace without a cgroup", "docker", "docker with gVisor")
SHORT = {"held": "held", "not held": "**not held**", "not applicable": "–"}


def column_of(attacked: str) -> str:
    """The column for what was attacked, in the words of the command."""
    backend, _, limits = attacked.partition(", ")
    if backend == "namespace":
        return COLUMNS[1] if limits == "rlimits+watcher" else COLUMNS[0]
    return COLUMNS[3] if "runsc" in backend else COLUMNS[2]


def rows_of(told: Mapping[str, Any]) -> dict[tuple[str, str, str], str]:
    """The verdicts of one run of the command, by class, attack and control."""
    return {(row["kind"], row["attack"], row["control"]): row["verdict"] for row in told["attacks"]}


def table(runs: Iterable[Mapping[str, Any]]) -> str:
    """A line for each attack, a column for each kind of sandbox."""
    verdicts = {column_of(told["attacked"]): rows_of(told) for told in runs}
    every = dict.fromkeys(key for rows in verdicts.values() for key in rows)
    lines = [f"| class | attack | control | {' | '.join(COLUMNS)} |", "|---" * (3 + len(COLUMNS)) + "|"]
    for key in every:
        shown = (SHORT.get(verdicts.get(column, {}).get(key, ""), "not tried") for column in COLUMNS)
        lines.append(f"| {' | '.join(key)} | {' | '.join(shown)} |")
    return "\n".join(lines)


def written(text: str, made: str) -> str:
    """*text* with *made* in place of the table of its section. Raises `ValueError` if a heading is missing."""
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    intro = text[begin:end].partition("\n| class |")[0]
    return f"{text[:begin]}{intro}\n{made}\n{text[end:]}"


def main() -> int:
    """Print the table, or write it."""
    write, *paths = sys.argv[1:] if sys.argv[1:2] == ["--write"] else ["", *sys.argv[1:]]
    made = table(json.loads(Path(path).read_text(encoding="utf-8")) for path in paths)
    if write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
    else:
        print(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
