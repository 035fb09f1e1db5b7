"""Search and fetch as a program meets them: schema, result, pool, file, and what is said if something is wrong."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from isorun.supervisor.descriptor import load_descriptor
from isorun.supervisor.registry import ArgumentsRefused, Tool, load_tools
from isorun.supervisor.tool import ToolContext, ToolError
from isorun.tools.sources_pool import FILE
from tests.unit.tools.test_sources_pool import context_of
from tests.unit.tools.web.serving import http, moved, serving

MODULE = """
from isorun.supervisor.tool import tool
from isorun.tools.web import tools

web_search = tool(timeout_s=60)(tools.adopted(tools.web_search, __name__))
fetch_url_contents = tool(timeout_s=60)(tools.adopted(tools.fetch_url_contents, __name__))
web_fetch = tool(timeout_s=60)(tools.adopted(tools.fetch_url_contents, __name__, "web_fetch"))
"""
PAGE = (
    "<html><title>Of {0}</title><body><p>" + "All there is to say of it, which is enough. " * 9 + "</p></body></html>"
)


@pytest.fixture
def tools(tmp_path) -> dict[str, Tool]:
    """The tools of a module that has taken them over in three lines."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "generic.py").write_text(MODULE)
    (tmp_path / "bundle" / "tools_descriptor.py").write_text(
        'TOOLS = [{"ref": "generic.py", "alias": "generic_tools"}]\n'
    )
    return load_tools(load_descriptor(tmp_path / "bundle"))


@pytest.fixture
def context(tmp_path) -> ToolContext:
    """Of an empty output directory, and without settings."""
    (tmp_path / "out").mkdir()
    return context_of(tmp_path / "out")


async def called(tool: Tool, context: ToolContext, env: dict[str, str], **params: Any) -> Any:  # noqa: ANN401 - of tools
    """What a program gets, after the checks of a call."""
    assert tool.context is not None
    arguments = tool.check(params)
    result = await tool.function(**arguments, **{tool.context: dataclasses.replace(context, env=env)})
    return tool.result.dumped(result)


def test_a_module_takes_the_tools_over(tools) -> None:
    """Names, docstrings, results and places are there; the description of a parameter is in its schema."""
    assert sorted(tools) == ["generic_tools.fetch_url_contents", "generic_tools.web_fetch", "generic_tools.web_search"]
    search, fetch = tools["generic_tools.web_search"], tools["generic_tools.fetch_url_contents"]
    assert search.description.startswith("Search the web.")
    assert search.schema["properties"]["n"] == {
        "default": 8,
        "description": "How many results for each query, at most.",
        "maximum": 20,
        "minimum": 1,
        "title": "N",
        "type": "integer",
    }
    assert list(search.schema["properties"]) == [
        *("query", "n", "freshness", "country", "safesearch", "include_domains", "exclude_domains", "objective")
    ]
    assert list(fetch.schema["properties"]) == ["urls", "max_chars", "format", "save", "objective"]
    assert "web/tools.py:" in fetch.where
    assert tools["generic_tools.web_fetch"].schema["properties"] == fetch.schema["properties"]
    assert json.dumps(fetch.result.schema).count("too_many_redirects") == 1


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("web_search", {"query": ""}),
        ("web_search", {"query": []}),
        ("web_search", {"query": ["x"] * 6}),
        ("web_search", {"query": "x", "n": 21}),
        ("web_search", {"query": "x", "n": True}),
        ("web_search", {"query": "x", "freshness": "hour"}),
        ("web_search", {"query": "x", "country": "Germany"}),
        ("web_search", {"query": "x", "safesearch": "on"}),
        ("web_fetch", {"urls": []}),
        ("web_fetch", {"urls": ["http://a/"] * 11}),
        ("web_fetch", {"urls": "http://a/", "max_chars": 0}),
        ("web_fetch", {"urls": "http://a/", "format": "html"}),
        ("web_fetch", {"urls": "http://a/", "path": "x"}),
    ],
)
def test_a_wrong_argument_is_refused_before_the_call(name, params, tools) -> None:
    """The schema says it, so the program gets ToolInputInvalid and no service is asked."""
    with pytest.raises(ArgumentsRefused):
        tools[f"generic_tools.{name}"].check(params)


async def test_what_was_found_is_in_the_pool(tools, context, tmp_path) -> None:
    """A second search that finds the same page gives it the same number; the pool's file has both."""
    results = [{"url": f"http://{name}.test/", "title": name, "content": ""} for name in ("a", "b", "c")]
    answers = [json.dumps({"results": results[:2]}), json.dumps({"results": results[1:]})]
    async with serving({"/search": [http(text, "application/json") for text in answers]}) as served:
        env = {"ISORUN_SEARXNG_URL": served.url()}
        first = await called(tools["generic_tools.web_search"], context, env, query="x")
        second = await called(tools["generic_tools.web_search"], context, env, query="y")
    assert [row["sid"] for row in first] == [1, 2]
    assert [(row["sid"], row["title"]) for row in second] == [(2, "b"), (3, "c")]
    pool = json.loads((tmp_path / "out" / FILE).read_text())
    assert [(source["sid"], source["title"]) for source in pool] == [(1, "a"), (2, "b"), (3, "c")]


async def test_a_page_that_was_found_keeps_its_number_when_it_is_fetched(tools, context, tmp_path) -> None:
    """Under the URL that the search gave, also after a redirect; the longer text wins, a failed row has no number."""
    found = {"results": [{"url": "http://a.test/", "title": "a", "content": "short"}]}
    answers = {
        "/search": http(json.dumps(found), "application/json"),
        "http://a.test/": moved("http://b.test/"),
        "http://b.test/": http(PAGE.format("b")),
    }
    async with serving(answers) as served:
        env = {"ISORUN_SEARXNG_URL": served.url(), "ISORUN_WEB_PROXY": served.url()}
        await called(tools["generic_tools.web_search"], context, env, query="x")
        urls = ["http://10.0.0.1/", "http://a.test/", "http://gone.test/"]
        rows = await called(tools["generic_tools.web_fetch"], context, env, urls=urls)
    assert [(row["sid"], row["status"]) for row in rows] == [(None, "not_public"), (1, "success"), (None, "http_error")]
    assert rows[1]["final_url"] == "http://b.test/"
    (source,) = json.loads((tmp_path / "out" / FILE).read_text())
    assert (source["url"], source["title"]) == ("http://a.test/", "Of b")
    assert source["text"].startswith("All there is to say")


async def test_saved_bytes_are_below_out(tools, context, tmp_path) -> None:
    """The path of the row is the file's, relative to the output directory."""
    async with serving({"http://a.test/": http(PAGE)}) as served:
        env = {"ISORUN_WEB_PROXY": served.url()}
        (row,) = await called(tools["generic_tools.web_fetch"], context, env, urls="http://a.test/", save=True)
    assert row["path"].startswith("web/a.test-")
    assert (tmp_path / "out" / row["path"]).read_text() == PAGE


async def test_a_link_in_the_place_of_the_folder_is_not_followed(tools, context, tmp_path) -> None:
    """The program may plant one: nothing is written elsewhere, and the text is there."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "web").symlink_to(tmp_path / "elsewhere")
    async with serving({"http://a.test/": http(PAGE)}) as served:
        env = {"ISORUN_WEB_PROXY": served.url()}
        (row,) = await called(tools["generic_tools.web_fetch"], context, env, urls="http://a.test/", save=True)
    assert (row["status"], row["path"]) == ("success", None)
    assert row["detail"].startswith("not saved: ")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, "no search provider is set"),
        ({"ISORUN_SEARCH_PROVIDERS": "brave"}, "ISORUN_SEARCH_PROVIDERS names brave, which needs BRAVE_API_KEY"),
        ({"ISORUN_SEARCH_FIXTURE": "/nowhere/x.json"}, "fixture: its file cannot be read"),
    ],
)
async def test_what_the_operator_has_to_mend_is_said(env, said, tools, context) -> None:
    """As a ToolError, whose text the program sees."""
    with pytest.raises(ToolError, match=said):
        await called(tools["generic_tools.web_search"], context, env, query="x")


async def test_the_deadline_of_the_call_is_kept(tools, tmp_path) -> None:
    """Rows come back before the process would be killed."""
    (tmp_path / "out").mkdir()

    async def silent(writer: Any) -> None:  # noqa: ANN401 - a writer of the server
        import asyncio

        await asyncio.Event().wait()

    async with serving({"http://a.test/": silent}) as served:
        env = {"ISORUN_WEB_PROXY": served.url()}
        context = context_of(tmp_path / "out", seconds=2.0)
        (row,) = await called(tools["generic_tools.web_fetch"], context, env, urls="http://a.test/")
    assert row["status"] == "timeout"


def test_importing_the_tools_imports_no_library() -> None:
    """The supervisor has the names and schemas of tools that it never calls itself."""
    modules = ("sources_pool", "web.tools", "web.search", "web.fetch")
    code = (
        f"import sys, {', '.join(f'isorun.tools.{name}' for name in modules)}\n"
        "print({'httpx2', 'httpcore2', 'trafilatura', 'lxml', 'pypdf', 'ddgs'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("name", "params"),
    [("fetch_url_contents", {"urls": "http://example.org/"}), ("web_search", {"query": "penguins"})],
)
async def test_a_library_that_is_missing_is_named(
    tools, context, monkeypatch, name: str, params: dict[str, str]
) -> None:
    """With the command that brings it, as the program is told no traceback."""
    monkeypatch.setitem(sys.modules, "httpx2", None)
    env = {"ISORUN_SEARXNG_URL": "http://127.0.0.1:9/"}
    with pytest.raises(ToolError, match=r"needs the package httpx2, .*pip install 'isorun\[tools\]'"):
        await called(tools[f"generic_tools.{name}"], context, env, **params)
