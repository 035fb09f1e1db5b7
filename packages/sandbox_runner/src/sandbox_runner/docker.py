"""Starts a Docker sandbox: everything checked first, everything proved at the end, nothing left if a step fails."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from sandbox_runner.container import (
    ABOUT,
    ENVIRONMENT,
    About,
    DockerInstance,
    env_file,
    has_subreapers,
    keep_logs,
    probe,
)
from sandbox_runner.container import remove as remove_container
from sandbox_runner.docker_cli import DockerCli
from sandbox_runner.docker_run import (
    EXPIRES,
    IMAGE,
    KEPT,
    LABEL,
    NONCE,
    OWNER,
    Bind,
    Plan,
    missing_walls,
    run_arguments,
)
from sandbox_runner.errors import SandboxError, SandboxGone, SandboxStartFailed
from sandbox_runner.host_paths import HostPaths, prove
from sandbox_runner.image import Image, resolve_image
from sandbox_runner.instance import SandboxInstance
from sandbox_runner.records import BUILD_LOG, PROGRESS, SANDBOX, Records
from sandbox_runner.seccomp import profile_path
from sandbox_runner.spec import ARTIFACTS, CACHE, WALLS, WORKSPACE, MountSpec, SandboxSpec, check, check_folder
from sandbox_runner.state import Owner, StateFolder


class DockerSandbox:
    """A sandbox in a container of its own.

    *workspace_dir* and *artifacts_dir* are made if they are not there, and mounted at /workspace and /artifacts.
    *container_name*: None for one that no other has. *progress* gets a line for each long step. Nothing is started, and
    nothing written, before `start`.
    """

    def __init__(
        self,
        workspace_dir: str | os.PathLike[str],
        artifacts_dir: str | os.PathLike[str],
        spec: SandboxSpec,
        container_name: str | None = None,
        *,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self._workspace, self._artifacts = Path(workspace_dir).resolve(), Path(artifacts_dir).resolve()
        self._spec = spec
        self._name = container_name
        self._progress = progress

    def start(self) -> SandboxInstance:
        """Build or find the image, start the container, prove that it is what the spec says.

        Raises `InvalidSpec` before anything is made; `DockerUnavailable`, `ImageBuildFailed`, `SandboxStartFailed` or
        `SandboxTimeout` with nothing left but the records.
        """
        check(self._spec, self._name)
        check_folder("workspace_dir", self._workspace)
        check_folder("artifacts_dir", self._artifacts)
        cli = DockerCli(self._spec.docker_timeout_seconds)
        version = cli.run("version", "--format", "{{.Server.Version}}")
        if version.code:
            raise SandboxStartFailed(f"the engine does not answer: {version.said}")
        make_folder(self._workspace)
        make_folder(self._artifacts, like=self._workspace)
        name = self._name or f"sandbox-{os.getpid()}-{secrets.token_hex(4)}"
        state = StateFolder.create(name, self._spec.ttl_seconds)
        try:
            records = Records(state, self._artifacts)
        except BaseException:
            state.remove()
            raise
        starting = _Starting(self._spec, name, self._workspace, self._artifacts, cli, state, records, self._progress)
        try:
            return starting.start(version.stdout.decode().strip())
        except BaseException as error:
            starting.abandon(error)
            raise


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
    ) -> None:
        self._spec, self._name, self._cli = spec, name, cli
        self._progress = progress
        self._workspace, self._artifacts = workspace, artifacts
        self._state, self._records = state, records
        self._nonce = secrets.token_hex(16)
        self._is_run = self._is_answered = False

    def start(self, engine: str) -> DockerInstance:
        spec, cli, name = self._spec, self._cli, self._name
        # With a prefix as its environment a caller may never call us again, so the file is written first.
        self._state.write(ENVIRONMENT, env_file(spec.env_overrides))
        self._state.write(NONCE, self._nonce.encode())
        paths = HostPaths.discover(spec.host_paths, cli, os.environ)
        mounts = self._mounts()
        image = self._image()
        plan = self._plan(
            image, [Bind(paths.translate(Path(m.host_path)), m.container_path, m.read_only) for m in mounts]
        )
        self._run(plan)
        try:
            probed = probe(cli, name, has_init="init" not in spec.loosen)
        except SandboxGone as error:
            raise SandboxStartFailed(str(error)) from None
        own_init = "init" not in spec.loosen and has_subreapers(cli, name)
        # Where nothing is translated, our own two folders are proof enough: others' are not written to for that.
        to_prove = mounts if paths.folders or paths.strict else mounts[:2]
        self._records.will_write_in(Path(mount.host_path) for mount in to_prove)
        unproved = prove(to_prove, paths, self._read_inside, self._records.token)
        inspected = cli.inspect("container", name)
        if inspected is None:
            raise SandboxStartFailed(f"{name} was removed while it started")
        if missing := missing_walls(spec, plan, inspected, probed.shown):
            raise SandboxStartFailed(
                f"these walls do not stand: {', '.join(missing)}; the engine cannot make them, or ignored them. "
                "To go on without one, name it in SandboxSpec.loosen"
            )
        about = About(
            name=name,
            nonce=self._nonce,
            image_tag=image.tag,
            image_hash=image.hash,
            keeper=probed.keeper,
            own_init=own_init,
            env_allowlist=tuple(spec.env_allowlist),
            overridden=tuple(spec.env_overrides),
            kept=spec.keep_container,
            timeout_s=spec.docker_timeout_seconds,
            artifacts=str(self._artifacts),
        )
        about.write(self._state, ABOUT)
        self._records.write_json(SANDBOX, self._described(plan, image, engine, inspected["Id"], unproved))
        return DockerInstance(about, cli, self._state, self._records)

    def abandon(self, error: BaseException) -> None:
        """Remove what was begun; what cannot be removed is found by `cleanup`, because the state folder stays."""
        with suppress(OSError, SandboxError):
            said = {"backend": "docker", "status": "failed", "container_name": self._name}
            self._records.write_json(SANDBOX, {**said, "error": type(error).__name__, "message": str(error)})
        try:
            if self._is_run:
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
            make_folder(Path(spec.cache_dir), like=self._workspace)
            mounts.append(MountSpec(Path(spec.cache_dir).resolve(), CACHE))
        return [*mounts, *spec.extra_mounts]

    def _image(self) -> Image:
        """The image; what its building printed is in the artifacts directory from its first line on."""
        with self._records.growing(BUILD_LOG) as log, self._records.growing(PROGRESS) as progress:
            return resolve_image(self._spec, self._cli, log, _teller(progress.write, self._progress))

    def _plan(self, image: Image, binds: list[Bind]) -> Plan:
        spec, owner = self._spec, Owner.of(os.getpid())
        if owner is None:
            raise SandboxError("/proc shows no process: it must be mounted")
        found = self._workspace.stat()
        labels = {
            LABEL: "1",
            IMAGE: image.tag,
            NONCE: self._nonce,
            OWNER: f"{owner.pid} {owner.started} {owner.host}",
            EXPIRES: f"{time.time() + spec.ttl_seconds:.0f}",
            KEPT: "yes" if spec.keep_container else "no",
        }
        return Plan(
            name=self._name,
            image=image.id,
            user=(found.st_uid, found.st_gid),
            binds=binds,
            labels=labels,
            seccomp=str(profile_path()),
        )

    def _run(self, plan: Plan) -> None:
        if self._cli.inspect("container", self._name) is not None:
            raise SandboxStartFailed(f"a container named {self._name} is there already, and stays as it is")
        # Known by its label from here on: also `docker run` that fails can leave a container.
        self._is_run = True
        answer = self._cli.run(*run_arguments(self._spec, plan))
        self._is_answered = True
        if answer.code:
            raise SandboxStartFailed(f"the engine did not start {self._name}: {answer.said}")

    def _read_inside(self, path: str) -> bytes | None:
        # Printed by the shell itself, so that an image needs no other program.
        script = 'IFS= read -r line < "$1" && printf %s "$line"'
        answer = self._cli.run("exec", self._name, "/bin/sh", "-c", script, "sandbox", path)
        return None if answer.code else answer.stdout

    def _described(self, plan: Plan, image: Image, engine: str, number: str, unproved: list[str]) -> dict[str, object]:
        spec = self._spec
        told = replace(spec, env_overrides={}, build_args={})  # names only, below
        return {
            "backend": "docker",
            "status": "running",
            "container_name": self._name,
            "container_id": number,
            "engine": engine,
            "image": {"tag": image.tag, "hash": image.hash, "id": image.id},
            "walls": {wall: wall not in spec.loosen for wall in WALLS},
            "network": spec.network_mode,
            "user": list(plan.user),
            "mounts": [asdict(bind) for bind in plan.binds],
            "mounts_not_proved": unproved,
            "environment": {"allowed": list(spec.env_allowlist), "overridden": sorted(spec.env_overrides)},
            "build_args": sorted(spec.build_args),
            "limits": {"memory_bytes": spec.memory_bytes, "pids": spec.pids, "cpus": spec.resources.cpus},
            "spec": json.loads(json.dumps(asdict(told), default=os.fspath)),
        }


def make_folder(folder: Path, like: Path | None = None) -> None:
    """Make *folder* if it is not there, for the owner of *like* to write in. Raises `SandboxStartFailed`."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir()
            if like is not None and os.geteuid() == 0:
                os.chown(folder, like.stat().st_uid, like.stat().st_gid)
    except OSError as error:
        raise SandboxStartFailed(f"{folder} cannot be made: {error.strerror}") from None


def _teller(write: Callable[[bytes], object], progress: Callable[[str], None] | None) -> Callable[[str], None]:
    def tell(line: str) -> None:
        if progress is not None:
            progress(line)
        write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n".encode())

    return tell
