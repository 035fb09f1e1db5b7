"""The conformance kit: what a program and its caller may rely on, whatever seals the program.

The contract part runs on every backend, `fake` too; a test that asks for the fixture
`sealed` runs on the real ones only. Nothing here looks inside a backend: a new one
joins by a line in `KINDS` and `new_backend`.
"""

import os
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import isorun
from isorun.backends.base import Backend
from isorun.backends.docker import backend as docker
from isorun.backends.namespace.backend import NamespaceBackend, Options
from isorun.testing.fake import FakeBackend
from tests.conftest import half
from tests.docker.conftest import TAG, docker_engine, executor_image  # noqa: F401 - fixtures of two kinds

KINDS = ("fake", "namespace-cgroup", "namespace-rlimits", "docker", "gvisor")
SEALED = KINDS[1:]
EMBEDDED, IN_CONTAINERS = KINDS[1:3], KINDS[3:]
#: Which half of CI runs a kind: that which has it. Ceilings without a group are what an ordinary user gets.
HALF_OF = {
    "fake": "user",
    "namespace-cgroup": "root",
    "namespace-rlimits": "user",
    "docker": "root",
    "gvisor": "root",
}
#: The rows of a table are decided by code of ours that runs alike in every slot, or by the host. The first row proves
#: that a kind carries such a thing there and back; the rest proves the code, which once is enough. So containers have
#: the first row alone, and in CI every kind but this one.
WHOLE = "namespace-cgroup"

#: What this process would hand on if the environment leaked; no value is a real secret.
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "hush-secret-key",
    "AWS_SESSION_TOKEN": "hush-session",
    "AWS_PROFILE": "hush-profile",
    "AWS_REGION": "hush-region",
    "AWS_DEFAULT_REGION": "hush-default-region",
    "AWS_EC2_METADATA_DISABLED": "hush-metadata",
    "AWS_SDK_LOAD_CONFIG": "hush-config",
    "NO_PROXY": "hush-proxy",
    "DATABASE_URL": "postgresql://u:hush-db@h/db",
    "REDIS_URL": "redis://:hush-redis@h",
    "POSTGRES_PASSWORD": "hush-postgres",
    "ISORUN_CONFORMANCE_SECRET": "hush-own",
    "PYTHONPATH": "/hush-path",
}


def inherited() -> dict[str, str]:
    """For a command that is started as a user would: our variables without settings, `SECRETS`, and the size of the
    terminal that xdist makes up for its workers.
    """
    left_out = (*SECRETS, "COLUMNS", "LINES")
    return {
        name: value for name, value in os.environ.items() if not name.startswith("ISORUN_") and name not in left_out
    }


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        kinds = SEALED if "sealed" in metafunc.fixturenames else KINDS
        kinds = EMBEDDED if "embedded" in metafunc.fixturenames else kinds
        # Under gVisor the whole kit takes nine minutes: the scenarios are its sample, ISORUN_TEST_KINDS=gvisor is all.
        if metafunc.module.__name__.rpartition(".")[2] != "test_scenarios" and "gvisor" not in _asked_for():
            kinds = tuple(kind for kind in kinds if kind != "gvisor")
        if half():
            kinds = tuple(kind for kind in kinds if HALF_OF[kind] == half() or kind in _asked_for())
        if metafunc.definition.get_closest_marker("no_backend"):
            kinds = KINDS[:1]
        metafunc.parametrize("kind", kinds, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a table (the mark `table`) one kind has every row, and the others the first: see `WHOLE`."""
    begun: set[tuple[object, str]] = set()
    out = []
    for item in items:
        if not isinstance(item, pytest.Function) or item.get_closest_marker("table") is None:
            continue
        kind = item.callspec.params["kind"]
        row = (item.function, kind)
        if row in begun and _has_first_rows_alone(kind):
            out.append(item)
        begun.add(row)
    if out:
        items[:] = [item for item in items if item not in set(out)]
        config.hook.pytest_deselected(items=out)


def _has_first_rows_alone(kind: str) -> bool:
    return kind != WHOLE and kind not in _asked_for() and (kind in IN_CONTAINERS or bool(half()))


def _asked_for() -> list[str]:
    return os.environ.get("ISORUN_TEST_KINDS", "").split(",")


@pytest.fixture(scope="session")
def kind(request: pytest.FixtureRequest) -> str:
    """Which backend this test runs on."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def sealed(kind: str) -> str:
    """Asked for by tests of what only a real backend has."""
    return kind


@pytest.fixture(scope="session")
def embedded(kind: str) -> str:
    """Asked for by tests of what only the embedded backend has: jails, and a Python of this machine."""
    return kind


@pytest.fixture(scope="session")
def host_secrets() -> Iterator[None]:
    """Secrets in the environment of this process, which every backend of the session starts from."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def new_backend(
    kind: str, host_secrets: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Backend]:
    """A backend of this kind; keyword arguments are `Options` of the embedded one, which the others do not all have."""
    image = str(request.getfixturevalue("executor_image")) if kind in IN_CONTAINERS else ""

    def make(**options: object) -> Backend:
        if kind == "fake":
            return FakeBackend()
        if kind in IN_CONTAINERS:
            known = {name: value for name, value in options.items() if name in docker.Options.__dataclass_fields__}
            state = tmp_path_factory.mktemp("state")
            runtime = "runsc" if kind == "gvisor" else None
            return docker.DockerBackend(docker.Options(image=image, state=state, runtime=runtime, **known))
        return NamespaceBackend(Options(use_cgroup=kind == "namespace-cgroup", **options))

    return make


def options_for(backend: Backend, root: Path, **options: object) -> dict[str, Any]:
    """Options of a Runtime that reads no setting of this machine, but which image its supervisor starts from."""
    settings = options.pop("settings", None) or isorun.Settings()
    settings = replace(settings, image=TAG)
    return {"backend": backend, "settings": settings, "workspace_root": root, **options}


@pytest.fixture(scope="session")
def rt(kind: str, new_backend: Callable[..., Backend], tmp_path_factory, require) -> Iterator[isorun.SyncRuntime]:
    """One Runtime for all tests that need none of their own."""
    root = tmp_path_factory.mktemp("root")
    twin = isorun.SyncRuntime(**options_for(new_backend(), root, pool_size=1 if kind == "fake" else 2))
    try:
        twin.__enter__()
    except isorun.Unavailable as error:
        require("gvisor" if kind == "gvisor" else "docker" if kind == "docker" else "namespace", str(error))
    try:
        held = twin.execute("pass").isolation["limits"]
        if kind == "namespace-cgroup" and not held.startswith("cgroup"):
            require("cgroup", f"limits are held by {held}")
        yield twin
    finally:
        twin.__exit__(None, None, None)


Run = Callable[..., isorun.RunResult]


@pytest.fixture
def run(rt: isorun.SyncRuntime) -> Run:
    """`run(code, **options)`: one program in the shared Runtime; ten seconds unless told."""

    def execute(code: str | bytes, **options: object) -> isorun.RunResult:
        text = textwrap.dedent(code) if isinstance(code, str) else code
        return rt.execute(text, **{"timeout_s": 10, **options})

    return execute


Own = Callable[..., isorun.SyncRuntime]


@pytest.fixture
def own(rt: isorun.SyncRuntime, new_backend: Callable[..., Backend], tmp_path: Path) -> Own:
    """`own(**options)`: a Runtime of the test's own. `backend_options` go to the backend.

    It asks for `rt` so that a machine without the backend is found out there.
    """

    def make(backend_options: dict[str, Any] | None = None, **options: object) -> isorun.SyncRuntime:
        made = options_for(new_backend(**(backend_options or {})), tmp_path / "root", **options)
        return isorun.SyncRuntime(**{"pool_size": 0, **made})

    return make
