"""`isorun doctor`, typed: what decides its exit code, and what it says when nobody needs Docker."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isorun.cli.doctor.checkup import Report
from isorun.doctor.check import Row
from tests.conformance.conftest import inherited

Doctor = Callable[..., "subprocess.CompletedProcess[str]"]
NO_DOCKER = {"SANDBOX_RUNNER_DOCKER": "/no/such/docker"}


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """The command, with a folder for its runs that is this user's own."""
    (tmp_path / "runs").mkdir(mode=0o750)

    def run(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "isorun", "doctor", *words],
            env={**inherited(), "ISORUN_WORKSPACE_ROOT": str(tmp_path / "runs"), **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run


def failed(told: dict[str, Any], *parts: str) -> list[str]:
    return [check["name"] for part in parts for check in told[part] if not check["ok"]]


def test_without_docker_the_embedded_backend_is_all_that_counts(doctor: Doctor) -> None:
    """Docker is not asked and not told of: nobody asked for the Docker backend. The verdict is the first line."""
    told = json.loads((done := doctor("--json", **NO_DOCKER)).stdout)
    assert (done.returncode, told["ok"], told["docker"]) == (0, True, [])
    for words in ((), ("--verbose",)):
        text = doctor(*words, **NO_DOCKER).stdout
        assert text.startswith("every wall stands: programs run sealed here\n")
        assert ("Docker" in text, "FAILED" in text, "workspace root" in text) == (False, False, bool(words))


@pytest.mark.any_user
@pytest.mark.parametrize(("words", "variables"), [(("--backend", "docker"), {}), ((), {"ISORUN_BACKEND": "docker"})])
def test_with_the_docker_backend_a_failed_docker_line_is_exit_4(words, variables, doctor: Doctor) -> None:
    """Asked for by the option or by the setting: what a container needs decides, what a namespace needs does not."""
    done = doctor(*words, **variables, **NO_DOCKER)
    assert done.returncode == 4
    verdict, title, _, first = done.stdout.splitlines()[:4]
    assert verdict == "programs cannot run sealed here; nothing weaker is started"
    assert title.split() == ["what", "failed", "what", "was", "found"]
    assert first.startswith("FAILED   Docker CLI          there is no /no/such/docker on PATH: install a Docker CLI")
    assert "→ apt install docker.io" in done.stdout
    assert "→ mend Docker CLI, then look again: isorun doctor" in done.stdout
    assert not any(word in done.stdout for word in ("bubblewrap", "user namespaces", "workspace root"))


def test_auto_without_any_backend_tells_of_both(doctor: Doctor, tmp_path: Path) -> None:
    """What failed of each, and that the trial needs them; the run's own error names what to type."""
    bwrap = tmp_path / "bwrap"
    bwrap.write_text(
        "#!/bin/sh\necho 'bwrap: Creating new namespace failed: max_user_namespaces exceeded' >&2; exit 1\n"
    )
    bwrap.chmod(0o755)
    tmp_path.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    done = doctor(PATH=path, ISORUN_BACKEND="auto", **NO_DOCKER)
    names = [line.split("  ")[1].strip() for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert (done.returncode, names[-1]) == (4, "a program, sealed")
    assert "Docker CLI" in names
    assert re.search(r"→ mend .*Docker CLI, then look again: isorun doctor\n", done.stdout)


def test_a_trial_that_fails_otherwise_is_no_lack_of_a_backend(doctor: Doctor) -> None:
    """A folder that takes no runs says nothing of Docker; the trial names the row, and is named by none."""
    done = doctor(ISORUN_WORKSPACE_ROOT="/proc/self/task/runs", ISORUN_BACKEND="auto", **NO_DOCKER)
    rows = [line.split("  ")[1].strip() for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert (done.returncode, rows) == (4, ["workspace root", "a program, sealed"])
    assert "→ mend workspace root, then look again: isorun doctor\n" in done.stdout


@pytest.mark.any_user
@pytest.mark.parametrize("columns", ["60", "100"])
def test_the_width_is_the_one_that_is_asked_for(doctor: Doctor, columns: str) -> None:
    """Also through a pipe, where there is no terminal to ask."""
    lines = doctor("--verbose", COLUMNS=columns, **NO_DOCKER).stdout.splitlines()
    assert int(columns) - 10 < max(map(len, lines)) <= int(columns)


GOOD, BAD = Row("a", True, ""), Row("b", False, "")


@pytest.mark.any_user
@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, False),
        ({"host": [BAD]}, False),  # a program has run all the same
        ({"host": [replace(BAD, name="bundle")]}, True),
        ({"engine": (BAD,)}, False),
        ({"engine": (BAD,), "docker": True}, True),
        ({"production": [GOOD, BAD]}, True),
        ({"run": BAD}, True),
    ],
)
def test_what_decides_the_exit_code(changes, failed) -> None:
    """A line of Docker's counts where runs are containers, and also if the trial run has gone well."""
    report = Report(docker=False, host=[GOOD], engine=(GOOD,), production=[], run=GOOD, walls=[])
    assert bool(replace(report, **changes).failed) == failed


@pytest.mark.any_user
def test_a_backend_that_there_is_not_is_a_slip(doctor: Doctor) -> None:
    """Nothing is looked at for a name that means nothing."""
    done = doctor("--backend", "podman")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "isorun: there is no backend 'podman'; use one of auto, namespace, docker\n"


def test_production_makes_a_tool_call_and_its_rows_decide(doctor: Doctor, tmp_path: Path) -> None:
    """A world-writable folder of runs is exit 4, while every wall stands and the tool call of a real run is logged."""
    (tmp_path / "runs").chmod(0o1777)  # as /tmp is: without the sticky bit no run would start there
    told = json.loads((done := doctor("--production", "--json", **NO_DOCKER)).stdout)
    rows = {check["name"]: check for check in told["production"]}
    assert (done.returncode, told["ok"], told["run"]["ok"]) == (4, False, True)
    assert not rows["workspace permissions"]["ok"]
    assert rows["tool call, logged"]["detail"].startswith("[tool_call] local_tools.write_note ")
    services = "redis not configured, postgres not configured"
    assert (rows["supervisor's services"]["ok"], rows["supervisor's services"]["detail"]) == (True, services)


def test_production_without_a_folder_for_runs_says_so(doctor: Doctor) -> None:
    """Nothing can run: each row that needs a run says why, and doctor goes on to the end."""
    told = json.loads((done := doctor("--production", "--json", ISORUN_WORKSPACE_ROOT="/dev/null/runs")).stdout)
    rows = {check["name"]: check["detail"] for check in told["production"] if not check["ok"]}
    assert (done.returncode, told["run"]["ok"]) == (4, False)
    assert rows["workspace permissions"] == "/dev/null/runs: Not a directory"
    assert rows["tool call, logged"] == "no such line: /dev/null/runs cannot be used: Not a directory"


def test_a_service_that_does_not_answer_is_a_failed_row(doctor: Doctor) -> None:
    """Redis is configured and nobody listens there: the supervisor says so, and the row names what to correct."""
    told = json.loads(doctor("--production", "--json", REDIS_HOST="127.0.0.1", REDIS_PORT="1", **NO_DOCKER).stdout)
    row = next(check for check in told["production"] if check["name"] == "supervisor's services")
    assert (row["ok"], row["detail"]) == (False, "redis unreachable (connection refused), postgres not configured")
    assert row["remedy"].startswith("correct REDIS_URL, REDIS_HOST")


def test_a_failed_check_is_fixed_when_it_is_asked_for(doctor: Doctor, tmp_path: Path) -> None:
    """`--fix` alone changes nothing without a terminal; with `--yes` the file is closed.

    The exit code is then 0, unless this user lacks something that isorun cannot give them, such as a cgroup.
    """
    file = tmp_path / "secrets"
    file.write_text("POSTGRES_PASSWORD=hush-hush\n")
    file.chmod(0o644)
    shown = doctor("--production", "--fix", "--json", ISORUN_ENV_FILE=str(file), **NO_DOCKER)
    fix, *others = sorted(json.loads(shown.stdout)["fixes"], key=lambda one: one["name"] != "files with secrets")
    assert (shown.returncode, fix["outcome"], fix["commands"]) == (4, "not done", [f"chmod 0600 {file}"])
    assert [one["commands"] for one in others] == [[]] * len(others)
    done = doctor("--production", "--fix", "--yes", ISORUN_ENV_FILE=str(file), **NO_DOCKER)
    assert (done.returncode, file.stat().st_mode & 0o777) == (4 if others else 0, 0o600), done.stdout
    assert f"\nfiles with secrets: chmod 0600 {file}\n" in done.stdout
    assert done.stdout.endswith("\nevery wall stands: programs run sealed here\n") == (not others)
