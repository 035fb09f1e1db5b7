"""`isorun demo`: a program works on real data inside the walls, one breaks its promise, six fail to get out.

Every program is a file in demo_programs/, run like anybody's, with the tools of the
example bundle. The first keeps a contract, the second breaks one. What each must end
like is a table here; the demo succeeds only if all of them did. It must not import
what the programs import, nor treat what they print as anything but hostile text.
"""

import asyncio
import importlib.resources
import importlib.util
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from isorun.cli.session import copy_out
from isorun.cli.show import print_json
from isorun.cli.verdict import size
from isorun.core.errors import InvalidRequest
from isorun.core.outcome import Code, Status
from isorun.runtime.events import Event
from isorun.runtime.report import one_line
from isorun.runtime.result import RunResult
from isorun.runtime.runtime import Runtime
from isorun.tools.bundles import example_bundle

_NEEDED = ("pandas", "matplotlib", "openpyxl", "palmerpenguins")
_CREDIT = "Palmer penguins: Horst AM, Hill AP, Gorman KB (2020), CC-0"
_EXCERPT = "def draw("
_LINES = 12  # of a program's output that are shown
_CHART = {
    "filename": "turn_demo/files/chart.png",
    "description": "Flipper length and body mass by species",
    "mime": "image/png",
    "min_bytes": 10_000,
}
_SUMMARY = {
    "filename": "turn_demo/files/summary.xlsx",
    "description": "Means by species, and the data",
    "columns": ["species", "birds", "flipper_mm", "mass_g", "correlation"],
    "min_rows": 3,
}
_REPORT = {
    "filename": "turn_demo/files/report.md",
    "description": "The report",
    "must_contain": "Pygoscelis papua",
}
_LOOKED_UP = ("reference_tools.species",) * 3
_ESCAPED = "GOT "  # what the attacks print if they succeed


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One program of the demo and how it must end."""

    program: str
    title: str
    status: Status
    code: Code | None
    timeout_s: float = 60.0
    says: str = ""  # what its partial output must hold
    promised: tuple[Mapping[str, Any], ...] = ()
    calls: tuple[str, ...] = ()  # the tools it must have called, each with success
    hint: str = ""


ACTS = (
    Act(
        program="penguins",
        title="A report on real data",
        status=Status.OK,
        code=None,
        promised=(_CHART, _SUMMARY, _REPORT),
        calls=(*_LOOKED_UP, "local_tools.write_note"),
    ),
    Act(
        program="misplaced",
        title="A promised file",
        status=Status.CONTRACT_FAILED,
        code=Code.MISSING_OUTPUT_FILES,
        promised=(_REPORT,),
        hint="found out/report.md, promised turn_demo/files/report.md",
    ),
    Act(program="network", title="Reach the network", status=Status.FAILED, code=Code.PROGRAM_ERROR),
    Act(program="host_files", title="Read the host's files", status=Status.FAILED, code=Code.PROGRAM_ERROR),
    Act(
        program="fork_bomb",
        title="Fork bomb",
        status=Status.LIMIT_EXCEEDED,
        code=Code.PROCESS_LIMIT,
        says="forking",
    ),
    Act(
        program="memory_hog",
        title="Eat all memory",
        status=Status.OUT_OF_MEMORY,
        code=Code.OUT_OF_MEMORY,
        says="64 MiB",
    ),
    Act(
        program="disk_filler",
        title="Fill the disk",
        status=Status.LIMIT_EXCEEDED,
        code=Code.WORKSPACE_LIMIT,
        says="32 MiB",
    ),
    Act(
        program="endless",
        title="Never end",
        status=Status.TIMED_OUT,
        code=Code.TIMEOUT,
        timeout_s=1.5,
        says="20 digits",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """An act, how it really ended, and what was wrong with that (nothing, if the wall held)."""

    act: Act
    result: RunResult
    wrong: tuple[str, ...] = field(default=())


def demo(
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option(help="Copy the files to this folder, new or empty.")] = None,
) -> int:
    """A program works on real data inside the walls, one breaks its promise, and six others fail to get out."""
    data = find_data()
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
    if json_output:
        print_json(_as_json(played, held, folder, total_s))
    else:
        _close(console, played, held, folder, total_s)
    return 0 if held else 1


def find_data() -> Path:
    """penguins.csv of the package `palmerpenguins`, found without importing it or any other package."""
    specs = {name: importlib.util.find_spec(name) for name in _NEEDED}
    missing = [name for name, spec in specs.items() if spec is None]
    if missing:
        raise InvalidRequest(
            f"the demo needs {', '.join(missing)}: pip install 'isorun[science,demo]', or `make demo` in a checkout",
            code="missing_packages",
        )
    spec = specs["palmerpenguins"]
    places = spec.submodule_search_locations if spec else None
    for place in places or ():
        if (path := Path(place, "data", "penguins.csv")).is_file():
            return path
    raise InvalidRequest("palmerpenguins is installed without its data: install it anew", code="missing_data")


def source_of(program: str) -> str:
    """The text of a program of the demo."""
    return (importlib.resources.files("isorun.cli") / "demo_programs" / f"{program}.py").read_text("utf-8")


async def _play(data: Path, targets: Sequence[str], console: Console) -> list[Played]:
    console.print(f"[bold]isorun demo[/]  [dim]{escape(_CREDIT)}[/]")
    played = []
    async with Runtime(bundle=example_bundle(), pool_size=1) as runtime:
        for number, act in enumerate(ACTS, 1):
            console.print()
            console.rule(f"[bold]{number}/{len(ACTS)}  {act.title}", align="left", style="dim")
            _show_source(console, act)
            result = await _run(runtime, act, data, targets, console)
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


async def _run(runtime: Runtime, act: Act, data: Path, targets: Sequence[str], console: Console) -> RunResult:
    run = await runtime.start(
        source_of(act.program),
        contract=list(act.promised) or None,
        inputs=[data] if act.status is Status.OK else (),
        argv=targets if act.program == "host_files" else (),
        turn_id="demo",
        prog_name=act.program,
        timeout_s=act.timeout_s,
    )
    await _show_output(console, run.events())
    return await run.result()


async def _show_output(console: Console, events: AsyncIterator[Event]) -> None:
    """The first lines of stdout as they come; a traceback's last line comes as the message."""
    shown, rest = 0, ""
    async for event in events:
        if event.kind != "output" or event.data["stream"] != "stdout":
            continue
        *lines, rest = (rest + event.data["text"]).split("\n")
        for line in lines[: max(_LINES - shown, 0)]:
            text = Text.assemble(("  │ ", "dim"), one_line(line, 200))
            console.print(text, overflow="ellipsis", no_wrap=True)
        shown += len(lines)
    if shown > _LINES:
        console.print(f"  [dim]│ … {shown - _LINES} more lines[/]")


def wrong_with(act: Act, result: RunResult) -> tuple[str, ...]:
    """Every way in which *result* is not what *act* must end like."""
    wrong = []
    if (result.status, _code(result)) != (act.status, act.code):
        wrong.append(f"expected {_ending(act.status, act.code)}")
    if _ESCAPED in result.stdout:
        wrong.append("the program got out")
    if act.says not in result.stdout:
        wrong.append(f"its output should hold {act.says!r}")
    if act.status is Status.OK and len(result.artifacts) != len(act.promised):
        wrong.append(f"expected {len(act.promised)} files, got {len(result.artifacts)}")
    if _carried_out(result) != sorted(act.calls):
        wrong.append(f"expected the tool calls {', '.join(act.calls) or 'none'}")
    if act.hint not in (result.error.hint if result.error else ""):
        wrong.append(f"its hint should hold {act.hint!r}")
    if result.isolation.get("level") != "full":
        wrong.append(f"isolation is {result.isolation.get('level')}")
    return tuple(wrong)


def _carried_out(result: RunResult) -> list[str]:
    return sorted(call["tool_id"] for call in result.tool_calls if call["status"] == "ok")


def _ending(status: Status, code: Code | None) -> str:
    return f"{status} · {code}" if code else str(status)


def _show_source(console: Console, act: Act) -> None:
    source = source_of(act.program)
    lines = source.split("\n")
    first = next((n for n, line in enumerate(lines, 1) if line.startswith(_EXCERPT)), 0)
    if not first:  # an attack: its first sentence is enough
        console.print(Padding(Text(lines[0].strip('"'), style="italic dim"), (0, 0, 0, 2)))
        return
    last = next(n for n, line in enumerate(lines[first:], first) if not line)
    console.print(f"  [dim]{act.program}.py, lines {first} to {last} of {len(lines) - 1}[/]")
    console.print(
        Syntax(source, "python", line_range=(first, last), line_numbers=True, theme="ansi_dark", word_wrap=False)
    )


def _show_outcome(console: Console, played: Played) -> None:
    act, result = played.act, played.result
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(width=8)
    grid.add_column(overflow="fold")
    real = Text.assemble((_ending(result.status, _code(result)), "bold"), f" after {result.usage['wall_s']:.2f} s")
    grid.add_row(_mark(played), "expected", Text(_ending(act.status, act.code), style="bold"))
    grid.add_row("", "real", real)
    if result.error:
        grid.add_row("", "message", Text(one_line(result.error.message, 300)))
    if result.error and result.error.hint:
        grid.add_row("", "hint", Text(one_line(result.error.hint, 300), style="cyan"))
    for tool_id, times in Counter(_carried_out(result)).items():
        grid.add_row("", "tool", Text(f"{tool_id}, {times} call{'s' if times > 1 else ''}"))
    for wrong in played.wrong:
        grid.add_row("", "wrong", Text(wrong, style="red"))
    console.print(Padding(grid, (0, 0, 0, 2)))


def _code(result: RunResult) -> Code | None:
    return result.error.code if result.error else None


def _mark(played: Played) -> str:
    return "[red]✘[/]" if played.wrong else "[green]✔[/]"


def _close(console: Console, played: Sequence[Played], held: bool, folder: Path, total_s: float) -> None:
    console.print()
    console.rule("[bold]What was seen", align="left", style="dim")
    endings = _table("program", "expected", "real", "time", "")
    for one in played:
        words = str(one.act.code or one.act.status), str(_code(one.result) or one.result.status)
        endings.add_row(one.act.title, *words, _seconds(one.result), _mark(one))
    console.print(endings)
    console.print()
    result = played[0].result
    files = _table("file", "size", "sha256", "time", "isolation")
    isolation = f"{result.isolation['level']}, {result.isolation['limits']}"
    for artifact in result.artifacts:
        name = one_line(Path(artifact.path).name, 40)
        files.add_row(name, size(artifact.bytes), artifact.sha256[:12], _seconds(result), isolation)
    console.print(files)
    console.print()
    last = Table.grid(padding=(0, 1))
    last.add_row("walls", Text(_walls(result), style="dim"))
    console.print(last)
    console.print(Text(f"files {folder / 'turn_demo' / 'files'}"), soft_wrap=True)
    word = "every wall held" if held else "NOT AS EXPECTED: see ✘ above"
    console.print(f"[bold {'green' if held else 'red'}]{word}[/] [dim]({total_s:.1f} s)[/]")


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in ("size", "time") else "left", no_wrap=True)
    return table


def _seconds(result: RunResult) -> str:
    return f"{result.usage['wall_s']:.2f} s"


def _walls(result: RunResult) -> str:
    """What the kernel said of the first program's walls, in a line."""
    walls = result.isolation.get("walls", {})
    filters = walls.get("seccomp", {}).get("filters")
    return (
        f"uid {walls.get('uid')}, no capabilities, {filters} seccomp filters, Landlock ABI "
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
                "expected": {"status": one.act.status, "code": one.act.code},
                "wrong": list(one.wrong),
                "result": one.result.to_dict(),
            }
            for one in played
        ],
    }
