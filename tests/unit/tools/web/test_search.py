"""Each search service's wire form, its failures, and the order in which services are tried."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isorun.supervisor.tool import ToolError
from isorun.tools.web import request
from isorun.tools.web.config import NAMES, WebConfig
from isorun.tools.web.providers import Query
from isorun.tools.web.search import rows_of, search
from tests.unit.tools.web.serving import Answer, Served, answer_json, anywhere, http, moved, serving

FOUND = [
    {"url": "https://a.example/1", "title": "One <strong>1</strong> &amp; more", "content": "first", "score": 0.9},
    {"url": "https://sub.b.example/2", "title": "Two", "content": "second", "publishedDate": "2024-05-06T00:00:00"},
    {"url": "https://c.example/3", "title": "Three", "content": "third"},
]
SEARXNG = {"query": "x", "results": FOUND}
BRAVE = {
    "web": {"results": [{**row, "description": row["content"], "page_age": row.get("publishedDate")} for row in FOUND]}
}
TAVILY = {"results": [{**row, "published_date": row.get("publishedDate")} for row in FOUND]}
PATHS = {"searxng": "/search", "brave": "/brave", "tavily": "/tavily"}
GOOD = {"searxng": SEARXNG, "brave": BRAVE, "tavily": TAVILY}


def config(served: Served, *providers: str) -> WebConfig:
    """Settings as an operator gives them, leading to *served*."""
    return WebConfig.read(
        {
            "ISORUN_SEARCH_PROVIDERS": ",".join(providers),
            "ISORUN_SEARXNG_URL": served.url("/"),
            "ISORUN_BRAVE_URL": served.url("/brave"),
            "ISORUN_TAVILY_URL": served.url("/tavily"),
            "BRAVE_API_KEY": "brave-secret",
            "TAVILY_API_KEY": "tavily-secret",
        }
    )


async def found(served: Served, *providers: str, **more: Any) -> list[Any]:  # noqa: ANN401 - passed on
    return await search("what is x", config=config(served, *providers), rules=anywhere(), **more)


@pytest.mark.parametrize("provider", PATHS)
async def test_each_service_is_understood(provider) -> None:
    """The three shapes give the same rows; tags and entities are gone."""
    async with serving({PATHS[provider]: answer_json(GOOD[provider])}) as served:
        rows = await found(served, provider, n=2)
    assert rows == [
        {
            "sid": 1,
            "url": "https://a.example/1",
            "title": "One 1 & more",
            "text": "first",
            "published": None,
            "provider": provider,
            "query": "what is x",
        },
        {
            "sid": 2,
            "url": "https://sub.b.example/2",
            "title": "Two",
            "text": "second",
            "published": "2024-05-06T00:00:00",
            "provider": provider,
            "query": "what is x",
        },
    ]


async def test_each_service_gets_its_own_request() -> None:
    """Parameters, header and body as its documentation has them; the key is in no URL."""
    more = {
        "n": 5,
        "freshness": "week",
        "country": "de",
        "safesearch": "strict",
        "include_domains": ["A.example", "b.example"],
        "exclude_domains": ["c.example"],
    }
    async with serving({PATHS[name]: answer_json(GOOD[name]) for name in PATHS}) as served:
        for name in PATHS:
            await found(served, name, **more)
        searxng, brave, tavily = served.asked
    sites = "%28site%3Aa.example+OR+site%3Ab.example%29+-site%3Ac.example"
    assert searxng.target == (f"/search?q=what+is+x+{sites}&format=json&pageno=1&safesearch=2&time_range=week")
    assert brave.target == (
        f"/brave?q=what+is+x+{sites}&count=5&safesearch=strict&text_decorations=false&freshness=pw&country=DE"
    )
    assert brave.headers["x-subscription-token"] == "brave-secret"
    assert (tavily.method, tavily.headers["authorization"]) == ("POST", "Bearer tavily-secret")
    assert json.loads(tavily.body) == {
        "query": "what is x",
        "max_results": 5,
        "time_range": "week",
        "include_domains": ["a.example", "b.example"],
        "exclude_domains": ["c.example"],
    }


async def test_domains_hold_whatever_the_service_sends() -> None:
    """A service that does not know the operators sends others: they are left out."""
    async with serving({"/search": answer_json(SEARXNG)}) as served:
        only = await found(served, "searxng", include_domains=["b.example"])
        others = await found(served, "searxng", exclude_domains=["b.example", "a.example"])
    assert [row["url"] for row in only] == ["https://sub.b.example/2"]
    assert [row["url"] for row in others] == ["https://c.example/3"]


async def test_several_queries_are_searched_by_themselves() -> None:
    """Each row names its query, and the numbers go on."""
    async with serving({"/search": answer_json(SEARXNG)}) as served:
        rows = await search(["one", "two"], n=2, config=config(served, "searxng"), rules=anywhere())
    assert [(row["sid"], row["query"]) for row in rows] == [(1, "one"), (2, "one"), (3, "two"), (4, "two")]


async def slow(writer: asyncio.StreamWriter) -> None:
    """No answer."""
    await asyncio.Event().wait()


async def endless(writer: asyncio.StreamWriter) -> None:
    """JSON without end."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
    while True:
        writer.write(b"1," * 30_000)
        await writer.drain()


FAILURES: list[tuple[str, Answer, str]] = [
    ("searxng", http("", status=403), "searxng: it answered 403; let it answer in JSON: add json to search.formats"),
    ("searxng", http("", status=404), "searxng: it answered 404; check its URL"),
    ("searxng", http("<html>", status=200), "searxng: its answer is not JSON; check that its URL"),
    ("searxng", moved("https://elsewhere/"), "searxng: it answered 302; give the URL that it redirects to"),
    ("searxng", http("", status=500), "searxng: it answered 500; try again later"),
    ("searxng", answer_json([1, 2]), "searxng: its answer has no list 'results'; check that its URL"),
    ("searxng", answer_json({"results": "none"}), "searxng: its answer has no list 'results'"),
    ("searxng", http("[" * 100_000, "application/json"), "searxng: its answer is not JSON"),
    ("searxng", b"SSH-2.0\r\n", "searxng: it cannot be reached: RemoteProtocolError; check its URL"),
    ("searxng", endless, "searxng: its answer has more than 4194304 bytes"),
    ("searxng", slow, "searxng: it gave no answer within"),
    ("brave", http("", status=401), "brave: it answered 401; check BRAVE_API_KEY"),
    ("brave", answer_json({"web": {"results": 5}}), "brave: its answer has no list 'results'"),
    ("brave", answer_json("text"), "brave: its answer has no list 'results'"),
    ("tavily", http("", status=401), "tavily: it answered 401; check TAVILY_API_KEY"),
    ("tavily", http("", status=432), "tavily: it answered 432; the plan of TAVILY_API_KEY is used up"),
]


@pytest.mark.parametrize(("provider", "answer", "said"), FAILURES)
async def test_a_service_that_fails_says_why_and_what_to_do(provider, answer, said, monkeypatch) -> None:
    """The error names the service and a remedy, and holds no key."""
    monkeypatch.setattr(request, "PROVIDER_S", 5.0 if answer is not slow else 0.3)
    async with serving({PATHS[provider]: answer}) as served:
        with pytest.raises(ToolError) as caught:
            await found(served, provider)
    assert str(caught.value).startswith(said)
    assert "secret" not in str(caught.value)


async def test_the_next_service_is_tried() -> None:
    """And a service that failed is not asked again for the next query."""
    async with serving({"/search": http("", status=403), "/brave": answer_json(BRAVE)}) as served:
        rows = await search(["one", "two"], n=1, config=config(served, "searxng", "brave"), rules=anywhere())
        assert [row["provider"] for row in rows] == ["brave", "brave"]
        assert [asked.target.partition("?")[0] for asked in served.asked] == ["/search", "/brave", "/brave"]


async def test_if_all_fail_each_is_named() -> None:
    """The reader of the error sees what to mend first."""
    answers = {"/search": http("", status=403), "/brave": http("", status=401), "/tavily": http("", status=500)}
    async with serving(answers) as served:
        with pytest.raises(ToolError, match=r"searxng: .*; brave: .*; tavily: it answered 500"):
            await found(served, "searxng", "brave", "tavily")


async def test_a_service_without_results_is_not_a_failure() -> None:
    """Nothing found is an answer: the next service is not asked."""
    empty = {"/search": answer_json({"results": []}), "/brave": answer_json({"query": {}})}
    async with serving(empty) as served:
        assert await found(served, "searxng", "brave") == []
        assert len(served.asked) == 1
        assert await found(served, "brave") == []


@pytest.mark.parametrize("wait", ["0", ""])
async def test_a_busy_service_is_asked_once_more(wait) -> None:
    """After the time that it names, or a second."""
    busy = http("", status=429, headers={"Retry-After": wait} if wait else {})
    started = time.monotonic()
    async with serving({"/brave": [busy, answer_json(BRAVE)]}) as served:
        assert len(await found(served, "brave")) == 3
        assert len(served.asked) == 2
    assert time.monotonic() - started >= (0 if wait else 1)
    async with serving({"/brave": busy}) as served:
        with pytest.raises(ToolError, match="brave: it answered 429; try again later"):
            await found(served, "brave")
        assert len(served.asked) == 2


@pytest.mark.parametrize("wait", ["3600", "Wed, 21 Oct 2099 07:28:00 GMT", "-1", "9" * 400])
async def test_a_service_that_is_busy_for_long_is_left(wait) -> None:
    """It is not waited for, and not asked again."""
    async with serving({"/brave": http("", status=429, headers={"Retry-After": wait})}) as served:
        with pytest.raises(ToolError, match="brave: it is busy"):
            await found(served, "brave")
        assert len(served.asked) == 1


async def test_the_deadline_holds_for_all_services_together() -> None:
    """What is left of the time is what the next one gets."""
    started = time.monotonic()
    async with serving({"/search": slow, "/brave": slow}) as served:
        with pytest.raises(ToolError, match=r"searxng: it gave no answer .* brave: it gave no answer"):
            await found(served, "searxng", "brave", until=started + 1.0)
    assert time.monotonic() - started < 8


async def test_the_operators_service_may_be_private_and_its_results_are_not_visited() -> None:
    """The service is on loopback, which the guard refuses; the only connection is the one to the service."""
    private = {"results": [{"url": "http://169.254.169.254/latest/", "title": "metadata", "content": ""}]}
    async with serving({"/search": answer_json(private)}) as served:
        (row,) = await search("x", config=config(served, "searxng"))
        assert (row["url"], served.connections) == ("http://169.254.169.254/latest/", 1)


def query(**more: Any) -> Query:  # noqa: ANN401 - passed on
    given = {"n": 20, "freshness": None, "country": None, "safesearch": "off", "include": (), "exclude": ()}
    return Query(text="x", **{**given, **more})  # type: ignore[arg-type]  # a test's own


@pytest.mark.parametrize(
    "url",
    [
        None,
        5,
        "",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "//a.example/",
        "http://",
        "http://[::1",
        "http://a\nb/",
        "http://a/\x1b[2J",
        "http://a/" + "b" * 3000,
    ],
)
def test_a_result_without_a_usable_url_is_no_row(url) -> None:
    """What nobody could fetch is not shown."""
    assert rows_of([{"url": url, "title": "x", "text": "x", "published": None}], query(), "p") == []


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=50)
@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(("url", "title", "text", "published"), json_values))))
def test_any_result_is_a_row_or_none(results) -> None:
    """A service is not trusted to send texts."""
    for row in rows_of([{**result, "url": result.get("url", "http://a.example/")} for result in results], query(), "p"):
        assert all(isinstance(row[key], str) for key in ("url", "title", "text"))  # type: ignore[literal-required]  # the keys above
        json.dumps(row).encode()


def test_texts_are_cut_and_clean() -> None:
    """A service's text reaches no terminal and no file with control characters, and no answer grows without end."""
    hostile = {
        "url": "http://a.example/",
        "title": "\x1b[2Jt\ud800" + "x" * 10_000,
        "text": "<b" * 9000,
        "published": {},
    }
    (row,) = rows_of([hostile], query(), "p")
    assert (row["title"][:9], len(row["title"]), len(row["text"])) == ("[2Jt?xxxx", 300, 4000)
    assert row["published"] is None


def test_an_entity_of_no_character_is_a_mark() -> None:
    """Its number has more digits than Python turns into one, and costs nobody the other results."""
    hostile = {"url": "http://a.example/", "text": f"a &#{'9' * 5000}; b &amp; c"}
    (row,) = rows_of([hostile], query(), "p")
    assert row["text"] == "a \ufffd b & c"


FIXTURE = {
    "searches": [
        {
            "query": "What is  X",
            "results": [{"url": "https://x.example/", "title": "X", "text": "about x", "published": "2024"}],
        },
        {"query": "*", "results": [{"url": "https://any.example/", "title": "Any"}]},
    ]
}


async def test_a_fixture_answers_without_a_network(tmp_path) -> None:
    """A query matches by its words; `*` answers the others."""
    path = tmp_path / "searches.json"
    path.write_text(json.dumps(FIXTURE))
    offline = WebConfig.read({"ISORUN_SEARCH_FIXTURE": str(path)})
    (row,) = await search("what is x", config=offline)
    assert (row["url"], row["text"], row["published"], row["provider"]) == (
        "https://x.example/",
        "about x",
        "2024",
        "fixture",
    )
    (row,) = await search("another", config=offline)
    assert (row["url"], row["text"]) == ("https://any.example/", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "fixture: its file cannot be read: No such file or directory; check ISORUN_SEARCH_FIXTURE"),
        ("{", "fixture: its answer has no list 'searches'"),
        ("[]", "fixture: its answer has no list 'searches'"),
        ('{"searches": [{"query": "*", "results": 1}]}', "fixture: its answer has no list 'results'"),
    ],
)
async def test_a_fixture_that_is_none_says_so(text, said, tmp_path) -> None:
    """An operator's slip is told like a service's failure."""
    path = tmp_path / "searches.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ToolError, match=said):
        await search("x", config=WebConfig.read({"ISORUN_SEARCH_FIXTURE": str(path)}))


async def test_a_service_whose_package_is_missing_says_how_to_get_it(monkeypatch) -> None:
    """ddgs is no dependency, and is asked only where it is named."""
    monkeypatch.setitem(__import__("sys").modules, "ddgs", None)
    with pytest.raises(ToolError, match=r"ddgs: its package is missing: pip install 'isorun\[ddgs\]'"):
        await search("x", config=WebConfig.read({"ISORUN_SEARCH_PROVIDERS": "ddgs"}))


async def test_without_a_service_the_settings_are_named() -> None:
    """The program cannot help itself; its operator reads what to set."""
    with pytest.raises(ToolError, match="no search provider is set: the operator gives ISORUN_SEARXNG_URL"):
        await search("x", config=WebConfig.read({}))


@pytest.mark.parametrize(
    ("given", "providers"),
    [
        ({}, ()),
        ({"BRAVE_API_KEY": " "}, ()),
        (
            {"TAVILY_API_KEY": "t", "BRAVE_API_KEY": "b", "ISORUN_SEARXNG_URL": "http://s/"},
            ("searxng", "brave", "tavily"),
        ),
        (
            {"TAVILY_API_KEY": "t", "BRAVE_API_KEY": "b", "ISORUN_SEARCH_PROVIDERS": "Tavily, brave"},
            ("tavily", "brave"),
        ),
        ({"ISORUN_SEARCH_PROVIDERS": "ddgs,ddgs"}, ("ddgs",)),
    ],
)
def test_the_services_that_can_be_asked_are_asked(given, providers) -> None:
    """In the order that the operator names, else in the documented one; ddgs only by name."""
    assert WebConfig.read(given).providers == providers


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ISORUN_SEARCH_PROVIDERS": "google"}, "names 'google'; there are fixture, searxng, brave, tavily, ddgs"),
        ({"ISORUN_SEARCH_PROVIDERS": "brave"}, "names brave, which needs BRAVE_API_KEY"),
        ({"ISORUN_SEARXNG_URL": "searx.internal:8080"}, "ISORUN_SEARXNG_URL must be a URL, http://... or https://..."),
        ({"ISORUN_WEB_PROXY": "socks5://x"}, "ISORUN_WEB_PROXY must be a URL"),
    ],
)
def test_a_wrong_setting_is_named(given, said) -> None:
    """With what to write instead."""
    with pytest.raises(ValueError, match=said):
        WebConfig.read(given)


def test_no_key_is_shown() -> None:
    """In no repr, and so in no log and no error."""
    shown = repr(WebConfig.read({name: f"http://u:{name}-secret@x/" for name in NAMES if "PROVIDERS" not in name}))
    assert "API_KEY-secret" not in shown
    assert "PROXY-secret" not in shown


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"query": ""}, "a query must have 1 to 400 characters"),
        ({"query": "x" * 401}, "a query must have 1 to 400 characters"),
        ({"query": []}, "query must be 1 to 5 texts, got 0"),
        ({"query": ["x"] * 6}, "query must be 1 to 5 texts, got 6"),
        ({"n": 0}, "n must be a whole number from 1 to 20, got 0"),
        ({"n": 21}, "n must be a whole number from 1 to 20, got 21"),
        ({"n": True}, "n must be a whole number from 1 to 20, got True"),
        ({"freshness": "hour"}, "freshness must be day, week, month or year, got 'hour'"),
        ({"country": "Germany"}, "country must be two letters such as DE, got 'Germany'"),
        ({"safesearch": "on"}, "safesearch must be off, moderate or strict, got 'on'"),
        ({"include_domains": ["https://a/"]}, "include_domains must hold domains such as example.org"),
        ({"exclude_domains": ["a b"]}, "exclude_domains must hold domains such as example.org"),
        ({"include_domains": ["a"] * 21}, "include_domains may hold 20 domains, got 21"),
    ],
)
async def test_a_wrong_argument_is_said(more, said) -> None:
    """Before anybody is asked."""
    with pytest.raises(ValueError, match=said):
        await search(**{"query": "x", "config": WebConfig(providers=("fixture",)), **more})
