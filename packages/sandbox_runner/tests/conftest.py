"""What every test may ask of the machine it runs on, and a Docker CLI that says what a test wants.

A test never skips by itself: it asks for a fixture, and where the machine lacks that the skip says why. A facility
named in ISORUN_REQUIRE (comma-separated) may not be lacking, so the skip becomes a failure. Nothing here needs more
than pytest and hypothesis, and nothing imports isorun: the package is tested in a checkout of its own, too.
"""

import atexit
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from sandbox_runner import BackendUnavailable, SandboxSpec
from sandbox_runner.namespace.ceilings import find_parent, of_spec, this_host

# No test is timed: how long an input takes to make depends on the machine.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

#: State of our own, so that no test sees, or cleans up, what the user of this machine has. In memory, as it must be.
_STATE = Path(tempfile.mkdtemp(prefix="sandbox-runner-tests-", dir="/dev/shm"))
os.environ["XDG_RUNTIME_DIR"] = str(_STATE)
atexit.register(shutil.rmtree, _STATE, ignore_errors=True)

LABEL = "sandbox_runner"  # what every container of ours has; written down, not imported, so that a change is seen
OWNER = "sandbox_runner.owner"
RUNTIME = "runsc"
SETTLE_S = 20.0  # in which another session on the same engine removes what it had
FACILITIES = ("namespace", "root", "docker", "gvisor", "control_group", "cgroup-v1", "ptrace", "x86_64")

#: CI runs the tests twice, as root and as an ordinary user, and names the half in ISORUN_TEST_HALF. Where no half is
#: named, everything runs.
HALVES = ("root", "user")

Require = Callable[[str, str], NoReturn]


def half() -> str:
    """Which half of CI this is; empty outside. A misspelt one would leave tests out of both."""
    named = os.environ.get("ISORUN_TEST_HALF", "")
    if named not in ("", *HALVES):
        raise pytest.UsageError(f"ISORUN_TEST_HALF is {named}; known are {', '.join(HALVES)}")
    return named


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Root's half leaves out the unit tests that are the same whoever runs them: those without the mark `uid`."""
    if half() != "root":
        return
    units = Path(__file__).parent / "unit"
    out = [item for item in items if units in item.path.parents and not item.get_closest_marker("uid")]
    items[:] = [item for item in items if item not in out]
    config.hook.pytest_deselected(items=out)


def lacking(name: str, reason: str) -> NoReturn:
    """End the test: this machine lacks *name*. A failure if ISORUN_REQUIRE names it, else a skip."""
    if name not in FACILITIES:
        raise ValueError(f"{name} is not one of {', '.join(FACILITIES)}")
    if name in {word.strip() for word in os.environ.get("ISORUN_REQUIRE", "").split(",")}:
        pytest.fail(f"{name}: {reason}, and ISORUN_REQUIRE names it", pytrace=False)
    pytest.skip(f"{name}: {reason}")


@pytest.fixture(scope="session")
def require() -> Require:
    """`require(name, reason)`: call it once it is known that this machine lacks *name*."""
    return lacking


@pytest.fixture(scope="session")
def control_group(require: Require) -> None:
    """A control group in which a namespace sandbox holds its ceilings; an ordinary user has one if root gave it."""
    try:
        find_parent(of_spec(SandboxSpec(backend="namespace")), this_host())
    except BackendUnavailable as error:
        require("control_group", str(error))


class Docker(NamedTuple):
    """The machine's own Docker CLI, for what a test looks at beside the product."""

    program: str

    def __call__(self, *arguments: str, check: bool = True) -> str:
        """What `docker arguments…` prints, without the last line break."""
        done = subprocess.run([self.program, *arguments], capture_output=True, text=True, timeout=120)
        assert not check or done.returncode == 0, f"docker {shlex.join(arguments)}: {done.stderr}"
        return done.stdout.rstrip("\n")

    def left(self) -> set[str]:
        """Containers of ours that nobody uses (their owner is this process, or has ended), and unused volumes."""
        shown = f'{{{{.ID}}}} {{{{.Names}}}} {{{{.Label "{OWNER}"}}}}'
        lines = self("ps", "--all", "--filter", f"label={LABEL}", "--format", shown).splitlines()
        mine = {" ".join(line.split()[:2]) for line in lines if not _is_anothers(line.split()[2:])}
        unused = self("volume", "ls", "--filter", "dangling=true", "--format", "volume {{.Name}}")
        return mine | set(unused.splitlines())

    def still_left(self, before: set[str]) -> set[str]:
        """What is `left` and was not *before*."""
        return _settled(self.left, before)


def _settled(look: Callable[[], set[str]], before: set[str]) -> set[str]:
    """What *look* finds that was not there *before*, once what another session is just removing is gone."""
    until = time.monotonic() + SETTLE_S
    while (now := look() - before) and time.monotonic() < until:
        time.sleep(0.5)
    return now


def _is_anothers(owner: list[str]) -> bool:
    """Whether a process that is not this one uses it: another session on the same engine."""
    if not owner or int(owner[0]) == os.getpid():
        return False
    try:
        stat = Path(f"/proc/{owner[0]}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[19] == owner[1]


@contextmanager
def left_by_all_users(folder: Path, look: Callable[[], set[str]]) -> Iterator[set[str]]:
    """What is there after the block that was not there before it: found by the last of all who share *folder*.

    Workers share an engine, and what another one is in the middle of is no leftover. So the first of them looks
    before, the last one after, and the set stays empty for all others.
    """
    left: set[str] = set()
    with _users(folder) as users:
        if not users:
            users["before"] = sorted(look())
        users["now"] = users.get("now", 0) + 1
    try:
        yield left
    finally:
        with _users(folder) as users:
            users["now"] -= 1
            if not users["now"]:
                left |= _settled(look, set(users["before"]))
                users.clear()


@contextmanager
def _users(folder: Path) -> Iterator[dict[str, Any]]:
    """What the workers have noted in *folder*, to be changed by one of them at a time."""
    with (folder / "users-of-the-engine").open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        noted: dict[str, Any] = json.loads(file.read() or "{}")
        yield noted
        file.truncate(0)
        file.write(json.dumps(noted))


@pytest.fixture(scope="session")
def docker_cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """The Docker CLI, and a daemon that answers it. At the session's end nothing of ours may be left there."""
    program = shutil.which(os.environ.get("SANDBOX_RUNNER_DOCKER") or "docker")
    if program is None:
        lacking("docker", "there is no Docker CLI")
    asked = subprocess.run([program, "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True)
    if asked.returncode:
        lacking("docker", f"no daemon answers: {asked.stderr.strip() or asked.stdout.strip()}")
    docker = Docker(program)
    # pytest-xdist gives each worker a folder of its own below the session's.
    beside = "PYTEST_XDIST_WORKER" in os.environ
    folder = tmp_path_factory.getbasetemp()
    with left_by_all_users(folder.parent if beside else folder, docker.left) as left:
        yield docker
    assert not left, f"the tests left these in the engine: {', '.join(sorted(left))}"


@pytest.fixture(scope="session")
def base_image(docker_cli: Docker) -> str:
    """The image that the built-in context is built on here, where no registry may be reached."""
    image = os.environ.get("SANDBOX_RUNNER_BASE_IMAGE") or "sandbox-base:bookworm"
    if not docker_cli("image", "ls", "--quiet", image):
        lacking("docker", f"there is no image {image}: name one that has Debian's apt in SANDBOX_RUNNER_BASE_IMAGE")
    return image


@pytest.fixture(scope="session")
def gvisor(docker_cli: Docker) -> str:
    """The engine's runtime that is gVisor."""
    if RUNTIME not in json.loads(docker_cli("info", "--format", "{{json .Runtimes}}")):
        lacking("gvisor", f"the daemon has no runtime {RUNTIME}")
    return RUNTIME


class Call(NamedTuple):
    """One start of the stub: its arguments, and the names (not the values) of its environment."""

    argv: list[str]
    env: list[str]


class Stub(NamedTuple):
    """A program that is the Docker CLI as long as the test runs."""

    path: Path
    log: Path

    @property
    def calls(self) -> list[Call]:
        """Every start so far, in order."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return [Call(**json.loads(line)) for line in lines]


ANSWER = {"code", "stdout", "stderr", "sleep", "real"}

#: Gives the answer of the longest key that its arguments begin with; which of several, by how often it was asked.
_STUB = """
import json, os, sys, time
here, argv = os.path.dirname(os.path.abspath(__file__)), sys.argv[1:]
with open(here + "/answers.json", encoding="utf-8") as file:
    table = json.load(file)
fits = [key for key in table["answers"] if argv[: len(key.split())] == key.split()]
key = max(fits, key=len, default=None)
log = os.open(here + "/calls.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
os.write(log, (json.dumps({"argv": argv, "env": sorted(os.environ)}) + "\\n").encode())
if key is None:
    if table["real"]:
        os.execv(table["real"], [table["real"], *argv])
    sys.exit("stub docker: it was not told what to say to " + " ".join(argv[:2]))
with open(here + "/count." + key.replace(" ", "."), "ab") as file:
    file.write(b".")
    turn = file.tell() - 1
answers = table["answers"][key]
answer = answers[min(turn, len(answers) - 1)]
for number, name in ((1, "stdout"), (2, "stderr")):
    os.write(number, answer.get(name, "").encode())
time.sleep(answer.get("sleep", 0))
if answer.get("real"):
    os.execv(table["real"], [table["real"], *argv])
sys.exit(answer.get("code", 0))
"""


@pytest.fixture
def stub_docker(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stub]:
    """`stub_docker({"rm": {"code": 1, "stderr": "busy"}})`: from then on the product's Docker CLI says that.

    A key is how the arguments begin (`"image inspect"`); the longest that fits counts. A value is an answer, or a list
    of them for one call after another (the last stands for the rest): `code`, `stdout`, `stderr`, then `sleep` seconds
    before the end, or `real`: the machine's own CLI does it. What has no key is an error, or with *real* (the path
    of a CLI) done by that. `calls` shows every start.
    """

    def make(answers: Mapping[str, Any] | None = None, *, real: str | None = None) -> Stub:
        folder = tmp_path_factory.mktemp("stub")
        told = {key: value if isinstance(value, list) else [value] for key, value in (answers or {}).items()}
        for answer in (answer for listed in told.values() for answer in listed):
            assert set(answer) <= ANSWER, f"{set(answer) - ANSWER}: an answer has {', '.join(sorted(ANSWER))} only"
            assert real or not answer.get("real"), "name the real CLI"
        (folder / "answers.json").write_text(json.dumps({"answers": told, "real": real}), encoding="utf-8")
        (folder / "stub.py").write_text(_STUB, encoding="utf-8")
        program = folder / "docker"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -IS {folder / "stub.py"} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv("SANDBOX_RUNNER_DOCKER", str(program))
        return Stub(program, folder / "calls.jsonl")

    return make
