"""What a model's server says when it gives no answer, and what that means for the operator.

Pure: from status, body and header to a `ModelError`. What a server says is a stranger's text: it is shown on one line,
short, and without the key, which some servers repeat.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from isorun.core.text import one_line
from isorun.service.agent.errors import (
    KEY,
    NAME,
    URL,
    KeyRefused,
    ModelError,
    NotUnderstood,
    RateLimited,
    TooSlow,
    Unreachable,
)

_SHOWN_CHARS = 300  # of what a server says
_LONGEST_WAIT = 86_400.0  # seconds that a server may ask for
_WORDS = {401: re.compile("invalid_api_key|authentication"), 429: re.compile("rate_limit|quota|overloaded")}


@dataclass(frozen=True, slots=True)
class Refusals:
    """The errors of the model *name* at *place*."""

    place: str
    name: str
    key: str = field(default="", repr=False)

    def shown(self, text: str) -> str:
        """*text* of a stranger, for an error."""
        return one_line(text.replace(self.key, "***") if self.key else text, _SHOWN_CHARS).strip()

    def answered(self, status: int, told: object, retry_after: str | None = None) -> ModelError:
        """The error that an answer with *status* and the JSON value *told* is."""
        reason = self.shown(reason_in(told))
        end = f": {reason}" if reason else "."
        if status in (401, 403):
            done = "refused the key" if self.key else "wants a key"
            text = f"The model's server at {self.place} {done} ({status})."
            return KeyRefused(text, f"Set {KEY} to a key that is valid there.")
        if status == 429:
            return self._limited(end, seconds_of(retry_after))
        if status == 404:
            text = f"The model's server has not {self.place}, or not the model {self.name} (404){end}"
            hint = f"Set {URL} to the address before /chat/completions, and {NAME} to a model that it has."
            return NotUnderstood(text, hint)
        if 300 <= status < 400:
            text = f"The model's server at {self.place} sends requests elsewhere ({status})."
            return NotUnderstood(text, f"Set {URL} to where the server really is.")
        if status >= 500:
            return self.not_understood(
                f"failed ({status}){end}", f"Look at that server, or set {NAME} to another model."
            )
        return self.not_understood(f"refused the request ({status}){end}")

    def in_stream(self, told: object) -> ModelError:
        """The error that a server sent in the middle of an answer."""
        return self.answered(_status_in(told), told)

    def unreachable(self, reason: str) -> Unreachable:
        text = f"The model at {self.place} cannot be reached: {self.shown(reason) or 'the connection broke off'}."
        return Unreachable(text, f"Start that server, or set {URL} to where one is.")

    def silent(self, seconds: float) -> TooSlow:
        text = f"The model's server at {self.place} sent nothing for {seconds:g} s."
        return TooSlow(text, f"Look at that server, or set {NAME} to a faster model.")

    def endless(self, seconds: float) -> TooSlow:
        text = f"The model {self.name} did not end its answer within {seconds:g} s."
        return TooSlow(text, f"Ask for less, or set {NAME} to a faster model.")

    def too_long(self, most: int) -> NotUnderstood:
        text = f"The answer of the model {self.name} has more than {most} bytes."
        return NotUnderstood(text, f"Ask for less, or set {NAME} to another model.")

    def not_understood(self, done: str, hint: str = "") -> NotUnderstood:
        """*done*: what the server did, as the end of a sentence."""
        other = f"Set {URL} to a server of the chat completions protocol, and {NAME} to a model that calls tools."
        return NotUnderstood(f"The model's server at {self.place} {done}", hint or other)

    def _limited(self, end: str, seconds: float | None) -> RateLimited:
        wait = "Wait a while" if seconds is None else f"Wait {seconds:g} s"
        hint = f"{wait}, or set {NAME} to another model or {KEY} to another account's key."
        return RateLimited(f"The model's server takes no more requests for now (429){end}", hint, seconds)


def seconds_of(retry_after: str | None) -> float | None:
    """The seconds that the header Retry-After asks for, as a number or as a date; None if it cannot be read."""
    text = (retry_after or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):  # no date, or one without a zone
            return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), _LONGEST_WAIT)


def reason_in(told: object) -> str:
    """The sentence in the body of an error, wherever servers put it."""
    if isinstance(told, Mapping):
        for key in ("error", "message", "detail"):
            if isinstance(told.get(key), str):
                return str(told[key])
            if isinstance(told.get(key), Mapping):
                return reason_in(told[key])
    return ""


def _status_in(told: object) -> int:
    """The status that an error in a stream stands for."""
    error = told.get("error") if isinstance(told, Mapping) else None
    words = (error.get("code"), error.get("type")) if isinstance(error, Mapping) else ()
    for word in words:
        if isinstance(word, int) and 400 <= word < 600:
            return word
        for status, known in _WORDS.items():
            if isinstance(word, str) and (word == str(status) or known.search(word)):
                return status
    return 500
