"""What people would use instead, doing the same work: write a hello file and end."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from bench import chromium
from bench.fork_server import fork_server
from isorun.backends.environment import beneath, describe
from isorun.settings import Settings
from sandbox_runner.namespace.sandbox import find_bubblewrap

HELLO = "import os; open(os.path.join(os.environ['OUTPUT_DIR'], 'hello.txt'), 'w').write('hello')"
_SYSTEM = ("/usr", "/etc")


async def plain_python(code: str) -> float:
    """Seconds of one `python -c` without any wall."""
    with tempfile.TemporaryDirectory() as folder:
        return await _timed([sys.executable, "-I", "-c", code], {"OUTPUT_DIR": folder})


def bubblewrap_argv(folder: str, code: str, python: str = sys.executable) -> list[str]:
    """A cold *python* in a bubblewrap sandbox with its own namespaces, as one would write it by hand.

    Wherever it lies: the folders it is read from are mounted last, so that no other mount hides them.
    """
    program = find_bubblewrap()
    if program is None:
        raise SystemExit("bubblewrap is missing: the peer cannot be measured")
    argv = [
        program,
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        *("--proc", "/proc"),
        *("--dev", "/dev"),
        *("--tmpfs", "/tmp"),
    ]
    for name in ("bin", "lib", "lib64"):
        if Path(f"/{name}").is_symlink():
            argv += ["--symlink", str(Path(f"/{name}").readlink()), f"/{name}"]
    environment = describe(python)
    shown = (*_SYSTEM, *environment.binds)
    for path in shown:
        argv += ["--ro-bind", path, path]
    for target, path in environment.symlinks:
        if not any(beneath(path, root) for root in shown):
            argv += ["--symlink", target, path]
    argv += ["--bind", folder, "/out", "--setenv", "OUTPUT_DIR", "/out"]
    return [*argv, python, "-I", "-c", code]


async def bubblewrapped_python(code: str, python: str = sys.executable) -> float:
    """Seconds of one cold *python* in bubblewrap."""
    with tempfile.TemporaryDirectory() as folder:
        return await _timed(bubblewrap_argv(folder, code, python), {})


def sandlock_is_there() -> bool:
    """Whether the package can be imported; isorun does not need it."""
    return find_spec("sandlock") is not None


async def sandlocked_python(code: str) -> float:
    """Seconds of one cold Python in sandlock (Landlock and seccomp, no namespaces), shown what bubblewrap is shown."""
    return await asyncio.to_thread(_sandlocked, code)


def _sandlocked(code: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        sandbox = import_module("sandlock").Sandbox(
            fs_readable=[*_SYSTEM, "/proc", "/dev", *describe().binds],
            fs_writable=[folder],
            env={"OUTPUT_DIR": folder},
        )
        began = time.perf_counter()
        done = sandbox.run([sys.executable, "-I", "-c", code])
        seconds = time.perf_counter() - began
        if not done.success or not Path(folder, "hello.txt").exists():
            raise SystemExit(f"a peer failed: sandlock: {done}")
    return seconds


IMAGE = Settings.load().image


def docker_is_there() -> bool:
    """Whether an engine answers and has an image with Python to measure."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    asked = subprocess.run([docker, "image", "inspect", IMAGE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return asked.returncode == 0


async def docker_python(code: str) -> float:
    """Seconds of one hardened `docker run` of Python, by the program and the engine that `docker_is_there` asked."""
    argv = [
        shutil.which("docker") or "docker",
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
    return await _timed(argv, os.environ)


async def check() -> None:
    """Run each once. Raises SystemExit for one that does not work: better known before the minutes than after them."""
    await plain_python(HELLO)
    await bubblewrapped_python(HELLO)
    async with fork_server(HELLO) as forked:
        await forked()
    if sandlock_is_there():
        await sandlocked_python(HELLO)
    if docker_is_there():
        await docker_python(HELLO)
    await chromium.check()


async def _timed(argv: Sequence[str], env: Mapping[str, str]) -> float:
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
