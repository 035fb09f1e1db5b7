"""The documents as their readers run them: pages, the blocks of a page, and the running of one.

A block in `python`, `console`, `sh` or `bash` is run, in the order of its page and in one folder per page.
A comment on the line before a block says what else it is:

    <!-- needs: docker, which ... -->   it cannot run here, and why; it is only listed
    <!-- file: tools/local_tools.py --> it is written to that file, whatever its language
    <!-- continues -->                  it goes on where the page's last Python block ended
    <!-- prints -->                     it is what the block before it prints; `…` stands for anything

In a console block the lines that begin with `$ ` are run, `> ` goes on with one, and the others are what
they print. A page has one shell: what a block exports and where it changes to hold for those after it. A
block without a language, or in `text` or `mermaid`, is prose.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SHELLS = ("sh", "bash")
PROSE = ("", "text", "mermaid")
SECONDS = 55  # of one block

_FENCE = re.compile(r"^( *)```(\w*)\s*$")
_COMMENT = re.compile(r"^\s*<!-- (needs|file|continues|prints)(?:: (.+?))? -->$")

#: One block in the page's shell, whose exports and place are in $STATE between blocks.
_SHELL = """
[ ! -f "$STATE" ] || . "$STATE"
trap 'export -p > "$STATE"; printf "cd %q\\n" "$PWD" >> "$STATE"' EXIT
set -euo pipefail
"""

#: Runs a block as a script; a top-level await is allowed, as in a notebook and in `python -m asyncio`.
_DRIVER = """
import ast, asyncio, sys
name = sys.argv[1]
code = compile(open(name, encoding="utf-8").read(), name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
names = {"__name__": "__main__", "__file__": name}
if code.co_flags & 0x80:
    async def main():
        await eval(code, names)
    asyncio.run(main())
else:
    exec(code, names)
"""


def pages() -> list[Path]:
    """Every document for people, relative to the checkout."""
    found = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/**/*.md"),
        *ROOT.glob("packages/*/*.md"),
    ]
    return sorted(path.relative_to(ROOT) for path in found)


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block. `line` is that of its fence, from 1."""

    page: Path
    line: int
    language: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def needs(self) -> str | None:
        """Why it is not run, if it is not."""
        return self.marks.get("needs")

    @property
    def is_prose(self) -> bool:
        return self.language in PROSE and not self.marks


def blocks_of(page: Path, text: str | None = None) -> list[Block]:
    """The fenced blocks of *page*, in order. Raises ValueError for a fence that never ends."""
    lines = iter(enumerate((text if text is not None else (ROOT / page).read_text(encoding="utf-8")).split("\n"), 1))
    found: list[Block] = []
    marks: dict[str, str] = {}
    for number, line in lines:
        if comment := _COMMENT.match(line):
            marks[comment[1]] = comment[2] or ""
        elif fence := _FENCE.match(line):
            body = "".join(_body(lines, len(fence[1]), f"{page}:{number}"))
            found.append(Block(page=page, line=number, language=fence[2], text=body, marks=marks))
            marks = {}
        elif line.strip():
            marks = {}
    return found


def _body(lines: Iterator[tuple[int, str]], indent: int, where: str) -> Iterator[str]:
    for _, line in lines:
        if line.strip() == "```":
            return
        yield f"{line[:indent].strip()}{line[indent:]}\n"
    raise ValueError(f"{where}: the block never ends")


class Reader:
    """Somebody who goes through one page from the top, in *folder*, and types what it says."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._python = ""
        self._printed = ""
        work = folder / "work"
        work.mkdir()
        (work / "examples").symlink_to(ROOT / "examples")  # the pages are read from the top of a checkout
        self.place = work

    def read_all(self, blocks: Iterable[Block]) -> None:
        """`read` each of *blocks*, in order."""
        for block in blocks:
            self.read(block)

    def read(self, block: Block) -> None:
        """Do what *block* says; raises AssertionError with its place and what was printed."""
        if "prints" in block.marks:
            self._compare(block, block.text.splitlines())
        elif "file" in block.marks:
            path = self.place / block.marks["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            self._python = self._python * ("continues" in block.marks) + block.text
            script = self._folder / "block.py"
            script.write_text(self._python, encoding="utf-8")
            self._run(block, '"$@"', sys.executable, "-c", _DRIVER, str(script))
        elif block.language in SHELLS:
            self._run(block, block.text)
        elif block.language == "console":
            commands, expected = console(block.text)
            assert commands, f"{block}: no line begins with '$ '"
            self._run(block, commands)
            self._compare(block, expected)
        else:
            raise AssertionError(
                f"{block}: a block in {block.language!r} cannot be run: say what it needs, or what file it is"
            )

    def _run(self, block: Block, script: str, *args: str) -> None:
        done = subprocess.run(
            ["bash", "-c", _SHELL + script, "bash", *args],
            cwd=self.place,
            env=environment(self._folder) | {"STATE": str(self._folder / "shell")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        self._printed = done.stdout
        assert done.returncode == 0, f"{block} exited with {done.returncode}:\n{done.stdout}"

    def _compare(self, block: Block, expected: list[str]) -> None:
        missing = first_missing(expected, self._printed.splitlines())
        assert missing is None, f"{block}: no such line, or not in this order: {missing!r} in\n{self._printed}"


def environment(folder: Path) -> dict[str, str]:
    """What a reader's shell has: the installed commands, a home, and no setting but where runs go."""
    return {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "COLUMNS": "200",  # of a pipe: tables obey it, and the pages show whole rows
        "ISORUN_WORKSPACE_ROOT": str(folder / "runs"),
        "ISO_RUNTIME_USER_WORKSPACE_ROOT": str(folder / "workspace"),
        "ISO_RUNTIME_SANDBOX_ROOT": str(folder / "sandbox"),
    }


def console(text: str) -> tuple[str, list[str]]:
    """The commands of a console block as one script, and the lines that they print."""
    commands, printed = [], []
    for line in text.splitlines():
        if line.startswith(("$ ", "> ")):
            commands.append(line[2:])
        elif line.strip():
            printed.append(line)
    return "\n".join(commands), printed


def first_missing(expected: list[str], printed: list[str]) -> str | None:
    """The first of *expected* that is not among *printed*, in order; blank lines and trailing spaces do not count."""
    rest = iter(line.rstrip() for line in printed)
    for line in (line.rstrip() for line in expected):
        if line.strip() in ("", "…"):
            continue
        pattern = re.compile(re.escape(line).replace("…", ".*"))
        if not any(pattern.fullmatch(candidate) for candidate in rest):
            return line
    return None


def headings(page: Path) -> set[str]:
    """The anchors of *page*, as web views make them of its headings."""
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page: Path) -> list[str]:
    """The targets of the page's links that are not addresses."""
    text = re.sub(r"^ *```.*?^ *```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"(?<!`)\[[^\]]+\]\(([^)\s]+)\)", text)
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def rows_below(text: str, heading: str) -> list[list[str]]:
    """The cells of every table of that section of a page, without the tables' heads."""
    section = text.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    heads = {
        number for number, line in enumerate(lines) if number + 1 < len(lines) and lines[number + 1].startswith("|---")
    }
    kept = (line for number, line in enumerate(lines) if number not in heads and not line.startswith("|---"))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in kept]
