"""What is written down about a sandbox beside its records, by a prefix and a CLI that say what a test wants."""

import json
import os
import stat

import pytest

from sandbox_runner.diagnostics import (
    capture_container_artifacts,
    capture_dns_snapshot,
    probe_commands_in_container,
)
from sandbox_runner.docker.container import ABOUT
from sandbox_runner.state import StateFolder

pytestmark = pytest.mark.uid  # the uid is told


@pytest.mark.parametrize(
    ("asked", "present"),
    [
        (["sh", "not-there"], {"sh": True, "not-there": False}),
        (["cat", "$(touch evil)", "a b"], {"cat": True, "$(touch evil)": False, "a b": False}),
        (["uid", "-v"], {"uid": False, "-v": False}),
        (["sh", "", "  "], {"sh": True}),
        ([], {}),
    ],
)
def test_each_command_is_found_or_not(tmp_path, monkeypatch, asked, present) -> None:
    """By its name, which is no shell's to read; with the user's number."""
    monkeypatch.chdir(tmp_path)
    found, told = probe_commands_in_container(command_prefix=["env"], commands=asked)
    assert found == present
    assert told == ({"exit_code": 0, "stderr": "", "uid": os.geteuid()} if asked else {})
    assert os.listdir(tmp_path) == []


def test_a_prefix_that_cannot_be_started_is_an_error_that_is_told() -> None:
    """And not one that is raised."""
    found, told = probe_commands_in_container(command_prefix=["/not/there"], commands=["git"])
    assert found == {}
    assert "No such file" in told["error"]


@pytest.mark.parametrize("printed", ["git=yes", "git=1=1", "other=1", "uid=99999999999", "git", ""])
def test_what_a_shell_lies_about_is_left_out(printed) -> None:
    """A name that was not asked for, and what is no answer."""
    found, told = probe_commands_in_container(command_prefix=["echo", printed, "\n"], commands=["git"])
    assert found == {}
    assert "uid" not in told


def test_the_end_of_a_command_is_told() -> None:
    """With what it said, fit for a terminal."""
    prefix = ["sh", "-c", "printf 'a\\033[31mb' >&2; exit 7"]
    assert probe_commands_in_container(command_prefix=prefix, commands=["git"]) == (
        {},
        {"exit_code": 7, "stderr": "ab"},
    )


def test_who_prints_without_end_is_ended(tmp_path) -> None:
    """What it printed is kept up to a bound."""
    capture_dns_snapshot(command_prefix=["sh", "-c", "yes"], artifacts_dir=tmp_path)
    assert 1 << 20 < (tmp_path / "dns_snapshot.txt").stat().st_size < 5 << 20


def test_the_resolver_is_written_down(tmp_path) -> None:
    """In a folder that is made if need be, with the exit code before it."""
    capture_dns_snapshot(command_prefix=[], artifacts_dir=str(tmp_path / "new"))
    text = (tmp_path / "new" / "dns_snapshot.txt").read_text()
    assert text.startswith("exit_code=")
    assert "stdout:\n== /etc/resolv.conf\n" in text
    assert "\nstderr:\n" in text


def test_what_failed_is_written_down(tmp_path) -> None:
    """In the place of what it would have been."""
    capture_dns_snapshot(command_prefix=["/not/there"], artifacts_dir=tmp_path)
    assert "could not be captured: " in (tmp_path / "dns_snapshot.txt").read_text()


INSPECTED = [{"Config": {"Env": ["TOKEN=sesame", "OTHER=sesame", "KEPT=open", "NOSIGN"]}}]


@pytest.mark.parametrize("record", [{"env_allowlist": ["TOKEN"]}, {"environment": {"allowed": ["TOKEN"]}}])
def test_values_of_variables_are_left_out(stub_docker, tmp_path, record) -> None:
    """Of those that the record of the sandbox names, or our own state; the log is as the engine has it."""
    stub_docker({"logs": {"stdout": "a log\n"}, "inspect": {"stdout": json.dumps(INSPECTED)}})
    (tmp_path / "sandbox.json").write_text(json.dumps(record))
    state = StateFolder.create("diagnosed", 60)
    try:
        state.write(ABOUT, json.dumps({"env_allowlist": [], "overridden": ["OTHER"]}).encode())
        capture_container_artifacts(container_name="diagnosed", artifacts_dir=tmp_path)
    finally:
        state.remove()
    assert (tmp_path / "container_logs.txt").read_text() == "exit_code=0\n\nstdout:\na log\n\nstderr:\n\n"
    (found,) = json.loads((tmp_path / "container_inspect.json").read_text())
    assert found["Config"]["Env"] == ["TOKEN=<redacted>", "OTHER=<redacted>", "KEPT=open", "NOSIGN"]


@pytest.mark.parametrize("record", ["", "[]", "[" * 100_000, '{"env_allowlist": 5}', '{"environment": []}'])
def test_a_record_that_was_replaced_harms_nothing(stub_docker, tmp_path, record) -> None:
    """A sandbox can write there what it likes."""
    stub_docker({"logs": {}, "inspect": {"stdout": json.dumps(INSPECTED)}})
    (tmp_path / "sandbox.json").write_text(record)
    capture_container_artifacts(container_name="c", artifacts_dir=tmp_path)
    assert json.loads((tmp_path / "container_inspect.json").read_text()) == INSPECTED


@pytest.mark.parametrize("name", ["dns_snapshot.txt", "container_logs.txt", "container_inspect.json"])
def test_a_link_that_was_planted_is_not_followed(stub_docker, tmp_path, name) -> None:
    """Under the name of a file; and none is made where the whole folder is a link."""
    stub_docker({"logs": {}, "inspect": {"stdout": "[]"}})
    host = tmp_path / "host"
    host.mkdir()
    (host / "file").write_text("of the host")
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / name).symlink_to(host / "file")
    (tmp_path / "link").symlink_to(host)
    for folder in ("artifacts", "link"):
        capture_dns_snapshot(command_prefix=[], artifacts_dir=tmp_path / folder)
        capture_container_artifacts(container_name="c", artifacts_dir=tmp_path / folder)
    assert (host / "file").read_text() == "of the host"
    assert os.listdir(host) == ["file"]
    assert stat.S_ISREG((tmp_path / "artifacts" / name).lstat().st_mode)


@pytest.mark.parametrize("name", ["", "--help", "-x"])
def test_a_name_that_is_an_option_is_no_container(stub_docker, tmp_path, name) -> None:
    """Nothing is asked."""
    stub = stub_docker()
    capture_container_artifacts(container_name=name, artifacts_dir=tmp_path / "new")
    assert stub.calls == []
    assert not (tmp_path / "new").exists()
