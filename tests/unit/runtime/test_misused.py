"""A Runtime before it is open, after it is closed, twice, in another loop, and one whose parts raise."""

import asyncio
import json
import logging
from pathlib import Path

import pytest

import isorun
from isorun.core.outcome import Exit
from isorun.testing.fake import Script, ScriptedBackend

_ENDS = Script(stdout=b"x\n", exit=Exit(code=0))
_CLOSED = r"^this Runtime is closed; open a new one$"
_NOT_OPEN = r"^this Runtime is not open: use it as `async with isorun\.Runtime\(\) as rt:`$"


def runtime(root: Path, backend: ScriptedBackend | None = None) -> isorun.Runtime:
    return isorun.Runtime(
        backend=backend or ScriptedBackend(_ENDS), settings=isorun.Settings(), workspace_root=root, pool_size=0
    )


class Raising(ScriptedBackend):
    """A backend of somebody's own, with a bug in a method that is asked after the run."""

    def infra_log(self) -> bytes:
        raise ZeroDivisionError("in the launcher's log")


class Refusing(ScriptedBackend):
    """It cannot be entered the first time."""

    tries = 0

    async def __aenter__(self) -> "Refusing":
        self.tries += 1
        if self.tries == 1:
            raise isorun.Unavailable("not yet")
        await super().__aenter__()
        return self


async def test_before_it_is_open(tmp_path) -> None:
    """Each way of using it says how it is opened; leaving it does nothing."""
    rt = runtime(tmp_path)
    for use in (rt.execute, rt.start):
        with pytest.raises(isorun.Misused, match=_NOT_OPEN):
            await use("pass")
    for name in ("tools", "waiting_slots", "waiting_inspectors"):
        with pytest.raises(isorun.Misused, match=_NOT_OPEN):
            getattr(rt, name)
    await rt.__aexit__(None, None, None)
    async with rt:
        assert (await rt.execute("pass")).ok


async def test_after_it_is_closed(tmp_path) -> None:
    """Nothing is started, its results stay available, closing again does nothing, and opening again is refused."""
    async with runtime(tmp_path) as rt:
        run = await rt.start("pass")
    with pytest.raises(isorun.Misused, match=_CLOSED):
        await rt.start("pass")
    with pytest.raises(isorun.Misused, match=_CLOSED):
        await rt.__aenter__()
    await rt.__aexit__(None, None, None)
    assert (await run.result()).exec_id == run.exec_id
    assert len(list(tmp_path.glob("codegen_*"))) == 1


async def test_it_is_entered_once(tmp_path) -> None:
    """A second entering is refused, one after the other or at once, and the first goes on."""
    async with runtime(tmp_path) as rt:
        with pytest.raises(isorun.Misused, match=r"^this Runtime is open already$"):
            await rt.__aenter__()
        assert (await rt.execute("pass")).ok
    rt = runtime(tmp_path)
    both = await asyncio.gather(rt.__aenter__(), rt.__aenter__(), return_exceptions=True)
    assert [type(one) for one in both] == [isorun.Runtime, isorun.Misused]
    await rt.__aexit__(None, None, None)


async def test_an_opening_that_failed_may_be_tried_again(tmp_path) -> None:
    """It left nothing, so it is as if it had not been."""
    rt = runtime(tmp_path, Refusing(_ENDS))
    with pytest.raises(isorun.Unavailable):
        await rt.__aenter__()
    async with rt:
        assert (await rt.execute("pass")).ok


async def test_another_loop_is_refused(tmp_path) -> None:
    """A second thread with a loop of its own gets an error, where it would wait for ever."""
    async with runtime(tmp_path) as rt:
        with pytest.raises(
            isorun.Misused, match=r"^this Runtime was opened in another event loop; open one here, or use"
        ):
            await asyncio.to_thread(asyncio.run, rt.execute("pass"))
        assert (await rt.execute("pass")).ok


async def test_a_backend_that_raises_after_the_run_leaves_a_result(tmp_path) -> None:
    """The error is the caller's to see, and the run is not listed as running for ever."""
    async with runtime(tmp_path, Raising(_ENDS)) as rt:
        run = await rt.start("pass")
        with pytest.raises(ZeroDivisionError):
            await run.result()
        assert [event.kind async for event in run.events()][-1] == "outcome"
    (stored,) = tmp_path.glob("codegen_*/out/result.json")
    assert (json.loads(stored.read_text())["status"], json.loads(stored.read_text())["stdout"]) == ("lost", "x\n")


async def test_who_watches_a_run_that_never_began_is_told(tmp_path) -> None:
    """An id that is taken is the run's error, and its events have an end."""
    async with runtime(tmp_path) as rt:
        await rt.execute("pass", exec_id="mine")
        run = await rt.start("pass", exec_id="mine")
        assert [event.data["status"] async for event in run.events()] == ["error"]
        with pytest.raises(isorun.InvalidRequest, match="there is a run mine already"):
            await run.result()


async def test_a_log_handler_that_raises_fails_no_run(tmp_path, capsys) -> None:
    """What a run logs on its way goes through the caller's handlers, and comes after nothing of the run."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the log is closed")

    logger, handler = logging.getLogger("isorun"), Broken()
    logger.addHandler(handler)
    before, _ = logger.level, logger.setLevel(logging.DEBUG)
    try:
        async with runtime(tmp_path) as rt:
            assert (await rt.execute("pass")).ok
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert "OSError: the log is closed" in capsys.readouterr().err
