"""The command line without an engine: what was typed, what is passed on, what a doctor says."""

import argparse
import errno
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest

from sandbox_runner.cli import doctor as doctor_module
from sandbox_runner.cli import main as cli
from sandbox_runner.cli import run as cli_run
from sandbox_runner.cli import words as cli_words
from sandbox_runner.cli.doctor import DEFAULT_BASE, Row, docker_rows, engine_rows, works, works_without
from sandbox_runner.cli.terminal import Interrupted, Terminal, interruptible, plain, table
from sandbox_runner.docker.command import DockerCli
from sandbox_runner.docker.context import builtin_context
from sandbox_runner.docker.engine import Engine
from sandbox_runner.docker.line import NONCE
from sandbox_runner.errors import DockerUnavailable, ImageBuildFailed, InvalidSpec, SandboxGone, SandboxStartFailed
from sandbox_runner.execution import ExecResult
from sandbox_runner.records import publish
from sandbox_runner.spec import SandboxSpec
from sandbox_runner.state import StateFolder

CLI = (sys.executable, "-m", "sandbox_runner")
NO_CLI = "there is no docker on PATH: install a Docker CLI, or name one in SANDBOX_RUNNER_DOCKER"
SECRET = "a-value-that-nobody-may-see"
INFO = {
    "SecurityOptions": ["name=seccomp,profile=default"],
    "CgroupVersion": "2",
    "MemoryLimit": True,
    "SwapLimit": True,
    "PidsLimit": True,
    "Runtimes": {"runc": {}, "runsc": {}},
}


def typed(*words: str, **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*CLI, *words], capture_output=True, text=True, timeout=60, **options)


@pytest.fixture
def memory(monkeypatch) -> Path:
    """A folder in memory of this test's own, for the state of its own sandboxes."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="sandbox-test-") as place:
        monkeypatch.setenv("XDG_RUNTIME_DIR", place)
        yield Path(place)


def result(**given: object) -> ExecResult:
    usual = {"exit_code": 0, "signal": None, "stdout": b"", "stderr": b"", "timed_out": False}
    return ExecResult(**{**usual, "out_of_memory": False, "truncated": False, "duration_s": 0.1, **given})


# What was typed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "COMMAND: put `--` and then the command at the end"),
        (("--",), "COMMAND: put `--` and then the command at the end"),
        (("--env", "A B", "--", "ls"), "--env: 'A B' is not the name of a variable"),
        (("--env", f"A={SECRET}"[:2], "--", "ls"), "--env: 'A=' is not the name of a variable"),
        (("--mount", "/nowhere:/x", "--", "ls"), "--mount: /nowhere: No such file or directory"),
        (("--mount", "/x", "--", "ls"), "--mount: '/x' is not SOURCE:TARGET or SOURCE:TARGET:ro"),
        (("--memory", "1k", "--", "ls"), "--memory: 1k is less than the 6m that an engine takes"),
        (("--pids", "0", "--", "ls"), "--pids: 0 must be a whole number above 0"),
        (("--name", "a/b", "--", "ls"), "--name: 'a/b' must be letters, digits, dot, dash and underscore"),
        (("--context", "nowhere", "--", "ls"), "--context: nowhere is not a folder"),
        (("--dockerfile", "x", "--", "ls"), "--dockerfile: needs --context, the folder it is in"),
        (("--env-file", "nowhere", "--", "ls"), "--env-file: nowhere: No such file or directory"),
        (("--exec-backend", "namespace", "--image", "x", "--", "ls"), "--image: the namespace backend has no image"),
        (("--timeout", "1x", "--", "ls"), "argument --timeout: 1x must be a number above 0, or a time such as 90s"),
        (("--ttl", "1h5", "--", "ls"), "argument --ttl: 1h5 must be a number above 0, or a time such as 90s"),
        (("--memory", "1.5", "--", "ls"), "--memory: '1.5' is not a size: give bytes, or a number with k, m or g"),
        (("ls", "-l"), "unrecognized arguments: ls -l; the command comes after `--`"),
        (("--workspace", "/", "--", "ls"), "--workspace: / is all of this machine: name a folder"),
        (("--artifacts", "//", "--", "ls"), "--artifacts: / is all of this machine: name a folder"),
        (("--workspace", "/dev/null", "--", "ls"), "--workspace: /dev/null cannot be made: it is not a folder"),
        (("--workspace", "/proc/none", "--", "ls"), "--workspace: /proc/none cannot be made: No such file"),
        (("--timeout", "nan", "--", "ls"), "argument --timeout: nan must be a number above 0"),
        (("--max-output", "much", "--", "ls"), "argument --max-output: 'much' is not a size"),
        (("--tim", "3", "--", "ls"), "unrecognized arguments: --tim"),
    ],
)
def test_what_cannot_be_used_is_named_as_it_was_typed(words, says, tmp_path: Path) -> None:
    """Exit code 2, one line that names the option, no traceback, and nothing is made."""
    done = typed("run", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_option_of_the_command_is_the_commands(tmp_path: Path) -> None:
    """Whatever stands behind the first `--` is left as it is, another `--` too."""
    done = typed("run", "--memory", "1", "--json", "--", "ls", "--json", "--", "--help", cwd=tmp_path)
    assert json.loads(done.stdout)["error"]["message"].startswith("resources.memory: 1 is less")


def test_the_workspace_and_the_artifacts_may_not_overlap(tmp_path: Path) -> None:
    """Also not through a link: commands could change the records of earlier runs."""
    (tmp_path / "work").mkdir()
    (tmp_path / "link").symlink_to("work")
    for workspace, artifacts in ((".", "out"), ("work", "link/out"), ("link/in", "work"), ("work", "work")):
        done = typed("run", "--workspace", workspace, "--artifacts", artifacts, "--", "ls", cwd=tmp_path)
        assert (done.returncode, "overlap" in done.stderr) == (2, True), done.stderr
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    done = typed("run", "--workspace", ".", "--", "ls", cwd=tmp_path, env=environ)
    assert (done.returncode, "overlap" in done.stderr) == (2, True), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "work"]


@pytest.mark.parametrize("option", ["--workspace", "--artifacts"])
def test_who_works_in_the_current_folder_has_the_run_elsewhere(option, tmp_path: Path) -> None:
    """With the person's state, so that neither folder of it lies in the other; else it is below the current one."""
    (tmp_path / "here").mkdir()
    given = {"cwd": tmp_path / "here", "env": {**os.environ, "SANDBOX_RUNNER_DOCKER": "no-such-docker"}}
    for environ, home in (({"XDG_STATE_HOME": f"{tmp_path}/s"}, "s"), ({"XDG_STATE_HOME": ""}, "h/.local/state")):
        given["env"] |= {"HOME": f"{tmp_path}/h", **environ}
        done = typed("run", option, ".", "--", "ls", **given)
        assert done.returncode == 125, done.stderr
        told = dict(line.split()[1:3] for line in done.stderr.splitlines()[:2])
        assert told.pop(option[2:]) == f"{tmp_path}/here"
        (elsewhere,) = told.values()
        assert Path(elsewhere).is_relative_to(tmp_path / home / "sandbox_runner" / "runs")
        assert Path(elsewhere).is_dir()
    typed("run", "--workspace", "../other", "--", "ls", **given)
    assert len(list((tmp_path / "here" / "sandbox-runs").glob("*/artifacts"))) == 1


def test_artifacts_behind_a_link_are_refused(tmp_path: Path) -> None:
    """It may be one that an earlier sandbox made in place of the folder."""
    (tmp_path / "link").symlink_to("elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere").mkdir()
    done = typed("run", "--exec-backend", "namespace", "--artifacts", "link", "--", "ls", cwd=tmp_path)
    assert done.returncode == 2
    assert "link must be a folder, not a link to one" in done.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_every_field_that_can_be_wrong_is_an_option() -> None:
    """`OPTIONS` names what a sandbox is made of, by options that exist."""
    help_ = typed("run", "--help").stdout
    known = {field.name for field in fields(SandboxSpec)} | {
        "container_name",
        "mounts",
        "workspace_dir",
        "artifacts_dir",
    }
    for name, option in cli_words.OPTIONS.items():
        assert name.partition(".")[0] in known
        assert f"{option} " in help_, option


def test_a_file_of_variables_is_read_as_docker_reads_it(tmp_path: Path) -> None:
    """Comments and empty lines are left out, a value may hold anything, and no error shows one."""
    file = tmp_path / "env"
    file.write_text(f"# no\n\nA=1\nB={SECRET}=2 #\nC=\n")
    assert cli_run._env_of(file) == {"A": "1", "B": f"{SECRET}=2 #", "C": ""}
    file.write_bytes("A=1\x85B=2\u2028\r\nC=x\ry\n".encode())  # \n alone ends a line
    assert cli_run._env_of(file) == {"A": "1\x85B=2\u2028", "C": "x\ry"}
    file.write_text(f"A=1\n{SECRET}\n")
    with pytest.raises(InvalidSpec, match=r"^env_overrides: .*env, line 2: not NAME=VALUE$") as caught:
        cli_run._env_of(file)
    assert SECRET not in str(caught.value)
    file.write_text(f"A B={SECRET}\n")
    done = typed("run", "--env-file", str(file), "--", "ls", cwd=tmp_path)
    assert (done.returncode, SECRET in done.stderr) == (2, False)
    assert "--env-file: 'A B' is not the name of a variable" in done.stderr


@pytest.mark.parametrize("verb", [("run",), ("exec", "name")])
def test_a_terminal_that_cannot_be_had_is_refused(tmp_path: Path, verb: tuple[str, ...]) -> None:
    """Before anything is made, with what to do instead."""
    done = typed(*verb, "--tty", "--", "ls", cwd=tmp_path, stdin=subprocess.DEVNULL)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    said = "--tty: standard input is not a terminal: --stdin gives a pipe or a file to the command"
    assert said in done.stderr
    ours, theirs = os.openpty()
    done = typed(*verb, "-t", "--json", "--", "ls", cwd=tmp_path, stdin=theirs)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 2
    assert "--tty: --json shows nothing of what the command prints: leave out one of them" in done.stderr


def test_the_entry_point_is_this_function() -> None:
    """`sandbox-runner` of an installed package, and `python -m sandbox_runner`, are `cli.main`."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"sandbox-runner": f"{cli.main.__module__}:{cli.main.__name__}"}
    assert typed("--version").stdout.startswith("sandbox_runner ")
    for verb in ("run", "exec", "ps", "cleanup", "doctor"):
        shown = typed(verb, "--help").stdout
        assert shown.startswith(f"usage: sandbox-runner {verb}")
        assert "--json" in shown


# How it ended


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (result(), 0),
        (result(exit_code=7), 7),
        (result(exit_code=125), 125),
        (result(exit_code=None, signal=11), 139),
        (result(exit_code=None, signal=9, timed_out=True), 124),
        (result(exit_code=0, timed_out=True), 124),
        (result(exit_code=None, signal=9, out_of_memory=True), 137),
    ],
)
def test_a_result_has_its_exit_code(ending, code) -> None:
    """As a shell has it, and `timeout`."""
    assert cli_run.Ending(result=ending).code == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidSpec("argv", "no"), 2),
        (DockerUnavailable("no"), 125),
        (SandboxGone("no"), 125),
        (OSError("no"), 125),
        (Interrupted(signal.SIGINT), 130),
        (Interrupted(signal.SIGTERM), 143),
    ],
)
def test_an_error_has_its_exit_code(error, code) -> None:
    """Also when the command had ended well before: what is left of its sandbox has to be looked after."""
    assert cli_run.Ending(error=error).code == code
    assert cli_run.Ending(result=result(), error=error).code == code


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            SandboxGone("mine does not run: `sandbox-runner cleanup` removes it"),
            "mine does not run: `sandbox-runner cleanup mine` removes it",
        ),
        (
            ImageBuildFailed(
                "failed; its output is in docker_build.log, the end of it is:\nx is in docker_build.log, y"
            ),
            "failed; its output is in /a/docker_build.log, the end of it is:\nx is in docker_build.log, y",
        ),
        (
            SandboxStartFailed("To go on without one, name it in SandboxSpec.loosen"),
            "To go on without one, name it with --loosen",
        ),
        (
            ImageBuildFailed('and image_pull_policy="never" forbids to fetch it'),
            "and --pull never forbids to fetch it",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "/full/x"),
            "/full/x: No space left on device: make room, or name folders on another disk with --workspace and "
            "--artifacts (and TMPDIR, where output is kept while a command runs)",
        ),
    ],
)
def test_a_remedy_is_one_that_can_be_typed(error, says) -> None:
    """With the sandbox's name, the log's whole path, and options instead of the names of the Python interface."""
    assert cli_words.complaint(error, name="mine", artifacts=Path("/a")) == says


def test_without_an_engine_the_records_say_why(tmp_path: Path) -> None:
    """One line on stderr, exit code 125, and the same in the run folder; nothing on stdout."""
    environ = {**os.environ, "SANDBOX_RUNNER_DOCKER": "no-such-docker"}
    done = typed("run", "--", "ls", cwd=tmp_path, env=environ)
    assert (done.returncode, done.stdout) == (125, "")
    *folders, line = done.stderr.splitlines()
    assert line.startswith("sandbox-runner: there is no no-such-docker on PATH: install a Docker CLI")
    assert [folder.split()[1] for folder in folders] == ["workspace", "artifacts"]
    artifacts = Path(folders[1].split()[2])
    assert artifacts.is_relative_to(tmp_path / "sandbox-runs")
    said = json.loads((artifacts / "command.json").read_text())
    assert (said["error"]["type"], said["exit_code"]) == ("DockerUnavailable", None)
    assert (artifacts / "exit_code").read_text() == "125\n"
    done = typed("run", "--json", "--", "ls", cwd=tmp_path, env=environ)
    assert json.loads(done.stdout)["error"]["type"] == "DockerUnavailable"
    assert json.loads(done.stdout)["status"] == 125


@pytest.mark.parametrize("planted", ["link", "folder", "fifo"])
def test_a_record_that_is_copied_from_a_file_follows_no_link(planted, tmp_path: Path) -> None:
    """Whatever has the record's name, the file it leads to stays as it is."""
    outside, inside = tmp_path / "outside", tmp_path / "artifacts"
    outside.write_bytes(b"theirs")
    inside.mkdir()
    name = inside / "stdout.log"
    {"link": lambda: name.symlink_to(outside), "folder": name.mkdir, "fifo": lambda: os.mkfifo(name)}[planted]()
    directory = os.open(inside, os.O_RDONLY)
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * 3_000_000)
            file.seek(0)
            publish(directory, "stdout.log", file)
    finally:
        os.close(directory)
    assert not name.is_symlink()
    assert (name.stat().st_size, outside.read_bytes()) == (3_000_000, b"theirs")


# What is passed on


def test_a_reader_that_stops_does_not_outlast_the_limit(tmp_path: Path) -> None:
    """A full pipe would hold us for ever; the control: with a reader, all of it arrives."""
    reading, writing = os.pipe()
    kept = os.dup(1)
    os.dup2(writing, 1)
    try:
        terminal = Terminal(is_shown=True)
        terminal.limit(0.2)
        began = time.monotonic()
        terminal.take("stdout", b"x" * (1 << 20))
        terminal.take("stdout", b"more")
        assert 0.1 < time.monotonic() - began < 5
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(writing)
    with os.fdopen(reading, "rb") as file:
        assert len(file.read()) == 65536  # as much as a pipe holds
    script = "from sandbox_runner.cli.terminal import Terminal as T; T(is_shown=True).take('stdout', b'x' * (1 << 20))"
    assert len(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout) == 1 << 20


def test_a_reader_that_went_away_is_no_error() -> None:
    """The command goes on, and the rest of its output is in the log alone."""
    script = (
        "from sandbox_runner.cli.terminal import Terminal as T; t = T(is_shown=True); t.take('stdout', b'a'); input()"
    )
    script += "; t.take('stdout', b'b'); t.take('stderr', b'still there')"
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(1) == b"a"
        process.stdout.close()
        assert process.communicate(b"\n")[1] == b"still there"
        assert process.returncode == 0


def test_nothing_steers_the_terminal() -> None:
    """A name or an error may come from an image."""
    assert plain("a\x1b[2Jb\rc\x9bd\ne") == "a [2Jb c d\ne"
    assert table([("a", "bb"), ("ccc", "\x1b[0m")]) == "a    bb\nccc   [0m"


def test_a_signal_ends_once() -> None:
    """The first raises; while what was begun is taken down, the next ones do nothing; then all is as it was."""
    before = signal.getsignal(signal.SIGTERM)
    with interruptible():
        with pytest.raises(Interrupted, match="ended by SIGTERM"):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    with interruptible() as settle:
        settle()
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    """`nohup sandbox-runner run …` outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


# What is there


def test_what_is_left_is_listed_and_removed(memory: Path, monkeypatch, capfd) -> None:
    """A folder of a dead owner is shown with the reason, removed, and then there is nothing."""
    monkeypatch.setenv("PATH", "/nowhere")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner:
        name = f"sr-cli-{secrets.token_hex(4)}"
        StateFolder.create(name, 60.0).adopt(owner.pid)
        assert cli.main(["ps", "--json"]) == 0
        (one,) = json.loads(capfd.readouterr().out)["sandboxes"]
        assert one == {"name": name, "kind": "folder", "state": "owned", "why": "", "number": ""}
        assert cli.main(["cleanup", "--json"]) == 0
        assert json.loads(capfd.readouterr().out) == {"removed": [], "engine": NO_CLI}
    assert cli.main(["ps"]) == 0
    assert capfd.readouterr().out.splitlines() == [
        f"{'NAME':{len(name)}}  KIND    STATE  LEFT BECAUSE",
        f"{name}  folder  left   its owner is dead",
    ]
    assert cli.main(["cleanup", "--dry-run", "--json"]) == 0
    assert [one["name"] for one in json.loads(capfd.readouterr().out)["would_remove"]] == [name]
    assert cli.main(["cleanup", "--json"]) == 0
    assert [one["name"] for one in json.loads(capfd.readouterr().out)["removed"]] == [name]
    assert cli.main(["cleanup", name]) == 2
    assert f"NAME: there is no sandbox named {name}" in capfd.readouterr().err
    assert cli.main(["cleanup"]) == 0
    assert capfd.readouterr().err.splitlines() == [
        f"sandbox-runner: the engine was not asked: {NO_CLI}",
        "sandbox-runner: there is nothing to remove, as far as can be seen without the engine",
    ]


def test_without_an_engine_a_container_is_not_taken_for_gone(memory: Path, stub_docker, capfd) -> None:
    """Why nobody was asked is said; what is known of its container stays, by name too, and the exit code is 125.

    Control: with an engine that answers, all of it goes, and nothing is said.
    """
    state = StateFolder.create(f"sr-cli-{secrets.token_hex(4)}", 60.0)
    state.write(NONCE, b"n")
    state.abandon()
    stub_docker({"ps": {"code": 1, "stderr": "Cannot connect to the Docker daemon at unix:///x.\nIs it running?"}})
    why = "the Docker engine does not answer: Cannot connect to the Docker daemon at unix:///x."
    assert cli.main(["ps"]) == 0
    assert capfd.readouterr().err == f"sandbox-runner: the engine was not asked: {why}\n"
    for words in (["--dry-run"], [], [state.name]):
        assert cli.main(["cleanup", *words]) == 125
        assert f"left, because their containers may still run: {state.name}\n" in capfd.readouterr().err
        assert state.path.is_dir()
    assert cli.main(["cleanup", "--json"]) == 125
    assert json.loads(capfd.readouterr().out) == {"removed": [], "engine": why}
    stub_docker({"ps": {"stdout": ""}})
    assert cli.main(["cleanup", "--json"]) == 0
    said = capfd.readouterr()
    assert (said.err, json.loads(said.out)["engine"]) == ("", None)
    assert not state.path.exists()


def test_ctrl_c_while_nothing_stands_is_one_line(monkeypatch, capfd) -> None:
    """No traceback, and the exit code that a shell has for it."""
    monkeypatch.setattr(cli, "listed", lambda: signal.raise_signal(signal.SIGINT))
    assert cli.main(["ps"]) == 130
    assert capfd.readouterr().err.endswith("sandbox-runner: ended by SIGINT\n")


def test_a_sandbox_is_removed_by_its_name_alone(memory: Path, monkeypatch, capfd) -> None:
    """Whoever asks for it by name means it, also while its owner lives; the others stay."""
    monkeypatch.setenv("PATH", "/nowhere")
    kept, removed = (StateFolder.create(f"sr-cli-{secrets.token_hex(4)}", 60.0) for _ in range(2))
    assert cli.main(["cleanup", "--dry-run", removed.name]) == 0
    assert removed.path.is_dir()
    assert cli.main(["cleanup", removed.name]) == 0
    assert (kept.path.is_dir(), removed.path.is_dir()) == (True, False)


def test_a_sandbox_that_is_not_there_has_no_commands(memory: Path, monkeypatch, capfd) -> None:
    """One line that names it and where to look, also as JSON."""
    assert cli.main(["exec", "nobody", "--json", "--", "ls"]) == 125
    said = capfd.readouterr()
    assert said.err == "sandbox-runner: there is no sandbox named nobody: `sandbox-runner ps` lists them\n"
    assert json.loads(said.out)["error"]["type"] == "SandboxGone"
    assert cli.main(["ps", "--", "ls"]) == 2


# The doctor


def rows_of(info: dict[str, object]) -> dict[str, Row]:
    return {row.item: row for row in engine_rows(Engine(info=info))}


def test_an_engine_that_has_all_is_well() -> None:
    """Every row is ok, and none has a remedy."""
    rows = rows_of(INFO)
    assert {row.status for row in rows.values()} == {"ok"}
    assert not any(row.remedy for row in rows.values())
    assert rows["ceilings"].found == "cgroup v2 limits memory, swap and processes"


@pytest.mark.parametrize(
    ("lacks", "item", "found", "remedy"),
    [
        ({"SecurityOptions": None}, "seccomp", "the engine has no seccomp", "--loosen seccomp"),
        ({"SwapLimit": False}, "ceilings", "cgroup v2 here cannot limit swap", "--loosen memory_limit"),
        (
            {"PidsLimit": False, "MemoryLimit": False, "SwapLimit": False, "CgroupVersion": ""},
            "ceilings",
            "cgroup v1 here cannot limit memory and swap and processes",
            "--loosen memory_limit --loosen pids_limit",
        ),
    ],
)
def test_a_wall_that_cannot_stand_is_a_failure(lacks, item, found, remedy) -> None:
    """Its row says what is missing, and how to go on with or without it."""
    row = rows_of({**INFO, **lacks})[item]
    assert (row.status, row.found) == ("fail", found)
    assert row.remedy.endswith(remedy)


def test_the_absence_of_gvisor_is_said_and_is_no_failure() -> None:
    """It is another runtime, which nobody need have."""
    row = rows_of({**INFO, "Runtimes": {"runc": {}}})["runtimes"]
    assert (row.status, row.found) == ("ok", "runc; no runsc, so --runtime runsc (gVisor) is not possible")


@pytest.mark.parametrize(
    ("answers", "statuses"),
    [
        ({"version": {"stdout": '{"Server": {"Version": "19.03.1"}}'}}, ["fail", "ok", "ok", "ok", "ok", "ok"]),
        ({"version": {"stdout": '{"Server": {"Version": "29.1"}}'}}, ["ok", "ok", "ok", "ok", "ok", "ok"]),
        ({"version": {"code": 1, "stderr": "Cannot connect to the Docker daemon at x"}}, ["fail"]),
        ({"version": {"stdout": "not JSON"}}, ["fail"]),
    ],
)
def test_the_engine_is_asked(answers, statuses, stub_docker) -> None:
    """An old one, a good one, one that does not answer, and one that is none."""
    stub_docker({"info": {"stdout": json.dumps(INFO)}, "buildx": {"code": 1}, "inspect": {"stdout": "[{}]"}, **answers})
    rows = list(docker_rows(DockerCli))
    assert [row.status for row in rows] == statuses
    assert all(bool(row.remedy) == (row.status == "fail") for row in rows)
    if len(rows) > 1:
        assert rows[1].found == "the classic builder (no buildx)"


@pytest.mark.parametrize(
    ("inspect", "status", "found"),
    [
        ([{"stdout": "[{}]"}], "ok", "is here"),
        ([{"code": 1}, {"stdout": "[{}]"}], "ok", "is not here, but the image built on it is"),
        ([{"code": 1}], "warn", "is not here, and would be fetched"),
    ],
)
@pytest.mark.parametrize("named", ["", "theirs:1"])
def test_the_base_image_is_looked_for(inspect, status, found, named, stub_docker, monkeypatch) -> None:
    """An engine that answers cannot run the quickstart where there is nothing to build on."""
    monkeypatch.setenv("SANDBOX_RUNNER_BASE_IMAGE", named)
    version = {"stdout": '{"Server": {"Version": "29.1"}}'}
    stub = stub_docker(
        {"version": version, "info": {"stdout": json.dumps(INFO)}, "buildx": {"code": 1}, "inspect": inspect}
    )
    row = list(docker_rows(DockerCli))[-1]
    assert (row.item, row.status, row.found) == ("base image", status, f"{named or DEFAULT_BASE} {found}")
    assert bool(row.remedy) == (status == "warn")
    assert not {"pull", "build", "run"} & {call.argv[0] for call in stub.calls}


def test_the_base_image_is_the_built_in_contexts() -> None:
    """`DEFAULT_BASE` is what its Dockerfile says."""
    dockerfile = builtin_context() / "Dockerfile"
    assert f"\nARG BASE_IMAGE={DEFAULT_BASE}\n" in dockerfile.read_text()


def test_a_backend_works_if_nothing_of_it_failed() -> None:
    """What both need counts for both."""
    well, ill = Row("docker", "a", "ok", ""), Row("namespace", "b", "fail", "")
    assert works([well, ill]) == ["docker"]
    assert works([well, Row("both", "c", "fail", "")]) == []


CEILINGS = Row("namespace", "ceilings", "fail", "", loosen=("memory_limit", "pids_limit"))
FILTERS = Row("docker", "seccomp", "fail", "", loosen=("seccomp",))


@pytest.mark.parametrize(
    ("rows", "without"),
    [
        ([CEILINGS], {"namespace": "--loosen memory_limit --loosen pids_limit"}),
        ([FILTERS, CEILINGS], {"docker": "--loosen seccomp", "namespace": "--loosen memory_limit --loosen pids_limit"}),
        (
            [FILTERS, replace(CEILINGS, backend="docker")],
            {"docker": "--loosen seccomp --loosen memory_limit --loosen pids_limit"},
        ),
        ([CEILINGS, Row("namespace", "bubblewrap", "fail", "")], {}),
        ([CEILINGS, Row("both", "state folder", "fail", "")], {}),
        ([Row("docker", "engine", "ok", ""), replace(CEILINGS, status="warn")], {}),
    ],
)
def test_what_works_with_less_is_told(rows, without) -> None:
    """If nothing else of a backend failed than walls that can be loosened."""
    assert works_without(rows) == without


def test_a_user_without_a_control_group_is_told_what_to_type(monkeypatch, capfd) -> None:
    """On the last line, which is the one that is read."""
    monkeypatch.setattr(doctor_module, "docker_rows", lambda connect: [Row("docker", "engine", "fail", "none")])
    monkeypatch.setattr(doctor_module, "namespace_rows", lambda: [CEILINGS])
    assert doctor_module.doctor(argparse.Namespace(json=False)) == 1
    said = "works: nothing; namespace works with --loosen memory_limit --loosen pids_limit\n"
    assert capfd.readouterr().out.endswith(said)


def test_a_machine_on_which_nothing_works_is_told_so(tmp_path: Path) -> None:
    """Exit code 1; each row has its remedy, without a traceback."""
    program = tmp_path / "bwrap"
    says = '[ "$1" = --version ] && echo "bubblewrap 0.8.0" && exit; echo "bwrap: No permissions to create" >&2'
    program.write_text(f"#!/bin/sh\n{says}; exit 1\n")
    program.chmod(0o755)
    done = typed("doctor", env={"PATH": str(tmp_path), "SANDBOX_RUNNER_DOCKER": "no-such-docker"})
    assert (done.returncode, done.stderr) == (1, "")
    assert "remedy: install Docker 20.10 or later" in done.stdout
    assert "remedy: the kernel refuses a user namespace to uid" in done.stdout
    assert done.stdout.endswith("works: nothing\n")


def test_input_that_nothing_read_is_seen(tmp_path: Path) -> None:
    """In a pipe and in a file; not in one that is empty, was read, or is no longer there."""
    (tmp_path / "file").write_bytes(b"x")
    reader, writer = os.pipe()
    with (tmp_path / "file").open("rb", buffering=0) as file, Path("/dev/zero").open("rb") as endless:
        assert [cli_run.unread(reader), cli_run.unread(file.fileno()), cli_run.unread(endless.fileno())] == [
            False,
            True,
            False,
        ]
        os.write(writer, b"x")
        file.read()
        assert [cli_run.unread(reader), cli_run.unread(file.fileno())] == [True, False]
    os.read(reader, 1)
    assert not cli_run.unread(reader)
    os.close(reader)
    os.close(writer)
    assert not cli_run.unread(reader)
