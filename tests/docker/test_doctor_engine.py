"""`isorun doctor`, and what the older guide tells people to type, on a real engine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from isorun.doctor import docker as probes
from isorun.doctor.check import Row
from isorun.doctor.docker import Place
from isorun.settings import Settings
from sandbox_runner.docker.host_paths import Surroundings
from tests.docker.engine import Engine

WAITS = """
print("begin", flush=True)
while not (OUT / "go").exists():
    time.sleep(0.02)
(OUT / "chart.txt").write_text("X and Y")
"""


@pytest.fixture
def environment(tmp_path: Path, executor_image: str) -> dict[str, str]:
    """Of somebody who uses the Docker backend."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ISORUN_", "PY_CODE_"))}
    (tmp_path / "runs").mkdir(mode=0o755)
    return {
        **inherited,
        "ISORUN_BACKEND": "docker",
        "PY_CODE_EXEC_IMAGE": executor_image,
        "ISORUN_WORKSPACE_ROOT": str(tmp_path / "runs"),
    }


def containers_below(engine: Engine, root: Path) -> list[dict[str, Any]]:
    """The containers that mount something below *root*, whoever started them."""
    numbers = engine("ps", "--all", "--quiet", "--no-trunc").split()
    # One of them may be somebody else's, and gone by now.
    answers = [engine.run("inspect", "--type", "container", number) for number in numbers]
    found = [json.loads(answer.stdout)[0] for answer in answers if answer.returncode == 0]
    return [one for one in found if any(mount["Source"].startswith(f"{root}/") for mount in one["Mounts"])]


def test_doctor_passes_on_a_working_engine_and_leaves_nothing(docker_engine, environment, tmp_path) -> None:
    """Every row is ok, a program has run behind every wall, and neither a container nor a file of the look stays."""
    done = subprocess.run(
        [sys.executable, "-m", "isorun", "doctor", "--json"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    told = json.loads(done.stdout)
    root = Path(environment["ISORUN_WORKSPACE_ROOT"])
    assert [check for check in told["docker"] if not check["ok"]] == []
    assert told["docker"][-1]["name"] == "folder shared with the host"
    assert (done.returncode, told["run"]["ok"]) == (0, True), told["run"]
    assert containers_below(docker_engine, root) == []
    assert [path.name for path in root.iterdir() if "canary" in path.name] == []


def test_a_folder_that_is_another_one_on_the_host_is_found(executor_image, docker_engine, tmp_path) -> None:
    """The engine mounts any folder it is told: only looking inside tells a wrong HOST_EXEC_WORKSPACE_PATH."""
    root, another = tmp_path / "runs", tmp_path / "another"
    for folder in (root, another):
        folder.mkdir(mode=0o755)
    place = Place(True, Surroundings(True, "no-container", "", ""))

    def looked(theirs: Path) -> Row:
        given = {"PY_CODE_EXEC_IMAGE": executor_image, "ISORUN_WORKSPACE_ROOT": str(root)}
        if os.geteuid():
            given["ISORUN_EXECUTOR_GID"] = str(os.getegid())
        settings = Settings.load(environ={**given, "HOST_EXEC_WORKSPACE_PATH": str(theirs)})
        return probes.examine(settings, root, start=True, place=place).checks[-1]

    wrong, missing, right = looked(another), looked(tmp_path / "nowhere"), looked(root)
    assert wrong.detail.startswith(f"/probe in the sandbox is not {root}: it has no file where we have one.")
    assert missing.detail.startswith(f"mounts denied: the engine's host does not share {tmp_path / 'nowhere'}: ")
    assert (wrong.ok, missing.ok, right.ok) == (False, False, True)
    assert not (tmp_path / "nowhere").exists()  # with --volume the engine would have made it


def test_the_older_guides_commands_show_a_run(docker_engine, environment, tmp_path) -> None:
    """While a program runs `docker ps` shows its container; afterwards its folder is there, and no container."""
    (tmp_path / "program.py").write_text(WAITS)
    root = Path(environment["ISORUN_WORKSPACE_ROOT"])
    process = subprocess.Popen(
        [sys.executable, "-m", "isorun", "run", "program.py"],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout.readline() == "begin\n"
            (ours,) = containers_below(docker_engine, root)
            for command in ("docker ps | grep py-code-exec", "docker ps -a | grep py-code-exec"):
                assert ours["Id"][:12] in typed(command.replace("docker", docker_engine.program, 1), environment)
            # What a container says to people is on its stderr, which a pipe alone does not take along.
            shown = typed(f'{docker_engine.program} logs {ours["Id"]} 2>&1 | grep --text "UID"', environment)
            assert re.search(r"\[executor\] UID=\d+ GID=\d+ CapEff=0 NoNewPrivs=1 Seccomp=2", shown), shown
            docker_engine("exec", ours["Id"], "touch", "/workspace/out/go")
            process.wait(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert typed(f"ls {root}/codegen_*/out", environment).split()[0] == "chart.txt"
    assert containers_below(docker_engine, root) == []


def typed(command: str, environment: dict[str, str]) -> str:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
