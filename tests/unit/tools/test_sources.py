"""Numbers of sources: kept, never given twice, and the same page is one source."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isorun.tools.sources import MAX_SID, MAX_URL, checked_pool, merge_sources, source_key

URLS = st.sampled_from(
    [
        f"{scheme}://{host}{path}"
        for scheme in ("http", "https")
        for host in ("a.example", "A.example:80", "b.example")
        for path in ("", "/", "/x", "/x/?utm_source=y", "/x?a=1&utm_medium=z", "/x?a=1#part")
    ]
)
TEXTS = st.text(alphabet="abc ", max_size=6)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "sid": st.integers(1, 12),
            "url": URLS,
            "title": TEXTS,
            "text": TEXTS,
            "published": st.none() | st.just("2024"),
        }
    ),
    max_size=12,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["sid", "url", "title"]), inner),
    max_leaves=6,
)


def pool_of(rows: list[dict]) -> list:
    return merge_sources([], rows)[0]


def row(sid: object, url: object, title: str = "", text: str = "") -> dict:
    return {"sid": sid, "url": url, "title": title, "text": text, "published": None}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://a.example/x", "http://a.example/x#part"),
        ("http://a.example/x", "http://a.example:80/x"),
        ("https://a.example/x", "https://a.example:443/x/"),
        ("http://a.example/x", "HTTP://A.Example./x"),
        ("http://a.example/x?a=1", "http://a.example/x?utm_source=s&a=1&UTM_medium=m"),
        ("http://a.example", "http://a.example/"),
        ("http://[2606::1]/", "http://[2606::1]:80"),
    ],
)
def test_two_urls_of_one_page_have_one_key(one, other) -> None:
    """What a link says beside the page does not make another source."""
    assert source_key(one) == source_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://a.example/x", "https://a.example/x"),
        ("http://a.example/x", "http://a.example/X"),
        ("http://a.example/x", "http://a.example:8080/x"),
        ("http://a.example/x?a=1", "http://a.example/x?a=2"),
        ("http://a.example/x?autm_b=1", "http://a.example/x"),
        ("http://u@a.example/", "http://a.example/"),
        ("http://a.example:99999/", "http://a.example/"),
    ],
)
def test_different_pages_have_different_keys(one, other) -> None:
    """A path counts as it is written, and a query that is no tracking belongs to the page."""
    assert source_key(one) != source_key(other)


@given(st.text() | URLS)
def test_a_key_is_its_own_key(url) -> None:
    """And nothing raises, whatever the text."""
    assert source_key(source_key(url)) == source_key(url)


def test_a_merge_says_which_number_became_which() -> None:
    """A known page has its number, a free number is kept, a taken one becomes the highest + 1."""
    pool = pool_of([row(1, "http://a.example/", "A"), row(5, "http://b.example/")])
    merged, numbers = merge_sources(
        pool,
        [
            row(1, "http://c.example/"),
            row(2, "http://A.example/#x", "longer A", "text"),
            row(3, "http://d.example/"),
            row(None, "http://e.example/"),
            row(9, "", "no URL"),
        ],
    )
    assert [(source["sid"], source["url"]) for source in merged] == [
        (1, "http://a.example/"),
        (5, "http://b.example/"),
        (6, "http://c.example/"),
        (3, "http://d.example/"),
        (7, "http://e.example/"),
    ]
    assert numbers == {1: 6, 2: 1, 3: 3}
    assert (merged[0]["title"], merged[0]["text"]) == ("longer A", "text")


@given(ROWS, ROWS)
def test_merging_the_same_rows_again_changes_nothing(first, rows) -> None:
    """Idempotent; and the second time each number leads to the same source."""
    pool = pool_of(first)
    once, numbers = merge_sources(pool, rows)
    twice, again = merge_sources(once, rows)
    assert (twice, again) == (once, numbers)


@given(ROWS, ROWS)
def test_numbers_of_the_pool_are_stable(first, rows) -> None:
    """Every source keeps number, URL and place; its texts never become shorter."""
    pool = pool_of(first)
    merged, _ = merge_sources(pool, rows)
    for before, after in zip(pool, merged, strict=False):
        assert (before["sid"], before["url"]) == (after["sid"], after["url"])
        assert len(before["title"]) <= len(after["title"])
        assert len(before["text"]) <= len(after["text"])
    assert len(merged) >= len(pool)


@given(ROWS, ROWS)
def test_a_number_and_a_page_are_there_once(first, rows) -> None:
    """No two sources share either, and each old number leads to a source of the pool."""
    merged, numbers = merge_sources(pool_of(first), rows)
    assert len({source["sid"] for source in merged}) == len(merged)
    assert len({source_key(source["url"]) for source in merged}) == len(merged)
    assert set(numbers) == {row["sid"] for row in rows}
    assert set(numbers.values()) <= {source["sid"] for source in merged}


@given(ROWS, ROWS)
def test_the_order_of_merges_changes_numbers_alone(one, other) -> None:
    """The same pages with the same titles and texts come out, whichever call came first."""

    def told(rows: list[dict]) -> set:
        return {(source_key(s["url"]), s["title"], s["text"], s["published"]) for s in pool_of(rows)}

    assert told(one + other) == told(other + one)
    assert told(one + other) == {
        (source_key(s["url"]), s["title"], s["text"], s["published"]) for s in merge_sources(pool_of(one), other)[0]
    }


def test_arguments_are_not_changed() -> None:
    """A caller's list and rows are its own."""
    pool, rows = pool_of([row(1, "http://a.example/")]), [row(1, "http://a.example/", "title")]
    kept = json.dumps([pool, rows])
    merge_sources(pool, rows)
    assert json.dumps([pool, rows]) == kept


@given(ROWS)
def test_a_pool_is_valid_as_it_is_written(rows) -> None:
    """What a merge gives can be written as JSON and read back."""
    pool = pool_of(rows)
    assert checked_pool(json.loads(json.dumps(pool))) == pool


@given(JSON)
def test_any_json_is_a_pool_or_none(value) -> None:
    """The file is the program's: nothing in it raises, and what passes can be merged."""
    pool = checked_pool(value)
    if pool is not None:
        assert merge_sources(pool, [row(1, "http://a.example/")])[1]


@pytest.mark.slow
@given(st.lists(st.dictionaries(st.sampled_from(["sid", "url", "title", "text", "published"]), JSON), max_size=4))
def test_any_rows_can_be_merged(rows) -> None:
    """A row with other types in it is cut to what a source is, or left out."""
    assert checked_pool(merge_sources([], rows)[0]) is not None


@pytest.mark.parametrize(
    "value",
    [
        {},
        [1],
        [{}],
        [row(0, "http://a/")],
        [row(-1, "http://a/")],
        [row(True, "http://a/")],
        [row(1.0, "http://a/")],
        [row("1", "http://a/")],
        [row(MAX_SID + 1, "http://a/")],
        [row(10**400, "http://a/")],
        [row(1, "")],
        [row(1, 5)],
        [row(1, "x" * (MAX_URL + 1))],
        [row(1, "http://a/"), row(1, "http://b/")],
        [row(1, "http://a/", "half \ud800")],
    ],
)
def test_what_is_no_pool_is_refused(value) -> None:
    """A number that is none, one that is there twice, a URL that is none or too long, half a character."""
    assert checked_pool(value) is None
