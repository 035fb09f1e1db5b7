"""What a program is to itself: __main__, its file, siblings, tracebacks, streams, and its last moments."""

# ruff: noqa: SIM115 - a file that is never closed is tried here
import atexit
import importlib
import inspect
import io
import os
import pickle
import runpy
import sys
import traceback
import weakref
from pathlib import Path

here = Path(__file__).parent
print("main", __name__, __spec__, Path(__file__).name, sys.argv == [__file__], sys.path[0] == str(here))
print("module", sys.modules["__main__"].__dict__ is globals(), __doc__ == inspect.cleandoc(__doc__ or ""))


class Thing:
    """Found again by name."""

    def method(self) -> str:
        return inspect.stack()[0].function


print("pickle", type(pickle.loads(pickle.dumps(Thing()))) is Thing, Thing.__module__, Thing().method())
print("source", inspect.getsource(Thing).splitlines()[0], inspect.getsourcefile(Thing) == __file__)
(here / "sibling.py").write_text("VALUE = 41\ndef add(n): return VALUE + n\nprint('imported', __name__)\n")
sibling = importlib.import_module("sibling")
print("sibling", sibling.add(1), Path(sibling.__file__ or "").parent == here)
(here / "sibling.py").write_text("VALUE = 42000\ndef add(n): return VALUE + n\n")
print("reloaded", importlib.reload(sibling).add(1))
print("runpy", runpy.run_path(str(here / "sibling.py"), run_name="other")["VALUE"])


def deep(n: int) -> int:
    return 0 if n == 0 else 1 + deep(n - 1)


print("recursion", sys.getrecursionlimit() >= 1000, deep(900))
try:
    deep(10**6)
except RecursionError as error:
    print("RecursionError", len(traceback.extract_tb(error.__traceback__)) > 900)
try:
    exec(compile("1 +* 2", "<made>", "exec"))
except SyntaxError as error:
    print("SyntaxError", error.msg, error.lineno, error.offset)

print("stdin", repr(sys.stdin.read()), sys.stdin.isatty(), sys.stdin.encoding)
print("stdout", sys.stdout.fileno(), sys.stdout.isatty(), sys.stdout.errors, sys.stdout.name, sys.stdout.mode)
sys.stdout.flush()
sys.stdout.buffer.write("büffer\n".encode())
sys.stdout.flush()
os.write(1, b"by descriptor\n")
print("to stderr: ü", file=sys.stderr, flush=True)
print("a file name that is not text:", os.fsdecode(b"\xff"))
try:
    print("\ud800")
except UnicodeEncodeError as error:
    print("surrogate", error.reason)
saved, sys.stdout = sys.stdout, io.StringIO()
print("captured")
captured, sys.stdout = sys.stdout, saved
print("redirected", repr(captured.getvalue()))
print("flags", sys.flags.optimize, sys.dont_write_bytecode, sys.flags.utf8_mode, sys.prefix != "")
print(
    "hooks",
    sys.excepthook is sys.__excepthook__,
    sys.stdout is sys.__stdout__,
    sys.gettrace(),
    sys.getprofile(),
)
print("python", os.path.samefile(sys.executable, sys.executable), sys.version_info[:2] >= (3, 11))

unflushed = open(os.path.join(os.environ["OUTPUT_DIR"], "unflushed.txt"), "w")
unflushed.write("written, never flushed or closed")
atexit.register(print, "atexit: first registered, last called")
atexit.register(print, "atexit: second")
kept = Thing()
weakref.finalize(kept, print, "finalised at exit")
raise ValueError("the last line raises: ü")
