"""The six cards of the first minute: four are scenarios of the bundle, two start a program that lies in this package.

The programs, their data and their searches are those of `isorun demo`. They are read as files; nothing is imported.
"""

import hashlib
import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from isorun.settings import Settings

_log = logging.getLogger("isorun.service")
_SCIENCE = ("numpy", "pandas", "matplotlib")
_DATA = "penguins.csv"
_HERE, _GIVEN = f'(OUT / "{_DATA}")', f'(Path(__file__).parent / "{_DATA}")'


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """One card. `says`: the message that it sends; else `asks`: the body of POST /v1/runs, and `inputs`: its files."""

    name: str
    title: str
    about: str
    ends: str  # the status that it must end with
    says: str = ""
    asks: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()


@cache
def starters() -> tuple[Starter, ...]:
    """The cards, in the order of the page."""
    return (
        Starter(
            name="hello",
            title="Hello and a note",
            about="Writes the file it promised and calls a tool.",
            ends="ok",
            says="0",
        ),
        _chart(),
        Starter(
            name="network",
            title="Tries the network",
            about="By name, by address, by raw packets. Nothing gets out.",
            ends="failed",
            says="13",
        ),
        Starter(
            name="late",
            title="Times out, keeps its output",
            about="Prints, then works for ever. It is ended after 3 seconds.",
            ends="timed_out",
            says="2",
        ),
        Starter(
            name="promise",
            title="Breaks its promise",
            about="Promises two files and writes one.",
            ends="contract_failed",
            says="4",
        ),
        _report(),
    )


def named(name: str) -> Starter | None:
    """The card of that name, if it starts a program."""
    return next((one for one in starters() if one.name == name and one.asks), None)


def data(name: str) -> bytes | None:
    """The file *name*, if a program of a card is given it."""
    return _programs().joinpath(_DATA).read_bytes() if name == _DATA else None


def digest(name: str) -> str:
    """The SHA-256 of the file *name*: a user's own file of that name may be another."""
    return hashlib.sha256(data(name) or b"").hexdigest()


def with_searches(settings: Settings) -> Settings:
    """*settings*; where no search is configured, the demo's invented pages stand in for a search engine, and a line of
    the log says so.
    """
    if settings.search_providers or settings.searxng_url or settings.brave_api_key or settings.tavily_api_key:
        return settings
    _log.warning("no search is configured: web_search finds the demo's invented pages; docs/web.md says what to set")
    pages = Path(str(_programs() / "searches.json")).absolute()
    return replace(settings, search_providers=("fixture",), search_fixture=pages)


def _programs() -> Traversable:
    return files("isorun") / "cli" / "demo_programs"


def _chart() -> Starter:
    science = all(importlib.util.find_spec(name) for name in _SCIENCE)
    program = "penguins" if science else "penguins_plain"  # which needs what isorun itself requires
    return Starter(
        name="chart",
        title="Chart of real data",
        about="Reads 344 penguins; promises a chart, a workbook and a text.",
        ends="ok",
        asks={
            "code": _programs().joinpath(f"{program}.py").read_text("utf-8"),
            "prog_name": "chart of real data",
            "turn_id": "demo",
            "timeout_s": 60,
            "tools": ["reference_tools.species", "local_tools.write_note"],
            "contract": [
                _promise("chart.png", "the chart", mime="image/png", min_bytes=10_000),
                _promise("summary.xlsx", "the figures by species", min_rows=3),
                _promise("report.md", "the text", must_contain="Pygoscelis papua"),
            ],
        },
        inputs=(_DATA,),
    )


def _report() -> Starter:
    # The demo's program finds its data where the run before left it; here the file lies beside the program.
    code = _programs().joinpath("sources.py").read_text("utf-8").replace(_HERE, _GIVEN)
    return Starter(
        name="report",
        title="Search and write a PDF",
        about="Searches, compares pages with measured birds, cites them in a PDF.",
        ends="ok",
        asks={
            "code": code,
            "prog_name": "search and write a PDF",
            "turn_id": "demo",
            "timeout_s": 60,
            "tools": ["generic_tools.web_search", "generic_tools.write_pdf", "generic_tools.write_png"],
            "contract": [
                _promise("report.pdf", "the report", mime="application/pdf", min_bytes=10_000),
                _promise("report.png", "its first page as a picture", mime="image/png", min_bytes=10_000),
            ],
        },
        inputs=(_DATA,),
    )


def _promise(name: str, about: str, **checks: object) -> dict[str, object]:
    return {"filename": f"turn_demo/files/{name}", "description": about, **checks}
