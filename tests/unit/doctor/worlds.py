"""A service in a container with nothing wrong, for the tests of what `isorun doctor --production` says."""

import stat
from pathlib import Path

from isorun.backends.executor_ids import Identity
from isorun.doctor.check import Row
from isorun.doctor.docker import Found
from isorun.doctor.world import World
from isorun.settings import Settings
from sandbox_runner.docker.engine import Engine

IMAGE = {"RepoTags": ["py-code-exec:latest", "py-code-exec:3"], "RepoDigests": []}
WALLS = Row("walls of the engine", True, "cgroup v2 limits memory, swap, processes and CPU; seccomp filters stand")
CONTAINER = {
    "Config": {"Env": ["PATH=/usr/bin"], "Cmd": ["python"], "Entrypoint": None, "Labels": {"a": "b"}},
    "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}}},
}
FOUND = Found(checks=(WALLS,), engine=Engine(info={"DefaultRuntime": "runc"}), image=IMAGE, container=CONTAINER)
SOCKET = "unix:///var/run/docker.sock"
EXECUTABLE, PRIVATE = stat.S_IFREG | 0o755, stat.S_IFREG | 0o600
#: No secret of anybody; long enough to be looked for.
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "hush-secret-key",
    "AWS_REGION": "eu-west-1",
    "POSTGRES_PASSWORD": "hush-postgres",
    "REDIS_URL": "redis://:hush-redis@redis:6379/0",
}


def settings(**variables: str) -> Settings:
    return Settings.load(environ=variables)


def service(root: Path) -> World:
    """A service in a container beside its executors, whose runs are below *root*, a new folder."""
    root.mkdir(mode=0o750)
    return World(
        settings=settings(**KEYS),
        root=root,
        docker=True,
        found=FOUND,
        contained=True,
        uid=1000,
        executor=Identity(uid=1000, gid=1000, root=False),
        entrypoint=EXECUTABLE,
        socket=(SOCKET, stat.S_IFSOCK | 0o660),
        memory_bytes=8 << 30,
        isolation={"level": "full", "without": [], "walls": {"sizes": {}}},
    )
