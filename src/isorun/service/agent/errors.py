"""Why a model gave no answer. Each text says what to change, and none holds the key.

ModelError
├─ Unreachable    no server answers at that address, or the connection broke
├─ KeyRefused     401 or 403
├─ RateLimited    429; `retry_after_s` is what the server asks for
├─ TooSlow        it sent nothing for too long, or did not end
└─ NotUnderstood  it answered, and the answer cannot be used
"""

from __future__ import annotations

from typing import ClassVar

from isorun.core.errors import IsorunError

URL, NAME, KEY = "ISORUN_MODEL_URL", "ISORUN_MODEL", "ISORUN_MODEL_KEY"


class ModelError(IsorunError):
    """The model gave no answer. `code` is a stable word, `reason` what happened, `hint` what to change."""

    code: ClassVar[str] = "model_failed"

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(f"{reason} {hint}")
        self.reason = reason
        self.hint = hint


class Unreachable(ModelError):
    """Nothing answers at the model's address, or the connection broke in the middle of an answer."""

    code = "model_unreachable"


class KeyRefused(ModelError):
    """The server does not take the key, or wants one."""

    code = "model_key_refused"


class RateLimited(ModelError):
    """The server takes no more requests for now; without `retry_after_s` it does not say for how long."""

    code = "model_rate_limited"

    def __init__(self, reason: str, hint: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason, hint)
        self.retry_after_s = retry_after_s


class TooSlow(ModelError):
    """The server sent no byte for too long, or its answer did not end in time."""

    code = "model_too_slow"


class NotUnderstood(ModelError):
    """The server answered, and its answer cannot be used: an error, another protocol, or too long."""

    code = "model_not_understood"
