"""Which Python a program runs on, and which paths of the host it needs to see for that.

Decides from facts about an interpreter; the facts of ours are at hand, another one
is asked once. Everything found here is shown read-only, at its own path.
"""

import json
import os
import shutil
import site
import sys
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from isorun.core.errors import Unavailable

_OLDEST = (3, 11)
_ASK_S = 20.0
#: The program's environment starts from this one, so that what preloads cached about it stays true.
ENV = {
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "HOME": "/tmp",
    "USER": "isorun",
    "LOGNAME": "isorun",
    "TMPDIR": "/tmp",
    "PYTHONUTF8": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "MPLCONFIGDIR": "/tmp/matplotlib",
    "MPLBACKEND": "Agg",
    "OPENBLAS_NUM_THREADS": "1",  # threads started by a preload would not survive the fork
    "OMP_NUM_THREADS": "1",
    # There is no network: what would try again until its time is up fails at once.
    "PIP_NO_INDEX": "1",
    "PIP_RETRIES": "0",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "UV_OFFLINE": "1",
    "CONDA_OFFLINE": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
_QUESTION = """
import json, site, sys, sysconfig
print(json.dumps([sys.prefix, sys.base_prefix, sys.exec_prefix, list(sys.version_info[:3]), site.getsitepackages(),
                  [p for p in sys.path if p], open("/proc/self/maps").read(), sys.executable or ""]))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """An interpreter and its packages, as the jail has to show them."""

    python: str
    version: str
    sys_path: tuple[str, ...]
    binds: tuple[str, ...]  # host paths, shown at the same path
    symlinks: tuple[tuple[str, str], ...]  # (target, path)


def environment_for(python: str) -> dict[str, str]:
    """What every program starts with, before what its run adds."""
    return {"PATH": f"{Path(python).parent}:/usr/local/bin:/usr/bin:/bin", **ENV}


def own_package() -> Path:
    """The folder that holds the `isorun` package."""
    return Path(__file__).resolve().parents[2]


def describe(python: str | None = None) -> Environment:
    """The environment of *python*, by default of the interpreter that runs isorun.

    *python* is a program, by its path or by a name on PATH, or the folder of a virtual environment.
    Raises `Unavailable` if it cannot be run or is older than Python 3.11.
    """
    if python is None or os.path.abspath(python) == os.path.abspath(sys.executable):  # noqa: PTH100 - resolving would leave the venv
        executable = sys.executable
        facts = (
            sys.prefix,
            sys.base_prefix,
            sys.exec_prefix,
            tuple(sys.version_info[:3]),
            _packages(),
            sys.path,
            Path("/proc/self/maps").read_text("utf-8", "surrogateescape"),
        )
    else:
        executable, facts = _ask(python)
    prefix, base_prefix, exec_prefix, version, packages, path, maps = facts
    if tuple(version[:2]) < _OLDEST:
        raise Unavailable(f"{executable} is Python {version[0]}.{version[1]}; programs need 3.11 or newer")
    shown = [str(p) for p in path if p and _is_library(p, (prefix, base_prefix, exec_prefix), packages)]
    roots = [prefix, base_prefix, exec_prefix, *packages, *_own_libraries(maps)]
    return Environment(
        python=executable,
        version=".".join(map(str, version)),
        sys_path=tuple(dict.fromkeys(shown)),
        binds=outermost([p for p in roots if os.path.exists(p)], covered=("/usr",)),  # noqa: PTH110 - strings to the end: pathlib costs start-up time
        symlinks=links_to(executable, os.readlink),
    )


def outermost(paths: Iterable[str], *, covered: Iterable[str]) -> tuple[str, ...]:
    """*paths* without those that lie at or beneath another one, or beneath *covered*."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not any(beneath(path, root) for root in (*covered, *kept)):
            kept.append(path)
    return tuple(kept)


def beneath(path: str, root: str) -> bool:
    """Whether *path* is *root* or lies inside it, by whole components (`/usr2` is not in `/usr`)."""
    return path == root or path.startswith(root.rstrip("/") + "/")


def links_to(path: str, readlink: Callable[[str], str]) -> tuple[tuple[str, str], ...]:
    """The symbolic links that *path* goes through to its file, as (target, link)."""
    found: list[tuple[str, str]] = []
    for _ in range(32):
        try:
            target = readlink(path)
        except OSError:
            return tuple(found)
        found.append((target, path))
        path = os.path.normpath(os.path.join(os.path.dirname(path), target))  # noqa: PTH118, PTH120 - pathlib resolves no ".." without links
    return tuple(found)


def _own_libraries(maps: str) -> list[str]:
    """Where the interpreter is a shared library, that file: a moved installation finds it at its old place alone."""
    files = (line[line.index("/") :] for line in maps.splitlines() if "/libpython3" in line)
    return [path for path in dict.fromkeys(files) if os.path.basename(path).startswith("libpython3")]  # noqa: PTH119 - strings to the end: pathlib costs start-up time


def _packages() -> list[str]:
    paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        paths.append(site.getusersitepackages())
    return [p for p in dict.fromkeys(paths) if os.path.isdir(p)]  # noqa: PTH112 - strings to the end: pathlib costs start-up time


def _is_library(path: str, prefixes: Iterable[str], packages: Iterable[str]) -> bool:
    # The folder of a script, or of a checkout, is on sys.path too and is nobody's library.
    inside = any(beneath(path, root) for root in packages)
    return inside or any(beneath(path, f"{root}/lib") or beneath(path, f"{root}/lib64") for root in prefixes)


def _ask(given: str) -> tuple[str, tuple[str, str, str, tuple[int, ...], list[str], list[str], str]]:
    import subprocess  # of a cold start on our own Python, asyncio brings it later

    python = _program(given)
    try:
        answer = subprocess.run(
            [python, "-I", "-c", _QUESTION], capture_output=True, timeout=_ASK_S, check=True, env={}
        )
        prefix, base, exec_prefix, version, packages, path, maps, executable = json.loads(answer.stdout)
    except (ValueError, subprocess.CalledProcessError) as error:
        raise _unusable(given, "it does not answer as a Python does") from error
    except (OSError, subprocess.SubprocessError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"no answer in {_ASK_S:g} s"
        raise _unusable(given, str(reason)) from error
    # Its own word for itself: a version manager's shim is a script, which starts another program.
    return os.path.abspath(executable or python), (prefix, base, exec_prefix, tuple(version), packages, path, maps)  # noqa: PTH100 - pathlib has no abspath that drops ".."


def _program(given: str) -> str:
    """The program that *given* stands for. Raises `Unavailable`."""
    found = given if "/" in given else shutil.which(given) or given
    if os.path.isdir(found):  # noqa: PTH112 - strings to the end: pathlib costs start-up time
        inside = f"{found.rstrip('/')}/bin/python"
        if not os.path.exists(inside):  # noqa: PTH110 - as above
            raise _unusable(given, "the folder has no bin/python")
        return inside
    if not os.path.exists(found):  # noqa: PTH110 - as above
        raise _unusable(given, "no such file" if "/" in given else "no such program on PATH, and no such folder here")
    return found


def _unusable(given: str, reason: str) -> Unavailable:
    return Unavailable(
        f"the program's Python cannot be run: {given}: {reason}; name a Python 3.11 or newer, such as VENV/bin/python"
    )
