"""ATTACKS, tool calls: which tools a program can reach, what it can make them do, and tools that end badly."""

import json
import os
import re
from pathlib import Path

import pytest

from tests.escapes.attacking import attack
from tests.escapes.tool_bundle import PRELUDE

pytestmark = pytest.mark.usefixtures("unharmed", "supervised")

GRANTED = ["good.add", "good.echo", "good.write", "good.read", "good.counted"]
DENIED = ["ToolDenied", "no such tool for this run"]
NAMES = {
    "unknown": "good.nothing",
    "unknown alias": "nothing.at_all",
    "private": "good._private",
    "dunder": "good.__class__",
    "dunder of a tool": "good.add.__globals__",
    "undecorated": "good.undecorated",
    "a module of its": "good.os.system",
    "not granted": "good.never_granted",
    "another alias": "bad.ends",
    "another bundle's": "local_tools.write_note",
    "the host's": "isorun.supervisor.process.main",
    "nothing": "",
    "with NUL": "good.never_granted\0",
    "other case": "GOOD.NEVER_GRANTED",
    "with blanks": " good.never_granted ",
    "a path": "../good.never_granted",
    "very long": "good." + "x" * 1_000_000,
}


@pytest.mark.parametrize("kind", NAMES)
def test_what_was_not_granted_cannot_be_called(tooled, kind) -> None:
    """One answer for all of them, from which nothing is learnt; nothing was carried out."""
    code = PRELUDE + f"show(await by_id({NAMES[kind]!r}), *[await by_id('good.counted', name=n) for n in {_REACHED}])"
    result = tooled.execute(code, tools=GRANTED, timeout_s=20)
    assert json.loads(result.stdout) == [DENIED, 0, 0, 0], result.report_text
    assert result.tool_calls[0]["status"] == "ToolDenied"


_REACHED = ("never_granted", "undecorated", "private")


def test_the_control_granted_or_naive_it_is_reached(tooled) -> None:
    """Granted, the tool answers; and a supervisor that called whatever has the name would reach the helpers."""
    code = (
        PRELUDE
        + "names = ('undecorated', '_private')\n"
        + "show(await by_id('good.never_granted'), *[await by_id('good.naive_call', name=n) for n in names])"
    )
    result = tooled.execute(code, timeout_s=20)
    assert json.loads(result.stdout) == ["reached"] * 3, result.report_text


def test_a_proxy_of_the_programs_own_gives_no_grant(tooled) -> None:
    """What a program builds or changes on its side of the stream changes nothing on the other."""
    code = (
        PRELUDE
        + """
import good
good.never_granted = type(good.add)("good", "never_granted")
good.add.tool_id = "good.never_granted"
show(await said(good.never_granted()), await said(good.add(a=1)), await by_id("good.add", a=1))
"""
    )
    result = tooled.execute(code, tools=GRANTED, timeout_s=20)
    assert json.loads(result.stdout) == [DENIED, DENIED, 1], result.report_text


def test_another_runs_calls_are_not_its_own(tooled) -> None:
    """Two runs use the same ids at once, and each gets its own answers."""
    code = PRELUDE + "show(all([await good.add(a=n, b={b}) == n + {b} for n in range(300)]))"
    one = tooled.start(code.replace("{b}", "1000"))
    two = tooled.start(code.replace("{b}", "-1000"))
    assert [json.loads(run.result().stdout) for run in (one, two)] == [[True], [True]]


# The confused deputy

OUTSIDE = {
    "..": "../../{victim}",
    "many ..": "a/../../../../../../../../{victim}",
    "absolute": "/{victim}",
    "its own name and ..": "/workspace/out/../../{victim}",
    "through a link": "link",
    "through a link in a folder": "folder/link",
    "through a linked folder": "linked/victim",
    "through a relative link": "relative",
    "through /proc": "proc/self/root/{victim}",
    "a FIFO": "fifo",
    "a socket": "socket",
    "a device's name": "/dev/full",
    "NUL": "a\0b",
    "too long": "x" * 300,
}
PLANT = """
import socket
os.makedirs("folder")
os.symlink({victim!r}, "link")
os.symlink({victim!r}, "folder/link")
os.symlink(os.path.dirname({victim!r}), "linked")
os.symlink("../" * 20 + {victim!r}.lstrip("/"), "relative")
os.symlink("/proc", "proc")
os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
"""


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the host's, beside which nothing may appear."""
    (tmp_path / "host").mkdir()
    path = tmp_path / "host" / "victim"
    path.write_text("untouched")
    return path


def _untouched(victim: Path) -> bool:
    return victim.read_text() == "untouched" and os.listdir(victim.parent) == ["victim"]


@pytest.mark.parametrize("kind", OUTSIDE)
def test_a_tool_cannot_be_made_to_write_or_read_outside_the_run(tooled, kernel, victim, kind) -> None:
    """Whatever path a program passes on, and whatever it has planted: nothing outside is opened, nobody blocks."""
    path = OUTSIDE[kind].format(victim=str(victim).lstrip("/"))
    code = (
        PRELUDE
        + PLANT.format(victim=str(victim))
        + f"""
show(*[await by_id("good.write", path={path!r}, data=b"gotcha", mode=mode) for mode in ("wb", "ab", "xb")],
     await by_id("good.read", path={path!r}))
"""
    )
    result = tooled.execute(code, timeout_s=20)
    assert result.status == "ok", result.report_text
    assert "untouched" not in result.stdout
    assert _untouched(victim)
    if kernel == "gvisor" and kind in ("a FIFO", "a socket"):
        return  # it keeps them to itself, so to the tool the name is free
    refused = json.loads(result.stdout)
    assert {answer[0] for answer in refused} == {"ToolFailed"}, refused
    assert {c["status"] for c in result.tool_calls} == {"ToolFailed"}


@pytest.mark.embedded
@pytest.mark.parametrize("path", ["link", "folder/link", "linked/victim"])
def test_the_control_a_naive_tool_is_a_deputy(tooled, victim, path) -> None:
    """A tool that opens the path itself writes to the host's file through the planted link."""
    code = (
        PRELUDE
        + PLANT.format(victim=str(victim))
        + f"show(await by_id('good.naive_write', path={path!r}, data=b'gotcha'))"
    )
    result = tooled.execute(code, timeout_s=20)
    assert json.loads(result.stdout) == [6], result.report_text
    assert victim.read_text() == "gotcha"


def test_the_control_of_the_deputy_inside_it_writes(tooled) -> None:
    """The same tool writes and reads where it may, and the file is the program's and the run's."""
    code = (
        PRELUDE
        + """
written = await by_id("good.write", path="notes/a", data=b"12345")
show(written, open("notes/a").read(), os.stat("notes/a").st_uid == os.getuid())
"""
    )
    result = tooled.execute(code, timeout_s=20)
    assert json.loads(result.stdout) == [5, "12345", True], result.report_text
    assert (result.out_dir / "notes" / "a").read_bytes() == b"12345"


def test_a_link_that_comes_and_goes_is_never_followed(tooled, victim) -> None:
    """A thread that swaps a folder and a link as fast as it can never gets a tool to the other side."""
    code = (
        PRELUDE
        + f"""
import ctypes, threading
os.makedirs("real")
os.symlink(os.path.dirname({str(victim)!r}), "evil")
stop = False
def swap():
    libc = ctypes.CDLL(None)
    while not stop:
        libc.renameat2(-100, b"real", -100, b"evil", 2)
thread = threading.Thread(target=swap)
thread.start()
found = [await by_id("good.write", path="real/victim", data=b"gotcha") for _ in range(300)]
stop = True
thread.join()
show(sorted({{str(f) for f in found}}))
"""
    )
    result = tooled.execute(code, timeout_s=25)
    assert result.status == "ok", result.report_text
    assert _untouched(victim)
    assert set(json.loads(result.stdout)[0]) <= {"6", "['ToolFailed', \"'real/victim' goes through a link\"]"}


def test_a_quota_is_the_programs_own(tooled) -> None:
    """What a tool writes counts against the run: its ceiling stops it, and the tool fails."""
    code = (
        PRELUDE
        + """
found = [await by_id("good.write", path=f"f{n}", data=bytes(8 << 20)) for n in range(6)]
show(*[f if isinstance(f, int) else f[0] for f in found])
"""
    )
    result = tooled.execute(code, timeout_s=25)
    found = json.loads(result.stdout)
    assert found[0] == 8 << 20
    assert "ToolFailed" in found, result.report_text
    assert "No space left on device" in (result.out_dir / "logs" / "infra.log").read_text()


# Results

UNSENDABLE = [
    "too large", "too wide", "an object", "cyclic", "nested", "NaN", "infinite", "surrogates",
    "digits", "changing",
]  # fmt: skip


@pytest.mark.parametrize("what", UNSENDABLE)
def test_a_result_that_cannot_be_sent_fails_its_call_alone(tooled, what) -> None:
    """Over the cap, not encodable, cyclic: the program is told, and the next call is answered."""
    code = PRELUDE + f"show(await by_id('bad.gives', what={what!r}), await by_id('good.add', a=42))"
    result = attack(tooled, code, timeout_s=20)
    refused, after = json.loads(result.stdout)
    assert (refused[0], after) == ("ToolFailed", 42), result.report_text
    assert re.match(r"the tool's result cannot be sent: value|the tool failed \(call \d+\)$", refused[1])
    assert "hush" not in result.stdout
    assert [c["status"] for c in result.tool_calls] == ["ToolFailed", "ok"]


def test_the_control_of_results_a_large_one_arrives(tooled) -> None:
    """Under the cap, bytes and nesting come through whole."""
    code = PRELUDE + "value = [{'a': bytes(5 << 20)}] * 2\nshow(await by_id('good.echo', value=value) == value)"
    assert json.loads(tooled.execute(code, timeout_s=25).stdout) == [True]


# Secrets in errors

RAISED = [
    "ValueError", "OSError", "chained", "group", "surrogates", "long", "lines", "unreadable", "unreadable ToolError",
    "SystemExit", "KeyboardInterrupt", "CancelledError", "TimeoutError", "StopIteration", "GeneratorExit",
]  # fmt: skip


@pytest.mark.parametrize("tool", ["bad.raises", "bad.araises"])
@pytest.mark.parametrize("what", RAISED)
def test_the_text_of_an_error_stays_with_the_host(tooled, tool, what) -> None:
    """Whatever a tool raises, the program learns that it failed, the operator reads why, and others go on."""
    code = PRELUDE + f"show(await by_id({tool!r}, what={what!r}), await by_id('good.add', a=42))"
    result = tooled.execute(code, timeout_s=20)
    refused, after = json.loads(result.stdout)
    number = result.tool_calls[0]["call_id"]
    assert (refused, after) == (["ToolFailed", f"the tool failed (call {number})"], 42), result.report_text
    for path in result.out_dir.rglob("*"):
        if path.is_file() and path.name != "infra.log":
            if path.name == "result.json":
                shown = json.loads(path.read_text())
                shown.pop("infra_log_tail", None)
                assert "hush-SECRET" not in json.dumps(shown)
            else:
                assert b"hush-SECRET" not in path.read_bytes(), path
    log = (result.out_dir / "logs" / "infra.log").read_bytes()
    if not what.startswith("unreadable"):
        assert b"hush-SECRET" in log
    assert len(log) < 8 << 20


def test_the_control_a_tool_error_speaks(tooled) -> None:
    """Only what the author raised to be read is."""
    result = tooled.execute(PRELUDE + "show(await by_id('bad.raises', what='ToolError'))", timeout_s=20)
    assert json.loads(result.stdout) == [["ToolFailed", "mine to say"]]


# Tools that end badly


@pytest.mark.parametrize("tool", ["bad.hangs", "bad.ahangs", "bad.deaf"])
def test_a_tool_that_hangs_costs_its_call_alone(tooled, tool) -> None:
    """Sync, async, or deaf to its cancellation: the call times out, its place is free, others are answered."""
    code = (
        PRELUDE
        + f"""
hung = [asyncio.ensure_future(by_id({tool!r}, timeout_s=0.5)) for _ in range(4)]
first = await by_id("good.add", a=42)
show(first, sorted({{error for error, _ in await asyncio.gather(*hung)}}), await by_id("good.add", a=1))
"""
    )
    result = attack(tooled, code, timeout_s=25)
    assert json.loads(result.stdout) == [42, ["ToolTimeout"], 1], result.report_text


@pytest.mark.parametrize("how", ["exit", "segfault", "SIGKILL", "abort", "closed"])
def test_a_tool_that_ends_the_process_costs_the_calls_in_flight(doomed, how) -> None:
    """The call is unavailable and journalled; this run, its neighbour and later ones are answered by a new process."""
    neighbour = doomed.start(
        PRELUDE
        + """
print("up", flush=True)
seen = []
while seen.count(2) < 20 or ["ToolUnavailable"] not in seen:
    found = await by_id("good.add", a=2)
    seen.append(found if found == 2 else found[:1])
    await asyncio.sleep(0.05)
show([s for s in seen if s != 2])
"""
    )
    next(event for event in neighbour.events() if event.kind == "output")
    code = (
        PRELUDE
        + f"""
lost = [asyncio.ensure_future(by_id("bad.ahangs")) for _ in range(3)]
await asyncio.sleep(0.1)
show(await by_id("bad.ends", how={how!r}), *await asyncio.gather(*lost))
while (last := await by_id("good.add", a=42)) != 42:
    pass
show(last)
"""
    )
    result = doomed.execute(code, timeout_s=25)
    first, last = map(json.loads, result.stdout.splitlines())
    assert {error for error, _ in first} == {"ToolUnavailable"}, result.report_text
    assert last == [42]
    statuses = sorted((c["tool_id"], c["status"]) for c in result.tool_calls if c["status"] != "ok")
    assert statuses == [("bad.ahangs", "ToolUnavailable")] * 3 + [("bad.ends", "ToolUnavailable")]
    neighbour.cancel()
    assert json.loads(doomed.execute(PRELUDE + "show(await by_id('good.add', a=7))", timeout_s=25).stdout) == [7]


FORKS = {
    "child comes back": "'bad.forks', comes_back=True",
    "child exits": "'bad.forks', comes_back=False",
    "in the loop": "'bad.aforks'",
}


@pytest.mark.parametrize("kind", FORKS)
def test_a_tool_that_forks_answers_once(tooled, kind) -> None:
    """A child that comes back from the tool ends there: no second answer, no second record, no second supervisor."""
    code = PRELUDE + f"show(*[await by_id({FORKS[kind]}) for _ in range(5)], await by_id('good.add', a=42))"
    result = attack(tooled, code, timeout_s=25)
    assert result.status == "ok", result.report_text
    assert json.loads(result.stdout) == [*["parent"] * 5, 42]
    assert [c["status"] for c in result.tool_calls] == ["ok"] * 6


@pytest.mark.parametrize("how", ["print", "lines", "log", "descriptor", "no newline", "bytes"])
def test_a_tool_that_floods_its_own_output(tooled, how) -> None:
    """Bounded in infra.log whatever way it takes, escaped, never at the program; the call still ends well."""
    result = attack(tooled, PRELUDE + f"show(await by_id('bad.floods', how={how!r}))", timeout_s=25)
    assert json.loads(result.stdout) == ["done"], result.report_text
    log = (result.out_dir / "logs" / "infra.log").read_bytes()
    assert len(log) < 10 << 20
    assert b"\x1b" not in log
    assert not any(line.split(b" ", 3)[2] == b"[runtime]" and b"forged" in line for line in log.splitlines())
    assert "flood" not in result.stdout + result.stderr


# The journal


def test_a_program_cannot_forge_or_hide_the_journal(tooled) -> None:
    """Files and folders of its own under the journal's names do not stand in the way of the true ones."""
    code = (
        PRELUDE
        + """
open("tool_calls_index.json", "w").write('{"calls": []}')
os.makedirs("logs", exist_ok=True)
os.makedirs("result.json")
await by_id("good.add", a=1)
show("done")
"""
    )
    result = tooled.execute(code, timeout_s=20)
    index = json.loads((result.out_dir / "tool_calls_index.json").read_text())
    assert [entry["tool_id"] for entry in index["calls"]] == ["good.add"]
    assert index["calls"] == [dict(entry) for entry in result.tool_calls]
    assert (result.out_dir / "result.json").is_file()
