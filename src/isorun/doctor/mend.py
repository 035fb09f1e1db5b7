"""What `isorun doctor --fix` does of a remedy: carry out its commands, or say why people have to."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable

from isorun.backends.remedy import Action, Command, Export
from isorun.doctor.check import Row
from sandbox_runner.docker.command import docker_program
from sandbox_runner.errors import SandboxError

_OURS = {"isorun": "isorun", "sandbox-runner": "sandbox_runner"}  # commands of this environment, and their modules


def words(command: Command) -> list[str]:
    """The arguments that the kernel gets: our own commands by this Python, `docker` as every start finds it."""
    name, *rest = command.argv
    if name in _OURS:
        return [sys.executable, "-P", "-m", _OURS[name], *rest]  # -P: the current folder has no say in what is run
    return [docker_program() if name == "docker" else name, *rest]


def obstacle(action: Action) -> str:
    """Why *action* has to be typed by people, for a line that ends in it; "" if it can be carried out here."""
    if isinstance(action, Export):
        return "in the shell that starts isorun"
    if action.as_root and os.geteuid():
        return "as root"
    try:
        program = words(action)[0]
    except SandboxError as error:
        return str(error)
    return "" if shutil.which(program) else f"where there is a {program}"


def by_hand(actions: Iterable[Action]) -> list[str]:
    """One line for each run of *actions* with the same obstacle."""
    lines: dict[str, list[str]] = {}
    for action in actions:
        lines.setdefault(obstacle(action), []).append(str(action))
    return [f"type this {why}: {' && '.join(typed)}" for why, typed in lines.items()]


def commands(row: Row) -> list[Command]:
    """What can be carried out for *row*: all of its commands, or none, as half of them could make it worse."""
    found = [action for action in row.actions if isinstance(action, Command)]
    return [] if any(map(obstacle, found)) else found


def carry_out(todo: Iterable[Command], *, quiet: bool) -> str:
    """Carry *todo* out in order; what failed, "" for nothing. With *quiet* what they print goes to stderr."""
    for command in todo:
        try:
            code = subprocess.run(words(command), stdout=sys.stderr if quiet else None, check=False).returncode
        except OSError as error:
            return f"{command}: {error.strerror}"
        if code:
            return f"{command}: exit code {code}"
    return ""
