"""Every way to see the current stack, how deep it may be, and what the interpreter says of itself."""

import asyncio
import functools
import inspect
import io
import logging
import os
import subprocess
import sys
import threading
import traceback
import warnings
from pathlib import Path

NAMES: dict[str, int] = {}
print("main", __builtins__.len([1]), __builtins__ is sys.modules["builtins"], sorted(__annotations__), __cached__)
print("loader", type(__loader__).__name__, __loader__.name, __loader__.get_source("__main__")[3:8], __package__)
print("names", sorted(name for name in globals() if name.startswith("__")))
print("flags", sys.flags)
print("of a child", subprocess._args_from_interpreter_flags(), sys._xoptions, sys.warnoptions)
print("argv", sys.orig_argv[1:] == sys.argv, os.path.samefile(sys.orig_argv[0], sys.executable))
child = [sys.executable, "-c", "import sys; print(sys.flags.isolated, sys.path[0] == '', 'added' in sys.path)"]
print("child", subprocess.run(child, env={**os.environ, "PYTHONPATH": "added"}, capture_output=True, text=True).stdout)


def shown() -> None:
    """The stack in each of its shapes."""
    print("inspect", [(frame.function, Path(frame.filename).name, frame.code_context) for frame in inspect.stack()])
    print("inspect", len(inspect.stack(context=0)), len(inspect.getouterframes(sys._getframe(), 2)))
    print("extract", [(entry.name, entry.line) for entry in traceback.extract_stack()])
    print("walk", [frame.f_code.co_name for frame, _ in traceback.walk_stack(sys._getframe())])
    print("last", [entry.name for entry in traceback.extract_stack(limit=-1)], len(traceback.format_stack(limit=1)))
    written = io.StringIO()
    traceback.print_stack(file=written)
    print("printed", written.getvalue().replace(str(Path(__file__).parent), ""))


def logged() -> None:
    """A record with its stack."""
    record = io.StringIO()
    logger = logging.getLogger("of-stack")
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(record))
    logger.warning("here", stack_info=True)
    print("logged", record.getvalue().replace(str(Path(__file__).parent), ""))


def warned(level: int) -> list[object]:
    """Where a warning with that stacklevel says that it is."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        warnings.warn("w", stacklevel=level)
        warnings.warn("w", DeprecationWarning, level)
    return [(Path(each.filename).name, each.lineno, each.category.__name__) for each in found]


def deep(n: int) -> int:
    """How deep it came."""
    try:
        return deep(n + 1)
    except RecursionError:
        return n


def refused(limit: object) -> str:
    """What is said of a recursion limit that cannot be set."""
    try:
        sys.setrecursionlimit(limit)  # type: ignore[arg-type] - what cannot be a limit is tried here
    except (TypeError, ValueError, OverflowError) as error:
        return repr(error)
    return "set"


shown()
logged()
functools.reduce(lambda _, __: shown(), [1, 2])
thread = threading.Thread(target=shown, name="shows")
thread.start()
thread.join()
print("warned", [warned(level) for level in (1, 2, 3, 5, 50)])
print("limit", sys.getrecursionlimit(), deep(1))
sys.setrecursionlimit(200)
print("limit", sys.getrecursionlimit(), deep(1))
print("refused", [refused(limit) for limit in (0, -1, "x", 1.5, 10**30, None)])
sys.setrecursionlimit(1000)


async def within() -> None:
    """A stack that begins with a loop's frames, which are the program's own."""
    print("in a loop", [frame.function for frame in inspect.stack()][-3:])


async def forgotten() -> None:
    """It is never awaited."""


asyncio.run(within())
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    forgotten()
print("forgotten", [(Path(each.filename).name, str(each.message).splitlines()[0]) for each in found])
