"""The controls of the attacks by files: what they do to a host that runs the program unsealed and trusts its folder."""

import os
import resource
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

MIB = 1 << 20
#: What the fixture `secret` has in a file of the host.
SECRET = "the host's own, not for programs"
_PROLOG = """
import os, socket, sys, time
from pathlib import Path
OUT = Path.cwd()
P = "turn_1/files/a.md"
os.makedirs("turn_1/files", exist_ok=True)
"""
#: What the attacks on the sealed side begin with, so that one text serves both.
PROLOG = "import os, socket, sys, time\nP = 'turn_1/files/a.md'\n"


def unsealed(folder: Path, code: str) -> Path:
    """`out/` as *code* leaves it, run by this user in a plain folder."""
    out = folder / "unsealed/out"
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", _PROLOG + textwrap.dedent(code)]
    subprocess.run(command, cwd=out, stdout=subprocess.DEVNULL, check=True, timeout=20)
    return out


def texts_in(folder: Path) -> str:
    """What all files beneath *folder* hold; links are followed."""
    return "\n".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


def copied(out: Path) -> Path:
    """A copy of *out* by the standard library, in this process: links are followed, names and modes are kept."""
    destination = out.parent / "copied"
    shutil.copytree(out, destination, symlinks=False)
    return destination


def opened(code: str, *arguments: str, memory: int = 0, file_bytes: int = 0, seconds: float = 20.0) -> str:
    """What *code* prints, run in a child with these ceilings, with the name of the exception that ended it.

    Raises `subprocess.TimeoutExpired` if it is not done after *seconds*.
    """

    def limited() -> None:
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        if file_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    whole = "import sys\ntry:\n" + textwrap.indent(textwrap.dedent(code), "    ")
    whole += "\nexcept BaseException as error:\n    print(type(error).__name__)\n"
    done = subprocess.run(
        [sys.executable, "-c", whole, *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        preexec_fn=limited,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    return done.stdout
