"""A Docker engine, and the executor image on it, for the tests that need them.

Where no engine answers, a test that asks for one ends with the facility `docker`. The image is
built once for all sessions: as long as its recipe and its base are the same, the one that is there is taken.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import NoReturn

import pytest

from tests.docker.engine import Engine

TAG = "py-code-exec:test"
Require = Callable[[str, str], NoReturn]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks first for the image may have to wait for it to be built, which counts as the test's own time."""
    for item in items:
        if "executor_image" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(540))


@pytest.fixture(scope="session")
def docker_engine(require: Require) -> Engine:
    """The engine that answers here, and the base image that is to be there for CI."""
    program = shutil.which(os.environ.get("SANDBOX_RUNNER_DOCKER") or "docker")
    if program is None:
        require("docker", "there is no Docker CLI")
    asked = subprocess.run([program, "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True)
    if asked.returncode:
        require("docker", f"no daemon answers: {asked.stderr.strip() or asked.stdout.strip()}")
    base = os.environ.get("SANDBOX_RUNNER_BASE_IMAGE") or "sandbox-base:bookworm"
    engine = Engine(program, base)
    if not engine("image", "ls", "--quiet", base):
        require("docker", f"there is no image {base}: name one that has Python and pip in SANDBOX_RUNNER_BASE_IMAGE")
    return engine


@pytest.fixture(scope="session")
def executor_image(docker_engine: Engine) -> str:
    """The name of an executor image, built as a user builds it, of today's recipe and base."""
    # Its own network: where the engine's containers have no way out, the host's is the one that is there.
    options = ["--tag", TAG, "--base-image", docker_engine.base_image, "--network", "host", "--json"]
    command = [sys.executable, "-m", "isorun", "image", "build", *options]
    built = subprocess.run(command, capture_output=True, text=True, timeout=480)
    assert built.returncode == 0, built.stderr[-4000:]
    name: str = json.loads(built.stdout)["image"]
    return name
