"""Docker Compose as this machine has it, and a copy of deployment/cicd/local that it can read.

Compose 2.24 and later reads the file as it is. Debian's docker-compose 1.29.2 does once the one key that it does not
know is as it was in its time: `env_file` as a list of paths, each of which must be there.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

import yaml

LOCAL = Path(__file__).parents[2] / "deployment" / "cicd" / "local"
PROJECT = "isorun-test-compose"
Require = Callable[[str, str], NoReturn]


class Compose(NamedTuple):
    """A program that reads compose files; `is_old` if it is version 1."""

    command: tuple[str, ...]
    is_old: bool

    @property
    def typed(self) -> str:
        """What stands for `docker compose` in a shell."""
        return shlex.join((*self.command, "-p", PROJECT))

    def run(self, folder: Path, *words: str, seconds: float = 120.0) -> "subprocess.CompletedProcess[str]":
        """`docker compose words…` in *folder*, to its end."""
        command = [*self.command, "-p", PROJECT, *words]
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "POSTGRES_"))}
        return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=seconds)


def find_compose(require: Require) -> Compose:
    """The plugin if it is new enough for the file, else Debian's docker-compose."""
    docker, old = shutil.which("docker"), shutil.which("docker-compose")
    if docker is not None:
        asked = subprocess.run([docker, "compose", "version", "--short"], capture_output=True, text=True)
        said = re.match(r"v?(\d+)\.(\d+)", asked.stdout)
        if not asked.returncode and said and (int(said[1]), int(said[2])) >= (2, 24):
            return Compose((docker, "compose"), False)
    if old is None:
        require("compose", "there is no Docker Compose: neither the plugin from 2.24 on, nor docker-compose 1.29")
    return Compose((old,), True)


def deployment(compose: Compose, folder: Path, values: Mapping[str, str]) -> None:
    """In *folder*, what somebody has after the first steps of the guide: the file, .env.backend, .env, the folders."""
    text = (LOCAL / "docker-compose.yml").read_text(encoding="utf-8")
    if compose.is_old:
        file = yaml.safe_load(text)
        (given,) = file["services"]["chat"].pop("env_file")
        file["services"]["chat"]["env_file"] = [given["path"]]
        text = yaml.safe_dump(file, sort_keys=False)
    (folder / "docker-compose.yml").write_text(text, encoding="utf-8")
    settings = (LOCAL / ".env.backend.example").read_text(encoding="utf-8")
    for name, value in values.items():
        settings, found = re.subn(rf"^{name}=.*$", f"{name}={value}", settings, flags=re.MULTILINE)
        assert found == 1, name
    (folder / ".env.backend").write_text(settings, encoding="utf-8")
    (folder / ".env.backend").chmod(0o600)
    (folder / ".env").symlink_to(".env.backend")
    for name in ("exec-workspace", "kdcube-storage", "logs/chat"):
        (folder / name).mkdir(parents=True)
