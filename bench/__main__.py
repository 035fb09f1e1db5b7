"""`python -m bench`: measure, print, and write bench/results.json and docs/performance.md."""

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import (
    beside,
    cold,
    containers,
    crowd,
    documents,
    figures,
    freezing,
    growth,
    held_calls,
    monty,
    peers,
    promised,
    service,
    web_pages,
)
from bench.others import MOST, Others

_HERE = Path(__file__).parent
_PAGE = _HERE.parent / "docs" / "performance.md"
_MISSED, _TOO_BUSY = 1, 3
Said = Callable[[str], object]  # is told what comes next, between two figures


async def measure(count: int, said: Said) -> tuple[list[figures.Figure], dict[str, Any]]:
    """Every figure, in one run, one after the other. Long because it lists them."""
    said("peers, once each …")
    await peers.check()
    said("slot hit to first user bytecode …")  # no spinner: its thread would be measured too
    found = [await figures.first_bytecode(count)]
    said("whole runs …")
    whole, isolation = await figures.whole_runs(count)
    said("promised files …")
    promises = [*await promised.checked(count), await promised.burst(max(count // 40, 2))]
    said("whole runs with pandas …")
    pandas, _ = await figures.with_pandas(count)
    said("tool calls …")
    tools = [*await figures.tool_calls(20 * count), *await monty.figures(max(count // 10, 5))]
    said("freezing …")
    frozen = await freezing.figures(count)
    said("cold start of the command …")
    started = cold.figures(max(count // 10, 5))
    said("neighbours of floods …")
    floods = await figures.beside_floods(max(count // 2, 10))
    said("what grows …")
    grown = await growth.figures(count)
    said("peers …")
    paired = await beside.figures(max(count // 5, 10))
    said("containers …")
    in_docker = await containers.figures(max(count // 4, 10))
    said("the chat service …")
    served = await service.figures(count)
    built_in = await built_in_and_own(count, said)  # last: their libraries stay in this process
    lines = [
        *found,
        *whole,
        *promises,
        *pandas,
        *tools,
        *frozen,
        *started,
        *floods,
        *grown,
        *paired,
        *in_docker,
        *served,
        *built_in,
    ]
    return lines, isolation


async def built_in_and_own(count: int, said: Said) -> list[figures.Figure]:
    """Of the built-in tools, and of functions of the caller's own."""
    said("held calls …")
    held = await held_calls.figures(10 * count)
    said("documents …")
    written = await documents.figures(max(count // 2, 2))
    said("pages of the web …")
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


def page(found: list[figures.Figure], isolation: dict[str, Any], about: dict[str, Any], others: Others) -> str:
    """docs/performance.md."""
    rows = "\n".join(f"| {f.name} | {f.value} | {f.gate} | {_met(f, others)} |" for f in found)
    judged = [f.ok for f in found if f.ok is not None]
    return f"""# Performance

`make bench` measured this on {about["cores"]} cores (Linux {about["kernel"]}, Python {about["python"]}), load average
{about["load_before"][0]} before it began. Ours and the peers ran in the same run of the command. {others.verdict()}

Every measured run was sealed at level `{isolation["level"]}`, ceilings held by `{isolation["limits"]}`, Landlock ABI
{isolation["walls"]["landlock_abi"]}, seccomp filters: {isolation["walls"]["seccomp"]["filters"]}; the command
refuses to print a run whose walls were not complete.

A gate is the goal for a figure. The last column says which are met: {sum(judged)} of {len(judged)}.
`make bench` fails if one is missed (error {_MISSED}). Between two figures, when nothing of isorun runs, it keeps one
processor busy for a moment and sees in `/proc/stat` what others take beside it: other processes, or other guests of the
machine's host. If they take more than {100 * MOST:.0f} % of all processors, a gate that is not met is "too busy to
tell" and the error is {_TOO_BUSY}: measure again on a machine at rest.

| figure | measured | gate | met |
|---|---|---|---|
{rows}

Run folders are written to /dev/shm except in the row that says disk, so that the figures are isorun's:
what a disk adds depends on the file system and on what was deleted before.

A neighbour of a flood runs beside a program that makes the host work as much as it can; it is compared with the same
neighbour beside a program that spins and sends nothing, so that the ratio is the host's work.

Chromium is given the HTML that `write_html` makes of the page that `write_pdf` is given. Its time is that of
`new_page`, `set_content` and `page.pdf` of Playwright, without a file; ours is that of the program's call, with one.

A peer with "half of … pairs" was measured in turns with ours, in random order, each on a machine that had rested. The
ratio is the median of the rounds' ratios; half of these lie between the two numbers behind it. What slows the machine
for a moment slows both. The warm fork server is a Python that has imported what isorun's zygote has; it forks, runs the
hello file in the child, and waits. sandlock and pydantic-monty are measured where they are installed.

Paced: a run begins when the pool is full and the machine has rested 20 ms. The numbers behind the table, with the walls
of the measured runs, are in `bench/results.json`.
"""


def _met(figure: figures.Figure, others: Others) -> str:
    if figure.ok is False and others.are_busy:
        return "too busy to tell"
    return {True: "yes", False: "**no**", None: ""}[figure.ok]


def exit_code(found: list[figures.Figure], others: Others) -> int:
    """0 if every gate is met; else 1, or 3 if the machine was too busy to tell."""
    if all(figure.ok is not False for figure in found):
        return 0
    return _TOO_BUSY if others.are_busy else _MISSED


def main() -> int:
    """See `exit_code`."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="measurements of each figure")
    parser.add_argument("--floods", nargs="*", metavar="WORD", help="neighbours of floods only, of names with a WORD")
    for name, what in (
        ("cold", "the cold start of the command"),
        ("growth", "what grows"),
        ("paired", "whole runs beside their peers"),
        ("promised", "promised files and the burst"),
        ("tools", "built-in tools and held calls"),
        ("service", "the chat service"),
    ):
        parser.add_argument(f"--{name}", action="store_true", help=f"{what} only")
    parser.add_argument("--users", type=int, help="with --service: so many users at once, in place of its figures")
    parser.add_argument("--seconds", type=float, default=60.0, help="for which the users are there")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    about, others = machine(), Others()
    console = Console(stderr=not sys.stdout.isatty())

    def said(text: str) -> None:
        others.look()
        console.print(text)

    others.look()
    found, isolation = asyncio.run(_asked_for(options, said))
    others.look()
    table = Table("figure", "measured", "gate", "met")
    for figure in found:
        table.add_row(figure.name, figure.value, figure.gate, _met(figure, others).strip("*"))
    Console(width=150).print(table)
    Console(width=150).print(others.verdict())
    if isolation and not options.no_write:
        about["others"] = round(others.share, 3)
        report = {"machine": about, "isolation": isolation, "figures": [asdict(figure) for figure in found]}
        (_HERE / "results.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        _PAGE.write_text(page(found, isolation, about, others))
    return exit_code(found, others)


async def _asked_for(options: argparse.Namespace, said: Said) -> tuple[list[figures.Figure], dict[str, Any]]:
    """The figures, with the walls of the measured runs; without those for a part, which no page is made of."""
    count = options.count
    if options.floods is not None:
        return await figures.beside_floods(count, options.floods), {}
    if options.cold:
        return cold.figures(count), {}
    if options.growth:
        return await growth.figures(count), {}
    if options.paired:
        return [*await beside.figures(count), *await monty.figures(count)], {}
    if options.promised:
        return [*await promised.checked(count), await promised.burst(max(count // 40, 2))], {}
    if options.tools:
        return await built_in_and_own(count, said), {}
    if options.service and options.users:
        return await crowd.figures(options.users, options.seconds), {}
    if options.service:
        return await service.figures(count), {}
    return await measure(count, said)


if __name__ == "__main__":
    sys.exit(main())
