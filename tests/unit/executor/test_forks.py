"""The zygote's fork: quick where nobody needs to be told, Python's own where somebody does."""

import asyncio
import os
import random
import threading
from collections.abc import Callable

import pytest

from isorun.executor.warm import forks
from isorun.executor.warm.forks import Forks
from tests.unit.forked import in_child


def _afresh(work: Callable[[], object]) -> object:
    """`in_child`, where no plugin of pytest has set a policy of loops."""

    def alone() -> object:
        asyncio.set_event_loop_policy(None)
        return work()

    return in_child(alone)


def _in_a_fork_of(made: Forks, look: Callable[[], bytes]) -> bytes:
    """What *look* says in a child that *made* has forked."""
    reader, writer = os.pipe()
    pid = made.fork()
    if pid == 0:
        os.write(writer, look())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader, "rb") as pipe:
        return pipe.read()


@pytest.mark.parametrize("foreign", [False, True])
def test_who_was_registered_while_watched_is_told(foreign: bool) -> None:
    """A preload's function runs in the child, and then everybody's do; without one, none does."""

    def told() -> list[object]:
        seen: list[str] = []
        os.register_at_fork(after_in_child=lambda: seen.append("known"))  # before the watch: as the standard library's
        made, real = Forks(), os.register_at_fork
        with made.watched():
            if foreign:
                os.register_at_fork(after_in_child=lambda: seen.append("preload"))
        return [os.register_at_fork is real, _in_a_fork_of(made, lambda: repr(seen).encode()).decode()]

    assert _afresh(told) == [True, "['known', 'preload']" if foreign else "[]"]


def test_the_child_is_whole() -> None:
    """It has its own pid, starts threads, runs a loop, forks by itself, and imports."""

    def look() -> bytes:
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        found = [os.getpid() == int(os.readlink("/proc/self")), threading.active_count(), code]
        return repr([*found, asyncio.run(asyncio.sleep(0, "looped")), __import__("colorsys").__name__]).encode()

    def whole() -> str:
        made = Forks()
        assert made.is_plain()
        return _in_a_fork_of(made, look).decode()

    assert _afresh(whole) == "[True, 1, 7, 'looped', 'colorsys']"


def test_random_is_left_to_the_child() -> None:
    """The one function of the standard library that matters there: the control for a slot's own seeding."""

    def drawn() -> bool:
        random.seed(5)
        child = _in_a_fork_of(Forks(), lambda: repr(random.random()).encode()).decode()
        return child == repr(random.random())

    assert _afresh(drawn)


def _with_a_thread() -> bool:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        return Forks().is_plain()
    finally:
        stop.set()
        thread.join()


def _with_a_loop() -> bool:
    asyncio.set_event_loop(asyncio.new_event_loop())
    return Forks().is_plain()


def _on_another_python() -> bool:
    vars(forks)["_KNOWN"] = ()
    return Forks().is_plain()


@pytest.mark.parametrize("where", [_with_a_thread, _with_a_loop, _on_another_python])
def test_whatever_is_to_be_put_right_is_left_to_python(where: Callable[[], bool]) -> None:
    """Where another thread, or a loop, was there before, or this Python is not known, `os.fork` is called."""
    assert _afresh(lambda: [Forks().is_plain(), where()]) == [True, False]


def test_a_fork_that_fails_says_why() -> None:
    """The zygote names the step and the kernel's reason."""

    def fails() -> str:
        import resource

        if os.geteuid() == 0:
            os.setuid(65533)  # root has no limit of processes
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        try:
            Forks().fork()
        except OSError as error:
            return f"{error.errno} {error.strerror}"
        return "forked"

    assert _afresh(fails) == "11 Resource temporarily unavailable"
