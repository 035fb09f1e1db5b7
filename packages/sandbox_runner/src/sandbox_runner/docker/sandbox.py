"""Starts a Docker sandbox: everything checked first, everything proved at the end, nothing left if a step fails."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sandbox_runner.docker.command import DockerCli, own_environment
from sandbox_runner.docker.container import (
    ABOUT,
    ENVIRONMENT,
    About,
    DockerInstance,
    Probed,
    env_file,
    has_subreapers,
    identities,
    keep_logs,
    probe,
)
from sandbox_runner.docker.container import remove as remove_container
from sandbox_runner.docker.context import Context
from sandbox_runner.docker.host_paths import HostPaths, prove
from sandbox_runner.docker.image import Image, resolve_image
from sandbox_runner.docker.line import (
    EXPIRES,
    IMAGE,
    KEPT,
    LABEL,
    NAME,
    NONCE,
    OWNER,
    ROOT,
    Bind,
    Plan,
    missing_walls,
    run_arguments,
)
from sandbox_runner.errors import InvalidSpec, SandboxError, SandboxGone, SandboxStartFailed
from sandbox_runner.instance import SandboxInstance
from sandbox_runner.linux.seccomp import profile_path
from sandbox_runner.records import BUILD_LOG, PROGRESS, SANDBOX, Records
from sandbox_runner.spec import (
    ARTIFACTS,
    CACHE,
    WALLS,
    WORKSPACE,
    MountSpec,
    SandboxSpec,
    check,
    check_context,
    check_folder,
    check_positive,
)
from sandbox_runner.starting import described, make_folder, nested, new_name, open_records, owner_of, record_failure
from sandbox_runner.state import Owner, StateFolder, state_root


class DockerSandbox:
    """A sandbox in a container of its own.

    *workspace_dir* and *artifacts_dir* are made if they are not there, and mounted at /workspace and /artifacts.
    *container_name*: None for a new name. *progress* gets a line for each long step. If it raises, it is not called
    again, and the start goes on. *life_seconds*: how long commands take at the most, if that is known: the container
    ends by itself some minutes after that, also if this process was killed. Nothing is started, and nothing written,
    before `start`.
    """

    def __init__(
        self,
        workspace_dir: str | os.PathLike[str],
        artifacts_dir: str | os.PathLike[str],
        spec: SandboxSpec,
        container_name: str | None = None,
        *,
        progress: Callable[[str], None] | None = None,
        life_seconds: float | None = None,
    ) -> None:
        self._life_s = life_seconds
        self._given = (Path(workspace_dir), Path(artifacts_dir))
        self._workspace, self._artifacts = Path(workspace_dir).resolve(), Path(artifacts_dir).resolve()
        self._spec = spec
        self._name = container_name
        self._progress = progress

    def start(self) -> SandboxInstance:
        """Build or find the image, start the container, prove that it is what the spec says.

        Raises `InvalidSpec` before anything is made, and before the engine is asked, unless it is the image's context
        that cannot be used. That, `DockerUnavailable`, `ImageBuildFailed`, `SandboxStartFailed` and `SandboxTimeout`
        leave nothing but the folders and the records.
        """
        check(self._spec, self._name, with_context=False)
        if self._life_s is not None:
            check_positive("life_seconds", self._life_s)
        check_folder("workspace_dir", self._workspace)
        check_folder("artifacts_dir", self._artifacts)
        self._check_nesting()
        self._check_not_led_away()
        cli = DockerCli(self._spec.docker_timeout_seconds)
        version = cli.run("version", "--format", "{{.Server.Version}}")
        if version.code:
            raise SandboxStartFailed(f"the engine does not answer: {version.said}")
        check_context(self._spec)
        make_folder(self._workspace)
        make_folder(self._artifacts, owner_of(self._workspace))
        name = self._name or new_name()
        state, records = open_records(name, self._spec.ttl_seconds, self._artifacts)
        starting = _Starting(
            self._spec, name, self._workspace, self._artifacts, cli, state, records, self._progress, self._life_s
        )
        try:
            return starting.start(version.stdout.decode().strip())
        except BaseException as error:
            starting.abandon(error)
            raise

    def _check_nesting(self) -> None:
        cache = () if self._spec.cache_dir is None else (self._spec.cache_dir,)
        folders = [(folder, False) for folder in (self._workspace, self._artifacts, *cache)]
        folders += [(mount.host_path, mount.read_only) for mount in self._spec.extra_mounts]
        mounts = [MountSpec(os.path.realpath(folder), WORKSPACE, read_only) for folder, read_only in folders]
        own = [mount.host_path for mount in mounts[:2]]  # proved by what is open, and never mounted a second time
        if inner := [source for source in nested(mounts) if source not in own]:
            raise InvalidSpec(
                "mounts",
                f"{inner[0]} lies in a folder that the sandbox can write and could replace with a link: move it out",
            )

    def _check_not_led_away(self) -> None:
        """Below a folder that a sandbox can write, an earlier one may have put a link in the place of ours."""
        writable = [self._given[0], *(mount.host_path for mount in self._spec.extra_mounts if not mount.read_only)]
        writable += [self._spec.cache_dir] if self._spec.cache_dir is not None else []
        tops = {path for folder in writable for path in (_named(folder), Path(os.path.realpath(folder)))}
        for given, real in zip(self._given, (self._workspace, self._artifacts), strict=True):
            named = _named(given)
            for top in tops:
                if named != top and named.is_relative_to(top):
                    expected = Path(os.path.realpath(top)) / named.relative_to(top)
                    if real != expected:
                        raise InvalidSpec(
                            "mounts", f"{given}: a link in a folder that a sandbox can write leads it to {real}"
                        )


def _named(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` would follow the link that is looked for


class _Starting:
    """The steps of one start."""

    def __init__(
        self,
        spec: SandboxSpec,
        name: str,
        workspace: Path,
        artifacts: Path,
        cli: DockerCli,
        state: StateFolder,
        records: Records,
        progress: Callable[[str], None] | None,
        life_s: float | None,
    ) -> None:
        self._spec, self._name, self._cli = spec, name, cli
        # The start and the end take some steps of the engine's, too.
        self._life_s = None if life_s is None else life_s + 2 * spec.docker_timeout_seconds
        self._progress = progress
        self._workspace, self._artifacts = workspace, artifacts
        self._state, self._records = state, records
        self._nonce = secrets.token_hex(16)
        self._is_asked_for = self._is_answered = False  # the container, by `docker run`

    def start(self, engine: str) -> DockerInstance:
        spec, cli, name = self._spec, self._cli, self._name
        # With a prefix as its environment a caller may never call us again, so the file is written first.
        self._state.write(ENVIRONMENT, env_file(spec.env_overrides))
        self._state.write(NONCE, self._nonce.encode())
        paths = HostPaths.discover(spec.host_paths, cli, own_environment())
        mounts = self._mounts()
        image = self._image()
        sources = identities(os.fspath(mount.host_path) for mount in mounts)
        if sources is None or not self._records.are_in(sources[1]):
            raise SandboxStartFailed("a folder that is to be mounted was replaced while the image was made")
        plan = self._plan(image, [Bind(paths.translate(Path(m.host_path)), m.inside, m.read_only) for m in mounts])
        # Where nothing is translated, our own two folders are proof enough: others' are not written to for that.
        to_prove = mounts if paths.folders or paths.strict else mounts[:2]
        self._records.will_write_in(Path(mount.host_path) for mount in to_prove)
        self._run(plan)
        probed, inspected = self._probe(plan)
        known = {path: (device, inode) for path, device, inode in sources}
        unproved = prove(to_prove, paths, self._read_inside, self._records.token, known=known)
        about = About(
            name=name,
            nonce=self._nonce,
            image_tag=image.tag,
            image_hash=image.hash,
            keeper=probed.keeper,
            own_init="init" not in spec.loosen and has_subreapers(cli, name),
            env_allowlist=tuple(spec.env_allowlist),
            overridden=tuple(spec.env_overrides),
            kept=spec.keep_container,
            timeout_s=spec.docker_timeout_seconds,
            sources=sources,
            is_nested=bool(nested(mounts)),
            artifacts=str(self._artifacts),
        )
        about.write(self._state, ABOUT)
        self._records.write_json(SANDBOX, self._described(plan, image, engine, inspected["Id"], unproved))
        return DockerInstance(about, cli, self._state, self._records)

    def abandon(self, error: BaseException) -> None:
        """Remove what was begun; what cannot be removed is found by `cleanup`, because the state folder stays."""
        record_failure(self._records, "docker", self._name, error)
        try:
            if self._is_asked_for:
                with suppress(OSError, SandboxError):
                    keep_logs(self._cli, self._name, self._records)
                remove_container(self._cli, self._name, self._nonce, may_come=not self._is_answered)
        except SandboxError as left:
            self._state.abandon()
            error.add_note(str(left))
        else:
            with suppress(OSError):
                self._state.remove()
        finally:
            self._records.close()

    def _mounts(self) -> list[MountSpec]:
        spec = self._spec
        mounts = [MountSpec(self._workspace, WORKSPACE), MountSpec(self._artifacts, ARTIFACTS)]
        if spec.cache_dir is not None:
            make_folder(Path(spec.cache_dir), owner_of(self._workspace))
            mounts.append(MountSpec(Path(spec.cache_dir).resolve(), CACHE))
        # By its real path: the engine must not follow a link that somebody puts there later.
        more = [MountSpec(os.path.realpath(m.host_path), m.container_path, m.read_only) for m in spec.extra_mounts]
        return [*mounts, *more]

    def _image(self) -> Image:
        """The image; what its building printed is in the artifacts directory from its first line on."""
        with self._records.growing(BUILD_LOG) as log, self._records.growing(PROGRESS) as progress:
            return resolve_image(self._spec, self._cli, log, _teller(progress.write, self._progress))

    def _plan(self, image: Image, binds: list[Bind]) -> Plan:
        spec, owner = self._spec, Owner.of_this_process()
        labels = {
            LABEL: "1",
            IMAGE: image.tag,
            NAME: self._name,
            ROOT: str(state_root()),
            NONCE: self._nonce,
            OWNER: f"{owner.pid} {owner.started} {owner.host}",
            EXPIRES: f"{time.time() + spec.ttl_seconds:.0f}",
            KEPT: "yes" if spec.keep_container else "no",
        }
        return Plan(
            name=self._name,
            image=image.id,
            user=owner_of(self._workspace),
            binds=binds,
            labels=labels,
            seccomp=str(profile_path()),
            life_s=self._life_s,
        )

    def _run(self, plan: Plan) -> None:
        if self._cli.inspect("container", self._name) is not None:
            raise SandboxStartFailed(f"a container named {self._name} is there already, and stays as it is")
        # Known by its label from here on: also `docker run` that fails can leave a container.
        self._is_asked_for = True
        answer = self._cli.run(*run_arguments(self._spec, plan))
        self._is_answered = True
        if answer.code:
            raise SandboxStartFailed(f"the engine did not start {self._name}: {answer.said}")

    def _probe(self, plan: Plan) -> tuple[Probed, dict[str, Any]]:
        """Wait until commands can run; what they see, and the engine's word, once every wall stands by both."""
        spec, cli, name = self._spec, self._cli, self._name
        try:
            probed = probe(cli, name, has_init="init" not in spec.loosen)
        except SandboxGone as error:
            raise SandboxStartFailed(str(error)) from None
        inspected = cli.inspect("container", name)
        if inspected is None:
            raise SandboxStartFailed(f"{name} was removed while it started")
        if missing := missing_walls(spec, plan, inspected, probed.shown):
            raise SandboxStartFailed(
                f"these walls do not stand: {', '.join(missing)}; the engine cannot make them, or ignored them. "
                "To go on without one, name it in SandboxSpec.loosen"
            )
        return probed, inspected

    def _read_inside(self, path: str) -> bytes | None:
        # Printed by the shell itself, so that an image needs no other program.
        script = 'IFS= read -r line < "$1" && printf %s "$line"'
        answer = self._cli.run("exec", self._name, "/bin/sh", "-c", script, "sandbox", path)
        return None if answer.code else answer.stdout

    def _described(
        self, plan: Plan, image: Image, engine: str, container_id: str, unproved: list[str]
    ) -> dict[str, object]:
        spec = self._spec
        return {
            **described(spec, "docker", self._name),
            **_built_from(spec),
            "container_id": container_id,
            "engine": engine,
            "image": {"tag": image.tag, "hash": image.hash, "id": image.id},
            "walls": {wall: wall not in spec.loosen for wall in WALLS},
            "user": list(plan.user),
            "mounts": [asdict(bind) for bind in plan.binds],
            "mounts_not_proved": unproved,
            "build_args": sorted(spec.build_args),
            "limits": {"memory_bytes": spec.memory_bytes, "pids": spec.pids, "cpus": spec.resources.cpus},
        }


def _built_from(spec: SandboxSpec) -> dict[str, object]:
    """Where the image is from: `image_ref`, or the folder that was built and its Dockerfile."""
    if spec.image_ref is not None:
        return {"image_ref": spec.image_ref, "context_dir": None, "dockerfile": None}
    context = Context.of(spec)
    return {
        "image_ref": None,
        "context_dir": str(context.root),
        "dockerfile": str(context.root / context.dockerfile),
    }


def _teller(write: Callable[[bytes], object], progress: Callable[[str], None] | None) -> Callable[[str], None]:
    told = progress

    def record(line: str) -> None:
        write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n".encode())

    def tell(line: str) -> None:
        nonlocal told
        record(line)
        if told is None:
            return
        try:
            told(line)
        except Exception as error:  # noqa: BLE001 - a console that was closed, say: the caller's code ends no build
            told = None
            record(f"progress raised {type(error).__name__} and is not called again")

    return tell
