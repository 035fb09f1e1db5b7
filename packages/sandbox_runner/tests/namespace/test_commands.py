"""What a caller sees of commands in a namespace sandbox: their streams, their ends, and what they find."""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sandbox_runner import InvalidSpec, MountSpec, ResourceSpec, SandboxGone, SandboxStartFailed


def test_a_command_sees_the_workspace_and_leaves_results(sandbox, tmp_path: Path) -> None:
    """The two folders did not exist; what is written inside is on the host, owned by the workspace's owner."""
    (tmp_path / "workspace/in.txt").write_text("from the host")
    result = sandbox.exec(["sh", "-c", "pwd; cat in.txt; echo made > /artifacts/out.txt"])
    assert (result.stdout, result.stderr, result.exit_code) == (b"/workspace\nfrom the host", b"", 0)
    assert (tmp_path / "artifacts/out.txt").read_text() == "made\n"
    assert (tmp_path / "artifacts/out.txt").stat().st_uid == (tmp_path / "workspace").stat().st_uid


@pytest.mark.parametrize(
    ("script", "exit_code", "signal"),
    [("exit 0", 0, None), ("exit 7", 7, None), ("kill -9 $$", None, 9), ("kill -TERM $$", None, 15),
     ("exit 255", 255, None)],
)  # fmt: skip
def test_exit_code_and_signal_are_told_apart(sandbox, script: str, exit_code: int | None, signal: int | None) -> None:
    """Exactly one of the two is set."""
    result = sandbox.exec(["sh", "-c", script])
    assert (result.exit_code, result.signal, result.timed_out) == (exit_code, signal, False)


def test_a_program_that_is_not_there_is_the_commands_error(sandbox) -> None:
    """Not found is 127 and not executable 126, as in a shell; bubblewrap is not named."""
    missing = sandbox.exec(["no-such-program"])
    assert (missing.exit_code, missing.stderr) == (127, b"no-such-program: No such file or directory\n")
    folder = sandbox.exec(["/workspace"])
    assert (folder.exit_code, folder.stderr) == (126, b"/workspace: Permission denied\n")


def test_output_that_looks_like_bubblewraps_is_the_commands(sandbox) -> None:
    """What begins as a complaint of ours does is held back until the command's end, and is not lost."""
    seen: list[tuple[str, bytes]] = []
    result = sandbox.exec(
        ["sh", "-c", "echo 'bwrap: execvp x' >&2; exit 3"], on_output=lambda name, data: seen.append((name, data))
    )
    assert (result.exit_code, result.stderr) == (3, b"bwrap: execvp x\n")
    assert seen == [("stderr", b"bwrap: execvp x\n")]


def test_a_command_cannot_forge_its_end(sandbox) -> None:
    """No descriptor but its three streams is open inside, so nobody but bubblewrap can tell the exit code."""
    result = sandbox.exec(["sh", "-c", "for i in 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$i ] && echo $i; done; exit 4"])
    assert (result.stdout, result.exit_code) == (b"", 4)


def test_a_failure_of_bubblewrap_is_not_the_commands_output(start, tmp_path: Path) -> None:
    """A mount whose folder has gone raises, and is never shown as if the command had said it."""
    (tmp_path / "extra").mkdir()
    sandbox = start(extra_mounts=(MountSpec(tmp_path / "extra", "/extra"),))
    (tmp_path / "extra").rmdir()
    seen: list[bytes] = []
    with pytest.raises(SandboxStartFailed, match="extra: No such file or directory"):
        sandbox.exec(["true"], on_output=lambda _, data: seen.append(data))
    assert seen == []


def test_the_environment_is_exactly_what_was_asked_for(start, monkeypatch) -> None:
    """Nothing of the caller's but the allowed names, as they are when the command starts; an override wins."""
    sandbox = start(env_allowlist=("ALLOWED", "BOTH", "UNSET"), env_overrides={"BOTH": "override", "SET": "a b\tü"})
    monkeypatch.setenv("ALLOWED", "at the time")
    monkeypatch.setenv("BOTH", "the caller's")
    monkeypatch.setenv("HIDDEN", "not inside")
    shown = sandbox.exec(["env", "-0"], env={"MINE": "one call's"}).stdout.decode().rstrip("\0").split("\0")
    assert sorted(shown) == sorted(
        [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/tmp",
            "LANG=C.UTF-8",
            "XDG_CACHE_HOME=/cache",
            "PWD=/workspace",
            "ALLOWED=at the time",
            "BOTH=override",
            "SET=a b\tü",
            "MINE=one call's",
        ]
    )
    assert b"MINE" not in sandbox.exec(["env"]).stdout


def test_stdin_folder_and_number_of_one_command(sandbox) -> None:
    """Each is for the one call; a number inside is the sandbox's user outside."""
    assert sandbox.exec(["cat"], stdin=b"\0bytes\xff").stdout == b"\0bytes\xff"
    assert sandbox.exec(["cat"]).stdout == b""
    assert sandbox.exec(["pwd"], cwd="/tmp").stdout == b"/tmp\n"
    assert sandbox.exec(["id", "-u"], user="4321").stdout == b"4321\n"
    assert sandbox.exec(["sh", "-c", "id -u; id -g"], user="12:34").stdout == b"12\n34\n"
    assert sandbox.exec(["sh", "-c", "touch mine"], user="4321").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"argv": "ls -l"}, "argv: must be a list of texts"),
        ({"argv": []}, "argv: must be a list of texts"),
        ({"argv": ["a\0b"]}, "argv: an argument holds a NUL"),
        ({"argv": ["true"], "cwd": "relative"}, "cwd: 'relative' must be an absolute path inside"),
        ({"argv": ["true"], "cwd": "/nowhere"}, "cwd: there is no folder /nowhere inside"),
        ({"argv": ["true"], "user": "root"}, "user: 'root' must be uid or uid:gid"),
        (
            {"argv": ["true"], "user": "4294967295"},
            "user: '4294967295' is above 4294967294, the highest id of the kernel",
        ),
        ({"argv": ["true"], "env": {"A=B": "x"}}, "env: 'A=B' is not the name of a variable"),
        ({"argv": ["true"], "timeout_s": 0}, "timeout_s: 0 must be a number above 0"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(sandbox, arguments: dict, said: str) -> None:
    """It is the caller's error, and no result."""
    with pytest.raises(InvalidSpec) as caught:
        sandbox.exec(**arguments)
    assert str(caught.value).startswith(said)


def test_a_timeout_ends_everything_inside(sandbox, tmp_path: Path) -> None:
    """A grandchild that left its session and closed its streams is dead when `exec` returns."""
    script = "setsid sh -c 'while :; do echo x >> /workspace/alive; sleep 0.01; done' >/dev/null 2>&1 & sleep 60"
    result = sandbox.exec(["sh", "-c", script], timeout_s=2)
    assert (result.timed_out, result.exit_code, result.signal) == (True, None, 9)
    assert 2 <= result.duration_s < 6.5  # ended by us, and not found to be still there
    size = (tmp_path / "workspace/alive").stat().st_size
    time.sleep(0.1)  # thirty times what a living one needs to write
    assert (tmp_path / "workspace/alive").stat().st_size == size
    assert sandbox.exec(["true"]).ok


def test_what_a_command_leaves_behind_ends_with_it(sandbox, tmp_path: Path) -> None:
    """Also without a timeout: nothing of it runs when `exec` returns."""
    script = "setsid sh -c 'while :; do echo x >> alive; sleep 0.01; done' >/dev/null 2>&1 & " \
             "while ! [ -s alive ]; do sleep 0.01; done"  # fmt: skip
    assert sandbox.exec(["sh", "-c", script], timeout_s=20).ok
    size = (tmp_path / "workspace/alive").stat().st_size
    time.sleep(0.1)
    assert (tmp_path / "workspace/alive").stat().st_size == size


def test_nothing_of_a_command_is_left_when_its_end_is_told(sandbox) -> None:
    """Hundreds of processes take a while to die; `exec` returns after the last."""
    script = "i=0; while [ $i -lt 450 ]; do sleep 600 >&- 2>&- & i=$((i + 1)); done"
    assert sandbox.exec(["sh", "-c", script]).ok
    plan = json.loads(Path(sandbox.command_prefix[-1], "plan.json").read_text())
    assert [(Path(group) / "cgroup.procs").read_text() for group in plan["groups"]] == ["", ""]


def test_tmp_lives_as_long_as_the_sandbox(sandbox) -> None:
    """/tmp and /cache are kept between commands; /run, /var/tmp and /dev/shm are each command's own."""
    places = "/tmp /cache /run /var/tmp /dev/shm"
    assert sandbox.exec(["sh", "-c", f"for p in {places}; do echo x > $p/kept || exit 1; done"]).ok
    shown = sandbox.exec(["sh", "-c", f"for p in {places}; do [ -e $p/kept ] && echo $p; done; true"])
    assert shown.stdout == b"/tmp\n/cache\n"


def test_a_warm_cache_is_the_callers_folder(start, tmp_path: Path) -> None:
    """What one sandbox puts into /cache, the next one finds."""
    for script in ("echo kept > /cache/one", "cat /cache/one"):
        with start(cache_mode="warm", cache_dir=tmp_path / "cache") as sandbox:
            result = sandbox.exec(["sh", "-c", script])
    assert result.stdout == b"kept\n"


def test_more_mounts_are_read_only_if_asked(start, tmp_path: Path) -> None:
    """A folder and a single file; with read_only nothing can be written, not even by the owner."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("data\n")
    (tmp_path / "settings").write_text("set\n")
    sandbox = start(
        extra_mounts=(
            MountSpec(tmp_path / "data", "/data", read_only=True),
            MountSpec(tmp_path / "settings", "/etc/settings", read_only=True),
            MountSpec(tmp_path / "data", "/opt/deep/data"),
        )
    )
    result = sandbox.exec(["sh", "-c", "cat /data/file /etc/settings; echo x > /opt/deep/data/new; echo x > /data/no"])
    assert result.stdout == b"data\nset\n"
    assert b"Read-only file system" in result.stderr
    assert sorted(os.listdir(tmp_path / "data")) == ["file", "new"]


def test_output_beyond_the_limit_is_dropped(sandbox) -> None:
    """A command that prints without end is read to its end, and only so much is kept."""
    result = sandbox.exec(["sh", "-c", "head -c 300000 /dev/zero"], max_output_bytes=1000)
    assert (len(result.stdout), result.truncated, result.exit_code) == (1000, True, 0)


def test_commands_run_at_the_same_time(sandbox) -> None:
    """Two threads wait for one another's commands."""
    scripts = ["echo x > /tmp/a; until [ -e /tmp/b ]; do sleep 0.01; done",
               "echo x > /tmp/b; until [ -e /tmp/a ]; do sleep 0.01; done"]  # fmt: skip
    results = []
    threads = [
        threading.Thread(target=lambda s=script: results.append(sandbox.exec(["sh", "-c", s], timeout_s=20)))
        for script in scripts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.exit_code for result in results] == [0, 0]


def test_an_argument_that_is_no_text_is_recorded(bubblewrap, tmp_path: Path) -> None:
    """It arrives byte for byte; the record, which is UTF-8, has it escaped."""
    run = [sys.executable, "-m", "sandbox_runner", "run", "--exec-backend", "namespace", "--loosen", "memory_limit"]
    done = subprocess.run([*run, "--loosen", "pids_limit", "--", "printf", b"a\xff"], cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"a\xff")
    (record,) = tmp_path.glob("sandbox-runs/*/artifacts/command.json")
    assert json.loads(record.read_text("utf-8"))["argv"] == ["printf", "a\udcff"]


# The prefix


def test_the_prefix_is_for_subprocess(sandbox, tmp_path: Path) -> None:
    """Arguments, stdin and exit code go through as they are."""
    done = subprocess.run(
        [*sandbox.command_prefix, "sh", "-c", 'cat; printf "<%s>" "$@"; exit 9', "sh", "a b", "", "*", "--", "ü"],
        input=b"in ",
        capture_output=True,
        cwd=tmp_path,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("in <a b><><*><--><ü>".encode(), b"", 9)


def test_the_prefix_reads_the_callers_variables_when_it_runs(start) -> None:
    """An allowed name has the value of the process that starts the command."""
    sandbox = start(env_allowlist=("TOKEN",))
    shown = [
        subprocess.run(
            [*sandbox.command_prefix, "sh", "-c", "echo $TOKEN"], env={"TOKEN": value}, capture_output=True
        ).stdout
        for value in ("one", "two")
    ]
    assert shown == [b"one\n", b"two\n"]


def test_the_prefix_of_a_closed_sandbox_says_so(sandbox) -> None:
    """Exit code 125, as Docker's for what is not the command's; `exec` raises."""
    sandbox.close()
    done = subprocess.run([*sandbox.command_prefix, "true"], capture_output=True, text=True)
    assert done.returncode == 125
    assert done.stderr.startswith("sandbox-runner: ")
    assert done.stderr.endswith("plan.json is not there: the sandbox is closed\n")
    with pytest.raises(SandboxGone, match="is closed"):
        sandbox.exec(["true"])


def test_the_prefix_without_a_command_says_so(sandbox) -> None:
    """Nothing is run."""
    done = subprocess.run(sandbox.command_prefix, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        125,
        "sandbox-runner: the sandbox cannot be entered: no command was given\n",
    )


# Ceilings


def test_memory_of_all_processes_is_bounded(start, python) -> None:
    """The kernel ends what goes beyond, and the result says that memory was why; the next command is not blamed."""
    sandbox = start(resources=ResourceSpec(memory="64m"))
    result = sandbox.exec([python, "-c", "bytearray(200 << 20)"])
    assert (result.signal, result.out_of_memory) == (9, True)
    after = sandbox.exec(["true"])
    assert (after.exit_code, after.out_of_memory) == (0, False)


def test_what_is_in_shared_memory_counts(start) -> None:
    """/dev/shm is no way around the ceiling, and has one of its own."""
    sandbox = start(resources=ResourceSpec(memory="32m"))
    result = sandbox.exec(["sh", "-c", "head -c 60000000 /dev/zero > /dev/shm/much"])
    assert result.out_of_memory
    loose = start(loosen=("memory_limit",))
    assert b"No space left on device" in loose.exec(["sh", "-c", "head -c 90000000 /dev/zero > /dev/shm/much"]).stderr


def test_the_number_of_processes_is_bounded(start) -> None:
    """A fork bomb stops at the ceiling. With that wall off, the same processes start."""
    script = "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i + 1)); done; echo all"
    held = start(resources=ResourceSpec(pids_limit=20)).exec(["sh", "-c", script])
    assert held.exit_code == 2
    assert b"Cannot fork" in held.stderr
    assert start(loosen=("pids_limit",)).exec(["sh", "-c", script]).stdout == b"all\n"


def test_cpus_are_bounded(start) -> None:
    """The kernel's own file says how much it gives."""
    sandbox = start(resources=ResourceSpec(cpus=0.5))
    plan = json.loads(Path(sandbox.command_prefix[-1], "plan.json").read_text())
    [quota] = [
        (Path(group) / name).read_text().split()[0]
        for group in plan["groups"]
        for name in ("cpu.max", "cpu.cfs_quota_us")
        if (Path(group) / name).exists()
    ]
    assert quota == "50000"


def test_open_files_are_bounded(start) -> None:
    """4096 descriptors for each process, or as many as the caller may have; no core files, whatever the caller has."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        files, core = start().exec(["sh", "-c", "ulimit -n; ulimit -c"]).stdout.split()
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    assert (int(files) <= 4096, core) == (True, b"0")
    mine = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert int(start(loosen=("nofile_limit",)).exec(["sh", "-c", "ulimit -n"]).stdout) == mine
