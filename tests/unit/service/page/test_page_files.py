"""The page's own files: small, from here alone, and nothing in them that a strict policy would refuse."""

import re
from importlib.resources import files

import pytest
from starlette.requests import Request

from isorun.service import guard
from isorun.service.page import render, shelf, starters
from isorun.settings import Settings
from isorun.tools.bundles import bundle_module, example_bundle

PAGE = files("isorun.service.page")
TEMPLATES = sorted(one.name for one in PAGE.joinpath("templates").iterdir())
MOST = 60_000  # bytes of the first view: its HTML, its style and all modules, not compressed
#: Names of formats and of an example in a comment's place: nothing is fetched from them.
ALLOWED = ("http://www.w3.org/2000/svg",)


def every_file() -> dict[str, str]:
    """The text of each template and of each file that is served, by its name."""
    found = {name: PAGE.joinpath("templates", name).read_text("utf-8") for name in TEMPLATES}
    return found | {name: kept.body.decode() for name, kept in shelf.shelf().items()}


def first_view() -> str:
    """The page that a newcomer sees."""
    scenarios = [
        {"number": one.number, "title": one.title, "followup": one.followup, "expects": str(one.expected)}
        for one in bundle_module(example_bundle(), "exec").SCENARIOS.values()
    ]
    around = {"here": "", "version": "1", "model": None, "isolation": "full", "walls": [("uid", "1001")] * 40}
    talk = {"conversation": "", "title": "", "after": 0, "goes_on": False, "parts": [], "earlier": 0}
    lists = {"conversations": [], "scenarios": scenarios, "titles": {}, "starters": starters.starters()}
    return render.html("talk.html", {**around, **talk, **lists})


def with_imports(names: set[str]) -> set[str]:
    """*names* and every module that they cannot start without."""
    found = set(names)
    for name in names:
        found |= set(re.findall(r'^import [^\n]* from "\./([\w.]+)"', every_file()[name], re.MULTILINE))
    return found if found == names else with_imports(found)


def test_the_first_view_is_small() -> None:
    """At most 60 KB in all, as they are sent without compression; the rest is loaded once it is needed."""
    text = first_view()
    named = set(re.findall(rf"/static/{shelf.version()}/([\w.]+)", text))
    assert named == with_imports(named)  # what a module cannot start without is named, so it need not be waited for
    sizes = {"html": len(text.encode())} | {name: len(shelf.shelf()[name].body) for name in named}
    assert {"page.css", "app.js", "live.js"} <= set(sizes)
    assert sum(sizes.values()) <= MOST, sizes
    assert text.count('data-say="') == 20 + 4  # the list of scenarios, and four of the six cards


@pytest.mark.parametrize("name", sorted(every_file()))
def test_no_file_names_another_host(name) -> None:
    """No address with a scheme, but a format's own name."""
    found = set(re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}[\w./-]*", every_file()[name]))
    assert found <= set(ALLOWED)


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_has_script_or_style_of_its_own(name) -> None:
    """Every script has an address; no element has a style, a handler or a javascript: address."""
    text = every_file()[name]
    assert not re.findall(r"<script(?![^>]*\bsrc=)", text)
    assert not re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert "| safe" not in text
    assert "autoescape" not in text


def test_no_module_makes_elements_from_text() -> None:
    """What came over the stream can become text only. The card alone is parsed, and that was escaped by the service."""
    for name, text in every_file().items():
        if name.endswith(".js"):
            assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)
    parsed = {name for name, text in every_file().items() if "DOMParser" in text}
    assert parsed == {"live.js"}


def test_the_policy_gives_no_way_around() -> None:
    """Nothing inline, nothing evaluated, nobody else's frame around us, no address but our own."""
    policy = dict(part.split(" ", 1) for part in guard.POLICY.split("; "))
    assert "unsafe" not in guard.POLICY
    assert "*" not in guard.POLICY
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"


def asking(**headers: str) -> Request:
    """A request with *headers*."""
    return Request({"type": "http", "headers": [(name.encode(), value.encode()) for name, value in headers.items()]})


def test_a_file_has_an_address_that_changes_with_it_and_a_tag() -> None:
    """So it may be kept for long, and a browser that asks again gets no second copy."""
    assert shelf.address("page.css") == f"/static/{shelf.version()}/page.css"
    first = shelf.answer(asking(), "page.css")
    assert first is not None
    assert first.headers["cache-control"] == "public, max-age=31536000, immutable"
    again = shelf.answer(asking(**{"if-none-match": first.headers["etag"]}), "page.css")
    assert again is not None
    assert (again.status_code, again.body) == (304, b"")


@pytest.mark.parametrize("name", ["", "..", "../routes.py", "nothing.js", "__init__.py"])
def test_no_other_file_is_served(name) -> None:
    """A name is looked up in a table and never on the disk."""
    assert shelf.answer(asking(), name) is None
    with pytest.raises(KeyError):
        shelf.address(name)


def test_the_programs_of_the_cards_are_there() -> None:
    """Two start a program whose files lie here; each promises what it must write."""
    own = [one for one in starters.starters() if one.asks]
    assert [one.name for one in own] == ["chart", "report"]
    for one in own:
        compile(one.asks["code"], one.name, "exec", flags=0x2000)  # PyCF_ALLOW_TOP_LEVEL_AWAIT
        assert all(starters.data(name) for name in one.inputs)
        assert one.asks["contract"]
    report = starters.named("report")
    assert report is not None
    assert "open() as file" in report.asks["code"]
    assert 'OUT / "penguins.csv"' not in report.asks["code"]
    assert starters.named("hello") is None
    assert starters.data("searches.json") is None


def test_a_search_engine_of_the_operators_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    """The invented pages stand in only where nothing is configured, and then a line of the log says so."""
    assert starters.with_searches(Settings()).search_providers == ("fixture",)
    assert [one.message.partition(":")[0] for one in caplog.records] == ["no search is configured"]
    own = Settings(searxng_url="http://127.0.0.1:1")
    assert starters.with_searches(own) == own
    assert len(caplog.records) == 1
