"""A secret reaches the command and nobody else: no command line, no engine's record, no file that stays, no error."""

import json
import os
import secrets
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sandbox_runner import SandboxError, SandboxStartFailed
from sandbox_runner.state import state_root


class Watch:
    """Reads the command line of every process of this machine, again and again, and keeps those that hold a word."""

    def __init__(self, *words: str) -> None:
        self._words = [word.encode() for word in words]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.seen: set[bytes] = set()
        self.rounds = 0

    def _look(self) -> None:
        while not self._stop.wait(0.001):
            self.rounds += 1
            for name in os.listdir("/proc"):
                try:
                    line = Path(f"/proc/{name}/cmdline").read_bytes() if name.isdigit() else b""
                except OSError:
                    continue
                if any(word in line for word in self._words):
                    self.seen.add(line)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self.rounds > 2, "the watch did not watch"


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Four secrets: allowed, of the spec, of a command, and one of a variable that is not allowed."""
    words = {name: f"word-{secrets.token_hex(12)}" for name in ("ALLOWED", "OVER", "COMMAND", "HIDDEN")}
    monkeypatch.setenv("SR_ALLOWED", words["ALLOWED"])
    monkeypatch.setenv("SR_HIDDEN", words["HIDDEN"])
    return words


def test_a_secret_is_on_no_command_line_and_in_no_record(start, words, docker_cli, tmp_path) -> None:
    """From before the start to after the end, of `exec` and of the prefix; inside it is there."""
    script = 'echo "$SR_ALLOWED $SR_OVER $SR_COMMAND $SR_HIDDEN"; echo to-the-log >&2'
    with Watch(*words.values()) as watch:
        sandbox = start(env_allowlist=("SR_ALLOWED",), env_overrides={"SR_OVER": words["OVER"]})
        for _ in range(3):
            shown = sandbox.exec(["sh", "-c", script], env={"SR_COMMAND": words["COMMAND"]}).stdout.decode()
            assert shown.split() == [words["ALLOWED"], words["OVER"], words["COMMAND"]]
            prefixed = subprocess.run([*sandbox.command_prefix, "sh", "-c", script], capture_output=True, text=True)
            assert prefixed.stdout.split() == [words["ALLOWED"], words["OVER"]]
        inspected = docker_cli("inspect", sandbox.container_name)
        logs = docker_cli("logs", sandbox.container_name)
        named = repr(sandbox.command_prefix)
        sandbox.close()
    assert watch.seen == set()
    records = {path.name: path.read_text() for path in (tmp_path / "artifacts").iterdir()}
    assert {"sandbox.json", "container_logs.txt", "container_inspect.json"} <= set(records)
    for word in words.values():
        assert word not in inspected + logs + named
        assert not [name for name, text in records.items() if word in text]
    spec = json.loads(records["sandbox.json"])
    assert spec["environment"] == {"allowed": ["SR_ALLOWED"], "overridden": ["SR_OVER"]}


def test_a_secret_on_a_command_line_is_seen(words) -> None:
    """The positive control: the watch sees what a line holds for a moment."""
    with Watch(words["OVER"]) as watch:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.3)", words["OVER"]], check=True)
    assert len(watch.seen) == 1


def test_the_file_of_a_secret_is_the_owners_alone_in_memory_and_gone_at_the_end(start, words) -> None:
    """Also that of one command, which is gone with it."""
    sandbox = start(env_overrides={"SR_OVER": words["OVER"]})
    folder = state_root() / sandbox.container_name
    files: dict[str, bytes] = {}

    def look(*_: object) -> None:
        for path in folder.iterdir():
            if any(word.encode() in path.read_bytes() for word in words.values()):
                files[path.name] = path.read_bytes()
                assert stat.S_IMODE(path.stat().st_mode) == 0o400
                assert path.stat().st_uid == os.geteuid()

    assert sandbox.exec(["echo"], env={"SR_COMMAND": words["COMMAND"]}, on_output=look).ok
    assert sorted(data.decode() for data in files.values()) == sorted(
        [f"SR_OVER={words['OVER']}\n", f"SR_COMMAND={words['COMMAND']}\n"]
    )
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    kind = subprocess.run(["stat", "--file-system", "--format=%T", folder], capture_output=True, text=True).stdout
    assert kind in ("tmpfs\n", "ramfs\n")
    holding = [path.name for path in folder.iterdir() if words["COMMAND"].encode() in path.read_bytes()]
    assert holding == []
    sandbox.close()
    assert not folder.exists()


def test_the_sandbox_does_not_see_the_files(start, words, tmp_path) -> None:
    """The folder of its state is none of its mounts."""
    sandbox = start(env_overrides={"SR_OVER": words["OVER"]})
    found = sandbox.exec(["sh", "-c", "cat /proc/mounts; ls -aR /dev/shm /run; env -i true"])
    assert sandbox.container_name.encode() not in found.stdout
    assert b"sandbox-runner" not in found.stdout
    assert words["OVER"].encode() not in found.stdout


@pytest.mark.parametrize("fails", ["run", "exec", "inspect"])
def test_no_error_holds_a_secret(start, words, wrapped_docker, fails, tmp_path) -> None:
    """Not in its text, its notes, its cause, or the record of the failure."""
    wrapped_docker(f'if argv[0] == {fails!r}: sys.exit("Error response from daemon: no")')
    with pytest.raises(SandboxError) as raised:
        start(env_allowlist=("SR_ALLOWED",), env_overrides={"SR_OVER": words["OVER"]}, docker_timeout_seconds=10)
    error: BaseException | None = raised.value
    told = (tmp_path / "artifacts" / "sandbox.json").read_text()
    while error is not None:
        told += repr(error) + repr(getattr(error, "__notes__", None))
        error = error.__cause__ or error.__context__
    assert not [word for word in words.values() if word in told]


def test_an_engine_that_fails_shows_no_secret(start, words, wrapped_docker) -> None:
    """The text of a failure within a command names no value, neither allowed nor given to it."""
    sandbox = start(env_allowlist=("SR_ALLOWED",), env_overrides={"SR_OVER": words["OVER"]})
    folder = wrapped_docker('if argv[0] == "exec": sys.exit("Error response from daemon: " + " ".join(argv[:9]))')
    sandbox._cli.program = str(folder / "docker")
    with pytest.raises(SandboxError) as raised:
        sandbox.exec(["true"], env={"SR_COMMAND": words["COMMAND"]})
    assert "Error response from daemon: exec" in str(raised.value)
    assert not [word for word in words.values() if word in str(raised.value)]


def test_a_value_of_a_spec_is_in_no_refusal(start, words) -> None:
    """What an engine would show of a file that it cannot read is refused before."""
    for value in (words["OVER"] + "\udcff", words["OVER"] + "\nX=1", words["OVER"] * 4000):
        with pytest.raises(SandboxError) as raised:
            start(env_overrides={"SR_OVER": value})
        assert words["OVER"] not in str(raised.value)
        assert not isinstance(raised.value, SandboxStartFailed)
