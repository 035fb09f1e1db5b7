"""The image of a sandbox: an image with a name, or an image built from a folder and named by its content's hash.

The hash is of the recipe and not of the result: every entry of the context that is sent,
which of them is the Dockerfile, the build arguments, target, platform and network. It is
the same on every machine and needs no engine, so it knows a base image by its name
only. Which image that name meant is a label: when `BASE_IMAGE` has come to mean
another one that is here, we build again. Any other name in a FROM is as with `docker build`:
`rebuild_image`, or a name by digest.

A build argument is on the builder's command line and in the image's history, for everybody to
read: no place for a secret. What a build prints goes to the log; an error's text has its last lines.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

from sandbox_runner.docker.build_lock import build_lock
from sandbox_runner.docker.command import DockerCli
from sandbox_runner.docker.context import Context, Framed
from sandbox_runner.errors import ImageBuildFailed, InvalidSpec, SandboxTimeout
from sandbox_runner.spec import SandboxSpec
from sandbox_runner.text import plain_end

BASE_IMAGE_VARIABLE = "SANDBOX_RUNNER_BASE_IMAGE"
IMAGE_LABEL = "sandbox_runner.image"  # of an image we built: its whole hash
BASE_LABEL = "sandbox_runner.base"  # the id of its BASE_IMAGE, if that was here before the build
MAX_LOG = 16 << 20  # bytes of one build's or pull's output: a build may print without end
_FORMAT = b"sandbox_runner image 1"  # another one if the hash comes to be of something else
_TAG_DIGITS = 24
_LAST_LINES = 20
_LAST_CHARS = 2000
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Image:
    """An image the engine has. `hash` is None for an image that we did not build."""

    tag: str
    hash: str | None
    id: str


def resolve_image(spec: SandboxSpec, cli: DockerCli, log: BinaryIO, progress: Progress) -> Image:
    """The image of *spec*, fetched or built if need be. *log* gets what the engine prints, *progress* a line a step.

    A pull or a build, and the wait for somebody else's build of the same hash, may take
    `build_timeout_seconds` each. Raises `InvalidSpec`, `ImageBuildFailed`, `SandboxTimeout`, `DockerUnavailable`.
    """
    if spec.image_ref is not None:
        return _named(spec, spec.image_ref, cli, log, progress)
    return _built(spec, cli, log, progress)


def image_hash(spec: SandboxSpec) -> str:
    """The hash of the image that *spec* would be built into; 64 hex digits. Starts nothing. Raises `InvalidSpec`."""
    return _digest(spec, Context.of(spec))


def image_tag(spec: SandboxSpec, digest: str) -> str:
    """Its name: `image_repo` and the first 24 digits (96 bits)."""
    return f"{spec.image_repo}:{digest[:_TAG_DIGITS]}"


def _named(spec: SandboxSpec, name: str, cli: DockerCli, log: BinaryIO, progress: Progress) -> Image:
    found = cli.inspect("image", name)
    if spec.image_pull_policy == "always" or found is None or not _is_for(found, spec.platform):
        if spec.image_pull_policy == "never":
            wanted = f"{name} for {spec.platform}" if found and spec.platform else name
            raise ImageBuildFailed(
                f'the engine has no image {wanted}, and image_pull_policy="never" forbids fetching it:'
                " run docker pull yourself, or set another image_pull_policy"
            )
        progress(f"image {name}: pulling")
        output = _Output(log)
        platform = [f"--platform={spec.platform}"] if spec.platform else []
        code = cli.run_logged("pull", *platform, name, on_output=output.take, timeout_s=spec.build_timeout_seconds)
        if code:
            raise ImageBuildFailed(
                f"{name} could not be pulled (exit code {code}): check its name, `docker login`, and the engine's"
                f" way to the registry; {output.told()}"
            )
        found = cli.inspect("image", name)
    if found is None:
        raise ImageBuildFailed(f"{name} was pulled, but the engine does not have it")
    progress(f"image {name}: {found['Id']}")
    return Image(name, None, found["Id"])


def _built(spec: SandboxSpec, cli: DockerCli, log: BinaryIO, progress: Progress) -> Image:
    context = Context.of(spec)
    digest = _digest(spec, context)
    tag, base = image_tag(spec, digest), _base_id(spec, cli)
    image = None if spec.rebuild_image else _existing(cli, tag, digest, base)
    if image is None:
        limit = spec.build_timeout_seconds
        with build_lock(digest, limit, lambda: progress(f"image {tag}: waiting for another build of it")):
            # Whoever had the lock before us may have built it.
            image = None if spec.rebuild_image else _existing(cli, tag, digest, base)
            if image is None:
                image = _build(spec, context, digest, base, cli, _Output(log), progress)
    progress(f"image {tag}: {image.id}")
    return image


def _build(
    spec: SandboxSpec, context: Context, digest: str, base: str, cli: DockerCli, output: _Output, progress: Progress
) -> Image:
    tag, limit = image_tag(spec, digest), spec.build_timeout_seconds
    with tempfile.TemporaryFile() as archive:
        if _digest(spec, context, archive) != digest:
            raise ImageBuildFailed(f"{context.root} changed while it was read: build again when nothing changes it")
        archive.seek(0)
        # By its exit code: which CLIs have it, and since when, differs with how Docker was installed.
        buildx = cli.run("buildx", "version").code == 0
        progress(f"image {tag}: building with {'buildx' if buildx else 'the classic builder'}")
        try:
            code = cli.run_logged(
                *build_arguments(spec, context.dockerfile, digest, base, buildx=buildx),
                stdin=archive,
                on_output=output.take,
                env={} if buildx else {"DOCKER_BUILDKIT": "0"},
                timeout_s=limit,
            )
        except SandboxTimeout:
            raise SandboxTimeout(
                f"the build of {tag} took longer than build_timeout_seconds={limit:g} and was ended; {output.told()}"
            ) from None
    if code:
        own = "" if base else f"; to use another base, give base_image or set {BASE_IMAGE_VARIABLE}"
        raise ImageBuildFailed(f"the build of {tag} failed (exit code {code}){own}; {output.told()}")
    image = _existing(cli, tag, digest, "")
    if image is None:
        raise ImageBuildFailed(f"{tag} was built, but the engine does not have it: is its builder on another machine?")
    return image


def build_arguments(spec: SandboxSpec, dockerfile: str, digest: str, base: str, *, buildx: bool) -> list[str]:
    """The arguments of `docker` for a build from an archive on standard input."""
    # The classic builder knows no --progress; BuildKit knows no intermediate containers.
    argv = ["buildx", "build", "--load", "--progress=plain"] if buildx else ["build", "--rm", "--force-rm"]
    argv += [f"--file={dockerfile}", f"--tag={image_tag(spec, digest)}"]
    argv += [f"--label={IMAGE_LABEL}={digest}", f"--label={BASE_LABEL}={base}"]
    argv += [f"--build-arg={name}={value}" for name, value in sorted(_build_args(spec).items())]
    for option, wanted in (("--target", spec.build_target), ("--platform", spec.platform)):
        if wanted is not None:
            argv.append(f"{option}={wanted}")
    if spec.build_network != "default":
        argv.append(f"--network={spec.build_network}")
    if spec.rebuild_image:
        argv.append("--no-cache")
    return [*argv, "-"]


def _digest(spec: SandboxSpec, context: Context, archive: IO[bytes] | None = None) -> str:
    """The hash of the recipe; the context's part of it is written to *archive* as it is read."""
    digest = Framed()
    digest.add(_FORMAT)
    for name, value in sorted(_build_args(spec).items()):
        digest.add(b"build_arg", name.encode(), value.encode("utf-8", "surrogateescape"))
    options = {"target": spec.build_target, "platform": spec.platform, "network": spec.build_network}
    for name, option in options.items():
        if option is not None:
            digest.add(b"option", name.encode(), option.encode())
    digest.add(b"dockerfile", os.fsencode(context.dockerfile))
    context.read(digest, archive)
    return digest.hexdigest()


def _build_args(spec: SandboxSpec) -> Mapping[str, str]:
    base = spec.base_image if spec.base_image is not None else os.environ.get(BASE_IMAGE_VARIABLE) or None
    for name, value in spec.build_args.items():
        if "\0" in value:
            raise InvalidSpec("build_args", f"the value of {name} holds a NUL")
    if spec.base_image is not None and "BASE_IMAGE" in spec.build_args:
        raise InvalidSpec("build_args", "BASE_IMAGE is given as base_image too")
    if "BASE_IMAGE" in spec.build_args:
        # The engine is asked for it by its name, and a dash would make that an option.
        if spec.build_args["BASE_IMAGE"].startswith("-"):
            raise InvalidSpec("build_args", "BASE_IMAGE begins with a dash, so it is not an image")
        return spec.build_args
    if base is None:
        return spec.build_args
    if not base or "\0" in base or base.startswith("-"):
        raise InvalidSpec("base_image", f"{base!r} is not an image")
    return {**spec.build_args, "BASE_IMAGE": base}


def _base_id(spec: SandboxSpec, cli: DockerCli) -> str:
    """What BASE_IMAGE means here; empty if it is not given, or not here."""
    base = _build_args(spec).get("BASE_IMAGE")
    found = None if base is None else cli.inspect("image", base)
    return "" if found is None else str(found["Id"])


def _existing(cli: DockerCli, tag: str, digest: str, base: str) -> Image | None:
    """The image of that hash, unless it was built on another base than *base* (empty: any)."""
    found = cli.inspect("image", tag)
    labels = {} if found is None else found["Config"].get("Labels") or {}
    # The label has the whole hash: a tag can be put on anything.
    if found is None or labels.get(IMAGE_LABEL) != digest or base not in ("", labels.get(BASE_LABEL)):
        return None
    return Image(tag, digest, found["Id"])


def _is_for(found: Mapping[str, Any], platform: str | None) -> bool:
    if platform is None:
        return True
    system, _, rest = platform.partition("/")
    machine, _, variant = rest.partition("/")
    return (
        found["Os"] == system
        and found["Architecture"] == _MACHINES.get(machine, machine)
        and found.get("Variant", "") in ("", variant or found.get("Variant", ""))
    )


class _Output:
    """What one command of the CLI printed: into the log up to `MAX_LOG`, and the end of it for an error's text."""

    def __init__(self, log: BinaryIO) -> None:
        self._log = log
        self._left = MAX_LOG
        self._last = b""

    def take(self, data: bytes) -> None:
        if self._left:
            self._log.write(data[: self._left])
            self._left = max(0, self._left - len(data))
            if not self._left:
                self._log.write(b"\n[what follows is not kept]\n")
        self._last = (self._last + data)[-4 * _LAST_CHARS :]

    def told(self) -> str:
        """Where all of it is, and its last lines as plain text: they must not steer a terminal that an error is on."""
        last = plain_end(self._last.decode("utf-8", "replace"), _LAST_LINES, _LAST_CHARS)
        return f"its output is in docker_build.log, the end of it is:\n{last}"
