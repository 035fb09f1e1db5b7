"""A stream without line breaks: nothing is lost by it, however it is cut, and nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isorun.wire.frames import ProtocolError
from isorun.wire.unbroken import Mended, unbroken

TEXT = st.lists(st.sampled_from([b"\n", b"\x1b", b"n", b"e", b"\x00x"])).map(b"".join) | st.binary()


@given(TEXT, st.integers(1, 7))
def test_what_arrives_is_what_was_sent(data: bytes, step: int) -> None:
    """In pieces of any length."""
    sent = unbroken(data)
    assert b"\n" not in sent
    assert len(sent) <= 2 * len(data)
    mended = Mended()
    assert b"".join(mended.feed(sent[at : at + step]) for at in range(0, len(sent), step)) == data


@given(TEXT, TEXT)
def test_no_other_stream_is_believed(one: bytes, two: bytes) -> None:
    """Each stream that is taken is the one that its bytes would be sent as."""
    mended = Mended()
    try:
        data = mended.feed(one) + mended.feed(two)
    except ProtocolError:
        return
    assert unbroken(data) == (one + two).removesuffix(b"\x1b")


@pytest.mark.parametrize("stream", [b"a\n", b"\x1bx", b"\x1b\x1b", b"\x1b\n"])
def test_a_break_or_an_unknown_escape_is_refused(stream: bytes) -> None:
    """The peer is hostile."""
    with pytest.raises(ProtocolError, match=r"^a line break, or an unknown escape$"):
        Mended().feed(stream)
