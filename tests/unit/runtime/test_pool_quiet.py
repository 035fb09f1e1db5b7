"""What a pool does while no slot can be built, or slots are to be built otherwise."""

import asyncio
import logging

import pytest

import isorun
from isorun.runtime.pool import Pool
from isorun.testing.fake import Script, ScriptedBackend


async def test_builders_that_all_fail_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A dead engine fails for each of them, again and again; one line says so."""
    backend = ScriptedBackend(Script(build=isorun.SetupFailed("container", "the engine is away")))
    with caplog.at_level(logging.WARNING, logger="isorun"):
        async with Pool(backend, isorun.Limits(), 4):
            for _ in range(20):
                await asyncio.sleep(0)
    assert backend.launched >= 2
    assert [record.getMessage() for record in caplog.records] == [
        "a slot could not be built ahead: container: the engine is away"
    ]


async def test_slots_that_wait_are_replaced_when_they_are_to_be_others() -> None:
    """None of them is handed out any more, and as many new ones wait."""
    async with ScriptedBackend(Script()) as backend, Pool(backend, isorun.Limits(), 2) as pool:
        async with asyncio.timeout(5):
            while pool.waiting < 2:  # noqa: ASYNC110 - a number tells nobody that it has grown
                await asyncio.sleep(0)
            pool.renew()
            assert pool.waiting == 0
            while pool.waiting < 2:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
        assert backend.launched == 4
