"""Runtimes to attack: every wall up, under both kinds of ceilings, and walls off by name for the controls.

The limits are small, so that an attack reaches one of them in a second. Runtimes live as
long as the session: an attack that spoils its runtime is seen by the tests after it.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from isorun import Limits, Settings, SyncRuntime, Unavailable
from isorun.backends.docker import backend as docker
from isorun.backends.namespace import cgroup
from isorun.backends.namespace.backend import NamespaceBackend, Options
from tests.bundles import write_bundle
from tests.conftest import half
from tests.docker.conftest import TAG, docker_engine, executor_image  # noqa: F401 - fixtures of one kind of ceilings
from tests.escapes.attacking import idle, still_answers
from tests.escapes.naive import SECRET
from tests.escapes.tool_bundle import SOURCES

MIB = 1 << 20
SMALL = Limits(
    wall_s=30.0,
    memory_bytes=256 * MIB,
    processes=32,
    workspace_bytes=32 * MIB,
    workspace_inodes=500,
    file_bytes=8 * MIB,
    tmp_bytes=16 * MIB,
    shm_bytes=16 * MIB,
    open_files=256,
    log_bytes=1 * MIB,
    result_bytes=256 << 10,
    output_bytes=16 * MIB,
    grace_s=0.3,
)
#: As `SMALL`, with room: what an attack on one ceiling gets when that ceiling is not there.
ROOMY = Limits(wall_s=30.0, processes=256, workspace_inodes=300_000, open_files=2048, grace_s=0.3)

Without = Callable[..., SyncRuntime]


IN_CONTAINERS = {"docker": None, "gvisor": "runsc"}


def in_containers(ceilings: str, state: Path, preloads: tuple[str, ...] = ()) -> docker.DockerBackend:
    """The Docker backend with every wall up."""
    options = docker.Options(image=TAG, state=state, preloads=preloads, runtime=IN_CONTAINERS[ceilings])
    return docker.DockerBackend(options)


#: What is attacked in a container, too, without being asked for: ISORUN_TEST_KINDS=docker takes 15 minutes, gvisor 30.
SAMPLES = {
    "docker": ("test_artifacts_links", "test_escape_"),
    "gvisor": ("test_escape_network", "test_escape_secrets"),
}
NOT_SAMPLED = ("test_escape_tool_stream", "test_escape_leftovers")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "ceilings" not in metafunc.fixturenames:
        return
    kinds = ["cgroup", "no-cgroup"]
    module = metafunc.module.__name__.rpartition(".")[2]
    sampled = [kind for kind, names in SAMPLES.items() if module.startswith(names) and module not in NOT_SAMPLED]
    asked = os.environ.get("ISORUN_TEST_KINDS", "").split(",")
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    if "embedded" not in marks:
        kinds += [kind for kind in IN_CONTAINERS if kind in [*asked, *sampled]]
    if "linux" in marks:
        kinds = [kind for kind in kinds if kind != "gvisor"]
    if half() == "user":
        kinds = [kind for kind in kinds if kind == "no-cgroup" or kind in asked]
    # Walls do not depend on ceilings: without a group root attacks those, and the user's half attacks all.
    if half() == "root" and not module.startswith("test_resources_"):
        kinds = [kind for kind in kinds if kind != "no-cgroup"]
    metafunc.parametrize("ceilings", kinds, indirect=True, scope="session")


@pytest.fixture(scope="session")
def ceilings(request, require) -> str:
    """What holds memory, processes and CPU: `cgroup`, `no-cgroup` for rlimits and the watcher, or an engine."""
    if request.param in IN_CONTAINERS:
        request.getfixturevalue("executor_image")
    if request.param == "cgroup":
        named = Settings.load().cgroup_parent
        found = cgroup.find_own_parent(str(named) if named else None)
        if isinstance(found, cgroup.Refusal):
            require("cgroup", f"no cgroup can be written here: {found}")
    return str(request.param)


@pytest.fixture(scope="session")
def kernel(ceilings) -> str:
    """Who answers the program's system calls: `linux` or `gvisor`. Where they refuse differently, a test has both."""
    return "gvisor" if ceilings == "gvisor" else "linux"


@pytest.fixture(scope="session")
def without(ceilings, require, tmp_path_factory) -> Iterator[Without]:
    """`without("seccomp", ..., limits=SMALL)`: a runtime under *ceilings* with those walls left out.

    Runtimes are kept and given out again for the same arguments; no argument leaves no wall out. With an engine the
    control is the embedded backend without that wall: the same attack, where it has nothing in its way.
    """
    open_: dict[tuple[frozenset[str], Limits, tuple[str, ...]], SyncRuntime] = {}

    def opened(*walls: str, limits: Limits = SMALL, preload: tuple[str, ...] = ()) -> SyncRuntime:
        key = (frozenset(walls), limits, preload)
        if key not in open_:
            named = Settings.load().cgroup_parent if ceilings != "no-cgroup" else None
            options = Options(
                cgroup_parent=str(named) if named else None,
                use_cgroup=ceilings != "no-cgroup",
                without=frozenset(walls),
                preloads=preload,
            )
            in_container = ceilings in IN_CONTAINERS and not walls
            runtime = SyncRuntime(
                backend=in_containers(ceilings, tmp_path_factory.mktemp("state"), preload)
                if in_container
                else NamespaceBackend(options),
                limits=limits,
                pool_size=0,
                workspace_root=tmp_path_factory.mktemp("runs"),
            )
            try:
                open_[key] = runtime.__enter__()
            except Unavailable as error:
                require(ceilings if ceilings in IN_CONTAINERS else "namespace", str(error))
        return open_[key]

    yield opened
    while open_:
        _, runtime = open_.popitem()
        runtime.__exit__(None, None, None)
        shutil.rmtree(runtime.root)  # several hundred MiB that filled disks left behind


@pytest.fixture(scope="session")
def sealed(without) -> SyncRuntime:
    """A runtime with every wall up and `SMALL` limits."""
    runtime: SyncRuntime = without()
    result = still_answers(runtime)
    assert result.isolation["level"] == "full"
    return runtime


@pytest.fixture(scope="session")
def sharing(sealed, without, ceilings) -> SyncRuntime:
    """A runtime whose programs may have shared memory without a file: where nothing but the filter refuses it, without.

    What the watcher counts is tested there as well, where there is more for it to count.
    """
    return without("seccomp") if ceilings == "no-cgroup" else sealed


@pytest.fixture
def unharmed(request, sealed) -> Iterator[None]:
    """After the test: `sealed` answers, and no process or cgroup of any run is left.

    A test that has `answers` runs nothing: the module's attacks were made before it, and this was asked after them.
    """
    yield
    if "answers" not in request.fixturenames:
        nothing_is_harmed(sealed)


def nothing_is_harmed(sealed: SyncRuntime) -> None:
    """See `unharmed`."""
    still_answers(sealed)
    assert idle(time.monotonic() + 3.0) == []


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the host that anybody may read."""
    file = tmp_path / "host/a.md"
    file.parent.mkdir()
    file.write_text(SECRET)
    return file


@pytest.fixture(scope="session")
def tool_bundle(tmp_path_factory) -> Path:
    """The folder of the bundle in `tool_bundle`."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "attacked", **SOURCES)


@contextmanager
def _opened(ceilings: str, require, root: Path, bundle: Path, *without: str) -> Iterator[SyncRuntime]:
    root.mkdir(exist_ok=True)
    embedded = NamespaceBackend(Options(use_cgroup=ceilings == "cgroup", without=frozenset(without)))
    runtime = SyncRuntime(
        backend=in_containers(ceilings, root) if ceilings in IN_CONTAINERS else embedded,
        settings=replace(Settings.load(), image=TAG),
        limits=SMALL,
        pool_size=0,
        workspace_root=root,
        bundle=bundle,
    )
    try:
        runtime.__enter__()
    except Unavailable as error:
        require(ceilings if ceilings in IN_CONTAINERS else "namespace", str(error))
    try:
        yield runtime
    finally:
        runtime.__exit__(None, None, None)


@pytest.fixture(scope="session")
def tooled(ceilings, require, tmp_path_factory, tool_bundle) -> Iterator[SyncRuntime]:
    """As `sealed`, with a supervisor that all tests attack: one that spoils it is seen by the tests after it."""
    with _opened(ceilings, require, tmp_path_factory.mktemp("runs"), tool_bundle) as runtime:
        yield runtime


@pytest.fixture
def doomed(ceilings, require, tmp_path, tool_bundle) -> Iterator[SyncRuntime]:
    """As `tooled`, for one test: its supervisor dies, and too many deaths in a minute would be too many for others."""
    with _opened(ceilings, require, tmp_path / "runs", tool_bundle) as runtime:
        yield runtime


@pytest.fixture
def exposed(ceilings, require, tmp_path, tool_bundle) -> Iterator[SyncRuntime]:
    """As `doomed`, embedded, without the walls that refuse calls by their number and files by their path."""
    with _opened(ceilings, require, tmp_path / "exposed", tool_bundle, "seccomp", "landlock") as runtime:
        yield runtime


@pytest.fixture
def supervised(tooled) -> Iterator[None]:
    """After the test: the supervisor of `tooled` is the process it was, and answers."""
    before = tooled._original._supervisor._process
    yield
    assert tooled._original._supervisor._process is before, "the supervisor was replaced"
    result = tooled.execute("print(agent_io_tools.tool_call_sync(tool_id='good.add', params={'a': 40, 'b': 2}))")
    assert (result.status, result.stdout) == ("ok", "42\n"), result.report_text
