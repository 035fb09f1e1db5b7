"""`isorun mcp` before it serves: what it says where its extra is missing."""

import sys

import pytest

from isorun.cli.commands import call
from isorun.core.errors import InvalidRequest


@pytest.mark.parametrize("missing", ["mcp", "mcp_types"])
def test_without_its_extra_it_says_what_to_install(missing, monkeypatch) -> None:
    """The package is named, with the command that brings it; nothing is opened."""
    for name in [*sys.modules]:
        if name.startswith(("mcp.", "mcp_types", "isorun.service.mcp.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InvalidRequest) as caught:
        call(["mcp"])
    assert str(caught.value) == (
        f"isorun mcp needs the package {missing}, which is not installed: pip install 'isorun[mcp]'"
    )
    assert caught.value.code == "missing_extra"


def test_another_missing_module_is_no_missing_extra(monkeypatch) -> None:
    """A module of ours that is not there is a bug, and is not explained by the extra."""
    for name in [*sys.modules]:
        if name.startswith("isorun.service.mcp."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "isorun.service.mcp.local", None)
    with pytest.raises(ModuleNotFoundError):
        call(["mcp"])
