"""Kernels of the Jupyter protocol: names under which a user runs one program after another. None is a process."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from isorun.service.problems import not_found
from isorun.service.runs.quotas import too_many
from isorun.service.store.accounts import User
from isorun.store.recovery import rfc3339

_MOST_OF_USER, _MOST = 32, 1000
_IDLE_S = 600.0  # without a connection


@dataclass(eq=False)
class Kernel:
    """One kernel. `running`: the run that it conducts now."""

    id: str
    user_id: str
    running: str = ""
    executions: int = 0
    connections: int = 0
    deleted: bool = False
    used: float = field(default_factory=time.monotonic)
    used_at: float = field(default_factory=time.time)

    def touch(self) -> None:
        """It is in use."""
        self.used, self.used_at = time.monotonic(), time.time()

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Inside the block, it is not idle."""
        self.connections += 1
        try:
            yield
        finally:
            self.connections -= 1
            self.touch()

    def shown(self) -> dict[str, Any]:
        """As Jupyter shows one."""
        return {
            "id": self.id,
            "name": "python3",
            "last_activity": rfc3339(self.used_at),
            "execution_state": "busy" if self.running else "idle",
            "connections": self.connections,
        }


class Kernels:
    """Those of this process."""

    def __init__(self) -> None:
        self._kernels: dict[str, Kernel] = {}

    def new(self, user: User) -> Kernel:
        """A kernel of *user*. Raises `Problem` 429."""
        self._forget_idle()
        if len(self.of(user)) >= _MOST_OF_USER or len(self._kernels) >= _MOST:
            raise too_many("too_many_kernels", f"a user may have {_MOST_OF_USER} kernels", "delete one", after_s=10)
        made = Kernel(id=str(uuid.uuid4()), user_id=user.id)
        self._kernels[made.id] = made
        return made

    def of(self, user: User) -> list[Kernel]:
        """Those of *user*, oldest first."""
        self._forget_idle()
        return [one for one in self._kernels.values() if one.user_id == user.id]

    def one(self, user: User, kernel_id: str) -> Kernel:
        """That kernel of *user*. Raises `Problem` 404, for another user's, too."""
        self._forget_idle()
        found = self._kernels.get(kernel_id)
        if found is None or found.user_id != user.id:
            raise not_found("kernel")
        return found

    def remove(self, user: User, kernel_id: str) -> Kernel:
        """Forget it. Raises `Problem` 404."""
        found = self.one(user, kernel_id)
        found.deleted = True
        del self._kernels[kernel_id]
        return found

    def _forget_idle(self) -> None:
        before = time.monotonic() - _IDLE_S
        for one in tuple(self._kernels.values()):
            if not one.connections and one.used < before:
                one.deleted = True
                del self._kernels[one.id]
