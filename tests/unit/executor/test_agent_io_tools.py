"""The program's end of the tool stream: every call gets its own answer or a typed error, whoever waits and however."""

import asyncio
import contextlib
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from isorun.executor.calls import agent_io_tools as tools
from isorun.executor.calls import proxies
from isorun.wire.frames import MAX_FRAME, Frames
from isorun.wire.messages import REFUSALS, Call, Message, Refused, Reply, decode, encode
from isorun.wire.session import Session, Side, State
from tests.unit.forked import in_child

_PATIENCE_S = 60  # a machine under load is slow; a lost answer is for ever


class Peer:
    """The supervisor's end: what it is told to do, and no more."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self._frames = Frames()

    def read(self) -> Call | None:
        """The next call; None once the program's end is closed."""
        while (frame := self._frames.next()) is None:
            data = self.channel.recv(1 << 16)
            if not data:
                return None
            self._frames.feed(data)
        call = decode(*frame)
        assert isinstance(call, Call)
        return call

    def send(self, message: Message) -> None:
        """All of it."""
        self.channel.sendall(encode(message))

    def answer(self, call: Call | None) -> None:
        """What `params["n"]` was, or everything."""
        assert call is not None
        self.send(Reply(id=call.id, value=call.params.get("n", call.params)))

    def serve(self) -> None:
        """Answer every call until the program's end is closed."""
        with contextlib.suppress(OSError):
            while (call := self.read()) is not None:
                self.answer(call)

    def hand_over(self, descriptors: list[int]) -> None:
        """What the host does when it has a new supervisor."""
        socket.send_fds(self.channel, [b"\0"], descriptors)
        self.channel.close()


def connected() -> Peer:
    """Connect this process; the other end."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(_PATIENCE_S)
    tools.prepare(ours.detach())
    tools.keep_from_children()
    return Peer(theirs)


@pytest.fixture
def peer() -> Iterator[Peer]:
    """This process is a program, and this the supervisor's end of its stream."""
    made = connected()
    yield made
    made.channel.close()
    disconnect()


def disconnect() -> None:
    """As in a child of fork, so that no descriptor stays behind."""
    tools._forget()
    tools._connection.clear()


@contextlib.contextmanager
def serving(work: Callable[[], object]) -> Iterator[None]:
    """*work* in a thread, which has ended when the block is left."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        yield
        done.result(_PATIENCE_S)


def call(n: object) -> Any:  # noqa: ANN401 - what was sent
    """A synchronous call whose answer is *n*."""
    return tools.tool_call_sync(tool_id="t.x", params={"n": n})


async def acall(n: object) -> Any:  # noqa: ANN401 - what was sent
    """An awaited call whose answer is *n*."""
    return await tools.tool_call(tool_id="t.x", params={"n": n})


async def turns_until(condition: Callable[[], object]) -> None:
    """Let the loop turn until *condition* holds."""
    until = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        await asyncio.sleep(0)


def in_flight() -> int:
    """Calls that this end believes to be without an answer."""
    return tools._connection[0].stream.in_flight


VALUE = {"a": [b"\0\xff", {"$blob": 0, "b": b""}, None, 1.5, True, {"$blob": 1}], "text": "é\U0001f600"}


def test_values_arrive_as_they_were_sent(peer) -> None:
    """bytes anywhere, and dicts that look like the wire's own, come back from both kinds of call."""
    with serving(lambda: [peer.answer(peer.read()) for _ in range(2)]):
        assert call(VALUE) == VALUE
        assert asyncio.run(acall(VALUE)) == VALUE


def test_a_call_says_what_it_was_told(peer) -> None:
    """Tool, reason and deadline are those of the caller, by fn as by tool_id."""
    fn = proxies.Tool("t", "x")
    with serving(lambda: peer.answer(peer.read())):
        assert tools.tool_call_sync(fn=fn, tool_id="t.x", params={"n": 1}, call_reason="why", timeout_s=2) == 1
    seen: list[Any] = []
    with serving(lambda: seen.append(peer.read()) or peer.send(Reply(id=seen[0].id, value=None))):
        assert tools.tool_call_sync(fn=fn, call_reason="why", timeout_s=2) is None
    assert (seen[0].tool, seen[0].params, seen[0].reason, seen[0].timeout_s) == ("t.x", {}, "why", 2)


@pytest.mark.parametrize("error", REFUSALS)
def test_a_refusal_becomes_the_exception_of_its_name(peer, error) -> None:
    """Each word of the wire is one class under ToolError, with the supervisor's text."""

    def refuse() -> None:
        for _ in range(2):
            asked = peer.read()
            peer.send(Refused(id=asked.id, error=error, text="so it is"))

    with serving(refuse):
        for attempt in (lambda: call(1), lambda: asyncio.run(acall(1))):
            with pytest.raises(tools.ToolError) as caught:
                attempt()
            assert (type(caught.value).__name__, str(caught.value)) == (error, "so it is")


def _cyclic() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"params": {"a": [1, 2, 3, object()]}},
            "params.a[3]: object cannot be sent: give numbers, text, bytes, lists and dicts made of it",
        ),
        ({"params": {"a": [float("nan")]}}, "params.a[0]: nan cannot be sent: use None for a number that is missing"),
        ({"params": {"a": (n for n in "x")}}, "params.a: generator cannot be sent: make a list of it with list(...)"),
        ({"params": {"a": _cyclic()}}, "params.a[0]: it contains itself"),
        ({"params": {"a": {(1,): 2}}}, "params.a: keys must be str, got tuple: make a list of pairs of it"),
        ({"params": {"a": {1: 2, "1": 3}}}, "params.a: two keys become '1': keys must be str, and differ as text"),
        ({"params": {"a": bytes(MAX_FRAME)}}, f"params.a: the frame would exceed {MAX_FRAME} bytes here"),
        ({"params": [1]}, "params: must be dict[str, Any], got list"),
        ({"params": []}, "params: must be dict[str, Any], got list"),
        ({"call_reason": None}, "reason: must be str, got NoneType"),
        ({"timeout_s": 0}, "timeout_s: must be a positive, finite number of seconds, got 0"),
        ({"timeout_s": -1.5}, "timeout_s: must be a positive, finite number of seconds, got -1.5"),
        ({"timeout_s": float("nan")}, "timeout_s: must be a positive, finite number of seconds, got nan"),
        ({"timeout_s": float("inf")}, "timeout_s: must be a positive, finite number of seconds, got inf"),
        ({"timeout_s": True}, "timeout_s: must be a positive, finite number of seconds, got True"),
        ({"timeout_s": "1"}, "timeout_s: must be a positive, finite number of seconds, got '1'"),
        ({"timeout_s": 10**400}, "timeout_s: must be float | None, got int"),
    ],
)
def test_what_cannot_be_sent_is_not_and_names_its_place(peer, arguments, text) -> None:
    """ToolInputInvalid from both kinds of call; not a byte was sent, and nobody waits for an answer."""
    for attempt in (
        lambda: tools.tool_call_sync(tool_id="t.x", **arguments),
        lambda: asyncio.run(tools.tool_call(tool_id="t.x", **arguments)),
    ):
        with pytest.raises(tools.ToolInputInvalid) as caught:
            attempt()
        assert str(caught.value) == text
    assert select.select([peer.channel], [], [], 0)[0] == []
    assert in_flight() == 0


def test_the_cap_of_the_run_is_found_before_anything_is_sent(peer) -> None:
    """Where the run's frames are shorter, a longer one is the caller's error and no breach of the protocol."""
    tools._connection[0].stream.max_frame = 1000
    with pytest.raises(tools.ToolInputInvalid, match=r"^params\.n: the frame would exceed 1000 bytes here$"):
        call("x" * 1000)
    assert select.select([peer.channel], [], [], 0)[0] == []


def shuffled(peer: Peer, seed: int) -> None:
    """Until the end: answer in random order, after random delays, in writes that respect no frame."""
    rng = random.Random(seed)
    held: list[Call] = []
    while True:
        if not held or (rng.random() < 0.8 and select.select([peer.channel], [], [], 0.0005)[0]):
            asked = peer.read()
            if asked is None:
                return
            held.append(asked)
            continue
        rng.shuffle(held)
        some = [held.pop() for _ in range(rng.randint(1, len(held)))]
        data = b"".join(encode(Reply(id=asked.id, value=asked.params["n"])) for asked in some)
        while data:
            cut = rng.randint(1, len(data))
            peer.channel.sendall(data[:cut])
            data = data[cut:]
            if rng.random() < 0.2:
                select.select([], [], [], rng.random() * 0.002)


def hang_up() -> None:
    """The supervisor's end sees that the program ended."""
    tools._connection[0].stream._socket.shutdown(socket.SHUT_WR)


def loop_of_calls(seed: int, start: int) -> list[object]:
    """120 calls of one loop: awaited, gathered, given up, and synchronous inside the loop."""
    rng = random.Random(seed)

    async def main() -> list[object]:
        wrong: list[object] = []
        for n in range(start, start + 120, 6):
            six = list(range(n, n + 6))
            tasks = [asyncio.ensure_future(acall(i)) for i in six[:5]]
            if rng.random() < 0.5:
                await asyncio.sleep(0)
            wrong += [got for got in [call(six[5])] if got != six[5]]  # blocks this loop with five calls in flight
            given_up = rng.randrange(5)
            if rng.random() < 0.5:
                tasks[given_up].cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            for i, got in enumerate(answers):
                if got != six[i] and not (i == given_up and isinstance(got, asyncio.CancelledError)):
                    wrong.append((six[i], got))
        return wrong

    return asyncio.run(main())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_no_answer_is_lost_whoever_waits(peer, seed) -> None:
    """Two loops, one of them restarted, and eight threads at once, answers in random order and in pieces:
    every call gets its own.
    """

    def thread(start: int) -> list[object]:
        return [n for n in range(start, start + 40) if call(n) != n]

    def twice(start: int) -> list[object]:
        return loop_of_calls(seed, start) + loop_of_calls(seed + 100, start + 120)

    with serving(lambda: shuffled(peer, seed)), ThreadPoolExecutor(10) as pool:
        work = [pool.submit(loop_of_calls, seed, 0), pool.submit(twice, 1000)]
        work += [pool.submit(thread, 10_000 + 1000 * i) for i in range(8)]
        wrong = [job.result(_PATIENCE_S) for job in work]
        hang_up()
    assert wrong == [[]] * 10


def test_two_hundred_threads_each_get_their_answer(peer) -> None:
    """One thread reads for all, and hands that duty on."""
    with serving(lambda: shuffled(peer, 1)), ThreadPoolExecutor(200) as pool:
        assert list(pool.map(call, range(2000))) == list(range(2000))
        hang_up()


def test_five_hundred_calls_of_one_loop_overlap(peer) -> None:
    """All are sent before the first is answered."""

    def serve() -> None:
        asked = [peer.read() for _ in range(500)]
        for one in reversed(asked):
            peer.answer(one)

    async def main() -> list[Any]:
        return await asyncio.gather(*map(acall, range(500)))

    with serving(serve):
        assert asyncio.run(main()) == list(range(500))


def test_a_blocked_loop_reads_for_others(peer) -> None:
    """A synchronous call inside a loop hands out the answers of the loop's own calls and of other threads."""

    def serve() -> None:
        asked = [peer.read() for _ in range(3)]
        for one in sorted(asked, key=lambda one: one.params["n"] == "sync"):  # the blocking one last
            peer.answer(one)

    async def main() -> list[Any]:
        task = asyncio.ensure_future(acall("async"))
        await asyncio.sleep(0)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(call, "thread")
            blocking = call("sync")
            assert other.result(_PATIENCE_S) == "thread"
        return [blocking, await task]

    with serving(serve):
        assert asyncio.run(main()) == ["sync", "async"]


def test_a_late_answer_is_dropped(peer) -> None:
    """After a timeout of the caller's own, the next calls get their own answers and the late one nobody's."""
    gone = threading.Event()

    def serve() -> None:
        late = peer.read()
        assert gone.wait(_PATIENCE_S)
        peer.answer(late)
        for _ in range(2):
            peer.answer(peer.read())

    async def main() -> Any:  # noqa: ANN401 - as in call
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(acall("late"), 0.01)
        gone.set()
        return await acall("next")

    with serving(serve):
        assert asyncio.run(main()) == "next"
        assert call("last") == "last"
    assert in_flight() == 0


def test_a_loop_is_not_watched_when_none_of_its_calls_is_open(peer) -> None:
    """The selector knows the stream while a call waits, and no longer; a closed loop keeps nothing alive."""
    descriptor = tools._connection[0].stream.descriptor

    async def main() -> None:
        loop = asyncio.get_running_loop()
        slow = asyncio.ensure_future(acall(1))
        await turns_until(lambda: loop._selector.get_map().get(descriptor))
        peer.answer(peer.read())
        await slow
        await asyncio.sleep(0)
        assert not loop.remove_reader(descriptor)

    for _ in range(3):
        asyncio.run(main())
    assert len(tools._connection[0].loops._ends) == 1


def test_large_frames_cross_without_a_deadlock(peer) -> None:
    """Nearly 16 MiB each way at once, with a peer that reads no call before its answer is out."""
    big = b"x" * (MAX_FRAME - 1000)

    def serve() -> None:
        first = peer.read()
        for _ in range(5):
            peer.send(Reply(id=first.id, value=big))  # the caller is sending the next call meanwhile
            first = peer.read()
        peer.send(Reply(id=first.id, value=big))

    async def main() -> list[bool]:
        both = [got == big for got in await asyncio.gather(acall(big), acall(big))]
        open_call = asyncio.ensure_future(acall(big))
        await turns_until(lambda: in_flight() and not tools._connection[0].stream.is_sending)
        blocking = call(big)  # only this thread can read what the peer sends meanwhile
        return [*both, blocking == big, await open_call == big]

    with serving(serve):
        with ThreadPoolExecutor(2) as pool:
            assert [got == big for got in pool.map(call, (big, big))] == [True, True]
        assert asyncio.run(main()) == [True] * 4


def test_a_peer_that_does_not_read_makes_callers_wait(peer) -> None:
    """Of twenty calls of a megabyte one is begun, whose rest waits in this process; all arrive once it reads."""
    big = b"x" * (1 << 20)
    stream = tools._connection[0].stream

    async def main() -> list[int]:
        tasks = [asyncio.ensure_future(acall(big)) for _ in range(20)]
        await turns_until(lambda: stream.is_sending)
        assert stream.in_flight == 1
        tasks[7].cancel()
        with ThreadPoolExecutor(1) as pool:
            served = pool.submit(lambda: [peer.answer(peer.read()) for _ in range(19)])
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            served.result(_PATIENCE_S)
        return [len(got) for got in answers if isinstance(got, bytes)]

    assert asyncio.run(main()) == [1 << 20] * 19


def test_the_end_of_the_supervisor_ends_every_call(peer) -> None:
    """Calls in flight and all later ones raise ToolUnavailable at once, in threads and loops alike."""

    def serve() -> None:
        for _ in range(4):
            peer.read()
        peer.channel.close()

    async def main() -> list[str]:
        answers = await asyncio.gather(acall(1), acall(2), return_exceptions=True)
        return [f"{type(got).__name__}: {got}" for got in answers]

    def one() -> str:
        with pytest.raises(tools.ToolUnavailable) as caught:
            call(1)
        return str(caught.value)

    with serving(serve), ThreadPoolExecutor(2) as pool:
        others = [pool.submit(one) for _ in range(2)]
        assert asyncio.run(main()) == ["ToolUnavailable: the supervisor is gone"] * 2
        assert [other.result(_PATIENCE_S) for other in others] == ["the supervisor is gone"] * 2
    assert one() == "the supervisor is gone"
    assert asyncio.run(main()) == ["ToolUnavailable: the supervisor is gone"] * 2


def test_a_supervisor_that_breaks_the_protocol_is_left(peer) -> None:
    """Bytes that are no answer make the call, and every later one, ToolUnavailable: nothing is guessed."""
    peer.channel.sendall(b"\xff" * 8)
    for _ in range(2):
        with pytest.raises(tools.ToolUnavailable, match=r"^the supervisor broke the protocol: frame of 4294967295"):
            call(1)


def test_a_program_that_closes_the_descriptor_has_no_tools(peer) -> None:
    """os.close(3) is the program's own business; a call says so, from a thread and from a loop."""
    os.close(tools._connection[0].stream.descriptor)
    for attempt in (lambda: call(1), lambda: asyncio.run(acall(1))):
        with pytest.raises(tools.ToolUnavailable, match=r"^the tool stream cannot be used: Bad file descriptor$"):
            attempt()
    tools._connection[0].stream._socket.detach()


REPLACED = "the supervisor was restarted: this call may or may not have been carried out"


def handed_over(peer: Peer) -> Peer:
    """The new supervisor's end, after the host has handed over its other end."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(_PATIENCE_S)
    peer.hand_over([ours.fileno()])
    ours.close()
    return Peer(theirs)


def test_calls_in_flight_fail_when_the_supervisor_is_replaced(peer) -> None:
    """One was answered whole and has its answer, the others fail and name the doubt; then the new one answers."""
    new: list[Peer] = []
    asleep = threading.Event()

    def serve() -> None:
        asked = sorted((peer.read() for _ in range(3)), key=lambda one: one.params["n"])
        peer.channel.sendall(encode(Reply(id=asked[0].id, value="whole")) + encode(Reply(id=asked[1].id, value=2))[:-1])
        new.append(handed_over(peer))
        late = new[0].read()
        assert asleep.wait(_PATIENCE_S)
        new[0].answer(late)
        new[0].answer(new[0].read())

    async def main() -> list[object]:
        first = asyncio.ensure_future(acall("a"))
        with ThreadPoolExecutor(1) as pool:
            other = asyncio.wrap_future(pool.submit(call, "b"))
            got = await asyncio.gather(first, other, acall("c"), return_exceptions=True)
        fourth = asyncio.ensure_future(acall(4))
        await asyncio.sleep(0)
        await turns_until(lambda: not tools._connection[0].loops.running()._spins)  # the selector has to find it
        asleep.set()
        return [*(f"{type(one).__name__}: {one}" if isinstance(one, Exception) else one for one in got), await fourth]

    with serving(serve):
        failed = f"ToolUnavailable: {REPLACED}"
        assert asyncio.run(main()) == ["whole", failed, failed, 4]
        assert call(5) == 5
    new[0].channel.close()


def test_an_idle_program_calls_the_new_supervisor(peer) -> None:
    """Replaced while no call was in flight: the next call goes to the new one and none fails."""
    new = handed_over(handed_over(peer))
    with serving(new.serve):
        assert call(1) == 1
        assert asyncio.run(acall(2)) == 2
        hang_up()
    new.channel.close()


def test_what_was_not_begun_goes_to_the_new_supervisor(peer) -> None:
    """A call that was half sent fails; those that waited for room are sent to the new one."""
    big = b"x" * (1 << 20)

    async def main() -> list[object]:
        tasks = [asyncio.ensure_future(acall(big)) for _ in range(3)]
        await turns_until(lambda: tools._connection[0].stream.is_sending)
        new = handed_over(peer)
        with ThreadPoolExecutor(1) as pool:
            served = pool.submit(lambda: [new.answer(new.read()) for _ in range(2)])
            got = await asyncio.gather(*tasks, return_exceptions=True)
            served.result(_PATIENCE_S)
        new.channel.close()
        return [str(one) if isinstance(one, Exception) else one == big for one in got]

    assert asyncio.run(main()) == [REPLACED, True, True]


def _links() -> list[str]:
    """Where the descriptors of this process lead."""
    links = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listed them
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    return links


def test_a_new_socket_is_not_inherited_and_its_company_is_closed(peer) -> None:
    """The descriptor keeps its number and is close-on-exec; of three that came, two are gone."""
    descriptor = tools._connection[0].stream.descriptor
    ours, theirs = socket.socketpair()
    new = Peer(theirs)
    with open(os.devnull, "rb") as null:
        links_to_null = _links().count(os.devnull)
        peer.hand_over([ours.fileno(), null.fileno(), null.fileno()])
        ours.close()
        with serving(new.serve):
            assert call(1) == 1
            assert not os.get_inheritable(descriptor)
            assert _links().count(os.devnull) == links_to_null
            hang_up()
    theirs.close()


def test_a_forked_child_has_no_stream(peer) -> None:
    """Neither new calls nor the parent's open ones work there, and the parent goes on undisturbed."""
    said = "no tool stream: a child process has none, and a closed stream stays closed"

    async def main() -> list[str]:
        waiting = asyncio.ensure_future(acall(1))
        await asyncio.sleep(0)

        def in_the_child() -> list[str]:
            texts = []
            for attempt in (lambda: call(2), lambda: asyncio.run(acall(3))):
                try:
                    attempt()
                except tools.ToolUnavailable as error:
                    texts.append(str(error))
            return [*texts, str(in_flight())]

        child: list[str] = in_child(in_the_child)
        peer.answer(peer.read())
        return [*child, str(await waiting)]

    assert asyncio.run(main()) == [said, said, "0", "1"]


def test_a_subprocess_does_not_inherit_the_stream() -> None:
    """Even with close_fds=False, and although the descriptor was inheritable when it was given to us."""
    ours, theirs = socket.socketpair()
    ours.set_inheritable(True)
    descriptor = ours.detach()
    look = f"import os; print(os.path.exists('/proc/self/fd/{descriptor}'))"

    def show() -> bytes:
        run = [sys.executable, "-I", "-c", look]
        return subprocess.run(run, close_fds=False, capture_output=True, check=True).stdout

    assert show() == b"True\n"  # the control
    tools.prepare(descriptor)
    tools.keep_from_children()
    assert show() == b"False\n"
    disconnect()
    theirs.close()


class Alarm(Exception):
    """Raised by a signal handler, between any two instructions."""


def _strict(peer: Peer) -> None:
    """Answer every call, each in two writes, and leave at the first breach of the protocol or a call sent twice."""
    session = Session(Side.SUPERVISOR, Side.PROGRAM, State.OPEN)
    seen: set[int] = set()
    while (asked := peer.read()) is not None and asked.id not in seen:
        seen.add(asked.id)
        session.received(asked)
        answer = Reply(id=asked.id, value=asked.params["n"])
        session.sent(answer)
        data = encode(answer)
        peer.channel.sendall(data[:20])
        peer.channel.sendall(data[20:])


def _seconds_of(number: int) -> float:
    began = time.perf_counter()
    call(number)
    return time.perf_counter() - began


def _storm() -> list[object]:
    """Calls under a timer that raises, beside a thread that is not interrupted: what came back wrong to either,
    the calls left open, whether the thread still waits, how many came back, and how many were interrupted.
    """
    stream_peer = connected()
    pid = os.fork()
    if pid == 0:
        _strict(stream_peer)
        os._exit(0)
    stream_peer.channel.close()

    def ring(*_: object) -> None:
        raise Alarm

    signal.signal(signal.SIGALRM, ring)
    rng = random.Random(5)
    # As fast as this machine is now, so that some calls are interrupted and some are not.
    longest = max(150e-6, 3 * sorted(_seconds_of(1 << 41 | n) for n in range(51))[25])
    wrong, returned, interrupted = [], 0, 0
    over = threading.Event()

    def beside() -> None:
        n = 1 << 40
        while not over.is_set():
            n += 1
            if (got := call(n)) != n:
                wrong.append((n, got))

    thread = threading.Thread(target=beside)
    thread.start()
    for n in range(15_000):
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.random() * longest + 1e-6)
            try:
                got = call(n)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Alarm:
            interrupted += 1
            continue
        returned += 1
        if got != n:
            wrong.append((n, got))
    over.set()
    thread.join(10)
    last = call("last")
    left = [in_flight(), thread.is_alive()]
    disconnect()
    os.waitpid(pid, 0)
    return [wrong, left, last, min(returned, 100), min(interrupted, 100)]


@pytest.mark.slow
def test_a_signal_handler_that_raises_loses_no_answer() -> None:
    """Interrupted at any instruction, a call is given up, and every other one still gets its own answer."""
    assert in_child(_storm) == [[], [0, False], "last", 100, 100]


def _nested() -> list[object]:
    """A handler that calls a tool itself while the main thread waits for an answer."""
    stream_peer = connected()
    answers: list[object] = []

    def serve() -> None:
        outer = stream_peer.read()
        os.kill(os.getpid(), signal.SIGALRM)
        inner = stream_peer.read()
        for asked in (outer, inner):
            stream_peer.answer(asked)

    def handle(*_: object) -> None:
        try:
            answers.append(call("inner"))
        except tools.ToolUnavailable as error:
            if str(error) != "a tool cannot be called from code that interrupted another call":
                raise
            # A step of the call was interrupted, and not its waiting: later.
            signal.setitimer(signal.ITIMER_REAL, 1e-3)

    signal.signal(signal.SIGALRM, handle)
    with serving(serve):
        answers.append(call("outer"))
    disconnect()
    return answers


@pytest.mark.slow
def test_a_signal_handler_may_call_a_tool() -> None:
    """It waits for its own answer, reads the interrupted call's too, and both get theirs."""
    for _ in range(20):
        assert in_child(_nested) == ["inner", "outer"]


def test_the_rehearsal_leaves_nothing_behind() -> None:
    """What a slot does to warm the path opens no descriptor for good and connects nothing."""
    before = os.listdir("/proc/self/fd")
    tools.rehearse()
    assert os.listdir("/proc/self/fd") == before
    assert tools._connection == []


def test_without_a_stream_a_call_says_so() -> None:
    """A process that was given none."""
    with pytest.raises(tools.ToolUnavailable, match=r"^no tool stream in this process$"):
        call(1)


def test_proxies_are_tools_by_keyword_and_by_import(peer, monkeypatch) -> None:
    """`await local_tools.write_note(text=…)`, and the same by `from local_tools import`; any keyword is the tool's."""
    for name in ("local_tools_of_a_test", "agent_io_tools"):
        monkeypatch.setitem(sys.modules, name, None)
    proxies.install({"local_tools_of_a_test": ["write_note", "read"]})
    from local_tools_of_a_test import write_note

    async def main() -> Any:  # noqa: ANN401 - as in call
        return await write_note(text="x", self=1, values=2, fn=3)

    with serving(lambda: peer.answer(peer.read())):
        assert asyncio.run(main()) == {"text": "x", "self": 1, "values": 2, "fn": 3}
    assert repr(write_note) == "<tool local_tools_of_a_test.write_note>"
    with pytest.raises(TypeError, match=r"^local_tools_of_a_test\.read takes its arguments by name"):
        asyncio.run(sys.modules["local_tools_of_a_test"].read("x"))


def test_an_alias_says_which_tools_it_has() -> None:
    """A name that is not there is an AttributeError that lists those that are."""
    alias = proxies.Alias("local_tools", ["write_note", "read"])
    with pytest.raises(AttributeError, match=r"^local_tools has no tool 'nope'; it has: write_note, read$"):
        alias.nope  # noqa: B018 - looking is the point
    assert not hasattr(alias, "nope")
    with pytest.raises(AttributeError, match=r"^empty has no tool 'x'; it has: none that this run may call$"):
        proxies.Alias("empty", []).x  # noqa: B018 - as above
    names: dict[str, Any] = {}
    for name in alias.__all__:
        names[name] = getattr(alias, name)
    assert [tool.tool_id for tool in names.values()] == ["local_tools.write_note", "local_tools.read"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"fn": proxies.Tool("t", "x"), "tool_id": "t.y"}, "fn is t.x and tool_id is t.y: name one tool"),
        ({}, "name a tool with fn or tool_id"),
        ({"fn": print}, "fn must be a tool such as local_tools.write_note, not <built-in function print>"),
        ({"tool_id": 3}, "tool_id must be str, not int"),
    ],
)
def test_a_call_names_one_tool(peer, arguments, text) -> None:
    """Anything else is a TypeError, and nothing is sent."""
    with pytest.raises(TypeError) as caught:
        tools.tool_call_sync(**arguments)
    assert str(caught.value) == text
    assert select.select([peer.channel], [], [], 0)[0] == []
