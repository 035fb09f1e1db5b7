"""Which user ids may name a folder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isorun import InvalidRequest
from isorun.tools.workspace import MAX_USER_ID, STATE, check_user_id

pytestmark = pytest.mark.uid


@pytest.mark.parametrize(
    "user_id", ["a", "7", "_x", "alice", "Alice.B", "a@example.org", "a+b", "x-y", "u" * MAX_USER_ID]
)
def test_a_plain_id_is_given_back(user_id) -> None:
    """Letters, digits and `._@+-` in any place but the first."""
    assert check_user_id(user_id) == user_id


@pytest.mark.parametrize(
    "user_id",
    [
        *("", ".", "..", "...", ".hidden", STATE, "-x", "@x", "+x"),
        *("a/b", "/a", "a/", "../a", "a/../b", "a\\b"),
        *("a\0b", "a\nb", "a\n", "a b", "a:b", "a*", "~", "ä", "a\u202eb", "\ud800"),
        *("u" * (MAX_USER_ID + 1), "u" * 1_000_000),
        *(None, 7, b"a", ["a"]),
    ],
)
def test_any_other_is_refused_with_a_code(user_id) -> None:
    """Nothing that could lead elsewhere, hide, or forge a line becomes a part of a path."""
    with pytest.raises(InvalidRequest, match=r"^user_id must be 1 to 128 characters of a-z") as caught:
        check_user_id(user_id)
    assert caught.value.code == "invalid_user_id"
    assert len(str(caught.value)) < 300


@pytest.mark.slow
@given(st.text())
def test_what_is_accepted_is_one_part_of_a_path(user_id) -> None:
    """No text is accepted that a path would take for more or less than one name."""
    try:
        accepted = check_user_id(user_id)
    except InvalidRequest:
        return
    assert accepted == user_id
    assert not accepted.startswith(".")
    assert accepted.isascii()
    assert "/" not in accepted
    assert 1 <= len(accepted) <= MAX_USER_ID
