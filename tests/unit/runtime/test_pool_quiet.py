"""What a pool says while no slot can be built."""

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
