"""What a sandbox should be, as frozen data, and the check that it can be one. Nothing here touches an engine."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sandbox_runner.errors import InvalidSpec
from sandbox_runner.fields import Ours, PathText, as_text, fill, ours
from sandbox_runner.linux.sources import check_source
from sandbox_runner.quantity import bytes_of

WORKSPACE = "/workspace"
ARTIFACTS = "/artifacts"
CACHE = "/cache"
#: The walls that stand unless `SandboxSpec.loosen` names them.
WALLS = (
    "capabilities",  # all dropped
    "no_new_privileges",  # setuid files give nothing
    "init",  # reaps orphans, so that what a command left behind is found and ended
    "memory_limit",  # of all processes together; no swap beyond it
    "nofile_limit",
    "pids_limit",
    "read_only_root",  # writable: /tmp, /run, /var/tmp (in memory) and the mounts
    "seccomp",  # our own profile
    "user",  # the workspace owner's uid, not the image's
)
DEFAULT_MEMORY = "2g"
DEFAULT_PIDS = 512
DEFAULT_NOFILE = 4096
_CHOICES = {
    "backend": ("docker", "namespace"),
    "image_pull_policy": ("missing", "always", "never"),
    "build_network": ("default", "host", "none"),
    "network_mode": ("open", "none"),
    "cache_mode": ("cold", "warm"),
}
_LEAST_MEMORY = 6 << 20  # Docker refuses less
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:[._/-][a-z0-9]+)*(?::[0-9]+)?(?:/[a-z0-9]+(?:[._-][a-z0-9]+)*)*")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:-]*")
_OURS = (WORKSPACE, ARTIFACTS, CACHE)
_KERNELS = ("/proc", "/sys", "/dev")
_IN_MEMORY = ("/tmp", "/run", "/var/tmp")  # each sandbox has its own; what is below them can be mounted
_ENV_BYTES = 65_000  # of one variable: the CLI reads lines of 64 KiB
_NOT_IN_MOUNTS = ',"\n\r\0'  # --mount takes comma-separated values: such a path could add options of its own


@dataclass(frozen=True, slots=True)
class MountSpec:
    """A folder or file of the host, by its absolute path, at an absolute path of the sandbox."""

    host_path: str | os.PathLike[str]
    container_path: str | os.PathLike[str]
    read_only: Ours[bool] = ours(False)

    def __post_init__(self) -> None:
        fill(self)
        as_text(self, "container_path")

    @property
    def inside(self) -> str:
        """`container_path`, as text."""
        return os.fspath(self.container_path)


@dataclass(frozen=True, slots=True)
class ResourceSpec:
    """Ceilings of the whole sandbox. None: ours (`DEFAULT_MEMORY`, `DEFAULT_PIDS`; no ceiling on CPUs).

    `cpus` may be a fraction; `memory` is bytes, or a number with k, m or g: `512m`, `512mb`, `1.5g` (powers of 1024).
    """

    cpus: float | None = None
    memory: int | str | None = None
    pids_limit: int | None = None


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """One sandbox. With nothing but `backend`, the strictest one there is. None: our default, in every field."""

    backend: Ours[Literal["docker", "namespace"]] = ours("docker")
    # The image: `image_ref` as it is, else built from a context folder (None: the built-in `sandbox_cli`).
    image_ref: str | None = None
    image_context_path: str | os.PathLike[str] | None = None
    dockerfile: PathText = ours(None)  # in the context, and relative to it if not absolute; None: Dockerfile
    image_repo: Ours[str] = ours("sandbox_runner")  # a built image's name; its tag is the hash of its content
    rebuild_image: Ours[bool] = ours(False)  # build again, although the hash is there
    image_pull_policy: Ours[Literal["missing", "always", "never"]] = ours("missing")  # of image_ref
    base_image: str | None = None  # build argument BASE_IMAGE; None: SANDBOX_RUNNER_BASE_IMAGE, else the Dockerfile's
    # Not for secrets: an image's history shows them.
    build_args: Ours[Mapping[str, str]] = ours({}, is_shown=False)
    build_target: str | None = None
    build_network: Ours[Literal["default", "host", "none"]] = ours("default")
    build_timeout_seconds: Ours[float] = ours(1800.0)
    platform: str | None = None
    # The sandbox
    network_mode: Ours[Literal["open", "none"]] = ours("none")
    # Warm: cache_dir is mounted at /cache. Cold: an empty folder is.
    cache_mode: Ours[Literal["cold", "warm"]] = ours("cold")
    cache_dir: str | os.PathLike[str] | None = None
    # Names of the caller's environment that go in; one that is unset is left out.
    env_allowlist: Ours[Collection[str]] = ours(())
    env_overrides: Ours[Mapping[str, str]] = ours({}, is_shown=False)
    extra_mounts: Ours[Collection[MountSpec]] = ours(())
    resources: Ours[ResourceSpec] = ours(ResourceSpec())
    loosen: Ours[Collection[str]] = ours(())  # which of `WALLS` do not stand
    runtime: str | None = None  # the engine's OCI runtime, for example runsc (gVisor)
    tmp_bytes: Ours[int] = ours(1 << 30)  # of /tmp, counted as memory
    host_paths: Mapping[str, str] | None = None  # if we are in a container: our paths and the engine's host's
    # Its life
    keep_container: Ours[bool] = ours(False)  # `close` leaves it running, to be reattached
    # `cleanup` ends it after that, whoever's it is; a container ends itself a minute later.
    ttl_seconds: Ours[float] = ours(86_400.0)
    # Of one command to the engine, other than a build or a command of yours.
    docker_timeout_seconds: Ours[float] = ours(120.0)

    def __post_init__(self) -> None:
        fill(self)
        as_text(self, "dockerfile")

    @property
    def memory_bytes(self) -> int | None:
        """The ceiling of memory; None where it is loosened."""
        return None if "memory_limit" in self.loosen else bytes_of(self.resources.memory or DEFAULT_MEMORY)

    @property
    def pids(self) -> int | None:
        """The ceiling of processes; None where it is loosened."""
        return None if "pids_limit" in self.loosen else self.resources.pids_limit or DEFAULT_PIDS


def check(spec: SandboxSpec, container_name: str | None = None, *, with_context: bool = True) -> None:
    """Raise `InvalidSpec` for the first field that cannot be used. Looks at the disk, changes nothing.

    Not *with_context*: whether the image's context is there is left to `check_context`.
    """
    _check_types(spec)
    _check_words(spec)
    _check_choices(spec)
    _check_numbers(spec)
    _check_places(spec)
    _check_backend(spec)
    _check_image(spec)
    if with_context:
        check_context(spec)
    _check_environment(spec)
    _check_mounts(spec)
    _check_ceilings(spec)
    for name in spec.loosen:
        if name not in WALLS:
            raise InvalidSpec("loosen", f"{name!r} is not a wall; use one of {', '.join(WALLS)}")
    if container_name is not None and not _CONTAINER.fullmatch(container_name):
        raise InvalidSpec("container_name", f"{container_name!r} must be letters, digits, dot, dash and underscore")


def check_folder(where: str, folder: Path) -> None:
    """Raise `InvalidSpec` if *folder* is something else, or the engine cannot mount a folder of that name."""
    if folder.exists() and not folder.is_dir():
        raise InvalidSpec(where, f"{folder} is not a folder")
    if any(character in str(folder) for character in _NOT_IN_MOUNTS):
        raise InvalidSpec(where, f"{str(folder)!r} has a comma, a quote or a line break")
    check_source(where, folder)


def has_break(value: str) -> bool:
    """Whether a file of lines NAME=VALUE cannot hold *value*."""
    return "\n" in value or "\r" in value


def check_env(where: str, env: Mapping[str, str], *, with_breaks: bool = True) -> None:
    """Raise `InvalidSpec` unless every name and value of *env* can be an environment variable. Shows no value.

    Not *with_breaks*: the values go into a file of lines.
    """
    for name, value in env.items():
        _check_name(where, name)
        if not isinstance(value, str) or "\0" in value:
            raise InvalidSpec(where, f"the value of {name} must be text without a NUL")
        if has_break(value) and not with_breaks:
            raise InvalidSpec(
                where,
                f"the value of {name} has a line break, which the engine cannot take from a file: set {name} in your "
                "own environment and name it in env_allowlist, or give it to one command, exec(env=...)",
            )
        try:
            size = len(f"{name}={value}".encode())
        except UnicodeEncodeError:
            raise InvalidSpec(where, f"the value of {name} is not UTF-8 text") from None
        if size > _ENV_BYTES:
            raise InvalidSpec(where, f"the value of {name} is longer than the {_ENV_BYTES} bytes that an engine takes")


def _check_types(spec: SandboxSpec) -> None:
    """No value is shown: a secret may be where it does not belong."""
    text, path, group = (str, type(None)), (str, os.PathLike, type(None)), (tuple, list, set, frozenset)
    kinds: dict[str, tuple[tuple[type, ...], str]] = {
        **dict.fromkeys(("image_ref", "base_image", "build_target", "platform", "runtime"), (text, "text")),
        **dict.fromkeys(("image_context_path", "dockerfile", "cache_dir"), (path, "a path")),
        **dict.fromkeys(("rebuild_image", "keep_container"), ((bool,), "True or False")),
        **dict.fromkeys(("build_args", "env_overrides"), ((Mapping,), "names and values")),
        **dict.fromkeys(("env_allowlist", "loosen"), (group, "a list of names, not one text")),
        "image_repo": ((str,), "text"),
        "host_paths": ((Mapping, type(None)), "names and values"),
        "extra_mounts": (group, "a list of MountSpec"),
        "resources": ((ResourceSpec,), "a ResourceSpec"),
        "tmp_bytes": ((int,), "a whole number"),
    }
    for name, (types, what) in kinds.items():
        if not isinstance(getattr(spec, name), types):
            raise InvalidSpec(name, f"must be {what}")
    if not all(isinstance(mount, MountSpec) for mount in spec.extra_mounts):
        raise InvalidSpec("extra_mounts", "must be a list of MountSpec")


def _check_words(spec: SandboxSpec) -> None:
    for name in ("build_target", "platform", "runtime"):
        value = getattr(spec, name)
        if value is not None and not _WORD.fullmatch(value):
            raise InvalidSpec(name, f"{value!r} must be letters, digits and ./:_-")


def _check_choices(spec: SandboxSpec) -> None:
    for name, known in _CHOICES.items():
        value = getattr(spec, name)
        if value not in known:
            raise InvalidSpec(name, f"{value!r} is not one of {', '.join(known)}")


def _check_numbers(spec: SandboxSpec) -> None:
    for name in ("build_timeout_seconds", "docker_timeout_seconds", "ttl_seconds", "tmp_bytes"):
        check_positive(name, getattr(spec, name))


def _check_places(spec: SandboxSpec) -> None:
    """The cache's folder, and the pairs of `host_paths`."""
    if spec.cache_dir is not None and spec.cache_mode == "cold":
        raise InvalidSpec("cache_dir", 'is used with cache_mode="warm" only')
    if spec.cache_mode == "warm" and spec.cache_dir is None:
        raise InvalidSpec("cache_dir", 'cache_mode="warm" needs the folder to keep between sandboxes')
    for name, value in (spec.host_paths or {}).items():
        if not all(isinstance(path, str) and path.startswith("/") for path in (name, value)):
            raise InvalidSpec("host_paths", f"{name!r}: {value!r} must both be absolute paths")


def _check_backend(spec: SandboxSpec) -> None:
    if spec.backend == "namespace":
        for name in ("image_ref", "image_context_path", "dockerfile", "runtime", "platform", "build_target"):
            if getattr(spec, name) is not None:
                raise InvalidSpec(name, "the namespace backend has no image: it shows this machine's own programs")


def _check_image(spec: SandboxSpec) -> None:
    if spec.image_ref is not None:
        if not spec.image_ref or spec.image_ref.startswith("-") or re.search(r"\s", spec.image_ref):
            raise InvalidSpec("image_ref", f"{spec.image_ref!r} is not an image")
        for name in ("image_context_path", "dockerfile", "base_image", "build_target"):
            if getattr(spec, name) is not None:
                raise InvalidSpec(name, "an image_ref is used as it is, and not built")
    if spec.base_image is not None and spec.base_image.startswith("-"):
        raise InvalidSpec("base_image", f"{spec.base_image!r} is not an image")
    if not _REPOSITORY.fullmatch(spec.image_repo):
        raise InvalidSpec("image_repo", f"{spec.image_repo!r} is not the name of an image: lower case, without a tag")
    if spec.dockerfile is not None and spec.image_context_path is None:
        raise InvalidSpec("dockerfile", "needs image_context_path, the folder it is in")
    for name, value in spec.build_args.items():
        _check_name("build_args", name)
        if not isinstance(value, str) or "\0" in value:
            raise InvalidSpec("build_args", f"the value of {name} must be text without a NUL")


def check_context(spec: SandboxSpec) -> None:
    """Raise `InvalidSpec` if the folder to build from is not there, or has no such Dockerfile."""
    if spec.image_context_path is None:
        return
    context = Path(spec.image_context_path)
    if not context.is_dir():
        raise InvalidSpec("image_context_path", f"{context} is not a folder")
    named = in_context(spec)
    if named.startswith("-") or Path(named).is_absolute() or ".." in Path(named).parts:
        raise InvalidSpec("dockerfile", f"{spec.dockerfile!r} must be a path inside the context")
    if not (context / named).is_file():
        raise InvalidSpec("dockerfile", f"{context} has no file {named}")


def in_context(spec: SandboxSpec) -> str:
    """The Dockerfile as its context has it; what is absolute and lies elsewhere stays absolute."""
    named = spec.dockerfile or "Dockerfile"
    if Path(named).is_absolute() and spec.image_context_path is not None:
        context = Path(spec.image_context_path)
        for root in (context.absolute(), context.resolve()):
            if Path(named).is_relative_to(root):
                return Path(named).relative_to(root).as_posix()
    return named


def _check_environment(spec: SandboxSpec) -> None:
    for name in spec.env_allowlist:
        _check_name("env_allowlist", name)
    check_env("env_overrides", spec.env_overrides, with_breaks=spec.backend == "namespace")


def _check_name(where: str, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidSpec(where, f"{str(name)[:80]!r} is not the name of a variable")


def _check_mounts(spec: SandboxSpec) -> None:
    if spec.cache_dir is not None:
        check_folder("cache_dir", Path(spec.cache_dir).resolve())
    seen = set(_OURS)
    for mount in spec.extra_mounts:
        host, inside = os.fspath(mount.host_path), mount.inside
        if not host.startswith("/"):
            raise InvalidSpec("extra_mounts", f"{host!r} must be an absolute path of the host")
        # Two slashes at the front stay two in `normpath`, and are one to the kernel.
        if not inside.startswith("/") or inside.startswith("//") or os.path.normpath(inside) != inside or inside == "/":
            raise InvalidSpec("extra_mounts", f"{inside!r} must be an absolute path of the sandbox, without . and ..")
        if f"{inside}/".startswith(tuple(f"{own}/" for own in _KERNELS)) or inside in _IN_MEMORY:
            raise InvalidSpec("extra_mounts", f"{inside} belongs to the sandbox: use another place")
        if inside in seen:
            raise InvalidSpec("extra_mounts", f"{inside} is mounted already")
        if above := next((taken for taken in seen if inside.startswith(f"{taken}/")), None):
            # Where it is would have to be made there, and a command could put a link in the place of that.
            raise InvalidSpec("extra_mounts", f"{inside} lies in {above}, which is mounted already: use another place")
        if any(character in f"{host}{inside}" for character in _NOT_IN_MOUNTS):
            raise InvalidSpec("extra_mounts", f"{host!r} or {inside!r} has a comma, a quote or a line break")
        try:
            mode = Path(host).stat().st_mode
        except OSError as error:
            raise InvalidSpec("extra_mounts", f"{host}: {error.strerror}") from None
        if stat.S_ISSOCK(mode) and os.path.realpath(host).endswith("docker.sock"):
            raise InvalidSpec("extra_mounts", f"{host} would give the sandbox the whole host")
        check_source("extra_mounts", host)
        seen.add(inside)


def _check_ceilings(spec: SandboxSpec) -> None:
    resources = spec.resources
    if resources.cpus is not None:
        check_positive("resources.cpus", resources.cpus)
        if resources.cpus < 0.01:
            raise InvalidSpec("resources.cpus", f"{resources.cpus} is less than the 0.01 that an engine takes")
    if resources.memory is not None:
        try:
            wanted = bytes_of(resources.memory)
        except ValueError as error:
            raise InvalidSpec("resources.memory", str(error)) from None
        if wanted < _LEAST_MEMORY:
            raise InvalidSpec("resources.memory", f"{resources.memory} is less than the 6m that an engine takes")
    pids = resources.pids_limit
    if pids is not None and (isinstance(pids, bool) or not isinstance(pids, int) or pids < 1):
        raise InvalidSpec("resources.pids_limit", f"{pids!r} must be a whole number above 0")


def check_positive(name: str, value: Any) -> None:  # noqa: ANN401 - whatever the caller put there
    """Raise `InvalidSpec`, naming *name*, for a time or a size that is not a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
        raise InvalidSpec(name, f"{value!r} must be a number above 0")
