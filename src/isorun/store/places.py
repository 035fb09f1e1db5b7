"""Files that a run left elsewhere than in out/, or than where they are promised: found, and put into their place.

All of it is the host's own copy. What is in its place already stays.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from isorun.core.contract.items import ContractItem
from isorun.core.text import file_name
from isorun.store.collect import Collected, FileRecord, collect

_SHOWN = 10  # names of files


def beside(
    work: int,
    out: Path,
    collected: Collected,
    *,
    known: Collection[str],
    reserved: Callable[[str], bool],
    max_bytes: int,
    max_entries: int,
) -> Collected:
    """*collected*, with the files that a program made in the folder *work*, beside itself, copied to *out* as well.

    Not those below a name in *known*, paths of what was there before it; hidden ones are the loader's. A file whose
    place in out/ is taken, and what is not a plain file, is passed over: only out/ is promised to come back.
    """
    there = {path.partition("/")[0] for path in known}
    names = {name for name in os.listdir(work) if name not in there and not name.startswith(".")}
    if not names:
        return collected
    left = max_bytes - sum(file.bytes for file in collected.files.values())
    found = collect(
        work,
        out,
        reserved=lambda path: path.partition("/")[0] not in names or reserved(path),
        max_bytes=max(left, 0),
        max_entries=max_entries,
    )
    return replace(collected, files={**collected.files, **found.files}, beside=tuple(sorted(found.files)))


def kept_elsewhere(items: Collection[ContractItem], made: Mapping[str, FileRecord]) -> Iterator[tuple[str, str]]:
    """Where a promise without a turn was kept instead of at its path, and that path.

    That is `out/NAME`; else, if the run made just one file NAME in any other folder than a turn's, that one.
    """
    lacking = [item for item in items if item.bare and item.path not in made]
    promised = {item.path for item in items} if lacking else set()
    names: dict[str, list[str]] = {}
    for path in made if lacking else ():
        if path not in promised and not path.startswith("turn_"):
            names.setdefault(path.rpartition("/")[2], []).append(path)
    for item in lacking:
        others = [path for path in names.get(item.bare.rpartition("/")[2], ()) if path.endswith(f"/{item.bare}")]
        if item.bare in made:
            yield item.bare, item.path
        elif len(others) == 1:
            yield others[0], item.path


def notices_of(collected: Collected) -> Iterator[str]:
    """What was done, as notices."""
    if paths := collected.beside:
        names = ", ".join(map(file_name, paths[:_SHOWN]))
        more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
        yield f"written beside the program, in work/, and taken as if in out/: {names}{more}"
    for path, promised in collected.moved:
        yield f"out/{path} was moved to {promised}, where it is promised"


def place(out: Path, collected: Collected, wanted: Mapping[str, str]) -> Collected:
    """*collected*, with each file that *wanted* names moved to where it says, both below the host's folder *out*.

    What is there already stays, and so does a file whose place cannot be made: its promise is then broken as before.
    """
    files, moved = dict(collected.files), []
    for bare, path in wanted.items():
        if path in files or bare not in files:
            continue
        try:
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / bare).rename(out / path)
        except OSError:
            continue
        files[path] = replace(files.pop(bare), path=path)
        moved.append((bare, path))
    return replace(collected, files=files, moved=tuple(moved))
