"""The operator's settings of the web tools, read from a mapping that the caller passes.

Must not: read the environment of the process. The keys belong to the process that searches, and to no other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from isorun.core.text import one_line, shown

#: In the order in which they are tried by default. ddgs is used only if it is named.
PROVIDERS = ("fixture", "searxng", "brave", "tavily", "ddgs")
#: Every name that is read; a process that runs web tools is given these and no other credential.
NAMES = (
    "ISORUN_SEARCH_PROVIDERS",
    "ISORUN_SEARCH_FIXTURE",
    "ISORUN_SEARXNG_URL",
    "ISORUN_BRAVE_URL",
    "ISORUN_TAVILY_URL",
    "ISORUN_WEB_PROXY",
    "BRAVE_API_KEY",
    "TAVILY_API_KEY",
)
_BRAVE = "https://api.search.brave.com/res/v1/web/search"
_TAVILY = "https://api.tavily.com/search"
_NEEDS = {
    "fixture": ("fixture", "ISORUN_SEARCH_FIXTURE"),
    "searxng": ("searxng_url", "ISORUN_SEARXNG_URL"),
    "brave": ("brave_key", "BRAVE_API_KEY"),
    "tavily": ("tavily_key", "TAVILY_API_KEY"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """The settings of search and fetch. `providers` are tried in their order until one answers."""

    providers: tuple[str, ...] = ()
    fixture: str = ""  # a path
    searxng_url: str = ""  # may be a private address: the operator chose it
    brave_url: str = _BRAVE
    tavily_url: str = _TAVILY
    proxy: str | None = field(default=None, repr=False)  # it may hold a password
    brave_key: str = field(default="", repr=False)
    tavily_key: str = field(default="", repr=False)

    @classmethod
    def read(cls, env: Mapping[str, str]) -> WebConfig:
        """The settings in *env*; blank counts as not set. Raises `ValueError`, which names the setting to correct."""
        given = {name: env.get(name, "").strip() for name in NAMES}
        for name in NAMES:
            if name.endswith(("_URL", "_PROXY")) and given[name] and not re.match(r"https?://[^/]", given[name]):
                raise ValueError(f"{name} must be a URL, http://... or https://...")
        config = cls(
            fixture=given["ISORUN_SEARCH_FIXTURE"],
            searxng_url=given["ISORUN_SEARXNG_URL"].rstrip("/"),
            brave_url=given["ISORUN_BRAVE_URL"] or _BRAVE,
            tavily_url=given["ISORUN_TAVILY_URL"] or _TAVILY,
            proxy=given["ISORUN_WEB_PROXY"] or None,
            brave_key=given["BRAVE_API_KEY"],
            tavily_key=given["TAVILY_API_KEY"],
        )
        return config.choosing(given["ISORUN_SEARCH_PROVIDERS"])

    def choosing(self, named: str) -> WebConfig:
        """These settings with the providers that *named* lists, or with those that have what they need."""
        from dataclasses import replace

        if not named:
            return replace(self, providers=tuple(name for name in PROVIDERS if name in _NEEDS and self._has(name)))
        chosen = tuple(part.strip().lower() for part in named.split(",") if part.strip())
        for name in chosen:
            if name not in PROVIDERS:
                known = ", ".join(PROVIDERS)
                raise ValueError(f"ISORUN_SEARCH_PROVIDERS names {shown(one_line(name))}; there are {known}")
            if name in _NEEDS and not self._has(name):
                raise ValueError(f"ISORUN_SEARCH_PROVIDERS names {name}, which needs {_NEEDS[name][1]}")
        return replace(self, providers=tuple(dict.fromkeys(chosen)))

    def _has(self, provider: str) -> bool:
        return bool(getattr(self, _NEEDS[provider][0]))
