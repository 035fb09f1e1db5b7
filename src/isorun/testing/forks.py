"""The `fake` backend's one interpreter, from which the processes of its programs are forked: our end of it.

It has imported what every program needs, which takes longer than most programs of a test. It holds nothing of any
run, and must never run a program itself.
"""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from typing import Any, NoReturn

from isorun.backends.base import Usage
from isorun.backends.environment import Environment, environment_for, own_package
from isorun.core.errors import CleanupFailed, SetupFailed
from isorun.core.outcome import Exit
from isorun.kernel.readiness import wait_readable

_BOOT = "import sys; sys.path.insert(0, {path!r}); from isorun.testing.unsealed import main; main()"
_ANSWER_S = 10.0  # a fork takes milliseconds
_STEP = "program process"


class Forks:
    """Made by `open`. Its questions are answered in milliseconds, so they are asked without giving way to others."""

    def __init__(self, environment: Environment) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.settimeout(_ANSWER_S)
        python = environment.python
        config = {"channel": theirs.fileno(), "sys_path": list(environment.sys_path)}
        with theirs:
            self._process = subprocess.Popen(
                [python, "-I", "-B", "-X", "utf8", "-c", _BOOT.format(path=str(own_package())), json.dumps(config)],
                env=environment_for(python),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # stderr is ours: a traceback there is a mistake in this package
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                cwd="/",
            )

    @classmethod
    async def open(cls, environment: Environment) -> "Forks":
        """Return once it has imported everything. Raises `SetupFailed`."""
        forks = cls(environment)
        try:
            await wait_readable(forks._channel.fileno())
            forks._answer()
        except BaseException:
            forks.close()
            raise
        return forks

    def close(self) -> None:
        """It ends by itself once it is alone; what it has forked goes on."""
        self._channel.close()
        self._process.wait()

    def fork(self, root: str, ends: Sequence[int]) -> int:
        """The pid of a new process of a session of its own, in the folder *root*. It stays a zombie until `reap`."""
        self._ask({"root": root}, ends)
        return int(self._answer()["pid"])

    def reap(self, pid: int) -> tuple[Exit, Usage]:
        """How the process ended, which it must have."""
        try:
            self._ask({"reap": pid})
            told = self._answer()
        except SetupFailed as error:
            raise CleanupFailed(str(error)) from error
        code = os.waitstatus_to_exitcode(told["status"])
        usage = Usage(cpu_s=told["cpu_s"], max_rss_bytes=told["max_rss_bytes"])
        return Exit(code=code) if code >= 0 else Exit(signal=-code), usage

    def _ask(self, question: dict[str, object], descriptors: Sequence[int] = ()) -> None:
        try:
            socket.send_fds(self._channel, [json.dumps(question).encode()], list(descriptors))
        except OSError as error:
            self._lost(error)

    def _answer(self) -> dict[str, Any]:
        try:
            data = self._channel.recv(4096)
        except OSError as error:
            self._lost(error)
        if not data:
            self._lost(None)
        told: dict[str, Any] = json.loads(data)
        return told

    def _lost(self, error: OSError | None) -> NoReturn:
        """An interpreter that does not answer is ended, so that every later question fails at once."""
        self._process.send_signal(signal.SIGKILL)
        raise SetupFailed(_STEP, "the interpreter that forks them is dead") from error
