"""The page about MCP clients: what is pasted is well formed, and starts a command that there is."""

import json
from pathlib import Path
from typing import Any

import pytest

from isorun.cli.commands import parser_of
from isorun.service.mcp import answers, asked
from tests.docs.pages import ROOT, blocks_of, rows_below

pytestmark = pytest.mark.any_user

PAGE = Path("docs/mcp.md")
PASTED = {block.marks["file"]: block for block in blocks_of(PAGE) if "file" in block.marks}


def command_of(name: str) -> dict[str, Any]:
    """The entry of our server in a client's file."""
    if name.endswith(".yaml"):  # one level of keys with scalars, for which no parser is installed
        lines = [line.strip().partition(": ") for line in PASTED[name].text.splitlines()[2:]]
        found: dict[str, Any] = {key: value for key, _, value in lines}
        return {**found, "args": found["args"].strip("[]").split(", ")}
    file = json.loads(PASTED[name].text)
    (key,) = file
    assert key == ("servers" if name.startswith(".vscode") else "mcpServers")
    entry: dict[str, Any] = file[key]["isorun"]
    return entry


def test_every_client_of_the_page_is_here() -> None:
    """A file for each of the clients that the page names."""
    assert set(PASTED) == {
        *("claude_desktop_config.json", ".mcp.json", ".cursor/mcp.json", ".vscode/mcp.json"),
        *("librechat.yaml", "mcpo.json", "elsewhere.json"),
    }


@pytest.mark.parametrize("name", PASTED)
def test_what_is_pasted_starts_the_server(name) -> None:
    """The words are `isorun mcp`, or end in them, and the command takes what follows."""
    entry = command_of(name)
    words = [entry["command"], *entry["args"]]
    at = words.index("mcp")
    assert words[at - 1].rpartition("/")[2] == "isorun"
    assert parser_of("mcp").read(words[at + 1 :]) == {}


def test_the_table_names_every_argument() -> None:
    """The tools of the page are those of the server, each with every argument that it takes."""
    rows = {
        tool.strip("`"): takes for tool, takes, _ in rows_below((ROOT / PAGE).read_text(), "## What the model can do")
    }
    offered = {"run_python": asked.run_tool({}), asked.READ: asked.read_tool(), asked.LIST: asked.list_tool()}
    assert list(rows) == list(offered)
    for name, (_, schema) in offered.items():
        assert all(f"`{argument}`" in rows[name] for argument in schema["properties"]), name


def test_the_page_knows_the_bounds() -> None:
    """Sizes and counts are those of the code."""
    text = (ROOT / PAGE).read_text()
    assert f"parts of {answers.PIECE_BYTES >> 10} KiB" in text
    assert (answers.MAX_PICTURES, answers.MAX_BYTES) == (5, 1 << 20)
    assert "at most 1 MiB is shown, five in one answer" in text
