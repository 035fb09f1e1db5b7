"""`python tools/house.py`: the rules of CONTRIBUTING.md that a machine can hold; `make check` runs it.

The file holds the bounds, the numbers that may only fall, and the exceptions with their reasons. It reads files and the
history of git and changes neither. It judges no behaviour (tests do) and no import (`lint-imports` does).
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Code that others read and run. Tests are tables, so the bounds on length leave them out.
CODE = ("src", "packages/*/src", "tools", "bench", "examples")
TESTS = ("tests", "packages/*/tests")
FUNCTION_LINES = 40
MODULE_LINES = 400
#: A docstring with these words says why its function or module is over the bound.
EXCUSE = "long because"
#: Modules in one folder of src/, besides __init__.py.
FOLDER_FILES = 14
#: Folders that may hold more, each with the reason.
CROWDED: dict[str, str] = {}
#: The last commit before these rules; the commits after it are checked.
RULES_BEGIN = "e1905033407870127716a46f04e0ba30d2eb6349"
#: Commits that break these rules and have been shared, so that they cannot be written anew, each with the reason.
SHARED: dict[str, str] = {}
SUBJECT_LENGTH = 72
SUBJECT = re.compile(r"(?P<area>[a-z][\w./-]*(, [a-z][\w./-]*)*): (?P<verb>[a-z][a-z-]+),? \S.*")
#: A subject that begins so describes a state; a verb says what the commit does.
NO_VERB = re.compile(
    r"all|an|any|are|by|each|every|for|from|if|in|is|it|no|none|nobody|of|on|one|some|that|the|their|these|they|this"
    r"|those|to|what|whatever|when|where|which|who|whoever|whose|with"
)
#: Phrases that make a sentence hard to read, in docstrings, error texts and pages.
PHRASE = re.compile(r"\b(is\s+none|is\s+no|whatever|whoever|one\s+that|nobody)\b", re.IGNORECASE)
#: A test named by a row of a table that is not in this repository.
ROW_CODE = re.compile(r"^\s*(?:async )?def test_[a-h]\d+_", re.MULTILINE)
#: How often each may occur. Lower a number when its count has fallen; never raise one.
MAY_ONLY_FALL = {"hard phrases": 133, "tests named by row codes": 0}


def too_long(name: str, text: str) -> list[str]:
    """Each function and module of *text* that is over its bound and whose docstring does not say why."""
    tree = ast.parse(text)
    found = []
    lines = len(text.splitlines())
    if lines > MODULE_LINES and not excused(tree):
        found.append(
            f"{name}: {lines} lines, more than {MODULE_LINES}: split it, or let its docstring say '{EXCUSE} …'"
        )
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES and not excused(node):
                found.append(
                    f"{name}:{node.lineno}: {node.name} has {lines} lines, more than {FUNCTION_LINES}:"
                    f" split it, or let its docstring say '{EXCUSE} …'"
                )
    return found


def excused(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether the docstring of *node* gives the reason for its length."""
    return EXCUSE in " ".join((ast.get_docstring(node) or "").split()).lower()


def bare_ignores(name: str, text: str) -> list[str]:
    """Each comment of *text* that silences a checker and gives no reason."""
    found = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and re.search(r"#\s*(noqa|type: ignore)", token.string):
            rest = re.sub(r"noqa(:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*)?|type: ignore(\[[^\]]*\])?", "", token.string)
            if not re.search(r"[A-Za-z]{2}", rest):
                found.append(f"{name}:{token.start[0]}: '{token.string}' has no reason: write it behind, after ' - '")
    return found


def commit_faults(commit: str, subject: str, body: str) -> list[str]:
    """How a commit message breaks the rules, an empty list if it keeps them."""
    found = []
    if len(subject) > SUBJECT_LENGTH:
        found.append(f"commit {commit[:12]}: the subject has {len(subject)} characters, more than {SUBJECT_LENGTH}")
    matched = SUBJECT.fullmatch(subject)
    if matched is None or NO_VERB.fullmatch(matched["verb"]):
        found.append(f"commit {commit[:12]}: the subject is not 'area: verb what': {subject!r}")
    if not body.strip():
        found.append(f"commit {commit[:12]}: the message has no body; say why")
    return found


def crowded(name: str, modules: int) -> list[str]:
    """The complaint about a folder of src/ that holds too many modules."""
    if modules <= FOLDER_FILES or name in CROWDED:
        return []
    return [f"{name}: {modules} modules, more than {FOLDER_FILES}: make a folder for one subject of them"]


def hard_phrases(name: str, text: str) -> list[str]:
    """Where *text* uses a phrase that is hard to read: anywhere on a page, in the strings of a module."""
    if not name.endswith(".py"):
        return [f"{name}: {found[0]}" for found in PHRASE.finditer(text)]
    strings = ((node.lineno, node.value) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    return [
        f"{name}:{line}: {' '.join(found[0].split())}"
        for line, value in strings
        if isinstance(value, str)
        for found in PHRASE.finditer(value)
    ]


def over(what: str, found: list[str]) -> list[str]:
    """A complaint if *what* was found more often than it may be; a note on stderr if the number can be lowered."""
    allowed = MAY_ONLY_FALL[what]
    if len(found) < allowed:
        print(f"tools/house.py: {what}: {allowed} allowed, {len(found)} found: lower the number", file=sys.stderr)
    if len(found) <= allowed:
        return []
    return [f"{what}: {len(found)}, more than {allowed}; `python tools/house.py --list` shows where"]


def files(folders: Iterable[str], pattern: str) -> Iterator[tuple[str, str]]:
    """Name and text of each file below *folders* of the checkout that matches *pattern*."""
    for folder in folders:
        for path in sorted(ROOT.glob(f"{folder}/{pattern}")):
            if "node_modules" not in path.parts and ".venv" not in path.parts:
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def git(*arguments: str, root: Path = ROOT) -> str | None:
    """What git prints about the checkout; None without git, or if it refuses."""
    try:
        argv = ["git", "-C", str(root), *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def commits(root: Path = ROOT) -> list[tuple[str, str, str]] | None:
    """Hash, subject and body of each commit under the rules; None if *root* is no checkout of its own.

    None also for a clone without RULES_BEGIN, a shallow one: it cannot tell which commits are older than the rules.
    """
    top = git("rev-parse", "--show-toplevel", root=root)
    if top is None or Path(top.strip()).resolve() != root.resolve():
        return None
    if git("cat-file", "-e", f"{RULES_BEGIN}^{{commit}}", root=root) is None:
        return None
    told = git("log", "--no-merges", "--format=%H%x00%s%x00%b%x01", f"{RULES_BEGIN}..HEAD", root=root) or ""
    found = [tuple(one.strip("\n").split("\0")) for one in told.split("\1") if one.strip()]
    return [(commit, subject, body) for commit, subject, body in found]


def history() -> list[str]:
    told = commits()
    if told is None:
        print("tools/house.py: no whole git checkout here, so no commit message was checked", file=sys.stderr)
        return []
    return [fault for one in told if one[0][:12] not in SHARED for fault in commit_faults(*one)]


def counted() -> dict[str, list[str]]:
    """Where each thing is found that MAY_ONLY_FALL counts."""
    texts = (
        *files(("src", "packages/*/src"), "**/*.py"),
        *files((".", "packages/*"), "*.md"),
        *files(("docs",), "**/*.md"),
    )
    return {
        "hard phrases": [each for name, text in texts if name != "CHANGELOG.md" for each in hard_phrases(name, text)],
        "tests named by row codes": [
            f"{name}: {found[0].strip()}"
            for name, text in files(TESTS, "**/test_*.py")
            for found in ROW_CODE.finditer(text)
        ],
    }


def tree() -> list[str]:
    """The faults of the files."""
    faults = [fault for name, text in files(CODE, "**/*.py") for fault in too_long(name, text)]
    faults += [fault for name, text in files((*CODE, *TESTS), "**/*.py") for fault in bare_ignores(name, text)]
    for folder in sorted({path.parent for path in (ROOT / "src").rglob("*.py")}):
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        faults += crowded(folder.relative_to(ROOT).as_posix(), len(modules))
    for what, found in counted().items():
        faults += over(what, found)
    return faults


def main(arguments: list[str]) -> int:
    """Print every fault and return 1 if there is one. `--tree` leaves out the history; `--list` prints the counted."""
    if arguments == ["--list"]:
        print(*(line for lines in counted().values() for line in lines), sep="\n")
        return 0
    faults = tree() + (history() if arguments != ["--tree"] else [])
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
