"""Modules imported beforehand: those asked for by name must be there, those of the settings are a wish."""

import pytest

import isorun

PRELOADS = {"preloads": ("json", "nosuch")}


def test_a_preload_asked_for_by_name_must_be_there(own, sealed: str) -> None:
    """No program is started without it, and no folder of a run is left."""
    with (
        pytest.raises(
            isorun.InvalidRequest, match=r"^preload nosuch failed: ModuleNotFoundError: .*; .+ cannot import it:"
        ),
        own(PRELOADS, preload=["json", "nosuch"]) as rt,
    ):
        rt.execute("print(1)", timeout_s=10)


def test_a_preload_of_the_settings_is_a_wish(own, sealed: str) -> None:
    """Each result has a notice, on every backend the same."""
    with own(PRELOADS) as rt:
        result = rt.execute("print(1)", timeout_s=10)
    assert result.ok
    assert result.notices == ("preload nosuch failed: ModuleNotFoundError: No module named 'nosuch'",)


@pytest.mark.parametrize("given", ["numpy", b"json", 5, ["json", 5], [""], {"json"}])
@pytest.mark.no_backend
def test_preloads_are_a_list_of_names(given: object, kind: str) -> None:
    """A text alone would be taken for a list of its letters."""
    with pytest.raises(isorun.InvalidRequest, match=r"^preload must be a list of names"):
        isorun.Runtime(preload=given)
