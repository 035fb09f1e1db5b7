"""What the zygote says of its preloads."""

from isorun.executor.warm import preloads


def test_a_preload_that_fails_is_not_among_those_that_are_loaded() -> None:
    """Each name is told once: with its seconds, or with its reason."""
    loaded, failed = preloads.preload(["json", "nosuch"])
    assert list(loaded) == ["json"]
    assert failed == {"nosuch": "ModuleNotFoundError: No module named 'nosuch'"}
