"""What can go wrong with the sandbox itself, never with the program in it.

IsorunError
├─ InvalidRequest   the caller asked for nonsense; nothing was started
├─ Unavailable      this host cannot enforce the policy; nothing was started
├─ SetupFailed      a named step of building the slot failed; all was undone
├─ Misused          a Runtime that is not open here was used; a mistake in the code around it
└─ CleanupFailed    something of ours may still exist; an operator must look

A program that misbehaves is an `Outcome`, not one of these.
"""


class IsorunError(Exception):
    """Base of everything isorun raises on its own account."""


class InvalidRequest(IsorunError):
    """The caller asked for nonsense; nothing was started.

    `code` is a stable word for programs (for example `empty_contract`); the text
    names the item and the remedy for people.
    """

    def __init__(self, message: str, *, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.code = code


class Unavailable(IsorunError):
    """This host cannot enforce the policy, and nothing weaker was started.

    Its text ends with the command that looks at this host; `reason` is the text without that.
    """

    def __init__(self, reason: str, *, backend: str | None = None) -> None:
        look = "run `isorun doctor" + (f" --backend {backend}`" if backend else "`")
        if reason.endswith(look) or reason.endswith("run `isorun doctor --backend docker`"):  # as pickle hands it back
            self.reason = reason[: reason.rindex("run `")].removesuffix(" ").removesuffix(";")
            super().__init__(reason)
            return
        self.reason = reason
        super().__init__(f"{reason}{' ' if reason.endswith(('.', '?', '!')) else '; '}{look}")


class SetupFailed(IsorunError):
    """A named step of building the slot failed; all of it was undone."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


class CleanupFailed(IsorunError):
    """Something of ours may still exist; an operator must look at what the text names."""


class Misused(IsorunError, RuntimeError):
    """A Runtime was used before it was opened, after it was closed, or where it was not opened; nothing was started.

    It is a mistake in the code around the Runtime, never of who sent the program.
    """
