"""The order in which a process becomes a slot. The order is the security argument."""

from collections.abc import Callable

Step = tuple[str, Callable[[], object]]


class StepFailed(Exception):
    """A named step could not be done; no later one was tried."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


def enter(steps: tuple[Step, ...]) -> None:
    """Do every step in order; the first that fails is named, and no later one is tried."""
    for name, step in steps:
        try:
            step()
        except OSError as error:
            raise StepFailed(name, error.strerror or str(error)) from error
