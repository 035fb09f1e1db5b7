"""What a Docker engine says of itself: asked here alone, by each start and by each doctor. Starts nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox_runner.docker.command import DockerCli
from sandbox_runner.errors import DockerUnavailable

OLDEST = (20, 10)  # `docker run --pull never`, and cgroup v2
SILENT = "the Docker engine does not answer: "  # how `DockerUnavailable` of `ask` begins, before the CLI's words
_CEILINGS = {"MemoryLimit": "memory", "SwapLimit": "swap", "PidsLimit": "processes", "CpuCfsQuota": "CPU"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """`docker version` and `docker info` of one daemon."""

    info: Mapping[str, Any] = field(default_factory=dict)
    version: str = "unknown"
    api: str = "unknown"
    client: str = "unknown"

    @classmethod
    def ask(cls, cli: DockerCli) -> Engine:
        """Ask the daemon. Raises `DockerUnavailable`, and `SandboxTimeout` for a daemon that hangs."""
        # `version` first: without a daemon a CLI of 20.10 answers `info` with a complaint about the template.
        told = _answer(cli, "version")
        server = told.get("Server")
        if not server:
            raise DockerUnavailable(f"{SILENT}it told nothing of its server")
        client = (told.get("Client") or {}).get("Version", "unknown")
        found = (str(server.get(name, "unknown")) for name in ("Version", "ApiVersion"))
        return cls(info=_answer(cli, "info"), version=next(found), api=next(found), client=str(client))

    @property
    def is_old(self) -> bool:
        """Whether it is older than what our command lines need."""
        return not at_least(self.version, OLDEST)

    @property
    def has_seccomp(self) -> bool:
        """Whether it filters system calls."""
        return "name=seccomp" in " ".join(self.info.get("SecurityOptions") or ())

    @property
    def group(self) -> str:
        """The version of control groups that it has."""
        return f"cgroup v{self.info.get('CgroupVersion') or 1}"

    @property
    def cannot_limit(self) -> list[str]:
        """Of memory, swap, processes and CPU those that its kernel cannot hold."""
        return [what for name, what in _CEILINGS.items() if not self.info.get(name)]

    @property
    def runtimes(self) -> list[str]:
        """The names of those that it knows."""
        return sorted(self.info.get("Runtimes") or {})

    @property
    def runtime(self) -> str:
        """What it starts containers with unless told otherwise."""
        return str(self.info.get("DefaultRuntime", "unknown"))


def _answer(cli: DockerCli, verb: str) -> dict[str, Any]:
    answer = cli.run(verb, "--format", "{{json .}}")
    if answer.code:
        raise DockerUnavailable(f"{SILENT}{answer.said}")
    try:
        value = json.loads(answer.stdout)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def at_least(version: str, least: tuple[int, int]) -> bool:
    """Whether *version*, such as 20.10.24, is *least* or newer; False for what is not a version."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= least
