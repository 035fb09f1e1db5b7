"""The service as a process of its own, with its own data and workspace."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

END_S = 60


@dataclass
class Served:
    """A service that runs: where, a key of each of two users, its process, and where its log is.

    `link` is the address that it printed: it signs one browser in.
    """

    url: str
    key: str
    other_key: str
    process: subprocess.Popen[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    link: str = ""


def start_service(folder: Path, **more: str) -> Served:
    """A service on a free port, with its data below *folder*; *more*: of its environment."""
    data, workspace = folder / "data", folder / "workspace"
    own = {"ISORUN_SERVICE_DATA": str(data), "ISORUN_WORKSPACE_ROOT": str(workspace)}
    # Else scenarios of several services would wait for one another: they are the same user's.
    own |= {f"ISO_RUNTIME_{name}_ROOT": str(folder / name.lower()) for name in ("USER_WORKSPACE", "SANDBOX")}
    environment = {**os.environ, **own, **more}
    argv = [sys.executable, "-m", "isorun"]
    keys = [
        subprocess.run(
            [*argv, "users", "add", name], env=environment, capture_output=True, text=True, check=True, timeout=END_S
        ).stdout.split()[-1]
        for name in ("alice", "bob")
    ]
    log = folder / "service.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*argv, "serve", "--port", "0"], env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    assert process.stdout is not None
    line = process.stdout.readline()  # its end, if the process ends without one
    if "http://" not in line:
        process.stdout.close()
        process.wait(END_S)
        raise AssertionError(f"{line!r}\n{log.read_text()}")
    link = line.split()[-1]
    return Served(link.partition("/login")[0], keys[0], keys[1], process, log, environment, link)


def end_service(served: Served) -> None:
    """Ask it to end, as its supervisor would."""
    with contextlib.suppress(ProcessLookupError):
        served.process.send_signal(signal.SIGTERM)
    try:
        served.process.wait(END_S)
    finally:
        served.process.kill()
        assert served.process.stdout is not None
        served.process.stdout.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One service for the tests of a module; each test has its own runs."""
    running = start_service(tmp_path_factory.mktemp("service"))
    try:
        yield running
    finally:
        end_service(running)
