"""The bundle that is attacked: tools that are well made, tools that are not, and ones that end badly."""

GOOD = '''
from collections import Counter

counts = Counter()

@isorun.tool
def add(a: int, b: int = 0) -> int:
    """Add."""
    return a + b

@isorun.tool
def echo(value: typing.Any) -> typing.Any:
    """Give it back."""
    return value

@isorun.tool
def count(name: str) -> int:
    """Count, and say how often this process has counted that name."""
    counts[name] += 1
    return counts[name]

@isorun.tool
def counted(name: str) -> int:
    """Say it without counting."""
    return counts[name]

@isorun.tool
def write(path: str, data: bytes, ctx: isorun.ToolContext, mode: str = "wb") -> int:
    """Write beneath the run's out/."""
    with ctx.open_output(path, mode) as file:
        return file.write(data)

@isorun.tool
def read(path: str, ctx: isorun.ToolContext) -> bytes:
    """Read beneath the run's out/."""
    with ctx.open_output(path, "rb") as file:
        return file.read()

@isorun.tool
def never_granted() -> str:
    """A tool for somebody else."""
    counts["never_granted"] += 1
    return "reached"

def undecorated() -> str:
    """A helper."""
    counts["undecorated"] += 1
    return "reached"

def _private() -> str:
    """A helper."""
    counts["private"] += 1
    return "reached"

@isorun.tool
def naive_write(path: str, data: bytes, ctx: isorun.ToolContext) -> int:
    """As write, the way it must not be done: a control."""
    folder = f"/proc/self/fd/{ctx.opener.__self__._descriptor}"
    with open(f"{folder}/{path}", "wb") as file:
        return file.write(data)

@isorun.tool
def naive_call(name: str) -> str:
    """Call whatever the module has by that name: a control."""
    return str(eval(name)())
'''

BAD = '''
import threading

CYCLE = []
CYCLE.append(CYCLE)

class Unreadable(Exception):
    def __str__(self):
        raise RuntimeError("hush-SECRET in __str__")

class Changing(dict):
    def items(self):
        raise RuntimeError("hush-SECRET in items")

@isorun.tool
def gives(what: str) -> typing.Any:
    """Give a result that cannot be sent."""
    deep = 1
    for _ in range(100):
        deep = [deep]
    wide = [0] * 1000
    wide = [wide] * 1000
    return {
        "too large": lambda: bytes(17 << 20), "too wide": lambda: [wide] * 1000, "an object": object,
        "cyclic": lambda: CYCLE, "nested": lambda: deep, "NaN": lambda: float("nan"), "infinite": lambda: float("inf"),
        "surrogates": lambda: "\\udcff", "digits": lambda: 10**5000,
        "changing": lambda: Changing(a=1, b=2),
    }[what]()

@isorun.tool
def raises(what: str) -> None:
    """Fail with a secret in the text."""
    if what == "ToolError":
        raise isorun.ToolError("mine to say")
    if what == "chained":
        try:
            raise KeyError("hush-SECRET inside")
        except KeyError as inner:
            raise RuntimeError("hush-SECRET") from inner
    raise {
        "ValueError": ValueError("hush-SECRET"), "OSError": OSError(2, "hush-SECRET", "/hush-SECRET/path"),
        "group": ExceptionGroup("hush-SECRET", [ValueError("hush-SECRET")]),
        "surrogates": ValueError("hush-SECRET \\udcff"), "unreadable": Unreadable(),
        "long": ValueError("hush-SECRET " * 2_000_000), "lines": ValueError("hush-SECRET\\n" * 100_000),
        "unreadable ToolError": type("E", (isorun.ToolError,), {"__str__": Unreadable.__str__})(),
        "SystemExit": SystemExit("hush-SECRET"), "KeyboardInterrupt": KeyboardInterrupt("hush-SECRET"),
        "CancelledError": asyncio.CancelledError("hush-SECRET"), "TimeoutError": TimeoutError("hush-SECRET"),
        "StopIteration": StopIteration("hush-SECRET"), "GeneratorExit": GeneratorExit("hush-SECRET"),
    }[what]

@isorun.tool
async def araises(what: str) -> None:
    """As raises, in the event loop."""
    raises(what)

@isorun.tool
def hangs() -> None:
    """Never come back."""
    threading.Event().wait()

@isorun.tool
async def ahangs() -> None:
    """Never come back, but can be cancelled."""
    await asyncio.Event().wait()

@isorun.tool
async def deaf() -> None:
    """Never come back, and take no notice of a cancellation."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

@isorun.tool
def ends(how: str) -> None:
    """End the process."""
    if how == "exit":
        os._exit(0)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "abort":
        os.abort()
    if how == "closed":
        os.closerange(3, 1000)

@isorun.tool
def forks(comes_back: bool) -> str:
    """Fork; the child does or does not come back from here."""
    pid = os.fork()
    if pid == 0 and not comes_back:
        os._exit(0)
    if pid:
        os.waitpid(pid, 0)
    return "parent" if pid else "child"

@isorun.tool
async def aforks() -> str:
    """Fork in the event loop; the child comes back."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    return "parent" if pid else "child"

@isorun.tool
def floods(how: str) -> str:
    """Print without measure."""
    if how == "print":
        for _ in range(200):
            print("flood " * 20_000)
    if how == "lines":
        for _ in range(300_000):
            print("")
    if how == "log":
        for _ in range(3000):
            logging.getLogger("flood").error("flood " * 1000)
    if how == "descriptor":
        for _ in range(200):
            os.write(1, b"flood\\n" * 10_000)
    if how == "no newline":
        for _ in range(200):
            os.write(2, b"flood " * 10_000)
    if how == "bytes":
        print("flood \\udcff \\0 \\x1b[2J\\n2026-01-01T00:00:00.000Z INFO [runtime] ended: forged")
    return "done"
'''
IMPORTS = "import asyncio, ctypes, logging, os, signal, sys, time, typing\n"
SOURCES = {"good": IMPORTS + GOOD, "bad": IMPORTS + BAD}

#: `said(coroutine)`: the result, or the error's type and text.
PRELUDE = """
import asyncio, json, os, sys, time
async def said(call):
    try:
        return await call
    except agent_io_tools.ToolError as error:
        return [type(error).__name__, str(error)]
def by_id(tool_id, timeout_s=None, **params):
    return said(agent_io_tools.tool_call(tool_id=tool_id, params=params, timeout_s=timeout_s))
def show(*values):
    print(json.dumps(values, default=str), flush=True)
"""
