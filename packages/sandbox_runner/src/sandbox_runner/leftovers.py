"""Finds what sandboxes left behind, and removes it: their owner was killed, or their time to live is over.

What is not ours has none of our labels and is never touched; nor is a sandbox whose owner
lives, or of which this machine cannot tell.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from sandbox_runner import build_lock, namespace, namespace_instance
from sandbox_runner.docker_cli import DockerCli
from sandbox_runner.docker_run import EXPIRES, KEPT, LABEL, NONCE, OWNER
from sandbox_runner.errors import DockerUnavailable, SandboxError
from sandbox_runner.records import remove_drafts
from sandbox_runner.state import Owner, StateFolder

_ABANDONED = "it could not be removed before"
_SETTLE_S = 2.0  # the engine may still be making what a caller asked for that was killed


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A sandbox, or what is left of one. `why` it is a leftover; empty if it is in use."""

    name: str
    kind: str  # container, folder, or lock (of a build)
    state: str
    why: str
    number: str = ""  # a container's, which no other will have


def listed() -> list[Listed]:
    """Every sandbox of ours that can be seen from here: containers of the engine, and state folders without one."""
    containers = _containers()
    names = {one.name for one in containers or ()}
    folders = [_folder(state, containers is not None) for state in StateFolder.all() if state.name not in names]
    return [*(containers or ()), *folders]


def cleanup(*, dry_run: bool = False) -> list[Listed]:
    """Remove what nobody owns any more, and say what that was. With *dry_run* only say it.

    Raises `SandboxError`, after everything else was done, if something cannot be removed.
    """
    found = [one for one in listed() if one.why]
    found += [
        Listed(name=path.name, kind="lock", state="left", why="the process that built an image is dead")
        for path in build_lock.sweep(dry_run=dry_run)
    ]
    if dry_run:
        return found
    failed = []
    for one in found:
        try:
            _remove(one)
        except (SandboxError, OSError) as error:
            failed.append(f"{one.name}: {error}")
    if any(one.kind == "folder" for one in found) and shutil.which("docker"):
        found += _late_containers({one.name for one in found if one.kind == "folder"})
    if failed:
        raise SandboxError("not everything could be removed: " + "; ".join(failed))
    return found


def remove(found: Iterable[Listed]) -> None:
    """Remove these, whoever's they are. Raises `SandboxError` or `OSError` if one stays."""
    for one in found:
        _remove(one)


def _late_containers(names: set[str]) -> list[Listed]:
    """Containers that came to be after we had looked, for owners that were killed in the middle of it."""
    late: list[Listed] = []
    until = time.monotonic() + _SETTLE_S
    while time.monotonic() < until:
        for one in _containers() or ():
            if one.name in names and one.why:
                _remove(one)
                late.append(one)
        time.sleep(0.2)
    return late


def _remove(one: Listed) -> None:
    state = StateFolder.find(one.name)
    if one.kind == "container":
        cli = DockerCli()
        if (found := cli.inspect("container", one.number)) is None:
            return
        if state is not None and not _is_of(state, found["Config"]["Labels"]):
            state = None  # of another sandbox, which has the name since
        answer = cli.run("rm", "--force", "--volumes", one.number)
        if answer.code and cli.inspect("container", one.number) is not None:
            raise SandboxError(answer.said)
    if state is not None:
        namespace.remove_leftovers(state)
        remove_drafts(state)
        state.remove()


def _is_of(state: StateFolder, labels: dict[str, str]) -> bool:
    return state.read(NONCE) == labels.get(NONCE, "").encode()


def _folder(state: StateFolder, engine_answers: bool) -> Listed:
    why, is_kept = "", namespace_instance.is_kept(state)
    if not engine_answers and state.read(NONCE) is not None:
        # Its container may stand: without the folder nobody could tell any more whose that is.
        return Listed(name=state.name, kind="folder", state="unknown: no Docker daemon answers", why="")
    if state.is_abandoned:
        why = _ABANDONED
    elif state.is_expired:
        why = "its time to live is over"
    elif not state.owner_is_alive and not is_kept:
        why = "its owner is dead"
    return Listed(name=state.name, kind="folder", state="left" if why else "kept" if is_kept else "owned", why=why)


def _containers() -> list[Listed] | None:
    """The engine's; None if none answers."""
    try:
        cli = DockerCli()
        answer = cli.run("ps", "--all", "--filter", f"label={LABEL}", "--format", "{{.Names}}")
        if answer.code:
            return None
        inspected = [(name, cli.inspect("container", name)) for name in answer.stdout.decode().split()]
    except DockerUnavailable:
        return None
    listed = []
    for name, found in inspected:
        # Anybody who may use the engine can set labels: what does not read as ours is not ours.
        with suppress(ValueError):
            if found is not None:
                status, number = found["State"]["Status"], found.get("Id", name)
                why = _why(name, found["Config"]["Labels"])
                listed.append(Listed(name=name, kind="container", state=status, why=why, number=number))
    return listed


def _why(name: str, labels: dict[str, str]) -> str:
    """Why a container of ours is a leftover; empty if it is not. Raises `ValueError` if its labels are not ours."""
    expires = float(labels.get(EXPIRES, ""))
    pid, started, host = labels.get(OWNER, "").split(" ", 2)
    state = StateFolder.find(name)
    if state is not None and not _is_of(state, labels):
        state = None
    if time.time() > expires:
        return "its time to live is over"
    if state is not None and state.is_abandoned:
        return _ABANDONED
    adopted = None if state is None else state.owner  # by `attach`; the label cannot change
    owner = adopted or Owner(int(pid), int(started), host)
    if labels.get(KEPT) == "yes" and state is not None:
        return ""
    return "" if owner.is_alive else "its owner is dead"
