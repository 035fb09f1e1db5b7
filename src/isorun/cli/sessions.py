"""`isorun sessions`: the files that are carried from run to run, and their removal."""

from __future__ import annotations

from isorun.cli.parsing import JSON, option

OPTIONS = {
    "ls": (JSON,),
    "rm": (option("names NAME", "The sessions' names.", nargs="+"), JSON),
}


def ls(json: bool = False) -> int:
    """The sessions, by name."""
    from dataclasses import asdict

    from isorun.cli.runs import stored_root, when
    from isorun.cli.show import print_json, print_table, say
    from isorun.cli.verdict import size
    from isorun.store.sessions import listing

    root = stored_root()
    found = listing(root)
    if json:
        print_json([asdict(one) for one in found])
    elif not found:
        say(f"no sessions in {root}; `isorun run --session NAME` makes one")
    else:
        rows = [
            (one.name, str(one.files), size(one.bytes), "now" if one.in_use else when(one.last_used)) for one in found
        ]
        print_table(("name", "files", "size", "last used UTC"), rows, whole=("name", "last used UTC"))
    return 0


def rm(names: list[str], json: bool = False) -> int:
    """Remove sessions and their files."""
    from isorun.cli.runs import stored_root
    from isorun.cli.show import print_json, say
    from isorun.core.ids import check_session
    from isorun.store.sessions import remove

    root = stored_root()
    for name in names:  # all, before any is removed
        check_session(name)
    for name in names:
        remove(root, name)
        if not json:
            say(f"removed {name}")
    if json:
        print_json({"removed": names})
    return 0
