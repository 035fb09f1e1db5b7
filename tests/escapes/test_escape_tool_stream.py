"""The tool stream as a way out: the only thing of the host that a program can write to, byte by byte."""

import os
import socket
import struct
import time
from pathlib import Path

import pytest

from isorun import Limits
from tests.escapes.attacking import attack, still_answers
from tests.escapes.conftest import SMALL
from tests.unit.records import CONTEXT

pytestmark = pytest.mark.usefixtures("unharmed")

#: Descriptor 3 as a program would take it over, and the frames that it can make by hand.
STREAM = """
import array, json, os, socket, struct, sys, time
stream = socket.socket(fileno=os.dup(3))
def frame(body, header=None):
    return struct.pack("!II", len(body), len(body) if header is None else header) + body
def message(**fields):
    return frame(json.dumps({"v": 1, "blobs": [], **fields}).encode())
def log(text):
    return message(t="Log", level="INFO", name="forged", text=text)
"""
_STAY = "\nprint('still here', flush=True)\ntime.sleep(60)\n"

CONTEXT_AS_TREE = {name: getattr(CONTEXT, name) for name in CONTEXT.fields}
#: What is sent, and what the host says of it.
VIOLATIONS = {
    "garbage": ("b'GET / HTTP/1.1' + bytes(64)", "frame of 1195725856 bytes exceeds 16777216"),
    "length 0xFFFFFFFF": ("b'\\xff' * 8", "frame of 4294967295 bytes exceeds 16777216"),
    "one byte over": ("struct.pack('!II', (16 << 20) + 1, 10)", "frame of 16777217 bytes exceeds 16777216"),
    "header beyond frame": ("struct.pack('!II', 4, 9)", "header of 9 bytes exceeds its frame of 4"),
    "empty": ("frame(b'')", None),
    "not UTF-8": ("frame(b'\\xff\\xfe{}')", None),
    "not JSON": ("frame(b'{\"v\": 1,')", None),
    "not an object": ("frame(b'[]')", None),
    "NaN": ('frame(b\'{"v":1,"t":"Log","level":"a","name":"b","text":NaN,"blobs":[]}\')', None),
    "nested": ("frame(b'[' * 100000)", None),
    "a huge number": ("frame(b'{\"v\":' + b'9' * 5000 + b'}')", None),
    "another version": ("message(v=2, t='Log')", "this side speaks version 1, the peer sent 2"),
    "unknown message": ("message(t='Exec')", "unknown message type 'Exec'"),
    "missing field": ("message(t='Log', level='INFO', name='x')", "Log lacks text"),
    "extra field": ("message(t='Log', level='a', name='b', text='c', path='d')", "Log has no field 'path'"),
    "wrong type": ("message(t='Log', level='INFO', name='x', text=[])", "Log.text must be str, got list"),
    "a blob nobody names": ("message(t='Log', level='a', name='b', text='c', blobs=[4])", None),
    "the supervisor's Reply": ("message(t='Reply', id=1, value=1)", "program may not send Reply when open"),
    "the supervisor's Refused": (
        "message(t='Refused', id=1, error='ToolDenied', text='x')",
        "program may not send Refused when open",
    ),
    "the host's Go": (
        f"message(t='Go', argv=[], env={{}}, context={CONTEXT_AS_TREE})",
        "program may not send Go when open",
    ),
    "the host's Put": (
        "message(t='Put', path='../../etc/passwd', data={'$blob': 0}, append=False, mode=511, blobs=[0])",
        "program may not send Put when open",
    ),
    "the zygote's Exited": (
        "message(t='Exited', slot=1, code=0, signal=None, user_s=0.0, system_s=0.0, max_rss_bytes=0)",
        "program may not send Exited when open",
    ),
    "the slot's Ready": (
        "message(t='Ready', isolation={'level': 'full'})",
        "program may not send Ready when open",
    ),
    "a second ending": (
        "message(t='Ended', claim=dict(type='A', message='', errno=None, line=None, source='', packages='')) * 2",
        "program may not send Ended when ended",
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_breach_ends_the_run_and_says_which(sealed, name) -> None:
    """Bytes that are no legal message end the run at once: protocol_violation, with what was wrong in
    words."""
    sent, reason = VIOLATIONS[name]
    result = sealed.execute(STREAM + f"print('before', flush=True)\nstream.sendall({sent})" + _STAY, timeout_s=20)
    assert (result.status, result.error.code) == ("protocol_violation", "protocol_violation"), result.report_text
    assert result.error.message.startswith("the program broke the tool protocol: ")
    if reason is not None:
        reason = reason.replace("exceeds 16777216", "exceeds 65536")  # what a stream without tools takes
        assert result.error.message == f"the program broke the tool protocol: {reason}"
    assert result.stdout.startswith("before\n")
    assert result.usage["wall_s"] < 10


def test_legal_messages_are_no_breach(sealed) -> None:
    """The control: the same hand-made frames, well-formed, are taken, and the run ends as the program
    does."""
    result = sealed.execute(STREAM + "stream.sendall(log('by hand'))\nprint('done')")
    assert (result.status, result.stdout) == ("ok", "done\n")
    assert "forged by hand" in result.infra_log_tail


def test_a_breach_in_the_last_bytes_counts(sealed) -> None:
    """Garbage sent by a program that then exits 0 is still found: ok is not to be had by being quick."""
    result = sealed.execute(STREAM + "stream.sendall(b'\\xff' * 8)\nos._exit(0)")
    assert result.status == "protocol_violation"


def test_a_frame_that_never_ends_holds_nobody_up(sealed) -> None:
    """Half a frame, then silence: the host keeps at most one frame, and the program's exit ends the run."""
    result = sealed.execute(STREAM + "stream.sendall(struct.pack('!II', 64 << 10, 10) + b'x' * 50000)\nprint('done')")
    assert (result.status, result.stdout) == ("ok", "done\n")


def _held(name: str) -> list[str]:
    """The descriptors of this process that lead to a file of that name, wherever it is mounted."""
    folder = Path("/proc/self/fd")
    return [number for number in os.listdir(folder) if _target(folder / number).endswith(name)]


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def test_descriptors_sent_to_us_are_dropped(sealed) -> None:
    """SCM_RIGHTS beside legal frames: the frames are taken, and no descriptor of the program's file is ever
    ours."""
    code = (
        STREAM
        + """
mine = os.open("/tmp/sent-to-the-host", os.O_CREAT | os.O_RDWR)
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [mine] * 5))]
for number in range(40):
    stream.sendmsg([log(f"with rights {number}")], rights)
print("sent", flush=True)
time.sleep(60)
"""
    )
    run = sealed.start(code)
    next(event for event in run.events() if event.kind == "output")
    still_answers(sealed)  # another run's worth of time for the host to read them
    assert _held("sent-to-the-host") == []
    result = run.cancel()
    assert (result.status, result.stdout) == ("cancelled", "sent\n")
    assert "with rights 39" in result.infra_log_tail


def test_a_receiver_that_makes_room_does_get_descriptors(tmp_path) -> None:
    """The control: sent to a socket read with room for them, a descriptor arrives and is found by the same
    search."""
    ours, theirs = socket.socketpair()
    with ours, theirs, open(tmp_path / "sent-to-the-host", "wb") as file:
        socket.send_fds(theirs, [b"x"], [file.fileno()])
        _, received, _, _ = socket.recv_fds(ours, 1, 4)
        assert str(received[0]) in _held("sent-to-the-host")
        os.close(received[0])


def test_urgent_data_does_not_spin_the_host(sealed) -> None:
    """MSG_OOB on the stream neither wakes the host for ever nor ends the run: it uses less than half a CPU
    meanwhile."""
    still_answers(sealed)
    before = time.process_time()
    result = sealed.execute(STREAM + "stream.send(b'!', socket.MSG_OOB)\ntime.sleep(1)\nprint('done')")
    assert result.status in ("ok", "protocol_violation")
    assert time.process_time() - before < 0.5


def test_a_million_small_records_are_bounded(sealed) -> None:
    """A flood of legal Log messages: infra.log keeps 10,000 of them, a neighbour works on, and a flood far
    above that ends the run."""
    code = (
        STREAM
        + """
block = log("x") * 1000
for _ in range(1000):
    stream.sendall(block)
print("all sent", flush=True)
"""
    )
    result = attack(sealed, code, timeout_s=20)
    assert result.status == "protocol_violation"
    assert "too many log records: at most 10000 of them" in result.error.message
    with open(result.out_dir / "logs" / "infra.log", "rb") as file:
        assert sum(b" forged x" in line for line in file) <= 10_000


def test_long_records_are_bounded(sealed) -> None:
    """Records as long as a frame are cut, and all together stay below 8 MiB: the host's disk is not the
    program's."""
    code = STREAM + "block = log('y' * 65000)\nfor _ in range(6):\n    stream.sendall(block)\nprint('all sent')"
    result = sealed.execute(code, timeout_s=20)
    assert result.status == "ok"
    data = (result.out_dir / "logs" / "infra.log").read_bytes()
    assert (data.count(b" forged y"), len(data) < 1 << 20) == (6, True)
    short = STREAM + "block = log('y' * 8000)\nfor _ in range(2000):\n    stream.sendall(block)\nprint('all sent')"
    result = sealed.execute(short, timeout_s=20)
    assert result.status == "ok"
    assert (result.out_dir / "logs" / "infra.log").stat().st_size < 8 << 20


def test_a_flood_of_calls_is_bounded(sealed, without) -> None:
    """Calls without end: each is answered, as many are recorded as the run may make, and nobody's disk
    fills."""
    code = (
        STREAM
        + """
import threading
def read():
    while stream.recv(1 << 16):
        pass
threading.Thread(target=read, daemon=True).start()
for number in range(1, 5001):
    stream.sendall(message(t="Call", id=number, tool="t" * 5000, params={}, reason="", timeout_s=None))
print("all sent", flush=True)
"""
    )
    result = sealed.execute(code, timeout_s=20)
    assert (result.status, result.stdout) == ("ok", "all sent\n")
    assert len(result.tool_calls) == SMALL.tool_calls


def test_calls_far_above_the_budget_end_the_run(sealed) -> None:
    """Each refusal costs the host more than the program: a loop that takes no notice of ten times its budget is ended.

    The control: five times the budget, in the test above.
    """
    code = (
        STREAM
        + """
import threading
def drop():
    while stream.recv(1 << 16):
        pass
threading.Thread(target=drop, daemon=True).start()
number = 0
while True:
    number += 1
    stream.sendall(message(t="Call", id=number, tool="a.b", params={}, reason="", timeout_s=None))
"""
    )
    result = attack(sealed, code, timeout_s=30)
    assert result.status == "protocol_violation"
    assert "too many calls: this run may make 1000" in result.error.message
    assert len(result.tool_calls) == SMALL.tool_calls


#: Frames of one kind without end, each far below the ceilings of old, and what the host says; None: it serves them.
COSTLY = {
    "many values": ("'[' + ','.join(['{}'] * 2000) + ']'", "header of more than 1024 values"),
    "many keys": ("json.dumps({chr(0x400 + n): 0 for n in range(2000)})", "header of more than 1024 values"),
    "lists in lists": ("'[' + ','.join(['[' * 60 + ']' * 60] * 100) + ']'", "header of more than 1024 values"),
    "equal keys": ("'{' + ','.join(['\"a\":0'] * 900) + '}'", "header is not strict JSON: 'duplicate key'"),
    "long numbers": ("'[' + ','.join(['9' * 640] * 90) + ']'", None),
    "numbers of 4,000 digits": ("'[' + '9' * 4000 + ']'", "an int of more than 640 digits"),
    "escapes": ("'\"' + r'\u0041' * 10000 + '\"'", None),
    "small objects": ("'[' + ','.join(['{}'] * 500) + ']'", None),
    "a frame that is larger": ("'\"' + 'x' * 70000 + '\"'", "exceeds 65536"),
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_frame_that_is_costly_to_read_is_refused_or_charged(sealed, name) -> None:
    """Without a bundle nobody reads what a call carries: what takes the host long is a breach, and a neighbour's
    deadline holds beside what is served."""
    value, reason = COSTLY[name]
    code = (
        STREAM
        + f"""
import threading
def drop():
    while stream.recv(1 << 16):
        pass
threading.Thread(target=drop, daemon=True).start()
value = {value}
head = '{{"v":1,"t":"Call","tool":"a.b","reason":"","timeout_s":null,"blobs":[],"params":{{"a":' + value + '}},"id":'
number = 0
while True:
    number += 1
    stream.sendall(frame((head + str(number) + "}}").encode()))
"""
    )
    result = attack(sealed, code, timeout_s=2)
    if reason is None:
        assert result.status in ("timed_out", "protocol_violation"), result.report_text
    else:
        assert (result.status, reason in result.error.message) == ("protocol_violation", True), result.error.message
    assert (result.out_dir / "logs" / "infra.log").stat().st_size < 1 << 20


def test_answers_that_are_not_read_stop_the_reading(sealed) -> None:
    """A program that calls and never reads is read no further once 1 MiB of answers wait: it blocks itself, and
    its deadline ends it. Nothing of ours grows with what it sends."""
    code = (
        STREAM
        + """
number = 0
while True:
    number += 1
    if number % 1000 == 0:
        print(number, flush=True)
    stream.sendall(message(t="Call", id=number, tool="t", params={}, reason="", timeout_s=None))
"""
    )
    result = sealed.execute(code, timeout_s=3)
    assert result.status == "timed_out"
    assert int(result.stdout.split()[-1]) < 50_000  # at 100 bytes an answer: 1 MiB unread, and the socket's own buffers


def test_lines_in_a_record_cannot_forge_the_hosts(sealed) -> None:
    """A newline, an escape sequence or our own prefixes in a record stay inside the line that names the
    program."""
    code = (
        STREAM
        + r"""
stream.sendall(log("x\n2026-01-01T00:00:00.000Z INFO [runtime] ended: forged\r\x1b[2J\u202e"))
stream.sendall(message(t="Log", level="INFO [runtime] ended: forged", name="forged", text="x"))
stream.sendall(message(t="Log", level="WARNING", name="forged [runtime]", text="ended: forged"))
print("done")
"""
    )
    result = sealed.execute(code)
    data = (result.out_dir / "logs" / "infra.log").read_bytes()
    forged = [line.split(b" ", 3) for line in data.splitlines() if b"forged" in line]
    assert [(level, component) for _, level, component, _ in forged] == [
        (b"INFO", b"[program]"),
        (b"INFO", b"[program]"),
        (b"WARNING", b"[program]"),
    ]
    assert all(mark not in data for mark in (b"\x1b", b"\r", "\u202e".encode()))


@pytest.mark.parametrize("kind", ["MemoryError", "OSError", "SystemExit", "Ok"])
def test_a_forged_ending_never_makes_ok(sealed, kind) -> None:
    """Whatever is claimed about an exception, a run that exits 7 is not ok: the kernel's word is the exit."""
    claim = f"dict(type={kind!r}, message='fine', errno=28, line=1, source='', packages='')"
    ended = f"stream.sendall(message(t='Ended', claim={claim}))\n"
    failed = sealed.execute(STREAM + ended + "os._exit(7)")
    assert (failed.ok, failed.exit_code) == (False, 7)
    killed = sealed.execute(STREAM + ended + "os.kill(os.getpid(), 9)")
    assert (killed.status, killed.signal) == ("killed", 9)
    good = sealed.execute(STREAM + ended + "os._exit(0)")
    assert good.status == "ok"  # and a claim cannot spoil what ended well either


def test_closing_the_stream_is_no_crime(sealed) -> None:
    """A program may close or shut down its end; its exit still decides, and an exception is still told
    apart."""
    result = sealed.execute(STREAM + "stream.shutdown(socket.SHUT_RDWR)\nos.close(3)\nprint('done')")
    assert (result.status, result.stdout) == ("ok", "done\n")
    result = sealed.execute(STREAM + "stream.shutdown(socket.SHUT_RDWR)\nraise ValueError('mine')")
    assert (result.status, result.exit_code) == ("failed", 1)
    assert "ValueError: mine" in result.stderr


TRACES = {
    "a FIFO": "os.mkfifo(trace)",
    "a link to a device": "os.symlink('/dev/zero', trace)",
    "a link to a host file": "os.symlink('/etc/passwd', trace)",
    "a directory": "os.mkdir(trace)",
    "nothing": "pass",
    "a gigabyte": "os.truncate(os.open(trace, os.O_CREAT | os.O_RDWR, 0o600), 7 << 20)",
    "not readable": "os.close(os.open(trace, os.O_CREAT | os.O_RDWR, 0))",
}


@pytest.mark.parametrize("kind", TRACES)
def test_the_trace_file_may_be_anything(sealed, kind) -> None:
    """What the host reads after a timeout was the program's to replace: it never blocks, follows or fills
    memory."""
    code = f"""
import os, time
trace = "/workspace/work/.isorun-last-trace"
os.unlink(trace)
{TRACES[kind]}
print("replaced", flush=True)
time.sleep(60)
"""
    result = sealed.execute(code, timeout_s=2)
    assert (result.status, result.stdout) == ("timed_out", "replaced\n")
    assert "root:" not in result.report_text
    assert len(result.error.hint) < 10_000


def test_the_trace_tells_where_a_timeout_struck(sealed) -> None:
    """The control: left alone, that file gives the hint the line that was running."""
    result = sealed.execute("import time\n\ntime.sleep(60)", timeout_s=2)
    assert result.status == "timed_out"
    assert result.error.hint == "last line executed: 3"


def test_a_small_frame_limit_is_obeyed(without) -> None:
    """The cap is the run's own limit, judged before the body is read: one byte over it is refused."""
    limits = Limits(frame_bytes=1000, wall_s=20.0)
    runtime = without(limits=limits)
    result = runtime.execute(STREAM + "stream.sendall(struct.pack('!II', 1001, 10))" + _STAY)
    assert result.error.message == "the program broke the tool protocol: frame of 1001 bytes exceeds 1000"
    assert struct.calcsize("!II") == 8
