"""Sizes and times as people write them: `256M`, `1.5G`, `90s`, `1h30m`. The only reader of such texts.

It knows no setting and no limit: who asks names the thing in the error, and says with `SIZE` or
`TIME` what it must be. A number alone counts bytes or seconds.
"""

import re

SIZE = "a size such as 256M or 1.5G, or a whole number of bytes"
TIME = "a time such as 500ms, 90s, 10m or 1h, or a number of seconds"

# ASCII alone: another script's digits, or a Kelvin sign for a K, are a slip worth showing.
_SIZE = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,9}))? ?(?:([kmgt])i?)?b?", re.ASCII | re.IGNORECASE)
_POWERS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_NUMBER = re.compile(r"[+-]?(?:[0-9.]+(?:e[+-]?[0-9]+)?|inf|nan)", re.ASCII | re.IGNORECASE)
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]+) ?", re.ASCII | re.IGNORECASE)
_SECONDS = {
    **dict.fromkeys(("ms",), 0.001),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}


def bytes_of(text: str) -> int:
    """*text* in bytes; `k`, `m`, `g` and `t` are powers of 1024, with or without `b` or `ib`. Raises `ValueError`."""
    matched = _SIZE.fullmatch(text)
    if matched is None:
        raise ValueError(text)
    whole, fraction, unit = matched[1], matched[2] or "", (matched[3] or "").lower()
    if fraction and not unit:
        raise ValueError(text)  # there is no part of a byte
    scale: int = 10 ** len(fraction)
    return (int(whole + fraction) << _POWERS[unit]) // scale


def seconds_of(text: str, *, alone: float = 1.0) -> float:
    """*text* in seconds; a number without a unit counts *alone* seconds each. Raises `ValueError`.

    The number may be zero, negative, infinite or NaN, which the caller must refuse; with a unit it is at least 0.
    """
    if _NUMBER.fullmatch(text):
        return float(text) * alone
    seconds, at = 0.0, 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None or part[2].lower() not in _SECONDS:
            raise ValueError(text)
        seconds += float(part[1]) * _SECONDS[part[2].lower()]
        at = part.end()
    if not text:
        raise ValueError(text)
    return seconds
