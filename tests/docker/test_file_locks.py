"""File locks of a container, which its control group does not count: from outside, and by its init."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from isorun import Limits, SetupFailed, SyncRuntime
from isorun.backends.docker import backend as docker
from isorun.backends.watch import watching
from tests.docker.conftest import TAG
from tests.escapes.attacking import ended, still_answers
from tests.escapes.test_resources_watcher import BY_CHILDREN, LOCKED, LOCKS, MOST, OWN

pytestmark = pytest.mark.usefixtures("executor_image")


@contextmanager
def containers(state: Path) -> Iterator[SyncRuntime]:
    backend = docker.DockerBackend(docker.Options(image=TAG, state=state))
    with SyncRuntime(
        backend=backend, limits=Limits(grace_s=0.3), pool_size=0, workspace_root=state / "runs"
    ) as runtime:
        yield runtime


@pytest.fixture(params=["seen", "unseen"])
def view(request, monkeypatch) -> str:
    """Whether the host sees the processes of its containers; where it is in one itself it does not."""
    if request.param == "unseen":
        monkeypatch.setattr(docker, "_pidfd", lambda pid, container: None)
    return str(request.param)


@pytest.mark.alone
@pytest.mark.parametrize("by", [OWN, BY_CHILDREN], ids=["own", "children"])
def test_file_locks_of_a_container_are_counted(tmp_path, monkeypatch, view, by) -> None:
    """Whoever counts them, a run with thousands of them is ended, and says why."""
    with containers(tmp_path) as runtime:
        still_answers(runtime)
        result = runtime.execute(LOCKS + by.format(most=3_000_000), timeout_s=20)
        assert ended(result) == LOCKED
        assert result.stdout.count("k") * 1000 < 2 * MOST  # init looks every 100 ms
        assert result.usage["max_rss_bytes"] > 0  # init had its last word
        # Control: a run may have some thousands; and more than that if nobody counts them.
        assert runtime.execute(LOCKS + by.format(most=3_000)).status == "ok"
        still_answers(runtime)
    monkeypatch.setattr(watching, "MAX_LOCKS", 1 << 40)
    monkeypatch.setattr(docker, "MAX_LOCKS", 1 << 40)
    with containers(tmp_path) as runtime:
        assert runtime.execute(LOCKS + by.format(most=30_000)).status == "ok"


@pytest.mark.alone
def test_a_host_that_does_nothing_does_not_keep_them(tmp_path, monkeypatch) -> None:
    """The watcher tells the host, which can end the run better; if that does not, it kills the container's init."""
    monkeypatch.setattr(watching.Watched, "told", lambda self: None)
    with containers(tmp_path) as runtime:
        result = runtime.execute(LOCKS + OWN.format(most=3_000_000), timeout_s=20)
        assert ended(result) == LOCKED
        assert result.stdout.count("k") * 1000 < 2 * MOST
        still_answers(runtime)


def test_a_container_that_nobody_watches_is_ended(tmp_path) -> None:
    """The watcher dies under a run in a container: that says why, and the next one has a new watcher."""
    with containers(tmp_path) as runtime:
        watcher = runtime._original.backend._watcher
        before = watcher._process._process.pid
        run = runtime.start("import time; print('on', flush=True); time.sleep(30)")
        next(event for event in run.events() if event.kind == "output")
        os.kill(before, signal.SIGKILL)
        with pytest.raises(SetupFailed, match="watcher: it ended, and the run was killed"):
            run.result()
        still_answers(runtime)  # control: with the new one
        assert watcher._process._process.pid != before
