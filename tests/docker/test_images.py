"""The executor image as an engine has it, and every way that is printed to build it."""

import json
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.engine import Engine

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deployment" / "docker" / "py-code-exec"
#: As the backend starts an executor, as far as it is the image that must bear it.
SEALED = ("--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")

#: Prints what the program sees of itself; then writes and reads a file with every package that is promised.
PROGRAM = """
import grp, io, json, os, pwd, sys
from importlib.util import find_spec
own = pwd.getpwuid(os.getuid())
told = [own.pw_uid, own.pw_gid, own.pw_name, own.pw_dir, grp.getgrgid(os.getgid()).gr_gid, os.environ["HOME"],
        sys.version_info >= (3, 11), [name for name in ("isorun", "sandbox_runner") if find_spec(name)]]
os.environ["MPLCONFIGDIR"], os.environ["MPLBACKEND"] = "/tmp/matplotlib", "Agg"
import jsonschema, numpy, openpyxl, pandas, PIL.Image, pydantic, pypdf
from docstring_parser import parse
from matplotlib import pyplot
from zoneinfo import ZoneInfo
frame = pandas.DataFrame({"x": numpy.arange(3), "y": [1.0, 4.0, 9.0]})
frame.to_excel("/tmp/t.xlsx", index=False)
frame.plot(x="x", y="y")
pyplot.savefig("/tmp/t.png"), pyplot.savefig("/tmp/t.pdf")
jsonschema.validate({"a": 1}, {"required": ["a"]})
told += [openpyxl.load_workbook("/tmp/t.xlsx").active.max_row, PIL.Image.open("/tmp/t.png").format,
         len(pypdf.PdfReader("/tmp/t.pdf").pages), pydantic.TypeAdapter(int).validate_python("7"),
         parse("Says it.").short_description, str(ZoneInfo("Europe/Berlin"))]
print(json.dumps(told))
"""


@pytest.fixture
def name(docker_engine: Engine) -> Iterator[str]:
    """A name for an image of this test; what has it as its label is removed with it, half-built ones too."""
    made = f"isorun-test-{secrets.token_hex(6)}"
    yield made
    for _ in range(2):  # a base cannot go before what is made of it
        found = docker_engine("image", "ls", "--quiet", "--filter", f"label=test={made}").split()
        for image in found:
            docker_engine("image", "rm", "--force", image, check=False)
    assert not docker_engine("image", "ls", "--quiet", "--filter", f"label=test={made}")


def facts(engine: Engine, image: str) -> dict[str, object]:
    """What the engine knows of how a container of *image* starts."""
    (found,) = json.loads(engine("image", "inspect", image))
    config = found["Config"]
    kept = {key: config.get(key) for key in ("User", "Cmd", "WorkingDir", "Healthcheck", "Volumes", "ExposedPorts")}
    return kept | {"Entrypoint": config.get("Entrypoint") or [], "label": config["Labels"]["isorun.image"]}


EXPECTED = {
    "User": "1001:1000",
    "Cmd": ["python3", "--version"],
    "WorkingDir": "/workspace",
    "Healthcheck": {"Test": ["NONE"]},
    "Volumes": None,
    "ExposedPorts": None,
    "Entrypoint": [],
    "label": "1",
}


def test_the_image_starts_nothing_of_its_own(docker_engine, executor_image) -> None:
    """It has the label the backend asks for, our ids, no entrypoint, no health check and no volume."""
    assert facts(docker_engine, executor_image) == EXPECTED


def test_a_program_finds_its_ids_and_every_package(docker_engine, executor_image) -> None:
    """Sealed as an executor is: the account of the program, packages that work, and nothing of isorun."""
    done = docker_engine("run", *SEALED, executor_image, "python3", "-I", "-B", "-X", "utf8", "-c", PROGRAM)
    own = [1001, 1000, "isorun", "/tmp", 1000, "/tmp", True, []]
    assert json.loads(done) == [*own, 4, "PNG", 1, 7, "Says it.", "Europe/Berlin"]


def test_no_file_of_the_image_gives_rights_or_takes_writes(docker_engine, executor_image) -> None:
    """No file is setuid or setgid, and none outside the folders for temporary files is anybody's to write."""
    temporary = "! -path /tmp ! -path /var/tmp ! -path '/run/*'"
    look = f"find / -xdev -perm /6000 -type f; find / -xdev -perm -2 ! -type l {temporary}"
    shown = docker_engine("run", "--rm", "--user", "0", "--network", "none", executor_image, "sh", "-c", look)
    assert [line for line in shown.splitlines() if not line.startswith(("/proc", "/dev", "/sys"))] == []


def test_the_base_has_what_that_test_looks_for(docker_engine) -> None:
    """The control of the test above: the base image has setuid files."""
    command = ("sh", "-c", "find / -xdev -perm /6000 -type f")
    assert docker_engine("run", "--rm", "--network", "none", docker_engine.base_image, *command)


def test_the_image_tells_no_index_and_no_secret(docker_engine, executor_image) -> None:
    """Its history and environment have no address and nothing that the builder's environment held."""
    (found,) = json.loads(docker_engine("image", "inspect", executor_image))
    told = docker_engine("history", "--no-trunc", "--format", "{{.CreatedBy}}", executor_image)
    assert "install.sh" in told
    assert not re.search(r"(?i)://|index[-_]url|token|password|secret", told)
    names = {line.partition("=")[0] for line in found["Config"]["Env"]}
    assert names - {"PATH", "LANG", "TZ", "HOME", "PYTHONDONTWRITEBYTECODE"} == set()


def test_a_second_build_costs_nothing(executor_image, docker_engine) -> None:
    """`isorun image build` finds the image of the same recipe, and only names it."""
    options = ("--tag", executor_image, "--base-image", docker_engine.base_image, "--network", "host", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "isorun", "image", "build", *options], capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, json.loads(done.stdout)["built"]) == (0, False), done.stderr


#: The printed commands, with a name of the test's own, which stays: the next time all of it is in the engine's cache.
BUILDS = {
    "py-code-exec": (FOLDER, []),
    "all_in_one": (ROOT, ["-f", "deployment/docker/all_in_one/Dockerfile_Exec"]),
}


@pytest.mark.parametrize("place", BUILDS)
def test_docker_build_as_printed(place, docker_engine, executor_image) -> None:
    """`docker build -t py-code-exec:latest .` in its folder, and Dockerfile_Exec from the root, give the same image."""
    (folder, options), name = BUILDS[place], f"py-code-exec:test-{place}"
    printed = docker_engine.build(name, folder, *options)
    assert facts(docker_engine, name) == EXPECTED
    (sent,) = re.findall(r"Sending build context to Docker daemon\s+([\d.]+)([kM]B)", printed) or [("0", "kB")]
    assert float(sent[0]) * (1 if sent[1] == "kB" else 1000) < 10_000  # of kB: no .venv, no .git


def test_a_base_without_python_says_so(docker_engine, name) -> None:
    """The build fails in its first step. What it printed has the reason, once, and the last line says where to look."""
    recipe = f"FROM {docker_engine.base_image}\nLABEL test={name}\nRUN rm -f /usr/bin/python3 /usr/local/bin/python3\n"
    docker_engine.run("build", "-t", f"{name}:base", "-", input=recipe)
    options = ("--tag", f"{name}:1", "--base-image", f"{name}:base")
    command = [sys.executable, "-m", "isorun", "image", "build", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 70, done.stderr
    assert done.stderr.count("install.sh: the base image has no python3") == 1
    assert done.stderr.splitlines()[-1].endswith("; its output is above")
