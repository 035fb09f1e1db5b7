"""The docker part of `isorun doctor`: each thing that can be wrong with an engine is said, with its remedy.

The engine is a script that answers from files, so each trouble is one file. What must be said of it is read from the
table of docs/exec/operations.md, so the page is what doctor and a run say.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import isorun
from isorun.backends.executor_ids import Identity
from isorun.core.errors import IsorunError
from isorun.doctor import docker as probes
from isorun.doctor.check import Row
from isorun.doctor.docker import Place
from sandbox_runner.docker.command import Answer
from sandbox_runner.docker.host_paths import HostPaths, Surroundings
from tests.docs.pages import ROOT, rows_below
from tests.unit.doctor.stand_ins import CLI, GROUP, IMAGE, INFO, VERSION, Engine, settings

pytestmark = [pytest.mark.uid, pytest.mark.slow]  # each test starts a stand-in for the Docker CLI, often many times

PAGE = ROOT / "docs" / "exec" / "operations.md"
SOCKET = "unix:///var/run/docker.sock"
OUTSIDE = Place(False, Surroundings(False, "host", "", ""))
INSIDE = Place(True, Surroundings(True, "chat", "", ""))
IDS = (
    "1001:1000, which gets its folders"
    if not GROUP
    else f"1001:{os.getegid()}, with which we share folders by the group"
)


def check_named(name: str, checks: tuple[Row, ...]) -> Row:
    (found,) = (check for check in checks if check.name == name)
    return found


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong, by an answer of the engine or by a setting. What is said of it is a row of the page."""

    id: str
    check: str
    change: Callable[[Engine], None] = lambda engine: None
    variables: dict[str, str] = field(default_factory=dict)
    place: Place = OUTSIDE
    run: str = ""  # the class of the error of a run that meets it


def row_of(name: str) -> tuple[str, str]:
    """How the report begins, by the page of operations, and the first sentence of what it tells to do."""
    (row,) = (
        row
        for row in rows_below(PAGE.read_text(encoding="utf-8"), "## Troubleshooting")
        if row[-1].endswith(f" ({name})")
    )
    said, remedy = (row[cell].replace("`", "") for cell in (0, 3))
    return said.rstrip("…"), remedy.partition(". ")[0].rstrip(".")


def as_on_the_page(text: str, root: Path) -> str:
    """Without marks, and with the folder that the page has."""
    return text.replace("`", "").replace(str(root), "/exec-workspace")


def answer(verb: str, out: object = "", *, err: str = "", code: int = 0) -> Callable[[Engine], None]:
    return lambda engine: engine.says(verb, out, err=err, code=code)


def image_labelled(labels: dict[str, str]) -> Callable[[Engine], None]:
    return answer("inspect-image", [{**IMAGE, "Config": {"Labels": labels}}])


NO_SERVER = {**VERSION, "Server": None}
DENIED = f'permission denied while trying to connect to the Docker daemon socket at {SOCKET}: Get "http://x": dial unix'
# A user whose HOME is another's gets this line before any other, of every command.
WARNED = "WARNING: Error loading config file: open /root/.docker/config.json: permission denied\n"
HANGS = "#!/bin/sh\nexec sleep 60\n"
TROUBLES = (
    Trouble(
        "permission", "Docker daemon", change=answer("version", NO_SERVER, err=f"{DENIED}\n", code=1), run="Unavailable"
    ),
    Trouble(
        "permission-20.10", "Docker daemon", change=answer("version", NO_SERVER, err=f"{WARNED}Got {DENIED}\n", code=1)
    ),
    Trouble(
        "no-daemon",
        "Docker daemon",
        change=answer(
            "version", NO_SERVER, err=f"Cannot connect to the Docker daemon at {SOCKET}. Is it running?\n", code=1
        ),
        run="Unavailable",
    ),
    Trouble(
        "no-socket-in-a-container",
        "Docker daemon",
        change=answer(
            "version", NO_SERVER, err=f"Cannot connect to the Docker daemon at {SOCKET}. Is it running?\n", code=1
        ),
        place=INSIDE,
    ),
    Trouble(
        "another-complaint", "Docker daemon", change=answer("version", err="client version 1.99 is too new\n", code=1)
    ),
    Trouble("old-daemon", "Docker daemon", change=answer("version", {"Server": {"Version": "19.03.15"}})),
    Trouble(
        "old-compose", "Docker Compose", change=answer("compose", "docker-compose version 1.29.2, build 5becea4c\n")
    ),
    Trouble(
        "no-ceilings", "walls of the engine", change=answer("info", {**INFO, "CgroupVersion": "1", "SwapLimit": False})
    ),
    Trouble("no-seccomp", "walls of the engine", change=answer("info", {**INFO, "SecurityOptions": ["name=apparmor"]})),
    Trouble("unknown-runtime", "executor's runtime", variables={"ISORUN_DOCKER_RUNTIME": "kata"}, run="Unavailable"),
    Trouble(
        "no-image",
        "executor's image",
        change=answer("inspect-image", err="Error: No such image", code=1),
        run="Unavailable",
    ),
    Trouble("another-image", "executor's image", change=image_labelled({})),
    Trouble("another-version", "executor's image", change=image_labelled({"isorun.image": "7"}), run="Unavailable"),
    Trouble("paths-on-bare-metal", "deployment", variables={"HOST_EXEC_WORKSPACE_PATH": "/srv/exec-workspace"}),
    Trouble(
        "bundle-not-mounted",
        "host path of the bundles",
        variables={"HOST_EXEC_WORKSPACE_PATH": "/srv/exec-workspace", "ISORUN_BUNDLE": "/bundles2/mine"},
        place=INSIDE,
    ),
    Trouble(
        "mounts-denied",
        "folder shared with the host",
        change=answer(
            "run",
            err="docker: Error response from daemon: Mounts denied: \nThe path {root} is not shared from the host.\n",
            code=125,
        ),
        run="SetupFailed",
    ),
    Trouble(
        "no-such-path-on-the-host",
        "folder shared with the host",
        change=answer(
            "run", err='docker: invalid mount config for type "bind": bind source path does not exist', code=125
        ),
        variables={"HOST_EXEC_WORKSPACE_PATH": "/nowhere/exec-workspace"},
        place=INSIDE,
    ),
    Trouble(
        "another-folder",
        "folder shared with the host",
        change=answer("run", err="FileNotFoundError: [Errno 2] No such file or directory: '/probe/x'\n", code=1),
        variables={"HOST_EXEC_WORKSPACE_PATH": "/srv/another"},
        place=INSIDE,
    ),
    Trouble(
        "container-does-not-start",
        "folder shared with the host",
        change=answer("run", err="docker: Error response from daemon: OCI runtime create failed: boom\n", code=125),
    ),
)


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.id)
def test_what_is_wrong_is_said_with_its_remedy(trouble: Trouble, engine: Engine, root: Path) -> None:
    """One check fails, the one that is meant, and its text is what the page of operations prints."""
    trouble.change(engine)
    found = probes.examine(settings(root, **trouble.variables), root, start=True, place=trouble.place)
    (failed,) = (check for check in found.checks if not check.ok)
    assert failed.name == trouble.check
    said, remedy = row_of(trouble.id)
    assert as_on_the_page(failed.detail, root).startswith(said), failed.detail
    assert as_on_the_page(failed.remedy, root).startswith(remedy), failed.remedy
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("trouble", [one for one in TROUBLES if one.run], ids=lambda trouble: trouble.id)
def test_a_run_says_what_is_wrong(trouble: Trouble, engine: Engine, root: Path) -> None:
    """Nothing has started, and the error names the item and what to do, unless the page leaves that to doctor."""
    trouble.change(engine)
    with pytest.raises(IsorunError) as caught:
        isorun.run("print(1)", backend="docker", settings=settings(root, **trouble.variables))
    said, remedy = row_of(f"run-{trouble.id}")
    told = as_on_the_page(str(caught.value), root)
    assert (type(caught.value).__name__, told[: len(said)]) == (trouble.run, said)
    assert remedy in told or remedy == "isorun doctor --backend docker names the remedy"


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
        ("deployment", "bare metal: the engine sees our paths"),
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
    cause = "the executor runs with group 1000 and you are not a member, so it could not write its output"
    said = f"{cause}: set ISORUN_EXECUTOR_GID to 7"
    assert probes.check_ids(said) == Row(
        "ids of the container",
        False,
        "the executor runs with group 1000 and you are not a member, so it could not write its output",
        "set ISORUN_EXECUTOR_GID to 7",
    )
    shared = probes.check_ids(Identity(uid=1001, gid=7, root=False))
    assert (shared.ok, shared.detail) == (True, "1001:7, with which we share folders by the group")


def test_a_daemon_that_hangs_is_said(engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer in time is a failed check, and doctor ends."""
    engine.program.write_text(HANGS)
    monkeypatch.setattr(probes, "_ASK_S", 0.2)
    check = probes.examine(settings(root), root, start=True, place=OUTSIDE).checks[-1]
    assert check == Row(
        "Docker daemon",
        False,
        "`docker version` took longer than 0.2 s",
        "the daemon hangs: read its log, and restart it",
    )


def test_no_compose_is_no_failure(engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs need none; the docker CLI of a machine without the plugin explains itself with an exit code."""
    monkeypatch.setattr(probes, "standalone_compose", str)  # this machine may have the program
    engine.says("compose", err="docker: 'compose' is not a docker command.", code=1)
    found = probes.examine(settings(root), root, start=False, place=OUTSIDE)
    said = "none; only the service's compose file needs it (2.24 or later)"
    assert check_named("Docker Compose", found.checks) == Row("Docker Compose", True, said)


def test_a_folder_that_is_not_there_yet_is_no_failure(engine: Engine, root: Path) -> None:
    """The first run makes it; doctor makes nothing."""
    found = probes.examine(settings(root), root / "later", start=True, place=OUTSIDE)
    said = f"{root / 'later'} is not there yet; the first run makes it"
    assert check_named("folder shared with the host", found.checks) == Row("folder shared with the host", True, said)
    assert not (root / "later").exists()


def test_in_a_container_the_named_paths_are_the_hosts(engine: Engine, root: Path) -> None:
    """Docker-in-Docker by HOST_*: each folder that containers get has its path on the engine's host."""
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
    assert told["host path of the workspace root"] == f"{root} is /srv/exec-workspace on the engine's host"
    assert told["host path of the bundles"] == "/bundles/mine is /srv/bundles/mine on the engine's host"
    assert told["host path of the KB storage"] == "/kdcube-storage is /srv/kb on the engine's host"


def test_a_knowledge_base_that_is_not_there_is_said(tmp_path: Path) -> None:
    """On bare metal its folder can be looked for; in a container its path is another system's."""
    there, missing = tmp_path, tmp_path / "kb"
    assert probes.check_knowledge(there, contained=False).ok
    assert probes.check_knowledge(missing, contained=True).ok
    assert probes.check_knowledge(missing, contained=False) == Row(
        "host path of the KB storage",
        False,
        f"{missing} is not a folder",
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
    assert told["host path of the workspace root"] == f"{root} is /srv/exec-workspace on the engine's host"
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
    assert check == Row("folder shared with the host", False, said, "set ISORUN_WORKSPACE_ROOT to another folder")
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


@pytest.mark.parametrize(
    ("standalone", "said", "remedy"),
    [
        ("", "none; only the service's compose file needs it (2.24 or later)", ""),
        (
            "1.29.2\n",
            "no plugin; docker-compose 1.29.2 on PATH, and the service's compose file needs 2.24 or later",
            "in",
        ),
        ("docker-compose version 1.25.0, build x", "no plugin; docker-compose 1.25.0 on PATH, and the service", "in"),
        ("v2.40.3\n", "no plugin; docker-compose 2.40.3 on PATH", ""),
        ("broken", "none; only the service's compose file needs it (2.24 or later)", ""),
    ],
)
def test_a_compose_beside_the_cli_is_seen(standalone: str, said: str, remedy: str) -> None:
    """The old program `docker-compose` is no plugin of the CLI; runs need neither, so it is no failure."""
    row = probes.check_compose(Answer(1, b"", b"unknown command"), standalone)
    assert (row.ok, row.detail.startswith(said), row.remedy[:2]) == (True, True, remedy)


@pytest.mark.parametrize(
    ("version", "ok", "said"),
    [
        ("1.29.2", False, "1.29.2 is older than 2.0, and the service's compose file needs 2.24 or later"),
        ("v2.23.3-desktop.2", True, "2.23.3, and the service's compose file needs 2.24 or later"),
        ("v2.24.0", True, "2.24.0"),
        ("v5.0.1", True, "5.0.1"),
    ],
)
def test_a_plugin_that_cannot_read_the_services_file_is_said(version: str, ok: bool, said: str) -> None:
    """The file's optional `env_file` came with 2.24; runs do not need it, so one of 2.0 is no failure."""
    row = probes.check_compose(Answer(0, f"Docker Compose version {version}\n".encode(), b""), "1.29.2")
    assert (row.ok, row.detail, bool(row.remedy)) == (ok, said, "2.24 or later" in said)


def test_the_program_docker_compose_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One on PATH; a broken one, and none, say nothing."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program = tmp_path / "docker-compose"
    for script, said in (("echo 1.29.2", "1.29.2\n"), ("echo 9; exit 3", "")):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        assert probes.standalone_compose() == said
    monkeypatch.setenv("PATH", "/nowhere")
    assert probes.standalone_compose() == ""
