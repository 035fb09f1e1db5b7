"""What a caller's `on_output` may do: anything, and the run's own books stay right."""

import asyncio
import functools
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import isorun
from isorun.core.outcome import Exit
from isorun.runtime import output
from isorun.runtime.output import Listening, OnOutput
from isorun.testing.fake import Script, ScriptedBackend

_PRINTS = Script(stdout=b"one\ntwo\n", stderr=b"three\n", exit=Exit(code=0))


async def run_with(on_output: OnOutput, root: Path, script: Script = _PRINTS, **limits: int) -> isorun.RunResult:
    async with isorun.Runtime(
        backend=ScriptedBackend(script),
        settings=isorun.Settings(),
        workspace_root=root,
        pool_size=0,
        limits=isorun.Limits(**limits),
    ) as rt:
        run = await rt.start("pass", on_output=on_output, timeout_s=10)
        return await run.result()


def raising(error: BaseException) -> OnOutput:
    def on_output(stream: str, data: bytes) -> None:
        raise error

    return on_output


async def coroutine(stream: str, data: bytes) -> None:
    """What would have to be awaited."""


class Awaited:
    async def __call__(self, stream: str, data: bytes) -> None:
        """As `coroutine`."""


ERRORS = [
    ValueError("secret"),
    OSError(9, "secret"),
    SystemExit("secret"),
    asyncio.CancelledError("secret"),
    GeneratorExit("secret"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_what_it_raises_is_told_once_and_changes_nothing(tmp_path, caplog, error) -> None:
    """Output, log, size and status are those of a run that nobody listens to; a notice names the kind of error."""
    result = await run_with(raising(error), tmp_path)
    assert (result.status, result.stdout, result.stderr) == ("ok", "one\ntwo\n", "three\n")
    assert sorted(result.user_log_tail.splitlines()) == ["one", "three", "two"]
    assert result.usage["output_bytes"] == 14
    told = f"on_output raised {type(error).__name__} in 2 of 2 calls; "
    assert [notice for notice in result.notices if notice.startswith(told)] == list(result.notices)
    assert (result.out_dir / "logs/infra.log").read_text().count(told) == 1
    assert "secret" not in result.report_text + result.infra_log_tail
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.exc_info[1] for record in logged] == [error]


async def test_it_is_called_again_after_it_raised(tmp_path) -> None:
    """One failure is one failure: the next bytes reach it, and the notice counts."""
    got: list[tuple[str, bytes]] = []

    def once(stream: str, data: bytes) -> None:
        got.append((stream, data))
        if len(got) == 1:
            raise ValueError

    result = await run_with(once, tmp_path)
    assert sorted(got) == [("stderr", b"three\n"), ("stdout", b"one\ntwo\n")]
    assert "on_output raised ValueError in 1 of 2 calls" in result.notices[0]


async def test_a_flood_ends_the_run_though_it_raises(tmp_path) -> None:
    """The output limit counts before the caller is asked."""
    result = await run_with(raising(ValueError()), tmp_path, Script(stdout=b"x" * 5000), output_bytes=1000)
    assert (result.status, result.error.code) == ("limit_exceeded", "output_limit")
    assert result.usage["output_bytes"] == 5000


@pytest.mark.parametrize(
    "given",
    [coroutine, functools.partial(coroutine), Awaited(), Awaited().__call__],
    ids=["def", "partial", "object", "method"],
)
async def test_a_coroutine_function_is_refused(tmp_path, given) -> None:
    """Nobody would await it, so nothing is started."""
    with pytest.raises(
        isorun.InvalidRequest, match=r"^on_output is a coroutine function, which isorun does not await"
    ) as caught:
        await run_with(given, tmp_path)
    assert caught.value.code == "invalid_on_output"
    assert not list(tmp_path.glob("codegen_*"))


async def test_what_cannot_be_called_is_refused(tmp_path) -> None:
    """The message says what was given."""
    with pytest.raises(isorun.InvalidRequest, match=r"^on_output must be a function of .* not a list$"):
        await run_with([], tmp_path)


async def test_an_awaitable_that_comes_back_is_a_failure(tmp_path) -> None:
    """A function that hides a coroutine is found out at its first call; Python warns of nothing."""
    result = await run_with(lambda stream, data: coroutine(stream, data), tmp_path)
    assert result.stdout == "one\ntwo\n"
    assert "on_output raised TypeError in 2 of 2 calls" in result.notices[0]


def test_a_slow_one_is_told(monkeypatch) -> None:
    """The longest call is named, with what to do; a quick one is not mentioned."""
    quick = Listening(lambda stream, data: None)
    quick.tell("stdout", b"x")
    assert quick.notices() == ()
    monkeypatch.setattr(output, "_SLOW_S", 0.0)
    (notice,) = quick.notices()
    assert notice.startswith("on_output took 0.0 s in one call, and the other runs of its Runtime waited: ")


async def test_a_run_whose_sandbox_is_lost_tells_it_too(tmp_path) -> None:
    """The notice is in the stored result of a run that has none to return."""
    script = Script(stdout=b"x\n", lost=isorun.SetupFailed("zygote", "it died"))
    with pytest.raises(isorun.SetupFailed):
        await run_with(raising(ValueError()), tmp_path, script)
    (stored,) = tmp_path.glob("codegen_*/out/result.json")
    assert "on_output raised ValueError in 1 of 1 calls" in stored.read_text()


@pytest.fixture
def rt(tmp_path) -> Iterator[isorun.SyncRuntime]:
    """A SyncRuntime whose every run prints the same."""
    with isorun.SyncRuntime(
        backend=ScriptedBackend(_PRINTS), settings=isorun.Settings(), workspace_root=tmp_path, pool_size=0
    ) as rt:
        yield rt


def test_a_slow_one_of_a_sync_runtime_holds_up_nobody(rt) -> None:
    """Other runs end while it is busy; its own result waits, and says nothing of it."""
    busy, go_on, got = threading.Event(), threading.Event(), []

    def slow(stream: str, data: bytes) -> None:
        busy.set()
        assert go_on.wait(60)
        got.append((stream, data))

    run = rt.start("pass", on_output=slow)
    assert busy.wait(60)
    assert rt.execute("pass").ok
    assert not got
    threading.Timer(0.2, go_on.set).start()
    result = run.result()
    assert sorted(got) == [("stderr", b"three\n"), ("stdout", b"one\ntwo\n")]
    assert result.notices == ()


def test_one_that_never_returns_is_left_behind(rt, monkeypatch) -> None:
    """The result comes in bounded time, whole, and says so."""
    monkeypatch.setattr(output, "_PATIENCE_S", 0.2)
    go_on = threading.Event()
    try:
        result = rt.start("pass", on_output=lambda stream, data: go_on.wait() and None).result()
    finally:
        go_on.set()
    assert (result.status, result.stdout) == ("ok", "one\ntwo\n")
    assert result.notices == ("on_output was still busy 0.2 s after the program's end; it is told of the rest later",)


@pytest.mark.parametrize("session", ["", "s"])
def test_one_of_a_sync_runtime_may_use_it(rt, session: str) -> None:
    """Another run from inside it: in the loop's own thread that would have been waited for for ever."""
    inner = []
    starts = rt.session(session) if session else rt
    run = starts.start("pass", on_output=lambda stream, data: inner.append(rt.execute("pass").status))
    run.result()
    assert inner == ["ok", "ok"]


@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit("secret"), KeyboardInterrupt()], ids=repr)
def test_one_of_a_sync_runtime_that_raises_is_called_again(rt, error) -> None:
    """As in the event loop; an interrupt, which only the main thread gets, ends no other thread."""
    calls = []

    def on_output(stream: str, data: bytes) -> None:
        calls.append(stream)
        raise error

    result = rt.start("pass", on_output=on_output).result()
    assert sorted(calls) == ["stderr", "stdout"]
    assert result.stdout == "one\ntwo\n"
    wanted = () if isinstance(error, KeyboardInterrupt) else (f"on_output raised {type(error).__name__} in 2 of 2",)
    assert tuple(notice.partition(" calls")[0] for notice in result.notices) == wanted


def test_a_run_that_outlives_its_runtime_tells_nobody(tmp_path, caplog, monkeypatch) -> None:
    """Closing waits for the run and not for a caller's function that is still busy; nothing is raised in its thread."""
    monkeypatch.setattr(output, "_PATIENCE_S", 0.2)
    go_on = threading.Event()
    rt = isorun.SyncRuntime(
        backend=ScriptedBackend(_PRINTS), settings=isorun.Settings(), workspace_root=tmp_path, pool_size=0
    ).open()
    rt.start("pass", on_output=lambda stream, data: go_on.wait(60) and None)
    rt.close()
    go_on.set()
    deadline = time.monotonic() + 60
    while any(thread.name == "isorun-on-output" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not caplog.records
