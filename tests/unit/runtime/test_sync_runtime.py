"""`SyncRuntime` and `SyncRun`: the same methods as the originals, usable from threads, and finite in every state."""

import inspect
import threading
from pathlib import Path
from typing import Any, Unpack

import pytest

import isorun
from isorun.api import Loop, SyncRun, SyncSession
from isorun.core.outcome import Exit
from isorun.runtime.accepted.handle import Run
from isorun.runtime.carried.session import Session
from isorun.runtime.runtime import Runtime
from isorun.testing.fake import Script, ScriptedBackend
from isorun.tools.subsystem import ToolSubsystem

_ENDS = Script(stdout=b"x\n", exit=Exit(code=0))
_HANGS = Script(stdout=b"x\n", at_sigterm=Exit(code=0))
_OURS = {"started", "conducted_by", "waits_for", "when_done"}  # of Run, for the Runtime


def runtime(root: Path, script: Script = _ENDS) -> isorun.SyncRuntime:
    return isorun.SyncRuntime(
        backend=ScriptedBackend(script), settings=isorun.Settings(), workspace_root=root, pool_size=0
    )


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def test_each_method_has_its_twin() -> None:
    """What `Runtime`, `Run` and `Session` can do, their blocking views can: with the same names and arguments."""
    assert public(Run) - _OURS <= public(SyncRun)
    assert public(Runtime) <= public(isorun.SyncRuntime)
    assert public(Session) <= public(SyncSession)
    for original, twin in ((Run, SyncRun), (Runtime, isorun.SyncRuntime), (Session, SyncSession)):
        for name in public(original) - _OURS:
            if inspect.isfunction(method := vars(original)[name]):
                given = inspect.signature(method).parameters
                assert list(inspect.signature(vars(twin)[name]).parameters.values()) == list(given.values()), name


def test_nothing_public_takes_options_of_any_kind() -> None:
    """Where keywords are collected, their names and types are known."""
    for function in (isorun.run, isorun.RunRequest.of, isorun.SyncRuntime.__init__, ToolSubsystem.__init__):
        collected = inspect.unwrap(function).__annotations__["options"]
        assert getattr(collected, "__origin__", None) is Unpack, function
        assert collected != Unpack[Any]


def test_before_it_is_open(tmp_path) -> None:
    """Each way of using it says how it is opened; closing it does nothing, and no thread is there yet."""
    threads = threading.active_count()
    rt = runtime(tmp_path)
    said = r"^this SyncRuntime is not open: use it as `with isorun\.SyncRuntime\(\) as rt:`, or call its open\(\)$"
    for use in (rt.execute, rt.start):
        with pytest.raises(isorun.Misused, match=said):
            use("pass")
    for name in ("root", "backend", "tools", "waiting_slots", "waiting_inspectors"):
        with pytest.raises(isorun.Misused, match=said):
            getattr(rt, name)
    rt.close()
    assert threading.active_count() == threads
    assert rt.limits == isorun.Settings().limits()


def test_it_opens_and_closes_by_name(tmp_path) -> None:
    """As a notebook does it: `open` gives the Runtime, `close` leaves no thread, and more of it does nothing."""
    threads = threading.active_count()
    rt = runtime(tmp_path).open()
    assert rt.execute("pass").stdout == "x\n"
    with pytest.raises(isorun.Misused, match=r"^this SyncRuntime is open already$"):
        rt.open()
    rt.close()
    rt.close()
    assert threading.active_count() == threads


def test_after_it_is_closed(tmp_path) -> None:
    """A use of it, and of a run's handle, is an error at once."""
    with runtime(tmp_path) as rt:
        run = rt.start("pass")
    for use in (
        lambda: rt.execute("pass"),
        lambda: rt.start("pass"),
        run.result,
        run.cancel,
        lambda: next(run.events()),
    ):
        with pytest.raises(isorun.Misused, match=r"^this SyncRuntime is closed; open a new one$"):
            use()
    with pytest.raises(isorun.Misused, match=r"^this SyncRuntime is closed; open a new one$"):
        rt.open()


def test_an_opening_that_failed_leaves_no_thread_and_may_be_tried_again(tmp_path) -> None:
    """The root is a file at first."""
    threads = threading.active_count()
    rt = runtime(tmp_path / "root")
    (tmp_path / "root").write_text("in the way")
    with pytest.raises(isorun.InvalidRequest):
        rt.open()
    assert threading.active_count() == threads
    (tmp_path / "root").unlink()
    with rt:
        assert rt.execute("pass").ok


def test_threads_that_run_while_it_closes_get_a_result_or_an_error(tmp_path) -> None:
    """None of them waits for ever: the run is cancelled, or was not started."""
    ended: list[object] = []

    def use(rt: isorun.SyncRuntime) -> None:
        try:
            while True:
                ended.append(rt.execute("pass").status)
        except isorun.Misused as error:
            ended.append(str(error))

    with runtime(tmp_path, _HANGS) as rt:
        threads = [threading.Thread(target=use, args=(rt,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        run = rt.start("pass")
        next(run.events())
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert set(ended) - {"cancelled"} <= {
        "this SyncRuntime is closed; open a new one",
        "this Runtime is closed; open a new one",
    }


def test_a_callback_that_exits_ends_no_loop(tmp_path) -> None:
    """SystemExit and KeyboardInterrupt of the caller's function leave the loop's thread as it was."""
    for error in (SystemExit, KeyboardInterrupt):

        def on_output(stream: str, data: bytes, error: type[BaseException] = error) -> None:
            raise error

        with runtime(tmp_path) as rt:
            assert rt.start("pass", on_output=on_output).result().stdout == "x\n"
            assert rt.execute("pass").ok


def test_a_loop_goes_on_when_a_callback_of_it_exits() -> None:
    """Whatever ends `run_forever` before its time."""

    async def leave() -> None:
        raise SystemExit(3)

    loop = Loop()
    with pytest.raises(SystemExit):
        loop.call(leave())
    loop.close()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: isorun.run("1", timeout=3), "a run has no option 'timeout'; did you mean timeout_s?"),
        (lambda: isorun.run("1", bundel="x"), "a run has no option 'bundel'; did you mean bundle?"),
        (lambda: isorun.SyncRuntime(pool=3), "a SyncRuntime has no option 'pool'; did you mean pool_size?"),
    ],
)
def test_a_wrong_keyword_is_told_before_anything_is_opened(make, said) -> None:
    """With the nearest that there is."""
    with pytest.raises(TypeError) as caught:
        make()
    assert str(caught.value) == said
