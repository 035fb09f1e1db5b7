"""The ceilings of a run: DESIGN's table, and no value that means "unlimited"."""

import dataclasses
import math

import pytest

from isorun.core.errors import InvalidRequest
from isorun.core.limits import GIB, KIB, MAX_FRAME_BYTES, MIB, Limits, check_own, with_own
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
        "tmp_bytes": 128 * MIB,
        "shm_bytes": 128 * MIB,
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


@pytest.mark.parametrize(
    ("given", "workspace", "tmp", "shm"),
    [
        ({}, 256, 128, 128),
        ({"memory_bytes": 256 * MIB}, 64, 32, 32),
        ({"memory_bytes": "96M"}, 24, 12, 12),
        ({"memory_bytes": "8G"}, 256, 1024, 1024),  # what is copied to the host's disk does not grow
        ({"workspace_bytes": "384M"}, 384, 64, 64),
        ({"tmp_bytes": "416m"}, 64, 416, 32),
        ({"memory_bytes": "256M", "shm_bytes": MIB}, 64, 32, 1),
    ],
)
def test_a_tmpfs_that_is_not_given_follows_the_memory(
    given: dict[str, int | str], workspace: int, tmp: int, shm: int
) -> None:
    """Together they hold at most half of it, and what is given stays."""
    limits = Limits(**given)
    assert [limits.workspace_bytes, limits.tmp_bytes, limits.shm_bytes] == [
        size * MIB for size in (workspace, tmp, shm)
    ]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("memory_bytes", "1.5G", 3 << 29),
        ("file_bytes", "512kb", 512 * KIB),
        ("wall_s", "10m", 600.0),
        ("grace_s", "250ms", 0.25),
    ],
)
def test_bytes_and_seconds_may_be_texts_with_a_unit(name: str, text: str, value: float) -> None:
    """What the field holds is a number all the same."""
    assert getattr(Limits(**{name: text}), name) == value


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("memory_bytes", "256", "memory_bytes must be a number, got '256'; a text needs a unit, such as 256M"),
        ("wall_s", "90", "wall_s must be a number, got '90'; a text needs a unit, such as 90s"),
        (
            "memory_bytes",
            "256Q",
            "memory_bytes must be a size such as 256M or 1.5G, or a whole number of bytes, got '256Q'",
        ),
        ("wall_s", "0s", "wall_s must be positive and finite, got 0.0"),
        ("memory_bytes", 1, "memory_bytes must be at least 24576, got 1"),
    ],
)
def test_a_text_that_is_no_size_and_no_time_is_named(name: str, value: object, says: str) -> None:
    """The error names the limit and what it must be."""
    with pytest.raises(InvalidRequest) as caught:
        Limits(**{name: value})
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("host", "own", "limits"),
    [
        (Limits(), None, Limits()),
        (Limits(), {"memory_bytes": 256 * MIB}, Limits(memory_bytes=256 * MIB)),
        (Limits(tmp_bytes=MIB), {"memory_bytes": 256 * MIB}, Limits(memory_bytes=256 * MIB, tmp_bytes=MIB)),
        (Limits(tmp_bytes=200 * MIB), {"wall_s": 5}, Limits(tmp_bytes=200 * MIB, wall_s=5)),
        (Limits(), {"memory_bytes": 8 * MIB, "tmp_bytes": 2 * MIB}, Limits(memory_bytes="8M", tmp_bytes="2M")),
        (Limits(wall_s=5), {"processes": 2}, Limits(wall_s=5, processes=2)),
    ],
)
def test_a_run_has_the_limits_of_the_host_but_for_its_own(
    host: Limits, own: dict[str, float] | None, limits: Limits
) -> None:
    """A tmpfs that it does not name shrinks with its memory, and never grows beyond the host's."""
    check_own(host, own)
    assert with_own(host, own) == limits


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"memory_bytes": 2 * GIB}, f"memory_bytes is {2 * GIB}, more than ISORUN_MAX_MEMORY_BYTES allows: {GIB}"),
        ({"cpus": 1.5}, "cpus is 1.5, more than ISORUN_MAX_CPUS allows: 1.0"),
        ({"tmp_bytes": GIB}, f"tmp_bytes is {GIB}, more than ISORUN_MAX_TMP_BYTES allows: {128 * MIB}"),
    ],
)
def test_no_limit_of_a_run_is_above_the_hosts(own: dict[str, float], says: str) -> None:
    """The error names the setting."""
    with pytest.raises(InvalidRequest) as caught:
        check_own(Limits(), own)
    assert (str(caught.value), caught.value.code) == (f"limits: {says}", "limit_too_large")
