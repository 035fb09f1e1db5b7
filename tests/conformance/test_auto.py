"""`auto` behaves as the backend that it chose: with each backend made unavailable in turn, beside the other by name."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import isorun
from isorun.core.errors import Unavailable
from isorun.supervisor.incarnation import LocalProcess
from tests.bundles import supervisors, write_bundle

pytestmark = pytest.mark.timeout(300)
_PLACE = '''
import os
from pathlib import Path

@isorun.tool
def seen() -> dict:
    """What a tool has around it."""
    return {
        "ids": [os.getuid(), os.getgid()],
        "is_first_of_few": len([name for name in os.listdir("/proc") if name.isdigit()]) < 10,
        "environment": sorted(os.environ),
        "knowledge": Path("/kdcube-storage/page.txt").is_file(),
        "home_of_root": os.access("/root", os.R_OK | os.X_OK),
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "secret": os.environ.get("AWS_SECRET_ACCESS_KEY"),
    }
'''
_CALL = "import json\nprint(json.dumps(await place.seen()))"
#: Each makes the embedded backend unavailable, by another cause.
_WITHOUT_NAMESPACE = {
    "no such cgroup": {"ISORUN_CGROUP_PARENT": "/nonexistent", "PY_CODE_EXEC_NETWORK_MODE": "none"},
    "a network it does not have": {"PY_CODE_EXEC_NETWORK_MODE": "bridge"},
}
Told = Callable[..., tuple[dict[str, object], isorun.RunResult]]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    """`told(backend, environ)`: what a tool sees there, and the result of the run that asked."""
    (tmp_path / "knowledge").mkdir(mode=0o755)
    (tmp_path / "knowledge" / "page.txt").write_text("known")
    bundle = write_bundle(tmp_path / "bundle", place=_PLACE)

    def ask(backend: str, environ: dict[str, str]) -> tuple[dict[str, object], isorun.RunResult]:
        given = {"HOST_KB_STORAGE_PATH": str(tmp_path / "knowledge"), "AWS_SECRET_ACCESS_KEY": "hush", **environ}
        settings = isorun.Settings.load(environ=given)
        options = {"settings": settings, "bundle": bundle, "workspace_root": tmp_path / "root", "pool_size": 0}
        with isorun.SyncRuntime(backend=backend, **options) as runtime:
            result = runtime.execute(_CALL, timeout_s=30)
        return json.loads(result.raise_for_status().stdout), result

    return ask


@pytest.mark.parametrize("cause", _WITHOUT_NAMESPACE)
def test_auto_without_namespaces_is_docker_in_all(
    told: Told, executor_image: str, caplog: pytest.LogCaptureFixture, cause: str
) -> None:
    """Ids, environment, mounts and network of its tools are those that docker by name has; result and log say why."""
    environ = {"PY_CODE_EXEC_IMAGE": executor_image, **_WITHOUT_NAMESPACE[cause]}
    seen, chosen = told("auto", environ)
    wanted, named = told("docker", {name: text for name, text in environ.items() if "CGROUP" not in name})
    assert seen == wanted
    assert seen["is_first_of_few"] is True
    ids = [named.isolation["walls"][name] for name in ("uid", "gid")]
    assert (seen["ids"], seen["knowledge"], seen["home_of_root"], seen["secret"]) == (ids, True, False, "hush")
    (setting,) = set(_WITHOUT_NAMESPACE[cause]) - {"PY_CODE_EXEC_NETWORK_MODE"} or {"PY_CODE_EXEC_NETWORK_MODE"}
    begin = f"fallback: docker, because the namespace backend cannot be used: {setting}="
    assert chosen.isolation["fallback"].startswith(begin)
    assert chosen.isolation["fallback"] in chosen.notices
    assert [record.getMessage() for record in caplog.records if begin in record.getMessage()] == [
        chosen.isolation["fallback"]
    ]
    left_out = {"fallback", "walls"}
    assert {key: chosen.isolation[key] for key in chosen.isolation.keys() - left_out} == {
        key: named.isolation[key] for key in named.isolation.keys() - left_out
    }
    assert (named.isolation["fallback"], named.notices) == (None, ())


def test_auto_without_docker_is_namespace_in_all(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first choice needs no reason, and a daemon that is away is not asked."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    seen, chosen = told("auto", {})
    assert seen == told("namespace", {})[0]
    assert (chosen.isolation["backend"], chosen.isolation["fallback"], chosen.notices) == ("namespace", None, ())


def test_auto_without_either_names_both_reasons_and_loads_no_bundle(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor that is told its bundle before the choice would run the bundle's modules in the wrong place."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with _bundles_told(monkeypatch) as told_here, pytest.raises(Unavailable) as caught:
        told("auto", {"ISORUN_CGROUP_PARENT": "/nonexistent"})
    said = str(caught.value)
    assert said.startswith("neither backend works here. namespace: ISORUN_CGROUP_PARENT=/nonexistent: ")
    assert "; docker: the Docker engine does not answer: " in said
    assert told_here == []


@contextmanager
def _bundles_told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Notes each bundle that a process of this machine is told."""
    told: list[str] = []
    original = LocalProcess.tell

    def noting(self: LocalProcess, globals_json: str) -> None:
        told.extend(filter(None, (globals_json,)))
        original(self, globals_json)

    monkeypatch.setattr(LocalProcess, "tell", noting)
    yield told
    assert supervisors() == []


def test_a_python_of_this_machine_is_not_traded_for_an_images(told: Told, executor_image: str) -> None:
    """`auto` with a Python that no image has says why it cannot run, and does not fall back."""
    environ = {"PY_CODE_EXEC_IMAGE": executor_image, "ISORUN_PROGRAM_PYTHON": sys.executable}
    with pytest.raises(isorun.IsorunError, match="PY_CODE_EXEC_NETWORK_MODE=bridge"):
        told("auto", {**environ, "PY_CODE_EXEC_NETWORK_MODE": "bridge"})


def isorun_said(environ: dict[str, str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of that command line."""
    command = [sys.executable, "-m", "isorun", *words]
    done = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_the_command_line_says_which_backend_was_taken_and_why(executor_image: str, tmp_path: Path) -> None:
    """On stderr with and without --json, in the result, and in a row of doctor; the tool is in its container."""
    program, bundle = tmp_path / "program.py", write_bundle(tmp_path / "bundle", place=_PLACE)
    program.write_text("print((await place.seen())['home_of_root'])")
    environ = {
        "PY_CODE_EXEC_IMAGE": executor_image,
        "ISORUN_CGROUP_PARENT": "/nonexistent",
        "PY_CODE_EXEC_NETWORK_MODE": "none",
        "ISORUN_WORKSPACE_ROOT": str(tmp_path / "root"),
    }
    reason = "fallback: docker, because the namespace backend cannot be used: ISORUN_CGROUP_PARENT=/nonexistent"
    code, printed, said = isorun_said(environ, "run", str(program), "--bundle", str(bundle))
    assert (code, printed, reason in said) == (0, "False\n", True), said
    code, printed, said = isorun_said(environ, "run", str(program), "--bundle", str(bundle), "--json")
    assert (code, reason in said, json.loads(printed)["isolation"]["backend"]) == (0, True, "docker"), said
    code, printed, said = isorun_said(environ | {"ISORUN_BUNDLE": str(bundle)}, "doctor", "--json")
    rows = {check["name"]: check for check in json.loads(printed)["host"]}
    assert (rows["backend"]["ok"], rows["backend"]["detail"].startswith(reason)) == (True, True), said
    assert (rows["bundle"]["ok"], json.loads(printed)["isolation"]["backend"]) == (True, "docker"), said
