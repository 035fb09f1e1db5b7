"""From `start` to nothing left: what is proved, what is refused, and what stays when something is killed."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sandbox_runner import BackendUnavailable, InvalidSpec, NamespaceSandbox, ResourceSpec, SandboxGone, SandboxSpec
from sandbox_runner import SandboxStartFailed as StartFailed
from sandbox_runner.leftovers import listed, remove
from sandbox_runner.namespace import enter
from sandbox_runner.namespace import sandbox as namespace
from sandbox_runner.namespace.processes import called, end_first, title
from sandbox_runner.namespace.sandbox import attach, remove_leftovers
from sandbox_runner.state import StateFolder


def left_of(name: str) -> list[str]:
    """What a sandbox of that name has on the host."""
    found = [str(path) for path in Path("/tmp").glob(f"sandbox-runner-{name}-*")]
    # Not by `glob("**")`, which fails if another's group goes meanwhile.
    groups = [Path(place, folder) for place, folders, _ in os.walk("/sys/fs/cgroup") for folder in folders]
    found += [str(path) for path in groups if path.match(f"sandbox-runner-{name}")]
    found += [f"process {number}" for number in called(title(name))]
    return found + [str(state.path) for state in StateFolder.all() if state.name == name]


def test_the_sandbox_describes_itself(start, tmp_path: Path) -> None:
    """sandbox.json has a schema, the walls, the mounts, and the names but no value of the environment."""
    sandbox = start(env_overrides={"TOKEN": "sesame"}, loosen=("nofile_limit",))
    text = (tmp_path / "artifacts/sandbox.json").read_text()
    said = json.loads(text)
    assert (said["schema"], said["backend"], said["status"]) == (1, "namespace", "running")
    assert said["container_name"] == sandbox.container_name
    assert {wall for wall, stands in said["walls"].items() if not stands} == {"nofile_limit"}
    assert said["environment"] == {"allowed": [], "overridden": ["TOKEN"]}
    assert [(mount["target"], mount["read_only"]) for mount in said["mounts"]] == [
        ("/workspace", False),
        ("/artifacts", False),
    ]
    assert "sesame" not in text
    assert (sandbox.image_tag, sandbox.image_hash, sandbox.backend) == (None, None, "namespace")


def test_closing_leaves_the_results_alone(start, tmp_path: Path) -> None:
    """Of the sandbox nothing stays but the two folders; a second call does nothing."""
    sandbox = start()
    assert sandbox.exec(["sh", "-c", "mkdir -p /tmp/a/b; chmod 0 /tmp/a; touch /workspace/kept"]).ok
    assert len(left_of(sandbox.container_name)) >= 2
    sandbox.close()
    sandbox.close()
    assert left_of(sandbox.container_name) == []
    assert sorted(os.listdir(tmp_path / "workspace")) == ["kept"]
    assert sorted(os.listdir(tmp_path / "artifacts")) == ["sandbox.json"]


def test_a_record_that_the_sandbox_forged_is_replaced(start, tmp_path: Path) -> None:
    """What stands in the artifacts folder after the end is what we said, and a planted link is not followed."""
    (tmp_path / "host").write_text("untouched")
    sandbox = start()
    sandbox.exec(["sh", "-c", f"cd /artifacts && rm -f sandbox.json && ln -s {tmp_path}/host sandbox.json"])
    sandbox.close()
    assert (tmp_path / "host").read_text() == "untouched"
    assert json.loads((tmp_path / "artifacts/sandbox.json").read_text())["status"] == "closed"


@pytest.mark.parametrize("loosen", [(), ("memory_limit", "pids_limit")])
def test_closing_ends_what_runs(start, loosen: tuple[str, ...]) -> None:
    """A command that the prefix started is dead when `close` returns, also without a control group to find it by."""
    sandbox = start(loosen=loosen)
    command = subprocess.Popen([*sandbox.command_prefix, "sh", "-c", "echo begun; sleep 600"], stdout=subprocess.PIPE)
    assert command.stdout is not None
    assert command.stdout.readline() == b"begun\n"
    sandbox.close()
    assert left_of(sandbox.container_name) == []
    command.communicate(timeout=20)
    assert command.returncode in (-9, 137)  # it was killed, or was quick enough to say that what it waits for was


def test_closing_outruns_a_fork_bomb(start) -> None:
    """What makes processes as fast as they are ended is ended too."""
    sandbox = start(resources=ResourceSpec(pids_limit=24))
    bomb = "b() { b & b; }; echo begun; b 2>/dev/null"
    command = subprocess.Popen([*sandbox.command_prefix, "sh", "-c", bomb], stdout=subprocess.PIPE)
    assert command.stdout is not None
    assert command.stdout.readline() == b"begun\n"
    sandbox.close()
    command.communicate(timeout=20)
    assert left_of(sandbox.container_name) == []


@pytest.mark.parametrize(("depth", "length"), [(3000, 3), (60, 200)])
def test_closing_removes_what_is_deeper_than_a_path_or_a_stack(start, python, depth: int, length: int) -> None:
    """A command cannot keep `close` or the clean-up from its end by the folders that it makes."""
    sandbox = start()
    script = f"import os; os.chdir('/tmp')\nfor _ in range({depth}): os.mkdir('d' * {length}); os.chdir('d' * {length})"
    assert sandbox.exec([python, "-c", script]).ok
    sandbox.close()
    assert left_of(sandbox.container_name) == []


def test_a_link_in_the_place_of_its_folder_is_removed_and_not_followed(start, tmp_path: Path) -> None:
    """Where the folder's own place is mounted, a command can put one there."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host/file").write_text("kept")
    sandbox = start()
    (own,) = Path("/tmp").glob(f"sandbox-runner-{sandbox.container_name}-*")
    own.rename(tmp_path / "aside")
    own.symlink_to(tmp_path / "host")
    sandbox.close()
    assert left_of(sandbox.container_name) == []
    assert (tmp_path / "host/file").read_text() == "kept"


#: Writes into the first process inside: it is called MARK, asks for no signal at its parent's end, and pauses.
TAKE_OVER = """
import os, time
fields = open("/proc/1/stat").read().rpartition(")")[2].split()
begin, end = int(fields[45]), int(fields[46])
counter = int(open("/proc/1/syscall").read().split()[-1], 16)
memory = os.open("/proc/1/mem", os.O_RDWR)
os.pwrite(memory, b"MARK".ljust(end - begin, bytes(1)), begin)
# prctl(PR_SET_PDEATHSIG, 0); pause(), for ever
os.pwrite(memory, bytes.fromhex("b89d000000bf0100000031f60f05b8220000000f05ebf7"), counter)
if os.fork() == 0:
    os.fork() or os._exit(0)  # an orphan, whose end wakes it
    os._exit(0)
while not open("/proc/1/syscall").read().startswith("34 "):
    time.sleep(0.001)
print("taken", flush=True)
time.sleep(600)
"""


@pytest.fixture
def mark(require) -> Iterator[str]:
    """What the first process is called once it is taken over; at the end none is left, also if the test fails."""
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if os.uname().machine != "x86_64" or (scope.exists() and scope.read_text().strip() != "0"):
        require("ptrace", "the attack is written in another machine's code, or Yama keeps it from that memory")
    name = f"taken-{os.getpid()}"
    yield name
    for number in called(name):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


GROUPLESS = ("memory_limit", "pids_limit")


@pytest.mark.parametrize("loosen", [(), GROUPLESS])
def test_no_command_outlives_exec(start, python, mark: str, loosen: tuple[str, ...]) -> None:
    """Also one that took over its sandbox's first process: no name leads to that, and it survives bubblewrap's end."""
    sandbox, seen = start(loosen=loosen), set[int]()
    attack = [python, "-c", TAKE_OVER.replace("MARK", mark)]
    result = sandbox.exec(attack, timeout_s=10, on_output=lambda *_: seen.update(called(mark)))
    assert (result.stdout, result.timed_out) == (b"taken\n", True)
    assert seen
    assert called(mark) == set()


@pytest.mark.parametrize("by", ["prefix", "exec"])
def test_what_took_over_the_first_process_is_ended_without_a_group(start, python, mark: str, by: str) -> None:
    """Of the prefix `close` ends it, and of an owner that was killed in `exec` the clean-up."""
    sandbox = start(loosen=GROUPLESS)
    attack = [python, "-c", TAKE_OVER.replace("MARK", mark)]
    script = (
        "import sys; from sandbox_runner.namespace.sandbox import attach; from pathlib import Path\n"
        "show = lambda _, data: print(data.decode(), end='', flush=True)\n"
        "attach(sys.argv[1], adopt=False).exec(sys.argv[2:], on_output=show)"
    )
    by_exec = [sys.executable, "-c", script, sandbox.container_name, *attack]
    command = by_exec if by == "exec" else [*sandbox.command_prefix, *attack]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"taken\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert called(mark)
    sandbox.close()
    assert called(mark) == set()


def test_notes_of_ended_commands_do_not_pile_up(start) -> None:
    """Where no group holds it, a command's first process is noted: till `exec` ends, or the prefix is used again."""
    sandbox = start(loosen=GROUPLESS)
    for _ in range(3):
        assert sandbox.exec(["true"]).ok
        assert subprocess.run([*sandbox.command_prefix, "true"]).returncode == 0
    assert len(list(Path(sandbox.command_prefix[-1]).glob("running-*"))) <= 1


def test_a_killed_owner_leaves_what_cleanup_finds(bubblewrap, tmp_path: Path) -> None:
    """Its state folder says whose the rest is; commands die with the owner."""
    script = (
        "import sys, os\n"
        "from sandbox_runner import NamespaceSandbox, SandboxSpec\n"
        "sandbox = NamespaceSandbox(sys.argv[1] + '/w', sys.argv[1] + '/a', SandboxSpec()).start()\n"
        "print(sandbox.container_name, flush=True)\n"
        "sandbox.exec(['sh', '-c', 'echo begun >&2; sleep 600'], on_output=lambda *_: print('begun', flush=True))\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    name = owner.stdout.readline().strip()
    assert owner.stdout.readline() == "begun\n"
    owner.kill()
    owner.wait()
    owner.stdout.close()
    state = StateFolder.find(name)
    assert state is not None
    assert not state.owner_is_alive
    remove_leftovers(state)
    remove_leftovers(state)
    state.remove()
    assert left_of(name) == []


@pytest.mark.parametrize("step", ["make_group", "_make_own_folder", "seccomp.program", "_prove"])
def test_what_a_step_made_is_found_if_the_owner_dies_right_after(bubblewrap, tmp_path: Path, step: str) -> None:
    """What is to be made is noted before it is made, so that no moment is without a note."""
    script = (
        "import os, sys\n"
        "from sandbox_runner import NamespaceSandbox, SandboxSpec\n"
        "from sandbox_runner.namespace import sandbox as namespace\n"
        "owner, _, name = ('namespace.' + sys.argv[2]).rpartition('.')\n"
        "owner = eval(owner)\n"
        "step = getattr(owner, name)\n"
        "def die(*arguments, **named):\n"
        "    step(*arguments, **named)\n"
        "    os.kill(os.getpid(), 9)\n"
        "setattr(owner, name, die)\n"
        "NamespaceSandbox(sys.argv[1] + '/w', sys.argv[1] + '/a', SandboxSpec()).start()\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), step])
    assert owner.wait() == -9
    for state in StateFolder.all():
        if state.owner is not None and state.owner.pid == owner.pid:
            remove_leftovers(state)
            state.remove()
    assert left_of(f"sandbox-{owner.pid}-*") == []


def test_an_owner_killed_at_any_moment_leaves_nothing_that_is_not_found(bubblewrap, tmp_path: Path) -> None:
    """Killed while it starts, works or closes: one clean-up later there is no file, group or process of it."""
    script = (
        "import sys\n"
        "from sandbox_runner import NamespaceSandbox, SandboxSpec\n"
        "print('begun', flush=True)\n"
        "while True:\n"
        "    with NamespaceSandbox(sys.argv[1] + '/w', sys.argv[1] + '/a', SandboxSpec()).start() as sandbox:\n"
        "        sandbox.exec(['true'])\n"
    )
    chance = random.Random(4)
    owners = []
    for _ in range(15):
        owner = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"begun\n"
        with pytest.raises(subprocess.TimeoutExpired):
            owner.wait(chance.uniform(0.02, 0.3))
        owner.kill()
        owner.communicate()
        owners.append(owner.pid)
    names = {state.name for state in StateFolder.all() if state.owner is not None and state.owner.pid in owners}
    found = [one for one in listed() if one.name in names]
    assert found
    assert all(one.why for one in found)
    remove(found)
    assert [left for number in owners for left in left_of(f"sandbox-{number}-*")] == []
    assert os.listdir(tmp_path / "w") == []
    assert os.listdir(tmp_path / "a") in ([], ["sandbox.json"])


def test_a_kept_sandbox_can_be_attached(start) -> None:
    """Its /tmp is still there; who attaches it owns it, and closes it."""
    sandbox = start(keep_container=True)
    sandbox.exec(["sh", "-c", "echo kept > /tmp/file"])
    sandbox.close()
    again = attach(sandbox.container_name)
    assert again.exec(["cat", "/tmp/file"]).stdout == b"kept\n"
    state = StateFolder.find(sandbox.container_name)
    assert state is not None
    again.close()
    remove_leftovers(state)
    state.remove()
    assert left_of(sandbox.container_name) == []
    with pytest.raises(SandboxGone, match=f"there is no sandbox named {sandbox.container_name}"):
        attach(sandbox.container_name)


def test_a_name_that_is_taken_is_refused(start, tmp_path: Path) -> None:
    """The sandbox that has it stays as it is."""
    first = start()
    with pytest.raises(StartFailed, match="is there already"):
        NamespaceSandbox(tmp_path / "w", tmp_path / "a", SandboxSpec(), first.container_name).start()
    assert first.exec(["true"]).ok


@pytest.mark.parametrize("wall", ["init", "no_new_privileges", "read_only_root"])
def test_a_wall_that_always_stands_cannot_be_loosened(tmp_path: Path, wall: str) -> None:
    """The error says why; nothing was made."""
    with pytest.raises(InvalidSpec, match=f"loosen: the namespace backend cannot go without {wall}: "):
        NamespaceSandbox(tmp_path / "w", tmp_path / "a", SandboxSpec(loosen=(wall,))).start()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("fields", [{"image_ref": "debian"}, {"runtime": "runsc"}])
def test_a_field_for_images_is_refused(tmp_path: Path, fields: dict[str, str]) -> None:
    """There is no image here, so none is silently ignored."""
    with pytest.raises(InvalidSpec, match="the namespace backend has no image"):
        NamespaceSandbox(tmp_path / "w", tmp_path / "a", SandboxSpec(**fields)).start()
    assert os.listdir(tmp_path) == []


def test_a_loosened_user_is_root_inside_alone(start, tmp_path: Path) -> None:
    """uid 0 of the sandbox's own user namespace: what it makes is the same user's outside."""
    sandbox = start(loosen=("user",))
    assert sandbox.exec(["sh", "-c", "id -u; touch made"]).stdout == b"0\n"
    assert (tmp_path / "workspace/made").stat().st_uid == (tmp_path / "workspace").stat().st_uid


def fake(tmp_path: Path, script: str) -> dict[str, str]:
    """An environment in which bubblewrap is *script*."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/bwrap").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin/bwrap").chmod(0o755)
    return {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        ("echo bubblewrap 0.6.1", BackendUnavailable, "bubblewrap 0.7 or later is needed"),
        ("echo nonsense", BackendUnavailable, "bubblewrap 0.7 or later is needed"),
        (
            '[ "$1" = --version ] && echo bubblewrap 0.8.0 && exit; '
            "echo 'bwrap: No permissions to create new namespace' >&2; exit 1",
            BackendUnavailable,
            "the kernel refuses a user namespace to uid",
        ),
        (
            '[ "$1" = --version ] && echo bubblewrap 0.8.0 && exit; echo "bwrap: oops" >&2; exit 1',
            StartFailed,
            "^bwrap: oops$",
        ),
        (
            # It runs the command, but not in a sandbox.
            '[ "$1" = --version ] && echo bubblewrap 0.8.0 && exit; '
            'while [ "$1" != -- ]; do shift; done; shift; exec "$@"',
            StartFailed,
            "did not say why",
        ),
        ('[ "$1" = --version ] && echo bubblewrap 0.8.0 && exit; exit 0', StartFailed, "did not say why"),
    ],
)
def test_a_bubblewrap_that_does_not_work_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch, script: str, error: type[Exception], said: str
) -> None:
    """Readiness is proved: that it ran, and even said nothing, is no sandbox."""
    monkeypatch.setenv("PATH", fake(tmp_path, script)["PATH"])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    spec = SandboxSpec(loosen=GROUPLESS)  # no ceiling is needed to see it
    with pytest.raises(error, match=said):
        NamespaceSandbox(tmp_path / "w", tmp_path / "a", spec, name := f"proved-{os.getpid()}").start()
    assert left_of(name) == []
    assert sorted(name for name in os.listdir(tmp_path) if name.startswith("sandbox-runner")) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--tmpfs /workspace", "a command inside does not see the workspace"),
        ("--cap-add ALL", "these walls do not stand: capabilities$"),
        ("--remount-ro /tmp", "^/tmp cannot be written inside by uid"),
    ],
)
def test_a_sandbox_that_is_not_as_asked_does_not_start(
    bubblewrap, tmp_path: Path, monkeypatch, more: str, said: str
) -> None:
    """It runs commands, and they end well, but one thing is not as the spec has it."""
    script = f'[ "$1" = --version ] && exec {bubblewrap} --version; args=$2; shift 2; exec {bubblewrap} --args $args'
    monkeypatch.setenv("PATH", fake(tmp_path, f'{script} {more} "$@"')["PATH"])
    with pytest.raises(StartFailed, match=said):
        NamespaceSandbox(tmp_path / "w", tmp_path / "a", SandboxSpec(), name := f"almost-{os.getpid()}").start()
    assert left_of(name) == []


def test_a_failed_start_says_so_in_its_records(tmp_path: Path, monkeypatch) -> None:
    """The artifacts folder has the reason."""
    script = '[ "$1" = --version ] && echo bubblewrap 0.8.0 && exit; echo "bwrap: oops" >&2; exit 1'
    monkeypatch.setenv("PATH", fake(tmp_path, script)["PATH"])
    with pytest.raises(StartFailed):
        NamespaceSandbox(tmp_path / "w", tmp_path / "a", SandboxSpec(loosen=GROUPLESS)).start()
    said = json.loads((tmp_path / "a/sandbox.json").read_text())
    assert (said["status"], said["error"], said["message"]) == ("failed", "SandboxStartFailed", "bwrap: oops")


def test_without_bubblewrap_the_remedy_is_named(tmp_path: Path, monkeypatch) -> None:
    """Nothing is made."""
    monkeypatch.setattr(namespace, "find_bubblewrap", lambda: None)
    with pytest.raises(BackendUnavailable) as caught:
        NamespaceSandbox(tmp_path / "w", tmp_path / "a", SandboxSpec()).start()
    assert str(caught.value).startswith("bubblewrap is missing: `apt install bubblewrap`")
    assert os.listdir(tmp_path) == []


def test_a_sandbox_that_is_removed_under_a_command_is_gone(start) -> None:
    """`cleanup` by somebody else: the command is ended, and that is no result of it."""
    sandbox = start()
    state = StateFolder.find(sandbox.container_name)
    assert state is not None

    def take(*_: object) -> None:
        remove_leftovers(state)

    with pytest.raises(SandboxGone, match="was closed while a command ran in it"):
        sandbox.exec(["sh", "-c", "echo; sleep 600"], on_output=take)


def test_a_removal_that_ends_the_first_process_inside_first_is_no_result(start) -> None:
    """Bubblewrap lives long enough to tell that one's end, as if the command had been killed by itself."""
    sandbox = start()
    state = StateFolder.find(sandbox.container_name)
    assert state is not None

    def take(*_: object) -> None:
        (state.path / enter.PLAN).unlink()
        for number in called(title(sandbox.container_name)):
            end_first(number, None)

    with pytest.raises(SandboxGone, match="was closed while a command ran in it"):
        sandbox.exec(["sh", "-c", "echo; sleep 600"], on_output=take)
    assert not called(title(sandbox.container_name))


def test_a_command_that_kills_itself_has_that_as_its_result(start) -> None:
    """The sandbox is there as before."""
    sandbox = start()
    assert sandbox.exec(["sh", "-c", "kill -9 $$"]).signal == 9
    assert sandbox.exec(["true"]).ok
