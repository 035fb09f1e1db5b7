"""Runs that wait until LibreChat has called its tools. Each has a token, which goes with every answer.

A run whose client does not come back is cancelled. It stands still while it waits, so that its time does not pass.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from isorun.runtime.accepted.handle import Run
from isorun.service.problems import Problem
from isorun.service.runs.quotas import too_many
from isorun.service.store.accounts import User

ABANDONED_S = 300.0
MOST_ROUNDS = 20
_MOST = 200  # of all users


@dataclass(eq=False)
class WaitingRun:
    """A run with the client's tools: *tools* has the client's name of each, by our id."""

    run: Run
    user_id: str
    tools: Mapping[str, str]
    rounds: int = 0
    asked: dict[str, int] = field(default_factory=dict)  # the numbers of the calls that the client was told of


class WaitingRuns:
    """Those of this process, by their tokens."""

    def __init__(self) -> None:
        self._runs: dict[str, tuple[WaitingRun, asyncio.TimerHandle]] = {}

    def check_room(self) -> None:
        """Raise `Problem` 429 if no other run may wait here."""
        if len(self._runs) >= _MOST:
            raise too_many("too_many_waiting", "too many runs wait for their clients", "try again soon", after_s=10)

    def put(self, waiting: WaitingRun, abandon: Callable[[], object]) -> str:
        """The token under which it waits. After `ABANDONED_S` it is forgotten, and *abandon* is called."""
        token = secrets.token_urlsafe(24)

        def over() -> None:
            del self._runs[token]
            abandon()

        self._runs[token] = waiting, asyncio.get_running_loop().call_later(ABANDONED_S, over)
        return token

    def take(self, user: User, token: str) -> WaitingRun:
        """The run that waits under *token*, which counts once. Raises `Problem` 404, for another user's, too."""
        found = self._runs.get(token)
        if found is None or found[0].user_id != user.id:
            raise Problem(404, "not_found", "Execution not found or expired")
        waiting, timer = self._runs.pop(token)
        timer.cancel()
        return waiting
