"""The sockets and pipes between this process and a slot on this host."""

import os
import socket
from contextlib import AsyncExitStack


class Ends:
    """Ours to keep until *stack* is left: `control`, `stdout` and `stderr`; theirs to hand over and close."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._theirs: list[int] = []
        stack.callback(self.close_theirs)
        self.control = self._socket(stack)
        self.control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.stdout, self.stderr = self._pipe(stack), self._pipe(stack)

    def _socket(self, stack: AsyncExitStack) -> socket.socket:
        ours, theirs = socket.socketpair()
        self._theirs.append(theirs.detach())
        ours.setblocking(False)
        stack.callback(ours.close)
        return ours

    def _pipe(self, stack: AsyncExitStack) -> int:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._theirs.append(writer)
        os.set_blocking(reader, False)
        stack.callback(os.close, reader)
        return reader

    def theirs(self) -> tuple[int, ...]:
        """control, stdout, stderr: in the order that the other side expects."""
        return tuple(self._theirs)

    def close_theirs(self) -> None:
        """Close what was handed over."""
        while self._theirs:
            os.close(self._theirs.pop())
