"""Whether a slot that waits may be handed out."""

import asyncio
import os
from types import SimpleNamespace
from typing import Any, cast

from isorun.backends.namespace.backend import NamespaceSlot
from isorun.core.errors import SetupFailed


async def test_a_slot_whose_zygote_has_died_is_not_handed_out() -> None:
    """Also while the kernel has not ended its program: the run that got it would find it dead."""
    exited: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    alive = os.pidfd_open(os.getpid())
    slot = cast(Any, SimpleNamespace(_exited=exited, _program=alive))
    is_waiting = cast(Any, NamespaceSlot.is_waiting).fget
    try:
        assert is_waiting(slot)
        exited.set_exception(SetupFailed("zygote", "it died"))
        exited.exception()
        assert not is_waiting(slot)
    finally:
        os.close(alive)
