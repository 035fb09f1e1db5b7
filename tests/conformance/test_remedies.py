"""A remedy that isorun prints is carried out as printed, and then what it was for works."""

import codecs
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isorun.backends.namespace import cgroup
from isorun.settings import Settings
from sandbox_runner import SandboxSpec
from sandbox_runner.errors import BackendUnavailable
from sandbox_runner.namespace.ceilings import PARENT_VARIABLE, find_parent, of_spec, this_host
from tests.conftest import Ids, Require

GROUP = "isorun-remedy-of-a-test"  # in place of the name that people would take: another process may use that


def _without_a_group(env: dict[str, str]) -> str:
    """What isorun says to a user who can write no control group; "" once *env* gives one."""
    parent = Settings.load(environ=env).cgroup_parent
    found = cgroup.find_own_parent(str(parent) if parent else None)
    return str(found) if isinstance(found, cgroup.Refusal) else ""


def _without_a_group_for_a_sandbox(env: dict[str, str]) -> str:
    """The same of sandbox_runner."""
    os.environ.update(env)
    try:
        find_parent(of_spec(SandboxSpec()), this_host())
    except BackendUnavailable as error:
        return str(error)
    return ""


Asked = Callable[[dict[str, str]], str]
COMMANDS = {
    _without_a_group: re.compile(r"as root: (?P<command>.*?); then: export (?P<name>ISORUN_\w+)=(?P<value>[^ )]+)"),
    _without_a_group_for_a_sandbox: re.compile(
        rf"as root `(?P<command>.*?)` and `(?P<second>.*?)`, and then set (?P<name>{PARENT_VARIABLE})=(?P<value>[^ ;]+)"
    ),
}


def _as(user: Ids, asked: Asked, env: dict[str, str]) -> str:
    """What *asked* answers in a process of *user*."""
    codecs.lookup("ascii")  # which that user might not be able to load, if Python is in root's home
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(*[user.gid] * 3)
            os.setresuid(*[user.uid] * 3)
            os.write(writer, asked(env).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        text = answer.read().decode()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def _no_group_stays() -> Iterator[None]:
    yield
    for folder in Path("/sys/fs/cgroup").glob(f"**/{GROUP}"):
        folder.rmdir()


@pytest.mark.root
@pytest.mark.usefixtures("_no_group_stays")
@pytest.mark.parametrize("form", ["name", "folder"])
@pytest.mark.parametrize("asked", COMMANDS, ids=["isorun", "sandbox_runner"])
def test_a_control_group_for_an_ordinary_user(
    asked: Asked, form: str, ordinary_user: Ids | None, require: Require
) -> None:
    """The printed commands of root and the printed variable, as a name or as a folder, give that user a group."""
    assert ordinary_user is not None
    if isinstance(cgroup.find_own_parent(None), cgroup.Refusal):
        require("cgroup", "root can write no control group here")
    said = _as(ordinary_user, asked, {})
    if "systemd-run" in said:
        require("cgroup", "this machine has version 2 alone, where the remedy is systemd's")
    found = COMMANDS[asked].search(said)
    assert found, said
    assert found["value"] in ("isorun", "sandbox-runner")
    commands = [found["command"], *(found.groupdict().get("second") or "").splitlines()]
    mended = [re.sub(rf"(?<=/){found['value']}(?=$|[ '])", GROUP, command) for command in commands]
    for command in mended:
        assert command.count(GROUP) >= 2
        subprocess.run(["/bin/sh", "-ec", command], check=True)
    folder = next(word for word in mended[0].split() if word.endswith(GROUP))
    env = {found["name"]: GROUP if form == "name" else folder}
    assert _as(ordinary_user, asked, env) == ""
