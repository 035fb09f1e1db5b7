"""A process that syncs a user's files for ever, so that a test can kill it at any point.

For each line on stdin it forks a child, prints the child's pid, and prints `dead` once
that is so. A child writes generation after generation: every file of out/ holds the same
number, by `Workspace.sync` or, for the control, by a naive copy.
"""

import asyncio
import os
import shutil
import sys
from itertools import count
from pathlib import Path

from isorun.tools.workspace import Workspaces

FILES = [f"turn_1/files/{n}.txt" for n in range(12)] + [f"notes/deep/er/{n}.txt" for n in range(12)]
SIZE = 4000


def generation_of(out: Path) -> int | None:
    """The one number that every file of *out* holds; -1 for an empty folder, None for a mixture."""
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    if not found:
        return -1
    numbers = {data[:12] for data in found.values()}
    whole = all(len(data) == SIZE for data in found.values()) and set(found) == set(FILES)
    return int(numbers.pop()) if whole and len(numbers) == 1 else None


def write(out: Path, generation: int) -> None:
    for name in FILES:
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{generation:012d}".encode().ljust(SIZE, b"."))


async def sync_for_ever(root: Path, first: int) -> None:
    workspaces = Workspaces(root / "workspace", root / "sandbox")
    for generation in count(first):
        async with workspaces.open("alice") as space:
            write(space.out, generation)
            await space.sync()


def copy_for_ever(root: Path, first: int) -> None:
    """What a sync is without the exchange."""
    out = root / "workspace" / "alice" / "out"
    for generation in count(first):
        source = root / "sandbox" / "alice" / "out"
        write(source, generation)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(source, out)


def main() -> None:
    how, root = sys.argv[1], Path(sys.argv[2])
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            first = int(line)
            asyncio.run(sync_for_ever(root, first)) if how == "sync" else copy_for_ever(root, first)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("dead", flush=True)


if __name__ == "__main__":
    main()
