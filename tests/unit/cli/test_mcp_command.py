"""`isorun mcp` before it serves: what it says where its extra is missing."""

import subprocess
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


@pytest.mark.slow
def test_its_extra_is_enough() -> None:
    """Nothing that only the extra `server` brings is imported: it may not be installed."""
    others = ("fastapi", "sqlalchemy", "aiosqlite", "asyncpg", "alembic", "redis", "jinja2", "prometheus_client")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({others}))\n"
        "import isorun.service.mcp.stdio, isorun.cli.mcp_server.command"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
