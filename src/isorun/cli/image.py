"""`isorun image build`: the image that the Docker backend starts its containers from.

Theory of operation. The folder that it is built from is in the package (in a checkout,
deployment/docker/py-code-exec), and sandbox_runner builds it: under a name with the hash of
what is in the folder, so that a second build finds the first. The name that was asked for is then put
on it. Nothing of isorun may get into the image: our code is sent when a container starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from isorun.cli.parsing import JSON, option

if TYPE_CHECKING:
    from sandbox_runner.spec import SandboxSpec

_WORDS = {"image_repo": "the image's name", "base_image": "--base-image", "build_network": "--network"}
_IN_A_LOG = "; its output is in docker_build.log, the end of it is:\n"  # how sandbox_runner says it; we keep no log
_HINT = "another base image is --base-image, the host's own way to the package index is --network host"

OPTIONS = {
    "build": (
        option("--tag NAME", "The image's name (default: ISORUN_IMAGE)."),
        option(
            "--base-image NAME",
            "What it is made of, with Python 3.11 or newer and pip (default: SANDBOX_RUNNER_BASE_IMAGE, else"
            " python:3.12-slim).",
        ),
        option("--network MODE", "Of the build: default, host or none (default: default)."),
        option("--rebuild", "Build again, although nothing has changed."),
        JSON,
    )
}


def build(
    tag: str | None = None,
    base_image: str | None = None,
    network: str = "default",
    rebuild: bool = False,
    json: bool = False,
) -> int:
    """Build the image that the Docker backend runs programs in."""
    import time

    from isorun.cli.show import print_json, say
    from isorun.cli.verdict import size
    from isorun.settings import Settings

    settings = Settings.load()
    name = tag or settings.image
    spec = _spec(name, base_image, network, rebuild=rebuild)
    began = time.monotonic()
    found = _build(spec, name, json=json)
    found["seconds"] = round(time.monotonic() - began, 1)
    if json:
        print_json({"ok": True, **found})
        return 0
    say(f"{name} is {found['id']}, {size(int(str(found['bytes'])))}")
    if name != settings.image:
        say(f"to use it: ISORUN_IMAGE={name}")
    return 0


def context() -> Path:
    """The folder of the image: inside the installed package, or deployment/docker/ of a checkout.

    Raises `InvalidRequest` (missing_context).
    """
    from isorun.core.errors import InvalidRequest

    package = Path(__file__).parents[1]
    for folder in (package / "images" / "py-code-exec", package.parents[1] / "deployment" / "docker" / "py-code-exec"):
        if (folder / "Dockerfile").is_file():
            return folder
    raise InvalidRequest("the folder of the image is missing: install isorun anew", code="missing_context")


def _spec(name: str, base_image: str | None, network: str, *, rebuild: bool) -> SandboxSpec:
    """What sandbox_runner is to build, checked; nothing is started. Raises `InvalidRequest`."""
    import re

    from isorun.core.errors import InvalidRequest
    from sandbox_runner.errors import InvalidSpec
    from sandbox_runner.spec import SandboxSpec, check

    folder, _, last = name.rpartition("/")
    base, colon, version = last.partition(":")
    if "@" in name or (colon and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", version)):
        raise InvalidRequest(f"{name!r} is not an image name; use NAME:TAG, such as py-code-exec:latest")
    spec = SandboxSpec(
        image_context_path=context(),
        image_repo=f"{folder}/{base}" if folder else base,
        base_image=base_image,
        build_network=network,  # type: ignore[arg-type]  # checked below
        rebuild_image=rebuild,
    )
    try:
        check(spec)
    except InvalidSpec as error:
        option = _WORDS.get(error.field, error.field)
        raise InvalidRequest(f"{option}{str(error).removeprefix(error.field)}") from None
    return spec


def _build(spec: SandboxSpec, name: str, *, json: bool) -> dict[str, object]:
    """Build, then name the result *name*; what there is then. Raises `Unavailable`, `SetupFailed`, `InvalidRequest`."""
    from isorun.core.errors import SetupFailed
    from sandbox_runner.docker.command import DockerCli
    from sandbox_runner.docker.image import resolve_image

    with _our_errors(with_end=json):
        cli = DockerCli()
        shown = _Lines(_show)
        # All that is wanted of a log is to write to it.
        image = resolve_image(spec, cli, cast("BinaryIO", shown), _show)
        answer = cli.run("tag", image.tag, name)
        if answer.code:
            raise SetupFailed("image tag", answer.said)
        found = cli.inspect("image", name)
    return {
        "image": name,
        "id": image.id,
        "hash": image.hash,
        "bytes": found["Size"] if found else 0,
        "built": shown.lines > 0,
    }


@contextmanager
def _our_errors(*, with_end: bool) -> Iterator[None]:
    """What sandbox_runner raises, as the errors that the exit codes are made of; *with_end* of a build's output."""
    from isorun.core.errors import InvalidRequest, SetupFailed, Unavailable
    from sandbox_runner.errors import DockerUnavailable, ImageBuildFailed, InvalidSpec, SandboxError

    try:
        yield
    except InvalidSpec as error:
        raise InvalidRequest(str(error)) from None
    except DockerUnavailable as error:
        raise Unavailable(str(error), backend="docker") from None
    except ImageBuildFailed as error:
        said, _, end = str(error).partition(_IN_A_LOG)
        failed = said.partition(";")[0]  # what follows are the names of sandbox_runner's own options
        told = f"the end of its output:\n{end}" if with_end else "its output is above"
        raise SetupFailed("image build", f"{failed}; {_HINT}; {told}") from None
    except SandboxError as error:
        raise SetupFailed("image build", str(error)) from None


class _Lines:
    """Takes bytes as they come and shows them line by line; `lines` is how many there were."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self.lines = 0
        self._show, self._rest = show, b""

    def write(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self.lines += 1
            self._show(line.decode("utf-8", "replace").rstrip("\r"))


def _show(line: str) -> None:
    """A line of progress, which may be anything a package's installer prints: it must not steer the terminal."""
    import sys

    from isorun.core.text import printable

    print(printable(line), file=sys.stderr, flush=True)  # noqa: T201 - for the user
