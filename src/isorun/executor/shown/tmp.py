"""Files in /tmp, which is also the home folder, that a program may have meant to keep: nothing of it comes back.

Their names are noted, for the host to tell if the run has left no file; but not hidden ones, and those of `tempfile`.
"""

import os
import re

_MADE_UP = re.compile(r"\.|tmp[a-z0-9_]{8}|pymp-|[^.]*$")  # the last: a result has a suffix
_FOLDERS = ("/tmp", "/tmp/output", "/tmp/outputs", "/tmp/results")
_MOST = 10


def note(at: str) -> None:
    """Write the names to the file *at*, one a line; no file without a name."""
    names = [name for folder in _FOLDERS for name in _files(folder)][:_MOST]
    if names:
        with open(
            os.open(at, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb"
        ) as file:
            file.write("\n".join(names).encode("utf-8", "replace"))


def _files(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        found = [entry.path for entry in entries if not _MADE_UP.match(entry.name) and entry.is_file()]
    return sorted(name for name in found if "\n" not in name)
