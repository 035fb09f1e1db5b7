"""docker-compose.yml brought up for real: chat, Redis and PostgreSQL, and what the operations guide looks at then.

Redis and PostgreSQL are Debian's, in an image that is made here of the same base as the others.
"""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.docker.compose import PROJECT, Compose, deployment, find_compose
from tests.docker.engine import Engine
from tests.docker.test_chat_image import chat_image  # noqa: F401 - a fixture
from tests.servers import unused_port

pytestmark = [pytest.mark.root, pytest.mark.timeout(540)]

ROOT = Path(__file__).parents[2]
BACKING = Path(__file__).parent / "backing"
PASSWORD, AWS_KEY = "hush-hush-postgres", "hush-hush-aws"
NOTE = """
await agent_io_tools.tool_call(
    fn=local_tools.write_note,
    params={"text": "note from the chat service"},
    call_reason="Write a simple note file",
    tool_id="local_tools.write_note",
)
print("written")
"""


class Deployed(NamedTuple):
    """What is up: its folder on the host, where it answers, and a user's key."""

    folder: Path
    url: str
    key: str
    before: "subprocess.CompletedProcess[str]"  # the service, started before anybody had a key
    compose: Compose
    engine: Engine

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """The status and the JSON of an answer over HTTP."""
        data = None if body is None else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json", **headers}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data, sent), timeout=100) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def typed(self, command: str) -> str:
        """What the printed *command* shows on its standard output; `-it` has a terminal here, as it would have."""
        command = command.replace("docker compose", self.compose.typed)
        if " -it " in command or " -f " in command:
            command = f"script --quiet --return --command '{command}' /dev/null"
        if " -f " in command:  # it would go on for ever
            command = f"timeout 4 {command} || true"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], cwd=self.folder, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture(scope="module")
def compose(docker_engine: Engine) -> Compose:
    """A Compose, and nothing of an earlier session that was killed."""
    from tests.conftest import lacking

    return find_compose(lacking)


@pytest.fixture(scope="module")
def backing_image(docker_engine: Engine) -> str:
    """Redis and PostgreSQL; its layers stay in the engine's cache."""
    docker_engine.build("isorun-backing:test", BACKING)
    return "isorun-backing:test"


@pytest.fixture(scope="module")
def deployed(
    compose: Compose,
    docker_engine: Engine,
    chat_image: str,  # noqa: F811 - the fixture
    executor_image: str,
    backing_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployed]:
    """All three services, brought up as the guide says, and a user."""
    folder, port = tmp_path_factory.mktemp("local"), unused_port()
    bundles = shutil.copytree(ROOT / "examples" / "bundles", folder / "bundles")
    images = {"CHAT_IMAGE": chat_image, "REDIS_IMAGE": backing_image, "POSTGRES_IMAGE": backing_image}
    values = {"POSTGRES_PASSWORD": PASSWORD, "CHAT_PORT": str(port), "PY_CODE_EXEC_IMAGE": executor_image}
    values["AWS_ACCESS_KEY_ID"] = AWS_KEY
    deployment(compose, folder, {**images, **values, "SITE_AGENTIC_BUNDLES_ROOT": str(bundles)})
    for path in (folder / "exec-workspace", folder / "logs/chat"):
        os.chown(path, 1000, 1000)
    compose.run(folder, "down", "--volumes")  # of a session that was killed
    assert not docker_engine("ps", "--all", "--quiet", "--filter", "name=^chat-chat$"), "another chat-chat is there"
    try:
        before = compose.run(folder, "run", "--rm", "-T", "chat")
        added = compose.run(folder, "run", "--rm", "-T", "chat", "isorun", "users", "add", "tester", "--json")
        assert added.returncode == 0, added.stdout + added.stderr
        key = json.loads(added.stdout.splitlines()[-1])["key"]
        up = compose.run(folder, "up", "-d", "--no-build", "chat", "redis", "postgres-db")
        assert up.returncode == 0, up.stdout + up.stderr
        made = Deployed(folder, f"http://127.0.0.1:{port}", key, before, compose, docker_engine)
        _wait_until_it_is_well(made)
        yield made
    finally:
        down = compose.run(folder, "down", "--volumes")
    assert down.returncode == 0, down.stderr
    left = docker_engine("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}")
    assert left == ""


def _wait_until_it_is_well(made: Deployed) -> None:
    state = ["inspect", "--format", "{{.State.Health.Status}}", "chat-chat"]
    end = time.monotonic() + 90
    while (health := made.engine(*state)) != "healthy":
        log = made.engine.run("logs", "--tail", "20", "chat-chat")
        assert time.monotonic() < end, (health, log.stdout, log.stderr)
        time.sleep(0.3)


@pytest.fixture(scope="module")
def run(deployed: Deployed) -> dict[str, Any]:
    """A run of the service that called a tool: what the seed's guide calls "trigger code execution"."""
    body = {"code": NOTE, "tools": ["local_tools.write_note"], "timeout_s": 60}
    status, view = deployed.ask("/v1/runs", body, Prefer="wait=90")
    assert (status, view["status"], view["result"]["stdout"]) == (200, "ok", "written\n"), view
    return view


def test_nobody_is_served_before_somebody_has_a_key(deployed: Deployed) -> None:
    """The first start of all, with its database made and Redis up, ends with what to type. Then a key is asked for."""
    assert deployed.before.returncode == 2, deployed.before.stdout + deployed.before.stderr
    assert "no user has a key yet: make one with `isorun users add NAME`" in deployed.before.stdout
    status, told = deployed._replace(key="wrong").ask("/v1/me")
    assert (status, told["code"]) == (401, "not_signed_in")
    assert deployed.ask("/v1/me")[1]["name"] == "tester"


#: What the older guide types to verify a deployment, and what it is to show.
VERIFY = {
    "docker exec -it chat-chat docker ps": r"chat-chat",
    "docker exec -it chat-chat ls -la /exec-workspace/": r"codegen_\S+",
    "docker inspect chat-chat | grep exec-workspace": r"\$FOLDER/exec-workspace:/exec-workspace",
    "docker logs chat-chat | grep entrypoint": r"\[entrypoint\] ✅ Docker access verified for appuser",
    'docker logs chat-chat | grep "supervisor"': r"\[supervisor\] ready bundle=with-isoruntime redis=ok postgres=ok\n",
    'docker logs chat-chat | grep "AWS"': r"\[supervisor\] AWS credentials: present, passed to the supervisor only",
    "docker ps -a | grep py-code-exec": r"py-code-exec:test",
    "ls -la exec-workspace/": r"codegen_\S+",
    "cd exec-workspace/codegen_*/out && ls -la": r"(?s)local_tools\.write_note-.*result\.json.*runtime\.out\.log",
    'docker compose logs chat | grep "docker.exec"': (
        r"(?s)\[docker\.exec\] Running in Docker-in-Docker mode.*"
        r"\[docker\.exec\] Container paths: workdir=/exec-workspace/codegen_.*"
        r"\[docker\.exec\] Host paths: workdir=\$FOLDER/exec-workspace/codegen_"
    ),
    "docker compose logs -f chat": r"Open http://0\.0\.0\.0:8000",
}


@pytest.mark.parametrize("command", VERIFY)
def test_the_older_guides_commands_show_what_it_says(command: str, deployed: Deployed, run: dict[str, Any]) -> None:
    """Each as it is printed, after a run with a tool call; a pipe takes standard output alone."""
    shown = deployed.typed(command)
    assert re.search(VERIFY[command].replace(r"\$FOLDER", re.escape(str(deployed.folder))), shown), shown


def test_the_log_is_in_the_mounted_folder_too(deployed: Deployed, run: dict[str, Any]) -> None:
    """`./logs/chat`, whatever becomes of the container; no secret is in it."""
    log = (deployed.folder / "logs/chat/service.log").read_text(encoding="utf-8")
    assert "[supervisor] ready bundle=with-isoruntime redis=ok postgres=ok\n" in log
    said = deployed.engine.run("logs", "chat-chat")
    for secret in (PASSWORD, AWS_KEY, deployed.key):
        assert secret not in log + said.stdout + said.stderr


def test_rows_are_in_postgres(deployed: Deployed, run: dict[str, Any]) -> None:
    """The run is found by its id in the database's own program, and none is in a file of the container."""
    words = ["exec", "-T", "postgres-db", "psql", "-U", "isorun", "-d", "isorun", "-At", "-c"]
    done = deployed.compose.run(deployed.folder, *words, "SELECT count(*) FROM runs")
    assert (done.returncode, int(done.stdout or 0) >= 1) == (0, True), done.stderr
    assert not list((deployed.folder / "exec-workspace").rglob("service.sqlite3"))


def test_redis_is_the_supervisors_word(deployed: Deployed) -> None:
    """A supervisor in the host's network does not know the names of Compose's, and says so of this same deployment."""
    words = ["exec", "--user", "appuser", "--env", "PY_CODE_EXEC_NETWORK_MODE=host", "chat-chat"]
    shown = deployed.engine(*words, "isorun", "run", "--json", "--bundle", "/bundles/with-isoruntime", "-c", "print(1)")
    result = json.loads(shown)
    assert re.search(r"redis=unreachable \([a-z ]+\) postgres=unreachable \([a-z ]+\)", result["infra_log_tail"]), shown


def test_without_a_password_nothing_starts(compose: Compose, tmp_path: Path) -> None:
    """Compose says which value is missing and where it belongs; with one it reads the whole file."""
    deployment(compose, tmp_path, {})
    refused = compose.run(tmp_path, "config")
    assert refused.returncode != 0
    assert "POSTGRES_PASSWORD" in refused.stderr
    assert ".env.backend" in refused.stderr
    (tmp_path / ".env.backend").write_text("POSTGRES_PASSWORD=hush\n")
    assert compose.run(tmp_path, "config").returncode == 0


def test_it_ends_when_it_is_told_to(deployed: Deployed, run: dict[str, Any]) -> None:
    """The last of these: SIGTERM reaches the service, which ends by itself, and with it what runs programs."""
    mounts = ["ps", "--all", "--no-trunc", "--filter", "label=isorun.role", "--format", "{{.Mounts}}"]
    assert str(deployed.folder) in deployed.engine(*mounts)
    deployed.engine("stop", "--time", "45", "chat-chat")
    code = deployed.engine("inspect", "--format", "{{.State.ExitCode}}", "chat-chat")
    assert code in ("0", "130"), code  # 137: it had to be killed
    assert str(deployed.folder) not in deployed.engine(*mounts)
