"""ATTACKS, tool calls: what a program writes to its tool stream, where a supervisor reads it.

`test_escape_tool_stream` does the same to runs without a bundle, whose stream the host reads itself.
"""

import json
import os
import struct
from pathlib import Path

import pytest

from isorun.supervisor.incarnation import LocalProcess
from tests.bundles import supervisors
from tests.escapes.attacking import attack
from tests.escapes.conftest import SMALL
from tests.escapes.test_escape_tool_stream import _STAY, STREAM, VIOLATIONS
from tests.escapes.tool_bundle import PRELUDE

pytestmark = pytest.mark.usefixtures("unharmed", "supervised")

CALL = """
def call(number, tool="good.add", params={"a": 40, "b": 2}, timeout_s=None):
    return message(t="Call", id=number, tool=tool, params=params, reason="", timeout_s=timeout_s)
def answers(count):
    data, found = b"", []
    while len(found) < count:
        while len(data) < 8 or len(data) - 8 < struct.unpack("!I", data[:4])[0]:
            got = stream.recv(1 << 20)
            assert got, "the stream ended"
            data += got
        length, header = struct.unpack("!II", data[:8])
        found.append(json.loads(data[8:8 + header]))
        data = data[8 + length:]
    return found
"""


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_breach_ends_the_run_and_says_which(tooled, name) -> None:
    """Bytes that are no legal message end the run at once, in words; the supervisor of all goes on."""
    sent, reason = VIOLATIONS[name]
    result = tooled.execute(STREAM + f"print('before', flush=True)\nstream.sendall({sent})" + _STAY, timeout_s=20)
    assert (result.status, result.error.code) == ("protocol_violation", "protocol_violation"), result.report_text
    assert result.error.message.startswith("the program broke the tool protocol: ")
    if reason is not None:
        assert result.error.message == f"the program broke the tool protocol: {reason}"
    assert result.stdout.startswith("before\n")
    assert result.usage["wall_s"] < 10


def test_the_control_well_formed_frames_by_hand_are_answered(tooled) -> None:
    """The same bytes, made right, are a call with a result."""
    result = tooled.execute(STREAM + CALL + "stream.sendall(call(1))\nprint(answers(1)[0]['value'])", timeout_s=20)
    assert (result.status, result.stdout) == ("ok", "42\n"), result.report_text


def test_a_program_that_leaves_its_stream_full_has_a_result(tooled) -> None:
    """Calls that nobody can take any more, since as many as may be are open, do not hold up the end of the run."""
    full = """
stream.settimeout(0.5)
number = 0
try:
    while True:
        number += 1
        stream.sendall(message(t="Call", id=number, tool="bad.ahangs", params={}, reason="x" * 4000, timeout_s=None))
except TimeoutError:
    pass
print("full", number > 64, flush=True)
os._exit(0)
"""
    result = tooled.execute(STREAM + CALL + full, timeout_s=20)
    assert (result.status, result.stdout) == ("ok", "full True\n"), result.report_text
    assert result.timings["total_s"] < 9
    # Control: that of the hand-made frames above.


def test_a_breach_in_the_last_bytes_counts(tooled) -> None:
    """Garbage sent by a program that then exits 0 is found in the supervisor too."""
    result = tooled.execute(STREAM + "stream.sendall(b'\\xff' * 8)\nos._exit(0)")
    assert result.status == "protocol_violation"


def test_a_truncated_frame_holds_nobody_up(tooled) -> None:
    """Half a frame, then silence or the end: the calls before it are answered, and the exit decides."""
    code = STREAM + CALL + "stream.sendall(call(1) + call(2)[:-3])\nprint(answers(1)[0]['value'])"
    result = tooled.execute(code, timeout_s=20)
    assert (result.status, result.stdout) == ("ok", "42\n")
    assert [c["status"] for c in result.tool_calls] == ["ok"]


def test_a_slow_frame_is_waited_for_without_holding_others_up(tooled) -> None:
    """A call sent byte by byte is answered in the end, and the neighbour's calls are answered meanwhile."""
    code = STREAM + CALL + "for byte in call(1):\n    stream.sendall(bytes([byte]))\n    time.sleep(0.005)\n"
    result = attack(tooled, code + "print(answers(1)[0]['value'])", timeout_s=20)
    assert (result.status, result.stdout) == ("ok", "42\n")


@pytest.mark.parametrize("depth", [60, 61, 62, 63])
def test_params_as_deep_as_a_frame_can_hold_are_journalled(tooled, depth) -> None:
    """Nested to the last legal level, granted or not, they neither hide the call from the journal nor harm anybody."""
    code = (
        PRELUDE
        + f"""
deep = 1
for _ in range({depth}):
    deep = [deep]
show(await by_id("good.echo", value=deep) == deep, await by_id("no.such", value=deep))
"""
    )
    result = tooled.execute(code, timeout_s=20)
    assert json.loads(result.stdout) == [True, ["ToolDenied", "no such tool for this run"]], result.report_text
    assert [c["status"] for c in result.tool_calls] == ["ok", "ToolDenied"]


def test_params_deeper_than_that_are_no_message(tooled) -> None:
    """The control of the depth: one level more, made by hand, is a breach."""
    code = (
        STREAM + CALL + "deep = 1\nfor _ in range(64):\n    deep = [deep]\nstream.sendall(call(1, params={'a': deep}))"
    )
    result = tooled.execute(code + _STAY, timeout_s=20)
    assert result.status == "protocol_violation"
    assert "nested deeper than 64 levels" in result.error.message


def test_a_reused_request_id_is_a_breach(tooled) -> None:
    """Two calls in flight under one id end the run: an answer would be anybody's."""
    twice = "stream.sendall(call(7, 'bad.ahangs', {}) + call(7, 'good.add'))"
    result = tooled.execute(STREAM + CALL + twice + _STAY, timeout_s=20)
    assert result.error.message == "the program broke the tool protocol: call 7 is already in flight"
    again = "stream.sendall(call(7))\nanswers(1)\n" * 2
    control = tooled.execute(STREAM + CALL + again + "print('again')", timeout_s=20)
    assert (control.status, control.stdout) == ("ok", "again\n")


IDS = (0, -1, 2**63 - 1, -(2**63))


def test_any_id_is_answered_under_itself(tooled) -> None:
    """Zero, negative and the largest ids are ids like others."""
    code = STREAM + CALL + f"ids = {IDS}\nstream.sendall(b''.join(map(call, ids)))\nfound = answers(4)\n"
    result = tooled.execute(code + "print(sorted(a['id'] for a in found) == sorted(ids))", timeout_s=20)
    assert (result.status, result.stdout) == ("ok", "True\n"), result.report_text
    assert sorted(c["call_id"] for c in result.tool_calls) == sorted(IDS)


def test_a_thousand_calls_at_once(tooled) -> None:
    """All are answered, as many run together as may, and a neighbour works on."""
    code = PRELUDE + "show(sum(await asyncio.gather(*[good.add(a=n) for n in range(1000)])))"
    result = attack(tooled, code, timeout_s=25)
    assert (result.status, json.loads(result.stdout)) == ("ok", [sum(range(1000))]), result.report_text
    assert {c["status"] for c in result.tool_calls} == {"ok"}
    assert len(result.tool_calls) == SMALL.tool_calls


def test_a_thousand_calls_that_hang(tooled) -> None:
    """They wait for their turn and expire; the next run finds every place free."""
    code = (
        PRELUDE
        + """
found = await asyncio.gather(*[by_id("bad.ahangs", timeout_s=1) for n in range(1000)])
show(sorted({error for error, _ in found}), len(found))
"""
    )
    result = attack(tooled, code, timeout_s=25)
    assert (result.status, json.loads(result.stdout)) == ("ok", [["ToolTimeout"], 1000]), result.report_text


def test_calls_beyond_the_budget_are_refused_and_not_recorded(tooled) -> None:
    """Probing has an end, and fills nobody's disk."""
    code = (
        STREAM
        + CALL
        + """
for block in range(30):
    stream.sendall(b"".join(call(block * 100 + n, "no.such") for n in range(100)))
    found = answers(100)
print(found[-1]["error"])
"""
    )
    result = tooled.execute(code, timeout_s=20)
    assert result.stdout == "ToolBudgetExceeded\n", result.report_text
    assert len(result.tool_calls) == SMALL.tool_calls


def test_a_program_that_reads_nothing_blocks_itself(tooled) -> None:
    """Calls without end whose answers are not read: the supervisor keeps no more than its share of them."""
    before = _rss_kib(_supervisor(tooled))
    code = (
        STREAM
        + CALL
        + """
number = 0
big = {"value": "x" * 200_000}
while True:
    number += 1
    stream.sendall(call(number, "good.echo", big))
"""
    )
    result = attack(tooled, code, timeout_s=2)
    assert result.status == "timed_out"
    assert _rss_kib(_supervisor(tooled)) - before < 100 << 10


def _supervisor(runtime) -> int:
    """The pid of the runtime's supervisor, as one of its tools sees it."""
    process = runtime._original._supervisor._process._process
    if isinstance(process, LocalProcess):
        return int(process._popen.pid)
    (pid,) = supervisors()
    return pid


def _rss_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def test_descriptors_sent_to_the_supervisor_are_dropped(tooled) -> None:
    """SCM_RIGHTS beside legal calls: they are answered, and not one descriptor accumulates.

    That a receiver with room for them does get them: `test_a_receiver_that_makes_room_does_get_descriptors`.
    """
    code = (
        STREAM
        + CALL
        + """
mine = os.open("/tmp/sent-to-the-supervisor", os.O_CREAT | os.O_RDWR)
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [mine] * 5))]
for number in range(200):
    stream.sendmsg([call(number)], rights)
    answers(1)
print("sent", flush=True)
time.sleep(60)
"""
    )
    folder = Path(f"/proc/{_supervisor(tooled)}/fd")
    run = tooled.start(code)
    next(event for event in run.events() if event.kind == "output")
    during = [os.readlink(folder / name) for name in os.listdir(folder)]
    assert [target for target in during if "sent-to-the-supervisor" in target] == []
    assert len(during) < 40
    result = run.cancel()
    assert (result.status, result.stdout) == ("cancelled", "sent\n")
    assert len(result.tool_calls) == 200


def test_runs_leave_no_descriptor_in_the_supervisor(tooled) -> None:
    """Streams, directories and tables of a hundred runs are closed when they end, however they end."""
    folder = Path(f"/proc/{_supervisor(tooled)}/fd")
    tooled.execute("pass")
    before = len(os.listdir(folder))
    for number in range(20):
        tooled.execute(STREAM + ("stream.sendall(b'\\xff' * 8)" if number % 2 else "stream.shutdown(2)"), timeout_s=10)
    assert len(os.listdir(folder)) == before


def test_a_call_that_is_late_before_it_is_made_is_not_begun(tooled) -> None:
    """A time of zero or less is over at once: the tool is not carried out. The control: with time, it is."""
    code = (
        STREAM
        + CALL
        + """
name = {"name": os.environ.get("X", str(time.time_ns()))}
stream.sendall(call(1, "good.count", name, 0) + call(2, "good.count", name, -1e300) + call(3, "good.count", name, 1e-9))
late = answers(3)
stream.sendall(call(4, "good.counted", name) )
none = answers(1)
stream.sendall(call(5, "good.count", name))
print([a.get("error") for a in late], none[0]["value"], answers(1)[0]["value"])
"""
    )
    result = tooled.execute(code, timeout_s=20)
    assert result.stdout == f"{['ToolTimeout'] * 3} 0 1\n", result.report_text


def test_a_call_after_the_deadline_of_the_run(tooled) -> None:
    """A program that goes on calling after SIGTERM is killed at the end of its grace; then nothing is carried out."""
    code = (
        PRELUDE
        + """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    await by_id("good.count", name="late")
    await asyncio.sleep(0.01)
"""
    )
    result = tooled.execute(code, timeout_s=2)
    assert result.status == "timed_out"
    assert _still(tooled, "late") >= 1


def test_a_call_after_the_end_of_the_program(tooled) -> None:
    """A daemon that took the stream over dies with the run; what it had sent is not carried out afterwards."""
    code = (
        STREAM
        + CALL
        + """
if os.fork() == 0:
    os.setsid()
    number = 0
    while True:
        number += 1
        stream.sendall(call(number, "good.count", {"name": "after"}))
        answers(1)
time.sleep(0.3)
print("gone")
"""
    )
    result = tooled.execute(code, timeout_s=20)
    assert (result.status, result.stdout) == ("ok", "gone\n")
    assert _still(tooled, "after") >= 1  # the control: while the program lived, its child's calls were its own


def _still(runtime, name: str) -> int:
    """How often *name* was counted; twice asked, with another run between, the same."""
    ask = PRELUDE + f"show(await good.counted(name={name!r}))"
    first, second = (json.loads(runtime.execute(ask, timeout_s=20).stdout)[0] for _ in range(2))
    assert first == second
    return int(first)


def test_a_message_after_its_own_ending_is_a_breach(tooled) -> None:
    """`Ended` is the loader's last word: a call behind it ends the run."""
    code = (
        STREAM
        + CALL
        + "said = dict(type='A', message='', errno=None, line=None, source='', packages='')\n"
        + "stream.sendall(message(t='Ended', claim=said) + call(1))"
    )
    result = tooled.execute(code + _STAY, timeout_s=20)
    assert result.error.message == "the program broke the tool protocol: program may not send Call when ended"
    assert struct.calcsize("!II") == 8
