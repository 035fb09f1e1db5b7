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
from isorun.runtime.hints.formats import format_hint
from isorun.runtime.hints.seen import MAX_TEXT, WORK, Seen

NO_NETWORK = "the program has no network: give it what it needs with --input (inputs=)"
NETWORK_TOOLS = ("generic_tools.web_search", "generic_tools.fetch_url_contents", "generic_tools.web_fetch")
AWAIT_MAIN = "the program has a top-level await, so a loop is running already: use `await main()`"
NO_SHARED_MEMORY = (
    "shared memory without a file is refused on a host without a control group: use multiprocessing.shared_memory, "
    "a file in /dev/shm, or flags=mmap.MAP_PRIVATE"
)
NO_STDIN = "stdin is at its end: write the values into the program, or give them with --stdin (stdin=)"
NO_SCREEN = "a program has no screen: draw with matplotlib, and keep the figure with savefig"
NO_VARIABLE = "a program has none of the host's variables: a tool may have the secret that the program lacks"

_NETWORK = re.compile(
    r"Address family (?:for hostname )?not supported|socket\.gaierror|Network is unreachable|No route to host"
    r"|[Nn]ame resolution|Name or service not known|No address associated with hostname|Failed to resolve '"
    r"|<urlopen error \[Errno (?:-[0-9]{1,2}|97|99|101|111|113)\]|HF_HUB_OFFLINE|offline mode is enabled"
    r"|[Cc]ould not resolve host|unable to resolve host"
)
# The last is how asyncio says that no family of an address was there.
_NO_FAMILY = re.compile(r"Address family not supported|\[Errno 97\]|could not bind on any address out of")
_NETWORK_ERRNOS = (errno.EAFNOSUPPORT, errno.ENETUNREACH, errno.EHOSTUNREACH)  # the last is gVisor's
# In the traceback of a program that would be a server.
_SERVER = re.compile(r"Server\(|create_server|\.bind\(")
# In a program that would start a server; and addresses that mean this very machine. A program may have a MiB: each is
# looked for by its fixed first characters, which is quick; what stands before them is asked about afterwards.
_SERVES = tuple(
    map(
        re.compile,
        (
            *("Server", "server", "uvicorn", "gunicorn", r"\.bind\(", r"\.listen\("),
            *(r"serve\b(?<=\bserve)", r"app\.run\((?<=\bapp\.run\()"),
        ),
    )
)
_OWN_ADDRESS = tuple(
    map(
        re.compile,
        (
            r"localhost\b(?<=\blocalhost)",
            r"127\.(?<=\b127\.)[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\b",
            r"::1(?![0-9A-Fa-f:])(?<![0-9A-Fa-f:]::1)",
        ),
    )
)
NO_SERVER = (
    "the program has no loopback either, so no server can listen: call the handler directly, "
    'use a Unix socket (socket.AF_UNIX), or have the caller turn loopback on: --loopback (network="loopback")'
)
NONE_LISTENS = (
    "no server listens there: the program reaches only servers that it starts itself, so start one first, wait until "
    "it listens, and take the port that it got"
)
_REFUSED = re.compile(r"Connection refused|\[Errno 111\]")
_NETWORK_MODULES = (
    *("requests", "httpx", "aiohttp", "urllib3", "boto3", "openai", "anthropic", "yfinance", "websockets", "google"),
    *("fsspec", "s3fs", "gcsfs", "playwright", "selenium", "scrapy", "wikipedia", "kaggle", "gdown", "paramiko"),
)
# A command that can only fail without a network; of some, the words that make it one.
_FETCHING = re.compile(
    r"^Command [\['\" ]{0,4}(?:curl|wget|ssh|scp|rsync|gsutil|aws|gcloud|git[', ]{1,4}(?:clone|pull|fetch|push))\b"
)
_ASKING = re.compile(
    r"^Command [\['\" ]{0,4}(?:free|top|vmstat|lscpu|uptime|lsblk|nvidia-smi|dmesg|sysctl|systemctl)\b"
)
_SIGNAL = re.compile(r"\bSIG[A-Z]{2,8}\b")
_NOTEBOOK_MODULES = ("IPython", "ipywidgets", "notebook")
_NOTEBOOK_NAMES = ("display", "get_ipython", "HTML")
_PAGE_MODULES = ("streamlit", "gradio", "dash", "flask", "fastapi", "uvicorn", "django", "nicegui")
_PAGE = re.compile(
    r"\bst\.(?:write|title|header|markdown|dataframe|table|pyplot|plotly_chart|set_page_config|sidebar)\b"
)
NO_PAGE = (
    "nothing can be served from a run: write the page, table or figure to a file in OUTPUT_DIR (.html, .csv, .png)"
)
LOST_WORKER = "a worker of the pool is gone, and the kernel killed no process of the run for memory: the worker"
NO_LOCALE = "the sandbox has no such locale: write numbers as f'{x:,.2f}', and names of days and months yourself"
NO_ZONE = "that time zone does not exist: zoneinfo.available_timezones() has the names"
NO_FONT = "the sandbox has no such font: use PIL.ImageFont.load_default(size=20)"
NO_ARGUMENTS = (
    "no argument is there by itself: give the program its arguments with argv= (in a shell behind --), or let it have "
    "a default for each"
)
NO_PARENT = "the program is in no package: import the module by its name alone; given files are beside the program"
NO_MACHINE = "the sandbox shows nothing of the machine: do without that command"
NO_CONTAINERS = "a program cannot start containers: do it in this program itself"
REFUSED_CALL = "the sandbox does not allow that call: do without it"
_USUAL = {
    "np": "import numpy as np",
    "pd": "import pandas as pd",
    "plt": "import matplotlib.pyplot as plt",
    "sns": "import seaborn as sns",
}
_INSTALL = re.compile(
    r"No matching distribution found for|Could not find a version that satisfies"
    r"|^[^\n]{0,200}: No module named pip$"
    r"|^E: (?:Unable to locate package|Could not open lock file|List directory /var/lib/apt)"
    r"|was not found in the (?:cache|package registry)|[Nn]etwork connectivity is disabled",
    re.MULTILINE,
)
_INSTALLING = re.compile(
    r"\b(?:pip3?|uv|conda|mamba|poetry|apt|apt-get|aptitude|dnf|yum|apk|brew|npm|pnpm|yarn)\b"
    r"[^\n]{1,100}\b(?:install|add|update|upgrade)\b"
)
_MODULE = re.compile(
    r"(?:No module named|Missing optional dependency|[^\n]{0,60}\btried using:) '([\w.]{1,100})'"
    r"|`Import ([\w.-]{1,100})` failed"
)
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
_SCREEN = re.compile(
    r"no display name and no \$DISPLAY|could not connect to display|[Cc]annot open display|Cannot load backend '"
    r"|The function is not implemented\. Rebuild the library with Windows|No available video device"
)
_SCREEN_MODULES = ("tkinter", "_tkinter", "turtle", "pygame", "PyQt5", "PyQt6", "PySide6")
_DOCKER = re.compile(
    r"[Cc]annot connect to the Docker daemon|[Ff]ailed to connect to the docker API|docker daemon socket"
)
_ABSENT_COMMAND = re.compile(
    r"exit status 127\b|^[^\n]{0,200}sh: (?:line )?[0-9]{1,5}: [^\n]{1,200}: (?:command )?not found$", re.MULTILINE
)
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
    if claim.type in ("ModuleNotFoundError", "ImportError"):
        if module := _MODULE.match(text):
            return _missing_module(module[1] or module[2], claim, seen)
        if text.startswith("attempted relative import with no known parent"):
            return NO_PARENT
    return _no_install(claim.packages) if _is_install(text) else ""


def _of_commands(claim: Claim, text: str, seen: Seen) -> str:
    if claim.type != "CalledProcessError":
        return ""
    if _ABSENT_COMMAND.search(text):
        return paths.NO_COMMAND
    if _DOCKER.search(seen.stderr[-MAX_TEXT:]):
        return NO_CONTAINERS
    if _ASKING.match(text):
        return NO_MACHINE
    return _no_network(seen.tools) if _FETCHING.match(text) else ""


def _of_network(claim: Claim, text: str, seen: Seen) -> str:
    if claim.type == "gaierror":
        return _no_network(seen.tools)
    if seen.loopback and claim.errno == errno.ECONNREFUSED:
        return NONE_LISTENS
    if claim.errno == errno.EAFNOSUPPORT and _is_for_itself(seen):
        return NO_SERVER
    if claim.type == "IndexError" and ".sockets[" in claim.source and not seen.loopback:
        return NO_SERVER  # of asyncio, which says nothing where no family is there
    return _network_hint(text, seen) or (_no_network(seen.tools) if claim.errno in _NETWORK_ERRNOS else "")


def _network_hint(text: str, seen: Seen) -> str:
    """For a *text* that speaks of a network."""
    if seen.loopback and _REFUSED.search(text):
        return NONE_LISTENS
    if _NO_FAMILY.search(text) and _is_for_itself(seen):
        return NO_SERVER
    return _no_network(seen.tools) if _NETWORK.search(text) else ""


def _of_workers(claim: Claim, text: str, seen: Seen) -> str:
    """Of a pool whose worker is gone: of joblib, or of concurrent.futures. Who was killed for memory is counted."""
    if claim.type not in ("TerminatedWorkerError", "BrokenProcessPool"):
        return ""
    if seen.exit is not None and seen.exit.oom_kills:
        return ""  # `met` tells of it
    by = _SIGNAL.search(text)
    how = f"was ended by {by[0]}" if by else "ended by itself, or crashed"
    return f"{LOST_WORKER} {how}: do its task without the pool (n_jobs=1) to see where"


def _of_arguments(claim: Claim, _: str, __: Seen) -> str:
    return NO_ARGUMENTS if claim.type == "IndexError" and "sys.argv[" in claim.source else ""


def _of_names(claim: Claim, text: str, _: Seen) -> str:
    if claim.type == "KeyError" and claim.source in _OF_ENVIRON and _VARIABLE.match(text):
        return NO_VARIABLE
    found = _NAME.match(text) if claim.type == "NameError" else None
    if found is None:
        return ""
    name = found[1]
    if name in _NOTEBOOK_NAMES:
        return NO_NOTEBOOK
    if name == "st" and _PAGE.search(claim.source):
        return NO_PAGE
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
    if claim.type == "EOFError" and (text.startswith("EOF when reading a line") or claim.source == "raise EOFError"):
        return NO_STDIN  # of input(), and of getpass
    if claim.type == "ZoneInfoNotFoundError":
        return NO_ZONE
    if (claim.type, text) == ("Error", "unsupported locale setting"):
        return NO_LOCALE
    if (claim.type, text) == ("OSError", "cannot open resource"):  # of Pillow
        return NO_FONT
    if _TERMINAL.search(text) or _OPENS_TERMINAL.search(claim.source):
        return paths.NO_TERMINAL
    if _SCREEN.search(text):
        return NO_SCREEN
    return _ERRNOS.get(claim.errno, "") if claim.errno is not None else ""


_ERRNOS = {
    errno.EPERM: REFUSED_CALL,
    errno.ENOSYS: REFUSED_CALL,
    errno.EMFILE: "close what is no longer used, or raise ISORUN_MAX_OPEN_FILES",
    errno.EXDEV: paths.ELSEWHERE,
    errno.EISDIR: "that path is a folder: name a file in it, or leave folders out with os.path.isfile",
    errno.EEXIST: "that path is there already: make folders with exist_ok=True, or take another name",
}
_BY_CLAIM: tuple[Callable[[Claim, str, Seen], str], ...] = (
    _of_form,
    _of_workers,
    _of_loops,
    _of_coroutines,
    _of_modules,
    _of_network,
    _of_commands,
    _of_arguments,
    _of_names,
    format_hint,
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


def waited_hint(stderr: str, seen: Seen) -> str:
    """For a program that may have spent its time on what cannot succeed."""
    text = stderr[-MAX_TEXT:]
    if _is_install(text):
        return _no_install("")
    return _network_hint(text, seen)


def tail_hint(printed: str, seen: Seen) -> str:
    """For a program that caught the error and went on, or left it to a child."""
    text = printed[-MAX_TEXT:]
    if hint := waited_hint(text, seen):
        return hint
    if (line := _NO_FILE_LINE.search(text)) and (hint := paths.absent_hint(line[0], "", seen)):
        return hint
    if module := _MODULE_LINE.search(text):
        return _missing_module(module[1] or module[2], Claim(type=""), seen)
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
    if "error: the following arguments are required" in text:
        return NO_ARGUMENTS
    return next(iter(forgotten_awaits(text)), "")


def _is_for_itself(seen: Seen) -> bool:
    """Whether the program would be a server, or reach its own. A client alone is not helped by loopback."""
    if seen.loopback:
        return False
    if _SERVER.search(seen.stderr[-MAX_TEXT:]):
        return True
    return is_own_server(seen.program)


def is_own_server(program: str) -> bool:
    """Whether *program* speaks of a server, and of an address of this very machine."""
    return all(any(one.search(program) for one in words) for words in (_SERVES, _OWN_ADDRESS))


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


def _missing_module(name: str, claim: Claim, seen: Seen) -> str:
    top, packages = name.partition(".")[0], claim.packages
    if top in _NOTEBOOK_MODULES or (top == "google" and "colab" in f"{name} {claim.source}"):
        return NO_NOTEBOOK
    if top in _SCREEN_MODULES:
        return NO_SCREEN
    if top in _PAGE_MODULES:
        return NO_PAGE
    if top in _NETWORK_MODULES:
        return _no_network(seen.tools)
    if top in packages.split() and top != name:
        return f"{top} is installed, and its version has no module {name}"
    ours = (given for given in seen.given if basename(given) == f"{top}.py" and dirname(given))
    if (given := next(ours, None)) is not None:
        return f"{one_line(given)} is in {WORK}: write sys.path.append({dirname(f'{WORK}/{one_line(given)}')!r}) first"
    return f"the module {name} is missing, and {_no_install(packages)}"
