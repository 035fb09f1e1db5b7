"""`isorun image build`, with a stand-in for the Docker CLI on PATH: what that is asked to do, and what it answers."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from isorun.cli.image import context

pytestmark = pytest.mark.slow  # each test starts isorun as a process

ROOT = Path(__file__).parents[3]
SRC = (ROOT / "src", ROOT / "packages" / "sandbox_runner" / "src")
NO_DAEMON = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"

#: Keeps images by name in images.json, as an engine does; `behaviour` is what goes wrong.
STUB = """
import json, os, sys
here, argv = os.path.dirname(os.path.abspath(__file__)), sys.argv[1:]
def fail(text, code=1):
    print(text, file=sys.stderr)
    sys.exit(code)
with open(here + "/behaviour.json") as file:
    behaviour = json.load(file)
with open(here + "/images.json") as file:
    images = json.load(file)
with open(here + "/calls.jsonl", "a") as file:
    file.write(json.dumps(argv) + "\\n")
if argv[0] == "buildx":
    fail("docker: 'buildx' is not a docker command.")
if "daemon" in behaviour:
    fail(behaviour["daemon"])
if argv[0] == "inspect":
    if argv[-1] not in images:
        fail("Error: No such image: " + argv[-1])
    print(json.dumps([images[argv[-1]]]))
elif argv[0] == "build":
    with open(here + "/context.tar", "wb") as file:
        file.write(sys.stdin.buffer.read())
    print("Step 1/2 : FROM base")
    print("\\x1b]0;owned\\x07Collecting numpy", flush=True)
    if "build" in behaviour:
        fail(behaviour["build"])
    options = dict(option[2:].split("=", 1) for option in argv if option.startswith("--tag="))
    labels = dict(option[len("--label="):].split("=", 1) for option in argv if option.startswith("--label="))
    images[options["tag"]] = {"Id": "sha256:0123", "Size": 3 << 20, "Config": {"Labels": labels}}
elif argv[0] == "tag":
    if "tag" in behaviour:
        fail(behaviour["tag"])
    images[argv[2]] = images[argv[1]]
else:
    fail("the stub knows no " + argv[0])
with open(here + "/images.json", "w") as file:
    json.dump(images, file)
"""


class Machine:
    """One with a Docker CLI that is ours."""

    def __init__(self, folder: Path, locks: str) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        self.cli = folder / "bin" / "docker"
        self.cli.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -IS {folder / "stub.py"} "$@"\n')
        self.cli.chmod(0o755)
        (folder / "stub.py").write_text(STUB)
        (folder / "images.json").write_text("{}")
        self.behave()
        self.environ = {
            "PATH": str(folder / "bin"),
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": locks,
            "PYTHONPATH": os.pathsep.join(map(str, SRC)),
        }

    def behave(self, **behaviour: str) -> None:
        """What goes wrong from now on, and what the CLI says then."""
        (self.folder / "behaviour.json").write_text(json.dumps(behaviour))

    def build(self, *options: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        """`isorun image build options…`."""
        return subprocess.run(
            [sys.executable, "-m", "isorun", "image", "build", *options],
            env=self.environ | environ,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=50,
        )

    def calls(self, command: str) -> list[list[str]]:
        """Every start so far of `docker command …`."""
        log = self.folder / "calls.jsonl"
        argvs = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [argv for argv in argvs if argv[0] == command]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as locks:
        yield Machine(tmp_path, locks)


def test_the_image_is_built_from_its_folder_and_named(machine) -> None:
    """The engine gets the folder's three files and a name; progress is on stderr, one line on stdout."""
    done = machine.build()
    assert (done.returncode, done.stdout) == (0, "py-code-exec:latest is sha256:0123, 3.0 MiB\n"), done.stderr
    with tarfile.open(machine.folder / "context.tar") as sent:
        assert sorted(sent.getnames()) == ["Dockerfile", "install.sh", "requirements.txt"]
    (build,), (tag,) = machine.calls("build"), machine.calls("tag")
    assert f"--tag={tag[1]}" in build
    assert tag[1].startswith("py-code-exec:")
    assert tag[2] == "py-code-exec:latest"
    assert "Step 1/2 : FROM base\n" in done.stderr


def test_what_a_build_prints_cannot_steer_the_terminal(machine) -> None:
    """An escape sequence in the output of a package's installer is shown and not obeyed."""
    done = machine.build()
    assert "\x1b" not in done.stderr
    assert "\\x1b]0;owned\\x07Collecting numpy\n" in done.stderr


def test_a_second_build_is_the_first_one(machine) -> None:
    """Nothing is built while the folder, the base and the options are the same; --rebuild builds all the same."""
    first, second = (json.loads(machine.build("--json").stdout) for _ in range(2))
    assert (first["built"], second["built"], first["hash"]) == (True, False, second["hash"])
    assert len(machine.calls("build")) == 1
    again = json.loads(machine.build("--json", "--rebuild").stdout)
    assert (again["built"], again["hash"]) == (True, first["hash"])
    assert "--no-cache" in machine.calls("build")[1]


def test_json_says_what_there_is(machine) -> None:
    """One object on stdout, with the name, the id, the size in bytes and the hash of the recipe."""
    found = json.loads(machine.build("--json").stdout)
    assert set(found) == {"ok", "image", "id", "hash", "bytes", "built", "seconds"}
    assert (found["ok"], found["image"], found["id"], found["bytes"]) == (
        True,
        "py-code-exec:latest",
        "sha256:0123",
        3 << 20,
    )
    assert len(found["hash"]) == 64


def test_the_options_reach_the_builder(machine) -> None:
    """The base is a build argument, the network is the build's, the name is put on what was built."""
    done = machine.build("--tag", "host:5000/a/b:v1", "--base-image", "debian:13", "--network", "host")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "to use it: ISORUN_IMAGE=host:5000/a/b:v1"
    (build,), (tag,) = machine.calls("build"), machine.calls("tag")
    assert {"--build-arg=BASE_IMAGE=debian:13", "--network=host"} <= set(build)
    assert tag[1].startswith("host:5000/a/b:")
    assert tag[2] == "host:5000/a/b:v1"


@pytest.mark.parametrize("name", ["ISORUN_IMAGE", "PY_CODE_EXEC_IMAGE"])
def test_the_setting_names_the_image(name, machine) -> None:
    """Without --tag it is the image that the backend would start from."""
    done = machine.build(**{name: "ours:7"})
    assert done.stdout == "ours:7 is sha256:0123, 3.0 MiB\n"


def test_without_a_cli(machine) -> None:
    """Exit 4, and what to install."""
    machine.cli.unlink()
    done = machine.build()
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == (
        "isorun: there is no docker on PATH: install a Docker CLI, or name one in SANDBOX_RUNNER_DOCKER; "
        "run `isorun doctor --backend docker`\n"
    )


def test_without_a_daemon(machine) -> None:
    """Exit 4 and the CLI's own complaint; with --json the same as an object."""
    machine.behave(daemon=NO_DAEMON)
    done = machine.build("--json")
    message = f"the Docker engine does not answer: {NO_DAEMON} run `isorun doctor --backend docker`"
    assert (done.returncode, done.stderr) == (4, f"isorun: {message}\n")
    assert json.loads(done.stdout) == {"ok": False, "error": {"code": "unavailable", "message": message}}


def test_a_build_that_fails(machine) -> None:
    """Exit 70, the exit code of the build, and what may help; no name is given, and nothing is printed twice."""
    machine.behave(build="ERROR: No matching distribution found for numpy")
    done = machine.build()
    assert done.returncode == 70
    last = done.stderr.splitlines()[-1]
    (build,) = machine.calls("build")
    named = next(option for option in build if option.startswith("--tag=")).removeprefix("--tag=")
    assert last == (
        f"isorun: image build: the build of {named} failed (exit code 1); another base image is --base-image, the"
        " host's own way to the package index is --network host; its output is above"
    )
    assert done.stderr.count("ERROR: No matching distribution found for numpy") == 1
    assert machine.calls("tag") == []


def test_a_build_that_fails_tells_a_reader_of_json_why(machine) -> None:
    """The end of what it printed is in the error: such a reader has nothing else."""
    machine.behave(build="ERROR: No matching distribution found for numpy")
    message = json.loads(machine.build("--json").stdout)["error"]["message"]
    assert message.endswith("ERROR: No matching distribution found for numpy")


def test_a_name_that_the_engine_refuses(machine) -> None:
    """Exit 70 and its words."""
    machine.behave(tag="Error response from daemon: invalid reference")
    done = machine.build()
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        70,
        "isorun: image tag: Error response from daemon: invalid reference",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tag", "Upper:1"], "the image's name: 'Upper' is not the name of an image: lower case, without a tag"),
        (["--tag", "a@sha256:0"], "'a@sha256:0' is not an image name; use NAME:TAG, such as"),
        (["--tag", "a:"], "'a:' is not an image name; use NAME:TAG, such as py-code-exec:latest"),
        (["--tag", "-x"], "the image's name: '-x' is not the name of an image: lower case, without a tag"),
        (["--base-image", "--pull"], "--base-image: '--pull' is not an image"),
        (["--network", "bridge"], "--network: 'bridge' is not one of default, host, none"),
    ],
)
def test_nonsense_is_refused_before_anything_starts(options, message, machine) -> None:
    """Exit 2; the text names the option, and the CLI was not started."""
    done = machine.build(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"isorun: {message}")
    assert not (machine.folder / "calls.jsonl").exists()


def test_an_installed_package_has_the_folder_in_it(tmp_path) -> None:
    """In a wheel it lies below the package; an installation without it says so."""
    package = tmp_path / "site" / "isorun"
    shutil.copytree(SRC[0] / "isorun", package, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", "from isorun.cli.image import context; print(context())"]
    environ = {"PYTHONPATH": f"{package.parent}:{SRC[1]}"}
    missing = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert missing.stderr.splitlines()[-1] == (
        "isorun.core.errors.InvalidRequest: the folder of the image is missing: install isorun anew"
    )
    folder = shutil.copytree(context(), package / "images" / "py-code-exec")
    found = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(folder)
