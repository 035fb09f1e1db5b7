"""A forked child that becomes a program: what the program gets of us, and what it does not."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable

from isorun.kernel.processes import forked
from tests.unit.forked import in_child

_LOOK = """
import json, os
print(json.dumps({
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")),
    "stdin": os.readlink("/proc/self/fd/0"),
    "leads": os.getsid(0) == os.getpid(),
    "environment": dict(os.environ),
}))
"""


def _become(*words: str, environment: dict[str, str]) -> Callable[[], None]:
    return lambda: os.execve(sys.executable, [sys.executable, "-I", "-S", *words], environment)


def _waited(child: forked.Forked) -> int:
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    code = child.poll()
    assert code is not None
    return code


def _said(become: Callable[[], None], *kept: int) -> tuple[str, int]:
    reader, writer = os.pipe()
    child = forked.start(become, output=writer, kept=kept)
    os.close(writer)
    with os.fdopen(reader) as output:
        return output.read(), _waited(child)


def test_the_program_has_what_it_was_given_and_nothing_else_of_ours() -> None:
    """Not a descriptor that we were started with and let every program inherit, and none of our environment."""

    def look() -> object:
        shown, hidden = os.pipe()
        os.set_inheritable(hidden, True)
        said, code = _said(_become("-c", _LOOK, environment={"A": "b"}), shown)
        return [json.loads(said), code, shown]

    found, code, shown = in_child(look)
    environment = found.pop("environment")
    assert environment.pop("A") == "b"
    assert set(environment) <= {"LC_CTYPE"}  # the interpreter's own
    assert found == {"descriptors": [0, 1, 2, shown], "stdin": "/dev/null", "leads": True}
    assert code == 0


def test_the_program_is_ended_by_a_broken_pipe() -> None:
    """Python ignores that signal, and what it executes would go on to."""

    def look() -> object:
        status = ["cat", "/proc/self/status"]
        return _said(lambda: os.execve("/bin/cat", status, {}))

    said, _ = in_child(look)
    ignored = next(line.split()[1] for line in said.splitlines() if line.startswith("SigIgn"))
    assert not int(ignored, 16) >> signal.SIGPIPE - 1 & 1


def test_what_it_cannot_become_is_told() -> None:
    """The error is in the output, and the child never goes on with what its parent does."""

    def fails() -> None:
        raise ValueError("no such thing")

    def look() -> object:
        return _said(fails), _said(lambda: None)

    assert in_child(look) == [["ValueError('no such thing')\n", 126], ["", 126]]


def test_it_is_reaped_once_it_has_ended() -> None:
    """As a `Popen`: None while it runs, then its exit code or its signal, as often as it is asked."""

    def look() -> object:
        _, writer = os.pipe()
        child = forked.start(_become("-c", "input()", environment={}), output=writer, kept=())
        waits = forked.start(lambda: signal.pause(), output=writer, kept=())
        running = waits.poll()
        os.kill(waits.pid, signal.SIGKILL)
        return running, _waited(waits), waits.poll(), _waited(child), child.poll()

    assert in_child(look) == [None, -signal.SIGKILL, -signal.SIGKILL, 1, 1]


def test_a_second_thread_is_seen() -> None:
    """A process that has one must not fork: what the other thread holds would stay locked in the child."""

    def look() -> object:
        alone = forked.has_one_thread()
        done = threading.Event()
        thread = threading.Thread(target=done.wait)
        thread.start()
        both = forked.has_one_thread()
        done.set()
        thread.join()
        return alone, both

    assert in_child(look) == [True, False]
