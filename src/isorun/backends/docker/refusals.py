"""Why an engine would not start a container, as the setting to correct: pure, from its words.

What is not known here stays the engine's own words, and a failure of the sandbox's.
"""

import re
from collections.abc import Mapping
from typing import Any

from isorun.backends.remedy import Command
from isorun.core.errors import InvalidRequest, IsorunError, Unavailable
from sandbox_runner.docker.engine import Engine

#: The version of what we expect of an image, in its label of this name.
IMAGE_LABEL, IMAGE_VERSION = "isorun.image", "1"
BUILD = Command.of("isorun", "image", "build")
_NO_SOURCE = re.compile(r"bind source path does not exist: ([^\n]+?)(?:\.?\s*(?:\n|$)|\. See| Run ')")
_NO_NETWORK = re.compile(r"network (.+?) not found|No such container: (\S+)")
_NO_IMAGE = re.compile(r"No such image|Unable to find image")
_NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*|container:[A-Za-z0-9][A-Za-z0-9_.-]*")


def explained(said: str, image: str, network: str, named: Mapping[str, str]) -> IsorunError | None:
    """The error that names the setting behind what the engine *said*; None for other words.

    *named*: settings and the paths of the engine's host that they lead to; the first that holds a path counts.
    """
    if found := _NO_SOURCE.search(said):
        path = found[1].strip()
        setting = next((name for name, folder in named.items() if f"{path}/".startswith(f"{folder}/")), _WORKSPACE)
        return Unavailable(
            f"the engine's host has no folder {path}: set {setting} to a path of that host, of those that doctor shows",
            backend="docker",
        )
    if _NO_NETWORK.search(said):
        return InvalidRequest(
            f"PY_CODE_EXEC_NETWORK_MODE={network}: the engine has no such network; name one of `docker network ls`, "
            "host or none",
            code="network_mode",
        )
    if _NO_IMAGE.search(said):
        return no_image(image)
    return None


def no_image(image: str) -> Unavailable:
    """It was removed, or never made."""
    return Unavailable(
        f"there is no image {image}: make it with `{BUILD}`, or set PY_CODE_EXEC_IMAGE", backend="docker"
    )


def version_of(image: Mapping[str, Any]) -> str | None:
    """Which version of isorun the image is for, of what the engine says of it; None: it is not one of ours."""
    version = ((image.get("Config") or {}).get("Labels") or {}).get(IMAGE_LABEL)
    return None if version is None else str(version)


def check_image(name: str, image: Mapping[str, Any] | None) -> None:
    """Raise `Unavailable` if the engine has no such image, or this version of isorun cannot use it."""
    if image is None:
        raise no_image(name)
    version = version_of(image)
    if version != IMAGE_VERSION:
        raise Unavailable(
            f"the image {name} is of version {version or 'none'} ({IMAGE_LABEL}), and this isorun needs "
            f"{IMAGE_VERSION}: make it again with `{BUILD}`",
            backend="docker",
        )


def check_runtime(wanted: str | None, engine: Engine) -> str:
    """The runtime that containers get. Raises `Unavailable` if the engine does not know *wanted*."""
    if wanted is not None and wanted not in engine.runtimes:
        raise Unavailable(
            f"the Docker engine does not know the runtime {wanted} (ISORUN_DOCKER_RUNTIME), only "
            f"{', '.join(engine.runtimes)}: add it to the runtimes in daemon.json",
            backend="docker",
        )
    return wanted or engine.runtime


def check_unseen(*, loopback: bool) -> None:
    """Raise `Unavailable` for what cannot be held where this process does not see those of the containers."""
    if loopback:
        raise Unavailable(
            "this process does not see the processes of the engine's containers, so nothing would count the sockets of "
            "a run with loopback: leave out --loopback (network=), or move to the engine's host",
            backend="docker",
        )


def check_network(network: str) -> None:
    """Raise `InvalidRequest` for what can be no network's name: an engine says "not found" to a comment behind it."""
    if _NETWORK.fullmatch(network) is None:
        hint = "; remove the comment behind the value" if re.search(r"\s#", network) else ""
        raise InvalidRequest(
            f"PY_CODE_EXEC_NETWORK_MODE={network}: must be host, none or the name of a network{hint}",
            code="network_mode",
        )


_WORKSPACE = "HOST_EXEC_WORKSPACE_PATH"
