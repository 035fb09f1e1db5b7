"""The service as a process of its own, with its own data and workspace."""

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conformance.conftest import inherited

END_S = 60
USERS = ("alice", "bob")


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


def start_service(folder: Path, *, beside: Served | None = None, within: Sequence[str] = (), **more: str) -> Served:
    """A service on a free port, with its data below *folder*; *more*: of its environment.

    *beside*: another process of the same service, which has the same users. *within*: a command that becomes the one
    behind it; the service is started by that, and the users are made without it. An `AssertionError` has the log of a
    service that did not start.
    """
    own = {"ISORUN_SERVICE_DATA": str(folder / "data"), "ISORUN_WORKSPACE_ROOT": str(folder / "workspace")}
    # Else scenarios of several services would wait for one another: they are the same user's.
    own |= {f"ISO_RUNTIME_{name}_ROOT": str(folder / name.lower()) for name in ("USER_WORKSPACE", "SANDBOX")}
    environment = {**inherited(), **own, **more}
    argv = [sys.executable, "-m", "isorun"]
    keys = (beside.key, beside.other_key) if beside else tuple(_added(argv, environment, name) for name in USERS)
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix="service-", suffix=".log", delete=False) as stderr:
        process = subprocess.Popen(
            [*within, *argv, "serve", "--port", "0"], env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    assert process.stdout is not None
    line, log = process.stdout.readline(), Path(stderr.name)  # the line is empty if the process ends without one
    link = line.split()[-1] if line else ""
    served = Served(link.partition("/login")[0], *keys, process, log, environment, link)
    if "http://" not in line:
        end_service(served)
        raise AssertionError(f"{line!r}\n{log.read_text()}")
    return served


def _added(argv: list[str], environment: dict[str, str], name: str) -> str:
    added = [*argv, "users", "add", name]
    made = subprocess.run(added, env=environment, capture_output=True, text=True, check=True, timeout=END_S)
    return made.stdout.split()[-1]


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
