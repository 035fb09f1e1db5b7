"""What to do about a file that is not there, or may not be written: by where its path points.

Pure: from values to text. A path of the program's is only compared; shown are names of ours, and folders of plain
letters.
"""

import errno
import re
from difflib import get_close_matches
from posixpath import basename, dirname, normpath

from isorun.core.text import composed, folded, one_line
from isorun.runtime.hints.seen import OUT, WORK, Seen

#: An error of the system's, as Python prints it: its number, and the path between quotes of either kind.
ERRNO_TEXT = re.compile(r"""\[Errno ([0-9]{1,3})\] [^:\n]{1,80}: b?(?:'([^'\n]{1,1000})'|"([^"\n]{1,1000})")""")
# What libraries say of a file or folder that is not there; the group is its path.
_NOT_THERE = tuple(
    map(
        re.compile,
        (
            r"Cannot save file into a non-existent directory: '([^'\n]{1,1000})'",
            r"Failed to open local file '([^'\n]{1,1000})'",
            r"[Uu]nable to (?:synchronously )?(?:open|create) file \(unable to open file: name = '([^'\n]{1,1000})'",
            r"^([^\n]{1,1000}) not found\.$",
        ),
    )
)
_SQLITE = "unable to open database file"
_OURS = ("main.py", "user_code.py")
_WRITABLE = (OUT, WORK, "/tmp", "/dev/shm")  # noqa: S108 - places inside, no files of ours
_SYSTEM = ("/proc", "/sys", "/dev", "/run", "/boot")
_TERMINALS = ("/dev/tty", "/dev/ptmx", "/dev/pts", "/dev/console")
_PLAIN = re.compile(r"[\w./ -]{1,100}")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_SHOWN = 5  # names of given files
_COMPARED = 200  # of them

_HOMES = ("/tmp/Downloads", "/tmp/Desktop", "/tmp/Documents")  # noqa: S108 - HOME is /tmp
_ADDRESS = re.compile(r"[a-z][a-z0-9+]{1,9}:/")

NO_COMMAND = "no such command is in the sandbox: use Python, or another command"
NO_ADDRESS = "that is an address, and a program has no network: give it the file with --input (inputs=)"
NO_TERMINAL = "a program has no terminal and can make none: use pipes, and shutil.get_terminal_size() for a width"
NO_SYSTEM = "the sandbox does not show that file of the machine: do without it"
PLACES = f"files go to OUTPUT_DIR ({OUT}, the working directory) or /tmp; given files are in {WORK}"
ELSEWHERE = "a rename cannot cross from one place of the sandbox into another: use shutil.move"


def missing_in(text: str) -> str | None:
    """The path that *text* says is not there; None if it speaks of none."""
    if (found := ERRNO_TEXT.search(text)) and int(found[1]) == errno.ENOENT:
        return found[2] or found[3]
    return next((match[1] for pattern in _NOT_THERE if (match := pattern.search(text))), None)


def absent_hint(text: str, source: str, seen: Seen) -> str:
    """For an error whose *text* says that something is not there; *source*: the line that raised it."""
    if _SQLITE in text:
        return f"the folder of that database is missing (make it with os.makedirs), or is not writable: {PLACES}"
    path = missing_in(text)
    if path is None:
        return ""
    if "child_exception_type" in source or "posix_spawn" in source:  # of subprocess
        return NO_COMMAND
    if _ADDRESS.match(path):
        return NO_ADDRESS
    if hint := _given_elsewhere(path, seen):
        return hint
    if "non-existent directory" in text:
        path = f"{path}/x"
    return _outside(path) or _inside(path, seen)


def refused_hint(text: str, seen: Seen) -> str:
    """For an error whose *text* says that something may not be written."""
    found = ERRNO_TEXT.search(text)
    at = _whole(found[2] or found[3]) if found else ""
    if at and _is_below(at, _SYSTEM) and not _is_below(at, _WRITABLE):
        return NO_SYSTEM
    return f"that path is not writable: write to {output(seen.turn)} or /tmp"


def output(turn: str | None) -> str:
    """Where a file of the program's belongs."""
    return f"OUTPUT_DIR/{one_line(turn)}/files" if turn else "OUTPUT_DIR"


def _whole(path: str) -> str:
    at = normpath(path if path.startswith("/") else f"{OUT}/{path}")
    return f"{OUT}{at.removeprefix('/mnt/data')}" if _is_below(at, ("/mnt/data",)) else at


def _is_below(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(f"{root}/") for root in roots)


def _given_elsewhere(missing: str, seen: Seen) -> str:
    """For a file that is in work/ and was looked for elsewhere; only a name of ours is shown."""
    at = _whole(missing)
    path = at.removeprefix(f"{OUT}/")
    name = basename(path)
    found = path if path in seen.given else None
    found = found or next((given for given in seen.given if basename(given) == name), None)
    found = found or next((given for given in seen.given if folded(basename(given)) == folded(name)), None)
    if found is None or at == f"{WORK}/{found}":
        return ""
    form = ""
    if basename(found) != name and composed(basename(found)) == composed(name):
        form = ", its name in another Unicode form, which looks the same: take the name from os.listdir"
    return f"{one_line(found)} is at {WORK}/{one_line(found)}; the working directory is {OUT}{form}"


def _outside(path: str) -> str:
    """For a path that leads out of the four writable places."""
    at = _whole(path)
    if _is_below(at, _TERMINALS):
        return NO_TERMINAL
    if _WINDOWS.match(path):
        return f"there are no drives: {PLACES}"
    if path.startswith("~") or _is_below(at, _HOMES):
        return f"no home folder of yours is in the sandbox: {PLACES}"
    if _is_below(at, _WRITABLE):
        return ""
    return NO_SYSTEM if _is_below(at, _SYSTEM) else f"that path is not in the sandbox: {PLACES}"


def _inside(path: str, seen: Seen) -> str:
    folder = dirname(_whole(path))
    if folder not in _WRITABLE and not _is_known(folder, seen):
        shown = folder.removeprefix(f"{OUT}/")
        named = f'"{shown}"' if _PLAIN.fullmatch(shown) else "FOLDER"
        return f"the folder of that file may be missing: make it first, with os.makedirs({named}, exist_ok=True)"
    given = _most_alike(basename(path), [name for name in seen.given if name not in _OURS])
    if not given:
        return "no such file was given to this run: write it first, or give it with --input (inputs=)"
    more = f" and {len(given) - _SHOWN} more" if len(given) > _SHOWN else ""
    return f"no such file is there; the given files, in {WORK}: {', '.join(map(one_line, given[:_SHOWN]))}{more}"


def _most_alike(name: str, given: list[str]) -> list[str]:
    """*given*, sorted, but those first whose names are nearly *name*: the program most likely means one of them."""
    by_name = {basename(path): path for path in sorted(given)[:_COMPARED]}
    alike = [by_name[near] for near in get_close_matches(name[:255], by_name, n=_SHOWN)]
    return [*alike, *sorted(set(given).difference(alike))]


def _is_known(folder: str, seen: Seen) -> bool:
    kept = (f"{OUT}/{path}" for path in seen.files)
    given = (f"{WORK}/{path}" for path in seen.given)
    return any(path.startswith(f"{folder}/") for files in (kept, given) for path in files)
