"""The ceilings of a run: DESIGN's table, and no value that means "unlimited"."""

import dataclasses
import math

import pytest

from isorun.core.errors import InvalidRequest
from isorun.core.limits import GIB, KIB, MAX_FRAME_BYTES, MIB, Limits
from isorun.wire.frames import MAX_FRAME

FIELDS = [f.name for f in dataclasses.fields(Limits)]


def test_design6_the_defaults_are_those_of_the_table() -> None:
    """Each default is the figure that the documents promise."""
    assert dataclasses.asdict(Limits()) == {
        "wall_s": 600.0,
        "memory_bytes": GIB,
        "processes": 128,
        "cpus": 1.0,
        "workspace_bytes": 256 * MIB,
        "workspace_inodes": 10_000,
        "file_bytes": 100 * MIB,
        "tmp_bytes": 64 * MIB,
        "shm_bytes": 64 * MIB,
        "open_files": 1024,
        "log_bytes": 16 * MIB,
        "result_bytes": MIB,
        "output_bytes": 128 * MIB,
        "source_bytes": MIB,
        "input_bytes": 128 * MIB,
        "contract_items": 100,
        "tool_calls": 1000,
        "tool_calls_at_once": 16,
        "frame_bytes": 16 * MIB,
        "tool_call_s": 60.0,
        "grace_s": 2.0,
    }
    assert (KIB, MIB, GIB) == (1024, 1024**2, 1024**3)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", FIELDS)
def test_no_value_means_unlimited(name: str, value: float) -> None:
    """Zero, a negative number, NaN and infinity are refused for every limit."""
    with pytest.raises(InvalidRequest) as caught:
        Limits(**{name: value})
    assert str(caught.value) == f"{name} must be positive and finite, got {value}"
    assert caught.value.code == "invalid_limit"


@pytest.mark.parametrize("value", [True, None, "unlimited", "5"])
def test_a_limit_is_a_number(value: object) -> None:
    """A truth value, None and a text are refused, also a text that looks like a number."""
    with pytest.raises(InvalidRequest) as caught:
        Limits(processes=value)
    assert str(caught.value) == f"processes must be a number, got {value!r}"


def test_the_tmpfs_hold_at_most_half_of_the_memory() -> None:
    """Half of the memory exactly is accepted; one byte more in any tmpfs is refused."""
    half = {"memory_bytes": 8 * MIB, "workspace_bytes": 2 * MIB, "tmp_bytes": MIB, "shm_bytes": MIB}
    Limits(**half)
    for name in ("workspace_bytes", "tmp_bytes", "shm_bytes"):
        with pytest.raises(InvalidRequest) as caught:
            Limits(**{**half, name: half[name] + 1})
        assert str(caught.value) == (
            f"workspace, /tmp and /dev/shm hold {4 * MIB + 1} bytes together, more than half of "
            f"memory_bytes ({8 * MIB}); raise memory_bytes or lower them"
        )


def test_limits_cannot_be_changed_after_they_were_checked() -> None:
    """A checked value stays checked."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().wall_s = math.inf


def test_a_frame_is_at_most_what_the_wire_carries() -> None:
    """A larger cap would be broken by the first large result; the two constants agree."""
    assert MAX_FRAME_BYTES == MAX_FRAME
    assert Limits(frame_bytes=MAX_FRAME).frame_bytes == MAX_FRAME
    with pytest.raises(InvalidRequest, match="frame_bytes must be at most 16777216, got 16777217"):
        Limits(frame_bytes=MAX_FRAME + 1)
