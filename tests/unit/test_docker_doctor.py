"""The docker part of `isorun doctor`: each thing that can be wrong with an engine is said, with its remedy.

The engine is a script that answers from files, so each trouble is one file; `TROUBLES` is the table of
docs/exec/operations.md too, and a test of that page holds the two together.
"""

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import isorun
from isorun.backends import docker_doctor as probes
from isorun.backends.docker_doctor import Place
from isorun.backends.doctor import Check
from isorun.backends.slot_folder import Ids
from isorun.core.errors import IsorunError
from isorun.settings import Settings
from sandbox_runner.host_paths import HostPaths, Surroundings

#: Answers `docker VERB` from VERB.out, VERB.err and VERB.code beside it; `run` reads from the folder it is to mount.
CLI = """#!/bin/sh
here=${0%/*}
verb=$1
case "$*" in
    "info --format {{.Default"*) verb=info-names ;;
    "inspect --type "*) verb=inspect-$3 ;;
esac
if [ "$verb" = run ] && [ ! -e "$here/run.code" ]; then
    for word; do
        case $word in type=bind,source=*) source=${word#type=bind,source=} ;; esac
    done
    exec cat "${source%%,*}/${word#/probe/}"
fi
[ ! -e "$here/$verb.err" ] || cat "$here/$verb.err" >&2
[ ! -e "$here/$verb.out" ] || cat "$here/$verb.out"
exit "$(cat "$here/$verb.code" 2>/dev/null || echo 0)"
"""
VERSION = {"Client": {"Version": "28.2.2"}, "Server": {"Version": "20.10.24", "ApiVersion": "1.41"}}
INFO = {
    **dict.fromkeys(("MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsQuota"), True),
    "CgroupVersion": "2",
    "SecurityOptions": ["name=seccomp,profile=default"],
    "Runtimes": {"runc": {}, "runsc": {}},
    "DefaultRuntime": "runc",
}
IMAGE = {
    "Id": "sha256:0123456789abcdef",
    "RepoTags": ["py-code-exec:latest"],
    "Config": {"Labels": {"isorun.image": "1"}},
}
SOCKET = "unix:///var/run/docker.sock"
OUTSIDE = Place(False, Surroundings(False, "host", "", ""))
INSIDE = Place(True, Surroundings(True, "chat", "", ""))


class Engine:
    """A Docker CLI whose answers a test chooses; at first it has nothing to complain about."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "docker"
        self.program.write_text(CLI)
        self.program.chmod(0o755)
        self.says("version", VERSION)
        self.says("info", INFO)
        self.says("info-names", "runc runc runsc ")
        self.says("image", "1\n")  # docker image inspect: the label alone
        self.says("compose", "Docker Compose version v2.39.1\n")
        self.says("inspect-image", [IMAGE])
        self.says("inspect-container", err="Error: No such container", code=1)

    def says(self, verb: str, out: object = "", *, err: str = "", code: int = 0) -> None:
        """Answer *verb* with *out*, as JSON if it is no text."""
        text = out if isinstance(out, str) else json.dumps(out)
        for suffix, said in (("out", text), ("err", err), ("code", str(code))):
            (self.folder / f"{verb}.{suffix}").write_text(said)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The Docker CLI of this process."""
    (tmp_path / "bin").mkdir()
    made = Engine(tmp_path / "bin")
    monkeypatch.setenv("SANDBOX_RUNNER_DOCKER", str(made.program))
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of the runs."""
    folder = tmp_path / "runs"
    folder.mkdir(mode=0o750)
    return folder


#: Of the container, by who runs this test: it must be a group of ours unless we are root.
GROUP = {} if os.geteuid() == 0 else {"ISORUN_EXECUTOR_GID": str(os.getegid())}
IDS = (
    "1001:1000, which gets its folders"
    if not GROUP
    else f"1001:{os.getegid()}, with which we share folders by the group"
)


def settings(root: Path, **variables: str) -> Settings:
    return Settings.load(environ={"ISORUN_WORKSPACE_ROOT": str(root), **GROUP, **variables})


def check_named(name: str, checks: tuple[Check, ...]) -> Check:
    (found,) = (check for check in checks if check.name == name)
    return found


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """One thing that is wrong, by an answer of the engine or by a setting, and what is said of it.

    `detail` is the row of the page: {root} stands for the folder of the runs, {bundle} for one that no mount holds.
    """

    id: str
    check: str
    detail: str
    remedy: str  # how it begins
    change: Callable[[Engine], None] = lambda engine: None
    variables: dict[str, str] = field(default_factory=dict)
    place: Place = OUTSIDE


def answer(verb: str, out: object = "", *, err: str = "", code: int = 0) -> Callable[[Engine], None]:
    return lambda engine: engine.says(verb, out, err=err, code=code)


def image_labelled(labels: dict[str, str]) -> Callable[[Engine], None]:
    return answer("inspect-image", [{**IMAGE, "Config": {"Labels": labels}}])


NO_SERVER = {**VERSION, "Server": None}
DENIED = f'permission denied while trying to connect to the Docker daemon socket at {SOCKET}: Get "http://x": dial unix'
# A user whose HOME is another's gets this line before any other, of every command.
WARNED = "WARNING: Error loading config file: open /root/.docker/config.json: permission denied\n"
HANGS = "#!/bin/sh\nexec sleep 60\n"
SHARE = (
    "start this container with -v /host/folder:{root}, and set HOST_EXEC_WORKSPACE_PATH, if at all, to /host/folder, "
    "a path of the daemon's host"
)
TROUBLES = (
    Trouble(
        id="permission",
        change=answer("version", NO_SERVER, err=f"{WARNED}{DENIED}\n", code=1),
        check="Docker daemon",
        detail="permission denied on the daemon's socket: permission denied while trying to connect",
        remedy="put this user into the group of the socket and log in anew (usermod -aG docker USER)",
    ),
    Trouble(
        id="permission-20.10",
        change=answer("version", NO_SERVER, err=f"Got {DENIED}\n", code=1),
        check="Docker daemon",
        detail="permission denied on the daemon's socket: Got permission denied while trying to connect",
        remedy="put this user into the group of the socket",
    ),
    Trouble(
        id="no-daemon",
        change=answer(
            "version", NO_SERVER, err=f"Cannot connect to the Docker daemon at {SOCKET}. Is it running?\n", code=1
        ),
        check="Docker daemon",
        detail="no Docker daemon answers: Cannot connect to the Docker daemon at unix:///var/run/docker.sock.",
        remedy="start the daemon (systemctl start docker), or correct DOCKER_HOST",
    ),
    Trouble(
        id="no-socket-in-a-container",
        change=answer(
            "version", NO_SERVER, err=f"Cannot connect to the Docker daemon at {SOCKET}. Is it running?\n", code=1
        ),
        place=INSIDE,
        check="Docker daemon",
        detail="no Docker daemon answers: Cannot connect to the Docker daemon at unix:///var/run/docker.sock.",
        remedy="start this container with -v /var/run/docker.sock:/var/run/docker.sock, or set DOCKER_HOST",
    ),
    Trouble(
        id="another-complaint",
        change=answer("version", err="client version 1.99 is too new\n", code=1),
        check="Docker daemon",
        detail="client version 1.99 is too new",
        remedy="try `docker version` yourself",
    ),
    Trouble(
        id="old-daemon",
        change=answer("version", {"Server": {"Version": "19.03.15"}}),
        check="Docker daemon",
        detail="19.03.15 is older than 20.10",
        remedy="update the engine to 20.10 or later",
    ),
    Trouble(
        id="old-compose",
        change=answer("compose", "docker-compose version 1.29.2, build 5becea4c\n"),
        check="Docker Compose",
        detail="1.29.2 is older than 2.0",
        remedy="install the plugin docker-compose-v2",
    ),
    Trouble(
        id="no-ceilings",
        change=answer("info", {**INFO, "CgroupVersion": "1", "SwapLimit": False}),
        check="walls of the engine",
        detail="cgroup v1 here cannot limit swap",
        remedy="boot with cgroup_enable=memory swapaccount=1",
    ),
    Trouble(
        id="no-seccomp",
        change=answer("info", {**INFO, "SecurityOptions": ["name=apparmor"]}),
        check="walls of the engine",
        detail="the engine has no seccomp",
        remedy="an engine with seccomp",
    ),
    Trouble(
        id="unknown-runtime",
        variables={"ISORUN_DOCKER_RUNTIME": "kata"},
        check="executor's runtime",
        detail="ISORUN_DOCKER_RUNTIME=kata: the engine knows runc, runsc",
        remedy='install it, add it to "runtimes" in /etc/docker/daemon.json and restart the daemon',
    ),
    Trouble(
        id="no-image",
        change=answer("inspect-image", err="Error: No such image", code=1),
        check="executor's image",
        detail="py-code-exec:latest is not on this engine",
        remedy="isorun image build",
    ),
    Trouble(
        id="another-image",
        change=image_labelled({}),
        check="executor's image",
        detail="py-code-exec:latest has no label isorun.image: it is another image",
        remedy="isorun image build",
    ),
    Trouble(
        id="another-version",
        change=image_labelled({"isorun.image": "7"}),
        check="executor's image",
        detail="py-code-exec:latest has the label isorun.image=7, and this version of isorun expects 1",
        remedy="isorun image build",
    ),
    Trouble(
        id="paths-on-bare-metal",
        variables={"HOST_EXEC_WORKSPACE_PATH": "/srv/exec-workspace"},
        check="deployment",
        detail="bare metal, and yet other paths of the host are named: /srv/exec-workspace for {root}",
        remedy="unset HOST_EXEC_WORKSPACE_PATH and its like: they are for a container",
    ),
    Trouble(
        id="bundle-not-mounted",
        variables={"HOST_EXEC_WORKSPACE_PATH": "/srv/exec-workspace", "ISORUN_BUNDLE": "/bundles2/mine"},
        place=INSIDE,
        check="host path of the bundles",
        detail="/bundles2/mine: the Docker daemon's host has no path for it, as no mount of this container holds it.",
        remedy="a bundle with tools is mounted into the supervisor: start this container with -v "
        "/host/folder:/bundles2/mine, or keep it below AGENTIC_BUNDLES_ROOT and set HOST_BUNDLES_PATH",
    ),
    Trouble(
        id="mounts-denied",
        change=answer(
            "run",
            err="docker: Error response from daemon: Mounts denied: \nThe path {root} is not shared from the host.\n",
            code=125,
        ),
        check="folder shared with the host",
        detail="mounts denied: the daemon's host does not share {root}: ",
        remedy="Docker Desktop: add {root} in Settings, Resources, File sharing; a remote daemon cannot see it",
    ),
    Trouble(
        id="no-such-path-on-the-host",
        change=answer(
            "run", err='docker: invalid mount config for type "bind": bind source path does not exist', code=125
        ),
        variables={"HOST_EXEC_WORKSPACE_PATH": "/nowhere/exec-workspace"},
        place=INSIDE,
        check="folder shared with the host",
        detail="mounts denied: the daemon's host does not share /nowhere/exec-workspace: ",
        remedy=SHARE,
    ),
    Trouble(
        id="another-folder",
        change=answer("run", err="FileNotFoundError: [Errno 2] No such file or directory: '/probe/x'\n", code=1),
        variables={"HOST_EXEC_WORKSPACE_PATH": "/srv/another"},
        place=INSIDE,
        check="folder shared with the host",
        detail="/probe in the sandbox is not {root}: it has no file where we have one.",
        remedy=SHARE,
    ),
    Trouble(
        id="container-does-not-start",
        change=answer("run", err="docker: Error response from daemon: OCI runtime create failed: boom\n", code=125),
        check="folder shared with the host",
        detail="no container starts: docker: Error response from daemon: OCI runtime create failed: boom",
        remedy="what the engine says names the cause",
    ),
)


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.id)
def test_what_is_wrong_is_said_with_its_remedy(trouble: Trouble, engine: Engine, root: Path) -> None:
    """One check fails, the one that is meant, and its text is what the page of operations prints."""
    trouble.change(engine)
    found = probes.examine(settings(root, **trouble.variables), root, start=True, place=trouble.place)
    (failed,) = (check for check in found.checks if not check.ok)
    assert failed.name == trouble.check
    assert failed.detail.startswith(trouble.detail.replace("{root}", str(root))), failed.detail
    assert failed.remedy.startswith(trouble.remedy.replace("{root}", str(root))), failed.remedy
    assert list(root.iterdir()) == []


RUNS = (
    Trouble(
        id="run-no-daemon",
        change=answer("info-names", err=f"Cannot connect to the Docker daemon at {SOCKET}. Is it running?\n", code=1),
        check="Unavailable",
        detail="no Docker daemon answers: Cannot connect to the Docker daemon at unix:///var/run/docker.sock.",
        remedy="",
    ),
    Trouble(
        id="run-permission",
        change=answer("info-names", err=f"{DENIED}\n", code=1),
        check="Unavailable",
        detail="no Docker daemon answers: permission denied while trying to connect to the Docker daemon socket",
        remedy="",
    ),
    Trouble(
        id="run-unknown-runtime",
        variables={"ISORUN_DOCKER_RUNTIME": "kata"},
        check="Unavailable",
        detail="the Docker daemon knows no runtime kata (ISORUN_DOCKER_RUNTIME), only runc, runsc:",
        remedy="add it to the runtimes of its daemon.json",
    ),
    Trouble(
        id="run-no-image",
        change=answer("image", err="Error: No such image\n", code=1),
        check="Unavailable",
        detail="there is no image py-code-exec:latest:",
        remedy="make it with `isorun image build`, or set PY_CODE_EXEC_IMAGE",
    ),
    Trouble(
        id="run-another-image",
        change=answer("image", "7\n"),
        check="Unavailable",
        detail="the image py-code-exec:latest is of version 7 (isorun.image), and this isorun needs 1:",
        remedy="make it again with `isorun image build`",
    ),
    Trouble(
        id="run-mounts-denied",
        change=answer(
            "run", err="docker: Error response from daemon: Mounts denied: \nThe path is not shared.\n", code=125
        ),
        check="SetupFailed",
        detail="container: the container ended: docker: Error response from daemon: Mounts denied:",
        remedy="",
    ),
)


@pytest.mark.parametrize("trouble", RUNS, ids=lambda trouble: trouble.id)
def test_a_run_says_what_is_wrong(trouble: Trouble, engine: Engine, root: Path) -> None:
    """Nothing has started, and the error names the item and what to do."""
    trouble.change(engine)
    with pytest.raises(IsorunError) as caught:
        isorun.run("print(1)", backend="docker", settings=settings(root, **trouble.variables))
    assert type(caught.value).__name__ == trouble.check
    assert str(caught.value).startswith(trouble.detail), str(caught.value)
    assert trouble.remedy in str(caught.value)


def test_an_engine_that_has_everything_has_no_failed_check(engine: Engine, root: Path) -> None:
    """The control of the table: the same engine without the trouble, with what it is asked for in the answers."""
    found = probes.examine(settings(root), root, start=True, place=OUTSIDE)
    assert found.ok
    assert [(check.name, check.detail) for check in found.checks] == [
        ("Docker CLI", str(engine.program)),
        ("Docker daemon", "20.10.24, API 1.41"),
        ("Docker Compose", "2.39.1"),
        ("walls of the engine", "cgroup v2 limits memory, swap, processes and CPU; seccomp filters stand"),
        ("executor's runtime", "runc, the engine's default"),
        ("executor's image", "py-code-exec:latest (sha256:0123456789ab), isorun.image=1"),
        ("ids of the container", IDS),
        ("deployment", "bare metal: the daemon sees our paths"),
        ("host path of the workspace root", str(root)),
        ("folder shared with the host", f"a container that mounts {root} sees a file that was written to {root}"),
    ]
    assert list(root.iterdir()) == []


def test_no_container_starts_unless_it_is_asked_for(engine: Engine, root: Path) -> None:
    """`isorun doctor` of the embedded backend only asks."""
    engine.says("run", err="a container was started", code=125)
    assert probes.examine(settings(root), root, start=False, place=OUTSIDE).ok


def test_without_a_docker_cli_nothing_else_is_asked(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first row of the page: `docker: command not found` in a container without a CLI."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SANDBOX_RUNNER_DOCKER", raising=False)
    (check,) = probes.examine(settings(root), root, start=True, place=INSIDE).checks
    said = "there is no docker on PATH: install a Docker CLI, or name one in SANDBOX_RUNNER_DOCKER"
    assert (check.name, check.ok, check.detail) == ("Docker CLI", False, said)
    assert check.remedy.startswith("apt install docker.io")


def test_a_group_that_is_none_of_ours_is_said() -> None:
    """An ordinary user's executor could not write its output; the backend's own words become cause and remedy."""
    said = "the executor's group 1000 is none of yours, so it could not write its output: set ISORUN_EXECUTOR_GID to 7"
    assert probes.check_ids(said) == Check(
        "ids of the container",
        False,
        "the executor's group 1000 is none of yours, so it could not write its output",
        "set ISORUN_EXECUTOR_GID to 7",
    )
    shared = probes.check_ids(Ids(uid=1001, gid=7, root=False))
    assert (shared.ok, shared.detail) == (True, "1001:7, with which we share folders by the group")


def test_a_daemon_that_hangs_is_said(engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer in time is a failed check, and doctor ends."""
    engine.program.write_text(HANGS)
    monkeypatch.setattr(probes, "_ASK_S", 0.2)
    check = probes.examine(settings(root), root, start=True, place=OUTSIDE).checks[-1]
    assert check == Check(
        "Docker daemon",
        False,
        "`docker version` took longer than 0.2 s",
        "the daemon hangs: read its log, and restart it",
    )


def test_no_compose_is_no_failure(engine: Engine, root: Path) -> None:
    """Runs need none; the docker CLI of a machine without the plugin explains itself with an exit code."""
    engine.says("compose", err="docker: 'compose' is not a docker command.", code=1)
    found = probes.examine(settings(root), root, start=False, place=OUTSIDE)
    said = "none; only the service's compose file needs it (2.0 or later)"
    assert check_named("Docker Compose", found.checks) == Check("Docker Compose", True, said)


def test_a_folder_that_is_not_there_yet_is_no_failure(engine: Engine, root: Path) -> None:
    """The first run makes it; doctor makes nothing."""
    found = probes.examine(settings(root), root / "later", start=True, place=OUTSIDE)
    said = f"{root / 'later'} is not there yet; the first run makes it"
    assert check_named("folder shared with the host", found.checks) == Check("folder shared with the host", True, said)
    assert not (root / "later").exists()


def test_in_a_container_the_named_paths_are_the_hosts(engine: Engine, root: Path) -> None:
    """Docker-in-Docker by HOST_*: each folder that containers get has its path on the daemon's host."""
    found = probes.examine(
        settings(
            root,
            HOST_EXEC_WORKSPACE_PATH="/srv/exec-workspace",
            HOST_BUNDLES_PATH="/srv/bundles",
            HOST_KB_STORAGE_PATH="/srv/kb",
            ISORUN_BUNDLE="/bundles/mine",
        ),
        root,
        start=False,
        place=INSIDE,
    )
    told = {check.name: check.detail for check in found.checks}
    assert found.ok
    assert told["deployment"] == "Docker-in-Docker; the host's paths come from HOST_EXEC_WORKSPACE_PATH and its like"
    assert told["host path of the workspace root"] == f"{root} is /srv/exec-workspace on the daemon's host"
    assert told["host path of the bundles"] == "/bundles/mine is /srv/bundles/mine on the daemon's host"
    assert told["host path of the KB storage"] == "/kdcube-storage is /srv/kb on the daemon's host"


def test_a_knowledge_base_that_is_not_there_is_said(tmp_path: Path) -> None:
    """On bare metal its folder can be looked for; in a container its path is another system's."""
    there, missing = tmp_path, tmp_path / "kb"
    assert probes.check_knowledge(there, contained=False).ok
    assert probes.check_knowledge(missing, contained=True).ok
    assert probes.check_knowledge(missing, contained=False) == Check(
        "host path of the KB storage",
        False,
        f"{missing} is no folder",
        "correct HOST_KB_STORAGE_PATH, or unset it",
    )


def test_a_container_knows_its_own_mounts(engine: Engine, root: Path) -> None:
    """Docker-in-Docker without HOST_*: the daemon is asked for our own container."""
    number = "c" * 64
    mount = {"Type": "bind", "Destination": str(root), "Source": "/srv/exec-workspace"}
    engine.says("inspect-container", [{"Id": number, "Mounts": [mount], "HostConfig": {}}])
    line = f"1 2 8:1 / {root} rw - ext4 /dev/sda rw"
    place = Place(True, Surroundings(True, "chat", f"0::/docker/{number}\n", line))
    found = probes.examine(settings(root), root, start=False, place=place)
    told = {check.name: check.detail for check in found.checks}
    assert (
        told["deployment"]
        == "Docker-in-Docker; the host's paths come from the mounts of our own container cccccccccccc"
    )
    assert told["host path of the workspace root"] == f"{root} is /srv/exec-workspace on the daemon's host"
    assert found.container is not None


def test_a_folder_that_only_begins_alike_is_not_translated() -> None:
    """/bundles2 is not below /bundles: by text alone it would be another folder of the host."""
    paths = HostPaths((("/bundles", "/srv/bundles"),), strict=True)
    naive = "/bundles2/mine".replace("/bundles", "/srv/bundles", 1)
    assert naive == "/srv/bundles2/mine"  # the control: what a prefix would have made of it
    assert not probes.check_path(paths, "bundles", Path("/bundles2/mine")).ok
    assert probes.check_path(paths, "bundles", Path("/bundles/mine")).ok


def test_a_path_that_could_add_options_is_not_mounted(engine: Engine, tmp_path: Path) -> None:
    """`--mount` is comma-separated: such a path could mount something else."""
    root = tmp_path / "a,readonly=false"
    root.mkdir()
    check = probes.examine(settings(root), root, start=True, place=OUTSIDE).checks[-1]
    said = f"path: the engine cannot mount '{root}': a comma, a quote or a line break is in it"
    assert check == Check("folder shared with the host", False, said, "set ISORUN_WORKSPACE_ROOT to another folder")
    assert list(root.iterdir()) == []


def test_what_is_written_to_look_for_is_readable_by_others(engine: Engine, root: Path) -> None:
    """The container is another user: it finds the file whatever our umask."""
    seen = engine.folder / "mode"
    engine.program.write_text(
        CLI.replace(
            'exec cat "${source%%,*}',
            f'stat -c %a "${{source%%,*}}/${{word#/probe/}}" > {seen}; exec cat "${{source%%,*}}',
        )
    )
    assert probes.examine(settings(root), root, start=True, place=OUTSIDE).ok
    assert int(seen.read_text(), 8) & stat.S_IROTH
