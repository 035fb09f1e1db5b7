"""What a caller's `progress` may do while an image is built: anything, and the build goes on."""

import re

import pytest

from sandbox_runner.docker.sandbox import _teller


@pytest.mark.parametrize("error", [OSError(5, "the console is closed"), ValueError("I/O operation on closed file")])
def test_a_progress_that_raises_is_told_once_and_dropped(error: Exception) -> None:
    """Every line is in the record, the failure too, and the caller is not called again."""
    record, calls = bytearray(), []

    def progress(line: str) -> None:
        calls.append(line)
        raise error

    tell = _teller(record.extend, progress)
    for line in ("first", "second", "third"):
        tell(line)
    lines = [re.sub(rb"^\S+Z ", b"", line).decode() for line in bytes(record).splitlines()]
    told = f"progress raised {type(error).__name__} and is not called again"
    assert (lines, calls) == (["first", told, "second", "third"], ["first"])


def test_the_record_comes_first() -> None:
    """What the caller is told of is in the record by then."""
    record = bytearray()
    seen: list[bytes] = []
    tell = _teller(record.extend, lambda line: seen.append(bytes(record)))
    tell("first")
    assert seen == [bytes(record)]


def test_an_interrupt_is_the_callers() -> None:
    """Ctrl-C in the caller's function still ends the start."""

    def progress(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _teller(bytearray().extend, progress)("first")
