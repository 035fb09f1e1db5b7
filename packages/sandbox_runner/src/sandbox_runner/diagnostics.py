"""What a caller writes down about a sandbox that stands, beside its records: its commands, its resolver, its container.

Best effort: what fails is said in what is returned or written, and nothing raises `OSError`. A sandbox may print
without end, and may put a link under the name of any file here: so what is kept has a bound, and each file is
made new in the artifacts directory, which is opened without following a link.
"""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from sandbox_runner.docker.command import PROGRAM_VARIABLE
from sandbox_runner.docker.container import ABOUT
from sandbox_runner.execution import die_with_parent
from sandbox_runner.records import CONTAINER_INSPECT, CONTAINER_LOGS, SANDBOX, publish
from sandbox_runner.state import StateFolder
from sandbox_runner.text import plain_end

DNS_SNAPSHOT = "dns_snapshot.txt"
REDACTED = "<redacted>"
_TIMEOUT_S = 60.0
_MOST = 4 << 20  # bytes of one command's output
_SAID_LINES, _SAID_CHARS = 20, 2000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PROBE = """\
for name do
    if command -v -- "$name" >/dev/null 2>&1; then echo "$name=1"; else echo "$name=0"; fi
done
echo "uid=$(id -u)"
"""
_RESOLVER = """\
for file in /etc/resolv.conf /etc/hosts /etc/nsswitch.conf; do
    echo "== $file"
    while IFS= read -r line || [ -n "$line" ]; do echo "$line"; done < "$file"
done
echo "== localhost"
getent hosts localhost
"""


def probe_commands_in_container(
    *, command_prefix: Sequence[str], commands: Iterable[str]
) -> tuple[dict[str, bool], dict[str, Any]]:
    """Which of *commands* a sandbox has, by name, and how that was found out.

    The second has `exit_code`, `stderr` and, if the sandbox said it, its `uid`; or `error`, with nothing in the first.
    """
    wanted = [name for name in commands if isinstance(name, str) and name.strip()]
    if not wanted:
        return {}, {}
    try:
        code, out, err = _run([*command_prefix, "sh", "-c", _PROBE, "sh", *wanted])
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return {}, {"error": str(error)}
    present: dict[str, bool] = {}
    told: dict[str, Any] = {"exit_code": code, "stderr": plain_end(err.strip(), _SAID_LINES, _SAID_CHARS)}
    for line in out.splitlines():
        name, _, value = line.rpartition("=")
        if name in wanted and name not in present and value in ("0", "1"):
            present[name] = value == "1"
        elif name == "uid" and value.isascii() and value.isdigit() and len(value) <= 10:
            told["uid"] = int(value)
    return present, told


def capture_dns_snapshot(*, command_prefix: Sequence[str], artifacts_dir: str | os.PathLike[str]) -> None:
    """Write what a sandbox has to resolve names with to `dns_snapshot.txt` in *artifacts_dir*."""
    _keep(artifacts_dir, DNS_SNAPSHOT, lambda: _told(*_run([*command_prefix, "sh", "-c", _RESOLVER])))


def capture_container_artifacts(*, container_name: str, artifacts_dir: str | os.PathLike[str]) -> None:
    """Write what the engine has of a container to `container_logs.txt` and `container_inspect.json`.

    Of the variables that the sandbox was allowed, or given, the value is left out, should the engine show one.
    """
    if not container_name or container_name.startswith("-"):
        return
    docker = os.environ.get(PROGRAM_VARIABLE) or "docker"
    _keep(artifacts_dir, CONTAINER_LOGS, lambda: _told(*_run([docker, "logs", container_name])))
    secret = _allowed(container_name, artifacts_dir)
    _keep(artifacts_dir, CONTAINER_INSPECT, lambda: _inspected(*_run([docker, "inspect", container_name]), secret))


def _run(argv: Sequence[str]) -> tuple[int, str, str]:
    """The exit code of *argv*, and what it printed; who prints more than `_MOST` is ended."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            timeout=_TIMEOUT_S,
            check=False,
            preexec_fn=_bounded,
        )
        # Whoever stands in for `run` may give the texts themselves.
        return done.returncode, _text(done.stdout, out), _text(done.stderr, err)


def _text(given: object, file: IO[bytes]) -> str:
    if isinstance(given, str):
        return given
    file.seek(0)
    return file.read(_MOST).decode("utf-8", "replace")


def _bounded() -> None:
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MOST, _MOST))


def _keep(artifacts_dir: str | os.PathLike[str], name: str, told: Callable[[], bytes]) -> None:
    """Write what *told* gives, or why it gives nothing, to a new file *name*."""
    with suppress(OSError):
        if _is_led_away(artifacts_dir):
            return
        Path(artifacts_dir).mkdir(parents=True, exist_ok=True)
        directory = os.open(artifacts_dir, _FOLDER)
        try:
            if _is_led_away(artifacts_dir, directory):
                return
            try:
                data = told()
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                data = f"{name} could not be captured: {error}\n".encode()
            publish(directory, name, data)
        finally:
            os.close(directory)


def _is_led_away(artifacts_dir: str | os.PathLike[str], opened: int | None = None) -> bool:
    """Whether a link on the way leads to a folder that has no records of a sandbox.

    Where the artifacts lie below what the sandbox can write, it may have put a link above them.
    """
    named = os.path.abspath(artifacts_dir)  # noqa: PTH100 - `resolve` would follow the link that is looked for
    real = os.path.realpath(named if opened is None else f"/proc/self/fd/{opened}")
    if real == named:
        return False
    try:
        found = Path(real, SANDBOX).lstat()
    except OSError:
        return True
    return not stat.S_ISREG(found.st_mode)


def _told(code: int, out: str, err: str) -> bytes:
    return f"exit_code={code}\n\nstdout:\n{out.rstrip()}\n\nstderr:\n{err.rstrip()}\n".encode("utf-8", "replace")


def _inspected(code: int, out: str, err: str, secret: set[str]) -> bytes:
    """What the engine says, without the values of the variables in *secret*."""
    if code:
        return _told(code, out, err)
    found = json.loads(out)
    for one in found if isinstance(found, list) else ():
        config = one.get("Config") if isinstance(one, dict) else None
        variables = config.get("Env") if isinstance(config, dict) else None
        if isinstance(config, dict) and isinstance(variables, list):
            config["Env"] = [_redacted(variable, secret) for variable in variables]
    return json.dumps(found, indent=1).encode() + b"\n"


def _redacted(variable: object, secret: set[str]) -> object:
    name, sign, _ = str(variable).partition("=")
    return f"{name}={REDACTED}" if sign and name in secret else variable


def _allowed(container_name: str, artifacts_dir: str | os.PathLike[str]) -> set[str]:
    """The names of variables that the sandbox got from outside: by our own state, and by what its record claims."""
    names: set[str] = set()
    with suppress(OSError, ValueError, AttributeError, TypeError):
        state = StateFolder.find(container_name)
        about = json.loads((state.read(ABOUT) if state else None) or b"{}")
        names |= {*about.get("env_allowlist", ()), *about.get("overridden", ())}
    with suppress(OSError, ValueError, AttributeError, TypeError, RecursionError):
        record = json.loads(_record(artifacts_dir))
        said = record.get("environment") or {}
        listed = (record.get("env_allowlist"), said.get("allowed"), said.get("overridden"))
        names |= {name for part in listed for name in part or () if isinstance(name, str)}
    return names


def _record(artifacts_dir: str | os.PathLike[str]) -> bytes:
    """The beginning of `sandbox.json`, which the sandbox may have replaced."""
    directory = os.open(artifacts_dir, _FOLDER)
    try:
        descriptor = os.open(SANDBOX, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(_MOST)
    finally:
        os.close(directory)
