"""Sizes and times as people write them."""

import math

import pytest

from isorun.core.quantity import bytes_of, seconds_of


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("0", 0), ("4096", 4096), ("256M", 256 << 20), ("1.5G", 3 << 29), ("512mb", 512 << 20), ("9b", 9)),
        *(("1 GiB", 1 << 30), ("64Ki", 65_536), ("2t", 2 << 40), ("0.3k", 307)),
    ],
)
def test_a_size_is_in_powers_of_1024(text: str, size: int) -> None:
    """With or without a unit, in any case, and exact."""
    assert bytes_of(text) == size


@pytest.mark.parametrize(
    "text", ["", "M", "1.5", "-1M", "1e3", "1_0", "5ib", "\u0663M", "5\u212a", "1 000", "256M ", "256MM"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    """A sign, a part of a byte, another script's letters and digits."""
    with pytest.raises(ValueError, match=r"^"):
        bytes_of(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("5", 5), ("0.5", 0.5), ("1e3", 1000), ("-1", -1), ("500ms", 0.5), ("90s", 90), ("10m", 600), ("1.5h", 5400)),
        *(("1h30m", 5400), ("1h 30m", 5400), ("7d", 604_800), ("10 minutes", 600), ("inf", math.inf)),
    ],
)
def test_a_time_is_seconds_or_has_a_unit(text: str, seconds: float) -> None:
    """A number alone counts seconds."""
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "10x", "5m3", "1..5", "-5s", "1_0", "\u0664", "10m!", "soon"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """A unit alone, an unknown one, and a number behind a unit."""
    with pytest.raises(ValueError, match=r"^"):
        seconds_of(text)


def test_a_number_alone_counts_what_the_caller_says() -> None:
    """Hours for a retention; a unit beats that."""
    assert (seconds_of("2", alone=3600), seconds_of("2m", alone=3600)) == (7200, 120)
