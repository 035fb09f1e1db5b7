"""Work done in a child process: a filter or Landlock never comes off, so no test may put one on itself."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from isorun.kernel.caps import no_new_privileges


class Killed(Exception):
    """The child was ended by a signal."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"killed by signal {signal}")
        self.signal = signal


def in_child(work: Callable[[], object]) -> Any:  # noqa: ANN401 - whatever JSON carried
    """What *work* returned in a forked child, by way of JSON. Raises `Killed`."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, json.dumps(work()).encode())
        except BaseException:  # noqa: BLE001 - the child must end here, whatever happened
            os.write(2, traceback.format_exc().encode())
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        raise Killed(os.WTERMSIG(status))
    assert status == 0, "the child failed; see its traceback"
    return json.loads(answer)


def after(*steps: Callable[[], object]) -> Callable[[Callable[[], object]], Any]:
    """`in_child`, with no_new_privs and then *steps* done before the work."""

    def run(work: Callable[[], object]) -> Any:  # noqa: ANN401 - as above
        def whole() -> object:
            no_new_privileges()
            for step in steps:
                step()
            return work()

        return in_child(whole)

    return run


def errno_of(call: Callable[[], object]) -> int:
    """0, or the errno with which *call* failed."""
    try:
        call()
    except OSError as exc:
        return exc.errno or -1
    return 0
