"""What people would use instead, doing the same work: write a hello file and end."""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from isorun.backends.environment import describe
from isorun.settings import Settings
from sandbox_runner.namespace.sandbox import find_bubblewrap

HELLO = "import os; open(os.path.join(os.environ['OUTPUT_DIR'], 'hello.txt'), 'w').write('hello')"
_SYSTEM = ("/usr", "/etc")


async def plain_python(code: str) -> float:
    """Seconds of one `python -c` without any wall."""
    with tempfile.TemporaryDirectory() as folder:
        return await _timed([sys.executable, "-I", "-c", code], {"OUTPUT_DIR": folder})


def bubblewrap_argv(folder: str, code: str) -> list[str]:
    """A cold Python in a bubblewrap sandbox with its own namespaces, as one would write it by hand."""
    program = find_bubblewrap()
    if program is None:
        raise SystemExit("bubblewrap is missing: the peer cannot be measured")
    argv = [
        program,
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
    ]
    for name in ("bin", "lib", "lib64"):
        if Path(f"/{name}").is_symlink():
            argv += ["--symlink", str(Path(f"/{name}").readlink()), f"/{name}"]
    environment = describe()
    for path in (*_SYSTEM, *environment.binds):
        argv += ["--ro-bind", path, path]
    argv += ["--tmpfs", "/tmp", "--bind", folder, "/out", "--setenv", "OUTPUT_DIR", "/out"]
    return [*argv, sys.executable, "-I", "-c", code]


async def bubblewrapped_python(code: str) -> float:
    """Seconds of one cold Python in bubblewrap."""
    with tempfile.TemporaryDirectory() as folder:
        return await _timed(bubblewrap_argv(folder, code), {})


IMAGE = Settings.load().image


def docker_is_there() -> bool:
    """Whether an engine answers and has an image with Python to measure."""
    docker = shutil.which("docker")
    return docker is not None and os.system(f"{docker} image inspect {IMAGE} >/dev/null 2>&1") == 0


async def docker_python(code: str) -> float:
    """Seconds of one hardened `docker run` of Python."""
    argv = [
        "docker",
        "run",
        "--rm",
        "--network",
        "none",
        "--read-only",
        "--cap-drop",
        "ALL",
        "--pids-limit",
        "128",
    ]
    argv += ["--security-opt", "no-new-privileges", "--memory", "1g", "--cpus", "1", "--tmpfs", "/out"]
    argv += ["-e", "OUTPUT_DIR=/out", IMAGE, "python3", "-I", "-c", code]
    return await _timed(argv, {})


async def _timed(argv: Sequence[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *argv,
        env={"PATH": "/usr/bin:/bin", **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"a peer failed: {argv[0]}: {errors.decode(errors='replace')[-500:]}")
    return time.perf_counter() - began
