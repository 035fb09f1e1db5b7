"""Finds what sandboxes left behind, and removes it: their owner was killed, or their time to live is over.

What is not ours has none of our labels and is never touched; nor is a sandbox whose owner
lives, or of which this machine cannot tell.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from sandbox_runner.docker import build_lock, container
from sandbox_runner.docker.command import DockerCli
from sandbox_runner.docker.container import remove_number
from sandbox_runner.docker.line import EXPIRES, KEPT, LABEL, NAME, NONCE, OWNER, ROOT
from sandbox_runner.errors import DockerUnavailable, SandboxError
from sandbox_runner.namespace import instance as namespace_instance
from sandbox_runner.records import remove_drafts
from sandbox_runner.state import Owner, StateFolder, state_root

_ABANDONED = "it could not be removed before"
_ELSEWHERE = "another user's or session's"
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
    """Remove each sandbox whose owner is gone, and say which. With *dry_run* only say it.

    Raises `SandboxError`, after everything else was done, that names all that cannot be removed.
    """
    found = [one for one in listed() if one.why]
    found += [
        Listed(name=path.name, kind="lock", state="left", why="the process that built an image is dead")
        for path in build_lock.sweep(dry_run=dry_run)
    ]
    if dry_run:
        return found
    failed = _all_removed(found)
    if any(one.kind == "folder" for one in found) and shutil.which("docker"):
        late, left = _late_containers({one.name for one in found if one.kind == "folder"})
        found, failed = found + late, {**failed, **left}
    if failed:
        raise SandboxError("not everything could be removed: " + "; ".join(failed.values()))
    return found


def remove(found: Iterable[Listed]) -> None:
    """Remove these, even if their owner is alive. Raises `SandboxError` or `OSError` if one stays."""
    for one in found:
        _remove(one)


def _all_removed(found: Iterable[Listed]) -> dict[str, str]:
    """Remove each of *found*; why not, by name, for those that stay."""
    failed = {}
    for one in found:
        try:
            _remove(one)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others must not stay because of it
            said = str(error) if isinstance(error, (SandboxError, OSError)) else repr(error)
            failed[one.name] = said if one.name in said else f"{one.name}: {said}"
    return failed


def _late_containers(names: set[str]) -> tuple[list[Listed], dict[str, str]]:
    """Remove containers that came to be after we had looked, for owners that were killed in the middle of it.

    Those, and why not for those of them that stay.
    """
    late: dict[str, Listed] = {}
    failed: dict[str, str] = {}
    until = time.monotonic() + _SETTLE_S
    while time.monotonic() < until:
        for one in _containers() or ():
            if one.name in names and one.why and one.name not in failed:
                failed.update(_all_removed([one]))
                late[one.number] = one
        time.sleep(0.2)
    return list(late.values()), failed


def _remove(one: Listed) -> None:
    state = StateFolder.find(one.name)
    if one.kind == "container":
        cli = DockerCli()
        if (found := cli.inspect("container", one.number)) is None:
            return
        if state is not None and not _is_of(state, found["Config"]["Labels"]):
            state = None  # of another sandbox, which has the name since
        remove_number(cli, one.name, one.number)
    if state is not None:
        namespace_instance.remove_leftovers(state)
        with suppress(ValueError, TypeError):  # what is noted of drafts is not ours to understand: they stay
            remove_drafts(state)
        state.remove()


def _is_of(state: StateFolder, labels: dict[str, str]) -> bool:
    return state.read(NONCE) == labels.get(NONCE, "").encode()


def _folder(state: StateFolder, engine_answers: bool) -> Listed:
    why, is_kept = "", False
    with suppress(ValueError, AttributeError):  # half a file, or another version's: then its owner says all
        # Also without its container: that may stand in another engine than the one that answers.
        is_kept = any(_says_kept(state, file) for file in (container.ABOUT, namespace_instance.ABOUT))
    if not engine_answers and state.read(NONCE) is not None:
        # Its container may stand: without the folder nobody could tell any more whose that is.
        return Listed(name=state.name, kind="folder", state="unknown: the Docker engine does not answer", why="")
    if state.is_abandoned:
        why = _ABANDONED
    elif state.is_expired:
        why = "its time to live is over"
    elif not state.owner_is_alive and not is_kept:
        why = "its owner is dead"
    return Listed(name=state.name, kind="folder", state="left" if why else "kept" if is_kept else "owned", why=why)


def _says_kept(state: StateFolder, file: str) -> bool:
    # Not as `About`: the sandbox may be another version's.
    data = state.read(file)
    return data is not None and json.loads(data).get("kept") is True


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
    containers = []
    for name, found in inspected:
        # Anybody who may use the engine can set labels: what does not read as ours is not ours.
        with suppress(ValueError):
            if found is not None:
                status, labels = found["State"]["Status"], found["Config"]["Labels"]
                why = _why(name, labels)
                state = status if why or _is_from_here(labels) else _ELSEWHERE
                containers.append(
                    Listed(name=name, kind="container", state=state, why=why, number=found.get("Id", name))
                )
    return containers


def _why(name: str, labels: dict[str, str]) -> str:
    """Why a container of ours is a leftover; empty if it is not. Raises `ValueError` if its labels are not ours."""
    if labels.get(NAME) != name:
        raise ValueError(f"{name} runs an image that was committed from a sandbox, with the labels of that sandbox")
    expires = float(labels.get(EXPIRES, ""))
    pid, started, host = labels.get(OWNER, "").split(" ", 2)
    state = StateFolder.find(name)
    if state is not None and not _is_of(state, labels):
        state = None
    if time.time() > expires:
        return "its time to live is over"
    if not _is_from_here(labels):
        return ""  # it may be kept, or adopted: that is said where its state is
    if state is not None and state.is_abandoned:
        return _ABANDONED
    adopted = None if state is None else state.owner  # by `attach`; the label cannot change
    owner = adopted or Owner(int(pid), int(started), host)
    if labels.get(KEPT) == "yes" and state is not None:
        return ""
    return "" if owner.is_alive else "its owner is dead"


def _is_from_here(labels: dict[str, str]) -> bool:
    """Whether its state is, or was, where ours is."""
    root = labels.get(ROOT)
    return root is None or os.path.realpath(root) == os.path.realpath(state_root())
