"""The programs of `isorun demo`: what the searching program is told, and what it can find."""

import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from isorun.cli.scenes.acts import programs, search_settings
from isorun.settings import Settings, supervisor_environment

FILE = Path(str(programs() / "searches.json"))
RESERVED = (".test", ".example.org")  # nobody can have such a name


def test_a_search_of_the_demo_asks_a_file_and_nobody_else() -> None:
    """What the caller has set of searches, keys, proxies and a bundle is not handed on; everything else is."""
    address = "http://127.0.0.1:9"
    theirs = replace(
        Settings(),
        bundle=Path("/theirs"),
        pool_size=7,
        search_providers=("brave", "tavily"),
        search_fixture=Path("/theirs.json"),
        **dict.fromkeys(("searxng_url", "brave_url", "tavily_url", "web_proxy"), address),
        **dict.fromkeys(("brave_api_key", "tavily_api_key"), "a key"),
    )
    ours = search_settings(theirs)
    told = {"ISORUN_SEARCH_PROVIDERS": "fixture", "ISORUN_SEARCH_FIXTURE": str(FILE)}
    assert supervisor_environment(ours, built_ins=True) == supervisor_environment(Settings(), built_ins=True) | told
    assert (ours.bundle, ours.pool_size) == (None, 7)


def test_the_pages_are_nobodys() -> None:
    """Every page that the demo finds has a name that is reserved, and each is found once."""
    found = [row for search in json.loads(FILE.read_text("utf-8"))["searches"] for row in search["results"]]
    assert len({row["url"] for row in found}) == len(found) == 6
    assert all(urlsplit(row["url"]).netloc.endswith(RESERVED) for row in found)
