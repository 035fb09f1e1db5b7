"""`python -m bench`: measure, print, and write bench/results.json and docs/performance.md."""

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import containers, documents, figures, freezing, held_calls, peers, service, web_pages

_HERE = Path(__file__).parent
_PAGE = _HERE.parent / "docs" / "performance.md"


async def measure(count: int, say: Console) -> tuple[list[figures.Figure], dict[str, Any]]:
    """Every figure, in one run, one after the other."""
    say.print("peers, once each …")
    await peers.check()
    say.print("slot hit to first user bytecode …")  # no spinner: its thread would be measured too
    found = [await figures.first_bytecode(count)]
    say.print("whole runs …")
    whole, ours, isolation = await figures.whole_runs(count)
    say.print("whole runs with pandas …")
    pandas, _ = await figures.with_pandas(count)
    say.print("tool calls …")
    tools = await figures.tool_calls(20 * count)
    say.print("freezing …")
    frozen = await freezing.figures(count)
    say.print("cold start of the command …")
    cold = figures.cold_cli(max(count // 10, 5))
    say.print("neighbours of floods …")
    floods = await figures.beside_floods(max(count // 2, 10))
    say.print("peers …")
    beside = await figures.peer_figures(max(count // 5, 10), ours)
    say.print("containers …")
    in_docker = await containers.figures(max(count // 4, 10), ours)
    say.print("the chat service …")
    served = await service.figures(count)
    built_in = await built_in_and_own(count, say)  # last: their libraries stay in this process
    lines = [*found, *whole, *pandas, *tools, *frozen, cold, *floods, *beside, *in_docker, *served, *built_in]
    return lines, isolation


async def built_in_and_own(count: int, say: Console) -> list[figures.Figure]:
    """Of the built-in tools, and of functions of the caller's own."""
    say.print("held calls …")
    held = await held_calls.figures(10 * count)
    say.print("documents …")
    written = await documents.figures(max(count // 2, 2))
    say.print("pages of the web …")
    return [*held, *written, *await web_pages.figures(max(count // 4, 2))]


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
        "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def page(found: list[figures.Figure], isolation: dict[str, Any], about: dict[str, Any]) -> str:
    """docs/performance.md."""
    rows = "\n".join(f"| {f.name} | {f.value} | {f.gate} | {_met(f)} |" for f in found)
    judged = [f.ok for f in found if f.ok is not None]
    return f"""# Performance

`make bench` measured this on {about["cores"]} cores (Linux {about["kernel"]}, Python {about["python"]}), load average
{about["load_before"][0]} before it began. Ours and the peers ran in the same run of the command, one after the other.

Every measured run was sealed at level `{isolation["level"]}`, ceilings held by `{isolation["limits"]}`, Landlock ABI
{isolation["walls"]["landlock_abi"]}, seccomp filters: {isolation["walls"]["seccomp"]["filters"]}; the command
refuses to print a run whose walls were not complete.

A gate is the goal for a figure. The last column says which are met: {sum(judged)} of {len(judged)}.
`make bench` fails if one is missed.

| figure | measured | gate | met |
|---|---|---|---|
{rows}

Run folders are written to /dev/shm except in the row that says disk, so that the figures are isorun's:
what a disk adds depends on the file system and on what was deleted before.

A neighbour of a flood runs beside a program that makes the host work as much as it can; it is compared with the same
neighbour beside a program that spins and sends nothing, so that the ratio is the host's work.

Chromium is given the HTML that `write_html` makes of the page that `write_pdf` is given. Its time is that of
`new_page`, `set_content` and `page.pdf` of Playwright, without a file; ours is that of the program's call, with one.

Paced: a run begins when the pool is full and the machine has rested 20 ms. The numbers behind the table, with the walls
of the measured runs, are in `bench/results.json`.
"""


def _met(figure: figures.Figure) -> str:
    return {True: "yes", False: "**no**", None: ""}[figure.ok]


def main() -> int:
    """Exit 1 if a gate is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="measurements of each figure")
    parser.add_argument("--floods", nargs="*", metavar="WORD", help="neighbours of floods only, of names with a WORD")
    parser.add_argument("--tools", action="store_true", help="built-in tools and held calls only")
    parser.add_argument("--service", action="store_true", help="the chat service only")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    about = machine()
    console = Console(stderr=not sys.stdout.isatty())
    if options.floods is not None:
        found, isolation = asyncio.run(figures.beside_floods(options.count, options.floods)), {}
        options.no_write = True
    elif options.tools:
        found, isolation = asyncio.run(built_in_and_own(options.count, console)), {}
        options.no_write = True
    elif options.service:
        found, isolation = asyncio.run(service.figures(options.count)), {}
        options.no_write = True
    else:
        found, isolation = asyncio.run(measure(options.count, console))
    table = Table("figure", "measured", "gate", "met")
    for figure in found:
        table.add_row(figure.name, figure.value, figure.gate, _met(figure).strip("*"))
    Console(width=150).print(table)
    if not options.no_write:
        report = {"machine": about, "isolation": isolation, "figures": [asdict(figure) for figure in found]}
        (_HERE / "results.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        _PAGE.write_text(page(found, isolation, about))
    return 1 if any(figure.ok is False for figure in found) else 0


if __name__ == "__main__":
    sys.exit(main())
