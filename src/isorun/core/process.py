"""What a supervisor's process is to the host, wherever it runs: a contract, and nothing that starts one.

It stands here because both sides need it and neither may import the other: backends start such a process where
their tools run, the supervisor's client speaks to it.
"""

import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol


class Process(Protocol):
    """A supervisor process, wherever it runs. `socket` is its control stream, `output` what it prints."""

    socket: socket.socket
    output: int

    def kill(self) -> None:
        """End it now, with all that its tools started; it may be gone already."""

    def wait(self, timeout_s: float | None) -> bool:
        """Wait for its end, in a thread; whether it came."""

    def ending(self) -> str:
        """How it ended: `exit code 1`, `signal 9`."""

    def close(self) -> None:
        """It has ended: remove what is left of it."""


#: From `RUNTIME_GLOBALS_JSON` and an environment to a process. Raises `SetupFailed`, `Unavailable`.
StartProcess = Callable[[str, Mapping[str, str]], Awaitable[Process]]
