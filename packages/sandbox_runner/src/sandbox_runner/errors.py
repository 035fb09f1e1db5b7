"""What can go wrong, by whose fault it is. The text names the item and the remedy, and never holds a secret's value."""


class SandboxError(Exception):
    """Base of every error of this package. A command that fails gives an `ExecResult` and raises nothing."""


class InvalidSpec(SandboxError, ValueError):
    """A field of the spec, or an argument of `exec`, cannot be used; `field` names it. Nothing was started."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


class BackendUnavailable(SandboxError):
    """This machine cannot build such a sandbox; the text says what is missing."""


class DockerUnavailable(BackendUnavailable):
    """No Docker CLI, or no engine that answers it."""


class ImageBuildFailed(SandboxError):
    """The image could not be built, or is not there and may not be fetched."""


class SandboxStartFailed(SandboxError):
    """The sandbox did not start, or is not what the spec says; what was begun is removed."""


class SandboxTimeout(SandboxError):
    """A step of ours (not a command of yours: that is a result) took longer than it may."""


class SandboxGone(SandboxError):
    """The sandbox is not there any more: closed, killed, or its engine stopped."""
