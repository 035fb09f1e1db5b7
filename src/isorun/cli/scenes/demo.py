"""`isorun demo`: two programs work on real data inside the walls, one breaks its promise, six fail to get out.

The demo is a list of scenarios (acts.py). Each is run like anybody's program and judged as `isorun scenario` judges;
the demo succeeds only if every one ended as it must. All of it is shown once more in report.html. What programs print
is hostile text, and must not be treated as anything else.
"""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from isorun.cli.parsing import option
from isorun.cli.scenes.acts import Act, acts, is_useful, left_out, programs, says, search_settings, searches, wrong_with
from isorun.cli.scenes.page import Row, write_page
from isorun.cli.scenes.stage import Screen, mark, seconds, show_rows, show_rule, table
from isorun.cli.scenes.words import WORDS
from isorun.cli.show import print_json
from isorun.cli.verdict import size
from isorun.core.errors import InvalidRequest, SetupFailed
from isorun.core.result import RunResult
from isorun.core.text import one_line
from isorun.runtime.runtime import Runtime
from isorun.settings import Settings
from isorun.store.saving import save
from isorun.tools.bundles import example_bundle

_CREDIT = "Palmer penguins: Horst AM, Hill AP, Gorman KB (2020), CC-0"
_EXCERPT = ("def draw(", "async def look_up(")
_TURN = "demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A scenario, how it really ended, and what was wrong with that (nothing, if the wall held)."""

    act: Act
    result: RunResult
    wrong: tuple[str, ...]


OPTIONS = {
    "demo": (
        option("--json", "Print one JSON object, and nothing else.", dest="json_output"),
        option("--out DIR", "Copy the files to this folder, new or empty.", type=Path),
    )
}


def demo(json_output: bool = False, out: Path | None = None) -> int:
    """Two programs work on real data inside the walls, one breaks its promise, and six others fail to get out."""
    data = Path(str(programs() / "penguins.csv"))
    if out is not None and out.exists() and any(out.iterdir()):
        raise InvalidRequest(f"--out {out} is not empty; name a new or an empty folder", code="out_not_empty")
    began = time.monotonic()
    console = Console(highlight=False, quiet=json_output, soft_wrap=False)
    with _host_files() as targets:
        played = asyncio.run(_play(data, targets, console))
    useful = [one.result for one in played if is_useful(one.act)]
    if out is not None:
        _copy_out(useful, out)
    total_s = time.monotonic() - began
    folders = [out] if out else [result.out_dir for result in useful]
    held = all(not one.wrong for one in played)
    # Beside the program's folder, not in it: that one holds what the program wrote.
    to = (out or folders[0].parent) / "report.html"
    report = write_page(to, map(_row, played), held=held, credit=_CREDIT, left_out=left_out())
    if json_output:
        print_json(_as_json(played, held, folders[0], total_s) | {"report": str(report)})
    else:
        _close(console, played, held, folders, total_s, report)
    return 0 if held else 1


def _copy_out(useful: Sequence[RunResult], to: Path) -> None:
    """All that the first of *useful* left, and the promised files of the others."""
    for number, result in enumerate(useful):
        promised = [Path(artifact.path) for artifact in result.artifacts]
        passed_over = _all_but(promised) if number else lambda _: False
        try:
            faults = save(result.out_dir, to, passed_over=passed_over, before={})
        except OSError as error:
            faults = [f"{to}: {error.strerror or error}"]
        if faults:
            raise SetupFailed("--out", f"{faults[0]}; the files are in {result.out_dir}")


def _all_but(files: Sequence[Path]) -> Callable[[str], bool]:
    """Whether a path is neither one of *files* nor a folder on the way to one."""
    return lambda path: not any(file.is_relative_to(path) for file in files)


async def _play(data: Path, targets: Sequence[str], console: Console) -> list[Played]:
    console.print(f"[bold]isorun demo[/]  [dim]{escape(_CREDIT)}[/]")
    if left_out():
        console.print(Text(left_out(), style="yellow"))
    played = []
    async with Runtime(bundle=example_bundle(), pool_size=1) as runtime:
        for number, act in enumerate(acts(), 1):
            show_rule(console, f"{number}/{len(acts())}  {act.title}")
            _show_source(console, act)
            async with runtime_for(act, runtime) as its:
                result = await run(its, act, data, targets, console)
            played.append(Played(act=act, result=result, wrong=wrong_with(act, result)))
            _show_outcome(console, played[-1])
    return played


@asynccontextmanager
async def runtime_for(act: Act, runtime: Runtime) -> AsyncIterator[Runtime]:
    """*runtime*, or one of its own for an act that searches: no other program is near its tools and settings."""
    if not searches(act):
        yield runtime
        return
    async with Runtime(settings=search_settings(Settings.load()), pool_size=0) as own:
        yield own


async def run(runtime: Runtime, act: Act, data: Path, targets: Sequence[str], console: Console) -> RunResult:
    """Run *act* with the tools that are meant for it, its output shown as it comes."""
    screen = Screen(console)
    running = await runtime.start(
        act.program,
        contract=act.contract(f"turn_{_TURN}") or None,
        inputs=[data],
        argv=targets,
        turn_id=_TURN,
        prog_name=act.title,
        timeout_s=act.timeout_s,
        tools=act.tools if searches(act) else None,
        on_output=screen.stdout,
    )
    result = await running.result()
    screen.end_output()
    return result


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


def _ending(status: str, code: str | None) -> str:
    return f"{status} · {code}" if code else status


def _show_source(console: Console, act: Act) -> None:
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
        useful=is_useful(played.act),
        source=str(played.act.program),
        result=played.result,
    )


def _code(result: RunResult) -> str | None:
    return result.error.code if result.error else None


def _close(
    console: Console, played: Sequence[Played], held: bool, folders: Sequence[Path], total_s: float, report: Path
) -> None:
    show_rule(console, "What was seen")
    endings = table("program", "ending", "time", "", whole=True)
    for one in played:
        endings.add_row(one.act.title, Text(_words(one)), seconds(one.result), mark(one.wrong))
    console.print(endings)
    console.print()
    files = table("file", "size", "sha256", "time", "isolation", whole=True)
    for result in (one.result for one in played if is_useful(one.act)):
        isolation = f"{result.isolation['level']}, {result.isolation['limits']}"
        for artifact in result.artifacts:
            name = one_line(Path(artifact.path).name, 40)
            files.add_row(name, size(artifact.bytes), artifact.sha256[:12], seconds(result), isolation)
    console.print(files)
    console.print()
    last = Table.grid(padding=(0, 1))
    last.add_row("walls", Text(_walls(played[0].result), style="dim"))
    console.print(last)
    for folder in folders:
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
        "left_out": left_out(),
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
