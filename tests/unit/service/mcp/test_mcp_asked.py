"""What a model asks for: only what was offered is taken, and each refusal says what to give."""

import base64
import re

import jsonschema
import pytest

from isorun.core.errors import InvalidRequest
from isorun.core.request import Named
from isorun.service.mcp.asked import (
    Reading,
    list_arguments,
    list_tool,
    read_arguments,
    read_tool,
    run_arguments,
    run_tool,
)
from isorun.service.mcp.uris import Place

TOOLS = {"stock.level": {"description": "How many.", "parameters": {"properties": {"item": {"type": "string"}}}}}
EVERY_WAY = {
    "code": "print(1)",
    "contract": [{"filename": "a.md", "description": "d"}],
    "timeout_s": 3,
    "files": [
        {"name": "a.txt", "text": "é"},
        {"name": "d/b.bin", "base64": base64.b64encode(b"\0\xff").decode()},
        {"name": "c.csv", "uri": "isorun://runs/mcp-1/out/x/c.csv"},
    ],
}


def test_what_is_offered_is_taken() -> None:
    """The schema allows a call that uses all of it; each file comes in its way, those of earlier runs later."""
    _, schema = run_tool({})
    jsonschema.validate(EVERY_WAY, schema)
    wanted = run_arguments(EVERY_WAY)
    assert (wanted.request.code, wanted.request.timeout_s) == (b"print(1)", 3.0)
    assert wanted.request.contract == EVERY_WAY["contract"]
    assert wanted.request.inputs == (Named("a.txt", "é".encode()), Named("d/b.bin", b"\0\xff"))
    assert wanted.later == {"c.csv": Place("mcp-1", "x/c.csv")}


def test_the_offer_names_what_programs_may_call() -> None:
    """The description of run_python has the tools of the bundle, and the schema the four arguments alone."""
    text, schema = run_tool(TOOLS)
    assert "stock.level(" in text
    assert list(schema["properties"]) == ["code", "contract", "timeout_s", "files"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "there is no code"),
        ({"code": 1}, "code must be text"),
        ({"code": "1", "inputs": {"a": {"path": "/etc/passwd"}}}, "no argument 'inputs'; it has code, contract"),
        ({"code": "1", "save_to": "/tmp"}, "no argument 'save_to'"),
        ({"code": "1", "timeout_s": -1}, "timeout_s must be positive"),
        ({"code": "1", "files": {"a": "b"}}, "files must be a list"),
        ({"code": "1", "files": [{}] * 101}, "at most 100 objects, got 101"),
        ({"code": "1", "files": ["/etc/passwd"]}, "file 1 must be an object"),
        ({"code": "1", "files": [{"name": "a"}]}, "file 1 ('a') needs one text"),
        ({"code": "1", "files": [{"name": "a", "text": "b", "uri": "c"}]}, "file 1 ('a') needs one text"),
        ({"code": "1", "files": [{"name": "a", "text": 1}]}, "file 1 ('a') needs one text"),
        ({"code": "1", "files": [{"name": "a", "path": "/etc/passwd"}]}, "file 1 has no key 'path'"),
        ({"code": "1", "files": [{"name": "a", "base64": "?"}]}, "file 1: its base64 cannot be decoded"),
        ({"code": "1", "files": [{"name": "../a", "text": ""}]}, "must be a relative path"),
        ({"code": "1", "files": [{"name": "/a", "uri": "isorun://runs/mcp-1/out/a"}]}, "must be a relative path"),
        ({"code": "1", "files": [{"name": "a", "uri": "file:///etc/passwd"}]}, "isorun://runs/<exec_id>/out/<path>"),
        ({"code": "1", "files": [{"name": "a", "text": ""}, {"name": "a", "text": ""}]}, "'a' is given twice"),
    ],
)
def test_what_was_not_offered_is_refused(arguments, text) -> None:
    """Each wrong argument of run_python is named, and nothing of this machine can be asked for."""
    with pytest.raises(InvalidRequest, match=re.escape(text)):
        run_arguments(arguments)


def test_a_part_of_a_file_is_asked_for() -> None:
    """The offset is 0 if it is left out; a whole number may come as 3.0, as some clients send it."""
    _, schema = read_tool()
    asked = {"exec_id": "mcp-1", "path": "a/b.csv"}
    jsonschema.validate(asked, schema)
    assert read_arguments(asked) == Reading(exec_id="mcp-1", path="a/b.csv", offset=0)
    assert read_arguments({**asked, "offset": 3.0}).offset == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"path": "a"}, "invalid_exec_id"),
        ({"exec_id": "../x", "path": "a"}, "invalid_exec_id"),
        ({"exec_id": "mcp-1"}, "invalid_path"),
        ({"exec_id": "mcp-1", "path": "../result.json"}, "invalid_path"),
        ({"exec_id": "mcp-1", "path": "a", "offset": -1}, "invalid_argument"),
        ({"exec_id": "mcp-1", "path": "a", "offset": True}, "invalid_argument"),
        ({"exec_id": "mcp-1", "path": "a", "offset": 1.5}, "invalid_argument"),
        ({"exec_id": "mcp-1", "path": "a", "offset": 1 << 80}, "invalid_argument"),
        ({"exec_id": "mcp-1", "path": "a", "limit": 1}, "unknown_option"),
    ],
)
def test_a_wrong_part_is_refused(arguments, code) -> None:
    """Each wrong argument of read_output has its code."""
    with pytest.raises(InvalidRequest) as caught:
        read_arguments(arguments)
    assert caught.value.code == code


def test_a_list_has_a_limit() -> None:
    """Twenty runs if nothing is said, a hundred at most."""
    _, schema = list_tool()
    jsonschema.validate({"limit": 100}, schema)
    assert (list_arguments({}), list_arguments({"limit": 100})) == (20, 100)
    for wrong in (0, 101, "3"):
        with pytest.raises(InvalidRequest, match="limit must be a whole number from 1 to 100"):
            list_arguments({"limit": wrong})
