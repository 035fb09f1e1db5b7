"""Every shell command that the documents which isorun was built from print: it runs here, or where there is an engine.

Three of the five print no command. The operations guide prints those of a Docker deployment with a chat
service; where the embedded runtime shows the same thing in another place, the command for that is run.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.docs.building import wheel_of
from tests.docs.pages import BIN, ROOT

COMPOSED = "tests/docker/test_compose.py::test_the_older_guides_commands_show_what_it_says"
BROUGHT_UP = "tests/docker/test_compose.py::deployed"


@dataclass(frozen=True, kw_only=True)
class Command:
    """One printed command. `typed`: what is run for it, with the paths of this test in place of the printed ones."""

    printed: str
    typed: str = ""
    shows: str = ""  # a pattern in what it prints
    facility: str = ""  # what `typed` needs of the machine
    shown_in: str = ""  # the test that types it on an engine, where the other tests of engines are


OPERATIONS = (
    Command(printed="docker --version", typed="docker --version", shows=r"^Docker version \d+\.", facility="docker"),
    Command(printed="docker compose version", shown_in="tests/docker/compose.py::find_compose"),
    Command(
        printed="cd deployment/docker/py-code-exec",
        typed=f"cd {ROOT}; cd deployment/docker/py-code-exec; ls",
        shows="^Dockerfile\n",
    ),
    Command(
        printed="docker build -t py-code-exec:latest .",
        shown_in="tests/docker/test_images.py::test_docker_build_as_printed",
    ),
    # In the environment of these tests, where all of it is there already: nothing is installed.
    Command(
        printed="pip install -r requirements-chat.txt",
        typed=f"cd {ROOT}; python -m pip install -r requirements-chat.txt",
        shows="already satisfied: pydantic==",
    ),
    Command(
        printed="python kdcube_ai_app/apps/chat/api/web_app.py",
        typed="export ISORUN_SERVICE_DATA=$PWD; python -m isorun.service --port 0 >said & "
        "until grep Open said; do sleep 0.1; done; kill $!; wait $! || true",
        shows=r"(?m)^Open http://127\.0\.0\.1:\d+/login\?token=",
    ),
    Command(
        printed="docker ps | grep py-code-exec",
        shown_in="tests/docker/test_doctor_engine.py::test_the_older_guides_commands_show_a_run",
    ),
    Command(printed="ls -la /tmp/codegen_*", typed="ls -la $ROOT/codegen_*", shows=r"\bout\n"),
    Command(printed="cd /path/to/deployment", typed="cd $PLACE"),
    Command(
        printed="mkdir -p exec-workspace kdcube-storage logs/chat",
        typed="cd $PLACE && mkdir -p exec-workspace kdcube-storage logs/chat && ls",
        shows="exec-workspace",
    ),
    Command(
        printed="cd deployment/cicd/local",
        typed=f"cd {ROOT}; cd deployment/cicd/local; ls",
        shows="docker-compose.yml\n",
    ),
    # The image is that of tests/docker/test_chat_image.py, whose build is the file's.
    Command(printed="docker compose build chat", shown_in="tests/docker/test_chat_image.py::chat_image"),
    Command(printed="docker compose up -d chat redis postgres-db", shown_in=BROUGHT_UP),
    Command(printed="docker compose logs -f chat", shown_in=COMPOSED),
    Command(printed="docker exec -it chat-chat docker ps", shown_in=COMPOSED),
    Command(
        printed="ls -la /path/to/deployment/cicd/local/exec-workspace/",
        typed="ls -la $ROOT/",
        shows=r"codegen_[0-9a-z-]+",
    ),
    Command(
        printed="docker ps -a | grep py-code-exec",
        shown_in="tests/docker/test_doctor_engine.py::test_the_older_guides_commands_show_a_run",
    ),
    Command(printed='docker compose logs chat | grep "docker.exec"', shown_in=COMPOSED),
    Command(
        printed="ls -la /path/to/deployment/exec-workspace/codegen_*",
        typed="ls -la $ROOT/codegen_*",
        shows=r"\bout\n",
    ),
    Command(printed="cd /path/to/exec-workspace/codegen_xxx/out", typed="cd $ROOT/codegen_*/out"),
    Command(
        printed="ls -la",
        typed="cd $ROOT/codegen_*/out && ls -la",
        shows=r"(?s)local_tools\.write_note-.*\.json\n.*result\.json\n.*runtime\.err\.log\n.*runtime\.out\.log\n",
    ),
    Command(
        printed='docker logs chat-chat | grep "supervisor"',
        shown_in=COMPOSED,
    ),
    Command(
        printed='docker logs <py-code-exec-container-id> | grep "UID"',
        typed='cat $ROOT/codegen_*/out/logs/infra.log | grep "UID"',
        shows=r"\[executor\] UID=1001 GID=1000 CapEff=0 NoNewPrivs=1 Seccomp=2",
    ),
    Command(printed="docker logs chat-chat | grep entrypoint", shown_in=COMPOSED),
    Command(printed="docker inspect chat-chat | grep exec-workspace", shown_in=COMPOSED),
    Command(printed="docker exec -it chat-chat ls -la /exec-workspace/", shown_in=COMPOSED),
    Command(printed="ls -la /path/to/host/exec-workspace/", typed="ls -la $ROOT/", shows=r"codegen_[0-9a-z-]+"),
    Command(
        printed='docker logs chat-chat | grep "AWS"',
        shown_in=COMPOSED,
    ),
    Command(
        printed='docker logs <py-code-exec> | grep "tool_call"',
        typed='cat $ROOT/codegen_*/out/logs/infra.log | grep "tool_call"',
        shows=r"\[tool_call\] local_tools\.write_note \S+ ok [0-9.]+",
    ),
)

SANDBOX_RUNNER = (
    Command(printed="pdm install", typed="cd $ALONE; pdm install; ls .venv/bin", shows=r"\npytest\n"),
    Command(printed="pdm run smoke", typed="cd $ALONE; pdm run smoke", shows=r"ok: sandbox_runner [\d.]+, .*\n"),
    Command(
        printed="pdm run smoke_extended",
        typed="cd $ALONE; pdm run smoke_extended",
        shows=r"^(ok: docker: a command ran in |skipped: docker: \S)",
    ),
    # `make test` runs them all; here it is whether they are found and can be, with what PDM has installed.
    Command(
        printed="pdm run test",
        typed="cd $ALONE; pdm run test --collect-only -q; pdm run test tests/unit/test_fixtures.py",
        shows=r"(?s)tests/engine/.* tests collected.* passed",
    ),
    Command(printed="pdm run lint", typed="cd $ALONE; pdm run lint", shows="Success: no issues found"),
    Command(
        printed="python -m pip install -e .",
        typed="cd $PACKAGE; python -m pip install -q -e .; cd /; python -c 'import sandbox_runner as s; print(s)'",
        shows="/package/src/sandbox_runner/",
    ),
    Command(
        printed='pip install --index-url "https://..." --extra-index-url "https://..." "sandbox_runner==<version>"',
        typed='pip install -q --no-index --find-links $DIST -t . "sandbox_runner==$VERSION"; ls',
        shows="sandbox_runner\n",
    ),
    # `usertest` is another project's; the same words behind our own command's name.
    Command(
        printed="usertest run --exec-backend docker",
        shown_in="packages/sandbox_runner/tests/engine/test_cli.py::test_a_run_makes_its_folders_and_its_records",
    ),
    Command(
        printed="python tools/scaffold/scaffold.py run install --project sandbox_runner",
        typed="cd $CHECKOUT; python tools/scaffold/scaffold.py run install --project sandbox_runner",
        shows="^make setup",
    ),
    Command(
        printed="python tools/scaffold/scaffold.py run test --project sandbox_runner",
        typed="cd $CHECKOUT; PYTEST_ADDOPTS='--collect-only -q' "
        "python tools/scaffold/scaffold.py run test --project sandbox_runner",
        shows=r"tests collected",
    ),
    Command(
        printed="python tools/scaffold/scaffold.py run lint --project sandbox_runner",
        typed="cd $CHECKOUT; python tools/scaffold/scaffold.py run lint --project sandbox_runner",
        shows="Success: no issues found",
    ),
)

PACKAGE = ROOT / "packages" / "sandbox_runner"
#: Of the tester's environment: how to reach the index.
PASSED = ("PIP_", "SSL_", "REQUESTS_", "http_", "https_", "no_", "HTTP_", "HTTPS_", "NO_")
CACHES = shutil.ignore_patterns("__pycache__", ".*_cache", ".venv", ".hypothesis")
COMMANDS = (*OPERATIONS, *SANDBOX_RUNNER)
HAPPY = """
await agent_io_tools.tool_call(
    fn=local_tools.write_note,
    params={"text": "note from iso-runtime"},
    call_reason="Write a simple note file",
    tool_id="local_tools.write_note",
)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, dist: dict[str, Path]) -> dict[str, str]:
    """The environment of the commands: one run has been made, with a tool call; there is a package to install."""
    import isorun

    place = tmp_path_factory.mktemp("seed")
    root = place / "runs"
    environ = {
        "HOME": str(place),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "ISORUN_WORKSPACE_ROOT": str(root),
        **{name: value for name, value in os.environ.items() if name.startswith(PASSED)},
    }
    bundle = str(ROOT / "examples" / "bundles" / "with-isoruntime")
    done = subprocess.run(
        ["isorun", "run", "-", "--bundle", bundle, "--tools", "local_tools.write_note"],
        input=HAPPY,
        env=environ,
        cwd=place,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    package = shutil.copytree(PACKAGE, place / "package", ignore=CACHES)
    return environ | {
        "ROOT": str(root),
        "PLACE": str(place),
        "PACKAGE": str(package),
        "DIST": str(wheel_of(dist, "sandbox_runner").parent),
        "VERSION": isorun.__version__,
    }


@pytest.fixture(scope="module")
def alone(place: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of somebody with PDM and a copy of the package's folder alone, who has typed `pdm install`."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copytree(PACKAGE, folder / "sandbox_runner", ignore=CACHES)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "pdm")], check=True)
    environ = place | {
        "ALONE": str(folder / "sandbox_runner"),
        "PATH": f"{folder / 'pdm' / 'bin'}:{os.environ['PATH']}",
        "PDM_CHECK_UPDATE": "false",
        "PDM_NON_INTERACTIVE": "1",
        **engine(),
    }
    # With the versions that it was released with: its own dependencies have no upper bounds.
    for command in ("python -m pip install -q pdm[locked]", "pdm install -q"):
        done = subprocess.run(command.split(), cwd=environ["ALONE"], env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return environ


def engine() -> dict[str, str]:
    """What makes the built-in image build where no registry can be reached: the base image, if the engine has it."""
    base = os.environ.get("SANDBOX_RUNNER_BASE_IMAGE") or "sandbox-base:bookworm"
    docker = shutil.which(os.environ.get("SANDBOX_RUNNER_DOCKER") or "docker")
    if docker is None or subprocess.run([docker, "image", "inspect", base], capture_output=True).returncode:
        return {}
    return {"SANDBOX_RUNNER_BASE_IMAGE": base}


@pytest.fixture(scope="module")
def checkout(place: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of somebody in a checkout that is set up; its make only says what it was asked for."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("packages", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=CACHES)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "bin").mkdir()
    (folder / "bin" / "make").write_text('#!/bin/sh\necho make "$2"\n', encoding="utf-8")
    (folder / "bin" / "make").chmod(0o755)
    return place | {"CHECKOUT": str(folder), "PATH": f"{folder / 'bin'}:{place['PATH']}"}


def wherever(command: Command) -> bool:
    """Whether it is the same whoever types it: it installs, checks or collects. Others make sandboxes, need an engine,
    or look at a run of this user's.
    """
    return not (command.facility or "smoke" in command.printed or "$ROOT" in command.typed)


def typed() -> list[Any]:
    """The commands that run."""
    marks = {command: pytest.mark.any_user if wherever(command) else () for command in COMMANDS}
    return [pytest.param(command, marks=marks[command], id=command.printed) for command in COMMANDS if command.typed]


@pytest.mark.timeout(200)  # two of them make an environment and fetch what they need
@pytest.mark.parametrize("command", typed())
def test_the_command_runs(command, place, tmp_path, request, require) -> None:
    """It exits with 0 and shows what its document says that it shows."""
    if command.facility and shutil.which("docker") is None:
        require(command.facility, "there is no Docker CLI")
    environ = dict(place)
    for name in ("alone", "checkout"):
        if f"${name.upper()};" in command.typed:
            environ = dict(request.getfixturevalue(name))
    if "install -q -e" in command.typed:
        subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
        environ["PATH"] = f"{tmp_path / 'venv' / 'bin'}:{environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command.typed],
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(command.shows, done.stdout), done.stdout


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.shown_in], ids=lambda c: c.printed)
def test_a_command_that_needs_an_engine_is_typed_where_one_is(command) -> None:
    """The test that is named is there; CI has an engine, and may not leave it out."""
    path, _, name = command.shown_in.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


def test_each_command_runs_or_needs_something() -> None:
    """No row is left open, and none has two answers."""
    assert all(sum(map(bool, (c.typed, c.shown_in))) == 1 for c in COMMANDS)
