"""Frames: the stream is cut the same way however it arrives, and a length is judged before it is believed."""

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isorun.wire import frames as wire_frames
from isorun.wire.frames import MAX_FRAME, PREFIX_BYTES, Frames, ProtocolError, encode_frame

# Strategies are built on first use, and a loaded machine takes its time over that.
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

BODIES = st.lists(st.tuples(st.binary(max_size=20), st.lists(st.binary(max_size=20), max_size=3)), max_size=5)


def drain(frames: Frames) -> list[tuple[bytes, bytes]]:
    """Every frame that is whole."""
    found = []
    while (frame := frames.next()) is not None:
        found.append(frame)
    return found


@calm
@given(BODIES, st.lists(st.integers(0, 300)))
def test_any_split_of_a_stream_gives_the_same_frames(bodies, cuts) -> None:
    """Where the kernel cuts a stream changes nothing."""
    stream = b"".join(encode_frame(header, blobs) for header, blobs in bodies)
    frames, found, start = Frames(), [], 0
    for cut in [*sorted(cuts), len(stream)]:
        frames.feed(stream[start:cut])
        start = max(start, cut)
        found += drain(frames)
    frames.end()
    assert found == [(header, b"".join(blobs)) for header, blobs in bodies]


@calm
@given(st.lists(st.binary(max_size=40)))
def test_arbitrary_bytes_raise_only_protocol_errors(chunks) -> None:
    """No stream reaches the reader as another exception."""
    frames = Frames(max_frame=64)
    try:
        for chunk in chunks:
            frames.feed(chunk)
            drain(frames)
        frames.end()
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    ("prefix", "text"),
    [
        (b"\xff" * 8, f"frame of 4294967295 bytes exceeds {MAX_FRAME}"),
        (struct.pack("!II", 0xFFFFFFFF, 0), f"frame of 4294967295 bytes exceeds {MAX_FRAME}"),
        (struct.pack("!II", MAX_FRAME + 1, 1), f"frame of {MAX_FRAME + 1} bytes exceeds {MAX_FRAME}"),
        (struct.pack("!II", 4, 5), "header of 5 bytes exceeds its frame of 4"),
    ],
)
def test_a_bad_length_is_refused_at_the_prefix_and_for_ever(prefix, text) -> None:
    """A refusal needs no body, is repeated word for word, and no honest frame after it is believed."""
    frames = Frames()
    for data in (prefix, encode_frame(b"{}"), b""):
        frames.feed(data)
        with pytest.raises(ProtocolError) as caught:
            frames.next()
        assert str(caught.value) == text
    with pytest.raises(ProtocolError, match="exceeds"):
        frames.end()


def test_a_refused_stream_is_not_kept() -> None:
    """Bytes behind a refused prefix take no memory, in the same feed or later."""
    frames = Frames()
    frames.feed(b"\xff" * 8 + b"x" * 1000)
    frames.feed(b"x" * 1000)
    assert len(frames._buffer) == 0


def test_a_bad_prefix_behind_a_good_frame_spares_the_frame() -> None:
    """What was whole before the violation is still delivered, once."""
    frames = Frames()
    frames.feed(encode_frame(b"{}", [b"ab"]) + b"\xff" * 8)
    assert frames.next() == (b"{}", b"ab")
    with pytest.raises(ProtocolError, match="frame of 4294967295 bytes exceeds"):
        frames.next()


def test_a_truncated_stream_is_a_violation_at_its_end() -> None:
    """A stream that closes inside a frame says so, and one that closes between frames does not."""
    whole = encode_frame(b"{}", [b"ab"])
    for cut in range(1, len(whole)):
        frames = Frames()
        frames.feed(whole[:cut])
        assert frames.next() is None
        with pytest.raises(ProtocolError) as caught:
            frames.end()
        assert str(caught.value) == f"the stream ended {cut} bytes into a frame"


def test_the_cap_is_inclusive_on_both_sides() -> None:
    """A body of exactly the cap passes; one byte more is neither made nor read."""
    frames = Frames(max_frame=4)
    frames.feed(encode_frame(b"ab", [b"cd"], max_frame=4))
    assert frames.next() == (b"ab", b"cd")
    with pytest.raises(ValueError, match=r"^frame of 5 bytes exceeds 4$"):
        encode_frame(b"ab", [b"cde"], max_frame=4)


@calm
@given(BODIES, st.binary(max_size=30))
def test_both_readers_find_the_same_frames(bodies, tail) -> None:
    """Of any bytes at all, `Frames` and `cut` make the same frames, the same rest or the same refusal."""
    stream = b"".join(encode_frame(header, blobs) for header, blobs in bodies) + tail
    frames = Frames(max_frame=100)
    frames.feed(stream)
    found: list[tuple[bytes, bytes]] = []
    refused = ""
    try:
        found += drain(frames)
    except ProtocolError as refusal:
        refused = str(refusal)
    if refused:
        with pytest.raises(ProtocolError) as caught:
            wire_frames.cut(stream, max_frame=100)
        assert str(caught.value) == refused
    else:
        used = sum(PREFIX_BYTES + len(header) + len(blobs) for header, blobs in found)
        assert wire_frames.cut(stream, max_frame=100) == (found, used)
