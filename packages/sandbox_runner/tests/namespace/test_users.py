"""The same sandbox by another user: an ordinary one, and root for a workspace that is not root's."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_runner import BackendUnavailable, NamespaceSandbox, SandboxSpec
from sandbox_runner.errors import SandboxStartFailed
from sandbox_runner.linux.cgroup import Ceilings
from sandbox_runner.namespace.ceilings import find_parent, this_host
from sandbox_runner.starting import make_folder

OTHER = 65432  # neither root nor anybody
HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture
def as_root(require) -> None:
    """Only root can become another user."""
    if os.geteuid() != 0:
        require("root", "these tests are of what root does for other users; all others are run as this user")


@pytest.fixture
def delegated(as_root, require) -> Iterator[str]:
    """A control group that is the other user's, by the name that SANDBOX_RUNNER_CGROUP_PARENT takes."""
    parent = find_parent(Ceilings(memory_bytes=1 << 30, pids=100, cpus=1), this_host())
    assert parent is not None
    if parent.version != 1:
        require("cgroup-v1", "on v2 a process of another user's group is moved there by systemd, not by a test")
    name = f"sandbox-runner-test-{os.getpid()}"
    kinds = ("memory", "pids", "cpu")
    places = [Path("/sys/fs/cgroup") / kind / name for kind in kinds]
    for place in places:
        place.mkdir()
        for path in (place, *place.iterdir()):
            os.chown(path, OTHER, OTHER)
    yield name
    for place in places:
        place.rmdir()


def as_other(command: list[str], tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run *command* as the other user, with a home and a folder for temporary files of its own.

    A shell starts it: setpriv's own exec still has root's rights, and would start what the user cannot reach.
    """
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    os.chown(home, OTHER, OTHER)
    become = ["setpriv", "--reuid", str(OTHER), "--regid", str(OTHER), "--clear-groups", "--no-new-privs"]
    return subprocess.run(
        [*become, "/bin/sh", "-c", 'exec "$@"', "sh", *command],
        cwd=ROOT,
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def reachable(as_root, require) -> Iterator[Path]:
    """A folder that the other user reaches by its path, as pytest's own are not."""
    made = subprocess.run(["mktemp", "-d", "/tmp/sandbox-runner-test.XXXXXX"], capture_output=True, text=True)
    path = Path(made.stdout.strip())
    path.chmod(0o755)
    yield path
    subprocess.run(["rm", "-r", str(path)], check=True)


@pytest.fixture
def python(reachable: Path, require) -> str:
    """This interpreter, or the system's of the same version where the other user cannot reach it: root's pyenv."""
    program = f"import pytest, sandbox_runner, sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    for candidate in (sys.executable, "/usr/bin/python3"):
        if as_other([candidate, "-c", program], reachable).returncode == 0:
            return candidate
    return require("namespace", f"another user can run neither {sys.executable} nor /usr/bin/python3 with this package")


@pytest.mark.timeout(300)
def test_every_claim_holds_for_an_ordinary_user(delegated: str, reachable: Path, python: str) -> None:
    """All the tests of this folder, by a user who has nothing but a control group of their own."""
    tests = [str(path) for path in sorted(HERE.glob("test_*.py")) if path.name != Path(__file__).name]
    done = as_other(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={reachable}/home/t", *tests],
        reachable,
        SANDBOX_RUNNER_CGROUP_PARENT=delegated,
        ISORUN_REQUIRE="namespace",
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


START = """
import sys
from sandbox_runner import NamespaceSandbox, SandboxError, SandboxSpec
try:
    sandbox = NamespaceSandbox(sys.argv[1] + "/w", sys.argv[1] + "/a", SandboxSpec(loosen=sys.argv[2:])).start()
except SandboxError as error:
    sys.exit(f"{type(error).__name__}: {error}")
with sandbox:
    print(sandbox.exec(["id", "-u"]).stdout.decode().strip())
"""


def test_without_a_group_an_ordinary_user_is_refused(reachable: Path, python: str) -> None:
    """The walls that would not stand are named, with both ways out; loosened by name, the sandbox starts."""
    home = str(reachable / "home")
    refused = as_other([python, "-c", START, home], reachable)
    assert refused.returncode == 1
    said = refused.stderr.strip()
    assert said.startswith("BackendUnavailable: memory_limit and pids_limit cannot be held, because no control group")
    assert said.endswith("; or go on without: name memory_limit and pids_limit in SandboxSpec.loosen")
    assert os.listdir(home) == []
    half = as_other([python, "-c", START, home, "memory_limit"], reachable)
    assert half.stderr.startswith("BackendUnavailable: pids_limit cannot be held")
    loose = as_other([python, "-c", START, home, "memory_limit", "pids_limit"], reachable)
    assert (loose.stdout, loose.stderr) == (f"{OTHER}\n", "")


@pytest.fixture
def others_workspace(as_root, bubblewrap, tmp_path: Path) -> Path:
    """A workspace of the other user, in a folder that only root can enter."""
    (tmp_path / "closed").mkdir(mode=0o700)
    workspace = tmp_path / "closed/workspace"
    workspace.mkdir()
    os.chown(workspace, OTHER, OTHER + 1)
    return workspace


def test_root_becomes_the_workspaces_owner(others_workspace: Path, tmp_path: Path) -> None:
    """Inside and outside: what is made belongs to the owner, and what is root's alone cannot be read."""
    (others_workspace / "roots").write_text("secret")
    (others_workspace / "roots").chmod(0o600)
    with NamespaceSandbox(others_workspace, tmp_path / "closed/artifacts", SandboxSpec()).start() as sandbox:
        result = sandbox.exec(["sh", "-c", "id -u; id -g; id -G; touch made /artifacts/made; cat roots"])
        assert sandbox.exec(["sh", "-c", "echo x > /tmp/file; echo x > /cache/file"]).ok
        prefixed = subprocess.run([*sandbox.command_prefix, "cat", "/tmp/file"], capture_output=True)
    assert result.stdout.decode() == f"{OTHER}\n{OTHER + 1}\n{OTHER + 1}\n"
    assert b"roots: Permission denied" in result.stderr
    assert prefixed.stdout == b"x\n"
    for made in (others_workspace / "made", tmp_path / "closed/artifacts/made"):
        assert (made.stat().st_uid, made.stat().st_gid) == (OTHER, OTHER + 1)


def test_nothing_is_given_by_a_path_that_the_user_can_redirect(
    others_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """root calls no chown or chmod of a name in a folder of the user's: they follow the link that could be there."""
    redirectable = []

    def watched(name: str) -> Callable[..., None]:
        real = getattr(os, name)

        def call(path: Any, *arguments: Any, dir_fd: int | None = None, **named: Any) -> None:  # noqa: ANN401 - any value will do
            parent = Path(path).parent if dir_fd is None else dir_fd
            if not str(path).startswith("/proc/self/fd/") and os.stat(parent).st_uid == OTHER:
                redirectable.append(f"{name} {path}")
            real(path, *arguments, dir_fd=dir_fd, **named)

        return call

    for name in ("chown", "chmod"):
        monkeypatch.setattr(os, name, watched(name))
    with NamespaceSandbox(
        others_workspace, tmp_path / "closed/artifacts", SandboxSpec(), f"given-{os.getpid()}"
    ).start():
        (own,) = Path("/tmp").glob(f"sandbox-runner-given-{os.getpid()}-*")
        assert (own.stat().st_uid, own.stat().st_mode & 0o777) == (0, 0o700)
        assert {path.name for path in own.iterdir() if path.stat().st_uid == OTHER} == {"tmp", "cache"}
    assert redirectable == []


@pytest.mark.parametrize("swap", ["link", "folder"])
def test_a_new_folder_that_was_swapped_is_not_given_away(
    as_root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: str
) -> None:
    """Between its making and its giving, who owns the folder above puts in its place what is root's."""
    (tmp_path / "roots").mkdir()
    (tmp_path / "roots/file").write_text("")
    mkdir, victim = os.mkdir, tmp_path / "roots"

    def swapped(*arguments: Any, **named: Any) -> None:  # noqa: ANN401 - as `os.mkdir` has it
        nonlocal victim
        mkdir(*arguments, **named)
        (tmp_path / "made").rmdir()
        if swap == "link":
            (tmp_path / "made").symlink_to(victim)
        else:
            victim = victim.rename(tmp_path / "made")

    monkeypatch.setattr(os, "mkdir", swapped)
    with pytest.raises(SandboxStartFailed):
        make_folder(tmp_path / "made", (OTHER, OTHER))
    assert victim.stat().st_uid == 0
    monkeypatch.undo()
    make_folder(tmp_path / "other", (OTHER, OTHER + 1))
    assert ((tmp_path / "other").stat().st_uid, (tmp_path / "other").stat().st_gid) == (OTHER, OTHER + 1)


def test_the_stage_is_not_seen_by_others(others_workspace: Path, tmp_path: Path) -> None:
    """What root mounts to get there is in a mount namespace of that command, and gone with it."""

    def stages() -> list[str]:
        return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " /mnt" in line]

    before, seen = stages(), list[list[str]]()
    with NamespaceSandbox(others_workspace, tmp_path / "artifacts", SandboxSpec()).start() as sandbox:
        result = sandbox.exec(
            ["sh", "-c", "echo; sleep 0.2; ls /mnt; grep -c /mnt /proc/self/mountinfo"],
            on_output=lambda *_: seen.append(stages()),
        )
    assert seen[0] == before
    assert (result.stdout, result.exit_code) == (b"\n0\n", 1)
    assert b"No such file or directory" in result.stderr
    assert stages() == before


def test_a_plan_of_another_user_is_not_followed(as_root, start) -> None:
    """Where the state folders are, somebody else may make one of a name that was ours: its plan could show anything."""
    sandbox = start()
    os.chown(f"{sandbox.command_prefix[-1]}/plan.json", OTHER, OTHER)
    done = subprocess.run([*sandbox.command_prefix, "true"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.endswith("/plan.json is another user's\n")


def test_artifacts_that_the_user_cannot_write_are_refused(others_workspace: Path, tmp_path: Path) -> None:
    """A run whose results could not be kept does not begin."""
    (tmp_path / "artifacts").mkdir()
    with pytest.raises(Exception, match=f"^/artifacts cannot be written inside by uid {OTHER}$") as caught:
        NamespaceSandbox(others_workspace, tmp_path / "artifacts", SandboxSpec()).start()
    assert not isinstance(caught.value, BackendUnavailable)
