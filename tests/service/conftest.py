"""The service as a process of its own, with its own data and workspace.

With `ISORUN_TEST_STORE=postgres` it is two processes over PostgreSQL and Redis, and requests alternate between them.
"""

import contextlib
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.conformance.conftest import inherited
from tests.conftest import Require
from tests.service.several import Both, Front, Servers, servers, store

END_S = 60
USERS = ("alice", "bob")
ISORUN = (sys.executable, "-m", "isorun")
_shared: list[Servers] = []  # of this session, where it has them


@dataclass
class Served:
    """A service that runs: where, a key of each of two users, its process, and where its log is.

    `link` is the address that it printed: it signs one browser in.
    """

    url: str
    key: str
    other_key: str
    process: subprocess.Popen[str] | Both
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    link: str = ""


def start_service(folder: Path, *, beside: Served | None = None, within: Sequence[str] = (), **more: str) -> Served:
    """A service on a free port, with its data below *folder*; *more*: of its environment. Two processes if the tests
    are asked to use PostgreSQL, and *more* names no database of its own.

    *beside*: another process of the same service, which has the same users. *within*: a command that becomes the one
    behind it; the service is started by that, and the users are made without it. An `AssertionError` has the log of a
    service that did not start.
    """
    own = {"ISORUN_SERVICE_DATA": str(folder / "data"), "ISORUN_WORKSPACE_ROOT": str(folder / "workspace")}
    # Else scenarios of several services would wait for one another: they are the same user's.
    own |= {f"ISO_RUNTIME_{name}_ROOT": str(folder / name.lower()) for name in ("USER_WORKSPACE", "SANDBOX")}
    is_two = bool(_shared) and "DATABASE_URL" not in more and not within
    if is_two:
        own |= {**_shared[0].settings(folder), "ISORUN_POOL_SIZE": "1"}
    environment = {**inherited(), **own, **more}
    keys = (beside.key, beside.other_key) if beside else tuple(_added(environment, name) for name in USERS)
    one = _started(folder, environment, keys, within=within)
    if not is_two:
        return one
    try:
        return _as_one(one, _started(folder, environment, keys, one.log))
    except BaseException:
        end_service(one)
        raise


def _as_one(one: Served, other: Served) -> Served:
    """Both, behind one address."""
    front = Front([int(served.url.rpartition(":")[2]) for served in (one, other)])
    url = f"http://127.0.0.1:{front.port}"
    both = Both((one.process, other.process), front)
    return replace(one, url=url, process=both, link=one.link.replace(one.url, url))


def _started(
    folder: Path,
    environment: dict[str, str],
    keys: tuple[str, ...],
    log: Path | None = None,
    within: Sequence[str] = (),
) -> Served:
    """One process, which has begun to listen. *log*: of another, which has that of this one, too."""
    log = log or folder / f"service-{secrets.token_hex(4)}.log"
    with log.open("a") as stderr:
        argv = [*within, *ISORUN, "serve", "--port", "0"]
        process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()  # empty if the process ends without one
    except BaseException:  # the test's time is over: nobody else would end it
        process.kill()
        raise
    link = line.split()[-1] if line else ""
    served = Served(link.partition("/login")[0], *keys, process, log, environment, link)
    if "http://" not in line:
        end_service(served)
        raise AssertionError(f"{line!r}\n{log.read_text()}")
    return served


def _added(environment: dict[str, str], name: str) -> str:
    added = [*ISORUN, "users", "add", name]
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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is true of one process over SQLite alone, where the tests are asked for two."""
    if store() == "sqlite":
        return
    out = [item for item in items if item.get_closest_marker("sqlite")]
    items[:] = [item for item in items if item not in out]
    config.hook.pytest_deselected(items=out)


@pytest.fixture(scope="session", autouse=True)
def shared_servers(require: Require) -> Iterator[None]:
    """What several processes share, where the tests are asked for that."""
    if store() == "sqlite":
        yield
        return
    with servers(require) as made:
        _shared.append(made)
        yield
        _shared.clear()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One service for the tests of a module; each test has its own runs."""
    running = start_service(tmp_path_factory.mktemp("service"))
    try:
        yield running
    finally:
        end_service(running)
