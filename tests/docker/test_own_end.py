"""A container whose program ends by itself: init ends the others and has its last word without being asked."""

import asyncio
from pathlib import Path

import pytest

from isorun.backends.docker.backend import DockerBackend, Options
from isorun.core.limits import Limits
from isorun.core.outcome import Exit
from isorun.core.request import RunRequest
from isorun.kernel.readiness import wait_readable
from isorun.runtime.request import accept
from isorun.runtime.run import Options as RunOptions
from isorun.runtime.run import program_for

pytestmark = [pytest.mark.root, pytest.mark.timeout(200)]
_CHILD = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])\n"
_OBEDIENT = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: exit(0))\nprint('up', flush=True)\ntime.sleep(60)"


async def test_the_program_s_end_is_the_container_s(executor_image: str, tmp_path: Path) -> None:
    """Nobody says a word to it, and its first process ends, with a child of the program's that would go on."""
    end = await ended(executor_image, tmp_path, _CHILD + "print('done')", ask=False)
    assert (end.code, end.unasked) == (0, True)


async def test_an_end_at_sigterm_was_asked_for(executor_image: str, tmp_path: Path) -> None:
    """A program that exits with 0 when its time is over has not ended in time."""
    end = await ended(executor_image, tmp_path, _OBEDIENT, ask=True)
    assert (end.code, end.unasked) == (0, False)


async def ended(image: str, state: Path, code: str, *, ask: bool) -> Exit:
    """How *code* ended in a container whose first process was waited for before anybody ended it."""
    limits = Limits()
    (state / "state").mkdir()
    async with DockerBackend(Options(image=image, state=state / "state")) as backend, backend.launch(limits) as slot:
        await slot.start(program_for(accept(RunRequest.of(code), limits), RunOptions()))
        async with asyncio.timeout(30):
            if ask:
                await wait_readable(slot.stdout)
                slot.terminate()
            await slot._gone()
        end, _ = await slot.kill()
        return end
