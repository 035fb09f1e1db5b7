"""`isorun demo`: a program works on real data inside the walls, one breaks its promise, six fail to get out.

The demo is a list of scenarios. Four are the example bundle's; the programs of the others are files in
demo_programs/. Each is run like anybody's program, with the bundle's tools, and judged as `isorun scenario`
judges; the demo succeeds only if every one ended as it must. All of it is shown once more in report.html. It must not
import what the programs import, nor treat what they print as anything but hostile text.
"""

import asyncio
import importlib.resources
import importlib.util
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from isorun.cli.parsing import option
from isorun.cli.run.session import copy_out
from isorun.cli.scenes.page import Row, write_page
from isorun.cli.scenes.stage import Screen, mark, seconds, show_rows, show_rule, table
from isorun.cli.scenes.words import WORDS
from isorun.cli.show import print_json
from isorun.cli.verdict import size
from isorun.core.errors import InvalidRequest
from isorun.core.report import error_lines, tracebacks
from isorun.core.result import RunResult
from isorun.core.text import one_line
from isorun.runtime.runtime import Runtime
from isorun.tools.bundles import bundle_module, example_bundle

_Scenario: TypeAlias = Any  # a class of the bundle, which is imported by its path

_SCIENCE = ("numpy", "pandas", "matplotlib")
_CREDIT = "Palmer penguins: Horst AM, Hill AP, Gorman KB (2020), CC-0"
_EXCERPT = "def draw("
_TURN = "demo"
_PROMISED = {
    "chart.png": {"mime": "image/png", "min_bytes": 10_000},
    "summary.xlsx": {"columns": ["species", "birds", "flipper_mm", "mass_g", "correlation"], "min_rows": 3},
    "report.md": {"must_contain": "Pygoscelis papua"},
}


@cache
def acts() -> tuple[_Scenario, ...]:
    """The list: the first keeps a contract, the second breaks one, six try to get out."""
    listed, own = bundle_module(example_bundle(), "exec").SCENARIOS, _verdicts()
    broken = "found out/report.md, promised turn_demo/files/report.md"
    calls = (*(("reference_tools.species", "ok"),) * 3, (own.NOTE, "ok"))
    ends = own.Expected
    science = all(importlib.util.find_spec(name) for name in _SCIENCE)
    penguins = "penguins" if science else "penguins_plain"  # which needs what isorun itself requires
    return (
        _own(penguins, "A report on real data", ends(status="ok", succeeded=3, notes=1, calls=calls), *_PROMISED),
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


def _own(program: str, title: str, expected: object, *promises: str) -> _Scenario:
    """A scenario of the demo alone; its program is a file."""
    source = (_programs() / f"{program}.py").read_text("utf-8")
    about = {"promises": promises, "checks": _PROMISED, "timeout_s": 60.0}
    return _verdicts().Scenario(number=0, title=title, program=source, expected=expected, **about)


def _shared(scenario: _Scenario, title: str) -> _Scenario:
    """A scenario of the bundle's."""
    return replace(scenario, title=title, timeout_s=60.0)


def _verdicts() -> ModuleType:
    return bundle_module(example_bundle(), "verdicts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A scenario, how it really ended, and what was wrong with that (nothing, if the wall held)."""

    act: _Scenario
    result: RunResult
    wrong: tuple[str, ...]


OPTIONS = {
    "demo": (
        option("--json", "Print one JSON object, and nothing else.", dest="json_output"),
        option("--out DIR", "Copy the files to this folder, new or empty.", type=Path),
    )
}


def demo(json_output: bool = False, out: Path | None = None) -> int:
    """A program works on real data inside the walls, one breaks its promise, and six others fail to get out."""
    data = Path(str(_programs() / "penguins.csv"))
    if out is not None and out.exists() and any(out.iterdir()):
        raise InvalidRequest(f"--out {out} is not empty; name a new or an empty folder", code="out_not_empty")
    began = time.monotonic()
    console = Console(highlight=False, quiet=json_output, soft_wrap=False)
    with _host_files() as targets:
        played = asyncio.run(_play(data, targets, console))
    files = played[0].result
    if out is not None:
        copy_out(files, out)
    total_s = time.monotonic() - began
    folder = out or files.out_dir
    held = all(not one.wrong for one in played)
    # Beside the program's folder, not in it: that one holds what the program wrote.
    report = write_page((out or files.out_dir.parent) / "report.html", map(_row, played), held=held, credit=_CREDIT)
    if json_output:
        print_json(_as_json(played, held, folder, total_s) | {"report": str(report)})
    else:
        _close(console, played, held, folder, total_s, report)
    return 0 if held else 1


def _programs() -> Traversable:
    return importlib.resources.files("isorun.cli") / "demo_programs"


async def _play(data: Path, targets: Sequence[str], console: Console) -> list[Played]:
    console.print(f"[bold]isorun demo[/]  [dim]{escape(_CREDIT)}[/]")
    played = []
    async with Runtime(bundle=example_bundle(), pool_size=1) as runtime:
        for number, act in enumerate(acts(), 1):
            show_rule(console, f"{number}/{len(acts())}  {act.title}")
            _show_source(console, act)
            screen = Screen(console)
            run = await runtime.start(
                act.program,
                contract=act.contract(f"turn_{_TURN}") or None,
                inputs=[data],
                argv=targets,
                turn_id=_TURN,
                prog_name=act.title,
                timeout_s=act.timeout_s,
                on_output=screen.stdout,
            )
            result = await run.result()
            screen.end_output()
            played.append(Played(act=act, result=result, wrong=wrong_with(act, result)))
            _show_outcome(console, played[-1])
    return played


@contextmanager
def _host_files() -> Iterator[tuple[str, ...]]:
    """Files of the host: the password hashes, one in the caller's home, one made here."""
    home = Path.home()
    try:
        mine = next((path for path in sorted(home.iterdir()) if path.is_file()), home / ".bashrc")
    except OSError:
        mine = home / ".bashrc"
    with tempfile.TemporaryDirectory(prefix="isorun-demo-") as folder:
        secret = Path(folder, "secret.txt")
        secret.write_text("a secret of the caller\n")
        yield "/etc/shadow", str(mine), str(secret)


def wrong_with(act: _Scenario, result: RunResult) -> tuple[str, ...]:
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


def _ending(status: str, code: str | None) -> str:
    return f"{status} · {code}" if code else status


def says(act: _Scenario) -> str:
    """What its program does, in the words of its first line."""
    return str(act.program.split("\n")[0].strip('"# '))


def _show_source(console: Console, act: _Scenario) -> None:
    lines = act.program.split("\n")
    first = next((n for n, line in enumerate(lines, 1) if line.startswith(_EXCERPT)), 0)
    if not first:  # an attack: a sentence is enough
        console.print(Padding(Text(says(act), style="italic dim"), (0, 0, 0, 2)))
        return
    last = next(n for n, line in enumerate(lines[first:], first) if not line)
    console.print(f"  [dim]the program, lines {first} to {last} of {len(lines) - 1}[/]")
    console.print(
        Syntax(act.program, "python", line_range=(first, last), line_numbers=True, theme="ansi_dark", word_wrap=False)
    )


def _show_outcome(console: Console, played: Played) -> None:
    expected, result = played.act.expected, played.result
    rows = [("ending", Text.assemble((_words(played), "bold"), f", after {seconds(result)}"))]
    if played.wrong:
        rows.append(("expected", Text(_ending(expected.status, expected.code))))
    if result.error:
        rows.append(("status", Text(_ending(result.status, result.error.code))))
        rows.append(("message", Text(one_line(result.error.message, 300))))
    if result.error and result.error.hint:
        rows.append(("hint", Text(one_line(result.error.hint, 300), style="cyan")))
    calls = Counter(call["tool_id"] for call in result.tool_calls if call["status"] == "ok")
    for tool_id, times in calls.items():
        rows.append(("tool", Text(f"{tool_id}, {times} call{'s' if times > 1 else ''}")))
    show_rows(console, played.wrong, rows)


def _words(played: Played) -> str:
    """The ending for a newcomer; an ending that was not foreseen is told as it was."""
    if played.wrong:
        return _ending(f"NOT AS EXPECTED: {played.result.status}", _code(played.result))
    return WORDS[played.act.title].ending


def _row(played: Played) -> Row:
    title = str(played.act.title)
    return Row(
        title=title,
        tried=WORDS[title].tried,
        ending=_words(played),
        held=not played.wrong,
        source=str(played.act.program),
        result=played.result,
    )


def _code(result: RunResult) -> str | None:
    return result.error.code if result.error else None


def _close(console: Console, played: Sequence[Played], held: bool, folder: Path, total_s: float, report: Path) -> None:
    show_rule(console, "What was seen")
    endings = table("program", "ending", "time", "", whole=True)
    for one in played:
        endings.add_row(one.act.title, Text(_words(one)), seconds(one.result), mark(one.wrong))
    console.print(endings)
    console.print()
    result = played[0].result
    files = table("file", "size", "sha256", "time", "isolation", whole=True)
    isolation = f"{result.isolation['level']}, {result.isolation['limits']}"
    for artifact in result.artifacts:
        name = one_line(Path(artifact.path).name, 40)
        files.add_row(name, size(artifact.bytes), artifact.sha256[:12], seconds(result), isolation)
    console.print(files)
    console.print()
    last = Table.grid(padding=(0, 1))
    last.add_row("walls", Text(_walls(result), style="dim"))
    console.print(last)
    console.print(Text(f"files {folder / 'turn_demo' / 'files'}"), soft_wrap=True)
    console.print(Text(f"report {report}"), soft_wrap=True)
    word = "every wall held" if held else "NOT AS EXPECTED: see ✘ above"
    console.print(f"[bold {'green' if held else 'red'}]{word}[/] [dim]({total_s:.1f} s)[/]")


def _walls(result: RunResult) -> str:
    """What the kernel said of the first program's walls, in a line."""
    walls = result.isolation.get("walls", {})
    filters = walls.get("seccomp", {}).get("filters")
    return (
        f"uid {walls.get('uid')}, no capabilities, seccomp filters {filters}, Landlock ABI "
        f"{walls.get('landlock_abi')}, network {walls.get('network')}, own namespaces: "
        f"{' '.join(walls.get('namespaces', ()))}"
    )


def _as_json(played: Sequence[Played], held: bool, folder: Path, total_s: float) -> dict[str, Any]:
    return {
        "ok": held,
        "credit": _CREDIT,
        "folder": str(folder),
        "total_s": total_s,
        "acts": [
            {
                "title": one.act.title,
                "expected": {"status": one.act.expected.status, "code": one.act.expected.code},
                "wrong": list(one.wrong),
                "result": one.result.to_dict(),
            }
            for one in played
        ],
    }
