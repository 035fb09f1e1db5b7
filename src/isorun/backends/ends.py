"""The sockets and pipes between this process and a slot on this host."""

import os
import socket
from contextlib import AsyncExitStack


class Ends:
    """Ours to keep until *stack* is left: `control`, `stdout` and `stderr`; theirs to hand over and close.

    The pipes belong to *owner* (a uid; None: to us), who can then open them again by the name /dev/stdout.
    """

    def __init__(self, stack: AsyncExitStack, owner: int | None = None) -> None:
        self._theirs: list[int] = []
        self._owner = owner
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
        if self._owner is not None:
            os.fchown(writer, self._owner, -1)
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
