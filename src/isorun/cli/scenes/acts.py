"""The programs of `isorun demo`, what each is granted, and how each must end.

Four are the example bundle's; the programs of the others are files in demo_programs/. It must not import what the
programs import: that would be unread code outside of the walls.
"""

import importlib.resources
import importlib.util
from dataclasses import replace
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from isorun.core.ids import is_built_in
from isorun.core.report import error_lines, tracebacks
from isorun.core.result import RunResult
from isorun.settings import Settings
from isorun.tools.bundles import bundle_module, example_bundle

Act: TypeAlias = Any  # a scenario of the bundle's class, which is imported by its path

_SCIENCE = ("numpy", "pandas", "matplotlib")
_WRITERS = {"typst": "typst", "markdown_it": "markdown-it-py", "mdit_py_plugins": "mdit-py-plugins"}  # of write_pdf
_TOOLS = ("generic_tools.web_search", "generic_tools.write_pdf", "generic_tools.write_png")
_SOURCES = "A report with sources"
_PROMISED = {
    "chart.png": {"mime": "image/png", "min_bytes": 10_000},
    "summary.xlsx": {"columns": ["species", "birds", "flipper_mm", "mass_g", "correlation"], "min_rows": 3},
    "report.md": {"must_contain": "Pygoscelis papua"},
    "report.pdf": {"mime": "application/pdf", "min_bytes": 10_000, "pages": 1, "must_contain": ["Sources", "[6]"]},
    "report.png": {"mime": "image/png", "min_bytes": 10_000},
}


@cache
def acts() -> tuple[Act, ...]:
    """The list: the first two do useful work, the third breaks its contract, six try to get out."""
    return (*_useful(), *_unwanted())


def left_out() -> str:
    """The report with sources cannot be written without these packages: what is missing; "" if nothing is."""
    missing = [package for module, package in _WRITERS.items() if not importlib.util.find_spec(module)]
    return f"{_SOURCES} is left out; it needs {', '.join(missing)}: pip install 'isorun[demo]'" if missing else ""


def _useful() -> tuple[Act, ...]:
    ends, note = _verdicts().Expected, _verdicts().NOTE
    calls = (*(("reference_tools.species", "ok"),) * 3, (note, "ok"))
    science = all(importlib.util.find_spec(name) for name in _SCIENCE)
    penguins = "penguins" if science else "penguins_plain"  # which needs what isorun itself requires
    promises = ("chart.png", "summary.xlsx", "report.md")
    report = _own(penguins, "A report on real data", ends(status="ok", succeeded=3, notes=1, calls=calls), *promises)
    if left_out():
        return (report,)
    search, pdf, png = ((tool, "ok") for tool in _TOOLS)
    ending = ends(status="ok", succeeded=2, calls=(search, search, search, pdf, png))
    return report, replace(_own("sources", _SOURCES, ending, "report.pdf", "report.png"), tools=_TOOLS)


def _unwanted() -> tuple[Act, ...]:
    listed, ends = bundle_module(example_bundle(), "exec").SCENARIOS, _verdicts().Expected
    broken = "found out/report.md, promised turn_demo/files/report.md"
    return (
        _own(
            "misplaced",
            "A promised file",
            ends(status="contract_failed", code="missing_output_files", missing=1, because=broken),
            "report.md",
        ),
        _shared(listed[13], "Reach the network"),
        _own("host_files", "Read the host's files", ends(status="failed", code="program_error", comm_error=True)),
        _shared(listed[15], "Fork bomb"),
        _shared(listed[5], "Eat all memory"),
        _shared(listed[19], "Fill the disk"),
        replace(
            _own("endless", "Never end", ends(status="timed_out", code="timeout", says=("20 digits",))), timeout_s=1.5
        ),
    )


def programs() -> Traversable:
    """The folder of the demo's own programs, their data and their searches."""
    return importlib.resources.files("isorun.cli") / "demo_programs"


def is_useful(act: Act) -> bool:
    """Whether *act* must end well: it is shown at length, and its files are handed out."""
    return bool(act.expected.status == "ok")


def searches(act: Act) -> bool:
    """Whether *act* is granted built-in tools; every other one gets the tools of the bundle."""
    return any(map(is_built_in, act.tools))


def search_settings(settings: Settings) -> Settings:
    """*settings* for an act that searches: a file is the provider, and no bundle, key or address is handed on."""
    return replace(
        settings,
        search_providers=("fixture",),
        search_fixture=Path(str(programs() / "searches.json")).absolute(),
        bundle=None,
        searxng_url=None,
        brave_url=None,
        tavily_url=None,
        web_proxy=None,
        brave_api_key=None,
        tavily_api_key=None,
    )


def _own(program: str, title: str, expected: object, *promises: str) -> Act:
    """A scenario of the demo alone; its program is a file."""
    source = (programs() / f"{program}.py").read_text("utf-8")
    about = {"promises": promises, "checks": _PROMISED, "timeout_s": 60.0}
    return _verdicts().Scenario(number=0, title=title, program=source, expected=expected, **about)


def _shared(scenario: Act, title: str) -> Act:
    """A scenario of the bundle's."""
    return replace(scenario, title=title, timeout_s=60.0)


def _verdicts() -> ModuleType:
    return bundle_module(example_bundle(), "verdicts")


def wrong_with(act: Act, result: RunResult) -> tuple[str, ...]:
    """Every way in which *result* is not what *act* must end like."""
    verdicts = _verdicts()
    log = (result.out_dir / "logs" / "user.log").read_text("utf-8", "replace")
    notes = result.out_dir / "notes"
    seen = verdicts.Seen(
        result=result,
        user_log=log,
        notes=len(list(notes.iterdir())) if notes.is_dir() else 0,
        comm_error=bool(error_lines(log) or tracebacks(log)),
        synced=act.expected.synced,
    )
    wrong: tuple[str, ...] = verdicts.wrong_with(act, seen)
    return wrong


def says(act: Act) -> str:
    """What its program does, in the words of its first line."""
    return str(act.program.split("\n")[0].strip('"# '))
