"""What a remedy has for `isorun doctor --fix` is carried out here, and then the check that asked for it is ok.

`MENDED` names every check that has such a remedy; for each there is a test below, or one in `tests/conformance`.
"""

import json
import os
import shlex
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import isorun
from isorun.backends import remedy as remedies
from isorun.backends.executor_ids import Identity
from isorun.backends.remedy import Command, Export, Remedy
from isorun.doctor import docker, mend, namespace, production
from isorun.doctor.check import Row
from isorun.doctor.world import World
from isorun.doctor.world import look as look_around
from isorun.settings import _RULES, Settings
from tests.unit.cli.test_image_command import Machine
from tests.unit.doctor.stand_ins import Engine, settings
from tests.unit.doctor.test_docker_doctor import TROUBLES
from tests.unit.doctor.test_production import FAILING

OURS = Identity(uid=os.geteuid(), gid=os.getegid(), root=False)
SHARED = "folder shared with the host"
SWITCHES = {path: closed for path, closed, *_ in remedies.SWITCHES}
#: Each check with an action, and how it is shown that the action can be done.
MENDED = {
    "AWS credentials": "its variable is read",
    "Docker CLI": "simulated by apt-get",
    "Docker Compose": "simulated by apt-get",
    "Docker daemon": "by its words: a test starts no daemon",
    "Docker socket": "done",
    "bubblewrap": "done, and simulated by apt-get",
    "ceilings": "done by tests/conformance/test_remedies.py",
    "cgroup": "the same as ceilings",
    "core dumps": "a dry run of sysctl",
    "executor's image": "done, on a stand-in for the engine",
    "files with secrets": "done",
    "folder shared with the host": "done",
    "image built and tagged": "done, on a stand-in for the engine",
    "leftovers": "a dry run of sandbox-runner cleanup, and isorun cleanup as in retention",
    "retention": "done",
    "settings": "done",
    "supervisor's network": "its variable is read",
    "user namespaces": "a dry run of sysctl",
    "workspace permissions": "done",
}


@pytest.fixture
def rows(world: World, engine: Engine, root: Path, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """Every row that the tests of doctor can bring to fail; the machine has apt-get."""
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/apt-get" if name == "apt-get" else which(name))
    found = [namespace.check_bubblewrap(None, OURS), namespace.check_bubblewrap("/bin/false", OURS)]
    found += [namespace.check_user_namespaces(SWITCHES), Row(SHARED, *docker.unwritable(root))]
    for failing in FAILING:
        changed = replace(world, root=root.parent / failing.id, **failing.change)
        changed.root.mkdir(mode=0o750)
        failing.act(changed)
        found += production.examine(changed)
    found += production.examine(replace(world, settings=replace(world.settings, ignored=("ISORUN_BUNDLE",))))
    found.append(production.check_files(_with_secrets(world, root.parent)))
    for trouble in TROUBLES:
        trouble.change(engine)
        found += docker.examine(settings(root, **trouble.variables), root, start=True, place=trouble.place).checks
        engine.reset()
    engine.program.unlink()
    found += docker.examine(settings(root), root, start=False).checks
    return [row for row in found if not row.ok]


def _with_secrets(world: World, folder: Path) -> World:
    file = folder / "env"
    file.write_text("AWS_SECRET_ACCESS_KEY=hush-secret-key\nAWS_ACCESS_KEY_ID=AKIAEXAMPLE\nAWS_REGION=eu-west-1\n")
    file.chmod(0o644)
    given = Settings.load(file, environ={})
    return replace(world, settings=given, files={str(file): file.stat().st_mode})


@pytest.mark.slow
def test_every_action_is_well_formed_and_carried_out_by_a_test(rows: list[Row]) -> None:
    """A shell reads a command back as it is, and the text has it unless a package manager does it.

    A remedy with a new action comes with a line of the table, and a test that carries it out.
    """
    elsewhere = {"ceilings", "cgroup"}  # which the tables bring to fail by a text alone
    assert {row.name for row in rows if row.actions} | elsewhere == MENDED.keys()
    for row in rows:
        for action in row.actions:
            if isinstance(action, Export):
                assert action.name in {name for rule in _RULES.values() for name in rule.names}
                Settings.load(environ={action.name: action.value})
                assert f"{action.name}={action.value}" in row.remedy
            else:
                assert shlex.split(str(action)) == list(action.argv)
                done = action.argv[0] in ("apt-get", "chown") or str(action) in row.remedy
                assert done, (row.remedy, action)


def do(row: Row) -> None:
    """Carry its commands out, whoever we are."""
    todo = [action for action in row.actions if isinstance(action, Command)]
    assert todo, row
    assert mend.carry_out(todo, quiet=True) == ""


def test_a_file_with_secrets_is_closed(world: World, tmp_path: Path) -> None:
    """As doctor tells, and then doctor is content."""
    open_ = _with_secrets(world, tmp_path)
    do(production.check_files(open_))
    modes = {file: Path(file).stat().st_mode for file in open_.files}
    assert production.check_files(replace(open_, files=modes)).ok


def test_a_folder_of_the_runs_is_made(world: World, tmp_path: Path) -> None:
    """With a blank in its name, of this user alone."""
    wanted = replace(world, root=tmp_path / "the runs" / "of a service", uid=os.geteuid())
    do(production.check_workspace(wanted))
    assert production.check_workspace(wanted).ok
    assert stat.S_IMODE(wanted.root.stat().st_mode) == 0o750


def test_a_folder_of_the_runs_is_given_to_this_user(tmp_path: Path) -> None:
    """By production and by the look from inside a container, with the same command."""
    if os.geteuid() == 0:
        os.chown(tmp_path, 65534, 65534)
    row = Row(SHARED, *docker.unwritable(tmp_path))
    assert row.remedy == f"chown it to this user (uid {os.geteuid()})"
    do(row)
    assert tmp_path.stat().st_uid == os.geteuid()


def test_a_socket_is_closed_to_others(world: World, tmp_path: Path) -> None:
    """A real socket, which everybody could write to."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        seen = replace(world, socket=(f"unix://{path}", path.stat().st_mode))
        do(production.check_socket(seen))
        assert production.check_socket(replace(seen, socket=(f"unix://{path}", path.stat().st_mode))).ok


def test_a_bubblewrap_is_opened(tmp_path: Path) -> None:
    """The mode that the remedy names is the one that it gets."""
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o700)
    do(namespace.check_bubblewrap(str(program), OURS))
    assert stat.S_IMODE(program.stat().st_mode) == 0o705


def test_a_file_of_settings_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """In the folder that doctor was started in; what was ignored there counts afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / ".env.backend").write_text("ISORUN_BUNDLE=/b\n")
    (tmp_path / ".env.backend").chmod(0o600)
    ignoring = replace(world, settings=Settings.load())
    do(production.check_settings(ignoring))
    assert not Settings.load().ignored
    assert Settings.load().bundle == Path("/b")


def test_old_runs_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """`isorun cleanup` finds the folder of the runs by the same settings as doctor."""
    monkeypatch.setenv("ISORUN_WORKSPACE_ROOT", str(tmp_path / "runs"))
    monkeypatch.setenv("SANDBOX_RUNNER_DOCKER", "/bin/false")
    old = isorun.run("pass").out_dir.parent
    for path in (old, old / "out", old / "out" / "result.json"):
        os.utime(path, (time.time() - 1000 * 3600,) * 2)

    def look() -> World:
        return look_around(Settings.load(), old.parent, world.found, docker=False)

    assert look().old_runs == 1
    row = production.check_retention(look())
    assert mend.carry_out([action for action in row.actions if isinstance(action, Command)], quiet=True) == ""
    assert production.check_retention(look()).ok


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """One with a stand-in for Docker that keeps images."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as locks:
        yield Machine(tmp_path, locks)


def test_the_image_is_built_and_gets_a_name_that_stays(
    machine: Machine,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two rows of a stand-in for the engine, which keeps the images that it was told to make."""
    for name, value in machine.environ.items():
        monkeypatch.setenv(name, value)
    do(docker.check_image("py-code-exec:latest", None))
    (build,) = machine.calls("build")
    assert any(word.startswith("--tag=py-code-exec:") for word in build)
    found = replace(world.found, image={"RepoTags": ["py-code-exec:latest"]})
    row = production.check_image_tag(replace(world, found=found))
    do(row)
    assert machine.calls("tag")[-1] == ["tag", "py-code-exec:latest", "py-code-exec:1"]
    assert "py-code-exec:1" in json.loads((machine.folder / "images.json").read_text())
    assert mend.by_hand(row.actions[1:]) == [
        "type this in the shell that starts isorun: export PY_CODE_EXEC_IMAGE=py-code-exec:1"
    ]


def test_a_variable_that_is_set_mends_its_check(world: World) -> None:
    """What the caller's shell has to export."""
    embedded = {"docker": False, "contained": False}
    for check, given in (
        (production.check_network, {"PY_CODE_EXEC_NETWORK_MODE": "chat-internal"}),
        (production.check_aws, {"AWS_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true"}),
    ):
        row = check(replace(world, settings=Settings.load(environ=given), **embedded))
        (export,) = row.actions
        set_ = Settings.load(environ={**given, export.name: export.value})
        assert (row.ok, check(replace(world, settings=set_, **embedded)).ok) == (False, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "dry"), [("sysctl", "--dry-run"), ("apt-get", "--simulate"), ("sandbox-runner", "--dry-run")]
)
def test_what_would_change_the_machine_is_tried_dry(program: str, dry: str, world: World) -> None:
    """The tool itself reads the words that it would get. A package or a kernel's switch may be unknown here."""
    found = [namespace.check_user_namespaces(SWITCHES), production.check_dumps(replace(world, core_pattern="|x"))]
    found += [namespace.check_bubblewrap(None, OURS), production.check_leftovers(replace(world, leftovers=("a",)))]
    tried = [action for row in found for action in row.actions if action.argv[0] == program]
    assert tried or shutil.which(program) is None
    for command in tried:
        name, *argv = mend.words(command)
        tool = shutil.which(name) or shutil.which(name, path="/usr/sbin")  # which is root's, and on no user's PATH
        if tool is None:
            continue  # a machine of another distribution
        done = subprocess.run([tool, *argv, dry], capture_output=True, text=True)
        told = done.stdout + done.stderr
        unknown = ("Unable to locate package", "No such file or directory", "has no installation candidate")
        assert done.returncode == 0 or any(words in told for words in unknown), told


def test_who_is_not_root_gets_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a remedy is done if a part of it cannot be: half a remedy could make it worse."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    make, give = Command.of("mkdir", "-p", "/g", as_root=True), Command.of("chown", "-R", "me", "/g", as_root=True)
    name, own = Export("ISORUN_CGROUP_PARENT", "isorun"), Command.of("true")
    row = Row("ceilings", False, "", Remedy("…", own, make, give, name))
    assert mend.commands(row) == []
    assert mend.by_hand((make, give, name)) == [
        "type this as root: mkdir -p /g && chown -R me /g",
        "type this in the shell that starts isorun: export ISORUN_CGROUP_PARENT=isorun",
    ]
    assert mend.obstacle(Command.of("no-such-program")) == "where there is a no-such-program"
    assert mend.commands(Row("a", False, "", Remedy("…", own, name))) == [own]


def test_what_fails_is_said_and_the_rest_is_left(tmp_path: Path) -> None:
    """The next command was to come after one that went well."""
    touch = Command.of("touch", tmp_path / "made")
    assert mend.carry_out([Command.of("false"), touch], quiet=True) == "false: exit code 1"
    assert not (tmp_path / "made").exists()
    (tmp_path / "no program").touch(mode=0o644)
    assert mend.carry_out([Command.of(tmp_path / "no program"), touch], quiet=True).endswith(": Permission denied")


def test_the_current_folder_has_no_say_in_what_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of our name in a stranger's folder is not what `isorun …` starts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "isorun").mkdir()
    (tmp_path / "isorun" / "__main__.py").write_text("open('ran', 'w')\n")
    (tmp_path / "isorun" / "__init__.py").touch()
    assert mend.carry_out([Command.of("isorun", "--version")], quiet=True) == ""
    assert not (tmp_path / "ran").exists()
