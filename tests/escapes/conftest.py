"""Runtimes to attack: every wall up, under both kinds of ceilings, and walls off by name for the controls.

The limits are small, so that an attack reaches one of them in a second. Runtimes live as
long as the session: an attack that spoils its runtime is seen by the tests after it.
"""

import shutil
import time
from collections.abc import Callable, Iterator

import pytest

from isorun import Limits, Settings, SyncRuntime, Unavailable
from isorun.backends.namespace import NamespaceBackend, Options
from isorun.kernel import cgroup
from tests.escapes.attacking import idle, still_answers

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


@pytest.fixture(scope="session", params=["cgroup", "no-cgroup"])
def ceilings(request, require) -> str:
    """What holds memory, processes and CPU: `cgroup`, or `no-cgroup` for rlimits and the watcher."""
    if request.param == "cgroup":
        named = Settings.load().cgroup_parent
        found = cgroup.find_own_parent(str(named) if named else None)
        if isinstance(found, cgroup.Refusal):
            require("cgroup", f"no cgroup can be written here: {found}")
    return str(request.param)


@pytest.fixture(scope="session")
def without(ceilings, require, tmp_path_factory) -> Iterator[Without]:
    """`without("seccomp", ..., limits=SMALL)`: a runtime under *ceilings* with those walls left out.

    Runtimes are kept and given out again for the same arguments; no argument leaves no wall out.
    """
    open_: dict[tuple[frozenset[str], Limits, tuple[str, ...]], SyncRuntime] = {}

    def opened(*walls: str, limits: Limits = SMALL, preload: tuple[str, ...] = ()) -> SyncRuntime:
        key = (frozenset(walls), limits, preload)
        if key not in open_:
            named = Settings.load().cgroup_parent if ceilings == "cgroup" else None
            options = Options(
                cgroup_parent=str(named) if named else None,
                use_cgroup=ceilings == "cgroup",
                without=frozenset(walls),
                preloads=preload,
            )
            runtime = SyncRuntime(
                backend=NamespaceBackend(options),
                limits=limits,
                pool_size=0,
                workspace_root=tmp_path_factory.mktemp("runs"),
            )
            try:
                open_[key] = runtime.__enter__()
            except Unavailable as error:
                require("namespace", str(error))
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


@pytest.fixture
def unharmed(sealed) -> Iterator[None]:
    """After the test: `sealed` answers, and no process or cgroup of any run is left."""
    yield
    still_answers(sealed)
    assert idle(time.monotonic() + 3.0) == []
