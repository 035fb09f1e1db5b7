"""What to do about the errors that programs written by a model make daily.

Pure: from values to text. What the program raised or printed is hostile: it is bounded, and only chooses among the
hints below; a name of its own is shown only if it is a plain word.
"""

import errno
import re
from collections.abc import Callable, Collection
from posixpath import basename, dirname

from isorun.core.sent.claim import COMMON, Claim
from isorun.core.text import one_line
from isorun.runtime.hints import paths
from isorun.runtime.hints.form import NO_INSTALL, NO_NOTEBOOK, form_hint
from isorun.runtime.hints.seen import MAX_TEXT, WORK, Seen

NO_NETWORK = "the program has no network: give it what it needs with --input (inputs=)"
NETWORK_TOOLS = ("generic_tools.web_search", "generic_tools.fetch_url_contents")
AWAIT_MAIN = "the program has a top-level await, so a loop is running already: use `await main()`"
NO_SHARED_MEMORY = (
    "shared memory without a file is refused on a host without a control group: use multiprocessing.shared_memory, "
    "a file in /dev/shm, or flags=mmap.MAP_PRIVATE"
)
NO_STDIN = "stdin is at its end: write the values into the program, or give them with --stdin (stdin=)"
NO_SCREEN = "a program has no screen: draw with matplotlib, and keep the figure with savefig"
NO_VARIABLE = "a program has none of the host's variables: a tool may have the secret that the program lacks"

_NETWORK = re.compile(
    r"Address family (?:for hostname )?not supported|socket\.gaierror|Network is unreachable"
    r"|[Nn]ame resolution|Name or service not known|No address associated with hostname|Failed to resolve '"
    r"|<urlopen error \[Errno (?:-[0-9]{1,2}|97|99|101|111|113)\]|HF_HUB_OFFLINE|offline mode is enabled"
)
_NETWORK_ERRNOS = (errno.EAFNOSUPPORT, errno.ENETUNREACH)
# In the traceback of a program that would be a server.
_SERVER = re.compile(r"Server\(|create_server|\.bind\(")
NO_SERVER = (
    "the program has no loopback either, so no server can listen: call the handler directly, "
    "or use a Unix socket (socket.AF_UNIX)"
)
_GLYPHS = re.compile(r"UserWarning: Glyph \d+ ")
NO_GLYPHS = "the font has no signs for some characters of a figure: they are drawn as empty squares"
_NETWORK_MODULES = ("requests", "httpx", "aiohttp", "urllib3", "boto3", "openai", "anthropic", "yfinance", "websockets")
_NOTEBOOK_MODULES = ("IPython", "google", "ipywidgets", "notebook")
_NOTEBOOK_NAMES = ("display", "get_ipython", "HTML")
_USUAL = {
    "np": "import numpy as np",
    "pd": "import pandas as pd",
    "plt": "import matplotlib.pyplot as plt",
    "sns": "import seaborn as sns",
}
_INSTALL = re.compile(
    r"No matching distribution found for|Could not find a version that satisfies"
    r"|^[^\n]{0,200}: No module named pip$"
    r"|was not found in the (?:cache|package registry)|[Nn]etwork connectivity is disabled",
    re.MULTILINE,
)
_INSTALLING = re.compile(r"\b(?:pip3?|uv|conda)\b[^\n]{1,100}\b(?:install|add)\b")
_MODULE = re.compile(r"(?:No module named|Missing optional dependency) '([\w.]{1,100})'")
_MODULE_LINE = re.compile(rf"^(?:ModuleNotFoundError|ImportError): {_MODULE.pattern}", re.MULTILINE)
_NAME = re.compile(r"name '(\w{1,60})' is not defined")
_VARIABLE = re.compile(r"'[A-Z][A-Z0-9_]{2,60}'$")
_OF_ENVIRON = ("", "raise KeyError(key) from None")  # in os.py, which may be frozen and have no text
_NOT_AWAITED = re.compile(r"RuntimeWarning: coroutine '(\w+\.\w+)' was never awaited$", re.MULTILINE)
_COROUTINE = re.compile(r"'coroutine'|\bcoroutine is not JSON serializable|^cannot unpack non-iterable coroutine")
_SHARED_MEMORY = re.compile(
    r"^    [^\n]{0,200}mmap\(-1\b[^\n]*\n(?:[^\n]*\n){0,2}PermissionError: \[Errno 1\]", re.MULTILINE
)
_READ_ONLY = re.compile(r"\[Errno (?:30|13)\][^\n]*|Read-only file system")
_NO_FILE_LINE = re.compile(r"\[Errno 2\][^\n]{1,2000}")
_OPENS_TERMINAL = re.compile(r"\b(openpty|forkpty|posix_openpt|pty\.(fork|spawn))\(")
_TERMINAL = re.compile(r"out of pty devices|Inappropriate ioctl for device")
_SCREEN = re.compile(r"no display name and no \$DISPLAY|could not connect to display|[Cc]annot open display")
_IN_LOOP = (
    "asyncio.run() cannot be called from a running event loop",
    "This event loop is already running",
    "Cannot run the event loop while another loop is running",
)


def claim_hint(claim: Claim, seen: Seen) -> str:
    """By what the program raised."""
    text = claim.message[:MAX_TEXT]
    return next((hint for step in _BY_CLAIM if (hint := step(claim, text, seen))), "")


def _of_form(claim: Claim, _: str, seen: Seen) -> str:
    return form_hint(claim, seen.program, seen.tools)


def _of_loops(claim: Claim, text: str, _: Seen) -> str:
    return AWAIT_MAIN if claim.type == "RuntimeError" and text.startswith(_IN_LOOP) else ""


def _of_coroutines(claim: Claim, text: str, seen: Seen) -> str:
    if claim.type not in ("TypeError", "AttributeError") or not _COROUTINE.search(text):
        return ""
    called = next(iter(forgotten_awaits(seen.stderr)), "")
    more = ", or `<alias>.<tool>.sync(...)` for a tool in a plain function or lambda" if seen.tools else ""
    return called or f"a coroutine was called without await: write `await` before the call{more}"


def _of_modules(claim: Claim, text: str, seen: Seen) -> str:
    if claim.type in ("ModuleNotFoundError", "ImportError") and (module := _MODULE.match(text)):
        return _missing_module(module[1], claim.packages, seen)
    return _no_install(claim.packages) if _is_install(text) else ""


def _of_network(claim: Claim, text: str, seen: Seen) -> str:
    if claim.errno == errno.EAFNOSUPPORT and _SERVER.search(seen.stderr[-MAX_TEXT:]):
        return NO_SERVER
    found = claim.type == "gaierror" or claim.errno in _NETWORK_ERRNOS or _NETWORK.search(text)
    return _no_network(seen.tools) if found else ""


def _of_names(claim: Claim, text: str, _: Seen) -> str:
    if claim.type == "KeyError" and claim.source in _OF_ENVIRON and _VARIABLE.match(text):
        return NO_VARIABLE
    found = _NAME.match(text) if claim.type == "NameError" else None
    if found is None:
        return ""
    name = found[1]
    if name in _NOTEBOOK_NAMES:
        return NO_NOTEBOOK
    if name in _USUAL:
        return f"write `{_USUAL[name]}` first"
    return f"the program does not define {name}, and no run has the names of an earlier one: define it in this program"


def _of_files(claim: Claim, text: str, seen: Seen) -> str:
    if claim.errno in (errno.EROFS, errno.EACCES) or "attempt to write a readonly database" in text:
        return paths.refused_hint(text, seen)
    if claim.errno == errno.ENOENT or claim.type in ("OSError", "FileNotFoundError", "OperationalError"):
        return paths.absent_hint(text, claim.source, seen)
    return ""


def _of_errnos(claim: Claim, text: str, _: Seen) -> str:
    if claim.type == "EOFError" and text.startswith("EOF when reading a line"):
        return NO_STDIN
    if _TERMINAL.search(text) or _OPENS_TERMINAL.search(claim.source):
        return paths.NO_TERMINAL
    if _SCREEN.search(text):
        return NO_SCREEN
    return _ERRNOS.get(claim.errno, "") if claim.errno is not None else ""


_ERRNOS = {
    errno.EMFILE: "close what is no longer used, or raise ISORUN_MAX_OPEN_FILES",
    errno.EXDEV: paths.ELSEWHERE,
    errno.EISDIR: "that path is a folder: name a file in it, or leave folders out with os.path.isfile",
    errno.EEXIST: "that path is there already: make folders with exist_ok=True, or take another name",
}
_BY_CLAIM: tuple[Callable[[Claim, str, Seen], str], ...] = (
    _of_form,
    _of_loops,
    _of_coroutines,
    _of_modules,
    _of_network,
    _of_names,
    _of_files,
    _of_errnos,
)


def forgotten_awaits(stderr: str) -> tuple[str, ...]:
    """What to say of tools that were called and not awaited; Python warns of each on stderr."""
    found = dict.fromkeys(_NOT_AWAITED.findall(stderr[-MAX_TEXT:]))
    return tuple(
        f"{tool} was called without await, so nothing was done: write `await {tool}(...)`, or `{tool}.sync(...)` in a "
        "plain function or lambda"
        for tool in found
    )


def missing_glyphs(stderr: str) -> tuple[str, ...]:
    """What to say of a picture whose text cannot be read; matplotlib warns of each character on stderr."""
    return (NO_GLYPHS,) if _GLYPHS.search(stderr[-MAX_TEXT:]) else ()


def waited_hint(stderr: str, seen: Seen) -> str:
    """For a program that may have spent its time on what cannot succeed."""
    text = stderr[-MAX_TEXT:]
    if _is_install(text):
        return _no_install("")
    return _no_network(seen.tools) if _NETWORK.search(text) else ""


def tail_hint(printed: str, seen: Seen) -> str:
    """For a program that caught the error and went on, or left it to a child."""
    text = printed[-MAX_TEXT:]
    if hint := waited_hint(text, seen):
        return hint
    if (line := _NO_FILE_LINE.search(text)) and (hint := paths.absent_hint(line[0], "", seen)):
        return hint
    if module := _MODULE_LINE.search(text):
        return _missing_module(module[1], "", seen)
    if any(f"RuntimeError: {loop}" in text for loop in _IN_LOOP):
        return AWAIT_MAIN
    if _SHARED_MEMORY.search(text):
        return NO_SHARED_MEMORY
    if refused := _READ_ONLY.search(text):
        return paths.refused_hint(refused[0], seen)
    if "[Errno 18]" in text:
        return paths.ELSEWHERE
    if "EOFError: EOF when reading a line" in text:
        return NO_STDIN
    return next(iter(forgotten_awaits(text)), "")


def _no_network(tools: Collection[str]) -> str:
    offered = [name for name in NETWORK_TOOLS if name in tools]
    return f"the program has no network: use {' and '.join(offered)} instead" if offered else NO_NETWORK


def _is_install(text: str) -> bool:
    """Whether *text* is of an installer that failed, or of the command that started one."""
    return bool(_INSTALL.search(text) or ("exit status" in text and _INSTALLING.search(text)))


def _no_install(packages: str) -> str:
    there = set(packages.split())
    names = [name for name in COMMON if name in there]
    there_are = f" ({', '.join(names)})" if names else ""
    return f"{NO_INSTALL}: use what is there{there_are}"


def _missing_module(name: str, packages: str, seen: Seen) -> str:
    top = name.partition(".")[0]
    if top in _NOTEBOOK_MODULES:
        return NO_NOTEBOOK
    if top in _NETWORK_MODULES:
        return _no_network(seen.tools)
    if top in packages.split() and top != name:
        return f"{top} is installed, and its version has no module {name}"
    ours = (given for given in seen.given if basename(given) == f"{top}.py" and dirname(given))
    if (given := next(ours, None)) is not None:
        return f"{one_line(given)} is in {WORK}: write sys.path.append({dirname(f'{WORK}/{one_line(given)}')!r}) first"
    return f"the module {name} is missing, and {_no_install(packages)}"
