"""The garbage collector while a command imports what it needs."""

import gc

import pytest

from isorun.cli.run.importing import uncollected


def test_nothing_is_collected_meanwhile_and_afterwards_all_is() -> None:
    """What was made there is frozen: later collections do not look through it."""
    before = gc.get_freeze_count()
    try:
        with uncollected():
            assert not gc.isenabled()
            made = [[] for _ in range(1000)]
        assert gc.isenabled()
        assert gc.get_freeze_count() >= before + len(made)
    finally:
        gc.unfreeze()


def test_what_cannot_be_imported_leaves_the_collector_on() -> None:
    """The command goes on, to say what is missing."""
    with pytest.raises(ModuleNotFoundError), uncollected():
        raise ModuleNotFoundError("mcp")
    assert gc.isenabled()
