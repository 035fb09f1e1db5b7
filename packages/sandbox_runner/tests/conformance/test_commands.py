"""What `exec` and `command_prefix` give of a command: its end, its output, its environment, and nothing of ours."""

import concurrent.futures
import hashlib
import itertools
import os
import resource
import subprocess
from pathlib import Path

import pytest

from sandbox_runner import InvalidSpec

ODD = ["a b", "", "two\nlines", "$HOME", '"', "'", "\\", "*", "-n", "ü", "end\n"]
SHOW = ["python3", "-c", "import sys; sys.stdout.write('|'.join(sys.argv[1:]))"]


def test_the_prefix_runs_a_command_with_its_input_output_and_exit_code(sandbox) -> None:
    """`subprocess.run([*prefix, …])` is as if the command had been started here."""
    script = 'cat; echo "to stderr" >&2; exit 7'
    done = subprocess.run([*sandbox.command_prefix, "sh", "-c", script], input=b"some\0bytes\xff", capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"some\0bytes\xff", b"to stderr\n")


def test_the_prefix_takes_every_argument_as_it_is(sandbox) -> None:
    """Spaces, line breaks, quotes and the empty text arrive unchanged: there is no shell between."""
    done = subprocess.run([*sandbox.command_prefix, *SHOW, *ODD], capture_output=True, text=True)
    assert done.stdout == "|".join(ODD)
    assert done.returncode == 0, done.stderr


def test_exec_takes_every_argument_as_it_is(sandbox) -> None:
    """As with the prefix."""
    result = sandbox.exec([*SHOW, *ODD])
    assert result.stdout.decode() == "|".join(ODD)
    assert (result.exit_code, result.signal, result.stderr, result.ok) == (0, None, b"", True)


@pytest.mark.parametrize("code", [0, 1, 2, 125, 126, 127, 128, 193, 255])
def test_the_exit_code_is_the_commands(sandbox, code) -> None:
    """Each, also those that an engine uses for failures of its own."""
    result = sandbox.exec(["sh", "-c", f"exit {code}"])
    assert (result.exit_code, result.signal, result.ok) == (code, None, code == 0)
    assert (result.stdout, result.stderr) == (b"", b"")


@pytest.mark.parametrize("signal", [1, 6, 9, 11, 15])
def test_the_signal_is_the_one_that_ended_it(sandbox, signal) -> None:
    """And then there is no exit code."""
    result = sandbox.exec(["sh", "-c", f"kill -{signal} $$"])
    assert (result.exit_code, result.signal, result.ok) == (None, signal, False)
    assert (result.stdout, result.stderr, result.timed_out) == (b"", b"", False)


def test_what_is_not_there_is_the_commands_failure(sandbox) -> None:
    """127, as in a shell, with a reason on stderr that names it."""
    result = sandbox.exec(["no-such-command", "x"])
    assert result.exit_code == 127
    assert b"no-such-command" in result.stderr
    assert b"not found" in result.stderr or b"No such file" in result.stderr


def test_what_cannot_be_executed_is_the_commands_failure(sandbox, home) -> None:
    """126, as in a shell."""
    plain = home / "workspace" / "plain"
    plain.write_text("no program\n")
    plain.chmod(0o644)
    result = sandbox.exec(["/workspace/plain"])
    assert result.exit_code == 126
    assert b"denied" in result.stderr.lower()


def test_no_builtin_of_our_shell_is_meant(sandbox) -> None:
    """`exit`, `exec` and a function's name of ours are commands that are not there."""
    for name in ("exit", "exec", "sweep", "oom_kills", ":"):
        assert sandbox.exec([name]).exit_code == 127, name


def test_a_command_begins_in_the_workspace(sandbox) -> None:
    """Unless *cwd* names another folder."""
    assert sandbox.exec(["pwd"]).stdout == b"/workspace\n"
    assert sandbox.exec(["pwd"], cwd="/tmp").stdout == b"/tmp\n"
    assert sandbox.exec(["sh", "-c", "mkdir -p '/tmp/a b'"]).ok
    assert sandbox.exec(["pwd"], cwd="/tmp/a b").stdout == b"/tmp/a b\n"


@pytest.mark.parametrize("place", ["/no/such/folder", "/etc/hosts", "/workspace/a\nb"])
def test_a_folder_that_is_not_there_is_the_callers_mistake(sandbox, place) -> None:
    """`InvalidSpec` that names it; the command was not run."""
    with pytest.raises(InvalidSpec) as raised:
        sandbox.exec(["sh", "-c", "echo ran > /workspace/ran"], cwd=place)
    assert str(raised.value) == f"cwd: there is no folder {place} inside"
    assert sandbox.exec(["test", "-e", "/workspace/ran"]).exit_code == 1


def test_a_command_can_be_another_user(sandbox) -> None:
    """By number; the group is the sandbox's own in a namespace, and the number 0 in a container, unless it is given."""
    shown = sandbox.exec(["id", "-u"], user="1234").stdout
    assert shown == b"1234\n"
    assert sandbox.exec(["sh", "-c", "echo $(id -u):$(id -g)"], user="1234:77").stdout == b"1234:77\n"


def test_the_environment_is_the_sandboxs_and_the_commands(start, monkeypatch) -> None:
    """Allowed names have the caller's value at the time of the call; an override beats them, and `env` beats that."""
    monkeypatch.setenv("SR_ALLOWED", "of the caller, with\na line break")
    monkeypatch.setenv("SR_HIDDEN", "not allowed")
    monkeypatch.setenv("SR_BOTH", "of the caller")
    monkeypatch.delenv("SR_UNSET", raising=False)
    sandbox = start(
        env_allowlist=("SR_ALLOWED", "SR_UNSET", "SR_BOTH", "SR_THREE"),
        env_overrides={"SR_BOTH": "of the spec", "SR_OVER": ' # "$x" \\ = ü ', "SR_EMPTY": "", "SR_THREE": "spec"},
    )
    monkeypatch.setenv("SR_THREE", "caller")
    want = {
        "SR_ALLOWED": "of the caller, with\na line break",
        "SR_BOTH": "of the spec",
        "SR_OVER": ' # "$x" \\ = ü ',
        "SR_EMPTY": "",
        "SR_THREE": "command",
    }
    assert variables(sandbox.exec(["env", "-0"], env={"SR_THREE": "command"}).stdout) == want
    want["SR_THREE"] = "spec"
    assert variables(sandbox.exec(["env", "-0"]).stdout) == want
    by_prefix = subprocess.run([*sandbox.command_prefix, "env", "-0"], capture_output=True, check=True)
    assert variables(by_prefix.stdout) == want
    monkeypatch.setenv("SR_ALLOWED", "later")
    assert variables(sandbox.exec(["env", "-0"]).stdout)["SR_ALLOWED"] == "later"


def variables(shown: bytes) -> dict[str, str]:
    """Those of the test, of what `env -0` printed."""
    return dict(line.split("=", 1) for line in shown.decode().split("\0") if line.startswith("SR_"))


def test_no_name_of_a_variable_is_taken_by_us(sandbox) -> None:
    """What runs around a command uses names of its own, and a value given under any plain name arrives."""
    names = "token keep place reaper kills before code name count counts line pid stat part found rounds spared parents"
    names += " begun left shell TOKEN KEEP HOME"
    env = {name: f"the {name}" for name in names.split()}
    shown = dict(line.split("=", 1) for line in sandbox.exec(["env"], env=env).stdout.decode().splitlines())
    assert {name: shown.get(name) for name in env} == env


def test_nothing_of_ours_is_in_a_commands_environment(sandbox) -> None:
    """Names only: the fewest that programs need."""
    shown = {line.partition("=")[0] for line in sandbox.exec(["env"]).stdout.decode().splitlines()}
    assert shown <= {"PATH", "HOME", "PWD", "OLDPWD", "HOSTNAME", "XDG_CACHE_HOME", "LANG", "TERM"}


def test_stdin_is_the_bytes_given(sandbox) -> None:
    """All of them, also more than a pipe holds, and of any kind; none means an end of file at once."""
    data = bytes(range(256)) * 20_000
    result = sandbox.exec(["sha256sum"], stdin=data)
    assert result.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert sandbox.exec(["wc", "-c"]).stdout.strip() == b"0"
    assert sandbox.exec(["wc", "-c"], stdin=b"").stdout.strip() == b"0"


def test_input_that_nobody_reads_keeps_nobody_waiting(sandbox) -> None:
    """A command that ends without reading is over, whatever was left of its input."""
    result = sandbox.exec(["true"], stdin=b"x" * 5_000_000, timeout_s=60)
    assert result.ok


def test_output_is_passed_on_as_it_comes(sandbox, home) -> None:
    """In order, each stream's bytes under its name, and while the command still runs."""
    came: list[tuple[str, bytes]] = []
    go = home / "workspace" / "go-on"

    def take(stream: str, data: bytes) -> None:
        came.append((stream, data))
        go.touch()

    script = "echo one; while [ ! -e /workspace/go-on ]; do sleep 0.01; done; echo two >&2; echo three"
    result = sandbox.exec(["sh", "-c", script], on_output=take, timeout_s=60)
    assert result.ok, "nothing was passed on before the end"
    go.unlink()
    by_stream = {name: b"".join(data for stream, data in came if stream == name) for name in ("stdout", "stderr")}
    assert by_stream == {"stdout": result.stdout, "stderr": result.stderr}
    assert by_stream == {"stdout": b"one\nthree\n", "stderr": b"two\n"}
    assert came[0] == ("stdout", b"one\n")


def test_what_on_output_raises_ends_the_command(sandbox, marker) -> None:
    """It is raised to the caller, and of the command nothing is left."""

    def refuse(stream: str, data: bytes) -> None:
        raise OSError(28, "no space left")

    with pytest.raises(OSError, match="no space left"):
        sandbox.exec(["sh", "-c", f"setsid sleep {marker.text} & echo x; wait"], on_output=refuse)
    assert marker.seen(sandbox) == []


def test_output_beyond_the_limit_is_dropped_and_said(sandbox) -> None:
    """Of each stream the first bytes are kept; the command runs on to its own end."""
    script = "import sys; sys.stdout.write('o' * 3000 + 'x'); sys.stderr.write('e' * 3000 + 'x'); sys.exit(3)"
    result = sandbox.exec(["python3", "-c", script], max_output_bytes=3000)
    assert (result.stdout, result.stderr) == (b"o" * 3000, b"e" * 3000)
    assert (result.truncated, result.exit_code) == (True, 3)
    result = sandbox.exec(["python3", "-c", script], max_output_bytes=3001)
    assert (len(result.stdout), len(result.stderr), result.truncated) == (3001, 3001, False)
    assert sandbox.exec(["echo", "x"], max_output_bytes=0).truncated


def test_a_flood_of_output_is_read_to_its_end(sandbox) -> None:
    """64 MiB with a small limit: the end and the exit code are known, and what was passed on is what was kept."""
    passed: list[int] = []
    script = "head -c 67108864 /dev/zero; exit 5"
    result = sandbox.exec(
        ["sh", "-c", script], max_output_bytes=1000, on_output=lambda _, data: passed.append(len(data)), timeout_s=120
    )
    assert (len(result.stdout), result.truncated, result.exit_code, sum(passed)) == (1000, True, 5, 1000)


def test_bytes_of_every_kind_arrive(sandbox) -> None:
    """Also on stderr, where our marks travel, and also what begins as they do."""
    garbage = bytes(range(256)) * 40 + b"sandbox-0123456789abcdef0123456789abcdef end 0 0 0\nsandbox-\nsandbox"
    copy = "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data); sys.stderr.buffer.write(data)"
    result = sandbox.exec(["python3", "-c", copy], stdin=garbage)
    assert (result.stdout, result.stderr, result.exit_code) == (garbage, garbage, 0)


FORGE = """
import os, re, sys
try:
    told = open(f"/proc/{os.getppid()}/cmdline", "rb").read()
except OSError:
    told = b""
token = (re.findall(rb"sandbox-[0-9a-f]{32}", told) or [b"sandbox"])[0]
for numbers in (b"1", b"9" * 5000 + b" 0 0", b"-1 0 0", b"x y z", b"\\xff", b"99999 0 0"):
    sys.stderr.buffer.write(token + b" end " + numbers + b"\\n" + token + b" begin x y\\n")
    sys.stderr.buffer.flush()
"""


def test_a_command_that_forges_our_marks_lies_of_itself_alone(sandbox) -> None:
    """It can read what its shell was told. What it writes with that is a result, or output, and no error of ours."""
    result = sandbox.exec(["python3", "-c", FORGE])
    assert result.exit_code is not None
    assert 0 <= result.exit_code <= 255
    assert result.stderr.startswith((b"sandbox-", b"sandbox "))
    assert sandbox.exec(["true"]).ok


def test_a_flood_behind_a_forged_end_is_dropped(sandbox) -> None:
    """It is no longer the command's output, and would otherwise fill the caller's memory."""
    flood = FORGE + 'sys.stderr.buffer.write(token + b" end 0 0 0\\n" + bytes(200 << 20))'
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = sandbox.exec(["python3", "-c", flood], max_output_bytes=1000, timeout_s=60)
    assert len(result.stderr) <= 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_command_can_have_a_large_argument(sandbox) -> None:
    """100 KB of one arrive; more than the system takes is the caller's mistake."""
    assert sandbox.exec(["python3", "-c", "import sys; print(len(sys.argv[1]))", "x" * 100_000]).stdout == b"100000\n"
    with pytest.raises(InvalidSpec, match=r"^argv: an argument, or all of them with the environment, is too long$"):
        sandbox.exec(["true", "x" * 3_000_000])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"argv": "ls -l"}, 'argv: must be a list of texts, for example ["ls", "-l"]'),
        ({"argv": []}, 'argv: must be a list of texts, for example ["ls", "-l"]'),
        ({"argv": [b"ls"]}, 'argv: must be a list of texts, for example ["ls", "-l"]'),
        ({"argv": ["a\0b"]}, "argv: an argument holds a NUL"),
        ({"cwd": "tmp"}, "cwd: 'tmp' must be an absolute path inside"),
        ({"cwd": "/a\0"}, "cwd: '/a\\x00' must be an absolute path inside"),
        ({"cwd": Path("tmp")}, "cwd: 'tmp' must be an absolute path inside"),
        ({"user": "root"}, "user: 'root' must be uid or uid:gid"),
        ({"user": "1:2:3"}, "user: '1:2:3' must be uid or uid:gid"),
        ({"user": 0}, "user: 0 must be uid or uid:gid"),
        ({"timeout_s": 0}, "timeout_s: 0 must be a number above 0"),
        ({"timeout_s": -1.5}, "timeout_s: -1.5 must be a number above 0"),
        ({"timeout_s": float("nan")}, "timeout_s: nan must be a number above 0"),
        ({"timeout_s": "5"}, "timeout_s: '5' must be a number above 0"),
        ({"timeout_s": True}, "timeout_s: True must be a number above 0"),
        ({"timeout_s": float("inf")}, "timeout_s: inf must be a number above 0"),
        ({"stdin": "text"}, "stdin: must be bytes"),
        ({"max_output_bytes": -1}, "max_output_bytes: -1 must be a whole number, 0 or above"),
        ({"max_output_bytes": 1.5}, "max_output_bytes: 1.5 must be a whole number, 0 or above"),
        ({"max_output_bytes": True}, "max_output_bytes: True must be a whole number, 0 or above"),
        ({"env": {"A=B": "x"}}, "env: 'A=B' is not the name of a variable"),
        ({"env": {"": "x"}}, "env: '' is not the name of a variable"),
        ({"env": {"A": 1}}, "env: the value of A must be text without a NUL"),
        ({"env": {"A": "secret\0"}}, "env: the value of A must be text without a NUL"),
        ({"env": {"A": "secret\udcff"}}, "env: the value of A is not UTF-8 text"),
        ({"env": {"A": "s" * 65_001}}, "env: the value of A is longer than the 65000 bytes"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused(sandbox, home, change, said) -> None:
    """`InvalidSpec` names it and shows no value of the environment; no command was run."""
    with pytest.raises(InvalidSpec) as raised:
        sandbox.exec(**{"argv": ["touch", "/workspace/was-run"], **change})
    assert str(raised.value).startswith(said)
    assert "secret" not in str(raised.value)
    assert not (home / "workspace" / "was-run").exists()


def test_the_longest_value_of_a_variable_arrives(sandbox) -> None:
    """As long as the check lets it be."""
    value = "v" * (65_000 - len("LONG="))
    assert sandbox.exec(["sh", "-c", 'printf %s "${#LONG}"'], env={"LONG": value}).stdout == b"64995"


def test_a_result_says_how_long_it_took(sandbox) -> None:
    """Seconds, of the command and what starts it."""
    result = sandbox.exec(["sleep", "0.3"])
    assert 0.3 <= result.duration_s < 30


def test_commands_at_the_same_time_keep_apart(sandbox) -> None:
    """Each has its own input, output and environment."""

    def one(number: int) -> bool:
        script = 'read line; echo "$line $N"; echo "$line" >&2; exit $N'
        result = sandbox.exec(["sh", "-c", script], stdin=b"line %d\n" % number, env={"N": str(number)})
        said = f"line {number}"
        return (result.exit_code, result.stdout, result.stderr) == (
            number,
            f"{said} {number}\n".encode(),
            f"{said}\n".encode(),
        )

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        assert list(threads.map(one, range(12))) == [True] * 12


def test_no_descriptor_is_left_to_a_command(sandbox) -> None:
    """It has its three; none of ours, by which it could write marks or read what another command gets."""
    script = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))"
    # The fourth is that of the listing itself.
    assert sandbox.exec(["python3", "-c", script]).stdout == b"[0, 1, 2, 3]\n"


def test_nothing_of_the_callers_descriptors_is_left_here(sandbox) -> None:
    """As many are open after many commands as before."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in itertools.repeat(None, 5):
        sandbox.exec(["echo", "x"], stdin=b"y", timeout_s=30)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("value", ["two\nlines", "-----BEGIN KEY-----\nabc=\n-----END KEY-----\n", "a\r\nb", "\n"])
def test_a_commands_variable_may_have_line_breaks(sandbox, value) -> None:
    """As one without has them, beside it; and no value is on a command line outside."""
    show = "import os, sys; sys.stdout.write(os.environ['BROKEN'] + '|' + os.environ['WHOLE'])"
    result = sandbox.exec(["python3", "-c", show], env={"BROKEN": value, "WHOLE": "one line"})
    assert result.stdout == f"{value}|one line".encode()
