"""Sizes and times as people write them: `512mb`, `1.5g`, `90s`, `1h30m`. The only reader of such texts here."""

from __future__ import annotations

import re

_SIZE = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,9}))? ?(?:([kmg])i?)?b?", re.ASCII | re.IGNORECASE)
_POWERS = {"": 0, "k": 10, "m": 20, "g": 30}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhd])", re.ASCII | re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def bytes_of(size: int | str) -> int:
    """4096, "4k", "1.5g", "512mb" and the like in bytes, in powers of 1024. Raises `ValueError`."""
    matched = _SIZE.fullmatch(str(size))
    if matched is None or (matched[2] and not matched[3]):  # there is no part of a byte
        raise ValueError(f"{size!r} is not a size: give bytes, or a number with k, m or g")
    fraction = matched[2] or ""
    scale: int = 10 ** len(fraction)
    return (int(matched[1] + fraction) << _POWERS[(matched[3] or "").lower()]) // scale


def seconds_of(text: str) -> float:
    """As "5", "90s", "1.5h", "1h30m" and the like in seconds. Raises `ValueError`; the number may be anything."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return float(text)
    return sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts)
