"""The command line as somebody types it, on real sandboxes of both backends."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from sandbox_runner import SandboxSpec, cleanup, start_sandbox
from sandbox_runner.state import StateFolder

CLI = (sys.executable, "-m", "sandbox_runner")
RECORDS = ("command.json", "exit_code", "sandbox.json", "stderr.log", "stdout.log")
#: `sandbox-runner` with records that are written as anybody would write them.
NAIVE = """
import os, sys
from sandbox_runner.cli import main as cli
from sandbox_runner.cli import run as cli_run

def naive(directory, name, data):
    with open(f"/proc/self/fd/{directory}/{name}", "wb") as file:
        file.write(data if isinstance(data, bytes) else data.read())

cli_run.publish = naive
sys.exit(cli.main())
"""


class Typed(NamedTuple):
    """The command line, in a folder of the test's own. `run` goes before the options and `--`."""

    where: Path
    backend: str
    run: tuple[str, ...]

    def __call__(self, *words: str, **options: object) -> "subprocess.CompletedProcess[str]":
        """Type it, and wait for its end."""
        given = {"cwd": self.where, "capture_output": True, "text": True, "timeout": 100, **options}
        return subprocess.run([*CLI, *words], **given)

    @contextmanager
    def begun(self, *words: str, **options: object) -> Iterator["subprocess.Popen[str]"]:
        """Type it, and go on when the command inside has printed the line `begun`."""
        given = {"cwd": self.where, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        with subprocess.Popen([*CLI, *words], start_new_session=True, **given) as process:
            try:
                line = process.stdout.readline()
                assert line == "begun\n", line + process.stderr.read()
                yield process
            finally:
                process.kill()

    def artifacts(self) -> Path:
        """Those of the one run there was."""
        (found,) = self.where.glob("sandbox-runs/*/artifacts")
        return found


@pytest.fixture(scope="session")
def namespaces_work(require) -> None:
    """Whether this machine has them is the doctor's word, who tries each part: so he is asked once."""
    done = subprocess.run([*CLI, "doctor", "--json"], capture_output=True, text=True)
    said = json.loads(done.stdout)
    if "namespace" not in said["works"]:
        ill = [row for row in said["checks"] if row["backend"] == "namespace" and row["status"] == "fail"]
        require("namespace", ill[0]["remedy"] if ill else done.stderr)


@pytest.fixture(params=["docker", "namespace"])
def typed(request, tmp_path: Path) -> Typed:
    """Each backend, where it works."""
    if request.param == "docker":
        return Typed(tmp_path, "docker", ("run", "--image", request.getfixturevalue("base_image")))
    request.getfixturevalue("namespaces_work")
    return Typed(tmp_path, "namespace", ("run", "--exec-backend", "namespace"))


@pytest.fixture
def on_docker(base_image: str, tmp_path: Path) -> Typed:
    """Docker, for what only it has."""
    return Typed(tmp_path, "docker", ("run", "--image", base_image))


def processes_with(text: str) -> list[int]:
    """The processes of this machine, in containers too, that have *text* on their command line."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in place.read_bytes():
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for what another process does; 20 s are a failure."""
    until = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


# One run


def test_a_run_makes_its_folders_and_its_records(typed: Typed) -> None:
    """With nothing but a command: two folders, both printed on stderr; stdout is the command's alone; its exit code."""
    done = typed(*typed.run, "--", "sh", "-c", "echo out; echo err >&2; echo made > /artifacts/made.txt; pwd; exit 7")
    assert (done.returncode, done.stdout) == (7, "out\n/workspace\n")
    artifacts = typed.artifacts()
    told = done.stderr.splitlines()
    assert told[:2] == [
        f"sandbox-runner: workspace {artifacts.parent}/workspace",
        f"sandbox-runner: artifacts {artifacts}",
    ]
    assert told[-1] == "err"
    assert (artifacts.parent / "workspace").is_dir()
    assert set(RECORDS) <= {path.name for path in artifacts.iterdir()}
    assert (artifacts / "made.txt").read_text() == "made\n"
    assert (artifacts / "stdout.log").read_text() == done.stdout
    assert (artifacts / "stderr.log").read_text() == "err\n"
    assert (artifacts / "exit_code").read_text() == "7\n"
    said = json.loads((artifacts / "command.json").read_text())
    assert said["argv"][:2] == ["sh", "-c"]
    expected = {"schema": 1, "cwd": "/workspace", "exit_code": 7, "signal": None, "timed_out": False, "error": None}
    assert {name: said[name] for name in expected} == expected
    assert said["started"] < said["ended"]
    assert said["ended"].endswith("Z")
    assert said["container_name"] == json.loads((artifacts / "sandbox.json").read_text())["container_name"]
    assert StateFolder.find(said["container_name"]) is None


@pytest.mark.parametrize(
    ("script", "code", "name", "value"),
    [
        ("kill -SEGV $$", 139, "signal", 11),
        ("exit 0", 0, "exit_code", 0),
        ("exit 125", 125, "exit_code", 125),
        ("exec no-such-program", 127, "exit_code", 127),
    ],
)
def test_an_ending_is_the_exit_code(typed: Typed, script, code, name, value) -> None:
    """The command's own, 128 + n for a signal, and what a shell has; the record tells ours from the command's."""
    done = typed(*typed.run, "--json", "--", "sh", "-c", f"echo out; echo err >&2; {script}")
    said = json.loads(done.stdout)
    assert (done.returncode, said["status"], said[name], said["error"]) == (code, code, value, None)
    assert said == {
        **json.loads((typed.artifacts() / "command.json").read_text()),
        **{name: said[name] for name in ("workspace", "artifacts", "status")},
    }


def test_a_command_that_takes_too_long_is_ended(typed: Typed) -> None:
    """Exit code 124, and nothing of it is left, also of what ignores a signal."""
    mark = f"mark-{secrets.token_hex(8)}"
    script = 'trap "" TERM INT; echo begun; setsid sh -c "sleep 1000; : $0" & wait'
    done = typed(*typed.run, "--timeout", "6", "--", "sh", "-c", script, mark)
    assert (done.returncode, done.stdout) == (124, "begun\n")
    assert "sandbox-runner: the command took longer than 6 s, and was ended\n" in done.stderr
    assert json.loads((typed.artifacts() / "command.json").read_text())["timed_out"] is True
    assert processes_with(mark) == []


def test_a_terminal_that_does_not_read_cannot_hold_the_limit_up(typed: Typed) -> None:
    """As on a terminal that was stopped, the command waits for its reader; we do not, once its time is over."""
    argv = [*CLI, *typed.run, "--timeout", "6", "--", "sh", "-c", "echo begun; exec yes"]
    with subprocess.Popen(argv, cwd=typed.where, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.wait(50) == 124
        assert process.stderr.read().endswith("sandbox-runner: the command took longer than 6 s, and was ended\n")
    assert (typed.artifacts() / "stdout.log").read_text().startswith("begun\ny\ny\n")


def test_output_without_end_is_cut(typed: Typed) -> None:
    """At `--max-output`, on the terminal and in the log; both the record and a line on stderr say so."""
    done = typed(*typed.run, "--max-output", "100k", "--", "sh", "-c", "yes | head -c 300000; exit 3")
    assert (done.returncode, len(done.stdout)) == (3, 102400)
    assert "printed more than 102400 bytes; the rest is dropped: --max-output keeps more\n" in done.stderr
    assert (typed.artifacts() / "stdout.log").read_text() == done.stdout
    assert json.loads((typed.artifacts() / "command.json").read_text())["truncated"] is True


def test_output_comes_as_it_is_printed(typed: Typed) -> None:
    """Not at the end: an agent is watched while it works."""
    script = "echo begun; while [ ! -e /workspace/go ]; do sleep 0.1; done; echo ended"
    (typed.where / "w").mkdir()
    words = (*typed.run, "--workspace", "w", "--artifacts", "a", "--", "sh", "-c", script)
    with typed.begun(*words) as process:
        assert process.poll() is None
        (typed.where / "w" / "go").touch()
        assert process.stdout.read() == "ended\n"
        assert process.wait(30) == 0


def test_standard_input_goes_in_only_if_asked(typed: Typed) -> None:
    """Whole, also bytes that are no text; without `--stdin` one that never ends holds nothing up."""
    data = bytes(range(256)) * 1000
    done = typed(*typed.run, "--stdin", "--", "cat", input=data, text=False)
    assert (done.returncode, done.stdout == data) == (0, True)
    reading, writing = os.pipe()
    try:
        done = typed(*typed.run, "--", "cat", stdin=reading)
    finally:
        os.close(reading)
        os.close(writing)
    assert (done.returncode, done.stdout) == (0, "")


def test_options_reach_the_sandbox(typed: Typed, tmp_path: Path) -> None:
    """A mount that cannot be written, a cache that lasts, a ceiling, a folder to run in, a name."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_text("from outside")
    script = 'cat /data/x; touch /data/y 2>/dev/null || echo " read-only"; echo kept > /cache/k; pwd; ulimit -n'
    name = f"sr-cli-{secrets.token_hex(4)}"
    done = typed(
        *typed.run, "--mount", "data:/data:ro", "--cache", "cache", "--memory", "100m", "--pids", "50", "--cpus", "0.5",
        "--cwd", "/tmp", "--name", name, "--workspace", "w", "--artifacts", "a", "--loosen", "nofile_limit",
        "--", "sh", "-c", script,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("from outside read-only\n/tmp\n")
    assert not done.stdout.endswith("\n4096\n")
    assert (tmp_path / "cache" / "k").read_text() == "kept\n"
    said = json.loads((tmp_path / "a" / "sandbox.json").read_text())
    assert (said["container_name"], said["walls"]["nofile_limit"]) == (name, False)
    assert said["limits"] == {"memory_bytes": 100 << 20, "pids": 50, "cpus": 0.5}


def test_gvisor_is_one_option(on_docker: Typed, gvisor: str) -> None:
    """`--runtime runsc`: the kernel inside is not the machine's."""
    done = on_docker(*on_docker.run, "--runtime", gvisor, "--", "sh", "-c", "cat /proc/version; exit 3")
    assert done.returncode == 3, done.stderr
    assert done.stdout != Path("/proc/version").read_text()


def test_a_build_is_told_step_by_step(docker_cli, base_image: str, tmp_path: Path) -> None:
    """One line a step on stderr, the build's own output in its log; a build that fails is one error."""
    (tmp_path / "context").mkdir()
    file = tmp_path / "context" / "Dockerfile"
    file.write_text(f"FROM {base_image}\nRUN echo from the build {secrets.token_hex(8)} && echo it > /made\n")
    typed = Typed(tmp_path, "docker", ("run", "--context", "context", "--workspace", "w", "--artifacts", "a"))
    done = typed(*typed.run, "--", "cat", "/made")
    tag = json.loads((tmp_path / "a" / "sandbox.json").read_text())["image"]["tag"]
    docker_cli("image", "rm", "--no-prune", tag)
    assert (done.returncode, done.stdout) == (0, "it\n")
    assert f"sandbox-runner: image {tag}: building with" in done.stderr
    assert "from the build" not in done.stderr
    assert "from the build" in (tmp_path / "a" / "docker_build.log").read_text()
    file.write_text(f"FROM {base_image}\nRUN echo why it failed; exit 3\n")
    done = typed(*typed.run, "--", "ls")
    assert done.returncode == 125
    assert "sandbox-runner: the build of sandbox_runner:" in done.stderr
    assert "why it failed" in done.stderr
    assert "Traceback" not in done.stderr
    said = json.loads((tmp_path / "a" / "command.json").read_text())
    assert said["error"]["type"] == "ImageBuildFailed"


# Attacks


@pytest.mark.parametrize("naive", [False, True], ids=["", "control"])
def test_a_planted_link_is_not_followed(typed: Typed, naive: bool, tmp_path: Path) -> None:
    """A command puts links under the names of the records, to a file of the host; the control writes through them."""
    target = tmp_path / "outside"
    target.write_text("theirs")
    plant = f"for name in {' '.join(RECORDS)}; do ln -sf {target} /artifacts/$name; done; echo planted"
    start = [sys.executable, "-c", NAIVE] if naive else CLI
    argv = [*start, *typed.run, "--artifacts", "a", "--", "sh", "-c", plant]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.stdout == "planted\n", done.stderr
    assert (target.read_text() == "theirs") is not naive
    found = {name: (tmp_path / "a" / name).is_symlink() for name in RECORDS}
    assert found == {name: naive and name != "sandbox.json" for name in RECORDS}
    if not naive:
        assert (tmp_path / "a" / "stdout.log").read_text() == "planted\n"


def test_a_planted_folder_or_pipe_keeps_no_record_away(typed: Typed) -> None:
    """A folder is moved aside and a pipe replaced; nothing waits for a reader."""
    script = (
        "mkdir -p /artifacts/stdout.log/x /artifacts/command.json; mkfifo /artifacts/stderr.log /artifacts/exit_code"
    )
    done = typed(*typed.run, "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    artifacts = typed.artifacts()
    assert all((artifacts / name).is_file() for name in RECORDS)
    assert len(list(artifacts.glob("*.planted"))) == 2


def test_no_secret_is_anywhere_to_be_read(typed: Typed, request) -> None:
    """Not on a command line of this machine, in a record, in what we print, or in what the engine tells."""
    allowed, overridden = f"allowed-{secrets.token_hex(8)}", f"overridden-{secrets.token_hex(8)}"
    (typed.where / "env").write_text(f"OVERRIDDEN={overridden}\n")
    (typed.where / "w").mkdir()
    script = 'printf "%s %s" "$ALLOWED" "$OVERRIDDEN" > seen; echo begun; while [ ! -e go ]; do sleep 0.1; done'
    words = (*typed.run, "--env", "ALLOWED", "--env-file", "env", "--workspace", "w", "--artifacts", "a")
    name = f"sr-cli-{secrets.token_hex(4)}"
    environ = {**os.environ, "ALLOWED": allowed}
    with typed.begun(*words, "--name", name, "--", "sh", "-c", script, env=environ) as process:
        assert (typed.where / "w" / "seen").read_text() == f"{allowed} {overridden}"
        if typed.backend == "docker":
            inspected = request.getfixturevalue("docker_cli")("inspect", name)
            assert allowed not in inspected
            assert overridden not in inspected
        for secret in (allowed, overridden):
            with subprocess.Popen([sys.executable, "-c", "input()", secret], stdin=subprocess.PIPE) as control:
                wait_until(lambda pid=control.pid, secret=secret: processes_with(secret) == [pid])
        (typed.where / "w" / "go").touch()
        told = process.stdout.read() + process.stderr.read()
        assert process.wait(30) == 0
    (typed.where / "w" / "seen").unlink()
    everything = told + "".join(path.read_text() for path in (typed.where / "a").iterdir())
    assert allowed not in everything
    assert overridden not in everything
    assert json.loads((typed.where / "a" / "command.json").read_text())["environment"] == {
        "allowed": ["ALLOWED"],
        "overridden": ["OVERRIDDEN"],
    }


# Signals

STUBBORN = 'trap "" TERM INT HUP; echo begun; sleep 1000; : "$0"'


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_all_of_it(typed: Typed, number, code) -> None:
    """The command is ended inside, the sandbox is gone, and the records say what it came to."""
    mark = f"mark-{secrets.token_hex(8)}"
    with typed.begun(*typed.run, "--", "sh", "-c", STUBBORN, mark) as process:
        assert processes_with(mark)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == code, said
    assert said.endswith(f"sandbox-runner: ended by {number.name}\n")
    assert processes_with(mark) == []
    record = json.loads((typed.artifacts() / "command.json").read_text())
    assert record["error"] == {"type": "Interrupted", "message": f"ended by {number.name}"}
    assert (typed.artifacts() / "exit_code").read_text() == f"{code}\n"
    assert (typed.artifacts() / "stdout.log").read_text() == "begun\n"
    assert StateFolder.find(record["container_name"]) is None


def test_ctrl_c_in_a_kept_sandbox_ends_the_command(kept: "Kept") -> None:
    """A terminal signals the whole foreground group. The engine's client is not in it: it must not die before we end
    the command.
    """
    typed, name = kept
    mark = f"mark-{secrets.token_hex(8)}"
    with typed.begun("exec", name, "--", "sh", "-c", STUBBORN, mark) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert children
        assert process.pid not in {os.getpgid(int(child)) for child in children}
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (130, "sandbox-runner: ended by SIGINT\n")
    assert processes_with(mark) == []
    assert typed("exec", name, "--", "echo", "it stands").stdout == "it stands\n"


def test_ctrl_c_in_a_run_that_is_kept_leaves_the_sandbox(typed: Typed) -> None:
    """The command is ended, the sandbox stands, and how to use and to remove it is said."""
    mark, name = f"mark-{secrets.token_hex(8)}", f"sr-cli-{secrets.token_hex(4)}"
    try:
        with typed.begun(*typed.run, "--keep", "--name", name, "--", "sh", "-c", STUBBORN, mark) as process:
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=60)[1]
        assert (process.returncode, processes_with(mark)) == (130, [])
        kept = f"{name} is kept: sandbox-runner exec {name} -- COMMAND, sandbox-runner cleanup {name}"
        assert said.endswith(f"sandbox-runner: ended by SIGINT\nsandbox-runner: {kept}\n")
        assert typed("exec", name, "--", "echo", "it stands").stdout == "it stands\n"
    finally:
        assert typed("cleanup", name).returncode == 0


def test_a_kept_container_that_was_stopped_names_what_removes_it(on_docker: Typed, docker_cli) -> None:
    """Of `exec`, and of a `run` that wants its name."""
    name = f"sr-cli-{secrets.token_hex(4)}"
    try:
        assert on_docker(*on_docker.run, "--keep", "--name", name, "--", "true").returncode == 0
        docker_cli("kill", name)
        for words in (("exec", name), (*on_docker.run, "--name", name)):
            done = on_docker(*words, "--", "true")
            assert done.returncode == 125
            assert f"`sandbox-runner cleanup {name}`" in done.stderr.splitlines()[-1]
    finally:
        assert on_docker("cleanup", name).returncode == 0


def test_a_build_that_fails_names_its_log(docker_cli, base_image: str, tmp_path: Path) -> None:
    """The whole path, of a file that is there."""
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text(f"FROM {base_image}\nRUN false\n")
    done = Typed(tmp_path, "docker", ())("run", "--context", "context", "--artifacts", "a", "--", "ls")
    assert done.returncode == 125
    assert f"its output is in {tmp_path}/a/docker_build.log, the end of it is:" in done.stderr
    assert (tmp_path / "a" / "docker_build.log").stat().st_size


def test_a_smoke_without_a_base_image_is_skipped(docker_cli) -> None:
    """It says why, and which variable helps; what cannot be fetched is no fault of the package."""
    environ = {**os.environ, "SANDBOX_RUNNER_BASE_IMAGE": "localhost:9/sr-cli-no-such-image"}
    script = Path(__file__).parents[2] / "scripts" / "smoke.py"
    done = subprocess.run(
        [sys.executable, script, "--docker"], env=environ, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.startswith("skipped: docker: localhost:9/sr-cli-no-such-image is not here and could not be used")
    assert done.stdout.endswith("in SANDBOX_RUNNER_BASE_IMAGE\n")


def test_a_killed_run_is_found_by_cleanup(typed: Typed) -> None:
    """Nobody can catch SIGKILL; what is left is listed with its reason, and removed by its name."""
    mark, name = f"mark-{secrets.token_hex(8)}", f"sr-cli-{secrets.token_hex(4)}"
    with typed.begun(*typed.run, "--name", name, "--", "sh", "-c", STUBBORN, mark) as process:
        (alive,) = [one for one in json.loads(typed("ps", "--json").stdout)["sandboxes"] if one["name"] == name]
        assert alive["why"] == ""
        process.kill()
        process.wait()
    (left,) = [one for one in json.loads(typed("ps", "--json").stdout)["sandboxes"] if one["name"] == name]
    assert left["why"] == "its owner is dead"
    assert name in typed("cleanup", "--dry-run").stdout
    assert typed("cleanup", name).returncode == 0
    assert name not in typed("ps").stdout
    assert processes_with(mark) == []
    assert StateFolder.find(name) is None


# A sandbox that is kept


class Kept(NamedTuple):
    typed: Typed
    name: str


@pytest.fixture
def kept(typed: Typed) -> Iterator[Kept]:
    """A sandbox that `run --keep` left standing."""
    name = f"sr-cli-{secrets.token_hex(4)}"
    try:
        done = typed(*typed.run, "--keep", "--name", name, "--", "sh", "-c", "echo one > /tmp/one")
        assert done.returncode == 0, done.stderr
        assert f"sandbox-runner: {name} is kept: sandbox-runner exec {name} -- COMMAND" in done.stderr
        yield Kept(typed, name)
    finally:
        typed("cleanup", name)


def test_a_kept_sandbox_takes_more_commands(kept: Kept) -> None:
    """Each by a process of its own, in the same /tmp; that the process before has ended makes it no leftover."""
    typed, name = kept
    for _ in range(2):
        done = typed("exec", name, "--", "sh", "-c", "cat /tmp/one; exit 5")
        assert (done.returncode, done.stdout, done.stderr) == (5, "one\n", "")
        assert name not in [one.name for one in cleanup(dry_run=True)]
    done = typed("exec", name, "--json", "--timeout", "6", "--cwd", "/tmp", "--", "sh", "-c", "pwd; sleep 1000")
    said = json.loads(done.stdout)
    assert (done.returncode, said["stdout"], said["timed_out"]) == (124, "/tmp\n", True)
    (one,) = [one for one in json.loads(typed("ps", "--json").stdout)["sandboxes"] if one["name"] == name]
    assert one["why"] == ""
    assert typed("cleanup", name).returncode == 0
    assert typed("exec", name, "--", "ls").returncode == 125
    assert StateFolder.find(name) is None


def test_exec_leaves_a_sandbox_to_its_owner(typed: Typed) -> None:
    """Its owner is this process before and after; a short process that ran a command in it takes nothing over."""
    image = {"image_ref": typed.run[-1]} if typed.backend == "docker" else {}
    spec = SandboxSpec(backend=typed.backend, **image)
    with start_sandbox(typed.where / "w", typed.where / "a", spec) as sandbox:
        done = typed("exec", sandbox.container_name, "--", "echo", "hello")
        assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
        assert StateFolder.find(sandbox.container_name).owner.pid == os.getpid()
        assert sandbox.container_name not in [one.name for one in cleanup(dry_run=True)]
        assert sandbox.exec(["echo", "still"]).stdout == b"still\n"


# The doctor


def test_the_doctor_finds_what_these_tests_found(docker_cli) -> None:
    """On a machine with an engine it says so, exits with 0, and leaves nothing."""
    place = tempfile.gettempdir()
    done = subprocess.run([*CLI, "doctor"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith("works: docker")
    assert not list(Path(place).glob("sandbox-doctor-*"))
    assert shutil.which(docker_cli.program) is not None
