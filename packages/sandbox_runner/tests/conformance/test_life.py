"""A sandbox from its start to its end: its folders, what is kept and what is not."""

import json
import os
import stat
import subprocess

import pytest

from sandbox_runner import InvalidSpec, MountSpec, SandboxError, SandboxInstance, SandboxStartFailed


def test_folders_that_are_not_there_are_made(backend, tmp_path) -> None:
    """With the folders above them; the sandbox's user can write in both."""
    workspace, artifacts = tmp_path / "some" / "where" / "work", tmp_path / "else" / "where"
    with backend.start(workspace, artifacts) as sandbox:
        assert sandbox.exec(["sh", "-c", "echo w > /workspace/w; echo a > /artifacts/a"]).ok
    assert (workspace / "w").read_text() == "w\n"
    assert (artifacts / "a").read_text() == "a\n"


def test_an_instance_says_what_it_is(sandbox, backend) -> None:
    """The fixed paths inside, and a name; it is used as a context manager."""
    assert isinstance(sandbox, SandboxInstance)
    assert (sandbox.workspace_mount, sandbox.artifacts_mount, sandbox.cache_mount) == (
        "/workspace",
        "/artifacts",
        "/cache",
    )
    assert sandbox.container_name.startswith(f"sandbox-{os.getpid()}-")
    assert sandbox.backend == ("namespace" if backend.name == "namespace" else "docker")
    assert isinstance(sandbox.command_prefix, list)


def test_files_are_the_workspace_owners(sandbox, home) -> None:
    """What a command makes belongs to who owns the workspace, on the host and inside."""
    assert sandbox.exec(["sh", "-c", "echo x > /workspace/made; id -u > /workspace/id"]).ok
    owner = (home / "workspace").stat().st_uid
    assert (home / "workspace" / "made").stat().st_uid == owner
    assert (home / "workspace" / "id").read_text() == f"{owner}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_command_is_the_workspaces_owner(backend, tmp_path) -> None:
    """Whoever that is; never root because root started it."""
    for folder in ("workspace", "artifacts"):
        (tmp_path / folder).mkdir()
        os.chown(tmp_path / folder, 4321, 4322)
    tmp_path.chmod(0o755)
    with backend.start(tmp_path / "workspace", tmp_path / "artifacts") as sandbox:
        assert sandbox.exec(["sh", "-c", "echo $(id -u):$(id -g); touch /workspace/x"]).stdout == b"4321:4322\n"
        by_prefix = subprocess.run([*sandbox.command_prefix, "id", "-u"], capture_output=True)
        assert by_prefix.stdout == b"4321\n"
        assert sandbox.exec(["sh", "-c", "echo x > /tmp/x && echo x > /cache/x && echo x > /artifacts/x"]).ok
    found = (tmp_path / "workspace" / "x").stat()
    assert (found.st_uid, found.st_gid) == (4321, 4322)


def test_tmp_lives_as_long_as_the_sandbox(sandbox) -> None:
    """What one command writes to /tmp the next one reads; programs in it can be run."""
    assert sandbox.exec(["sh", "-c", "printf '#!/bin/sh\\necho ran\\n' > /tmp/program; chmod +x /tmp/program"]).ok
    assert sandbox.exec(["/tmp/program"]).stdout == b"ran\n"
    by_prefix = subprocess.run([*sandbox.command_prefix, "/tmp/program"], capture_output=True)
    assert by_prefix.stdout == b"ran\n"


def test_tmp_is_not_shared(start) -> None:
    """Neither with this machine nor with the next sandbox; nor is an unnamed cache."""
    first = start()
    assert first.exec(["sh", "-c", "echo x > /tmp/of-the-first; echo x > /cache/of-the-first"]).ok
    assert not os.path.exists("/tmp/of-the-first")
    first.close()
    second = start()
    assert second.exec(["sh", "-c", "ls /tmp/of-the-first /cache/of-the-first"]).exit_code == 2


def test_a_warm_cache_is_kept(start, tmp_path) -> None:
    """In the folder that was named, which is made."""
    cache = tmp_path / "cache" / "of pip"
    first = start(cache_mode="warm", cache_dir=cache)
    assert first.exec(["sh", "-c", "echo kept > /cache/x"]).ok
    first.close()
    assert (cache / "x").read_text() == "kept\n"
    assert start(cache_mode="warm", cache_dir=cache).exec(["cat", "/cache/x"]).stdout == b"kept\n"


def test_extra_mounts_are_as_they_are_named(start, tmp_path) -> None:
    """A folder to write, a folder to read, and a file."""
    for name in ("rw", "ro"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name)
    (tmp_path / "file with spaces").write_text("file")
    sandbox = start(
        extra_mounts=(
            MountSpec(tmp_path / "rw", "/mnt/rw"),
            MountSpec(tmp_path / "ro", "/mnt/ro", read_only=True),
            MountSpec(tmp_path / "file with spaces", "/mnt/file", read_only=True),
        )
    )
    assert sandbox.exec(["cat", "/mnt/rw/x", "/mnt/ro/x", "/mnt/file"]).stdout == b"rwrofile"
    assert sandbox.exec(["sh", "-c", "echo changed > /mnt/rw/x"]).ok
    refused = sandbox.exec(["sh", "-c", "echo changed > /mnt/ro/x"])
    assert not refused.ok
    assert b"Read-only file system" in refused.stderr
    assert [(tmp_path / name / "x").read_text() for name in ("rw", "ro")] == ["changed\n", "ro"]


def test_what_is_no_folder_is_refused(backend, tmp_path) -> None:
    """By the name of the argument, before anything is made."""
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSpec, match=r"^workspace_dir: .*/file is not a folder$"):
        backend.start(tmp_path / "file", tmp_path / "artifacts")
    with pytest.raises(InvalidSpec, match=r"^artifacts_dir: .*/file is not a folder$"):
        backend.start(tmp_path / "workspace", tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_may_be_named_by_a_link(backend, tmp_path) -> None:
    """It is where the link leads when the sandbox is made."""
    (tmp_path / "real" / "a").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    with backend.start(tmp_path / "link" / "w", tmp_path / "link" / "a") as sandbox:
        assert sandbox.exec(["sh", "-c", "echo x > /artifacts/x"]).ok
    assert (tmp_path / "real" / "a" / "x").exists()
    assert json.loads((tmp_path / "real" / "a" / "sandbox.json").read_text())["status"] == "closed"


def test_a_record_says_what_the_sandbox_was(start, tmp_path) -> None:
    """`sandbox.json`, while it runs and afterwards; every wall that stood is in it."""
    sandbox = start()
    found = json.loads((tmp_path / "artifacts" / "sandbox.json").read_text())
    assert (found["schema"], found["status"], found["container_name"]) == (1, "running", sandbox.container_name)
    assert set(found["walls"].values()) == {True}
    assert found["network"] == "none"
    sandbox.close()
    closed = json.loads((tmp_path / "artifacts" / "sandbox.json").read_text())
    assert closed == {**found, "status": "closed"}
    assert stat.S_IMODE((tmp_path / "artifacts" / "sandbox.json").stat().st_mode) & 0o222 == 0o200


def test_what_the_sandbox_writes_over_a_record_does_not_stay(start, tmp_path) -> None:
    """After the end the records are ours again, whatever was put in their place."""
    sandbox = start()
    before = json.loads((tmp_path / "artifacts" / "sandbox.json").read_text())
    lie = "rm -f /artifacts/sandbox.json; mkdir /artifacts/sandbox.json; echo lie > /artifacts/sandbox.json/x"
    assert sandbox.exec(["sh", "-c", lie]).ok
    sandbox.close()
    assert json.loads((tmp_path / "artifacts" / "sandbox.json").read_text()) == {**before, "status": "closed"}


def test_records_that_cannot_be_written_leave_no_sandbox(start, tmp_path) -> None:
    """The artifacts directory is gone: `close` says so, and has removed everything else."""
    sandbox = start()
    state = sandbox._state.path
    assert state.exists()
    subprocess.run(["rm", "-r", str(tmp_path / "artifacts")], check=True)
    with pytest.raises(SandboxError, match=rf"^the records of {sandbox.container_name} cannot be written: "):
        sandbox.close()
    assert not state.exists()
    sandbox.close()


DEEP = """
import os
os.chdir("/tmp")
for _ in range(3000):
    os.mkdir("a-folder")
    os.chdir("a-folder")
open("file", "w").close()
os.chmod(".", 0)
"""


def test_a_tree_that_is_deeper_than_a_path_does_not_stay(start) -> None:
    """Nor does it keep the sandbox from its end."""
    sandbox = start()
    assert sandbox.exec(["python3", "-c", DEEP]).ok
    state = sandbox._state.path
    sandbox.close()
    assert not state.exists()


def test_a_name_that_is_in_use_is_refused(start, backend, tmp_path) -> None:
    """And the sandbox that has it goes on."""
    name = f"sr-test-{os.getpid()}-{backend.name}"
    first = start(name=name)
    assert first.container_name == name
    with pytest.raises(SandboxStartFailed) as raised:
        backend.start(tmp_path / "w2", tmp_path / "a2", name=name)
    assert str(raised.value) == (f"a sandbox named {name} is there already: close it, or run `sandbox-runner cleanup`")
    assert first.exec(["true"]).ok


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a b", "..", "x" * 129, "a\n"])
def test_a_name_that_cannot_be_used_is_refused(backend, tmp_path, name) -> None:
    """Before anything is made."""
    with pytest.raises(InvalidSpec, match=r"^container_name: "):
        backend.start(tmp_path / "workspace", tmp_path / "artifacts", name=name)
    assert os.listdir(tmp_path) == []
