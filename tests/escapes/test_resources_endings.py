"""Resources: the ways to end, and that each is told apart from the others."""

import os
import threading
from typing import Any

import pytest

from isorun.backends.base import Slot
from isorun.backends.namespace.backend import NamespaceBackend, Options
from isorun.backends.namespace.ceilings import _CgroupOfSlot, _Unheld
from isorun.core.request import RunRequest
from isorun.kernel.readiness import is_readable
from isorun.runtime.request import accept
from isorun.runtime.run import Options as RunOptions
from isorun.runtime.run import program_for
from isorun.settings import Settings
from tests.escapes.attacking import attack, ended, processes_inside, programs_inside
from tests.escapes.conftest import SMALL

pytestmark = [pytest.mark.usefixtures("unharmed"), pytest.mark.alone]


def by_signal(number: int, name: str) -> tuple[str, str, str]:
    return ("killed", "signal", f"ended by signal {number} ({name})")


DEEP = "thing = []\nfor _ in range(400_000): thing = [thing]\nimport sys; sys.setrecursionlimit(10**9)\n"
ENDINGS = [
    pytest.param("pass", ("ok", None, None), 0, id="return"),
    pytest.param("import sys; sys.exit(0)", ("ok", None, None), 0, id="exit-0"),
    pytest.param("import sys; sys.exit(7)", ("failed", "nonzero_exit", "exit code 7"), 7, id="exit-7"),
    pytest.param("import sys; sys.exit('no')", ("failed", "nonzero_exit", "exit code 1"), 1, id="exit-text"),
    pytest.param("import os; os._exit(9)", ("failed", "nonzero_exit", "exit code 9"), 9, id="_exit-9"),
    pytest.param("import os; os._exit(0)", ("ok", None, None), 0, id="_exit-0"),
    pytest.param("raise KeyError('k')", ("failed", "program_error", "the program raised KeyError: 'k'"), 1, id="raise"),
    pytest.param("import os; os.kill(os.getpid(), 15)", by_signal(15, "SIGTERM"), -15, id="SIGTERM"),
    pytest.param("import os; os.kill(os.getpid(), 9)", by_signal(9, "SIGKILL"), -9, id="SIGKILL"),
    pytest.param("import os; os.kill(os.getpid(), 2)", by_signal(2, "SIGINT"), -2, id="SIGINT"),
    pytest.param("import ctypes; ctypes.string_at(8)", by_signal(11, "SIGSEGV"), -11, id="segfault"),
    pytest.param("import os; os.abort()", by_signal(6, "SIGABRT"), -6, id="abort"),
    pytest.param(f"{DEEP}repr(thing)", by_signal(11, "SIGSEGV"), -11, id="stack-overflow"),
    pytest.param(
        "def f(): f()\nf()",
        ("failed", "program_error", "the program raised RecursionError: maximum recursion depth exceeded"),
        1,
        id="recursion",
    ),
]


@pytest.mark.parametrize(("code", "expected", "exit_"), ENDINGS)
def test_every_ending_has_its_own_words(sealed, code, expected, exit_) -> None:
    """Return, exit code, exception and signal are told apart, by what the kernel said."""
    result = attack(sealed, code, timeout_s=5)
    assert ended(result) == expected
    assert (result.exit_code if exit_ >= 0 else -result.signal) == exit_
    assert programs_inside() == []
    # Control: each is the control of the others.


def test_a_program_cannot_talk_a_failure_into_a_success(sealed) -> None:
    """What is printed has no say: the exit decides."""
    code = "print('status: ok')\nprint('===== EXECUTION x END ok =====')\nimport os; os._exit(1)"
    assert ended(attack(sealed, code)) == ("failed", "nonzero_exit", "exit code 1")
    # Control: printing failures does not make one.
    assert sealed.execute("print('Traceback (most recent call last):\\nValueError: no')").status == "ok"


def test_recursion_in_repr_and_str_is_an_error_like_others(sealed) -> None:
    """An exception whose text cannot be made is reported by its type."""
    code = "class E(Exception):\n    def __str__(self): return str(self)\n    __repr__ = __str__\nraise E"
    result = attack(sealed, code)
    assert ended(result) == ("failed", "program_error", "the program raised E: <RecursionError in __str__>")
    assert result.error.where == "user_code.py:4"
    # Control: one whose text can be made is reported with it.
    told = sealed.execute(code.replace("str(self)", "'sorry'"))
    assert ended(told) == ("failed", "program_error", "the program raised E: sorry")


def test_an_exception_of_ten_megabytes_is_cut_and_said(sealed) -> None:
    """The text is bounded where it is sent, kept and shown."""
    result = attack(sealed, "raise ValueError('x' * 10_000_000)")
    status, code, message = ended(result)
    assert (status, code) == ("failed", "program_error")
    assert message.startswith("the program raised ValueError: xxx")
    assert len(message) < 400
    assert len(result.report_text) < 20_000
    assert len(result.stderr) < 300_000
    assert (result.truncated, len(result.to_json()) < 1_000_000) == (True, True)
    # Control: a short one is whole.
    assert sealed.execute("raise ValueError('x' * 10)").error.message == "the program raised ValueError: " + "x" * 10


def test_an_exception_that_lies_about_its_type_is_bounded(sealed) -> None:
    """A claim of the program can name an error; it is escaped, cut, and never a success."""
    code = "E = type('E' * 5000 + '\\n\\x1b[2J', (Exception,), {})\nraise E('a\\x1b]0;t\\x07b')"
    result = attack(sealed, code)
    assert (result.status, result.error.code) == ("failed", "program_error")
    assert len(result.error.message) < 500
    assert not {"\x1b", "\x07", "\n"} & set(result.error.message)
    # Control: `raise` in the table above.


def _backend(ceilings: str) -> NamespaceBackend:
    named, is_counted = Settings.load().cgroup_parent, ceilings == "cgroup"
    return NamespaceBackend(Options(use_cgroup=is_counted, cgroup_parent=str(named) if named and is_counted else None))


async def _ran(slot: Slot, code: str) -> None:
    await slot.start(program_for(accept(RunRequest.of(code), SMALL), RunOptions()))
    await slot.wait()


PARENT = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\n"


@pytest.mark.parametrize(("code", "is_over"), [("pass", True), (PARENT, False)])
@pytest.mark.embedded
async def test_a_run_is_over_when_the_kernel_counts_none_of_it(ceilings, code: str, is_over: bool) -> None:
    """Then init is left for the end of the slot. A run that leaves a process behind, or whose processes nothing counts,
    is killed with its init at once.
    """
    async with _backend(ceilings) as backend:
        async with backend.launch(SMALL) as slot:
            await _ran(slot, code)
            exit_, _ = await slot.kill()
            assert exit_.code == 0
            assert is_readable(slot._init) is not (is_over and ceilings == "cgroup")
            init = os.dup(slot._init)
        try:
            assert is_readable(init)
        finally:
            os.close(init)


FULL = "import os\nwith open('/tmp/full', 'wb') as file:\n    file.write(bytes(4 << 20))\n"


@pytest.mark.embedded
@pytest.mark.parametrize(("code", "is_small"), [("pass", True), (FULL, False)])
async def test_a_slot_that_holds_little_is_undone_without_a_thread(ceilings, monkeypatch, code, is_small) -> None:
    """What a run left in its file systems is freed with them, which may take a while; so may the end of a v2 group."""
    kind: Any = _CgroupOfSlot if ceilings == "cgroup" else _Unheld
    threads: dict[object, threading.Thread] = {}
    removed = kind.remove

    def remove(group: object) -> None:
        threads[group] = threading.current_thread()
        removed(group)

    monkeypatch.setattr(kind, "remove", remove)
    async with _backend(ceilings) as backend:
        async with backend.launch(SMALL) as slot:
            await _ran(slot, code)
            await slot.kill()
            group = slot._group
        in_loop = threads[group] is threading.current_thread()
        assert in_loop is (is_small and backend._ceilings.name == "cgroup-v1")
    assert processes_inside() == []
