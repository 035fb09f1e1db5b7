"""Runs a program the way `python user_code.py` would, plus the names it was promised.

`work/main.py` is the text in `rules.MAIN`; it calls `execute`, which compiles user_code.py,
runs it as `__main__`, reports an uncaught exception and leaves as the interpreter
would: threads joined, atexit run, files flushed, the exit code or the signal. What
does not depend on the program is done by `Loader()` when the slot is built. The
process ends by `os._exit`: tearing down a preloaded interpreter would cost every
run tens of milliseconds and free nothing.

The module is long because what is done before, around and behind a program is one sequence, in one process.
"""

import asyncio
import atexit
import builtins
import faulthandler
import functools
import gc
import io
import linecache
import logging
import os
import signal
import sys
import threading
import time
import types
import warnings
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from traceback import walk_tb
from typing import Any

from isorun.core.sent.claim import COMMON, Claim
from isorun.core.sent.context import RunContext
from isorun.executor import names, output, rules, stack
from isorun.executor.calls import agent_io_tools
from isorun.executor.calls.tool_stream import ToolStream
from isorun.executor.shown import figures, tmp, value
from isorun.executor.surroundings import USUAL, USUAL_TOOLS, Surroundings
from isorun.wire.messages import Ended, Go, Put, encode

_OURS = os.path.join(os.path.dirname(__file__), "")
# As every exception and class has them, whatever the program's own put in their place.
_traceback_of = BaseException.__dict__["__traceback__"].__get__
_name_of = type.__dict__["__name__"].__get__
_EXCERPT = 4096  # characters of an exception's text that the host is told; stderr has all of it
_python_format = getattr(warnings, "_formatwarnmsg_impl", None)  # of CPython; the public one drops what allocated
_TRACE_ROOM = 8192  # bytes: a stack of some hundred lines
_LINES = 10_000_000  # more than a program can have
_TRIAL = ".isorun-rehearsal"  # in work/, while a slot is built
_SOURCE = 200  # characters of the line that raised: enough to see what was called


#: What is sent to a slot as its program will be, for `Loader.rehearse`: the way most programs take.
REHEARSAL = encode(Put(path=f"work/{_TRIAL}", data=b"import os\nos.sep and None\n", append=False, mode=0o644)) + encode(
    Go(
        argv=[],
        env={},
        context=RunContext(
            exec_id="",
            turn="",
            contract=[],
            directories=[""],
            log_mode=USUAL[0],
            traceback_remap=USUAL[1],
            keep_value=True,
            save_figures=USUAL[2],
            frame_bytes=0,
            frame_values=0,
            cpus=1,
            stdin=False,
            given=[],
            tools=USUAL_TOOLS,
            about={},
        ),
    )
)


class Program:
    """The one program of this process: what `execute` needs to know of it."""

    def __init__(self, path: str, tools: ToolStream) -> None:
        self.path = path
        self.below = 0  # frames of ours under its first one; 0 until that is known
        self.tools = tools
        self.remap = True
        self.keep_value = False
        self.figures: figures.Figures | None = None
        self.namespace: dict[str, Any] = {}
        self.code = 0
        self.pid = os.getpid()
        self.claim: Claim | None = None  # of the exception that ended it; said last, since nothing may follow it


_current: list[Program] = []  # set once, before main.py runs


class Loader:
    """Everything about a program that can be done before it is known.

    Made once, by the zygote; each slot has a copy, calls `enter` when it stands, and `run` once.
    """

    def __init__(self, work: str, out: str, sys_path: list[str], environ: Mapping[str, str]) -> None:
        self._work, self._out = work, out
        os.environ.clear()  # a preload may have added to it
        os.environ.update(environ, OUTPUT_DIR=out)
        sys.path[:] = [work, out, *sys_path]  # elsewhere a program stands in its working directory
        output.open_streams()
        output.log_user_to_stderr()
        if _python_format is not None:
            warnings._formatwarnmsg_impl = _format_warning  # type: ignore[attr-defined]  # as above
        self._names = names.base(out)
        self._main = os.path.join(work, rules.LOADER)
        self._main_code = compile(rules.MAIN, self._main, "exec")
        views = stack.Views((_execute.__code__, _awaited.__code__), self._is_ours)
        self._around = Surroundings(views, out, os.path.join(work, rules.FIGURES))

    def _is_ours(self, filename: str) -> bool:
        return filename.startswith(_OURS) or filename == self._main

    def prepare(self) -> None:
        """All that depends neither on the program nor on its slot; the numbers of the slot's descriptors are known.

        Never in a pid 1 that programs see: SIGTERM gets a handler here, and by that reaches even it.
        """
        self._tools = agent_io_tools.prepare(rules.TOOLS)
        self._around.make(USUAL, self._tools)
        self._tell_cpus = _count_cpus()
        faulthandler.register(signal.SIGTERM, file=rules.TRACE, all_threads=False, chain=True)

    def enter(self) -> None:
        """What needs the slot's own descriptors and files."""
        _open_trace(os.path.join(self._work, rules.LAST_TRACE))
        agent_io_tools.keep_from_children()
        os.register_at_fork(after_in_child=_leave_trace)
        with open(self._main, "wb", buffering=0) as file:
            file.write(rules.MAIN)

    def rehearse(self, go: Go) -> None:
        """Do once all that `run` does, for the program of `REHEARSAL`, which is our own; nothing of it stays.

        After a fork each page is copied when it is first written to, and counting references writes. So what runs
        for the first time costs ten times what it costs later. This moves that from each run to the making of its slot.
        Called from where `run` will be called: the depth of the stack is that of the program, too.
        """
        agent_io_tools.rehearse()
        trial = self._made(os.path.join(self._work, _TRIAL))
        self._start(trial, go)
        _rehearse_the_end(trial)
        os.unlink(trial.path)
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(self._work, rules.LEFT))
        below = trial.below
        self._around.stand_on(below)
        del trial
        gc.collect()
        gc.freeze()  # what is looked through at the end is the program's; its module is made behind this
        self._made(os.path.join(self._work, rules.PROGRAM)).below = below

    def _made(self, path: str) -> "Program":
        """The current program, which is at *path*: with its module, as far as that does not depend on the run."""
        program = Program(path, self._tools)
        module = types.ModuleType("__main__")
        program.namespace = module.__dict__
        # The names of the run are put in later; their places are kept, so that `globals()` has always one order.
        program.namespace.update(self._names, **dict.fromkeys(names.OF_RUN), **self._around.tools)
        program.namespace.update(_of_a_script(path))
        sys.modules["__main__"] = module
        _current[:] = [program]
        return program

    def run(self, go: Go) -> int:
        """Run the program of *go* and return its exit code (a death by signal does not return)."""
        (program,) = _current
        self._start(program, go)
        return _leave(program)

    def _start(self, program: "Program", go: Go) -> None:
        context = go.context
        self._enter_environment(go.env, context)
        self._tools.max_frame = context.frame_bytes
        self._tools.max_values = context.frame_values
        program.remap = context.traceback_remap
        program.keep_value = context.keep_value
        if self._around.suit(context, self._tools):
            for alias in USUAL_TOOLS:
                program.namespace.pop(alias, None)
            program.namespace.update(self._around.tools)
        program.figures = self._around.figures
        if program.figures:
            program.figures.pid = program.pid
        program.namespace.update(names.of_run(context))
        sys.argv = [program.path, *go.argv]
        sys.orig_argv = [sys.executable, *sys.argv]
        exec(self._main_code, {"__name__": "isorun_main", "__file__": self._main})  # noqa: S102 - the text is our own

    def _enter_environment(self, env: Mapping[str, str], context: RunContext) -> None:
        if env:
            os.environ.update(env)
        if "TZ" in env:
            time.tzset()  # the C library has read the zone already
        self._tell_cpus(context.cpus)
        if context.stdin:
            _open_stdin(os.path.join(self._work, rules.STDIN_FILE))
        for name in context.given:
            os.symlink(os.path.join(self._out, name), os.path.join(self._work, name))
        for directory in context.directories:
            os.makedirs(os.path.join(self._out, directory), exist_ok=True)
        os.chdir(self._out)


def _count_cpus() -> Callable[[int], None]:
    """Let pools be as large as the run's share of the processors is, not as the machine; what is returned takes it."""
    told = 1
    for name in ("cpu_count", "process_cpu_count"):  # the second from Python 3.13 on
        if hasattr(os, name):
            setattr(os, name, functools.wraps(getattr(os, name))(lambda: told))

    def tell(most: int) -> None:
        nonlocal told
        told = min(most, len(os.sched_getaffinity(0)))
        if sys.version_info >= (3, 13):
            os.environ["PYTHON_CPU_COUNT"] = str(told)  # children of this program, too

    return tell


def _of_a_script(path: str) -> dict[str, Any]:
    """What the interpreter gives `__main__` when it is started with a script."""
    own: dict[str, Any] = {
        "__file__": path,
        "__builtins__": builtins,
        "__loader__": SourceFileLoader("__main__", path),
        "__cached__": None,
    }
    if sys.version_info < (3, 14):  # later ones make it when it is asked for
        own["__annotations__"] = {}
    return own


def execute() -> None:
    """Run the current program to its end; its exit code is kept for `run`."""
    program = _current[0]
    try:
        try:
            _execute(program)
        except SystemExit as stop:
            program.code = _exit_code(stop)
    except BaseException as error:  # noqa: BLE001 - the program may raise anything; this is where it ends
        program.code = -signal.SIGINT if issubclass(type(error), KeyboardInterrupt) else 1
        _report(program, error)
    _keep_what_is_shown(program)


def _execute(program: Program) -> None:
    if not program.below:
        program.below = stack.depth() - 1
    with open(program.path, "rb") as file:
        source = file.read()
    try:
        code = value.compiled(source, program.path, keep=program.keep_value)
    except (SyntaxError, ValueError) as error:
        raise _placed(error, source, program.path) from None
    if code.co_flags & 0x80:  # CO_COROUTINE: there was a top-level await
        asyncio.run(_awaited(code, program.namespace))
    else:
        exec(code, program.namespace)  # noqa: S102 - this is the product


def _keep_what_is_shown(program: Program) -> None:
    """Open figures, and the value of the last expression; what fails of it is as if it were not there."""
    kept = program.namespace.pop(value.NAME, None)
    if os.getpid() != program.pid:  # a child that came here as its parent does
        return
    at = os.path.join(os.path.dirname(program.path), rules.VALUE)
    left = os.path.join(os.path.dirname(program.path), rules.LEFT)
    for keep in (
        program.figures.save if program.figures else bool,
        lambda: value.keep(kept, at),
        lambda: tmp.note(left) if program.path.startswith(rules.WORK) else None,
    ):
        with suppress(BaseException):  # __repr__ and matplotlib are the program's; its end is the one it had
            keep()


def _placed(error: SyntaxError | ValueError, source: bytes, path: str) -> SyntaxError | ValueError:
    """*error* with its line, which compile does not say of bytes that are no text."""
    at, said = source.find(b"\0"), error.msg if isinstance(error, SyntaxError) else str(error)
    if at < 0:
        try:
            source.decode()
        except UnicodeDecodeError as wrong:
            at = wrong.start
    if at < 0 or not ("null bytes" in said or "codec can't decode byte" in said):
        return error
    line = source.count(b"\n", 0, at) + 1
    if source[at] and b"coding" not in b"".join(source.split(b"\n", 2)[:2]):  # as the interpreter says it of a file
        said = (
            f"Non-UTF-8 code starting with '\\x{source[at]:02x}' in file {path} on line {line}, "
            "but no encoding declared; see https://peps.python.org/pep-0263/ for details"
        )
    text = source.split(b"\n", line)[line - 1].decode("utf-8", "replace").replace("\0", "\\x00")
    return SyntaxError(said, (path, line, None, text))


async def _awaited(code: types.CodeType, namespace: dict[str, Any]) -> None:
    await eval(code, namespace)  # noqa: S307 - as above, for a coroutine


def _open_stdin(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(descriptor, rules.STDIN)
    os.close(descriptor)
    os.unlink(path)


def _open_trace(path: str) -> None:
    """Where faulthandler writes what is being executed at a crash, and at SIGTERM before the process dies of it."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.write(opened, bytes(_TRACE_ROOM))  # the disk may be full when it is needed
    os.lseek(opened, 0, os.SEEK_SET)
    os.dup2(opened, rules.TRACE, inheritable=False)
    os.close(opened)


def _leave_trace() -> None:
    """A child that is terminated or crashes must not write over the trace of the program."""
    faulthandler.unregister(signal.SIGTERM)
    if faulthandler.is_enabled():
        faulthandler.enable(file=rules.STDERR, all_threads=False)  # which the child may have redirected


def _exit_code(stop: SystemExit) -> int:
    """The code `python` itself would leave with for this SystemExit. Raises what the program's own class raises."""
    code: object = stop.code
    if code is None:
        return 0
    if issubclass(type(code), int):
        return int.__and__(code, 0xFF)  # type: ignore[operator]  # an int; `isinstance` would ask the program
    _print(code)
    return 1


def _print(value: object) -> None:
    try:
        print(value, file=sys.stderr)  # noqa: T201 - what the interpreter does for sys.exit("text")
    except BaseException as error:  # noqa: BLE001 - __str__ is the program's and may do anything
        said = f"<{_name(error)} while printing the exit message>\n"
        os.write(rules.STDERR, said.encode("utf-8", "replace"))


def _report(program: Program, error: BaseException) -> None:
    """Print the traceback without our frames, and keep what the host will be told of the first one.

    An exception's class is the program's, and so are its attributes: only what `BaseException` and `type` have
    themselves is asked without a `try`.
    """
    traceback: types.TracebackType | None = _traceback_of(error)
    line, source = _where(error, traceback, program.path)
    if program.remap:
        traceback = _without_loader(traceback)
        BaseException.with_traceback(error, traceback)
    name = _name(error)
    try:
        sys.excepthook(type(error), error, traceback)
    except BaseException as failure:  # noqa: BLE001 - excepthook and __repr__ are the program's
        os.write(rules.STDERR, f"{name}, and {_name(failure)} while printing it\n".encode("utf-8", "replace"))
    program.claim = program.claim or Claim(
        type=name[:200],
        message=_text(error),
        errno=_errno(error),
        line=line,
        source=source,
        packages=_packages() if issubclass(type(error), ImportError) or name == "CalledProcessError" else "",
    )


def _name(error: BaseException) -> str:
    found: str = _name_of(type(error))
    return found.encode("utf-8", "replace").decode()


def _where(error: BaseException, traceback: types.TracebackType | None, path: str) -> tuple[int | None, str]:
    """The line of the program, and the text of the line that raised; of an error of form, what could not be read."""
    line, source = _last_line(traceback, path), ""
    if issubclass(type(error), SyntaxError):  # `isinstance` would ask the program
        try:
            number, text, name = (getattr(error, part) for part in ("lineno", "text", "filename"))
            if name == path and type(number) is int and 0 < number < _LINES:
                line = number
                text = text or linecache.getline(path, number)
            source = text.strip()[:_SOURCE].encode("utf-8", "replace").decode() if isinstance(text, str) else ""
        except BaseException:  # noqa: BLE001 - a subclass, and linecache, are the program's
            source = ""
    return line, source or _source(traceback)


def _packages() -> str:
    """Which of the packages that a program is likely to want are installed; none is imported."""
    from importlib.util import find_spec  # only where one is missing

    try:
        return " ".join(name for name in COMMON if find_spec(name) is not None)
    except BaseException:  # noqa: BLE001 - the program may have changed what finds modules
        return ""


def _text(error: BaseException) -> str:
    try:
        return str(error)[:_EXCERPT].encode("utf-8", "replace").decode()
    except BaseException as failure:  # noqa: BLE001 - __str__ is the program's and may do anything
        return f"<{_name(failure)} in __str__>"


def _source(traceback: types.TracebackType | None) -> str:
    """The line of code that raised, without its indentation; "" if it cannot be read or is ours."""
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    try:
        name = traceback.tb_frame.f_code.co_filename
        line = "" if name == __file__ else linecache.getline(name, traceback.tb_lineno)
        return line.strip()[:_SOURCE].encode("utf-8", "replace").decode()
    except BaseException:  # noqa: BLE001 - linecache is the program's to change
        return ""


def _errno(error: BaseException) -> int | None:
    try:
        number = getattr(error, "errno", None) if issubclass(type(error), OSError) else None
    except BaseException:  # noqa: BLE001 - a subclass is the program's
        number = None
    return number if type(number) is int and 0 <= number < 4096 else None


def _format_warning(warning: warnings.WarningMessage) -> str:
    """As the interpreter does it, without place and source where these are ours: the program has no line to look at."""
    program, name = _current[0] if _current else None, warning.filename
    if program is not None and program.remap:
        main = os.path.join(os.path.dirname(program.path), rules.LOADER)
        if name == main or name.startswith(_OURS):
            return f"{warning.category.__name__}: {warning.message}\n"
    return _python_format(warning)  # type: ignore[misc, no-any-return]  # it is there, or we are not called


def _without_loader(traceback: types.TracebackType | None) -> types.TracebackType | None:
    """The program's frames: ours before the first, between and, in a tool call, behind the last are cut off.

    A syntax error of the program has none.
    """
    while traceback is not None and _is_ours(traceback.tb_frame.f_code.co_filename):
        traceback = traceback.tb_next
    last, frame = traceback, traceback
    while frame is not None:
        if not frame.tb_frame.f_code.co_filename.startswith(_OURS):
            last = frame
        while frame.tb_next is not None and frame.tb_next.tb_frame.f_code in figures.HIDDEN:
            frame.tb_next = frame.tb_next.tb_next
        frame = frame.tb_next
    if last is not None:
        last.tb_next = None
    return traceback


def _is_ours(filename: str) -> bool:
    return filename.startswith(_OURS) or filename in (asyncio.runners.__file__, asyncio.base_events.__file__)


def _last_line(traceback: types.TracebackType | None, path: str) -> int | None:
    line = None
    for frame, number in walk_tb(traceback):
        if frame.f_code.co_filename == path:
            line = number
    return line


def _leave(program: Program) -> int:
    """What the interpreter does after the last statement, in its order; then the exit code."""
    for finish in (threading._shutdown, atexit._run_exitfuncs):  # type: ignore[attr-defined]  # CPython has both; it calls them at its own end
        try:
            finish()
        except BaseException as error:  # noqa: BLE001 - atexit functions are the program's
            _report(program, error)
    code = program.code
    if code and program.claim is not None:
        program.tools.send(Ended(claim=program.claim))  # after threads and atexit functions, which may still call tools
    _close_files(program)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _close_files(program: Program) -> None:
    program.namespace.clear()  # closes, and so flushes, the files its globals held
    gc.collect()
    for thing in gc.get_objects():
        if isinstance(thing, (io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper)):
            _flush(thing)


def _rehearse_the_end(program: Program) -> None:
    """What `_leave` does, as far as it can be done twice: `threading._shutdown` cannot, and runs in the run alone."""
    handler = logging.StreamHandler(sys.stderr)
    logging.shutdown([weakref.ref(handler)])  # what atexit calls
    with open(program.path, encoding="utf-8"):
        _close_files(program)


def _flush(file: io.IOBase) -> None:
    try:
        file.flush()
    except (OSError, ValueError):
        return  # closed already, or its disk is full: the interpreter ignores both at this point
