"""What may follow an exception on the tool stream, and a limit that needs a cgroup."""

import asyncio

import pytest

import isorun
from isorun.backends.namespace.backend import NamespaceBackend, Options
from isorun.core.errors import Unavailable


def test_a_tool_call_after_the_exception_does_not_hide_it(run) -> None:
    """Threads and atexit functions may still call tools when the program has raised; its error stays the error."""
    result = run(
        "import atexit, threading\n"
        "def late():\n"
        "    try: agent_io_tools.tool_call_sync(tool_id='a.b')\n"
        "    except agent_io_tools.ToolDenied: print('late', flush=True)\n"
        "atexit.register(late)\n"
        "threading.Timer(0.05, late).start()\n"
        "raise ValueError('mine')\n"
    )
    assert (result.status, result.error.code, result.stdout) == ("failed", "program_error", "late\nlate\n")
    assert "ValueError: mine" in result.error.message


def test_a_cancelled_tool_call_does_not_stop_the_next_one(run) -> None:
    """An answer that nobody waits for any more is dropped, and the stream goes on."""
    result = run(
        "call = asyncio.ensure_future(agent_io_tools.tool_call(tool_id='a.b'))\n"
        "await asyncio.sleep(0)\n"
        "call.cancel()\n"
        "await asyncio.sleep(0.05)\n"
        "try:\n"
        "    await asyncio.wait_for(agent_io_tools.tool_call(tool_id='a.b'), 5)\n"
        "except agent_io_tools.ToolDenied:\n"
        "    print('answered')\n"
    )
    assert result.stdout == "answered\n", result.report_text


def test_half_a_cpu_needs_a_cgroup(tmp_path) -> None:
    """Without a cgroup a run is held to one whole CPU; less is refused, never promised."""

    async def opened() -> None:
        backend = NamespaceBackend(Options(use_cgroup=False))
        limits = isorun.Limits(cpus=0.5)
        async with isorun.Runtime(backend=backend, limits=limits, pool_size=0, workspace_root=tmp_path) as rt:
            await rt.execute("print(1)")

    with pytest.raises(Unavailable, match=r"cpus is 0\.5: without a cgroup a run is held to one whole CPU"):
        asyncio.run(opened())


OWN_CLASSES = {
    "a name that cannot be asked": (
        "class M(type):\n    __name__ = property(lambda self: 1 / 0)\n"
        "class E(Exception, metaclass=M): pass\nraise E('x')",
        "the program raised E: x",
    ),
    "an errno that raises": (
        "class E(OSError):\n    errno = property(lambda self: 1 / 0)\nraise E('x')",
        "the program raised E: x",
    ),
    "a class that raises": (
        "class E(Exception):\n    __class__ = property(lambda self: 1 / 0)\nraise E('x')",
        "the program raised E: x",
    ),
    "a traceback that is refused": (
        "class E(Exception):\n    def with_traceback(self, t): sys.exit(0)\nraise E('x')",
        "the program raised E: x",
    ),
    "a code that raises": (
        "class E(SystemExit):\n    code = property(lambda self: 1 / 0)\nraise E(3)",
        "the program raised ZeroDivisionError: division by zero",
    ),
}


@pytest.mark.table
@pytest.mark.parametrize("name", OWN_CLASSES)
def test_an_exception_that_fights_its_report_is_reported(run, name: str) -> None:
    """Its class is the program's, and any part of it may raise: the exit code and the error are the program's own."""
    code, message = OWN_CLASSES[name]
    result = run(code)
    assert (result.status, result.exit_code) == ("failed", 1), result.stderr
    assert (result.error.code, result.error.message) == ("program_error", message)


def test_an_exit_code_is_a_number_whatever_its_class(run) -> None:
    """Of a class of the program's the number counts, and not what the class makes of it."""
    result = run("class I(int):\n    def __and__(self, other): raise KeyError\nraise SystemExit(I(3))")
    assert (result.status, result.exit_code, result.stderr) == ("failed", 3, "")
