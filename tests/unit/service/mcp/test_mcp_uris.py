"""Addresses of files: what is made is read back, and nothing leaves a run's out folder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isorun.core.errors import InvalidRequest
from isorun.service.mcp.uris import Place, check_path, place_of, uri_of

NAME = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..")
)


@given(st.lists(NAME, min_size=1, max_size=4))
def test_an_address_is_read_back(parts) -> None:
    """Whatever a file is called, blanks, `?`, `#` and `%2e%2e` among it, its address leads to that file alone."""
    path = "/".join(parts)
    uri = uri_of("mcp-1", path)
    assert uri.isascii()
    assert place_of(uri) == Place("mcp-1", path)


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("file:///etc/passwd", "invalid_uri"),
        ("isorun://runs/mcp-1/work/a", "invalid_uri"),
        ("isorun://runs/mcp-1/out/", "invalid_uri"),
        ("isorun://runs/mcp-1/out/a?b", "invalid_uri"),
        ("isorun://runs/mcp-1/out/%ff", "invalid_uri"),
        ("isorun://runs/mcp-1/out/" + "a" * 20_000, "invalid_uri"),
        ("isorun://runs/../out/a", "invalid_exec_id"),
        ("isorun://runs/%2e%2e/out/a", "invalid_exec_id"),
        ("isorun://runs/mcp-1/out/../../a", "invalid_path"),
        ("isorun://runs/mcp-1/out/%2e%2e/a", "invalid_path"),
        ("isorun://runs/mcp-1/out/a%2f..%2f..%2fb", "invalid_path"),
        ("isorun://runs/mcp-1/out//etc/passwd", "invalid_path"),
        ("isorun://runs/mcp-1/out/%2fetc/passwd", "invalid_path"),
        ("isorun://runs/mcp-1/out/a%00b", "invalid_path"),
    ],
)
def test_an_address_of_anything_else_is_refused(uri, code) -> None:
    """Another scheme, another folder, and each way up, also a way up that is escaped."""
    with pytest.raises(InvalidRequest) as caught:
        place_of(uri)
    assert caught.value.code == code


@pytest.mark.parametrize("path", ["", "/", "/a", "a/", "a//b", ".", "./a", "..", "a/../b", "a\0", "a" * 5000, None, 7])
def test_a_path_stays_below_out(path) -> None:
    """An argument that is no path below out/ is refused with what to give."""
    with pytest.raises(InvalidRequest, match="relative to the run's out folder") as caught:
        check_path(path)
    assert caught.value.code == "invalid_path"
